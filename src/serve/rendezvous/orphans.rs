//! Scores that arrived before their requests, with limits of bytes and age.
//!
//! Each score is in two linked lists, both in the order of arrival: the list of its
//! stream, and the list of its id. So no operation becomes slower when many scores wait.
//! If the limit of bytes is exceeded, the stream with the most bytes loses its oldest
//! score. So a stream that floods loses its own scores, and the other streams keep
//! theirs.

use std::collections::{BTreeMap, HashMap};

use crate::join::kept_score::KeptScore;
use crate::serve::rendezvous::mailbox::score_bytes;
use crate::wire::micros::Micros;
use crate::wire::text::Text;

/// The largest number of scores with one id that wait from one stream. When the request
/// arrives, all its waiting scores are handled in one wake-up, which must be short. So
/// further scores are orphaned at once.
const OF_ONE_ID_MAX: u32 = 512;

/// The approximate memory of a waiting score without its texts, in bytes: its slot, its
/// entries in the lists and the map, and the headers of its allocations.
const SLOT_BYTES: usize = size_of::<Slot>() + size_of::<IdQueue>() + 160;

/// An index that refers to no slot.
const NOWHERE: usize = usize::MAX;

/// The scores that wait for their requests.
#[derive(Debug)]
pub struct Orphans {
    bytes_max: usize,
    slots: Vec<Slot>,
    /// The first free slot. Free slots are linked by `of_id.next`.
    free: usize,
    by_id: HashMap<Text, IdQueue>,
    /// The queue of each stream that has a waiting score.
    by_stream: BTreeMap<u32, StreamQueue>,
    bytes: usize,
    count: usize,
}

/// A slot: a waiting score with its links in both lists, or a free slot.
#[derive(Debug)]
struct Slot {
    held: Option<HeldScore>,
    of_stream: SlotLinks,
    of_id: SlotLinks,
}

/// A score that waits for its request.
#[derive(Debug)]
struct HeldScore {
    message_id: Text,
    stream: u32,
    /// The score. Its time `at` is measured from the program's start.
    score: KeptScore,
    bytes: usize,
}

/// The neighbours of a slot in one list.
#[derive(Clone, Copy, Debug)]
struct SlotLinks {
    previous: usize,
    next: usize,
}

/// The scores of one stream, oldest first.
#[derive(Debug, Default)]
struct StreamQueue {
    ends: QueueEnds,
    bytes: usize,
}

/// The scores with one id, oldest first.
#[derive(Debug, Default)]
struct IdQueue {
    ends: QueueEnds,
    /// For each stream: its number, and the number of its scores with this id.
    counts: Vec<(u32, u32)>,
}

/// The first and the last slot of a list.
#[derive(Clone, Copy, Debug)]
struct QueueEnds {
    first: usize,
    last: usize,
}

impl Default for QueueEnds {
    fn default() -> QueueEnds {
        QueueEnds {
            first: NOWHERE,
            last: NOWHERE,
        }
    }
}

