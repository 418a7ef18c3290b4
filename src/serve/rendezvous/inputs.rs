//! The streams of scores: named one by one, or all the pipes of a folder, as they
//! come and go.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::stage::{Stage, usage};
use crate::stream::address::Address;
use crate::stream::input::{Input, Progress};
use crate::stream::pipe_watch::{PipeWatch, named_pipes};
use crate::wire::lines::{BLOCK_BYTES, Lines};
use crate::wire::micros::Micros;

/// How much is read at once of a stream of which little is needed for an answer. The
/// others wait for no longer than this takes.
const SLOW_BLOCK_BYTES: usize = 4096;

/// The same in the middle of a line that such a stream has begun, which costs less.
const SLOW_MIDDLE_BYTES: usize = 4 * SLOW_BLOCK_BYTES;

/// For how long a stream rests that brings what is not even kept, in nanoseconds a byte
/// of its records. That is one to ten times what they cost, and a hundred times with
/// long records: these cannot be read in pieces, so they must be so few that not one
/// answer in a hundred meets one.
const REST_NS: u64 = 36;

/// The same in the middle of a line.
const MIDDLE_REST_NS: u64 = 3;

/// Such a record rests a stream also where it is kept.
const LONG_BYTES: usize = 128 * 1024;

/// The longest rest.
const REST_MAX: Micros = Micros(1_000_000);

/// One score of so many has to be needed for the stream to be read at full speed.
const NEEDED_ONE_OF: u64 = 4;

/// One record of so many has to be kept for the stream not to rest.
const KEPT_ONE_OF: u64 = 2;

/// How many streams were opened in this run.
static OPENED: AtomicU32 = AtomicU32::new(0);

/// One stream, and what was read of it.
pub struct Stream {
    pub input: Input,
    pub lines: Lines,
    pub ended: bool,
    /// No other stream of the run has it.
    pub number: u32,
    /// How fast it is read.
    pub pace: Pace,
    /// Tells the pipe from another one of its name.
    ino: u64,
}

impl Stream {
    pub fn open(address: &Address, follow: bool, stage: &Stage) -> Result<Stream> {
        let input = Input::open(address, follow)?;
        if input.is_file() {
            return Err(usage(format!(
                "{address}: is a file, and a live rendezvous needs pipes, in which records come when \
                 they happen; for recordings there is --replay"
            )));
        }
        Ok(Stream {
            ino: input
                .readiness()
                .map_or(0, |fd| rustix::fs::fstat(fd).map_or(0, |stat| stat.st_ino)),
            input,
            lines: Lines::new(stage.line_bytes_max),
            ended: false,
            number: OPENED.fetch_add(1, Ordering::Relaxed),
            pace: Pace::default(),
        })
    }

    /// Reads what is there, a block at the most. With `only_this_line` it reads to the
    /// end of the present line and not a byte further. Says how many bytes that were.
    pub fn read(&mut self, only_this_line: bool) -> Result<usize> {
        if !only_this_line {
            let block = self.pace.block_bytes();
            let progress = self.input.read_up_to(&mut self.lines, block)?;
            return Ok(self.note_progress(progress));
        }
        let mut bytes = 0;
        while bytes < SLOW_BLOCK_BYTES {
            let progress = self.input.read_one_byte(&mut self.lines)?;
            let count = self.note_progress(progress);
            bytes += count;
            if count == 0 || self.lines.ends_a_line() {
                break;
            }
        }
        Ok(bytes)
    }

    fn note_progress(&mut self, progress: Progress) -> usize {
        self.ended = progress == Progress::End;
        match progress {
            Progress::Bytes(count) => count,
            Progress::Nothing | Progress::End => 0,
        }
    }

    /// Whether a line was begun whose end may still come.
    pub fn is_inside_line(&self) -> bool {
        !self.ended && self.lines.is_inside_line()
    }
}

/// How fast a stream of scores is read. Whatever a model sends, the others' answers
/// wait for one small block of it at the most, and it takes a small part of the
/// program's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Whether most of its last scores could matter to no answer.
    is_slow: bool,
    /// Whether most of its last records were not even kept.
    is_useless: bool,
    /// Whether the last read ended no line.
    is_in_middle: bool,
    /// When it is read again.
    rests_until: Option<Micros>,
}

/// What one read of a stream has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// How many bytes were read.
    pub bytes: usize,
    /// Lines that were whole then.
    pub records: u64,
    /// The longest of them, in bytes.
    pub longest: usize,
    /// Scores that are in a mailbox now, duplicates left out.
    pub kept: u64,
    /// Of these, scores that can matter to an answer.
    pub needed: u64,
}

impl Pace {
    fn block_bytes(self) -> usize {
        match (self.is_slow, self.is_in_middle) {
            (false, _) => BLOCK_BYTES,
            (true, false) => SLOW_BLOCK_BYTES,
            (true, true) => SLOW_MIDDLE_BYTES,
        }
    }

    /// Until when it rests, where it does at `now`.
    pub fn rest(self, now: Micros) -> Option<Micros> {
        self.rests_until.filter(|until| *until > now)
    }

