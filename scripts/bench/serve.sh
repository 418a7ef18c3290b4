# shellcheck shell=bash disable=SC2154
# Measures HTTP calls through the whole architecture: front end, tee, models, decoy,
# archive, rendezvous, decisions. The peers are the same front end with an echo behind it,
# servers of models in Python (FastAPI, MLServer), and nginx with `mirror`, which copies
# calls to a second server. Needs wrk, perl, and python3 with venv, into which it fetches
# the servers from PyPI. The part with nginx is left out, and says so, if nginx is missing.
# Sourced by bench.sh. CALL_SECONDS is the length of each measurement.
#
# The load generator and all programs share the cores. Each measurement gives calls a
# second, p50 and p99 in ms, and failed calls. A table shows the medians of RUNS runs that
# take turns.

serve_bench() {
  local call_seconds=${CALL_SECONDS:-5} tool
  for tool in wrk perl python3; do
    command -v $tool > /dev/null || {
      echo "== calls: NOT measured, because $tool is missing"
      return 0
    }
  done
  echo "== calls over HTTP, $call_seconds s each, medians of $runs runs"
  serve_inputs
  local -A address=()
  serve_echo
  serve_python
  serve_frontends
  serve_models
  serve_sizes
  serve_plain
  serve_mirror
  kill "${jobs_started[@]}"
  wait "${jobs_started[@]}" 2> /dev/null || true
  jobs_started=()
}

# The calls. wrk runs a script for each kind of body.
serve_inputs() {
  local flower='{"sepalLength":5.1,"sepalWidth":3.5,"petalLength":1.4,"petalWidth":0.2' kind pad
  for kind in small:0 2KB:1900 20KB:19900 mlserver:0; do
    pad=$(printf "%${kind#*:}s" '' | tr ' ' x)
    cat > "${kind%:*}.lua" << LUA
wrk.method = "POST"
wrk.body = '$flower${pad:+,\"note\":\"$pad\"}}'
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency)
  io.write(string.format("%.0f %.3f %.3f %d\\n", summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
end
LUA
  done
  local tensor='{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[5.1,3.5,1.4,0.2]}]}'
  sed --in-place "s|^wrk.body = .*|wrk.body = '$tensor'|" mlserver.lua
}

# measure TABLE NAME CONNECTIONS URL [SCRIPT]: one run; adds a line to the file
# TABLE.NAME.CONNECTIONS.
measure() {
  wrk --threads 1 --connections "$3" --duration "${call_seconds}s" --timeout 10s \
    --script "${5:-small}.lua" --latency "$4" | tail --lines=1 >> "$1.$2.$3"
}

# print_medians TABLE CONNECTIONS NAME...: a line for each name, relative to the first.
print_medians() {
  local table=$1 connections=$2 name column
  shift 2
  for name; do
    for column in 1 2 3 4; do
      cut --delimiter=' ' --fields=$column "$table.$name.$connections" | median
    done | paste --serial --delimiters=' ' | sed "s/^/$name /"
  done | awk -v connections="$connections" '
    NR == 1 { rate = $2; p50 = $3; p99 = $4 }
    { printf "  %2d connections, %-22s %7d calls/s (%.2f)  p50 %8.3f ms (%.2f)  p99 %8.3f ms (%.2f)  %d failed\n",
        connections, $1, $2, $2 / rate, $3, $3 / p50, $4, $4 / p99, $5 }'
}

# A whole architecture with two models in the folder NAME.
whole() {
  rv-up demo "$1" --listen 127.0.0.1:0 --admin 127.0.0.1:0 > "$1.log"
  note_address "$1"
}

# The address of the architecture in the folder NAME, from what rv-up has printed.
note_address() {
  address[$1]=$(sed --quiet 's|^up at http://\([^,]*\), in.*|\1|p' "$1.log")
}

# The front end alone: its requests come back as responses.
serve_echo() {
  mkfifo echo.requests echo.responses
  # shellcheck disable=SC2016
  perl -e 'my $rest = ""; while (sysread(STDIN, my $block, 65536)) {
      $_ = $rest . $block; $rest = s{([^\n]*)\z}{} ? $1 : "";
      s/}\n/,"modelResult":{"modelName":"echo","result":0}}\n/g; syswrite STDOUT, $_;
    }' < echo.requests > echo.responses &
  jobs_started+=($!)
  rv-request --listen 127.0.0.1:0 --responses echo.responses --output echo.requests 2> echo.log &
  jobs_started+=($!)
  address[echo]=$(listen_address echo.log)
}

