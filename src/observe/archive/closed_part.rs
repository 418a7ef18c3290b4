//! A part that takes no more records and waits for its compression.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::observe::archive::file_id::FileId;
use crate::observe::archive::part::{Part, PartContent, is_at};
use crate::stream::archives::{FileKind, path_of};

/// A part that takes no more records.
#[derive(Clone, Debug)]
pub struct ClosedPart {
    /// The id in its name.
    pub id: FileId,
    /// The open file and what was written into it; `None` if an earlier run wrote it.
    /// The open file keeps the records even if the name is removed.
    pub own: Option<(Arc<File>, PartContent)>,
}

impl ClosedPart {
    /// A part of an earlier run. It holds whole lines.
    pub fn recovered(id: FileId) -> ClosedPart {
        ClosedPart { id, own: None }
    }

    /// A part of this run. All its lines are written.
    pub fn of(part: &Part) -> ClosedPart {
        ClosedPart {
            id: part.id(),
            own: Some((part.file(), part.content())),
        }
    }

    /// Its path in the archive's folder.
    pub fn path(&self, folder: &Path) -> PathBuf {
        path_of(folder, FileKind::Part(&self.id.to_string()))
    }

    /// How many lines are lost when this run ends without compressing it: all, if
    /// another program has removed its name.
    pub fn lines_at_risk(&self, folder: &Path) -> u64 {
        match &self.own {
            Some((file, content)) if !is_at(file, &self.path(folder)) => content.lines,
            _ => 0,
        }
    }
}
