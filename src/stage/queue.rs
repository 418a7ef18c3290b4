//! A bounded queue in front of an output that must not hold anybody up: past its
//! bound the oldest records are dropped, and counted.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::stage::context::Stage;
use crate::stage::report::Report;
use crate::stage::wait::wait;
use crate::stream::address::Address;
use crate::stream::output::Output;
use crate::stream::threaded_file::ThreadedFile;

/// Records are kept in pieces of about this size: a record is appended, written or
/// dropped without moving the others.
const PIECE_BYTES: usize = 64 * 1024;

/// How much is written at once, so that a fast reader of it does not hold up what is
/// more urgent.
const WRITE_BYTES: usize = 256 * 1024;

/// How long a reader is waited for at the end of the program.
const FINISH: Duration = Duration::from_secs(5);

/// Whole records that wait for an output.
#[derive(Debug)]
pub struct Queue {
    output: Output,
    /// The thread that writes, where the output is a file that nobody may wait for.
    beside: Option<ThreadedFile>,
    address: Address,
    waiting: Pieces,
    bytes_max: usize,
    /// Records that were dropped since there was no room or no output.
    pub dropped: u64,
    /// Set when the output can never take anything again.
    failed: bool,
}

impl Queue {
    /// A queue of at most `bytes_max` bytes in front of `path`.
    pub fn open(address: &Address, bytes_max: usize) -> Result<Queue> {
        Ok(Queue {
            output: Output::open(address)?,
            beside: None,
            address: address.clone(),
            waiting: Pieces::default(),
            bytes_max,
            dropped: 0,
            failed: false,
        })
    }

    /// The same, where nobody may wait for a disk: a regular file is written by a
    /// thread.
    pub fn open_with_thread(address: &Address, bytes_max: usize) -> Result<Queue> {
        if !address.is_file_output() {
            return Queue::open(address, bytes_max);
        }
        let (output, beside) = ThreadedFile::create(address.as_str())?;
        Ok(Queue {
            output,
            beside: Some(beside),
            address: address.clone(),
            waiting: Pieces::default(),
            bytes_max,
            dropped: 0,
            failed: false,
        })
    }

    /// The output behind it, to wait for while there is something to write.
    pub fn output(&self) -> Option<&Output> {
        (!self.is_empty() && !self.failed).then_some(&self.output)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.bytes == 0
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.waiting.bytes
    }

