#!/usr/bin/env bash
# Changes the code in one place, runs the fast tests, and checks whether one fails. Each
# change is a mutant. If no test fails, the mutant shows behaviour that no test checks.
#
#   scripts/mutants.sh [--sample N] [--seed S] [--from K] [--unit] [--seconds T] [FOLDER]...
#   scripts/mutants.sh --table
#
# FOLDER is wire, stream, serve/rendezvous, observe or serve/tee. Without FOLDER, all of
# them run. --sample takes N mutants of each folder at random, from the K-th on. The
# same seed gives the same order, so a sample can run in pieces. Without --sample all
# mutants run, about 4100, which takes many hours.
#
# Each mutant is first tried with the unit tests of its folder. The tests of the programs,
# which take ten times as long, try only the mutants that the unit tests miss. With
# --unit, only the unit tests run.
#
# --seconds ends the run after about that time. The next run with the same arguments
# continues from there, because target/mutants/results.tsv keeps each outcome. A change
# of the mutant's file drops its outcome; a change of unit tests or comments does not. A
# change of any file in src/ or tests/ drops the outcome `missed`. --table prints the
# table of all outcomes again.
#
# A mutant that behaves like the original code is equivalent. scripts/mutants.explained
# lists it with the reason, and it does not count.
#
# Needs cargo-mutants: cargo install --locked --version 27.1.0 cargo-mutants
set -euo pipefail
cd -- "$(dirname -- "$(realpath -- "$0")")/.."

readonly TARGET=$PWD/target/mutants
readonly TREE=$TARGET/tree
readonly RESULTS=$TARGET/results.tsv
readonly BUILD_SECONDS=240
readonly FOLDERS=(wire stream serve/rendezvous observe serve/tee)

usage() {
  sed --quiet '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2
  exit 2
}

# The unit tests that use a folder, as arguments of the test program.
unit_tests_of() {
  case $1 in
    wire) echo wire:: ;;
    # The longest test of stage/ uses no stream.
    stream) echo stream:: stage:: --skip stage::queue ;;
    serve/rendezvous) echo serve::rendezvous:: --skip of_a_million ;;
    observe | serve/tee) echo "${1/\//::}::" ;;
    *) usage ;;
  esac
}

# The tests of the programs that use a folder, without the longest tests. Most tests
# mainly wait, so more tests run at once than there are cores.
program_tests_of() {
  case $1 in
    wire) echo conventions:: golden:: records:: streams:: forms:: schemas:: ;;
    stream)
      echo streams:: conventions:: signals:: archive \
        --skip sigterm_ends_every --skip twenty_thousand --skip no_more_waits
      ;;
    serve/rendezvous) echo rendezvous:: replay:: golden:: --skip a_share_is_ramped ;;
    observe) echo archive es_sink:: --skip twenty_thousand --skip no_more_waits ;;
    serve/tee) echo tee:: --skip in_any_order ;;
    *) usage ;;
  esac
  echo --test-threads 4
}

# cargo-mutants passes the arguments after its `--` only to the test phase. The build
# phase gets its arguments by --cargo-arg. Without these arguments it links every
# program and every test for each mutant, which takes 40 s instead of 4 s.
cargo_args_of() {
  case $1 in
    unit) echo --locked --lib ;;
    programs) echo --locked --test stages ;;
  esac
}

# Updates the copy of the checkout in which the mutants are made. So you can work in the
# checkout meanwhile. Only changed files are copied, so only they are built again.
copy_checkout() {
  local file
  mkdir --parents "$TREE"
  while IFS= read -r file; do
    [[ -f $file ]] || rm --force "$TREE/$file"
    if [[ -f $file ]] && ! cmp --silent "$file" "$TREE/$file"; then
      mkdir --parents "$TREE/$(dirname "$file")"
      # cargo compares modification times, so the copy needs a new one.
      cp --no-preserve=timestamps "$file" "$TREE/$file"
    fi
  done < <(git ls-files --cached --others --exclude-standard)
  # Files that were removed from the checkout must not be mutated.
  (cd "$TREE" && find src tests -type f) | while IFS= read -r file; do
    [[ -f $file ]] || rm "$TREE/$file"
  done
}

# A checksum of the code of a file, without its comments and its unit tests.
code_of() {
  # A removed file has no checksum.
  { sed --expression='/^mod tests {$/,$d' --expression='/^ *\/\//d' "$TREE/$1" 2> /dev/null || true; } |
    sha256sum | cut --characters=-16
}

