//! A bounded queue in front of an output that must not hold anybody up: past its
//! bound the oldest records are dropped, and counted.

use std::io;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::stage::Stage;
use crate::stage::backlog::Backlog;
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
    backlog: Backlog,
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
            backlog: Backlog::default(),
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
        self.backlog.is_empty()
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.backlog.len()
    }

    /// Lets `write` append one record, with its newline.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.failed {
            self.dropped += 1;
            return;
        }
        write(self.backlog.tail());
        while self.backlog.len() > self.bytes_max && self.drop_oldest() {}
    }

    /// Drops the oldest record that no part of was written yet. The last one
    /// stays, however large it is.
    fn drop_oldest(&mut self) -> bool {
        let waiting = self.backlog.waiting();
        let line = |from: usize| {
            let newline = memchr::memchr(b'\n', &waiting[from..]);
            newline.map_or(0, |newline| newline + 1)
        };
        let begun = if self.backlog.is_inside_line() {
            line(0)
        } else {
            0
        };
        let length = line(begun);
        if length == 0 || begun + length == waiting.len() {
            return false;
        }
        self.backlog.cut(begun, length);
        self.dropped += 1;
        true
    }

    /// Writes what is taken at once. An output that fails is said, and its records
    /// are dropped from then on; a named pipe whose reader has gone waits for the
    /// next one.
    pub fn write_some(&mut self, report: &mut Report) {
        while !self.failed {
            match self.backlog.write_some(&mut self.output) {
                Ok(()) => break,
                Err(error) => self.fail(&error, report),
            }
        }
    }

    fn fail(&mut self, error: &io::Error, report: &mut Report) {
        if error.kind() == io::ErrorKind::BrokenPipe
            && self.output.is_named_pipe()
            && let Ok(output) = Output::open(&self.path)
        {
            let message = format!("{}: its reader has gone; waiting for the next", self.path);
            report.warn_seldom("queue", &message);
            self.output = output;
            // What the dead reader left in the pipe may end inside a line.
            self.backlog.restart();
            return;
        }
        report.warn(&format!(
            "{}: cannot write, and nothing more is written there: {error}",
            self.path
        ));
        self.failed = true;
        self.drop_all();
    }

    fn drop_all(&mut self) -> u64 {
        let lost = memchr::memchr_iter(b'\n', &self.backlog.take()).count() as u64;
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
        std::str::from_utf8(queue.backlog.waiting()).unwrap()
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
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        let mut queue = Queue::open(pipe.to_str().unwrap(), 8).unwrap();
        let mut reader = std::fs::File::open(&pipe).unwrap();
        while !queue.output.is_open().unwrap() {
            std::thread::yield_now();
        }
        // More than the pipe takes, so that it is written in part.
        let long = "x".repeat(200_000) + "\n";
        push(&mut queue, &long);
        queue.backlog.write_some(&mut queue.output).unwrap();
        let written = long.len() - queue.backlog.len();
        assert!(0 < written && written < long.len());
        push(&mut queue, "two\n");
        push(&mut queue, "three\n");
        assert_eq!(queue.dropped, 1);
        assert_eq!(waiting(&queue), long[written..].to_owned() + "three\n");
        let mut begun = vec![0; written];
        std::io::Read::read_exact(&mut reader, &mut begun).unwrap();
        assert_eq!(begun, long.as_bytes()[..written]);
    }

    #[test]
    fn the_next_reader_gets_a_newline_before_what_the_last_one_may_have_torn() {
        #[derive(clap::Parser)]
        struct Args {
            #[command(flatten)]
            run: crate::stage::cli::RunArgs,
        }
        let args = <Args as clap::Parser>::parse_from(["test", "--quiet"]);
        let mut report = Report::new("test", &args.run).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        let mut queue = Queue::open(pipe.to_str().unwrap(), 1 << 20).unwrap();
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