impl Orphans {
    /// Starts without a score. All scores together may take `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Orphans {
        Orphans {
            bytes_max,
            slots: Vec::new(),
            free: NOWHERE,
            by_id: HashMap::new(),
            by_stream: BTreeMap::new(),
            bytes: 0,
            count: 0,
        }
    }

    /// The approximate memory of the scores, in bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The arrival of the oldest score, measured from the program's start.
    pub fn oldest(&self) -> Option<Micros> {
        let firsts = self.by_stream.values().map(|queue| queue.ends.first);
        firsts.filter_map(|first| self.came(first)).min()
    }

    fn came(&self, slot: usize) -> Option<Micros> {
        let held = self.slots.get(slot)?.held.as_ref()?;
        Some(held.score.at)
    }

    /// Whether one more score with this id from this stream may wait.
    pub fn has_room(&self, message_id: &str, stream: u32) -> bool {
        let same_id = self.by_id.get(message_id);
        same_id.is_none_or(|same_id| same_id.count(stream) < OF_ONE_ID_MAX)
    }

    /// Adds a score. Returns how many scores were dropped to make room. If the score
    /// is larger than the limit, it is dropped, too.
    pub fn hold(&mut self, message_id: &str, stream: u32, score: KeptScore) -> u64 {
        let message_id = match self.by_id.get_key_value(message_id) {
            Some((shared, _)) => shared.clone(),
            None => message_id.into(),
        };
        let bytes = SLOT_BYTES + message_id.len() + score_bytes(&score);
        let queue = self.by_stream.entry(stream).or_default();
        let same_id = self.by_id.entry(message_id.clone()).or_default();
        same_id.add(stream);
        let slot = Slot {
            of_stream: queue.ends.next_links(),
            of_id: same_id.ends.next_links(),
            held: Some(HeldScore {
                message_id,
                stream,
                score,
                bytes,
            }),
        };
        let place = if self.free == NOWHERE {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let place = self.free;
            self.free = self.slots[place].of_id.next;
            self.slots[place] = slot;
            place
        };
        let before = (queue.ends.last, same_id.ends.last);
        queue.ends.append(place);
        queue.bytes += bytes;
        same_id.ends.append(place);
        if let Some(of_stream) = self.slots.get_mut(before.0) {
            of_stream.of_stream.next = place;
        }
        if let Some(of_id) = self.slots.get_mut(before.1) {
            of_id.of_id.next = place;
        }
        self.bytes += bytes;
        self.count += 1;
        let mut dropped = 0;
        while self.bytes > self.bytes_max && self.drop_oldest_of_largest() {
            dropped += 1;
        }
        dropped
    }

    /// Drops the oldest score of the stream with the most bytes. There are as many
    /// streams as pipes, and every wake-up polls each pipe anyway, so a loop over the
    /// streams is cheap.
    fn drop_oldest_of_largest(&mut self) -> bool {
        let largest = self.by_stream.values().max_by_key(|queue| queue.bytes);
        let first = largest.map(|queue| queue.ends.first);
        first.is_some_and(|first| self.remove(first).is_some())
    }

    /// Removes all scores with an id, and returns them in the order of arrival.
    pub fn take_all(&mut self, message_id: &str) -> Vec<KeptScore> {
        let mut taken = Vec::new();
        // The list is removed together with its last score.
        while let Some(same_id) = self.by_id.get(message_id) {
            let first = same_id.ends.first;
            match self.remove(first) {
                Some(score) => taken.push(score),
                None => break,
            }
        }
        taken
    }

    /// Drops the scores that arrived at `time` or earlier. Returns their number.
    pub fn drop_up_to(&mut self, time: Micros) -> u64 {
        let mut dropped = 0;
        loop {
            let mut firsts = self.by_stream.values().map(|queue| queue.ends.first);
            let old = firsts.find(|first| self.came(*first).is_some_and(|came| came <= time));
            match old.and_then(|old| self.remove(old)) {
                Some(_) => dropped += 1,
                None => return dropped,
            }
        }
    }

    /// Removes the score of a slot from both lists.
    fn remove(&mut self, place: usize) -> Option<KeptScore> {
        let slot = self.slots.get_mut(place)?;
        let HeldScore {
            message_id,
            stream,
            score,
            bytes,
        } = slot.held.take()?;
        let (of_stream, of_id) = (slot.of_stream, slot.of_id);
        slot.of_id.next = self.free;
        self.free = place;
        self.unlink(of_stream, |slot| &mut slot.of_stream);
        self.unlink(of_id, |slot| &mut slot.of_id);
        if let Some(queue) = self.by_stream.get_mut(&stream) {
            queue.ends.remove(place, of_stream);
            queue.bytes -= bytes;
            if queue.ends.first == NOWHERE {
                self.by_stream.remove(&stream);
            }
        }
        if let Some(same_id) = self.by_id.get_mut(&message_id) {
            same_id.ends.remove(place, of_id);
            same_id.remove(stream);
            if same_id.ends.first == NOWHERE {
                self.by_id.remove(&message_id);
            }
        }
        self.bytes -= bytes;
        self.count -= 1;
        if self.count == 0 {
            // This frees the memory that a flood has used.
            *self = Orphans::new(self.bytes_max);
        }
        Some(score)
    }

    /// Links the neighbours of a slot to each other, in the list that `of` selects.
    fn unlink(&mut self, links: SlotLinks, of: fn(&mut Slot) -> &mut SlotLinks) {
        if let Some(previous) = self.slots.get_mut(links.previous) {
            of(previous).next = links.next;
        }
        if let Some(next) = self.slots.get_mut(links.next) {
            of(next).previous = links.previous;
        }
    }
}

impl QueueEnds {
    /// The links of the slot that is appended next.
    fn next_links(self) -> SlotLinks {
        SlotLinks {
            previous: self.last,
            next: NOWHERE,
        }
    }

    fn append(&mut self, place: usize) {
        if self.first == NOWHERE {
            self.first = place;
        }
        self.last = place;
    }

    /// Updates the ends of the list when a slot with these links is removed.
    fn remove(&mut self, place: usize, links: SlotLinks) {
        if self.first == place {
            self.first = links.next;
        }
        if self.last == place {
            self.last = links.previous;
        }
    }
}

impl IdQueue {
    fn count(&self, stream: u32) -> u32 {
        let of_stream = self.counts.iter().find(|(of, _)| *of == stream);
        of_stream.map_or(0, |(_, count)| *count)
    }

