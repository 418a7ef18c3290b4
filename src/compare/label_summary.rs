//! What the labels tell: which figures they allow, and these figures.

use crate::compare::classes::{Classes, OTHERS, PairCounts};
use crate::compare::labelled::{LabelCounts, ModelLabels};
use crate::compare::report::{
    AnswerReport, CalibrationBin, LabelReport, LabelTest, LabelledDisagreements, ModelLabelReport,
    QualityReport, Rate,
};
use crate::compare::statistics::binomial::mcnemar;
use crate::compare::statistics::labelled::{ClassQuality, class_qualities};
use crate::compare::statistics::numbers::{Moments, WeightedMean};
use crate::compare::statistics::rates::{CONFIDENCE, Interval, wilson};
use crate::compare::tally::{LabelKind, Tally};

/// The kind of the labels. If a disagreement has a label and no agreement has one, the
/// labels were gathered from disagreements, whatever was said.
pub fn kind_of(tally: &Tally, given: LabelKind) -> LabelKind {
    let labels = &tally.labels;
    let has_only_disagreements = labels.differ > 0 && labels.differ == labels.labelled;
    match given {
        LabelKind::Plain if has_only_disagreements && tally.same > 0 => LabelKind::Disagreements,
        given => given,
    }
}

/// The accuracy of a model, as far as the labels give one.
fn accuracy(tally: &Tally, model: &ModelLabels, kind: LabelKind) -> Option<Interval> {
    match kind_of(tally, kind) {
        LabelKind::Plain => wilson(model.right, tally.labels.labelled, CONFIDENCE),
        LabelKind::Weighted => shares(&model.weighted),
        LabelKind::Disagreements => None,
    }
}

/// The accuracy of the candidate.
pub fn candidate_accuracy(tally: &Tally, kind: LabelKind) -> Option<Interval> {
    accuracy(tally, &tally.labels.candidate, kind)
}

/// A weighted share with its interval.
fn shares(mean: &WeightedMean) -> Option<Interval> {
    let found = mean.interval(CONFIDENCE)?;
    Some(Interval {
        low: found.low.max(0.0),
        high: found.high.min(1.0),
        ..found
    })
}

/// The accuracy of the base minus that of the candidate, as far as the labels give it.
/// Where the answers agree, both models are right or both are wrong. So if all
/// disagreements have a label, the difference over all pairs is known.
pub fn accuracy_loss(tally: &Tally, kind: LabelKind) -> Option<Interval> {
    let labels = &tally.labels;
    match kind_of(tally, kind) {
        LabelKind::Plain => labels.loss.mean_interval(CONFIDENCE),
        LabelKind::Weighted => labels.weighted_loss.interval(CONFIDENCE),
        LabelKind::Disagreements if labels.differ == tally.pairs - tally.same => {
            let same = tally.pairs - labels.base_only - labels.candidate_only;
            let counts = [
                (1.0, labels.base_only),
                (-1.0, labels.candidate_only),
                (0.0, same),
            ];
            Moments::of_counts(&counts).mean_interval(CONFIDENCE)
        }
        LabelKind::Disagreements => None,
    }
}

/// The report of the labelled pairs.
pub fn label_report(tally: &Tally, given: LabelKind, classes: &Classes) -> LabelReport {
    let labels = &tally.labels;
    let kind = kind_of(tally, given);
    let (b, c) = (labels.base_only, labels.candidate_only);
    let loss = accuracy_loss(tally, given);
    let one_pair =
        (labels.labelled == 1 && kind == LabelKind::Plain).then_some(b as f64 - c as f64);
    LabelReport {
        labelled: labels.labelled,
        kind: match kind {
            LabelKind::Plain => "plain",
            LabelKind::Weighted => "weighted",
            LabelKind::Disagreements => "disagreements",
        },
        disagreements: LabelledDisagreements {
            all: tally.pairs - tally.same,
            labelled: labels.differ,
        },
        base: model_labels(tally, &labels.base, given, classes),
        candidate: model_labels(tally, &labels.candidate, given, classes),
        mcnemar: LabelTest {
            base_only: b,
            candidate_only: c,
            p_value: mcnemar(b, c),
        },
        accuracy_loss: loss.map(|it| it.value).or(one_pair),
        accuracy_loss_interval: loss.map(Into::into),
        error_difference: match kind {
            LabelKind::Plain => {
                let differences = labels.error_differences.mean_interval(CONFIDENCE);
                differences.map(Into::into)
            }
            _ => None,
        },
        answers: answers(labels),
    }
}

fn answers(labels: &LabelCounts) -> Option<AnswerReport> {
    (labels.answered > 0).then_some(AnswerReport {
        answered: labels.answered,
        gained: labels.gained,
        lost: labels.lost,
    })
}

/// What the labels tell about one model. Figures that are not weighted hold only for
/// labels that were chosen without regard to the answers.
fn model_labels(
    tally: &Tally,
    model: &ModelLabels,
    given: LabelKind,
    classes: &Classes,
) -> ModelLabelReport {
    let accuracy = accuracy(tally, model, given).map(Rate::from);
    if kind_of(tally, given) != LabelKind::Plain {
        return ModelLabelReport {
            accuracy,
            ..ModelLabelReport::default()
        };
    }
    let calibration = &model.calibration;
    let bins = calibration.bins.iter().filter(|bin| bin.0 > 0);
    ModelLabelReport {
        accuracy,
        classes: match model.errors.mae() {
            // Numbers are not classes.
            Some(_) => Vec::new(),
            None => qualities(&model.confusion, classes),
        },
        brier: model.brier.mean(),
        confidence_brier: calibration.brier(),
        calibration: bins
            .map(|(count, sum, right)| CalibrationBin {
                confidence: sum / *count as f64,
                right: *right as f64 / *count as f64,
                count: *count,
            })
            .collect(),
        mae: model.errors.mae(),
        rmse: model.errors.rmse(),
    }
}

