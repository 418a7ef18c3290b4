//! `log-<id>.gz` -> a verdict: whether each file is whole, holds what its stamp
//! says, and follows the one before it.

use std::fmt;
use std::io::{self, Read};
use std::num::NonZeroU16;
use std::path::PathBuf;

use anyhow::Result;
use bytesize::ByteSize;
use clap::Args;

use crate::observe::archive::files::each_in_order;
use crate::observe::archive::find::threads;
use crate::observe::archive::members::Stamp;
use crate::stage::Stage;

use crate::stage::stats::Snapshot;
use crate::stream::address::Address;
use crate::stream::archives::{RecordedFile, fault, not_opened, open_regular, recorded_files};
use crate::stream::output::Output;

const BLOCK_BYTES: usize = 256 * 1024;

/// Check archives: checksums, counts of lines, order, gaps; status 1 where
/// something is wrong
///
/// Prints a line for each fault, and one for each folder. The oldest files may be
/// missing (`--keep-files`), none between two others.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  rv-archive verify requests.archive")]
pub struct VerifyArgs {
    /// Folders that rv-archive writes, or single files
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,

    /// Check N files at a time; as many as there are processors where not given
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroU16>,

    /// Write to PATH; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value_t = Address::Standard, value_parser = Address::of_output)]
    output: Address,
}

/// What a file holds, as far as it can be read.
#[derive(Debug, Default)]
struct Content {
    lines: u64,
    bytes: u64,
    disk_bytes: u64,
    ends_a_line: bool,
    stamp: Option<Stamp>,
    /// Why it could not be read to its end.
    fault: Option<String>,
}

/// All files of a folder, one after the other.
#[derive(Debug, Default)]
struct Chain {
    files: u64,
    parts: u64,
    unstamped: u64,
    lines: u64,
    bytes: u64,
    disk_bytes: u64,
    faults: u64,
    /// How many older files there once were.
    removed: u64,
    latest: Option<Stamp>,
    /// Whether a file without a stamp stands between that and the next.
    after_unstamped: bool,
}

/// Runs `rv-archive verify`.
pub fn run(args: &VerifyArgs, stage: &mut Stage) -> Result<()> {
    let mut output = Output::open(&args.output)?;
    let threads = threads(args.threads);
    let mut total = Chain::default();
    for path in &args.paths {
        let files = recorded_files(path)?;
        let mut chain = Chain::default();
        let work = |file: RecordedFile| {
            let content = read(&file);
            (file, content)
        };
        each_in_order(stage, files, threads, work, |stage, (file, content)| {
            let mut text = Vec::new();
            for fault in chain.add(&file, content) {
                text.extend_from_slice(format!("{}: {fault}\n", file.path().display()).as_bytes());
            }
            stage.write_all(&mut output, &mut text)?;
            Ok(true)
        })?;
        let mut text = format!("{}: {chain}\n", path.display()).into_bytes();
        stage.write_all(&mut output, &mut text)?;
        total.bytes += chain.bytes;
        total.files += chain.files + chain.parts;
        total.lines += chain.lines;
        total.faults += chain.faults;
    }
    stage.close(&mut output)?;
    stage.has_findings |= total.faults > 0;
    let snapshot = Snapshot::default()
        .count("bytes", total.bytes)
        .count("lines", total.lines)
        .count("files", total.files)
        .count("faults", total.faults);
    stage.final_stats(&snapshot);
    Ok(())
}

/// Reads a whole file. What is wrong inside it is part of the answer.
fn read(file: &RecordedFile) -> io::Result<Content> {
    let mut opened = file.open()?;
    let mut content = Content {
        ends_a_line: true,
        disk_bytes: opened.length(),
        stamp: stamp(file)?,
        ..Content::default()
    };
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match opened.read(&mut block) {
            Ok(0) => return Ok(content),
            Ok(count) => {
                content.bytes += count as u64;
                content.lines += memchr::memchr_iter(b'\n', &block[..count]).count() as u64;
                content.ends_a_line = block[count - 1] == b'\n';
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                content.fault = Some(fault(&error));
                return Ok(content);
            }
        }
    }
}

