//! Recorded requests and scores -> responses, in memory that grows with their
//! disorder and not with their length.
//!
//! The recordings are merged by the `timestamp` of the requests: the one whose
//! next record is the oldest is read. When all have come so far past a request
//! that no score of it can follow, it is decided and forgotten.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::rc::Rc;

use anyhow::Result;

use crate::serve::rendezvous::RendezvousArgs;
use crate::serve::rendezvous::mailbox::{Candidate, Mailbox};
use crate::serve::rendezvous::policy::Policy;
use crate::serve::rendezvous::remembered::{AsItIs, Remembered};
use crate::serve::rendezvous::replay::Replay;
use crate::serve::rendezvous::replay::batch::{Id, Kind, SEED, What};
use crate::serve::rendezvous::replay::track::Track;
use crate::stage::{Stage, usage};
use crate::wire::micros::Micros;
use crate::wire::text::Text;

/// The requests that may still get scores, in the order in which they came.
struct Window {
    policy: Rc<Policy>,
    disorder: Micros,
    open: VecDeque<Open>,
    /// The number of the first of them.
    first: u64,
    /// The numbers of the open ones.
    known: ById<u64>,
    remembered: Remembered,
    orphans: ById<Vec<Candidate>>,
    /// In the order in which they came, the adopted ones too.
    orphan_order: VecDeque<(Micros, Id)>,
}

struct Open {
    time: Micros,
    id: Id,
    mailbox: Mailbox,
}

type ById<T> = HashMap<Id, T, BuildHasherDefault<AsItIs>>;

/// Replays recorded streams.
pub fn run(stage: &mut Stage, args: &RendezvousArgs, replay: &mut Replay) -> Result<()> {
    let mut window = Window {
        policy: Rc::new(args.policy.load()?),
        disorder: Micros::from_duration(args.replaying.disorder),
        open: VecDeque::new(),
        first: 0,
        known: ById::default(),
        remembered: Remembered::new(args.bounds.remember as usize, SEED),
        orphans: ById::default(),
        orphan_order: VecDeque::new(),
    };
    let mut tracks = vec![Track::open(args.live_requests()?, Kind::Requests, stage)?];
    for path in &args.scores {
        tracks.push(Track::open(path, Kind::Scores, stage)?);
    }
    if tracks.iter().filter(|it| it.is_pipe()).count() > 1 {
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
        .filter_map(|(index, track)| Some((track.next.as_ref()?.time, index)))
        .min()
    {
        window.close_before(time, replay, stage)?;
        let track = &mut tracks[index];
        if let Some(next) = track.next.take() {
            match next.what {
                What::Request(text) => window.request(time, next.id, text, replay),
                What::Score(score) => window.score(time, next.id, score, replay),
            }
        }
        if track.may_wait() {
            replay.flush(stage)?;
        }
        track.advance(stage)?;
    }
    window.close_before(Micros(i64::MAX), replay, stage)
}

impl Window {
    fn request(&mut self, time: Micros, id: Id, text: Text, replay: &mut Replay) {
        replay.counts.requests += 1;
        let number = self.first + self.open.len() as u64;
        match self.known.entry(id.clone()) {
            Entry::Vacant(place) if !self.remembered.contains_hash(id.hash) => {
                place.insert(number);
            }
            _ => {
                replay.counts.repeated += 1;
                return;
            }
        }
        let orphans = match self.orphans.is_empty() {
            true => Vec::new(),
            false => self.orphans.remove(&id).unwrap_or_default(),
        };
        let mut mailbox = Mailbox::new(id.text.clone(), text, Rc::clone(&self.policy));
        for orphan in orphans {
            replay.take(&mut mailbox, orphan);
        }
        self.open.push_back(Open { time, id, mailbox });
    }

    fn score(&mut self, time: Micros, id: Id, candidate: Candidate, replay: &mut Replay) {
        replay.counts.scores += 1;
        match self.known.get(&id) {
            Some(number) => {
                let place = (number - self.first) as usize;
                replay.take(&mut self.open[place].mailbox, candidate);
            }
            None if self.remembered.contains_hash(id.hash) => replay.counts.orphaned += 1,
            None => {
                self.orphan_order.push_back((time, id.clone()));
                self.orphans.entry(id).or_default().push(candidate);
            }
        }
    }

    /// Decides and forgets all that every recording is past by the disorder.
    fn close_before(&mut self, time: Micros, replay: &mut Replay, stage: &mut Stage) -> Result<()> {
        let passed = |of: Micros| time == Micros(i64::MAX) || of + self.disorder < time;
        while let Some((_, id)) = self.orphan_order.front().filter(|(of, _)| passed(*of)) {
            // One entry a score: the first of them takes all of a request's.
            if let Some(lost) = self.orphans.remove(id) {
                replay.counts.orphaned += lost.len() as u64;
            }
            self.orphan_order.pop_front();
        }
        while self.open.front().is_some_and(|open| passed(open.time)) {
            let Some(Open { id, mailbox, .. }) = self.open.pop_front() else {
                break;
            };
            self.first += 1;
            replay.close(&mailbox, stage)?;
            self.known.remove(&id);
            self.remembered.insert_hash(id.hash);
        }
        Ok(())
    }
}
