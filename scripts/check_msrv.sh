#!/usr/bin/env bash
# Builds the programs with the oldest Rust that Cargo.toml promises. Needs rustup, which
# fetches that Rust if it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed --quiet 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
[[ -n $version ]] || {
  echo 'check_msrv: Cargo.toml names no rust-version' >&2
  exit 3
}
command -v rustup > /dev/null || {
  echo 'check_msrv: rustup is missing; https://rustup.rs installs it' >&2
  exit 3
}
rustup toolchain install "$version" --profile minimal --no-self-update
# A separate folder, because builds of two compilers replace each other.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/msrv cargo "+$version" check --locked --lib --bins
