#!/usr/bin/env bash
# Compares imported models with LightGBM and XGBoost: every objective, on random tables
# with missing values and categories. Fails past a difference of 1e-6.
#
#   scripts/check_import.sh [SEED]
#
# It needs python3 with venv, and installs the libraries into target/python.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
source scripts/lib.sh
[[ $# -le 1 ]] || usage

work=$(make_work check-import)
trap 'rm --recursive --force "$work"' EXIT
find_programs --release
python_packages import lightgbm==4.7.0 xgboost==3.2.0 pandas==3.1.1 numpy==2.4.6
python -W ignore scripts/models/import.py "$RV_BIN/rv-score" "$work" "${1:-1}"
