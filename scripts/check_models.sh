#!/usr/bin/env bash
# Tests rv-score with models of scikit-learn: as a program (--exec), behind MLServer and
# behind a scoring server of MLflow (--url). Installs pinned versions of these from PyPI
# into target/python.
#
#   scripts/check_models.sh [TEST]...   all tests of tests/models, or those whose names
#                                       contain TEST
#
# It also runs the example in jq. It needs jq, python3 3.10 to 3.12 and about 1.5 GB on the
# disk.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
source scripts/lib.sh

work=$(make_work check-models)
cleanup() { rm --recursive --force "$work"; }
trap cleanup EXIT
python_packages models --requirement tests/models/requirements.txt
export RV_MODELS_BIN=$PWD/target/python/models/bin
cargo test --locked --test models --no-run --quiet
expected=$(cargo test --locked --quiet --test models -- --ignored --list "$@" | grep --count ': test$' || true)
cargo test --locked --quiet --test models -- --ignored --test-threads=1 --nocapture "$@" | tee "$work/out"
# Fails unless all tests have run.
if ((expected < 1)) || ! grep --quiet "test result: ok. $expected passed; 0 failed; 0 ignored" "$work/out"; then
  echo "check_models: not all of the $expected tests have passed" >&2
  exit 1
fi

# The example in jq needs no environment, but jq.
(($#)) || cargo test --locked --quiet --test stages -- --ignored the_example_in_jq |
  tee /dev/stderr | grep '1 passed' > /dev/null
