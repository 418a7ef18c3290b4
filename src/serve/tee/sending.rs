//! What one branch has still to send, and what it may have to send again (pure).
//!
//! A pipe holds what its reader has not taken. Where the reader dies, that is read
//! back, and its length tells what the reader has taken. So what was sent last is
//! kept as long as it may still lie in the pipe, and the next reader begins with
//! the line inside which the last one ended. A reader that has come before that was
//! found out may have taken something, too: it goes on with the next byte.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::serve::tee::spill::Place;

/// How many blocks one write takes at the most.
const SLICES_MAX: usize = 64;

/// What a block takes in memory besides its bytes, about.
const BLOCK_OVERHEAD_BYTES: usize = 96;

/// Some whole lines. The branches share the bytes.
#[derive(Clone, Debug)]
pub struct Block {
    bytes: Arc<Vec<u8>>,
    /// Which of `bytes` are meant.
    range: Range<usize>,
    records: u64,
    /// When they were read.
    read_at: Instant,
    /// For lines out of a spill, where they end in it.
    spill_end: Option<Place>,
}

impl Block {
    /// `records` whole lines, which were read at `read_at`.
    pub fn new(bytes: Vec<u8>, records: u64, read_at: Instant) -> Block {
        Block {
            range: 0..bytes.len(),
            bytes: Arc::new(bytes),
            records,
            read_at,
            spill_end: None,
        }
    }

    /// The same lines, which came out of a spill, where they end.
    pub fn spilled_to(self, spill_end: Place) -> Block {
        Block {
            spill_end: Some(spill_end),
            ..self
        }
    }

    /// The lines.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }

    /// How many lines there are.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How long they are.
    fn len(&self) -> usize {
        self.range.len()
    }

    /// What it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + BLOCK_OVERHEAD_BYTES
    }

    /// Parts it behind `length` bytes, which end a line.
    fn split(self, length: usize) -> (Block, Block) {
        let middle = self.range.start + length;
        let records = count_lines(&self.bytes[self.range.start..middle]);
        let first = Block {
            bytes: Arc::clone(&self.bytes),
            range: self.range.start..middle,
            records,
            read_at: self.read_at,
            spill_end: None,
        };
        let second = Block {
            range: middle..self.range.end,
            records: self.records.saturating_sub(records),
            ..self
        };
        (first, second)
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Blocks in their order, and what they come to.
#[derive(Debug, Default)]
struct Blocks {
    blocks: VecDeque<Block>,
    bytes: usize,
    memory_bytes: usize,
    records: u64,
}

impl Blocks {
    fn added(&mut self, block: &Block) {
        self.bytes += block.len();
        self.memory_bytes += block.memory_bytes();
        self.records += block.records;
    }

    fn removed(&mut self, block: &Block) {
        self.bytes -= block.len();
        self.memory_bytes -= block.memory_bytes();
        self.records -= block.records;
    }

    fn push_front(&mut self, block: Block) {
        if block.len() > 0 {
            self.added(&block);
            self.blocks.push_front(block);
        }
    }

    fn push_back(&mut self, block: Block) {
        if block.len() > 0 {
            self.added(&block);
            self.blocks.push_back(block);
        }
    }

    fn pop_front(&mut self) -> Option<Block> {
        let block = self.blocks.pop_front()?;
        self.removed(&block);
        Some(block)
    }

    fn pop_back(&mut self) -> Option<Block> {
        let block = self.blocks.pop_back()?;
        self.removed(&block);
        Some(block)
    }
}

/// What has changed when the reader's part was found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewound {
    /// Lines that count as sent no longer.
    pub unsent: u64,
    /// Lines that count as sent now.
    pub sent: u64,
    /// Lines that a writer before this one had left.
    pub foreign: u64,
    /// Whether the reader ended inside a line, which is sent again.
    pub torn: bool,
}

/// What became of lines when the oldest were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Lines that were dropped.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lines that count as sent now.
    pub sent: u64,
}

/// The lines of one branch in their order: those that may still lie in the pipe,
/// and those that wait.
#[derive(Debug, Default)]
pub struct Sending {
    /// Sent, but perhaps not taken.
    sent: Blocks,
    waiting: Blocks,
    /// How much of the first block that waits has been sent.
    begun: usize,
}

impl Sending {
    /// Appends a block.
    pub fn push(&mut self, block: Block) {
        self.waiting.push_back(block);
    }

    /// Whether everything has been sent.
    pub fn is_empty(&self) -> bool {
        self.waiting.blocks.is_empty()
    }

