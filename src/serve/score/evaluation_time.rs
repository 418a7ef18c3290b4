//! Estimates how long the next evaluation takes, from the last ones.

use crate::wire::micros::Micros;

/// The weight of a new evaluation in the mean, and in the mean deviation.
const WEIGHT: f64 = 0.125;

/// The number of mean deviations that are added to the mean.
const DEVIATIONS: f64 = 2.0;

/// A moving mean of the evaluations, and their mean deviation from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct EvaluationTime {
    /// The mean in microseconds; `None` before the first evaluation.
    mean: Option<f64>,
    /// The mean deviation in microseconds.
    deviation: f64,
}

impl EvaluationTime {
    /// Notes an evaluation that took this long.
    pub fn note(&mut self, took: Micros) {
        let took = took.0 as f64;
        let Some(mean) = self.mean else {
            self.mean = Some(took);
            return;
        };
        self.deviation += WEIGHT * ((took - mean).abs() - self.deviation);
        self.mean = Some(mean + WEIGHT * (took - mean));
    }

    /// The time that an evaluation hardly exceeds; 0 before the first evaluation.
    pub fn expected(&self) -> Micros {
        let mean = self.mean.unwrap_or_default();
        Micros((mean + DEVIATIONS * self.deviation) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_the_evaluations() {
        let mut time = EvaluationTime::default();
        assert_eq!(time.expected(), Micros(0));
        time.note(Micros(20_000));
        assert_eq!(time.expected(), Micros(20_000));
        for _ in 0..100 {
            time.note(Micros(10_000));
            time.note(Micros(14_000));
        }
        // The mean is near 12 ms, and the mean deviation near 2 ms.
        let expected = time.expected().0;
        assert!((15_000..17_000).contains(&expected), "{expected}");
        for _ in 0..100 {
            time.note(Micros(1_000));
        }
        let expected = time.expected().0;
        assert!((1_000..1_100).contains(&expected), "{expected}");
    }
}
