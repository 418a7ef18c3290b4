"""Writes fixtures/import: a small model of LightGBM and one of XGBoost, and some rows
with the answers of the libraries.

Usage: import_fixtures.py (with lightgbm, xgboost and pandas installed)
"""

import json
import re
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import xgboost

FOLDER = Path(__file__).parents[2] / "fixtures/import"
RNG = np.random.default_rng(0)


def table(rows):
    colours = pd.Categorical(RNG.choice(["x", "y", "z z"], rows), ["x", "y", "z z"])
    frame = pd.DataFrame(
        {
            "a": RNG.normal(size=rows),
            "b": np.where(RNG.random(rows) < 0.4, 0, RNG.normal(size=rows)),
            "c": colours,
            "d": pd.Categorical(RNG.choice([3, 7, 11], rows), [3, 7, 11]),
        }
    )
    frame.loc[RNG.random(rows) < 0.15, "a"] = np.nan
    frame.loc[RNG.random(rows) < 0.15, "c"] = None
    return frame.round(3)


training = table(500)
value = training.a.fillna(0) + (training.c == "x") * 0.8 + (training.b == 0)
value = value + (training.d.astype(float) > 5) * 0.5
target = pd.cut(value, [-9, 0.6, 1.4, 9], labels=False)

parameters = {
    "objective": "multiclass",
    "num_class": 3,
    "num_leaves": 4,
    "min_data_in_leaf": 5,
    "max_cat_to_onehot": 1,
    "min_data_per_group": 5,
    "cat_smooth": 1,
    "verbose": -1,
}
trained = lightgbm.train(parameters, lightgbm.Dataset(training, target), 2)
# The parameters of the training take up most of the file, and the import does not read
# them.
text = re.sub(
    r"\nparameters:.*?end of parameters\n", "", trained.model_to_string(), flags=re.S
)
(FOLDER / "lightgbm.txt").write_text(text)

matrix = xgboost.DMatrix(training, target + 0.5, enable_categorical=True)
gamma = {"objective": "reg:gamma", "max_depth": 2, "eta": 0.5}
boosted = xgboost.train(gamma, matrix, 3)
boosted.save_model(FOLDER / "xgboost.json")

rows = table(12)
classes = trained.predict(rows)
numbers = boosted.predict(xgboost.DMatrix(rows, enable_categorical=True))
with (FOLDER / "rows.ndjson").open("w") as file:
    records = rows.astype(object).to_dict("records")
    for record, probabilities, number in zip(records, classes, numbers):
        known = {name: item for name, item in record.items() if item == item}
        line = {
            "modelInput": known,
            "lightgbm": [round(float(one), 9) for one in probabilities],
            "xgboost": float(number),
        }
        file.write(json.dumps(line) + "\n")
