//! The rules of the ledger, and what it asks of its caller.

use std::time::Duration;

use crate::bridge::ledger::entry::{Key, Position};
use crate::bridge::ledger::on_the_way::OutputKey;

/// When an input is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoneRule {
    /// The nth output with an id finishes the nth open input with it.
    Output,
    /// When a record with its id is safe in each of these outputs. The bits of the mask
    /// are the indices of the outputs.
    Outputs(u64),
    /// This long after it was given.
    Age(Duration),
    /// When the program's pipe has taken it.
    Written,
}

/// How a broker takes acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// One position in each partition, up to which everything is finished.
    Prefix,
    /// One acknowledgement for each message.
    Single,
}

/// The rules and bounds of one input.
#[derive(Clone, Debug)]
pub struct InputRules {
    /// When a message is finished.
    pub done: DoneRule,
    /// How the broker takes acknowledgements.
    pub acknowledge: AckMode,
    /// The largest number of open messages.
    pub records_max: usize,
    /// The largest size of all open messages, in bytes.
    pub bytes_max: usize,
    /// The largest number of messages from the first uncommitted one of a partition.
    pub span_max: usize,
}

/// The rules of the whole ledger.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whether an output also finishes all given inputs before its own.
    pub ordered: bool,
    /// A given input is open for at most this long.
    pub unanswered: Duration,
    /// A message that was in hand at so many deaths of the program is condemned.
    pub deaths_max: u32,
    /// The number of finished positions, and of finished ids, that are remembered for
    /// each input.
    pub remembered_max: usize,
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<H> {
    /// Acknowledge one message, or the batch that the message ends.
    Acknowledge {
        /// The index of the input.
        input: usize,
        /// The newest handle of the message.
        handle: H,
    },
    /// Commit the position `next` of a partition: everything before it is finished.
    Commit {
        /// The index of the input.
        input: usize,
        /// The topic of the partition, as in [`Position`].
        topic: u32,
        /// The number of the partition.
        partition: i32,
        /// The first position that is not finished.
        next: u64,
    },
    /// Set this input aside: nothing that the program does will finish it. When it is
    /// in a safe place, tell [`safe`](crate::bridge::ledger::Ledger::safe) so.
    SetAside {
        /// The index of the input.
        input: usize,
        /// The record, on its way to the safe place.
        output: OutputKey,
        /// The position of the message.
        position: Position,
        /// The line.
        line: Box<[u8]>,
        /// Why.
        reason: Aside,
    },
}

/// Why an input is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// The program has written no output for it in time.
    Unanswered,
    /// The program has died too often with it in hand.
    Condemned,
}

/// What became of a delivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It is new and will be given.
    New(Key),
    /// It is open already. Its newer handle has replaced the older one.
    Open,
    /// It is finished already.
    Finished,
}

/// The counts of one input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputCounts {
    /// Messages that were new.
    pub delivered: u64,
    /// Messages that the broker delivered again.
    pub redelivered: u64,
    /// Finished messages.
    pub finished: u64,
    /// Messages that went to another consumer before they were finished.
    pub revoked: u64,
    /// Messages that were finished to make room, before their age.
    pub finished_early: u64,
}
