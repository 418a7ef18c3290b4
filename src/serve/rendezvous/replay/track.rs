//! One recording of a replay and its next record.
//!
//! Most of a replay's work is to take records apart. For files a thread a
//! recording does it, a few blocks ahead; a pipe is read when its turn comes, so
//! that a signal finds nobody waiting for it elsewhere.

use std::sync::Arc;
use std::thread;

use anyhow::{Result, anyhow};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::serve::rendezvous::decision::Arrival;
use crate::serve::rendezvous::mailbox::Candidate;
use crate::serve::rendezvous::record::millis;
use crate::stage::recording::Recording;
use crate::stage::{EndedEarly, Stage};
use crate::wire::lines::{KeptLine, Line};
use crate::wire::message::{Outcome, Request, Score};
use crate::wire::micros::Micros;

/// How many batches a thread may be ahead. A batch is what one read brought.
const BATCHES_AHEAD: usize = 8;

/// What the records of a recording are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Requests,
    Scores,
}

/// A record taken apart.
#[derive(Debug)]
pub struct Next {
    /// The `timestamp` of its request.
    pub time: Micros,
    pub message_id: Arc<str>,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    /// The whole request.
    Request(Arc<str>),
    Score(Candidate),
}

/// A recording and its next record.
pub struct Track {
    source: Source,
    pub next: Option<Next>,
}

enum Source {
    Here(Box<Reader>),
    Thread {
        batches: Receiver<Batch>,
        batch: std::vec::IntoIter<Item>,
    },
}

type Batch = Result<Vec<Item>>;

enum Item {
    Record(Next),
    /// A line that is none.
    Bad(BadLine),
}

struct BadLine {
    input: String,
    line: KeptLine,
    reason: String,
}

impl Track {
    /// Opens a recording.
    pub fn open(path: &str, kind: Kind, stage: &Stage) -> Result<Track> {
        let reader = Box::new(Reader {
            recording: Recording::open(path, stage)?,
            kind,
            last: Micros(i64::MIN),
            names: Names::default(),
        });
        let source = if reader.recording.is_pipe() {
            Source::Here(reader)
        } else {
            let (sender, batches) = bounded(BATCHES_AHEAD);
            thread::Builder::new()
                .name("reading".to_owned())
                .spawn(move || reader.read_ahead(&sender))?;
            Source::Thread {
                batches,
                batch: Vec::new().into_iter(),
            }
        };
        Ok(Track { source, next: None })
    }

    /// Whether it is a pipe, which another program fills while it is read.
    pub fn is_pipe(&self) -> bool {
        matches!(self.source, Source::Here(_))
    }

    /// Whether [`advance`](Track::advance) may wait for another program.
    pub fn may_wait(&self) -> bool {
        match &self.source {
            Source::Here(reader) => !reader.recording.has_line(),
            Source::Thread { .. } => false,
        }
    }

    /// Goes on to the next record. Lines that are none are set aside.
    pub fn advance(&mut self, stage: &mut Stage) -> Result<()> {
        self.next = None;
        while self.next.is_none() {
            let item = match &mut self.source {
                Source::Here(reader) => match reader.read_one(stage)? {
                    Some(item) => item,
                    None => break,
                },
                Source::Thread { batches, batch } => match batch.next() {
                    Some(item) => item,
                    None => {
                        if let Some(stop) = stage.signals.stop() {
                            return Err(EndedEarly::Signal(stop).into());
                        }
                        stage.stats.touch();
                        match batches.recv() {
                            Ok(next) => *batch = next?.into_iter(),
                            // The thread has sent all there was.
                            Err(_) => break,
                        }
                        continue;
                    }
                },
            };
            match item {
                Item::Record(next) => self.next = Some(next),
                Item::Bad(bad) => bad.reject(stage)?,
            }
        }
        Ok(())
    }
}

