//! Trains a multinomial logistic regression on standardised columns, with an L2 penalty.

use std::num::NonZero;

use anyhow::{Result, anyhow};

use crate::model::description::Hyperparameters;
use crate::model::logistic::Logistic;
use crate::model::prediction::Predictor;
use crate::train::lbfgs::{SearchLimits, add_scaled, dot, minimise};
use crate::train::standardise::{Matrix, Scaling};
use crate::train::trainer::{Trainer, TrainingData};

/// The default weight of the L2 penalty.
const L2_DEFAULT: f64 = 1.0;

/// The default limit of iterations.
const ITERATIONS_MAX_DEFAULT: u64 = 1000;

/// The training has converged if the norm of the gradient, divided by the weight of the
/// rows, is at most this.
const GRADIENT_MAX: f64 = 1e-4;

/// The training goes on until the norm of the gradient, divided by the weight of the
/// rows, is at most this.
const GRADIENT_TARGET: f64 = 1e-5;

/// The number of blocks of rows that threads can work on.
const BLOCKS: usize = 16;

/// The smallest number of products for which the rows are divided into blocks.
const THREADED_TERMS_MIN: usize = 100_000;

/// Logistic regression.
pub const TRAINER: Trainer = Trainer {
    defaults: Hyperparameters {
        l2: Some(L2_DEFAULT),
        max_iterations: Some(ITERATIONS_MAX_DEFAULT),
        ..Hyperparameters::NONE
    },
    fit,
};

fn fit(data: &TrainingData, parameters: &Hyperparameters) -> Result<Box<dyn Predictor>> {
    Ok(Box::new(train(data, parameters)?))
}

fn train(data: &TrainingData, parameters: &Hyperparameters) -> Result<Logistic> {
    let scaling = Scaling::new(data)?;
    let problem = Problem::new(data, &scaling, parameters.l2.unwrap_or(L2_DEFAULT));
    let iterations_max = parameters.max_iterations.unwrap_or(ITERATIONS_MAX_DEFAULT);
    let limits = SearchLimits {
        gradient: GRADIENT_TARGET * problem.total_weight,
        iterations_max,
    };
    let mut point = vec![0.0; (problem.matrix.width + 1) * problem.outputs];
    let gradient = minimise(&mut point, limits, |point, gradient| {
        problem.loss(point, gradient)
    });
    let gradient = gradient / problem.total_weight;
    if gradient.is_nan() || gradient > GRADIENT_MAX {
        return Err(not_converged(&format!(
            "the gradient is still {gradient:.1e} per row after at most {iterations_max} iterations"
        )));
    }
    let model = problem.model(&point, scaling);
    model
        .check(data.features, data.class_count)
        .map_err(|fault| not_converged(&fault))?;
    Ok(model)
}

fn not_converged(reason: &str) -> anyhow::Error {
    anyhow!(
        "logistic regression found no solution: {reason}; raise --l2 or --max-iterations, or leave \
         out features"
    )
}

/// The function to minimise. A point holds, for each output, one weight per column. The
/// intercepts follow after all weights.
struct Problem<'d> {
    matrix: Matrix,
    /// The number of outputs. It equals the number of classes, except that two classes
    /// need only 1 output, because the weights of the first class are 0.
    outputs: usize,
    class_of: &'d [u32],
    /// The weight of each row.
    weights: Vec<f64>,
    total_weight: f64,
    l2: f64,
    threads: usize,
}

