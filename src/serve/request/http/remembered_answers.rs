//! The answers of the last calls that brought an id, so that a repeated call is answered
//! at once.

use std::collections::{HashMap, VecDeque};

use hyper::body::Body;
use sha2::{Digest, Sha256};

use crate::serve::request::http::answer::HttpAnswer;
use crate::serve::request::recent_ids::RecentIds;

/// The approximate memory that a remembered answer takes in addition to its id and body:
/// the hash, the headers and the entries of two lists.
const ANSWER_OVERHEAD_BYTES: usize = 1024;

/// The parts of a call that must be equal for the same answer, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a call with this path, `Authorization` header and body.
    pub fn new(path: &str, authorization: &[u8], body: &[u8]) -> Fingerprint {
        let mut hash = Sha256::new();
        for part in [path.as_bytes(), authorization, body] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Fingerprint(hash.finalize().into())
    }
}

/// What is known about an id.
#[derive(Debug)]
pub enum Known {
    /// No call with this id is remembered.
    New,
    /// The same call was answered so.
    Answered(Box<HttpAnswer>),
    /// The id is used: by another call, or by one whose answer is not remembered.
    Used,
}

#[derive(Debug)]
struct Answered {
    fingerprint: Fingerprint,
    answer: HttpAnswer,
    bytes: usize,
}

/// The last answers, bounded in bytes, and the last ids, bounded in their number.
#[derive(Debug)]
pub struct RememberedAnswers {
    answers: HashMap<String, Answered>,
    /// The ids of `answers`, oldest first.
    order: VecDeque<String>,
    bytes: usize,
    bytes_max: usize,
    ids: RecentIds,
}

impl RememberedAnswers {
    /// Remembers answers of at most `bytes_max` bytes together, and at least the last
    /// `ids_min` ids.
    pub fn new(bytes_max: usize, ids_min: usize) -> RememberedAnswers {
        RememberedAnswers {
            answers: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            bytes_max,
            ids: RecentIds::new(ids_min),
        }
    }

    /// What is known about the id of a call with this fingerprint.
    pub fn find(&self, id: &str, fingerprint: Fingerprint) -> Known {
        match self.answers.get(id) {
            Some(answered) if answered.fingerprint == fingerprint => {
                Known::Answered(Box::new(answered.answer.clone()))
            }
            Some(_) => Known::Used,
            None if self.ids.contains(id) => Known::Used,
            None => Known::New,
        }
    }

    /// Remembers that the id is used, and forgets its answer.
    pub fn insert_id(&mut self, id: &str) {
        self.ids.insert(id);
    }

    /// Remembers the answer to a call. Forgets the oldest answers past the limit.
    pub fn insert(&mut self, id: &str, fingerprint: Fingerprint, answer: &HttpAnswer) {
        self.ids.insert(id);
        let body = answer.body().size_hint().lower();
        let body = usize::try_from(body).unwrap_or(usize::MAX);
        let bytes = body.saturating_add(2 * id.len() + ANSWER_OVERHEAD_BYTES);
        if bytes > self.bytes_max || self.answers.contains_key(id) {
            return;
        }
        while self.bytes + bytes > self.bytes_max {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(forgotten) = self.answers.remove(&oldest) {
                self.bytes -= forgotten.bytes;
            }
        }
        self.bytes += bytes;
        self.order.push_back(id.to_owned());
        let answered = Answered {
            fingerprint,
            answer: answer.clone(),
            bytes,
        };
        self.answers.insert(id.to_owned(), answered);
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;
    use crate::serve::request::http::answer::json;

    fn is(known: &Known) -> &str {
        match known {
            Known::New => "new",
            Known::Answered(_) => "answered",
            Known::Used => "used",
        }
    }

    #[test]
    fn only_the_same_call_gets_the_remembered_answer() {
        let mut remembered = RememberedAnswers::new(10_000, 100);
        let print = Fingerprint::new("/predict", b"", b"{}");
        assert_eq!(is(&remembered.find("a", print)), "new");
        let answer = json(StatusCode::OK, "1".into());
        remembered.insert("a", print, &answer);
        assert_eq!(is(&remembered.find("a", print)), "answered");
        for other in [
            Fingerprint::new("/other", b"", b"{}"),
            Fingerprint::new("/predict", b"x", b"{}"),
            Fingerprint::new("/predict", b"", b"[]"),
            Fingerprint::new("/predict{", b"", b"}"),
        ] {
            assert_eq!(is(&remembered.find("a", other)), "used");
        }
        remembered.insert_id("b");
        assert_eq!(is(&remembered.find("b", print)), "used");
    }

    #[test]
    fn answers_are_bounded_in_bytes_and_ids_outlive_them() {
        let mut remembered = RememberedAnswers::new(10_000, 1000);
        let print = Fingerprint::new("", b"", b"");
        for number in 0..100 {
            let answer = json(StatusCode::OK, vec![b'1'; 500].into());
            remembered.insert(&number.to_string(), print, &answer);
            assert!(remembered.bytes <= 10_000);
            assert_eq!(remembered.answers.len(), remembered.order.len());
        }
        assert_eq!(is(&remembered.find("99", print)), "answered");
        assert_eq!(is(&remembered.find("0", print)), "used");
        let long = json(StatusCode::OK, vec![b'1'; 20_000].into());
        remembered.insert("long", print, &long);
        assert_eq!(is(&remembered.find("long", print)), "used");
        assert_eq!(is(&remembered.find("99", print)), "answered");
    }
}
