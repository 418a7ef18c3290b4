//! `log-<id>.gz` -> the stream again: reads archives back in order, also the part
//! that is being written.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::stage::stats::Snapshot;
use crate::stage::{EndedEarly, Stage};
use crate::wire::endpoint::{Output, STANDARD};
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
    #[arg(short, long, value_name = "PATH", default_value = STANDARD)]
    output: String,
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
        for file in recorded_files(path)? {
            let reader = file.open()?;
            copy_lines(stage, &file, reader, &mut output, &mut counts)?;
        }
    }
    stage.close(&mut output)?;
    stage.final_stats(&counts.snapshot());
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
    if !begun.is_empty() && matches!(file, RecordedFile::File(path) if !is_part(path)) {
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
