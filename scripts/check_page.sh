#!/usr/bin/env bash
# Loads the pages of rv-compare and rv-up in a real browser. They must fit a narrow window
# and follow the dark mode. The page of rv-compare must print, and that of rv-up must show
# what runs. Needs chromium and curl.
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

# The page of rv-up shows what runs. It must fit a phone and a desk, follow the dark mode,
# and work without a pointer.
rv-up demo "$work/demo" --listen 127.0.0.1:0 --admin 127.0.0.1:0 > "$work/up.log"
trap 'rv-up --file "$work/demo/rv.toml" stop > /dev/null; rm --recursive --force "$work"' EXIT
address() {
  sed --quiet "s|.*$1 http://\([0-9.:]*\).*|\1|p" "$work/up.log" | head --lines=1
}
while read -r flower; do
  curl --silent -d "$flower" "http://$(address 'up at')/predict"
done < fixtures/flowers.ndjson > /dev/null
sleep 2
seen() {
  browse --virtual-time-budget=4000 "$@" --dump-dom "http://$(address 'admin at')/"
}
for size in 390,844 1440,900; do
  dom=$(seen --window-size="$size")
  for text in 'id="state" role="status" class="good">ready<' '<td class="">dt@1</td><td class="number">150</td>' \
    '<td class="good">up</td>' 'rv-run/models/dt'; do
    grep --fixed-strings "$text" <<< "$dom" > /dev/null || {
      echo "check_page: rv-up's page at $size does not show $text" >&2
      exit 1
    }
  done
done
if [[ $# -eq 1 ]]; then
  for mode in 0 1; do
    for size in 390,844 1440,900; do
      browse --virtual-time-budget=4000 --window-size="$size" \
        --blink-settings=preferredColorScheme=$mode \
        --screenshot="$1/up-$size-$mode.png" "http://$(address 'admin at')/"
    done
  done
fi
echo 'the page of rv-up shows the models, the stages and the answers'
