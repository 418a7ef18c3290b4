"""Writes fixtures/torch/network.onnx, a small network that PyTorch has trained and exported,
and answers.ndjson, the network's own answers for some rows.

Usage: torch_export.py FOLDER. Needs the packages torch, onnxscript and scikit-learn. They
take 5 GB, so scripts/check_onnx.sh does not run this script; it compares rv-score with the
committed answers.
"""

import json
import sys
from pathlib import Path

import torch
from sklearn.datasets import load_wine

FOLDER = Path(sys.argv[1])
torch.manual_seed(0)
wine = load_wine()
rows = torch.tensor(wine.data, dtype=torch.float32)
labels = torch.tensor(wine.target)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("scale", rows.std(0))
        self.hidden = torch.nn.Linear(13, 16)
        self.last = torch.nn.Linear(16, 3)

    def forward(self, x):
        hidden = torch.relu(self.hidden((x - self.mean) / self.scale))
        return torch.softmax(self.last(hidden), dim=1)


network = Network()
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
for _ in range(200):
    loss = torch.nn.functional.nll_loss(network(rows).log(), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

network.eval()
torch.onnx.export(
    network, (rows[:2],), FOLDER / "network.onnx", input_names=["x"],
    output_names=["probabilities"], dynamic_shapes={"x": {0: "rows"}}, external_data=False,
)
with torch.no_grad():
    answers = network(rows[::9])
with (FOLDER / "answers.ndjson").open("w") as file:
    for row, answer in zip(rows[::9].tolist(), answers.tolist()):
        model_input = dict(zip(wine.feature_names, row))
        file.write(json.dumps({"modelInput": model_input, "probabilities": answer}) + "\n")
