//! The reasons for rejecting a record.

use thiserror::Error;

/// The reason for rejecting a record. Its text is the `reason` in the file of rejects.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Reject {
    /// The line is longer than the limit. Only its first bytes were kept.
    #[error("the line is longer than --max-line-bytes")]
    Oversized,
    /// The program had to end before the line was complete.
    #[error("the end of the line did not arrive within --grace")]
    Unfinished,
    /// The line is not a JSON object in UTF-8.
    #[error("{0}")]
    Syntax(String),
    /// A field is missing or has a wrong value.
    #[error("{0}")]
    Field(String),
    /// The id has occurred before.
    #[error("the id {0} has occurred before")]
    Repeated(String),
    /// The request got no response.
    #[error("{0}")]
    Unanswered(&'static str),
    /// A server refused the record.
    #[error("{0}")]
    Refused(String),
    /// Training cannot use the row.
    #[error("{0}")]
    Row(String),
}

impl Reject {
    /// All labels, in the order in which the stats show them.
    pub const LABELS: [&str; 8] = [
        "oversized",
        "unfinished",
        "syntax",
        "field",
        "repeated",
        "unanswered",
        "refused",
        "row",
    ];

    /// The index of this reason's label in [`LABELS`](Reject::LABELS).
    pub fn label_index(&self) -> usize {
        match self {
            Reject::Oversized => 0,
            Reject::Unfinished => 1,
            Reject::Syntax(_) => 2,
            Reject::Field(_) => 3,
            Reject::Repeated(_) => 4,
            Reject::Unanswered(_) => 5,
            Reject::Refused(_) => 6,
            Reject::Row(_) => 7,
        }
    }

    /// The reason for a line that is not UTF-8.
    pub fn not_utf8(error: std::str::Utf8Error) -> Reject {
        Reject::Syntax(format!("not UTF-8 at byte {}", error.valid_up_to()))
    }
}

impl From<Reject> for String {
    fn from(reject: Reject) -> String {
        reject.to_string()
    }
}