    /// What the waiting blocks take in memory.
    pub fn memory_bytes(&self) -> usize {
        self.waiting.memory_bytes
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.waiting.bytes - self.begun
    }

    /// How many lines wait. Those of a block count until all of it is sent.
    pub fn records(&self) -> u64 {
        self.waiting.records
    }

    /// Since when the oldest waits.
    pub fn oldest(&self) -> Option<Instant> {
        self.waiting.blocks.front().map(|block| block.read_at)
    }

    /// What to write next.
    pub fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.waiting.blocks.len().min(SLICES_MAX));
        let mut from = self.begun;
        for block in self.waiting.blocks.iter().take(SLICES_MAX) {
            slices.push(IoSlice::new(&block.bytes()[from..]));
            from = 0;
        }
        slices
    }

    /// The first of these.
    pub fn first_slice(&self) -> &[u8] {
        let first = self.waiting.blocks.front();
        first.map_or(&[], |block| &block.bytes()[self.begun..])
    }

    /// Whether the first line that waits has been sent in part.
    pub fn is_inside_line(&self) -> bool {
        let first = self.waiting.blocks.front();
        self.begun > 0 && first.is_some_and(|block| block.bytes()[self.begun - 1] != b'\n')
    }

    /// `count` bytes have been written into a pipe that holds `pipe_bytes` at the
    /// most. Returns how many lines that has finished, and where in the spill the
    /// last of them ends.
    pub fn advance(&mut self, count: usize, pipe_bytes: usize) -> (u64, Option<Place>) {
        let (mut records, mut place) = (0, None);
        self.begun += count;
        while let Some(block) = self.waiting.blocks.front()
            && block.len() <= self.begun
            && let Some(block) = self.waiting.pop_front()
        {
            self.begun -= block.len();
            records += block.records;
            place = block.spill_end.or(place);
            self.sent.push_back(block);
        }
        while let Some(block) = self.sent.blocks.front()
            && self.sent.bytes + self.begun - block.len() >= pipe_bytes
        {
            self.sent.pop_front();
        }
        (records, place)
    }

    /// The reader has gone and has left `unread` in the pipe, which was taken out
    /// again. The line inside which it ended is to be sent again from its start.
    ///
    /// With `next_reader` another one has come before that was taken out, and may
    /// have taken what stood in front of it: it is sent exactly what follows.
    ///
    /// More than was sent here is from a writer before this one; its whole lines
    /// come first.
    pub fn rewind(&mut self, unread: &[u8], next_reader: bool, now: Instant) -> Rewound {
        let mut rewound = Rewound::default();
        let known = self.sent.bytes + self.begun;
        let (of_others, of_ours) = unread.split_at(unread.len().saturating_sub(known));
        let mut unread = of_ours.len();
        while unread > self.begun
            && let Some(block) = self.sent.pop_back()
        {
            unread -= self.begun;
            self.begun = block.len();
            rewound.unsent += block.records;
            self.waiting.push_front(block);
        }
        self.sent = Blocks::default();
        self.begun -= unread;
        rewound.torn = self.is_inside_line();
        if !next_reader {
            rewound.sent = self.return_to_line_start();
        }
        if let Some(block) = lines_of_others(of_others, next_reader, now) {
            rewound.foreign = block.records;
            self.waiting.push_front(block);
        }
        rewound
    }

    /// Begins the line that was begun anew. Returns how many lines before it were
    /// sent of its block.
    fn return_to_line_start(&mut self) -> u64 {
        let taken = std::mem::take(&mut self.begun);
        if taken == 0 {
            return 0;
        }
        let Some(block) = self.waiting.pop_front() else {
            return 0;
        };
        let newline = memchr::memrchr(b'\n', &block.bytes()[..taken]);
        let (sent, rest) = block.split(newline.map_or(0, |newline| newline + 1));
        self.waiting.push_front(rest);
        sent.records
    }

    /// Sends a newline first: the reader may have seen a part of a line. Only where
    /// nothing is begun.
    pub fn end_torn_line(&mut self, now: Instant) {
        debug_assert_eq!(self.begun, 0);
        self.waiting.push_front(Block::new(b"\n".to_vec(), 0, now));
    }

    /// Whether all that waits is one block.
    pub fn is_one_block(&self) -> bool {
        self.waiting.blocks.len() == 1
    }

    /// Drops the oldest lines, but for one that is begun, until `is_enough` says so
    /// of what is left.
    pub fn drop_oldest(&mut self, is_enough: impl Fn(&Sending) -> bool) -> Dropped {
        let mut dropped = Dropped::default();
        if is_enough(self) {
            return dropped;
        }
        let begun = self.cut_begun_line();
        while !is_enough(self)
            && let Some(block) = self.waiting.pop_front()
        {
            dropped.records += block.records;
            dropped.bytes += block.len() as u64;
        }
        if let Some(begun) = begun {
            self.waiting.push_front(begun);
            // It may have been sent whole, now that what came behind it is gone.
            (dropped.sent, _) = self.advance(0, usize::MAX);
        }
        dropped
    }

    /// Takes everything that waits away, with the whole of a line that was begun.
    /// Returns how many lines of the first block were sent, too.
    pub fn take_all(&mut self) -> (u64, Vec<Block>) {
        let rewound = self.rewind(&[], false, Instant::now());
        (
            rewound.sent,
            std::mem::take(&mut self.waiting).blocks.into(),
        )
    }

    /// Takes the line that was begun off the first block, with what was sent of the
    /// block before it.
    fn cut_begun_line(&mut self) -> Option<Block> {
        if self.begun == 0 {
            return None;
        }
        let block = self.waiting.pop_front()?;
        let length = match block.bytes()[self.begun - 1] {
            b'\n' => self.begun,
            _ => memchr::memchr(b'\n', &block.bytes()[self.begun..])
                .map_or(block.len(), |newline| self.begun + newline + 1),
        };
        let (begun, rest) = block.split(length);
        self.waiting.push_front(rest);
        Some(begun)
    }
}

