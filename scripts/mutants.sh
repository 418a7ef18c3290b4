#!/usr/bin/env bash
# Changes the code in one place, runs the fast tests, and sees whether one fails:
# what no test sees is a promise that nobody keeps. Each change is a mutant.
#
#   scripts/mutants.sh [--sample N] [--seed S] [--from K] [FOLDER]...
#   scripts/mutants.sh --table
#
# FOLDER is wire, serve/tee, serve/rendezvous or observe, and all of them where none
# is given. --sample takes N mutants of each at random, the same ones for the same
# seed, from the K-th on: so a sample can be run in pieces. Without --sample all of
# them run, about 3200, which takes many hours. What comes of each is kept in
# target/mutants/results.tsv while the code stays as it is; the table is of all that
# is there, and --table prints it again.
#
# A mutant that no test can tell from the code is equivalent. It stands in
# scripts/mutants.explained with the reason, and does not count.
#
# Needs cargo-mutants: cargo install --locked --version 27.1.0 cargo-mutants
set -euo pipefail
cd -- "$(dirname -- "$(realpath -- "$0")")/.."

readonly TARGET=$PWD/target/mutants
readonly RESULTS=$TARGET/results.tsv
# A test that hangs is as good as one that fails; it must only not take long.
readonly TEST_SECONDS=90
readonly BUILD_SECONDS=240

usage() {
  sed --quiet '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2
  exit 2
}

# The tests that are asked about a folder: those of the modules themselves first,
# then the programs.
tests_of() {
  case $1 in
    wire) echo wire:: stage:: conventions:: golden:: records:: streams:: ;;
    serve/tee) echo serve::tee:: stage::backlog stage::queue tee:: ;;
    serve/rendezvous) echo serve::rendezvous:: rendezvous:: decision:: replay:: golden:: ;;
    observe) echo observe:: archive:: es_sink:: conventions:: ;;
    *) usage ;;
  esac
}

# A copy of the checkout, in which mutants are made while others work on this one.
# Only what has changed is copied, so that only that is built again.
copy_checkout() {
  local file
  mkdir --parents "$TARGET/tree"
  git ls-files --cached --others --exclude-standard | while IFS= read -r file; do
    if [[ -f $file ]] && ! cmp --silent "$file" "$TARGET/tree/$file"; then
      mkdir --parents "$TARGET/tree/$(dirname "$file")"
      # A new time of change: cargo goes by that.
      cp --no-preserve=timestamps "$file" "$TARGET/tree/$file"
    fi
  done
}

# Outcomes of other code say nothing of this.
forget_other_code() {
  local code
  code=$(git ls-files --cached --others --exclude-standard -z src | xargs --null cat | sha256sum)
  if [[ "$(cat "$TARGET/code" 2> /dev/null)" != "$code" ]]; then
    : > "$RESULTS"
    echo "$code" > "$TARGET/code"
  fi
}

# The mutants of a folder, in the order of the seed.
choose() {
  cargo mutants --dir "$TARGET/tree" --list --file "src/$1/**" --file "src/$1.rs" |
    { if ((sample)); then shuf --random-source=<(yes "$seed"); else cat; fi; } |
    tail --lines="+$((from + 1))" | { if ((sample)); then head --lines="$sample"; else cat; fi; }
}

run() {
  local folder=$1 chosen=() wanted=() mutant outcome tests since=$SECONDS
  mapfile -t chosen < <(choose "$folder")
  for mutant in "${chosen[@]}"; do
    # shellcheck disable=SC2001 # a class of characters, each with what stood there
    wanted+=(--re "^$(sed 's/[][().*+?^${}|\\]/\\&/g' <<< "$mutant")\$")
  done
  ((${#wanted[@]})) || return 0
  read -ra tests <<< "$(tests_of "$folder")"
  echo "== $folder: ${#chosen[@]} mutants" >&2
  # Its status says that some were missed, which the table says, too.
  cargo mutants --dir "$TARGET/tree" --in-place --output "$TARGET" --no-shuffle --colors never \
    --baseline "$baseline" --timeout "$TEST_SECONDS" --build-timeout "$BUILD_SECONDS" \
    --file "src/$folder/**" --file "src/$folder.rs" "${wanted[@]}" \
    -- --locked --lib --test stages -- "${tests[@]}" >&2 || true
  for outcome in caught missed unviable timeout; do
    sed "s|^|$folder\t$outcome\t|" "$TARGET/mutants.out/$outcome.txt" >> "$RESULTS"
  done
  echo "== $folder: $(((SECONDS - since) / ${#chosen[@]})) s a mutant" >&2
}

# Names without places, which move: file: change in function.
explained() {
  sed --quiet 's/^\([^#][^#]*[^# ]\) *#.*/\1/p' scripts/mutants.explained
}

table() {
  [[ -s "$RESULTS" ]] || {
    echo "no mutant has run" >&2
    exit 1
  }
  explained > "$TARGET/explained"
  awk -F '\t' '
    FNR == NR { explained[$0] = 1; next }
    { outcome[$3] = $2; folder[$3] = $1 }
    END {
      for (mutant in outcome) {
        name = mutant
        sub(/:[0-9]+:[0-9]+:/, ":", name)
        what = outcome[mutant]
        if (what == "missed" && name in explained) what = "explained"
        if (what == "missed") print "missed: " mutant > "/dev/stderr"
        count[folder[mutant], what]++
        count["all", what]++
        folders[folder[mutant]] = 1
      }
      printf "%-18s %7s %7s %8s %8s %9s %7s\n", "folder", "caught", "missed", "timeout", "unviable", "explained", "share"
      for (it in folders) show(it)
      show("all")
    }
    function show(it,    good, all) {
      good = count[it, "caught"] + count[it, "timeout"]
      all = good + count[it, "missed"]
      printf "%-18s %7d %7d %8d %8d %9d %6.1f%%\n", it, count[it, "caught"], count[it, "missed"],
        count[it, "timeout"], count[it, "unviable"], count[it, "explained"], all ? 100 * good / all : 0
    }' "$TARGET/explained" "$RESULTS"
}

sample=0 seed=1 from=0 only_table='' folders=()
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
    --table) only_table=yes ;;
    -*) usage ;;
    *)
      tests_of "$1" > /dev/null
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
  ((${#folders[@]})) || folders=(wire serve/tee serve/rendezvous observe)
  copy_checkout
  forget_other_code
  # Nobody debugs a mutant: what is not written need not be linked.
  export CARGO_TARGET_DIR=$TARGET/build CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0
  export CARGO_INCREMENTAL=1 RV_TEST_SECONDS=$((TEST_SECONDS - 30))
  # Where the tests fail without a mutant, each mutant would count as caught.
  baseline=run
  [[ -z "${RV_MUTANTS_SKIP_BASELINE:-}" ]] || baseline=skip
  for folder in "${folders[@]}"; do
    run "$folder"
  done
fi
table
