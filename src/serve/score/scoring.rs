//! The part of scoring that is the same for every kind of model: checks a request,
//! measures its times, and writes its score.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::Result;

use crate::model::prediction::Prediction;
use crate::serve::score::answer::{Answer, ModelError};
use crate::serve::score::identity::Identity;
use crate::serve::score::score_writer::{ScoreWriter, Times};
use crate::stage::clock::Clock;
use crate::wire::lines::{KeptLine, Line};
use crate::wire::message::Record;
use crate::wire::micros::Micros;
use crate::wire::object::{Object, decode_string};
use crate::wire::reject::Reject;
use crate::wire::trace::{TRACEPARENT, TRACESTATE, TraceContext};

/// The options of scoring.
#[derive(Clone, Debug)]
pub struct ScoringOptions {
    /// Whether the probability of every class is written.
    pub probabilities: bool,
    /// Requests that are older than this are not evaluated.
    pub skip_older: Option<Duration>,
    /// Whether the requests come from a recording.
    pub rescore: bool,
    /// Whether an earlier result is kept.
    pub keep_previous: bool,
    /// The time since the request that is written into the score. `None` for the real
    /// time.
    pub assume_elapsed: Option<Duration>,
    /// The source of times.
    pub clock: Clock,
}

/// A valid request that is to be scored.
#[derive(Debug)]
pub struct Request<'a> {
    record: Record<'a>,
    provenance: Option<Object<'a>>,
    /// The time at which the request was accepted.
    pub timestamp: Micros,
    /// The text of `modelInput`.
    pub model_input: &'a str,
}

impl<'a> Request<'a> {
    /// Checks a record. The error is the reason why it is not a valid request.
    pub fn parse(record: &'a [u8]) -> Result<Request<'a>, Reject> {
        let record = Record::parse(record)?;
        record.message_id()?;
        Ok(Request {
            timestamp: record.timestamp()?,
            model_input: record.model_input()?,
            provenance: record.provenance()?,
            record,
        })
    }

    /// The id of the request and its trace, if it belongs to a valid one.
    pub fn trace(&self) -> Option<(Cow<'a, str>, TraceContext)> {
        let text = |name| self.record.object().get(name).and_then(decode_string);
        let trace = TraceContext::new(&text(TRACEPARENT)?, text(TRACESTATE).as_deref())?;
        Some((self.record.message_id().ok()?, trace))
    }
}

/// The result of a model for one request, or the reason why there is none.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// The prediction of a model that is evaluated here, with the probability of each
    /// class.
    Prediction(Prediction, &'a [f64]),
    /// The answer of any other model.
    Answer(&'a Answer),
    /// The reason why there is no result.
    Error(&'a ModelError),
}

/// Writes the scores of one model, with their times.
#[derive(Debug)]
pub struct Scoring {
    writer: ScoreWriter,
    options: ScoringOptions,
}

impl Scoring {
    /// Prepares the scores of a model. `labels` are the labels of its classes as JSON
    /// text, if it has classes.
    pub fn new(identity: &Identity, labels: &[&str], options: ScoringOptions) -> Scoring {
        let mut writer = ScoreWriter::new(identity, labels);
        writer.with_probabilities = options.probabilities;
        writer.keeps_previous = options.keep_previous;
        writer.is_rescoring = options.rescore;
        Scoring { writer, options }
    }

    /// The options.
    pub fn options(&self) -> &ScoringOptions {
        &self.options
    }

    /// The time for measuring evaluations.
    pub fn now(&self) -> Micros {
        self.options.clock.monotonic()
    }

    /// The age of a request. A recorded request has the age 0, because its real age has
    /// no meaning.
    pub fn age(&self, request: &Request) -> Micros {
        match self.options.rescore {
            true => Micros(0),
            false => self.options.clock.unix() - request.timestamp,
        }
    }

    /// The error for a request of this age, if it would be too old at the end of its
    /// evaluation. `evaluation` is the expected time of the evaluation.
    pub fn too_old(&self, age: Micros, evaluation: Micros) -> Option<ModelError> {
        let skip_older = self.options.skip_older?;
        let limit = Micros::from_duration(skip_older);
        // A young request is always evaluated. Otherwise, one slow evaluation could end
        // all evaluations, and the estimate would stay.
        let evaluation = evaluation.min(Micros(limit.0 / 2));
        let what = match () {
            () if age > limit => "is older than",
            () if age + evaluation > limit => "would soon be older than",
            () => return None,
        };
        let skip_older = humantime::format_duration(skip_older);
        let message = format!("not evaluated: the request {what} {skip_older}");
        Some(ModelError::new(message))
    }

    /// Appends the score of a request to `out`. `age` is the age of the request when
    /// the score is written. For a recorded request, `age` does not include the time of
    /// the evaluation.
    pub fn write(
        &self,
        request: &Request,
        outcome: &Outcome,
        (age, evaluation): (Micros, Micros),
        out: &mut Vec<u8>,
    ) {
        let times = Times {
            since_request: (self.options.assume_elapsed).map_or(age, Micros::from_duration),
            evaluation,
        };
        let mut score = self.writer.begin(&request.record, out);
        match outcome {
            Outcome::Prediction(prediction, probabilities) => {
                self.writer
                    .write_result(&mut score, *prediction, probabilities);
            }
            Outcome::Answer(answer) => self.writer.write_answer(&mut score, answer),
            Outcome::Error(error) => self.writer.write_error(&mut score, error),
        }
        self.writer.end(score, request.provenance.as_ref(), times);
        out.push(b'\n');
    }
}

/// A request that an engine holds until its answer is known.
#[derive(Debug)]
pub struct HeldRequest {
    line: KeptLine,
    /// The time at which the evaluation of the request began.
    begun: Micros,
}

impl HeldRequest {
    /// Copies a line, which must hold a valid request. Its evaluation begins at `now`.
    pub fn new(line: &Line, now: Micros) -> HeldRequest {
        HeldRequest {
            line: KeptLine::from(line),
            begun: now,
        }
    }

    /// The number of bytes that this request holds in memory.
    pub fn bytes(&self) -> usize {
        self.line.kept_bytes()
    }

    /// Sets the time at which the evaluation begins. Call this for a request that has
    /// waited.
    pub fn begin(&mut self, now: Micros) {
        self.begun = now;
    }

    /// The request.
    pub fn request(&self) -> Result<Request<'_>, Reject> {
        Request::parse(self.line.line().head())
    }

    /// The line of the request, as it was read.
    pub fn line(&self) -> Line<'_> {
        self.line.line()
    }

    /// The time since the evaluation began.
    pub fn evaluation(&self, scoring: &Scoring) -> Micros {
        scoring.now() - self.begun
    }
}
