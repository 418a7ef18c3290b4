//! The ledger: which messages are open, and which may be acknowledged.
//!
//! The ledger is a pure function of its events and their times. It reads no clock and
//! speaks to no broker. Its caller tells it what has happened: a message was delivered,
//! a line was given to the program, a record of the program was read, a record is safe.
//! The ledger answers with [`Action`]s: what may be acknowledged, and what has no output.
//!
//! A message has a *position* in its topic. Only positions are remembered as finished,
//! because several records of a topic may have one `messageId`. An input is *open* from
//! its delivery until it is finished. It is *given* when the program has been sent its
//! line, and *bound* when a record that came of it is on its way to a safe place.

mod entry;
mod on_the_way;
mod outputs;
mod partitions;
mod progress;
mod recent;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

pub use crate::bridge::ledger::entry::{Delivery, Id, Key, Position};
pub use crate::bridge::ledger::on_the_way::OutputKey;
pub use crate::bridge::ledger::rules::{
    AckMode, Action, Aside, Delivered, DoneRule, InputCounts, InputRules, Rules,
};

use crate::bridge::ledger::entry::{Entries, Entry, State};
use crate::bridge::ledger::on_the_way::Outputs;
use crate::bridge::ledger::partitions::{Batches, Partitions};
use crate::bridge::ledger::progress::Progress;
use crate::bridge::ledger::recent::Recent;

/// In a program that dies again and again, the next message is given after this time,
/// even if the last one has no output yet.
const SUSPECT_PAUSE: Duration = Duration::from_secs(1);

/// The open messages of all inputs.
#[derive(Debug)]
pub struct Ledger<H> {
    rules: Rules,
    inputs: Vec<InputLedger<H>>,
    /// Given and unbound messages of the rule [`DoneRule::Output`], by id, in the order
    /// in which they were given.
    open_by_id: HashMap<Option<Id>, VecDeque<(usize, Key)>>,
    outputs: Outputs,
    progress: Progress,
    actions: Vec<Action<H>>,
}

/// The open messages of one input.
#[derive(Debug)]
struct InputLedger<H> {
    rules: InputRules,
    entries: Entries<H>,
    /// The messages that were not given to the running program.
    waiting: BTreeSet<Key>,
    /// The message of each line that the running program was sent.
    by_line: HashMap<u64, Key>,
    lines_given: u64,
    partitions: Partitions,
    batches: Batches,
    finished: Recent<Position>,
    /// Messages up to this one are given one at a time, because a program has died with
    /// them in hand.
    suspect: Option<Key>,
    suspect_given_at: Option<Instant>,
    /// No message expires before this time.
    next_expiry: Option<Instant>,
    counts: InputCounts,
}

impl<H: Clone> Ledger<H> {
    /// An empty ledger for these inputs.
    pub fn new(rules: Rules, inputs: Vec<InputRules>) -> Ledger<H> {
        let remembered_max = rules.remembered_max;
        let new_input = |rules| InputLedger {
            rules,
            entries: Entries::new(),
            waiting: BTreeSet::new(),
            by_line: HashMap::new(),
            lines_given: 0,
            partitions: Partitions::default(),
            batches: Batches::default(),
            finished: Recent::new(remembered_max),
            suspect: None,
            suspect_given_at: None,
            next_expiry: None,
            counts: InputCounts::default(),
        };
        Ledger {
            rules,
            inputs: inputs.into_iter().map(new_input).collect(),
            open_by_id: HashMap::new(),
            outputs: Outputs::default(),
            progress: Progress::new(remembered_max),
            actions: Vec::new(),
        }
    }

    /// Takes the actions that the events so far have caused.
    pub fn take_actions(&mut self) -> Vec<Action<H>> {
        std::mem::take(&mut self.actions)
    }

