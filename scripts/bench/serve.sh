# shellcheck shell=bash disable=SC2154
# Measures HTTP calls through the whole architecture (front end, tee, two models,
# archive, rendezvous, decisions). The peers are the same front end with an echo behind
# it, and FastAPI with scikit-learn, which serves one of the models. Needs wrk, perl,
# and python3 with venv, into which it fetches FastAPI and scikit-learn from PyPI.
# Sourced by bench.sh. CALL_SECONDS is the length of each measurement.

serve_bench() {
  local call_seconds=${CALL_SECONDS:-5} tool name connections run
  for tool in wrk perl python3; do
    command -v $tool > /dev/null || {
      echo "== calls: NOT measured, because $tool is missing"
      return 0
    }
  done
  echo "== calls over HTTP, $call_seconds s each"
  cat > call.lua << 'LUA'
wrk.method = "POST"
wrk.body = '{"sepalLength":5.1,"sepalWidth":3.5,"petalLength":1.4,"petalWidth":0.2}'
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency)
  io.write(string.format("%.0f %.3f %.3f %d\n", summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
end
LUA
  # The fields are: calls a second, p50 and p99 in ms, failed calls.
  local -A address=()

  rv-up demo chain --listen 127.0.0.1:0 --admin 127.0.0.1:0 > up.log
  address[chain]=$(sed --quiet 's|^up at http://\([^,]*\), in.*|\1|p' up.log)

  mkfifo echo.requests echo.responses
  # shellcheck disable=SC2016
  perl -e 'my $rest = ""; while (sysread(STDIN, my $block, 65536)) {
      $_ = $rest . $block; $rest = s{([^\n]*)\z}{} ? $1 : "";
      s/}\n/,"modelResult":{"modelName":"echo","result":0}}\n/g; syswrite STDOUT, $_;
    }' < echo.requests > echo.responses &
  jobs_started+=($!)
  rv-request --listen 127.0.0.1:0 --responses echo.responses --output echo.requests 2> echo.log &
  jobs_started+=($!)

  python3 -m venv venv
  venv/bin/pip --quiet --disable-pip-version-check install fastapi 'uvicorn[standard]' scikit-learn
  cat > app.py << 'PY'
from fastapi import FastAPI
from pydantic import BaseModel
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

iris = load_iris()
model = DecisionTreeClassifier(random_state=0).fit(iris.data, iris.target)
app = FastAPI()

class Flower(BaseModel):
    sepalLength: float
    sepalWidth: float
    petalLength: float
    petalWidth: float

@app.post("/predict")
def predict(flower: Flower):
    row = [[flower.sepalLength, flower.sepalWidth, flower.petalLength, flower.petalWidth]]
    return {"result": int(model.predict(row)[0])}
PY
  venv/bin/uvicorn app:app --port 0 --log-level info --no-access-log 2> fastapi.log &
  jobs_started+=($!)

  for ((i = 0; i < 200; i++)); do
    address[echo]=$(sed --quiet 's|.*listening at http://||p' echo.log)
    address[fastapi]=$(sed --quiet 's|.*running on http://\([0-9.:]*\).*|\1|p' fastapi.log)
    [[ -n "${address[echo]}" && -n "${address[fastapi]}" ]] && break
    sleep 0.1
  done
  for ((run = 0; run < runs; run++)); do
    for connections in 1 64; do
      for name in chain echo fastapi; do
        wrk --threads 1 --connections "$connections" --duration "${call_seconds}s" --script call.lua \
          "http://${address[$name]}/predict" | tail --lines=1 >> "$name.$connections"
      done
    done
  done
  rv-up --file chain/rv.toml stop > up.log
  kill "${jobs_started[@]}"
  wait "${jobs_started[@]}" 2> /dev/null || true
  jobs_started=()
  for connections in 1 64; do
    for name in chain echo fastapi; do
      for column in 1 2 3 4; do
        cut --delimiter=' ' --fields=$column "$name.$connections" | median
      done | paste --serial --delimiters=' '
    done > table
    awk -v connections="$connections" 'BEGIN { split("whole architecture,front end that echoes,FastAPI", name, ",") }
      { rate[NR] = $1; p50[NR] = $2; p99[NR] = $3; failed[NR] = $4 }
      END {
        for (i = 1; i <= 3; i++)
          printf "  %2d connections, %-22s %7d calls/s  p50 %7.3f ms  p99 %8.3f ms  %d failed  %6.1f x, p50 / %.1f, p99 / %.1f\n",
            connections, name[i], rate[i], p50[i], p99[i], failed[i], rate[i] / rate[3], p50[3] / p50[i], p99[3] / p99[i]
      }' table
  done
}

serve_bench
