//! The report of a comparison, in the form of `--format json`.

use serde::Serialize;
use serde_json::value::RawValue;

pub use crate::compare::figures::{Both, ChiSquared, Ends, Mean, Rate};

/// The whole report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The name of the base.
    pub base: String,
    /// The name of the candidate.
    pub candidate: String,
    /// The time of the requests, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowReport>,
    /// The counts of records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<RecordCounts>,
    /// All requests.
    pub requests: u64,
    /// Requests that both answered.
    pub pairs: u64,
    /// Requests that one answered, while the other is absent.
    pub unpaired: Both<u64>,
    /// Requests in which one or both failed.
    pub errors: u64,
    /// Failed scores of each.
    pub failed: Both<u64>,
    /// Late scores of each.
    pub late: Both<u64>,
    /// Requests without a score of either.
    pub neither: u64,
    /// The rate of equal answers among the pairs.
    pub agreement: Option<Rate>,
    /// The rate that gates use.
    pub disagreement: Option<Disagreement>,
    /// Cohen's kappa.
    pub kappa: Option<f64>,
    /// Counts of pairs of classes.
    pub confusion: Confusion,
    /// How often each gives each class.
    pub classes: Vec<ClassReport>,
    /// The test of marginal homogeneity.
    pub marginal: Option<ChiSquared>,
    /// The test of a change of each model's mix since the window before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mix: Option<Both<Option<ChiSquared>>>,
    /// The test of a change of the numbers that each model answers since the window
    /// before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<Both<Option<DriftTest>>>,
    /// The intervals that hold at all times at once.
    pub any_time: AnyTime,
    /// The candidate beside the noise leg.
    pub noise: Option<NoiseReport>,
    /// Both beside the ruler.
    pub ruler: Option<RulerReport>,
    /// Both beside the labels.
    pub labels: Option<LabelReport>,
    /// The times of both.
    pub latency: LatencyReport,
    /// The drift from the reference or from the profile.
    pub drift: Vec<Drift>,
    /// The fields of compound answers.
    pub fields: Vec<FieldReport>,
    /// The slices.
    pub slices: Vec<SliceReport>,
    /// The gates.
    pub gates: Vec<GateReport>,
}

/// The time of the requests of a report.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WindowReport {
    /// The number of the window, from 1; null for the whole input.
    pub number: Option<u64>,
    /// The oldest request.
    pub from: f64,
    /// The newest request.
    pub to: f64,
}

/// The counts of records.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordCounts {
    /// Lines that are not blank.
    pub read: u64,
    /// Valid records.
    pub valid: u64,
    /// Decisions.
    pub decisions: u64,
    /// Scores of the models that are compared.
    pub scores: u64,
    /// Scores of other models.
    pub other_models: u64,
    /// Decisions of a request that was seen before. In streams of scores: further scores
    /// of a model for the same request.
    pub repeated: u64,
    /// Further scores of a model in one decision. The first one counts.
    pub repeated_scores: u64,
    /// Scores that came after their request was closed.
    pub after_close: u64,
    /// Lines that are not valid records.
    pub rejected: u64,
}

/// The disagreement that gates use.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Disagreement {
    /// The rate among the requests that the base answered.
    pub rate: f64,
    /// The lower end of the 95 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The requests that the base answered.
    pub requests: u64,
    /// Other answers in time.
    pub differ: u64,
    /// Failures of the candidate.
    pub failed: u64,
    /// Late answers of the candidate.
    pub late: u64,
    /// Requests without a score of the candidate.
    pub absent: u64,
}

/// Counts of pairs of classes: rows are the base's, columns the candidate's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Confusion {
    /// The classes.
    pub labels: Vec<Box<RawValue>>,
    /// The counts.
    pub counts: Vec<Vec<u64>>,
    /// Pairs in the cell of "(others)" and "(others)" whose answers differ.
    #[serde(skip_serializing_if = "is_zero")]
    pub others_differ: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// How often each model gives one class.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassReport {
    /// The class.
    pub label: Box<RawValue>,
    /// The count of the base.
    pub base: u64,
    /// The count of the candidate.
    pub candidate: u64,
    /// The rate of the base.
    pub base_rate: Option<Rate>,
    /// The rate of the candidate.
    pub candidate_rate: Option<Rate>,
}