# One decision tree of scikit-learn in FastAPI and in MLServer.
serve_python() {
  python_packages bench fastapi 'uvicorn[standard]' scikit-learn==1.9.1 joblib==1.6.0 \
    mlserver==1.7.1 mlserver-sklearn==1.7.1
  cat > app.py << 'PY'
import joblib
from fastapi import FastAPI
from pydantic import BaseModel

model = joblib.load("mlserver/model.joblib")
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
  local port
  port=$(
    python3 - << 'PY'
import json, pathlib, socket, joblib
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier
iris = load_iris()
folder = pathlib.Path("mlserver")
folder.mkdir()
joblib.dump(DecisionTreeClassifier(random_state=0).fit(iris.data, iris.target), folder / "model.joblib")
(folder / "model-settings.json").write_text(json.dumps({
    "name": "iris", "implementation": "mlserver_sklearn.SKLearnModel",
    "parameters": {"uri": "./model.joblib", "version": "v1"}}))
free = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
ports = [it.getsockname()[1] for it in free]
(folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, "debug": False,
    "http_port": ports[0], "grpc_port": ports[1], "metrics_port": ports[2]}))
print(ports[0])
PY
  )
  uvicorn app:app --port 0 --log-level info --no-access-log 2> fastapi.log &
  jobs_started+=($!)
  mlserver start mlserver > mlserver.log 2>&1 &
  jobs_started+=($!)
  for _ in {1..600}; do
    address[fastapi]=$(sed --quiet 's|.*running on http://\([0-9.:]*\).*|\1|p' fastapi.log)
    [[ -n "${address[fastapi]}" ]] &&
      curl --silent --fail --output /dev/null "http://127.0.0.1:$port/v2/models/iris/ready" && break
    sleep 0.1
  done
  address[mlserver]=127.0.0.1:$port
}

serve_frontends() {
  local run connections
  whole chain
  for ((run = 0; run < runs; run++)); do
    for connections in 1 64; do
      measure calls echo $connections "http://${address[echo]}/predict"
      measure calls whole $connections "http://${address[chain]}/predict"
      measure calls FastAPI $connections "http://${address[fastapi]}/predict"
      measure calls MLServer $connections "http://${address[mlserver]}/v2/models/iris/infer" mlserver
    done
  done
  for connections in 1 64; do
    print_medians calls $connections echo whole FastAPI MLServer
  done
}

# The architecture `chain` has two models. Models that no policy names are shadows.
serve_models() {
  local run count=2 models
  for models in 2 4 8 16; do
    while ((count < models)); do
      count=$((count + 1))
      train --algorithm decision-tree --name "m$count" --model-version 1 --output "m$count.json"
      rv-up --file chain/rv.toml add "m$count" --shadow --model "$PWD/m$count.json" > add.log
    done
    for ((run = 0; run < runs; run++)); do
      measure models $models-models 64 "http://${address[chain]}/predict"
    done
  done
  echo '-- by number of models'
  print_medians models 64 2-models 4-models 8-models 16-models
  rv-up --file chain/rv.toml stop > stop.log
}

serve_sizes() {
  local run size
  whole sizes
  for ((run = 0; run < runs; run++)); do
    for size in small 2KB 20KB; do
      measure sizes ${size/small/0.2KB} 64 "http://${address[sizes]}/predict" $size
    done
  done
  echo '-- by size of a call'
  print_medians sizes 64 0.2KB 2KB 20KB
  rv-up --file sizes/rv.toml stop > stop.log
}

# An architecture in the folder NAME in which the server at ADDRESS answers: with_server NAME ADDRESS.
with_server() {
  mkdir "$1"
  cat > "$1/rv.toml" << TOML
[front]
listen = "127.0.0.1:0"
plain = "/predict"
[model.server]
url = "http://$2/predict"
in_flight = 64
[archive]
TOML
  rv-up --file "$1/rv.toml" start > "$1.log"
  note_address "$1"
}

