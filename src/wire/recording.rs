//! Recordings: folders of files that `rv-archive` writes, and how they are named.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;

/// Held under a lock by the one writer of a folder. It stays when the writer goes.
pub const LOCK_NAME: &str = "rv-archive.lock";

/// What a file is, by its name. The text is its id, or what stands in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// `log-<id>.gz`: complete, never changed again.
    Complete(&'a str),
    /// `part-<id>.ndjson`: lines as they came, and at its end perhaps half a one.
    Part(&'a str),
    /// `part-<id>.gz.tmp`: a compression that is at work or was cut short.
    Unfinished(&'a str),
}

impl<'a> Kind<'a> {
    /// What `name` says; `None` for files that are not the archive's.
    pub fn of(name: &'a str) -> Option<Kind<'a>> {
        if let Some(rest) = name.strip_prefix("log-") {
            return rest.strip_suffix(".gz").map(Kind::Complete);
        }
        let rest = name.strip_prefix("part-")?;
        rest.strip_suffix(".ndjson").map(Kind::Part).or_else(|| {
            let id = rest.strip_suffix(".gz.tmp")?;
            Some(Kind::Unfinished(id))
        })
    }

    /// The name of such a file.
    pub fn file_name(self) -> String {
        match self {
            Kind::Complete(id) => format!("log-{id}.gz"),
            Kind::Part(id) => format!("part-{id}.ndjson"),
            Kind::Unfinished(id) => format!("part-{id}.gz.tmp"),
        }
    }
}

/// The path of a file in the folder at `folder`.
pub fn path_of(folder: &Path, kind: Kind) -> PathBuf {
    folder.join(kind.file_name())
}

/// The names of a folder's files, sorted. Names that are no UTF-8 are not the
/// archive's.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    };
    read().with_context(|| format!("{}: cannot list", folder.display()))
}

/// One file of a recording.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordedFile {
    /// A part of a folder, which may become a complete file before it is opened.
    Part {
        /// The folder.
        folder: PathBuf,
        /// What stands for the id in its name.
        id: String,
    },
    /// Any other.
    File(PathBuf),
}

impl RecordedFile {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        match self {
            RecordedFile::Part { folder, id } => path_of(folder, Kind::Part(id)),
            RecordedFile::File(path) => path.clone(),
        }
    }

    /// Opens it, decompressed where it is compressed. Of a part, what ends with the
    /// last whole line that is in it now.
    pub fn open(&self) -> Result<OpenedFile> {
        let mut path = self.path();
        let file = match (File::open(&path), self) {
            (Err(error), RecordedFile::Part { folder, id })
                if error.kind() == io::ErrorKind::NotFound =>
            {
                path = path_of(folder, Kind::Complete(id));
                File::open(&path)
            }
            (outcome, _) => outcome,
        };
        let reading = || format!("{}: cannot open", path.display());
        let file = file.with_context(reading)?;
        let length = file.metadata().with_context(reading)?.len();
        let content = if path.extension().is_some_and(|ending| ending == "gz") {
            let position = file.try_clone().with_context(reading)?;
            let decoder = Box::new(MultiGzDecoder::new(file));
            Content::Compressed { decoder, position }
        } else if matches!(self, RecordedFile::Part { .. }) {
            let whole = end_of_last_line(&file, length).with_context(reading)?;
            Content::Plain(file.take(whole))
        } else {
            Content::Plain(file.take(u64::MAX))
        };
        Ok(OpenedFile { content, length })
    }
}

/// A file of a recording that is being read.
#[derive(Debug)]
pub struct OpenedFile {
    content: Content,
    length: u64,
}

#[derive(Debug)]
enum Content {
    Plain(io::Take<File>),
    Compressed {
        decoder: Box<MultiGzDecoder<File>>,
        /// The same open file, to be asked how far it was read.
        position: File,
    },
}

impl OpenedFile {
    /// Its length on disk, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How many bytes of it were read from disk.
    pub fn position(&self) -> u64 {
        let file = match &self.content {
            Content::Plain(file) => file.get_ref(),
            Content::Compressed { position, .. } => position,
        };
        rustix::fs::tell(file).unwrap_or(0)
    }
}

impl Read for OpenedFile {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match &mut self.content {
            Content::Plain(file) => file.read(room),
            Content::Compressed { decoder, .. } => decoder.read(room),
        }
    }
}

