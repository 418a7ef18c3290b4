//! Collects the messages of the tasks: warnings, invalid responses, and changed counts.
//! Only the main task has the stage and can print.

use std::cell::{Cell, RefCell};

use anyhow::Result;
use tokio::sync::Notify;

use crate::stage::Stage;
use crate::wire::lines::{KeptLine, Line, OVERSIZED_HEAD_BYTES};
use crate::wire::reject::Reject;

/// The largest number of warnings that wait to be printed; further warnings are dropped.
/// There are few kinds of warnings, and the stage limits how often it prints each kind.
const WARNINGS_MAX: usize = 100;

/// While the invalid responses that wait to be printed take more memory than this, no
/// response is read.
const INVALID_BYTES_MAX: usize = 1 << 20;

/// The approximate memory that an invalid response takes in addition to its bytes.
const INVALID_OVERHEAD_BYTES: usize = 256;

/// A line of the responses that is not a valid response.
#[derive(Debug)]
struct InvalidResponse {
    input: String,
    line: KeptLine,
    reject: Reject,
}

/// The messages that are not printed yet.
#[derive(Debug)]
pub struct Reports {
    invalid_responses: RefCell<Vec<InvalidResponse>>,
    /// The memory of the invalid responses.
    invalid_bytes: Cell<usize>,
    /// Wakes the reader of the responses.
    invalid_responses_taken: Notify,
    /// Each warning with its key. The stage limits how often it prints warnings with
    /// one key.
    warnings: RefCell<Vec<(&'static str, String)>>,
    /// Whether a count has changed since the counts were last shown.
    counted: Cell<bool>,
    something_to_do: Notify,
}

impl Reports {
    /// Starts with nothing to report except the initial counts.
    pub fn new() -> Reports {
        Reports {
            invalid_responses: RefCell::default(),
            invalid_bytes: Cell::new(0),
            invalid_responses_taken: Notify::new(),
            warnings: RefCell::default(),
            counted: Cell::new(true),
            something_to_do: Notify::new(),
        }
    }

    /// Reports a warning. The stage limits how often it prints warnings with one
    /// `key`.
    pub fn warn(&self, key: &'static str, message: String) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < WARNINGS_MAX {
            warnings.push((key, message));
        }
        self.something_to_do.notify_one();
    }

    /// Reports a line of the responses that must be set aside.
    pub fn reject(&self, input: &str, line: &Line, reject: Reject) {
        debug_assert!(line.oversized.is_none() || line.bytes.len() <= OVERSIZED_HEAD_BYTES);
        let bytes = line.bytes.len() + INVALID_OVERHEAD_BYTES;
        self.invalid_bytes.set(self.invalid_bytes.get() + bytes);
        self.invalid_responses.borrow_mut().push(InvalidResponse {
            input: input.to_owned(),
            line: line.into(),
            reject,
        });
        self.something_to_do.notify_one();
    }

    /// Waits until the invalid responses that wait to be printed take less memory than
    /// their limit.
    pub async fn room_for_rejects(&self) {
        while self.invalid_bytes.get() > INVALID_BYTES_MAX {
            self.invalid_responses_taken.notified().await;
        }
    }

    /// Notes that a count has changed. Only the first change since the counts were
    /// shown wakes the main task. A wake-up for each call would cost more than the
    /// counting.
    pub fn note_count(&self) {
        if !self.counted.replace(true) {
            self.something_to_do.notify_one();
        }
    }

    /// Whether a count has changed since the counts were last shown.
    pub fn has_counted(&self) -> bool {
        self.counted.get()
    }

    /// Notes that the counts are shown.
    pub fn counts_shown(&self) {
        self.counted.set(false);
    }

    /// Waits until there is a message to print or a changed count to show.
    pub async fn something_to_do(&self) {
        self.something_to_do.notified().await;
    }

    /// Prints the warnings and sets aside the invalid responses. Fails if a response
    /// cannot be set aside, or with --strict.
    pub fn report_to(&self, stage: &mut Stage) -> Result<()> {
        self.invalid_bytes.set(0);
        self.invalid_responses_taken.notify_one();
        for invalid in self.invalid_responses.take() {
            let line = invalid.line.line();
            stage
                .report
                .reject(&invalid.input, &line, &invalid.reject)?;
        }
        for (key, message) in self.warnings.take() {
            stage.report.warn_seldom(key, &message);
        }
        stage.report.flush()
    }
}
