#!/usr/bin/env bash
# All checks that must pass before a change lands: form, spelling, scripts,
# dependencies, lints, tests, documentation. The quick checks run first.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
PATH=$PWD/target/tools/bin:$PATH

missing=no
# need PROGRAM REMEDY: a missing program is a failure, because its check cannot run.
need() {
  command -v "$1" > /dev/null && return
  echo "check: $1 is missing; $2" >&2
  missing=yes
}
need shellcheck 'install it with apt-get install shellcheck'
need shfmt 'install it with apt-get install shfmt'
need typos 'scripts/install_tools.sh installs it into target/tools'
need cargo-deny 'scripts/install_tools.sh installs it into target/tools'
need strace 'the tests of failing disks use it; install it with apt-get install strace'
[[ $missing == no ]] || exit 3

mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
cargo fmt --all --check
shfmt --diff "${scripts[@]}"
shellcheck "${scripts[@]}"
typos --hidden
cargo deny --locked check bans licenses sources
cargo clippy --locked --all-targets -- --deny warnings
cargo test --locked
RUSTDOCFLAGS='--deny warnings' cargo doc --locked --no-deps --document-private-items
