//! `log-<id>.gz` -> the records with one id: a search of the bytes, which takes a
//! record apart only where the id may be in it.

use std::io::{self, Read};
use std::num::{NonZeroU16, NonZeroU64};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use memchr::memmem::Finder;

use crate::observe::archive::cat::listed;
use crate::observe::archive::files::each_in_order;
use crate::observe::archive::range::RangeArgs;

use crate::stage::stats::Snapshot;
use crate::stage::{Stage, usage};
use crate::stream::address::Address;
use crate::stream::archives::{RecordedFile, fault, not_opened};
use crate::stream::output::Output;
use crate::wire::message::MESSAGE_ID_BYTES_MAX;
use crate::wire::object::{decode_string, value_of};

/// How much is read at once.
const BLOCK_BYTES: usize = 256 * 1024;

/// How much of one file may be found.
const FOUND_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Print the records with a messageId; status 1 where there is none
///
/// Searches about as fast as the files can be decompressed. An archive of scores
/// has a record a model.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  rv-archive find 1c07c2b5-53f1-4c1f-a1e4-9d1c6a2f0f3e requests.archive"
)]
pub struct FindArgs {
    /// The messageId, not escaped
    #[arg(value_name = "ID")]
    id: String,

    /// Folders that rv-archive writes, or single files
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,

    #[command(flatten)]
    range: RangeArgs,

    /// Stop at the Nth record
    #[arg(short = 'n', long, value_name = "N")]
    records: Option<NonZeroU64>,

    /// Search N files at a time; as many as there are processors where not given
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroU16>,

    /// Write to PATH; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value_t = Address::Standard, value_parser = Address::of_output)]
    output: Address,
}

/// What came of one file.
#[derive(Debug, Default)]
struct Found {
    /// Whole lines.
    lines: Vec<u8>,
    /// How many bytes were searched, uncompressed.
    bytes: u64,
    /// Lines that were too long to be searched.
    oversized: u64,
    /// Why it could not be read to its end.
    fault: Option<String>,
}

/// Runs `rv-archive find`.
pub fn run(args: &FindArgs, stage: &mut Stage) -> Result<()> {
    if args.id.is_empty() || args.id.len() > MESSAGE_ID_BYTES_MAX {
        return Err(usage(format!(
            "a messageId has 1 to {MESSAGE_ID_BYTES_MAX} bytes"
        )));
    }
    let files = listed(stage, &args.paths, args.range.range())?;
    let mut output = Output::open(&args.output)?;
    let threads = threads(args.threads);
    let needle = Needle::new(&args.id);
    let line_bytes_max = stage.line_bytes_max;
    let work = move |file: RecordedFile| {
        let name = file.path().display().to_string();
        let found = search(&file, &needle, line_bytes_max);
        (name, found)
    };
    let (mut searched, mut found, mut bytes, mut oversized) = (0, 0, 0, 0);
    let mut left = args.records.map_or(u64::MAX, NonZeroU64::get);
    each_in_order(stage, files, threads, work, |stage, (name, outcome)| {
        let outcome = match outcome? {
            Ok(outcome) => outcome,
            Err(error) => {
                let message = format!("{name}: {}", not_opened(&error));
                stage.report.damaged(&message)?;
                return Ok(true);
            }
        };
        if let Some(fault) = &outcome.fault {
            let message = format!("{name}: {fault}; the rest of it was not searched");
            stage.report.damaged(&message)?;
        }
        searched += 1;
        bytes += outcome.bytes;
        oversized += outcome.oversized;
        let mut lines = Vec::new();
        for line in outcome.lines.split_inclusive(|byte| *byte == b'\n') {
            if left > 0 {
                lines.extend_from_slice(line);
                (left, found) = (left - 1, found + 1);
            }
        }
        stage.write_all(&mut output, &mut lines)?;
        Ok(left > 0)
    })?;
    stage.close(&mut output)?;
    if oversized > 0 {
        stage.report.warn(&format!(
            "{oversized} lines are longer than --max-line-bytes and were not searched"
        ));
    }
    stage.has_findings |= found == 0 || oversized > 0;
    let snapshot = Snapshot::default()
        .count("bytes", bytes)
        .count("found", found)
        .count("files", searched)
        .count("damagedFiles", stage.report.damaged_files());
    stage.final_stats(&snapshot);
    Ok(())
}

/// As many threads as were asked for, or as there are processors.
pub fn threads(asked: Option<NonZeroU16>) -> usize {
    match asked {
        Some(threads) => threads.get().into(),
        None => std::thread::available_parallelism().map_or(1, |processors| processors.get()),
    }
}

/// An id, in the forms in which a search needs it.
#[derive(Clone, Debug)]
struct Needle {
    id: String,
    quoted: Finder<'static>,
}

impl Needle {
    fn new(id: &str) -> Needle {
        Needle {
            id: id.to_owned(),
            quoted: Finder::new(&format!("\"{id}\"")).into_owned(),
        }
    }

