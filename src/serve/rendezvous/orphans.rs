//! Scores that wait for their requests, bounded in bytes and in age.
//!
//! Every score is in two linked lists: that of its stream, in the order of arrival,
//! and that of its id. So each operation costs the same however many scores wait.
//! Past the bound the stream that holds the most loses its oldest score, so a stream
//! that floods pushes out its own scores and nobody else's.

use std::collections::{BTreeMap, HashMap};

use crate::serve::rendezvous::mailbox::Candidate;
use crate::wire::micros::Micros;
use crate::wire::text::Text;

/// The most scores of one id that wait from one stream: adopting them is the work of
/// one moment. Further ones are orphaned at once.
const OF_ONE_ID_MAX: u32 = 512;

/// About what a waiting score takes beside its texts: its slot, its places in the
/// lists and the map, and the heads of its allocations.
const SLOT_BYTES: usize = size_of::<Slot>() + size_of::<Group>() + 160;

/// Where there is no slot.
const NOWHERE: usize = usize::MAX;

/// The scores that wait.
#[derive(Debug)]
pub struct Orphans {
    bytes_max: usize,
    slots: Vec<Slot>,
    /// The first of the free slots, which are linked by `of_id.next`.
    free: usize,
    by_id: HashMap<Text, Group>,
    /// Only streams of which scores wait.
    by_stream: BTreeMap<u32, Line>,
    bytes: usize,
    count: usize,
}

#[derive(Debug)]
struct Slot {
    waiting: Option<Waiting>,
    of_stream: Links,
    of_id: Links,
}

/// A score that waits.
#[derive(Debug)]
struct Waiting {
    message_id: Text,
    stream: u32,
    /// Its arrival counts from the program's start until it has a request.
    score: Candidate,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    previous: usize,
    next: usize,
}

/// The scores of one stream, the oldest first.
#[derive(Debug, Default)]
struct Line {
    ends: Ends,
    bytes: usize,
}

/// The scores of one id, the oldest first.
#[derive(Debug, Default)]
struct Group {
    ends: Ends,
    /// How many are of which stream.
    counts: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: usize,
    last: usize,
}

impl Default for Ends {
    fn default() -> Ends {
        Ends {
            first: NOWHERE,
            last: NOWHERE,
        }
    }
}

impl Orphans {
    /// No score waits yet. `bytes_max` bounds them all.
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

    /// How many bytes they take.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest one came.
    pub fn oldest(&self) -> Option<Micros> {
        let firsts = self.by_stream.values().map(|line| line.ends.first);
        firsts.filter_map(|first| self.came(first)).min()
    }

    fn came(&self, slot: usize) -> Option<Micros> {
        let waiting = self.slots.get(slot)?.waiting.as_ref()?;
        Some(waiting.score.arrival.at)
    }

    /// Whether one more score of this id may wait, from this stream.
    pub fn has_room(&self, message_id: &str, stream: u32) -> bool {
        let group = self.by_id.get(message_id);
        group.is_none_or(|group| group.count(stream) < OF_ONE_ID_MAX)
    }

