"""What is measured: each case is one function over a `Bench`."""

import datetime
import filecmp
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import archivers
from measure import Sample, in_turn, machine_cpu, process, settle
from world import MIB, SEGMENT, Failed, Server, until

ZST3, LZ4 = ("zst", 3), ("lz4", None)


def push(bench):
    """One busy segment into a local archive, each in a process of its own."""
    name = bench.template.typical()
    data = bench.template.stub(bench.run / "data", [name])
    contenders = [bench.ours("wal-push"), bench.ours("wal-push, encrypted", encrypted="recipient"), bench.floor(),
                  *bench.local_peers()]
    one_segment(bench, "push", contenders, data, name, pushed(bench, "push", data, name))


def fetch(bench):
    """One busy segment out of a local archive, and one that is nearly empty."""
    for case, name in (("fetch", bench.template.typical()), ("fetch, nearly empty", bench.template.emptiest())):
        data = bench.template.stub(bench.run / "data", [name])
        contenders = [bench.ours("wal-fetch", alone=True), bench.ours("wal-fetch, encrypted", alone=True, encrypted="identity"),
                      bench.floor(), *bench.local_peers()]
        one_segment(bench, case, contenders, data, name, fetched(bench, case, data, name))


def s3(bench):
    """One busy segment into a bucket and out of it, over lines with different round trips."""
    name = bench.template.typical()
    data = bench.template.stub(bench.run / "data", [name])
    for delay in bench.delays:
        contenders = [bench.ours(f"wal-push, {delay} ms", delay=delay), *bench.s3_peers(delay)]
        one_segment(bench, "s3 push", contenders, data, name, pushed(bench, "s3 push", data, name))
        contenders = [bench.ours(f"wal-fetch, {delay} ms", delay=delay, alone=True), *bench.s3_peers(delay)]
        one_segment(bench, "s3 fetch", contenders, data, name, fetched(bench, "s3 fetch", data, name))


def one_segment(bench, case, contenders, data, name, once):
    for contender in contenders:
        if not contender.why_not:
            contender.prepare(data)
            contender.warm_up(data, name)
    in_turn(bench.recorder, bench.say, case, contenders, bench.rounds, once)


def measured(bench, case, contender, turn, arguments, data, **more):
    settle()
    before = contender.line.requests() if contender.line else 0
    wall, cpu, peak = process(bench.started, arguments, data, contender.environment)
    requests = contender.line.requests() - before if contender.line else None
    return Sample(case, contender.name, turn, wall, cpu, peak, requests, **more)


def pushed(bench, case, data, name):
    def once(contender, turn):
        sample = measured(bench, case, contender, turn, contender.push(f"pg_wal/{name}"), data)
        if not contender.forget(name) and not isinstance(contender, archivers.Nothing):
            raise Failed("it stored nothing")
        return sample

    return once


def fetched(bench, case, data, name):
    target = data / "pg_wal/RECOVERYXLOG"

    def once(contender, turn):
        if name not in contender.stored():
            process(bench.started, contender.push(f"pg_wal/{name}"), data, contender.environment)
        target.unlink(missing_ok=True)
        sample = measured(bench, case, contender, turn, contender.fetch(name, "pg_wal/RECOVERYXLOG"), data)
        if not isinstance(contender, archivers.Nothing) and not filecmp.cmp(target, data / "pg_wal" / name, False):
            raise Failed("it delivered something else")
        return sample

    return once


def ahead(bench):
    """A push that looks 16 segments ahead, then the push that finds its mark."""
    names = bench.template.names()[:17]
    data = bench.template.stub(bench.run / "data", names)
    ours, nothing = bench.ours("wal-push with 16 ahead", look_ahead=16), bench.nothing()
    marked = bench.ours("marked wal-push", look_ahead=16)
    marked.folder = ours.folder
    status = data / "pg_wal/archive_status"
    first, second = names[0], names[1]

    def once(contender, turn):
        if contender is nothing:
            return measured(bench, "ahead", nothing, turn, nothing.push(f"pg_wal/{second}"), data)
        if contender is marked:
            (status / f"{first}.ready").rename(status / f"{first}.done")  # as the server does by now
            try:
                return measured(bench, "ahead", marked, turn, marked.push(f"pg_wal/{second}"), data)
            finally:
                (status / f"{first}.done").rename(status / f"{first}.ready")
        ours.prepare(data)  # without the marks of the last round
        ours.warm_up(data, first)
        settle()
        sample = measured(bench, "ahead", ours, turn, ours.push(f"pg_wal/{first}"), data, mib=len(names) * 16)
        if missing := set(names) - ours.stored():
            raise Failed(f"it did not store {sorted(missing)}")
        return sample

    in_turn(bench.recorder, bench.say, "ahead", [ours, marked, nothing], bench.rounds, once)


