//! Open messages of one input.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// A message of one input, in the order of delivery.
pub type Key = u64;

/// A `messageId`.
pub type Id = Box<str>;

/// The position of a message in its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The number of the topic, as the broker's client counts topics.
    pub topic: u32,
    /// The partition; 0 if the broker has none.
    pub partition: i32,
    /// What tells two uses of one sequence apart: the ledger of Pulsar, or the time at
    /// which NATS has stored the message.
    pub epoch: u64,
    /// The offset or the sequence.
    pub sequence: u64,
    /// The index in a batch that has one sequence.
    pub index: u32,
}

/// A message, as a broker delivers it.
#[derive(Clone, Debug)]
pub struct Delivery<H> {
    /// Its position.
    pub position: Position,
    /// What the broker's client needs to acknowledge it.
    pub handle: H,
    /// The `messageId`, if the record has one.
    pub id: Option<Id>,
    /// The line for the program, without its newline.
    pub line: Box<[u8]>,
    /// Whether the broker says that it may have delivered the message before.
    pub is_repeat: bool,
    /// The number of messages that are acknowledged together with it; 1 without a batch.
    pub batch: u32,
}

/// The state of an open message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The program was not given it.
    Waiting,
    /// The program was given it as its line with this number.
    Given {
        /// When.
        at: Instant,
        /// The number of the line, from 1 for each program.
        line: u64,
    },
    /// A record that came of it is on its way.
    Bound,
}

/// An open message.
#[derive(Debug)]
pub struct Entry<H> {
    /// Its position.
    pub position: Position,
    /// What the broker's client needs to acknowledge it.
    pub handle: H,
    /// The `messageId`, if the record has one.
    pub id: Option<Id>,
    /// The line for the program, without its newline.
    pub line: Box<[u8]>,
    /// Whether the message may have been given before.
    pub is_repeat: bool,
    /// The number of messages that are acknowledged together with it.
    pub batch: u32,
    /// Its state.
    pub state: State,
    /// Whether its partition now belongs to another consumer.
    pub revoked: bool,
    /// The number of deaths of a program that had the message in hand.
    pub deaths: u32,
}

/// The open messages of one input, in the order of delivery.
#[derive(Debug)]
pub struct Entries<H> {
    by_key: BTreeMap<Key, Entry<H>>,
    by_position: HashMap<Position, Key>,
    next_key: Key,
    bytes: usize,
}

impl<H: Clone> Entries<H> {
    /// Adds a delivered message.
    pub fn add(&mut self, delivery: Delivery<H>) -> Key {
        let key = self.next_key;
        self.next_key += 1;
        self.bytes += delivery.line.len();
        self.by_position.insert(delivery.position, key);
        let entry = Entry {
            position: delivery.position,
            handle: delivery.handle,
            id: delivery.id,
            line: delivery.line,
            is_repeat: delivery.is_repeat,
            batch: delivery.batch,
            state: State::Waiting,
            revoked: false,
            deaths: 0,
        };
        self.by_key.insert(key, entry);
        key
    }

    /// The handles of the messages that still belong to this consumer.
    pub fn handles(&self) -> Vec<H> {
        let own = self.by_key.values().filter(|entry| !entry.revoked);
        own.map(|entry| entry.handle.clone()).collect()
    }
}

impl<H> Entries<H> {
    /// No messages.
    pub fn new() -> Entries<H> {
        Entries {
            by_key: BTreeMap::new(),
            by_position: HashMap::new(),
            next_key: 0,
            bytes: 0,
        }
    }

    /// The number of messages.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The size of all lines.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The message with this key.
    pub fn get(&self, key: Key) -> Option<&Entry<H>> {
        self.by_key.get(&key)
    }

    /// The message with this key.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Entry<H>> {
        self.by_key.get_mut(&key)
    }

    /// The message at this position.
    pub fn at_position(&mut self, position: &Position) -> Option<&mut Entry<H>> {
        self.by_key.get_mut(self.by_position.get(position)?)
    }

    /// The message at this position is no longer found there.
    pub fn forget_position(&mut self, position: &Position) {
        self.by_position.remove(position);
    }

    /// Removes a message.
    pub fn remove(&mut self, key: Key) -> Option<Entry<H>> {
        let entry = self.by_key.remove(&key)?;
        self.bytes -= entry.line.len();
        if self.by_position.get(&entry.position) == Some(&key) {
            self.by_position.remove(&entry.position);
        }
        Some(entry)
    }

    /// The oldest message and its state.
    pub fn first(&self) -> Option<(Key, State)> {
        let (key, entry) = self.by_key.first_key_value()?;
        Some((*key, entry.state))
    }

    /// The messages of a partition.
    pub fn of_partition(&self, topic: u32, partition: i32) -> Vec<Key> {
        let is_of = |it: &Position| it.topic == topic && it.partition == partition;
        let all = self.by_key.iter();
        all.filter(|(_, entry)| is_of(&entry.position))
            .map(|(key, _)| *key)
            .collect()
    }

    /// The messages that were given and have no output.
    pub fn given(&self) -> Vec<Key> {
        let is_given = |entry: &Entry<H>| matches!(entry.state, State::Given { .. });
        let all = self.by_key.iter();
        all.filter(|(_, entry)| is_given(entry))
            .map(|(key, _)| *key)
            .collect()
    }

    /// The messages before `key` that were given and have no output.
    pub fn given_before(&self, key: Key) -> Vec<Key> {
        let is_given = |entry: &Entry<H>| matches!(entry.state, State::Given { .. });
        let earlier = self.by_key.range(..key);
        earlier
            .filter(|(_, entry)| is_given(entry))
            .map(|(key, _)| *key)
            .collect()
    }

    /// The messages without an output that were given `age` or longer before `now`.
    pub fn given_until(&self, now: Instant, age: Duration) -> Vec<Key> {
        let times = self.given_times();
        times
            .take_while(|(_, at)| *at + age <= now)
            .map(|(key, _)| key)
            .collect()
    }

    /// When the first message was given that is younger than `age` at `now`.
    pub fn first_given_after(&self, now: Instant, age: Duration) -> Option<Instant> {
        let mut times = self.given_times();
        times.find(|(_, at)| *at + age > now).map(|(_, at)| at)
    }

    /// The given messages without an output, with their times. Messages are given in the
    /// order of their keys, so the times ascend.
    fn given_times(&self) -> impl Iterator<Item = (Key, Instant)> {
        self.by_key
            .iter()
            .filter_map(|(key, entry)| match entry.state {
                State::Given { at, .. } => Some((*key, at)),
                _ => None,
            })
    }
}
