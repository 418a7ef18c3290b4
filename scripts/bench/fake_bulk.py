"""A service that accepts every document at once, so that the sink is the bottleneck.

Prints its port, and serves until a signal ends it. Usage: fake_bulk.py
"""

import gzip
import socket
import threading

ABOUT = b'{"version":{"number":"8.0.0"}}'
ITEM = b'{"index":{"status":201}}'


def serve(connection):
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        pieces, have = [body], len(body)
        while have < length:
            more = connection.recv(1 << 20)
            if not more:
                return
            pieces.append(more)
            have += len(more)
        body, data = b"".join(pieces), b""
        if head.startswith(b"GET "):
            reply = ABOUT
        else:
            if b"content-encoding: gzip" in head.lower():
                body = gzip.decompress(body)
            count = body.count(b"\n") // 2
            reply = b'{"errors":false,"items":[' + b",".join([ITEM] * count) + b"]}"
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(reply) + reply)


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=(client,), daemon=True).start()
