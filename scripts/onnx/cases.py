"""The models that compare.py compares. Each model is trained here, exported to ONNX by the
usual tool for its library, and evaluated by its own library."""

import warnings
from dataclasses import dataclass, field

import lightgbm
import numpy
import onnx
import xgboost
from onnx import TensorProto, helper, numpy_helper
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as OtherFloats
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn import datasets
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

warnings.filterwarnings("ignore")


@dataclass
class Case:
    """A model file, its inputs, and the answers of the library that trained the model."""

    name: str
    model: onnx.ModelProto
    # One modelInput for each row.
    inputs: list
    # For each row, a label or a number.
    labels: list
    # For each row, the probability of each label. None for a regression.
    probabilities: list | None = None
    flags: list = field(default_factory=list)
    # For each row, the object with all outputs, if the model answers with such objects.
    objects: list | None = None


def as_floats(table):
    """ONNX models get 32-bit numbers, so their libraries get the same numbers here."""
    return table.astype(numpy.float32)


def inputs_of(table, names):
    def value(number):
        return None if numpy.isnan(number) else float(number)

    return [{name: value(number) for name, number in zip(names, row)} for row in table]


def features(count):
    return [f"f{index}" for index in range(count)]


def classifier(name, model, table, target, export, flags=()):
    names = features(table.shape[1])
    model.fit(table, target)
    return classified(name, model, export(model, table), table, names, flags)


def classified(name, model, exported, table, names, flags=()):
    labels = model.predict(table)
    probabilities = [
        {str(label): float(share) for label, share in zip(model.classes_, row)}
        for row in model.predict_proba(table)
    ]
    flags = ["--features", ",".join(names), *flags]
    return Case(name, exported, inputs_of(table, names), labels.tolist(), probabilities, flags)


def regressor(name, model, table, target, export):
    names = features(table.shape[1])
    model.fit(table, target)
    numbers = [float(number) for number in numpy.ravel(model.predict(table))]
    flags = ["--features", ",".join(names)]
    return Case(name, export(model, table), inputs_of(table, names), numbers, None, flags)


def with_maps(model, table):
    """An export in which each row has a map of probabilities: the default."""
    return to_onnx(model, table[:1])


def with_tensor(model, table):
    return to_onnx(model, table[:1], options={"zipmap": False})


def lightgbm_export(model, table):
    shape = [("input", OtherFloats([None, table.shape[1]]))]
    return convert_lightgbm(model, initial_types=shape, zipmap=False)


def lightgbm_maps(model, table):
    return convert_lightgbm(model, initial_types=[("input", OtherFloats([None, table.shape[1]]))])


def xgboost_export(model, table):
    return convert_xgboost(model, initial_types=[("input", OtherFloats([None, table.shape[1]]))])


def classifiers(dataset, load):
    """The classifiers of one data set: integer labels and text labels."""
    loaded = load()
    table, target = as_floats(loaded.data), loaded.target
    texts = numpy.array([f"class {label}" for label in loaded.target_names])[target]
    small = {"max_depth": 4, "random_state": 0}
    boosted = {"n_estimators": 20, **small}
    yield classifier(f"{dataset}: tree", DecisionTreeClassifier(**small), table, target, with_maps)
    yield classifier(f"{dataset}: tree, labels from 5", DecisionTreeClassifier(**small), table, target * 2 + 5, with_tensor)
    yield classifier(f"{dataset}: forest", RandomForestClassifier(n_estimators=100, random_state=0), table, target, with_tensor)
    yield classifier(f"{dataset}: forest, text labels", RandomForestClassifier(**boosted), table, texts, with_maps)
    yield classifier(f"{dataset}: forest, text labels, tensor", RandomForestClassifier(**boosted), table, texts, with_tensor)
    yield classifier(f"{dataset}: gradient boosting", GradientBoostingClassifier(**boosted), table, target, with_maps)
    yield classifier(f"{dataset}: gradient boosting, text labels", GradientBoostingClassifier(**boosted), table, texts, with_tensor)
    scaled = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    yield classifier(f"{dataset}: scaler, logistic regression", scaled, table, target, with_tensor)
    scaled = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    yield classifier(f"{dataset}: the same, text labels", scaled, table, texts, with_maps)
    small_values = as_floats(table / numpy.abs(table).max(axis=0).clip(1e-9))
    logistic = LogisticRegression(max_iter=5000)
    yield classifier(f"{dataset}: logistic regression", logistic, small_values, target, with_maps)
    trees = {"n_estimators": 20, "max_depth": 4, "random_state": 0}
    yield classifier(f"{dataset}: LightGBM", lightgbm.LGBMClassifier(**trees, verbose=-1), table, target, lightgbm_export)
    yield classifier(f"{dataset}: LightGBM, maps", lightgbm.LGBMClassifier(**trees, verbose=-1), table, target, lightgbm_maps)
    yield classifier(f"{dataset}: XGBoost", xgboost.XGBClassifier(**trees), table, target, xgboost_export)
    yield from networks(dataset, small_values, target)


