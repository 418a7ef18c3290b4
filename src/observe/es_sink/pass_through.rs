//! `--pass`: writes records to the output after they are indexed, in the order of the
//! input.
//!
//! The reader of the output knows which records are indexed: the nth line with an id is
//! the nth record with that id, even if the service has accepted a later one first.

use std::collections::VecDeque;

use anyhow::Result;

use crate::stage::Stage;
use crate::stream::output::Output;

/// The output, and the records that wait to be passed on.
#[derive(Debug)]
pub struct PassThrough {
    output: Output,
    /// The records that were read, beginning with the first that is neither indexed
    /// nor rejected.
    waiting: VecDeque<WaitingRecord>,
    /// The bytes of the waiting records that are indexed.
    held_bytes: usize,
    held_max: usize,
    /// The lines that can be written now.
    ready: Vec<u8>,
    ready_count: u64,
    /// Records written to the output.
    pub passed: u64,
}

#[derive(Debug)]
struct WaitingRecord {
    /// The number of the record's line in the input. The numbers of the waiting records
    /// ascend.
    number: u64,
    state: RecordState,
}

#[derive(Debug)]
enum RecordState {
    /// The record is neither indexed nor rejected.
    Open,
    /// The record is indexed. The line of the record is kept.
    Indexed(Box<[u8]>),
    Rejected,
}

impl PassThrough {
    /// Writes records to `output`. [`is_full`](PassThrough::is_full) is true when
    /// more than `held_max` bytes are held.
    pub fn new(output: Output, held_max: usize, resume: bool) -> PassThrough {
        PassThrough {
            output,
            waiting: VecDeque::new(),
            held_bytes: 0,
            held_max,
            ready: if resume { vec![b'\n'] } else { Vec::new() },
            ready_count: 0,
            passed: 0,
        }
    }

    /// Adds a record that was just read.
    pub fn expect(&mut self, number: u64) {
        self.waiting.push_back(WaitingRecord {
            number,
            state: RecordState::Open,
        });
    }

    /// Whether no record may be read until the oldest one is indexed or rejected.
    pub fn is_full(&self) -> bool {
        self.held_bytes + self.waiting.len() * size_of::<WaitingRecord>() > self.held_max
    }

    /// Notes that a record is indexed. `line` is the original line.
    pub fn indexed(&mut self, number: u64, line: &[u8]) {
        if self
            .waiting
            .front()
            .is_some_and(|first| first.number == number)
        {
            self.waiting.pop_front();
            self.make_ready(line);
            self.advance();
        } else if let Some(waiting) = self.find(number) {
            waiting.state = RecordState::Indexed(line.into());
            self.held_bytes += line.len();
        }
    }

    /// Notes that a record is rejected, so that it is not passed on.
    pub fn rejected(&mut self, number: u64) {
        if let Some(waiting) = self.find(number) {
            waiting.state = RecordState::Rejected;
            self.advance();
        }
    }

    fn find(&mut self, number: u64) -> Option<&mut WaitingRecord> {
        let place = self.waiting.binary_search_by_key(&number, |one| one.number);
        place.ok().map(|place| &mut self.waiting[place])
    }

    /// Makes waiting records ready, up to the first open one.
    fn advance(&mut self) {
        while let Some(first) = self.waiting.pop_front() {
            match first.state {
                RecordState::Open => {
                    self.waiting.push_front(first);
                    break;
                }
                RecordState::Indexed(line) => {
                    self.held_bytes -= line.len();
                    self.make_ready(&line);
                }
                RecordState::Rejected => {}
            }
        }
    }

    fn make_ready(&mut self, line: &[u8]) {
        self.ready.extend_from_slice(line);
        self.ready.push(b'\n');
        self.ready_count += 1;
    }

    /// The number of records that are indexed and not written yet.
    pub fn unwritten(&self) -> u64 {
        let is_indexed = |one: &&WaitingRecord| matches!(one.state, RecordState::Indexed(_));
        self.ready_count + self.waiting.iter().filter(is_indexed).count() as u64
    }

    /// Writes the ready lines, and waits for the reader. After a signal to stop,
    /// waits at most until the end of the grace.
    pub fn write(&mut self, stage: &mut Stage) -> Result<()> {
        stage.write_all(&mut self.output, &mut self.ready)?;
        self.passed += std::mem::take(&mut self.ready_count);
        Ok(())
    }

    /// Writes the remaining lines and closes the output.
    pub fn close(&mut self, stage: &mut Stage) -> Result<()> {
        self.write(stage)?;
        stage.close(&mut self.output)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pass(held_max: usize) -> PassThrough {
        PassThrough::new(Output::nowhere(), held_max, false)
    }

    #[test]
    fn a_record_waits_for_those_before_it() {
        let mut pass = pass(1000);
        [3, 5, 9].into_iter().for_each(|number| pass.expect(number));
        pass.indexed(9, b"nine");
        assert_eq!((&pass.ready[..], pass.unwritten()), (&b""[..], 1));
        pass.indexed(3, b"three");
        assert_eq!((&pass.ready[..], pass.unwritten()), (&b"three\n"[..], 2));
        pass.rejected(5);
        assert_eq!(pass.ready, b"three\nnine\n");
        assert_eq!((pass.held_bytes, pass.waiting.len()), (0, 0));
    }

    #[test]
    fn what_is_held_is_bounded_in_bytes() {
        let mut pass = pass(1000);
        pass.expect(1);
        pass.expect(2);
        pass.indexed(2, &[b'x'; 990]);
        assert!(pass.is_full());
        pass.indexed(1, b"y");
        assert!(!pass.is_full());
        // Many short records also reach the limit.
        (3..1000).for_each(|number| pass.expect(number));
        assert!(pass.is_full());
    }

    proptest! {
        #[test]
        fn in_whatever_order_records_are_indexed_the_input_comes_out(
            order in Just((0..40u64).collect::<Vec<_>>()).prop_shuffle(),
            kept in proptest::collection::vec(any::<bool>(), 40),
        ) {
            let mut pass = pass(1000);
            (0..40).for_each(|number| pass.expect(number));
            for number in order {
                if kept[number as usize] {
                    pass.indexed(number, number.to_string().as_bytes());
                } else {
                    pass.rejected(number);
                }
            }
            let expected: String = (0..40)
                .filter(|number| kept[*number as usize])
                .map(|number| format!("{number}\n"))
                .collect();
            prop_assert_eq!(String::from_utf8(pass.ready).unwrap(), expected);
            prop_assert_eq!(pass.held_bytes, 0);
        }
    }
}
