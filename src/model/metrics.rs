//! How well a model does on rows whose labels are known.

use serde::{Deserialize, Serialize};

use crate::model::file::at_most_classes;

/// The largest matrix that is shown whole, in classes.
const SHOWN_CLASSES_MAX: usize = 30;

/// The longest label in a matrix, in characters.
const SHOWN_LABEL_CHARS: usize = 24;

/// The rows by their label and by what was predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// How many there are.
    pub rows: u64,
    /// On how many the prediction is right.
    pub correct: u64,
    /// The share of those.
    pub accuracy: f64,
    /// A line a class of the label, a column a class predicted.
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

    /// Checks what was read from a file.
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

    /// In a few lines of text for people: the accuracy, and the matrix where it
    /// can be read.
    pub fn lines(&self, classes: &[&str]) -> Vec<String> {
        let mut lines = vec![format!(
            "accuracy {:.4} ({} of {} rows right)",
            self.accuracy, self.correct, self.rows
        )];
        let labels: Vec<String> = classes.iter().map(|label| cut(label)).collect();
        if labels.len() > SHOWN_CLASSES_MAX {
            lines.push(self.most_confused(&labels));
            return lines;
        }
        lines.push("confusion, a line for each label, a column for each prediction:".to_owned());
        let cells = |line: &Vec<u64>| line.iter().map(u64::to_string).collect::<Vec<_>>();
        let rows = self.confusion.iter().zip(&labels);
        let mut table = vec![[vec![String::new()], labels.clone()].concat()];
        table.extend(rows.map(|(line, label)| [vec![label.clone()], cells(line)].concat()));
        lines.extend(aligned(&table));
        lines
    }

    fn most_confused(&self, labels: &[String]) -> String {
        let mut wrong: Vec<(u64, usize, usize)> = Vec::new();
        for (actual, line) in self.confusion.iter().enumerate() {
            let others = line.iter().enumerate();
            let others = others.filter(|(predicted, count)| *predicted != actual && **count > 0);
            wrong.extend(others.map(|(predicted, count)| (*count, actual, predicted)));
        }
        wrong.sort_by_key(|(count, actual, predicted)| (u64::MAX - count, *actual, *predicted));
        let shown = wrong.iter().take(10).map(|(count, actual, predicted)| {
            format!(
                "{} taken for {} {count} times",
                labels[*actual], labels[*predicted]
            )
        });
        let shown: Vec<String> = shown.collect();
        match shown.is_empty() {
            true => "none was taken for another".to_owned(),
            false => format!("most confused: {}", shown.join(", ")),
        }
    }
}

/// A label as a heading.
fn cut(label: &str) -> String {
    if label.chars().count() <= SHOWN_LABEL_CHARS {
        return label.to_owned();
    }
    let head: String = label.chars().take(SHOWN_LABEL_CHARS - 3).collect();
    format!("{head}...")
}

/// The lines of a table: the first column to the left, the others to the right.
pub fn aligned(table: &[Vec<String>]) -> Vec<String> {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = table.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &Vec<String>| {
        let mut text = String::from(" ");
        for (column, cell) in cells.iter().enumerate() {
            let space = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            text.push(' ');
            if column == 0 {
                text.push_str(cell);
                text.push_str(&space);
            } else {
                text.push(' ');
                text.push_str(&space);
                text.push_str(cell);
            }
        }
        text.trim_end().to_owned()
    };
    table.iter().map(line).collect()
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
                "confusion, a line for each label, a column for each prediction:",
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
            "most confused: 3 taken for 4 2 times, 7 taken for 1 1 times"
        );
    }
}