fn qualities(confusion: &PairCounts, classes: &Classes) -> Vec<QualityReport> {
    let (used, table) = confusion.table(classes);
    let qualities = class_qualities(&table).into_iter().zip(used);
    let of = |(quality, class): (ClassQuality, usize)| QualityReport {
        label: classes.json_name(class),
        precision: quality.precision,
        recall: quality.recall,
        f1: quality.f1,
        support: quality.support,
    };
    // A result and a label among the others may be two different classes.
    let tracked = qualities.filter(|(_, class)| *class != OTHERS);
    tracked.map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::label_file::Label;
    use crate::compare::legs::{LegScore, Observation, Roles};
    use crate::compare::tally::Question;
    use crate::compare::values::Equality;

    /// A thousand pairs, of which 100 differ: the candidate is right in 60 of these and
    /// the base in 30. `weight` tells which requests have a label, and its weight.
    fn tally(kind: LabelKind, weight: impl Fn(usize) -> Option<f64>) -> Tally {
        let question = Question {
            roles: Roles {
                models: [
                    Some("a@1".parse().unwrap()),
                    Some("b@1".parse().unwrap()),
                    None,
                    None,
                ],
            },
            equality: Equality::default(),
            slices: Vec::new(),
            needs_input: false,
            labels: Some(kind),
        };
        let (mut tally, mut classes) = (Tally::new(&question), Classes::default());
        for number in 0..1000 {
            let (base, candidate, truth) = match number {
                0..60 => ("1", "2", "2"),
                60..90 => ("1", "2", "1"),
                90..100 => ("1", "2", "3"),
                100..150 => ("1", "1", "2"),
                _ => ("1", "1", "1"),
            };
            let outcomes = [base, candidate].map(|answer| format!("{{\"result\":{answer}}}"));
            let score = |leg: usize| Some(LegScore::new(false, false, None, &outcomes[leg]));
            let seen = Observation {
                message_id: "x",
                time: None,
                model_input: None,
                answered: None,
                is_decision: true,
                scores: [score(0), score(1), None, None],
            };
            let label = weight(number).map(|weight| Label {
                text: truth.to_owned(),
                weight,
            });
            tally.add(&seen, label.as_ref(), &question, &mut classes);
        }
        tally
    }

    fn values(tally: &Tally, kind: LabelKind) -> (Option<f64>, Option<f64>) {
        let value = |interval: Option<Interval>| interval.map(|it| (it.value * 1e9).round() / 1e9);
        (
            value(candidate_accuracy(tally, kind)),
            value(accuracy_loss(tally, kind)),
        )
    }

    #[test]
    fn labels_of_disagreements_give_only_the_difference_of_the_accuracies() {
        let all = tally(LabelKind::Plain, |_| Some(1.0));
        assert_eq!(values(&all, LabelKind::Plain), (Some(0.91), Some(-0.03)));
        // All disagreements, and nothing else: the difference is the same.
        for kind in [LabelKind::Plain, LabelKind::Disagreements] {
            let some = tally(kind, |number| (number < 100).then_some(1.0));
            assert_eq!(values(&some, kind), (None, Some(-0.03)));
            let (one, other) = (
                accuracy_loss(&some, kind),
                accuracy_loss(&all, LabelKind::Plain),
            );
            assert!((one.unwrap().low - other.unwrap().low).abs() < 1e-12);
            let report = label_report(&some, kind, &Classes::default());
            assert_eq!(
                (report.kind, report.disagreements.all),
                ("disagreements", 100)
            );
            assert!(report.base.classes.is_empty() && report.base.accuracy.is_none());
            assert_eq!(
                (report.mcnemar.base_only, report.mcnemar.candidate_only),
                (30, 60)
            );
        }
        // Some of the disagreements.
        let some = tally(LabelKind::Disagreements, |number| {
            (number < 99).then_some(1.0)
        });
        assert_eq!(values(&some, LabelKind::Disagreements), (None, None));
        // An agreement that was labelled among them does not make the labels plain.
        let some = tally(LabelKind::Disagreements, |number| {
            (number < 101).then_some(1.0)
        });
        assert_eq!(values(&some, LabelKind::Disagreements), (None, Some(-0.03)));
    }

    #[test]
    fn weights_make_up_for_the_choice_of_requests() {
        // All disagreements and each tenth agreement have a label.
        let weight = |number: usize| match number {
            0..100 => Some(1.0),
            _ if number.is_multiple_of(10) => Some(10.0),
            _ => None,
        };
        let some = tally(LabelKind::Weighted, weight);
        let (accuracy, loss) = values(&some, LabelKind::Weighted);
        assert!((accuracy.unwrap() - 0.91).abs() < 1e-12);
        assert!((loss.unwrap() + 0.03).abs() < 1e-12);
        assert!(
            some.labels.candidate.right < 150,
            "the plain share would be wrong"
        );
        let interval = candidate_accuracy(&some, LabelKind::Weighted).unwrap();
        assert!(interval.low < 0.9 && interval.high <= 1.0, "{interval:?}");
    }
}
