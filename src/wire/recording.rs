//! Recordings: folders of files that `rv-archive` writes, and how they are named.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;

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

    /// Opens it, decompressed where it is compressed.
    pub fn open(&self) -> Result<Box<dyn Read>> {
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
        let file = file.with_context(|| format!("{}: cannot open", path.display()))?;
        Ok(if path.extension().is_some_and(|ending| ending == "gz") {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        })
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

/// What a folder holds, by id. A part whose complete file is there is left out.
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
