//! A cursor: the reading position in one input, line by line.
//!
//! Every stage reads with a cursor. So only this file handles a last line without a
//! newline, and the unfinished line of a stage that is told to stop.

use std::io;
use std::os::fd::BorrowedFd;

use anyhow::Result;

use crate::stream::input::{Input, Progress};
use crate::wire::lines::{BLOCK_BYTES, Line, Lines, Run};

/// The largest number of bytes that one call reads to find the end of a line.
const LINE_END_BYTES_MAX: usize = 8 * 1024;

/// An input, and the bytes that were read from it.
#[derive(Debug)]
pub struct Cursor {
    input: Input,
    lines: Lines,
    reading: Reading,
}

/// The point up to which the cursor still has to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// To the end of the input.
    All,
    /// To the end of the current line.
    ToLineEnd,
    /// No further, because the input has ended.
    Ended,
}

impl Cursor {
    /// Starts to read `input`. Lines longer than `line_bytes_max` bytes are oversized.
    pub fn new(input: Input, line_bytes_max: usize) -> Cursor {
        Cursor {
            input,
            lines: Lines::new(line_bytes_max),
            reading: Reading::All,
        }
    }

    /// The input.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// The name that messages use for the input.
    pub fn name(&self) -> &str {
        self.input.name()
    }

    /// Ends `--follow`: the input now ends when its last writer closes.
    pub fn stop_following(&mut self) {
        self.input.stop_following();
    }

    /// Reads only to the end of the current line from now on, so that a successor on
    /// the same pipe starts with a whole line.
    pub fn stop_at_line_end(&mut self) {
        if self.reading == Reading::All {
            self.reading = Reading::ToLineEnd;
        }
    }

