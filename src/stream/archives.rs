//! Recordings: the folders that `rv-archive` writes, and the names of their files.
//!
//! A damaged file does not affect the others: its readable lines are returned, its
//! fault is kept for the caller, and the next file follows.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::stream::gzip::GzipFile;

/// The lock file of a folder. The only writer of the folder holds the lock. The file
/// stays when the writer ends.
pub const LOCK_NAME: &str = "rv-archive.lock";

/// The kind of a file, by its name. The text is the part of the name in which the id
/// should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind<'a> {
    /// `log-<id>.gz`: a complete file, which never changes again.
    Complete(&'a str),
    /// `part-<id>.ndjson`: the unchanged lines; the last one may be incomplete.
    Part(&'a str),
    /// `part-<id>.gz.tmp`: a compression that is running or was interrupted.
    Unfinished(&'a str),
}

impl<'a> FileKind<'a> {
    /// The kind of the file `name`; `None` for files that do not belong to an archive.
    pub fn of(name: &'a str) -> Option<FileKind<'a>> {
        if let Some(rest) = name.strip_prefix("log-") {
            return rest.strip_suffix(".gz").map(FileKind::Complete);
        }
        let rest = name.strip_prefix("part-")?;
        rest.strip_suffix(".ndjson")
            .map(FileKind::Part)
            .or_else(|| {
                let id = rest.strip_suffix(".gz.tmp")?;
                Some(FileKind::Unfinished(id))
            })
    }

    /// The name of the file.
    pub fn file_name(self) -> String {
        match self {
            FileKind::Complete(id) => format!("log-{id}.gz"),
            FileKind::Part(id) => format!("part-{id}.ndjson"),
            FileKind::Unfinished(id) => format!("part-{id}.gz.tmp"),
        }
    }
}

/// The path of a file in `folder`.
pub fn path_of(folder: &Path, kind: FileKind) -> PathBuf {
    folder.join(kind.file_name())
}

/// The names of a folder's files, sorted. Names that are not UTF-8 are left out,
/// because they cannot belong to an archive.
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
    /// A part in a folder. The part may become a complete file before it is opened.
    Part {
        /// The folder.
        folder: PathBuf,
        /// The part of the name in which the id should be.
        id: String,
    },
    /// A complete file in a folder. A link with this name is not followed.
    Complete(PathBuf),
    /// A file that the user named.
    File(PathBuf),
}

impl RecordedFile {
    /// The path of the file.
    pub fn path(&self) -> PathBuf {
        match self {
            RecordedFile::Part { folder, id } => path_of(folder, FileKind::Part(id)),
            RecordedFile::Complete(path) | RecordedFile::File(path) => path.clone(),
        }
    }

    /// Opens the file, and decompresses it if its name ends in `.gz`. A part is read up
    /// to its last whole line at this moment. Fails if the file is not a regular file.
    /// Does not wait for other programs.
    pub fn open(&self) -> io::Result<OpenedFile> {
        let mut path = self.path();
        let follow = matches!(self, RecordedFile::File(_));
        let opened = match (open_regular(&path, follow), self) {
            (Err(error), RecordedFile::Part { folder, id })
                if error.kind() == io::ErrorKind::NotFound =>
            {
                path = path_of(folder, FileKind::Complete(id));
                open_regular(&path, follow)
            }
            (opened, _) => opened,
        };
        let (file, metadata) = opened?;
        let length = metadata.len();
        let content = if path.extension().is_some_and(|ending| ending == "gz") {
            let position = file.try_clone()?;
            let decoder = Box::new(GzipFile::new(file));
            Content::Compressed { decoder, position }
        } else if matches!(self, RecordedFile::Part { .. }) {
            let whole = end_of_last_line(&file, length)?;
            Content::Part(file.take(whole))
        } else {
            Content::Plain(file)
        };
        Ok(OpenedFile { content, length })
    }
}

/// Opens a regular file for reading. For anything else, returns an error that names the
/// type. Does not open a device or wait for a pipe.
pub fn open_regular(path: &Path, follow: bool) -> io::Result<(File, Metadata)> {
    let looked_at = match follow {
        true => fs::metadata(path)?,
        false => fs::symlink_metadata(path)?,
    };
    refuse_irregular(&looked_at)?;
    let mut flags = OFlags::NOCTTY;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    let open = |flags: OFlags| {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(path)
    };
    let file = match open(flags | OFlags::NONBLOCK) {
        // Another process has a lease on the file. A blocking open gives that process
        // time to release the lease.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => open(flags)?,
        opened => opened?,
    };
    // Another file may have taken the name meanwhile.
    let metadata = file.metadata()?;
    refuse_irregular(&metadata)?;
    Ok((file, metadata))
}

/// Fails if the file is not a regular file. The error names its type.
pub fn refuse_irregular(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_symlink() {
        "is a link, which is not followed"
    } else if kind.is_dir() {
        "is a folder, not a file"
    } else if kind.is_fifo() {
        "is a named pipe, not a file"
    } else if kind.is_socket() {
        "is a socket, not a file"
    } else {
        "is a device, not a file"
    };
    Err(io::Error::other(what))
}

/// The message about a file that cannot be opened. The message does not contain the
/// name of the file.
pub fn not_opened(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "was removed before it was read".to_owned(),
        // The error was made by `refuse_irregular`, and names the type.
        io::ErrorKind::Other => format!("{error}; it is skipped"),
        // A link has replaced the file meanwhile.
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            "is a link, which is not followed; it is skipped".to_owned()
        }
        _ => format!("cannot open: {error}; it is skipped"),
    }
}