/// The intervals that hold at all times at once.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnyTime {
    /// The disagreement that gates use.
    pub disagreement: Ends,
    /// The accuracy of the base minus that of the candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_loss: Option<Ends>,
}

/// The candidate beside the noise leg.
#[derive(Debug, Serialize)]
pub struct NoiseReport {
    /// The name of the noise leg.
    pub model: String,
    /// Requests that all three answered.
    pub requests: u64,
    /// The rate at which the candidate differs from the base on them.
    pub candidate: Option<Rate>,
    /// The rate at which the noise leg differs from the base on them.
    pub noise: Option<Rate>,
    /// The exact one-sided test.
    pub mcnemar: NoiseTest,
}

/// Whether the candidate differs more than the noise leg.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NoiseTest {
    /// Requests in which only the candidate differs.
    pub candidate_only: u64,
    /// Requests in which only the noise leg differs.
    pub noise_only: u64,
    /// The p-value.
    pub p_value: f64,
}

/// Both beside the ruler.
#[derive(Debug, Serialize)]
pub struct RulerReport {
    /// The name of the ruler.
    pub model: String,
    /// The agreement of the base with it.
    pub base: Option<Rate>,
    /// The agreement of the candidate with it.
    pub candidate: Option<Rate>,
}

/// Both beside the labels.
#[derive(Debug, Serialize)]
pub struct LabelReport {
    /// Pairs with a label.
    pub labelled: u64,
    /// The kind of labels: `plain`, `weighted` or `disagreements`. Labels of
    /// disagreements alone give no accuracy.
    pub kind: &'static str,
    /// The pairs whose answers differ.
    pub disagreements: LabelledDisagreements,
    /// The base.
    pub base: ModelLabelReport,
    /// The candidate.
    pub candidate: ModelLabelReport,
    /// McNemar's exact test.
    pub mcnemar: LabelTest,
    /// The accuracy of the base minus that of the candidate.
    #[serde(rename = "accuracyLoss")]
    pub accuracy_loss: Option<f64>,
    /// The interval of this difference; null with fewer than two pairs.
    #[serde(rename = "accuracyLossInterval")]
    pub accuracy_loss_interval: Option<Ends>,
    /// The absolute errors of numbers, candidate minus base.
    #[serde(skip_serializing_if = "Option::is_none", rename = "errorDifference")]
    pub error_difference: Option<Mean>,
    /// What the candidate would have changed for the clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<AnswerReport>,
}

/// The pairs whose answers differ, and how many of them have a label.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LabelledDisagreements {
    /// All of them.
    pub all: u64,
    /// Those with a label.
    pub labelled: u64,
}

/// Whether one model is right more often.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelTest {
    /// Pairs in which only the base is right.
    pub base_only: u64,
    /// Pairs in which only the candidate is right.
    pub candidate_only: u64,
    /// The p-value.
    pub p_value: f64,
}

/// What would have changed for the clients, if the candidate had answered all labelled
/// pairs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AnswerReport {
    /// Labelled pairs whose record has the answer that the client got.
    pub answered: u64,
    /// Wrong answers that the candidate would have corrected.
    pub gained: u64,
    /// Right answers that the candidate would have spoilt.
    pub lost: u64,
}

/// One model beside the labels.
#[derive(Debug, Default, Serialize)]
pub struct ModelLabelReport {
    /// The rate of right results.
    pub accuracy: Option<Rate>,
    /// How well it finds each class.
    pub classes: Vec<QualityReport>,
    /// The mean multiclass Brier score of the results with probabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brier: Option<f64>,
    /// The Brier score of the confidence that the result is right.
    #[serde(skip_serializing_if = "Option::is_none", rename = "confidenceBrier")]
    pub confidence_brier: Option<f64>,
    /// The share of right results by confidence.
    pub calibration: Vec<CalibrationBin>,
    /// The mean absolute error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mae: Option<f64>,
    /// The root of the mean squared error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rmse: Option<f64>,
}

