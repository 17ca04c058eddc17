"""The machine that numbers belong to, without its name or its paths."""

import datetime
import os
import platform
import re
import statistics
import subprocess


def first_line(arguments):
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError:
        return None
    return (done.stdout or done.stderr).strip().splitlines()[0] if done.returncode == 0 else None


def describe(bench, revision):
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    with open("/proc/meminfo") as file:
        memory = int(re.search(r"MemTotal:\s*(\d+)", file.read())[1]) >> 10
    sizes = sorted(bench.template.sizes()[name] for name in bench.template.names())
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        "revision": revision,
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_mib": memory,
        "kernel": platform.release(),
        "file_system": first_line(["stat", "-f", "-c", "%T", bench.run]),
        "postgresql": first_line(["psql", "--version"]),
        "pgbackrest": first_line(["pgbackrest", "version"]),
        "barman_cloud": first_line(["barman-cloud-wal-archive", "--version"]),
        "versitygw": "1.8.0" if not bench.store.why_not else None,
        "segments": {"count": len(sizes), "bytes": 16 << 20, "zstd_1_bytes": {
            "min": sizes[0], "median": int(statistics.median(sizes)), "max": sizes[-1],
            "of_the_single_one": bench.template.sizes()[bench.template.typical()]}},
    }
