"""Writes cases for the confidence sequences of rv-compare, with the answers of confseq:
one JSON object a line, with `of`, `input` and `expected`.

    sequences.py > fixtures/compare/sequences.ndjson

confseq is built from its source, which needs a C++ compiler and Boost, and its
build needs scikit-build, cmake, ninja and a current pybind11:

    apt-get install libboost-dev
    pip install scikit-build cmake ninja pybind11 wheel setuptools numpy
    pip install --no-build-isolation confseq==0.0.11
"""

import json

from confseq.boundaries import (
    gamma_exponential_log_mixture,
    gamma_exponential_mixture_bound,
)

for v_opt, alpha_opt in [(25, 0.05), (1, 0.05), (1000, 0.001)]:
    for v in [0.25, 1, 10, 300, 20000, 200000]:
        for s in [0.1, 2, 0.3 * v, 3 * v**0.5]:
            for alpha in [0.05, 0.0125]:
                expected = [
                    float(gamma_exponential_log_mixture(s, v, v_opt, 1, alpha_opt)),
                    float(gamma_exponential_mixture_bound(v, alpha, v_opt, 1, alpha_opt)),
                ]
                given = [v_opt, alpha_opt, s, v, alpha]
                print(json.dumps({"of": "mixture", "input": given, "expected": expected}))
