//! All mailboxes of a rendezvous in service, as a pure function: the time is an argument,
//! and [`Mailboxes::step`] returns all outputs as effects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use crate::join::kept_score::{KeptScore, Seat};
use crate::join::remembered_ids::RememberedIds;
use crate::serve::rendezvous::answer::Answer;
use crate::serve::rendezvous::counts::RendezvousCounts;
use crate::serve::rendezvous::decision::{Choice, Reason};
use crate::serve::rendezvous::mailbox::{Mailbox, ScoreRoom, Taken};
use crate::serve::rendezvous::orphans::Orphans;
use crate::serve::rendezvous::policy::{MeasureFrom, Policy};
use crate::wire::message::Score;
use crate::wire::micros::Micros;
use crate::wire::text::Text;

/// An input of the rendezvous.
#[derive(Debug)]
pub enum MailboxEvent<'a> {
    /// A request was read.
    Request(NewRequest<'a>),
    /// A score was read.
    Score {
        /// The score.
        score: &'a Score<'a>,
        /// The number of the score's stream. It is unique in the process.
        stream: u32,
        /// Whether the scores of the stream may answer.
        seat: Seat,
    },
    /// All ready input has been read. Answers are given only now, so that scores that
    /// are read together count together.
    Tick,
    /// Every stream of scores has ended, so no request needs to wait.
    ScoresEnded,
    /// The program must end. Every request is answered, and every mailbox is closed.
    Shutdown,
    /// This policy applies to all requests that arrive from now on.
    Policy(Rc<Policy>),
}

/// A request that was read.
#[derive(Clone, Copy, Debug)]
pub struct NewRequest<'a> {
    /// The id, decoded.
    pub message_id: &'a str,
    /// The whole record.
    pub text: &'a str,
    /// The request's age by the wall clock: the time since its own `timestamp`.
    pub age: Micros,
}

/// An output of the rendezvous.
#[derive(Clone, Debug)]
pub enum MailboxEffect {
    /// A request was answered.
    Answer(Box<Answer>),
    /// A mailbox was closed. The mailbox contains all scores of its request that were
    /// kept.
    Decision(Box<(Mailbox, Choice)>),
}

/// The limits of memory and time.
#[derive(Clone, Copy, Debug)]
pub struct MailboxLimits {
    /// The largest number of mailboxes, open and answered ones together.
    pub mailboxes_max: usize,
    /// The largest memory of all mailboxes, in bytes.
    pub mailbox_bytes_max: usize,
    /// The largest memory of the scores of one mailbox, in bytes.
    pub scores_bytes_max: usize,
    /// An answered mailbox is kept for this long after its deadline, so that late
    /// scores are counted.
    pub linger: Micros,
    /// The number of closed requests whose ids are remembered.
    pub remembered_max: usize,
    /// The seed of the hashes of these ids. Clients must not be able to guess it.
    pub seed: u64,
    /// The largest memory of scores that wait for their requests, in bytes.
    pub orphan_bytes_max: usize,
    /// A score waits at most this long for its request.
    pub orphan_age_max: Micros,
}

/// A mailbox and its times.
#[derive(Debug)]
struct TimedMailbox {
    mailbox: Mailbox,
    /// The request's origin on the program's monotonic clock. The origin is negative
    /// if the request is older than the program.
    origin: Micros,
    /// The time of the mailbox's timer; [`NEVER`] without a timer.
    due: Micros,
    /// Whether the mailbox is in [`Mailboxes::changed`].
    changed: bool,
}

/// An answered mailbox, which is kept for late scores.
#[derive(Debug)]
struct AnsweredMailbox {
    timed: TimedMailbox,
    choice: Choice,
}

/// The time of a timer that is not set.
const NEVER: Micros = Micros(i64::MAX);

/// Sets the timer of a mailbox to `due`. [`NEVER`] removes it.
fn set_timer(
    timers: &mut BTreeSet<(Micros, u64)>,
    number: u64,
    timed: &mut TimedMailbox,
    due: Micros,
) {
    if timed.due != NEVER {
        timers.remove(&(timed.due, number));
    }
    if due != NEVER {
        timers.insert((due, number));
    }
    timed.due = due;
}

impl MailboxLimits {
    /// The limits for the scores of a mailbox. Scores that no answer needs use at most
    /// half of the memory of all mailboxes, so that no flood of them evicts a request.
    /// `spare_bytes` is the present memory of these scores.
    fn room(&self, mailbox: &Mailbox, spare_bytes: usize) -> ScoreRoom {
        let of_one = ScoreRoom::half_named(self.scores_bytes_max.min(self.mailbox_bytes_max));
        let left = (self.mailbox_bytes_max / 2).saturating_sub(spare_bytes);
        ScoreRoom {
            spare_bytes: of_one.spare_bytes.min(mailbox.spare_bytes() + left),
            ..of_one
        }
    }
}

