//! The name, version and hash of a model in its scores.

/// The name of a model in its scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name in policies and records.
    pub name: String,
    /// The version, which distinguishes models of the same name.
    pub version: u64,
    /// The hash of its content, where one is known.
    pub hash: Option<String>,
}
