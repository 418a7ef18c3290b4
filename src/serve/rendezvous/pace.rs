//! Controls how fast a stream of scores is read.
//!
//! Whatever a model sends, the answers of other models wait for at most one small block
//! of this model's scores. And this model's scores take only a small part of the
//! program's time.

use crate::wire::lines::BLOCK_BYTES;
use crate::wire::micros::Micros;

/// The number of bytes that one read takes from a slow stream. A stream is slow if
/// answers need few of its scores. The other streams wait only for one such read.
pub const SLOW_BLOCK_BYTES: usize = 4096;

/// The number of bytes that one read takes from a slow stream in the middle of a line.
/// There a byte takes less time than at the end of a line.
const SLOW_MIDDLE_BYTES: usize = 4 * SLOW_BLOCK_BYTES;

/// How long a stream rests if its scores are not kept, in nanoseconds for each byte. The
/// rest is one to ten times as long as the work on short records, and a hundred times as
/// long as the work on long records. The work on a long record cannot be divided. So long
/// records must be rare: they may delay less than one answer in a hundred.
const REST_NS: u64 = 36;

/// How long a stream rests in the middle of a line, in nanoseconds for each byte.
const MIDDLE_REST_NS: u64 = 3;

/// A stream with a record of this length rests even if the record is kept.
const LONG_BYTES: usize = 128 * 1024;

/// The longest rest.
const REST_MAX: Micros = Micros(1_000_000);

/// A stream is read at full speed if answers can need at least one in this number of
/// its records.
const NEEDED_ONE_OF: u64 = 4;

/// A stream does not rest if at least one in this number of its records is kept.
const KEPT_ONE_OF: u64 = 2;

/// How fast one stream is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadPace {
    /// Whether answers can need only few of the last records of the stream.
    is_slow: bool,
    /// Whether few of the last records of the stream were kept.
    is_useless: bool,
    /// Whether the last read ended inside a line.
    is_in_middle: bool,
    /// The time at which the stream is read again.
    rests_until: Option<Micros>,
}

/// The summary of one read of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadGain {
    /// The number of bytes.
    pub bytes: usize,
    /// The number of lines that end in these bytes.
    pub records: u64,
    /// The longest of these lines, in bytes.
    pub longest: usize,
    /// The number of scores that were put into a mailbox, without duplicates.
    pub kept: u64,
    /// The number of these scores that an answer can need.
    pub needed: u64,
}

impl ReadPace {
    /// The number of bytes that one read takes.
    pub fn block_bytes(self) -> usize {
        match (self.is_slow, self.is_in_middle) {
            (false, _) => BLOCK_BYTES,
            (true, false) => SLOW_BLOCK_BYTES,
            (true, true) => SLOW_MIDDLE_BYTES,
        }
    }

    /// The end of the stream's rest; `None` if it does not rest at `now`.
    pub fn rest(self, now: Micros) -> Option<Micros> {
        self.rests_until.filter(|until| *until > now)
    }

    /// Sets the pace after a read. If the read returned fewer bytes than it asked
    /// for, the stream is empty and does not rest.
    pub fn note(&mut self, gain: ReadGain, now: Micros) {
        let is_full = gain.bytes >= self.block_bytes();
        if gain.records > 0 {
            self.is_slow = gain.needed * NEEDED_ONE_OF < gain.records;
            self.is_useless = gain.kept * KEPT_ONE_OF < gain.records;
        }
        self.is_in_middle = self.is_slow && gain.records == 0;
        self.rests_until = None;
        let rests = self.is_useless || gain.longest >= LONG_BYTES;
        if self.is_slow && is_full && rests {
            let bytes = gain.bytes.max(gain.longest) as u64;
            let nanos = match gain.records {
                0 => bytes * MIDDLE_REST_NS,
                _ => bytes * REST_NS,
            };
            let rest = Micros((nanos / 1000) as i64);
            self.rests_until = Some(now + rest.min(REST_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: ReadGain = ReadGain {
        bytes: BLOCK_BYTES,
        records: 1000,
        longest: 70,
        kept: 0,
        needed: 0,
    };

    #[test]
    fn a_stream_that_nobody_needs_is_read_in_small_blocks_with_rests() {
        let mut pace = ReadPace::default();
        assert_eq!(pace.block_bytes(), BLOCK_BYTES);
        pace.note(FULL, Micros(1_000));
        assert_eq!(pace.block_bytes(), SLOW_BLOCK_BYTES);
        let until = pace.rest(Micros(1_000)).unwrap();
        assert!(Micros(2_000) < until && until < Micros(5_000), "{until:?}");
        assert_eq!(pace.rest(until), None);
        // A stream with nothing left to read does not rest, even if nobody needs its
        // scores.
        let few = ReadGain {
            bytes: 70,
            records: 1,
            ..FULL
        };
        pace.note(few, Micros(5_000));
        assert_eq!(pace.rest(Micros(5_000)), None);
        // If a quarter of the stream's records is needed, a read takes the full block
        // again.
        let needed = ReadGain {
            records: 4,
            kept: 4,
            needed: 1,
            ..few
        };
        pace.note(needed, Micros(6_000));
        assert_eq!(pace, ReadPace::default());
        let half = ReadGain {
            kept: 500,
            needed: 250,
            ..FULL
        };
        pace.note(half, Micros(6_000));
        assert_eq!(pace, ReadPace::default());
    }

    #[test]
    fn a_shadow_is_read_in_small_blocks_and_need_not_rest() {
        let mut pace = ReadPace::default();
        for bytes in [BLOCK_BYTES, SLOW_BLOCK_BYTES] {
            pace.note(
                ReadGain {
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
        let mut pace = ReadPace::default();
        let long = ReadGain {
            records: 1,
            kept: 1,
            longest: 15 << 20,
            ..FULL
        };
        pace.note(long, Micros(0));
        // The work on the record takes 5 ms.
        assert!(pace.rest(Micros(0)).unwrap() > Micros(500_000));
        // In the middle of the next record, the stream stays slow until the whole
        // record is known.
        pace.note(ReadGain { kept: 0, ..long }, Micros(0));
        let middle = ReadGain {
            bytes: SLOW_BLOCK_BYTES,
            ..ReadGain::default()
        };
        pace.note(middle, Micros(0));
        assert_eq!(pace.block_bytes(), SLOW_MIDDLE_BYTES);
        assert!(pace.rest(Micros(0)).unwrap() < Micros(100));
    }

    #[test]
    fn a_long_record_that_is_needed_is_read_at_full_speed() {
        let mut pace = ReadPace::default();
        let begun = ReadGain {
            bytes: BLOCK_BYTES,
            ..ReadGain::default()
        };
        pace.note(begun, Micros(0));
        assert_eq!(pace, ReadPace::default());
        let whole = ReadGain {
            records: 1,
            longest: 15 << 20,
            kept: 1,
            needed: 1,
            ..begun
        };
        pace.note(whole, Micros(0));
        assert_eq!(pace, ReadPace::default());
    }
}
