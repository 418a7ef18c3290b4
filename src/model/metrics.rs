//! The quality of a model on rows whose answers are known.

use serde::{Deserialize, Serialize};

use crate::model::bounds::at_most_classes;
use crate::model::text_table::{aligned, cut, six_significant_digits};

/// The largest confusion matrix that is printed whole, in classes.
const SHOWN_CLASSES_MAX: usize = 12;

/// The width of a matrix on a terminal, in characters.
const SHOWN_CHARS: usize = 78;

/// The longest label that is printed in front of a line, in characters.
const SHOWN_LABEL_CHARS: usize = 24;

/// The 97.5 % quantile of the standard normal distribution.
const NORMAL_QUANTILE: f64 = 1.959_963_984_540_054;

/// The smallest probability in the log loss. A smaller one is replaced by this value,
/// which is the distance between 1 and the next larger float, as in scikit-learn.
const PROBABILITY_MIN: f64 = f64::EPSILON;

/// The metrics of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Metrics {
    /// The metrics of a model that predicts classes.
    Classes(ClassMetrics),
    /// The metrics of a model that predicts numbers.
    Numbers(NumberMetrics),
}

/// The metrics of a classifier, with the number of rows for each pair of label and
/// prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassMetrics {
    /// The number of rows.
    pub rows: u64,
    /// The number of right predictions.
    pub correct: u64,
    /// The share of right predictions, from 0 to 1.
    pub accuracy: f64,
    /// The 95 % interval of the accuracy, after Wilson.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_interval: Option<[f64; 2]>,
    /// The mean of `-ln(p)`, where `p` is the probability of the row's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_loss: Option<f64>,
    /// The confusion matrix: one line per class of the label, one column per
    /// predicted class.
    #[serde(deserialize_with = "at_most_classes")]
    pub confusion: Vec<Vec<u64>>,
}

/// The errors of predicted numbers, in the unit of the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NumberMetrics {
    /// The number of rows.
    pub rows: u64,
    /// The mean of the absolute errors.
    pub mae: f64,
    /// The 95 % interval of the mean absolute error, by the normal distribution.
    pub mae_interval: [f64; 2],
    /// The root of the mean of the squared errors.
    pub rmse: f64,
    /// The 95 % interval of the root mean squared error, by the normal distribution.
    pub rmse_interval: [f64; 2],
    /// The share of the variance of the target that the model explains. Absent if the
    /// target has the same value in all rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r2: Option<f64>,
}

impl Metrics {
    /// Checks metrics that were read from a file.
    pub fn check(&self, class_count: usize) -> Result<(), String> {
        match self {
            Metrics::Classes(metrics) if class_count > 0 => metrics.check(class_count),
            Metrics::Numbers(_) if class_count == 0 => Ok(()),
            _ => Err("the metrics are of another kind than the target".to_owned()),
        }
    }

    /// The metrics as readable lines.
    pub fn lines(&self, classes: &[&str]) -> Vec<String> {
        match self {
            Metrics::Classes(metrics) => metrics.lines(classes),
            Metrics::Numbers(metrics) => metrics.lines(),
        }
    }
}

/// The 95 % interval of a share, after Wilson (1927).
pub fn wilson_interval(count: u64, rows: u64) -> [f64; 2] {
    if rows == 0 {
        return [0.0, 1.0];
    }
    let (rows, share) = (rows as f64, count as f64 / rows as f64);
    let square = NORMAL_QUANTILE * NORMAL_QUANTILE;
    let middle = share + square / (2.0 * rows);
    let variance = share * (1.0 - share) / rows + square / (4.0 * rows * rows);
    let half = NORMAL_QUANTILE * variance.sqrt();
    let scale = 1.0 + square / rows;
    [
        ((middle - half) / scale).max(0.0),
        ((middle + half) / scale).min(1.0),
    ]
}

/// The contribution of one row to the log loss.
pub fn log_loss(probability: f64) -> f64 {
    -probability
        .clamp(PROBABILITY_MIN, 1.0 - PROBABILITY_MIN)
        .ln()
}

impl ClassMetrics {
    /// Counts pairs of label and prediction. `log_loss` is the mean over the rows.
    pub fn count(
        class_count: usize,
        pairs: impl Iterator<Item = (usize, usize)>,
        log_loss: f64,
    ) -> ClassMetrics {
        let mut confusion = vec![vec![0; class_count]; class_count];
        for (actual, predicted) in pairs {
            confusion[actual][predicted] += 1;
        }
        let rows = confusion.iter().flatten().sum();
        let correct = (0..class_count).map(|class| confusion[class][class]).sum();
        ClassMetrics {
            rows,
            correct,
            accuracy: correct as f64 / f64::max(rows as f64, 1.0),
            accuracy_interval: Some(wilson_interval(correct, rows)),
            log_loss: Some(log_loss),
            confusion,
        }
    }

