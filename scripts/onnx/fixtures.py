"""Writes the small models of the tests: fixtures.py FOLDER. Needs the package onnx.

The same version of onnx writes the same bytes. scripts/check_onnx.sh compares them with
fixtures/onnx.
"""

import sys
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

FOLDER = Path(sys.argv[1])
FLOAT, TEXT = TensorProto.FLOAT, TensorProto.STRING
INT64, INT32 = TensorProto.INT64, TensorProto.INT32


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def write(name, nodes, inputs, outputs, metadata=None, weights=(), labelled=False):
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(weights))
    domains = [helper.make_opsetid("", 17)]
    if labelled:
        domains.append(helper.make_opsetid("ai.onnx.ml", 3))
    model = helper.make_model(graph, opset_imports=domains, ir_version=8, producer_name="rv")
    if metadata:
        helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString())


def linear_classifier(name, version, weight):
    """A model of two features and three labels. If `a` is large, the first label wins."""
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", "probabilities"], domain="ai.onnx.ml",
        coefficients=[weight, 0.0, 0.0, weight, 0.0, 0.0], intercepts=[0.0, 0.0, 0.5],
        classlabels_strings=["low", "mid", "high \"3\""], post_transform="SOFTMAX", multi_class=1,
    )
    write(
        name, [node], [value("x", FLOAT, ["n", 2])],
        [value("label", TEXT, ["n"]), value("probabilities", FLOAT, ["n", 3])],
        {"rv.name": "toy", "rv.version": str(version), "rv.features": '["a","/in/b"]'}, labelled=True,
    )


linear_classifier("classifier", 1, 1.0)
linear_classifier("classifier-changed", 1, -1.0)
linear_classifier("classifier-next", 2, 1.0)

# In this model, an index out of range makes the whole batch fail.
write(
    "gather", [helper.make_node("Gather", ["table", "index"], ["found"])],
    [value("index", INT64, ["n"])], [value("found", FLOAT, ["n"])],
    weights=[numpy_helper.from_array(numpy.array([0.1, 20.0, 3e30], numpy.float32), "table")],
)

# This model takes one row at a time. It computes the logarithm, which is NaN for a
# number below 0.
write(
    "one-row", [helper.make_node("Log", ["x"], ["y"])],
    [value("x", FLOAT, [1, 1])], [value("y", FLOAT, [1, 1])],
)

# This model has an input of every type, and returns each input unchanged.
KINDS = [
    ("float", FLOAT), ("double", TensorProto.DOUBLE), ("int64", INT64), ("int32", INT32),
    ("bool", TensorProto.BOOL), ("text", TEXT),
]
write(
    "types", [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _ in KINDS],
    [value(name, kind, ["n", 1]) for name, kind in KINDS],
    [value(f"{name}_out", kind, ["n", 1]) for name, kind in KINDS],
)

# Like most networks, this model outputs only probabilities and no labels.
write(
    "softmax", [helper.make_node("Softmax", ["x"], ["y"], axis=1)],
    [value("x", FLOAT, ["n", 2])], [value("y", FLOAT, ["n", 2])],
)

# This model keeps a tensor in another file. The name of that file leads out of the
# folder.
tensor = TensorProto(name="w", data_type=FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
tensor.external_data.add(key="location", value="../../etc/passwd")
graph = helper.make_graph(
    [helper.make_node("Add", ["x", "w"], ["y"])], "graph",
    [value("x", FLOAT, ["n", 2])], [value("y", FLOAT, ["n", 2])], [tensor],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="rv")
(FOLDER / "external.onnx").write_bytes(model.SerializeToString())
