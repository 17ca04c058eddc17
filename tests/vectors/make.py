#!/usr/bin/env python3
"""Makes the object vectors beside it from the WAL below wal/. They were made once and are frozen:
a reader of this format must read the accepted ones for ever. Run it only to add a case.
Needs python3 and the zstd program; uses no code of this project, so it is a second opinion."""
import hashlib, json, pathlib, struct, subprocess

here = pathlib.Path(__file__).parent
wal = here / "wal/postgresql-15"
SEGMENT, HISTORY, BACKUP = "000000010000000000000015", "00000002.history", "000000010000000000000015.00000028.backup"
SYSTEM_ID = "7710362819239716105"

def raw(name):
    return subprocess.run(["zstd", "-dcq", wal / (name + ".zst")], check=True, capture_output=True).stdout

def frame(data, *options):
    options = options or ("--check", f"--stream-size={len(data)}")
    return subprocess.run(["zstd", "-1cq", *options], input=data, check=True, capture_output=True).stdout

def trailer(text):
    text = json.dumps(text, separators=(",", ":")).encode()
    return struct.pack("<II", 0x184D2A5E, 248) + text.ljust(247) + b"\n"

def claims(name, data, compressed, **changes):
    text = {"wal-archive": 1, "name": name, "size": len(data), "frame": len(compressed),
            "sha256": hashlib.sha256(data).hexdigest(), "system_id": SYSTEM_ID}
    text.update(changes)
    return {key: value for key, value in text.items() if value is not None}

def flip(data, bit):
    data = bytearray(data)
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)

def write(kind, name, reason, data):
    path = here / "objects" / kind / f"{name}--{reason}.zst"
    if not path.exists():
        path.write_bytes(data)

for name in (SEGMENT, HISTORY, BACKUP):
    data, c = raw(name), frame(raw(name))
    good = c + trailer(claims(name, data, c))
    write("accepted", name, "version-1", good)
    write("accepted", name, "without-system-id", c + trailer(claims(name, data, c, system_id=None)))
    write("accepted", name, "unknown-field", c + trailer(claims(name, data, c, later=[1, {"x": None}])))
    write("accepted", name, "trailer-cut-off", c)
    write("accepted", name, "foreign-without-size-or-checksum", frame(data, "--no-check", "--no-content-size"))
    half = len(data) // 2
    write("accepted", name, "foreign-of-two-frames", frame(data[:half]) + frame(data[half:]))
    write("accepted", name, "foreign-after-a-skippable-frame", struct.pack("<II", 0x184D2A50, 3) + b"abc" + c)
    bad = lambda reason, data: write("rejected", name, reason, data)
    bad("empty", b"")
    bad("frame-cut", c[:-5])
    bad("frame-checksum-cut", c[:-4] + trailer(claims(name, data, c)))
    bad("trailer-cut-in-the-middle", good[:-100])
    bad("byte-appended", good + b"\n")
    bad("byte-before-trailer", c + b"\0" + trailer(claims(name, data, c)))
    bad("second-frame-after-trailer", good + frame(b"1\t0/0\tmore\n"))
    bad("second-frame-before-trailer", c + frame(b"x") + trailer(claims(name, data, c)))
    bad("second-trailer", good + trailer(claims(name, data, c)))
    bad("bit-flipped-in-checksum", flip(c, len(c) * 8 - 9) + trailer(claims(name, data, c)))
    bad("name-of-another", c + trailer(claims("00000009.history", data, c)))
    bad("size-of-another", c + trailer(claims(name, data, c, size=len(data) + 1)))
    bad("sha256-of-another", c + trailer(claims(name, data, c, sha256="0" * 64)))
    bad("frame-length-of-another", c + trailer(claims(name, data, c, frame=len(c) + 1)))
    bad("higher-version", c + trailer(claims(name, data, c, **{"wal-archive": 2})))
    bad("sha256-missing", c + trailer(claims(name, data, c, sha256=None)))
    bad("trailer-not-json", c + struct.pack("<II", 0x184D2A5E, 248) + b"x" * 247 + b"\n")
    bad("not-zstd", data[:65536])
    bad("only-a-trailer", trailer(claims(name, data, c)))

segment = raw(SEGMENT)
bad = lambda reason, data: write("rejected", SEGMENT, reason, data)
longer = segment + bytes(1 << 20)
c = frame(longer)
bad("decodes-to-more-than-its-header-says", c + trailer(claims(SEGMENT, longer, c)))
c = frame(segment[:-8192])
bad("shorter-than-its-header-says", c + trailer(claims(SEGMENT, segment[:-8192], c)))
bomb = bytes(64 << 20)
c = frame(bomb)
bad("bomb-of-zeros", c + trailer(claims(SEGMENT, bomb, c)))
other = raw("00000001000000000000001A")
c = frame(other)
bad("segment-of-another-address", c + trailer(claims(SEGMENT, other, c)))
c = frame(bytes(len(segment)))
bad("all-zero", c + trailer(claims(SEGMENT, bytes(len(segment)), c)))
junk = b"not a history\n"
c = frame(junk)
write("rejected", HISTORY, "foreign-that-is-no-history", c)
c = frame(b"")
write("rejected", HISTORY, "foreign-empty", c)
