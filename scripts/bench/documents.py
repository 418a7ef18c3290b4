"""Turns plain requests into the documents of rv-es-sink, in which the timestamp is a date.

With them, a loader gives the service the same work as the sink. Usage: documents.py < REQUESTS > DOCUMENTS
"""

import re
import sys
from datetime import datetime, timezone

TIMESTAMP = re.compile(rb',"timestamp":([0-9.]+)')


def main():
    for line in sys.stdin.buffer:
        seconds = float(TIMESTAMP.search(line).group(1))
        date = datetime.fromtimestamp(seconds, timezone.utc)
        rest = TIMESTAMP.sub(b"", line).rstrip()[:-1]
        member = f',"timestamp":"{date:%Y-%m-%dT%H:%M:%S.%fZ}"}}\n'
        sys.stdout.buffer.write(rest + member.encode())


main()
