//! `rv-archive verify`: `log-<id>.gz` -> a verdict: whether each file is whole, agrees
//! with its stamp, and follows the previous file.

use std::fmt;
use std::io::{self, Read};
use std::num::NonZeroU16;
use std::path::PathBuf;

use anyhow::Result;
use bytesize::ByteSize;
use clap::Args;

use crate::observe::archive::parallel::{for_each_file, thread_count};
use crate::observe::archive::stamp::Stamp;
use crate::stage::Stage;
use crate::stage::stats::Snapshot;
use crate::stream::address::Address;
use crate::stream::archives::{RecordedFile, fault, not_opened, open_regular, recorded_files};
use crate::stream::output::Output;

/// The number of bytes in one read.
const BLOCK_BYTES: usize = 256 * 1024;

/// Check archives: checksums, counts of lines, order, gaps; exit with status 1 if a check
/// fails
///
/// Prints a line for each fault, and a line for each folder. The oldest files may be
/// missing (`--keep-files`), but no file between two others may be missing.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  rv-archive verify requests.archive")]
pub struct VerifyArgs {
    /// Folders that rv-archive writes, or single files
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,

    /// Check N files at a time; by default one for each processor
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroU16>,

    /// Write to PATH; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value_t = Address::Standard, value_parser = Address::of_output)]
    output: Address,
}

/// The content of one file, as far as it can be read.
#[derive(Debug, Default)]
struct FileContent {
    lines: u64,
    bytes: u64,
    disk_bytes: u64,
    ends_a_line: bool,
    stamp: Option<Stamp>,
    /// The reason why the file could not be read to its end.
    fault: Option<String>,
}

/// The verdict on the files of one folder, in their order.
#[derive(Debug, Default)]
struct FolderVerdict {
    /// Complete files.
    files: u64,
    parts: u64,
    unstamped: u64,
    lines: u64,
    bytes: u64,
    disk_bytes: u64,
    faults: u64,
    /// The number of older files that have been removed.
    removed: u64,
    latest_stamp: Option<Stamp>,
    /// Whether the file after the one with `latest_stamp` had no stamp.
    after_unstamped: bool,
}

/// Runs `rv-archive verify`.
pub fn run(args: &VerifyArgs, stage: &mut Stage) -> Result<()> {
    let mut output = Output::open(&args.output)?;
    let threads = thread_count(args.threads);
    let mut total = FolderVerdict::default();
    for path in &args.paths {
        let files = recorded_files(path)?;
        let mut verdict = FolderVerdict::default();
        let work = |file: RecordedFile| {
            let content = read(&file);
            (file, content)
        };
        for_each_file(stage, files, threads, work, |stage, (file, content)| {
            let mut text = Vec::new();
            for fault in verdict.add(&file, content) {
                text.extend_from_slice(format!("{}: {fault}\n", file.path().display()).as_bytes());
            }
            stage.write_all(&mut output, &mut text)?;
            Ok(true)
        })?;
        let mut text = format!("{}: {verdict}\n", path.display()).into_bytes();
        stage.write_all(&mut output, &mut text)?;
        total.bytes += verdict.bytes;
        total.files += verdict.files + verdict.parts;
        total.lines += verdict.lines;
        total.faults += verdict.faults;
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

/// Reads a whole file. The error is the reason why the file cannot be opened; damage is
/// part of the content.
fn read(file: &RecordedFile) -> io::Result<FileContent> {
    let mut opened = file.open()?;
    let mut content = FileContent {
        ends_a_line: true,
        disk_bytes: opened.length(),
        stamp: stamp(file)?,
        ..FileContent::default()
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

/// The stamp of a file. A part has none.
fn stamp(file: &RecordedFile) -> io::Result<Option<Stamp>> {
    let (path, follow) = match file {
        RecordedFile::Part { .. } => return Ok(None),
        RecordedFile::Complete(path) => (path, false),
        RecordedFile::File(path) => (path, true),
    };
    Stamp::read(&open_regular(path, follow)?.0)
}

impl FileContent {
    /// The fault of a complete file that can be read to its end.
    fn mismatch(&self) -> Option<String> {
        if self.fault.is_some() {
            return None;
        }
        match self.stamp {
            // The check of the files' order reports this fault.
            Some(stamp) if stamp.contradiction().is_some() => None,
            Some(stamp) if (stamp.lines, stamp.bytes) != (self.lines, self.bytes) => Some(format!(
                "has {} lines in {} bytes, and its stamp says {} in {}",
                self.lines, self.bytes, stamp.lines, stamp.bytes
            )),
            None if !self.ends_a_line => Some("ends inside a line".to_owned()),
            Some(_) | None => None,
        }
    }
}

impl FolderVerdict {
    /// Adds the next file. Returns its faults.
    fn add(&mut self, file: &RecordedFile, content: io::Result<FileContent>) -> Vec<String> {
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
        faults.extend(content.mismatch());
        match content.stamp {
            Some(stamp) => faults.extend(self.check_order(stamp)),
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

    /// Checks by its stamp whether a file follows the previous one. Returns the fault,
    /// if any.
    fn check_order(&mut self, stamp: Stamp) -> Option<String> {
        if let Some(contradiction) = stamp.contradiction() {
            return Some(format!(
                "{contradiction}: file {}, {} lines before it, {} lines in {} bytes",
                stamp.number, stamp.lines_before, stamp.lines, stamp.bytes
            ));
        }
        let after_unstamped = std::mem::take(&mut self.after_unstamped);
        let Some(latest) = self.latest_stamp.replace(stamp) else {
            if self.files == 1 {
                self.removed = stamp.number;
            }
            return None;
        };
        // `latest` passed `contradiction`, which refuses very large numbers. So `next`
        // cannot overflow.
        let next = latest.next().unwrap_or_default();
        let follows = (stamp.number, stamp.lines_before) == (next.number, next.lines_before);
        // After a file without a stamp, counting may start again at 0.
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
                "its stamp says that {} lines are before it, and there are {}",
                stamp.lines_before, next.lines_before
            ),
            _ => format!(
                "is file {} of its archive, and follows file {}",
                stamp.number, latest.number
            ),
        })
    }
}

impl fmt::Display for FolderVerdict {
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
            write!(formatter, "; files not complete yet: {}", self.parts)?;
        }
        if self.removed > 0 {
            write!(formatter, "; {} older files were removed", self.removed)?;
        }
        if self.unstamped > 0 {
            write!(formatter, "; files without a stamp: {}", self.unstamped)?;
        }
        match self.faults {
            0 => formatter.write_str("; no faults"),
            1 => formatter.write_str("; 1 fault"),
            faults => write!(formatter, "; {faults} faults"),
        }
    }
}
