#!/usr/bin/env bash
# Starts the whole architecture in a folder and keeps it running. A stage that dies is
# restarted, and the other stages are not affected.
#
#   scripts/up.sh [--dir DIR] up [--listen ADDRESS] [--admin ADDRESS] [--policy FILE]
#                                [--no-models] [-- FLAGS OF rv-request...]
#   scripts/up.sh [--dir DIR] add NAME COMMAND...    add a model or a shadow
#   scripts/up.sh [--dir DIR] remove NAME            remove it
#   scripts/up.sh [--dir DIR] reload                 use the policy that is in DIR/policy.toml now
#   scripts/up.sh [--dir DIR] status                 exit with 0 if all stages work
#   scripts/up.sh [--dir DIR] down
#
# COMMAND reads requests on standard input and writes scores on standard output. DIR is
# `rv-run` by default. COMMAND runs in DIR, which contains:
#
#   policy.toml  which model answers when    archive/    the requests
#   models/      a pipe to each model        decisions/  the reason for each answer
#   scores/      a pipe from each model      spill/      records of slow readers
#   keep/        pipes that lose no record   stats/      the counts of each stage
#   pipes/       all other pipes             logs/       the messages of each stage
#
# Unless --no-models is given, the canary lr@0 and the production model dt@1 are trained
# on the iris data, and fixtures/policy.toml decides between them.
#
# Two more commands are for systemd: `prepare` (with the flags of `up`) makes the
# folder, and `supervise NAME` runs one stage in the foreground.
#
# RV_BIN names a folder with the programs. If RV_BIN is not set, the script builds them.
#
# Commands that change the running stages hold a lock, so they run one after the other.
# If `up` or `add` fails, it stops the stages that it has started.
set -euo pipefail
self=$(realpath -- "$0")
checkout=$(dirname -- "$(dirname -- "$self")")
source "$checkout/scripts/lib.sh"
dir=${RV_RUN:-rv-run}

# How long a stage may take to finish after it is told to stop.
readonly STOP_SECONDS=20
# How long a command waits for the lock.
readonly LOCK_SECONDS=120
# All stages except the models, in the order of a request.
readonly STAGES=(front tee rendezvous decoy decisions)

fail() {
  echo "up.sh: $*" >&2
  exit "${status:-3}"
}

# --- one stage -----------------------------------------------------------------

# Defines a stage: define NAME KIND READS WRITES COMMAND. A `source` (the front end)
# stops on a signal. A `stage` stops when its input ends. A `model` has READS and
# WRITES as its standard streams. WRITES is empty if the stage itself can handle the
# loss of its reader.
define() {
  mkdir --parents "stages/$1"
  printf 'kind=%q\nreads=%q\nwrites=%q\ncommand=%q\n' "$2" "$3" "$4" "$5" > "stages/$1/new"
  mv "stages/$1/new" "stages/$1/stage"
}

# Whether a process runs. A zombie does not count.
alive() {
  local state
  [[ -n "${1:-}" ]] && state=$(cat "/proc/$1/status" 2> /dev/null) &&
    [[ "$state" != *State:$'\t'Z* ]]
}

# Prints when a process started, in clock ticks since the machine's start. The start
# time and the number together identify a process.
begun() {
  local stat
  stat=$(cat "/proc/$1/stat" 2> /dev/null) || return 1
  # The fields behind the process's name. The name may contain any character.
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  echo "${20}"
}

# Writes the number and the start time of a process to a file: note PID FILE.
note() {
  echo "$1 $(begun "$1")" > "$2"
}

# Prints the number of a process that `note` has recorded, if it still runs: pid_of
# STAGE FILE.
pid_of() {
  local pid since
  { read -r pid since < "stages/$1/$2"; } 2> /dev/null || return 0
  if [[ "$(begun "$pid")" == "$since" ]]; then
    echo "$pid"
  fi
}