def prefetched(bench):
    """A fetch whose segment the prefetcher brought before, and what the prefetcher takes."""
    names = bench.template.names()[:10]
    data = bench.template.stub(bench.run / "data", names)
    ours, nothing = bench.ours("prefetched wal-fetch", prefetch=8), bench.nothing()
    spool = data.with_name("data.wal-spool")
    if not ours.why_not:
        ours.prepare(data)
        for name in names:
            ours.push_quietly(data, name)
        (data / "recovery.signal").touch()

    def playing_the_postmaster():
        # What prefetchers see of a server in recovery (miscadmin.h, LOCK_FILE_LINE_*).
        lines = [os.getpid(), data, int(time.time()), 5432, data.parent, "", "", "ready"]
        (data / "postmaster.pid").write_text("".join(f"{line}\n" for line in lines))

    def brought():
        return len(list(spool.glob("prefetch-*/*.seal"))) >= 8

    def once(contender, turn):
        target = "pg_wal/RECOVERYXLOG"
        (data / target).unlink(missing_ok=True)
        if contender is nothing:
            return measured(bench, "prefetched", nothing, turn, nothing.fetch(names[1], target), data)
        playing_the_postmaster()
        with Peaks("wal-fetch") as peaks:
            process(bench.started, ours.fetch(names[0], target), data)
            until(20, "the prefetcher to bring 8 segments", brought)
            time.sleep(0.2)
        bench.recorder.add(Sample("prefetched", "the prefetcher", turn, peak=peaks.highest))
        (data / target).unlink()  # as PostgreSQL does before it asks
        sample = measured(bench, "prefetched", ours, turn, ours.fetch(names[1], target), data)
        if not filecmp.cmp(data / target, data / "pg_wal" / names[1], False):
            raise Failed("it delivered something else")
        (data / "postmaster.pid").unlink()
        until(20, "the prefetcher's end", lambda: not any(statuses("wal-fetch")))
        shutil.rmtree(spool)
        return sample

    in_turn(bench.recorder, bench.say, "prefetched", [ours, nothing], bench.rounds, once)


class Peaks:
    """Watches the peak memory of processes of one name. The kernel's own high-water mark is read
    every 2 ms, so only growth in a process's last 2 ms goes unseen."""

    def __init__(self, name):
        self.name, self.highest, self.over = name, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def watch(self):
        while not self.over.wait(0.002):
            for status in statuses(self.name):
                if found := re.search(r"VmHWM:\s*(\d+)", status):
                    self.highest = max(self.highest, int(found[1]))


def statuses(name):
    """proc(5), /proc/PID/status, of this user's processes of that name."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
            if status.startswith(f"Name:\t{name}\n") and folder.stat().st_uid == os.getuid():
                yield status
        except OSError:
            continue  # it ended meanwhile


def backlog(bench):
    """The same backlog through PostgreSQL's own archiver, into a local archive."""
    contenders = [
        bench.ours("wal-push"), bench.ours("wal-push, look-ahead off", look_ahead=0), *bench.local_peers(),
        bench.pgbackrest(ZST3, True), bench.pgbackrest(LZ4, True),
    ]
    drain(bench, "backlog", contenders, limit=True)


def s3_backlog(bench):
    """The same into a bucket."""
    for delay in bench.delays:
        contenders = [
            bench.ours(f"wal-push, {delay} ms", delay=delay),
            bench.ours(f"wal-push, look-ahead off, {delay} ms", delay=delay, look_ahead=0),
        ]
        drain(bench, "s3 backlog", contenders)


