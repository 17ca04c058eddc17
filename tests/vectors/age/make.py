#!/usr/bin/env python3
"""Makes the sealed objects beside it from those of ../objects. They were made once and are frozen: a reader
of this format must read the accepted ones and refuse the rejected ones for ever. Run it only to add a case.
Needs python3 and its package "cryptography"; uses no code of this project, so it is a second opinion."""
import base64, hashlib, hmac, json, os, pathlib
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

here = pathlib.Path(__file__).parent
HISTORY, SEGMENT = "00000002.history", "000000010000000000000015"
SYSTEM_ID = "7710362819239716105"

def bech32(prefix, data):
    alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    values, held, bits = [], 0, 0
    for byte in data:
        held, bits = held << 8 | byte, bits + 8
        while bits >= 5:
            bits -= 5
            values.append(held >> bits & 31)
    if bits:
        values.append(held << 5 - bits & 31)
    def polymod(all):
        chk = 1
        for v in all:
            top, chk = chk >> 25, (chk & 0x1ffffff) << 5 ^ v
            for i, g in enumerate((0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3)):
                chk ^= g if top >> i & 1 else 0
        return chk
    low = prefix.lower()
    expanded = [ord(c) >> 5 for c in low] + [0] + [ord(c) & 31 for c in low]
    sum = polymod(expanded + values + [0] * 6) ^ 1
    return prefix + "1" + "".join(alphabet[v] for v in values + [sum >> 5 * (5 - i) & 31 for i in range(6)])

def hkdf(salt, secret, info):
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)

def b64(data):
    return base64.b64encode(data).rstrip(b"=")

def lines(data):
    text = b64(data)
    cut = [text[at:at + 64] for at in range(0, len(text), 64)]
    return b"\n".join(cut + ([b""] if len(text) % 64 == 0 else [])) + b"\n"

def public(key):
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

class Recipient:
    def __init__(self, raw):
        self.raw, self.text = raw, bech32("age", raw)
        self.id = hkdf(None, self.text.encode(), b"wal-archive/2 id")[:8].hex()

    def tag(self, data, name):
        key = hkdf(None, self.text.encode(), b"wal-archive/2 tag")
        return hmac.new(key, hashlib.sha256(data).digest() + name.encode(), "sha256").hexdigest()

    def stanza(self, file_key):
        ephemeral = X25519PrivateKey.generate()
        share, shared = public(ephemeral), ephemeral.exchange(X25519PublicKey.from_public_bytes(self.raw))
        key = hkdf(share + self.raw, shared, b"age-encryption.org/v1/X25519")
        return b"-> X25519 " + b64(share) + b"\n" + lines(ChaCha20Poly1305(key).encrypt(bytes(12), file_key, None))

def stream(file_key, data, mark_last=True):
    nonce, out = os.urandom(16), b""
    cipher = ChaCha20Poly1305(hkdf(nonce, file_key, b"payload"))
    chunks = [data[at:at + 65536] for at in range(0, len(data), 65536)] or [b""]
    for n, chunk in enumerate(chunks):
        last = mark_last and n == len(chunks) - 1
        out += cipher.encrypt(n.to_bytes(11, "big") + bytes([last]), chunk, None)
    return nonce + out

identity_file = here / "identity"
if not identity_file.exists():
    key = X25519PrivateKey.generate()
    secret = bech32("AGE-SECRET-KEY-", key.private_bytes_raw()).upper()
    identity_file.write_text(f"# public key: {Recipient(public(key)).text}\n{secret}\n")
    identity_file.chmod(0o600)
OURS = None
def load():
    global OURS
    secret = identity_file.read_text().splitlines()[-1].lower()
    alphabet, held, bits, data = "qpzry9x8gf2tvdw0s3jn54khce6mua7l", 0, 0, b""
    for c in secret.split("1", 1)[1][:-6]:
        held, bits = (held << 5 | alphabet.index(c)) & 0xfff, bits + 5
        if bits >= 8:
            bits -= 8
            data += bytes([held >> bits & 255])
    OURS = Recipient(public(X25519PrivateKey.from_private_bytes(data)))
load()
OTHER = Recipient(public(X25519PrivateKey.generate()))

def make(name, inner, data, recipients=(OURS,), claims=None, tags=None, stanzas=None, digest=None, mac=None,
         extra=b"", text=None, payload=None, signature=b"", appended=b"", first=b"-> wal-archive "):
    file_key = os.urandom(16)
    payload = stream(file_key, inner) if payload is None else payload(file_key)
    says = {"wal-archive": 2, "name": name, "size": len(data), "payload": len(payload),
            "stored": hashlib.sha256(payload).hexdigest(),
            "recipients": tags or [{"id": r.id, "tag": r.tag(data, name)} for r in recipients],
            "system_id": SYSTEM_ID}
    says.update(claims or {})
    says = json.dumps({k: v for k, v in says.items() if v is not None}, separators=(",", ":"))
    head = b"age-encryption.org/v1\n" + first + (text(says) if text else says).encode() + b"\n"
    keys = b"".join(r.stanza(file_key) for r in recipients) if stanzas is None else stanzas(file_key)
    tail = extra + keys + b"---"
    body = lines((digest or hashlib.sha256(head + tail).digest()) + signature)
    whole = head + body + tail
    key = hkdf(None, file_key, b"header")
    return whole + b" " + b64(mac or hmac.new(key, whole, "sha256").digest()) + b"\n" + payload + appended

