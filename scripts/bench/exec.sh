# shellcheck shell=bash disable=SC2154
# Measures models that are programs (--exec): scikit-learn one record at a time and in
# batches, and jq. BENCH_PYTHON names a Python with scikit-learn and joblib. Sourced by
# bench.sh.

echo '== a model that is a program (--exec); x: speed relative to one record at a time'

# exec_rates NAME COMMAND FEW MANY: prints the rates with --batch 1, 64 and 1000. FEW
# records are scored singly, and MANY in batches.
exec_rates() {
  local name=$1 command=$2 few=$3 many=$4 batch count rate single=
  for batch in 1 64 1000; do
    count=$many
    [[ $batch != 1 ]] || count=$few
    rate=$(for ((run = 0; run < runs; run++)); do
      python3 "$here/scripts/bench/exec.py" "$count" \
        "exec rv-score --rescore --name m --model-version 1 --batch $batch --exec '$command'" < requests
    done | median)
    single=${single:-$rate}
    awk -v name="$name, --batch $batch" -v rate="$rate" -v single="$single" \
      'BEGIN { printf "  %-44s %10.0f records/s  %7.1f x\n", name, rate, rate / single }'
  done
}

python=${BENCH_PYTHON:-python3}
if "$python" -c 'import joblib, sklearn' 2> /dev/null; then
  "$python" - "$here/fixtures/iris.csv" << 'PY'
import csv, joblib, sys
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
rows = list(csv.DictReader(open(sys.argv[1])))
names = ["sepalLength", "sepalWidth", "petalLength", "petalWidth"]
inputs, labels = [[float(row[name]) for name in names] for row in rows], [int(row["target"]) for row in rows]
joblib.dump(RandomForestClassifier(100, random_state=0).fit(inputs, labels), "forest.joblib")
joblib.dump(LogisticRegression(max_iter=1000).fit(inputs, labels), "regression.joblib")
PY
  example=$here/examples/sklearn_model.py
  exec_rates 'scikit-learn, a forest of 100 trees' "exec $python $example forest.joblib" 300 $((records / 20))
  exec_rates 'scikit-learn, logistic regression' "exec $python $example regression.joblib" 3000 $((records / 20))
else
  echo '  no Python with scikit-learn and joblib: not measured'
fi
if command -v jq > /dev/null; then
  exec_rates 'jq' "exec jq --compact-output --unbuffered --from-file $here/examples/iris.jq" $((records / 20)) $((records / 20))
fi
