#!/usr/bin/env python3
"""The model of model.py on NATS, with the broker's own client and without rv-bridge.

    pip install nats-py
    model_nats.py nats://127.0.0.1:4222 STREAM REQUESTS SCORES

It reads the subject REQUESTS as the durable consumer `nearest`, and publishes a score for
each request to the subject SCORES. A request is acknowledged when its score is stored, so
a model that is killed loses none. SIGTERM ends the program after the current request.
"""

import asyncio
import json
import signal
import sys

import nats
from nats.errors import TimeoutError as NothingCame

from model import NAME, parse, score


async def main(server, stream, requests, scores):
    connection = await nats.connect(server, max_reconnect_attempts=-1)
    broker = connection.jetstream()
    consumer = await broker.pull_subscribe(requests, durable=NAME, stream=stream)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    while not over.is_set():
        try:
            messages = await consumer.fetch(batch=100, timeout=1)
        except NothingCame:
            continue
        for message in messages:
            try:
                request = parse(message.data)
            except ValueError as error:
                # It would be as bad the next time, so it is not delivered again.
                print(f"model_nats.py: {message.metadata.sequence.stream}: {error}", file=sys.stderr)
                await message.term()
                continue
            # Returns when the broker has stored the score.
            await broker.publish(scores, json.dumps(score(request)).encode())
            await message.ack()
    await connection.drain()


if __name__ == "__main__":
    if len(sys.argv) != 5:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    asyncio.run(main(*sys.argv[1:]))
