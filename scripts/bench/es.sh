# shellcheck shell=bash disable=SC2154
# Measures the sink with a service that accepts everything at once, and with a real one.
# The peers are a plain loop around _bulk, and esbulk if it is on the path. Sourced by
# bench.sh. ES_URL names the real service, for example:
#
#   scripts/services/search.sh start elasticsearch8 /tmp/rv-search
#   ES_URL=http://127.0.0.1:19208 scripts/bench.sh es

# Prints the processor time per record: cost NAME COMMAND.
cost() {
  local TIMEFORMAT='%U %S %R' times
  { times=$({ time bash -euo pipefail -c "$2" > /dev/null 2> errors.log; } 2>&1); } || {
    cat errors.log >&2
    return 1
  }
  awk -v name="$1" -v times="$times" -v records="$records" 'BEGIN {
    split(times, t, " ")
    printf "  %-34s %8.2f us of a processor a record, %5.3f of a core at %.0f records/s\n",
      name, (t[1] + t[2]) / records * 1e6, (t[1] + t[2]) / t[3], records / t[3] }'
}

echo '== the sink into a service that accepts everything at once'
python3 "$here/scripts/bench/fake_bulk.py" > fake.port &
jobs_started+=($!)
for _ in {1..100}; do
  [[ ! -s fake.port ]] || break
  sleep 0.1
done
fake=127.0.0.1:$(< fake.port)
compare \
  'rv-es-sink, requests' "rv-es-sink --quiet --url http://$fake --index bench < requests" \
  'rv-es-sink, scores' "rv-es-sink --quiet --url http://$fake --index bench < dt.scores" \
  'rv-es-sink, requests, gzip' "rv-es-sink --quiet --gzip --url http://$fake --index bench < requests" \
  'Python _bulk loop' "python3 $here/scripts/bench/bulk.py $fake bench 1 < requests"
kill "${jobs_started[@]}"
jobs_started=()

if [[ -z ${ES_URL:-} ]]; then
  echo '== the sink into a real service: NOT measured, because ES_URL is not set (see scripts/bench/es.sh)'
else
  all_records=$records
  records=${ES_RECORDS:-100000}
  head --lines="$records" requests > es.requests
  python3 "$here/scripts/bench/documents.py" < es.requests > es.documents
  address=${ES_URL#http://}
  # Each run uses a new index, so that all runs start equal.
  # shellcheck disable=SC2016 # for the shell of each run
  new='index=rv-bench-$(date +%s%N)'
  for connections in 1 2; do
    echo "== $records requests into $ES_URL on $connections connections"
    # The service needs some time to warm up.
    for _ in 1 2 3 4 5; do
      bash -c "$new; python3 $here/scripts/bench/bulk.py $address \$index 2 < es.documents"
    done
    sink="$new; rv-es-sink --quiet --connections $connections --url $ES_URL --index \$index < es.requests"
    peers=()
    if command -v esbulk > /dev/null; then
      peers+=(esbulk "$new; esbulk -server $ES_URL -index \$index -id messageId -w $connections -size 1000 es.requests")
    else
      echo '  (esbulk: NOT measured, because it is not on the path)'
    fi
    compare \
      'rv-es-sink' "$sink" \
      "${peers[@]}" \
      'Python _bulk loop, requests as they are' "$new; python3 $here/scripts/bench/bulk.py $address \$index $connections < es.requests" \
      'Python _bulk loop, the same documents' "$new; python3 $here/scripts/bench/bulk.py $address \$index $connections < es.documents"
    cost 'rv-es-sink' "$sink"
    curl --silent "$ES_URL/_cat/indices/rv-bench-*?h=index" | while read -r index; do
      curl --silent --output /dev/null --request DELETE "$ES_URL/$index"
    done
  done
  records=$all_records
fi