    /// Whether a line is a record with the id.
    fn is_in(&self, line: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line))
        else {
            return false;
        };
        let found = value_of(text, "messageId").and_then(decode_string);
        found.is_some_and(|found| found == self.id)
    }

    /// Appends the lines of `text` with the id to `found`. Written without escapes,
    /// the id stands there as it is; a line with escapes is looked into.
    fn search(&self, text: &[u8], found: &mut Vec<u8>) {
        let mut at = 0;
        let mut quoted = self.quoted.find(text);
        let mut escaped = memchr::memchr(b'\\', text);
        while let Some(hit) = [quoted, escaped].into_iter().flatten().min() {
            let start = memchr::memrchr(b'\n', &text[at..hit]).map_or(at, |before| at + before + 1);
            let end = memchr::memchr(b'\n', &text[hit..]).map_or(text.len(), |after| hit + after);
            if self.is_in(&text[start..end]) {
                found.extend_from_slice(&text[start..end]);
                found.push(b'\n');
            }
            at = (end + 1).min(text.len());
            if quoted.is_some_and(|hit| hit < at) {
                quoted = self.quoted.find(&text[at..]).map(|hit| at + hit);
            }
            if escaped.is_some_and(|hit| hit < at) {
                escaped = memchr::memchr(b'\\', &text[at..]).map(|hit| at + hit);
            }
        }
    }
}

/// Searches a file. The inner error is why it could not be opened.
fn search(
    file: &RecordedFile,
    needle: &Needle,
    line_bytes_max: usize,
) -> Result<io::Result<Found>> {
    let mut opened = match file.open() {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(error)),
    };
    let mut found = Found::default();
    let mut block = vec![0; BLOCK_BYTES];
    // The line that was begun lies at the start of the block, up to `held`.
    let (mut held, mut skipping) = (0, false);
    loop {
        let count = match opened.read(&mut block[held..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                // The line that was begun has no end.
                found.fault = Some(fault(&error));
                return Ok(Ok(found));
            }
            Ok(count) => count,
        };
        found.bytes += count as u64;
        let filled = held + count;
        let newline = memchr::memrchr(b'\n', &block[held..filled]).map(|at| held + at);
        let whole = match newline {
            Some(newline) => newline + 1,
            None if count == 0 => filled,
            None => 0,
        };
        if whole > 0 {
            let mut start = 0;
            if std::mem::take(&mut skipping) {
                let line = memchr::memchr(b'\n', &block[..whole]);
                start = line.map_or(whole, |newline| newline + 1);
            }
            needle.search(&block[start..whole], &mut found.lines);
            block.copy_within(whole..filled, 0);
        }
        held = filled - whole;
        if found.lines.len() > FOUND_BYTES_MAX {
            bail!(
                "{}: more than {FOUND_BYTES_MAX} bytes of records have this id; search it with \
                 `rv-archive cat` and grep",
                file.path().display()
            );
        }
        if count == 0 {
            return Ok(Ok(found));
        }
        if skipping {
            held = 0;
        } else if held > line_bytes_max {
            found.oversized += 1;
            (held, skipping) = (0, true);
        } else if held == block.len() {
            block.resize(2 * block.len(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn found_in(text: &[u8], id: &str, line_bytes_max: usize) -> (String, u64) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let file = RecordedFile::File(file.path().to_owned());
        let found = search(&file, &Needle::new(id), line_bytes_max)
            .unwrap()
            .unwrap();
        (String::from_utf8(found.lines).unwrap(), found.oversized)
    }

    #[test]
    fn the_id_counts_and_not_its_text() {
        let lines = [
            r#"{"messageId":"a"}"#,
            r#"{"x":"a","messageId":"b"}"#,
            r#"{"messageId":"b","modelInput":{"messageId":"a"}}"#,
            r#"{"messageId" : "\u0061", "n":2}"#,
            "no record \"a\"",
            r#"{"text":"\n","messageId":"a"}"#,
            r#"{"messageId":"aa"}"#,
            r#"{"messageId":"a","last":1}"#,
        ];
        let (found, _) = found_in(lines.join("\n").as_bytes(), "a", 1000);
        let expected = [lines[0], lines[3], lines[5], lines[7], ""].join("\n");
        assert_eq!(found, expected);
        let quoted = r#"{"messageId":"say \"a\"\\"}"#;
        let (found, _) = found_in(quoted.as_bytes(), "say \"a\"\\", 1000);
        assert_eq!(found.trim_end(), quoted);
    }

    #[test]
    fn long_lines_are_searched_up_to_the_limit() {
        let long =
            |length: usize| format!("{{\"x\":\"{}\",\"messageId\":\"a\"}}", "x".repeat(length));
        let text = [long(1_000_000), long(3_000_000), long(10), String::new()].join("\n");
        let (found, oversized) = found_in(text.as_bytes(), "a", 2_000_000);
        assert_eq!(oversized, 1);
        assert_eq!(found, [long(1_000_000), long(10), String::new()].join("\n"));
    }

    proptest! {
        #[test]
        fn it_finds_what_a_reader_of_every_line_finds(
            ids in proptest::collection::vec("[ab\\\\\"]{1,2}", 0..40),
            padding in 0usize..20_000,
        ) {
            let record = |id: &String| {
                let id = serde_json::to_string(id).unwrap();
                format!("{{\"x\":\"{}\",\"messageId\":{id}}}\n", "x".repeat(padding))
            };
            let text: String = ids.iter().map(record).collect();
            let expected: String = ids.iter().filter(|id| *id == "a").map(record).collect();
            prop_assert_eq!(found_in(text.as_bytes(), "a", 1 << 20).0, expected);
        }
    }
}
