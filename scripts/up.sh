#!/usr/bin/env bash
# Brings up the whole architecture in a folder of its own and keeps it up: a stage
# that dies is started again, and the others never notice.
#
#   scripts/up.sh [--dir DIR] up [--listen ADDRESS] [--admin ADDRESS] [--policy FILE]
#                                [--no-models] [-- FLAGS OF rv-request...]
#   scripts/up.sh [--dir DIR] add NAME COMMAND...    a model or a shadow joins
#   scripts/up.sh [--dir DIR] remove NAME            and leaves
#   scripts/up.sh [--dir DIR] reload                 the policy in DIR/policy.toml comes in force
#   scripts/up.sh [--dir DIR] status                 0 where all of it works
#   scripts/up.sh [--dir DIR] down
#
# COMMAND reads requests and writes scores on its standard streams. It runs in DIR,
# by default `rv-run`, which holds:
#
#   policy.toml  who answers from when on    archive/  what the models saw
#   models/      a pipe into each model      decisions/  why each answer won
#   scores/      a pipe out of each          spill/    what rv-tee holds for late readers
#   keep/        pipes that must miss nothing    stats/    the counts of each stage
#   pipes/       the rest                    logs/     what each stage says
#
# Without --no-models, the canary lr@0 and the production model dt@1 are trained on
# the iris data, and fixtures/policy.toml says how they answer.
#
# For systemd, two more: `prepare` (with the flags of `up`) makes the folder, and
# `supervise NAME` runs one stage in the foreground.
#
# RV_BIN names a folder with the programs, instead of building them.
#
# Whatever changes what runs is behind one lock, so that two commands at once are
# two commands in turn. `up` and `add` leave nothing running where they fail.
set -euo pipefail
self=$(realpath -- "$0")
checkout=$(dirname -- "$(dirname -- "$self")")
source "$checkout/scripts/lib.sh"
dir=${RV_RUN:-rv-run}

# How long a stage may take to finish what it holds.
readonly STOP_SECONDS=20
# How long a command waits for another one to be done.
readonly LOCK_SECONDS=120
# The stages in the order of a request, without the models.
readonly STAGES=(front tee rendezvous decoy decisions)

fail() {
  echo "up.sh: $*" >&2
  exit "${status:-3}"
}

# --- one stage -----------------------------------------------------------------

# What a stage is: define NAME KIND READS WRITES COMMAND. KIND is `source` for the
# front end, which stops by a signal, `stage`, which stops when its input ends, or
# `model`, whose command has READS and WRITES as its standard streams. WRITES is
# empty where the stage itself knows what to do when its reader goes.
define() {
  mkdir --parents "stages/$1"
  printf 'kind=%q\nreads=%q\nwrites=%q\ncommand=%q\n' "$2" "$3" "$4" "$5" > "stages/$1/new"
  mv "stages/$1/new" "stages/$1/stage"
}

# Whether a process runs. One that has ended and that nobody has asked about yet
# does not.
alive() {
  local state
  [[ -n "${1:-}" ]] && state=$(cat "/proc/$1/status" 2> /dev/null) &&
    [[ "$state" != *State:$'\t'Z* ]]
}

# When a process began, in ticks since the machine did: with its number, this tells
# it from all others.
begun() {
  local stat
  stat=$(cat "/proc/$1/stat" 2> /dev/null) || return 1
  # The fields behind the name, which may hold anything.
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  echo "${20}"
}

# note PID FILE
note() {
  echo "$1 $(begun "$1")" > "$2"
}

# The process that `note` has written down, while it runs.
pid_of() {
  local pid since
  { read -r pid since < "stages/$1/$2"; } 2> /dev/null || return 0
  if [[ "$(begun "$pid")" == "$since" ]]; then
    echo "$pid"
  fi
}

# Runs a stage, again and again, until SIGTERM lets its input end.
#
# Meanwhile it holds the writing end of the pipe that the stage reads, so that the
# stage does not end with its writer; and the reading end of the pipe that it
# writes, so that a broken pipe does not end it with its reader.
supervise() {
  local name=$1 kind reads writes command
  local pid='' stopping='' restarts=0 delay=0.1 begun state both reading='' writing
  # shellcheck disable=SC1090
  source "stages/$name/stage"
  note "$BASHPID" "stages/$name/supervisor"
  # `down` takes this away before it looks for who is there: whoever comes too late
  # to be seen sees that himself.
  [[ -e stages/running ]] || return 0
  # An end of a pipe cannot be opened alone without waiting for the other one.
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
    # The front end has no input that could end.
    if [[ $kind == source && -n "$pid" ]]; then
      kill "$pid" 2> /dev/null || true
    fi
  }
  trap stop TERM
  trap '' INT HUP
  # Each stage in a group of its own, so that all of it can be ended.
  set -o monitor
  while [[ -z "$stopping" ]]; do
    begun=$SECONDS
    launch &
    pid=$!
    note "$pid" "stages/$name/pid"
    # The word to stop may have come before there was anything to tell.
    [[ -z "$stopping" ]] || stop
    while :; do
      state=0
      # -f: until it ends, not until it is stopped.
      wait -f "$pid" || state=$?
      alive "$pid" || break
    done
    # What it has started goes with it.
    kill -KILL -- "-$pid" 2> /dev/null || true
    [[ -z "$stopping" ]] || break
    restarts=$((restarts + 1))
    echo "$restarts" > "stages/$name/restarts"
    echo "up.sh: $name ended with status $state; starting it again" >&2
    # One that dies at once must not use up the machine.
    if ((SECONDS - begun > 5)); then
      delay=0.1
    fi
    sleep "$delay" &
    wait $! || true
    delay=$(awk -v delay="$delay" 'BEGIN { print delay < 0.5 ? delay * 2 : 1 }')
  done
  rm --force "stages/$name/supervisor" "stages/$name/pid"
}