    /// Lets `write` append one record, with its newline.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.failed {
            self.dropped += 1;
            return;
        }
        self.waiting.push(write);
        while self.waiting.bytes > self.bytes_max && self.waiting.drop_oldest() {
            self.dropped += 1;
        }
    }

    /// Writes what is taken at once, within a bound. An output that fails is said, and
    /// its records are dropped from then on; a named pipe whose reader has gone waits
    /// for the next one.
    pub fn write_some(&mut self, report: &mut Report) {
        if let Some(error) = self.beside.as_ref().and_then(ThreadedFile::take_error) {
            self.fail(&error, report);
        }
        let mut left = match self.output.readiness() {
            Some(_) => WRITE_BYTES,
            // Nothing would wake the program for the rest.
            None => usize::MAX,
        };
        while !self.failed && left > 0 {
            let bytes = self.waiting.first();
            let bytes = &bytes[..bytes.len().min(left)];
            if bytes.is_empty() {
                break;
            }
            match self.output.try_write(bytes) {
                Ok(0) => break,
                Ok(count) => {
                    self.waiting.forget(count);
                    left -= count;
                }
                Err(error) => self.fail(&error, report),
            }
        }
    }

    fn fail(&mut self, error: &io::Error, report: &mut Report) {
        if error.kind() == io::ErrorKind::BrokenPipe
            && self.beside.is_none()
            && self.output.is_named_pipe()
            && let Ok(output) = Output::open(&self.address)
        {
            let message = format!(
                "{}: its reader has gone; waiting for the next",
                self.address
            );
            report.warn_seldom("queue", &message);
            self.output = output;
            // What the dead reader left in the pipe may end inside a line.
            self.waiting.restart();
            return;
        }
        report.warn(&format!(
            "{}: cannot write, and nothing more is written there: {error}",
            self.address
        ));
        self.failed = true;
        self.drop_all();
    }

    fn drop_all(&mut self) -> u64 {
        let lost = self.waiting.records();
        self.waiting = Pieces::default();
        self.dropped += lost;
        lost
    }

    /// Writes all that waits, as long as it takes.
    pub fn write_all(&mut self, stage: &mut Stage) -> Result<()> {
        loop {
            self.write_some(&mut stage.report);
            let Some(output) = self.output() else {
                return Ok(());
            };
            stage.wait_for_output(output)?;
        }
    }

    /// Writes the rest and closes the output. A reader that does not read is
    /// given five seconds at the most: the program is to end, and all that others
    /// wait for has been written.
    pub fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        let end = Instant::now() + FINISH;
        loop {
            self.write_some(&mut stage.report);
            let Some(output) = self.output() else {
                break;
            };
            let out_of_time = stage.signals.out_of_time().is_some() || Instant::now() >= end;
            if out_of_time {
                let lost = self.drop_all();
                self.finish_beside(end, &mut stage.report);
                stage.report.warn(&format!(
                    "{}: its reader does not read; {lost} records are lost",
                    self.address
                ));
                return Ok(());
            }
            let until = stage.signals.grace_end().map_or(end, |it| it.min(end));
            if let Some(readiness) = output.readiness() {
                wait(&[readiness], &mut stage.signals, Some(until))?;
            }
        }
        if !self.failed && self.output.is_open().unwrap_or(false) {
            if let Err(error) = self.output.sync() {
                self.fail(&error, &mut stage.report);
                self.dropped += 1;
            }
            self.output.close();
        }
        self.finish_beside(end, &mut stage.report);
        Ok(())
    }

    /// Waits for the thread that writes, where there is one.
    fn finish_beside(&mut self, end: Instant, report: &mut Report) {
        let Some(beside) = self.beside.take() else {
            return;
        };
        self.output.close();
        let is_done = beside.finish(end);
        if let Some(error) = beside.take_error() {
            self.fail(&error, report);
        } else if !is_done {
            report.warn(&format!(
                "{}: the disk does not take what was written; the last records may be lost",
                self.address
            ));
            self.dropped += 1;
        }
        self.dropped += beside.lost();
    }
}

/// Whole records in pieces, and the rest of one of which a part was written.
#[derive(Debug, Default)]
struct Pieces {
    /// The rest of a record that was begun, taken out of its piece so that the records
    /// behind it can be dropped.
    begun: Vec<u8>,
    /// Written up to here.
    begun_start: usize,
    /// None of them is written whole.
    pieces: VecDeque<Vec<u8>>,
    /// The first of them is written, or dropped, up to here.
    start: usize,
    /// Whether what was written last ended inside a record.
    is_inside: bool,
    /// How many bytes wait.
    bytes: usize,
}

