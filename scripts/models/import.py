"""Compares imported models with their libraries.

Trains models with LightGBM and XGBoost on random tables, imports each file with
`rv-score import`, scores 10,000 random rows with missing values and unseen categories,
and compares every answer with the answer of the library. Fails if a difference is more
than 1e-6.

Usage: import.py RV_SCORE FOLDER [SEED]
"""

import json
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import xgboost

TOLERANCE = 1e-6
ROWS = 10_000
COLOURS = ["red", "green", "deep blue", "", "Zoë", "5"]


def table(rng, rows, kind):
    """A random table: numbers of many sizes, zeros, missing values, categories."""
    frame = pd.DataFrame(
        {
            "plain": rng.normal(size=rows),
            "large": rng.lognormal(8, 4, rows),
            "whole": rng.integers(-3, 4, rows).astype(float),
            "zeros": np.where(rng.random(rows) < 0.5, 0.0, rng.normal(size=rows)),
            "full": rng.random(rows),
        }
    )
    for column in ("plain", "large", "whole", "zeros"):
        frame.loc[rng.random(rows) < 0.1, column] = np.nan
    if kind != "numbers":
        colour = pd.Categorical(rng.choice(COLOURS, rows), categories=COLOURS)
        size = pd.Categorical(rng.choice([3, 7, 40, 100], rows))
        frame["colour"], frame["size"] = colour, size
        frame.loc[rng.random(rows) < 0.1, "colour"] = None
    return frame


def signal(frame, rng):
    """A target with interactions, so that the trees are not trivial."""
    value = frame.plain.fillna(-1) * (1 + (frame.whole.fillna(0) > 0))
    value = value + np.log1p(frame.large.fillna(1)) / 4 + 2 * (frame.zeros == 0)
    if "colour" in frame:
        value = value + frame.colour.isin(["red", "Zoë"]) * 1.5
        value = value + frame["size"].astype(float).to_numpy() / 50
    return value + rng.normal(scale=0.3, size=len(frame))


def requests(frame):
    """One request per row. Missing values are null or absent."""
    lines = []
    for number, row in enumerate(frame.astype(object).to_dict("records")):
        model_input = {}
        for name, value in row.items():
            if value is None or value != value:
                if number % 2:
                    model_input[name] = None
            else:
                model_input[name] = value
        lines.append(
            json.dumps(
                {"messageId": str(number), "timestamp": 1.0, "modelInput": model_input}
            )
        )
    return "\n".join(lines) + "\n"


def targets(value, objective, rng):
    """The target in the form that an objective needs."""
    if objective in ("binary", "binary:logistic", "binary:logitraw", "binary:hinge"):
        return (value > value.median()).astype(int)
    if objective.startswith("multi"):
        return pd.qcut(value, 4, labels=False)
    if objective in ("cross_entropy", "cross_entropy_lambda", "reg:logistic"):
        return 1 / (1 + np.exp(-value))
    if objective in ("lambdarank", "rank_xendcg") or objective.startswith("rank:"):
        return pd.qcut(value, 3, labels=False)
    if objective in ("poisson", "count:poisson"):
        return rng.poisson(np.exp(value / 4))
    if objective in ("gamma", "tweedie", "mape") or objective.startswith(
        ("reg:gamma", "reg:tweedie", "reg:squaredlog", "survival")
    ):
        return np.exp(value / 4) + 0.1
    return value * 100 + 1000


LIGHTGBM = [
    (objective, kind, {})
    for kind in ("numbers", "categories")
    for objective in (
        "binary multiclass multiclassova regression regression_l1 huber fair quantile "
        "mape poisson gamma tweedie cross_entropy cross_entropy_lambda lambdarank "
        "rank_xendcg"
    ).split()
] + [
    ("regression", "numbers", {"reg_sqrt": True}),
    ("binary", "numbers", {"sigmoid": 1.7}),
    ("multiclassova", "numbers", {"sigmoid": 0.6}),
    ("binary", "numbers", {"zero_as_missing": True}),
    ("regression", "categories", {"zero_as_missing": True}),
    ("binary", "numbers", {"use_missing": False}),
    ("regression", "numbers", {"use_missing": False}),
    ("binary", "categories", {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}),
    ("multiclass", "numbers", {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}),
    ("regression", "numbers", {"boosting": "dart"}),
    ("regression", "numbers", {"min_gain_to_split": 1e12}),
    ("regression", "categories", {"max_cat_to_onehot": 1}),
    ("binary", "integers", {}),
]

XGBOOST = [
    (objective, kind, {})
    for kind in ("numbers", "categories")
    for objective in (
        "binary:logistic binary:logitraw binary:hinge multi:softprob multi:softmax "
        "reg:squarederror reg:logistic reg:squaredlogerror reg:pseudohubererror "
        "reg:absoluteerror reg:quantileerror count:poisson reg:gamma reg:tweedie "
        "rank:ndcg rank:pairwise rank:map survival:cox survival:aft"
    ).split()
] + [
    ("binary:logistic", "numbers", {"base_score": 0.2}),
    ("reg:squarederror", "numbers", {"num_parallel_tree": 3, "subsample": 0.5}),
    ("reg:squarederror", "categories", {"booster": "dart", "rate_drop": 0.3}),
    ("multi:softprob", "numbers", {"booster": "dart", "rate_drop": 0.3}),
    ("reg:squarederror", "categories", {"max_cat_to_onehot": 100}),
    ("reg:squarederror", "numbers", {"tree_method": "exact"}),
    ("reg:gamma", "numbers", {"base_score": 3.0}),
]