# Drops the outcomes of code that has changed.
forget_other_code() {
  local all known file code
  all=$(cd "$TREE" && find src tests Cargo.lock -type f -print0 | sort --zero-terminated |
    xargs --null sha256sum | sha256sum)
  known=$(cat "$TARGET/code" 2> /dev/null || true)
  if [[ $all != "$known" ]]; then
    echo "$all" > "$TARGET/code"
    rm --force "$TARGET"/baseline.*
    sed --in-place '/\tmissed/d' "$RESULTS"
  fi
  cut --fields=3 "$RESULTS" | sort --unique | while read -r file; do
    code=$(code_of "$file")
    awk -F '\t' -v OFS='\t' -v file="$file" -v code="$code" '$3 != file || $4 == code' \
      "$RESULTS" > "$RESULTS.new"
    mv "$RESULTS.new" "$RESULTS"
  done
}

# Prints all mutants of a folder, each with its key. The key is the mutant's name without
# line and column, and a number, because mutants of one function may share a name.
list() {
  cargo mutants --dir "$TREE" --list --file "src/$1/**" --file "src/$1.rs" | awk '{
    name = $0
    sub(/:[0-9]+:[0-9]+:/, ":", name)
    print name " " seen[name]++ "\t" $0
  }'
}

# Prints the mutants of a folder in the order of a hash of the seed and the key. So a
# change of the code hardly changes the sample.
choose() {
  list "$1" |
    LC_ALL=C sort --random-sort --random-source=<(yes "$seed") --field-separator=$'\t' --key=1,1 |
    tail --lines="+$((from + 1))" | { if ((sample)); then head --lines="$sample"; else cat; fi; }
}

# Prints the mutants on stdin that have no outcome yet. With the argument
# `missed-by-unit`, prints those that only the unit tests have tried.
without_outcome() {
  awk -F '\t' -v wanted="${1:-}" '
    FILENAME == ARGV[1] { outcome[$5] = $2; next }
    outcome[$1] == wanted' "$RESULTS" -
}

# Records an outcome of each mutant on stdin, and replaces its earlier one. `mutants` is
# a file of the mutants that ran, with their keys.
note() {
  local folder=$1 outcome=$2 mutants=$3 mutant key file
  while IFS= read -r mutant; do
    # -v would interpret the backslashes in a name; the environment does not.
    key=$(mutant=$mutant awk -F '\t' '$2 == ENVIRON["mutant"] { print $1; exit }' "$mutants")
    [[ -n $key ]] || continue
    file=${mutant%%:*}
    key=$key awk -F '\t' '$5 != ENVIRON["key"]' "$RESULTS" > "$RESULTS.new"
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$folder" "$outcome" "$file" "$(code_of "$file")" "$key" \
      "$mutant" >> "$RESULTS.new"
    mv "$RESULTS.new" "$RESULTS"
  done
}

seconds_left() {
  echo $((seconds ? seconds - SECONDS : 1000000))
}

