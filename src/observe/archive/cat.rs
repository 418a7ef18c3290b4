//! `log-<id>.gz` -> the stream again: reads archives back in order, also the part
//! that is being written.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::stage::filter::{output_path, refuse_one_file};
use crate::stage::stats::Snapshot;
use crate::stage::{EndedEarly, Stage};
use crate::wire::endpoint::{Output, STANDARD};
use crate::wire::lines::{Line, Lines};
use crate::wire::recording::{Kind, RecordedFile, recorded_files};

/// Write archived lines to a stream again, in their order
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  rv-archive cat requests.archive | wc --lines")]
pub struct CatArgs {
    /// Folders (their complete files by name, then the part that is being
    /// written, up to its last whole line) or single files
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,

    /// Write to PATH; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value = STANDARD, value_parser = output_path)]
    output: String,
}

/// What was written so far.
#[derive(Debug, Default)]
struct Counts {
    read: u64,
    out: u64,
    files: u64,
    bytes_out: u64,
}

impl Counts {
    fn snapshot(&self, stage: &Stage) -> Snapshot {
        Snapshot::default()
            .count("in", self.read)
            .count("out", self.out)
            .count("rejected", stage.report.rejected())
            .count("files", self.files)
            .count("bytesOut", self.bytes_out)
    }
}

/// Runs `rv-archive cat`.
pub fn run(args: &CatArgs, stage: &mut Stage) -> Result<()> {
    for path in &args.paths {
        for file in recorded_files(path)? {
            refuse_one_file(&file.path().to_string_lossy(), &args.output)?;
        }
    }
    let mut output = Output::open(&args.output)?;
    let mut counts = Counts::default();
    for path in &args.paths {
        for file in recorded_files(path)? {
            let reader = file.open()?;
            copy_lines(stage, &file, reader, &mut output, &mut counts)?;
        }
    }
    stage.close(&mut output)?;
    stage.final_stats(&counts.snapshot(stage));
    Ok(())
}

/// Copies `reader` up to its last whole line. Only whole lines are written, also
/// where a signal or a broken file ends it.
fn copy_lines(
    stage: &mut Stage,
    file: &RecordedFile,
    mut reader: Box<dyn Read>,
    output: &mut Output,
    counts: &mut Counts,
) -> Result<()> {
    let name = file.path().display().to_string();
    let mut lines = Lines::new(stage.line_bytes_max);
    let mut out = Vec::new();
    counts.files += 1;
    loop {
        if let Some(stop) = stage.signals.stop() {
            return Err(EndedEarly::Signal(stop).into());
        }
        stage.show_stats(|stage| counts.snapshot(stage));
        match lines.fill(|room| reader.read(room)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).with_context(|| format!("{name}: cannot read")),
        }
        while let Some(line) = lines.next_line() {
            copy(stage, &name, &line, &mut out, counts)?;
        }
        stage.stats.touch();
        stage.report.flush()?;
        stage.write_all(output, &mut out)?;
    }
    // A complete file has no torn line: one without its end was made elsewhere.
    if matches!(file, RecordedFile::File(path) if !is_part(path))
        && let Some(line) = lines.last_line()
    {
        copy(stage, &name, &line, &mut out, counts)?;
        stage.write_all(output, &mut out)?;
    }
    Ok(())
}

fn is_part(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(Kind::of)
        .is_some_and(|kind| matches!(kind, Kind::Part(_)))
}

/// Appends a line to `out`, or sets it aside where it is over the limit.
fn copy(
    stage: &mut Stage,
    name: &str,
    line: &Line,
    out: &mut Vec<u8>,
    counts: &mut Counts,
) -> Result<()> {
    counts.read += 1;
    if line.oversized.is_some() {
        return stage.report.reject_oversized(name, line);
    }
    out.extend_from_slice(line.bytes);
    out.push(b'\n');
    counts.out += 1;
    counts.bytes_out += line.bytes.len() as u64 + 1;
    Ok(())
}
