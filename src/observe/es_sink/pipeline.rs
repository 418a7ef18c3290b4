//! The name of an ingest pipeline, which becomes part of a path.

use anyhow::Result;

use crate::stage::usage;

/// Checks the value of `--pipeline`. The error is a usage error.
pub fn check_pipeline_name(name: &str) -> Result<()> {
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_plain && !["", ".", ".."].contains(&name) {
        return Ok(());
    }
    Err(usage(format!(
        "--pipeline {name:?}: this cannot be the name of a pipeline"
    )))
}
