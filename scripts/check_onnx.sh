#!/usr/bin/env bash
# Tests ONNX models with the library onnxruntime: the tests that are ignored without it,
# and a comparison of rv-score with the library of each model, on every row of four data
# sets. Needs python3 with venv and a C compiler; fetches about 250 MB from PyPI
# into target/python.
#
# RV_BIN names a folder with the programs. Without it, they are built. RV_FUZZ_SECONDS is
# the time for damaged files (60), and RV_FUZZ_SEED repeats a run.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
source scripts/lib.sh
work=$(make_work check-onnx)
trap 'rm --recursive --force "$work"' EXIT

python_packages onnx --requirement scripts/onnx/requirements.txt
folder=$(python -c 'import onnxruntime; print(onnxruntime.__path__[0])')/capi
libraries=("$folder"/libonnxruntime.so.*)
export ORT_DYLIB_PATH=${libraries[0]}

echo '== the fixtures are what scripts/onnx/fixtures.py writes'
mkdir "$work/fixtures"
python scripts/onnx/fixtures.py "$work/fixtures"
diff --recursive --brief fixtures/onnx "$work/fixtures"

echo '== the tests that need the library'
selected=(score_onnx::with_library::)
expected=$(cargo test --locked --quiet --test stages -- --ignored --list "${selected[@]}" | grep --count ': test$')
cargo test --locked --quiet --test stages -- --ignored "${selected[@]}" | tee "$work/out"
# Fails unless all tests have run.
if ((expected < 10)) || ! grep --quiet "^test result: ok. $expected passed; 0 failed; 0 ignored" "$work/out"; then
  echo "check_onnx: not all of the $expected tests have passed" >&2
  exit 1
fi

echo '== rv-score beside the library of each model'
find_programs --release
mkdir "$work/models"
python scripts/onnx/compare.py "$work/models"

echo '== damaged files'
python scripts/onnx/damage.py "$work" "${RV_FUZZ_SECONDS:-60}" fixtures/onnx/*.onnx "$work"/models/*.onnx
