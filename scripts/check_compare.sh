#!/usr/bin/env bash
# Compares the statistics of rv-compare with scipy, statsmodels and scikit-learn, to nine
# digits: random tables and samples, edges, and a million pairs.
#
#   scripts/check_compare.sh [SEED]
#   scripts/check_compare.sh renew     writes the cases that `cargo test` checks
#
# It needs python3 with venv, and installs the libraries into target/python.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
source scripts/lib.sh
[[ $# -le 1 ]] || usage

python_packages compare scipy==1.17.1 statsmodels==0.15.0 scikit-learn==1.9.1 numpy==2.4.6
if [[ "${1:-}" == renew ]]; then
  python scripts/compare/cases.py 1 12 > fixtures/compare/statistics.ndjson
  exit
fi
work=$(make_work check-compare)
trap 'rm --recursive --force "$work"' EXIT
python scripts/compare/cases.py "${1:-2}" 300 > "$work/cases.ndjson"
RV_STATISTICS_CASES="$work/cases.ndjson" cargo test --locked --release --lib \
  compare::statistics::tests::each_statistic_gives_the_answers_of_its_reference |
  tee /dev/stderr | grep '1 passed' > /dev/null
wc --lines < "$work/cases.ndjson"
