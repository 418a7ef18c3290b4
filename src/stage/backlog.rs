//! Bytes that an output has not taken yet.

use std::io;

use crate::stream::output::Output;

/// What waits to be written. Writing a part of it moves nothing.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    /// Written up to here.
    start: usize,
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
            self.forget_written();
        }
        &mut self.bytes
    }

    /// Writes what is taken at once.
    pub fn write_some(&mut self, output: &mut Output) -> io::Result<()> {
        while !self.is_empty() {
            match output.try_write(self.waiting())? {
                0 => break,
                count => self.start += count,
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

    /// Drops what was written.
    fn forget_written(&mut self) {
        self.bytes.drain(..self.start);
        self.start = 0;
    }

    /// All that waits, taken away.
    pub fn take(&mut self) -> Vec<u8> {
        self.forget_written();
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
}
