//! Trains a linear regression: least squares with an L2 penalty, by the normal equations
//! of the standardised columns.

use anyhow::{Result, bail};

use crate::model::description::Hyperparameters;
use crate::model::linear::Linear;
use crate::model::prediction::Predictor;
use crate::train::lbfgs::add_scaled;
use crate::train::standardise::{Matrix, Scaling};
use crate::train::trainer::{Trainer, TrainingData};

/// The default weight of the L2 penalty.
const L2_DEFAULT: f64 = 1.0;

/// The largest number of columns. The time to solve the normal equations grows with the
/// third power of this number.
const COLUMNS_MAX: usize = 4000;

/// Numbers to add to the diagonal, as shares of its largest entry. They are tried in
/// this order, because the equations have no single solution if the columns depend on
/// each other and there is no penalty.
const JITTERS: [f64; 4] = [0.0, 1e-12, 1e-9, 1e-6];

/// Linear regression.
pub const TRAINER: Trainer = Trainer {
    defaults: Hyperparameters {
        l2: Some(L2_DEFAULT),
        ..Hyperparameters::NONE
    },
    fit,
};

fn fit(data: &TrainingData, parameters: &Hyperparameters) -> Result<Box<dyn Predictor>> {
    let scaling = Scaling::new(data)?;
    let width = scaling.width();
    if width > COLUMNS_MAX {
        bail!(
            "a linear regression takes up to {COLUMNS_MAX} columns, and here are {width}; use \
             random-forest, or leave out features"
        );
    }
    let matrix = scaling.matrix(&data.training);
    let targets = &data.training.targets;
    let target_mean = targets.iter().map(|target| target / targets.len() as f64);
    let target_mean = target_mean.sum::<f64>();
    let l2 = parameters.l2.unwrap_or(L2_DEFAULT);
    let Equations {
        means,
        gram,
        moments,
    } = Equations::new(&matrix, targets, target_mean);
    let Some(coefficients) = solve(gram, &moments, l2) else {
        bail!(
            "linear regression found no solution: the features or the target are too large, or \
             depend on each other; raise --l2, or leave out features"
        );
    };
    let offset = coefficients.iter().zip(&means);
    let offset = offset.map(|(weight, mean)| weight * mean).sum::<f64>();
    let coefficients = scaling.in_model_order(&coefficients);
    let model = Linear {
        categories: scaling.one_hot,
        means: scaling.means,
        scales: scaling.scales,
        intercept: target_mean - offset,
        coefficients,
    };
    Ok(Box::new(model))
}

/// The normal equations.
struct Equations {
    /// The mean of each column. It is not 0 for the columns of categories.
    means: Vec<f64>,
    /// The products of the centred columns with each other: the rows of a symmetric
    /// matrix, of which only the lower half is set.
    gram: Vec<Vec<f64>>,
    /// The products of the centred columns with the centred target.
    moments: Vec<f64>,
}

impl Equations {
    /// Adds the products of the columns as they are, and subtracts those of their means
    /// in the end. So a row costs only the products of the values that differ from 0. The
    /// columns are standardised, so this costs no precision.
    fn new(matrix: &Matrix, targets: &[f64], target_mean: f64) -> Equations {
        let width = matrix.width;
        let count = targets.len().max(1) as f64;
        let mut sums = vec![0.0; width];
        let mut moments = vec![0.0; width];
        let mut target_sum = 0.0;
        let mut gram: Vec<Vec<f64>> = (0..width).map(|row| vec![0.0; row + 1]).collect();
        for (index, target) in targets.iter().enumerate() {
            let row = matrix.row(index);
            let target = target - target_mean;
            target_sum += target;
            row.add_to(&mut sums, 1.0);
            row.add_to(&mut moments, target);
            for (line, value) in gram.iter_mut().zip(row.values) {
                let others = &row.values[..line.len()];
                add_scaled(line, *value, others);
            }
            for (position, column) in row.ones().enumerate() {
                let line = &mut gram[column];
                add_scaled(&mut line[..row.values.len()], 1.0, row.values);
                for earlier in row.ones().take(position + 1) {
                    line[earlier] += 1.0;
                }
            }
        }
        let means: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
        for (row, line) in gram.iter_mut().enumerate() {
            add_scaled(line, -sums[row], &means[..=row]);
        }
        add_scaled(&mut moments, -target_sum, &means);
        Equations {
            means,
            gram,
            moments,
        }
    }
}

/// Solves `(gram + l2) x = moments` by a Cholesky decomposition. Returns `None` if the
/// solution is not finite.
fn solve(gram: Vec<Vec<f64>>, moments: &[f64], l2: f64) -> Option<Vec<f64>> {
    let diagonal = gram.iter().enumerate().map(|(row, line)| line[row]);
    let largest = diagonal.fold(0.0, f64::max);
    if largest == 0.0 {
        return Some(vec![0.0; moments.len()]);
    }
    for jitter in JITTERS {
        let added = l2 + jitter * largest;
        let solution = decompose(gram.clone(), added, largest);
        let solution = solution.map(|factor| substitute(&factor, moments));
        if let Some(solution) = solution
            && solution.iter().all(|weight| weight.is_finite())
        {
            return Some(solution);
        }
    }
    None
}

