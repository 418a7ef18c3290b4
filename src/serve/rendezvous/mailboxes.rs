//! All mailboxes of a rendezvous in service. Pure: the time is an argument, and
//! what is to be done comes back as effects.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::rc::Rc;

use crate::serve::rendezvous::counts::Counts;
use crate::serve::rendezvous::decision::{Arrival, Outcome, Reason};
use crate::serve::rendezvous::mailbox::{Answer, Candidate, Mailbox};
use crate::serve::rendezvous::policy::{MeasureFrom, Policy};
use crate::serve::rendezvous::remembered::Remembered;
use crate::wire::message::{self, Score};
use crate::wire::micros::Micros;
use crate::wire::text::Text;

/// What happens to a rendezvous.
#[derive(Debug)]
pub enum Event<'a> {
    /// A request was read.
    Request(NewRequest<'a>),
    /// A score was read.
    Score(&'a Score<'a>),
    /// All that was ready has been read. Answers are given now and not before,
    /// so that scores read together count together.
    Tick,
    /// Every stream of scores has ended: who waits, waits for nothing.
    ScoresEnded,
    /// The program is to end: nothing stays open.
    Shutdown,
    /// Another policy is in force for the requests to come.
    Policy(Rc<Policy>),
}

/// A request as a mailbox takes it.
#[derive(Clone, Copy, Debug)]
pub struct NewRequest<'a> {
    /// Its id, decoded.
    pub message_id: &'a str,
    /// The whole record.
    pub text: &'a str,
    /// How old it is by the wall clock, from its own `timestamp`.
    pub age: Micros,
}

/// What a rendezvous wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// This request has its answer.
    Answer(Box<Answer>),
    /// This mailbox is closed; its scores are all that came.
    Decision(Box<(Mailbox, Outcome)>),
}

/// What is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many mailboxes there may be, the answered ones too.
    pub mailboxes_max: usize,
    /// How much memory they may take, in bytes.
    pub mailbox_bytes_max: usize,
    /// For how long a mailbox stays after its deadline, to see who was late.
    pub linger: Micros,
    /// How many ids of requests are known after their mailboxes.
    pub remembered_max: usize,
    /// What makes their hashes nobody's to guess.
    pub seed: u64,
    /// How much of scores may wait for their requests.
    pub orphan_bytes_max: usize,
    /// For how long a score waits for its request.
    pub orphan_age_max: Micros,
}

/// A mailbox and its times.
#[derive(Debug)]
struct Timed {
    mailbox: Mailbox,
    /// On the program's monotonic clock; before its start for a request that was
    /// accepted before.
    origin: Micros,
    /// When to look at it next. A timer for another time is out of date.
    due: Micros,
    /// What it was last counted with.
    bytes: usize,
    /// Whether it is among those that are decided at the next tick.
    changed: bool,
}

/// An answered mailbox, which waits for late scores.
#[derive(Debug)]
struct Answered {
    timed: Timed,
    outcome: Outcome,
}

/// A score that waits for its request. The arrival counts from the program's
/// start until it has one.
type Orphan = Candidate;

/// About what a waiting score takes in memory, with its places in a map and a
/// queue.
fn orphan_bytes(orphan: &Orphan, message_id: &str) -> usize {
    const PLACES_BYTES: usize = 500;
    PLACES_BYTES + orphan.bytes() + message_id.len()
}

/// All mailboxes of a rendezvous.
#[derive(Debug)]
pub struct Mailboxes {
    policy: Rc<Policy>,
    limits: Limits,
    /// The numbers of those that are not closed.
    known: HashMap<Text, u64>,
    remembered: Remembered,
    /// By the order in which they were opened.
    open: BTreeMap<u64, Timed>,
    answered: BTreeMap<u64, Answered>,
    opened: u64,
    /// Of all mailboxes.
    bytes: usize,
    timers: BinaryHeap<Reverse<(Micros, u64)>>,
    /// Mailboxes whose outcome may have changed in this wake-up.
    changed: Vec<u64>,
    orphans: HashMap<Text, Vec<Orphan>>,
    /// In the order in which they came, the adopted ones too.
    orphan_order: VecDeque<(Micros, Text)>,
    orphan_bytes: usize,
    scores_ended: bool,
    /// What became of all that was read.
    pub counts: Counts,
}

impl Mailboxes {
    /// No mailbox is open yet.
    pub fn new(policy: Rc<Policy>, limits: Limits) -> Mailboxes {
        Mailboxes {
            policy,
            limits,
            known: HashMap::new(),
            remembered: Remembered::new(limits.remembered_max, limits.seed),
            open: BTreeMap::new(),
            answered: BTreeMap::new(),
            opened: 0,
            bytes: 0,
            timers: BinaryHeap::new(),
            changed: Vec::new(),
            orphans: HashMap::new(),
            orphan_order: VecDeque::new(),
            orphan_bytes: 0,
            scores_ended: false,
            counts: Counts::default(),
        }
    }

