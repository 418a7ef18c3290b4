//! The records that were read and are not indexed yet: gathered in a [`Batch`],
//! sent as a [`Parcel`].

use std::time::Instant;

use hyper::body::Bytes;

/// What is known of one record besides its text.
#[derive(Clone, Copy, Debug)]
struct Entry {
    body_bytes: usize,
    raw_bytes: usize,
    /// The line in the input.
    number: u64,
    /// Its place in the input, in bytes.
    offset: u64,
    put_off: Option<PutOff>,
}

/// The service has not taken a record yet, but may.
#[derive(Clone, Copy, Debug)]
pub struct PutOff {
    /// Since when others were taken between each refusal and the next.
    pub since: Instant,
    /// How many records had been taken at the last refusal.
    pub taken: u64,
}

/// One record of a batch or a parcel.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The two lines that `_bulk` wants: the action and the document.
    pub body: &'a [u8],
    /// The line as it came, in case it is refused.
    pub raw: &'a [u8],
    /// Its number in the input.
    pub number: u64,
    /// Its place in the input, in bytes.
    pub offset: u64,
    /// Where the service has put it off.
    pub put_off: Option<PutOff>,
}

/// Records on their way, in their order.
#[derive(Debug, Default)]
pub struct Batch {
    body: Vec<u8>,
    raw: Vec<u8>,
    entries: Vec<Entry>,
    /// When the first of them came.
    begun: Option<Instant>,
}

/// A batch that may have been sent: its body can be shared with a call.
#[derive(Debug)]
pub struct Parcel {
    /// Of the call.
    pub body: Bytes,
    raw: Vec<u8>,
    entries: Vec<Entry>,
}

impl Batch {
    /// Adds a record at the end.
    pub fn push(&mut self, item: Item) {
        self.body.extend_from_slice(item.body);
        self.raw.extend_from_slice(item.raw);
        self.begun.get_or_insert_with(Instant::now);
        self.entries.push(Entry {
            body_bytes: item.body.len(),
            raw_bytes: item.raw.len(),
            number: item.number,
            offset: item.offset,
            put_off: item.put_off,
        });
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of a call with all of them.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// When the oldest record came.
    pub fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// Takes out as many of the first records as fit into a call: one at least,
    /// of which there has to be one.
    pub fn take(&mut self, records_max: usize, bytes_max: usize) -> Parcel {
        let (mut bytes, mut raw_bytes, mut count) = (0, 0, 0);
        for entry in self.entries.iter().take(records_max.max(1)) {
            if count > 0 && bytes + entry.body_bytes > bytes_max {
                break;
            }
            bytes += entry.body_bytes;
            raw_bytes += entry.raw_bytes;
            count += 1;
        }
        let begun = self.begun.filter(|_| self.entries.len() > count);
        let rest = Batch {
            body: self.body.split_off(bytes),
            raw: self.raw.split_off(raw_bytes),
            entries: self.entries.split_off(count),
            begun,
        };
        let Batch {
            body, raw, entries, ..
        } = std::mem::replace(self, rest);
        if self.entries.is_empty() {
            // The next one will be about as large.
            self.body.reserve(body.len());
            self.raw.reserve(raw.len());
        }
        Parcel {
            body: body.into(),
            raw,
            entries,
        }
    }

    /// The records, in their order.
    pub fn items(&self) -> impl Iterator<Item = Item<'_>> {
        items(&self.body, &self.raw, &self.entries)
    }
}

impl Parcel {
    /// How many records there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The records, in their order.
    pub fn items(&self) -> impl Iterator<Item = Item<'_>> {
        items(&self.body, &self.raw, &self.entries)
    }

    /// The same records as two parcels, of which the first has half of them.
    pub fn halves(self) -> [Parcel; 2] {
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
            put_off: entry.put_off,
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
                put_off: None,
            });
        }
        batch
    }

    fn raws(parcel: &Parcel) -> Vec<&str> {
        parcel
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
        assert!(batch.begun().is_some());
        let third = batch.take(1, usize::MAX);
        let last = third.items().next().unwrap();
        assert_eq!((last.number, last.offset), (4, 30));
        assert!(batch.is_empty() && batch.begun().is_none() && batch.bytes() == 0);
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
