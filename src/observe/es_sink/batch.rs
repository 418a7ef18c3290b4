//! The records that were read and are not indexed yet, in their order.

use std::time::Instant;

/// One record on its way.
#[derive(Clone, Debug)]
pub struct Item {
    /// The two lines that `_bulk` wants: the action and the document.
    pub body: Vec<u8>,
    /// The line as it came, in case it is refused.
    pub raw: Vec<u8>,
    /// Its number in the input.
    pub number: u64,
    /// Its place in the input, in bytes.
    pub offset: u64,
}

/// What a call is made of.
#[derive(Debug, Default)]
pub struct Batch {
    items: Vec<Item>,
    /// The length of all bodies.
    bytes: usize,
    /// When the first of them came.
    begun: Option<Instant>,
}

impl Batch {
    /// Adds a record at the end.
    pub fn push(&mut self, item: Item) {
        self.bytes += item.body.len();
        self.begun.get_or_insert_with(Instant::now);
        self.items.push(item);
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The bytes of a call with all of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest record came.
    pub fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// How many of the first records fit into a call: one at least.
    pub fn call_records(&self, records_max: usize, bytes_max: usize) -> usize {
        let mut bytes = 0;
        let fitting = self.items.iter().take_while(|item| {
            bytes += item.body.len();
            bytes <= bytes_max
        });
        fitting.count().clamp(1, records_max)
    }

    /// The bytes of a call with the first `count`.
    pub fn bytes_of(&self, count: usize) -> usize {
        let first = self.items.iter().take(count);
        first.map(|item| item.body.len()).sum()
    }

    /// A call with the first `count`.
    pub fn body(&self, count: usize) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.bytes_of(count));
        for item in self.items.iter().take(count) {
            body.extend_from_slice(&item.body);
        }
        body
    }

    /// Takes out the first `count`.
    pub fn take_first(&mut self, count: usize) -> Vec<Item> {
        let taken: Vec<Item> = self.items.drain(..count.min(self.items.len())).collect();
        self.bytes -= taken.iter().map(|item| item.body.len()).sum::<usize>();
        if self.items.is_empty() {
            self.begun = None;
        }
        taken
    }

    /// Takes out the first, of which there has to be one.
    pub fn remove_first(&mut self) -> Item {
        self.take_first(1).remove(0)
    }

    /// Puts records back in front, to be sent again first.
    pub fn put_back(&mut self, items: Vec<Item>) {
        if items.is_empty() {
            return;
        }
        self.bytes += items.iter().map(|item| item.body.len()).sum::<usize>();
        self.begun.get_or_insert_with(Instant::now);
        self.items.splice(..0, items);
    }
}
