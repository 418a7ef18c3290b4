//! Bytes that an output has not taken yet.

use std::io;

use crate::wire::endpoint::Output;

/// What waits to be written. Writing a part of it moves nothing.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    /// Written up to here.
    start: usize,
    /// Whether what was written last ended inside a line.
    inside_line: bool,
}

impl Backlog {
    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What waits.
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Where to append what is to be written.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        // Half of it is gone: what is moved was paid for by as much written.
        if self.start > self.bytes.len() / 2 {
            self.forget(0);
        }
        &mut self.bytes
    }

    /// Writes what is taken at once.
    pub fn write_some(&mut self, output: &mut Output) -> io::Result<()> {
        while !self.is_empty() {
            match output.try_write(self.waiting())? {
                0 => break,
                count => {
                    self.start += count;
                    self.inside_line = self.bytes[self.start - 1] != b'\n';
                }
            }
        }
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
            // One burst must not cost its memory for ever.
            self.bytes.shrink_to(1 << 20);
        }
        Ok(())
    }

    /// Whether the first line that waits has been written in part.
    pub fn is_inside_line(&self) -> bool {
        self.inside_line
    }

    /// Begins a line anew for another reader, who has seen nothing of it.
    pub fn restart(&mut self) {
        let waiting = self.take();
        self.bytes = Vec::with_capacity(waiting.len() + 1);
        self.bytes.push(b'\n');
        self.bytes.extend_from_slice(&waiting);
        self.inside_line = false;
    }

    /// Drops `count` of the bytes that wait, from `place` on.
    pub fn cut(&mut self, place: usize, count: usize) {
        // What comes before moves up to what is kept.
        let from = self.start;
        self.bytes.copy_within(from..from + place, from + count);
        self.start += count;
    }

    /// Drops the first `count` bytes that wait.
    pub fn forget(&mut self, count: usize) {
        self.bytes.drain(..self.start + count);
        self.start = 0;
    }

    /// All that waits, taken away.
    pub fn take(&mut self) -> Vec<u8> {
        self.forget(0);
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_the_same_however_it_is_taken() {
        let all: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
        let mut backlog = Backlog::default();
        backlog.tail().extend_from_slice(&all);
        for taken in (0..all.len()).step_by(100) {
            assert_eq!(backlog.waiting(), &all[taken..]);
            backlog.start += 100;
            backlog.tail();
        }
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_cut_leaves_the_line_that_was_begun() {
        let mut backlog = Backlog::default();
        backlog.tail().extend_from_slice(b"one\ntwo\nthree\n");
        backlog.start = 1;
        backlog.cut(3, 4);
        assert_eq!(backlog.waiting(), b"ne\nthree\n");
        backlog.restart();
        assert_eq!(backlog.waiting(), b"\nne\nthree\n");
    }
}
