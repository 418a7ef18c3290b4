//! Records on their way to a safe place.

use std::collections::HashMap;

use crate::bridge::ledger::entry::{Id, Key};

/// A record on its way to a safe place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutputKey(pub u64);

/// What a record will finish when it is safe.
#[derive(Debug)]
pub struct OnTheWay {
    /// The input that the record finishes.
    pub bound: Option<(usize, Key)>,
    /// The output that the record counts for, and its id.
    pub counts_for: Option<(usize, Id)>,
}

/// The records on their way.
#[derive(Debug, Default)]
pub struct Outputs {
    by_key: HashMap<OutputKey, OnTheWay>,
    next: u64,
}

impl Outputs {
    /// Adds a record.
    pub fn add(&mut self, record: OnTheWay) -> OutputKey {
        let key = OutputKey(self.next);
        self.next += 1;
        self.by_key.insert(key, record);
        key
    }

    /// A record that is on its way.
    pub fn get(&self, key: OutputKey) -> Option<&OnTheWay> {
        self.by_key.get(&key)
    }

    /// Removes a record that has arrived.
    pub fn remove(&mut self, key: OutputKey) -> Option<OnTheWay> {
        self.by_key.remove(&key)
    }

    /// Whether no record is on its way.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