impl BadLine {
    fn reject(self, stage: &mut Stage) -> Result<()> {
        let line = self.line.line();
        match line.oversized {
            Some(_) => stage.report.reject_oversized(&self.input, &line),
            None => stage.report.reject(&self.input, &line, &self.reason),
        }
    }
}

/// Reads and takes apart.
struct Reader {
    recording: Recording,
    kind: Kind,
    /// The time of the last record: what a score without one has.
    last: Micros,
    names: Names,
}

impl Reader {
    /// Sends batch by batch until the recording ends or nobody listens.
    fn read_ahead(mut self, sender: &Sender<Batch>) {
        let mut batch = Vec::new();
        loop {
            if !self.recording.has_line() && !batch.is_empty() {
                let full = std::mem::take(&mut batch);
                batch.reserve(full.len());
                if sender.send(Ok(full)).is_err() {
                    return;
                }
            }
            match self.recording.next_line_of_file() {
                Ok(Some((line, name))) => {
                    let item = take_apart(self.kind, &line, name, &mut self.last, &mut self.names);
                    batch.extend(item);
                }
                Ok(None) => break,
                Err(error) => {
                    let _ = sender.send(Ok(batch));
                    let _ = sender.send(Err(anyhow!("{error:#}")));
                    return;
                }
            }
        }
        let _ = sender.send(Ok(batch));
    }

    fn read_one(&mut self, stage: &mut Stage) -> Result<Option<Item>> {
        while let Some((line, name)) = self.recording.next_line(stage)? {
            let item = take_apart(self.kind, &line, name, &mut self.last, &mut self.names);
            if item.is_some() {
                return Ok(item);
            }
        }
        Ok(None)
    }
}

/// What a line holds; `None` where it is blank.
fn take_apart(
    kind: Kind,
    line: &Line,
    input: &str,
    last: &mut Micros,
    names: &mut Names,
) -> Option<Item> {
    let read = match line.record() {
        _ if line.oversized.is_some() => Err(String::new()),
        None => return None,
        Some(bytes) => match kind {
            Kind::Requests => read_request(bytes),
            Kind::Scores => read_score(bytes, *last, names),
        },
    };
    Some(match read {
        Ok(next) => {
            *last = next.time;
            Item::Record(next)
        }
        Err(reason) => Item::Bad(BadLine {
            input: input.to_owned(),
            line: line.into(),
            reason,
        }),
    })
}

fn read_request(line: &[u8]) -> Result<Next, String> {
    let request = Request::parse(line)?;
    Ok(Next {
        time: request.timestamp,
        message_id: Arc::from(&*request.message_id),
        what: What::Request(request.text.into()),
    })
}

fn read_score(line: &[u8], last: Micros, names: &mut Names) -> Result<Next, String> {
    let score = Score::parse(line)?;
    let at = match score.elapsed {
        None => Micros(0),
        Some(raw) => millis(raw).ok_or(
            "field \"provenance.model.elapsedTimeAfterRequest\" is not a number of milliseconds",
        )?,
    };
    let (failed, outcome) = match score.outcome {
        Outcome::Result(result) => (false, result),
        Outcome::Error(error) => (true, error),
    };
    Ok(Next {
        time: score.timestamp.unwrap_or(last),
        message_id: Arc::from(&*score.message_id),
        what: What::Score(Candidate {
            arrival: Arrival {
                model_name: names.get(&score.model_name),
                model_version: score.model_version,
                at: at.max(Micros(0)),
                failed,
            },
            model_hash: score.model_hash.map(|hash| names.get(&hash)),
            outcome: outcome.into(),
        }),
    })
}

/// The few names and hashes of models that come again and again.
#[derive(Default)]
struct Names(Vec<Arc<str>>);

impl Names {
    const COUNT_MAX: usize = 64;

    fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| &***known == name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        if self.0.len() < Names::COUNT_MAX {
            self.0.push(Arc::clone(&new));
        }
        new
    }
}
