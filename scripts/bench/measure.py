"""One process measured; samples kept, written and compared."""

import dataclasses
import json
import os
import statistics
import subprocess
import tempfile
import time

from world import Failed


@dataclasses.dataclass
class Sample:
    """What one run of one contender took. What was not measured is None."""

    case: str
    contender: str
    round: int
    wall: float | None = None  # seconds
    cpu: float | None = None  # seconds, of the process and the children it waited for
    peak: int | None = None  # KiB
    requests: int | None = None
    mib: float | None = None  # of WAL moved, where throughput is the question


def process(started, arguments, cwd, environment=None, code=0):
    """Starts a program as its server would; returns wall and CPU seconds and peak KiB."""
    with tempfile.NamedTemporaryFile("r") as report:
        done = subprocess.run(
            [started, report.name, *map(str, arguments)], cwd=cwd, env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        numbers = report.read().split()
    if done.returncode != 0 or len(numbers) != 4 or numbers[3] != str(code):
        raise Failed(f"{' '.join(map(str, arguments))}: {numbers} {done.stderr.strip()[-1000:]}")
    return int(numbers[0]) / 1e9, int(numbers[1]) / 1e6, int(numbers[2])


def measured(bench, case, contender, turn, arguments, data, **more):
    settle()
    before = contender.line.requests() if contender.line else 0
    wall, cpu, peak = process(bench.started, arguments, data, contender.environment, contender.code)
    requests = contender.line.requests() - before if contender.line else None
    return Sample(case, contender.name, turn, wall, cpu, peak, requests, **more)


def machine_cpu():
    """CPU seconds that this machine spent on anything so far (proc(5), /proc/stat)."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Recorder:
    """Takes samples in, writes each at once."""

    def __init__(self, path):
        self.file = open(path, "a")
        self.samples = []

    def head(self, machine):
        self._write({"machine": machine})

    def add(self, sample):
        self.samples.append(sample)
        self._write({key: value for key, value in dataclasses.asdict(sample).items() if value is not None})

    def not_run(self, case, contender, why):
        self._write({"case": case, "contender": contender, "not_run": why})

    def _write(self, value):
        self.file.write(json.dumps(value) + "\n")
        self.file.flush()


def in_turn(recorder, say, case, contenders, rounds, once):
    """A B C A B C …: `once(contender, round)` returns a Sample. A contender that fails is left out
    from then on and said to be; its earlier samples stay."""
    alive = []
    for contender in contenders:
        if contender.why_not:
            say(f"    {contender.name}: not run: {contender.why_not}")
            recorder.not_run(case, contender.name, contender.why_not)
        else:
            alive.append(contender)
    for turn in range(rounds):
        for contender in list(alive):
            if contender.rounds is not None and turn >= contender.rounds:
                continue
            try:
                recorder.add(once(contender, turn))
            except Failed as failed:
                alive.remove(contender)
                say(f"    {contender.name}: failed: {failed}")
                recorder.not_run(case, contender.name, f"failed in round {turn}: {failed}")


def spread(values):
    return min(values), statistics.median(values), max(values)


def settle():
    """Lets what earlier runs wrote reach the disk."""
    os.sync()
    time.sleep(0.05)
