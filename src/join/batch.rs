//! Parsed records of one recording, in batches.
//!
//! The thread that reads a recording sends batches to the thread that joins the
//! recordings. All texts of a batch are slices of one text, so that no record has its own
//! allocation.

use std::ops::Range;
use std::rc::Rc;

use anyhow::Result;

use crate::join::kept_score::{KeptScore, Seat};
use crate::join::request_id::{RECORDING_SEED, RequestId, hash_id};
use crate::stage::Stage;
use crate::wire::lines::{KeptLine, Line};
use crate::wire::message::{OutcomeKind, Request, Score};
use crate::wire::micros::Micros;
use crate::wire::reject::Reject;
use crate::wire::text::Text;

/// The kind of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// The recording contains requests.
    Requests,
    /// The recording contains scores of a stream with this seat.
    Scores(Seat),
}

/// A record of a recording.
#[derive(Debug)]
pub struct RecordedEntry {
    /// The `timestamp` of the record's request.
    pub time: Micros,
    /// The id of the record's request.
    pub id: RequestId,
    /// The record.
    pub record: Recorded,
    /// Whether the record is a score that says how long after its request it came.
    pub is_timed: bool,
}

/// A recorded request or score.
#[derive(Debug)]
pub enum Recorded {
    /// A whole request.
    Request(Text),
    /// A score. Its arrival is its `elapsedTimeAfterRequest`, or 0 if it has no such
    /// field.
    Score(KeptScore),
}

/// A line that is not a valid record.
#[derive(Debug)]
pub struct BadLine {
    input: String,
    line: KeptLine,
    reject: Reject,
}

impl BadLine {
    /// Sets the line aside.
    pub fn reject(self, stage: &mut Stage) -> Result<()> {
        let line = self.line.line();
        stage.report.reject(&self.input, &line, &self.reject)
    }
}

/// Records in the order of the recording.
#[derive(Debug, Default)]
pub struct Batch {
    text: String,
    entries: Vec<BatchEntry>,
    /// The bytes of the lines that are not valid records.
    bad_bytes: usize,
    /// The faults of the files from which the batch was read.
    pub faults: Vec<String>,
}

/// A slice of the text of a batch, as a range of bytes.
type Piece = Range<usize>;

#[derive(Debug)]
enum BatchEntry {
    Request {
        time: Micros,
        id: (u64, Piece),
        text: Piece,
    },
    Score {
        time: Micros,
        id: (u64, Piece),
        model_name: Piece,
        model_version: u64,
        model_hash: Option<Piece>,
        at: Option<Micros>,
        kind: OutcomeKind,
        outcome: Piece,
        seat: Seat,
    },
    Bad(Box<BadLine>),
}

impl Batch {
    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The approximate memory of the batch, in bytes.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.entries.len() * size_of::<BatchEntry>() + self.bad_bytes
    }

    /// Adds the record of a line. A blank line adds nothing. When the call begins,
    /// `last` is the time of the previous record; when it returns, `last` is the time
    /// of this record. A score without a timestamp gets the time of the previous
    /// record.
    pub fn add(&mut self, kind: RecordKind, input: &str, line: &Line, last: &mut Micros) {
        let read = match line.record() {
            Ok(None) => return,
            Ok(Some(bytes)) => match kind {
                RecordKind::Requests => self.add_request(bytes),
                RecordKind::Scores(seat) => self.add_score(bytes, seat, *last),
            },
            Err(reject) => Err(reject),
        };
        match read {
            Ok(time) => *last = time,
            Err(reject) => {
                self.bad_bytes += line.bytes.len() + size_of::<BadLine>();
                self.entries.push(BatchEntry::Bad(Box::new(BadLine {
                    input: input.to_owned(),
                    line: line.into(),
                    reject,
                })));
            }
        }
    }

    fn add_request(&mut self, line: &[u8]) -> Result<Micros, Reject> {
        let request = Request::parse(line)?;
        let entry = BatchEntry::Request {
            time: request.timestamp,
            id: self.put_id(&request.message_id),
            text: self.put(request.text),
        };
        self.entries.push(entry);
        Ok(request.timestamp)
    }

    fn add_score(&mut self, line: &[u8], seat: Seat, last: Micros) -> Result<Micros, Reject> {
        let score = Score::parse(line)?;
        let at = match score.elapsed {
            None => None,
            Some(raw) => Some(elapsed_of(raw)?),
        };
        let time = score.timestamp.unwrap_or(last);
        let entry = BatchEntry::Score {
            time,
            id: self.put_id(&score.message_id),
            model_name: self.put(&score.model_name),
            model_version: score.model_version,
            model_hash: score.model_hash.map(|hash| self.put(&hash)),
            at,
            kind: score.outcome.kind(),
            outcome: self.put(score.outcome.text()),
            seat,
        };
        self.entries.push(entry);
        Ok(time)
    }

    fn put_id(&mut self, id: &str) -> (u64, Piece) {
        (hash_id(id, RECORDING_SEED), self.put(id))
    }

    fn put(&mut self, text: &str) -> Piece {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }
}

