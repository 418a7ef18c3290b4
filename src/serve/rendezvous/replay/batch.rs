//! Records taken apart, in batches.
//!
//! A batch goes from the thread that reads a recording to the one that decides.
//! Its records are plain values, and all their texts stand in one, so that none of
//! them needs memory of its own.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::rc::Rc;

use anyhow::Result;

use crate::serve::rendezvous::decision::Arrival;
use crate::serve::rendezvous::mailbox::Candidate;
use crate::serve::rendezvous::remembered;
use crate::stage::Stage;
use crate::wire::lines::{KeptLine, Line};
use crate::wire::message::{Outcome, Request, Score};
use crate::wire::micros::Micros;
use crate::wire::reject::Reject;
use crate::wire::text::Text;

/// The same input gives the same output: the seed of the hashes is fixed.
pub const SEED: u64 = 0;

/// What the records of a recording are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Requests,
    Scores,
}

/// A record to be decided on.
#[derive(Debug)]
pub struct Next {
    /// The `timestamp` of its request.
    pub time: Micros,
    pub id: Id,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    /// The whole request.
    Request(Text),
    Score(Candidate),
}

/// The id of a request, which knows its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    pub hash: u64,
    pub text: Text,
}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A line that is no record.
#[derive(Debug)]
pub struct BadLine {
    input: String,
    line: KeptLine,
    reject: Reject,
}

impl BadLine {
    /// Sets it aside.
    pub fn reject(self, stage: &mut Stage) -> Result<()> {
        let line = self.line.line();
        stage.report.reject(&self.input, &line, &self.reject)
    }
}

/// Records in the order in which they came.
#[derive(Debug, Default)]
pub struct Batch {
    text: String,
    items: Vec<Item>,
    /// What the lines that are no records take.
    bad_bytes: usize,
    /// What was wrong with the files that were read for it.
    pub faults: Vec<String>,
}

/// Where a text stands in the text of the batch.
type Place = Range<usize>;

#[derive(Debug)]
enum Item {
    Request {
        time: Micros,
        id: (u64, Place),
        text: Place,
    },
    Score {
        time: Micros,
        id: (u64, Place),
        model_name: Place,
        model_version: u64,
        model_hash: Option<Place>,
        at: Micros,
        failed: bool,
        outcome: Place,
    },
    Bad(Box<BadLine>),
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.items.len() * size_of::<Item>() + self.bad_bytes
    }

    /// Adds what a line holds; nothing where it is blank. `last` is the time of the
    /// last record, and what a score without one has.
    pub fn add(&mut self, kind: Kind, input: &str, line: &Line, last: &mut Micros) {
        let read = match line.record() {
            Ok(None) => return,
            Ok(Some(bytes)) => match kind {
                Kind::Requests => self.add_request(bytes),
                Kind::Scores => self.add_score(bytes, *last),
            },
            Err(reject) => Err(reject),
        };
        match read {
            Ok(time) => *last = time,
            Err(reject) => {
                self.bad_bytes += line.bytes.len() + size_of::<BadLine>();
                self.items.push(Item::Bad(Box::new(BadLine {
                    input: input.to_owned(),
                    line: line.into(),
                    reject,
                })));
            }
        }
    }

    fn add_request(&mut self, line: &[u8]) -> Result<Micros, Reject> {
        let request = Request::parse(line)?;
        let item = Item::Request {
            time: request.timestamp,
            id: self.put_id(&request.message_id),
            text: self.put(request.text),
        };
        self.items.push(item);
        Ok(request.timestamp)
    }

    fn add_score(&mut self, line: &[u8], last: Micros) -> Result<Micros, Reject> {
        let score = Score::parse(line)?;
        let at = match score.elapsed {
            None => Micros(0),
            Some(raw) => Micros::parse_millis(raw).ok_or_else(|| {
                Reject::Field(
                    "field \"provenance.model.elapsedTimeAfterRequest\" is not a number of \
                     milliseconds"
                        .to_owned(),
                )
            })?,
        };
        let (failed, outcome) = match score.outcome {
            Outcome::Result(result) => (false, result),
            Outcome::Error(error) => (true, error),
        };
        let time = score.timestamp.unwrap_or(last);
        let item = Item::Score {
            time,
            id: self.put_id(&score.message_id),
            model_name: self.put(&score.model_name),
            model_version: score.model_version,
            model_hash: score.model_hash.map(|hash| self.put(&hash)),
            at: at.max(Micros(0)),
            failed,
            outcome: self.put(outcome),
        };
        self.items.push(item);
        Ok(time)
    }

    fn put_id(&mut self, id: &str) -> (u64, Place) {
        (remembered::hash(id, SEED), self.put(id))
    }

    fn put(&mut self, text: &str) -> Place {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }
}

