#!/usr/bin/env bash
# Loads damaged model files for a minute each: rv's own files, LightGBM's and XGBoost's.
# Every one must be refused, or give a model that works.
#
#   scripts/fuzz.sh [SECONDS [SEED]]
#
# scripts/check_onnx.sh does the same for ONNX files, which need onnxruntime.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
source scripts/lib.sh
[[ $# -le 2 ]] || usage

export RV_FUZZ_SECONDS=${1:-60} RV_FUZZ_SEED=${2:-1}
cargo test --locked --release --lib -- --nocapture never_a_panic