/// The stamp of a complete file; a part has none.
fn stamp(file: &RecordedFile) -> io::Result<Option<Stamp>> {
    let (path, follow) = match file {
        RecordedFile::Part { .. } => return Ok(None),
        RecordedFile::Complete(path) => (path, false),
        RecordedFile::File(path) => (path, true),
    };
    Stamp::read(&open_regular(path, follow)?.0)
}

impl Chain {
    /// Takes the next file. Returns what is wrong with it.
    fn add(&mut self, file: &RecordedFile, content: io::Result<Content>) -> Vec<String> {
        let content = match content {
            Ok(content) => content,
            Err(error) => return self.count(vec![not_opened(&error)]),
        };
        self.lines += content.lines;
        self.bytes += content.bytes;
        self.disk_bytes += content.disk_bytes;
        let mut faults = Vec::new();
        if let Some(fault) = &content.fault {
            faults.push(format!(
                "{fault}; {} lines before that can be read",
                content.lines
            ));
        }
        if matches!(file, RecordedFile::Part { .. }) {
            self.parts += 1;
            return self.count(faults);
        }
        self.files += 1;
        match content.stamp {
            Some(stamp) if stamp.contradiction().is_some() => {}
            Some(stamp)
                if content.fault.is_none()
                    && (stamp.lines, stamp.bytes) != (content.lines, content.bytes) =>
            {
                faults.push(format!(
                    "has {} lines in {} bytes, and should have {} in {}",
                    content.lines, content.bytes, stamp.lines, stamp.bytes
                ));
            }
            None if content.fault.is_none() && !content.ends_a_line => {
                faults.push("ends inside a line".to_owned());
            }
            _ => {}
        }
        match content.stamp {
            Some(stamp) => faults.extend(self.follow(stamp)),
            None => {
                self.unstamped += 1;
                self.after_unstamped = true;
            }
        }
        self.count(faults)
    }

    fn count(&mut self, faults: Vec<String>) -> Vec<String> {
        self.faults += faults.len() as u64;
        faults
    }

    /// Whether a file is the next one, by its stamp.
    fn follow(&mut self, stamp: Stamp) -> Option<String> {
        if let Some(contradiction) = stamp.contradiction() {
            return Some(format!(
                "{contradiction}: file {}, {} lines before it, {} lines in {} bytes",
                stamp.number, stamp.lines_before, stamp.lines, stamp.bytes
            ));
        }
        let after_unstamped = std::mem::take(&mut self.after_unstamped);
        let Some(latest) = self.latest.replace(stamp) else {
            if self.files == 1 {
                self.removed = stamp.number;
            }
            return None;
        };
        // A contradiction was told, so there is room for another.
        let next = latest.after().unwrap_or_default();
        let follows = (stamp.number, stamp.lines_before) == (next.number, next.lines_before);
        // Behind a file without a stamp counting may begin anew.
        if follows || (after_unstamped && stamp.number == 0) {
            return None;
        }
        let missing = stamp.number.checked_sub(next.number).filter(|it| *it > 0);
        let lines = stamp.lines_before.checked_sub(next.lines_before);
        Some(match (missing, lines) {
            (Some(files), Some(lines)) => {
                format!("{files} files with {lines} lines are missing before it")
            }
            (None, _) if stamp.number == next.number => format!(
                "says that {} lines are before it, and there are {}",
                stamp.lines_before, next.lines_before
            ),
            _ => format!(
                "is file {} of its archive, and stands behind file {}",
                stamp.number, latest.number
            ),
        })
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(
            formatter,
            "{} complete files, {} lines, {} in {} on disk",
            self.files,
            self.lines,
            ByteSize::b(self.bytes).display().iec(),
            ByteSize::b(self.disk_bytes).display().iec()
        )?;
        if self.parts > 0 {
            write!(formatter, ", of it {} not complete yet", self.parts)?;
        }
        if self.removed > 0 {
            write!(formatter, "; {} older files were removed", self.removed)?;
        }
        if self.unstamped > 0 {
            write!(
                formatter,
                "; {} files do not say what is in them",
                self.unstamped
            )?;
        }
        match self.faults {
            0 => formatter.write_str("; no faults"),
            1 => formatter.write_str("; 1 fault"),
            faults => write!(formatter, "; {faults} faults"),
        }
    }
}
