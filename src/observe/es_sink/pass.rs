//! Records that are passed on once they are indexed, in the order of the input.
//!
//! Whoever reads the output knows what is safe: the nth line with an id is the nth
//! record with that id, although the service may have taken a later one first.

use std::collections::VecDeque;

use anyhow::Result;

use crate::stage::Stage;
use crate::stream::output::Output;

/// What is passed on, and what waits for that.
#[derive(Debug)]
pub struct Pass {
    output: Output,
    /// The records that were read, from the first that is not settled.
    waiting: VecDeque<Waiting>,
    /// The bytes of those that are indexed, although one before them is not.
    held_bytes: usize,
    held_max: usize,
    /// Lines whose turn it is.
    ready: Vec<u8>,
    ready_count: u64,
    /// Records written to the output.
    pub passed: u64,
}

#[derive(Debug)]
struct Waiting {
    /// Of the line in the input; they ascend.
    number: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    OnTheWay,
    /// With the record's line.
    Indexed(Box<[u8]>),
    SetAside,
}

impl Pass {
    /// Passes records on to `output`. Of those that the service took out of turn it
    /// holds `held_max` bytes before [`is_full`](Pass::is_full).
    pub fn new(output: Output, held_max: usize, resume: bool) -> Pass {
        Pass {
            output,
            waiting: VecDeque::new(),
            held_bytes: 0,
            held_max,
            ready: if resume { vec![b'\n'] } else { Vec::new() },
            ready_count: 0,
            passed: 0,
        }
    }

    /// A record was read, after all others.
    pub fn expect(&mut self, number: u64) {
        self.waiting.push_back(Waiting {
            number,
            state: State::OnTheWay,
        });
    }

    /// Whether no further record may be read before the oldest is settled.
    pub fn is_full(&self) -> bool {
        self.held_bytes + self.waiting.len() * size_of::<Waiting>() > self.held_max
    }

    /// The record is indexed; `line` is how it came.
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
            waiting.state = State::Indexed(line.into());
            self.held_bytes += line.len();
        }
    }

    /// The record will not be passed on.
    pub fn set_aside(&mut self, number: u64) {
        if let Some(waiting) = self.find(number) {
            waiting.state = State::SetAside;
            self.advance();
        }
    }

    fn find(&mut self, number: u64) -> Option<&mut Waiting> {
        let place = self.waiting.binary_search_by_key(&number, |one| one.number);
        place.ok().map(|place| &mut self.waiting[place])
    }

    fn advance(&mut self) {
        while let Some(first) = self.waiting.pop_front() {
            match first.state {
                State::OnTheWay => {
                    self.waiting.push_front(first);
                    break;
                }
                State::Indexed(line) => {
                    self.held_bytes -= line.len();
                    self.make_ready(&line);
                }
                State::SetAside => {}
            }
        }
    }

    fn make_ready(&mut self, line: &[u8]) {
        self.ready.extend_from_slice(line);
        self.ready.push(b'\n');
        self.ready_count += 1;
    }

    /// How many records are indexed and not written yet.
    pub fn unwritten(&self) -> u64 {
        let is_indexed = |one: &&Waiting| matches!(one.state, State::Indexed(_));
        self.ready_count + self.waiting.iter().filter(is_indexed).count() as u64
    }

    /// Writes what may be written, as long as the reader takes.
    pub fn write(&mut self, stage: &mut Stage) -> Result<()> {
        stage.write_all(&mut self.output, &mut self.ready)?;
        self.passed += std::mem::take(&mut self.ready_count);
        Ok(())
    }

    /// Writes the rest and ends the output.
    pub fn close(&mut self, stage: &mut Stage) -> Result<()> {
        self.write(stage)?;
        stage.close(&mut self.output)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pass(held_max: usize) -> Pass {
        Pass::new(Output::nowhere(), held_max, false)
    }

    #[test]
    fn a_record_waits_for_those_before_it() {
        let mut pass = pass(1000);
        [3, 5, 9].into_iter().for_each(|number| pass.expect(number));
        pass.indexed(9, b"nine");
        assert_eq!((&pass.ready[..], pass.unwritten()), (&b""[..], 1));
        pass.indexed(3, b"three");
        assert_eq!((&pass.ready[..], pass.unwritten()), (&b"three\n"[..], 2));
        pass.set_aside(5);
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
        // Also many that are short, or were set aside.
        (3..1000).for_each(|number| pass.expect(number));
        assert!(pass.is_full());
    }

    proptest! {
        #[test]
        fn in_whatever_order_they_are_settled_the_input_comes_out(
            order in Just((0..40u64).collect::<Vec<_>>()).prop_shuffle(),
            kept in proptest::collection::vec(any::<bool>(), 40),
        ) {
            let mut pass = pass(1000);
            (0..40).for_each(|number| pass.expect(number));
            for number in order {
                if kept[number as usize] {
                    pass.indexed(number, number.to_string().as_bytes());
                } else {
                    pass.set_aside(number);
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
