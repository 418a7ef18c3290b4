//! The answer of a model that is not evaluated from rv's own model file: any JSON as
//! the result, or an error.

/// A result, with the texts as they are written into the score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The result, as JSON text on one line.
    pub result: String,
    /// The confidence, as JSON text, where the model gives one.
    pub confidence: Option<String>,
    /// The probability of each class, as the text of a JSON object, where the model
    /// gives them.
    pub probabilities: Option<String>,
}

impl Answer {
    /// An answer without a confidence.
    pub fn of_result(result: String) -> Answer {
        Answer {
            result,
            confidence: None,
            probabilities: None,
        }
    }
}

/// The reason why a model has no result for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelError {
    /// A short description of the fault.
    pub message: String,
    /// The status and the body of the reply, where a server has refused the request.
    /// The body is JSON text on one line; a body that is no JSON is a JSON string.
    pub reply: Option<(u16, String)>,
}

impl ModelError {
    /// An error without a server's reply.
    pub fn new(message: impl Into<String>) -> ModelError {
        ModelError {
            message: message.into(),
            reply: None,
        }
    }
}
