"""What is measured: each case is one function over a `Bench`. `large` has those of large archives."""

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
import backups
import large
from measure import Sample, in_turn, machine_cpu, measured, process, settle
from world import MIB, SEGMENT, Failed, Server, until

ZST3, LZ4 = ("zst", 3), ("lz4", None)


def push(bench):
    """One busy segment into a local archive, each in a process of its own."""
    name = bench.template.typical()
    data = bench.template.stub(bench.run / "data", [name])
    ours = bench.ours("wal-push")
    start = archivers.Command("wal-push --version", [bench.binaries / "wal-push", "--version"])
    contenders = [ours, bench.ours("wal-push, encrypted", encrypted="recipient"), bench.ours_before("wal-push, before"),
                  bench.floor(), *bench.local_peers(), start]
    one_segment(bench, "push", contenders, data, name, pushed(bench, "push", data, name))
    memory(bench, "push", ours, ours.push(f"pg_wal/{name}"), data, lambda: ours.forget(name))


def fetch(bench):
    """One busy segment out of a local archive, and one that is nearly empty."""
    for case, name in (("fetch", bench.template.typical()), ("fetch, nearly empty", bench.template.emptiest())):
        data = bench.template.stub(bench.run / "data", [name])
        ours = bench.ours("wal-fetch", alone=True)
        contenders = [ours, bench.ours("wal-fetch, encrypted", alone=True, encrypted="identity"), bench.floor(),
                      *bench.local_peers()]
        one_segment(bench, case, contenders, data, name, fetched(bench, case, data, name))
        memory(bench, case, ours, ours.fetch(name, "pg_wal/RECOVERYXLOG"), data, without(data))


def s3(bench):
    """One busy segment into a bucket and out of it, over lines with different round trips."""
    name = bench.template.typical()
    data = bench.template.stub(bench.run / "data", [name])
    for delay in bench.delays:
        contenders = [bench.ours(f"wal-push, {delay} ms", delay=delay), *bench.s3_peers(delay), *barmans(bench, delay)]
        one_segment(bench, "s3 push", contenders, data, name, pushed(bench, "s3 push", data, name), bench.long_rounds)
        contenders = [bench.ours(f"wal-fetch, {delay} ms", delay=delay, alone=True), *bench.s3_peers(delay),
                      *barmans(bench, delay)]
        one_segment(bench, "s3 fetch", contenders, data, name, fetched(bench, "s3 fetch", data, name), bench.long_rounds)


def barmans(bench, delay):
    """A call of theirs takes a second or two, so they are asked less often."""
    if bench.store.why_not:
        return []
    made = [bench.barman(delay, compress) for compress in (None, "gzip")]
    for barman in made:
        barman.rounds = 3
    return made


def sizes(bench):
    """A segment of 64 MiB and one of 1 GiB, into a local archive and out of it."""
    for mib, rounds in ((64, bench.long_rounds), (1024, 3)):
        template = bench.template.of_size(mib, bench.say)
        name = template.names()[0]
        data = template.stub(bench.run / "data", [name])

        def peers():
            return [bench.floor(), bench.copy(), bench.pgbackrest(ZST3, False), *bench.walg(mib=mib)]

        ours = bench.ours("wal-push")
        case = f"push, {mib} MiB"
        one_segment(bench, case, [ours, *peers()], data, name, pushed(bench, case, data, name), rounds)
        memory(bench, case, ours, ours.push(f"pg_wal/{name}"), data, lambda: ours.forget(name), 2)
        ours = bench.ours("wal-fetch", alone=True)
        case = f"fetch, {mib} MiB"
        one_segment(bench, case, [ours, *peers()], data, name, fetched(bench, case, data, name), rounds)
        memory(bench, case, ours, ours.fetch(name, "pg_wal/RECOVERYXLOG"), data, without(data), 2)
        for made in bench.run.glob("archive-*"):
            shutil.rmtree(made, ignore_errors=True)


def one_segment(bench, case, contenders, data, name, once, rounds=None):
    for contender in contenders:
        if not contender.why_not and not isinstance(contender, archivers.Command):
            contender.prepare(data)
            contender.warm_up(data, name)
    in_turn(bench.recorder, bench.say, case, contenders, rounds or bench.rounds, once)


def memory(bench, case, ours, arguments, data, before=lambda: None, rounds=5):
    """What both processes of a call take together, in runs of their own: looking costs time."""
    program = Path(arguments[0])
    for turn in range(rounds):
        before()
        with Peaks(program) as peaks:
            process(bench.started, arguments, data, ours.environment)
        bench.recorder.add(Sample(case, f"{program.name}, both processes", turn, peak=peaks.together))


def without(data):
    """Takes the last fetch's file away, as PostgreSQL does before it asks."""
    return lambda: (data / "pg_wal/RECOVERYXLOG").unlink(missing_ok=True)