/// The lines of another writer, of which the last may have lost its end. The first
/// may have lost its beginning to a reader that is gone, and is then left out.
fn lines_of_others(bytes: &[u8], next_reader: bool, now: Instant) -> Option<Block> {
    let first = memchr::memchr(b'\n', bytes)?;
    let last = memchr::memrchr(b'\n', bytes)?;
    let from = if next_reader { 0 } else { first + 1 };
    let lines = &bytes[from..=last.max(first)];
    (!lines.is_empty()).then(|| Block::new(lines.to_vec(), count_lines(lines), now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(text: &str) -> Block {
        let records = count_lines(text.as_bytes());
        Block::new(text.as_bytes().to_vec(), records, Instant::now())
    }

    fn sending(blocks: &[&str]) -> Sending {
        let mut sending = Sending::default();
        for text in blocks {
            sending.push(block(text));
        }
        sending
    }

    fn waiting(sending: &Sending) -> String {
        let slices = sending.slices();
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_next_reader_begins_with_the_line_inside_which_the_last_one_ended() {
        let mut sending = sending(&["one\ntwo\n", "three\nfour\n"]);
        assert_eq!(sending.advance(13, 64), (2, None));
        // The reader has taken `one\ntw`.
        let rewound = sending.rewind(&b"o\nthree\n"[..7], false, Instant::now());
        assert_eq!(
            rewound,
            Rewound {
                unsent: 2,
                sent: 1,
                foreign: 0,
                torn: true
            }
        );
        assert_eq!(waiting(&sending), "two\nthree\nfour\n");
        assert_eq!(sending.records(), 3);
    }

    #[test]
    fn what_a_writer_before_has_left_comes_first() {
        let mut sending = sending(&["three\n"]);
        sending.advance(6, 64);
        let rewound = sending.rewind(b"ne\ntwo\nthree\n", false, Instant::now());
        assert_eq!((rewound.foreign, rewound.unsent), (1, 1));
        assert_eq!(waiting(&sending), "two\nthree\n");
        sending.rewind(b"torn", false, Instant::now());
        assert_eq!(waiting(&sending), "two\nthree\n");
        // A reader that is there already may have the beginning of the first.
        let mut sending = super::tests::sending(&["three\n"]);
        let rewound = sending.rewind(b"ne\ntwo\nto", true, Instant::now());
        assert_eq!((rewound.foreign, rewound.torn), (2, false));
        assert_eq!(waiting(&sending), "ne\ntwo\nthree\n");
    }

    #[test]
    fn a_reader_that_came_in_between_goes_on_with_the_next_byte() {
        let mut sending = sending(&["one\ntwo\n", "three\nfour\n"]);
        assert_eq!(sending.advance(13, 64), (2, None));
        // The two of them have taken `one\ntw`.
        let rewound = sending.rewind(&b"o\nthree\n"[..7], true, Instant::now());
        let expected = Rewound {
            unsent: 2,
            torn: true,
            ..Rewound::default()
        };
        assert_eq!(rewound, expected);
        assert_eq!(waiting(&sending), "o\nthree\nfour\n");
        assert!(sending.is_inside_line());
        // When that one goes, too, the third begins with its line.
        let rewound = sending.rewind(b"", false, Instant::now());
        assert_eq!((rewound.sent, rewound.torn), (1, true));
        assert_eq!(waiting(&sending), "two\nthree\nfour\n");
        assert_eq!(sending.records(), 3);
    }

    #[test]
    fn a_line_that_is_begun_is_never_dropped() {
        let mut sending = sending(&["one\ntwo\nthree\n", "four\n"]);
        sending.advance(5, 64);
        let dropped = sending.drop_oldest(|left| left.records() == 0);
        assert_eq!((dropped.records, dropped.bytes, dropped.sent), (2, 11, 0));
        assert_eq!(waiting(&sending), "wo\n");
        assert_eq!(sending.advance(3, 64).0, 2);
        assert!(sending.is_empty());
    }

    #[test]
    fn a_line_that_was_sent_whole_does_not_wait_when_the_rest_is_dropped() {
        let mut sending = sending(&["one\ntwo\n"]);
        assert_eq!(sending.advance(4, 64).0, 0);
        let dropped = sending.drop_oldest(|_| false);
        assert_eq!((dropped.records, dropped.bytes, dropped.sent), (1, 4, 1));
        assert!(sending.is_empty());
    }

    proptest! {
        // Some 10,000 restarts each.
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// A reader that takes pieces, dies, and is followed by others, each of which
        /// begins on a whole line: together they get every line whole, in order.
        #[test]
        fn readers_one_after_the_other_get_every_line_whole(
            lines in proptest::collection::vec("[a-z]{0,9}", 1..40),
            per_block in 1usize..5,
            pipe_bytes in 1usize..40,
            moves in proptest::collection::vec((0u8..5, 1usize..30), 1..80),
        ) {
            let now = Instant::now();
            let mut sending = Sending::default();
            for some in lines.chunks(per_block) {
                let text: String = some.iter().map(|line| format!("{line}\n")).collect();
                sending.push(block(&text));
            }
            let total = lines.len() as u64;
            let mut pipe: VecDeque<u8> = VecDeque::new();
            let mut readers = vec![String::new()];
            let mut sent = 0;
            let mut step = |action: u8, size: usize, sending: &mut Sending, sent: &mut u64| {
                match action {
                    0 | 1 => {
                        let text = waiting(sending);
                        let count = size.min(text.len()).min(pipe_bytes - pipe.len());
                        pipe.extend(&text.as_bytes()[..count]);
                        *sent += sending.advance(count, pipe_bytes).0;
                    }
                    2 | 3 => {
                        let taken = pipe.drain(..size.min(pipe.len()));
                        let taken = String::from_utf8(taken.collect()).unwrap();
                        readers.last_mut().unwrap().push_str(&taken);
                    }
                    _ => {
                        let unread: Vec<u8> = pipe.drain(..).collect();
                        let rewound = sending.rewind(&unread, false, now);
                        *sent = *sent + rewound.sent - rewound.unsent;
                        let last = readers.last().unwrap();
                        assert_eq!(rewound.torn, !last.is_empty() && !last.ends_with('\n'));
                        readers.push(String::new());
                    }
                }
                assert_eq!(*sent + sending.records(), total);
            };
            for (action, size) in moves {
                step(action, size, &mut sending, &mut sent);
            }
            for _ in 0..2 * lines.len() * 11 {
                step(0, usize::MAX, &mut sending, &mut sent);
                step(2, usize::MAX, &mut sending, &mut sent);
            }
            let whole: Vec<&str> = readers
                .iter()
                .flat_map(|read| read.split_inclusive('\n'))
                .filter(|line| line.ends_with('\n'))
                .map(|line| line.trim_end_matches('\n'))
                .collect();
            prop_assert_eq!(whole, lines);
        }

        /// The same at the grain of system calls: readers come and go between any two
        /// of those by which the tee finds that one has gone and takes the pipe back.
        #[test]
        fn a_restart_costs_one_torn_line_and_doubles_nothing(
            lengths in proptest::collection::vec(0usize..12, 20..60),
            pipe_bytes in 1usize..50,
            moves in proptest::collection::vec((any::<bool>(), 0u8..4, 1usize..40), 50..300),
        ) {
            let lines: Vec<String> = lengths
                .iter()
                .enumerate()
                .map(|(number, length)| format!("<{number}{}>", "x".repeat(*length)))
                .collect();
            let mut model = Restarts::new(&lines, pipe_bytes);
            for (of_tee, action, size) in moves {
                match of_tee {
                    true => model.tee_step(size),
                    false => model.reader_step(action, size),
                }
            }
            model.drain();
            model.check(&lines)?;
        }
    }

    /// A pipe, its readers one after the other, and the tee's calls.
    struct Restarts {
        sending: Sending,
        pipe: VecDeque<u8>,
        pipe_bytes: usize,
        /// What each reader got. The last one has the pipe open while `reading`.
        readers: Vec<Vec<u8>>,
        reading: bool,
        /// Whether the tee believes that there is a reader.
        believed: bool,
        /// What it does next.
        call: Call,
        records: u64,
        sent: u64,
    }

    enum Call {
        WriteOrPoll,
        TakeBack,
        Look(Vec<u8>),
    }

    impl Restarts {
        fn new(lines: &[String], pipe_bytes: usize) -> Restarts {
            let mut sending = Sending::default();
            for some in lines.chunks(3) {
                let text: String = some.iter().map(|line| format!("{line}\n")).collect();
                sending.push(block(&text));
            }
            Restarts {
                sending,
                pipe: VecDeque::new(),
                pipe_bytes,
                readers: vec![Vec::new()],
                reading: true,
                believed: true,
                call: Call::WriteOrPoll,
                records: lines.len() as u64,
                sent: 0,
            }
        }

        /// One system call of the tee.
        fn tee_step(&mut self, size: usize) {
            match std::mem::replace(&mut self.call, Call::WriteOrPoll) {
                Call::WriteOrPoll if self.believed && !self.reading => {
                    self.call = Call::TakeBack;
                }
                Call::WriteOrPoll if self.believed => {
                    let text = waiting(&self.sending);
                    let room = self.pipe_bytes - self.pipe.len();
                    let count = size.min(text.len()).min(room);
                    self.pipe.extend(&text.as_bytes()[..count]);
                    self.sent += self.sending.advance(count, self.pipe_bytes).0;
                }
                Call::WriteOrPoll => self.believed = self.reading,
                Call::TakeBack => self.call = Call::Look(self.pipe.drain(..).collect()),
                Call::Look(unread) => {
                    self.believed = self.reading;
                    let now = Instant::now();
                    let rewound = self.sending.rewind(&unread, self.reading, now);
                    self.sent = self.sent + rewound.sent - rewound.unsent;
                }
            }
            assert_eq!(self.sent + self.sending.records(), self.records);
        }

        fn reader_step(&mut self, action: u8, size: usize) {
            match (self.reading, action) {
                (true, 0) => self.reading = false,
                (true, _) => {
                    let taken = self.pipe.drain(..size.min(self.pipe.len()));
                    self.readers.last_mut().unwrap().extend(taken);
                }
                (false, _) => {
                    self.reading = true;
                    self.readers.push(Vec::new());
                }
            }
        }

        fn drain(&mut self) {
            // What has been taken back is nowhere but in the next call.
            while !(self.reading
                && self.pipe.is_empty()
                && self.sending.is_empty()
                && matches!(self.call, Call::WriteOrPoll))
            {
                self.tee_step(usize::MAX);
                self.reader_step(1, usize::MAX);
            }
        }

        fn check(&self, lines: &[String]) -> Result<(), TestCaseError> {
            let mut got = Vec::new();
            let mut pieces = 0;
            for read in &self.readers {
                let text = String::from_utf8(read.clone()).unwrap();
                for (place, line) in text.split_inclusive('\n').enumerate() {
                    match line.strip_suffix('\n') {
                        Some(line) if lines.iter().any(|it| it == line) => {
                            got.push(line.to_owned())
                        }
                        // Torn lines stand at the ends alone.
                        _ => {
                            prop_assert!(place == 0 || !line.ends_with('\n'), "{text:?}");
                            pieces += 1;
                        }
                    }
                }
            }
            let restarts = self.readers.len() - 1;
            prop_assert!(lines.len() - got.len() <= restarts);
            prop_assert!(pieces <= 2 * restarts);
            let mut expected = lines.iter();
            for line in &got {
                // In order, and none twice.
                prop_assert!(expected.any(|it| it == line), "{line:?} again");
            }
            Ok(())
        }
    }
}
