#!/usr/bin/env bash
# Builds the programs, and prints the folder that contains them. CARGO_TARGET_DIR and
# CARGO_BUILD_TARGET may change that folder.
#
#   scripts/programs.sh [FLAG OF cargo build]...    the default is --release
set -euo pipefail
cd -- "$(dirname -- "$(realpath -- "$0")")/.."
(($#)) || set -- --release

# Diagnostics still go to stderr.
cargo build --locked --bins --quiet --message-format json-render-diagnostics "$@" |
  sed --quiet 's|.*"executable":"\(.*\)/rv-score".*|\1|p'
