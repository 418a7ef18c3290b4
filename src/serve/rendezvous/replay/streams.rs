//! Recorded requests and scores -> responses, in memory that grows with their
//! disorder and not with their length.
//!
//! The recordings are merged by the `timestamp` of the requests: the one whose
//! next record is the oldest is read. When all have come so far past a request
//! that no score of it can follow, it is decided and forgotten.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use anyhow::Result;

use crate::serve::rendezvous::RendezvousArgs;
use crate::serve::rendezvous::decision::Arrival;
use crate::serve::rendezvous::mailbox::{Candidate, Mailbox};
use crate::serve::rendezvous::policy::Policy;
use crate::serve::rendezvous::record::millis;
use crate::serve::rendezvous::replay::Replay;
use crate::stage::recording::Recording;
use crate::stage::{Stage, usage};
use crate::wire::message::{Outcome, Request, Score};
use crate::wire::micros::Micros;

/// A recording and its next record.
struct Track {
    recording: Recording,
    kind: Kind,
    next: Option<(Micros, Next)>,
    /// The time of the last record: what a score without one has.
    last: Micros,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Requests,
    Scores,
}

enum Next {
    Request {
        message_id: Rc<str>,
        text: Rc<str>,
    },
    Score {
        message_id: Rc<str>,
        candidate: Candidate,
    },
}

impl Track {
    fn open(path: &str, kind: Kind, stage: &Stage) -> Result<Track> {
        Ok(Track {
            recording: Recording::open(path, stage)?,
            kind,
            next: None,
            last: Micros(i64::MIN),
        })
    }

    /// Reads on to the next record.
    fn advance(&mut self, stage: &mut Stage) -> Result<()> {
        self.next = None;
        while let Some((line, name)) = self.recording.next_line(stage)? {
            if line.oversized.is_some() {
                stage.report.reject_oversized(name, &line)?;
                continue;
            }
            let Some(bytes) = line.record() else {
                continue;
            };
            let read = match self.kind {
                Kind::Requests => read_request(bytes),
                Kind::Scores => read_score(bytes, self.last),
            };
            match read {
                Ok((time, next)) => {
                    self.last = time;
                    self.next = Some((time, next));
                    break;
                }
                Err(reason) => stage.report.reject(name, &line, &reason)?,
            }
        }
        Ok(())
    }
}

fn read_request(line: &[u8]) -> Result<(Micros, Next), String> {
    let request = Request::parse(line)?;
    let next = Next::Request {
        message_id: Rc::from(&*request.message_id),
        text: request.text.into(),
    };
    Ok((request.timestamp, next))
}

fn read_score(line: &[u8], last: Micros) -> Result<(Micros, Next), String> {
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
    let next = Next::Score {
        message_id: Rc::from(&*score.message_id),
        candidate: Candidate {
            arrival: Arrival {
                model_name: Rc::from(&*score.model_name),
                model_version: score.model_version,
                at: at.max(Micros(0)),
                failed,
            },
            model_hash: score.model_hash.as_deref().map(Rc::from),
            outcome: outcome.into(),
        },
    };
    Ok((score.timestamp.unwrap_or(last), next))
}

/// The requests that may still get scores, in the order in which they came.
struct Window {
    policy: Rc<Policy>,
    disorder: Micros,
    remembered_max: usize,
    open: VecDeque<(Micros, Mailbox)>,
    /// The number of the first of them.
    first: u64,
    known: HashMap<Rc<str>, Known>,
    remembered: VecDeque<Rc<str>>,
    orphans: HashMap<Rc<str>, Vec<Candidate>>,
    /// In the order in which they came, the adopted ones too.
    orphan_order: VecDeque<(Micros, Rc<str>)>,
}

#[derive(Clone, Copy)]
enum Known {
    Open(u64),
    Remembered,
}

