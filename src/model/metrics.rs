//! The quality of a classifier on rows whose labels are known.

use serde::{Deserialize, Serialize};

use crate::model::bounds::at_most_classes;
use crate::model::text_table::aligned;

/// The largest confusion matrix that is printed whole, in classes.
const SHOWN_CLASSES_MAX: usize = 30;

/// The longest label that is printed in a matrix, in characters.
const SHOWN_LABEL_CHARS: usize = 24;

/// The number of rows by label and by prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The number of rows.
    pub rows: u64,
    /// The number of right predictions.
    pub correct: u64,
    /// The share of right predictions, from 0 to 1.
    pub accuracy: f64,
    /// The confusion matrix: one line per class of the label, one column per
    /// predicted class.
    #[serde(deserialize_with = "at_most_classes")]
    pub confusion: Vec<Vec<u64>>,
}

impl Metrics {
    /// Counts pairs of label and prediction.
    pub fn count(class_count: usize, pairs: impl Iterator<Item = (usize, usize)>) -> Metrics {
        let mut confusion = vec![vec![0; class_count]; class_count];
        for (actual, predicted) in pairs {
            confusion[actual][predicted] += 1;
        }
        let rows = confusion.iter().flatten().sum();
        let correct = (0..class_count).map(|class| confusion[class][class]).sum();
        Metrics {
            rows,
            correct,
            accuracy: correct as f64 / f64::max(rows as f64, 1.0),
            confusion,
        }
    }

    /// Checks metrics that were read from a file.
    pub fn check(&self, class_count: usize) -> Result<(), String> {
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

    /// The metrics as readable lines: the accuracy and the confusion matrix, or only
    /// the most frequent confusions if there are many classes.
    pub fn lines(&self, classes: &[&str]) -> Vec<String> {
        let mut lines = vec![format!(
            "accuracy {:.4} ({} of {} rows right)",
            self.accuracy, self.correct, self.rows
        )];
        let labels: Vec<String> = classes.iter().map(|label| shortened(label)).collect();
        if labels.len() > SHOWN_CLASSES_MAX {
            lines.push(self.most_confused(&labels));
            return lines;
        }
        lines.push("confusion matrix (rows: label, columns: prediction):".to_owned());
        let cells = |line: &Vec<u64>| line.iter().map(u64::to_string).collect::<Vec<_>>();
        let rows = self.confusion.iter().zip(&labels);
        let mut table = vec![[vec![String::new()], labels.clone()].concat()];
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

/// A label, cut to the width of a column.
fn shortened(label: &str) -> String {
    if label.chars().count() <= SHOWN_LABEL_CHARS {
        return label.to_owned();
    }
    let head: String = label.chars().take(SHOWN_LABEL_CHARS - 3).collect();
    format!("{head}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_has_labels_down_and_predictions_across() {
        let pairs = [(0, 0), (0, 0), (1, 0), (1, 1), (1, 1)];
        let metrics = Metrics::count(2, pairs.into_iter());
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
        let metrics = Metrics::count(40, pairs.into_iter());
        assert_eq!(
            metrics.lines(&labels)[1],
            "most confused: 3 predicted as 4 2 times, 7 predicted as 1 1 times"
        );
    }
}
