//! Evaluates a model in this process: turns the bytes of a request into the bytes of a
//! score.

use crate::model::Model;
use crate::model::prediction::Prediction;
use crate::serve::score::answer::ModelError;
use crate::serve::score::identity::Identity;
use crate::serve::score::scoring::{Outcome, Request, Scoring, ScoringOptions};
use crate::wire::micros::Micros;
use crate::wire::reject::Reject;

/// Scores requests with one model. Several threads can share an evaluator.
#[derive(Debug)]
pub struct Evaluator {
    model: Model,
    scoring: Scoring,
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
        let identity = Identity {
            name: model.name().to_owned(),
            version: model.version(),
            hash: Some(model.hash().to_owned()),
        };
        let labels = model.description().labels();
        Evaluator {
            scoring: Scoring::new(&identity, &labels, options),
            model,
        }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Evaluates the model on the text of a `modelInput`. The error is the reason why
    /// this is not possible.
    fn predict(&self, buffers: &mut Buffers, model_input: &str) -> Result<Prediction, String> {
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
        let request = Request::parse(record)?;
        let begun = self.scoring.now();
        let age = self.scoring.age(&request);
        let prediction = match self.scoring.too_old(age, Micros(0)) {
            Some(error) => Err(error),
            None => self
                .predict(buffers, request.model_input)
                .map_err(ModelError::new),
        };
        let evaluation = self.scoring.now() - begun;
        let outcome = match &prediction {
            Ok(prediction) => Outcome::Prediction(*prediction, &buffers.probabilities),
            Err(error) => Outcome::Error(error),
        };
        self.scoring
            .write(&request, &outcome, (age + evaluation, evaluation), out);
        Ok(Scored {
            is_error: prediction.is_err(),
            evaluation,
        })
    }
}