    /// Checks metrics that were read from a file.
    fn check(&self, class_count: usize) -> Result<(), String> {
        let is_square = self.confusion.len() == class_count
            && self.confusion.iter().all(|line| line.len() == class_count);
        let sum = |mut counts: Box<dyn Iterator<Item = &u64> + '_>| {
            counts.try_fold(0u64, |sum, count| sum.checked_add(*count))
        };
        if !is_square
            || sum(Box::new(self.confusion.iter().flatten())) != Some(self.rows)
            || !(0.0..=1.0).contains(&self.accuracy)
        {
            return Err("the confusion matrix does not fit the classes or rows".to_owned());
        }
        Ok(())
    }

    /// The accuracy and the confusion matrix, or only the most frequent confusions if
    /// there are many classes.
    fn lines(&self, classes: &[&str]) -> Vec<String> {
        let mut lines = vec![format!(
            "accuracy {:.4} ({} of {} rows right)",
            self.accuracy, self.correct, self.rows
        )];
        if let (Some([low, high]), Some(log_loss)) = (self.accuracy_interval, self.log_loss) {
            lines.push(format!(
                "95 % interval of the accuracy {low:.4} to {high:.4}; log loss {log_loss:.4}"
            ));
        }
        let labels: Vec<String> = classes
            .iter()
            .map(|label| cut(label, SHOWN_LABEL_CHARS))
            .collect();
        if labels.len() > SHOWN_CLASSES_MAX {
            lines.push(self.most_confused(&labels));
            return lines;
        }
        lines.push("confusion matrix (rows: label, columns: prediction):".to_owned());
        let first_column = labels.iter().map(|label| label.chars().count()).max();
        let room = SHOWN_CHARS.saturating_sub(first_column.unwrap_or(0) + 2);
        let column_chars = (room / labels.len().max(1)).saturating_sub(2).max(4);
        let heads = labels.iter().map(|label| cut(label, column_chars));
        let cells = |line: &Vec<u64>| line.iter().map(u64::to_string).collect::<Vec<_>>();
        let rows = self.confusion.iter().zip(&labels);
        let mut table = vec![[vec![String::new()], heads.collect()].concat()];
        table.extend(rows.map(|(line, label)| [vec![label.clone()], cells(line)].concat()));
        lines.extend(aligned(&table));
        lines
    }

    fn most_confused(&self, labels: &[String]) -> String {
        let mut confusions: Vec<(u64, usize, usize)> = Vec::new();
        for (actual, line) in self.confusion.iter().enumerate() {
            let others = line.iter().enumerate();
            let others = others.filter(|(predicted, count)| *predicted != actual && **count > 0);
            confusions.extend(others.map(|(predicted, count)| (*count, actual, predicted)));
        }
        confusions
            .sort_by_key(|(count, actual, predicted)| (u64::MAX - count, *actual, *predicted));
        let shown = confusions
            .iter()
            .take(10)
            .map(|(count, actual, predicted)| {
                format!(
                    "{} predicted as {} {count} times",
                    labels[*actual], labels[*predicted]
                )
            });
        let shown: Vec<String> = shown.collect();
        match shown.is_empty() {
            true => "no row was predicted wrongly".to_owned(),
            false => format!("most confused: {}", shown.join(", ")),
        }
    }
}

impl NumberMetrics {
    /// Computes the errors from pairs of the true number and the predicted one. `pairs`
    /// must not be empty.
    pub fn measure(pairs: &[(f64, f64)]) -> NumberMetrics {
        let errors = || pairs.iter().map(|(actual, predicted)| predicted - actual);
        let (mae, mae_interval) = mean_and_interval(errors().map(f64::abs));
        let (mse, mse_interval) = mean_and_interval(errors().map(|error| error * error));
        let count = pairs.len() as f64;
        let mean = pairs.iter().map(|(actual, _)| actual / count).sum::<f64>();
        let variance = pairs.iter().map(|(actual, _)| (actual - mean).powi(2));
        let variance = variance.sum::<f64>() / count;
        NumberMetrics {
            rows: pairs.len() as u64,
            mae,
            mae_interval,
            rmse: mse.sqrt(),
            rmse_interval: mse_interval.map(f64::sqrt),
            r2: (variance > 0.0).then(|| 1.0 - mse / variance),
        }
    }

