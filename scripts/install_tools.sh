#!/usr/bin/env bash
# Installs the programs of scripts/tools.txt into target/tools, where scripts/check.sh
# finds them. Needs python3 with venv, and the network.
set -euo pipefail
cd "$(dirname "$0")/.."

python3 -m venv target/tools
target/tools/bin/pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
  --require-hashes --requirement scripts/tools.txt
