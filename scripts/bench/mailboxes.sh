# shellcheck shell=bash disable=SC2154
# Measures the memory of a rendezvous with the largest number of open requests, while
# more requests come. Sourced by bench.sh. OPEN is that number; twice as many requests
# come.

open=${OPEN:-1000000}
echo "== $((2 * open)) requests, of which $open may be open and none gets a score"
rm --force many.requests many.scores
mkfifo many.requests many.scores
sleep 600 > many.scores &
jobs_started+=($!)
rv-rendezvous --requests many.requests --scores many.scores --prefer dt@1 --deadline 1h \
  --max-open "$open" --max-open-bytes 4GiB -o many.responses --stats many.json --quiet &
rendezvous=$!
jobs_started+=("$rendezvous")
resident() { awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$rendezvous/status"; }
{
  for part in 1 2; do
    awk -v from=$((part * open)) -v count="$open" -v now="$(date +%s)" 'BEGIN {
      for (i = 0; i < count; i++)
        printf "{\"messageId\":\"request-%d\",\"timestamp\":%d,\"modelInput\":{\"x\":1}}\n", from + i, now
    }'
    # Waits until the bytes in the pipe have been read.
    sleep 2
    resident >> many.resident
  done
} > many.requests
kill "${jobs_started[-2]}"
wait "$rendezvous"
jobs_started=()
sed 's/^/  resident, MiB: /' many.resident
sed 's/.*"requests":\([0-9]*\).*"answersByReason":\({[^}]*}\).*/  \1 requests, answers by reason \2/' many.json
if (($(wc --lines < many.responses) != 2 * open)); then
  echo "bench: $(wc --lines < many.responses) answers to $((2 * open)) requests" >&2
  exit 1
fi
