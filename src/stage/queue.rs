//! A bounded queue in front of an output that must not delay the program. When the
//! queue is full, it drops and counts the oldest records.

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

/// The approximate size of a chunk of records. With chunks, a record is appended,
/// written or dropped without moving the others.
const CHUNK_BYTES: usize = 64 * 1024;

/// The largest number of bytes that one call writes, so that a fast reader does not delay
/// more urgent work.
const WRITE_BYTES: usize = 256 * 1024;

/// At the end of the program, the queue waits for its reader or disk for at most this
/// long.
const FINISH_TIME: Duration = Duration::from_secs(5);

/// Whole records that wait for an output.
#[derive(Debug)]
pub struct Queue {
    output: Output,
    /// The thread that writes to a regular file, so that the program does not wait for
    /// the disk.
    thread: Option<ThreadedFile>,
    address: Address,
    waiting: Chunks,
    bytes_max: usize,
    /// Records that were dropped because the queue was full or the output had failed.
    pub dropped: u64,
    /// Whether the output has failed for good.
    failed: bool,
}

impl Queue {
    /// Opens `address` with a queue of at most `bytes_max` bytes.
    pub fn open(address: &Address, bytes_max: usize) -> Result<Queue> {
        Ok(Queue {
            output: Output::open(address)?,
            thread: None,
            address: address.clone(),
            waiting: Chunks::default(),
            bytes_max,
            dropped: 0,
            failed: false,
        })
    }

    /// Like [`open`](Queue::open), but a thread writes a regular file, so that the
    /// program never waits for the disk.
    pub fn open_with_thread(address: &Address, bytes_max: usize) -> Result<Queue> {
        if !address.is_file_output() {
            return Queue::open(address, bytes_max);
        }
        let (output, thread) = ThreadedFile::create(address.as_str())?;
        Ok(Queue {
            output,
            thread: Some(thread),
            address: address.clone(),
            waiting: Chunks::default(),
            bytes_max,
            dropped: 0,
            failed: false,
        })
    }

    /// The output to wait for; `None` if no record waits or the output has failed.
    pub fn output(&self) -> Option<&Output> {
        (!self.is_empty() && !self.failed).then_some(&self.output)
    }

