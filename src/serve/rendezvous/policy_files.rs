//! Reads policies from files, and stores each policy under its hash.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::serve::rendezvous::policy::Policy;
use crate::stage::usage;

/// Reads and checks the policy in a file.
pub fn load_policy(path: &str) -> Result<Policy> {
    let text = fs::read_to_string(path)
        .map_err(|error| usage(format!("{path}: cannot read the policy: {error}")))?;
    Policy::parse(&text, path).map_err(usage)
}

/// The path of the policy with this hash in a folder.
pub fn stored_policy(folder: &Path, hash: &str) -> PathBuf {
    folder.join(format!("{hash}.toml"))
}

/// Stores a policy in a folder. Creates the folder if it is missing. The file gets its
/// name when it is complete.
pub fn store_policy(folder: &Path, policy: &Policy) -> Result<()> {
    let store = || {
        fs::create_dir_all(folder)?;
        let path = stored_policy(folder, &policy.hash);
        let new = path.with_extension("toml.new");
        fs::write(&new, &policy.text)?;
        fs::rename(new, path)
    };
    store().with_context(|| format!("{}: cannot store the policy", folder.display()))
}
