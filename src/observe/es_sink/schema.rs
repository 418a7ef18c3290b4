//! The fields of records that the index template maps.
//!
//! `setup/template.rs` makes the mapping from these fields, and `shape` makes documents
//! that fit the mapping.

/// The member that holds the original record if the document differs from it.
pub const AS_RECEIVED: &str = "asReceived";

/// The type to which the template maps a field.
#[derive(Clone, Copy, Debug)]
pub enum FieldType {
    /// A name or an id.
    Keyword,
    /// Text for people.
    Text,
    /// A date that keeps its microseconds.
    Date,
    /// A number. Other values are stored and not indexed.
    Double,
    /// A whole number. Other values are stored and not indexed.
    Long,
    /// `true` or `false`.
    Boolean,
    /// The result of a model, as a label. If the result is a number, it is also
    /// indexed as a number.
    ModelResult,
    /// A value that is stored and not indexed.
    NotIndexed,
    /// An object that has these members and may have others.
    Object(Fields),
    /// A list of objects that have these members and may have others. Each object can
    /// be searched separately.
    Nested(Fields),
}

/// Members with their types.
pub type Fields = &'static [(&'static str, FieldType)];

const ANSWER: Fields = &[
    ("modelName", FieldType::Keyword),
    ("result", FieldType::ModelResult),
    ("confidence", FieldType::Double),
    // The object has a member for each class.
    ("probabilities", FieldType::NotIndexed),
];

const FAILURE: Fields = &[
    ("modelName", FieldType::Keyword),
    ("message", FieldType::Text),
    ("status", FieldType::Long),
    // A server may name any members in the body of an error.
    ("body", FieldType::NotIndexed),
];

const CANDIDATE: Fields = &[
    ("modelName", FieldType::Keyword),
    ("modelVersion", FieldType::Long),
    ("modelHash", FieldType::Keyword),
    ("arrivedAfter", FieldType::Double),
    ("fate", FieldType::Keyword),
    ("shadow", FieldType::Boolean),
    ("result", FieldType::Object(ANSWER)),
    ("error", FieldType::Object(FAILURE)),
];

const AGREEMENT: Fields = &[
    ("same", FieldType::Keyword),
    ("different", FieldType::Keyword),
];

const MODEL: Fields = &[
    ("modelName", FieldType::Keyword),
    ("modelVersion", FieldType::Long),
    ("modelHash", FieldType::Keyword),
    ("elapsedTimeAfterRequest", FieldType::Double),
    ("evaluationTime", FieldType::Double),
    ("rescored", FieldType::Boolean),
];

const RENDEZVOUS: Fields = &[
    ("modelVersion", FieldType::Long),
    ("reason", FieldType::Keyword),
    ("answeredAfter", FieldType::Double),
    ("policyHash", FieldType::Keyword),
];

const PROVENANCE: Fields = &[
    ("model", FieldType::Object(MODEL)),
    ("rendezvous", FieldType::Object(RENDEZVOUS)),
];

/// The time of a document in a data stream.
pub const DATA_STREAM_TIME: &str = "@timestamp";

/// The fields of requests, scores, responses and decisions.
pub const RECORD: Fields = &[
    ("messageId", FieldType::Keyword),
    ("timestamp", FieldType::Date),
    (DATA_STREAM_TIME, FieldType::Date),
    ("returnAddress", FieldType::Keyword),
    ("scoreTopic", FieldType::Keyword),
    ("modelInput", FieldType::Object(&[])),
    ("result", FieldType::Object(ANSWER)),
    ("error", FieldType::Object(FAILURE)),
    ("previous", FieldType::Object(ANSWER)),
    ("modelResult", FieldType::Object(ANSWER)),
    ("modelError", FieldType::Object(FAILURE)),
    ("candidates", FieldType::Nested(CANDIDATE)),
    ("agreement", FieldType::Object(AGREEMENT)),
    ("provenance", FieldType::Object(PROVENANCE)),
];
