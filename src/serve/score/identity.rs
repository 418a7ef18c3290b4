//! The name, version and hash of a model in its scores.

/// The name of a model in its scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name in policies and records.
    pub name: String,
    /// The version, which distinguishes models of the same name.
    pub version: u64,
    /// The hash of the content of the model; `None` if it is not known.
    pub hash: Option<String>,
}
