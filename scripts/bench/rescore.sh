# shellcheck shell=bash disable=SC2154
# Compares rescoring with two programs in Python: a simple one that predicts once a
# record, and one that predicts for 10,000 records at once and uses the fastest JSON
# parser. BENCH_PYTHON names a Python with scikit-learn, numpy and orjson. Sourced by
# bench.sh.

echo '== a recording scored again by a decision tree, from a file to /dev/null'
compare \
  'rv-score --rescore --threads 2' 'rv-score --rescore --threads 2 --model dt.json < requests' \
  'rv-score --rescore' 'rv-score --rescore --model dt.json < requests' \
  'cat of the same bytes' 'cat requests | cat'
python=${BENCH_PYTHON:-python3}
if "$python" -c 'import orjson, numpy, sklearn' 2> /dev/null; then
  compare \
    'rv-score --rescore' 'rv-score --rescore --model dt.json < requests' \
    'orjson, a predict per 10,000' "$python $here/scripts/bench/score.py $here/fixtures/iris.csv 10000 < requests"
  train --algorithm random-forest --trees 100 --name rf --model-version 1 --output rf.json
  compare \
    'a forest of 100 trees' 'rv-score --rescore --model rf.json < requests' \
    'orjson, a predict per 10,000' "$python $here/scripts/bench/score.py $here/fixtures/iris.csv 10000 forest < requests"
  few=$((records / 10))
  head --lines="$few" requests > few.requests
  # Both programs must read the same input; a smaller number of records keeps the slow
  # loop short.
  records=$few compare \
    'rv-score --rescore' 'rv-score --rescore --model dt.json < few.requests' \
    'json, a predict per record' "$python $here/scripts/bench/score.py $here/fixtures/iris.csv 1 < few.requests"
else
  echo '  no Python with scikit-learn, numpy and orjson: not compared'
fi

echo '== each stage behind the same pipe: the share of cat that is left'
compare \
  'cat | rv-decoy' 'cat requests | rv-decoy' \
  'cat | rv-archive' 'rm -rf new && cat requests | rv-archive --dir new' \
  'cat | rv-archive --pass' 'rm -rf new && cat requests | rv-archive --pass --dir new' \
  'cat | rv-score' 'cat requests | rv-score --model dt.json' \
  'cat | rv-score --threads 2' 'cat requests | rv-score --threads 2 --model dt.json' \
  'rv-archive cat | rv-score' 'rv-archive cat logs | rv-score --rescore --model dt.json' \
  'cat | cat' 'cat requests | cat'
