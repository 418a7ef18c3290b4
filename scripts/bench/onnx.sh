# shellcheck shell=bash disable=SC2154
# Compares rv-score on ONNX models with onnxruntime in Python. BENCH_PYTHON names a
# Python with scripts/onnx/requirements.txt. Sourced by bench.sh.

echo '== ONNX models, one thread of onnxruntime'
python=${BENCH_PYTHON:-python3}
if "$python" -c 'import onnxruntime, orjson, skl2onnx, sklearn' 2> /dev/null; then
  "$python" "$here/scripts/bench/onnx_models.py" export "$here/fixtures/iris.csv"
  libraries=$("$python" -c 'import onnxruntime; print(onnxruntime.__path__[0])')/capi
  ours="rv-score --name m --model-version 1 --onnxruntime $libraries --quiet"
  ours+=' --features sepalLength,sepalWidth,petalLength,petalWidth --model'
  theirs="$python $here/scripts/bench/onnx_models.py score"
  for model in tree forest; do
    echo "== $model, from a file to /dev/null"
    few=$((records / 5))
    head --lines="$few" requests > few.requests
    # All programs must read the same input; a smaller number keeps the slow loop short.
    records=$few compare \
      'rv-score, in batches' "$ours $model.onnx < few.requests" \
      'orjson, a run per 10,000' "$theirs $model.onnx 10000 < few.requests" \
      'rv-score, one row a run' "$ours $model-one-row.onnx < few.requests" \
      'json, one row a run' "$theirs $model-one-row.onnx 1 < few.requests"
    echo "== $model, each request sent after the score of the one before"
    few=$((records / 20))
    head --lines="$few" requests > few.requests
    client="$python $here/scripts/bench/onnx_models.py each"
    records=$few compare \
      'rv-score' "$client $ours $model.onnx < few.requests" \
      'json, one row a run' "$client $theirs $model.onnx 1 < few.requests"
  done
else
  echo '  no Python with onnxruntime, orjson, skl2onnx and scikit-learn: not compared'
fi
