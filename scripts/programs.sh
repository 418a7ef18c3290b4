#!/usr/bin/env bash
# Builds the programs, and prints the folder that they are in, wherever cargo puts
# what it builds (CARGO_TARGET_DIR, CARGO_BUILD_TARGET).
#
#   scripts/programs.sh [FLAG OF cargo build]...    --release where there is none
set -euo pipefail
cd -- "$(dirname -- "$(realpath -- "$0")")/.."
(($#)) || set -- --release

# Diagnostics go to stderr as ever.
cargo build --locked --bins --quiet --message-format json-render-diagnostics "$@" |
  sed --quiet 's|.*"executable":"\(.*\)/rv-score".*|\1|p'
