#!/usr/bin/env python3
"""A scikit-learn model: rv-score --exec 'python3 sklearn_model.py model.joblib' --batch 64"""

import json
import sys

import joblib

FEATURES = ["sepalLength", "sepalWidth", "petalLength", "petalWidth"]
model = joblib.load(sys.argv[1])
for line in sys.stdin:
    inputs = json.loads(line)
    batch = inputs if isinstance(inputs, list) else [inputs]
    answers, rows = [], {}
    for number, flower in enumerate(batch):
        try:
            rows[number] = [float(flower[name]) for name in FEATURES]
            answers.append(None)
        except Exception as error:
            answers.append({"error": f"{type(error).__name__}: {error}"})
    for number, shares in zip(rows, model.predict_proba(list(rows.values())) if rows else []):
        best = shares.argmax()
        answers[number] = {"result": model.classes_[best].item(), "confidence": float(shares[best])}
    print(json.dumps(answers if isinstance(inputs, list) else answers[0]), flush=True)