/// A batch on its way out, record by record.
#[derive(Debug)]
pub struct Records {
    text: Rc<str>,
    items: std::vec::IntoIter<Item>,
}

impl From<Batch> for Records {
    fn from(batch: Batch) -> Records {
        Records {
            text: batch.text.into(),
            items: batch.items.into_iter(),
        }
    }
}

impl Records {
    pub fn is_empty(&self) -> bool {
        self.items.as_slice().is_empty()
    }

    fn id(&self, (hash, place): (u64, Place)) -> Id {
        Id {
            hash,
            text: self.text(place),
        }
    }

    fn text(&self, place: Place) -> Text {
        Text::piece(&self.text, place)
    }
}

impl Iterator for Records {
    type Item = Result<Next, Box<BadLine>>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(Ok(match self.items.next()? {
            Item::Request { time, id, text } => Next {
                time,
                id: self.id(id),
                what: What::Request(self.text(text)),
            },
            Item::Score {
                time,
                id,
                model_name,
                model_version,
                model_hash,
                at,
                failed,
                outcome,
            } => Next {
                time,
                id: self.id(id),
                what: What::Score(Candidate {
                    arrival: Arrival {
                        model_name: self.text(model_name),
                        model_version,
                        at,
                        failed,
                    },
                    model_hash: model_hash.map(|hash| self.text(hash)),
                    outcome: self.text(outcome),
                }),
            },
            Item::Bad(line) => return Some(Err(line)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::lines::Lines;

    /// A batch of these lines, and the time of its last record.
    fn batch(kind: Kind, text: &str) -> (Batch, Micros) {
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
        let (requests, last) = batch(
            Kind::Requests,
            &format!(
                "{request}

{again}
"
            ),
        );
        assert_eq!(last, Micros(2_000_000));
        let mut ids = Vec::new();
        for (next, text) in Records::from(requests).zip([request, again]) {
            let next = next.unwrap();
            assert!(matches!(next.what, What::Request(it) if *it == *text));
            ids.push(next.id);
        }
        assert_eq!(ids.len(), 2);
        assert_eq!(ids[0], ids[1]);

        let score = r#"{"messageId":"a","error":{"modelName":"d\u0074"}}"#;
        let (scores, last) = batch(
            Kind::Scores,
            &format!(
                "{score}
"
            ),
        );
        // It has no time, and takes that of the last record.
        assert_eq!(last, Micros(7));
        let next = Records::from(scores).next().unwrap().unwrap();
        assert_eq!((&next.id, next.time), (&ids[0], Micros(7)));
        let What::Score(candidate) = next.what else {
            panic!("a score: {:?}", next.what);
        };
        assert_eq!(&*candidate.arrival.model_name, "dt");
        assert_eq!(&*candidate.outcome, r#"{"modelName":"d\u0074"}"#);
        assert!(candidate.arrival.failed && candidate.model_hash.is_none());
    }

    #[test]
    fn what_is_set_aside_counts_as_memory() {
        let (bad, last) = batch(Kind::Scores, &format!("\"{}\n", "x".repeat(900)));
        assert_eq!(last, Micros(7));
        assert!(bad.bytes() > 900);
        assert!(Records::from(bad).all(|it| it.is_err()));
    }
}