    /// A partition no longer belongs to this input. Its messages that were not given are
    /// forgotten, because another consumer gets them. The given ones stay until their
    /// outputs come, and acknowledge nothing.
    pub fn revoked(&mut self, input: usize, topic: u32, partition: i32) {
        let own = &mut self.inputs[input];
        own.partitions.remove(topic, partition);
        for key in own.entries.of_partition(topic, partition) {
            let own = &mut self.inputs[input];
            if own.waiting.remove(&key) {
                own.counts.revoked += 1;
                self.remove(input, key);
            } else if let Some(entry) = own.entries.get_mut(key) {
                entry.revoked = true;
            }
        }
    }

    /// A message was delivered.
    pub fn delivered(&mut self, input: usize, delivery: Delivery<H>) -> Delivered {
        let own = &mut self.inputs[input];
        let position = delivery.position;
        if let Some(entry) = own.entries.at_position(&position) {
            // Positions are used again if a topic is made anew. Only the same line is
            // the same message.
            if entry.line == delivery.line {
                entry.handle = delivery.handle;
                own.counts.redelivered += 1;
                if std::mem::take(&mut entry.revoked) {
                    own.partitions.reopen(&position);
                }
                return Delivered::Open;
            }
            entry.revoked = true;
            own.entries.forget_position(&position);
        }
        match own.rules.acknowledge {
            AckMode::Prefix => {
                if own.partitions.restarts_at(&position) {
                    self.revoked(input, position.topic, position.partition);
                }
                self.inputs[input].partitions.open(&position);
            }
            AckMode::Single if own.finished.contains(&position) => {
                own.counts.redelivered += 1;
                self.acknowledge(input, position, delivery.batch, delivery.handle);
                return Delivered::Finished;
            }
            AckMode::Single => {}
        }
        self.add(input, delivery)
    }

    fn add(&mut self, input: usize, delivery: Delivery<H>) -> Delivered {
        let own = &mut self.inputs[input];
        own.counts.delivered += 1;
        let id = delivery.id.clone();
        let key = own.entries.add(delivery);
        own.waiting.insert(key);
        if let (DoneRule::Outputs(wanted), Some(id)) = (&own.rules.done, id)
            && self.progress.expect(id, *wanted, (input, key))
        {
            self.finish(input, key);
        }
        Delivered::New(key)
    }

    /// Gives the next message of an input to the program: returns its line. `None` if
    /// there is none, or if the program must finish another one first.
    pub fn give(&mut self, input: usize, now: Instant) -> Option<(Key, &[u8])> {
        let key = loop {
            let key = *self.inputs[input].waiting.first()?;
            if !self.may_give(input, key, now) {
                return None;
            }
            self.inputs[input].waiting.remove(&key);
            if !self.condemns(input, key) {
                break key;
            }
            self.set_aside(input, key, Aside::Condemned);
        };
        let own = &mut self.inputs[input];
        own.lines_given += 1;
        let line = own.lines_given;
        own.by_line.insert(line, key);
        own.suspect_given_at = own.suspect.map(|_| now);
        let expires = own.expires(self.rules.unanswered).map(|age| now + age);
        own.next_expiry = own.next_expiry.or(expires);
        let is_filtered = own.rules.done == DoneRule::Output;
        let entry = own.entries.get_mut(key)?;
        entry.state = State::Given { at: now, line };
        if is_filtered {
            let open = self.open_by_id.entry(entry.id.clone()).or_default();
            open.push_back((input, key));
        }
        Some((key, &entry.line))
    }

    fn condemns(&self, input: usize, key: Key) -> bool {
        let entry = self.inputs[input].entries.get(key);
        entry.is_some_and(|entry| entry.deaths >= self.rules.deaths_max)
    }

    /// Whether the program may have the message now. A program that has died gets the
    /// messages that it had in hand one at a time.
    fn may_give(&mut self, input: usize, key: Key, now: Instant) -> bool {
        let own = &mut self.inputs[input];
        match own.suspect {
            Some(last) if key > last && own.by_line.is_empty() => own.suspect = None,
            Some(_) if !own.by_line.is_empty() => {
                let given = own.suspect_given_at;
                return given.is_some_and(|at| now >= at + SUSPECT_PAUSE);
            }
            _ => {}
        }
        true
    }

