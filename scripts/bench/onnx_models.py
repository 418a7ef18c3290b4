"""ONNX models for bench.sh, and a program that scores requests with them in Python:

onnx_models.py export TABLE        writes tree.onnx, forest.onnx and their one-row forms
onnx_models.py score MODEL BATCH   reads requests and writes scores; a batch of 1 uses json
onnx_models.py each COMMAND...     sends each request of stdin after the score of the one before
"""

import itertools
import json
import subprocess
import sys
import time

NAMES = ["sepalLength", "sepalWidth", "petalLength", "petalWidth"]


def export(table):
    import numpy
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    data = numpy.genfromtxt(table, delimiter=",", skip_header=1, usecols=range(5))
    rows, labels = data[:, :4].astype(numpy.float32), data[:, 4].astype(int)
    for name, model in [
        ("tree", DecisionTreeClassifier(random_state=0)),
        ("forest", RandomForestClassifier(n_estimators=100, random_state=0)),
    ]:
        model.fit(rows, labels)
        for suffix, count in [("", None), ("-one-row", 1)]:
            shape = [("x", FloatTensorType([count, 4]))]
            exported = to_onnx(model, initial_types=shape, options={"zipmap": False})
            with open(f"{name}{suffix}.onnx", "wb") as file:
                file.write(exported.SerializeToString())


def score(path, batch_size):
    import numpy
    import onnxruntime
    import orjson

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    loads = json.loads if batch_size == 1 else orjson.loads
    dumps = (lambda score: json.dumps(score).encode()) if batch_size == 1 else orjson.dumps
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while batch := [loads(line) for line in itertools.islice(source, batch_size)]:
        begun = time.time()
        rows = numpy.array([[request["modelInput"][name] for name in NAMES] for request in batch], numpy.float32)
        labels, probabilities = session.run(None, {"x": rows})
        labels, confidences = labels.tolist(), probabilities.max(axis=1).tolist()
        spent = (time.time() - begun) * 1000
        for request, label, confidence in zip(batch, labels, confidences):
            request["result"] = {"modelName": "m", "result": label, "confidence": confidence}
            request["provenance"] = {"model": {"modelName": "m", "modelVersion": 1, "elapsedTimeAfterRequest": spent}}
        sink.write(b"\n".join(map(dumps, batch)) + b"\n")
        if batch_size == 1:
            sink.flush()


def each(command):
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    scores = open(running.stdout.fileno(), "rb", closefd=False)
    for request in sys.stdin.buffer:
        running.stdin.write(request)
        if not scores.readline():
            sys.exit("the program ended early")
    running.stdin.close()
    sys.exit(running.wait())


mode, arguments = sys.argv[1], sys.argv[2:]
if mode == "export":
    export(arguments[0])
elif mode == "score":
    score(arguments[0], int(arguments[1]))
else:
    each(arguments)
