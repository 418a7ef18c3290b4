"""Runs rv-score on damaged models: damage.py FOLDER SECONDS MODEL...

Each run must end with status 0 or 3 and without a panic. A crash inside onnxruntime is
not a fault of rv, and is only counted. A file that makes a run fail is kept. A run
with the same RV_FUZZ_SEED damages the files in the same way.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

folder, seconds, paths = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
seed = int(os.environ.get("RV_FUZZ_SEED", time.time_ns() % 1_000_000))
chance = random.Random(seed)
models = [Path(path).read_bytes() for path in paths]
# Large files are left out, because they would only reduce the number of runs.
models = [model for model in models if len(model) < 200_000]
file = folder / "damaged.onnx"
names = ",".join(f"f{index}" for index in range(13))
request = b'{"messageId":"1","timestamp":1,"modelInput":{%s}}\n' % ",".join(
    f'"f{index}":{index}' for index in range(13)
).encode()


def damaged(model):
    changed = bytearray(model)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        place = chance.randrange(len(changed))
        kind = chance.random()
        if kind < 0.6:
            changed[place] = chance.randrange(256)
        elif kind < 0.8:
            del changed[place : place + chance.randrange(1, 9)]
        elif kind < 0.9:
            changed[place:place] = changed[place : place + chance.randrange(1, 64)]
        else:
            del changed[place:]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def run(model):
    """The outcome of a run under which it is counted, and whether it is a failure."""
    file.write_bytes(model)
    command = ["rv-score", "--model", str(file), "--name", "x", "--model-version", "1", "--quiet"]
    wide = chance.random() < 0.7
    command += ["--features", names] if wide else []
    try:
        finished = subprocess.run(command, input=request * 3, capture_output=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        return "did not end", True
    if b"panicked" in finished.stderr:
        return "panicked", True
    if finished.returncode < 0:
        return f"crashed in onnxruntime (signal {-finished.returncode})", False
    outcomes = {0: "answered", 3: "refused"}
    by = " by onnxruntime" if b"onnxruntime does not load" in finished.stderr else ""
    outcome = outcomes.get(finished.returncode, f"ended with status {finished.returncode}")
    return outcome + by, finished.returncode not in outcomes


def main():
    counts, end = Counter(), time.monotonic() + seconds
    while time.monotonic() < end:
        model = damaged(chance.choice(models))
        outcome, is_failure = run(model)
        counts[outcome] += 1
        if is_failure:
            kept = tempfile.mkstemp(suffix=".onnx")[1]
            Path(kept).write_bytes(model)
            sys.exit(f"rv-score {outcome} on {kept}; RV_FUZZ_SEED={seed} repeats the run")
    assert sum(counts.values()) > 20 and counts["refused"] > 0 and counts["answered"] > 0, counts
    for outcome, count in counts.most_common():
        print(f"  {count:6} {outcome}")
    print(f"  RV_FUZZ_SEED={seed}")


main()