/// How well a model finds one class.
#[derive(Debug, Serialize)]
pub struct QualityReport {
    /// The class.
    pub label: Box<RawValue>,
    /// The share of the results with this class that are right.
    pub precision: f64,
    /// The share of the labels with this class that are found.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
    /// The number of labels with this class.
    pub support: u64,
}

/// The results with similar confidence.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CalibrationBin {
    /// The mean confidence.
    pub confidence: f64,
    /// The share of right results.
    pub right: f64,
    /// The number of results.
    pub count: u64,
}

/// The times of both, in milliseconds from the request.
#[derive(Debug, Serialize)]
pub struct LatencyReport {
    /// The base.
    pub base: Quantiles,
    /// The candidate.
    pub candidate: Quantiles,
    /// The mean difference on the same requests, candidate minus base.
    pub difference: Option<Mean>,
}

/// Quantiles, in milliseconds.
#[derive(Debug, Serialize)]
pub struct Quantiles {
    /// The number of scores with a time.
    pub count: u64,
    /// The median.
    pub p50: Option<f64>,
    /// 90 of 100 are faster.
    pub p90: Option<f64>,
    /// 99 of 100 are faster.
    pub p99: Option<f64>,
    /// The 95 % intervals.
    pub intervals: QuantileEnds,
}

/// The intervals of the quantiles.
#[derive(Debug, Serialize)]
pub struct QuantileEnds {
    /// Of the median.
    pub p50: Option<Ends>,
    /// Of the 90 % quantile.
    pub p90: Option<Ends>,
    /// Of the 99 % quantile.
    pub p99: Option<Ends>,
}

/// The drift of one field.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// `input` for a field of the model input; `base` or `candidate` for what that model
    /// answered.
    pub of: &'static str,
    /// The name of the field.
    pub field: String,
    /// `number` or `category`.
    pub kind: &'static str,
    /// The share of inputs without the field.
    pub missing: Missing,
    /// The share of values outside of what the reference has seen.
    pub unseen: Option<f64>,
    /// The population stability index.
    pub psi: Option<f64>,
    /// What the index reaches by chance, or in the reference alone.
    pub floor: Option<f64>,
    /// Whether the index is above the floor.
    pub drifts: bool,
    /// The Jensen-Shannon distance.
    pub jensen_shannon: Option<f64>,
    /// The test of Kolmogorov and Smirnov, for numbers.
    pub kolmogorov_smirnov: Option<DriftTest>,
}

/// The share of inputs without a field.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Missing {
    /// In the reference.
    pub reference: f64,
    /// In the requests that are compared.
    pub current: f64,
}

/// A two-sample test.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftTest {
    /// The largest distance of the distribution functions.
    pub statistic: f64,
    /// The p-value; null for the bins of a profile.
    pub p_value: Option<f64>,
}

/// One field of compound answers.
#[derive(Debug, Serialize)]
pub struct FieldReport {
    /// The path of the field.
    pub path: String,
    /// Pairs in which at least one answer has the field.
    pub pairs: u64,
    /// The rate at which it differs.
    pub disagreement: Option<Rate>,
    /// The candidate beside the noise leg; null without one.
    pub noise: Option<FieldNoise>,
}

/// Whether a field of the candidate differs more than that of the noise leg.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldNoise {
    /// Requests in which only the candidate differs.
    pub candidate_only: u64,
    /// Requests in which only the noise leg differs.
    pub noise_only: u64,
    /// The p-value of this field alone.
    pub p_value: f64,
    /// The p-value after the correction for the number of fields.
    pub corrected: f64,
    /// Whether the field differs more than noise.
    pub differs: bool,
}

/// The agreement where a field of the model input has one value.
#[derive(Debug, Serialize)]
pub struct SliceReport {
    /// The JSON pointer of the field.
    pub field: String,
    /// The value, as JSON text.
    pub value: String,
    /// The pairs.
    pub pairs: u64,
    /// Their agreement.
    pub agreement: Option<Rate>,
}

/// What a gate says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateReport {
    /// The gate.
    pub gate: String,
    /// `failed`, `passed` or `undecided`.
    pub state: &'static str,
    /// The figure; with --any-time, at the time of the failure.
    pub figure: Option<f64>,
    /// The lower end of its interval.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
    /// Whether the gate was read after every request.
    pub any_time: bool,
}