    fn lines(&self) -> Vec<String> {
        let number = six_significant_digits;
        let r2 = match self.r2 {
            Some(r2) => format!("{r2:.4}"),
            None => "unknown, since the target is constant".to_owned(),
        };
        let interval =
            |[low, high]: [f64; 2]| format!("95 % interval {} to {}", number(low), number(high));
        vec![
            format!("R2 {r2} ({} rows)", self.rows),
            format!(
                "mean absolute error {} ({})",
                number(self.mae),
                interval(self.mae_interval)
            ),
            format!(
                "root mean squared error {} ({})",
                number(self.rmse),
                interval(self.rmse_interval)
            ),
        ]
    }
}

/// The mean of numbers that are not negative, and its 95 % interval by the normal
/// distribution.
fn mean_and_interval(numbers: impl Iterator<Item = f64> + Clone) -> (f64, [f64; 2]) {
    let count = numbers.clone().count().max(1) as f64;
    let mean = numbers.clone().map(|number| number / count).sum::<f64>();
    let squares = numbers.map(|number| (number - mean).powi(2)).sum::<f64>();
    let half = match count > 1.0 {
        true => NORMAL_QUANTILE * (squares / (count - 1.0) / count).sqrt(),
        false => 0.0,
    };
    (mean, [(mean - half).max(0.0), mean + half])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_has_labels_down_and_predictions_across() {
        let pairs = [(0, 0), (0, 0), (1, 0), (1, 1), (1, 1)];
        let metrics = ClassMetrics::count(2, pairs.into_iter(), 0.25);
        assert_eq!(
            (metrics.rows, metrics.correct, metrics.accuracy),
            (5, 4, 0.8)
        );
        assert_eq!(metrics.check(2), Ok(()));
        assert!(metrics.check(3).is_err());
        assert_eq!(
            metrics.lines(&["\"no\"", "\"maybe\""]),
            [
                "accuracy 0.8000 (4 of 5 rows right)",
                "95 % interval of the accuracy 0.3755 to 0.9638; log loss 0.2500",
                "confusion matrix (rows: label, columns: prediction):",
                "           \"no\"  \"maybe\"",
                "  \"no\"        2        0",
                "  \"maybe\"     1        2",
            ]
        );
    }

    #[test]
    fn many_classes_give_the_worst_confusions_only() {
        let labels: Vec<String> = (0..40).map(|class| class.to_string()).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let pairs = [(3, 4), (3, 4), (7, 1), (5, 5)];
        let metrics = ClassMetrics::count(40, pairs.into_iter(), 0.0);
        assert_eq!(
            metrics.lines(&labels)[2],
            "most confused: 3 predicted as 4 2 times, 7 predicted as 1 1 times"
        );
    }

    #[test]
    fn a_matrix_of_twelve_long_labels_fits_a_terminal() {
        let labels: Vec<String> = (0..12)
            .map(|class| format!("\"a long label {class}\""))
            .collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let metrics = ClassMetrics::count(12, (0..12).map(|class| (class, class)), 0.0);
        for line in metrics.lines(&labels) {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }

    #[test]
    fn errors_of_numbers_are_as_by_hand() {
        let pairs = [(1.0, 2.0), (2.0, 2.0), (3.0, 1.0), (6.0, 6.0)];
        let metrics = NumberMetrics::measure(&pairs);
        assert_eq!((metrics.rows, metrics.mae), (4, 0.75));
        assert!((metrics.rmse - 1.25f64.sqrt()).abs() < 1e-15);
        // The variance of 1, 2, 3, 6 is 3.5.
        assert!((metrics.r2.unwrap() - (1.0 - 1.25 / 3.5)).abs() < 1e-15);
        // The standard deviation of 1, 0, 2, 0 is sqrt(11 / 12).
        let half = 1.959_963_984_540_054 * (11.0f64 / 12.0 / 4.0).sqrt();
        assert!((metrics.mae_interval[1] - (0.75 + half)).abs() < 1e-12);
        assert_eq!(metrics.mae_interval[0], 0.0);
        assert_eq!(NumberMetrics::measure(&[(1.0, 2.0)]).r2, None);
    }

    #[test]
    fn the_interval_is_that_of_wilson() {
        // `proportion_confint` of statsmodels gives these values.
        for (count, rows, low, high) in [
            (29, 30, 0.833_296_090_1, 0.994_091_409_6),
            (0, 10, 0.0, 0.277_532_799_9),
            (10, 10, 0.722_467_200_1, 1.0),
        ] {
            let [found_low, found_high] = wilson_interval(count, rows);
            assert!((found_low - low).abs() < 1e-9, "{found_low}");
            assert!((found_high - high).abs() < 1e-9, "{found_high}");
        }
    }
}
