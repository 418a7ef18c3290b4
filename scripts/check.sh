#!/usr/bin/env bash
# What has to hold before a change lands: form, lints, tests, documentation.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."

cargo fmt --all --check
cargo clippy --locked --all-targets -- --deny warnings
cargo test --locked
RUSTDOCFLAGS='--deny warnings' cargo doc --locked --no-deps --document-private-items