def networks(dataset, table, target):
    """A small network as torch.onnx.export writes it: Gemm, Relu, Gemm, and Softmax at the
    end. The package of PyTorch contains 2 GB of libraries for graphics cards, so the onnx
    package builds the graph, and scikit-learn trains the weights."""
    model = MLPClassifier(hidden_layer_sizes=(16,), max_iter=300, random_state=0).fit(table, target)
    names = features(table.shape[1])
    if len(model.classes_) == 2:
        return
    case = classified(f"{dataset}: network", model, network(model, softmax=True), table, names)
    case.flags += ["--classes", ",".join(map(str, model.classes_))]
    yield case
    fixed = network(model, softmax=True, rows=1)
    yield Case(f"{dataset}: network, one row a run", fixed, case.inputs, case.labels, case.probabilities, case.flags)
    hidden = numpy.maximum(table @ model.coefs_[0] + model.intercepts_[0], 0)
    logits = hidden @ model.coefs_[1] + model.intercepts_[1]
    objects = [{"output": [float(number) for number in row]} for row in logits]
    flags = case.flags[:2]
    yield Case(f"{dataset}: network, logits", network(model), case.inputs, [], None, flags, objects)


def network(model, softmax=False, rows="rows"):
    """The graph of a network with one hidden layer."""
    weights = [
        numpy_helper.from_array(numpy.ascontiguousarray(array, dtype=numpy.float32), name)
        for name, array in [
            ("fc1.weight", model.coefs_[0].T),
            ("fc1.bias", model.intercepts_[0]),
            ("fc2.weight", model.coefs_[1].T),
            ("fc2.bias", model.intercepts_[1]),
        ]
    ]
    nodes = [
        helper.make_node("Gemm", ["input", "fc1.weight", "fc1.bias"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["relu"]),
        helper.make_node("Gemm", ["relu", "fc2.weight", "fc2.bias"], ["logits" if softmax else "output"], transB=1),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["output"], axis=1))
    columns, results = model.coefs_[0].shape[0], model.coefs_[1].shape[1]
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [rows, columns])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [rows, results])],
        weights,
    )
    exported = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(exported)
    return exported


def regressors():
    loaded = datasets.load_diabetes()
    table, target = as_floats(loaded.data), loaded.target
    small = {"max_depth": 4, "random_state": 0}
    trees = {"n_estimators": 20, **small}
    for name, model, export in [
        ("tree", DecisionTreeRegressor(**small), with_maps),
        ("forest", RandomForestRegressor(n_estimators=100, random_state=0), with_maps),
        ("gradient boosting", GradientBoostingRegressor(**trees), with_maps),
        ("linear regression", LinearRegression(), with_maps),
        ("scaler, linear regression", make_pipeline(StandardScaler(), LinearRegression()), with_maps),
        ("LightGBM", lightgbm.LGBMRegressor(**trees, verbose=-1), lightgbm_export),
        ("XGBoost", xgboost.XGBRegressor(**trees), xgboost_export),
    ]:
        yield regressor(f"diabetes: {name}", model, table, target, export)
    scaled = as_floats(StandardScaler().fit_transform(table))
    model = MLPRegressor(hidden_layer_sizes=(16,), max_iter=500, random_state=0)
    yield regressor("diabetes: network", model, scaled, target, lambda model, table: network(model))
    wide = table.astype(numpy.float64)
    yield regressor("diabetes: linear regression, float64", LinearRegression(), wide, target, with_maps)


def columns():
    """A pipeline with a column transformer. Each feature, a number or a category, is an input."""
    loaded = datasets.load_wine(as_frame=True)
    frame = loaded.data[["alcohol", "malic_acid", "flavanoids"]].astype(numpy.float32)
    colour = numpy.digitize(loaded.data["color_intensity"], [3, 5, 8])
    frame["colour"] = numpy.array(["pale", "ruby", "deep", "a \"black\" \u00e9"])[colour]
    frame["grade"] = numpy.digitize(loaded.data["proline"], [500, 750, 1000])
    numbers, texts, integers = ["alcohol", "malic_acid", "flavanoids"], ["colour"], ["grade"]
    model = make_pipeline(
        ColumnTransformer([
            ("numbers", StandardScaler(), numbers),
            ("texts", OneHotEncoder(handle_unknown="ignore"), texts),
            ("integers", OneHotEncoder(handle_unknown="ignore"), integers),
        ]),
        LogisticRegression(max_iter=5000),
    )
    model.fit(frame, loaded.target)
    types = [(name, FloatTensorType([None, 1])) for name in numbers]
    types += [("colour", StringTensorType([None, 1])), ("grade", Int64TensorType([None, 1]))]
    exported = to_onnx(model, initial_types=types)
    inputs = [
        {name: float(row[name]) for name in numbers}
        | {"colour": str(row["colour"]), "grade": int(row["grade"])}
        for _, row in frame.iterrows()
    ]
    probabilities = [
        {str(label): float(share) for label, share in zip(model.classes_, row)}
        for row in model.predict_proba(frame)
    ]
    yield Case("wine: column transformer", exported, inputs, model.predict(frame).tolist(), probabilities)


def missing():
    """Models that themselves handle missing values."""
    loaded = datasets.load_wine()
    table = as_floats(loaded.data)
    table[numpy.random.default_rng(0).random(table.shape) < 0.15] = numpy.nan
    nan = ["--missing", "nan"]
    small = {"n_estimators": 20, "max_depth": 4, "random_state": 0}
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=5000))
    yield classifier("wine with missing values: scikit-learn", model, table, loaded.target, with_tensor, nan)
    model = xgboost.XGBClassifier(**small)
    yield classifier("wine with missing values: XGBoost", model, table, loaded.target, xgboost_export, nan)
    model = lightgbm.LGBMClassifier(**small, verbose=-1)
    yield classifier("wine with missing values: LightGBM", model, table, loaded.target, lightgbm_export, nan)


def all_cases():
    yield from classifiers("wine", datasets.load_wine)
    yield from classifiers("breast cancer", datasets.load_breast_cancer)
    yield from classifiers("digits", datasets.load_digits)
    yield from regressors()
    yield from columns()
    yield from missing()