/// The time from a request to its score, from the text of `elapsedTimeAfterRequest`. A
/// negative time counts as 0.
pub fn elapsed_of(raw: &str) -> Result<Micros, Reject> {
    let elapsed = Micros::parse_millis(raw).map(|elapsed| elapsed.max(Micros(0)));
    elapsed.ok_or_else(|| {
        Reject::Field(
            "field \"provenance.model.elapsedTimeAfterRequest\" is not a number of milliseconds"
                .to_owned(),
        )
    })
}

/// The records of a batch, one after the other.
#[derive(Debug)]
pub struct BatchRecords {
    text: Rc<str>,
    entries: std::vec::IntoIter<BatchEntry>,
}

impl From<Batch> for BatchRecords {
    fn from(batch: Batch) -> BatchRecords {
        BatchRecords {
            text: batch.text.into(),
            entries: batch.entries.into_iter(),
        }
    }
}

impl BatchRecords {
    /// Whether all records were taken.
    pub fn is_empty(&self) -> bool {
        self.entries.as_slice().is_empty()
    }

    /// The time of the next record. Returns `None` if the next line is not a valid
    /// record, or if no line is left.
    pub fn next_time(&self) -> Option<Micros> {
        match self.entries.as_slice().first()? {
            BatchEntry::Request { time, .. } | BatchEntry::Score { time, .. } => Some(*time),
            BatchEntry::Bad(_) => None,
        }
    }

    fn id(&self, (hash, piece): (u64, Piece)) -> RequestId {
        RequestId {
            hash,
            text: self.text(piece),
        }
    }

    fn text(&self, piece: Piece) -> Text {
        Text::slice(&self.text, piece)
    }
}

impl Iterator for BatchRecords {
    type Item = Result<RecordedEntry, Box<BadLine>>;

    // Without inlining, here and in the callers, each call would copy a large record.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some(Ok(match self.entries.next()? {
            BatchEntry::Request { time, id, text } => RecordedEntry {
                time,
                id: self.id(id),
                record: Recorded::Request(self.text(text)),
                is_timed: false,
            },
            BatchEntry::Score {
                time,
                id,
                model_name,
                model_version,
                model_hash,
                at,
                kind,
                outcome,
                seat,
            } => RecordedEntry {
                time,
                id: self.id(id),
                record: Recorded::Score(KeptScore {
                    model_name: self.text(model_name),
                    model_version,
                    model_hash: model_hash.map(|hash| self.text(hash)),
                    at: at.unwrap_or(Micros(0)),
                    kind,
                    outcome: self.text(outcome),
                    seat,
                }),
                is_timed: at.is_some(),
            },
            BatchEntry::Bad(line) => return Some(Err(line)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::lines::Lines;

    /// Makes a batch from the lines of `text`. Also returns the time of the last
    /// record.
    fn batch(kind: RecordKind, text: &str) -> (Batch, Micros) {
        let (mut batch, mut last) = (Batch::default(), Micros(7));
        let mut lines = Lines::new(1000);
        let mut rest = text.as_bytes();
        lines
            .fill(|room| std::io::Read::read(&mut rest, room))
            .unwrap();
        while let Some(line) = lines.next_line() {
            batch.add(kind, "input", &line, &mut last);
        }
        (batch, last)
    }

    #[test]
    fn records_come_out_as_they_went_in() {
        let request = r#"{"messageId":"a","timestamp":1,"modelInput":"\u00e4"}"#;
        let again = r#"{"messageId":"\u0061","timestamp":2,"modelInput":"ä"}"#;
        let (requests, last) = batch(RecordKind::Requests, &format!("{request}\n\n{again}\n"));
        assert_eq!(last, Micros(2_000_000));
        let mut ids = Vec::new();
        for (next, text) in BatchRecords::from(requests).zip([request, again]) {
            let next = next.unwrap();
            assert!(matches!(next.record, Recorded::Request(it) if *it == *text));
            ids.push(next.id);
        }
        assert_eq!(ids.len(), 2);
        assert_eq!(ids[0], ids[1]);

        let line = r#"{"messageId":"a","error":{"modelName":"d\u0074"}}"#;
        let (scores, last) = batch(RecordKind::Scores(Seat::Model), &format!("{line}\n"));
        // The score has no timestamp, and gets the time of the previous record.
        assert_eq!(last, Micros(7));
        let next = BatchRecords::from(scores).next().unwrap().unwrap();
        assert_eq!((&next.id, next.time), (&ids[0], Micros(7)));
        let Recorded::Score(score) = next.record else {
            panic!("a score: {:?}", next.record);
        };
        assert_eq!(&*score.model_name, "dt");
        assert_eq!(&*score.outcome, r#"{"modelName":"d\u0074"}"#);
        assert!(score.kind == OutcomeKind::Failure && score.model_hash.is_none());
    }

    #[test]
    fn what_is_set_aside_counts_as_memory() {
        let (bad, last) = batch(
            RecordKind::Scores(Seat::Model),
            &format!("\"{}\n", "x".repeat(900)),
        );
        assert_eq!(last, Micros(7));
        assert!(bad.bytes() > 900);
        assert!(BatchRecords::from(bad).all(|it| it.is_err()));
    }
}
