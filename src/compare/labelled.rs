//! Counts of results whose true labels are known.

use crate::compare::classes::{Classes, PairCounts};
use crate::compare::label_file::Label;
use crate::compare::legs::LegScore;
use crate::compare::statistics::labelled::Calibration;
use crate::compare::statistics::numbers::{Errors, Moments, WeightedMean};
use crate::compare::values::{Equality, is_compound};
use crate::wire::answer::number;
use crate::wire::object::{decode_string, each_member, value_of};

/// The results of one model beside the labels.
#[derive(Clone, Debug, Default)]
pub struct ModelLabels {
    /// The number of right results.
    pub right: u64,
    /// 1 for a right result and 0 for a wrong one, by the weights of the labels.
    pub weighted: WeightedMean,
    /// Counts by label and result.
    pub confusion: PairCounts,
    /// How well the confidence fits the labels.
    pub calibration: Calibration,
    /// The Brier scores of results with probabilities.
    pub brier: Moments,
    /// The errors of numbers.
    pub errors: Errors,
}

impl ModelLabels {
    fn add(
        &mut self,
        score: &LegScore,
        answer: &str,
        label: &str,
        is_right: bool,
        classes: &mut Classes,
    ) {
        self.right += u64::from(is_right);
        if !is_compound(answer) {
            let pair = (classes.class_of(label), classes.class_of(answer));
            self.confusion.add(pair.0, pair.1, is_right);
        }
        let confidence = value_of(score.outcome, "confidence").and_then(number);
        if let Some(confidence) = confidence.filter(|it| (0.0..=1.0).contains(it)) {
            self.calibration.add(confidence, is_right);
        }
        if let Some(probabilities) = value_of(score.outcome, "probabilities")
            && let Some(brier) = brier(probabilities, label)
        {
            self.brier.add(brier);
        }
    }
}

/// The multiclass Brier score of one result: the sum over the classes of the squared
/// distance of the probability from 1 for the label and from 0 for the others. `None` if
/// the probabilities are not an object of numbers.
fn brier(probabilities: &str, label: &str) -> Option<f64> {
    let label = decode_string(label).unwrap_or(label.into());
    let (mut sum, mut is_valid, mut has_label) = (0.0, true, false);
    each_member(probabilities, |member| {
        let is_label = member.is(&label);
        has_label |= is_label;
        match number(member.value) {
            Some(value) => sum += (value - f64::from(u8::from(is_label))).powi(2),
            None => is_valid = false,
        }
    })?;
    // A class that the model does not know has the probability 0.
    is_valid.then_some(if has_label { sum } else { sum + 1.0 })
}

/// The results of both models beside the labels.
#[derive(Clone, Debug, Default)]
pub struct LabelCounts {
    /// The pairs with a label.
    pub labelled: u64,
    /// The base's results.
    pub base: ModelLabels,
    /// The candidate's results.
    pub candidate: ModelLabels,
    /// The pairs with a label whose answers differ.
    pub differ: u64,
    /// Pairs in which only the base is right.
    pub base_only: u64,
    /// Pairs in which only the candidate is right.
    pub candidate_only: u64,
    /// 1 for a pair in which only the base is right, -1 if only the candidate is, else 0.
    pub loss: Moments,
    /// The same by the weights of the labels.
    pub weighted_loss: WeightedMean,
    /// The differences of the absolute errors of numbers, candidate minus base.
    pub error_differences: Moments,
    /// Labelled pairs whose record has the answer that the client got.
    pub answered: u64,
    /// Of these, the pairs in which the candidate is right and the answer is wrong.
    pub gained: u64,
    /// Of these, the pairs in which the candidate is wrong and the answer is right.
    pub lost: u64,
}

/// Whether base and candidate are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// Whether the base is right.
    pub base: bool,
    /// Whether the candidate is right.
    pub candidate: bool,
}

impl LabelCounts {
    /// Counts a labelled pair.
    pub fn add(
        &mut self,
        (base, candidate): (&LegScore, &LegScore),
        answered: Option<&str>,
        Label {
            text: label,
            weight,
        }: &Label,
        equality: Equality,
        classes: &mut Classes,
    ) -> Option<Right> {
        let (of_base, of_candidate) = (base.answer()?, candidate.answer()?);
        let right = Right {
            base: equality.is_same(of_base, label),
            candidate: equality.is_same(of_candidate, label),
        };
        self.labelled += 1;
        self.differ += u64::from(!equality.is_same(of_base, of_candidate));
        self.base.add(base, of_base, label, right.base, classes);
        self.candidate
            .add(candidate, of_candidate, label, right.candidate, classes);
        self.base_only += u64::from(right.base && !right.candidate);
        self.candidate_only += u64::from(right.candidate && !right.base);
        let one = |is_right: bool| f64::from(u8::from(is_right));
        let loss = one(right.base) - one(right.candidate);
        self.loss.add(loss);
        self.base.weighted.add(one(right.base), *weight);
        self.candidate.weighted.add(one(right.candidate), *weight);
        self.weighted_loss.add(loss, *weight);
        if equality.tolerance.is_some()
            && let (Some(label), Some(base), Some(candidate)) =
                (number(label), number(of_base), number(of_candidate))
        {
            self.base.errors.add(base - label);
            self.candidate.errors.add(candidate - label);
            let difference = (candidate - label).abs() - (base - label).abs();
            self.error_differences.add(difference);
        }
        if let Some(answered) = answered {
            let was_right = equality.is_same(answered, label);
            self.answered += 1;
            self.gained += u64::from(right.candidate && !was_right);
            self.lost += u64::from(was_right && !right.candidate);
        }
        Some(right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brier_score_sums_over_all_classes() {
        let near = |value: Option<f64>, wanted: f64| {
            assert!((value.unwrap() - wanted).abs() < 1e-12, "{value:?}");
        };
        near(
            brier(r#"{"0":0.2,"1":0.7,"2":0.1}"#, "1"),
            0.04 + 0.09 + 0.01,
        );
        near(brier(r#"{"a":0.2,"b":0.8}"#, "\"a\""), 0.64 + 0.64);
        near(brier(r#"{"a":1}"#, "\"c\""), 2.0);
        assert_eq!(brier(r#"{"a":"x"}"#, "\"a\""), None);
        assert_eq!(brier("[1]", "1"), None);
    }
}
