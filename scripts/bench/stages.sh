# shellcheck shell=bash disable=SC2154
# Compares each single stage, from a file to /dev/null, with peers. Sourced by bench.sh.

echo '== one stage, from a file to /dev/null'
sed 's/.*"modelInput":\(.*\)}$/\1/' requests > inputs
loop='import sys, json
for line in sys.stdin: sys.stdout.write(json.dumps(json.loads(line)) + "\n")'
rv-archive --dir logs < requests
peers=()
command -v jq > /dev/null && peers+=('jq -c .' 'jq -c . < requests')
peers+=('Python loads and dumps' "python3 -c '$loop' < requests")
compare \
  'cat' 'cat requests | cat' \
  'rv-decoy' 'rv-decoy < requests' \
  'rv-archive cat' 'rv-archive cat logs' \
  'rv-request' 'rv-request < inputs' \
  'rv-score (tree)' 'rv-score --model dt.json < requests' \
  'rv-score (regression)' 'rv-score --model lr.json < requests' \
  'rv-archive' 'rm -rf new && rv-archive --dir new < requests' \
  'gzip -6' 'gzip -6 < requests' \
  "${peers[@]}"
