//! One file of a spill.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use crate::serve::tee::spill::stored_line::pad;

/// A file to which lines are appended, until the next segment is started.
#[derive(Debug)]
pub struct Segment {
    /// The number of the segment. Segments are read in the order of their numbers.
    pub number: u64,
    /// The file with the lines.
    pub file: File,
    /// The length of the whole lines in the file, in bytes.
    pub length: u64,
    /// The number of lines in the file that were not read yet.
    pub unread: u64,
    /// When the segment was started, or when a segment of an earlier process was found.
    pub started_at: Instant,
    /// The same file, opened for direct writes, if the file system supports them.
    pub direct: Option<File>,
}

impl Segment {
    /// Appends `stored` in a direct write. Its length and its address must be aligned. Writes
    /// padding first if the file's length is not aligned.
    pub fn append_directly(&mut self, stored: &[u8]) -> io::Result<()> {
        let Some(direct) = &self.direct else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut padding = Vec::new();
        pad(&mut padding, self.length);
        self.file.write_all_at(&padding, self.length)?;
        let from = self.length + padding.len() as u64;
        direct.write_all_at(stored, from)?;
        self.length = from + stored.len() as u64;
        Ok(())
    }
}
