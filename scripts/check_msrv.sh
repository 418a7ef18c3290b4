#!/usr/bin/env bash
# Builds the programs with the oldest Rust that Cargo.toml names, so that the promise
# holds. Needs rustup, which fetches that Rust where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed --quiet 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
[[ -n $version ]] || {
  echo 'check_msrv: Cargo.toml names no rust-version' >&2
  exit 3
}
command -v rustup > /dev/null || {
  echo 'check_msrv: there is no rustup; https://rustup.rs installs it' >&2
  exit 3
}
rustup toolchain install "$version" --profile minimal --no-self-update
# A folder of its own: builds of two compilers replace each other.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/msrv cargo "+$version" check --locked --lib --bins