# Runs a stage and restarts it when it ends, until SIGTERM closes its input.
#
# The supervisor holds the writing end of the pipe that the stage reads, so that the
# stage does not end with its writer. It also holds the reading end of the pipe that the
# stage writes, so that a closed reader does not end the stage.
supervise() {
  local name=$1 kind reads writes command
  local pid='' stopping='' restarts=0 delay=0.1 begun state both reading='' writing
  # shellcheck disable=SC1090
  source "stages/$name/stage"
  note "$BASHPID" "stages/$name/supervisor"
  # `down` removes this file before it looks for supervisors. So a supervisor that
  # starts too late for `down` to see it ends here.
  [[ -e stages/running ]] || return 0
  # Opening only one end of a pipe would wait for the other end.
  # shellcheck disable=SC2094
  exec {both}<> "$reads" {writing}> "$reads" {both}>&-
  if [[ -n "$writes" ]]; then
    # shellcheck disable=SC2094
    exec {both}<> "$writes" {reading}< "$writes" {both}>&-
  fi
  # shellcheck disable=SC2317
  stop() {
    stopping=yes
    [[ -z "$writing" ]] || exec {writing}>&-
    writing=
    # The front end has no input that ends, so it needs a signal.
    if [[ $kind == source && -n "$pid" ]]; then
      kill "$pid" 2> /dev/null || true
    fi
  }
  trap stop TERM
  trap '' INT HUP
  while [[ -z "$stopping" ]]; do
    begun=$SECONDS
    launch &
    pid=$!
    note "$pid" "stages/$name/pid"
    # SIGTERM may have come before the stage was started.
    [[ -z "$stopping" ]] || stop
    # A signal to this shell ends the wait before the stage has ended. Job control stays
    # off, because with it `wait` also returns when the stage is stopped. `wait -f`
    # would not, but in bash 5.2 it can repeat an error forever.
    while :; do
      state=0
      wait "$pid" || state=$?
      alive "$pid" || break
    done
    # Ends the processes that the stage has started.
    kill -KILL -- "-$pid" 2> /dev/null || true
    [[ -z "$stopping" ]] || break
    restarts=$((restarts + 1))
    echo "$restarts" > "stages/$name/restarts"
    echo "up.sh: $name ended with status $state; restarting it" >&2
    # A growing delay keeps a stage that always dies from using up the machine.
    if ((SECONDS - begun > 5)); then
      delay=0.1
    fi
    sleep "$delay" &
    wait $! || true
    delay=$(awk -v delay="$delay" 'BEGIN { print delay < 0.5 ? delay * 2 : 1 }')
  done
  rm --force "stages/$name/supervisor" "stages/$name/pid"
}

# Becomes the program of the stage. $resume tells the program that its predecessor may
# have died in the middle of a line.
launch() {
  trap - TERM INT HUP
  [[ -z "$writing" ]] || exec {writing}>&-
  [[ -z "$reading" ]] || exec {reading}<&-
  # shellcheck disable=SC1091
  source ./addresses
  local resume=
  ((restarts == 0)) || resume=--resume
  export resume listen admin
  if [[ $kind == model ]]; then
    exec < "$reads" > "$writes"
    [[ -z "$resume" ]] || echo
  else
    exec < /dev/null
  fi
  # Each stage gets its own process group, so that all its processes can be ended.
  exec setsid bash -c "$command"
}

start() {
  # A separate session keeps Ctrl-C in this terminal from the supervisor. The supervisor
  # must not hold the lock.
  setsid "$self" --dir . supervise "$1" < /dev/null >> "logs/$1.log" 2>&1 {lock}>&- &
  for _ in {1..100}; do
    alive "$(pid_of "$1" pid)" && return
    (($(restarts_of "$1") < 3)) || break
    sleep 0.05
  done
  fail "$1 does not start: $(last_message "$1")"
}

# Prints the last message of a stage and the path of its log.
last_message() {
  local said
  said=$(grep --invert-match '^up.sh: ' "logs/$1.log" 2> /dev/null | tail --lines=1) || true
  echo "${said:+$said; }see $dir/logs/$1.log"
}

# Prints how often a stage was restarted.
restarts_of() {
  cat "stages/$1/restarts" 2> /dev/null || echo 0
}

# Stops a stage, by force if it does not end in time.
stop_stage() {
  local name=$1 supervisor pid
  supervisor=$(pid_of "$name" supervisor)
  pid=$(pid_of "$name" pid)
  if ! alive "$supervisor"; then
    end_group "$name" "$pid"
    return
  fi
  kill "$supervisor"
  for ((i = 0; i < STOP_SECONDS * 20; i++)); do
    alive "$supervisor" || return 0
    sleep 0.05
  done
  end_group "$name" "$pid"
  sleep 0.2
  alive "$supervisor" && kill -KILL "$supervisor"
  return 0
}

# Sends a signal to all processes of a stage, or to its first process if that has no
# group yet: signal_group SIGNAL PID.
signal_group() {
  kill "-$1" -- "-$2" 2> /dev/null || kill "-$1" "$2" 2> /dev/null || true
}

# Ends a stage that did not end with its input. SIGTERM still lets it save its records.
end_group() {
  alive "$2" || return 0
  echo "up.sh: $1 did not end in time; ending it by force" >&2
  signal_group TERM "$2"
  for ((i = 0; i < 60; i++)); do
    alive "$2" || return 0
    sleep 0.05
  done
  signal_group KILL "$2"
}