    /// Takes an event at the time `now`, which never goes back, and appends what
    /// is to be done to `effects`.
    pub fn step(&mut self, event: Event, now: Micros, effects: &mut Vec<Effect>) {
        match event {
            Event::Request(request) => self.request(request, now, effects),
            Event::Score(score) => self.score(score, now, effects),
            Event::Tick => self.tick(now, effects),
            Event::ScoresEnded => {
                self.scores_ended = true;
                self.changed.extend(self.open.keys());
                self.tick(now, effects);
                self.close_answered(effects);
            }
            Event::Shutdown => {
                self.tick(now, effects);
                while let Some((number, _)) = self.open.first_key_value() {
                    self.answer_early(*number, now, Reason::Shutdown, effects);
                }
                self.close_answered(effects);
                self.forget_orphans(None);
            }
            Event::Policy(policy) => self.policy = policy,
        }
    }

    /// When a [`Tick`](Event::Tick) is due though nothing is read.
    pub fn next_wake(&self) -> Option<Micros> {
        let timer = self.timers.peek().map(|Reverse((due, _))| *due);
        let orphan = self.orphan_order.front();
        let orphan = orphan.map(|(came, _)| *came + self.limits.orphan_age_max);
        timer.into_iter().chain(orphan).min()
    }

    /// Whether every request is answered and every mailbox closed.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.answered.is_empty()
    }

    /// How many requests wait for their answer.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    fn request(&mut self, request: NewRequest, now: Micros, effects: &mut Vec<Effect>) {
        self.counts.requests += 1;
        if self.known.contains_key(request.message_id)
            || self.remembered.contains(request.message_id)
        {
            self.counts.repeated += 1;
            return;
        }
        let policy = Rc::clone(&self.policy);
        let age = match policy.measure_from {
            MeasureFrom::Timestamp => request.age.clamp(Micros(0), policy.deadline),
            MeasureFrom::Arrival => Micros(0),
        };
        let origin = now - age;
        let number = self.opened;
        self.opened += 1;
        let message_id: Text = request.message_id.into();
        self.known.insert(message_id.clone(), number);
        let orphans = self.orphans.remove(&message_id).unwrap_or_default();
        let mut mailbox = Mailbox::new(message_id, request.text.into(), policy);
        for mut orphan in orphans {
            self.orphan_bytes -= orphan_bytes(&orphan, request.message_id);
            orphan.arrival.at = (orphan.arrival.at - origin).max(Micros(0));
            mailbox.take(orphan);
        }
        let timed = Timed {
            bytes: mailbox.bytes(),
            mailbox,
            origin,
            due: Micros(i64::MAX),
            changed: true,
        };
        self.bytes += timed.bytes;
        self.open.insert(number, timed);
        self.changed.push(number);
        self.make_room(now, effects);
    }

    /// Keeps the mailboxes within their bounds. Those that have answered go first,
    /// then the oldest; what came last always stays.
    fn make_room(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        while self.open.len() + self.answered.len() > self.limits.mailboxes_max
            || self.bytes > self.limits.mailbox_bytes_max
        {
            if self.answered.is_empty() {
                match self.open.first_key_value() {
                    Some((number, _)) if self.open.len() > 1 => {
                        self.answer_early(*number, now, Reason::Overflow, effects);
                    }
                    _ => break,
                }
            }
            if let Some((_, answered)) = self.answered.pop_first() {
                self.close(answered, effects);
            }
        }
    }

    fn score(&mut self, score: &Score, now: Micros, effects: &mut Vec<Effect>) {
        self.counts.scores += 1;
        let (failed, outcome) = match score.outcome {
            message::Outcome::Result(result) => (false, result),
            message::Outcome::Error(error) => (true, error),
        };
        let mut candidate = Candidate {
            arrival: Arrival {
                model_name: Text::from(&*score.model_name),
                model_version: score.model_version,
                at: now,
                failed,
            },
            model_hash: score.model_hash.as_deref().map(Text::from),
            outcome: outcome.into(),
        };
        let number = match self.known.get(&*score.message_id) {
            Some(number) => *number,
            None if self.remembered.contains(&score.message_id) => {
                self.counts.orphaned += 1;
                return;
            }
            None => return self.hold(&score.message_id, candidate),
        };
        let timed = match self.open.get_mut(&number) {
            Some(timed) => {
                if !timed.changed {
                    timed.changed = true;
                    self.changed.push(number);
                }
                Some(timed)
            }
            None => self.answered.get_mut(&number).map(|it| &mut it.timed),
        };
        if let Some(timed) = timed {
            candidate.arrival.at = (now - timed.origin).max(Micros(0));
            timed.mailbox.take(candidate);
            let bytes = timed.mailbox.bytes();
            self.bytes += bytes - timed.bytes;
            timed.bytes = bytes;
            self.make_room(now, effects);
        }
    }

    /// Keeps a score that came before its request.
    fn hold(&mut self, message_id: &str, orphan: Orphan) {
        let message_id: Text = message_id.into();
        self.orphan_bytes += orphan_bytes(&orphan, &message_id);
        self.orphan_order
            .push_back((orphan.arrival.at, message_id.clone()));
        self.orphans.entry(message_id).or_default().push(orphan);
        while self.orphan_bytes > self.limits.orphan_bytes_max
            || self.orphan_order.len() > 2 * self.limits.mailboxes_max
        {
            let Some((came, message_id)) = self.orphan_order.pop_front() else {
                break;
            };
            self.forget_orphan(&message_id, came);
        }
    }

    /// Gives up the scores that came up to a time, or all of them.
    fn forget_orphans(&mut self, up_to: Option<Micros>) {
        while let Some((came, _)) = self.orphan_order.front() {
            if up_to.is_some_and(|up_to| *came > up_to) {
                break;
            }
            if let Some((came, message_id)) = self.orphan_order.pop_front() {
                self.forget_orphan(&message_id, came);
            }
        }
    }

    fn forget_orphan(&mut self, message_id: &Text, came: Micros) {
        // Where the request has come since, there is nothing to forget.
        let Some(waiting) = self.orphans.get_mut(message_id) else {
            return;
        };
        if let Some(index) = waiting.iter().position(|orphan| orphan.arrival.at == came) {
            let orphan = waiting.remove(index);
            self.orphan_bytes -= orphan_bytes(&orphan, message_id);
            self.counts.orphaned += 1;
        }
        if waiting.is_empty() {
            self.orphans.remove(message_id);
        }
    }

    fn tick(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        for number in std::mem::take(&mut self.changed) {
            self.decide(number, now, effects);
        }
        while let Some(Reverse((due, number))) = self.timers.peek().copied() {
            if due > now {
                break;
            }
            self.timers.pop();
            if self.open.get(&number).is_some_and(|it| it.due == due) {
                self.decide(number, now, effects);
            } else if self
                .answered
                .get(&number)
                .is_some_and(|it| it.timed.due == due)
                && let Some(answered) = self.answered.remove(&number)
            {
                self.close(answered, effects);
            }
        }
        self.forget_orphans(Some(now - self.limits.orphan_age_max));
    }

    /// Answers a request whose time has come, or sets its timer.
    fn decide(&mut self, number: u64, now: Micros, effects: &mut Vec<Effect>) {
        let Some(timed) = self.open.get_mut(&number) else {
            return;
        };
        timed.changed = false;
        let outcome = timed.mailbox.outcome();
        let due = timed.origin + outcome.at;
        if due <= now {
            self.answer(number, outcome, effects);
        } else if self.scores_ended {
            self.answer_early(number, now, Reason::Shutdown, effects);
        } else if timed.due != due {
            timed.due = due;
            self.set_timer(due, number);
        }
    }

    fn answer_early(
        &mut self,
        number: u64,
        now: Micros,
        reason: Reason,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(timed) = self.open.get(&number) {
            // A timer that is due already fires first.
            let outcome = timed.mailbox.outcome();
            let outcome = if timed.origin + outcome.at <= now {
                outcome
            } else {
                timed.mailbox.outcome_now(now - timed.origin, reason)
            };
            self.answer(number, outcome, effects);
        }
    }

    fn answer(&mut self, number: u64, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Some(mut timed) = self.open.remove(&number) else {
            return;
        };
        let answer = timed.mailbox.answer(outcome);
        self.counts.answer(&answer);
        effects.push(Effect::Answer(Box::new(answer)));
        timed.due = timed.origin + timed.mailbox.policy.deadline + self.limits.linger;
        let due = timed.due;
        self.answered.insert(number, Answered { timed, outcome });
        self.set_timer(due, number);
    }

    fn set_timer(&mut self, due: Micros, number: u64) {
        self.timers.push(Reverse((due, number)));
        // Timers that are out of date go when they are due, unless there are too
        // many of them.
        if self.timers.len() > 4 * (self.open.len() + self.answered.len()) + 1024 {
            let open = self.open.iter().map(|(number, it)| (it.due, *number));
            let answered = self
                .answered
                .iter()
                .map(|(number, it)| (it.timed.due, *number));
            self.timers = open.chain(answered).map(Reverse).collect();
        }
    }

    fn close_answered(&mut self, effects: &mut Vec<Effect>) {
        while let Some((_, answered)) = self.answered.pop_first() {
            self.close(answered, effects);
        }
    }

    fn close(&mut self, answered: Answered, effects: &mut Vec<Effect>) {
        let Answered { timed, outcome } = answered;
        self.bytes -= timed.bytes;
        timed.mailbox.count_fates(outcome, &mut self.counts);
        self.known.remove(&timed.mailbox.message_id);
        self.remembered.insert(&timed.mailbox.message_id);
        effects.push(Effect::Decision(Box::new((timed.mailbox, outcome))));
    }
}

#[cfg(test)]
mod tests;
