//! The answer to one request.

use std::rc::Rc;

use crate::serve::rendezvous::decision::Choice;
use crate::serve::rendezvous::policy::Policy;
use crate::wire::text::Text;

/// The answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The whole request.
    pub request: Text,
    /// The winning result, or the policy's default, as JSON text.
    pub model_result: Text,
    /// The name and version of the model that won; `None` for the default.
    pub model: Option<(Text, u64)>,
    /// The time of the answer, and the rule that gave it.
    pub choice: Choice,
    /// The policy of the request.
    pub policy: Rc<Policy>,
}
