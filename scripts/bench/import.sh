# shellcheck shell=bash disable=SC2034,SC2154
# An imported model of 500 trees beside the libraries' own prediction of one row, and
# beside LightGBM in bulk. Needs PyPI; the packages go into target/python.
echo "-- import: gradient boosting, 500 trees of 31 leaves, 30 features"
python_packages bench-import lightgbm==4.7.0 onnxmltools==1.16.0 skl2onnx==1.20.0 \
  onnxruntime==1.32.0 numpy==2.4.6 orjson scikit-learn==1.9.1
import_bench=(python -W ignore "$here/scripts/bench/import.py")
"${import_bench[@]}" prepare "$work/boosted" 500
rv-score import "$work/boosted/model.txt" --from lightgbm --name m --model-version 1 \
  --output boosted.json --quiet
import_rows=100000

# own_seconds PEER ROWS: how long the predictions take, without the start of Python.
own_seconds() {
  local all start
  all=$(seconds "${import_bench[*]} $1 $work/boosted $2")
  start=$(seconds "${import_bench[*]} $1 $work/boosted 1")
  awk -v all="$all" -v start="$start" 'BEGIN { print all - start }'
}

for peer in lightgbm onnxruntime; do
  ours='' theirs=''
  for ((run = 0; run < runs; run++)); do
    ours+=$(seconds "rv-score --model boosted.json --rescore --quiet < boosted/requests")$'\n'
    theirs+=$(own_seconds $peer 20000)$'\n'
  done
  awk -v peer=$peer -v ours="$(printf %s "$ours" | median)" \
    -v theirs="$(printf %s "$theirs" | median)" -v rows=$import_rows 'BEGIN {
      ours *= 1e6 / rows; theirs *= 1e6 / 20000
      printf "  one row: rv-score with its JSON %.1f us, %s without JSON %.1f us: %.1f x\n",
        ours, peer, theirs, theirs / ours }'
done
(records=$import_rows && compare \
  'rv-score, one thread' "rv-score --model boosted.json --rescore --quiet < boosted/requests" \
  'orjson, lightgbm, 10,000 rows a call' "${import_bench[*]} lightgbm-bulk $work/boosted < boosted/requests")
