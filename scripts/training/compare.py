"""Compares rv-score with scikit-learn. The only argument is a folder to work in.

Each table is divided ten times into rows for training and rows to measure. Both programs
learn from the same rows and are measured on the same rows.
"""

import importlib.util
import json
import math
import pathlib
import subprocess
import sys
import time

import joblib
import numpy as np
import pandas as pd
from sklearn import datasets, metrics
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

SEEDS = range(10)

# The mean accuracy or R2 of rv-score may be lower than that of scikit-learn by this
# much.
ACCURACY_BOUND = 0.01
R2_BOUND = 0.02

# Both times include reading the files. The time of rv-score may be longer by this
# factor and by these seconds, because the machine may be busy with something else. It
# may be a little longer for each row, because rv-score checks every cell, hashes the
# data and makes the profile. scikit-learn does none of this.
TIME_FACTOR = 1.2
TIME_SLACK = 0.1
TIME_SLACK_PER_ROW = 2e-6

# Probabilities in scores have only six digits, so the metrics may differ by this much.
METRIC_BOUND = 1e-4

WORK = pathlib.Path(sys.argv[1])


def tables():
    """For each table: its name, its rows, and whether its target is a number."""
    for name in ["wine", "breast_cancer", "digits", "diabetes"]:
        table = getattr(datasets, f"load_{name}")(as_frame=True).frame
        table.columns = [column.replace(" ", "_") for column in table.columns]
        yield name, table, name == "diabetes"
    package = importlib.util.find_spec("palmerpenguins")
    folder = pathlib.Path(package.submodule_search_locations[0])
    penguins = pd.read_csv(folder / "data/penguins.csv")
    penguins = penguins.rename(columns={"species": "target"}).drop(columns="year")
    yield "penguins", penguins, False
    # In this table, the body mass is the target. Two penguins without a mass are left
    # out.
    masses = penguins.rename(columns={"target": "species", "body_mass_g": "target"})
    yield "penguin masses", masses.dropna(subset="target"), True


def large_tables():
    values, target = datasets.make_classification(
        100_000, 20, n_informative=12, n_classes=3, random_state=0
    )
    table = pd.DataFrame(values, columns=[f"f{index}" for index in range(20)])
    yield "100,000 rows", table.assign(target=target), False
    values, target = datasets.make_regression(20_000, 20, n_informative=12, noise=20, random_state=0)
    table = pd.DataFrame(values, columns=[f"f{index}" for index in range(20)])
    yield "20,000 numbers", table.assign(target=target), True


def learners(is_number, seed):
    """The algorithms of rv-score, each with its counterpart."""
    if is_number:
        return {
            "random-forest": RandomForestRegressor(n_jobs=-1, random_state=seed),
            "decision-tree": DecisionTreeRegressor(min_samples_leaf=5, random_state=seed),
            "linear-regression": Ridge(),
        }
    return {
        "random-forest": RandomForestClassifier(n_jobs=-1, random_state=seed),
        "decision-tree": DecisionTreeClassifier(random_state=seed),
        "logistic-regression": LogisticRegression(max_iter=1000),
    }


def pipeline(learner, algorithm):
    """Fills missing values as rv-score does, and turns categories into numbers."""
    scale = [StandardScaler()] if algorithm.endswith("regression") else []
    numbers = make_pipeline(SimpleImputer(strategy="median"), *scale)
    categories = make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    )
    return make_pipeline(
        make_column_transformer(
            (numbers, make_column_selector(dtype_include="number")),
            (categories, make_column_selector(dtype_exclude="number")),
        ),
        learner,
    )


def by_sklearn(learner, algorithm):
    """Reads the same files, trains, stores the model and measures it, as rv-score does."""
    model = pipeline(learner, algorithm)
    begun = time.perf_counter()
    train, test = (pd.read_csv(WORK / name) for name in ["train.csv", "test.csv"])
    model.fit(train.drop(columns="target"), train.target)
    joblib.dump(model, WORK / "m.joblib")
    score = model.score(test.drop(columns="target"), test.target)
    return score, time.perf_counter() - begun


def rv_score(*arguments, **options):
    command = ["rv-score", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, **options).stdout


def by_rv(algorithm, seed, is_number):
    begun = time.perf_counter()
    rv_score(
        *["train", "--quiet", "--input", WORK / "train.csv", "--target", "target"],
        *["--algorithm", algorithm, "--seed", seed, "--holdout-file", WORK / "test.csv"],
        *(["--task", "regress"] if is_number else []),
        *["--name", "m", "--model-version", 1, "--output", WORK / "m.json"],
    )
    seconds = time.perf_counter() - begun
    description = json.loads(rv_score("inspect", "--json", WORK / "m.json"))
    held_out = description["metrics"]["heldOut"]
    return held_out["r2" if is_number else "accuracy"], seconds


