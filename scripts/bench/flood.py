"""Measures how long answers take while one model floods its pipe of scores.

flood.py KIND SECONDS     prints p50, p99 and the maximum, in ms
KIND is none, or one of the kinds in `lines` below.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

POLICY = """deadline_ms = 60000
[[prefer]]
after_ms = 0
models = ["dt@1"]
[[prefer]]
after_ms = 30000
models = ["dt@1", "lr@0"]
[default]
modelResult = { modelName = "default" }
"""


def lines(kind):
    """A block of lines in which an increasing number replaces @@@@@@@@."""
    score = '{"messageId":"%s","result":{"modelName":"%s","result":%s},"provenance":{"model":{"modelVersion":%s}}}\n'
    many = range(1000)
    if kind == "equal":
        text = [score % ("nobody", "bad", 1, 1)] * 1000
    elif kind == "distinct":
        text = [score % (f"nobody-@@@@@@@@-{i}", "bad", 1, 1) for i in many]
    elif kind == "duplicates":
        text = [score % ("open", "lr", 1, 0)] * 1000
    elif kind == "versions":
        text = [score % ("open", "bad", 1, f"1@@@@@@@@{i:03}") for i in many]
    elif kind == "late":
        text = [score % ("closed", "dt", 1, 1)] * 1000
    elif kind == "rejects":
        text = ['{"messageId":"open","result":}\n'] * 1000
    elif kind == "huge":
        text = [score % ("open", "bad", '"' + "x" * (15 << 20) + '"', "1@@@@@@@@")]
    else:
        raise SystemExit(f"flood.py: no kind {kind}")
    return "".join(text).encode()


def write(kind, path):
    """Writes as fast as the pipe accepts bytes."""
    block, number = lines(kind), 0
    changes = b"@@@@@@@@" in block
    with open(path, "wb", buffering=0) as pipe:
        while True:
            number += 1
            rest = memoryview(block.replace(b"@@@@@@@@", b"%08d" % number) if changes else block)
            while rest:
                rest = rest[pipe.write(rest) :]


def ask(requests, scores, responses, message_id):
    """The time until one answer, in seconds."""
    began = time.perf_counter()
    request = {"messageId": message_id, "timestamp": time.time(), "modelInput": {}}
    requests.write(json.dumps(request).encode() + b"\n")
    scores.write(
        b'{"messageId":"%s","result":{"modelName":"dt","result":1},"provenance":{"model":{"modelVersion":1}}}\n'
        % message_id.encode()
    )
    answer = b""
    while not answer.endswith(b"\n"):
        answer += responses.read(65536)
    if json.loads(answer)["messageId"] != message_id:
        raise SystemExit(f"flood.py: another answer: {answer}")
    return time.perf_counter() - began


def measure(kind, seconds):
    for pipe in ("requests", "good", "bad", "responses"):
        os.mkfifo(pipe)
    with open("policy.toml", "w") as policy:
        policy.write(POLICY)
    command = ["rv-rendezvous", "--requests", "requests", "--scores", "good", "bad", "--policy", "policy.toml"]
    command += ["--linger", "0s", "-o", "responses", "--rejects", "rejects", "--quiet"]
    children = [subprocess.Popen(command)]
    try:
        requests = open("requests", "wb", buffering=0)
        good = open("good", "wb", buffering=0)
        bad = open("bad", "wb", buffering=0)
        responses = open("responses", "rb", buffering=0)
        ask(requests, good, responses, "closed")
        requests.write(b'{"messageId":"open","timestamp":%f,"modelInput":{}}\n' % time.time())
        if kind != "none":
            children.append(subprocess.Popen([sys.executable, __file__, "--write", kind, "bad"]))
        bad.close()
        time.sleep(0.5)
        times, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end:
            times.append(ask(requests, good, responses, f"r-{len(times)}"))
            time.sleep(0.002)
    finally:
        for child in reversed(children):
            child.kill()
            child.wait()
    times.sort()
    shown = [times[len(times) // 2], times[len(times) * 99 // 100], times[-1]]
    print(" ".join(f"{1000 * it:.3f}" for it in shown))


if __name__ == "__main__":
    __file__ = os.path.abspath(__file__)
    if sys.argv[1] == "--write":
        try:
            write(sys.argv[2], sys.argv[3])
        except BrokenPipeError:
            pass
    else:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/tmp")) as folder:
            os.chdir(folder)
            measure(sys.argv[1], float(sys.argv[2]))