    fn add(&mut self, stream: u32) {
        match self.counts.iter_mut().find(|(of, _)| *of == stream) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((stream, 1)),
        }
    }

    fn remove(&mut self, stream: u32) {
        if let Some((_, count)) = self.counts.iter_mut().find(|(of, _)| *of == stream) {
            *count -= 1;
        }
        self.counts.retain(|(_, count)| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::kept_score::Seat;
    use crate::wire::message::OutcomeKind;
    use proptest::prelude::*;

    fn score(at: i64, text: &str) -> KeptScore {
        KeptScore {
            model_name: "dt".into(),
            model_version: 1,
            model_hash: None,
            at: Micros(at),
            kind: OutcomeKind::Result,
            outcome: text.into(),
            seat: Seat::Model,
        }
    }

    fn texts(scores: Vec<KeptScore>) -> Vec<String> {
        let texts = scores.iter().map(|score| score.outcome.to_string());
        texts.collect()
    }

    #[test]
    fn a_flood_pushes_out_its_own_scores_and_nobody_elses() {
        let mut orphans = Orphans::new(100_000);
        assert_eq!(orphans.hold("early", 1, score(0, "early")), 0);
        let mut dropped = 0;
        for number in 0..10_000 {
            dropped += orphans.hold(&format!("r{number}"), 2, score(1, "junk"));
            assert!(orphans.bytes() <= 100_000);
        }
        assert!(dropped > 9_000, "{dropped}");
        assert_eq!(texts(orphans.take_all("early")), ["early"]);
    }

    #[test]
    fn of_one_id_a_stream_may_hold_so_many_and_the_others_theirs() {
        let mut orphans = Orphans::new(usize::MAX);
        for _ in 0..OF_ONE_ID_MAX {
            assert!(orphans.has_room("a", 1));
            orphans.hold("a", 1, score(0, "x"));
        }
        assert!(!orphans.has_room("a", 1));
        assert!(orphans.has_room("a", 2) && orphans.has_room("b", 1));
        assert_eq!(orphans.take_all("a").len(), OF_ONE_ID_MAX as usize);
        assert_eq!((orphans.bytes(), orphans.slots.len()), (0, 0));
    }

    #[derive(Clone, Debug)]
    enum Act {
        Hold { id: u8, stream: u32 },
        Adopt { id: u8 },
        GiveUp { age: i64 },
    }

    fn any_act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => (0u8..6, 0u32..4).prop_map(|(id, stream)| Act::Hold { id, stream }),
            1 => (0u8..6).prop_map(|id| Act::Adopt { id }),
            1 => (0i64..30).prop_map(|age| Act::GiveUp { age }),
        ]
    }

    proptest! {
        /// Compares the implementation with a plain list.
        #[test]
        fn it_holds_what_a_plain_list_would_hold(acts in proptest::collection::vec(any_act(), 0..200)) {
            const MANY: usize = 20;
            let one = {
                let mut orphans = Orphans::new(usize::MAX);
                orphans.hold("i", 0, score(0, "xxx"));
                orphans.bytes()
            };
            let mut orphans = Orphans::new(MANY * one);
            let mut list: Vec<(u8, u32, i64)> = Vec::new();
            for (now, act) in (100i64..).zip(&acts) {
                match *act {
                    Act::Hold { id, stream } => {
                        list.push((id, stream, now));
                        let mut dropped = 0;
                        while list.len() > MANY {
                            // The stream with the most bytes loses its oldest score; of
                            // equal streams, the one with the highest number. All
                            // scores here have equal sizes, so counting them is enough.
                            let held = |stream: u32| list.iter().filter(|it| it.1 == stream).count();
                            let largest = (0..4).max_by_key(|stream| held(*stream)).unwrap();
                            let oldest = list.iter().position(|it| it.1 == largest).unwrap();
                            list.remove(oldest);
                            dropped += 1;
                        }
                        let text = format!("{now:03}");
                        prop_assert_eq!(orphans.hold(&id.to_string(), stream, score(now, &text)), dropped);
                    }
                    Act::Adopt { id } => {
                        let expected: Vec<String> =
                            list.iter().filter(|it| it.0 == id).map(|it| format!("{:03}", it.2)).collect();
                        list.retain(|it| it.0 != id);
                        prop_assert_eq!(texts(orphans.take_all(&id.to_string())), expected);
                    }
                    Act::GiveUp { age } => {
                        let before = list.len();
                        list.retain(|it| it.2 > now - age);
                        let dropped = (before - list.len()) as u64;
                        prop_assert_eq!(orphans.drop_up_to(Micros(now - age)), dropped);
                    }
                }
                prop_assert_eq!(orphans.bytes(), list.len() * one);
                prop_assert_eq!(orphans.oldest(), list.first().map(|it| Micros(it.2)));
                for (id, stream) in (0u8..6).flat_map(|id| (0u32..4).map(move |it| (id, it))) {
                    let held = list.iter().filter(|it| (it.0, it.1) == (id, stream)).count();
                    let group = orphans.by_id.get(&*id.to_string());
                    prop_assert_eq!(group.map_or(0, |group| group.count(stream)), held as u32);
                }
            }
        }
    }
}
