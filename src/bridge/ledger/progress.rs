//! In which outputs a record of each id is safe.

use std::collections::HashMap;

use crate::bridge::ledger::entry::{Id, Key};
use crate::bridge::ledger::recent::Recent;

/// The state of the ids whose inputs are finished by several outputs.
#[derive(Debug)]
pub struct Progress {
    open: HashMap<Id, OpenId>,
    /// The outputs of ids that have no open input any more.
    closed: Recent<Id, u64>,
}

#[derive(Debug, Default)]
struct OpenId {
    /// The open inputs, and the outputs that each needs.
    inputs: Vec<((usize, Key), u64)>,
    /// The outputs in which a record is safe, as a mask.
    safe: u64,
}

impl Progress {
    /// Remembers at most `max` ids without an open input.
    pub fn new(max: usize) -> Progress {
        Progress {
            open: HashMap::new(),
            closed: Recent::new(max),
        }
    }

    /// An input with this id is open, and needs the outputs `wanted`. Returns whether a
    /// record is safe in all of them already.
    pub fn expect(&mut self, id: Id, wanted: u64, input: (usize, Key)) -> bool {
        let safe_before = self.closed.get_mut(&id).map_or(0, |safe| *safe);
        let open = self.open.entry(id).or_default();
        open.safe |= safe_before;
        open.inputs.push((input, wanted));
        open.safe & wanted == wanted
    }

    /// A record with this id is safe in an output. Returns the inputs that are finished
    /// by it.
    pub fn safe(&mut self, id: &Id, output: usize) -> Vec<(usize, Key)> {
        let bit = 1 << output;
        let Some(open) = self.open.get_mut(id) else {
            if let Some(safe) = self.closed.get_mut(id) {
                *safe |= bit;
            }
            return Vec::new();
        };
        open.safe |= bit;
        let safe = open.safe;
        let finished = open
            .inputs
            .iter()
            .filter(|(_, wanted)| safe & wanted == *wanted);
        finished.map(|(input, _)| *input).collect()
    }

    /// The oldest open input with this id.
    pub fn first_open(&self, id: &str) -> Option<(usize, Key)> {
        let open = self.open.get(id)?;
        open.inputs.first().map(|(input, _)| *input)
    }

    /// An input is no longer open.
    pub fn forget(&mut self, id: &Id, input: (usize, Key)) {
        let Some(open) = self.open.get_mut(id) else {
            return;
        };
        open.inputs.retain(|(it, _)| *it != input);
        if open.inputs.is_empty() {
            let safe = open.safe;
            self.open.remove(id);
            if safe != 0 {
                self.closed.set(id.clone(), safe);
            }
        }
    }
}