def check_metrics(test, is_number):
    """Compares rv-score eval with scikit-learn's metrics of the same predictions."""
    report = json.loads(
        rv_score("eval", "--model", WORK / "m.json", "--data", WORK / "test.csv", "--json")
    )
    inputs = test.drop(columns="target").to_dict(orient="records")
    is_missing = lambda value: isinstance(value, float) and math.isnan(value)
    requests = "".join(
        json.dumps(
            {
                "messageId": str(index),
                "timestamp": 0,
                "modelInput": {name: value for name, value in row.items() if not is_missing(value)},
            }
        )
        + "\n"
        for index, row in enumerate(inputs)
    )
    scores = rv_score("--model", WORK / "m.json", "--probabilities", input=requests.encode())
    results = [json.loads(line)["result"] for line in scores.splitlines()]
    predicted = [result["result"] for result in results]
    pairs = []
    if is_number:
        pairs += [
            ("mae", report["mae"], metrics.mean_absolute_error(test.target, predicted)),
            ("rmse", report["rmse"], metrics.root_mean_squared_error(test.target, predicted)),
            ("r2", report["r2"], metrics.r2_score(test.target, predicted)),
        ]
    else:
        labels = [item["label"] for item in report["classes"]["perClass"]]
        probabilities = np.array(
            [[result["probabilities"][str(label)] for label in labels] for result in results]
        )
        normal = probabilities / probabilities.sum(axis=1, keepdims=True)
        figures = metrics.precision_recall_fscore_support(
            test.target, predicted, labels=labels, zero_division=0
        )
        pairs += [
            ("accuracy", report["accuracy"], metrics.accuracy_score(test.target, predicted)),
            ("log loss", report["logLoss"], metrics.log_loss(test.target, normal, labels=labels)),
        ]
        for item, *expected in zip(report["classes"]["perClass"], *figures):
            names = ["precision", "recall", "f1", "rows"]
            pairs += [(name, item[name] or 0, own) for name, own in zip(names, expected)]
        if len(labels) == 2:
            auc = metrics.roc_auc_score(test.target == labels[1], probabilities[:, 1])
            pairs.append(("AUC", report["classes"]["rocAuc"], auc))
    return [
        f"rv-score eval: {name} is {own}, and not {expected}"
        for name, own, expected in pairs
        if not abs(own - expected) <= METRIC_BOUND * max(1, abs(expected))
    ]


def compare(name, table, is_number, seeds):
    faults = []
    rows = {algorithm: [] for algorithm in learners(is_number, 0)}
    for seed in seeds:
        stratify = None if is_number else table.target
        train, test = train_test_split(
            table, test_size=0.25, random_state=seed, stratify=stratify
        )
        train.to_csv(WORK / "train.csv", index=False)
        test.to_csv(WORK / "test.csv", index=False)
        for algorithm, learner in learners(is_number, seed).items():
            own = by_rv(algorithm, seed, is_number)
            if seed == 0:
                faults += [f"{name}, {algorithm}: {fault}" for fault in check_metrics(test, is_number)]
            rows[algorithm].append(own + by_sklearn(learner, algorithm))
    for algorithm, figures in rows.items():
        own, own_seconds, other, other_seconds = np.mean(figures, axis=0)
        # The shortest times of both programs are compared, because other work on the
        # machine can only make a run longer.
        own_seconds, other_seconds = np.min(figures, axis=0)[[1, 3]]
        kind, bound = ("R2", R2_BOUND) if is_number else ("accuracy", ACCURACY_BOUND)
        print(
            f"{name:16}{algorithm:20} {kind:9}{own:7.4f} {other:7.4f} "
            f"{own_seconds:9.3f} s {other_seconds:9.3f} s",
            flush=True,
        )
        if own < other - bound:
            faults.append(f"{name}, {algorithm}: the {kind} is lower by {other - own:.4f}")
        slack = TIME_SLACK + TIME_SLACK_PER_ROW * len(table)
        if own_seconds > other_seconds * TIME_FACTOR + slack:
            faults.append(f"{name}, {algorithm}: takes {own_seconds / other_seconds:.1f} times as long")
    return faults


def main():
    print(f"{'':36} {'':9}{'rv':>7} {'sklearn':>7} {'rv':>9}   {'sklearn':>9}")
    faults = []
    for name, table, is_number in tables():
        faults += compare(name, table, is_number, SEEDS)
    for name, table, is_number in large_tables():
        faults += compare(name, table, is_number, [0])
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


main()
