"""Compares the answers of the front end with those of the service itself.

Usage: check.py FOLDER CALLS SERVICE PYTHON_WITH_KSERVE (run by check_serving.sh, programs on the path)
"""

import json
import os
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import tritonclient.http as triton
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from tritonclient.utils import InferenceServerException

FOLDER, CALLS, SERVICE = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
PYTHON_WITH_KSERVE = sys.argv[4]
POLICY = """
deadline_ms = 1000
[versions]
current = 1
[[prefer]]
after_ms = 0
models = ["current"]
"""
# Each shadow is a program between its pipe and a file of the rendezvous.
SHADOWS = {
    "hangs": "import time; time.sleep(3600)",
    "crashes": "import sys; sys.stdin.readline(); raise SystemExit(1)",
    "garbage": "import sys\nfor line in sys.stdin: print('}{ no JSON', flush=True)",
}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Running:
    """The programs of one architecture, which end with it."""

    def __init__(self, name):
        self.folder = FOLDER / name
        self.folder.mkdir()
        self.programs = []

    def start(self, *command, **streams):
        log = open(self.folder / f"{len(self.programs)}-{Path(command[0]).name}.log", "w")
        program = subprocess.Popen(
            [str(part) for part in command], cwd=self.folder, stderr=log, **streams
        )
        self.programs.append(program)
        return program

    def fifo(self, name):
        os.mkfifo(self.folder / name)
        return name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in reversed(self.programs):
            program.kill()
        for program in self.programs:
            program.wait()


def await_status(url, status=200):
    for _ in range(300):
        try:
            if httpx.get(url).status_code == status:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"check_serving: {url} has not answered with {status}")


def architecture(running, engine, shadows, flags):
    """Starts a whole architecture, and returns the address of its front end."""
    port = free_port()
    for name in ("requests", "responses", "to-model", "to-rendezvous", "scores"):
        running.fifo(name)
    (running.folder / "policy.toml").write_text(POLICY)
    live, scores = ["--live", "to-model"], ["--scores", "scores"]
    for name in shadows:
        live += ["--live", running.fifo(f"to-{name}")]
        scores += ["--scores", running.fifo(f"scores-{name}")]
        code = SHADOWS[name]
        command = f'exec "$0" -c "$1" < to-{name} > scores-{name}'
        running.start("sh", "-c", command, sys.executable, code)
    running.start("rv-tee", "-i", "requests", *live, "--no-stdout", "to-rendezvous")
    running.start("rv-score", "-i", "to-model", "-o", "scores", *engine)
    running.start("rv-rendezvous", "--requests", "to-rendezvous", *scores, "-o", "responses",
                  "--policy", "policy.toml", "--decisions", "decisions")  # fmt: skip
    running.start("rv-request", "--listen", f"127.0.0.1:{port}", "--responses", "responses",
                  "-o", "requests", *flags)  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    await_status(f"{address}/v2/health/ready")
    return address


def call_of(number):
    """One of many different calls: most are valid, and all bodies differ."""
    random.seed(number)
    flower = {
        "name": random.choice(["iris", "rose", 'ros"e\\', "Blüte", "unknown"]),
        "sizes": [random.uniform(-5, 5) for _ in range(random.randrange(8))],
        "note": random.choice([None, "a\nb", "\u2028 \U0001f600", "x" * 300]),
        "number": number,
    }
    if number % 11 == 0:
        flower["sizes"] = "none"
    if number % 13 == 0:
        del flower["name"]
    indent = random.choice([None, None, 2])
    return json.dumps(flower, indent=indent, ensure_ascii=number % 2 == 0).encode()


def run(address, path, numbers):
    """The status and the body of each call, and its time in ms."""
    times = {}

    def one(number):
        client = clients[number % len(clients)]
        started = time.perf_counter()
        reply = client.post(
            f"{address}{path}",
            content=call_of(number),
            headers={"content-type": "application/json"},
        )
        times[number] = (time.perf_counter() - started) * 1000
        return reply.status_code, reply.content

    clients = [httpx.Client(timeout=30) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, numbers))
    return answers, times


def p99(times, answers):
    """The 99th percentile of the calls that have a result."""
    good = sorted(times[n] for n, (status, _) in enumerate(answers) if status == 200)
    return good[int(len(good) * 0.99)]


def expect(fact, what):
    if not fact:
        raise SystemExit(f"check_serving: {what}")


def check_plain(service):
    numbers = range(CALLS)
    direct, times = run(service, "/classify", numbers)
    direct_p99 = p99(times, direct)
    statuses = sorted({status for status, _ in direct})
    expect(statuses == [200, 404, 422], f"the service answers with {statuses}")
    engine = ["--url", f"{service}/classify", "--protocol", "json", "--in-flight", "32",
              "--name", "current", "--model-version", "1"]  # fmt: skip
    reports = {}
    for name, shadows in [("alone", []), ("beside", list(SHADOWS))]:
        with Running(name) as running:
            flags = ["--plain", "/classify"]
            address = architecture(running, engine, shadows, flags)
            answers, times = run(address, "/classify", numbers)
            reports[name] = p99(times, answers)
        differ = [n for n in numbers if answers[n] != direct[n]]
        for number in differ[:3]:
            print(call_of(number), direct[number], answers[number], sep="\n")
        expect(not differ, f"{name}: {len(differ)} answers differ")
        print(f"plain, {name}: {CALLS} answers equal to direct calls")
    print(
        f"p99: direct {direct_p99:.1f} ms, no shadows {reports['alone']:.1f} ms, "
        f"bad shadows {reports['beside']:.1f} ms"
    )
    bound = 3 * reports["alone"] + 50
    expect(reports["beside"] < bound, "the shadows slow the answers")