/// The lower triangular factor of `matrix` with `added` on its diagonal. Returns `None`
/// if a pivot is not clearly positive.
fn decompose(mut matrix: Vec<Vec<f64>>, added: f64, largest: f64) -> Option<Vec<Vec<f64>>> {
    for row in 0..matrix.len() {
        let (done, rest) = matrix.split_at_mut(row);
        let line = &mut rest[0];
        line[row] += added;
        for column in 0..row {
            let above = &done[column];
            let dot: f64 = line[..column].iter().zip(above).map(|(a, b)| a * b).sum();
            line[column] = (line[column] - dot) / above[column];
        }
        let squares: f64 = line[..row].iter().map(|value| value * value).sum();
        let pivot = line[row] - squares;
        if pivot.is_nan() || pivot <= largest * 1e-14 {
            return None;
        }
        line[row] = pivot.sqrt();
    }
    Some(matrix)
}

/// Solves `factor * transposed factor * x = right`.
fn substitute(factor: &[Vec<f64>], right: &[f64]) -> Vec<f64> {
    let mut solution = right.to_vec();
    for row in 0..solution.len() {
        let dot = factor[row][..row].iter().zip(&solution);
        let dot: f64 = dot.map(|(a, b)| a * b).sum();
        solution[row] = (solution[row] - dot) / factor[row][row];
    }
    for row in (0..solution.len()).rev() {
        let dot = (row + 1..solution.len()).map(|below| factor[below][row] * solution[below]);
        let dot: f64 = dot.sum();
        solution[row] = (solution[row] - dot) / factor[row][row];
    }
    solution
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::prediction::Prediction;
    use crate::train::tests::{category, numbers_data};

    fn fitted(data: &TrainingData, l2: f64) -> Box<dyn Predictor> {
        let parameters = Hyperparameters {
            l2: Some(l2),
            ..Hyperparameters::NONE
        };
        let model = fit(data, &parameters).unwrap();
        assert_eq!(model.check(data.features, 0), Ok(()));
        model
    }

    fn number(model: &dyn Predictor, row: &[f64]) -> f64 {
        match model.predict(row, &mut []) {
            Prediction::Number(number) => number,
            Prediction::Class(_) => panic!("a number was expected"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_plane_is_found_exactly(
            weights in proptest::collection::vec(-3.0..3.0f64, 3),
            values in proptest::collection::vec(-5.0..5.0f64, 3 * 40),
            offset in prop_oneof![Just(0.0), Just(1e6)],
        ) {
            let features = ["a", "b", "c"].map(crate::model::feature::Feature::number);
            let plane = |row: &[f64]| -> f64 {
                offset + row.iter().zip(&weights).map(|(value, weight)| value * weight).sum::<f64>()
            };
            let targets = values.chunks(3).map(plane).collect();
            let data = numbers_data(&features, values.clone(), targets);
            let model = fitted(&data, 0.0);
            for row in values.chunks(3) {
                prop_assert!((number(&*model, row) - plane(row)).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn each_category_gets_its_own_level_and_an_unknown_one_gets_none() {
        let features = [category("kind", &["a", "b", "c"])];
        let values: Vec<f64> = (0..30).map(|row| f64::from(row % 3)).collect();
        let targets: Vec<f64> = values
            .iter()
            .map(|code| [1.0, 5.0, 9.0][*code as usize])
            .collect();
        let data = numbers_data(&features, values, targets);
        // The columns depend on each other, so a solution is found only after a number
        // has been added to the diagonal.
        let model = fitted(&data, 0.0);
        for (code, level) in [(0.0, 1.0), (1.0, 5.0), (2.0, 9.0)] {
            assert!((number(&*model, &[code]) - level).abs() < 1e-3);
        }
        // The penalty draws the levels towards the mean of the target.
        let model = fitted(&data, 10.0);
        assert!(number(&*model, &[0.0]) > 2.0);
        assert!((number(&*model, &[3.0]) - 5.0).abs() < 1e-6);
    }

    #[test]
    fn a_constant_column_changes_nothing() {
        let features = ["a", "b"].map(crate::model::feature::Feature::number);
        let values: Vec<f64> = (0..20).flat_map(|row| [f64::from(row), 7.0]).collect();
        let targets = (0..20).map(|row| 2.0 * f64::from(row) + 1.0).collect();
        let data = numbers_data(&features, values, targets);
        let model = fitted(&data, 0.0);
        assert!((number(&*model, &[30.0, 7.0]) - 61.0).abs() < 1e-6);
    }
}
