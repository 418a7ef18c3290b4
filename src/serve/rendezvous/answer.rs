//! The answer to one request.

use std::rc::Rc;

use crate::serve::rendezvous::decision::Choice;
use crate::serve::rendezvous::policy::Policy;
use crate::wire::text::Text;

/// What the client gets, as JSON text.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerContent {
    /// The result of the model that won.
    Result(Text),
    /// The error of a model that refused the request.
    Refusal(Text),
    /// The default of the policy; null if the policy has none.
    Default(Text),
}

impl AnswerContent {
    /// The value of `modelResult`; null for a refusal.
    pub fn model_result(&self) -> &str {
        match self {
            AnswerContent::Result(text) | AnswerContent::Default(text) => text,
            AnswerContent::Refusal(_) => "null",
        }
    }

    /// The value of `modelError`. Only a refusal has this member.
    pub fn model_error(&self) -> Option<&str> {
        match self {
            AnswerContent::Refusal(text) => Some(text),
            AnswerContent::Result(_) | AnswerContent::Default(_) => None,
        }
    }
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The whole request.
    pub request: Text,
    /// What the client gets.
    pub content: AnswerContent,
    /// The name and version of the model that won or refused; `None` for the default.
    pub model: Option<(Text, u64)>,
    /// The time of the answer, and the rule that gave it.
    pub choice: Choice,
    /// The policy of the request.
    pub policy: Rc<Policy>,
}
