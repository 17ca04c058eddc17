"""Long backlogs and large archives."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import archivers
import bulk
import store
from measure import in_turn, measured, process
from world import until

MILLION, MANY = 1_000_000, 100_000
QUICK_DELAY = 10  # ms


def waiting(bench):
    """A push, and one that finds its mark, with one and with 100,000 .ready files."""
    names = bench.template.names()[:2]
    contenders, places = [], {}
    for count, text in ((1, "1"), (MANY, "100,000")):
        data = bench.template.stub(bench.run / f"waiting-{count}", names)
        status = data / "pg_wal/archive_status"
        for number in range(count - 1):  # far behind those that are asked for
            (status / f"{bulk.segment(0x10000 + number)}.ready").touch()
        pushing = bench.ours(f"wal-push, {text} waiting")
        ours = bench.ours(f"marked wal-push, {text} waiting")
        for made in (pushing, ours):
            contenders.append(made)
            places[made] = data
    nothing = bench.nothing()
    places[nothing] = data
    first, second = names

    def once(contender, turn):
        if contender is nothing:
            return measured(bench, "waiting", contender, turn, contender.push(first), data)
        here = places[contender]
        status = here / "pg_wal/archive_status"
        contender.prepare(here)
        contender.warm_up(here, first)
        if not contender.name.startswith("marked"):
            return measured(bench, "waiting", contender, turn, contender.push(f"pg_wal/{second}"), here)
        process(bench.started, contender.push(f"pg_wal/{first}"), here)
        (status / f"{first}.ready").rename(status / f"{first}.done")
        try:
            return measured(bench, "waiting", contender, turn, contender.push(f"pg_wal/{second}"), here)
        finally:
            (status / f"{first}.done").rename(status / f"{first}.ready")

    in_turn(bench.recorder, bench.say, "waiting", [*contenders, nothing], bench.rounds, once)
    for here in set(places.values()):
        shutil.rmtree(here)


def large(bench):
    """Archives of 1,000,000 segments: list and a miss; verify --quick of 100,000 in a bucket."""
    local(bench)
    remote(bench)


def local(bench):
    folder = bench.template.folder.parent / "million"
    data = bench.template.stub(bench.run / "data", [])
    ours = bench.ours("a miss among 1,000,000")
    few = bench.ours("a miss among 1")
    few.prepare(data)
    populate(bench, folder)
    ours.prepare(data)
    shutil.rmtree(ours.folder / "wal_005", ignore_errors=True)
    (few.folder / "wal_005").mkdir(exist_ok=True)
    shutil.copyfile(folder / f"{bulk.segment(1)}.zst", few.folder / f"wal_005/{bulk.segment(1)}.zst")
    listing = [bench.binaries / "wal-archive", "list", "--config", ours.config()]
    find = ["find", ours.folder, "-name", "*.zst", "-printf", "%f %s\\n"]
    contenders = [
        archivers.Command("wal-archive list", listing), archivers.Command("find -printf", find),
        archivers.Command(ours.name, ours.fetch(bulk.segment(MILLION + 1), "pg_wal/RECOVERYXLOG"), 1),
        archivers.Command(few.name, few.fetch(bulk.segment(2), "pg_wal/RECOVERYXLOG"), 1),
    ]
    folder.rename(ours.folder / "wal_005")
    try:
        commands(bench, "large, local", contenders, data)
    finally:
        (ours.folder / "wal_005").rename(folder)


def populate(bench, folder):
    """Many names of few files: links cost no inodes. Kept for later runs."""
    mark = folder.with_name("million.complete")
    if mark.exists():
        return
    bench.say("making 1,000,000 objects (once; kept for later runs)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number in range(1, MILLION + 1):
        path = folder / f"{bulk.segment(number)}.zst"
        if number % 50_000 == 1:  # below ext4's limit of links to one file
            file = path
            file.write_bytes(bytes(bulk.FRAME + bulk.TRAILER))
        else:
            os.link(file, path)
    mark.touch()


class Bulk:
    """bulk.py, serving."""

    def __init__(self, bench, count, delay):
        self.port = store.free_port()
        self.delay = delay
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("bulk.py"), "serve", str(self.port), str(count),
             bench.template.system_id(), str(delay)],
            stdin=subprocess.DEVNULL)
        until(20, "the listing server", lambda: store.answers(self.port))
        self.config = bench.folder().with_suffix(".toml")
        lines = store.settings("archive", f"http://127.0.0.1:{self.port}")
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o600)

    def requests(self):
        return bulk.asked(self.port)

    def command(self, name, arguments):
        made = archivers.Command(name, arguments)
        made.line = self
        return made

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def remote(bench):
    program = bench.binaries / "wal-archive"
    served = Bulk(bench, MILLION, 0)
    try:
        commands(bench, "large, bucket", [
            served.command("wal-archive list", [program, "list", "--config", served.config]),
            served.command("the listing alone", [sys.executable, bulk.__file__, "read", served.port]),
        ], bench.run)
    finally:
        served.stop()
    served = Bulk(bench, MANY, QUICK_DELAY)
    try:
        name = f"wal-archive verify --quick, 100,000 objects, {QUICK_DELAY} ms"
        quick = served.command(name, [program, "verify", "--quick", "--config", served.config])
        quick.rounds = 1
        commands(bench, "large, bucket", [quick], bench.run)
    finally:
        served.stop()


def commands(bench, case, contenders, where):
    def once(contender, turn):
        return measured(bench, case, contender, turn, contender.arguments, where)

    in_turn(bench.recorder, bench.say, case, contenders, min(bench.long_rounds, 3), once)
