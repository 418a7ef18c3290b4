# shellcheck shell=bash disable=SC2154
# Copies to three files and to three pipes, beside GNU tee; and what a reader that
# has stopped costs the others: seconds of each run are STOPPED_SECONDS. Sourced by
# bench.sh.

for ((i = 0; i < 5; i++)); do cat requests; done > many.requests
cat > to_pipes.sh << 'SCRIPT'
# to_pipes.sh COMMAND...: three pipes that are read as fast as that goes.
rm --force p1 p2 p3
mkfifo p1 p2 p3
for pipe in p1 p2 p3; do cat $pipe > /dev/null & done
"$@" p1 p2 p3 < many.requests > /dev/null
wait
SCRIPT
cat > others_get.sh << 'SCRIPT'
# others_get.sh SECONDS READER COMMAND...: what two of three readers get, in MB/s.
# The first is READER: `cat` reads, and `sleep 1000` opens its pipe and does not.
seconds=$1 reader=$2
shift 2
rm --force p1 p2 p3
mkfifo p1 p2 p3
$reader < p1 > /dev/null & readers=($!)
for pipe in p2 p3; do wc --bytes < $pipe > $pipe.bytes & readers+=($!); done
{ while cat many.requests; do :; done; } 2> /dev/null | "$@" p1 p2 p3 > /dev/null 2>&1 & tee=$!
sleep "$seconds"
kill -KILL $tee "${readers[0]}"
wait "${readers[@]:1}"
cat p2.bytes p3.bytes | awk -v seconds="$seconds" '{ sum += $1 } END { printf "%.0f\n", sum / 2 / seconds / 1e6 }'
SCRIPT

(
  records=$((5 * records)) # what `compare` divides by
  echo '== one copy to each of three files'
  compare \
    'rv-tee' 'rv-tee --output f1 f2 f3 < many.requests' \
    'GNU tee' 'tee f1 f2 f3 < many.requests'
  rm f1 f2 f3
  echo '== one copy to each of three pipes'
  compare \
    'rv-tee' 'bash to_pipes.sh rv-tee --on-full block --no-stdout' \
    'GNU tee' 'bash to_pipes.sh tee'
)
seconds_each=${STOPPED_SECONDS:-10}
echo "== three pipes for $seconds_each s: what the others get while one reader stands still"
for ((run = 0; run < runs; run++)); do
  for tee in 'rv-tee --no-stdout' 'rv-tee --no-stdout --live' tee; do
    for reader in cat 'sleep 1000'; do
      # shellcheck disable=SC2086
      bash others_get.sh "$seconds_each" "$reader" $tee 2> errors.log >> "others ${tee// /_} ${reader%% *}"
    done
  done
done
for tee in 'rv-tee --no-stdout' 'rv-tee --no-stdout --live' tee; do
  reading=$(median < "others ${tee// /_} cat")
  stopped=$(median < "others ${tee// /_} sleep")
  awk -v name="$tee" -v reading="$reading" -v stopped="$stopped" \
    'BEGIN { printf "  %-34s %6d MB/s, and %6d MB/s with one stopped: %5.1f %%\n", name, reading, stopped, 100 * stopped / reading }'
done
