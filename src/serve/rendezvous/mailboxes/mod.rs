//! All mailboxes of a rendezvous in service. Pure: the time is an argument, and
//! what is to be done comes back as effects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use crate::serve::rendezvous::counts::Counts;
use crate::serve::rendezvous::decision::{Arrival, Outcome, Reason};
use crate::serve::rendezvous::mailbox::{Answer, Candidate, Mailbox, Room, Taken};
use crate::serve::rendezvous::orphans::Orphans;
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
    Score {
        /// The score.
        score: &'a Score<'a>,
        /// The number of the stream that brought it. A stream is not older than the
        /// run, and no two have one number.
        stream: u32,
    },
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
    /// How much memory the scores of one of them may take, in bytes.
    pub scores_bytes_max: usize,
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
    /// When to look at it next.
    due: Micros,
    /// Whether it is among those that are decided at the next tick.
    changed: bool,
}

/// An answered mailbox, which waits for late scores.
#[derive(Debug)]
struct Answered {
    timed: Timed,
    outcome: Outcome,
}

/// The time of no timer.
const NEVER: Micros = Micros(i64::MAX);

/// Puts a mailbox's timer from the time it was set to, if any, to another, if any.
fn set_timer(timers: &mut BTreeSet<(Micros, u64)>, number: u64, timed: &mut Timed, due: Micros) {
    if timed.due != NEVER {
        timers.remove(&(timed.due, number));
    }
    if due != NEVER {
        timers.insert((due, number));
    }
    timed.due = due;
}

impl Limits {
    /// The room for the next score of a mailbox. Scores that no answer needs take at
    /// most half of what all mailboxes may take, `spare_bytes` of it already, so that
    /// no flood of them pushes a request out.
    fn room(&self, mailbox: &Mailbox, spare_bytes: usize) -> Room {
        let of_one = Room::half_named(self.scores_bytes_max.min(self.mailbox_bytes_max));
        let left = (self.mailbox_bytes_max / 2).saturating_sub(spare_bytes);
        Room {
            spare_bytes: of_one.spare_bytes.min(mailbox.spare_bytes() + left),
            ..of_one
        }
    }
}

/// A score as the rules see it.
fn arrival_of(score: &Score, at: Micros) -> Arrival {
    Arrival {
        model_name: Text::from(&*score.model_name),
        model_version: score.model_version,
        at,
        failed: matches!(score.outcome, message::Outcome::Error(_)),
    }
}

/// How long the texts of a score are beside its model's name.
fn text_bytes(score: &Score) -> usize {
    let (message::Outcome::Result(text) | message::Outcome::Error(text)) = score.outcome;
    text.len() + score.model_hash.as_ref().map_or(0, |hash| hash.len())
}

