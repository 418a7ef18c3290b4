"""Compares rv-score with the library of each model, on every row: compare.py FOLDER.

Prints one line a model, and exits with status 1 if an answer differs. The models and the
requests stay in FOLDER.
"""

import json
import subprocess
import sys
from pathlib import Path

from cases import all_cases

TOLERANCE = 1e-5
# This many rows are also sent one at a time, so that each of them is evaluated alone.
SINGLE_ROWS = 20



def difference(found, expected):
    """The largest difference of a number between two JSON values."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), (found, expected)
        return max(difference(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        assert len(found) == len(expected), (found, expected)
        return max(map(difference, found, expected))
    return abs(found - expected) / max(1, abs(expected))


def requests_of(case):
    for number, row in enumerate(case.inputs):
        yield json.dumps({"messageId": str(number), "timestamp": 1, "modelInput": row}) + "\n"


def one_at_a_time(command, requests):
    """The scores of requests. Each request is sent after the score of the request before."""
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    scores = []
    for request in requests:
        running.stdin.write(request)
        running.stdin.flush()
        scores.append(running.stdout.readline())
    running.stdin.close()
    assert running.wait() == 0
    return scores


def compare(case, folder, number):
    model = folder / f"{number}.onnx"
    model.write_bytes(case.model.SerializeToString())
    command = ["rv-score", "--model", str(model), "--name", "m", "--model-version", "1"]
    command += ["--rescore", "--probabilities", "--quiet", *case.flags]
    requests = list(requests_of(case))
    finished = subprocess.run(command, input="".join(requests), stdout=subprocess.PIPE, text=True, check=False)
    lines = finished.stdout.splitlines(keepends=True)
    if finished.returncode != 0:
        failed = [line for line in lines if '"error"' in line]
        print(f"  {case.name}: status {finished.returncode}, {len(failed)} errors", *failed[:1])
        return False
    assert len(lines) == len(requests) > 100, (len(lines), len(requests))
    scores = [json.loads(line) for line in lines]
    wrong, worst = check(case, scores)
    single = [json.loads(line) for line in one_at_a_time(command, requests[:SINGLE_ROWS])]
    single_wrong, _ = check(case, single)
    outcome = "ok" if wrong + single_wrong == 0 else f"{wrong + single_wrong} DIFFERENT"
    kind = "object" if case.objects else "number" if case.probabilities is None else "label"
    print(f"  {case.name:46} {kind:6} {len(scores):5} rows  largest difference {worst:.1e}  {outcome}", flush=True)
    return wrong + single_wrong == 0


def check(case, scores):
    """The number of wrong answers, and the largest difference of a number."""
    wrong, worst = 0, 0.0
    for number, score in enumerate(scores):
        assert score["messageId"] == str(number), score
        result = score["result"]
        if case.objects is not None:
            apart, same = difference(result["result"], case.objects[number]), True
        elif case.probabilities is None:
            apart, same = difference(result["result"], case.labels[number]), True
        else:
            expected = case.probabilities[number]
            apart = difference(result["probabilities"], expected)
            same = result["result"] == case.labels[number] and type(result["result"]) is type(case.labels[number])
            apart = max(apart, abs(result["confidence"] - expected[str(case.labels[number])]))
        worst = max(worst, apart)
        wrong += not (same and apart <= TOLERANCE)
    return wrong, worst


def main():
    folder = Path(sys.argv[1])
    outcomes = [compare(case, folder, number) for number, case in enumerate(all_cases())]
    assert len(outcomes) > 40, len(outcomes)
    print(f"  {outcomes.count(True)} of {len(outcomes)} models agree on every row")
    sys.exit(0 if all(outcomes) else 1)


main()