impl Pieces {
    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let has_room = |last: &Vec<u8>| last.len() < PIECE_BYTES;
        if !self.pieces.back().is_some_and(has_room) {
            self.pieces.push_back(Vec::new());
        }
        if let Some(last) = self.pieces.back_mut() {
            let before = last.len();
            write(last);
            self.bytes += last.len() - before;
        }
        self.drop_empty();
    }

    /// What is to be written next. Empty only where nothing waits.
    fn first(&self) -> &[u8] {
        if self.begun_start < self.begun.len() {
            return &self.begun[self.begun_start..];
        }
        let first = self.pieces.front();
        first.map_or(&[], |first| &first[self.start..])
    }

    /// Takes away what was written of [`first`](Pieces::first).
    fn forget(&mut self, count: usize) {
        self.is_inside = self.first().get(count.wrapping_sub(1)) != Some(&b'\n');
        self.bytes -= count;
        if self.begun_start < self.begun.len() {
            self.begun_start += count;
            if self.begun_start == self.begun.len() {
                (self.begun, self.begun_start) = (Vec::new(), 0);
            }
            return;
        }
        self.start += count;
        self.drop_empty();
    }

    /// Frees the first piece where nothing of it waits.
    fn drop_empty(&mut self) {
        let is_empty = |first: &Vec<u8>| first.len() <= self.start;
        if self.pieces.front().is_some_and(is_empty) {
            self.pieces.pop_front();
            self.start = 0;
        }
    }

    /// Drops the oldest record that no part of was written yet. The last one stays,
    /// however large it is.
    fn drop_oldest(&mut self) -> bool {
        if self.is_inside && self.begun.is_empty() {
            self.take_begun();
        }
        let Some(first) = self.pieces.front() else {
            return false;
        };
        let length = line_length(&first[self.start..]);
        if self.pieces.len() == 1 && self.start + length == first.len() {
            return false;
        }
        self.bytes -= length;
        self.start += length;
        self.drop_empty();
        true
    }

    /// Takes the record that was begun out of its piece: once a record, however many
    /// are dropped behind it. A long one is the last of its piece, and is not copied.
    fn take_begun(&mut self) {
        let length = line_length(self.first());
        let is_last = self.first().len() == length;
        if is_last && let Some(whole) = self.pieces.pop_front() {
            (self.begun, self.begun_start) = (whole, self.start);
            self.start = 0;
        } else {
            self.begun = self.first()[..length].to_vec();
            self.start += length;
        }
    }

    /// Begins the present record anew for another reader, who has seen nothing of it.
    fn restart(&mut self) {
        if self.is_inside && self.begun.is_empty() {
            self.take_begun();
        }
        let rest = self.begun.split_off(self.begun_start);
        self.begun = [b"\n", &*rest].concat();
        self.begun_start = 0;
        self.bytes += 1;
        self.is_inside = false;
    }

    fn records(&self) -> u64 {
        let newlines = |bytes: &[u8]| memchr::memchr_iter(b'\n', bytes).count() as u64;
        let begun = self.begun[self.begun_start..].trim_ascii();
        let mut records = u64::from(!begun.is_empty());
        let mut start = self.start;
        for piece in &self.pieces {
            records += newlines(&piece[start..]);
            start = 0;
        }
        records
    }
}

