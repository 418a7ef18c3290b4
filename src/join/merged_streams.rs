//! Several recordings, read as one stream in the order of their requests' timestamps.

use anyhow::Result;

use crate::join::batch::RecordKind;
pub use crate::join::batch::{Recorded, RecordedEntry, elapsed_of};
use crate::join::kept_score::Seat;
use crate::join::recorded_stream::RecordedStream;
use crate::stage::{Stage, usage};
use crate::stream::address::Address;

/// Recorded requests, and the recorded scores of one or more streams.
pub struct MergedStreams {
    streams: Vec<RecordedStream>,
    /// The stream from which the last record was taken. This stream must read ahead
    /// before the next record is taken.
    taken: Option<usize>,
}

impl MergedStreams {
    /// Opens all recordings and reads the first record of each. At most one of them
    /// may be a pipe: if one program filled two pipes, the two programs could block
    /// each other.
    pub fn open(
        requests: &Address,
        scores: &[Address],
        shadows: &[Address],
        stage: &mut Stage,
    ) -> Result<MergedStreams> {
        let mut streams = vec![RecordedStream::open(requests, RecordKind::Requests, stage)?];
        streams.extend(open_scores(scores, Seat::Model, stage)?);
        streams.extend(open_scores(shadows, Seat::Shadow, stage)?);
        MergedStreams::of(streams, stage)
    }

    /// Like [`open`](MergedStreams::open), for scores without their requests.
    pub fn open_scores(scores: &[Address], stage: &mut Stage) -> Result<MergedStreams> {
        let streams = open_scores(scores, Seat::Model, stage)?;
        MergedStreams::of(streams, stage)
    }

    fn of(mut streams: Vec<RecordedStream>, stage: &mut Stage) -> Result<MergedStreams> {
        if streams.iter().filter(|stream| stream.is_pipe()).count() > 1 {
            return Err(usage(
                "recordings are read in step, and two pipes that one program fills would block \
                 each other: write all but one of them to files first",
            ));
        }
        for stream in &mut streams {
            stream.read_ahead(stage)?;
        }
        Ok(MergedStreams {
            streams,
            taken: None,
        })
    }

    /// Whether [`next`](MergedStreams::next) may wait for another program.
    pub fn may_wait(&self) -> bool {
        self.taken
            .is_some_and(|index| self.streams[index].may_wait())
    }

    /// The record with the oldest request; `None` at the end of all recordings. If
    /// several are equally old, the record of the first recording is returned, so
    /// that a request precedes its scores.
    #[inline]
    pub fn next(&mut self, stage: &mut Stage) -> Result<Option<RecordedEntry>> {
        if let Some(index) = self.taken.take() {
            self.streams[index].read_ahead(stage)?;
        }
        let times = self.streams.iter().enumerate();
        let times = times.filter_map(|(index, stream)| Some((stream.next_time()?, index)));
        self.taken = times.min().map(|(_, index)| index);
        Ok(self.taken.and_then(|index| self.streams[index].take()))
    }
}

fn open_scores(scores: &[Address], seat: Seat, stage: &Stage) -> Result<Vec<RecordedStream>> {
    let open = |address| RecordedStream::open(address, RecordKind::Scores(seat), stage);
    scores.iter().map(open).collect()
}