# Adds the server at ADDRESS as a shadow: add_shadow NAME ADDRESS.
add_shadow() {
  rv-up --file "$1/rv.toml" add shadow --shadow --url "http://$2/predict" -- --in-flight 64 > add.log
}

# FastAPI called directly, and through the architecture.
serve_plain() {
  local run connections
  with_server plain "${address[fastapi]}"
  for ((run = 0; run < runs; run++)); do
    for connections in 1 64; do
      measure plain direct $connections "http://${address[fastapi]}/predict"
      measure plain through-rv $connections "http://${address[plain]}/predict"
    done
  done
  echo '-- FastAPI directly, and as the model behind --plain and --url'
  for connections in 1 64; do
    print_medians plain $connections direct through-rv
  done
  rv-up --file plain/rv.toml stop > stop.log
}

# Two servers that answer at once, and one that takes connections and never answers. nginx
# answers with the first server, and mirrors each call to the second or to the third. The
# architecture does the same with a shadow.
serve_mirror() {
  command -v nginx > /dev/null || {
    echo '-- nginx with mirror: NOT measured, because nginx is missing'
    return 0
  }
  local run silent
  perl -MIO::Socket::INET -e '$| = 1;
    my $socket = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 4096) or die;
    print $socket->sockport, "\n"; sleep 100000' > silent.port &
  jobs_started+=($!)
  until [[ -s silent.port ]]; do sleep 0.1; done
  silent=$(< silent.port)
  # Ports that are free now, for nginx.
  local ports
  mapfile -t ports < <(python3 -c 'import socket
free = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*[it.getsockname()[1] for it in free], sep="\n")')
  mkdir --parents nginx
  local mirrors=''
  for run in 2:"${ports[1]}" 3:"$silent"; do
    mirrors+="server { listen 127.0.0.1:${ports[${run%%:*}]} backlog=4096;
      location / { mirror /mirror; proxy_pass http://first; }
      location = /mirror { internal; proxy_pass http://127.0.0.1:${run#*:}/predict; proxy_read_timeout 5s; } }"
  done
  cat > nginx/nginx.conf << CONF
daemon off; worker_processes 1; pid $PWD/nginx/pid; error_log $PWD/nginx/error.log crit;
events { worker_connections 8192; }
http {
  access_log off; default_type application/json; keepalive_requests 1000000000;
  client_body_temp_path $PWD/nginx; proxy_temp_path $PWD/nginx; fastcgi_temp_path $PWD/nginx;
  uwsgi_temp_path $PWD/nginx; scgi_temp_path $PWD/nginx;
  proxy_http_version 1.1; proxy_set_header Connection "";
  upstream first { server 127.0.0.1:${ports[0]}; keepalive 64; }
  server { listen 127.0.0.1:${ports[0]} backlog=4096; location / { return 200 '{"result":0}'; } }
  server { listen 127.0.0.1:${ports[1]} backlog=4096; location / { return 200 '{"result":1}'; } }
  $mirrors
}
CONF
  nginx -p "$PWD/nginx" -c "$PWD/nginx/nginx.conf" 2> nginx.log &
  jobs_started+=($!)
  with_server alone "127.0.0.1:${ports[0]}"
  with_server healthy "127.0.0.1:${ports[0]}"
  with_server hangs "127.0.0.1:${ports[0]}"
  add_shadow healthy "127.0.0.1:${ports[1]}"
  add_shadow hangs "127.0.0.1:$silent"
  for ((run = 0; run < runs; run++)); do
    measure mirror server-directly 64 "http://127.0.0.1:${ports[0]}/predict"
    measure mirror nginx-mirror 64 "http://127.0.0.1:${ports[2]}/predict"
    measure mirror nginx-mirror-hangs 64 "http://127.0.0.1:${ports[3]}/predict"
    measure mirror rv-no-shadow 64 "http://${address[alone]}/predict"
    measure mirror rv-shadow 64 "http://${address[healthy]}/predict"
    measure mirror rv-shadow-hangs 64 "http://${address[hangs]}/predict"
  done
  echo '-- servers that answer at once: directly, behind nginx with mirror, behind rv with a shadow'
  print_medians mirror 64 server-directly nginx-mirror nginx-mirror-hangs rv-no-shadow rv-shadow rv-shadow-hangs
  for run in alone healthy hangs; do
    rv-up --file "$run/rv.toml" stop > stop.log
  done
}

serve_bench
