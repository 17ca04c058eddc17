"""Tables and verdicts out of a file of results."""

import json
import re
import statistics


class Results:
    """Samples by case and contender, and what was not run."""

    def __init__(self):
        self.machines, self.samples, self.missing = [], {}, {}

    def of(self, case, contender, what="wall"):
        found = self.samples.get(case, {}).get(contender, [])
        return [sample[what] for sample in found if sample.get(what) is not None]


def read(path):
    results = Results()
    with open(path) as file:
        for line in map(json.loads, file):
            if "machine" in line:
                results.machines.append(line["machine"])
            elif "not_run" in line:
                results.missing.setdefault(line["case"], {})[line["contender"]] = line["not_run"]
            else:
                results.samples.setdefault(line["case"], {}).setdefault(line["contender"], []).append(line)
    return results


# The promises, over medians of one file. Kinds: `times` is wall of the first over wall of the
# second, `faster` the inverse, `more` their difference in ms, `peak` the first's memory in MiB.
# `beyond` is `times` without what starting the first takes. BEST is the peer that took least.
BEST = "the best peer"
PROMISES = [
    ("push", "beyond", "wal-push", "raw floor", 1.10),
    ("push", "more", "wal-push", "wal-push, before", 2.5),
    ("push", "times", "wal-push, encrypted", "wal-push", 1.10),
    ("fetch", "times", "wal-fetch", "raw floor", 1.25),
    ("fetch", "times", "wal-fetch", "pgBackRest sync, zst 3", 0.6),
    ("fetch", "times", "wal-fetch, encrypted", "wal-fetch", 1.15),
    ("fetch, nearly empty", "times", "wal-fetch", "raw floor", 1.25),
    ("fetch, nearly empty", "times", "wal-fetch", "pgBackRest sync, zst 3", 0.6),
    ("fetch, 64 MiB", "times", "wal-fetch", "raw floor", 1.25),
    ("fetch, 1024 MiB", "times", "wal-fetch", "raw floor", 1.25),
    ("ahead", "more", "marked wal-push", "/bin/true", 2.5),
    ("ahead", "more", "marked wal-push, bucket", "/bin/true", 1.5),
    ("prefetched", "more", "prefetched wal-fetch", "/bin/true", 1.5),
    ("waiting", "more", "wal-push, 100,000 waiting", "wal-push, 1 waiting", 5),
    ("waiting", "more", "marked wal-push, 100,000 waiting", "marked wal-push, 1 waiting", 5),
    ("backlog", "faster", "wal-push", "pgBackRest async, 2 processes, lz4", 1.3),
    ("backlog", "faster", "wal-push", "zstd + sha256 on two cores", 0.85),
    ("backlog", "faster", "wal-push", "wal-push, look-ahead off", 1.3),
    ("recovery", "times", "wal-fetch", "cp", 0.95),
    ("recovery", "times", "wal-fetch, S3, 20 ms", "cp", 1.25),
    ("recovery", "times", "wal-fetch, S3, 20 ms", BEST, 1),
    ("s3 backlog", "faster", "wal-push, 20 ms", BEST, 3),
    ("s3 backlog", "faster", "wal-push, 100 ms", BEST, 3),
    ("s3 backlog", "faster", "wal-push, 100 ms", "wal-push, look-ahead off, 100 ms", 5),
    ("backup", "faster", "wal-archive backup", "pg_basebackup + zstd -1", 0.9),
    ("restore", "faster", "wal-archive restore", "zstd -dc + tar x", 0.9),
    ("backup", "peak", "wal-archive backup", None, 5 * 40 + 64),
    ("restore", "peak", "wal-archive restore", None, 5 * 40 + 64),
    ("ahead", "peak", "wal-push, both processes", None, 96),
    ("push", "peak", "wal-push, both processes", None, 18),
    ("fetch", "peak", "wal-fetch, both processes", None, 18),
    ("push, 1024 MiB", "peak", "wal-push, both processes", None, 64),
    ("fetch, 1024 MiB", "peak", "wal-fetch, both processes", None, 64),
    ("prefetched", "peak", "the prefetcher", None, 64),
    ("large, local", "peak", "wal-archive list", None, 64),
    ("large, bucket", "peak", "wal-archive list", None, 64),
]

OURS = ("wal-push", "wal-fetch")
PEERS = ("WAL-G", "WAL-RUS", "pgBackRest", "barman-cloud")
LINE = re.compile(r"(, S3)?, \d+ ms$")


