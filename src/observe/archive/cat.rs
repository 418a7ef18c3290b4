//! `log-<id>.gz` -> the stream again: reads archives back in order, also the part
//! that is being written.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use flate2::read::MultiGzDecoder;

use crate::observe::archive::folder::{names, path_of};
use crate::observe::archive::is_folder;
use crate::observe::archive::names::Kind;
use crate::stage::cli::RunArgs;
use crate::stage::stats::Snapshot;
use crate::stage::{EndedEarly, Stage};
use crate::wire::endpoint::{Output, STANDARD};

/// Write archived lines to a stream again, in their order
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  rv-archive cat requests.archive | wc --lines")]
pub struct CatArgs {
    /// Folders (their complete files by name, then the part that is being
    /// written, up to its last whole line) or single files
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,

    /// Write to PATH; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value = STANDARD)]
    output: String,

    #[command(flatten)]
    pub run: RunArgs,
}

const BLOCK_BYTES: usize = 64 * 1024;

/// What was written so far.
#[derive(Debug, Default)]
struct Counts {
    out: u64,
    files: u64,
    bytes_out: u64,
}

impl Counts {
    fn snapshot(&self) -> Snapshot {
        Snapshot::default()
            .count("out", self.out)
            .count("files", self.files)
            .count("bytesOut", self.bytes_out)
    }
}

/// Runs `rv-archive cat`.
pub fn run(args: &CatArgs, stage: &mut Stage) -> Result<()> {
    let mut output = Output::open(&args.output)?;
    let mut counts = Counts::default();
    for path in &args.paths {
        let files = if is_folder(path)? {
            files_of(path)?
        } else {
            vec![Archived::File(path.clone())]
        };
        for file in files {
            let reader = file.open()?;
            copy_lines(stage, &file, reader, &mut output, &mut counts)?;
        }
    }
    stage.close(&mut output)?;
    stage.final_stats(&counts.snapshot());
    Ok(())
}

/// One file to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Archived {
    /// A part of a folder, which may become a complete file before it is opened.
    Part { folder: PathBuf, id: String },
    /// Any other.
    File(PathBuf),
}

impl Archived {
    fn path(&self) -> PathBuf {
        match self {
            Archived::Part { folder, id } => path_of(folder, Kind::Part(id)),
            Archived::File(path) => path.clone(),
        }
    }

    fn open(&self) -> Result<Box<dyn Read>> {
        let mut path = self.path();
        let file = match (File::open(&path), self) {
            (Err(error), Archived::Part { folder, id })
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

/// What a folder holds, by id. A part whose complete file is there is left out.
fn files_of(folder: &Path) -> Result<Vec<Archived>> {
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
    let mut files: Vec<(&str, Archived)> = Vec::new();
    for name in &listed {
        match Kind::of(name) {
            Some(Kind::Complete(id)) => files.push((id, Archived::File(folder.join(name)))),
            Some(Kind::Part(id)) => {
                let complete = Kind::Complete(id).file_name();
                if listed.binary_search(&complete).is_err() {
                    let (folder, text) = (folder.to_owned(), id.to_owned());
                    files.push((id, Archived::Part { folder, id: text }));
                }
            }
            Some(Kind::Unfinished(_)) | None => {}
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, file)| file).collect())
}

/// Copies `reader` up to its last whole line. Only whole lines are written, also
/// where a signal or a broken file ends it.
fn copy_lines(
    stage: &mut Stage,
    file: &Archived,
    mut reader: Box<dyn Read>,
    output: &mut Output,
    counts: &mut Counts,
) -> Result<()> {
    // What was read of a line whose end was not.
    let mut begun: Vec<u8> = Vec::new();
    let mut block = vec![0; BLOCK_BYTES];
    counts.files += 1;
    loop {
        if let Some(stop) = stage.signals.stop() {
            return Err(EndedEarly::Signal(stop).into());
        }
        stage.show_stats(|_| counts.snapshot());
        let count = match reader.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let place = format!("{}: cannot read", file.path().display());
                return Err(anyhow::Error::new(error).context(place));
            }
        };
        let Some(newline) = memchr::memrchr(b'\n', &block[..count]) else {
            begun.extend_from_slice(&block[..count]);
            continue;
        };
        begun.extend_from_slice(&block[..=newline]);
        write(stage, output, &mut begun, counts)?;
        begun.extend_from_slice(&block[newline + 1..count]);
    }
    if !begun.is_empty() && matches!(file, Archived::File(path) if !is_part(path)) {
        // A complete file has no torn line: this one was made elsewhere.
        begun.push(b'\n');
        write(stage, output, &mut begun, counts)?;
    }
    Ok(())
}

fn is_part(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(Kind::of)
        .is_some_and(|kind| matches!(kind, Kind::Part(_)))
}

/// Writes whole lines and empties `lines`.
fn write(
    stage: &mut Stage,
    output: &mut Output,
    lines: &mut Vec<u8>,
    counts: &mut Counts,
) -> Result<()> {
    counts.out += memchr::memchr_iter(b'\n', lines).count() as u64;
    counts.bytes_out += lines.len() as u64;
    stage.stats.touch();
    stage.write_all(output, lines)
}
