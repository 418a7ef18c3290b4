//! The requests that wait for a program, and the batches that are made from these
//! requests.

use std::collections::VecDeque;
use std::time::Instant;

use crate::serve::score::answer::ModelError;
use crate::serve::score::engine::Finished;
use crate::serve::score::evaluation_time::EvaluationTime;
use crate::serve::score::held::finish;
use crate::serve::score::scoring::{HeldRequest, Scoring};
use crate::wire::micros::Micros;

/// The largest number of bytes of requests that wait. One request is always accepted.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The largest number of bytes of requests in a batch. One request is always accepted.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The requests that wait, in the order of the input.
#[derive(Debug)]
pub struct Waiting {
    requests: VecDeque<(HeldRequest, Instant)>,
    bytes: usize,
    /// The largest number of requests in a batch. It is also the largest number of
    /// requests that wait.
    batch_max: usize,
    /// The time that the program needs for a line.
    pub evaluation_time: EvaluationTime,
}

/// Requests that are sent on one line.
#[derive(Debug, Default)]
pub struct Batch {
    /// The requests, in the order of the input.
    pub requests: Vec<HeldRequest>,
}

impl Waiting {
    /// Starts without requests. At most `batch_max` requests may wait, so that a slow
    /// program does not work on requests whose time-outs are long over.
    pub fn new(batch_max: usize) -> Waiting {
        Waiting {
            requests: VecDeque::new(),
            bytes: 0,
            batch_max,
            evaluation_time: EvaluationTime::default(),
        }
    }

    /// Whether another request may wait.
    pub fn has_room(&self) -> bool {
        self.requests.len() < self.batch_max && self.bytes < WAITING_BYTES_MAX
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The time at which the oldest request began to wait.
    pub fn oldest(&self) -> Option<Instant> {
        self.requests.front().map(|(_, since)| *since)
    }

    /// Adds a valid request.
    pub fn push(&mut self, request: HeldRequest, now: Instant) {
        self.bytes += request.bytes();
        self.requests.push_back((request, now));
    }

    fn pop(&mut self) -> Option<HeldRequest> {
        let (request, _) = self.requests.pop_front()?;
        self.bytes -= request.bytes();
        Some(request)
    }

    /// Removes all requests.
    pub fn take_all(&mut self) -> Vec<HeldRequest> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    /// The next batch; `None` if no request waits. Requests that have become too old
    /// get error scores and are not in the batch.
    pub fn next_batch(&mut self, scoring: &Scoring, finished: &mut Finished) -> Option<Batch> {
        let now = scoring.now();
        let mut batch = Batch::default();
        let mut bytes = 0;
        while batch.requests.len() < self.batch_max && bytes < BATCH_BYTES_MAX {
            let Some(mut request) = self.pop() else {
                break;
            };
            let expected = self.evaluation_time.expected();
            if let Some(error) = too_old(&request, expected, scoring) {
                finish(scoring, &request, &Err(error), Micros(0), finished);
                continue;
            }
            request.begin(now);
            bytes += request.bytes();
            batch.requests.push(request);
        }
        (!batch.requests.is_empty()).then_some(batch)
    }

    /// Gives all requests an error.
    pub fn fail_all(&mut self, scoring: &Scoring, error: &ModelError, finished: &mut Finished) {
        while let Some(request) = self.pop() {
            finish(scoring, &request, &Err(error.clone()), Micros(0), finished);
        }
    }

    /// Gives an error to the requests that have waited since `limit` or longer.
    pub fn fail_older(
        &mut self,
        limit: Option<Instant>,
        scoring: &Scoring,
        error: &ModelError,
        finished: &mut Finished,
    ) {
        while self.oldest().is_some_and(|since| Some(since) <= limit) {
            if let Some(request) = self.pop() {
                finish(scoring, &request, &Err(error.clone()), Micros(0), finished);
            }
        }
    }
}

fn too_old(request: &HeldRequest, expected: Micros, scoring: &Scoring) -> Option<ModelError> {
    scoring.options().skip_older?;
    let age = scoring.age(&request.request().ok()?);
    scoring.too_old(age, expected)
}

impl Batch {
    /// The line to send, without its newline: an array of the inputs, or the only
    /// input.
    pub fn line(&self, is_array: bool) -> Vec<u8> {
        let mut line = Vec::new();
        let mut separator = b'[';
        for held in &self.requests {
            if is_array {
                line.push(separator);
                separator = b',';
            }
            // A held request is valid, so this cannot fail.
            let request = held.request();
            let input = request
                .as_ref()
                .map_or("null", |request| request.model_input);
            line.extend_from_slice(input.as_bytes());
        }
        if is_array {
            line.push(b']');
        }
        line
    }

    /// Gives all requests an error.
    pub fn fail(self, scoring: &Scoring, error: &ModelError, finished: &mut Finished) {
        for request in &self.requests {
            let evaluation = request.evaluation(scoring);
            finish(scoring, request, &Err(error.clone()), evaluation, finished);
        }
    }
}