    /// The next line that has been read; `None` until more is read. Once the input has
    /// ended, a last line without a newline is returned, too.
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        self.next_line_and_name().map(|(line, _)| line)
    }

    /// Like [`next_line`](Cursor::next_line), with the name that messages use for the
    /// input.
    pub fn next_line_and_name(&mut self) -> Option<(Line<'_>, &str)> {
        let line = self.lines.next_line();
        line.map(|line| (line, self.input.name()))
    }

    /// The lines that have been read, in as few slices as possible, with the name that
    /// messages use for the input. Once the input has ended, a last line without a
    /// newline is returned, too.
    pub fn next_run_and_name(&mut self) -> Option<(Run<'_>, &str)> {
        let run = self.lines.next_run();
        run.map(|run| (run, self.input.name()))
    }

    /// Whether [`next_line`](Cursor::next_line) returns a line without another read.
    pub fn has_line(&self) -> bool {
        self.lines.has_line()
    }

    /// Whether the cursor still has to read.
    pub fn wants_more(&self) -> bool {
        match self.reading {
            Reading::All => true,
            Reading::ToLineEnd => self.lines.is_inside_line() && !self.lines.has_line(),
            Reading::Ended => false,
        }
    }

    /// Whether all lines have been returned and no further line will be read.
    pub fn is_done(&self) -> bool {
        self.reading != Reading::All && !self.lines.is_inside_line()
    }

    /// Whether the input has ended.
    pub fn has_ended(&self) -> bool {
        self.reading == Reading::Ended
    }

    /// The current line, whose end has not been read. This is for a stage that ends
    /// earlier than its input.
    pub fn unfinished_line(&mut self) -> Option<Line<'_>> {
        match self.reading {
            Reading::Ended => None,
            Reading::All | Reading::ToLineEnd => self.lines.unfinished_line(),
        }
    }

    /// The descriptor to wait on before a read; `None` if a read never waits.
    pub fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.input.readiness()
    }

    /// Whether a read would return bytes or the end without waiting.
    pub fn has_more(&self) -> io::Result<bool> {
        Ok(self.wants_more() && self.input.has_more()?)
    }

    /// Reads the available bytes, at most a block. Call this only when
    /// [`readiness`](Cursor::readiness) is readable: a pipe before its first writer
    /// looks like a pipe at its end.
    pub fn read(&mut self) -> Result<Progress> {
        self.read_up_to(BLOCK_BYTES)
    }

    /// Like [`read`](Cursor::read), but at most `limit` bytes.
    pub fn read_up_to(&mut self, limit: usize) -> Result<Progress> {
        let progress = match self.reading {
            Reading::All => self.input.read_up_to(&mut self.lines, limit)?,
            Reading::ToLineEnd => self.read_to_line_end(limit.min(LINE_END_BYTES_MAX))?,
            Reading::Ended => Progress::End,
        };
        if progress == Progress::End {
            self.reading = Reading::Ended;
            self.lines.end_input();
        }
        Ok(progress)
    }

    /// The last `count` bytes that were read, before the next line is taken. For a stage
    /// that computes a hash of its input.
    pub fn newest(&self, count: usize) -> &[u8] {
        self.lines.newest(count)
    }

    fn read_to_line_end(&mut self, limit: usize) -> Result<Progress> {
        let mut count = 0;
        while count < limit {
            match self.input.read_one_byte(&mut self.lines)? {
                Progress::Bytes(bytes) => {
                    count += bytes;
                    if self.lines.ends_a_line() {
                        break;
                    }
                }
                Progress::Nothing if count > 0 => break,
                // The next call finds the end again.
                Progress::End if count > 0 => break,
                other => return Ok(other),
            }
        }
        Ok(Progress::Bytes(count))
    }

    /// Takes the faults of recorded files since the last call. The caller must call
    /// this after each read and report the faults.
    pub fn take_faults(&mut self) -> Vec<String> {
        self.input.take_faults()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use crate::stream::address::Address;

    /// A cursor on a named pipe, and a writer to that pipe.
    fn pipe(line_bytes_max: usize) -> (tempfile::TempDir, Cursor, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        let input = Input::open(&Address::from(path.to_str().unwrap()), false).unwrap();
        let writer = File::options().write(true).open(&path).unwrap();
        (folder, Cursor::new(input, line_bytes_max), writer)
    }

    fn lines(cursor: &mut Cursor) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = cursor.next_line() {
            lines.push(String::from_utf8_lossy(line.bytes).into_owned());
        }
        lines
    }

    #[test]
    fn the_last_line_is_returned_only_after_the_end() {
        let (_folder, mut cursor, mut writer) = pipe(100);
        writer.write_all(b"one\ntwo").unwrap();
        assert_eq!(cursor.read().unwrap(), Progress::Bytes(7));
        assert_eq!(lines(&mut cursor), ["one"]);
        assert!(cursor.wants_more() && !cursor.is_done() && !cursor.has_line());
        drop(writer);
        assert_eq!(cursor.read().unwrap(), Progress::End);
        assert!(cursor.has_line() && !cursor.is_done() && !cursor.wants_more());
        assert_eq!(lines(&mut cursor), ["two"]);
        assert!(cursor.is_done());
        assert!(cursor.unfinished_line().is_none());
    }

    #[test]
    fn a_stop_reads_to_the_end_of_the_line_and_not_a_byte_further() {
        let (_folder, mut cursor, mut writer) = pipe(100);
        writer.write_all(b"one\nbe").unwrap();
        cursor.read().unwrap();
        cursor.stop_at_line_end();
        // Whole lines are returned first.
        assert!(!cursor.wants_more() && cursor.has_line());
        assert_eq!(lines(&mut cursor), ["one"]);
        assert!(cursor.wants_more());
        assert_eq!(cursor.read().unwrap(), Progress::Nothing);
        writer.write_all(b"gun\nthe successor's\n").unwrap();
        assert_eq!(cursor.read().unwrap(), Progress::Bytes(4));
        assert_eq!(lines(&mut cursor), ["begun"]);
        // The next line is in the pipe for the successor.
        assert!(!cursor.has_more().unwrap());
        assert!(cursor.is_done() && !cursor.has_ended());
        let mut rest = Lines::new(100);
        cursor.input.read_up_to(&mut rest, BLOCK_BYTES).unwrap();
        assert_eq!(rest.next_line().unwrap().bytes, b"the successor's");
    }

    #[test]
    fn a_stop_between_lines_is_done_at_once() {
        let (_folder, mut cursor, mut writer) = pipe(100);
        writer.write_all(b"one\n").unwrap();
        cursor.read().unwrap();
        assert_eq!(lines(&mut cursor), ["one"]);
        cursor.stop_at_line_end();
        assert!(cursor.is_done());
    }

    #[test]
    fn a_line_without_its_end_is_not_returned_as_a_line() {
        let (_folder, mut cursor, mut writer) = pipe(4);
        writer.write_all(b"too long").unwrap();
        cursor.read().unwrap();
        assert_eq!(lines(&mut cursor), [""; 0]);
        cursor.stop_at_line_end();
        assert_eq!(lines(&mut cursor), [""; 0]);
        let line = cursor.unfinished_line().unwrap();
        assert_eq!((line.bytes, line.oversized), (&b"too long"[..], Some(8)));
        assert!(cursor.is_done());
    }

    #[test]
    fn the_end_may_come_while_a_stop_looks_for_the_end_of_a_line() {
        let (_folder, mut cursor, mut writer) = pipe(100);
        writer.write_all(b"be").unwrap();
        cursor.read().unwrap();
        cursor.stop_at_line_end();
        writer.write_all(b"gun").unwrap();
        drop(writer);
        assert_eq!(cursor.read().unwrap(), Progress::Bytes(3));
        assert_eq!(cursor.read().unwrap(), Progress::End);
        assert_eq!(lines(&mut cursor), ["begun"]);
        assert!(cursor.is_done() && cursor.has_ended());
    }
    #[test]
    fn a_stop_tells_how_much_it_has_read_of_a_line_that_pauses() {
        let (_folder, mut cursor, mut writer) = pipe(100);
        writer.write_all(b"be").unwrap();
        cursor.read().unwrap();
        cursor.stop_at_line_end();
        writer.write_all(b"gun").unwrap();
        assert_eq!(cursor.read().unwrap(), Progress::Bytes(3));
        assert_eq!(cursor.read().unwrap(), Progress::Nothing);
        assert!(cursor.wants_more() && !cursor.has_line());
        // One read returns at most the requested bytes, however long the line is.
        writer.write_all(b" long").unwrap();
        assert_eq!(cursor.read_up_to(2).unwrap(), Progress::Bytes(2));
        let line = cursor.unfinished_line().unwrap();
        assert_eq!(line.bytes, b"begun l");
    }
}
