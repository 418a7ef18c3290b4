"""The peer of rv-es-sink: a plain loop around `_bulk`.

Reads records from stdin and indexes each under its messageId, with calls of 1000
records on CONNECTIONS connections. Usage: bulk.py HOST:PORT INDEX CONNECTIONS
"""

import http.client
import json
import sys
import threading
from itertools import islice

BATCH = 1000


def main():
    address, index, connections = sys.argv[1], sys.argv[2], int(sys.argv[3])
    lines, lock, failures = sys.stdin.buffer, threading.Lock(), []

    def work():
        connection = http.client.HTTPConnection(address)
        while True:
            with lock:
                batch = list(islice(lines, BATCH))
            if not batch:
                return
            body = bytearray()
            for line in batch:
                action = {"index": {"_index": index, "_id": json.loads(line)["messageId"]}}
                body += json.dumps(action).encode() + b"\n" + line
            headers = {"Content-Type": "application/x-ndjson"}
            connection.request("POST", "/_bulk", bytes(body), headers)
            reply = connection.getresponse()
            result = json.loads(reply.read())
            if reply.status != 200 or result["errors"]:
                failures.append(reply.status)
                return

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(f"bulk.py: refused: {failures}" if failures else 0)


main()
