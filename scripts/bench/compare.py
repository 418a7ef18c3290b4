"""Compares two models by the decisions in a file, with orjson, pandas, scipy, statsmodels
and scikit-learn: the same figures as rv-compare.

    compare.py DECISIONS dt 1 lr 0 [orjson|pandas]

The last argument tells what reads the file.
"""

import sys

import numpy as np
import orjson
import pandas as pd
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.contingency_tables import SquareTable
from statsmodels.stats.proportion import proportion_confint

path, legs = sys.argv[1], [(sys.argv[2], int(sys.argv[3])), (sys.argv[4], int(sys.argv[5]))]
rows = []


def records():
    if sys.argv[6:] == ["pandas"]:
        frame = pd.read_json(path, lines=True)[["messageId", "candidates"]]
        yield from frame.to_dict("records")
        return
    with open(path, "rb") as decisions:
        yield from map(orjson.loads, decisions)


for record in records():
    row = [record["messageId"], None, None, None, None]
    for candidate in record["candidates"]:
        for place, leg in enumerate(legs):
            if (candidate["modelName"], candidate["modelVersion"]) == leg:
                row[1 + 2 * place] = candidate.get("result", {}).get("result")
                row[2 + 2 * place] = candidate["arrivedAfter"]
    rows.append(row)
frame = pd.DataFrame(rows, columns=["id", "base", "baseAfter", "candidate", "candidateAfter"])
frame = frame.drop_duplicates("id")
pairs = frame.dropna(subset=["base", "candidate"])
same = int((pairs.base == pairs.candidate).sum())
table = pd.crosstab(pairs.base, pairs.candidate)
classes = table.index.union(table.columns)
table = table.reindex(index=classes, columns=classes, fill_value=0)
print(same / len(pairs), proportion_confint(same, len(pairs), method="wilson"))
print(cohen_kappa_score(pairs.base, pairs.candidate))
print(SquareTable(table.to_numpy(), shift_zeros=False).homogeneity().pvalue)
print(table)
for name in ["baseAfter", "candidateAfter"]:
    values = np.sort(pairs[name])
    for q in [0.5, 0.9, 0.99]:
        low, high = stats.binom.ppf([0.025, 0.975], len(values), q).astype(int)
        print(name, q, np.quantile(values, q), values[low - 1], values[min(high, len(values) - 1)])
print(stats.ttest_rel(pairs.candidateAfter, pairs.baseAfter).confidence_interval())