/// The message about a file that cannot be read completely. The message does not
/// contain the name of the file.
pub fn fault(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "is damaged: it ends too early".to_owned(),
        io::ErrorKind::InvalidData => format!("is damaged: {error}"),
        _ => format!("cannot read: {error}"),
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
    Plain(File),
    /// A part, of which only the lines that were whole when it was opened are read.
    Part(io::Take<File>),
    Compressed {
        decoder: Box<GzipFile>,
        /// The same open file, which tells the position of the reading.
        position: File,
    },
}

impl OpenedFile {
    /// The file's length on disk, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The number of bytes of the file that were read from disk.
    pub fn position(&self) -> u64 {
        let file = match &self.content {
            Content::Plain(file) => file,
            Content::Part(file) => file.get_ref(),
            Content::Compressed { position, .. } => position,
        };
        rustix::fs::tell(file).unwrap_or(0)
    }
}

impl Read for OpenedFile {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match &mut self.content {
            Content::Plain(file) => file.read(room),
            Content::Part(file) => match file.read(room)? {
                0 if file.limit() > 0 && !room.is_empty() => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it was truncated while it was read",
                )),
                count => Ok(count),
            },
            Content::Compressed { decoder, .. } => decoder.read(room),
        }
    }
}

/// The index after the last newline in the first `length` bytes of a file; 0 if they
/// contain no newline.
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
    /// Whether the last returned byte ended a line, or none has been returned.
    at_line_start: bool,
    /// The size on disk of the files that have been read, in bytes.
    finished: u64,
    fault: Option<String>,
}

impl Recorded {
    /// Starts with the first of `files`. Fails if the user named that file and it
    /// cannot be opened.
    pub fn open(files: impl IntoIterator<Item = RecordedFile>) -> Result<Recorded> {
        let mut rest: VecDeque<RecordedFile> = files.into_iter().collect();
        let mut current = None;
        if let Some(named @ RecordedFile::File(_)) = rest.front() {
            let place = || format!("{}: cannot open", named.path().display());
            current = Some((named.clone(), named.open().with_context(place)?));
            rest.pop_front();
        }
        Ok(Recorded {
            rest,
            current,
            at_line_start: true,
            finished: 0,
            fault: None,
        })
    }