def check_triton(address, expected):
    client = triton.InferenceServerClient(address.removeprefix("http://"))
    expect(client.is_server_live() and client.is_server_ready(), "the server is not ready")
    expect(client.is_model_ready("iris"), "the model is not ready")
    expect(client.get_model_metadata("iris")["inputs"][0]["shape"] == [-1, 4], "metadata")
    rows = flowers.to_numpy()

    def infer(model, values, **flags):
        tensor = triton.InferInput("input", list(values.shape), "FP64")
        tensor.set_data_from_numpy(values, binary_data=flags.get("binary", False))
        return client.infer(model, [tensor], request_id="call 7")

    for count in (1, 1000):
        values = np.resize(rows, (count, 4))
        result = infer("iris", values)
        expect(result.get_response()["id"] == "call 7", "the id is not echoed")
        labels = result.as_numpy("predict")
        expect(labels.shape == (count,) and labels.dtype == np.int64, "shape and type")
        expect((labels == np.resize(expected, count)).all(), f"{count} rows differ")
    for what, status, call in [
        ("wrong shape", "[422]", lambda: infer("iris", rows[:, :3].copy())),
        ("binary", "[400]", lambda: infer("iris", rows, binary=True)),
        ("unknown model", "[404]", lambda: infer("rose", rows)),
    ]:
        try:
            call()
            expect(False, f"{what} was accepted")
        except InferenceServerException as error:
            expect(status in str(error), f"{what}: {error}")
            expect(error.message(), f"{what}: no message")
    wrong_type = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64",
                              "data": [1, 2, 3, "4"]}]}  # fmt: skip
    reply = httpx.post(f"{address}/v2/models/iris/infer", json=wrong_type)
    expect(reply.status_code == 400 and reply.json()["error"], "wrong type")
    print("tritonclient: batches of 1 and 1000 rows, wrong shape, type, model, binary data")


def check_kserve(address, expected):
    client = Path(__file__).parent / "kserve_client.py"
    given = {"rows": flowers.to_numpy().tolist(), "labels": expected}
    # The packages of KServe are in an environment of their own.
    subprocess.run([PYTHON_WITH_KSERVE, client, address], input=json.dumps(given), text=True,
                   check=True)  # fmt: skip


def check_mlflow(address, expected):
    client = ScoringServerClient("127.0.0.1", int(address.rsplit(":", 1)[1]))
    client.ping()
    for count in (1, 1000):
        frame = pd.concat([flowers] * (1 + count // len(flowers)), ignore_index=True)[:count]
        labels = client.invoke(frame).get_predictions()
        expect(labels[0].tolist() == np.resize(expected, count).tolist(), f"{count} rows differ")
    for what, data in [
        ("unknown columns", flowers.rename(columns={"sepalLength": "other"})),
        ("wrong type", flowers.astype(str)),
    ]:
        try:
            client.invoke(data)
            expect(False, f"{what} was accepted")
        except Exception as error:
            expect("422" in str(error), f"{what}: {error}")
    print("MLflow's scoring client: batches of 1 and 1000 rows, unknown columns, wrong type")


flowers = pd.DataFrame(
    [json.loads(line) for line in Path("fixtures/flowers.ndjson").read_text().splitlines()]
)[["sepalLength", "sepalWidth", "petalLength", "petalWidth"]].astype(float)

with Running("service") as running:
    port = free_port()
    running.start("uvicorn", "--app-dir", SERVICE.parent.resolve(), "--port", port, "--no-access-log",
                  "--log-level", "warning", "service:app")  # fmt: skip
    await_status(f"http://127.0.0.1:{port}/openapi.json")
    check_plain(f"http://127.0.0.1:{port}")

model = FOLDER / "dt.json"
subprocess.run(["rv-score", "train", "--quiet", "--input", "fixtures/iris.csv", "--target", "target",
                "--features", ",".join(flowers.columns), "--algorithm", "decision-tree", "--name",
                "current", "--model-version", "1", "--output", model], check=True)  # fmt: skip
with Running("tables") as running:
    flags = ["--model", model, "--served-name", "iris"]
    address = architecture(running, ["--model", model], [], flags)
    records = [json.dumps({"messageId": str(n), "timestamp": 1.0, "modelInput": row})
               for n, row in enumerate(flowers.to_dict("records"))]  # fmt: skip
    scored = subprocess.run(["rv-score", "--model", model], input="\n".join(records) + "\n", text=True,
                            capture_output=True, check=True).stdout  # fmt: skip
    expected = [json.loads(line)["result"]["result"] for line in scored.splitlines()]
    check_triton(address, expected)
    check_kserve(address, expected)
    check_mlflow(address, expected)