# Runs the tests on the unchanged code, and prints how many seconds they take. If the
# tests failed on this code, each mutant would count as caught.
baseline() {
  local kind=$1 folder=$2 file since args tests
  shift 2
  file=$TARGET/baseline.$kind.${folder//\//-}
  if [[ ! -f $file ]]; then
    read -ra args <<< "$(cargo_args_of "$kind")"
    (cd "$TREE" && cargo test --quiet "${args[@]}" --no-run) >&2
    since=$SECONDS
    (cd "$TREE" && cargo test --quiet "${args[@]}" -- "$@") > "$TARGET/baseline.log" 2>&1 || {
      cat "$TARGET/baseline.log" >&2
      echo "mutants: the $kind tests of $folder fail without a mutant" >&2
      exit 1
    }
    echo $((SECONDS - since)) > "$file"
  fi
  cat "$file"
}

# Runs tests of one kind on the mutants on stdin, and records the outcomes.
run() {
  local kind=$1 folder=$2 wanted=$TARGET/wanted outcome tests args least left since
  cat > "$wanted"
  [[ -s $wanted ]] || return 0
  read -ra tests -d '' <<< "$("${kind/programs/program}_tests_of" "$folder")" || true
  least=$(baseline "$kind" "$folder" "${tests[@]}")
  left=$(seconds_left)
  ((left > 0)) || return 0
  echo "== $folder, $kind: $(wc --lines < "$wanted") mutants" >&2
  # --iterate leaves out the mutants that an earlier run has caught, so all mutants that
  # are not wanted are listed as caught. A filter by --re misses some kinds of mutants.
  rm --recursive --force "$TARGET/mutants.out"
  mkdir "$TARGET/mutants.out"
  list "$folder" | grep --fixed-strings --line-regexp --invert-match --file="$wanted" |
    cut --fields=2- > "$TARGET/mutants.out/previously_caught.txt" || true
  touch "$TARGET"/mutants.out/{caught,unviable,timeout,missed}.txt
  read -ra args <<< "$(cargo_args_of "$kind")"
  since=$SECONDS
  # Its exit status only reports missed mutants, as the table does. On SIGINT it restores
  # the code.
  timeout --signal=INT "$left" \
    cargo mutants --dir "$TREE" --in-place --output "$TARGET" --no-shuffle --colors never \
    --baseline skip --timeout $((2 * least + 10)) --build-timeout "$BUILD_SECONDS" \
    --file "src/$folder/**" --file "src/$folder.rs" --iterate \
    "${args[@]/#/--cargo-arg=}" -- -- "${tests[@]}" >&2 || true
  for outcome in caught unviable timeout; do
    note "$folder" "$outcome" "$wanted" < "$TARGET/mutants.out/$outcome.txt"
  done
  outcome=missed
  [[ $kind == programs ]] || outcome=missed-by-unit
  note "$folder" "$outcome" "$wanted" < "$TARGET/mutants.out/missed.txt"
  echo "== $folder, $kind: $((SECONDS - since)) s for $(cat "$TARGET"/mutants.out/{caught,unviable,timeout,missed}.txt | wc --lines)" >&2
}

# The names without line and column, which change: `file: change in function`.
explained() {
  sed --quiet 's/^\([^#][^#]*[^# ]\) *#.*/\1/p' scripts/mutants.explained
}

table() {
  [[ -s "$RESULTS" ]] || {
    echo "no mutant has run" >&2
    exit 1
  }
  explained > "$TARGET/explained"
  awk -F '\t' -v order="${FOLDERS[*]}" '
    FILENAME == ARGV[1] { explained[$0] = 1; next }
    {
      mutant = $6
      name = $5
      sub(/ [0-9]+$/, "", name)
      what = $2
      if (what ~ /^missed/ && name in explained) what = "explained"
      if (what == "missed-by-unit") print "missed by the unit tests: " mutant > "/dev/stderr"
      if (what == "missed") print "missed: " mutant > "/dev/stderr"
      sub(/-by-unit/, "", what)
      count[$1, what]++
      count["all", what]++
    }
    END {
      printf "%-18s %7s %7s %8s %8s %9s %7s\n", "folder", "caught", "missed", "timeout", "unviable", "explained", "share"
      folders = split(order, folder, " ")
      for (at = 1; at <= folders; at++) show(folder[at])
      show("all")
    }
    function show(it,    good, all) {
      good = count[it, "caught"] + count[it, "timeout"]
      all = good + count[it, "missed"]
      printf "%-18s %7d %7d %8d %8d %9d %6.1f%%\n", it, count[it, "caught"], count[it, "missed"],
        count[it, "timeout"], count[it, "unviable"], count[it, "explained"], all ? 100 * good / all : 0
    }' "$TARGET/explained" "$RESULTS"
}

sample=0 seed=1 from=0 seconds=0 only_table='' only_unit='' folders=()
while (($#)); do
  case $1 in
    --sample)
      sample=${2:?}
      shift
      ;;
    --seed)
      seed=${2:?}
      shift
      ;;
    --from)
      from=${2:?}
      shift
      ;;
    --seconds)
      seconds=${2:?}
      shift
      ;;
    --unit) only_unit=yes ;;
    --table) only_table=yes ;;
    -*) usage ;;
    *)
      unit_tests_of "$1" > /dev/null
      folders+=("$1")
      ;;
  esac
  shift
done
mkdir --parents "$TARGET"
touch "$RESULTS"
if [[ -z $only_table ]]; then
  command -v cargo-mutants > /dev/null ||
    {
      echo "mutants: install it first: cargo install --locked --version 27.1.0 cargo-mutants" >&2
      exit 3
    }
  ((${#folders[@]})) || folders=("${FOLDERS[@]}")
  copy_checkout
  forget_other_code
  # Nobody debugs a mutant. Without debug information it links faster.
  export CARGO_TARGET_DIR=$TARGET/build CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0
  # One failing example is enough, so proptest need not shrink it.
  export CARGO_INCREMENTAL=1 RV_TEST_SECONDS=60 PROPTEST_MAX_SHRINK_ITERS=0
  for folder in "${folders[@]}"; do
    run unit "$folder" < <(choose "$folder" | without_outcome)
    if [[ -z $only_unit ]]; then
      run programs "$folder" < <(choose "$folder" | without_outcome missed-by-unit)
    fi
  done
fi
table
