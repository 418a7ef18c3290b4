//! The matrix from which linear models are trained: standardised columns for numbers, and
//! one-hot columns for categories.

use anyhow::{Result, bail};

use crate::model::logistic::standardised;
use crate::model::one_hot::{COLUMNS_MAX, OneHot};
use crate::stage::report::shown;
use crate::train::lbfgs::{add_scaled, dot};
use crate::train::table::Rows;
use crate::train::trainer::TrainingData;

/// The entry of a row that has a category which the model does not know.
const NO_COLUMN: u32 = u32::MAX;

/// The columns and their scaling.
#[derive(Debug)]
pub struct Scaling {
    /// The columns that the features become.
    pub one_hot: OneHot,
    /// For each column, the mean; 0 for a category.
    pub means: Vec<f64>,
    /// For each column, the standard deviation; 1 for a category and for a constant.
    pub scales: Vec<f64>,
    /// The features that are numbers, and the column of each.
    numbers: Vec<(usize, usize)>,
    /// The features with categories.
    categories: Vec<CategoryColumns>,
}

/// The columns of a feature with categories.
#[derive(Debug)]
struct CategoryColumns {
    feature: usize,
    /// The first of its columns.
    column: usize,
    count: usize,
}

impl Scaling {
    /// The scaling of the training rows.
    pub fn new(data: &TrainingData) -> Result<Scaling> {
        let one_hot = OneHot::new(data.features);
        let width = one_hot.width(data.features.len());
        if width > COLUMNS_MAX {
            bail!(
                "the categories need {width} columns, which are too many for this algorithm; use \
                 random-forest, or leave out features"
            );
        }
        let mut scaling = Scaling {
            one_hot,
            means: Vec::with_capacity(width),
            scales: Vec::with_capacity(width),
            numbers: Vec::new(),
            categories: Vec::new(),
        };
        let moments = Moments::of(&data.training);
        for (index, feature) in data.features.iter().enumerate() {
            let column = scaling.means.len();
            if let Some(categories) = feature.categories() {
                let count = categories.len();
                scaling.means.resize(column + count, 0.0);
                scaling.scales.resize(column + count, 1.0);
                scaling.categories.push(CategoryColumns {
                    feature: index,
                    column,
                    count,
                });
                continue;
            }
            let (mean, scale) = moments.mean_and_scale(index);
            if !mean.is_finite() || !scale.is_finite() || scale <= 0.0 {
                bail!(
                    "the values of {} are too large to be standardised; scale that column down",
                    shown(&feature.name)
                );
            }
            scaling.means.push(mean);
            scaling.scales.push(scale);
            scaling.numbers.push((index, column));
        }
        Ok(scaling)
    }

    /// The number of columns.
    pub fn width(&self) -> usize {
        self.means.len()
    }

    /// The matrix of some rows.
    pub fn matrix(&self, rows: &Rows) -> Matrix {
        let mut values = Vec::with_capacity(rows.len() * self.numbers.len());
        let mut ones = Vec::with_capacity(rows.len() * self.categories.len());
        for row in rows.values.chunks_exact(rows.width.max(1)) {
            values.extend(self.numbers.iter().map(|(feature, column)| {
                standardised(row[*feature], self.means[*column], self.scales[*column])
            }));
            let mut first = self.numbers.len();
            for one in &self.categories {
                let code = row[one.feature];
                ones.push(match (0.0..one.count as f64).contains(&code) {
                    true => first as u32 + code as u32,
                    false => NO_COLUMN,
                });
                first += one.count;
            }
        }
        Matrix {
            width: self.width(),
            numbers: self.numbers.len(),
            features: self.categories.len(),
            values,
            ones,
        }
    }

    /// Puts one value for each column of the matrix into the order of the columns of the
    /// model.
    pub fn in_model_order(&self, values: &[f64]) -> Vec<f64> {
        let numbers = self.numbers.iter().map(|(_, column)| *column);
        let categories = self.categories.iter();
        let categories = categories.flat_map(|one| one.column..one.column + one.count);
        let mut ordered = vec![0.0; values.len()];
        for (column, value) in numbers.chain(categories).zip(values) {
            ordered[column] = *value;
        }
        ordered
    }
}

/// Standardised rows. The columns of numbers come first, and then those of the
/// categories. Of the columns of one feature with categories, at most one is 1, and the
/// others are 0. Only the column that is 1 is stored.
#[derive(Debug)]
pub struct Matrix {
    /// The number of columns.
    pub width: usize,
    /// The number of columns of numbers.
    pub numbers: usize,
    /// The number of features with categories.
    pub features: usize,
    /// The columns of numbers, row after row.
    pub values: Vec<f64>,
    /// For each row and each feature with categories, the column that is 1.
    pub ones: Vec<u32>,
}

impl Matrix {
    /// The number of values that differ from 0.
    pub fn len(&self) -> usize {
        self.values.len() + self.ones.len()
    }

    /// The row at this index.
    #[inline]
    pub fn row(&self, index: usize) -> MatrixRow<'_> {
        MatrixRow {
            values: &self.values[index * self.numbers..(index + 1) * self.numbers],
            ones: &self.ones[index * self.features..(index + 1) * self.features],
        }
    }
}

