#!/usr/bin/env bash
# Loads the page of rv-compare in a real browser: it must fit a narrow window, follow the
# dark mode, and print. Needs chromium.
#
#   scripts/check_page.sh [FOLDER]     also leaves the pictures in FOLDER
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
source scripts/lib.sh
[[ $# -le 1 ]] || usage

work=$(make_work check-page)
trap 'rm --recursive --force "$work"' EXIT
find_programs --release
rv-request < fixtures/flowers.ndjson > "$work/requests"
for model in dt lr; do
  rv-score --model "fixtures/one_request/0_model.$model.json" --rescore --assume-elapsed 3ms \
    < "$work/requests" > "$work/$model"
done
rv-compare --base dt@1 --candidate lr@0 --scores "$work/dt" "$work/lr" \
  --fail-if 'disagreement > 0.1' --html "$work/page.html" > /dev/null

browse() {
  chromium --headless --no-sandbox --disable-gpu --disable-background-networking \
    --user-data-dir="$work/profile" "$@" 2> "$work/chromium.log" || {
    cat "$work/chromium.log" >&2
    return 1
  }
}

# The copy reports what the browser has made of the page.
{
  cat "$work/page.html"
  cat << 'HTML'
<script>
const root = document.documentElement;
document.title = [root.scrollWidth <= innerWidth ? "fits" : "overflows",
  getComputedStyle(document.body).backgroundColor,
  document.querySelectorAll("svg").length].join(" | ");
</script>
HTML
} > "$work/copy.html"
expect() {
  local found
  found=$(browse --window-size=500,900 "${@:2}" --dump-dom "file://$work/copy.html" |
    sed --quiet 's|.*<title>\(.*\)</title>.*|\1|p')
  [[ "$found" == "$1" ]] || {
    echo "check_page: the page reports '$found', not '$1'" >&2
    exit 1
  }
}
expect 'fits | rgb(255, 255, 255) | 2' --blink-settings=preferredColorScheme=1
expect 'fits | rgb(13, 17, 23) | 2' --blink-settings=preferredColorScheme=0
browse --no-pdf-header-footer --print-to-pdf="$work/page.pdf" "file://$work/page.html"
[[ $(head --bytes=5 "$work/page.pdf") == %PDF- ]]
if [[ $# -eq 1 ]]; then
  mkdir --parents -- "$1"
  browse --window-size=500,2000 --screenshot="$work/phone.png" "file://$work/page.html"
  cp -- "$work/phone.png" "$work/page.pdf" "$1"
fi
echo 'the page fits, is dark in the dark, and prints'