def show(results):
    for machine in results.machines:
        print(f"\n{machine['date']}, {machine['revision']}: {machine['cores']} cores {machine['cpu']}, "
              f"{machine['memory_mib']} MiB, Linux {machine['kernel']}, {machine['file_system']}; "
              f"{machine['postgresql']}; segments by zstd -1: {machine['segments']['zstd_1_bytes']}")
    for case in {**results.samples, **results.missing}:
        table(results, case)
    print("\n| promise | measured | |\n|---|---|---|")
    for promise in PROMISES:
        print("| {} | {} | {} |".format(*verdict(results, *promise)))
    for case in results.samples:
        if nearest := rival(results, case):
            print("| {} | {} | {} |".format(*verdict(results, case, "times", *nearest, 1)))


def table(results, case):
    contenders = results.samples.get(case, {})
    reference = next((name for name in contenders if results.of(case, name)), None)
    print(f"\n### {case}\n")
    print(f"| | n | wall ms: min | median | max | × {reference} | CPU ms | peak MiB | requests | MiB/s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for contender in contenders:
        cells = [contender, len(contenders[contender])]
        if wall := results.of(case, contender):
            median, base = statistics.median(wall), statistics.median(results.of(case, reference))
            cells += [*(f"{value * 1000:.1f}" for value in (min(wall), median, max(wall))), f"{median / base:.2f}"]
        else:
            cells += [""] * 4
        for what, scale, form in (("cpu", 1000, ".0f"), ("peak", 1 / 1024, ".1f"), ("requests", 1, "g")):
            found = results.of(case, contender, what)
            cells.append(format(statistics.median(found) * scale, form) if found else "")
        mib = results.of(case, contender, "mib")
        cells.append(f"{mib[0] / median:.0f}" if mib and wall else "")
        print("| " + " | ".join(map(str, cells)) + " |")
    for contender, why in results.missing.get(case, {}).items():
        print(f"| {contender} | not run: {why.splitlines()[0]} |")


def same_line(one, other):
    """Whether both went over the same line to a bucket, or neither to one."""
    lines = [found and found[0] for found in map(LINE.search, (one, other))]
    return lines[0] == lines[1]


def rival(results, case):
    """Ours, and the contender of WAL-G and WAL-RUS that comes nearest to it over the same line."""
    medians = {name: statistics.median(results.of(case, name))
               for name in results.samples[case] if results.of(case, name)}
    pairs = []
    for peer in (name for name in medians if name.startswith(("WAL-G", "WAL-RUS"))):
        ours = next((name for name in medians if name.startswith(OURS) and same_line(name, peer)), None)
        if ours:
            pairs.append((ours, peer))
    return max(pairs, key=lambda pair: medians[pair[0]] / medians[pair[1]], default=None)


def best_peer(results, case, ours):
    rivals = [name for name in results.samples.get(case, {}) if name.startswith(PEERS) and same_line(name, ours)]
    timed = [name for name in rivals if results.of(case, name)]
    return min(timed, key=lambda name: statistics.median(results.of(case, name)), default=None)


def verdict(results, case, kind, first, second, limit):
    if second == BEST:
        second = best_peer(results, case, first) or BEST
    signs = {"times": "<=", "beyond": "<=", "faster": ">=", "more": "<=", "peak": "<="}
    texts = {"beyond": f"{first} without its start {signs[kind]} {limit} x {second}", "times": f"{first} {signs[kind]} {limit} x {second}", "faster": f"{first} {signs[kind]} {limit} x the speed of {second}",
             "more": f"{first} {signs[kind]} {second} + {limit} ms", "peak": f"{first}: peak memory {signs[kind]} {limit} MiB"}
    text = f"{case}: {texts[kind]}"
    mine = results.of(case, first, "peak" if kind == "peak" else "wall")
    other = results.of(case, second) if second else mine
    if not mine or not other:
        return text, "not run", ""
    if kind == "peak":
        value = max(mine) / 1024
    elif kind == "more":
        value = (statistics.median(mine) - statistics.median(other)) * 1000
    elif kind == "beyond":
        start = results.of(case, f"{first} --version")
        value = (statistics.median(mine) - (statistics.median(start) if start else 0)) / statistics.median(other)
    elif kind == "times":
        value = statistics.median(mine) / statistics.median(other)
    else:
        value = statistics.median(other) / statistics.median(mine)
    held = value >= limit if signs[kind] == ">=" else value <= limit
    return text, f"{value:.2f}", "held" if held else "**missed**"