impl<'d> Problem<'d> {
    fn new(data: &'d TrainingData, scaling: &Scaling, l2: f64) -> Problem<'d> {
        let class_of = &data.training.class_of;
        let weight = |class: &u32| data.class_weights.get(*class as usize).copied();
        let weights = class_of.iter().map(|class| weight(class).unwrap_or(1.0));
        let weights: Vec<f64> = weights.collect();
        Problem {
            matrix: scaling.matrix(&data.training),
            outputs: match data.class_count {
                2 => 1,
                classes => classes,
            },
            class_of,
            total_weight: weights.iter().sum(),
            weights,
            l2,
            threads: data.threads.map_or(1, NonZero::get),
        }
    }

    /// Returns the loss at `point`, and sets its gradient. The loss is the sum over the
    /// rows of the row's weight times the negative logarithm of the probability of its
    /// class, plus half of the penalty times the sum of the squared weights. The
    /// intercepts have no penalty.
    fn loss(&self, point: &[f64], gradient: &mut [f64]) -> f64 {
        // The blocks do not depend on the number of threads, so neither do the sums.
        let count = match self.matrix.len() * self.outputs {
            small if small < THREADED_TERMS_MIN => 1,
            _ => BLOCKS,
        };
        let rows_per_block = self.class_of.len().div_ceil(count).max(1);
        let mut blocks: Vec<Block> = (0..count)
            .map(|block| Block {
                start: block * rows_per_block,
                end: ((block + 1) * rows_per_block).min(self.class_of.len()),
                loss: 0.0,
                gradient: vec![0.0; gradient.len()],
            })
            .collect();
        let blocks_per_thread = count.div_ceil(self.threads);
        std::thread::scope(|scope| {
            let mut shares = blocks.chunks_mut(blocks_per_thread);
            let own = shares.next();
            for share in shares {
                scope.spawn(|| {
                    share
                        .iter_mut()
                        .for_each(|block| self.add_block(point, block))
                });
            }
            for block in own.into_iter().flatten() {
                self.add_block(point, block);
            }
        });
        gradient.fill(0.0);
        let mut loss = 0.0;
        for block in &blocks {
            loss += block.loss;
            add_scaled(gradient, 1.0, &block.gradient);
        }
        let (weights, _) = point.split_at(self.matrix.width * self.outputs);
        add_scaled(&mut gradient[..weights.len()], self.l2, weights);
        loss + self.l2 / 2.0 * dot(weights, weights)
    }

    /// Computes the loss and the gradient of the rows of a block.
    fn add_block(&self, point: &[f64], block: &mut Block) {
        let width = self.matrix.width;
        let (weights, intercepts) = point.split_at(width * self.outputs);
        let mut scores = vec![0.0; self.outputs];
        for index in block.start..block.end {
            let row = self.matrix.row(index);
            let class = self.class_of[index] as usize;
            let row_weight = self.weights[index];
            let of_outputs = weights.chunks_exact(width).zip(intercepts);
            for (score, (weights, intercept)) in scores.iter_mut().zip(of_outputs) {
                *score = intercept + row.dot(weights);
            }
            block.loss += row_weight
                * match self.outputs {
                    1 => binary_loss(class == 1, &mut scores),
                    _ => multinomial_loss(class, &mut scores),
                };
            // From here on, the scores are the derivatives of the row's loss.
            scores.iter_mut().for_each(|slope| *slope *= row_weight);
            let (of_weights, of_intercepts) = block.gradient.split_at_mut(weights.len());
            for (part, slope) in of_weights.chunks_exact_mut(width).zip(&scores) {
                row.add_to(part, *slope);
            }
            add_scaled(of_intercepts, 1.0, &scores);
        }
    }

    /// The model at `point`.
    fn model(&self, point: &[f64], scaling: Scaling) -> Logistic {
        let per_class = |outputs: Vec<f64>| match outputs[..] {
            [second] => vec![0.0, second],
            _ => outputs,
        };
        let (weights, intercepts) = point.split_at(self.matrix.width * self.outputs);
        let width = self.matrix.width;
        let weights = weights.chunks_exact(width);
        let weights: Vec<Vec<f64>> = weights.map(|all| scaling.in_model_order(all)).collect();
        let of_column =
            |column: usize| per_class(weights.iter().map(|weights| weights[column]).collect());
        Logistic {
            categories: scaling.one_hot,
            means: scaling.means,
            scales: scaling.scales,
            intercepts: per_class(intercepts.to_vec()),
            coefficients: (0..width).map(of_column).collect(),
        }
    }
}

/// Some of the rows, and the sums over these rows.
struct Block {
    start: usize,
    end: usize,
    loss: f64,
    gradient: Vec<f64>,
}

/// The loss of a row of two classes. Replaces the score by the derivative.
fn binary_loss(is_second: bool, scores: &mut [f64]) -> f64 {
    let score = scores[0];
    let probability = 1.0 / (1.0 + (-score).exp());
    scores[0] = probability - f64::from(is_second);
    // This is ln(1 + exp(-x)), in a form that cannot overflow.
    let margin = if is_second { score } else { -score };
    (-margin).max(0.0) + (-margin.abs()).exp().ln_1p()
}

/// The loss of a row of several classes. Replaces the scores by the derivatives.
fn multinomial_loss(class: usize, scores: &mut [f64]) -> f64 {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let own = scores[class] - largest;
    let mut total = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        total += *score;
    }
    for score in scores.iter_mut() {
        *score /= total;
    }
    scores[class] -= 1.0;
    total.ln() - own
}

#[cfg(test)]
mod tests {
    use linfa::DatasetBase;
    use linfa::traits::Fit;
    use linfa_logistic::MultiLogisticRegression;
    use proptest::prelude::*;