# --- the architecture ----------------------------------------------------------

models() {
  local model
  for model in stages/*/; do
    [[ -d "$model" ]] || continue
    model=$(basename "$model")
    [[ " ${STAGES[*]} " == *" $model "* ]] || echo "$model"
  done
}

pipe() {
  [[ -p "$1" ]] || mkfifo --mode=600 "$1"
}

prepare() {
  local listen=127.0.0.1:8000 admin=127.0.0.1:8001 policy='' with_models=yes name flags=''
  while (($#)); do
    case $1 in
      --listen)
        listen=$2
        shift
        ;;
      --admin)
        admin=$2
        shift
        ;;
      --policy)
        policy=$(cd -- "$OLDPWD" && realpath -- "$2")
        shift
        ;;
      --no-models) with_models=no ;;
      --)
        shift
        (($#)) && flags=$(printf ' %q' "$@")
        break
        ;;
      *) usage ;;
    esac
    shift
  done
  for name in "${STAGES[@]}" $(models); do
    if alive "$(pid_of "$name" supervisor)" || alive "$(pid_of "$name" pid)"; then
      fail "$dir is up already, or some stages still run; stop them with \`down\`"
    fi
  done
  mkdir --parents models scores keep pipes archive decisions spill stats logs stages policies
  # Bytes that an earlier run left in pipes must not reach this one.
  find models scores keep pipes -type p -delete
  rm --recursive --force stages/*
  : > stages/running
  if [[ -n "$policy" ]]; then
    cp "$policy" policy.toml
  elif [[ ! -e policy.toml ]]; then
    cp "$checkout/fixtures/policy.toml" policy.toml
  fi
  rv-rendezvous check policy.toml > /dev/null
  printf 'listen=%q\nadmin=%q\n' "$listen" "$admin" > addresses
  for name in pipes/requests pipes/responses pipes/decided keep/rendezvous keep/decoy; do
    pipe "$name"
  done
  # shellcheck disable=SC2016 # for the stage's own shell
  {
    define front source pipes/responses pipes/requests 'exec rv-request --listen "$listen" \
      --admin "$admin" --responses pipes/responses --output pipes/requests \
      --stats stats/front.json $resume'"$flags"
    define tee stage pipes/requests '' 'exec rv-tee --input pipes/requests \
      --no-stdout --live-dir models --keep-dir keep --spill-dir spill \
      --stats stats/tee.json $resume'
    define rendezvous stage keep/rendezvous pipes/responses 'exec rv-rendezvous \
      --requests keep/rendezvous --scores scores --policy policy.toml --keep-policies policies \
      --output pipes/responses --decisions pipes/decided --stats stats/rendezvous.json $resume'
    # `nice` gives the answers precedence over the archives.
    define decoy stage keep/decoy '' 'rv-decoy --input keep/decoy --stats stats/decoy.json |
      nice rv-archive --dir archive --stats stats/archive.json'
    define decisions stage pipes/decided '' 'exec nice rv-archive --input pipes/decided \
      --dir decisions --stats stats/decisions.json'
  }
  if [[ $with_models == yes ]]; then
    train --algorithm logistic-regression --name lr --model-version 0 --output lr.json
    train --algorithm decision-tree --name dt --model-version 1 --output dt.json
    define_model lr rv-score --model lr.json --stats stats/lr.json
    define_model dt rv-score --model dt.json --stats stats/dt.json
  fi
}

define_model() {
  local name=$1 command
  shift
  [[ "$name" =~ ^[A-Za-z0-9][A-Za-z0-9._@-]*$ && " ${STAGES[*]} " != *" $name "* ]] ||
    status=2 fail "'$name' cannot name a model: use letters, digits and ._@-"
  [[ ! -e "stages/$name" ]] || fail "$name exists already; remove it first"
  command -v -- "$1" > /dev/null || status=2 fail "$1: no such program"
  command=$(printf ' %q' "$@")
  pipe "scores/$name"
  pipe "models/$name"
  define "$name" model "models/$name" "scores/$name" "exec$command"
}

# Prints the body of GET PATH at the admin address, if the status is 200.
ask() {
  local admin reply
  # shellcheck disable=SC1091
  source ./addresses
  exec 3<> "/dev/tcp/${admin%:*}/${admin##*:}" || return 1
  printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$1" "$admin" >&3
  reply=$(timeout 5 tr --delete '\r' <&3) || return 1
  exec 3>&-
  [[ "$reply" == 'HTTP/1.1 200 '* ]] && sed '1,/^$/d' <<< "$reply"
}

# Records the addresses, so that a restarted front end keeps a port that the system has
# chosen.
remember_addresses() {
  local scheme listen admin
  for _ in {1..200}; do
    scheme=$(sed --quiet 's|.*listening at \(https*\)://.*|\1|p' logs/front.log | tail --lines=1)
    listen=$(sed --quiet 's|.*listening at https*://||p' logs/front.log | tail --lines=1)
    admin=$(sed --quiet 's|.*admin at http://||p' logs/front.log | tail --lines=1)
    if [[ -n "$listen" && -n "$admin" ]]; then
      printf 'scheme=%q\nlisten=%q\nadmin=%q\n' "$scheme" "$listen" "$admin" > addresses
      return
    fi
    # After three restarts the front end will not start, for example because another
    # process has the port. A longer wait is useless.
    (($(restarts_of front) < 3)) || break
    sleep 0.05
  done
  fail "the front end does not start: $(last_message front)"
}

up() {
  local stage
  prepare "$@"
  rm --force logs/*.log
  trap stop_all EXIT
  for stage in decisions decoy rendezvous $(models) tee front; do
    start "$stage"
  done
  remember_addresses
  for _ in {1..200}; do
    if ask /readyz > /dev/null 2>&1; then
      # shellcheck disable=SC1091
      source ./addresses
      trap - EXIT
      echo "up at $scheme://$listen, in $dir; admin at http://$admin"
      return
    fi
    sleep 0.05
  done
  fail "the front end does not get ready; see $dir/logs"
}

add() {
  (($# >= 2)) || usage
  alive "$(pid_of tee supervisor)" || fail "$dir is not up"
  define_model "$@"
  # shellcheck disable=SC2064 # this name
  trap "take_away '$1'" EXIT
  start "$1"
  trap - EXIT
  echo "added $1"
}

remove() {
  (($# == 1)) || usage
  local name=$1
  [[ -e "stages/$name" && " ${STAGES[*]} " != *" $name "* ]] || fail "no model is called $name"
  take_away "$name"
  echo "removed $name"
}

take_away() {
  # When the pipe is removed, the model's input ends, and then the model ends.
  rm --force "models/$1"
  stop_stage "$1"
  rm --force "scores/$1"
  rm --recursive --force "stages/$1"
}

reload() {
  rv-rendezvous check policy.toml > /dev/null
  local pid
  pid=$(pid_of rendezvous pid)
  alive "$pid" || fail "the rendezvous is not running"
  kill -HUP "$pid"
}

show_status() {
  local stage pid state works=yes
  printf '%-12s %-8s %8s  %s\n' stage state restarts counts
  for stage in "${STAGES[@]}" $(models); do
    pid=$(pid_of "$stage" pid)
    state=down
    if alive "$pid"; then
      state=up
    else
      works=no
    fi
    printf '%-12s %-8s %8s  %s\n' "$stage" "$state" "$(restarts_of "$stage")" \
      "$(sed --quiet 's/.*"perSecond":[0-9.]*,\(\("[a-zA-Z]*":[0-9]*,*\)*\).*/\1/p' "stats/$stage.json" 2> /dev/null)"
  done
  if [[ $works == yes ]] && ask /readyz > /dev/null 2>&1; then
    echo 'ready'
  else
    echo 'not ready'
    return 3
  fi
}

stop_all() {
  local stage
  rm --force stages/running
  for stage in front tee $(models) decoy rendezvous decisions; do
    stop_stage "$stage"
  done
}

down() {
  stop_all
  echo "down; all files are still in $dir"
}

# -------------------------------------------------------------------------------

while [[ "${1:-}" == --* ]]; do
  case $1 in
    --dir)
      dir=${2:?--dir needs a folder}
      shift 2
      ;;
    *) usage ;;
  esac
done
command=${1:-}
[[ -z "$command" ]] || shift
case $command in
  up | prepare) ;;
  add | remove | reload | status | down | supervise)
    [[ -e "$dir/stages" ]] || fail "$dir: has no stages; start them with \`up\`"
    ;;
  *) usage ;;
esac
find_programs --release
mkdir --parents -- "$dir"
dir=$(realpath -- "$dir")
cd -- "$dir"
case $command in
  status) show_status ;;
  supervise) supervise "$@" ;;
  *)
    exec {lock}> lock
    flock --wait "$LOCK_SECONDS" "$lock" ||
      fail "another command has held the lock of $dir for more than $LOCK_SECONDS s"
    "$command" "$@"
    ;;
esac
