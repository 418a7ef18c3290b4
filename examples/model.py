#!/usr/bin/env python3
"""A model in Python: reads requests on standard input, writes scores on standard output.

It predicts the iris class with the nearest centre. Put your own model into `predict`.
docs/records.md gives the rules for a model.
"""

import json
import os
import sys
import time

NAME = "nearest"
VERSION = 1

# The mean of each class, in centimetres.
CENTRES = {
    0: {"sepalLength": 5.006, "sepalWidth": 3.428, "petalLength": 1.462, "petalWidth": 0.246},
    1: {"sepalLength": 5.936, "sepalWidth": 2.770, "petalLength": 4.260, "petalWidth": 1.326},
    2: {"sepalLength": 6.588, "sepalWidth": 2.974, "petalLength": 5.552, "petalWidth": 2.026},
}


def predict(flower):
    def distance(label):
        return sum((flower[name] - value) ** 2 for name, value in CENTRES[label].items())

    return min(CENTRES, key=distance)


def score(request):
    """The score of a request: its result, or an error, so that the rendezvous need not wait."""
    started = time.perf_counter()
    try:
        outcome = {"result": {"modelName": NAME, "result": predict(request["modelInput"])}}
    except Exception as error:
        outcome = {"error": {"modelName": NAME, "message": f"{type(error).__name__}: {error}"}}
    # Both times are in milliseconds.
    evaluation = 1000 * (time.perf_counter() - started)
    elapsed = 1000 * (time.time() - request["timestamp"])
    model = {
        "modelName": NAME,
        "modelVersion": VERSION,
        "elapsedTimeAfterRequest": round(elapsed, 3),
        "evaluationTime": round(evaluation, 3),
    }
    owned = ("result", "error", "provenance")
    carried = {key: value for key, value in request.items() if key not in owned}
    provenance = {**request.get("provenance", {}), "model": model}
    return {**carried, **outcome, "provenance": provenance}


def parse(line):
    """The request in a line. Raises ValueError if the line is no request."""
    request = json.loads(line)
    if not isinstance(request, dict) or not isinstance(request.get("messageId"), str):
        raise ValueError('field "messageId" is missing')
    if not isinstance(request.get("timestamp"), (int, float)):
        raise ValueError('field "timestamp" is missing')
    return request


def main():
    rejected = 0
    for number, line in enumerate(sys.stdin.buffer, start=1):
        if not line.strip():
            continue
        try:
            request = parse(line)
        except ValueError as error:
            # A bad line is reported, and the program continues.
            print(f"model.py: <stdin>:{number}: {error}", file=sys.stderr)
            rejected += 1
            continue
        # Flushed at once, because the rendezvous waits for the score.
        print(json.dumps(score(request)), flush=True)
    return 1 if rejected else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        # The reader has closed the pipe. Python flushes stdout again at its end, so
        # give it a place to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)