    use super::*;
    use crate::model::feature::Feature;
    use crate::train::linfa_rows::{classes, matrix};
    use crate::train::table::Rows;
    use crate::train::tests::{category, classes_data};

    const PARAMETERS: Hyperparameters = Hyperparameters {
        l2: Some(1.0),
        max_iterations: Some(1000),
        ..Hyperparameters::NONE
    };

    fn names(count: usize) -> Vec<Feature> {
        { 0..count }
            .map(|index| Feature::number(format!("f{index}")))
            .collect()
    }

    /// A matrix of numbers.
    fn dense(width: usize, values: Vec<f64>) -> Matrix {
        Matrix {
            width,
            numbers: width,
            features: 0,
            values,
            ones: Vec::new(),
        }
    }

    /// The probabilities that linfa-logistic computes for standardised rows.
    fn by_linfa(rows: &Rows) -> Vec<Vec<f64>> {
        let dataset = DatasetBase::new(matrix(rows).unwrap(), classes(rows));
        let fitted = MultiLogisticRegression::default()
            .alpha(1.0)
            .max_iterations(5000)
            .gradient_tolerance(1e-7 * rows.len() as f64)
            .fit(&dataset)
            .unwrap();
        let probabilities = fitted.predict_probabilities(&matrix(rows).unwrap());
        let lines = probabilities.outer_iter();
        lines.map(|line| line.to_vec()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_probabilities_agree_with_linfa(
            values in proptest::collection::vec(-5.0..5.0f64, 3 * 60),
            class_count in 3u32..5,
            shift in prop_oneof![Just(0.0), Just(1e6)],
        ) {
            let shifted = values.iter().map(|value| value + shift).collect();
            let class_of: Vec<u32> = (0..60).map(|index| index * 7 / 3 % class_count).collect();
            let features = names(3);
            let data = classes_data(&features, shifted, class_of.clone());
            let fitted = train(&data, &PARAMETERS).unwrap();
            prop_assert_eq!(&fitted, &train(&data, &PARAMETERS).unwrap());
            let scaling = Scaling::new(&data).unwrap();
            let standard = Rows {
                width: 3,
                values: scaling.matrix(&data.training).values,
                class_of,
                ..Rows::default()
            };
            let mut probabilities = vec![0.0; class_count as usize];
            for (index, expected) in by_linfa(&standard).iter().enumerate() {
                fitted.classify(data.training.row(index), &mut probabilities);
                for (own, expected) in probabilities.iter().zip(expected) {
                    prop_assert!((own - expected).abs() < 1e-3, "{own} {expected}");
                }
            }
        }

        #[test]
        fn a_gradient_is_the_slope_of_the_loss(
            values in proptest::collection::vec(-2.0..2.0f64, 2 * 12),
            point in proptest::collection::vec(-1.0..1.0f64, 9),
            class_count in 2u32..4,
        ) {
            let features = names(2);
            let class_of = (0..12).map(|row| row % class_count).collect();
            let mut data = classes_data(&features, values, class_of);
            data.class_weights = vec![0.5, 2.0, 3.0][..class_count as usize].to_vec();
            let scaling = Scaling::new(&data).unwrap();
            let problem = Problem::new(&data, &scaling, 0.7);
            let mut gradient = vec![0.0; 3 * problem.outputs];
            let mut unused = gradient.clone();
            let point = &point[..gradient.len()];
            problem.loss(point, &mut gradient);
            for index in 0..point.len() {
                let mut at = |change: f64| {
                    let mut moved = point.to_vec();
                    moved[index] += change;
                    problem.loss(&moved, &mut unused)
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                prop_assert!((slope - gradient[index]).abs() < 1e-5, "{slope} {gradient:?}");
            }
        }
    }

    #[test]
    fn one_hot_columns_are_as_by_hand() {
        // Trains once with a feature of categories, and once with its columns made by
        // hand.
        let codes: Vec<f64> = (0..40).map(|row| f64::from(row * 7 % 3)).collect();
        let class_of: Vec<u32> = (0..40).map(|row| u32::from(row * 11 % 5 > 2)).collect();
        let feature = [category("kind", &["a", "b", "c"])];
        let data = classes_data(&feature, codes.clone(), class_of.clone());
        let fitted = train(&data, &PARAMETERS).unwrap();
        let by_hand = Problem {
            matrix: dense(
                3,
                codes
                    .iter()
                    .flat_map(|code| [0.0, 1.0, 2.0].map(|own| f64::from(own == *code)))
                    .collect(),
            ),
            outputs: 1,
            class_of: &class_of,
            weights: vec![1.0; 40],
            total_weight: 40.0,
            l2: 1.0,
            threads: 1,
        };
        let mut point = vec![0.0; 4];
        let limits = SearchLimits {
            gradient: 1e-9,
            iterations_max: 1000,
        };
        minimise(&mut point, limits, |point, gradient| {
            by_hand.loss(point, gradient)
        });
        for (found, by_hand) in fitted.coefficients.iter().zip(&point) {
            assert!((found[1] - by_hand).abs() < 1e-4, "{fitted:?} {point:?}");
        }
        // An unknown category has no column, so only the intercept counts.
        let mut probabilities = [0.0; 2];
        fitted.classify(&[3.0], &mut probabilities);
        let expected = 1.0 / (1.0 + (-fitted.intercepts[1]).exp());
        assert!((probabilities[1] - expected).abs() < 1e-12);
    }

    #[test]
    fn weights_are_as_repeated_rows() {
        let features = names(1);
        let values: Vec<f64> = (0..20).map(f64::from).collect();
        let class_of: Vec<u32> = (0..20).map(|row| u32::from(row % 7 > 3)).collect();
        let mut data = classes_data(&features, values.clone(), class_of.clone());
        data.class_weights = vec![1.0, 3.0];
        let scaling = Scaling::new(&data).unwrap();
        let weighted = Problem::new(&data, &scaling, 1.0);
        let repeat = |row: &usize| if class_of[*row] == 1 { 3 } else { 1 };
        let rows = (0..20).flat_map(|row| std::iter::repeat_n(row, repeat(&row)));
        let rows: Vec<usize> = rows.collect();
        let repeated_classes: Vec<u32> = rows.iter().map(|row| class_of[*row]).collect();
        let repeated = Problem {
            matrix: dense(
                1,
                rows.iter()
                    .map(|row| weighted.matrix.values[*row])
                    .collect(),
            ),
            outputs: 1,
            class_of: &repeated_classes,
            weights: vec![1.0; rows.len()],
            total_weight: rows.len() as f64,
            l2: 1.0,
            threads: 1,
        };
        let (mut a, mut b) = ([0.0; 2], [0.0; 2]);
        let losses = [
            weighted.loss(&[0.3, -0.2], &mut a),
            repeated.loss(&[0.3, -0.2], &mut b),
        ];
        assert!((losses[0] - losses[1]).abs() < 1e-9);
        assert!((a[0] - b[0]).abs() < 1e-9 && (a[1] - b[1]).abs() < 1e-9);
    }

    #[test]
    fn threads_change_no_bit_of_a_large_problem() {
        let features = names(5);
        let values = (0..50_000)
            .map(|index| f64::from(index * 7919 % 1013))
            .collect();
        let class_of = (0..10_000).map(|row| row * 31 % 97 % 3).collect();
        let mut data = classes_data(&features, values, class_of);
        let one = train(&data, &PARAMETERS).unwrap();
        for threads in [2, 3, 40] {
            data.threads = NonZero::new(threads);
            assert_eq!(train(&data, &PARAMETERS).unwrap(), one);
        }
    }

    #[test]
    fn a_constant_column_can_be_trained_on() {
        for constant in [0.1, 0.0, -1e300] {
            let features = names(2);
            let values = (0..20).flat_map(|row| [f64::from(row), constant]).collect();
            let class_of = (0..20).map(|row| u32::from(row > 9)).collect();
            let data = classes_data(&features, values, class_of);
            let fitted = train(&data, &PARAMETERS).unwrap();
            assert_eq!((fitted.means[1], fitted.scales[1]), (constant, 1.0));
            let mut probabilities = [0.0; 2];
            assert_eq!(fitted.classify(&[19.0, constant], &mut probabilities), 1);
        }
    }

    #[test]
    fn a_problem_without_a_solution_is_an_error_with_a_remedy() {
        let features = names(1);
        let data = |scale: f64| {
            let values = (0..20).map(|row| f64::from(row) * scale).collect();
            let class_of = (0..20).map(|row| u32::from(row > 9)).collect();
            classes_data(&features, values, class_of)
        };
        let few = Hyperparameters {
            max_iterations: Some(1),
            ..PARAMETERS
        };
        let error = train(&data(1.0), &few).unwrap_err();
        assert!(error.to_string().contains("--max-iterations"), "{error}");
        let error = train(&data(1e307), &PARAMETERS).unwrap_err();
        assert!(
            error.to_string().contains("\"f0\" are too large"),
            "{error}"
        );
    }
}
