//! Raises the limit of open files for the connections.

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::stage::Stage;

/// The number of files that a front end may open in addition to its connections.
const OTHER_FILES: u64 = 64;

/// Raises the limit for `connections` connections. Returns the number of connections that
/// are possible. If the hard limit is too low, this number is smaller than `connections`,
/// and a warning is printed.
pub fn allow_connections(stage: &Stage, connections: u32) -> Result<usize> {
    let wanted = u64::from(connections) + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    // `None` means that the number of files is unlimited.
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(connections as usize);
    }
    let allowed = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit {
        current: Some(allowed),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")?;
    let connections = allowed.saturating_sub(OTHER_FILES).max(1);
    if allowed < wanted {
        stage.report.warn(&format!(
            "only {connections} connections at a time: `ulimit -Hn` allows {allowed} open files"
        ));
    }
    Ok(connections as usize)
}