def pushed(bench, case, data, name):
    def once(contender, turn):
        if isinstance(contender, archivers.Command):
            return measured(bench, case, contender, turn, contender.arguments, data)
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
    pairs, nothing = {}, bench.nothing()
    for place, delay in (("", None), (", bucket", 0)):
        ours = bench.ours(f"wal-push with 16 ahead{place}", delay=delay, look_ahead=16)
        marked = bench.ours(f"marked wal-push{place}", delay=delay, look_ahead=16)
        marked.folder = ours.folder
        pairs[ours] = marked
    status = data / "pg_wal/archive_status"
    first, second = names[0], names[1]

    def once(contender, turn):
        if contender is nothing:
            return measured(bench, "ahead", nothing, turn, nothing.push(f"pg_wal/{second}"), data)
        if contender in pairs.values():
            (status / f"{first}.ready").rename(status / f"{first}.done")  # as the server does by now
            try:
                return measured(bench, "ahead", contender, turn, contender.push(f"pg_wal/{second}"), data)
            finally:
                (status / f"{first}.done").rename(status / f"{first}.ready")
        contender.prepare(data)  # without the marks of the last round
        contender.warm_up(data, first)
        settle()
        arguments = contender.push(f"pg_wal/{first}")
        sample = measured(bench, "ahead", contender, turn, arguments, data, mib=len(names) * 16)
        if missing := set(names) - contender.stored():
            raise Failed(f"it did not store {sorted(missing)}")
        return sample

    contenders = [contender for pair in pairs.items() for contender in pair]
    in_turn(bench.recorder, bench.say, "ahead", [*contenders, nothing], bench.rounds, once)
    ours = next(iter(pairs))
    for turn in range(3):
        ours.prepare(data)
        ours.warm_up(data, first)
        memory(bench, "ahead", ours, ours.push(f"pg_wal/{first}"), data, rounds=1)


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
        with Peaks(bench.binaries / "wal-fetch") as peaks:
            process(bench.started, ours.fetch(names[0], target), data)
            until(20, "the prefetcher to bring 8 segments", brought)
            time.sleep(0.2)
        bench.recorder.add(Sample("prefetched", "the prefetcher", turn, peak=peaks.highest))
        (data / target).unlink()  # as PostgreSQL does before it asks
        sample = measured(bench, "prefetched", ours, turn, ours.fetch(names[1], target), data)
        if not filecmp.cmp(data / target, data / "pg_wal" / names[1], False):
            raise Failed("it delivered something else")
        (data / "postmaster.pid").unlink()
        until(20, "the prefetcher's end", lambda: not any(peaks_of(bench.binaries / "wal-fetch")))
        shutil.rmtree(spool)
        return sample

    in_turn(bench.recorder, bench.say, "prefetched", [ours, nothing], bench.rounds, once)


class Peaks:
    """Watches the peak memory of processes of one program that start meanwhile. The kernel's own
    high-water mark is read every 2 ms, so only growth in a process's last 2 ms goes unseen."""

    def __init__(self, program):
        self.program, self.of_each, self.over = program, {}, threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def __enter__(self):
        self.before = {pid for pid, _ in peaks_of(self.program)}
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def watch(self):
        while not self.over.wait(0.002):
            for pid, peak in peaks_of(self.program):
                if pid not in self.before:
                    self.of_each[pid] = max(self.of_each.get(pid, 0), peak)

    @property
    def highest(self):
        return max(self.of_each.values(), default=0)

    @property
    def together(self):
        """As if all had been at their highest at the same time."""
        return sum(self.of_each.values())


def peaks_of(program):
    """Process and KiB, of the processes of that program (proc(5), /proc/PID/exe and status)."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(folder / "exe") == str(program):
                if found := re.search(r"^VmHWM:\s*(\d+)", (folder / "status").read_text(), re.M):
                    yield folder.name, int(found[1])
        except OSError:
            continue  # it ended meanwhile, or is another user's


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
            *bench.s3_peers(delay, asynchronous=True),
        ]
        if delay == 20 and not bench.store.why_not:
            barman = bench.barman(delay)
            barman.rounds = 1  # a minute
            contenders.append(barman)
        drain(bench, "s3 backlog", contenders, rounds=min(bench.long_rounds, 3))


def drain(bench, case, contenders, limit=False, rounds=None):
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
        in_turn(bench.recorder, bench.say, case, contenders + more, rounds or bench.long_rounds, once)
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
    if not bench.store.why_not:
        there = [bench.pgbackrest(ZST3, False, 20), *bench.walg(20), bench.barman(20)]
        there[-1].rounds = 1  # a minute
        contenders += [renamed(contender, ", 20 ms", ", S3, 20 ms") for contender in there]
    names = sorted(bench.template.sizes())
    data = bench.template.stub(bench.run / "data", names)
    for contender in contenders:
        if not contender.why_not:
            contender.prepare(data)
            for name in names:
                contender.push_quietly(data, name)
    # By the prefetcher's own rule (src/fetch/prefetch.rs): without room it would bring nothing, and say nothing.
    disk = shutil.disk_usage(bench.run)
    if disk.free < min(disk.total / 10, 8 << 30) + (1 << 30):
        raise Failed("too little room is left on the disk for prefetching")
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


def renamed(contender, old, new):
    contender.name = contender.name.replace(old, new)
    return contender


def logged(log, text):
    """When the server said so, to the millisecond."""
    line = next(line for line in log.splitlines() if text in line)
    return datetime.datetime.strptime(" ".join(line.split()[:2]), "%Y-%m-%d %H:%M:%S.%f")


ALL = {"push": push, "fetch": fetch, "ahead": ahead, "prefetched": prefetched, "waiting": large.waiting,
       "backlog": backlog, "recovery": recovery, "s3": s3, "s3-backlog": s3_backlog, "sizes": sizes,
       "large": large.large, "backup": backups.backup}