/// Replays recorded streams.
pub fn run(stage: &mut Stage, args: &RendezvousArgs, replay: &mut Replay) -> Result<()> {
    let mut window = Window {
        policy: Rc::new(args.policy.load()?),
        disorder: Micros::from_duration(args.replaying.disorder),
        remembered_max: args.bounds.remember as usize,
        open: VecDeque::new(),
        first: 0,
        known: HashMap::new(),
        remembered: VecDeque::new(),
        orphans: HashMap::new(),
        orphan_order: VecDeque::new(),
    };
    let mut tracks = vec![Track::open(args.live_requests()?, Kind::Requests, stage)?];
    for path in &args.scores {
        tracks.push(Track::open(path, Kind::Scores, stage)?);
    }
    if tracks.iter().filter(|it| it.recording.is_pipe()).count() > 1 {
        return Err(usage(
            "a replay reads its inputs in step, and two pipes that one program fills would stop \
             each other: write all but one of them to files first",
        ));
    }
    for track in &mut tracks {
        track.advance(stage)?;
    }
    // The oldest record is next; of several, that of the first recording, so that
    // a request comes before its scores.
    while let Some((time, index)) = tracks
        .iter()
        .enumerate()
        .filter_map(|(index, track)| Some((track.next.as_ref()?.0, index)))
        .min()
    {
        window.close_before(time, replay, stage)?;
        match tracks[index].next.take() {
            Some((_, Next::Request { message_id, text })) => {
                window.request(time, message_id, text, replay);
            }
            Some((
                _,
                Next::Score {
                    message_id,
                    candidate,
                },
            )) => {
                window.score(time, message_id, candidate, replay);
            }
            None => {}
        }
        let recording = &tracks[index].recording;
        if recording.is_pipe() && !recording.has_line() {
            replay.flush(stage)?;
        }
        tracks[index].advance(stage)?;
    }
    window.close_before(Micros(i64::MAX), replay, stage)
}

impl Window {
    fn request(&mut self, time: Micros, message_id: Rc<str>, text: Rc<str>, replay: &mut Replay) {
        replay.counts.requests += 1;
        if self.known.contains_key(&message_id) {
            replay.counts.repeated += 1;
            return;
        }
        let number = self.first + self.open.len() as u64;
        self.known
            .insert(Rc::clone(&message_id), Known::Open(number));
        let orphans = self.orphans.remove(&message_id).unwrap_or_default();
        let mut mailbox = Mailbox::new(message_id, text, Rc::clone(&self.policy));
        for orphan in orphans {
            mailbox.take(orphan);
        }
        self.open.push_back((time, mailbox));
    }

    fn score(
        &mut self,
        time: Micros,
        message_id: Rc<str>,
        candidate: Candidate,
        replay: &mut Replay,
    ) {
        replay.counts.scores += 1;
        match self.known.get(&message_id) {
            Some(Known::Open(number)) => {
                let place = (number - self.first) as usize;
                self.open[place].1.take(candidate);
            }
            Some(Known::Remembered) => replay.counts.orphaned += 1,
            None => {
                self.orphan_order.push_back((time, Rc::clone(&message_id)));
                self.orphans.entry(message_id).or_default().push(candidate);
            }
        }
    }

    /// Decides and forgets all that every recording is past by the disorder.
    fn close_before(&mut self, time: Micros, replay: &mut Replay, stage: &mut Stage) -> Result<()> {
        let passed = |of: Micros| time == Micros(i64::MAX) || of + self.disorder < time;
        while let Some((_, message_id)) = self.orphan_order.front().filter(|(of, _)| passed(*of)) {
            // One entry a score: the first of them takes all of a request's.
            if let Some(lost) = self.orphans.remove(message_id) {
                replay.counts.orphaned += lost.len() as u64;
            }
            self.orphan_order.pop_front();
        }
        while self.open.front().is_some_and(|(of, _)| passed(*of)) {
            let Some((_, mailbox)) = self.open.pop_front() else {
                break;
            };
            self.first += 1;
            replay.close(&mailbox, stage)?;
            if self.remembered.len() >= self.remembered_max
                && let Some(oldest) = self.remembered.pop_front()
            {
                self.known.remove(&oldest);
            }
            if self.remembered_max == 0 {
                self.known.remove(&mailbox.message_id);
            } else {
                self.known
                    .insert(Rc::clone(&mailbox.message_id), Known::Remembered);
                self.remembered.push_back(mailbox.message_id);
            }
        }
        Ok(())
    }
}
