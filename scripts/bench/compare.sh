# shellcheck shell=bash disable=SC2154
# A comparison of two models from decisions, beside pandas and scipy from the same file;
# and the memory for more and more pairs. Sourced by bench.sh. Needs PyPI; the packages
# go into target/python.

echo '== a comparison of two models, from decisions'
python_packages bench-compare scipy==1.17.1 statsmodels==0.15.0 scikit-learn==1.9.1 \
  numpy==2.4.6 pandas==3.1.1 orjson==3.13.0
rv-rendezvous --replay --requests requests --scores dt.scores lr.scores --quiet \
  --prefer dt@1,lr@0 --deadline 100ms --decisions decisions > /dev/null
compare \
  'rv-compare' 'rv-compare --base dt@1 --candidate lr@0 --quiet -i decisions' \
  'orjson, pandas, scipy' "python $here/scripts/bench/compare.py decisions dt 1 lr 0 orjson" \
  'pandas, scipy' "python $here/scripts/bench/compare.py decisions dt 1 lr 0 pandas"
echo '== the same from the scores of both models'
compare \
  'cat of the same bytes' 'cat dt.scores lr.scores | cat' \
  'rv-compare --scores' 'rv-compare --base dt@1 --candidate lr@0 --quiet --scores dt.scores lr.scores'
if [[ -x /usr/bin/time ]]; then
  for copies in 1 10 100; do
    # The ids differ, so that every decision counts.
    for ((copy = 0; copy < copies; copy++)); do
      head --lines=$((records / 10)) decisions | sed "s/\"messageId\":\"/&$copy-/"
    done | /usr/bin/time --format="  $((records * copies / 10)) pairs: %M KiB at most" \
      rv-compare --base dt@1 --candidate lr@0 --quiet > /dev/null
  done
fi
rm decisions