    /// The size on disk of all files that exist, in bytes.
    pub fn length(&self) -> u64 {
        let of = |file: &RecordedFile| {
            let found = fs::symlink_metadata(file.path()).ok();
            let found = found.filter(Metadata::is_file);
            found.map_or(0, |found| found.len())
        };
        let current = self.current.as_ref().map_or(0, |(_, opened)| opened.length);
        self.finished + current + self.rest.iter().map(of).sum::<u64>()
    }

    /// The number of bytes that were read from disk so far.
    pub fn position(&self) -> u64 {
        let current = self.current.as_ref();
        self.finished + current.map_or(0, |(_, opened)| opened.position())
    }

    /// The fault of the last file, if it could not be read completely. The caller
    /// then drops the unfinished line, because its end will not be read.
    pub fn take_fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    /// Reads the next bytes; 0 at the end. If a file has a fault, this returns an error
    /// of the kind `Interrupted`, and the next call continues with the next file.
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some((file, opened)) = &mut self.current else {
                let Some(next) = self.rest.pop_front() else {
                    return Ok(0);
                };
                match next.open() {
                    Ok(opened) => self.current = Some((next, opened)),
                    Err(error) => {
                        let place = next.path();
                        let what = format!("{}: {}", place.display(), not_opened(&error));
                        return self.fail_file(what);
                    }
                }
                continue;
            };
            match opened.read(room) {
                Ok(0) if room.is_empty() => return Ok(0),
                Ok(0) => {
                    self.finished += opened.length;
                    self.current = None;
                    if !self.at_line_start {
                        // Another program may have made the file, without a newline at
                        // the end. Its last line still counts as a line.
                        room[0] = b'\n';
                        self.at_line_start = true;
                        return Ok(1);
                    }
                }
                Ok(count) => {
                    self.at_line_start = room[count - 1] == b'\n';
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => {
                    let what = format!(
                        "{}: {}; the rest of it is skipped",
                        file.path().display(),
                        fault(&error)
                    );
                    self.finished += opened.length;
                    self.current = None;
                    self.at_line_start = true;
                    return self.fail_file(what);
                }
            }
        }
    }

    fn fail_file(&mut self, fault: String) -> io::Result<usize> {
        self.fault = Some(fault);
        Err(io::ErrorKind::Interrupted.into())
    }
}

/// The files of a recording in order: those of an archive's folder, or the single file
/// at `path`.
pub fn recorded_files(path: &Path) -> Result<Vec<RecordedFile>> {
    let metadata =
        fs::metadata(path).with_context(|| format!("{}: cannot open", path.display()))?;
    if metadata.is_dir() {
        files_of(path)
    } else {
        Ok(vec![RecordedFile::File(path.to_owned())])
    }
}