/// All mailboxes of a rendezvous.
#[derive(Debug)]
pub struct Mailboxes {
    policy: Rc<Policy>,
    limits: MailboxLimits,
    /// The numbers of the mailboxes that are not closed, by id.
    numbers: HashMap<Text, u64>,
    remembered: RememberedIds,
    /// Requests without an answer, by number.
    open: BTreeMap<u64, TimedMailbox>,
    answered: BTreeMap<u64, AnsweredMailbox>,
    /// The number of mailboxes that were opened. The next mailbox gets this number.
    opened: u64,
    /// The approximate memory of all mailboxes, in bytes.
    bytes: usize,
    /// The part of `bytes` for scores that no answer needs.
    spare_bytes: usize,
    /// The due time and the number of each mailbox. A mailbox has at most one timer.
    timers: BTreeSet<(Micros, u64)>,
    /// The numbers of mailboxes whose choice may have changed in this wake-up.
    changed: Vec<u64>,
    orphans: Orphans,
    scores_ended: bool,
    /// The counts of all requests and scores.
    pub counts: RendezvousCounts,
    /// The number of scores that were put into a mailbox. Duplicates do not count. A
    /// stream with few of these scores is read more slowly.
    pub kept: u64,
    /// The number of these scores that an answer can need. A stream with few of these
    /// is also read more slowly.
    pub needed: u64,
}

impl Mailboxes {
    /// Starts without a mailbox.
    pub fn new(policy: Rc<Policy>, limits: MailboxLimits) -> Mailboxes {
        Mailboxes {
            policy,
            limits,
            numbers: HashMap::new(),
            remembered: RememberedIds::new(limits.remembered_max, limits.seed),
            open: BTreeMap::new(),
            answered: BTreeMap::new(),
            opened: 0,
            bytes: 0,
            spare_bytes: 0,
            timers: BTreeSet::new(),
            changed: Vec::new(),
            orphans: Orphans::new(limits.orphan_bytes_max),
            scores_ended: false,
            counts: RendezvousCounts::default(),
            kept: 0,
            needed: 0,
        }
    }

    /// Handles an event at the time `now`, and appends the outputs to `effects`.
    /// `now` is on the program's monotonic clock, and never decreases.
    pub fn step(&mut self, event: MailboxEvent, now: Micros, effects: &mut Vec<MailboxEffect>) {
        match event {
            MailboxEvent::Request(request) => self.request(request, now, effects),
            MailboxEvent::Score {
                score,
                stream,
                seat,
            } => self.score(score, stream, seat, now, effects),
            MailboxEvent::Tick => self.tick(now, effects),
            MailboxEvent::ScoresEnded => {
                self.scores_ended = true;
                self.changed.extend(self.open.keys());
                self.tick(now, effects);
                self.close_answered(effects);
            }
            MailboxEvent::Shutdown => {
                self.tick(now, effects);
                while let Some((number, _)) = self.open.first_key_value() {
                    self.answer_early(*number, now, Reason::Shutdown, effects);
                }
                self.close_answered(effects);
                self.counts.orphaned += self.orphans.drop_up_to(Micros(i64::MAX));
            }
            MailboxEvent::Policy(policy) => self.policy = policy,
        }
    }

    /// The time at which a [`Tick`](MailboxEvent::Tick) is due even if no input is
    /// read.
    pub fn next_wake(&self) -> Option<Micros> {
        let timer = self.timers.first().map(|(due, _)| *due);
        let orphan = self.orphans.oldest();
        let orphan = orphan.map(|came| came + self.limits.orphan_age_max);
        timer.into_iter().chain(orphan).min()
    }