fn candidate_of(score: &Score, arrival: Arrival) -> Candidate {
    let (message::Outcome::Result(text) | message::Outcome::Error(text)) = score.outcome;
    Candidate {
        arrival,
        model_hash: score.model_hash.as_deref().map(Text::from),
        outcome: text.into(),
    }
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
    /// Of these bytes, those of scores that no answer needs.
    spare_bytes: usize,
    /// When to look at which mailbox: one time each, or none.
    timers: BTreeSet<(Micros, u64)>,
    /// Mailboxes whose outcome may have changed in this wake-up.
    changed: Vec<u64>,
    orphans: Orphans,
    scores_ended: bool,
    /// What became of all that was read.
    pub counts: Counts,
    /// Scores so far that came into a mailbox, duplicates left out. A stream that brings
    /// few of them is read more slowly, and so is one of which few are needed.
    pub kept: u64,
    /// Of these, scores that could matter to an answer.
    pub needed: u64,
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
            spare_bytes: 0,
            timers: BTreeSet::new(),
            changed: Vec::new(),
            orphans: Orphans::new(limits.orphan_bytes_max),
            scores_ended: false,
            counts: Counts::default(),
            kept: 0,
            needed: 0,
        }
    }

    /// Takes an event at the time `now`, which never goes back, and appends what
    /// is to be done to `effects`.
    pub fn step(&mut self, event: Event, now: Micros, effects: &mut Vec<Effect>) {
        match event {
            Event::Request(request) => self.request(request, now, effects),
            Event::Score { score, stream } => self.score(score, stream, now, effects),
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
                self.counts.orphaned += self.orphans.give_up_to(Micros(i64::MAX));
            }
            Event::Policy(policy) => self.policy = policy,
        }
    }

    /// When a [`Tick`](Event::Tick) is due though nothing is read.
    pub fn next_wake(&self) -> Option<Micros> {
        let timer = self.timers.first().map(|(due, _)| *due);
        let orphan = self.orphans.oldest();
        let orphan = orphan.map(|came| came + self.limits.orphan_age_max);
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
        let orphans = self.orphans.adopt(request.message_id);
        let mut mailbox = Mailbox::new(message_id, request.text.into(), policy);
        for mut orphan in orphans {
            orphan.arrival.at = (orphan.arrival.at - origin).max(Micros(0));
            let taken = mailbox.put(orphan, self.limits.room(&mailbox, self.spare_bytes));
            self.count_taken(taken);
        }
        self.bytes += mailbox.bytes();
        self.spare_bytes += mailbox.spare_bytes();
        let timed = Timed {
            mailbox,
            origin,
            due: NEVER,
            changed: true,
        };
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
            if let Some((number, mut answered)) = self.answered.pop_first() {
                set_timer(&mut self.timers, number, &mut answered.timed, NEVER);
                self.close(answered, effects);
            }
        }
    }

    fn score(&mut self, score: &Score, stream: u32, now: Micros, effects: &mut Vec<Effect>) {
        self.counts.scores += 1;
        let Some(number) = self.known.get(&*score.message_id).copied() else {
            return self.hold(score, stream, now);
        };
        let limits = self.limits;
        let is_open = self.open.contains_key(&number);
        let timed = match is_open {
            true => self.open.get_mut(&number),
            false => self.answered.get_mut(&number).map(|it| &mut it.timed),
        };
        let Some(timed) = timed else {
            return;
        };
        let mailbox = &mut timed.mailbox;
        let room = limits.room(mailbox, self.spare_bytes);
        let (bytes, spare_bytes) = (mailbox.bytes(), mailbox.spare_bytes());
        let arrival = arrival_of(score, (now - timed.origin).max(Micros(0)));
        let index = &mailbox.policy.index;
        let concerns = index.concerns(&score.model_name, score.model_version);
        let taken = mailbox.take(arrival, text_bytes(score), room, |arrival| {
            candidate_of(score, arrival)
        });
        self.bytes += mailbox.bytes() - bytes;
        self.spare_bytes += mailbox.spare_bytes() - spare_bytes;
        if taken == Taken::First {
            self.kept += 1;
            self.needed += u64::from(concerns);
            if is_open && !timed.changed {
                timed.changed = true;
                self.changed.push(number);
            }
        }
        self.count_taken(taken);
        self.make_room(now, effects);
    }

    /// Counts a score that there was no room for; the others are counted when their
    /// mailbox is closed.
    fn count_taken(&mut self, taken: Taken) {
        if let Taken::Refused(fate) = taken {
            self.counts.fate(fate);
            self.counts.not_kept += 1;
        }
    }

    /// Keeps a score that came before its request.
    fn hold(&mut self, score: &Score, stream: u32, now: Micros) {
        let id = &*score.message_id;
        if self.remembered.contains(id) {
            self.counts.orphaned += 1;
        } else if self.orphans.has_room(id, stream) {
            let orphan = candidate_of(score, arrival_of(score, now));
            self.counts.orphaned += self.orphans.hold(id, stream, orphan);
        } else {
            self.counts.orphaned += 1;
            self.counts.not_kept += 1;
        }
    }

    fn tick(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        for number in std::mem::take(&mut self.changed) {
            self.decide(number, now, effects);
        }
        while let Some((due, number)) = self.timers.first().copied() {
            if due > now {
                break;
            }
            self.timers.pop_first();
            if let Some(timed) = self.open.get_mut(&number) {
                timed.due = NEVER;
                self.decide(number, now, effects);
            } else if let Some(mut answered) = self.answered.remove(&number) {
                answered.timed.due = NEVER;
                self.close(answered, effects);
            }
        }
        let old = now - self.limits.orphan_age_max;
        self.counts.orphaned += self.orphans.give_up_to(old);
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
            set_timer(&mut self.timers, number, timed, due);
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
        let due = timed.origin + timed.mailbox.policy.deadline + self.limits.linger;
        set_timer(&mut self.timers, number, &mut timed, due);
        self.answered.insert(number, Answered { timed, outcome });
    }

    fn close_answered(&mut self, effects: &mut Vec<Effect>) {
        while let Some((number, mut answered)) = self.answered.pop_first() {
            set_timer(&mut self.timers, number, &mut answered.timed, NEVER);
            self.close(answered, effects);
        }
    }

    fn close(&mut self, answered: Answered, effects: &mut Vec<Effect>) {
        let Answered { timed, outcome } = answered;
        self.bytes -= timed.mailbox.bytes();
        self.spare_bytes -= timed.mailbox.spare_bytes();
        timed.mailbox.count_fates(outcome, &mut self.counts);
        self.known.remove(&timed.mailbox.message_id);
        self.remembered.insert(&timed.mailbox.message_id);
        effects.push(Effect::Decision(Box::new((timed.mailbox, outcome))));
    }
}

#[cfg(test)]
mod tests;