def write(kind, name, reason, data):
    path = here / kind / f"{name}--{reason}.age"
    if not path.exists():
        path.write_bytes(data)

import subprocess
for name in (SEGMENT, HISTORY):
    inner = (here.parent / "objects/accepted" / f"{name}--version-1.zst").read_bytes()
    data = subprocess.run(["zstd", "-dcq", "-"], input=inner, check=True, capture_output=True).stdout
    good = lambda **changes: make(name, inner, data, **changes)
    ok = lambda reason, **changes: write("accepted", name, reason, good(**changes))
    bad = lambda reason, data: write("rejected", name, reason, data)
    tagged = lambda r, data=data, name=name: {"id": r.id, "tag": r.tag(data, name)}
    ok("version-2")
    ok("two-recipients", recipients=(OTHER, OURS))
    ok("unknown-field", claims={"later": [1, {"x": None}]})
    ok("escaped-characters", text=lambda says: says.replace(name, "".join(f"\\u{ord(c):04x}" for c in name)))
    ok("signature", signature=os.urandom(64), claims={"signer": "a" * 64})
    grease = b"-> later some args\n" + lines(os.urandom(48))
    ok("key-stanza-of-another-type", tags=[tagged(OTHER), tagged(OURS)], extra=grease)
    without = (here.parent / "objects/accepted" / f"{name}--without-system-id.zst").read_bytes()
    write("accepted", name, "without-system-id", make(name, without, data, claims={"system_id": None}))
    base = good()
    header, payload = base[:base.index(b"\n---") + 49], base[base.index(b"\n---") + 49:]
    assert header.endswith(b"\n")
    def flip(at, what=base):
        return what[:at] + bytes([what[at] ^ 1]) + what[at + 1:]
    bad("empty", b"")
    bad("header-cut", header[:-10])
    bad("payload-missing", header)
    bad("payload-cut", base[:-1])
    bad("byte-appended", base + b"\n")
    bad("second-object-appended", base + good())
    bad("bit-flipped-in-payload", flip(len(base) - 40))
    bad("bit-flipped-in-the-nonce", flip(len(header) + 3))
    at = header.index(b"-> X25519") + 60
    bad("character-changed-in-a-key", header[:at] + (b"A" if header[at:at + 1] != b"A" else b"B") + header[at + 1:] + payload)
    bad("mac-of-another", good(mac=bytes(32)))
    bad("digest-of-another", good(digest=bytes(32)))
    bad("payload-of-another", header + good()[len(header):])
    bad("name-of-another", make("00000003.history", inner, data))
    bad("content-of-another-name", good(claims={"name": name}, payload=lambda k: stream(k, (here.parent / "objects/accepted" / f"{HISTORY if name == SEGMENT else SEGMENT}--version-1.zst").read_bytes())))
    bad("size-of-another", good(claims={"size": len(data) + 1}))
    bad("cluster-of-another", good(claims={"system_id": "7"}))
    bad("stored-of-another", good(claims={"stored": "0" * 64}))
    bad("length-of-another", good(claims={"payload": 1}))
    bad("tag-of-another", good(tags=[tagged(OURS, data + b"x")]))
    bad("tag-missing", good(tags=[tagged(OTHER)]))
    bad("no-recipient", good(tags=[], stanzas=lambda k: b""))
    bad("more-keys-than-recipients", good(recipients=(OURS, OTHER), tags=[tagged(OURS)]))
    bad("nine-recipients", good(recipients=(OURS,) * 9))
    bad("field-twice", good(text=lambda says: says.replace('"size":', '"size":1,"size":')))
    bad("unknown-field-twice", good(text=lambda says: says[:-1] + ',"x":1,"x":1}'))
    bad("not-json", good(text=lambda says: "{"))
    bad("higher-version", good(claims={"wal-archive": 3}))
    bad("version-1", good(claims={"wal-archive": 1}))
    bad("size-missing", good(claims={"size": None}))
    bad("id-of-15-digits", good(tags=[{"id": OURS.id[1:], "tag": OURS.tag(data, name)}]))
    bad("public-stanza-missing", make(name, inner, data, first=b"-> something "))
    bad("public-stanza-twice", good(extra=b"-> wal-archive x\n" + lines(os.urandom(32)), tags=[tagged(OTHER), tagged(OURS)]))
    bad("passphrase-beside-a-key", good(extra=b"-> scrypt " + b64(os.urandom(16)) + b" 10\n" + lines(os.urandom(32)), tags=[tagged(OTHER), tagged(OURS)]))
    bad("key-without-secret", good(stanzas=lambda k: b"-> X25519 " + b64(bytes(32)) + b"\n" + lines(os.urandom(32))))
    bad("key-body-of-31-bytes", good(stanzas=lambda k: b"-> X25519 " + b64(os.urandom(32)) + b"\n" + lines(os.urandom(31))))
    bad("padded-base64", header.replace(b"\n-> X25519", b"=\n-> X25519") + payload)
    bad("carriage-return", header.replace(b"\n-> X25519", b"\r\n-> X25519") + payload)
    bad("header-too-long", good(claims={"later": "x" * 17000}))
    bad("last-chunk-not-marked", good(payload=lambda k: stream(k, inner, mark_last=False)))
    bad("no-trailer-inside", good(payload=lambda k: stream(k, inner[:-256])))
    bad("not-an-object-inside", good(payload=lambda k: stream(k, b"junk")))
    bad("nothing-inside", good(payload=lambda k: stream(k, b"")))
    bad("not-encrypted", inner)