/// Where the last newline of the first `length` bytes of a file ends.
pub fn end_of_last_line(file: &File, length: u64) -> io::Result<u64> {
    let mut block = [0; 64 * 1024];
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let found = &mut block[..(end - start) as usize];
        file.read_exact_at(found, start)?;
        if let Some(newline) = memchr::memrchr(b'\n', found) {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The files of a recording as one stream of whole lines.
#[derive(Debug)]
pub struct Recorded {
    rest: VecDeque<RecordedFile>,
    current: Option<(RecordedFile, OpenedFile)>,
    /// Whether the last byte that was given out ended a line, or none was.
    at_line_start: bool,
    /// How many bytes of finished files were on disk.
    finished: u64,
}

impl Recorded {
    /// Opens the first of `files`.
    pub fn open(files: impl IntoIterator<Item = RecordedFile>) -> Result<Recorded> {
        let mut recorded = Recorded {
            rest: files.into_iter().collect(),
            current: None,
            at_line_start: true,
            finished: 0,
        };
        recorded.go_on()?;
        Ok(recorded)
    }

    fn go_on(&mut self) -> Result<()> {
        if let Some(next) = self.rest.pop_front() {
            let opened = next.open()?;
            self.current = Some((next, opened));
        }
        Ok(())
    }

    /// How many bytes all files have on disk, so far as they are there.
    pub fn length(&self) -> u64 {
        let of = |file: &RecordedFile| fs::metadata(file.path()).map_or(0, |found| found.len());
        let current = self.current.as_ref().map_or(0, |(_, opened)| opened.length);
        self.finished + current + self.rest.iter().map(of).sum::<u64>()
    }

    /// How many bytes were read from disk so far.
    pub fn position(&self) -> u64 {
        let current = self.current.as_ref();
        self.finished + current.map_or(0, |(_, opened)| opened.position())
    }
}

impl Read for Recorded {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        while let Some((file, opened)) = &mut self.current {
            let count = match opened.read(room) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    let place = file.path();
                    return Err(io::Error::new(
                        error.kind(),
                        format!("{}: {error}", place.display()),
                    ));
                }
                outcome => outcome?,
            };
            if count > 0 {
                self.at_line_start = room[count - 1] == b'\n';
                return Ok(count);
            }
            if room.is_empty() {
                return Ok(0);
            }
            self.finished += opened.length;
            self.current = None;
            self.go_on().map_err(io::Error::other)?;
            if !self.at_line_start {
                // A file that was made elsewhere: its last line is one all the same.
                room[0] = b'\n';
                self.at_line_start = true;
                return Ok(1);
            }
        }
        Ok(0)
    }
}

/// The files of a recording, in their order: those of an archive's folder, or
/// the one file at `path`.
pub fn recorded_files(path: &Path) -> Result<Vec<RecordedFile>> {
    let metadata =
        fs::metadata(path).with_context(|| format!("{}: cannot open", path.display()))?;
    if metadata.is_dir() {
        files_of(path)
    } else {
        Ok(vec![RecordedFile::File(path.to_owned())])
    }
}

/// What a folder holds, by id. A part whose complete file is there is left out. A
/// folder without any has to be an archive's all the same.
fn files_of(folder: &Path) -> Result<Vec<RecordedFile>> {
    let mut listed = names(folder)?;
    // A file may get its final name while the folder is being read, and be seen
    // under neither name.
    loop {
        let again = names(folder)?;
        if again == listed {
            break;
        }
        listed = again;
    }
    let mut files: Vec<(&str, RecordedFile)> = Vec::new();
    for name in &listed {
        match Kind::of(name) {
            Some(Kind::Complete(id)) => files.push((id, RecordedFile::File(folder.join(name)))),
            Some(Kind::Part(id)) => {
                let complete = Kind::Complete(id).file_name();
                if listed.binary_search(&complete).is_err() {
                    let (folder, text) = (folder.to_owned(), id.to_owned());
                    files.push((id, RecordedFile::Part { folder, id: text }));
                }
            }
            Some(Kind::Unfinished(_)) | None => {}
        }
    }
    if files.is_empty() && listed.binary_search(&LOCK_NAME.to_owned()).is_err() {
        bail!(
            "{}: is a directory that holds no archive; name a folder that rv-archive writes, a file, or \
             a pipe",
            folder.display()
        );
    }
    files.sort();
    Ok(files.into_iter().map(|(_, file)| file).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are() {
        for kind in [Kind::Complete("a"), Kind::Part("a"), Kind::Unfinished("a")] {
            assert_eq!(Kind::of(&kind.file_name()), Some(kind));
        }
        for foreign in ["log-a.gz.tmp", "part-a.gz", "log-a", "notes.txt", ".lock"] {
            assert_eq!(Kind::of(foreign), None, "{foreign}");
        }
    }
}
