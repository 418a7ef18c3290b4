//! What `rv-score eval` prints.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::Model;
use crate::model::metrics::{ClassMetrics, Metrics};
use crate::model::profile::Quantiles;
use crate::model::text_table::{aligned, cut, six_significant_digits};
use crate::train::answers::{Answers, ClassAnswer};
use crate::train::eval::labelled_rows::RowCounts;

/// The number of ranges of probabilities in a calibration table.
const RANGES: usize = 10;

/// The longest label that is printed, in characters.
const SHOWN_LABEL_CHARS: usize = 30;

/// The measured model and its metrics.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report<'m> {
    model_name: &'m str,
    model_version: u64,
    model_hash: &'m str,
    /// Rows without a label.
    unlabelled: u64,
    /// Recorded requests with the id of an earlier request.
    repeated: u64,
    /// Rows that the model could not evaluate.
    left_out: u64,
    #[serde(flatten)]
    metrics: Metrics,
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<ClassReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<ErrorQuantiles>,
}

/// The figures of a classifier.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClassReport {
    /// The mean of the F1 of all classes. A class without an F1 counts as 0.
    macro_f1: f64,
    /// For two classes: the area under the ROC curve, if both classes have rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    roc_auc: Option<f64>,
    per_class: Vec<OneClass>,
    /// The mean difference between the probability and the share in a range. Each range
    /// is weighted by its rows.
    calibration_error: f64,
    calibration: Vec<Range>,
}

/// The figures of one class. A figure whose denominator is 0 is null.
#[derive(Debug, Serialize)]
struct OneClass {
    label: Box<RawValue>,
    /// The number of rows with this label.
    rows: u64,
    /// The number of rows for which this class was predicted.
    predicted: u64,
    precision: Option<f64>,
    recall: Option<f64>,
    f1: Option<f64>,
}

/// The rows whose probability is in one range. With two classes, the probability of the
/// second class counts. With more, the probability of the predicted class counts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Range {
    from: f64,
    to: f64,
    rows: u64,
    mean_probability: f64,
    /// The share of these rows whose label is the class.
    share: f64,
}

/// The quantiles of the errors, by percent. An error is the prediction minus the true
/// number.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
struct ErrorQuantiles {
    min: f64,
    p05: f64,
    p25: f64,
    p50: f64,
    p75: f64,
    p95: f64,
    max: f64,
}

impl<'m> Report<'m> {
    /// Computes the report. There must be at least one answer.
    pub fn new(model: &'m Model, answers: &Answers, counts: &RowCounts) -> Report<'m> {
        let labels = &model.description().classes;
        let metrics = answers.metrics(labels.len());
        let (classes, errors) = match (answers, &metrics) {
            (Answers::Classes(answers), Metrics::Classes(metrics)) => {
                (Some(ClassReport::new(labels, answers, metrics)), None)
            }
            (Answers::Numbers(pairs), _) => (None, Some(ErrorQuantiles::new(pairs))),
            _ => (None, None),
        };
        Report {
            model_name: model.name(),
            model_version: model.version(),
            model_hash: model.hash(),
            unlabelled: counts.unlabelled,
            repeated: counts.repeated,
            left_out: counts.left_out,
            metrics,
            classes,
            errors,
        }
    }

    /// The report as text for people.
    pub fn text(&self, labels: &[&str]) -> String {
        let mut lines = vec![
            format!(
                "{}@{}, hash {}",
                self.model_name, self.model_version, self.model_hash
            ),
            format!(
                "not counted: {} rows without a label, {} repeated, {} not evaluated",
                self.unlabelled, self.repeated, self.left_out
            ),
        ];
        lines.extend(self.metrics.lines(labels));
        if let Some(classes) = &self.classes {
            lines.extend(classes.lines(labels.len() == 2));
        }
        if let Some(errors) = &self.errors {
            lines.extend(errors.lines());
        }
        let mut text = String::new();
        for line in lines {
            text.extend(line.chars().map(|character| match character.is_control() {
                true => ' ',
                false => character,
            }));
            text.push('\n');
        }
        text
    }
}

impl ClassReport {
    fn new(
        labels: &[Box<RawValue>],
        answers: &[ClassAnswer],
        metrics: &ClassMetrics,
    ) -> ClassReport {
        let per_class: Vec<OneClass> = labels
            .iter()
            .enumerate()
            .map(|(class, label)| OneClass::new(label.clone(), class, &metrics.confusion))
            .collect();
        let f1_sum: f64 = per_class.iter().filter_map(|one| one.f1).sum();
        let is_binary = labels.len() == 2;
        let calibration = calibration(answers, is_binary);
        let differences = calibration
            .iter()
            .map(|range| range.rows as f64 * (range.share - range.mean_probability).abs());
        ClassReport {
            macro_f1: f1_sum / labels.len().max(1) as f64,
            roc_auc: is_binary.then(|| roc_auc(answers)).flatten(),
            calibration_error: differences.sum::<f64>() / answers.len().max(1) as f64,
            per_class,
            calibration,
        }
    }

