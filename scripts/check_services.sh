#!/usr/bin/env bash
# The sink against the real services: starts one after the other, runs the tests of
# tests/services and the README's section on it against each, and stops it.
#
#   scripts/check_services.sh [KIND]...   elasticsearch7 elasticsearch8 opensearch2
#                                         elasticsearch8-secure, or all of them
#
# RV_OUTAGE_SECONDS says how long outages last (5). Each service takes about 0.8 GB
# of memory. What scripts/services/search.sh needs is needed here.
set -euo pipefail
cd "$(dirname "$0")/.."
kinds=${*:-elasticsearch7 elasticsearch8 opensearch2 elasticsearch8-secure}

work=$(mktemp --directory "${TMPDIR:-/tmp}/rv-check-services-XXXXXX")
# The services run as another user where this one is root.
chmod 755 "$work"
running=
cleanup() {
  [[ -z $running ]] || scripts/services/search.sh stop "$running"
  rm --recursive --force "$work"
}
trap cleanup EXIT

cargo test --locked --test services --no-run --quiet
# Small limits, so that they can be met.
export SETTINGS='http.max_content_length: 1mb
thread_pool.write.size: 1
thread_pool.write.queue_size: 8'

for kind in $kinds; do
  echo "== $kind"
  running=$work/$kind
  export RV_SERVICE_DIR=$running RV_SERVICE_KIND=${kind%-secure}
  secure=() selected=(--skip secure::)
  [[ $kind != *-secure ]] || secure=(--secure) selected=(secure::)
  scripts/services/search.sh start "$RV_SERVICE_KIND" "$running" "${secure[@]}"
  there=$(cargo test --locked --quiet --test services -- --ignored --list "${selected[@]}" | grep --count ': test$')
  cargo test --locked --quiet --test services -- --ignored --test-threads=1 "${selected[@]}" |
    tee "$work/out"
  # A test that did not run has not passed.
  if ((there < 5)) || ! grep --quiet "^test result: ok. $there passed; 0 failed; 0 ignored" "$work/out"; then
    echo "check_services: not all of the $there tests ran" >&2
    exit 1
  fi
  scripts/services/search.sh stop "$running"
  running=
done
echo "== all services: $kinds"
