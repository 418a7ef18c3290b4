//! Records that were read and are not indexed yet. A [`Batch`] collects them; a
//! [`SealedBatch`] is the content of one call.

use std::time::Instant;

use hyper::body::Bytes;

/// An [`Item`] without its texts.
#[derive(Clone, Copy, Debug)]
struct Entry {
    body_bytes: usize,
    raw_bytes: usize,
    number: u64,
    offset: u64,
    deferral: Option<Deferral>,
}

/// The history of a record that the service has refused temporarily.
#[derive(Clone, Copy, Debug)]
pub struct Deferral {
    /// The time since which the record itself has probably been the cause of its
    /// refusals.
    pub since: Instant,
    /// The number of records that were indexed before the last refusal.
    pub indexed_before: u64,
}

/// One record of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The two lines of `_bulk`: the action and the document.
    pub body: &'a [u8],
    /// The original line, in case the record is rejected.
    pub raw: &'a [u8],
    /// The number of the line in the input.
    pub number: u64,
    /// The offset of the line in the input, in bytes.
    pub offset: u64,
    /// The earlier refusals, if the service has refused the record temporarily.
    pub deferral: Option<Deferral>,
}

/// A growing list of records.
#[derive(Debug, Default)]
pub struct Batch {
    body: Vec<u8>,
    raw: Vec<u8>,
    entries: Vec<Entry>,
    /// The time at which the first record was added.
    since: Option<Instant>,
}

/// The records of one call. The call's thread shares the body.
#[derive(Debug)]
pub struct SealedBatch {
    /// The body of the call: the operations of all records.
    pub body: Bytes,
    raw: Vec<u8>,
    entries: Vec<Entry>,
}

impl Batch {
    /// Adds a record at the end.
    pub fn push(&mut self, item: Item) {
        self.body.extend_from_slice(item.body);
        self.raw.extend_from_slice(item.raw);
        self.since.get_or_insert_with(Instant::now);
        self.entries.push(Entry {
            body_bytes: item.body.len(),
            raw_bytes: item.raw.len(),
            number: item.number,
            offset: item.offset,
            deferral: item.deferral,
        });
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The length of a call with all records, in bytes.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The time at which the first record was added. [`take`](Batch::take) does not
    /// change it.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Removes and returns as many of the first records as fit into a call, but at
    /// least one if the batch is not empty.
    pub fn take(&mut self, records_max: usize, bytes_max: usize) -> SealedBatch {
        let (mut bytes, mut raw_bytes, mut count) = (0, 0, 0);
        for entry in self.entries.iter().take(records_max.max(1)) {
            if count > 0 && bytes + entry.body_bytes > bytes_max {
                break;
            }
            bytes += entry.body_bytes;
            raw_bytes += entry.raw_bytes;
            count += 1;
        }
        let since = self.since.filter(|_| self.entries.len() > count);
        let rest = Batch {
            body: self.body.split_off(bytes),
            raw: self.raw.split_off(raw_bytes),
            entries: self.entries.split_off(count),
            since,
        };
        let Batch {
            body, raw, entries, ..
        } = std::mem::replace(self, rest);
        if self.entries.is_empty() {
            // The next batch will probably have a similar size.
            self.body.reserve(body.len());
            self.raw.reserve(raw.len());
        }
        SealedBatch {
            body: body.into(),
            raw,
            entries,
        }
    }
}

impl SealedBatch {
    /// The number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The records, in order.
    pub fn items(&self) -> impl Iterator<Item = Item<'_>> {
        items(&self.body, &self.raw, &self.entries)
    }

    /// Splits the records into two batches of half the size.
    pub fn halves(self) -> [SealedBatch; 2] {
        let mut batch = Batch::default();
        self.items().for_each(|item| batch.push(item));
        let half = self.len() / 2;
        [
            batch.take(half, usize::MAX),
            batch.take(usize::MAX, usize::MAX),
        ]
    }
}

fn items<'a>(
    mut body: &'a [u8],
    mut raw: &'a [u8],
    entries: &'a [Entry],
) -> impl Iterator<Item = Item<'a>> {
    entries.iter().map(move |entry| {
        let (this_body, rest_of_body) = body.split_at(entry.body_bytes);
        let (this_raw, rest_of_raw) = raw.split_at(entry.raw_bytes);
        (body, raw) = (rest_of_body, rest_of_raw);
        Item {
            body: this_body,
            raw: this_raw,
            number: entry.number,
            offset: entry.offset,
            deferral: entry.deferral,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(texts: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for (index, text) in texts.iter().enumerate() {
            batch.push(Item {
                body: format!("<{text}>").as_bytes(),
                raw: text.as_bytes(),
                number: index as u64 + 1,
                offset: 10 * index as u64,
                deferral: None,
            });
        }
        batch
    }

    fn raws(batch: &SealedBatch) -> Vec<&str> {
        batch
            .items()
            .map(|item| std::str::from_utf8(item.raw).unwrap())
            .collect()
    }

    #[test]
    fn a_call_holds_what_fits_and_one_record_at_least() {
        let mut batch = batch(&["a", "bb", "ccc", "dddd"]);
        let first = batch.take(10, 8);
        assert_eq!(
            (raws(&first), &first.body[..]),
            (vec!["a", "bb"], &b"<a><bb>"[..])
        );
        let second = batch.take(10, 1);
        assert_eq!(raws(&second), ["ccc"]);
        assert!(batch.since().is_some());
        let third = batch.take(1, usize::MAX);
        let last = third.items().next().unwrap();
        assert_eq!((last.number, last.offset), (4, 30));
        assert!(batch.is_empty() && batch.since().is_none() && batch.bytes() == 0);
    }

    #[test]
    fn halves_are_the_whole() {
        let whole = batch(&["a", "bb", "ccc"]).take(3, usize::MAX);
        let [first, second] = whole.halves();
        assert_eq!(
            (raws(&first), raws(&second)),
            (vec!["a"], vec!["bb", "ccc"])
        );
        assert_eq!(second.items().last().unwrap().number, 3);
    }
}
