# shellcheck shell=bash
# Compares archives with gzip, pigz, zcat and zgrep on the same records, at the same or
# a smaller size. Sourced by bench.sh.

echo '== an archive of requests, from a file to the disk'
one_core=(taskset --cpu-list 0)
peers=()
command -v pigz > /dev/null && peers+=(
  'pigz -6, 2 threads' 'pigz --processes 2 -6 < requests > pigz.gz'
  'pigz -6, 1 core' "${one_core[*]} pigz --processes 1 -6 < requests > pigz.gz")
compare \
  'rv-archive --threads 2' 'rm -rf new && rv-archive --threads 2 --dir new < requests' \
  'rv-archive' 'rm -rf new && rv-archive --dir new < requests' \
  'rv-archive, 1 core' "rm -rf new && ${one_core[*]} rv-archive --dir new < requests" \
  "${peers[@]}" \
  'gzip -6, 1 core' "${one_core[*]} gzip -6 < requests > gzip.gz"
for file in new/*.gz gzip.gz; do
  printf '  %-34s %8d KiB\n' "size of ${file%%[/.]*}" "$(($(stat --format=%s "$file") / 1024))"
done

echo '== reading an archive'
rm --recursive --force logs
rv-archive --dir logs --max-bytes 32MiB < requests
id=$(tail --lines=1 requests | sed 's/.*"messageId":"\([^"]*\)".*/\1/')
compare \
  'rv-archive cat' 'rv-archive cat logs' \
  'rv-archive cat --since' 'rv-archive cat --since 1700000000 logs' \
  'zcat' 'zcat logs/*.gz'
compare \
  'rv-archive find' "rv-archive find $id logs" \
  'rv-archive find --threads 1' "rv-archive find --threads 1 $id logs" \
  'zgrep --fixed-strings' "zgrep --no-filename --fixed-strings $id logs/*.gz"
compare \
  'rv-archive verify' 'rv-archive verify logs' \
  'gzip --test' 'gzip --test logs/*.gz'