def train_lightgbm(objective, kind, extra, frame, target, path):
    """Trains and saves a model. Returns a function from a table to the answers."""
    parameters = {
        "objective": objective,
        "num_leaves": 12,
        "min_data_in_leaf": 5,
        "verbose": -1,
        "seed": 1,
        **extra,
    }
    options = {}
    if objective.startswith("multi"):
        parameters["num_class"] = 4
    if objective in ("lambdarank", "rank_xendcg"):
        options["group"] = [len(frame) // 20] * 20
    if kind == "integers":
        frame = as_integers(frame)
        options["categorical_feature"] = ["colour", "size"]
    data = lightgbm.Dataset(frame, target, **options)
    booster = lightgbm.train(parameters, data, 25)
    booster.save_model(path)
    return booster.predict


def as_integers(frame):
    """Replaces the categories by their codes, because a numpy table has only numbers."""
    frame = frame.copy()
    for name in ("colour", "size"):
        frame[name] = frame[name].cat.codes.astype(float)
    return frame


def train_xgboost(objective, kind, extra, frame, target, path):
    """Trains and saves a model. Returns a function from a table to the answers."""
    parameters = {"objective": objective, "max_depth": 4, "seed": 1, **extra}
    data = xgboost.DMatrix(frame, target, enable_categorical=True)
    if objective.startswith("multi"):
        parameters["num_class"] = 4
    if objective.startswith("rank:"):
        data.set_group([len(frame) // 20] * 20)
        if objective == "rank:map":
            data.set_label(np.minimum(target, 1))
    if objective == "reg:quantileerror":
        parameters["quantile_alpha"] = 0.7
    if objective == "survival:aft":
        data.set_float_info("label_lower_bound", target.to_numpy())
        data.set_float_info("label_upper_bound", target.to_numpy())
    booster = xgboost.train(parameters, data, 25)
    booster.save_model(path)
    return lambda rows: booster.predict(xgboost.DMatrix(rows, enable_categorical=True))


def score(rv_score, model, text):
    """The results of rv-score for requests."""
    command = [rv_score, "--model", model, "--probabilities", "--rescore"]
    run = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE)
    scores = [json.loads(line) for line in run.stdout.splitlines()]
    errors = [score for score in scores if "error" in score]
    if errors or run.returncode:
        raise SystemExit(f"{model}: status {run.returncode}, {errors[:1]}")
    return [score["result"] for score in scores]


def difference(results, answers, objective):
    """The largest relative difference, and the number of different labels."""
    answers = np.asarray(answers, dtype=float)
    if objective in ("multi:softmax", "binary:hinge"):
        labels = np.array([result["result"] for result in results])
        return 0.0, int((labels != answers).sum())
    if "probabilities" not in results[0]:
        ours = np.array([result["result"] for result in results])
        wrong_labels = 0
    else:
        ours = np.array([list(result["probabilities"].values()) for result in results])
        if answers.ndim == 1:
            answers = np.column_stack([1 - answers, answers])
        labels = np.array([result["result"] for result in results])
        # If two classes differ by less than the tolerance, either of them is right.
        best = answers[np.arange(len(labels)), labels]
        wrong_labels = int((answers.max(axis=1) - best > TOLERANCE).sum())
    # In single precision, XGBoost overflows to infinity where rv-score still has a
    # number.
    largest = float(np.finfo(np.float32).max)
    answers, ours = np.clip(answers, -largest, largest), np.clip(ours, -largest, largest)
    gap = np.abs(ours - answers) / np.maximum(1, np.abs(answers))
    return float(gap.max()), wrong_labels


def main():
    rv_score, folder = sys.argv[1], Path(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    folder.mkdir(parents=True, exist_ok=True)
    failures = 0
    libraries = [
        ("lightgbm", LIGHTGBM, train_lightgbm, "txt"),
        ("xgboost", XGBOOST, train_xgboost, "json"),
    ]
    print(f"{'library':9} {'objective':22} {'inputs':11} difference  wrong labels")
    for library, cases, train, suffix in libraries:
        for number, (objective, kind, extra) in enumerate(cases):
            rng = np.random.default_rng(seed * 1000 + number)
            frame = table(rng, 2000, kind)
            target = targets(signal(frame, rng), objective, rng)
            file = str(folder / f"{library}-{number}.{suffix}")
            predict = train(objective, kind, extra, frame, target, file)
            model = str(folder / f"{library}-{number}.rv.json")
            command = [rv_score, "import", "-q", file, "--from", library, "--name", "m"]
            command += ["--model-version", "1", "--output", model]
            if library == "xgboost" and kind == "categories":
                # XGBoost stores only the beginning of names that are not ASCII, so the
                # file of categories gives the whole names.
                names = folder / "categories.json"
                names.write_text(json.dumps({"colour": COLOURS}))
                command += ["--categories", str(names)]
            subprocess.run(command, check=True)
            rows = table(rng, ROWS, kind)
            if kind == "integers":
                rows = as_integers(rows)
            gap, wrong = difference(
                score(rv_score, model, requests(rows)), predict(rows), objective
            )
            is_wrong = wrong > 0 or not gap <= TOLERANCE
            failures += is_wrong
            note = " ".join(f"{key}={value}" for key, value in extra.items())
            mark = "  FAILED" if is_wrong else ""
            print(
                f"{library:9} {objective:22} {kind:11} {gap:.1e}     {wrong:6}  {note}{mark}",
                flush=True,
            )
    if failures:
        raise SystemExit(f"{failures} models differ from their library")


main()
