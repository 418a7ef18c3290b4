#!/usr/bin/env bash
# The sink against the real services: starts one after the other, runs the tests of
# tests/services against each, and stops it. Then it types in docs/elasticsearch.md.
#
#   scripts/check_services.sh [KIND]...   elasticsearch7 elasticsearch8 opensearch2
#                                         elasticsearch8-secure readme, or all of them
#
# RV_OUTAGE_SECONDS says how long outages last (5). Each service takes about 0.8 GB
# of memory. What scripts/services/search.sh needs is needed here.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
source scripts/lib.sh
kinds=${*:-elasticsearch7 elasticsearch8 opensearch2 elasticsearch8-secure readme}

work=$(make_work check-services)
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

# The page from starting a service to the answer, after the block that trains the
# models.
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
  # A folder of its own: what an earlier try has indexed would be counted too.
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
