//! What became of a score.

/// What became of a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It gave the answer.
    Used,
    /// It came in time, and another score answered.
    Unused,
    /// It came after the deadline.
    Late,
    /// The same name and version had reported before.
    Duplicate,
    /// The model failed.
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
