//! The requests of a merged stream that may still get scores.
//!
//! The records of a stream are only roughly in the order of their times. The *disorder*
//! is the longest time by which a record may come late. When the time of the stream is
//! later than the time of a request by more than the disorder, no further score of the
//! request can follow. So the request is closed.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use crate::join::remembered_ids::RememberedIds;
use crate::join::request_id::{ById, RECORDING_SEED, RequestId};
use crate::wire::micros::Micros;
use crate::wire::text::Text;

/// A time later than the time of any record. When the stream reaches this time, all
/// requests are closed.
pub const END_OF_STREAM: Micros = Micros(i64::MAX);

/// Open requests, and scores that arrived before their request. `R` is the type that
/// stores a request, and `S` the type that stores an early score.
#[derive(Debug)]
pub struct JoinWindow<R, S> {
    disorder: Micros,
    /// The open requests, in the order of opening.
    open: VecDeque<OpenRequest<R>>,
    /// The number of the first open request. Requests are numbered in the order of
    /// opening.
    first: u64,
    /// The numbers of the open requests.
    numbers: ById<u64>,
    closed: RememberedIds,
    early: ById<Vec<S>>,
    /// An entry for each early score, in the order of arrival. When the request takes
    /// the score, the entry stays.
    early_order: VecDeque<(Micros, RequestId)>,
}

#[derive(Debug)]
struct OpenRequest<R> {
    time: Micros,
    id: RequestId,
    request: R,
}

impl<R, S> JoinWindow<R, S> {
    /// Starts without a request. `remembered_max` is the number of closed requests
    /// whose ids are remembered.
    pub fn new(disorder: Micros, remembered_max: usize) -> JoinWindow<R, S> {
        JoinWindow {
            disorder,
            open: VecDeque::new(),
            first: 0,
            numbers: ById::default(),
            closed: RememberedIds::new(remembered_max, RECORDING_SEED),
            early: ById::default(),
            early_order: VecDeque::new(),
        }
    }

    /// Opens a request, and returns it with the scores that arrived before it.
    /// Returns `None` if its id is known, because the request is then a repetition.
    pub fn open(
        &mut self,
        time: Micros,
        id: RequestId,
        request: impl FnOnce(&Text) -> R,
    ) -> Option<(&mut R, Vec<S>)> {
        let number = self.first + self.open.len() as u64;
        match self.numbers.entry(id.clone()) {
            Entry::Vacant(place) if !self.closed.contains_hash(id.hash) => {
                place.insert(number);
            }
            _ => return None,
        }
        let early = match self.early.is_empty() {
            true => Vec::new(),
            false => self.early.remove(&id).unwrap_or_default(),
        };
        let request = request(&id.text);
        self.open.push_back(OpenRequest { time, id, request });
        let opened = self.open.back_mut()?;
        Some((&mut opened.request, early))
    }

    /// The number of open requests.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// The open request with this id.
    pub fn find(&mut self, id: &RequestId) -> Option<&mut R> {
        let number = self.numbers.get(id)?;
        let place = (number - self.first) as usize;
        Some(&mut self.open[place].request)
    }

    /// Keeps a score whose request is not open. If its request is closed, drops the
    /// score and returns false.
    pub fn hold_early(&mut self, time: Micros, id: RequestId, score: S) -> bool {
        if self.closed.contains_hash(id.hash) {
            return false;
        }
        self.early_order.push_back((time, id.clone()));
        self.early.entry(id).or_default().push(score);
        true
    }

    /// The oldest request, if `time` is later than its time by more than the disorder.
    pub fn passed(&self, time: Micros) -> Option<&R> {
        let oldest = self.open.front()?;
        self.has_passed(oldest.time, time)
            .then_some(&oldest.request)
    }

    /// Closes the oldest request.
    pub fn close_oldest(&mut self) {
        if let Some(OpenRequest { id, .. }) = self.open.pop_front() {
            self.first += 1;
            self.numbers.remove(&id);
            self.closed.insert_hash(id.hash);
        }
    }

    /// Drops the early scores whose times are before `time` by more than the disorder.
    /// Returns their number.
    pub fn drop_early_before(&mut self, time: Micros) -> u64 {
        let mut dropped = 0;
        while let Some((of, id)) = self.early_order.front()
            && self.has_passed(*of, time)
        {
            // The first entry of a request removes all scores of the request.
            let scores = self.early.remove(id);
            dropped += scores.map_or(0, |scores| scores.len() as u64);
            self.early_order.pop_front();
        }
        dropped
    }

    fn has_passed(&self, of: Micros, time: Micros) -> bool {
        time == END_OF_STREAM || of + self.disorder < time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::request_id::hash_id;

    fn id(text: &str) -> RequestId {
        RequestId {
            hash: hash_id(text, RECORDING_SEED),
            text: text.into(),
        }
    }

    /// A window in which each request is the list of its scores.
    fn window() -> JoinWindow<Vec<u32>, u32> {
        JoinWindow::new(Micros(10), 2)
    }

    /// Closes the requests that get no more scores when the stream is at `time`.
    fn close(window: &mut JoinWindow<Vec<u32>, u32>, time: Micros) -> Vec<Vec<u32>> {
        let mut closed = Vec::new();
        while let Some(request) = window.passed(time) {
            closed.push(request.clone());
            window.close_oldest();
        }
        closed
    }

    #[test]
    fn a_request_gets_its_scores_from_before_and_after() {
        let mut window = window();
        assert_eq!(window.find(&id("a")), None);
        assert!(window.hold_early(Micros(1), id("a"), 7));
        let (request, early) = window.open(Micros(1), id("a"), |_| vec![1]).unwrap();
        assert_eq!((request.as_slice(), early), (&[1][..], vec![7]));
        window.find(&id("a")).unwrap().push(8);
        assert_eq!(window.open(Micros(6), id("a"), |_| vec![2]), None);
        assert_eq!(window.passed(Micros(11)), None);
        assert_eq!(close(&mut window, Micros(12)), [[1, 8]]);
        assert_eq!(window.find(&id("a")), None);
        assert!(!window.hold_early(Micros(12), id("a"), 9));
        assert_eq!(window.open(Micros(12), id("a"), |_| vec![]), None);
        assert_eq!(window.drop_early_before(END_OF_STREAM), 0);
    }

    #[test]
    fn early_scores_are_dropped_after_the_disorder_and_ids_after_their_number() {
        let mut window = window();
        for score in 0..3 {
            assert!(window.hold_early(Micros(score), id("x"), 1));
        }
        assert_eq!(window.drop_early_before(Micros(10)), 0);
        assert_eq!(window.drop_early_before(Micros(11)), 3);
        assert_eq!(window.drop_early_before(END_OF_STREAM), 0);
        for name in ["a", "b", "c"] {
            window.open(Micros(20), id(name), |_| vec![]).unwrap();
        }
        assert_eq!(close(&mut window, END_OF_STREAM).len(), 3);
        assert!(!window.hold_early(Micros(20), id("c"), 1));
        assert!(window.hold_early(Micros(20), id("a"), 1));
    }
}