    fn lines(&self, is_binary: bool) -> Vec<String> {
        let mut table = vec![
            ["", "rows", "predicted", "precision", "recall", "F1"]
                .map(str::to_owned)
                .to_vec(),
        ];
        let figure = |figure: Option<f64>| figure.map_or("-".to_owned(), |it| format!("{it:.4}"));
        table.extend(self.per_class.iter().map(|one| {
            let label = cut(one.label.get(), SHOWN_LABEL_CHARS);
            let counts = [one.rows, one.predicted].map(|count| count.to_string());
            let figures = [one.precision, one.recall, one.f1].map(figure);
            [vec![label], counts.to_vec(), figures.to_vec()].concat()
        }));
        let mut lines = vec!["per class:".to_owned()];
        lines.extend(aligned(&table));
        let auc = self.roc_auc.map_or(String::new(), |auc| {
            format!("; area under the ROC curve {auc:.4}")
        });
        lines.push(format!("mean F1 {:.4}{auc}", self.macro_f1));
        lines.push(match is_binary {
            true => "calibration: probability of the second class, and its share".to_owned(),
            false => "calibration: probability of the predicted class, and share right".to_owned(),
        });
        let mut table = vec![
            ["", "rows", "mean probability", "share"]
                .map(str::to_owned)
                .to_vec(),
        ];
        table.extend(self.calibration.iter().map(|range| {
            vec![
                format!("{:.1} to {:.1}", range.from, range.to),
                range.rows.to_string(),
                format!("{:.4}", range.mean_probability),
                format!("{:.4}", range.share),
            ]
        }));
        lines.extend(aligned(&table));
        lines.push(format!(
            "mean calibration error {:.4}",
            self.calibration_error
        ));
        lines
    }
}

impl OneClass {
    fn new(label: Box<RawValue>, class: usize, confusion: &[Vec<u64>]) -> OneClass {
        let rows: u64 = confusion[class].iter().sum();
        let predicted: u64 = confusion.iter().map(|line| line[class]).sum();
        let right = confusion[class][class];
        let share = |all: u64| (all > 0).then(|| right as f64 / all as f64);
        OneClass {
            label,
            rows,
            predicted,
            precision: share(predicted),
            recall: share(rows),
            f1: (rows + predicted > 0).then(|| 2.0 * right as f64 / (rows + predicted) as f64),
        }
    }
}

/// The ranges of probability that have rows.
fn calibration(answers: &[ClassAnswer], is_binary: bool) -> Vec<Range> {
    let mut sums = [(0u64, 0.0, 0u64); RANGES];
    for answer in answers {
        let (probability, is_right) = match is_binary {
            true => (answer.of_last, answer.actual == 1),
            false => (answer.confidence, answer.actual == answer.predicted),
        };
        let range = ((probability * RANGES as f64) as usize).min(RANGES - 1);
        let sum = &mut sums[range];
        sum.0 += 1;
        sum.1 += probability;
        sum.2 += u64::from(is_right);
    }
    let range = |(index, (rows, sum, right)): (usize, &(u64, f64, u64))| Range {
        from: index as f64 / RANGES as f64,
        to: (index + 1) as f64 / RANGES as f64,
        rows: *rows,
        mean_probability: sum / *rows as f64,
        share: *right as f64 / *rows as f64,
    };
    let filled = sums.iter().enumerate().filter(|(_, sum)| sum.0 > 0);
    filled.map(range).collect()
}

/// The probability that a row of the second class has a larger probability of this class
/// than a row of the first one. Equal probabilities count half.
fn roc_auc(answers: &[ClassAnswer]) -> Option<f64> {
    let mut order: Vec<(f64, bool)> = answers
        .iter()
        .map(|answer| (answer.of_last, answer.actual == 1))
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = order.iter().filter(|(_, is_positive)| *is_positive).count() as f64;
    let negatives = order.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let (mut below, mut sum) = (0.0, 0.0);
    for group in order.chunk_by(|a, b| a.0 == b.0) {
        let own = group.iter().filter(|(_, is_positive)| *is_positive).count() as f64;
        let others = group.len() as f64 - own;
        sum += own * (below + others / 2.0);
        below += others;
    }
    Some(sum / (positives * negatives))
}

impl ErrorQuantiles {
    fn new(pairs: &[(f64, f64)]) -> ErrorQuantiles {
        let errors = pairs.iter().map(|(actual, predicted)| predicted - actual);
        let quantiles = Quantiles::of(errors.collect());
        let at = |percent| quantiles.at(percent).unwrap_or_default();
        ErrorQuantiles {
            min: at(0),
            p05: at(5),
            p25: at(25),
            p50: at(50),
            p75: at(75),
            p95: at(95),
            max: at(100),
        }
    }

    fn lines(&self) -> Vec<String> {
        let heads = ["", "min", "p05", "p25", "p50", "p75", "p95", "max"];
        let numbers = [
            self.min, self.p05, self.p25, self.p50, self.p75, self.p95, self.max,
        ];
        let mut line = vec!["prediction - truth".to_owned()];
        line.extend(numbers.map(six_significant_digits));
        let mut lines = vec!["quantiles of the errors:".to_owned()];
        lines.extend(aligned(&[heads.map(str::to_owned).to_vec(), line]));
        lines
    }
}
