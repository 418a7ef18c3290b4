//! The agreement over time, in a bounded number of steps.

use crate::wire::micros::Micros;

/// The largest number of steps. When there are more, neighbours are merged.
const STEPS_MAX: usize = 200;

/// The least number of pairs of a step that is shown.
const PLOTTED_MIN: u64 = 20;

/// Some requests in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The pairs.
    pub pairs: u64,
    /// The pairs with equal answers.
    pub same: u64,
    /// The time of the first request, if it is known.
    pub from: Option<Micros>,
}

/// The steps so far. All steps but the last have the same number of pairs.
#[derive(Clone, Debug)]
pub struct Trend {
    length: u64,
    steps: Vec<Step>,
}

impl Default for Trend {
    fn default() -> Trend {
        Trend {
            length: 1,
            steps: Vec::new(),
        }
    }
}

impl Trend {
    /// Adds a pair.
    pub fn add(&mut self, is_same: bool, time: Option<Micros>) {
        if self
            .steps
            .last()
            .is_none_or(|last| last.pairs >= self.length)
        {
            if self.steps.len() >= STEPS_MAX {
                self.merge();
            }
            self.steps.push(Step {
                from: time,
                ..Step::default()
            });
        }
        if let Some(last) = self.steps.last_mut() {
            last.pairs += 1;
            last.same += u64::from(is_same);
        }
    }

    fn merge(&mut self) {
        let merged = self.steps.chunks(2).map(|pair| Step {
            pairs: pair.iter().map(|step| step.pairs).sum(),
            same: pair.iter().map(|step| step.same).sum(),
            from: pair[0].from,
        });
        self.steps = merged.collect();
        self.length *= 2;
    }

    /// The steps in their order, each with enough pairs for a rate.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for step in &self.steps {
            match steps.last_mut() {
                Some(last) if last.pairs < PLOTTED_MIN => {
                    last.pairs += step.pairs;
                    last.same += step.same;
                }
                _ => steps.push(*step),
            }
        }
        // The rest of the input may have too few.
        if let Some(last) = steps.pop_if(|last| last.pairs < PLOTTED_MIN)
            && let Some(before) = steps.last_mut()
        {
            before.pairs += last.pairs;
            before.same += last.same;
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_bounded_and_lose_no_pair() {
        let mut trend = Trend::default();
        for number in 0..100_000 {
            trend.add(number % 3 == 0, Some(Micros(number)));
        }
        let steps = trend.steps();
        assert!(steps.len() <= STEPS_MAX && steps.len() > STEPS_MAX / 4);
        assert_eq!(steps.iter().map(|step| step.pairs).sum::<u64>(), 100_000);
        assert_eq!(steps.iter().map(|step| step.same).sum::<u64>(), 33_334);
        // Few pairs make few steps.
        let mut short = Trend::default();
        for number in 0..50 {
            short.add(number != 45, None);
        }
        let pairs: Vec<_> = short.steps().iter().map(|it| (it.pairs, it.same)).collect();
        assert_eq!(pairs, [(20, 20), (30, 29)]);
        assert_eq!(steps[1].from, Some(Micros(steps[0].pairs as i64)));
    }
}
