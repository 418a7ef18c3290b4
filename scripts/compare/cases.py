"""Writes cases for the statistics of rv-compare, with the answers of scipy, statsmodels
and scikit-learn: one JSON object a line, with `of`, `input` and `expected`.

    cases.py SEED COUNT > cases.ndjson
"""

import json
import math
import sys
import warnings

import numpy as np
from scipy import spatial, stats
from sklearn import metrics
from sklearn.calibration import calibration_curve
from statsmodels.stats.contingency_tables import SquareTable, mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

warnings.simplefilter("ignore")
seed, count = int(sys.argv[1]), int(sys.argv[2])
random = np.random.default_rng(seed)


def plain(value):
    """The value as JSON; null where it is not defined."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    value = float(value)
    return value if math.isfinite(value) else None


def case(name, given, expected):
    print(json.dumps({"of": name, "input": given, "expected": plain(expected)}))


def counts():
    """A number of successes and of trials: random ones, edges, and a million."""
    yield from [(0, 1), (1, 1), (0, 1000000), (1000000, 1000000), (20000, 1000000)]
    yield from [(5, 10), (1, 2), (499999, 1000000), (500001, 1000000)]
    for _ in range(count):
        trials = int(10 ** random.uniform(0, 6))
        yield int(random.integers(0, trials + 1)), trials


def table(size, scale):
    """A random table of pairs, with zeros."""
    values = random.poisson(scale * random.random((size, size)) ** 3)
    return [[int(value) for value in row] for row in values + np.diag([1 + scale] * size)]


def homogeneity(values):
    """statsmodels' statistic and degrees of freedom. Where its covariance is singular,
    because some classes are never mixed up, the pseudo-inverse and the rank."""
    covariance = np.diag(values.sum(0) + values.sum(1)) - values - values.T
    rank = int(np.linalg.matrix_rank(covariance))
    if rank == len(values) - 1:
        result = SquareTable(values, shift_zeros=False).homogeneity()
        return result.statistic, result.df
    difference = values.sum(1) - values.sum(0)
    return difference @ np.linalg.pinv(covariance.astype(float)) @ difference, rank


for successes, trials in counts():
    low, high = proportion_confint(successes, trials, method="wilson")
    case("wilson", [successes, trials], [successes / trials, low, high])
    p = float(random.choice([0.5, 0.02, 0.3]))
    test = stats.binomtest(successes, trials, p, alternative="greater")
    case("binomial", [successes, trials, p], [test.pvalue])
    one, other = successes, trials - successes
    exact = mcnemar([[7, one], [other, 9]], exact=True)
    case("mcnemar", [one, other], [exact.pvalue])
case("mcnemar", [0, 0], [1])

tables = [table(int(random.integers(2, 7)), int(random.integers(1, 400))) for _ in range(count)]
tables += [
    [[5, 3], [1, 7]],
    [[10, 0], [4, 10]],
    [[0, 5], [5, 0]],
    [[900000, 1000], [1500, 97500]],
]
for each in tables:
    statistic, freedom = homogeneity(np.array(each))
    # 1 - cdf has no digits left for small p-values, and sf has.
    p_value = stats.chi2.sf(statistic, freedom) if freedom else 1
    case("homogeneity", each, [statistic, freedom, p_value])
    rows, columns, weights = [], [], []
    for row, line in enumerate(each):
        for column, weight in enumerate(line):
            rows.append(row), columns.append(column), weights.append(weight)
    case("kappa", each, [metrics.cohen_kappa_score(rows, columns, sample_weight=weights)])
    quality = metrics.precision_recall_fscore_support(
        rows, columns, sample_weight=weights, zero_division=0
    )
    case("classQualities", each, np.transpose(quality).ravel())
    pair = [each[0], each[1]]
    used = [place for place in range(len(each)) if pair[0][place] + pair[1][place]]
    test = stats.chi2_contingency(
        [[line[place] for place in used] for line in pair],
        correction=False,
        lambda_="log-likelihood",
    )
    case("gTest", pair, [test.statistic, test.dof, test.pvalue])
case("kappa", [[7]], [math.nan])
case("kappa", [[0, 0], [0, 0]], [math.nan])
case("homogeneity", [[7]], [0, 0, 1])
case("homogeneity", [[7, 0], [0, 3]], [0, 0, 1])
# Classes that are never mixed up: two tables, of which each is tested alone.
apart = [[5, 3, 0, 0], [1, 7, 0, 0], [0, 0, 9, 4], [0, 0, 6, 2]]
parts = [SquareTable(np.array([line[at : at + 2] for line in apart[at : at + 2]]), shift_zeros=False) for at in (0, 2)]
both = sum(part.homogeneity().statistic for part in parts)
case("homogeneity", apart, [both, 2, stats.chi2.sf(both, 2)])

for size in [1, 2, 5, 40]:
    p_values = [float(p) for p in random.random(size) ** 4]
    case("benjaminiHochberg", p_values, multipletests(p_values, method="fdr_bh")[1])
case("benjaminiHochberg", [0.03] * 6, [0.03] * 6)

for size in [1, 2, 3, 10, 59, 60, 100, 1000, 1000000]:
    ordered = np.arange(1, size + 1)
    for q in [0.5, 0.9, 0.99]:
        found = stats.quantile_test(ordered, q=0, p=q).confidence_interval(0.95)
        case("quantileRanks", [size, q], [found.low, found.high])

for size in [2, 3, 10, 100, 2000]:
    one = random.normal(1, 2, size)
    other = one + random.normal(0.1, 1, size)
    found = stats.ttest_rel(other, one).confidence_interval(0.95)
    mean = float(np.mean(other - one))
    case("pairedDifference", [list(one), list(other)], [mean, found.low, found.high])
    mae = metrics.mean_absolute_error(one, other)
    rmse = metrics.root_mean_squared_error(one, other)
    case("errors", [list(one), list(other)], [mae, rmse])
for freedom in [1, 2, 5.5, 30, 1000, 999999]:
    for p in [0.5, 0.05, 0.001]:
        case("studentQuantile", [p, freedom], [stats.t.isf(p / 2, freedom)])
for p in [1e-12, 0.001, 0.025, 0.3, 0.5, 0.9, 0.9999]:
    case("normalQuantile", [p], [stats.norm.isf(p)])

for size in [2, 10, 200]:
    one, other = random.poisson(30, size), random.poisson(30 * random.random(size))
    other[0] += 1
    p, q = (one + 0.5) / (one + 0.5).sum(), (other + 0.5) / (other + 0.5).sum()
    given = [[int(value) for value in one], [int(value) for value in other]]
    case("populationStability", given, [float(np.sum((p - q) * np.log(p / q)))])
    case("jensenShannon", given, [spatial.distance.jensenshannon(one, other)])
case("jensenShannon", [[1, 0], [0, 1]], [spatial.distance.jensenshannon([1, 0], [0, 1])])
case("populationStability", [[0, 0], [1, 1]], [math.nan])

samples = [(1, 1), (3, 5), (50, 50), (40, 73), (500, 300)] + ([(9000, 400)] if count > 50 else [])
for one, other in samples:
    for shift in [0, 0.3, 2]:
        # Rounded values have ties.
        left = sorted(float(value) for value in np.round(random.normal(0, 1, one), 1))
        right = sorted(float(value) for value in np.round(random.normal(shift, 1, other), 1))
        found = stats.ks_2samp(left, right, method="exact")
        case("kolmogorovSmirnov", [left, right], [found.statistic, found.pvalue])
case("kolmogorovSmirnov", [[1.0] * 9, [1.0] * 4], [0, 1])
if count > 50:
    for shift in [0, 0.01, 0.03]:
        left = sorted(float(value) for value in np.round(random.normal(0, 1, 20000), 4))
        right = sorted(float(value) for value in np.round(random.normal(shift, 1, 30000), 4))
        found = stats.ks_2samp(left, right)
        p_value = stats.kstwobign.sf(math.sqrt(20000 * 30000 / 50000) * found.statistic)
        case("kolmogorovSmirnov", [left, right], [found.statistic, p_value])

for size in [1, 10, 500]:
    confidence = [float(value) for value in np.round(random.random(size), 2)]
    right = [int(value) for value in random.random(size) < confidence]
    brier = float(np.mean((np.array(confidence) - right) ** 2))
    if len(set(right)) == 2:
        brier = metrics.brier_score_loss(right, confidence)
    share, mean = calibration_curve(right, confidence, n_bins=10) if len(set(right)) == 2 else ([], [])
    case("calibration", [confidence, right], [brier, *mean, *share])
