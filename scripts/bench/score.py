"""Scores requests with scikit-learn: score.py TABLE BATCH [tree|forest] < requests."""

import datetime
import json
import logging
import sys
import time

import numpy
import orjson
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

table, batch_size = sys.argv[1], int(sys.argv[2])
with open(table, encoding="utf-8") as lines:
    names = next(lines).strip().split(",")[:4]
    rows = [line.strip().split(",") for line in lines]
if sys.argv[3:] == ["forest"]:
    model = RandomForestClassifier(100, random_state=0)
else:
    model = DecisionTreeClassifier(random_state=0)
model.fit([[float(value) for value in row[:4]] for row in rows], [int(row[4]) for row in rows])


if batch_size == 1:
    # A simple loop predicts once a record. Its debug messages are not printed.
    logger = logging.getLogger("score")
    for line in sys.stdin:
        data = json.loads(line)
        logger.debug(f"Receive message: {data}")
        row = [[data["modelInput"][name] for name in names]]
        result = int(model.predict(row)[0])
        requested = datetime.datetime.fromtimestamp(float(data["timestamp"]), datetime.timezone.utc)
        now = datetime.datetime.now(datetime.timezone.utc)
        data["result"] = {"modelName": "dt", "result": result}
        if "provenance" not in data:
            data["provenance"] = {}
        data["provenance"]["model"] = {
            "modelName": "dt",
            "elapsedTimeAfterRequest": (now - requested).total_seconds() * 1000,
            "modelVersion": 1,
        }
        sys.stdout.write(json.dumps(data) + "\n")
        logger.debug(f"Sent data with producer: {data}")
else:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        batch = [orjson.loads(line) for _, line in zip(range(batch_size), source)]
        if not batch:
            break
        begun = time.time()
        rows = numpy.array([[request["modelInput"][name] for name in names] for request in batch])
        probabilities = model.predict_proba(rows)
        results = model.classes_[probabilities.argmax(axis=1)].tolist()
        confidences = probabilities.max(axis=1).tolist()
        spent = (time.time() - begun) * 1000
        for request, result, confidence in zip(batch, results, confidences):
            request["result"] = {"modelName": "dt", "result": result, "confidence": confidence}
            request["provenance"] = {
                "model": {"modelName": "dt", "modelVersion": 1, "elapsedTimeAfterRequest": spent}
            }
        sink.write(b"\n".join(map(orjson.dumps, batch)) + b"\n")
