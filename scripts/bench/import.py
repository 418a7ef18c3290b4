"""The peers of an imported model: LightGBM itself and onnxruntime.

prepare FOLDER TREES       trains on random rows; writes model.txt, model.onnx, requests
lightgbm FOLDER ROWS       predicts ROWS rows, one at a time, from numpy arrays
onnxruntime FOLDER ROWS    the same with onnxruntime on one thread
lightgbm-bulk FOLDER       reads the requests, predicts 10,000 at a time, writes scores
"""

import sys
from pathlib import Path

import numpy as np

FEATURES = 30
ROWS = 100_000


def prepare(folder, trees):
    import lightgbm
    import onnxmltools
    import orjson
    from onnxmltools.convert.common.data_types import FloatTensorType

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20_000, FEATURES)).astype(np.float32)
    value = rows[:, 0] * rows[:, 1] + rows[:, 2] + np.sin(3 * rows[:, 3])
    target = value + rng.normal(scale=0.5, size=len(rows)) > 0
    parameters = {"objective": "binary", "num_leaves": 31, "verbose": -1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, target), trees)
    booster.save_model(folder / "model.txt")
    inputs = [("input", FloatTensorType([None, FEATURES]))]
    onnx = onnxmltools.convert_lightgbm(booster, initial_types=inputs, zipmap=False)
    (folder / "model.onnx").write_bytes(onnx.SerializeToString())
    rows = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    np.save(folder / "rows.npy", rows)
    with (folder / "requests").open("wb") as file:
        for number, row in enumerate(rows.tolist()):
            values = {f"Column_{index}": round(one, 4) for index, one in enumerate(row)}
            request = {"messageId": str(number), "timestamp": 1.0, "modelInput": values}
            file.write(orjson.dumps(request) + b"\n")


def one_row_at_a_time(predict, folder, count):
    rows = np.load(folder / "rows.npy")[:count]
    for index in range(len(rows)):
        predict(rows[index : index + 1])


def main():
    mode, folder = sys.argv[1], Path(sys.argv[2])
    if mode == "prepare":
        prepare(folder, int(sys.argv[3]))
    elif mode == "lightgbm":
        import lightgbm

        booster = lightgbm.Booster(model_file=folder / "model.txt")
        one_row_at_a_time(
            lambda row: booster.predict(row, num_threads=1), folder, int(sys.argv[3])
        )
    elif mode == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / "model.onnx", options)
        one_row_at_a_time(
            lambda row: session.run(None, {"input": row}), folder, int(sys.argv[3])
        )
    elif mode == "lightgbm-bulk":
        import lightgbm
        import orjson

        booster = lightgbm.Booster(model_file=folder / "model.txt")
        names = [f"Column_{index}" for index in range(FEATURES)]
        source, sink = sys.stdin.buffer, sys.stdout.buffer
        while True:
            batch = [orjson.loads(line) for _, line in zip(range(10_000), source)]
            if not batch:
                break
            inputs = [request["modelInput"] for request in batch]
            rows = np.array([[one[name] for name in names] for one in inputs])
            answers = booster.predict(rows, num_threads=1).tolist()
            for request, answer in zip(batch, answers):
                request["result"] = {"modelName": "m", "result": int(answer > 0.5)}
                request["result"]["confidence"] = max(answer, 1 - answer)
            sink.write(b"\n".join(map(orjson.dumps, batch)) + b"\n")


main()
