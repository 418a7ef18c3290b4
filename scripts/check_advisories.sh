#!/usr/bin/env bash
# Asks the RustSec database for known vulnerabilities in the dependencies. It is apart
# from check.sh, since it needs the network, and since its answer changes while the
# code does not.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/target/tools/bin:$PATH

command -v cargo-deny > /dev/null || {
  echo 'check_advisories: there is no cargo-deny; scripts/install_tools.sh installs it' >&2
  exit 3
}
cargo deny --locked check advisories
