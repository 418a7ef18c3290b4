//! Random samples of a histogram, from a seed, and what they show by chance.

use super::drift::population_stability;

/// The number of samples for a floor.
const SAMPLES: usize = 1_000;

/// The floor is this quantile of what the samples show.
const FLOOR_QUANTILE: f64 = 0.999;

/// From this number of expected successes and failures on, the binomial distribution is
/// drawn as a normal one. Its skewness is then below 0.13.
const NORMAL_MIN: f64 = 64.0;

/// A generator of random numbers (splitmix64). The same seed gives the same numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts with a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number from 0 up to 1, without 1.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number with the standard normal distribution, by the method of Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// The number of successes in `trials`, each with probability `p`.
    pub fn binomial(&mut self, trials: u64, p: f64) -> u64 {
        if p > 0.5 {
            return trials - self.binomial(trials, 1.0 - p);
        }
        if trials == 0 || p <= 0.0 {
            return 0;
        }
        let n = trials as f64;
        if n * p >= NORMAL_MIN {
            let drawn = n * p + self.normal() * (n * p * (1.0 - p)).sqrt();
            return (drawn.round().max(0.0) as u64).min(trials);
        }
        // Inversion: the probabilities of 0, 1, 2 and so on, one after the other.
        let odds = p / (1.0 - p);
        let mut left = self.uniform();
        let mut term = (n * (-p).ln_1p()).exp();
        for successes in 0..trials {
            if left < term || (term == 0.0 && successes as f64 > n * p) {
                return successes;
            }
            left -= term;
            term *= (n - successes as f64) / (successes as f64 + 1.0) * odds;
        }
        trials
    }

    /// A sample of `size` from a distribution over bins, as the count of each bin.
    pub fn histogram(&mut self, size: u64, shares: &[f64]) -> Vec<f64> {
        let mut left = size;
        let mut share_left: f64 = shares.iter().sum();
        let draw = |share: &f64| {
            let p = (share / share_left).clamp(0.0, 1.0);
            let count = match share_left > 0.0 {
                true => self.binomial(left, p),
                false => 0,
            };
            left -= count;
            share_left -= share;
            count as f64
        };
        let mut counts: Vec<f64> = shares.iter().map(draw).collect();
        // Rounding may leave a rest.
        if let Some(largest) = counts.iter_mut().max_by(|one, other| one.total_cmp(other)) {
            *largest += left as f64;
        }
        counts
    }
}

/// What the population stability index of two histograms of one distribution reaches by
/// chance: the 99.9 % quantile of 1,000 seeded pairs of samples, one of `reference_size`
/// and one of `size`. `shares` draws the distribution of each pair, because the
/// reference may not be known exactly. `None` if a size is 0.
pub fn chance_floor(
    mut shares: impl FnMut(&mut Random) -> Vec<f64>,
    reference_size: u64,
    size: u64,
    seed: u64,
) -> Option<f64> {
    if reference_size == 0 || size == 0 {
        return None;
    }
    let mut random = Random::new(seed);
    let mut found: Vec<f64> = (0..SAMPLES)
        .filter_map(|_| {
            let shares = shares(&mut random);
            let one = random.histogram(reference_size, &shares);
            let other = random.histogram(size, &shares);
            population_stability(&one, &other)
        })
        .collect();
    found.sort_by(f64::total_cmp);
    let place = (FLOOR_QUANTILE * found.len() as f64).ceil() as usize;
    found.get(place.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_numbers_have_the_mean_and_the_variance_of_the_binomial_distribution() {
        let mut random = Random::new(1);
        for (trials, p) in [
            (10, 0.3),
            (1000, 0.004),
            (1000, 0.7),
            (100_000, 0.2),
            (5, 1.0),
            (7, 0.0),
        ] {
            let drawn: Vec<f64> = (0..20_000)
                .map(|_| random.binomial(trials, p) as f64)
                .collect();
            let n = drawn.len() as f64;
            let mean = drawn.iter().sum::<f64>() / n;
            let variance = drawn.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / n;
            let (wanted, spread) = (trials as f64 * p, trials as f64 * p * (1.0 - p));
            assert!(
                (mean - wanted).abs() <= 4.0 * (spread / n).sqrt(),
                "{trials} {p}: {mean}"
            );
            assert!(
                (variance - spread).abs() <= 0.06 * spread,
                "{trials} {p}: {variance}"
            );
        }
    }

    #[test]
    fn a_histogram_has_its_size_and_its_shares() {
        let mut random = Random::new(2);
        let counts = random.histogram(1_000_000, &[0.5, 0.0, 0.3, 0.2]);
        assert_eq!(counts.iter().sum::<f64>(), 1e6);
        assert_eq!(counts[1], 0.0);
        assert!((counts[2] - 3e5).abs() < 3_000.0, "{counts:?}");
    }

    #[test]
    fn two_samples_of_one_distribution_are_seldom_above_the_floor() {
        let shares = vec![0.1; 10];
        for (reference_size, size) in [(10_000, 50), (200, 1_000), (1_000, 100_000)] {
            let floor = chance_floor(|_| shares.clone(), reference_size, size, 7).unwrap();
            let mut random = Random::new(99);
            let alarms = (0..5_000).filter(|_| {
                let one = random.histogram(reference_size, &shares);
                let other = random.histogram(size, &shares);
                population_stability(&one, &other).unwrap() > floor
            });
            // One of a thousand is expected, and the floor itself is an estimate.
            let alarms = alarms.count();
            assert!(alarms <= 25, "{alarms} of 5000 above {floor}");
        }
    }
}