    /// Keeps a score. Returns how many were given up for it, itself too where it is
    /// over the bound alone.
    pub fn hold(&mut self, message_id: &str, stream: u32, score: Candidate) -> u64 {
        let message_id = match self.by_id.get_key_value(message_id) {
            Some((shared, _)) => shared.clone(),
            None => message_id.into(),
        };
        let bytes = SLOT_BYTES + message_id.len() + score.bytes();
        let line = self.by_stream.entry(stream).or_default();
        let group = self.by_id.entry(message_id.clone()).or_default();
        group.add(stream);
        let slot = Slot {
            of_stream: line.ends.before_new(),
            of_id: group.ends.before_new(),
            waiting: Some(Waiting {
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
        let before = (line.ends.last, group.ends.last);
        line.ends.append(place);
        line.bytes += bytes;
        group.ends.append(place);
        if let Some(of_stream) = self.slots.get_mut(before.0) {
            of_stream.of_stream.next = place;
        }
        if let Some(of_id) = self.slots.get_mut(before.1) {
            of_id.of_id.next = place;
        }
        self.bytes += bytes;
        self.count += 1;
        let mut given_up = 0;
        while self.bytes > self.bytes_max && self.give_up_of_largest() {
            given_up += 1;
        }
        given_up
    }

    /// Gives up the oldest score of the stream that holds the most. The number of
    /// streams is that of the pipes, each of which is polled before every wake-up.
    fn give_up_of_largest(&mut self) -> bool {
        let largest = self.by_stream.values().max_by_key(|line| line.bytes);
        let first = largest.map(|line| line.ends.first);
        first.is_some_and(|first| self.remove(first).is_some())
    }

    /// Takes out all scores of an id, in the order in which they came.
    pub fn adopt(&mut self, message_id: &str) -> Vec<Candidate> {
        let mut adopted = Vec::new();
        // The last one takes the group away.
        while let Some(group) = self.by_id.get(message_id) {
            let first = group.ends.first;
            match self.remove(first) {
                Some(score) => adopted.push(score),
                None => break,
            }
        }
        adopted
    }

    /// Gives up the scores that came up to a time. Returns how many.
    pub fn give_up_to(&mut self, time: Micros) -> u64 {
        let mut given_up = 0;
        loop {
            let mut firsts = self.by_stream.values().map(|line| line.ends.first);
            let old = firsts.find(|first| self.came(*first).is_some_and(|came| came <= time));
            match old.and_then(|old| self.remove(old)) {
                Some(_) => given_up += 1,
                None => return given_up,
            }
        }
    }

    /// Takes the score of a slot out of all lists.
    fn remove(&mut self, place: usize) -> Option<Candidate> {
        let slot = self.slots.get_mut(place)?;
        let Waiting {
            message_id,
            stream,
            score,
            bytes,
        } = slot.waiting.take()?;
        let (of_stream, of_id) = (slot.of_stream, slot.of_id);
        slot.of_id.next = self.free;
        self.free = place;
        self.unlink(of_stream, |slot| &mut slot.of_stream);
        self.unlink(of_id, |slot| &mut slot.of_id);
        if let Some(line) = self.by_stream.get_mut(&stream) {
            line.ends.forget(place, of_stream);
            line.bytes -= bytes;
            if line.ends.first == NOWHERE {
                self.by_stream.remove(&stream);
            }
        }
        if let Some(group) = self.by_id.get_mut(&message_id) {
            group.ends.forget(place, of_id);
            group.remove(stream);
            if group.ends.first == NOWHERE {
                self.by_id.remove(&message_id);
            }
        }
        self.bytes -= bytes;
        self.count -= 1;
        if self.count == 0 {
            // One flood must not cost its memory for ever.
            *self = Orphans::new(self.bytes_max);
        }
        Some(score)
    }

    /// Joins the neighbours of a slot in one of its lists.
    fn unlink(&mut self, links: Links, of: fn(&mut Slot) -> &mut Links) {
        if let Some(previous) = self.slots.get_mut(links.previous) {
            of(previous).next = links.next;
        }
        if let Some(next) = self.slots.get_mut(links.next) {
            of(next).previous = links.previous;
        }
    }
}

impl Ends {
    /// The links of a slot that is about to be appended.
    fn before_new(self) -> Links {
        Links {
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

    /// Takes a slot with these links out of the ends.
    fn forget(&mut self, place: usize, links: Links) {
        if self.first == place {
            self.first = links.next;
        }
        if self.last == place {
            self.last = links.previous;
        }
    }
}

impl Group {
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
    use crate::serve::rendezvous::decision::Arrival;
    use proptest::prelude::*;

    fn score(at: i64, text: &str) -> Candidate {
        Candidate {
            arrival: Arrival {
                model_name: "dt".into(),
                model_version: 1,
                at: Micros(at),
                failed: false,
            },
            model_hash: None,
            outcome: text.into(),
        }
    }

    fn texts(scores: Vec<Candidate>) -> Vec<String> {
        let texts = scores.iter().map(|score| score.outcome.to_string());
        texts.collect()
    }

    #[test]
    fn a_flood_pushes_out_its_own_scores_and_nobody_elses() {
        let mut orphans = Orphans::new(100_000);
        assert_eq!(orphans.hold("early", 1, score(0, "early")), 0);
        let mut given_up = 0;
        for number in 0..10_000 {
            given_up += orphans.hold(&format!("r{number}"), 2, score(1, "junk"));
            assert!(orphans.bytes() <= 100_000);
        }
        assert!(given_up > 9_000, "{given_up}");
        assert_eq!(texts(orphans.adopt("early")), ["early"]);
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
        assert_eq!(orphans.adopt("a").len(), OF_ONE_ID_MAX as usize);
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
        /// Against a list that is gone through from end to end.
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
                        let mut given_up = 0;
                        while list.len() > MANY {
                            // Of streams that hold as much, the last one.
                            let held = |stream: u32| list.iter().filter(|it| it.1 == stream).count();
                            let largest = (0..4).max_by_key(|stream| held(*stream)).unwrap();
                            let oldest = list.iter().position(|it| it.1 == largest).unwrap();
                            list.remove(oldest);
                            given_up += 1;
                        }
                        let text = format!("{now:03}");
                        prop_assert_eq!(orphans.hold(&id.to_string(), stream, score(now, &text)), given_up);
                    }
                    Act::Adopt { id } => {
                        let expected: Vec<String> =
                            list.iter().filter(|it| it.0 == id).map(|it| format!("{:03}", it.2)).collect();
                        list.retain(|it| it.0 != id);
                        prop_assert_eq!(texts(orphans.adopt(&id.to_string())), expected);
                    }
                    Act::GiveUp { age } => {
                        let before = list.len();
                        list.retain(|it| it.2 > now - age);
                        let given_up = (before - list.len()) as u64;
                        prop_assert_eq!(orphans.give_up_to(Micros(now - age)), given_up);
                    }
                }
                prop_assert_eq!(orphans.bytes(), list.len() * one);
                prop_assert_eq!(orphans.oldest(), list.first().map(|it| Micros(it.2)));
            }
        }
    }
}
