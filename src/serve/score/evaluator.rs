//! Evaluates a model in this process: turns the bytes of a request into the bytes of a
//! score.

use std::time::Duration;

use crate::model::Model;
use crate::model::prediction::Prediction;
use crate::serve::score::score_writer::{ScoreWriter, Times};
use crate::stage::clock::Clock;
use crate::wire::message::Record;
use crate::wire::micros::Micros;
use crate::wire::reject::Reject;

/// The options of scoring.
#[derive(Clone, Debug)]
pub struct ScoringOptions {
    /// Whether the probability of every class is written.
    pub probabilities: bool,
    /// The age from which requests are not evaluated.
    pub skip_older: Option<Duration>,
    /// Whether the requests come from a recording.
    pub rescore: bool,
    /// Whether an earlier result is kept.
    pub keep_previous: bool,
    /// The time since the request to write instead of the real one.
    pub assume_elapsed: Option<Duration>,
    /// The source of times.
    pub clock: Clock,
}

/// Scores requests with one model. Threads can share it.
#[derive(Debug)]
pub struct Evaluator {
    model: Model,
    writer: ScoreWriter,
    options: ScoringOptions,
}

/// Memory that one thread reuses for each request.
#[derive(Debug, Default)]
pub struct Buffers {
    row: Vec<f64>,
    probabilities: Vec<f64>,
}

/// The outcome of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scored {
    /// Whether the score is an error.
    pub is_error: bool,
    /// The duration of the evaluation.
    pub evaluation: Micros,
}

impl Evaluator {
    /// Scores requests with `model`.
    pub fn new(model: Model, options: ScoringOptions) -> Evaluator {
        let mut writer = ScoreWriter::new(
            (model.name(), model.version(), model.hash()),
            &model.description().labels(),
        );
        writer.with_probabilities = options.probabilities;
        writer.keeps_previous = options.keep_previous;
        writer.is_rescoring = options.rescore;
        Evaluator {
            model,
            writer,
            options,
        }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Evaluates the model on the text of a `modelInput`. The error is the reason why
    /// this is not possible.
    pub fn predict(&self, buffers: &mut Buffers, model_input: &str) -> Result<Prediction, String> {
        self.model.read_input(model_input, &mut buffers.row)?;
        Ok(self.model.predict(&buffers.row, &mut buffers.probabilities))
    }

    /// Appends the score of one request to `out`. If `record` is not a valid request,
    /// this returns the reason and appends nothing.
    pub fn score(
        &self,
        buffers: &mut Buffers,
        record: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Scored, Reject> {
        let request = Record::parse(record)?;
        request.message_id()?;
        let timestamp = request.timestamp()?;
        let model_input = request.model_input()?;
        let provenance = request.provenance()?;

        let ScoringOptions {
            rescore,
            assume_elapsed,
            clock,
            ..
        } = &self.options;
        let begun = clock.monotonic();
        // The age of a recorded request has no meaning.
        let age = match rescore {
            true => Micros(0),
            false => clock.unix() - timestamp,
        };
        let outcome = match self.too_old(age) {
            Some(message) => Err(message),
            None => self.predict(buffers, model_input),
        };
        let evaluation = clock.monotonic() - begun;
        let times = Times {
            since_request: assume_elapsed.map_or(age + evaluation, Micros::from_duration),
            evaluation,
        };
        let is_error = outcome.is_err();
        let mut score = self.writer.begin(&request, out);
        match outcome {
            Ok(prediction) => {
                self.writer
                    .write_result(&mut score, prediction, &buffers.probabilities);
            }
            Err(message) => self.writer.write_error(&mut score, &message),
        }
        self.writer.end(score, provenance.as_ref(), times);
        out.push(b'\n');
        Ok(Scored {
            is_error,
            evaluation,
        })
    }

    /// The error message for a request of this age, if it is too old.
    fn too_old(&self, age: Micros) -> Option<String> {
        let limit = self.options.skip_older?;
        (age > Micros::from_duration(limit)).then(|| {
            format!(
                "not evaluated: the request is older than {}",
                humantime::format_duration(limit)
            )
        })
    }
}
