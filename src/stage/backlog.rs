//! Bytes that wait until an output accepts them.

use std::io;

use crate::stream::output::Output;

/// The waiting bytes. Writing some of them does not move the rest.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    /// The bytes before this index have been written.
    start: usize,
}

impl Backlog {
    /// The number of waiting bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether no byte waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The waiting bytes.
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The buffer to which new bytes are appended.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        // The waiting bytes are moved to the front only if over half of the buffer has
        // been written. So each byte is moved at most once on average.
        if self.start > self.bytes.len() / 2 {
            self.forget_written();
        }
        &mut self.bytes
    }

    /// Writes as much as the output accepts without waiting.
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
            // Frees the memory of a burst.
            self.bytes.shrink_to(1 << 20);
        }
        Ok(())
    }

    fn forget_written(&mut self) {
        self.bytes.drain(..self.start);
        self.start = 0;
    }

    /// Removes and returns all waiting bytes.
    pub fn take(&mut self) -> Vec<u8> {
        self.forget_written();
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waiting_bytes_are_the_same_however_many_are_written_at_a_time() {
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
