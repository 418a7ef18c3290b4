//! Bytes on their way to an output that takes them in pieces.

use anyhow::Result;

use crate::stage::wait::output_error;
use crate::wire::endpoint::Output;

/// A buffer that is filled at its end and written from its start.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    /// Written up to here.
    written: usize,
}

impl Outgoing {
    /// Where to append.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// How much is not written yet.
    pub fn len(&self) -> usize {
        self.rest().len()
    }

    /// Whether all is written.
    pub fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// Writes what is taken at once, and never waits: while a program in a ring
    /// waited to write, nobody would read for it, and the ring could stand still.
    pub fn write_some(&mut self, output: &mut Output) -> Result<()> {
        while !self.is_empty() {
            match output.try_write(self.rest()) {
                Ok(0) => break,
                Ok(count) => self.advance(count),
                Err(error) => return Err(output_error(output, error)),
            }
        }
        Ok(())
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Notes that so much is written. What is left moves to the front only when
    /// it is the smaller part, so that a long line is not copied for every piece.
    fn advance(&mut self, count: usize) {
        self.written += count;
        if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
            // One long line must not cost its memory for ever.
            self.bytes.shrink_to(1 << 20);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_the_same_and_is_moved_seldom() {
        let all: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let mut outgoing = Outgoing::default();
        outgoing.end().extend_from_slice(&all);
        let (mut taken, mut moves) = (0, 0);
        while !outgoing.is_empty() {
            assert_eq!(outgoing.rest(), &all[taken..]);
            let before = outgoing.written;
            let count = outgoing.len().min(100);
            outgoing.advance(count);
            taken += count;
            moves += u32::from(outgoing.written < before);
        }
        assert_eq!(taken, all.len());
        assert!(moves < 20, "moved {moves} times");
    }
}
