//! The answer to one request.

use std::rc::Rc;

use crate::serve::rendezvous::decision::Choice;
use crate::serve::rendezvous::policy::Policy;
use crate::wire::text::Text;

/// The answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The request, whole.
    pub request: Text,
    /// The winning result, or the policy's default, as JSON text.
    pub model_result: Text,
    /// The name and version of the model that won; `None` for the default.
    pub model: Option<(Text, u64)>,
    /// When the answer was given, and by which rule.
    pub choice: Choice,
    /// The policy that was in force when the request came.
    pub policy: Rc<Policy>,
}