/// The files of an archive's folder, by id, without the parts whose complete file
/// exists. A folder without such files must at least have an archive's lock file.
fn files_of(folder: &Path) -> Result<Vec<RecordedFile>> {
    // A file that is renamed during the listing may be missed under both names. The
    // second listing finds it.
    let mut listed: BTreeSet<String> = names(folder)?.into_iter().collect();
    listed.extend(names(folder)?);
    let mut files: Vec<(&str, RecordedFile)> = Vec::new();
    for name in &listed {
        match FileKind::of(name) {
            Some(FileKind::Complete(id)) => {
                files.push((id, RecordedFile::Complete(folder.join(name))))
            }
            Some(FileKind::Part(id)) => {
                if !listed.contains(&FileKind::Complete(id).file_name()) {
                    let (folder, text) = (folder.to_owned(), id.to_owned());
                    files.push((id, RecordedFile::Part { folder, id: text }));
                }
            }
            Some(FileKind::Unfinished(_)) | None => {}
        }
    }
    if files.is_empty() && !listed.contains(LOCK_NAME) {
        bail!(
            "{}: is a directory without an archive; give a folder that rv-archive writes, a file, or \
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
    fn the_kind_of_a_file_follows_from_its_name() {
        for kind in [
            FileKind::Complete("a"),
            FileKind::Part("a"),
            FileKind::Unfinished("a"),
        ] {
            assert_eq!(FileKind::of(&kind.file_name()), Some(kind));
        }
        for foreign in ["log-a.gz.tmp", "part-a.gz", "log-a", "notes.txt", ".lock"] {
            assert_eq!(FileKind::of(foreign), None, "{foreign}");
        }
    }

    /// A folder that contains `files`.
    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    /// Reads to the end. Returns the text and the faults.
    fn read(recorded: &mut Recorded) -> (String, Vec<String>) {
        let (mut text, mut faults) = (String::new(), Vec::new());
        let mut room = [0; 7];
        loop {
            match recorded.read(&mut room) {
                Ok(0) => return (text, faults),
                Ok(count) => text += std::str::from_utf8(&room[..count]).unwrap(),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
                    faults.extend(recorded.take_fault());
                    assert_eq!(recorded.take_fault(), None);
                }
            }
        }
    }

    #[test]
    fn the_files_of_a_folder_come_by_their_ids_and_each_once() {
        let folder = folder(&[
            ("log-b.gz", b""),
            ("part-b.ndjson", b""),
            ("part-a.ndjson", b""),
            ("log-c.gz", b""),
            ("part-d.gz.tmp", b""),
            ("notes.txt", b""),
        ]);
        let path = folder.path();
        let part = RecordedFile::Part {
            folder: path.to_owned(),
            id: "a".to_owned(),
        };
        let complete = |name| RecordedFile::Complete(path.join(name));
        let expected = [part, complete("log-b.gz"), complete("log-c.gz")];
        assert_eq!(recorded_files(path).unwrap(), expected);
        let notes = path.join("notes.txt");
        let named = vec![RecordedFile::File(notes.clone())];
        assert_eq!(recorded_files(&notes).unwrap(), named);
        assert!(recorded_files(&path.join("missing")).is_err());
    }

    #[test]
    fn a_folder_without_files_is_an_archive_only_by_its_lock() {
        let empty = folder(&[("notes.txt", b"")]);
        let error = recorded_files(empty.path()).unwrap_err();
        assert!(error.to_string().contains("without an archive"), "{error}");
        let locked = folder(&[(LOCK_NAME, b"")]);
        assert_eq!(recorded_files(locked.path()).unwrap(), []);
    }

    #[test]
    fn files_are_one_stream_of_whole_lines() {
        let folder = folder(&[
            ("log-a", b"one\ntwo"),
            ("part-b.ndjson", b"three\nhalf a li"),
            ("log-c", b"four\n"),
        ]);
        let path = |name: &str| folder.path().join(name);
        let part = RecordedFile::Part {
            folder: folder.path().to_owned(),
            id: "b".to_owned(),
        };
        let missing = RecordedFile::Complete(path("log-bb.gz"));
        let files = [
            RecordedFile::File(path("log-a")),
            part,
            missing,
            RecordedFile::Complete(path("log-c")),
        ];
        let mut recorded = Recorded::open(files).unwrap();
        assert_eq!((recorded.length(), recorded.position()), (7 + 15 + 5, 0));
        assert_eq!(recorded.read(&mut []).unwrap(), 0);
        assert_eq!(recorded.read(&mut [0; 3]).unwrap(), 3);
        assert_eq!((recorded.length(), recorded.position()), (7 + 15 + 5, 3));
        let (text, faults) = read(&mut recorded);
        assert_eq!(text, "\ntwo\nthree\nfour\n");
        let removed = format!(
            "{}: was removed before it was read",
            path("log-bb.gz").display()
        );
        assert_eq!(faults, [removed]);
        assert_eq!((recorded.length(), recorded.position()), (27, 27));
    }

    #[test]
    fn a_damaged_file_costs_itself_alone() {
        let folder = folder(&[("log-a.gz", b"no gzip"), ("log-b", b"one\n")]);
        let complete = |name| RecordedFile::Complete(folder.path().join(name));
        let mut recorded = Recorded::open([complete("log-a.gz"), complete("log-b")]).unwrap();
        let (text, faults) = read(&mut recorded);
        assert_eq!(text, "one\n");
        let fault = "is damaged: it does not start like a gzip file; the rest of it is skipped";
        let place = folder.path().join("log-a.gz");
        assert_eq!(faults, [format!("{}: {fault}", place.display())]);
        assert_eq!(recorded.position(), 11);
        // A file that the user named must exist.
        let named = RecordedFile::File(folder.path().join("missing"));
        assert!(Recorded::open([named]).is_err());
    }

    #[test]
    fn a_part_may_be_completed_or_cut_before_it_is_read() {
        let folder = folder(&[("part-a.ndjson", b"one\ntwo\n")]);
        let part = RecordedFile::Part {
            folder: folder.path().to_owned(),
            id: "a".to_owned(),
        };
        let path = part.path();
        let mut opened = part.open().unwrap();
        assert_eq!((opened.length(), opened.position()), (8, 0));
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(4)
            .unwrap();
        let mut text = Vec::new();
        let error = opened.read_to_end(&mut text).unwrap_err();
        assert_eq!((&*text, opened.position()), (&b"one\n"[..], 4));
        assert_eq!(
            fault(&error),
            "is damaged: it was truncated while it was read"
        );
        fs::rename(&path, folder.path().join("log-a.gz")).unwrap();
        let error = part.open().unwrap().read(&mut [0; 8]).unwrap_err();
        assert!(error.to_string().contains("gzip"), "{error}");
        fs::remove_file(folder.path().join("log-a.gz")).unwrap();
        let error = part.open().unwrap_err();
        assert_eq!(not_opened(&error), "was removed before it was read");
        // The complete file is opened only if the part no longer exists. Here a named
        // pipe has the name of the part.
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        let error = part.open().unwrap_err();
        assert!(error.to_string().contains("named pipe"), "{error}");
    }

    #[test]
    fn only_regular_files_are_opened_and_the_others_are_named() {
        let folder = folder(&[("file", b"text")]);
        let path = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), mode).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for follow in [false, true] {
            let (_, metadata) = open_regular(&path("file"), follow).unwrap();
            assert_eq!(metadata.len(), 4);
            for (name, what) in [
                (path("pipe"), "is a named pipe, not a file"),
                (path("socket"), "is a socket, not a file"),
                (folder.path().to_owned(), "is a folder, not a file"),
                (PathBuf::from("/dev/null"), "is a device, not a file"),
            ] {
                let error = open_regular(&name, follow).unwrap_err();
                assert_eq!(not_opened(&error), format!("{what}; it is skipped"));
            }
        }
        assert!(open_regular(&path("link"), true).is_ok());
        let error = open_regular(&path("link"), false).unwrap_err();
        let link = "is a link, which is not followed; it is skipped";
        assert_eq!(not_opened(&error), link);
        let became = io::Error::from_raw_os_error(Errno::LOOP.raw_os_error());
        assert_eq!(not_opened(&became), link);
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(
            not_opened(&denied),
            format!("cannot open: {denied}; it is skipped")
        );
        assert_eq!(
            fault(&io::ErrorKind::UnexpectedEof.into()),
            "is damaged: it ends too early"
        );
        assert_eq!(fault(&denied), format!("cannot read: {denied}"));
    }

    #[test]
    fn the_last_newline_is_found_however_far_from_the_end() {
        const BLOCK: usize = 64 * 1024;
        for before in [0, 1, 5, BLOCK, 2 * BLOCK + 3] {
            for behind in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
                let text = [&vec![b'x'; before][..], b"\n", &vec![b'y'; behind]].concat();
                let folder = folder(&[("file", &text), ("none", &vec![b'y'; behind])]);
                let open = |name| File::open(folder.path().join(name)).unwrap();
                let found = end_of_last_line(&open("file"), text.len() as u64).unwrap();
                assert_eq!(found, before as u64 + 1, "{before} {behind}");
                let found = end_of_last_line(&open("none"), behind as u64).unwrap();
                assert_eq!(found, 0, "{behind}");
            }
        }
    }
}
