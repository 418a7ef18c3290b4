//! Finds the minimum of a smooth convex function: the L-BFGS method (Nocedal 1980) with a
//! line search that backtracks.

use std::collections::VecDeque;

/// The number of earlier steps from which the curvature is estimated.
const MEMORY: usize = 12;

/// The share of the expected decrease that a step must reach.
const SUFFICIENT_DECREASE: f64 = 1e-4;

/// The largest number of trials in one line search.
const TRIALS_MAX: usize = 50;

/// The limits of a search.
#[derive(Clone, Copy, Debug)]
pub struct SearchLimits {
    /// The search ends when the norm of the gradient is at most this.
    pub gradient: f64,
    /// The largest number of steps.
    pub iterations_max: u64,
}

/// Starts at `point` and moves it to the minimum. `function` sets the gradient at a point
/// and returns the value. The search also ends if no step lowers the value any more.
/// Returns the norm of the last gradient.
pub fn minimise(
    point: &mut Vec<f64>,
    limits: SearchLimits,
    mut function: impl FnMut(&[f64], &mut [f64]) -> f64,
) -> f64 {
    let mut gradient = vec![0.0; point.len()];
    let mut value = function(point, &mut gradient);
    let mut history = VecDeque::with_capacity(MEMORY);
    let (mut next, mut next_gradient) = (point.clone(), gradient.clone());
    for _ in 0..limits.iterations_max {
        let norm = dot(&gradient, &gradient).sqrt();
        if norm.is_nan() || norm <= limits.gradient {
            break;
        }
        let mut direction = downhill(&gradient, &history);
        let mut slope = dot(&direction, &gradient);
        if slope.is_nan() || slope >= 0.0 {
            history.clear();
            direction = gradient.iter().map(|part| -part).collect();
            slope = -norm * norm;
        }
        // The curvature is not known before the first step, so the first step has the
        // length 1.
        let mut step = match history.is_empty() {
            true => 1.0 / norm,
            false => 1.0,
        };
        let mut found = None;
        for _ in 0..TRIALS_MAX {
            for ((next, old), way) in next.iter_mut().zip(&*point).zip(&direction) {
                *next = old + step * way;
            }
            let trial = function(&next, &mut next_gradient);
            if trial <= value + SUFFICIENT_DECREASE * step * slope {
                found = Some(trial);
                break;
            }
            step /= 2.0;
        }
        let Some(lower) = found else {
            break;
        };
        remember(&mut history, (point, &next), (&gradient, &next_gradient));
        std::mem::swap(point, &mut next);
        std::mem::swap(&mut gradient, &mut next_gradient);
        value = lower;
    }
    dot(&gradient, &gradient).sqrt()
}

/// A step: the change of the point, the change of the gradient, and 1 divided by the
/// product of the two.
struct Step {
    point: Vec<f64>,
    gradient: Vec<f64>,
    inverse: f64,
}

/// Adds the step between two points and their gradients to the history.
fn remember(history: &mut VecDeque<Step>, points: (&[f64], &[f64]), gradients: (&[f64], &[f64])) {
    let difference = |(old, new): (&[f64], &[f64])| -> Vec<f64> {
        new.iter().zip(old).map(|(new, old)| new - old).collect()
    };
    let (point, gradient) = (difference(points), difference(gradients));
    let product = dot(&point, &gradient);
    // Near the minimum, rounding can make the product meaningless. Such a step is not
    // kept.
    if product > f64::EPSILON * dot(&gradient, &gradient) {
        if history.len() == MEMORY {
            history.pop_front();
        }
        history.push_back(Step {
            point,
            gradient,
            inverse: 1.0 / product,
        });
    }
}

/// The direction of the next step: the gradient, multiplied by an estimate of the
/// inverse of the second derivative.
fn downhill(gradient: &[f64], history: &VecDeque<Step>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|part| -part).collect();
    let mut factors = Vec::with_capacity(history.len());
    for step in history.iter().rev() {
        let factor = step.inverse * dot(&step.point, &direction);
        add_scaled(&mut direction, -factor, &step.gradient);
        factors.push(factor);
    }
    if let Some(last) = history.back() {
        let scale = 1.0 / (last.inverse * dot(&last.gradient, &last.gradient));
        direction.iter_mut().for_each(|part| *part *= scale);
    }
    for (step, factor) in history.iter().zip(factors.into_iter().rev()) {
        let back = step.inverse * dot(&step.gradient, &direction);
        add_scaled(&mut direction, factor - back, &step.point);
    }
    direction
}

/// Adds `other`, multiplied by `factor`.
pub fn add_scaled(to: &mut [f64], factor: f64, other: &[f64]) {
    for (part, other) in to.iter_mut().zip(other) {
        *part += factor * other;
    }
}

/// The scalar product, with four sums that the processor can add at the same time.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (a_chunks, b_chunks) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let rest: f64 = rest.map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_minimum_of_a_bowl_is_found(
            middle in proptest::collection::vec(-10.0..10.0f64, 1..8),
            steepness in proptest::collection::vec(0.01..100.0f64, 8),
        ) {
            let mut point = vec![0.0; middle.len()];
            let limits = SearchLimits { gradient: 1e-9, iterations_max: 1000 };
            let norm = minimise(&mut point, limits, |point, gradient| {
                let mut value = 0.0;
                for (index, at) in point.iter().enumerate() {
                    let distance = at - middle[index];
                    gradient[index] = steepness[index] * distance;
                    value += steepness[index] * distance * distance / 2.0;
                }
                value
            });
            prop_assert!(norm <= 1e-6, "{norm}");
            for (found, middle) in point.iter().zip(&middle) {
                prop_assert!((found - middle).abs() < 1e-4);
            }
        }

        #[test]
        fn a_scalar_product_is_the_sum_of_the_products(
            pairs in proptest::collection::vec((-5i8..5, -5i8..5), 0..11),
        ) {
            let a: Vec<f64> = pairs.iter().map(|pair| f64::from(pair.0)).collect();
            let b: Vec<f64> = pairs.iter().map(|pair| f64::from(pair.1)).collect();
            let expected: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
            prop_assert_eq!(dot(&a, &b), expected);
        }
    }

    #[test]
    fn the_limit_of_steps_holds() {
        let mut point = vec![9.0];
        let limits = SearchLimits {
            gradient: 0.0,
            iterations_max: 1,
        };
        let norm = minimise(&mut point, limits, |point, gradient| {
            gradient[0] = 2.0 * point[0];
            point[0] * point[0]
        });
        assert_eq!((point[0], norm), (8.0, 16.0));
    }
}
