# shellcheck shell=bash disable=SC2154
# Compares rv-tee with GNU tee: copies to three files and to three pipes. Then measures the
# rates of three readers of pipes, in MB/s: first while all of them read, then while one
# has stopped for STOPPED_SECONDS. Each measurement has a source at 40 MB/s, at 300 MB/s
# and at full speed. A lost, repeated or torn line ends the benchmark. Spill files are in
# $TMPDIR. RATES sets the rates of the source, and COUNTS the numbers of pipes. bench.sh
# sources this file.

for ((i = 0; i < 5; i++)); do cat requests; done > many.requests
cat > to_pipes.sh << 'SCRIPT'
# to_pipes.sh COMMAND...: writes to three pipes that are read at full speed.
rm --force p1 p2 p3
mkfifo p1 p2 p3
for pipe in p1 p2 p3; do cat $pipe > /dev/null & done
"$@" p1 p2 p3 < many.requests > /dev/null
wait
SCRIPT
cat > readers_get.sh << 'SCRIPT'
# readers_get.sh SECONDS MB/S stop|go PIPES COMMAND...: prints the mean rate of the
# readers, in MB/s. The source writes at MB/S; 0 means at full speed. With `stop`, the
# last reader pauses from one second after the start to one second before the end, and
# the printed rate is that of the other readers during the pause. Fails if a reader
# misses a line.
set -euo pipefail
seconds=$1 rate=$2 what=$3 count=$4
shift 4
pipes=() readers=()
for ((i = 1; i <= count; i++)); do pipes+=("p$i"); done
rm --force "${pipes[@]}" in
mkfifo "${pipes[@]}" in
for pipe in "${pipes[@]}"; do
  flow read "$pipe" 2 $((seconds - 1)) > "$pipe.got" & readers+=($!)
done
"$@" "${pipes[@]}" < in > /dev/null 2> tee.errors & tee=$!
flow write "$seconds" "$rate" > in 2> written & source=$!
sleep 1
last=${readers[-1]}
[[ $what != stop ]] || kill -STOP "$last"
sleep $((seconds - 2))
kill -CONT "$last"
wait "$source" "$tee" "${readers[@]}"
read -r written < written
others=("${pipes[@]}")
[[ $what != stop ]] || unset 'others[-1]'
for pipe in "${pipes[@]}"; do
  read -r _ lines missing repeated torn < "$pipe.got"
  if ((lines != written || missing || repeated || torn)); then
    echo "of $written lines, $pipe got $lines; $missing missing, $repeated repeated, $torn torn" >&2
    cat tee.errors >&2
    exit 1
  fi
done
cat "${others[@]/%/.got}" | awk '{ sum += $1 } END { printf "%.0f\n", sum / NR }'
SCRIPT

flow=$RV_BIN/examples
[[ -x $flow/flow ]] || {
  (cd "$here" && cargo build --release --example flow --quiet)
  flow=$here/target/release/examples
}
PATH=$flow:$PATH
rv_tee=(rv-tee --no-stdout --spill-max 64GiB)
readers_get() {
  bash readers_get.sh "$@" || {
    echo "bench: lines were lost, repeated or torn: $*" >&2
    exit 1
  }
}

(
  records=$((5 * records)) # what `compare` divides by
  echo '== one copy to each of three pipes'
  compare \
    'rv-tee' 'bash to_pipes.sh rv-tee --no-stdout' \
    'GNU tee' 'bash to_pipes.sh tee'
)
echo '== one copy to each of three files; rv-tee syncs them, GNU tee with and without sync'
for ((run = 0; run < runs; run++)); do
  for way in 'rv-tee --output f1 f2 f3' 'tee f1 f2 f3 && sync --data f1 f2 f3' 'tee f1 f2 f3'; do
    # The disk writes of one run must not slow down the next run.
    rm --force f1 f2 f3 && sync
    seconds "{ $way; } < many.requests" >> "files $way"
  done
done
rm f1 f2 f3
paste <(median < 'files rv-tee --output f1 f2 f3') <(median < 'files tee f1 f2 f3 && sync --data f1 f2 f3') \
  <(median < 'files tee f1 f2 f3') | awk \
  '{ printf "  rv-tee %.2f s, GNU tee and sync %.2f s: %.2f x; GNU tee without sync %.2f s: %.2f x\n", $1, $2, $2 / $1, $3, $3 / $1 }'
seconds_each=$((${STOPPED_SECONDS:-20} + 2))
for count in ${COUNTS:-3 8}; do
  echo "== $count pipes, a source at full speed, no reader pauses: the rate of each reader"
  for ((run = 0; run < runs; run++)); do
    readers_get 6 0 go "$count" "${rv_tee[@]}" >> "rv-tee $count"
    readers_get 6 0 go "$count" tee >> "tee $count"
  done
  paste <(median < "rv-tee $count") <(median < "tee $count") | awk \
    '{ printf "  rv-tee %5d MB/s, GNU tee %5d MB/s: %.2f x\n", $1, $2, $1 / $2 }'
done
echo "== three pipes: the rate of the others while one reader pauses for $((seconds_each - 2)) s"
for rate in ${RATES:-40 300 0}; do
  for ((run = 0; run < runs; run++)); do
    readers_get 8 "$rate" go 3 "${rv_tee[@]}" >> "going $rate"
    readers_get $seconds_each "$rate" stop 3 "${rv_tee[@]}" >> "stopped $rate"
  done
  paste <(median < "going $rate") <(median < "stopped $rate") | awk -v rate="${rate/#0/at full speed}" \
    '{ printf "  source %-18s %5d MB/s, and %5d MB/s with one stopped: %5.1f %%\n", rate, $1, $2, 100 * $2 / $1 }'
done
