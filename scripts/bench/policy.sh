# shellcheck shell=bash disable=SC2154
# Reads and checks policies of a hundred thousand parts. Sourced by bench.sh.

echo '== rv-rendezvous check, a policy of 100,000 parts'
awk 'BEGIN {
  parts = 100000
  one = "[[prefer]]\nafter_ms = 0\nmodels = [\"m0@1\"]"
  print "deadline_ms = 100\n[[prefer]]\nafter_ms = 0\nmodels = [" > "selectors.toml"
  print "deadline_ms = 200" > "steps.toml"
  print "deadline_ms = 100\n" one "\n[split]\nkey = \"messageId\"" > "shares.toml"
  print "deadline_ms = 100\n" one "\n[versions]" > "versions.toml"
  for (i = 0; i < parts; i++) {
    printf "\"m%d@1\",\n", i > "selectors.toml"
    printf "[[prefer]]\nafter_ms = %.3f\nmodels = [\"m%d@1\"]\n", i / 1000, i > "steps.toml"
    printf "[[share]]\nmodel = \"m%d@1\"\nfrom = %.5f\nto = %.5f\n", i, i / parts, (i + 1) / parts > "shares.toml"
    printf "m%d = 1\n", i > "versions.toml"
  }
  print "]" > "selectors.toml"
}'
for kind in selectors steps shares versions; do
  for ((run = 0; run < runs; run++)); do
    seconds "rv-rendezvous check $kind.toml --quiet"
  done | median | sed "s/^/  $kind: /; s/\$/ s/"
done
