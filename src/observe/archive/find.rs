//! `rv-archive find`: `log-<id>.gz` -> the records with one id. The search parses a
//! line only if the bytes of the line may contain the id.

use std::io::{self, Read};
use std::num::{NonZeroU16, NonZeroU64};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use memchr::memmem::Finder;

use crate::observe::archive::parallel::{for_each_file, thread_count};
use crate::observe::archive::time_range::{TimeRangeArgs, files_in_range};
use crate::stage::stats::Snapshot;
use crate::stage::{Stage, usage};
use crate::stream::address::Address;
use crate::stream::archives::{RecordedFile, fault, not_opened};
use crate::stream::output::Output;
use crate::wire::message::MESSAGE_ID_BYTES_MAX;
use crate::wire::object::{decode_string, value_of};

/// The number of bytes in one read.
const BLOCK_BYTES: usize = 256 * 1024;

/// The largest number of bytes of records that one file may yield.
const FOUND_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Print the records with a messageId; exit with status 1 if no record has it
///
/// The search is about as fast as decompression. An archive of scores has one record
/// for each model.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  rv-archive find 1c07c2b5-53f1-4c1f-a1e4-9d1c6a2f0f3e requests.archive"
)]
pub struct FindArgs {
    /// The messageId, without JSON escapes
    #[arg(value_name = "ID")]
    id: String,

    /// Folders that rv-archive writes, or single files
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,

    #[command(flatten)]
    range: TimeRangeArgs,

    /// Stop after N records
    #[arg(short = 'n', long, value_name = "N")]
    records: Option<NonZeroU64>,

    /// Search N files at a time; by default one for each processor
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroU16>,

    /// Write to PATH; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value_t = Address::Standard, value_parser = Address::of_output)]
    output: Address,
}

/// The result of the search in one file.
#[derive(Debug, Default)]
struct FoundRecords {
    /// The found lines.
    lines: Vec<u8>,
    /// The number of searched bytes, uncompressed.
    bytes: u64,
    /// The number of lines that were too long to be searched.
    oversized: u64,
    /// The reason why the file could not be read to its end.
    fault: Option<String>,
}

/// The result of the search so far.
#[derive(Debug)]
struct FindTotals {
    files: u64,
    bytes: u64,
    oversized: u64,
    found: u64,
    /// The number of records that may still be printed.
    left: u64,
}

/// Runs `rv-archive find`.
pub fn run(args: &FindArgs, stage: &mut Stage) -> Result<()> {
    if args.id.is_empty() || args.id.len() > MESSAGE_ID_BYTES_MAX {
        return Err(usage(format!(
            "a messageId has 1 to {MESSAGE_ID_BYTES_MAX} bytes"
        )));
    }
    let files = files_in_range(stage, &args.paths, args.range.range())?;
    let mut output = Output::open(&args.output)?;
    let id = SearchedId::new(&args.id);
    let line_bytes_max = stage.line_bytes_max;
    let work = move |file: RecordedFile| {
        let name = file.path().display().to_string();
        let found = search(&file, &id, line_bytes_max);
        (name, found)
    };
    let mut totals = FindTotals {
        files: 0,
        bytes: 0,
        oversized: 0,
        found: 0,
        left: args.records.map_or(u64::MAX, NonZeroU64::get),
    };
    let threads = thread_count(args.threads);
    for_each_file(stage, files, threads, work, |stage, (name, outcome)| {
        match outcome? {
            Ok(found) => {
                let mut lines = totals.add(stage, &name, &found)?;
                stage.write_all(&mut output, &mut lines)?;
            }
            Err(error) => {
                let message = format!("{name}: {}", not_opened(&error));
                stage.report.damaged(&message)?;
            }
        }
        Ok(totals.left > 0)
    })?;
    stage.close(&mut output)?;
    if totals.oversized > 0 {
        stage.report.warn(&format!(
            "{} lines are longer than --max-line-bytes and were not searched",
            totals.oversized
        ));
    }
    stage.has_findings |= totals.found == 0 || totals.oversized > 0;
    let snapshot = Snapshot::default()
        .count("bytes", totals.bytes)
        .count("found", totals.found)
        .count("files", totals.files)
        .count("damagedFiles", stage.report.damaged_files());
    stage.final_stats(&snapshot);
    Ok(())
}

