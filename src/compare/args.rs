//! The flags of `rv-compare` and their checks.

use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compare::disagreements::DisagreementsArgs;
use crate::compare::gates::{Gate, Measure};
use crate::compare::label_file::LabelSource;
use crate::compare::late_labels::LateLabels;
use crate::compare::source_args::{MoreModelArgs, SourceArgs};
use crate::compare::tally::{LabelKind, Question};
use crate::stage::cli::{RunArgs, VERSION, bytes, duration};
use crate::stage::streams::OutputArgs;
use crate::stage::usage;
use crate::stream::address::Address;

/// Compare two models on the same requests
///
/// Reads decisions, or the scores of both models, and reports how often the models
/// agree, which one is right more often, which one is faster, and how sure that is. The
/// exit status is 1 if a gate fails.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "rv-compare",
    version = VERSION,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  rv-compare --base dt@1 --candidate dt@2 -i decisions.archive
  rv-compare --base dt@1 --candidate dt@2 --scores old.ndjson new.ndjson --fail-if 'disagreement > 0.02'
  rv-compare --base dt@1 --candidate lr@0 -i decisions.archive --labels truth.csv --html report.html"
)]
pub struct CompareArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,

    #[command(flatten)]
    pub(super) more_models: MoreModelArgs,

    #[command(flatten)]
    pub(super) labels: LabelArgs,

    /// Also report the agreement for each value of this field of the model input, as a
    /// JSON pointer such as /country. May be given several times. Decisions have the
    /// model input, and recorded scores are read without it
    #[arg(long, value_name = "POINTER", value_parser = pointer)]
    slice: Vec<String>,

    /// Report how far the model inputs have drifted from those in FILE: requests,
    /// decisions or scores, from a file, an archive or a pipe. From decisions, also how
    /// far the answers have. FILE is read before the records
    #[arg(long, value_name = "FILE", conflicts_with = "profile")]
    pub(super) reference: Option<Address>,

    /// Report how far the model inputs have drifted from the profile in a model file. If
    /// the model is base or candidate, also how far its answers have
    #[arg(long, value_name = "MODEL_FILE")]
    pub(super) profile: Option<String>,

    #[command(flatten)]
    pub(super) gates: GateArgs,

    /// How to write the report
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(super) format: Format,

    /// With --format ndjson: a line for each DURATION of the requests' timestamps
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "window_records")]
    window: Option<Duration>,

    /// With --format ndjson: a line for each N requests
    #[arg(long, value_name = "N")]
    window_records: Option<NonZeroU64>,

    /// Also write the report to FILE as one page of HTML that needs no other file
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<String>,

    #[command(flatten)]
    pub(super) output: OutputArgs,

    #[command(flatten)]
    pub(super) run: RunArgs,

    #[command(subcommand)]
    pub(super) command: Option<CompareCommand>,
}

/// The subcommands.
#[derive(Subcommand, Clone, Debug)]
pub enum CompareCommand {
    /// Write the requests about which the models disagree
    Disagreements(DisagreementsArgs),
}

/// The flags for labels.
#[derive(Args, Clone, Debug)]
pub struct LabelArgs {
    /// Read the true labels from FILE: CSV with the columns messageId and label, or
    /// NDJSON with these fields. The file is read before the records
    #[arg(long, value_name = "FILE")]
    labels: Option<Address>,

    /// The column, or the field, of the label
    #[arg(
        long,
        value_name = "NAME",
        default_value = "label",
        requires = "labels"
    )]
    label_column: String,

    /// The column, or the field, of the weight of a label: one divided by the probability
    /// with which its request was chosen
    #[arg(long, value_name = "NAME", requires = "labels")]
    label_weight: Option<String>,

    /// Only requests about which the models disagree have labels. Without weights, such
    /// labels give no accuracy, only McNemar's test and the difference of the accuracies
    #[arg(long, requires = "labels")]
    labels_of_disagreements: bool,

    /// Find the requests of late labels in PATH, a recording of the decisions. The labels
    /// then come through a pipe, while the records are followed
    #[arg(long, value_name = "PATH", requires_all = ["labels", "follow"])]
    recording: Option<Address>,

    /// With --recording: search it at most once in DURATION
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration, requires = "recording")]
    search_every: Duration,

    /// Refuse labels that need more than SIZE of memory. A million labels of a few
    /// classes take up to 40 MB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", requires = "labels")]
    labels_max_bytes: ByteSize,
}

/// The flags for gates.
#[derive(Args, Clone, Debug)]
pub struct GateArgs {
    /// Exit with status 1 if the condition holds, such as 'disagreement > 0.02'. May be
    /// given several times. The measures are disagreement, agreement, failures, late,
    /// absent, accuracy, accuracyLoss, and p50, p90, p99 in milliseconds
    #[arg(long, value_name = "CONDITION")]
    pub(super) fail_if: Vec<Gate>,

