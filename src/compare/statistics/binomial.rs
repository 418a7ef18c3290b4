//! The binomial distribution: exact tests, and the ranks of a quantile's interval.

use std::f64::consts::PI;

use super::special::{deviance, stirling_error};

/// The probability of `successes` in `trials`, each with probability `p`. Uses C.
/// Loader's method (*Fast and Accurate Computation of Binomial Probabilities*, 2000),
/// which stays exact for millions of trials.
pub fn probability(successes: u64, trials: u64, p: f64) -> f64 {
    if successes > trials {
        return 0.0;
    }
    let (n, k) = (trials as f64, successes as f64);
    let rest = n - k;
    if p <= 0.0 || p >= 1.0 {
        return if (p <= 0.0 && successes == 0) || (p >= 1.0 && successes == trials) {
            1.0
        } else {
            0.0
        };
    }
    if successes == 0 {
        return (n * (-p).ln_1p()).exp();
    }
    if successes == trials {
        return (n * p.ln()).exp();
    }
    let exponent = stirling_error(n)
        - stirling_error(k)
        - stirling_error(rest)
        - deviance(k, n * p)
        - deviance(rest, n * (1.0 - p));
    exponent.exp() * (n / (2.0 * PI * k * rest)).sqrt()
}

/// The probability of at least `successes` in `trials`: the one-sided exact test of
/// the alternative "greater".
pub fn at_least(successes: u64, trials: u64, p: f64) -> f64 {
    if successes == 0 {
        return 1.0;
    }
    if successes > trials {
        return 0.0;
    }
    if (successes as f64) <= trials as f64 * p {
        return (1.0 - lower_tail(successes - 1, trials, p)).max(0.0);
    }
    // Above the mean, the probabilities fall faster than a geometric sequence.
    let odds = p / (1.0 - p);
    let mut term = probability(successes, trials, p);
    let mut sum = term;
    for k in successes..trials {
        term *= (trials - k) as f64 / (k + 1) as f64 * odds;
        sum += term;
        if term < sum * 1e-18 {
            break;
        }
    }
    sum.min(1.0)
}

/// The probability of at most `successes` in `trials`.
pub fn at_most(successes: u64, trials: u64, p: f64) -> f64 {
    if successes >= trials {
        1.0
    } else if successes as f64 <= trials as f64 * p {
        lower_tail(successes, trials, p)
    } else {
        (1.0 - at_least(successes + 1, trials, p)).max(0.0)
    }
}

fn lower_tail(successes: u64, trials: u64, p: f64) -> f64 {
    if p >= 1.0 {
        return 0.0;
    }
    let odds = (1.0 - p) / p;
    let mut term = probability(successes, trials, p);
    let mut sum = term;
    for k in (1..=successes).rev() {
        term *= k as f64 / (trials - k + 1) as f64 * odds;
        sum += term;
        if term < sum * 1e-18 {
            break;
        }
    }
    sum.min(1.0)
}

/// McNemar's exact test: the two-sided p-value for `one` and `other` discordant pairs.
/// Without a discordant pair it is 1.
pub fn mcnemar(one: u64, other: u64) -> f64 {
    let total = one + other;
    if total == 0 {
        return 1.0;
    }
    (2.0 * at_most(one.min(other), total, 0.5)).min(1.0)
}

/// The smallest number of successes whose cumulative probability is at least `level`.
fn quantile(level: f64, trials: u64, p: f64) -> u64 {
    let (mut low, mut high) = (0, trials);
    while low < high {
        let middle = low + (high - low) / 2;
        if at_most(middle, trials, p) >= level {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The ranks, from 1, of the two ordered values that bound the quantile `q` of `count`
/// values with at least `confidence`. `None` for a bound that no value gives, because
/// there are too few values.
pub fn quantile_ranks(count: u64, q: f64, confidence: f64) -> (Option<u64>, Option<u64>) {
    if count == 0 {
        return (None, None);
    }
    let alpha = (1.0 - confidence) / 2.0;
    // The number of values below the quantile is binomial.
    let low = quantile(alpha, count, q);
    let high = quantile(1.0 - alpha, count, q) + 1;
    let low = (low > 0).then_some(low);
    (low, (high <= count).then_some(high))
}
