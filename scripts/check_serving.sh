#!/usr/bin/env bash
# Tests the front end with clients and a server that were not written here. A FastAPI
# service is the production model, behind `rv-score --url`; shadows that hang, crash and
# answer garbage stand beside it. An unchanged HTTP client, tritonclient, KServe's client
# and MLflow's scoring client call the front end. Installs pinned versions of these from
# PyPI into target/python.
#
#   scripts/check_serving.sh
#
# CALLS sets the number of different calls of each run (2000).
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
source scripts/lib.sh

find_programs --release
python_packages kserve kserve==0.21.0
kserve=$(command -v python3)
python_packages serving fastapi==0.115.14 uvicorn==0.54.0 httptools==0.9.0 httpx==0.28.1 \
  'tritonclient[http]==2.73.0' mlflow-skinny==3.17.2 pandas==3.1.1 scipy==1.17.1
work=$(make_work check-serving)
cleanup() {
  # shellcheck disable=SC2046
  kill $(jobs -p) 2> /dev/null || true
  wait
  rm --recursive --force -- "$work"
}
trap cleanup EXIT

python3 scripts/serving/check.py "$work" "${CALLS:-2000}" scripts/serving/service.py "$kserve"
