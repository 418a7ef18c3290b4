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
fn the_next_reader_starts_with_the_line_that_the_last_one_read_in_part() {
    let mut sending = sending(&["one\ntwo\n", "three\nfour\n"]);
    assert_eq!(sending.advance(13, 64), (2, None));
    // The reader has read `one\ntw`.
    let rewound = sending.rewind(&b"o\nthree\n"[..7], false, Instant::now());
    assert_eq!(
        rewound,
        Rewound {
            unsent: 2,
            sent: 1,
            recovered: 0,
            torn: true
        }
    );
    assert_eq!(waiting(&sending), "two\nthree\nfour\n");
    assert_eq!(sending.records(), 3);
}

#[test]
fn lines_of_an_earlier_process_are_sent_first() {
    let mut sending = sending(&["three\n"]);
    sending.advance(6, 64);
    let rewound = sending.rewind(b"ne\ntwo\nthree\n", false, Instant::now());
    assert_eq!((rewound.recovered, rewound.unsent), (1, 1));
    assert_eq!(waiting(&sending), "two\nthree\n");
    sending.rewind(b"torn", false, Instant::now());
    assert_eq!(waiting(&sending), "two\nthree\n");
    // If a second reader already has the pipe open, it may have read the start of the first line.
    let mut sending = super::tests::sending(&["three\n"]);
    let rewound = sending.rewind(b"ne\ntwo\nto", true, Instant::now());
    assert_eq!((rewound.recovered, rewound.torn), (2, false));
    assert_eq!(waiting(&sending), "ne\ntwo\nthree\n");
}

#[test]
fn a_reader_that_opens_the_pipe_early_gets_the_next_byte() {
    let mut sending = sending(&["one\ntwo\n", "three\nfour\n"]);
    assert_eq!(sending.advance(13, 64), (2, None));
    // The two readers have read `one\ntw`.
    let rewound = sending.rewind(&b"o\nthree\n"[..7], true, Instant::now());
    let expected = Rewound {
        unsent: 2,
        torn: true,
        ..Rewound::default()
    };
    assert_eq!(rewound, expected);
    assert_eq!(waiting(&sending), "o\nthree\nfour\n");
    assert!(sending.is_inside_line());
    // When the second reader closes the pipe, the third reader starts with a whole line.
    let rewound = sending.rewind(b"", false, Instant::now());
    assert_eq!((rewound.sent, rewound.torn), (1, true));
    assert_eq!(waiting(&sending), "two\nthree\nfour\n");
    assert_eq!(sending.records(), 3);
}

#[test]
fn a_line_that_was_sent_in_part_is_never_dropped() {
    let mut sending = sending(&["one\ntwo\nthree\n", "four\n"]);
    sending.advance(5, 64);
    let dropped = sending.drop_oldest(|left| left.records() == 0);
    assert_eq!((dropped.records, dropped.bytes, dropped.sent), (2, 11, 0));
    assert_eq!(waiting(&sending), "wo\n");
    assert_eq!(sending.advance(3, 64).0, 2);
    assert!(sending.is_empty());
}

#[test]
fn a_line_that_was_sent_whole_does_not_wait_after_the_rest_is_dropped() {
    let mut sending = sending(&["one\ntwo\n"]);
    assert_eq!(sending.advance(4, 64).0, 0);
    let dropped = sending.drop_oldest(|_| false);
    assert_eq!((dropped.records, dropped.bytes, dropped.sent), (1, 4, 1));
    assert!(sending.is_empty());
}

proptest! {
    // Each of the 1,000 cases has about 10 restarts.
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Several readers, one after another, each read some bytes and die. Each one starts with a
    /// whole line. Together they get every line whole and in order.
    #[test]
    fn successive_readers_get_every_line_whole(
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

    /// Like the test above, but readers may open and close the pipe between any two system calls
    /// of the tee, even while the tee takes bytes back.
    #[test]
    fn a_reader_restart_tears_one_line_and_repeats_none(
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

/// A simulation of a pipe, of its successive readers, and of the system calls of the tee.
struct Restarts {
    sending: Sending,
    pipe: VecDeque<u8>,
    pipe_bytes: usize,
    /// The bytes that each reader got. The last reader has the pipe open while `reading` is set.
    readers: Vec<Vec<u8>>,
    reading: bool,
    /// Whether the tee assumes that the pipe has a reader.
    believed: bool,
    /// The next system call of the tee.
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

    /// Makes one system call of the tee.
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
        // Bytes that were taken back are only in `call`, the next system call. So this call must be
        // made, too.
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
                    Some(line) if lines.iter().any(|it| it == line) => got.push(line.to_owned()),
                    // A torn line can only be the first or the last line that a reader gets.
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
            // The lines are in order, and no line comes twice.
            prop_assert!(expected.any(|it| it == line), "{line:?} is repeated");
        }
        Ok(())
    }
}
