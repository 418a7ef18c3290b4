//! The special functions that the distributions need: the incomplete gamma and beta
//! functions, and the quantiles of the normal and of Student's distribution.
//!
//! The incomplete functions use the series and continued fractions of Abramowitz and
//! Stegun (*Handbook of Mathematical Functions*, 6.5 and 26.5), with Lentz's method.

use std::f64::consts::{PI, SQRT_2};

/// The largest number of terms of a series or of a continued fraction. A million pairs
/// need a few thousand.
const TERMS_MAX: u32 = 200_000;

/// A value that replaces zero in Lentz's method.
const TINY: f64 = 1e-300;

/// The logarithm of the gamma function, for `x > 0`.
pub fn ln_gamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// The probability that a standard normal variable is above `x`.
pub fn normal_above(x: f64) -> f64 {
    0.5 * libm::erfc(x / SQRT_2)
}

/// The value that a standard normal variable exceeds with probability `p`, for
/// `0 < p < 1`.
pub fn normal_upper_quantile(p: f64) -> f64 {
    if p > 0.5 {
        return -normal_upper_quantile(1.0 - p);
    }
    // The start is Abramowitz and Stegun 26.2.23, with an error below 4.5e-4. Two steps
    // of Halley's method make the error a rounding error.
    let t = (-2.0 * p.ln()).sqrt();
    let mut x = t
        - (2.515_517 + t * (0.802_853 + t * 0.010_328))
            / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)));
    for _ in 0..3 {
        let density = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
        let step = (normal_above(x) - p) / density;
        x += step / (1.0 - 0.5 * x * step);
    }
    x
}

/// The factor `x^a e^-x / Γ(a)`, without the cancellation of large logarithms.
fn gamma_factor(a: f64, x: f64) -> f64 {
    if a < 10.0 {
        return (a * x.ln() - x - ln_gamma(a)).exp();
    }
    // x^a e^-x / Γ(a) = sqrt(a / 2π) exp(-deviance(a, x) - stirling_error(a))
    (a / (2.0 * PI)).sqrt() * (-deviance(a, x) - stirling_error(a)).exp()
}

/// The regularised lower incomplete gamma function `P(a, x)`, for `a > 0`, `x >= 0`.
pub fn gamma_lower(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        0.0
    } else if x < a + 1.0 {
        gamma_factor(a, x) * gamma_series(a, x)
    } else {
        1.0 - gamma_factor(a, x) * gamma_fraction(a, x)
    }
}

/// The regularised upper incomplete gamma function `Q(a, x)`, for `a > 0`, `x >= 0`.
pub fn gamma_upper(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        1.0
    } else if x < a + 1.0 {
        1.0 - gamma_factor(a, x) * gamma_series(a, x)
    } else {
        gamma_factor(a, x) * gamma_fraction(a, x)
    }
}

fn gamma_series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum) = (1.0 / a, 1.0 / a);
    for number in 1..TERMS_MAX {
        term *= x / (a + f64::from(number));
        sum += term;
        if term < sum * f64::EPSILON {
            break;
        }
    }
    sum
}

fn gamma_fraction(a: f64, x: f64) -> f64 {
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / not_zero(b);
    let mut fraction = d;
    for number in 1..TERMS_MAX {
        let number = f64::from(number);
        let numerator = -number * (number - a);
        b += 2.0;
        d = 1.0 / not_zero(numerator * d + b);
        c = not_zero(b + numerator / c);
        let change = c * d;
        fraction *= change;
        if (change - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    fraction
}

fn not_zero(value: f64) -> f64 {
    if value.abs() < TINY { TINY } else { value }
}

/// `a ln(a / x) + x - a`, which is at least 0, without cancellation where `x` is near
/// `a`.
pub fn deviance(a: f64, x: f64) -> f64 {
    let difference = a - x;
    if difference.abs() < 0.1 * (a + x) {
        // With v = (a - x) / (a + x): a ln(a/x) + x - a = (a-x) v + 2 a Σ v^(2j+1)/(2j+1).
        let ratio = difference / (a + x);
        let mut sum = difference * ratio;
        let mut power = 2.0 * a * ratio;
        for number in 1..1000_u32 {
            power *= ratio * ratio;
            let next = sum + power / f64::from(2 * number + 1);
            if next == sum {
                break;
            }
            sum = next;
        }
        return sum;
    }
    a * (a / x).ln() + x - a
}

/// `ln Γ(a + 1)` minus Stirling's approximation `(a + ½) ln a - a + ½ ln 2π`.
pub fn stirling_error(a: f64) -> f64 {
    if a < 16.0 {
        return ln_gamma(a + 1.0) - (a + 0.5) * a.ln() + a - 0.5 * (2.0 * PI).ln();
    }
    let square = a * a;
    (1.0 / 12.0
        - (1.0 / 360.0 - (1.0 / 1260.0 - (1.0 / 1680.0 - 1.0 / 1188.0 / square) / square) / square)
            / square)
        / a
}

/// The probability that a chi-squared variable with `freedom` degrees is above `x`.
pub fn chi_squared_above(x: f64, freedom: f64) -> f64 {
    gamma_upper(freedom / 2.0, x / 2.0)
}

/// The regularised incomplete beta function `I_x(a, b)`, for positive `a`, `b` and
/// `0 <= x <= 1`. The complement `1 - x` is an argument of its own, because it may be
/// smaller than the precision of `x`.
pub fn beta_lower(a: f64, b: f64, x: f64, complement: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if complement <= 0.0 {
        return 1.0;
    }
    let factor = (a * x.ln() + b * complement.ln() + ln_inverse_beta(a, b)).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        factor * beta_fraction(a, b, x) / a
    } else {
        1.0 - factor * beta_fraction(b, a, complement) / b
    }
}

/// `-ln B(a, b)`. Large arguments use the difference of Stirling's errors, because the
/// logarithms of their gamma functions would cancel.
fn ln_inverse_beta(a: f64, b: f64) -> f64 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    if large < 100.0 {
        return ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b);
    }
    // ln Γ(x) = (x - ½) ln x - x + ½ ln 2π + stirling_error(x).
    let sum = small + large;
    let ratio = (large - 0.5) * (small / large).ln_1p() + small * sum.ln() - small;
    ratio + stirling_error(sum) - stirling_error(large) - ln_gamma(small)
}

fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    let mut c = 1.0;
    let mut d = 1.0 / not_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for number in 1..TERMS_MAX {
        let m = f64::from(number);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / not_zero(1.0 + even * d);
        c = not_zero(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / not_zero(1.0 + odd * d);
        c = not_zero(1.0 + odd / c);
        let change = d * c;
        fraction *= change;
        if (change - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    fraction
}

/// The probability that the absolute value of a variable with Student's distribution is
/// above `t`.
pub fn student_two_sided(t: f64, freedom: f64) -> f64 {
    let square = t * t;
    let sum = freedom + square;
    beta_lower(freedom / 2.0, 0.5, freedom / sum, square / sum)
}

/// The value that the absolute value of a variable with Student's distribution exceeds
/// with probability `p`, for `0 < p < 1`.
pub fn student_quantile(p: f64, freedom: f64) -> f64 {
    let mut low = 0.0;
    let mut high = normal_upper_quantile(p / 2.0).max(1.0);
    while student_two_sided(high, freedom) > p && high < 1e300 {
        low = high;
        high *= 2.0;
    }
    // Each step halves the interval, so the rounding error ends the loop.
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return middle;
        }
        if student_two_sided(middle, freedom) > p {
            low = middle;
        } else {
            high = middle;
        }
    }
}
