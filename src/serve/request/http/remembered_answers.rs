//! The calls that brought an id: the open ones, and the answers of the last ones, so that
//! a repeated call is answered at once.

use std::collections::{HashMap, HashSet, VecDeque};

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

/// The ids of a call and of its requests.
#[derive(Clone, Debug)]
pub struct CallIds {
    /// The id of the call. If the call has no rows, this is the id of its request.
    pub call: String,
    /// The ids of the rows: ID/0, ID/1, ...
    pub rows: Vec<String>,
}

impl CallIds {
    /// The ids of a call with `rows` rows, or with a single request if there are none.
    pub fn new(call: String, rows: usize) -> CallIds {
        let rows = (0..rows).map(|row| format!("{call}/{row}")).collect();
        CallIds { call, rows }
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.call).chain(&self.rows)
    }
}

/// How a call has ended.
#[derive(Debug)]
pub enum Ended<'a> {
    /// The call got this answer from the pipeline.
    Answered(Fingerprint, &'a HttpAnswer),
    /// The call got no answer in time, so another call cannot use its ids.
    Unanswered,
    /// The pipeline was lost, so the client may try again.
    Lost,
}

/// What is known about the ids of a call.
#[derive(Debug)]
pub enum Known {
    /// No call with one of these ids is remembered.
    New,
    /// A call with one of these ids is open.
    Open,
    /// The same call was answered so.
    Answered(Box<HttpAnswer>),
    /// An id is used: by another call, or by one whose answer is not remembered.
    Used,
}

#[derive(Debug)]
struct Answered {
    fingerprint: Fingerprint,
    answer: HttpAnswer,
    bytes: usize,
}

/// The open calls, the last answers, bounded in bytes, and the last ids, bounded in their
/// number.
#[derive(Debug)]
pub struct RememberedAnswers {
    /// The ids of the open calls and of their rows. A row can be answered long before its
    /// call, so these are not only the ids that the pipeline knows as open.
    open: HashSet<String>,
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
            open: HashSet::new(),
            answers: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            bytes_max,
            ids: RecentIds::new(ids_min),
        }
    }

    /// What is known about the ids of a call with this fingerprint.
    pub fn find(&self, ids: &CallIds, fingerprint: Fingerprint) -> Known {
        match self.answers.get(&ids.call) {
            Some(answered) if answered.fingerprint == fingerprint => {
                Known::Answered(Box::new(answered.answer.clone()))
            }
            Some(_) => Known::Used,
            None if ids.all().any(|id| self.open.contains(id)) => Known::Open,
            None if ids.all().any(|id| self.ids.contains(id)) => Known::Used,
            None => Known::New,
        }
    }

    /// Notes that a call with these ids was sent. Its ids are open until
    /// [`end`](RememberedAnswers::end).
    pub fn begin(&mut self, ids: &CallIds) {
        self.open.extend(ids.all().cloned());
    }

    /// Notes the end of a call.
    pub fn end(&mut self, ids: &CallIds, ended: Ended) {
        for id in ids.all() {
            self.open.remove(id);
            if !matches!(ended, Ended::Lost) {
                self.ids.insert(id);
            }
        }
        if let Ended::Answered(fingerprint, answer) = ended {
            self.insert(&ids.call, fingerprint, answer);
        }
    }

    /// Remembers the answer to a call. Forgets the oldest answers past the limit.
    fn insert(&mut self, id: &str, fingerprint: Fingerprint, answer: &HttpAnswer) {
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
            Known::Open => "open",
            Known::Answered(_) => "answered",
            Known::Used => "used",
        }
    }

    fn one(id: &str) -> CallIds {
        CallIds::new(id.to_owned(), 0)
    }

    #[test]
    fn a_call_and_its_rows_are_open_until_the_call_ends() {
        let print = Fingerprint::new("", b"", b"");
        let answer = json(StatusCode::OK, "1".into());
        for (ended, then, row) in [
            (Ended::Answered(print, &answer), "answered", "used"),
            (Ended::Unanswered, "used", "used"),
            (Ended::Lost, "new", "new"),
        ] {
            let mut remembered = RememberedAnswers::new(10_000, 100);
            let table = CallIds::new("a".to_owned(), 3);
            assert_eq!(is(&remembered.find(&table, print)), "new");
            remembered.begin(&table);
            let shorter = CallIds::new("a".to_owned(), 1);
            for same in [&table, &shorter, &one("a"), &one("a/2")] {
                assert_eq!(is(&remembered.find(same, print)), "open", "{same:?}");
            }
            assert_eq!(is(&remembered.find(&one("a/3"), print)), "new");
            remembered.end(&table, ended);
            assert!(remembered.open.is_empty());
            assert_eq!(is(&remembered.find(&table, print)), then);
            assert_eq!(is(&remembered.find(&one("a/2"), print)), row);
        }
        // An open call with the id of a row.
        let mut remembered = RememberedAnswers::new(10_000, 100);
        remembered.begin(&one("b/1"));
        let table = CallIds::new("b".to_owned(), 2);
        assert_eq!(is(&remembered.find(&table, print)), "open");
        assert_eq!(
            is(&remembered.find(&CallIds::new("b".to_owned(), 1), print)),
            "new"
        );
    }

    #[test]
    fn only_the_same_call_gets_the_remembered_answer() {
        let mut remembered = RememberedAnswers::new(10_000, 100);
        let print = Fingerprint::new("/predict", b"", b"{}");
        assert_eq!(is(&remembered.find(&one("a"), print)), "new");
        let answer = json(StatusCode::OK, "1".into());
        remembered.end(&one("a"), Ended::Answered(print, &answer));
        assert_eq!(is(&remembered.find(&one("a"), print)), "answered");
        for other in [
            Fingerprint::new("/other", b"", b"{}"),
            Fingerprint::new("/predict", b"x", b"{}"),
            Fingerprint::new("/predict", b"", b"[]"),
            Fingerprint::new("/predict{", b"", b"}"),
        ] {
            assert_eq!(is(&remembered.find(&one("a"), other)), "used");
        }
        remembered.end(&one("b"), Ended::Unanswered);
        assert_eq!(is(&remembered.find(&one("b"), print)), "used");
    }

    #[test]
    fn answers_are_bounded_in_bytes_and_ids_outlive_them() {
        let mut remembered = RememberedAnswers::new(10_000, 1000);
        let print = Fingerprint::new("", b"", b"");
        for number in 0..100 {
            let answer = json(StatusCode::OK, vec![b'1'; 500].into());
            remembered.end(&one(&number.to_string()), Ended::Answered(print, &answer));
            assert!(remembered.bytes <= 10_000);
            assert_eq!(remembered.answers.len(), remembered.order.len());
        }
        assert_eq!(is(&remembered.find(&one("99"), print)), "answered");
        assert_eq!(is(&remembered.find(&one("0"), print)), "used");
        let long = json(StatusCode::OK, vec![b'1'; 20_000].into());
        remembered.end(&one("long"), Ended::Answered(print, &long));
        assert_eq!(is(&remembered.find(&one("long"), print)), "used");
        assert_eq!(is(&remembered.find(&one("99"), print)), "answered");
    }
}
