//! The bridge's ends of the program's streams, or of its own standard streams.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Result;
use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::bridge::ledger::Key;
use crate::stream::input::{Input, Progress};
use crate::stream::output::Output;
use crate::wire::lines::{BLOCK_BYTES, Lines};

/// An input of the program: lines that are being written.
#[derive(Debug)]
pub struct LineWriter {
    output: Output,
    buffer: Vec<u8>,
    /// The bytes before this index were written.
    start: usize,
    /// The end of each line, counted from the first byte of the stream, and its message.
    ends: VecDeque<(u64, Key)>,
    written: u64,
    is_open: bool,
}

impl LineWriter {
    /// Writes to `output`.
    pub fn new(output: Output) -> LineWriter {
        LineWriter {
            output,
            buffer: Vec::new(),
            start: 0,
            ends: VecDeque::new(),
            written: 0,
            is_open: true,
        }
    }

    /// Whether another line may be added.
    pub fn has_room(&self) -> bool {
        self.is_open && self.waiting() < BLOCK_BYTES
    }

    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    /// Whether the reader is still there.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    fn waiting(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Adds the line of a message.
    pub fn add(&mut self, key: Key, line: &[u8]) {
        self.buffer.extend_from_slice(line);
        self.buffer.push(b'\n');
        let end = self.written + self.waiting() as u64;
        self.ends.push_back((end, key));
    }

    /// Writes what the pipe takes. Returns the messages whose lines it has taken as a
    /// whole. If the reader has gone, the writer closes.
    pub fn write(&mut self) -> Result<Vec<Key>, io::Error> {
        while self.is_open && self.start < self.buffer.len() {
            match self.output.try_write(&self.buffer[self.start..]) {
                Ok(0) => break,
                Ok(count) => {
                    self.start += count;
                    self.written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.close(),
                Err(error) => return Err(error),
            }
        }
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(2 * BLOCK_BYTES);
            self.start = 0;
        }
        let mut taken = Vec::new();
        while let Some((end, key)) = self.ends.front()
            && *end <= self.written
        {
            taken.push(*key);
            self.ends.pop_front();
        }
        Ok(taken)
    }

    /// Closes the stream, so that the program sees its end.
    pub fn close(&mut self) {
        self.is_open = false;
        self.buffer.clear();
        self.start = 0;
        self.ends.clear();
        self.output.close();
    }

    /// The descriptor to wait for; `None` if nothing waits to be written.
    pub fn readiness(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match self.is_open && !self.is_empty() {
            true => self.output.readiness(),
            false => None,
        }
    }
}

/// An output of the program: lines that are being read.
#[derive(Debug)]
pub struct LineReader {
    source: Source,
    lines: Lines,
    has_ended: bool,
}

#[derive(Debug)]
enum Source {
    Pipe(OwnedFd),
    Standard(Input),
}

impl LineReader {
    /// Reads the pipe of a program.
    pub fn of_pipe(fd: OwnedFd, line_bytes_max: usize) -> LineReader {
        LineReader {
            source: Source::Pipe(fd),
            lines: Lines::new(line_bytes_max),
            has_ended: false,
        }
    }

    /// Reads an input of the bridge itself.
    pub fn of_input(input: Input, line_bytes_max: usize) -> LineReader {
        LineReader {
            source: Source::Standard(input),
            lines: Lines::new(line_bytes_max),
            has_ended: false,
        }
    }

    /// Reads once. Returns whether anything was read.
    pub fn read(&mut self) -> Result<bool> {
        let progress = match &mut self.source {
            Source::Standard(input) => input.read_up_to(&mut self.lines, BLOCK_BYTES)?,
            Source::Pipe(fd) => {
                let read = self.lines.fill(|room| Ok(rustix::io::read(&*fd, room)?));
                match read {
                    Ok(0) => Progress::End,
                    Ok(count) => Progress::Bytes(count),
                    Err(error) if is_not_now(&error) => Progress::Nothing,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        if progress == Progress::End {
            self.has_ended = true;
            // Only a whole line of a program is a record. A person may forget the last
            // newline.
            if matches!(self.source, Source::Standard(_)) {
                self.lines.end_input();
            }
        }
        Ok(matches!(progress, Progress::Bytes(_)))
    }

    /// The lines that were read.
    pub fn lines(&mut self) -> &mut Lines {
        &mut self.lines
    }

    /// Whether the stream has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Reads no further.
    pub fn stop(&mut self) {
        self.has_ended = true;
    }

    /// The descriptor to wait for; `None` if a read never waits, or the stream has ended.
    pub fn readiness(&self) -> Option<BorrowedFd<'_>> {
        if self.has_ended {
            return None;
        }
        match &self.source {
            Source::Pipe(fd) => Some(fd.as_fd()),
            Source::Standard(input) => input.readiness(),
        }
    }
}

fn is_not_now(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::AGAIN | Errno::INTR))
}

#[cfg(test)]
mod tests {
    use rustix::fs::OFlags;

    use super::*;

    #[test]
    fn a_message_is_taken_when_the_pipe_has_its_last_byte() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::fs::fcntl_setfl(&writer, OFlags::WRONLY | OFlags::NONBLOCK).unwrap();
        rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
        let mut pipe = LineWriter::new(Output::of_pipe("pipe", writer));
        pipe.add(1, b"first");
        pipe.add(2, &[b'x'; 5000]);
        assert_eq!(pipe.write().unwrap(), [1]);
        assert!(!pipe.is_empty());
        let mut block = [0; 4096];
        assert_eq!(rustix::io::read(&reader, &mut block).unwrap(), 4096);
        assert_eq!(pipe.write().unwrap(), [2]);
        drop(reader);
        pipe.add(3, b"third");
        assert!(pipe.write().unwrap().is_empty());
        assert!(!pipe.is_open() && !pipe.has_room());
    }

    #[test]
    fn an_unterminated_line_of_a_program_is_no_record() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK).unwrap();
        let mut pipe = LineReader::of_pipe(reader, 100);
        rustix::io::write(&writer, b"one\ntw").unwrap();
        assert!(pipe.read().unwrap());
        assert_eq!(pipe.lines().next_line().unwrap().bytes, b"one");
        assert!(!pipe.read().unwrap() && !pipe.has_ended());
        drop(writer);
        assert!(!pipe.read().unwrap() && pipe.has_ended());
        assert_eq!(pipe.lines().next_line(), None);
    }
}
