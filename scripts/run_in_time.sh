#!/usr/bin/env bash
# cargo runs every test and program through this script, as .cargo/config.toml says. A file of
# tests that does not end in time fails with status 124. After 60 seconds the test program
# itself names each test that still runs. Other programs have no limit.
#
# RV_TEST_RUN_SECONDS is the limit of one file of tests, 1800 unless set.
set -euo pipefail

case $1 in
  */deps/*)
    seconds=$((${RV_TEST_RUN_SECONDS:-1800} + ${RV_CHAOS_SECONDS:-0}))
    # --foreground lets Ctrl-C end the tests, too.
    exec timeout --foreground --verbose --kill-after=10 "$seconds" "$@"
    ;;
  *) exec "$@" ;;
esac