    /// Whether no record waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.bytes == 0
    }

    /// The number of waiting bytes.
    pub fn len(&self) -> usize {
        self.waiting.bytes
    }

    /// Lets `write` append one record, with its newline. Drops the oldest records if
    /// the queue is then too long.
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

    /// Writes as much as the output accepts without waiting, within a limit. If the
    /// output fails, reports the error and drops its records from then on. If the
    /// reader of a named pipe has closed it, the records wait for the next reader.
    pub fn write_some(&mut self, report: &mut Report) {
        if let Some(error) = self.thread.as_ref().and_then(ThreadedFile::take_error) {
            self.fail(&error, report);
        }
        let mut left = match self.output.readiness() {
            Some(_) => WRITE_BYTES,
            // The remaining bytes must be written now, because no event would wake the
            // program for them.
            None => usize::MAX,
        };
        while !self.failed && left > 0 {
            let bytes = self.waiting.next_bytes();
            let bytes = &bytes[..bytes.len().min(left)];
            if bytes.is_empty() {
                break;
            }
            match self.output.try_write(bytes) {
                Ok(0) => break,
                Ok(count) => {
                    self.waiting.mark_written(count);
                    left -= count;
                }
                Err(error) => self.fail(&error, report),
            }
        }
    }

    fn fail(&mut self, error: &io::Error, report: &mut Report) {
        if error.kind() == io::ErrorKind::BrokenPipe
            && self.thread.is_none()
            && self.output.is_named_pipe()
            && let Ok(output) = Output::open(&self.address)
        {
            let message = format!(
                "{}: its reader has gone; waiting for the next one",
                self.address
            );
            report.warn_seldom("queue", &message);
            self.output = output;
            // The bytes that the old reader left in the pipe may end inside a line.
            self.waiting.prepare_for_next_reader();
            return;
        }
        report.warn(&format!(
            "{}: cannot write, and all further records for this output are dropped: {error}",
            self.address
        ));
        self.failed = true;
        self.drop_all();
    }

    fn drop_all(&mut self) -> u64 {
        let lost = self.waiting.count_records();
        self.waiting = Chunks::default();
        self.dropped += lost;
        lost
    }

    /// Writes all waiting records, without a time limit except the grace period.
    pub fn write_all(&mut self, stage: &mut Stage) -> Result<()> {
        loop {
            self.write_some(&mut stage.report);
            let Some(output) = self.output() else {
                return Ok(());
            };
            stage.wait_for_output(output)?;
        }
    }

    /// Writes the waiting records and closes the output. Waits at most five seconds for
    /// the reader and the disk. If the grace period ends earlier, the wait for the
    /// reader ends then. Records that the reader has not taken are dropped and
    /// reported.
    pub fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        let end = Instant::now() + FINISH_TIME;
        loop {
            self.write_some(&mut stage.report);
            let Some(output) = self.output() else {
                break;
            };
            let out_of_time = stage.signals.out_of_time().is_some() || Instant::now() >= end;
            if out_of_time {
                let lost = self.drop_all();
                self.finish_thread(end, &mut stage.report);
                stage.report.warn(&format!(
                    "{}: its reader has stopped reading; {lost} records are lost",
                    self.address
                ));
                return Ok(());
            }
            let until = stage
                .signals
                .grace_end()
                .map_or(end, |grace| grace.min(end));
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
        self.finish_thread(end, &mut stage.report);
        Ok(())
    }

    /// Waits until `end` for the writing thread, if there is one.
    fn finish_thread(&mut self, end: Instant, report: &mut Report) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.output.close();
        let is_done = thread.finish(end);
        if let Some(error) = thread.take_error() {
            self.fail(&error, report);
        } else if !is_done {
            report.warn(&format!(
                "{}: the disk did not finish in time; the last records may be lost",
                self.address
            ));
            self.dropped += 1;
        }
        self.dropped += thread.lost();
    }
}

/// Whole records in chunks, and the rest of one partly written record.
#[derive(Debug, Default)]
struct Chunks {
    /// A partly written record, separate from its chunk, so that the records after it
    /// can be dropped.
    partial: Vec<u8>,
    /// The bytes of `partial` before this index have been written.
    partial_start: usize,
    /// The chunks, the oldest first. Every chunk still has bytes to write.
    chunks: VecDeque<Vec<u8>>,
    /// The bytes of the first chunk before this index have been written or dropped.
    start: usize,
    /// Whether the last write ended inside a record.
    is_inside_record: bool,
    /// The number of waiting bytes.
    bytes: usize,
}

