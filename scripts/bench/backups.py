"""A base backup of 5 GB, and its restore, beside the stock tools."""

import shutil

from archivers import Command
from measure import in_turn, measured
from world import SETTINGS, Server, postgresql, run

SCALE = 330  # of pgbench: 5 GB
LEVEL = 1  # of zstd, for both


def backup(bench):
    """A base backup of a server with 5 GB into a local archive, and its restore."""
    server = made(bench)
    ours = bench.ours("wal-archive backup")
    ours.prepare(server.data)
    server.set(archive_mode="on", archive_command=ours.archive_command())
    server.start()
    mib = size(server.data)
    try:
        taken(bench, server, ours, mib)
    finally:
        server.stop()
    restored(bench, ours, mib)


def made(bench):
    """The server, stopped. Kept for later runs."""
    folder = bench.template.folder.with_name("five")
    server = Server(folder / "data")
    mark = folder / "complete"
    if mark.exists():
        return server
    bench.say("making a cluster of 5 GB (once; kept for later runs)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run([postgresql() / "initdb", "-D", server.data, "-U", "postgres", "-A", "trust", "--no-sync", "-k"])
    with open(server.data / "postgresql.conf", "a") as file:
        file.write(SETTINGS)
    server.set(archive_mode="off", fsync="off", autovacuum="off")
    server.start()
    try:
        run([postgresql() / "pgbench", "-h", folder, "-U", "postgres", "-i", "-q", "-s", SCALE, "postgres"])
    finally:
        server.stop()
    mark.touch()
    return server


def size(data):
    files = (path for path in data.rglob("*") if path.is_file() and "pg_wal" not in path.parts)
    return sum(path.stat().st_size for path in files) / (1 << 20)


def taken(bench, server, ours, mib):
    file = bench.run / "base.tar.zst"
    host = server.data.parent
    program = [bench.binaries / "wal-archive", "backup", "--config", ours.config(), "--checkpoint", "fast",
               "--connection", f"host={host} user=postgres dbname=postgres"]
    ours_now = Command("wal-archive backup", program)
    stock = pipeline("pg_basebackup + zstd -1", f"'{postgresql()}/pg_basebackup' -h '{host}' -U postgres -c fast -Ft "
                     f"-X none -D - | zstd -q -{LEVEL} | cat > '{file}'")

    def once(contender, turn):
        if contender is ours_now:
            shutil.rmtree(ours.folder / "backups", ignore_errors=True)
        return measured(bench, "backup", contender, turn, contender.arguments, bench.run, mib=mib)

    in_turn(bench.recorder, bench.say, "backup", [ours_now, stock], bench.long_rounds, once)


def restored(bench, ours, mib):
    file, folder = bench.run / "base.tar.zst", bench.run / "restored"
    ours_now = Command("wal-archive restore", [bench.binaries / "wal-archive", "restore", folder, "--config", ours.config()])
    stock = f"mkdir '{folder}' && zstd -q -dc '{file}' | tar x -C '{folder}'"
    contenders = [ours_now, pipeline("zstd -dc + tar x", stock),
                  pipeline("zstd -dc + tar x, then sync", f"{stock} && sync -f '{folder}'")]

    def once(contender, turn):
        shutil.rmtree(folder, ignore_errors=True)
        return measured(bench, "restore", contender, turn, contender.arguments, bench.run, mib=mib)

    in_turn(bench.recorder, bench.say, "restore", contenders, bench.long_rounds, once)
    shutil.rmtree(folder)


def pipeline(name, text):
    """What a shell runs; whichever of its programs fails, it fails."""
    return Command(name, ["bash", "-c", f"set -o pipefail; {text}"])