    /// Whether every request is answered and every mailbox is closed.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.answered.is_empty()
    }

    /// The number of requests without an answer.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    fn request(&mut self, request: NewRequest, now: Micros, effects: &mut Vec<MailboxEffect>) {
        self.counts.requests += 1;
        if self.numbers.contains_key(request.message_id)
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
        self.numbers.insert(message_id.clone(), number);
        let orphans = self.orphans.take_all(request.message_id);
        let mut mailbox = Mailbox::new(message_id, request.text.into(), policy);
        for mut orphan in orphans {
            orphan.at = (orphan.at - origin).max(Micros(0));
            let taken = mailbox.take(orphan, self.limits.room(&mailbox, self.spare_bytes));
            self.count_refused(taken);
        }
        self.bytes += mailbox.bytes();
        self.spare_bytes += mailbox.spare_bytes();
        let timed = TimedMailbox {
            mailbox,
            origin,
            due: NEVER,
            changed: true,
        };
        self.open.insert(number, timed);
        self.changed.push(number);
        self.make_room(now, effects);
    }

    /// Keeps the mailboxes within their limits. Answered mailboxes are closed first,
    /// then the oldest open one is answered. The newest mailbox always stays.
    fn make_room(&mut self, now: Micros, effects: &mut Vec<MailboxEffect>) {
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

    fn score(
        &mut self,
        score: &Score,
        stream: u32,
        seat: Seat,
        now: Micros,
        effects: &mut Vec<MailboxEffect>,
    ) {
        self.counts.scores += 1;
        let Some(number) = self.numbers.get(&*score.message_id).copied() else {
            return self.hold_early(score, stream, seat, now);
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
        let at = (now - timed.origin).max(Micros(0));
        let taken = mailbox.take_copy(score, at, seat, room);
        self.bytes += mailbox.bytes() - bytes;
        self.spare_bytes += mailbox.spare_bytes() - spare_bytes;
        if let Taken::First { can_matter } = taken {
            self.kept += 1;
            self.needed += u64::from(can_matter);
            if is_open && !timed.changed {
                timed.changed = true;
                self.changed.push(number);
            }
        }
        self.count_refused(taken);
        self.make_room(now, effects);
    }

    /// Counts a score that was refused. The other scores are counted when their
    /// mailbox is closed.
    fn count_refused(&mut self, taken: Taken) {
        if let Taken::Refused(fate) = taken {
            self.counts.fate(fate);
            self.counts.not_kept += 1;
        }
    }

    /// Keeps a score that arrived before its request.
    fn hold_early(&mut self, score: &Score, stream: u32, seat: Seat, now: Micros) {
        let id = &*score.message_id;
        if self.remembered.contains(id) {
            self.counts.orphaned += 1;
        } else if self.orphans.has_room(id, stream) {
            let orphan = KeptScore::of(score, now, seat);
            self.counts.orphaned += self.orphans.hold(id, stream, orphan);
        } else {
            self.counts.orphaned += 1;
            self.counts.not_kept += 1;
        }
    }

    fn tick(&mut self, now: Micros, effects: &mut Vec<MailboxEffect>) {
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
        self.counts.orphaned += self.orphans.drop_up_to(old);
    }

    /// Answers a request if its answer is due. Otherwise sets its timer.
    fn decide(&mut self, number: u64, now: Micros, effects: &mut Vec<MailboxEffect>) {
        let Some(timed) = self.open.get_mut(&number) else {
            return;
        };
        timed.changed = false;
        let choice = timed.mailbox.choice();
        let due = timed.origin + choice.at;
        if due <= now {
            self.answer(number, choice, effects);
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
        effects: &mut Vec<MailboxEffect>,
    ) {
        if let Some(timed) = self.open.get(&number) {
            // If a timer is due already, it fires first.
            let choice = timed.mailbox.choice();
            let choice = if timed.origin + choice.at <= now {
                choice
            } else {
                timed.mailbox.early_choice(now - timed.origin, reason)
            };
            self.answer(number, choice, effects);
        }
    }

    fn answer(&mut self, number: u64, choice: Choice, effects: &mut Vec<MailboxEffect>) {
        let Some(mut timed) = self.open.remove(&number) else {
            return;
        };
        let answer = timed.mailbox.answer(choice);
        self.counts.answer(&answer);
        effects.push(MailboxEffect::Answer(Box::new(answer)));
        let due = timed.origin + timed.mailbox.policy.deadline + self.limits.linger;
        set_timer(&mut self.timers, number, &mut timed, due);
        self.answered
            .insert(number, AnsweredMailbox { timed, choice });
    }

    fn close_answered(&mut self, effects: &mut Vec<MailboxEffect>) {
        while let Some((number, mut answered)) = self.answered.pop_first() {
            set_timer(&mut self.timers, number, &mut answered.timed, NEVER);
            self.close(answered, effects);
        }
    }

    fn close(&mut self, answered: AnsweredMailbox, effects: &mut Vec<MailboxEffect>) {
        let AnsweredMailbox { timed, choice } = answered;
        self.bytes -= timed.mailbox.bytes();
        self.spare_bytes -= timed.mailbox.spare_bytes();
        for (_, fate) in timed.mailbox.fates(choice) {
            self.counts.fate(fate);
        }
        self.numbers.remove(&timed.mailbox.message_id);
        self.remembered.insert(&timed.mailbox.message_id);
        effects.push(MailboxEffect::Decision(Box::new((timed.mailbox, choice))));
    }
}

#[cfg(test)]
mod tests;
