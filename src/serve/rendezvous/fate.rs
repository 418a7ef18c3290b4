//! The fate of a score.

/// The fate of a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The score is the answer: a result, or a refusal.
    Used,
    /// The score arrived in time, but is not the answer.
    Unused,
    /// The score arrived after the deadline.
    Late,
    /// An earlier score had the same name and version.
    Duplicate,
    /// The score is an error, and is not the answer.
    Failed,
}

impl Fate {
    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Fate::Used => "used",
            Fate::Unused => "unused",
            Fate::Late => "late",
            Fate::Duplicate => "duplicate",
            Fate::Failed => "failed",
        }
    }
}
