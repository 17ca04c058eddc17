#!/usr/bin/env python3
"""Makes the base backups below backups/: a plain and an encrypted archive with the same backup. They were made
once and are frozen: a reader of this format must read them for ever. Needs python3, its package "cryptography"
and the zstd program; uses no code of this project, so it is a second opinion."""
import hashlib, io, json, pathlib, runpy, struct, subprocess, tarfile

here = pathlib.Path(__file__).parent
age = runpy.run_path(str(here / "age/make.py"))
SYSTEM_ID, ID = age["SYSTEM_ID"], "20261121T130405Z-0000000002000028-1"
LABEL = (b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n"
         b"BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-21 13:04:05 UTC\nLABEL: nightly\n"
         b"START TIMELINE: 1\n")
MAIN = [("backup_label", LABEL), ("tablespace_map", b"16406 /mnt/fast\n"), ("PG_VERSION", b"15\n"),
        ("base/1/1259", bytes(range(256)) * 32), ("base/1/empty", b""), ("global/pg_control", b"\x01" * 8192)]
FAST = [("PG_15_202209061/5/16407", b"fast" * 2048)]

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return struct.pack("<I", crc ^ 0xFFFFFFFF).hex()

def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o600, 1795266245
            archive.addfile(info, io.BytesIO(data))
    whole = out.getvalue().rstrip(b"\0")
    end = -(-len(whole) // 512) * 512
    return whole.ljust(end, b"\0") + bytes(1024)

def manifest():
    files = MAIN + [("pg_tblspc/16406/" + name, data) for name, data in FAST]
    lines = [f'{{ "Path": "{name}", "Size": {len(data)}, "Last-Modified": "2026-11-21 13:04:05 GMT", '
             f'"Checksum-Algorithm": "CRC32C", "Checksum": "{crc32c(data)}" }}' for name, data in files]
    text = ('{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": [\n' + ",\n".join(lines) + '\n],\n"WAL-Ranges": [\n'
            '{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }\n],\n').encode()
    return text + b'"Manifest-Checksum": "' + hashlib.sha256(text).hexdigest().encode() + b'"}\n'

def plain(name, data):
    frame = subprocess.run(["zstd", "-1cq", "--check", f"--stream-size={len(data)}"], input=data, check=True,
                           capture_output=True).stdout
    says = {"wal-archive": 1, "name": name, "size": len(data), "frame": len(frame),
            "sha256": hashlib.sha256(data).hexdigest(), "system_id": SYSTEM_ID}
    text = json.dumps(says, separators=(",", ":")).encode()
    return frame + struct.pack("<II", 0x184D2A5E, 248) + text.ljust(247) + b"\n"

def sealed(name, data):
    return age["make"](name, plain(name, data), data)

for kind, extension, encode in (("plain", "zst", plain), ("sealed", "age", sealed)):
    folder = here / "backups" / kind / "backups" / ID
    if folder.exists():
        continue
    folder.mkdir(parents=True)
    identity = {"wal-archive": 1, "system_id": SYSTEM_ID, "segment_size": 16777216, "foreign": False}
    if kind == "sealed":
        identity = {"wal-archive": 2, "encryption": "age", **{k: v for k, v in identity.items() if k != "wal-archive"}}
    (here / "backups" / kind / "archive.json").write_text(json.dumps(identity, separators=(",", ":")) + "\n")
    def store(stem, data):
        stored = encode(f"backups/{ID}/{stem}", data)
        (folder / f"{stem}.{extension}").write_bytes(stored)
        return {"file": f"{stem}.{extension}", "size": len(data), "stored": len(stored),
                "sha256": hashlib.sha256(stored).hexdigest()}
    main = tar(MAIN)
    record = {
        "wal-archive": 1, "backup": ID, "label": "nightly", "system_id": SYSTEM_ID, "server_version": 150004,
        "segment_size": 16777216, "timeline": 1, "start": "0/2000028", "stop": "0/2000100", "stop_timeline": 1,
        "started": "2026-11-21T13:04:05.000000Z", "finished": "2026-11-21T13:05:17.120451Z", "from_standby": False,
        "checksums_fine": True, "outside": ["/etc/postgresql/15/main/postgresql.conf"],
        "series": [{"parts": [store("base-00001.tar", main[:9000]), store("base-00002.tar", main[9000:])]},
                   {"tablespace": 16406, "location": "/mnt/fast", "parts": [store("16406-00001.tar", tar(FAST))]}],
        "manifest": store("manifest", manifest()),
    }
    text = json.dumps(record, separators=(",", ":"))[:-1].encode()
    (folder / "backup.json").write_bytes(text + f',"checksum":"{hashlib.sha256(text).hexdigest()}"}}\n'.encode())