    /// Makes room in an input that is finished by age, if it is full: finishes its
    /// oldest messages.
    pub fn make_room(&mut self, input: usize) {
        if !matches!(self.inputs[input].rules.done, DoneRule::Age(_)) {
            return;
        }
        while self.is_full(input) {
            let own = &mut self.inputs[input];
            let Some((key, State::Given { .. })) = own.entries.first() else {
                return;
            };
            own.counts.finished_early += 1;
            self.finish(input, key);
        }
    }

    /// Whether nothing more should be consumed of an input.
    pub fn is_full(&self, input: usize) -> bool {
        let own = &self.inputs[input];
        own.entries.len() >= own.rules.records_max
            || own.entries.bytes() >= own.rules.bytes_max
            || own.partitions.widest() >= own.rules.span_max
    }

    /// The pipe of the program has taken the line of a message.
    pub fn written(&mut self, input: usize, key: Key) {
        if self.inputs[input].rules.done == DoneRule::Written {
            self.finish(input, key);
        }
    }

    /// Finishes what is too old. `now` must not go while the program is not able to
    /// write, since the program could not answer then.
    pub fn expire(&mut self, now: Instant) {
        for input in 0..self.inputs.len() {
            let own = &mut self.inputs[input];
            let Some(age) = own.expires(self.rules.unanswered) else {
                continue;
            };
            if own.next_expiry.is_none_or(|at| now < at) {
                continue;
            }
            own.next_expiry = own.entries.first_given_after(now, age).map(|at| at + age);
            let is_answered = own.is_finished_by_output();
            for key in own.entries.given_until(now, age) {
                if is_answered {
                    self.set_aside(input, key, Aside::Unanswered);
                } else {
                    self.finish(input, key);
                }
            }
        }
    }

    /// The time of the next [`expire`](Ledger::expire) that may have work, and of the
    /// next suspect message.
    pub fn next_wake(&self) -> Option<Instant> {
        let times = self.inputs.iter().flat_map(|own| {
            let suspect = own.suspect_given_at.filter(|_| !own.waiting.is_empty());
            [own.next_expiry, suspect.map(|at| at + SUSPECT_PAUSE)]
        });
        times.flatten().min()
    }

    /// The program has ended. All given messages without an output are given to the next
    /// program, one at a time. `blames` says whether one of these messages may have killed
    /// it. Returns their number.
    pub fn program_ended(&mut self, blames: bool) -> usize {
        self.open_by_id.clear();
        let mut in_hand = 0;
        for input in 0..self.inputs.len() {
            let own = &mut self.inputs[input];
            own.by_line.clear();
            own.lines_given = 0;
            own.next_expiry = None;
            own.suspect_given_at = None;
            let is_finished_by_output = own.is_finished_by_output();
            for key in own.entries.given() {
                let own = &mut self.inputs[input];
                let Some(entry) = own.entries.get_mut(key) else {
                    continue;
                };
                if entry.revoked {
                    own.counts.revoked += 1;
                    self.remove(input, key);
                    continue;
                }
                entry.state = State::Waiting;
                entry.deaths += u32::from(blames);
                entry.is_repeat = true;
                own.waiting.insert(key);
                if is_finished_by_output {
                    own.suspect = own.suspect.max(Some(key));
                }
                in_hand += 1;
            }
        }
        in_hand
    }

    /// Forgets the messages of an input that were not given. Returns their handles.
    pub fn release_waiting(&mut self, input: usize) -> Vec<H> {
        let waiting: Vec<Key> = self.inputs[input].waiting.iter().copied().collect();
        let released = waiting.into_iter().filter_map(|key| {
            self.inputs[input].counts.revoked += 1;
            self.remove(input, key).map(|entry| entry.handle)
        });
        released.collect()
    }

    /// The newest handle of each open message of an input, to keep the messages from
    /// being delivered again.
    pub fn open_handles(&self, input: usize) -> Vec<H> {
        self.inputs[input].entries.handles()
    }