    /// Notes what a read has brought. A stream that gave less than was asked for is
    /// up to date, and need not rest.
    pub fn note(&mut self, brought: Brought, now: Micros) {
        let is_full = brought.bytes >= self.block_bytes();
        if brought.records > 0 {
            self.is_slow = brought.needed * NEEDED_ONE_OF < brought.records;
            self.is_useless = brought.kept * KEPT_ONE_OF < brought.records;
        }
        self.is_in_middle = self.is_slow && brought.records == 0;
        self.rests_until = None;
        let rests = self.is_useless || brought.longest >= LONG_BYTES;
        if self.is_slow && is_full && rests {
            let bytes = brought.bytes.max(brought.longest) as u64;
            let nanos = match brought.records {
                0 => bytes * MIDDLE_REST_NS,
                _ => bytes * REST_NS,
            };
            let rest = Micros((nanos / 1000) as i64);
            self.rests_until = Some(now + rest.min(REST_MAX));
        }
    }
}

/// A folder whose named pipes are all streams of scores.
pub struct Folder {
    path: PathBuf,
    changes: PipeWatch,
}

impl Folder {
    /// Watches a folder; `None` where the path is none.
    pub fn watch(address: &Address) -> Result<Option<Folder>> {
        let path = address.as_str();
        if !Path::new(path).is_dir() {
            return Ok(None);
        }
        let changes = PipeWatch::new()?;
        changes.folder(path)?;
        Ok(Some(Folder {
            path: PathBuf::from(path),
            changes,
        }))
    }

    /// Readable when a name has come or gone.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.changes.readiness()
    }

    /// Makes `readiness` quiet until the next change.
    pub fn acknowledge(&self) {
        self.changes.acknowledge();
    }

    /// Brings `streams` in line with the folder: pipes that have come are opened,
    /// and of those that have gone the rest is still read.
    pub fn update(&self, streams: &mut Vec<Stream>, stage: &mut Stage) -> Result<()> {
        // By name, and by what bears the name: a pipe that is made anew under an old
        // name is another one.
        let mut present = named_pipes(&self.path)?;
        for stream in streams.iter_mut() {
            let path = stream.input.name();
            if Path::new(path).parent() != Some(&self.path) {
                continue;
            }
            if present.get(path).is_some_and(|ino| *ino == stream.ino) {
                present.remove(path);
            } else {
                stream.input.stop_following();
            }
        }
        for path in present.into_keys() {
            match Stream::open(&Address::from(&*path), true, stage) {
                Ok(stream) => {
                    stage.report.info(&format!("{path}: joined"));
                    streams.push(stream);
                }
                Err(error) => stage.report.warn_seldom("scores", &format!("{error:#}")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Brought = Brought {
        bytes: BLOCK_BYTES,
        records: 1000,
        longest: 70,
        kept: 0,
        needed: 0,
    };

    #[test]
    fn a_stream_that_nobody_needs_is_read_in_small_blocks_with_rests() {
        let mut pace = Pace::default();
        assert_eq!(pace.block_bytes(), BLOCK_BYTES);
        pace.note(FULL, Micros(1_000));
        assert_eq!(pace.block_bytes(), SLOW_BLOCK_BYTES);
        let until = pace.rest(Micros(1_000)).unwrap();
        assert!(Micros(2_000) < until && until < Micros(5_000), "{until:?}");
        assert_eq!(pace.rest(until), None);
        // What is up to date need not rest, whatever it brings.
        let few = Brought {
            bytes: 70,
            records: 1,
            ..FULL
        };
        pace.note(few, Micros(5_000));
        assert_eq!(pace.rest(Micros(5_000)), None);
        // As soon as a quarter is needed it has its full block again.
        let needed = Brought {
            records: 4,
            kept: 4,
            needed: 1,
            ..few
        };
        pace.note(needed, Micros(6_000));
        assert_eq!(pace, Pace::default());
        let half = Brought {
            kept: 500,
            needed: 250,
            ..FULL
        };
        pace.note(half, Micros(6_000));
        assert_eq!(pace, Pace::default());
    }

    #[test]
    fn a_shadow_is_read_in_small_blocks_and_need_not_rest() {
        let mut pace = Pace::default();
        for bytes in [BLOCK_BYTES, SLOW_BLOCK_BYTES] {
            pace.note(
                Brought {
                    bytes,
                    kept: 900,
                    ..FULL
                },
                Micros(0),
            );
            assert_eq!(pace.block_bytes(), SLOW_BLOCK_BYTES);
            assert_eq!(pace.rest(Micros(0)), None);
        }
    }

    #[test]
    fn long_records_that_nobody_needs_take_less_than_a_hundredth_of_the_time() {
        let mut pace = Pace::default();
        let long = Brought {
            records: 1,
            kept: 1,
            longest: 15 << 20,
            ..FULL
        };
        pace.note(long, Micros(0));
        // It takes 5 ms.
        assert!(pace.rest(Micros(0)).unwrap() > Micros(500_000));
        // In the middle of the next one nothing is known yet, and it stays slow.
        pace.note(Brought { kept: 0, ..long }, Micros(0));
        let middle = Brought {
            bytes: SLOW_BLOCK_BYTES,
            ..Brought::default()
        };
        pace.note(middle, Micros(0));
        assert_eq!(pace.block_bytes(), SLOW_MIDDLE_BYTES);
        assert!(pace.rest(Micros(0)).unwrap() < Micros(100));
    }

    #[test]
    fn a_long_record_that_is_needed_is_read_at_full_speed() {
        let mut pace = Pace::default();
        let begun = Brought {
            bytes: BLOCK_BYTES,
            ..Brought::default()
        };
        pace.note(begun, Micros(0));
        assert_eq!(pace, Pace::default());
        let whole = Brought {
            records: 1,
            longest: 15 << 20,
            kept: 1,
            needed: 1,
            ..begun
        };
        pace.note(whole, Micros(0));
        assert_eq!(pace, Pace::default());
    }
}
