//! A closed part, which waits for its compression.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::observe::archive::file_id::FileId;
use crate::observe::archive::part::{Part, PartContent, is_at};
use crate::stream::archives::{FileKind, path_of};

/// A closed part.
#[derive(Clone, Debug)]
pub struct ClosedPart {
    /// The id in the name of the part.
    pub id: FileId,
    /// The open file and its expected content; `None` if an earlier run wrote the
    /// part. The open file keeps the records even if the name is removed.
    pub own: Option<(Arc<File>, PartContent)>,
}

impl ClosedPart {
    /// A part of an earlier run, with whole lines only.
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

    /// The path of the part in the archive's folder.
    pub fn path(&self, folder: &Path) -> PathBuf {
        path_of(folder, FileKind::Part(&self.id.to_string()))
    }

    /// The number of lines that would be lost if this run ended now: all of them if
    /// another program has removed the file, otherwise none.
    pub fn lines_at_risk(&self, folder: &Path) -> u64 {
        match &self.own {
            Some((file, content)) if !is_at(file, &self.path(folder)) => content.lines,
            _ => 0,
        }
    }
}
