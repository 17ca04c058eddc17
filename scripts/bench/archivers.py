"""The contenders: how each one is set up, pushes, fetches, and forgets a segment again."""

import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import store as s3
from world import run


class Archiver:
    """One program with one set of options, and an archive of its own."""

    why_not = None  # why it cannot be run here
    environment = {}
    line = None  # the line to the S3 server, where there is one
    rounds = None  # at most; None: as many as the others
    code = 0  # with which it must end

    def __init__(self, name, folder):
        self.name = name
        self.folder = folder

    def prepare(self, data):
        """An empty archive for the cluster in `data`."""
        if self.line:
            shutil.rmtree(self.store.bucket() / self.folder.name, ignore_errors=True)
            self.store.forget(self.store.bucket() / self.folder.name)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def push(self, path):
        """The arguments that archive the file."""
        raise NotImplementedError

    def fetch(self, name, path):
        """The arguments that restore it."""
        raise NotImplementedError

    def objects(self):
        """Where its objects stand as files."""
        return self.folder

    def forget(self, name):
        """Takes a segment out of the archive again; true if it was there."""
        found = [path for path in self.objects().rglob(f"{name}*") if path.is_file()]
        for path in found:
            path.unlink()
            if self.line:
                self.store.forget(path)
        return bool(found)

    def warm_up(self, data, name):
        """One push that is taken back: what only the first push does is done."""
        self.push_quietly(data, name)
        self.forget(name)

    def push_quietly(self, data, name):
        """Archives one segment and no other, unmeasured."""
        run(self.push(f"pg_wal/{name}"), cwd=data, env={**os.environ, **self.environment})

    def recover_into(self, data):
        """Told before a recovery which data directory asks."""

    def stored(self):
        """The names of the segments that it holds."""
        return {path.name[:24] for path in self.objects().rglob("0000*") if path.is_file()}

    def finish(self):
        """Waits for what it left running."""

    def archive_command(self):
        return self.quoted(self.push("%p"))

    def restore_command(self):
        return self.quoted(self.fetch("%f", "%p"))

    @staticmethod
    def quoted(arguments):
        return " ".join(shlex.quote(str(a)) for a in arguments)