impl FindTotals {
    /// Counts the result of one file. Returns the lines found in the file, at most
    /// `left` of them.
    fn add(&mut self, stage: &mut Stage, name: &str, file: &FoundRecords) -> Result<Vec<u8>> {
        if let Some(fault) = &file.fault {
            let message = format!("{name}: {fault}; the rest of it was not searched");
            stage.report.damaged(&message)?;
        }
        self.files += 1;
        self.bytes += file.bytes;
        self.oversized += file.oversized;
        let mut lines = Vec::new();
        for line in file.lines.split_inclusive(|byte| *byte == b'\n') {
            if self.left > 0 {
                lines.extend_from_slice(line);
                self.left -= 1;
                self.found += 1;
            }
        }
        Ok(lines)
    }
}

/// An id to search for.
#[derive(Clone, Debug)]
struct SearchedId {
    id: String,
    /// The id as a JSON string without escapes.
    quoted: Finder<'static>,
}

impl SearchedId {
    fn new(id: &str) -> SearchedId {
        SearchedId {
            id: id.to_owned(),
            quoted: Finder::new(&format!("\"{id}\"")).into_owned(),
        }
    }

    /// Whether a line is a record with this id.
    fn is_in(&self, line: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line))
        else {
            return false;
        };
        let found = value_of(text, "messageId").and_then(decode_string);
        found.is_some_and(|found| found == self.id)
    }

    /// Appends the lines of `text` that have the id to `found`. An id without escapes
    /// appears unchanged in its line. So only lines with this text, and lines with an
    /// escape, are parsed.
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

/// Searches a file. The inner error is the reason why it could not be opened.
fn search(
    file: &RecordedFile,
    id: &SearchedId,
    line_bytes_max: usize,
) -> Result<io::Result<FoundRecords>> {
    let mut opened = match file.open() {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(error)),
    };
    let mut found = FoundRecords::default();
    let mut block = SearchBlock::new(line_bytes_max);
    loop {
        let count = match opened.read(block.room()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                // The last line is torn, so it is not searched.
                found.fault = Some(fault(&error));
                return Ok(Ok(found));
            }
            Ok(count) => count,
        };
        found.bytes += count as u64;
        id.search(block.whole_lines(count), &mut found.lines);
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
        found.oversized += u64::from(block.keep_unfinished_line());
    }
}

/// The block of a file that one search covers. It consists of whole lines, followed by
/// the beginning of the next line.
struct SearchBlock {
    bytes: Vec<u8>,
    /// The length of the unfinished line at the start of the block. The next read
    /// begins there.
    unfinished: usize,
    /// The end of the whole lines.
    whole: usize,
    /// The end of the bytes that were read.
    filled: usize,
    /// Whether the current line is too long, so that its rest is skipped.
    is_skipping: bool,
    line_bytes_max: usize,
}

impl SearchBlock {
    fn new(line_bytes_max: usize) -> SearchBlock {
        SearchBlock {
            bytes: vec![0; BLOCK_BYTES],
            unfinished: 0,
            whole: 0,
            filled: 0,
            is_skipping: false,
            line_bytes_max,
        }
    }

    /// The free space for the next read.
    fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.unfinished..]
    }

    /// Returns the whole lines of the block after a read of `count` bytes. At the end
    /// of the file, `count` is 0, and the last line is whole even without a newline.
    fn whole_lines(&mut self, count: usize) -> &[u8] {
        self.filled = self.unfinished + count;
        let newline = memchr::memrchr(b'\n', &self.bytes[self.unfinished..self.filled]);
        self.whole = match newline {
            Some(newline) => self.unfinished + newline + 1,
            None if count == 0 => self.filled,
            None => 0,
        };
        let whole = &self.bytes[..self.whole];
        if whole.is_empty() || !std::mem::take(&mut self.is_skipping) {
            return whole;
        }
        let rest_of_line = memchr::memchr(b'\n', whole);
        &whole[rest_of_line.map_or(whole.len(), |newline| newline + 1)..]
    }

    /// Moves the unfinished line to the start, and makes room for more. Returns whether
    /// that line has just become too long.
    fn keep_unfinished_line(&mut self) -> bool {
        self.bytes.copy_within(self.whole..self.filled, 0);
        self.unfinished = self.filled - self.whole;
        if self.is_skipping {
            self.unfinished = 0;
        } else if self.unfinished > self.line_bytes_max {
            (self.unfinished, self.is_skipping) = (0, true);
            return true;
        } else if self.unfinished == self.bytes.len() {
            self.bytes.resize(2 * self.bytes.len(), 0);
        }
        false
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
        let found = search(&file, &SearchedId::new(id), line_bytes_max)
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