def drain(bench, case, contenders, limit=False):
    """One server for all of them. Between two runs its .done files become .ready again; without
    load, and without a checkpoint, nothing else in it changes."""
    names = bench.template.names()
    server = Server(bench.template.copy(bench.run / "data"), archivers.s3.ENVIRONMENT)
    server.set(archive_command="", checkpoint_timeout="1d", max_wal_size="64GB", autovacuum="off")
    bench.template.warm()
    server.start()
    status = server.pg_wal / "archive_status"

    def archived(contender):
        if server.process.poll() is not None:
            raise Failed("the server ended")
        return not any(entry.name.endswith(".ready") for entry in os.scandir(status))

    def once(contender, turn):
        if contender is bench.limit_of:
            settle()
            arguments = [bench.binaries / "floor", "limit", *(server.pg_wal / name for name in names)]
            wall, cpu, peak = process(bench.started, arguments, server.data)
            return Sample(case, contender.name, turn, wall, cpu, peak, mib=len(names) * SEGMENT / MIB)
        contender.prepare(server.data)
        contender.warm_up(server.data, names[0])
        if contender.stored():
            raise Failed("it had stored segments before it was asked to")
        settle()
        requests = contender.line.requests() if contender.line else 0
        try:
            cpu, start = machine_cpu(), time.monotonic()
            server.set(archive_command=contender.archive_command())
            until(300, f"the archiver; its log: {server.log.read_text()[-1500:]}", lambda: archived(contender))
            wall, cpu = time.monotonic() - start, machine_cpu() - cpu
        finally:
            server.set(archive_command="")
            contender.finish()
            time.sleep(0.3)  # the archiver sees the new setting before its work is back
            for path in status.glob("*.done"):
                path.rename(path.with_suffix(".ready"))
        if contender.line:
            requests = contender.line.requests() - requests
        if not isinstance(contender, archivers.Nothing) and (missing := set(names) - contender.stored()):
            raise Failed(f"it did not store {sorted(missing)}")
        return Sample(case, contender.name, turn, wall, cpu, None, requests if contender.line else None,
                      len(names) * SEGMENT / MIB)

    try:
        more = [bench.limit_of] if limit else []
        in_turn(bench.recorder, bench.say, case, contenders + more, bench.long_rounds, once)
    finally:
        server.stop(signal.SIGQUIT)  # no checkpoint: the segments stay


def recovery(bench):
    """Archive recovery of a base backup, from the start of redo to its end."""
    contenders = [
        bench.copy(), bench.ours("wal-fetch"), bench.ours("wal-fetch, prefetch off", prefetch=0),
        bench.pgbackrest(ZST3, False), *bench.walg(),
        bench.ours("wal-fetch, S3, 20 ms", delay=20),
        bench.ours("wal-fetch, prefetch off, S3, 20 ms", delay=20, prefetch=0),
    ]
    names = sorted(bench.template.sizes())
    data = bench.template.stub(bench.run / "data", names)
    for contender in contenders:
        if not contender.why_not:
            contender.prepare(data)
            for name in names:
                contender.push_quietly(data, name)
    ends = set()

    def once(contender, turn):
        folder = bench.run / "recovered"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_name("recovered.wal-spool"), ignore_errors=True)
        shutil.copytree(bench.template.base, folder)
        os.chmod(folder, 0o700)
        contender.recover_into(folder)
        server = Server(folder, contender.environment)
        server.set(archive_mode="off", restore_command=contender.restore_command())
        (folder / "recovery.signal").touch()
        settle()
        requests = contender.line.requests() if contender.line else None
        cpu = machine_cpu()
        server.launch()
        try:
            until(600, "the end of recovery", lambda: server.has_logged("archive recovery complete"))
        finally:
            server.stop(signal.SIGQUIT)
        cpu = machine_cpu() - cpu
        log = server.log.read_text()
        restored = log.count("restored log file")
        if restored < len(names) - 2:
            raise Failed(f"only {restored} files were restored: {log[-1500:]}")
        ends.update(re.findall(r"redo done at (\S+)", log))
        if len(ends) != 1:
            raise Failed(f"redo ended at different places: {sorted(ends)}")
        wall = logged(log, "archive recovery complete") - logged(log, "starting archive recovery")
        if contender.line:
            requests = contender.line.requests() - requests
        return Sample("recovery", contender.name, turn, wall.total_seconds(), cpu, None, requests,
                      restored * SEGMENT / MIB)

    in_turn(bench.recorder, bench.say, "recovery", contenders, bench.long_rounds, once)


def logged(log, text):
    """When the server said so, to the millisecond."""
    line = next(line for line in log.splitlines() if text in line)
    return datetime.datetime.strptime(" ".join(line.split()[:2]), "%Y-%m-%d %H:%M:%S.%f")


ALL = {"push": push, "fetch": fetch, "ahead": ahead, "prefetched": prefetched, "backlog": backlog,
       "recovery": recovery, "s3": s3, "s3-backlog": s3_backlog}
