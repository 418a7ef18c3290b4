//! The answer of a model that has no model file of rv's own: any JSON as the result, or
//! an error.

/// A result. Its parts are texts that are copied into the score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The result, as JSON text on one line.
    pub result: String,
    /// The confidence, as JSON text; `None` if the model gives none.
    pub confidence: Option<String>,
    /// The probability of each class, as the text of a JSON object; `None` if the model
    /// gives no probabilities.
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

/// The reason why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelError {
    /// A short description of the fault.
    pub message: String,
    /// The status and the body of the reply if a server has refused the request. The
    /// body is JSON text on one line. A body that is not JSON, or is a JSON string,
    /// becomes a JSON string with the text of the body.
    pub reply: Option<(u16, String)>,
}

impl ModelError {
    /// An error that does not come from a reply with an error status.
    pub fn new(message: impl Into<String>) -> ModelError {
        ModelError {
            message: message.into(),
            reply: None,
        }
    }
}
