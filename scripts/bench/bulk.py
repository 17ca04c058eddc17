"""A bucket with a very long archive that nobody had to write: bulk.py serve PORT COUNT SYSTEM_ID DELAY_MS.

It lists COUNT segments below archive/wal_005/, a thousand a page, and answers for the end of each with
the trailer that says what it is (docs/format.md); what else is asked for is not there. Each answer comes
DELAY_MS later. `bulk.py read PORT` asks for all pages one after the other, and throws them away: what
the listing takes on its own. `bulk.py asked PORT` prints how many requests there were.
"""

import asyncio
import http.client
import json
import re
import sys
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 1000
FOLDER = "archive/wal_005/"
FRAME, TRAILER = 100_000, 256
ENTRY = ("<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{:032x}&quot;</ETag>"
         "<Size>" + str(FRAME + TRAILER) + "</Size><StorageClass>STANDARD</StorageClass></Contents>")
REQUEST = re.compile(rb"(GET|HEAD) (\S+) HTTP/1\.1\r\n")


def segment(number):
    return f"00000001{number >> 8:08X}{number & 255:08X}"


class Archive:
    """What there is, by number: the first is 1."""

    def __init__(self, count, system_id):
        self.count, self.system_id = count, system_id

    def page(self, query):
        prefix = query.get("prefix", [""])[0]
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        if prefix != FOLDER:
            return self.document([], None)
        first = int(after[len(FOLDER) + 8:][:8], 16) << 8 | int(after[len(FOLDER) + 16:][:8], 16) if after > FOLDER else 0
        numbers = range(first + 1, min(first + PAGE, self.count) + 1)
        keys = [f"{FOLDER}{segment(number)}.zst" for number in numbers]
        return self.document(keys, keys[-1] if keys and numbers[-1] < self.count else None)

    @staticmethod
    def document(keys, next_token):
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{next_token}</NextContinuationToken>"
        entries = "".join(ENTRY.format(key, number) for number, key in enumerate(keys))
        return ('<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>bucket</Name><MaxKeys>1000</MaxKeys>'
                f"<KeyCount>{len(keys)}</KeyCount>{more if next_token else '<IsTruncated>false</IsTruncated>'}{entries}"
                "</ListBucketResult>").encode()

    def trailer(self, name):
        label = json.dumps({"wal-archive": 1, "name": name, "size": 16 << 20, "frame": FRAME, "sha256": "00" * 32,
                            "system_id": self.system_id}, separators=(",", ":"))
        return b"\x5e\x2a\x4d\x18\xf8\x00\x00\x00" + label.encode().ljust(247) + b"\n"

    def answer(self, method, target):
        """Status, further headers and body."""
        url = urlsplit(target)
        query, key = parse_qs(url.query), unquote(url.path).removeprefix("/bucket").removeprefix("/")
        if not key:
            return "200 OK", "Content-Type: application/xml\r\n", self.page(query)
        if key == "archive/archive.json":
            label = {"wal-archive": 1, "system_id": self.system_id, "segment_size": 16 << 20, "foreign": False}
            return "200 OK", "", json.dumps(label).encode() + b"\n"
        if method == "GET" and key.startswith(FOLDER):
            size = FRAME + TRAILER
            held = f"Content-Range: bytes {FRAME}-{size - 1}/{size}\r\n"
            return "206 Partial Content", held, self.trailer(key[len(FOLDER):].removesuffix(".zst"))
        return "404 Not Found", "", b"<Error><Code>NoSuchKey</Code></Error>"


class Connection(asyncio.Protocol):
    asked = 0

    def __init__(self, archive, delay):
        self.archive, self.delay, self.unread = archive, delay, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.unread += data
        while b"\r\n\r\n" in self.unread:
            head, _, self.unread = self.unread.partition(b"\r\n\r\n")
            found = REQUEST.match(head)
            if not found:
                self.transport.close()
                return
            method, target = found[1].decode(), found[2].decode()
            if target == "/asked":
                status, headers, body = "200 OK", "", str(Connection.asked).encode()
            else:
                Connection.asked += 1
                status, headers, body = self.archive.answer(method, target)
            answer = (f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\nETag: \"0\"\r\n"
                      "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n").encode() + (body if method == "GET" else b"")
            asyncio.get_running_loop().call_later(self.delay, self.transport.write, answer)


async def serve(port, count, system_id, delay):
    archive = Archive(count, system_id)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(archive, delay), "127.0.0.1", port)
    await server.serve_forever()


def read(port):
    connection, token = http.client.HTTPConnection("127.0.0.1", port), ""
    while token is not None:
        connection.request("GET", f"/bucket?list-type=2&prefix={FOLDER}&delimiter=/" + (f"&continuation-token={token}" if token else ""))
        page = connection.getresponse().read()
        found = re.search(rb"<NextContinuationToken>(.*?)<", page[:1000])
        token = found[1].decode() if found else None


def asked(port):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/asked")
    return int(connection.getresponse().read())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port, count, system_id, delay_ms]:
            asyncio.run(serve(int(port), int(count), system_id, float(delay_ms) / 1000))
        case ["read", port]:
            read(int(port))
        case ["asked", port]:
            print(asked(int(port)))
