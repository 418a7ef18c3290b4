#!/usr/bin/env bash
# Tests the sink against real services. For each service in turn, this starts it, runs
# the tests of tests/services and stops it. Then it runs the commands of
# docs/elasticsearch.md.
#
#   scripts/check_services.sh [KIND]...   elasticsearch7 elasticsearch8 opensearch2
#                                         elasticsearch8-secure readme, or all of them
#
# RV_OUTAGE_SECONDS is the length of the outages in the tests (5). Each service takes
# about 0.8 GB of memory. The requirements of scripts/services/search.sh apply here too.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
source scripts/lib.sh
kinds=${*:-elasticsearch7 elasticsearch8 opensearch2 elasticsearch8-secure readme}

work=$(make_work check-services)
# If this user is root, the services run as another user, who must be able to read the
# folder.
chmod 755 "$work"
running=
cleanup() {
  [[ -z $running ]] || scripts/services/search.sh stop "$running"
  rm --recursive --force "$work"
}
trap cleanup EXIT

cargo test --locked --test services --no-run --quiet
# Small limits, so that the tests reach them.
export SETTINGS='http.max_content_length: 1mb
thread_pool.write.size: 1
thread_pool.write.queue_size: 8'

# Runs the commands of the page, from the start of the service to the answer, after the
# block that trains the models.
readme() {
  find_programs --profile dev
  mkdir "$work/readme"
  ln --symbolic "$PWD/fixtures" "$PWD/scripts" "$work/readme/"
  python3 - docs/elasticsearch.md > "$work/readme/commands" << 'PY'
import re, sys
text = open(sys.argv[1]).read()
training = [block for block in re.findall(r"```sh\n(.*?)```", text, re.S) if "train() {" in block]
commands = re.findall(r"```bash\n(.*?)```", text, re.S)
assert len(training) == 1 and len(commands) == 3, (len(training), len(commands))
print("set -euo pipefail", *training, *commands, sep="\n")
PY
  # A separate folder: documents from an earlier run would be counted too.
  sed --in-place "s|/tmp/rv-search|$work/search|g" "$work/readme/commands"
  running=$work/search
  (cd "$work/readme" && SETTINGS='' bash commands)
  running=
  python3 - "$work/readme" << 'PY'
import json, sys
folder = sys.argv[1]
answers = json.load(open(f"{folder}/disagreement.json"))["aggregations"]["canary and production"]["buckets"]
found = {name: bucket["doc_count"] for name, bucket in answers.items()}
expected = {"agree": 0, "disagree": 0}
for line in open(f"{folder}/yesterday.decisions.ndjson"):
    first, second = [score["result"]["result"] for score in json.loads(line)["candidates"]]
    expected["agree" if first == second else "disagree"] += 1
assert found == expected and sum(found.values()) == 150 and found["disagree"] > 0, (found, expected)
PY
}

for kind in $kinds; do
  echo "== $kind"
  if [[ $kind == readme ]]; then
    readme
    continue
  fi
  running=$work/$kind
  export RV_SERVICE_DIR=$running RV_SERVICE_KIND=${kind%-secure}
  secure=() selected=(--skip secure::)
  [[ $kind != *-secure ]] || secure=(--secure) selected=(secure::)
  scripts/services/search.sh start "$RV_SERVICE_KIND" "$running" "${secure[@]}"
  expected=$(cargo test --locked --quiet --test services -- --ignored --list "${selected[@]}" | grep --count ': test$')
  cargo test --locked --quiet --test services -- --ignored --test-threads=1 "${selected[@]}" |
    tee "$work/out"
  # Fails unless all tests have run.
  if ((expected < 5)) || ! grep --quiet "^test result: ok. $expected passed; 0 failed; 0 ignored" "$work/out"; then
    echo "check_services: not all of the $expected tests have passed" >&2
    exit 1
  fi
  scripts/services/search.sh stop "$running"
  running=
done
echo "== all services: $kinds"
