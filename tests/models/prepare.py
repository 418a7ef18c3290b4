"""Trains models on the flowers of fixtures/iris.csv, saves them for each way to serve them,
and writes the library's own predictions, one a line."""

import csv
import json
import pathlib
import sys

import joblib
import mlflow.sklearn
import pandas
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

table, folder, http_port = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
with open(table, newline="") as file:
    rows = list(csv.DictReader(file))
names = ["sepalLength", "sepalWidth", "petalLength", "petalWidth"]
inputs = [[float(row[name]) for name in names] for row in rows]
labels = [int(row["target"]) for row in rows]

regression = LogisticRegression(max_iter=1000).fit(inputs, labels)
(folder / "predictions").write_text("".join(f"{label}\n" for label in regression.predict(inputs)))
joblib.dump(regression, folder / "regression.joblib")
forest = RandomForestClassifier(n_estimators=100, random_state=0).fit(inputs, labels)
joblib.dump(forest, folder / "forest.joblib")

served = folder / "mlserver"
served.mkdir()
joblib.dump(regression, served / "model.joblib")
settings = {
    "name": "iris",
    "implementation": "mlserver_sklearn.SKLearnModel",
    "parameters": {"uri": "./model.joblib", "version": "v1"},
}
(served / "model-settings.json").write_text(json.dumps(settings))
ports = {"http_port": http_port, "grpc_port": http_port + 1, "metrics_port": http_port + 2}
(served / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports}))

named = pandas.DataFrame(inputs, columns=names)
mlflow.sklearn.save_model(LogisticRegression(max_iter=1000).fit(named, labels), str(folder / "mlflow"))
