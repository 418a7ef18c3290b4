//! Records of the program that are on their way to a safe place, and what each finishes.

use crate::bridge::ledger::Ledger;
use crate::bridge::ledger::entry::{Id, Key, State};
use crate::bridge::ledger::on_the_way::{OnTheWay, OutputKey};
use crate::bridge::ledger::rules::DoneRule;

impl<H: Clone> Ledger<H> {
    /// The program has written a record to the output with this index. When the record
    /// is in a safe place, call [`safe`](Ledger::safe).
    pub fn output(&mut self, output: usize, id: Option<&str>) -> OutputKey {
        let id: Option<Id> = id.map(Id::from);
        let open = self.open_by_id.get(&id).and_then(|open| open.front());
        match open.copied() {
            Some((input, key)) => self.bind(input, key, id.map(|id| (output, id))),
            None => self.begin(None, id.map(|id| (output, id))),
        }
    }

    /// The program has written a record about an input that it rejects: line `line` of
    /// the input with this index, if the record names these. When the record is in a
    /// safe place, call [`safe`](Ledger::safe).
    pub fn rejected(
        &mut self,
        input: Option<usize>,
        line: Option<u64>,
        id: Option<&str>,
    ) -> OutputKey {
        let id: Option<Id> = id.map(Id::from);
        match self.find_rejected(input, line, &id) {
            Some((input, key)) => self.bind(input, key, None),
            None => self.begin(None, None),
        }
    }

    fn find_rejected(
        &self,
        input: Option<usize>,
        line: Option<u64>,
        id: &Option<Id>,
    ) -> Option<(usize, Key)> {
        let inputs = match input {
            Some(input) => input..input + 1,
            None => 0..self.inputs.len(),
        };
        let mut inputs = inputs.filter_map(|input| Some((input, self.inputs.get(input)?)));
        inputs.find_map(|(input, own)| {
            let by_line = line.and_then(|line| own.by_line.get(&line));
            // A program that counts lines in another way names another line.
            let by_line = by_line.filter(|key| {
                let entry = own.entries.get(**key);
                entry.is_some_and(|entry| entry.id == *id && is_given(entry.state))
            });
            if let Some(key) = by_line {
                return Some((input, *key));
            }
            let given = own.entries.given();
            let has_id = |key: &Key| own.entries.get(*key).is_some_and(|it| it.id == *id);
            Some((input, given.into_iter().find(has_id)?))
        })
    }

    /// The message itself, unchanged, is the record of an output.
    pub fn output_of(&mut self, input: usize, key: Key, output: usize) -> OutputKey {
        let entry = self.inputs[input].entries.get(key);
        let id = entry.and_then(|entry| entry.id.clone());
        self.bind(input, key, id.map(|id| (output, id)))
    }

    /// A record that came of no input.
    pub fn loose(&mut self) -> OutputKey {
        self.begin(None, None)
    }

    /// The bridge itself has found that a message cannot be worked on.
    pub fn bad_message(&mut self, input: usize, key: Key) -> OutputKey {
        self.bind(input, key, None)
    }

    /// The input that a record finishes: the index of its stream, its line and its
    /// partition, which may decide where the record goes.
    pub fn origin(&self, output: OutputKey) -> Option<(usize, &[u8], i32)> {
        let (input, key) = self.outputs.get(output)?.bound?;
        let entry = self.inputs[input].entries.get(key)?;
        Some((input, &entry.line, entry.position.partition))
    }

    /// The line of an open input with this id, whichever input it is.
    pub fn open_line(&self, id: &str) -> Option<&[u8]> {
        let (input, key) = self.progress.first_open(id)?;
        Some(&self.inputs[input].entries.get(key)?.line)
    }

    /// A record is in a safe place.
    pub fn safe(&mut self, output: OutputKey) {
        let Some(record) = self.outputs.remove(output) else {
            return;
        };
        if let Some((input, key)) = record.bound {
            if self.rules.ordered {
                self.finish_before(input, key);
            }
            self.finish(input, key);
        }
        if let Some((output, id)) = record.counts_for {
            for (input, key) in self.progress.safe(&id, output) {
                self.finish(input, key);
            }
        }
    }

    /// Finishes the inputs that were given before `key` and have no output.
    fn finish_before(&mut self, input: usize, key: Key) {
        for earlier in self.inputs[input].entries.given_before(key) {
            self.finish(input, earlier);
        }
    }

    /// Marks an input as one that a new record finishes.
    pub(super) fn bind(
        &mut self,
        input: usize,
        key: Key,
        counts_for: Option<(usize, Id)>,
    ) -> OutputKey {
        let own = &mut self.inputs[input];
        let is_filtered = own.rules.done == DoneRule::Output;
        let Some(entry) = own.entries.get_mut(key) else {
            return self.begin(None, counts_for);
        };
        let state = std::mem::replace(&mut entry.state, State::Bound);
        let id = entry.id.clone();
        own.waiting.remove(&key);
        if let State::Given { line, .. } = state {
            own.by_line.remove(&line);
            if is_filtered {
                self.forget_open(&id, input, key);
            }
        }
        self.begin(Some((input, key)), counts_for)
    }

    fn begin(&mut self, bound: Option<(usize, Key)>, counts_for: Option<(usize, Id)>) -> OutputKey {
        self.outputs.add(OnTheWay { bound, counts_for })
    }
}

fn is_given(state: State) -> bool {
    matches!(state, State::Given { .. })
}