class Ours(Archiver):
    """wal-push and wal-fetch, in a directory or in a bucket."""

    def __init__(self, name, folder, binaries, line=None, look_ahead=None, prefetch=None, store=None, encrypted=None):
        super().__init__(name, folder)
        self.binaries, self.line, self.store = binaries, line, store
        self.look_ahead, self.prefetch, self.encrypted = look_ahead, prefetch, encrypted
        if look_ahead is not None and not self.has("wal-push", "--look-ahead"):
            self.why_not = "this wal-push has no --look-ahead"
        if prefetch is not None and not self.has("wal-fetch", "--prefetch"):
            self.why_not = "this wal-fetch has no --prefetch"
        if encrypted and not self.has("wal-archive", "keygen"):
            self.why_not = "this wal-archive knows no encryption"

    def has(self, program, flag):
        text = subprocess.run([self.binaries / program, "--help"], capture_output=True, text=True).stdout
        return flag in text

    def config(self):
        return self.folder.with_name(self.folder.name + ".toml")

    def prepare(self, data):
        super().prepare(data)
        shutil.rmtree(data.with_name(data.name + ".wal-spool"), ignore_errors=True)
        lines = [f'archive = ["{self.folder}"]']
        if self.line:
            lines = s3.settings(self.folder.name, self.line.endpoint)
        else:
            self.folder.mkdir(exist_ok=True)
        lines += self.keys()
        with open(os.open(self.config(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write("\n".join(lines) + "\n")
        if self.has("wal-archive", "init"):  # before there was one, the first push made the archive
            run([self.binaries / "wal-archive", "init", "--config", self.config(), "--pgdata", data])

    def keys(self):
        """What a host has: one that archives a recipient only, one that recovers the identity, too."""
        if not self.encrypted:
            return []
        identity = self.folder.with_name(self.folder.name + ".key")
        identity.unlink(missing_ok=True)
        recipient = run([self.binaries / "wal-archive", "keygen", identity]).strip()
        named = [f'identity_file = "{identity}"'] if self.encrypted == "identity" else []
        return ["[encryption]", f'recipients = ["{recipient}"]', *named]

    def push(self, path):
        more = [] if self.look_ahead is None else ["--look-ahead", self.look_ahead]
        return [self.binaries / "wal-push", "--config", self.config(), *more, path]

    def push_quietly(self, data, name):
        # By environment: a version without look-ahead knows no such flag.
        environment = {**os.environ, "WAL_ARCHIVE_LOOK_AHEAD": "0"}
        arguments = [self.binaries / "wal-push", "--config", self.config(), f"pg_wal/{name}"]
        run(arguments, cwd=data, env=environment)

    def fetch(self, name, path):
        more = [] if self.prefetch is None else ["--prefetch", self.prefetch]
        return [self.binaries / "wal-fetch", "--config", self.config(), *more, name, path]

    def objects(self):
        return self.store.bucket() / self.folder.name if self.line else self.folder


class Floor(Archiver):
    """examples/floor.rs: the bare work in one process."""

    def __init__(self, folder, binaries):
        super().__init__("raw floor", folder)
        self.binaries = binaries

    def push(self, path):
        return [self.binaries / "floor", "push", path, self.folder / f"{Path(path).name}.zst"]

    def fetch(self, name, path):
        return [self.binaries / "floor", "fetch", self.folder / f"{name}.zst", path]


class Copy(Archiver):
    """cp; where it archives with a sync of the file and of the directory, or it would promise nothing."""

    def __init__(self, folder):
        super().__init__("cp", folder)

    def push(self, path):
        name = "%f" if path == "%p" else Path(path).name
        return ["/bin/sh", "-c", f"cp {path} {self.folder}/{name} && sync {self.folder}/{name} {self.folder}"]

    def archive_command(self):
        return self.push("%p")[2]

    def fetch(self, name, path):
        return ["/bin/cp", self.folder / name, path]


class Command(Archiver):
    """A program that neither archives nor restores, with the code that it must end with."""

    def __init__(self, name, arguments, code=0):
        super().__init__(name, None)
        self.arguments, self.code = arguments, code


class Nothing(Archiver):
    """/bin/true: what starting any program costs."""

    def __init__(self, folder):
        super().__init__("/bin/true", folder)

    def push(self, path):
        return ["/bin/true", path]

    def fetch(self, name, path):
        return ["/bin/true", name, path]


class PgBackRest(Archiver):
    """Debian's package; a local repository, or one in a bucket, over TLS, as it knows no other way."""

    def __init__(self, folder, compress, asynchronous=False, line=None, store=None):
        kind = "async, 2 processes" if asynchronous else "sync"
        level = f" {compress[1]}" if compress[1] else ""
        delay = f", {line.delay} ms" if line else ""
        super().__init__(f"pgBackRest {kind}, {compress[0]}{level}{delay}", folder)
        self.compress, self.asynchronous, self.line, self.store = compress, asynchronous, line, store
        if not shutil.which("pgbackrest"):
            self.why_not = "not installed (scripts/bench.sh --install-peers)"

    def prepare(self, data):
        super().prepare(data)
        kind, level = self.compress
        for name in ("repo", "log", "lock", "spool"):
            (self.folder / name).mkdir()
        text = [
            "[global]",
            *self.repository(), f"log-path={self.folder}/log",
            f"lock-path={self.folder}/lock", f"spool-path={self.folder}/spool",
            "log-level-console=off", "log-level-stderr=error", "log-level-file=off",
            f"compress-type={kind}", *([f"compress-level={level}"] if level else []),
            *(["archive-async=y", "process-max=2"] if self.asynchronous else []),
            "[bench]", f"pg1-path={data}",
        ]
        (self.folder / "conf").write_text("\n".join(text) + "\n")
        run([*self.command(), "--no-online", "stanza-create"])

    def repository(self):
        if not self.line:
            return [f"repo1-path={self.folder}/repo"]
        return [f"repo1-path=/{self.folder.name}", "repo1-type=s3", f"repo1-s3-bucket={s3.BUCKET}",
                f"repo1-s3-key={s3.ACCESS_KEY}", f"repo1-s3-key-secret={s3.SECRET_KEY}", "repo1-s3-region=us-east-1",
                "repo1-s3-uri-style=path", "repo1-s3-endpoint=localhost", "repo1-storage-host=127.0.0.1",
                f"repo1-storage-port={self.line.port}", "repo1-storage-verify-tls=n"]

    def recover_into(self, data):
        conf = self.folder / "conf"
        conf.write_text(re.sub(r"pg1-path=.*", f"pg1-path={data}", conf.read_text()))

    def command(self):
        return ["pgbackrest", f"--config={self.folder}/conf", "--stanza=bench"]

    def push(self, path):
        return [*self.command(), "archive-push", path]

    def fetch(self, name, path):
        return [*self.command(), "archive-get", name, path]

    def objects(self):
        repository = self.store.bucket() / self.folder.name if self.line else self.folder / "repo"
        return repository / "archive/bench"

    def warm_up(self, data, name):
        # An asynchronous push of one segment pushes all that wait; the stanza is all it needs.
        if not self.asynchronous:
            super().warm_up(data, name)

    def forget(self, name):
        # What was pushed before its fetch or its repeat is believed from the spool.
        for path in (self.folder / "spool").rglob(f"{name}*"):
            path.unlink()
        return super().forget(name)

    def finish(self):
        # An asynchronous process holds its lock to its end.
        end = time.monotonic() + 30
        while self.asynchronous and any((self.folder / "lock").iterdir()) and time.monotonic() < end:
            time.sleep(0.05)


class Barman(Archiver):
    """barman-cloud of Debian's package, to S3."""

    def __init__(self, folder, line, store, compress=None):
        super().__init__(f"barman-cloud {compress or 'uncompressed'}, {line.delay} ms", folder)
        self.line, self.store, self.compress = line, store, compress
        self.environment = s3.ENVIRONMENT
        if not shutil.which("barman-cloud-wal-archive"):
            self.why_not = "not installed (scripts/bench.sh --install-peers)"

    def options(self):
        return ["--endpoint-url", self.line.endpoint, "--cloud-provider", "aws-s3"]

    def push(self, path):
        compress = [f"--{self.compress}"] if self.compress else []
        place = f"s3://{s3.BUCKET}/{self.folder.name}"
        return ["barman-cloud-wal-archive", *self.options(), *compress, place, "bench", path]

    def fetch(self, name, path):
        place = f"s3://{s3.BUCKET}/{self.folder.name}"
        return ["barman-cloud-wal-restore", *self.options(), place, "bench", name, path]

    def objects(self):
        return self.store.bucket() / self.folder.name

    def push_quietly(self, data, name):
        """What a push without compression leaves, which takes it most of a second."""
        to = self.objects() / "bench/wals" / name[:16] / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / "pg_wal" / name, to)


class WalG(Archiver):
    """WAL-G, or WAL-RUS, which takes the same arguments and settings."""

    def __init__(self, name, folder, program, compress, line=None, store=None, mib=16):
        delay = f", {line.delay} ms" if line else ""
        super().__init__(f"{name} {compress}{delay}", folder)
        self.program, self.compress, self.line, self.store, self.mib = program, compress, line, store, mib
        if not program:
            self.why_not = f"no path given ({name.replace('-', '')}=/path)"

    def prepare(self, data):
        super().prepare(data)
        shutil.rmtree(data / "pg_wal/walg_data", ignore_errors=True)  # WAL-G's marks
        self.environment = {"PGDATA": str(data), "WALG_COMPRESSION_METHOD": self.compress,
                            "WALG_PG_WAL_SIZE": str(self.mib),
                            "WALG_FILE_PREFIX": str(self.folder)}
        if self.line:
            del self.environment["WALG_FILE_PREFIX"]
            self.environment |= {**s3.ENVIRONMENT, "WALG_S3_PREFIX": f"s3://{s3.BUCKET}/{self.folder.name}",
                                 "AWS_ENDPOINT": self.line.endpoint, "AWS_S3_FORCE_PATH_STYLE": "true"}

    def warm_up(self, data, name):
        """Nothing is done by the first push only. WAL-G would push other segments, too, and WAL-RUS
        rename the server's status file."""

    def push(self, path):
        return [self.program, "wal-push", path]

    def fetch(self, name, path):
        return [self.program, "wal-fetch", name, path]

    def archive_command(self):
        # The server is shared, so the settings come with the command: env costs about 1 ms more.
        settings = [f"{key}={value}" for key, value in self.environment.items()]
        return self.quoted(["/usr/bin/env", *settings, *self.push("%p")])

    def objects(self):
        return self.store.bucket() / self.folder.name if self.line else self.folder
