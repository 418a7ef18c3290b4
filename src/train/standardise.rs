//! The matrix from which linear models are trained: one-hot columns for categories, and
//! standardised columns for numbers.

use anyhow::{Result, bail};

use crate::model::logistic::standardised;
use crate::model::one_hot::{COLUMNS_MAX, OneHot};
use crate::stage::report::shown;
use crate::train::table::Rows;
use crate::train::trainer::TrainingData;

/// The largest number of values in a matrix. They take 2 GiB of memory.
const VALUES_MAX: usize = 1 << 28;

/// The columns and their scaling.
#[derive(Debug)]
pub struct Scaling {
    /// The columns that the features become.
    pub one_hot: OneHot,
    /// For each column, the mean; 0 for a category.
    pub means: Vec<f64>,
    /// For each column, the standard deviation; 1 for a category and for a constant.
    pub scales: Vec<f64>,
}

impl Scaling {
    /// The scaling of the training rows.
    pub fn new(data: &TrainingData) -> Result<Scaling> {
        let one_hot = OneHot::new(data.features);
        let width = one_hot.width(data.features.len());
        if width > COLUMNS_MAX || width.saturating_mul(data.training.len()) > VALUES_MAX {
            bail!(
                "the categories need {width} columns, which are too many for this algorithm; use \
                 random-forest, or leave out features"
            );
        }
        let mut means = Vec::with_capacity(width);
        let mut scales = Vec::with_capacity(width);
        for (index, feature) in data.features.iter().enumerate() {
            if let Some(categories) = feature.categories() {
                means.extend(categories.iter().map(|_| 0.0));
                scales.extend(categories.iter().map(|_| 1.0));
                continue;
            }
            let (mean, scale) = mean_and_scale(&data.training, index);
            if !mean.is_finite() || !scale.is_finite() || scale <= 0.0 {
                bail!(
                    "the values of {} are too large to be standardised; scale that column down",
                    shown(&feature.name)
                );
            }
            means.push(mean);
            scales.push(scale);
        }
        Ok(Scaling {
            one_hot,
            means,
            scales,
        })
    }

    /// The number of columns.
    pub fn width(&self) -> usize {
        self.means.len()
    }

    /// The standardised matrix, row after row.
    pub fn matrix(&self, rows: &Rows) -> Vec<f64> {
        let width = self.width();
        let mut matrix = vec![0.0; rows.len() * width];
        for (index, line) in matrix.chunks_exact_mut(width).enumerate() {
            self.one_hot.each_column(rows.row(index), |column, value| {
                line[column] = standardised(value, self.means[column], self.scales[column]);
            });
        }
        matrix
    }
}

/// The mean of a feature and its standard deviation. A constant feature gets a scale of
/// 1.
fn mean_and_scale(rows: &Rows, feature: usize) -> (f64, f64) {
    let values = || (0..rows.len()).map(|index| rows.row(index)[feature]);
    let count = rows.len() as f64;
    let lowest = values().fold(f64::INFINITY, f64::min);
    if values().all(|value| value == lowest) {
        return (lowest, 1.0);
    }
    // The lowest value is subtracted from all, so that a large offset costs no
    // precision.
    let mean = lowest + values().map(|value| (value - lowest) / count).sum::<f64>();
    let variance = values()
        .map(|value| (value - mean).powi(2) / count)
        .sum::<f64>();
    // The values are so similar that their squared differences underflow.
    if variance < f64::MIN_POSITIVE {
        return (mean, 1.0);
    }
    (mean, variance.sqrt())
}