# Becomes the stage's own program. $resume says that the one before may have died
# inside a line.
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
  exec bash -c "$command"
}

start() {
  # Of its own session, so that Ctrl-C here is not for it.
  # The lock is not for it either.
  setsid "$self" --dir . supervise "$1" < /dev/null >> "logs/$1.log" 2>&1 {lock}>&- &
  for _ in {1..100}; do
    alive "$(pid_of "$1" pid)" && return
    (($(restarts_of "$1") < 3)) || break
    sleep 0.05
  done
  fail "$1 does not start: $(last_words "$1")"
}

# What a stage has said last, and where the rest is.
last_words() {
  local said
  said=$(grep --invert-match '^up.sh: ' "logs/$1.log" 2> /dev/null | tail --lines=1) || true
  echo "${said:+$said; }see $dir/logs/$1.log"
}

# How often a stage was started again.
restarts_of() {
  cat "stages/$1/restarts" 2> /dev/null || echo 0
}

# Lets a stage end, and ends it by force where it does not.
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

# Ends a stage that does not end with its input: it may still put by what it holds.
end_group() {
  alive "$2" || return 0
  echo "up.sh: $1 does not end by itself; ending it" >&2
  kill -TERM -- "-$2" 2> /dev/null || true
  for ((i = 0; i < 60; i++)); do
    alive "$2" || return 0
    sleep 0.05
  done
  kill -KILL -- "-$2" 2> /dev/null || true
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
      fail "$dir is up already, or not all of it is down; \`down\` ends what runs"
    fi
  done
  mkdir --parents models scores keep pipes archive decisions spill stats logs stages policies
  # What an earlier run has left in pipes is nobody's any more.
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
    # What is kept may take its time where the answers need the processors.
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
    status=2 fail "'$name' cannot name a model: letters, digits and ._@- can"
  [[ ! -e "stages/$name" ]] || fail "$name is there already; remove it first"
  command -v -- "$1" > /dev/null || status=2 fail "$1: no such program"
  command=$(printf ' %q' "$@")
  pipe "scores/$name"
  pipe "models/$name"
  define "$name" model "models/$name" "scores/$name" "exec$command"
}

# The body that GET PATH has at the admin address, where its status is 200.
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

# A port that the system has chosen is the front end's for as long as it is up.
remember_addresses() {
  local listen admin
  for _ in {1..200}; do
    listen=$(sed --quiet 's|.*listening at http://||p' logs/front.log | tail --lines=1)
    admin=$(sed --quiet 's|.*admin at http://||p' logs/front.log | tail --lines=1)
    if [[ -n "$listen" && -n "$admin" ]]; then
      printf 'listen=%q\nadmin=%q\n' "$listen" "$admin" > addresses
      return
    fi
    # A port that somebody else has is not worth a longer wait.
    (($(restarts_of front) < 3)) || break
    sleep 0.05
  done
  fail "the front end does not come up: $(last_words front)"
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
      echo "up at http://$listen, in $dir; admin at http://$admin"
      return
    fi
    sleep 0.05
  done
  fail "it does not answer; see $dir/logs"
}

add() {
  (($# >= 2)) || usage
  alive "$(pid_of tee supervisor)" || fail "$dir is not up"
  define_model "$@"
  # shellcheck disable=SC2064 # this name
  trap "take_away '$1'" EXIT
  start "$1"
  trap - EXIT
  echo "$1 has joined"
}

remove() {
  (($# == 1)) || usage
  local name=$1
  [[ -e "stages/$name" && " ${STAGES[*]} " != *" $name "* ]] || fail "there is no model $name"
  take_away "$name"
  echo "$name has left"
}

take_away() {
  # With its pipe its requests end, and then the model does.
  rm --force "models/$1"
  stop_stage "$1"
  rm --force "scores/$1"
  rm --recursive --force "stages/$1"
}

reload() {
  rv-rendezvous check policy.toml > /dev/null
  local pid
  pid=$(pid_of rendezvous pid)
  alive "$pid" || fail "the rendezvous does not run"
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
  echo "down; what is left is in $dir"
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
    [[ -e "$dir/stages" ]] || fail "$dir: nothing was brought up there; \`up\` does"
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
      fail "another command is at work in $dir for longer than $LOCK_SECONDS s"
    "$command" "$@"
    ;;
esac
