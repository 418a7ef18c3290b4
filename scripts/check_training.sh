#!/usr/bin/env bash
# Compares rv-score train and rv-score eval with scikit-learn: the scores on held-out
# rows over ten seeds, the time of the training, and the metrics. Prints a table, and
# fails if rv-score is worse than the bounds in scripts/training/compare.py. Needs python3
# with venv; fetches scikit-learn and the data of penguins from PyPI.
#
# RV_BIN names a folder with the programs. Without it, they are built.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
source scripts/lib.sh
find_programs --release
work=$(make_work check-training)
trap 'rm --recursive --force "$work"' EXIT

python_packages training scikit-learn==1.9.1 pandas==3.1.1 palmerpenguins==0.1.6
python scripts/training/compare.py "$work"
