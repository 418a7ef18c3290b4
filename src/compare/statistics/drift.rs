//! How far two distributions are apart.

/// The count that is added to each bin of the population stability index, so that an
/// empty bin does not make it infinite.
const PSI_ADDED: f64 = 0.5;

/// The population stability index of two histograms with the same bins: `Σ (p - q) ln(p
/// / q)`, with half a count added to each bin. `None` if a histogram is empty.
pub fn population_stability(one: &[f64], other: &[f64]) -> Option<f64> {
    let total = |bins: &[f64]| {
        let counts: f64 = bins.iter().sum();
        (counts > 0.0).then_some(counts + PSI_ADDED * bins.len() as f64)
    };
    let (of_one, of_other) = (total(one)?, total(other)?);
    let terms = one.iter().zip(other).map(|(in_one, in_other)| {
        let (p, q) = (
            (in_one + PSI_ADDED) / of_one,
            (in_other + PSI_ADDED) / of_other,
        );
        (p - q) * (p / q).ln()
    });
    Some(terms.sum())
}

/// The Jensen-Shannon distance of two histograms with the same bins (scipy
/// `jensenshannon`, natural logarithm). `None` if a histogram is empty.
pub fn jensen_shannon(one: &[f64], other: &[f64]) -> Option<f64> {
    let (of_one, of_other): (f64, f64) = (one.iter().sum(), other.iter().sum());
    if of_one <= 0.0 || of_other <= 0.0 {
        return None;
    }
    let mut sum = 0.0;
    for (in_one, in_other) in one.iter().zip(other) {
        let (p, q) = (in_one / of_one, in_other / of_other);
        let middle = (p + q) / 2.0;
        for share in [p, q] {
            if share > 0.0 {
                sum += share * (share / middle).ln();
            }
        }
    }
    Some((sum / 2.0).max(0.0).sqrt())
}

/// The largest product of the sizes of two samples for which the p-value is exact. The
/// time for an exact one grows with this product: it takes about 10 ms.
const EXACT_MAX: usize = 4_000_000;

/// The two-sample test of Kolmogorov and Smirnov, two-sided, for sorted samples: the
/// largest distance of the distribution functions, and its p-value. For two samples of up
/// to 2,000 values, the p-value is exact (scipy `ks_2samp`); for more it is that of the
/// limiting distribution (scipy `kstwobign`). `None` if a sample is empty.
pub fn kolmogorov_smirnov(one: &[f64], other: &[f64]) -> Option<(f64, f64)> {
    let (m, n) = (one.len(), other.len());
    if m == 0 || n == 0 {
        return None;
    }
    // The largest difference i/m - j/n is kept as the whole number i*n - j*m.
    let (mut i, mut j, mut largest) = (0, 0, 0_u64);
    while i < m && j < n {
        let value = one[i].min(other[j]);
        while i < m && one[i] <= value {
            i += 1;
        }
        while j < n && other[j] <= value {
            j += 1;
        }
        let (left, right) = (i as u64 * n as u64, j as u64 * m as u64);
        largest = largest.max(left.abs_diff(right));
    }
    let distance = largest as f64 / (m as f64 * n as f64);
    let p_value = if largest == 0 {
        1.0
    } else if m.saturating_mul(n) <= EXACT_MAX {
        probability_of_paths(m, n, largest)
    } else {
        let effective = m as f64 * n as f64 / (m + n) as f64;
        limiting_probability(effective.sqrt() * distance)
    };
    Some((distance, p_value))
}

/// The largest distance of the distribution function of sorted values from a known one,
/// at the points where the known one is given: pairs of a value and of the share of
/// values up to it, in ascending order. `None` without a value or a point.
pub fn distance_from(values: &[f64], known: &[(f64, f64)]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let distance = |(value, share): &(f64, f64)| {
        let up_to = values.partition_point(|it| it <= value);
        (up_to as f64 / values.len() as f64 - share).abs()
    };
    known.iter().map(distance).max_by(f64::total_cmp)
}

/// The probability that a random path from (0, 0) to (m, n) reaches a point (i, j) with
/// `|i n - j m| >= bound`. All terms are positive, so that small probabilities keep
/// their digits.
fn probability_of_paths(m: usize, n: usize, bound: u64) -> f64 {
    let outside = |i: usize, j: usize| (i as u64 * n as u64).abs_diff(j as u64 * m as u64) >= bound;
    let mut row: Vec<f64> = Vec::with_capacity(n + 1);
    for j in 0..=n {
        let before = row.last().copied().unwrap_or(0.0);
        row.push(if outside(0, j) { 1.0 } else { before });
    }
    for i in 1..=m {
        for j in 0..=n {
            row[j] = if outside(i, j) {
                1.0
            } else {
                let all = (i + j) as f64;
                let left = if j > 0 { row[j - 1] } else { 0.0 };
                row[j] * (i as f64 / all) + left * (j as f64 / all)
            };
        }
    }
    row[n].min(1.0)
}

/// The probability that Kolmogorov's limiting distribution exceeds `x`.
fn limiting_probability(x: f64) -> f64 {
    if x < 0.2 {
        // The probability differs from 1 by less than 1e-12.
        return 1.0;
    }
    if x < 1.0 {
        // Jacobi's identity gives a series that converges fast for a small x.
        let factor = -std::f64::consts::PI.powi(2) / (8.0 * x * x);
        let terms = (0..20).map(|k| (factor * f64::from(2 * k + 1).powi(2)).exp());
        let sum: f64 = terms.sum();
        return 1.0 - (2.0 * std::f64::consts::PI).sqrt() / x * sum;
    }
    let terms = (1..20).map(|k| {
        let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * f64::from(k).powi(2) * x * x).exp()
    });
    terms.sum()
}
