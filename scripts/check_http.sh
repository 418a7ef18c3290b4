#!/usr/bin/env bash
# Checks the HTTP front end's descriptions with independent tools: a validator of
# OpenAPI, and the parser of the Prometheus client for its metrics. Needs python3 with
# venv; fetches both tools from PyPI.
#
# RV_BIN names a folder with the programs. If RV_BIN is not set, the script builds them.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
source scripts/lib.sh
find_programs --release
work=$(make_work check-http)
front=
cleanup() {
  [[ -z "$front" ]] || kill "$front" 2> /dev/null || true
  rm --recursive --force "$work"
}
trap cleanup EXIT
cd -- "$work"

python3 -m venv venv
venv/bin/pip --quiet --disable-pip-version-check install openapi-spec-validator prometheus-client

train --algorithm decision-tree --name dt --model-version 1 --output dt.json
mkfifo requests responses
echo canary-secret > token

# fetch ADDRESS PATH FILE
fetch() {
  python3 - "$@" << 'PY'
import sys, urllib.request
address, path, file = sys.argv[1:]
headers = {"Authorization": "Bearer canary-secret"}
request = urllib.request.Request(f"http://{address}{path}", headers=headers)
with urllib.request.urlopen(request, timeout=30) as reply, open(file, "wb") as out:
    out.write(reply.read())
PY
}

for flags in '' '--fields a,b --id-header x-id' '--model dt.json --token-file token'; do
  echo "== rv-request --listen --admin $flags"
  # shellcheck disable=SC2086
  rv-request --listen 127.0.0.1:0 --admin 127.0.0.1:0 --responses responses \
    --output requests $flags 2> front.log &
  front=$!
  calls=$(listen_address front.log)
  admin=$(listen_address front.log admin)
  fetch "$calls" /openapi.json calls.json
  fetch "$admin" /openapi.json admin.json
  fetch "$admin" /metrics metrics.prom
  venv/bin/openapi-spec-validator calls.json admin.json
  venv/bin/python - << 'PY'
from prometheus_client.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(open("metrics.prom").read()))
assert len(families) > 10, families
for family in families:
    assert family.type in ("counter", "gauge", "summary"), family
    assert family.documentation, f"{family.name} has no help"
print(f"metrics.prom: {len(families)} families")
PY
  kill "$front"
  wait "$front"
  front=
done
