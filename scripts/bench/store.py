"""An S3 server on loopback, and lines to it with a round trip of their own."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from world import Failed, run, until

ACCESS_KEY = "wal-archive-bench"
SECRET_KEY = "bench-secret-1c9e"
BUCKET = "bucket"

# For every program that takes its credentials from where AWS's own do.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def settings(prefix, endpoint):
    """Lines of our configuration file, for an archive below that prefix of the bucket."""
    return [f'archive = ["s3://{BUCKET}/{prefix}"]', "[s3]", f'endpoint = "{endpoint}"',
            f'access_key_id = "{ACCESS_KEY}"', f'secret_access_key = "{SECRET_KEY}"']


class Line:
    """A way to the server through a proxy that adds a round trip and counts requests."""

    def __init__(self, folder, delay_ms, server_port, certificate=()):
        self.delay, self.certificate = delay_ms, certificate
        self.port = free_port()
        self.log = folder / f"requests-{self.port}.log"
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("proxy.py"), str(self.port), str(server_port), str(delay_ms),
             *certificate],
            stdin=subprocess.DEVNULL, stdout=open(self.log, "w"))
        until(20, "the proxy", lambda: answers(self.port))

    @property
    def endpoint(self):
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def requests(self):
        """So far."""
        with open(self.log, "rb") as file:
            return sum(1 for _ in file)


class Store:
    """versitygw over a directory, with one line for each delay asked for."""

    def __init__(self, program, folder):
        shutil.rmtree(folder, ignore_errors=True)
        self.folder = folder
        self.data = folder / "data"
        (self.data / BUCKET).mkdir(parents=True)
        (folder / "sidecar").mkdir()
        self.lines = {}
        self.why_not = None if program.exists() else "scripts/setup.sh has not installed versitygw (it needs Go)"
        self.server = None
        if self.why_not:
            return
        self.port = free_port()
        self.server = subprocess.Popen(
            [program, "--quiet", "--port", f"127.0.0.1:{self.port}", "posix", "--sidecar", folder / "sidecar", self.data],
            stdin=subprocess.DEVNULL, stdout=open(folder / "log", "w"), stderr=subprocess.STDOUT,
            env={**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY})
        until(20, "versitygw", lambda: answers(self.port))

    def line(self, delay_ms, tls=False):
        if self.why_not:
            raise Failed(self.why_not)
        if (delay_ms, tls) not in self.lines:
            self.lines[delay_ms, tls] = Line(self.folder, delay_ms, self.port, self.certificate() if tls else ())
        return self.lines[delay_ms, tls]

    def certificate(self):
        """Of the tests' own, and its key."""
        made = self.folder / "certificate.pem", self.folder / "key.pem"
        if not made[0].exists():
            run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                 "-out", made[0], "-keyout", made[1]])
        return made

    def bucket(self):
        """Where its objects are files."""
        return self.data / BUCKET

    def forget(self, path):
        """The server's own notes on an object whose file was removed."""
        shutil.rmtree(self.folder / "sidecar" / path.relative_to(self.data), ignore_errors=True)

    def stop(self):
        for process in [line.process for line in self.lines.values()] + [self.server]:
            if process:
                process.terminate()
                process.wait(10)
