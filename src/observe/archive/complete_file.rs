//! `part-<id>.ndjson` -> `log-<id>.gz`: compresses one closed part into one file. The
//! file gets its final name when it is complete and synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use xxhash_rust::xxh3::Xxh3;

use crate::observe::archive::closed_part::ClosedPart;
use crate::observe::archive::file_id::FileId;
use crate::observe::archive::folder::{FILE_MODE, next_free_id, rename_new, sync_folder};
use crate::observe::archive::gzip_members::{CompressionError, Compressor};
use crate::observe::archive::part::{PartContent, is_at};
use crate::observe::archive::stamp::Stamp;
use crate::stream::archives::{FileKind, end_of_last_line, open_regular, path_of};

/// A complete file made from a part.
#[derive(Debug)]
pub struct CompleteFile {
    /// The stamp of the file; `None` if the part contained no line, so that no file
    /// was made.
    pub stamp: Option<Stamp>,
    /// The id in the name of the file. This differs from the part's id if another file
    /// had that name.
    pub id: FileId,
    /// The number of lines of the part that the file does not contain.
    pub lost_lines: u64,
    /// Messages about the changes that another program has made to the files.
    pub faults: Vec<String>,
}

/// Makes the complete file from `part`, with the same id. `next_stamp` is the stamp of
/// the file, with its lines and bytes still at 0. After an interruption, the part, the
/// complete file or both exist. An existing complete file is never changed.
pub fn complete(
    folder: &Path,
    mut part: ClosedPart,
    compressor: &mut Compressor,
    next_stamp: Stamp,
) -> Result<CompleteFile> {
    let path = part.path(folder);
    let file = match &part.own {
        Some((file, _)) => Arc::clone(file),
        None => {
            let opened = open_regular(&path, false);
            let place = || format!("{}: cannot read", path.display());
            Arc::new(opened.with_context(place)?.0)
        }
    };
    let unfinished = path_of(folder, FileKind::Unfinished(&part.id.to_string()));
    let source = PartSource {
        path: &path,
        file: &file,
        expected: part.own.as_ref().map(|(_, content)| *content),
    };
    let mut faults = Vec::new();
    let stamp = source
        .compress(&unfinished, compressor, next_stamp, &mut faults)
        .inspect_err(|_| {
            // On a full disk, free space is more useful than an unfinished
            // compression.
            let _ = fs::remove_file(&unfinished);
        })?;
    let lost_lines = source.expected.map_or(0, |content| {
        let kept = stamp.map_or(0, |stamp| stamp.lines);
        content.lines.saturating_sub(kept)
    });
    if stamp.is_some() {
        give_final_name(folder, &unfinished, &file, &mut part, &mut faults)?;
        sync_folder(folder).with_context(|| format!("{}: cannot sync", folder.display()))?;
    }
    let path = part.path(folder);
    if is_at(&file, &path) {
        fs::remove_file(&path).with_context(|| format!("{}: cannot remove", path.display()))?;
    } else {
        faults.push(format!(
            "{}: another program has removed, moved or replaced it; its records were saved from the \
             open file",
            path.display()
        ));
    }
    Ok(CompleteFile {
        stamp,
        id: part.id,
        lost_lines,
        faults,
    })
}

/// Gives `unfinished` the name of a complete file. If that name is taken, the part and
/// the complete file get another id.
fn give_final_name(
    folder: &Path,
    unfinished: &Path,
    file: &File,
    part: &mut ClosedPart,
    faults: &mut Vec<String>,
) -> Result<()> {
    loop {
        let complete = path_of(folder, FileKind::Complete(&part.id.to_string()));
        match rename_new(unfinished, &complete) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let place = format!("{}: cannot rename", unfinished.display());
                return Err(error).context(place);
            }
        }
        let old_path = part.path(folder);
        let taken = complete.display();
        part.id = next_free_id(folder, part.id)
            .ok_or_else(|| anyhow!("{taken}: exists already, and no later name is free"))?;
        faults.push(format!(
            "{taken}: existed already and is left unchanged; the records get the name {}",
            part.id
        ));
        if is_at(file, &old_path) {
            rename_new(&old_path, &part.path(folder))
                .with_context(|| format!("{}: cannot rename", old_path.display()))?;
        }
    }
}

