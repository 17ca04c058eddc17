"""A scratch PostgreSQL that makes busy WAL, and servers started over copies of it.

The template is made once and kept in the work directory: a data directory, stopped, whose pg_wal
holds the backlog (segments with their .ready files), and a base backup from just before.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

MIB = 1 << 20
SEGMENT = 16 * MIB

# No TCP; nothing else is unlike a server of this size. Commits are asynchronous because the load
# is to fill segments, not to measure this disk.
SETTINGS = """
listen_addresses = ''
shared_buffers = '512MB'
max_wal_size = '512MB'
synchronous_commit = off
archive_mode = on
archive_command = ''
log_line_prefix = '%m [%p] '
"""


class Failed(Exception):
    """A measurement that cannot be made; the text says why."""


def postgresql():
    """The newest installed server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    if not found:
        raise Failed("no PostgreSQL below /usr/lib/postgresql: run scripts/setup.sh")
    return found[-1].parent


def run(arguments, **more):
    done = subprocess.run([str(a) for a in arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise Failed(f"{arguments[0]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def until(seconds, what, holds):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise Failed(f"waited {seconds} s in vain for {what}")
        time.sleep(0.005)


class Server:
    """One server over one data directory."""

    def __init__(self, data, environment=None):
        self.data = data
        self.log = data.with_name(data.name + ".log")
        self.environment = environment or {}
        self.process = None

    @property
    def pg_wal(self):
        return self.data / "pg_wal"

    def set(self, **settings):
        """Appends settings; a running server takes them over."""
        with open(self.data / "postgresql.auto.conf", "a") as file:
            for name, value in settings.items():
                file.write("{} = '{}'\n".format(name, str(value).replace("'", "''")))
        if self.process:
            self.process.send_signal(signal.SIGHUP)

    def launch(self):
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [postgresql() / "postgres", "-D", self.data, "-k", self.data.parent],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.data.parent, env={**os.environ, **self.environment})

    def start(self):
        self.launch()
        try:
            until(60, "the server", lambda: self.has_logged("ready to accept connections"))
        except Failed as failed:
            self.stop(signal.SIGQUIT)
            raise Failed(f"{failed}\n{self.log.read_text()[-2000:]}") from None

    def has_logged(self, text):
        if self.process.poll() is not None:
            raise Failed(f"the server ended: {self.log.read_text()[-2000:]}")
        return text in self.log.read_text()

    def stop(self, how=signal.SIGINT):
        if self.process:
            if self.process.poll() is None:
                self.process.send_signal(how)
            self.process.wait(120)
            self.process = None

    def sql(self, text):
        return run([postgresql() / "psql", "-h", self.data.parent, "-U", "postgres", "-d", "postgres",
                    "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text]).strip()

    def ready(self):
        """The segments that wait for the archiver, in order."""
        names = (path.stem for path in (self.pg_wal / "archive_status").glob("*.ready"))
        return sorted(name for name in names if len(name) == 24)


class Template:
    """The stopped server with its backlog, and the base backup under it."""

    def __init__(self, work, segments):
        self.folder = work / "template"
        self.data = self.folder / "data"
        self.base = self.folder / "base"
        self.segments = segments

    def make(self, say):
        facts = self.folder / "facts.json"
        if facts.exists() and len(json.loads(facts.read_text())) >= self.segments:
            return
        say(f"making {self.segments} busy segments (once; kept for later runs)")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        server = Server(self.data)
        run([postgresql() / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--no-sync"])
        with open(self.data / "postgresql.conf", "a") as file:
            file.write(SETTINGS)
        server.set(archive_command="/bin/true")  # the tables' first filling is nobody's backlog
        server.start()
        try:
            self.fill(server)
        finally:
            server.stop()
        sizes = {}
        for name in server.ready():
            packed = subprocess.run(["zstd", "-q", "-1", "-c", self.segment(name)], stdout=subprocess.PIPE, check=True)
            sizes[name] = len(packed.stdout)
        facts.write_text(json.dumps(sizes))

    def of_size(self, mib, say):
        """The same with one large segment."""
        sized = Sized(self.folder.parent, mib)
        sized.make(say)
        return sized

    def fill(self, server):
        pgbench = [postgresql() / "pgbench", "-h", self.folder, "-U", "postgres"]
        run([*pgbench, "-i", "-q", "-s", "10", "postgres"])
        last = server.sql("select pg_walfile_name(pg_switch_wal())")
        done = f"select last_archived_wal >= '{last}' from pg_stat_archiver"
        until(60, "the first segments' archiving", lambda: server.sql(done) == "t")
        server.set(archive_command="")
        until(10, "the setting", lambda: server.sql("show archive_command") in ("", "(disabled)"))
        # "-X none" would wait for an archive; the WAL that comes with "stream" is thrown away.
        run([postgresql() / "pg_basebackup", "-h", self.folder, "-U", "postgres", "-D", self.base,
             "-X", "stream", "-c", "fast", "--no-sync"])
        for path in (self.base / "pg_wal").iterdir():
            if path.is_file():
                path.unlink()
        # TPC-B, with a checkpoint every few hundred MiB: full-page images and plain records mixed.
        while len(server.ready()) < self.segments + 2:
            run([*pgbench, "-n", "-M", "prepared", "-c", "4", "-j", "2", "-T", "5", "postgres"])
        server.sql("select pg_switch_wal()")

    def system_id(self):
        """pg_control begins with it (src/include/catalog/pg_control.h)."""
        with open(self.data / "global/pg_control", "rb") as file:
            return str(int.from_bytes(file.read(8), sys.byteorder))

    def sizes(self):
        """Of every segment after the base backup, by zstd -1."""
        return json.loads((self.folder / "facts.json").read_text())

    def names(self):
        """The backlog's segments, the same number in every run."""
        return sorted(self.sizes())[: self.segments]

    def typical(self):
        """The segment whose compressed size is the median."""
        sizes = self.sizes()
        return sorted(self.names(), key=sizes.get)[self.segments // 2]

    def emptiest(self):
        """The segment that compresses best."""
        return min(self.names(), key=self.sizes().get)

    def segment(self, name):
        return self.data / "pg_wal" / name

    def copy(self, to):
        """A data directory of its own with the backlog to archive. The segments are the template's
        own files, made read-only: PostgreSQL must never recycle them, and their pages stay in the
        page cache for everyone alike."""
        shutil.rmtree(to, ignore_errors=True)
        backlog = set(self.names())

        def copy(source, target):
            if os.path.basename(source) in backlog:
                os.chmod(source, 0o400)
                os.link(source, target)
            else:
                shutil.copy2(source, target)

        shutil.copytree(self.data, to, copy_function=copy)
        for path in (to / "pg_wal/archive_status").iterdir():
            path.unlink()
        for name in backlog:
            (to / "pg_wal/archive_status" / f"{name}.ready").touch()
        os.chmod(to, 0o700)
        return to

    def stub(self, to, names):
        """As much of a data directory as archivers look at, with these segments waiting."""
        shutil.rmtree(to, ignore_errors=True)
        (to / "global").mkdir(parents=True)
        (to / "pg_wal/archive_status").mkdir(parents=True)
        for file in ("PG_VERSION", "global/pg_control"):
            shutil.copy2(self.data / file, to / file)
        for name in names:
            shutil.copyfile(self.segment(name), to / "pg_wal" / name)  # writable, as PostgreSQL's are
            (to / "pg_wal/archive_status" / f"{name}.ready").touch()
        os.chmod(to, 0o700)
        return to

    def warm(self):
        """Reads the backlog once, so that nobody pays for the disk."""
        for name in self.names():
            with open(self.segment(name), "rb") as file:
                while file.read(MIB):
                    pass


class Sized(Template):
    """A stopped server of another segment size, of which one segment is full."""

    def __init__(self, work, mib):
        super().__init__(work, 1)
        self.mib = mib
        self.folder = work / f"template-{mib}"
        self.data = self.folder / "data"

    def make(self, say):
        if (self.folder / "facts.json").exists():
            return
        say(f"making a segment of {self.mib} MiB (once; kept for later runs)")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        server = Server(self.data)
        run([postgresql() / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--no-sync",
             f"--wal-segsize={self.mib}"])
        with open(self.data / "postgresql.conf", "a") as file:
            file.write(SETTINGS.replace("max_wal_size = '512MB'", "max_wal_size = '8GB'"))
        server.start()
        try:
            scale = max(2, self.mib // 16)
            while not server.ready():
                run([postgresql() / "pgbench", "-h", self.folder, "-U", "postgres", "-i", "-q", "-s", scale, "postgres"])
                run([postgresql() / "pgbench", "-h", self.folder, "-U", "postgres", "-n", "-M", "prepared", "-c", "4",
                     "-j", "2", "-T", "5", "postgres"])
            name = server.ready()[0]
        finally:
            server.stop()
        self.keep_only("PG_VERSION", "global/pg_control", f"pg_wal/{name}")
        (self.folder / "facts.json").write_text(json.dumps({name: self.mib << 20}))

    def keep_only(self, *files):
        """Of the data directory, what a stub is made of: its other segments are as large."""
        whole = self.data.rename(self.folder / "whole")
        for file in files:
            (self.data / file).parent.mkdir(parents=True, exist_ok=True)
            (whole / file).rename(self.data / file)
        shutil.rmtree(whole)
