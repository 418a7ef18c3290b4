"""The peer of a replay: a dict join that makes the same choice.

Reads requests and the scores of two models, and gives each request the answer
of dt@1 if it came within the deadline, else the answer of lr@0 if it has one.
Usage: join.py REQUESTS DT_SCORES LR_SCORES > RESPONSES
"""

import sys

try:
    import orjson

    loads, dumps = orjson.loads, orjson.dumps
except ImportError:
    import json

    loads = json.loads

    def dumps(value):
        return json.dumps(value, separators=(",", ":")).encode()


DEADLINE_MS = 100.0


def scores(path):
    found = {}
    with open(path, "rb") as lines:
        for line in lines:
            score = loads(line)
            model = score["provenance"]["model"]
            elapsed = model["elapsedTimeAfterRequest"]
            found[score["messageId"]] = (elapsed, score["result"], model["modelVersion"])
    return found


def main():
    dt, lr = scores(sys.argv[2]), scores(sys.argv[3])
    write = sys.stdout.buffer.write
    with open(sys.argv[1], "rb") as lines:
        for line in lines:
            request = loads(line)
            # In the first half of the deadline only dt may answer, then both models.
            best = None
            for rank, by_id in enumerate((dt, lr)):
                score = by_id.get(request["messageId"])
                if score is None or score[0] > DEADLINE_MS:
                    continue
                at = score[0] if rank == 0 else max(score[0], DEADLINE_MS / 2)
                if best is None or at < best[0]:
                    best = (at, score[1], score[2])
            request["modelResult"] = best[1] if best else None
            request["provenance"] = {
                "rendezvous": {
                    "modelVersion": best[2] if best else None,
                    "answeredAfter": best[0] if best else DEADLINE_MS,
                }
            }
            write(dumps(request) + b"\n")


main()