/// A part that is being compressed.
struct PartSource<'a> {
    path: &'a Path,
    file: &'a File,
    /// The expected content; `None` if an earlier run wrote the part.
    expected: Option<PartContent>,
}

impl PartSource<'_> {
    /// Writes the part's lines into `to`, compressed and synced. If another program
    /// has changed the part, only its whole lines are written. Returns `None` if the
    /// part has no whole line.
    fn compress(
        &self,
        to: &Path,
        compressor: &mut Compressor,
        next_stamp: Stamp,
        faults: &mut Vec<String>,
    ) -> Result<Option<Stamp>> {
        let reading = || format!("{}: cannot read", self.path.display());
        let length = self.file.metadata().with_context(reading)?.len();
        let Some(expected) = self.expected else {
            let (stamp, _) = self.compress_up_to(length, to, compressor, next_stamp)?;
            return Ok(Some(stamp));
        };
        if expected.bytes == 0 {
            // Another program emptied the part while it was open. The part has reported
            // this already.
            return Ok(None);
        }
        let (stamp, hash) = self.compress_up_to(expected.bytes, to, compressor, next_stamp)?;
        let found = PartContent {
            lines: stamp.lines,
            bytes: stamp.bytes,
            hash,
        };
        if found == expected {
            return Ok(Some(stamp));
        }
        let whole =
            end_of_last_line(self.file, length.min(expected.bytes)).with_context(reading)?;
        let stamp = match whole {
            0 => None,
            _ => Some(self.compress_up_to(whole, to, compressor, next_stamp)?.0),
        };
        if stamp.is_none() {
            fs::remove_file(to).with_context(|| format!("{}: cannot remove", to.display()))?;
        }
        let left = stamp.map_or(0, |stamp| stamp.lines);
        faults.push(format!(
            "{}: another program has changed its content; {left} of {} lines are left",
            self.path.display(),
            expected.lines
        ));
        Ok(stamp)
    }

    /// Compresses the first `end` bytes. Also returns their XXH3 hash.
    fn compress_up_to(
        &self,
        end: u64,
        to: &Path,
        compressor: &mut Compressor,
        next_stamp: Stamp,
    ) -> Result<(Stamp, u64)> {
        let reading = || format!("{}: cannot read", self.path.display());
        let writing = || format!("{}: cannot write", to.display());
        if let Err(error) = fs::remove_file(to)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error).with_context(writing);
        }
        let output = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(to)
            .with_context(writing)?;
        let mut input = HashingReader {
            file: self.file,
            at: 0,
            end,
            hash: Xxh3::new(),
        };
        let stamp = match compressor.compress(&mut input, &output, next_stamp) {
            Ok(stamp) => stamp,
            Err(CompressionError::Reading(error)) => return Err(error).with_context(reading),
            Err(CompressionError::Writing(error)) => return Err(error).with_context(writing),
            Err(CompressionError::Working(error)) => return Err(error).with_context(writing),
        };
        output
            .sync_all()
            .with_context(|| format!("{}: cannot sync", to.display()))?;
        Ok((stamp, input.hash.digest()))
    }
}

/// Reads the first bytes of a file and hashes them. The file's position, which the open
/// part uses, does not change.
struct HashingReader<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    hash: Xxh3,
}

impl Read for HashingReader<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let wanted = (self.end - self.at).min(room.len() as u64) as usize;
        let count = self.file.read_at(&mut room[..wanted], self.at)?;
        self.hash.update(&room[..count]);
        self.at += count as u64;
        Ok(count)
    }
}