/// A row of a [`Matrix`].
#[derive(Clone, Copy, Debug)]
pub struct MatrixRow<'m> {
    /// The columns of numbers, which are the first ones.
    pub values: &'m [f64],
    ones: &'m [u32],
}

impl MatrixRow<'_> {
    /// The columns of categories that are 1, in ascending order.
    pub fn ones(&self) -> impl Iterator<Item = usize> + Clone {
        let known = self.ones.iter().filter(|column| **column != NO_COLUMN);
        known.map(|column| *column as usize)
    }

    /// The scalar product with one weight for each column.
    #[inline]
    pub fn dot(&self, weights: &[f64]) -> f64 {
        let sum = dot(self.values, &weights[..self.values.len()]);
        sum + self.ones().map(|column| weights[column]).sum::<f64>()
    }

    /// Adds the row, multiplied by `factor`.
    #[inline]
    pub fn add_to(&self, to: &mut [f64], factor: f64) {
        add_scaled(&mut to[..self.values.len()], factor, self.values);
        for column in self.ones() {
            to[column] += factor;
        }
    }
}

/// For each feature, what its mean and its scale are computed from. All features are
/// computed together, so that the rows are read in their order.
struct Moments {
    lowest: Vec<f64>,
    is_constant: Vec<bool>,
    means: Vec<f64>,
    variances: Vec<f64>,
}

impl Moments {
    fn of(rows: &Rows) -> Moments {
        let count = rows.len() as f64;
        let mut lowest = vec![f64::INFINITY; rows.width];
        let mut highest = vec![f64::NEG_INFINITY; rows.width];
        each_value(rows, |feature, value| {
            lowest[feature] = lowest[feature].min(value);
            highest[feature] = highest[feature].max(value);
        });
        // The lowest value is subtracted from all, so that a large offset costs no
        // precision.
        let mut means = vec![0.0; rows.width];
        each_value(rows, |feature, value| {
            means[feature] += (value - lowest[feature]) / count;
        });
        for (mean, lowest) in means.iter_mut().zip(&lowest) {
            *mean += lowest;
        }
        let mut variances = vec![0.0; rows.width];
        each_value(rows, |feature, value| {
            variances[feature] += (value - means[feature]).powi(2) / count;
        });
        let is_constant = lowest.iter().zip(&highest).map(|(a, b)| a == b);
        Moments {
            is_constant: is_constant.collect(),
            lowest,
            means,
            variances,
        }
    }

    /// The mean of a feature and its standard deviation. A constant feature gets a scale
    /// of 1.
    fn mean_and_scale(&self, feature: usize) -> (f64, f64) {
        if self.is_constant[feature] {
            return (self.lowest[feature], 1.0);
        }
        let (mean, variance) = (self.means[feature], self.variances[feature]);
        // The values are so similar that their squared differences underflow.
        match variance < f64::MIN_POSITIVE {
            true => (mean, 1.0),
            false => (mean, variance.sqrt()),
        }
    }
}

/// Calls `visit` with each value and the index of its feature, row after row.
fn each_value(rows: &Rows, mut visit: impl FnMut(usize, f64)) {
    for row in rows.values.chunks_exact(rows.width.max(1)) {
        for (feature, value) in row.iter().enumerate() {
            visit(feature, *value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::feature::Feature;
    use crate::train::tests::{category, numbers_data};

    #[test]
    fn a_matrix_has_numbers_first_and_the_model_its_own_order() {
        let features = [
            category("kind", &["a", "b"]),
            Feature::number("x"),
            category("size", &["s", "m", "l"]),
            Feature::number("y"),
        ];
        let values = vec![
            1.0, 10.0, 0.0, 5.0, // b, s
            0.0, 20.0, 2.0, 5.0, // a, l
            2.0, 30.0, 1.0, 5.0, // an unknown kind, m
        ];
        let data = numbers_data(&features, values, vec![0.0; 3]);
        let scaling = Scaling::new(&data).unwrap();
        assert_eq!(scaling.width(), 7);
        assert_eq!(scaling.means, [0.0, 0.0, 20.0, 0.0, 0.0, 0.0, 5.0]);
        let matrix = scaling.matrix(&data.training);
        let scale = scaling.scales[2];
        let weights = [1.0, 100.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        for (row, dot) in [
            (0, -10.0 / scale + 4.0 + 5.0),
            (1, 3.0 + 7.0),
            (2, 10.0 / scale + 6.0),
        ] {
            assert!((matrix.row(row).dot(&weights) - dot).abs() < 1e-12, "{row}");
        }
        let mut sums = [0.0; 7];
        matrix.row(1).add_to(&mut sums, 2.0);
        assert_eq!(sums, [0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0]);
        assert_eq!(matrix.len(), 12);
        assert_eq!(
            scaling.in_model_order(&weights),
            [3.0, 4.0, 1.0, 5.0, 6.0, 7.0, 100.0]
        );
    }
}
