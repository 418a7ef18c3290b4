#!/usr/bin/env bash
# Tests rv-bridge against real brokers. For each broker in turn, this starts it, runs the
# tests of tests/brokers and stops it.
#
#   scripts/check_brokers.sh [KIND]...   nats kafka pulsar, or all of them
#
# RV_REQUESTS is the number of requests in the test that kills everything (50000),
# RV_CHAOS_SEED repeats its kills, and RV_OUTAGE_SECONDS is how long the broker is away
# (5). Kafka and Pulsar take up to 0.7 GB of memory. The build needs protoc, pkg-config,
# a C++ compiler, make and the headers of zlib and OpenSSL. As root on Debian, this script
# installs what is missing. The requirements of scripts/services/brokers.sh apply here too.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
source scripts/lib.sh
kinds=${*:-nats kafka pulsar}

missing=()
for package in protobuf-compiler pkg-config g++ make zlib1g-dev libssl-dev; do
  dpkg-query --show "$package" > /dev/null 2>&1 || missing+=("$package")
done
if ((${#missing[@]})) && command -v apt-get > /dev/null && [[ $(id --user) == 0 ]]; then
  apt-get update --quiet
  DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes "${missing[@]}"
fi

work=$(make_work check-brokers)
running=
cleanup() {
  [[ -z $running ]] || scripts/services/brokers.sh stop "$running"
  rm --recursive --force "$work"
}
trap cleanup EXIT

features=(--features 'brokers kafka-tls')
cargo clippy --locked --all-targets --quiet "${features[@]}" -- --deny warnings
cargo test --locked --quiet --lib "${features[@]}" bridge::
cargo test --locked --quiet --test brokers --no-run "${features[@]}"
# The client of examples/model_nats.py.
python_packages brokers nats-py==2.16.0
# The replicas of a group share the partitions.
export PARTITIONS=4

for kind in $kinds; do
  echo "== $kind"
  running=$work/$kind
  export RV_BROKER_DIR=$running RV_BROKER_KIND=$kind
  scripts/services/brokers.sh start "$kind" "$running"
  selected=()
  for other in nats kafka; do
    [[ $other == "$kind" ]] || selected+=(--skip "only_$other::")
  done
  expected=$(cargo test --locked --quiet --test brokers "${features[@]}" -- --ignored --list "${selected[@]}" |
    grep --count ': test$')
  cargo test --locked --quiet --test brokers "${features[@]}" -- --ignored --test-threads=1 --nocapture \
    "${selected[@]}" | tee "$work/out"
  # Fails unless all tests have run.
  if ((expected < 10)) || ! grep "^test result: ok. $expected passed; 0 failed; 0 ignored" "$work/out" > /dev/null; then
    echo "check_brokers: not all of the $expected tests have passed" >&2
    exit 1
  fi
  scripts/services/brokers.sh stop "$running"
  running=
done
echo "== all brokers: $kinds"
