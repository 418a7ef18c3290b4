//! Writes the scores of requests that were held until their answer was known.

use crate::serve::score::answer::{Answer, ModelError};
use crate::serve::score::engine::Finished;
use crate::serve::score::evaluator::Scored;
use crate::serve::score::scoring::{HeldRequest, Outcome, Scoring};
use crate::wire::micros::Micros;

/// Adds the score of a request to `finished`. `evaluation` is the duration of the
/// evaluation.
pub fn finish(
    scoring: &Scoring,
    held: &HeldRequest,
    outcome: &Result<Answer, ModelError>,
    evaluation: Micros,
    finished: &mut Finished,
) {
    let line = held.line();
    // A held request is valid, so this cannot fail.
    let written = held.request().map(|request| {
        let written = match outcome {
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => Outcome::Error(error),
        };
        let age = match scoring.options().rescore {
            true => evaluation,
            false => scoring.age(&request),
        };
        scoring.write(&request, &written, (age, evaluation), &mut finished.scores);
        Scored {
            is_error: outcome.is_err(),
            evaluation,
        }
    });
    finished.count(&line, written);
}