/// The length of the first line, with its newline.
fn line_length(bytes: &[u8]) -> usize {
    memchr::memchr(b'\n', bytes).map_or(bytes.len(), |newline| newline + 1)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        run: crate::stage::cli::RunArgs,
    }

    fn queue(bytes_max: usize) -> Queue {
        let mut queue = Queue::open(&Address::from("/dev/null"), bytes_max).unwrap();
        queue.output = Output::nowhere();
        queue
    }

    fn push(queue: &mut Queue, text: &str) {
        queue.push(|bytes| bytes.extend_from_slice(text.as_bytes()));
    }

    fn waiting(queue: &Queue) -> String {
        let Pieces {
            begun,
            begun_start,
            pieces,
            start,
            ..
        } = &queue.waiting;
        let rest = pieces.iter().flatten().skip(*start);
        let bytes = begun[*begun_start..].iter().chain(rest).copied();
        let bytes: Vec<u8> = bytes.collect();
        assert_eq!(bytes.len(), queue.len());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn past_its_bound_the_oldest_go_and_are_counted() {
        let mut queue = queue(8);
        for text in ["one\n", "two\n", "three\n"] {
            push(&mut queue, text);
        }
        assert_eq!((&*waiting(&queue), queue.dropped), ("three\n", 2));
        push(&mut queue, "far too long\n");
        assert_eq!((&*waiting(&queue), queue.dropped), ("far too long\n", 3));
    }

    #[test]
    fn a_record_that_was_begun_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        let mut queue = Queue::open(&Address::from(pipe.to_str().unwrap()), 8).unwrap();
        let mut reader = std::fs::File::open(&pipe).unwrap();
        while !queue.output.is_open().unwrap() {
            std::thread::yield_now();
        }
        // More than the pipe takes, so that it is written in part.
        let long = "x".repeat(200_000) + "\n";
        push(&mut queue, &long);
        let count = queue.output.try_write(queue.waiting.first()).unwrap();
        queue.waiting.forget(count);
        let written = long.len() - queue.len();
        assert!(0 < written && written < long.len());
        push(&mut queue, "two\n");
        push(&mut queue, "three\n");
        assert_eq!(queue.dropped, 1);
        assert_eq!(waiting(&queue), long[written..].to_owned() + "three\n");
        // What another reader gets does not begin in the middle of a line.
        queue.waiting.restart();
        let again = "\n".to_owned() + &long[written..] + "three\n";
        assert_eq!(waiting(&queue), again);
        assert_eq!(queue.waiting.records(), 2);
        let mut begun = vec![0; written];
        std::io::Read::read_exact(&mut reader, &mut begun).unwrap();
        assert_eq!(begun, long.as_bytes()[..written]);
    }

    /// A queue that keeps all its records in one text.
    #[derive(Default)]
    struct Plain {
        text: String,
        is_inside: bool,
        dropped: u64,
    }

    impl Plain {
        fn push(&mut self, record: &str, bytes_max: usize) {
            self.text += record;
            while self.text.len() > bytes_max {
                let lines: Vec<&str> = self.text.split_inclusive('\n').collect();
                let oldest = usize::from(self.is_inside);
                if lines.len() < oldest + 2 {
                    break;
                }
                let kept = [&lines[..oldest], &lines[oldest + 1..]].concat();
                self.text = kept.concat();
                self.dropped += 1;
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn it_holds_and_writes_what_one_text_would(
            acts in proptest::collection::vec((proptest::bool::weighted(0.7), 0usize..60_000), 1..60),
        ) {
            const BYTES_MAX: usize = 150_000;
            let mut queue = queue(BYTES_MAX);
            let mut plain = Plain::default();
            for (number, (is_push, length)) in acts.into_iter().enumerate() {
                if is_push {
                    let record = format!("{number}{}\n", "x".repeat(length));
                    push(&mut queue, &record);
                    plain.push(&record, BYTES_MAX);
                } else if !queue.is_empty() {
                    let first = queue.waiting.first().to_vec();
                    let count = length.clamp(1, first.len());
                    proptest::prop_assert_eq!(&first[..count], &plain.text.as_bytes()[..count]);
                    queue.waiting.forget(count);
                    plain.text.drain(..count);
                    plain.is_inside = first[count - 1] != b'\n';
                }
                proptest::prop_assert_eq!(waiting(&queue), plain.text.clone());
                proptest::prop_assert_eq!(queue.dropped, plain.dropped);
                let records = plain.text.matches('\n').count() as u64;
                proptest::prop_assert_eq!(queue.waiting.records(), records);
            }
        }
    }

    #[test]
    fn behind_a_long_record_that_was_begun_nothing_is_moved() {
        let mut queue = queue(1 << 20);
        push(&mut queue, &("x".repeat(8 << 20) + "\n"));
        queue.waiting.forget(1);
        push(&mut queue, "two\n");
        push(&mut queue, "three\n");
        let begun = queue.waiting.begun.as_ptr();
        for number in 0..1000 {
            push(&mut queue, &format!("{number}\n"));
        }
        assert_eq!(queue.waiting.begun.as_ptr(), begun);
        assert_eq!(queue.dropped, 1001);
    }

    #[test]
    fn a_full_disk_is_no_reason_to_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let (output, beside) = ThreadedFile::create(path.to_str().unwrap()).unwrap();
        let mut queue = queue(1 << 20);
        (queue.output, queue.beside) = (output, Some(beside));
        let flags = Flags::parse_from(["test"]);
        let mut report = Report::new("test", &flags.run).unwrap();
        let mut pushed = 0;
        while !queue.failed {
            push(&mut queue, "record\n");
            pushed += 1;
            queue.write_some(&mut report);
        }
        push(&mut queue, "record\n");
        queue.finish_beside(Instant::now() + FINISH, &mut report);
        assert_eq!(queue.dropped, pushed + 1);
    }

    #[test]
    fn the_next_reader_gets_a_newline_before_what_the_last_one_may_have_torn() {
        let flags = Flags::parse_from(["test", "--quiet"]);
        let mut report = Report::new("test", &flags.run).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        let mut queue = Queue::open(&Address::from(pipe.to_str().unwrap()), 1 << 20).unwrap();
        let long = "x".repeat(100_000) + "\n";
        for taken in [5, 60_000, 0] {
            let mut reader = std::fs::File::open(&pipe).unwrap();
            while !queue.output.is_open().unwrap() {
                std::thread::yield_now();
            }
            push(&mut queue, &long);
            queue.write_some(&mut report);
            let mut begun = vec![0; taken];
            std::io::Read::read_exact(&mut reader, &mut begun).unwrap();
            drop(reader);
            // That it has gone is only found out by the next write.
            queue.write_some(&mut report);
            assert!(waiting(&queue).starts_with('\n'), "after {taken}");
        }
        assert_eq!((queue.dropped, queue.failed), (0, false));
    }
}
