"""scripts/bench.sh's second half: runs cases as the user that PostgreSQL runs as."""

import argparse
import datetime
import os
import shutil
import sys
from pathlib import Path

import archivers
import cases
import machine
import report
from cases import LZ4, ZST3
from measure import Recorder
from store import Store
from world import Failed, Template


class Bench:
    """What the cases share, and the contenders by name."""

    def __init__(self, options):
        self.run = options.work / "run"
        shutil.rmtree(self.run, ignore_errors=True)
        self.run.mkdir()
        self.binaries = options.work / "bin"
        self.started = self.binaries / "started"
        self.template = Template(options.work, options.segments)
        self.recorder = Recorder(options.work / "run.jsonl")
        self.rounds, self.long_rounds = options.rounds, options.long_rounds
        self.delays = options.delays
        self.before = options.before
        self.walg_paths = [("WAL-G", options.walg, ("zstd", "lz4")), ("WAL-RUS", options.walrus, ("zstd",))]
        self.store = Store(options.versitygw, self.run / "s3")
        self.limit_of = archivers.Nothing(self.run / "limit")
        self.limit_of.name = "zstd + sha256 on two cores"
        self.count = 0

    def say(self, text):
        print(text, flush=True)

    def folder(self):
        self.count += 1
        return self.run / f"archive-{self.count}"

    def ours(self, name, delay=None, look_ahead=None, prefetch=None, alone=False, encrypted=None):
        """`alone`: a fetch without prefetch, whether or not this version knows of any."""
        line = None if delay is None or self.store.why_not else self.store.line(delay)
        made = archivers.Ours(name, self.folder(), self.binaries, line, look_ahead, prefetch, self.store, encrypted)
        if alone and made.has("wal-fetch", "--prefetch"):
            made.prefetch = 0
        if delay is not None and self.store.why_not:
            made.why_not = self.store.why_not
        return made

    def ours_before(self, name):
        """The programs of another version, where it was given."""
        folder = Path(self.before) if self.before else self.binaries
        made = archivers.Ours(name, self.folder(), folder)
        if not self.before:
            made.why_not = "no folder with another version's programs given (BEFORE=/path)"
        return made

    def nothing(self):
        return archivers.Nothing(self.folder())

    def floor(self):
        return archivers.Floor(self.folder(), self.binaries)

    def copy(self):
        return archivers.Copy(self.folder())

    def pgbackrest(self, compress, asynchronous, delay=None):
        line = None if delay is None else self.store.line(delay, tls=True)
        return archivers.PgBackRest(self.folder(), compress, asynchronous, line, self.store)

    def walg(self, delay=None, mib=16):
        line = None if delay is None else self.store.line(delay)
        return [archivers.WalG(name, self.folder(), path, compress, line, self.store, mib)
                for name, path, all_of in self.walg_paths for compress in all_of]

    def local_peers(self):
        return [self.copy(), self.pgbackrest(ZST3, False), self.pgbackrest(LZ4, False), *self.walg(), self.nothing()]

    def barman(self, delay, compress=None):
        return archivers.Barman(self.folder(), self.store.line(delay), self.store, compress)

    def s3_peers(self, delay, asynchronous=False):
        if self.store.why_not:
            return []
        return [self.pgbackrest(ZST3, asynchronous, delay), self.pgbackrest(LZ4, asynchronous, delay), *self.walg(delay)]


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description="Measures whole processes side by side, in turn.")
    parser.add_argument("case", nargs="*", help=f"of {', '.join(cases.ALL)}; none: all of them")
    parser.add_argument("--rounds", type=int, default=15, help="of cases with single processes (15)")
    parser.add_argument("--long-rounds", type=int, default=5, help="of backlogs and recoveries (5)")
    parser.add_argument("--segments", type=int, default=64, help="in the backlog (64)")
    parser.add_argument("--delays", type=lambda text: [int(part) for part in text.split(",")], default=[0, 20, 100],
                        help="added round trips of S3 in ms (0,20,100)")
    parser.add_argument("--judge", type=Path, help="only prints the tables of this file of results")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--versitygw", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--revision", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.judge:
        report.show(report.read(options.judge))
        return
    if unknown := set(options.case) - set(cases.ALL):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    options.walg, options.walrus, options.before = map(os.environ.get, ("WALG", "WALRUS", "BEFORE"))
    # The settings of this machine's own archive, if it has one, are none of the measurement's.
    for variable in list(os.environ):
        if variable.startswith(("WAL_ARCHIVE", "WALG_", "AWS_", "PG")):
            del os.environ[variable]
    bench = Bench(options)
    try:
        bench.template.make(bench.say)
        bench.recorder.head(machine.describe(bench, options.revision))
        for name in options.case or cases.ALL:
            bench.say(f"==> {name}: {cases.ALL[name].__doc__}")
            cases.ALL[name](bench)
    finally:
        bench.store.stop()
    report.show(report.read(options.work / "run.jsonl"))
    shutil.rmtree(bench.run)


try:
    main()
except Failed as failed:
    sys.exit(f"bench.sh: {failed}")
