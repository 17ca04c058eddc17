"""A line with a round trip: proxy.py PORT SERVER_PORT DELAY_MS [CERTIFICATE KEY].

Everything that comes from the server is passed on DELAY_MS later, in order and at full speed: the
delay is paid once for each exchange, however long the body. A new connection pays once more for
its handshake, and once more for that of TLS, which ends here. Prints a line for each HTTP request: a turn of the client that begins with a request
line (HTTP/1.1 clients wait for the answer before they ask again, so a turn is a request, and the
body sent after "100 Continue" begins with none).

Not modelled: bandwidth, TCP's slow start, loss.
"""

import asyncio
import re
import socket
import ssl
import sys

REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")
BLOCK = 1 << 18


async def upstream(client, server, turn):
    while data := await client.read(BLOCK):
        if turn["of"] == "client":
            turn["of"] = "server"
            if found := REQUEST.match(data):
                print(found[1].decode(), found[2].decode(), flush=True)
        server.write(data)
        await server.drain()
    if server.can_write_eof():
        server.write_eof()


async def downstream(server, client, delay, turn):
    loop = asyncio.get_running_loop()
    line = asyncio.Queue(64)

    async def receive():
        try:
            while data := await server.read(BLOCK):
                turn["of"] = "client"
                await line.put((loop.time() + delay, data))
        finally:
            await line.put((loop.time() + delay, b""))

    receiver = asyncio.create_task(receive())
    try:
        while True:
            due, data = await line.get()
            if (left := due - loop.time()) > 0:
                await asyncio.sleep(left)
            if not data:
                return
            client.write(data)
            await client.drain()
    finally:
        receiver.cancel()
        await asyncio.gather(receiver, return_exceptions=True)


async def connection(client_in, client_out, server_port, delay, handshakes):
    server_out = None
    try:
        await asyncio.sleep(handshakes * delay)
        server_in, server_out = await asyncio.open_connection("127.0.0.1", server_port)
        for end in (client_out, server_out):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        turn = {"of": "client"}
        sending = asyncio.create_task(upstream(client_in, server_out, turn))
        try:
            await downstream(server_in, client_out, delay, turn)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    except OSError:
        pass  # one side went away; the other is told by the close
    finally:
        for end in (client_out, server_out):
            if end:
                end.close()


async def main(port, server_port, delay, certificate):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if certificate else None
    if tls:
        tls.load_cert_chain(*certificate)
    alive = set()  # the event loop itself refers to tasks only weakly

    def serve(reader, writer):
        task = asyncio.create_task(connection(reader, writer, server_port, delay, 2 if tls else 1))
        alive.add(task)
        task.add_done_callback(alive.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=BLOCK, ssl=tls)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000, sys.argv[4:]))
