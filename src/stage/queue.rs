//! A bounded queue in front of an output that must not hold anybody up: past its
//! bound the oldest records are dropped, and counted.

use std::io;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::stage::Stage;
use crate::stage::report::Report;
use crate::stage::wait::wait;
use crate::wire::endpoint::Output;

/// How long a reader is waited for at the end of the program.
const FINISH: Duration = Duration::from_secs(5);

/// Whole records that wait for an output.
#[derive(Debug)]
pub struct Queue {
    output: Output,
    path: String,
    /// What waits, from `start` on.
    bytes: Vec<u8>,
    start: usize,
    /// Whether the first line that waits has been written in part.
    first_is_begun: bool,
    bytes_max: usize,
    /// Records that were dropped since there was no room or no output.
    pub dropped: u64,
    /// Set when the output can never take anything again.
    failed: bool,
}

impl Queue {
    /// A queue of at most `bytes_max` bytes in front of `path`.
    pub fn open(path: &str, bytes_max: usize) -> Result<Queue> {
        Ok(Queue {
            output: Output::open(path)?,
            path: path.to_owned(),
            bytes: Vec::new(),
            start: 0,
            first_is_begun: false,
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
        self.start == self.bytes.len()
    }

    /// Lets `write` append one record, with its newline.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.failed {
            self.dropped += 1;
            return;
        }
        write(&mut self.bytes);
        while self.bytes.len() - self.start > self.bytes_max && self.drop_oldest() {}
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Drops the oldest record that no part of was written yet. The last one
    /// stays, however large it is.
    fn drop_oldest(&mut self) -> bool {
        let waiting = &self.bytes[self.start..];
        let begun = if self.first_is_begun {
            memchr::memchr(b'\n', waiting).map_or(0, |newline| newline + 1)
        } else {
            0
        };
        let Some(length) = memchr::memchr(b'\n', &waiting[begun..]).map(|newline| newline + 1)
        else {
            return false;
        };
        if begun + length == waiting.len() {
            return false;
        }
        // The rest of the line that was begun moves up to what is kept.
        let begun_from = self.start;
        self.bytes
            .copy_within(begun_from..begun_from + begun, begun_from + length);
        self.start += length;
        self.dropped += 1;
        true
    }

    /// Writes what is taken at once. An output that fails is said, and its records
    /// are dropped from then on; a named pipe whose reader has gone waits for the
    /// next one.
    pub fn write_some(&mut self, report: &mut Report) {
        while !self.is_empty() && !self.failed {
            match self.output.try_write(&self.bytes[self.start..]) {
                Ok(0) => break,
                Ok(count) => {
                    self.start += count;
                    self.first_is_begun = self.bytes[self.start - 1] != b'\n';
                }
                Err(error) => self.fail(&error, report),
            }
        }
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    fn fail(&mut self, error: &io::Error, report: &mut Report) {
        if error.kind() == io::ErrorKind::BrokenPipe
            && let Ok(output) = Output::open(&self.path)
            && output.is_named_pipe()
        {
            let message = format!("{}: its reader has gone; waiting for the next", self.path);
            report.warn_seldom("queue", &message);
            self.output = output;
            // What the dead reader left in the pipe may end inside a line.
            let rest = self.bytes.split_off(self.start);
            self.bytes = Vec::with_capacity(rest.len() + 1);
            self.bytes.push(b'\n');
            self.bytes.extend_from_slice(&rest);
            self.start = 0;
            self.first_is_begun = false;
            return;
        }
        report.warn(&format!(
            "{}: cannot write, and nothing more is written there: {error}",
            self.path
        ));
        self.failed = true;
        self.dropped += memchr::memchr_iter(b'\n', &self.bytes[self.start..]).count() as u64;
        self.start = self.bytes.len();
    }

    /// Whether records were lost here.
    pub fn has_lost(&self) -> bool {
        self.dropped > 0
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
    /// given [`FINISH`] at the most: the program is to end, and all that others
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
                let waiting = &self.bytes[self.start..];
                let lost = memchr::memchr_iter(b'\n', waiting).count() as u64;
                self.dropped += lost;
                stage.report.warn(&format!(
                    "{}: its reader does not read; {lost} records are lost",
                    self.path
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
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(bytes_max: usize) -> Queue {
        let mut queue = Queue::open("/dev/null", bytes_max).unwrap();
        queue.output = Output::nowhere();
        queue
    }

    fn push(queue: &mut Queue, text: &str) {
        queue.push(|bytes| bytes.extend_from_slice(text.as_bytes()));
    }

    fn waiting(queue: &Queue) -> &str {
        std::str::from_utf8(&queue.bytes[queue.start..]).unwrap()
    }

    #[test]
    fn past_its_bound_the_oldest_go_and_are_counted() {
        let mut queue = queue(8);
        for text in ["one\n", "two\n", "three\n"] {
            push(&mut queue, text);
        }
        assert_eq!((waiting(&queue), queue.dropped), ("three\n", 2));
        push(&mut queue, "far too long\n");
        assert_eq!((waiting(&queue), queue.dropped), ("far too long\n", 3));
    }

    #[test]
    fn a_record_that_was_begun_is_finished() {
        let mut queue = queue(8);
        push(&mut queue, "one\n");
        queue.start = 1;
        queue.first_is_begun = true;
        push(&mut queue, "two\n");
        push(&mut queue, "three\n");
        assert_eq!((waiting(&queue), queue.dropped), ("ne\nthree\n", 1));
    }
}