    /// The size of the open messages of an input, in bytes.
    pub fn open_bytes(&self, input: usize) -> usize {
        self.inputs[input].entries.bytes()
    }

    /// The number of open messages of an input.
    pub fn open(&self, input: usize) -> usize {
        self.inputs[input].entries.len()
    }

    /// Whether the message may have been given before, to this program or another.
    pub fn is_repeat(&self, input: usize, key: Key) -> bool {
        let entry = self.inputs[input].entries.get(key);
        entry.is_some_and(|entry| entry.is_repeat)
    }

    /// The counts of an input.
    pub fn counts(&self, input: usize) -> InputCounts {
        self.inputs[input].counts
    }

    /// Finishes a message, and acknowledges it.
    fn finish(&mut self, input: usize, key: Key) {
        let Some(entry) = self.remove(input, key) else {
            return;
        };
        let own = &mut self.inputs[input];
        if entry.revoked {
            own.counts.revoked += 1;
            return;
        }
        own.counts.finished += 1;
        if own.rules.acknowledge == AckMode::Single {
            own.finished.insert(entry.position);
        }
        self.acknowledge(input, entry.position, entry.batch, entry.handle);
    }

    fn acknowledge(&mut self, input: usize, position: Position, batch: u32, handle: H) {
        let own = &mut self.inputs[input];
        match own.rules.acknowledge {
            AckMode::Prefix => {
                if let Some(next) = own.partitions.finish(&position) {
                    let Position {
                        topic, partition, ..
                    } = position;
                    self.actions.push(Action::Commit {
                        input,
                        topic,
                        partition,
                        next,
                    });
                }
            }
            AckMode::Single => {
                if own.batches.finish(position, batch) {
                    self.actions.push(Action::Acknowledge { input, handle });
                }
            }
        }
    }

    /// Removes a message from all indexes.
    fn remove(&mut self, input: usize, key: Key) -> Option<Entry<H>> {
        let own = &mut self.inputs[input];
        let entry = own.entries.remove(key)?;
        own.waiting.remove(&key);
        if let State::Given { line, .. } = entry.state {
            own.by_line.remove(&line);
            if own.rules.done == DoneRule::Output {
                self.forget_open(&entry.id, input, key);
            }
        }
        if let (DoneRule::Outputs(_), Some(id)) = (&self.inputs[input].rules.done, &entry.id) {
            self.progress.forget(id, (input, key));
        }
        Some(entry)
    }

    /// Removes a message from the index by id.
    fn forget_open(&mut self, id: &Option<Id>, input: usize, key: Key) {
        if let Some(open) = self.open_by_id.get_mut(id) {
            open.retain(|it| *it != (input, key));
            if open.is_empty() {
                self.open_by_id.remove(id);
            }
        }
    }

    fn set_aside(&mut self, input: usize, key: Key, reason: Aside) {
        let is_lost = self.inputs[input]
            .entries
            .get(key)
            .is_some_and(|entry| entry.revoked);
        if is_lost {
            self.finish(input, key);
            return;
        }
        let output = self.bind(input, key, None);
        if let Some(entry) = self.inputs[input].entries.get(key) {
            self.actions.push(Action::SetAside {
                input,
                output,
                position: entry.position,
                line: entry.line.clone(),
                reason,
            });
        }
    }
}

impl<H> InputLedger<H> {
    /// Whether outputs finish the messages.
    fn is_finished_by_output(&self) -> bool {
        matches!(self.rules.done, DoneRule::Output | DoneRule::Outputs(_))
    }

    /// How long a given message may stay open; `None` if nothing waits for a time.
    fn expires(&self, unanswered: Duration) -> Option<Duration> {
        match self.rules.done {
            DoneRule::Age(age) => Some(age),
            DoneRule::Output | DoneRule::Outputs(_) => Some(unanswered),
            DoneRule::Written => None,
        }
    }
}
