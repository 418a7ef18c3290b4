#!/usr/bin/env bash
# Checks the dependencies for known vulnerabilities in the RustSec database. This is not
# part of check.sh, because it needs the network and its result can change without a
# change of the code.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/target/tools/bin:$PATH

command -v cargo-deny > /dev/null || {
  echo 'check_advisories: cargo-deny is missing; scripts/install_tools.sh installs it' >&2
  exit 3
}
cargo deny --locked check advisories