impl Chunks {
    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let has_room = |last: &Vec<u8>| last.len() < CHUNK_BYTES;
        if !self.chunks.back().is_some_and(has_room) {
            self.chunks.push_back(Vec::new());
        }
        if let Some(last) = self.chunks.back_mut() {
            let before = last.len();
            write(last);
            self.bytes += last.len() - before;
        }
        self.drop_empty();
    }

    /// The next bytes to write. The slice is empty only if no byte waits.
    fn next_bytes(&self) -> &[u8] {
        if self.partial_start < self.partial.len() {
            return &self.partial[self.partial_start..];
        }
        let first = self.chunks.front();
        first.map_or(&[], |first| &first[self.start..])
    }

    /// Removes `count` written bytes from the start of
    /// [`next_bytes`](Chunks::next_bytes).
    fn mark_written(&mut self, count: usize) {
        self.is_inside_record = self.next_bytes().get(count.wrapping_sub(1)) != Some(&b'\n');
        self.bytes -= count;
        if self.partial_start < self.partial.len() {
            self.partial_start += count;
            if self.partial_start == self.partial.len() {
                (self.partial, self.partial_start) = (Vec::new(), 0);
            }
            return;
        }
        self.start += count;
        self.drop_empty();
    }

    /// Frees the first chunk if none of its bytes wait.
    fn drop_empty(&mut self) {
        let is_empty = |first: &Vec<u8>| first.len() <= self.start;
        if self.chunks.front().is_some_and(is_empty) {
            self.chunks.pop_front();
            self.start = 0;
        }
    }

    /// Drops the oldest record that has not been partly written, and returns whether
    /// there was one. The newest record always stays, however long it is.
    fn drop_oldest(&mut self) -> bool {
        if self.is_inside_record && self.partial.is_empty() {
            self.detach_partial();
        }
        let Some(first) = self.chunks.front() else {
            return false;
        };
        let length = line_length(&first[self.start..]);
        if self.chunks.len() == 1 && self.start + length == first.len() {
            return false;
        }
        self.bytes -= length;
        self.start += length;
        self.drop_empty();
        true
    }

    /// Moves the partly written record out of its chunk. Each partly written record is
    /// moved once, however many records after it are dropped. A long record fills the
    /// rest of its chunk, so the whole chunk is moved and no byte is copied.
    fn detach_partial(&mut self) {
        let length = line_length(self.next_bytes());
        let is_last = self.next_bytes().len() == length;
        if is_last && let Some(whole) = self.chunks.pop_front() {
            (self.partial, self.partial_start) = (whole, self.start);
            self.start = 0;
        } else {
            self.partial = self.next_bytes()[..length].to_vec();
            self.start += length;
        }
    }

    /// Puts a newline before the rest of a partly written record: the next reader has
    /// not seen its start.
    fn prepare_for_next_reader(&mut self) {
        if self.is_inside_record && self.partial.is_empty() {
            self.detach_partial();
        }
        let rest = self.partial.split_off(self.partial_start);
        self.partial = [b"\n", &*rest].concat();
        self.partial_start = 0;
        self.bytes += 1;
        self.is_inside_record = false;
    }

    fn count_records(&self) -> u64 {
        let newlines = |bytes: &[u8]| memchr::memchr_iter(b'\n', bytes).count() as u64;
        let partial = &self.partial[self.partial_start..];
        // Only a record that was begun ends in this newline; otherwise it is the one
        // before the next reader's first record.
        let rest = match self.is_inside_record {
            true => partial,
            false => partial.strip_prefix(b"\n").unwrap_or(partial),
        };
        let mut records = u64::from(!rest.is_empty());
        let mut start = self.start;
        for chunk in &self.chunks {
            records += newlines(&chunk[start..]);
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
        let Chunks {
            partial,
            partial_start,
            chunks,
            start,
            ..
        } = &queue.waiting;
        let rest = chunks.iter().flatten().skip(*start);
        let bytes = partial[*partial_start..].iter().chain(rest).copied();
        let bytes: Vec<u8> = bytes.collect();
        assert_eq!(bytes.len(), queue.len());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_full_queue_drops_and_counts_the_oldest_records() {
        let mut queue = queue(8);
        for text in ["one\n", "two\n", "three\n"] {
            push(&mut queue, text);
        }
        assert_eq!((&*waiting(&queue), queue.dropped), ("three\n", 2));
        push(&mut queue, "far too long\n");
        assert_eq!((&*waiting(&queue), queue.dropped), ("far too long\n", 3));
    }

    #[test]
    fn a_partly_written_record_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        let mut queue = Queue::open(&Address::from(pipe.to_str().unwrap()), 8).unwrap();
        let mut reader = std::fs::File::open(&pipe).unwrap();
        while !queue.output.is_open().unwrap() {
            std::thread::yield_now();
        }
        // This record is longer than the pipe can hold, so only a part of it is
        // written.
        let long = "x".repeat(200_000) + "\n";
        push(&mut queue, &long);
        let count = queue.output.try_write(queue.waiting.next_bytes()).unwrap();
        queue.waiting.mark_written(count);
        let written = long.len() - queue.len();
        assert!(0 < written && written < long.len());
        push(&mut queue, "two\n");
        push(&mut queue, "three\n");
        assert_eq!(queue.dropped, 1);
        assert_eq!(waiting(&queue), long[written..].to_owned() + "three\n");
        // The next reader must not start in the middle of a line.
        queue.waiting.prepare_for_next_reader();
        let again = "\n".to_owned() + &long[written..] + "three\n";
        assert_eq!(waiting(&queue), again);
        assert_eq!(queue.waiting.count_records(), 2);
        let mut received = vec![0; written];
        std::io::Read::read_exact(&mut reader, &mut received).unwrap();
        assert_eq!(received, long.as_bytes()[..written]);
    }

    /// A queue that keeps all its records in one text.
    #[derive(Default)]
    struct Plain {
        text: String,
        is_inside_record: bool,
        dropped: u64,
    }

    impl Plain {
        fn push(&mut self, record: &str, bytes_max: usize) {
            self.text += record;
            while self.text.len() > bytes_max {
                let lines: Vec<&str> = self.text.split_inclusive('\n').collect();
                let oldest = usize::from(self.is_inside_record);
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
        fn it_holds_and_writes_the_same_bytes_as_one_text(
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
                    let first = queue.waiting.next_bytes().to_vec();
                    let count = length.clamp(1, first.len());
                    proptest::prop_assert_eq!(&first[..count], &plain.text.as_bytes()[..count]);
                    queue.waiting.mark_written(count);
                    plain.text.drain(..count);
                    plain.is_inside_record = first[count - 1] != b'\n';
                }
                proptest::prop_assert_eq!(waiting(&queue), plain.text.clone());
                proptest::prop_assert_eq!(queue.dropped, plain.dropped);
                let records = plain.text.matches('\n').count() as u64;
                proptest::prop_assert_eq!(queue.waiting.count_records(), records);
            }
        }
    }

    #[test]
    fn dropping_records_behind_a_long_partly_written_one_moves_no_bytes() {
        let mut queue = queue(1 << 20);
        push(&mut queue, &("x".repeat(8 << 20) + "\n"));
        queue.waiting.mark_written(1);
        push(&mut queue, "two\n");
        push(&mut queue, "three\n");
        let partial = queue.waiting.partial.as_ptr();
        for number in 0..1000 {
            push(&mut queue, &format!("{number}\n"));
        }
        assert_eq!(queue.waiting.partial.as_ptr(), partial);
        assert_eq!(queue.dropped, 1001);
    }

    #[test]
    fn the_program_does_not_wait_for_a_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let (output, thread) = ThreadedFile::create(path.to_str().unwrap()).unwrap();
        let mut queue = queue(1 << 20);
        (queue.output, queue.thread) = (output, Some(thread));
        let flags = Flags::parse_from(["test"]);
        let mut report = Report::new("test", &flags.run).unwrap();
        let mut pushed = 0;
        while !queue.failed {
            push(&mut queue, "record\n");
            pushed += 1;
            queue.write_some(&mut report);
        }
        push(&mut queue, "record\n");
        queue.finish_thread(Instant::now() + FINISH_TIME, &mut report);
        assert_eq!(queue.dropped, pushed + 1);
    }

    #[test]
    fn the_next_reader_gets_a_newline_before_a_line_that_the_last_one_may_have_torn() {
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
            let mut received = vec![0; taken];
            std::io::Read::read_exact(&mut reader, &mut received).unwrap();
            drop(reader);
            // Only the next write detects that the reader has closed.
            queue.write_some(&mut report);
            assert!(waiting(&queue).starts_with('\n'), "after {taken}");
        }
        assert_eq!((queue.dropped, queue.failed), (0, false));
    }
}