    /// Read the gates after every request. A gate fails when the lower bound of its
    /// figure is above the limit (or the upper bound below). A false alarm of any of
    /// the gates has a probability of at most 5 %, however often they are read
    #[arg(long, requires = "fail_if")]
    pub(super) any_time: bool,

    /// With --any-time: write the report and exit as soon as a gate fails
    #[arg(long, requires = "any_time")]
    pub(super) stop_on_failure: bool,
}

/// The form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    Table,
    /// One JSON object.
    Json,
    /// One JSON object a line and a window.
    Ndjson,
}

/// When a window ends.
#[derive(Clone, Copy, Debug)]
pub enum WindowLength {
    /// After a span of the requests' timestamps.
    Span(Duration),
    /// After a number of requests.
    Requests(u64),
}

fn pointer(text: &str) -> Result<String, String> {
    match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err("is not a JSON pointer, which begins with /".to_owned()),
    }
}

impl LabelArgs {
    /// The file of labels, if one is given.
    pub fn source(&self) -> Option<LabelSource> {
        Some(LabelSource {
            address: self.labels.clone()?,
            column: self.label_column.clone(),
            weight: self.label_weight.clone(),
            bytes_max: bytes(self.labels_max_bytes),
        })
    }

    /// The pipe of labels, if they are read while the records are followed.
    pub fn live(&self) -> Option<&Address> {
        self.recording.as_ref().and(self.labels.as_ref())
    }

    /// The searches for the requests of late labels.
    pub fn late(&self) -> Option<LateLabels> {
        let recording = self.recording.as_ref()?;
        Some(LateLabels::new(recording, self.search_every))
    }

    /// The kind of the labels, if there are any.
    fn kind(&self) -> Option<LabelKind> {
        self.labels.as_ref()?;
        Some(match (&self.label_weight, self.labels_of_disagreements) {
            (Some(_), _) => LabelKind::Weighted,
            (None, true) => LabelKind::Disagreements,
            (None, false) => LabelKind::Plain,
        })
    }
}

impl CompareArgs {
    /// What the comparison is asked to do. Combinations of flags that mean nothing are
    /// refused.
    pub fn question(&self) -> Result<Question> {
        let labels = self.labels.kind();
        for gate in &self.gates.fail_if {
            self.check_gate(gate, labels)?;
        }
        if self.window_length().is_some() && self.format != Format::Ndjson {
            return Err(usage(
                "--window and --window-records need --format ndjson, which has a line a window",
            ));
        }
        let needs_input =
            !self.slice.is_empty() || self.reference.is_some() || self.profile.is_some();
        if needs_input && !self.source.scores.is_empty() && !self.source.input.follow {
            return Err(usage(
                "--slice, --reference and --profile need the model input, and --scores are read \
                 without it: give decisions with --input",
            ));
        }
        Ok(Question {
            roles: self.source.roles(Some(&self.more_models))?,
            equality: self.source.equality(),
            slices: self.slice.clone(),
            labels,
            needs_input,
        })
    }

    /// Refuses a gate that could never be read.
    fn check_gate(&self, gate: &Gate, labels: Option<LabelKind>) -> Result<()> {
        let any_time = self.gates.any_time;
        let fault = match labels {
            None if gate.needs_labels() => "needs --labels",
            Some(LabelKind::Disagreements) if gate.needs_labels() && any_time => {
                "cannot be read at any time from labels of disagreements: leave out --any-time"
            }
            Some(LabelKind::Weighted) if gate.needs_labels() && any_time => {
                "cannot be read at any time from labels with weights: leave out --any-time"
            }
            Some(LabelKind::Disagreements) if gate.measure == Measure::Accuracy => {
                "needs --label-weight, because labels of disagreements give no accuracy"
            }
            _ if any_time && !gate.has_sequence() => {
                "cannot be read at any time: leave out --any-time, or compare in two runs"
            }
            _ if gate.needs_decisions() && !self.source.scores.is_empty() => {
                "needs decisions, because --scores do not tell whether a score was late: give \
                 decisions with --input"
            }
            _ => return Ok(()),
        };
        Err(usage(format!("--fail-if '{gate}' {fault}")))
    }

    /// The pipes of records, if several streams are followed.
    pub fn live_records(&self) -> Option<Vec<Address>> {
        let is_followed = self.source.input.follow;
        match self.source.scores.as_slice() {
            [] => { self.labels.live() }.map(|_| vec![self.source.input.input.clone()]),
            scores => is_followed.then(|| scores.to_vec()),
        }
    }

    /// When a window ends; `None` without windows.
    pub fn window_length(&self) -> Option<WindowLength> {
        let span = self.window.map(WindowLength::Span);
        let requests = self.window_records.map(NonZeroU64::get);
        span.or(requests.map(WindowLength::Requests))
    }
}
