//! Reports of parts of the input: a line a window.

use anyhow::Result;

use crate::compare::args::WindowLength;
use crate::compare::classes::Classes;
use crate::compare::legs::Observation;
use crate::compare::report::{AnyTime, Both, ChiSquared, GateReport};
use crate::compare::statistics::tables::g_test;
use crate::compare::summary::{any_time_report, report, window};
use crate::compare::tally::{Question, Tally};
use crate::wire::micros::Micros;

/// The counts of classes that a model gave, by the number of the class.
type Mix = Vec<u64>;

/// What a window's report takes from the whole comparison.
pub struct WindowParts<'c> {
    /// What the comparison is asked to do.
    pub question: &'c Question,
    /// The classes.
    pub classes: &'c Classes,
    /// The counts of all requests so far.
    pub total: &'c Tally,
    /// The gates as they are now.
    pub gates: Vec<GateReport>,
    /// Whether the gates are read after every request.
    pub any_time: bool,
}

impl WindowParts<'_> {
    /// The intervals of the whole comparison. Only these hold at all times at once.
    fn any_time_report(&self) -> AnyTime {
        any_time_report(&self.total.sequences, self.question.has_labels)
    }
}

/// The window that fills, and the mix of the window before.
pub struct Windows {
    length: WindowLength,
    filling: Tally,
    /// The number of the time span that fills.
    span: Option<i64>,
    number: u64,
    before: Option<(Mix, Mix)>,
}

impl Windows {
    /// Starts without a request.
    pub fn new(length: WindowLength, question: &Question) -> Windows {
        Windows {
            length,
            filling: Tally::new(question),
            span: None,
            number: 0,
            before: None,
        }
    }

    /// Adds a request. Returns the window that it closes, if any. A request that is
    /// older than the window counts in the window, so that windows come in order.
    pub fn add(
        &mut self,
        seen: &Observation,
        label: Option<&str>,
        question: &Question,
        classes: &mut Classes,
    ) -> Option<Tally> {
        let mut closed = None;
        if let (WindowLength::Span(length), Some(time)) = (self.length, seen.time) {
            let length = Micros::from_duration(length).0.max(1);
            let span = time.0.div_euclid(length);
            if self.span.is_some_and(|filling| filling < span) {
                closed = self.take(question);
            }
            self.span = self.span.max(Some(span));
        }
        self.filling.add(seen, label, question, classes);
        if let WindowLength::Requests(length) = self.length
            && self.filling.requests >= length
        {
            closed = self.take(question);
        }
        closed
    }

    /// The window that fills, unless it is empty.
    pub fn take(&mut self, question: &Question) -> Option<Tally> {
        let filled = std::mem::replace(&mut self.filling, Tally::new(question));
        (filled.requests > 0).then_some(filled)
    }

    /// Appends the report of a window.
    pub fn write(&mut self, tally: &Tally, parts: WindowParts, out: &mut Vec<u8>) -> Result<()> {
        self.number += 1;
        let mut report = report(tally, parts.question, parts.classes, parts.any_time);
        report.window = tally.times.map(|times| window(times, Some(self.number)));
        report.any_time = parts.any_time_report();
        let mix = tally.confusion.sums();
        report.mix = self.before.replace(mix.clone()).map(|before| Both {
            base: change(&before.0, &mix.0),
            candidate: change(&before.1, &mix.1),
        });
        report.gates = parts.gates;
        serde_json::to_writer(&mut *out, &report)?;
        out.push(b'\n');
        Ok(())
    }
}

/// The test of a change between two windows.
fn change(before: &[u64], now: &[u64]) -> Option<ChiSquared> {
    let size = before.len().max(now.len());
    let padded = |mix: &[u64]| {
        let mut mix = mix.to_vec();
        mix.resize(size, 0);
        mix
    };
    g_test(&padded(before), &padded(now)).map(Into::into)
}
