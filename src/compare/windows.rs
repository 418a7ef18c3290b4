//! Reports of parts of the input: a line a window.

use anyhow::Result;

use crate::compare::args::WindowLength;
use crate::compare::classes::Classes;
use crate::compare::drifting::{Reference, Watched, sorted};
use crate::compare::inputs::Sample;
use crate::compare::label_file::Label;
use crate::compare::legs::{Leg, Observation};
use crate::compare::report::{AnyTime, Both, ChiSquared, DriftTest, GateReport};
use crate::compare::statistics::drift::kolmogorov_smirnov;
use crate::compare::statistics::tables::g_test;
use crate::compare::summary::{any_time_report, report, window};
use crate::compare::tally::{LabelKind, Question, Tally};
use crate::wire::answer::number;
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
    /// What the requests are compared with, if anything.
    pub reference: Option<&'c Reference>,
}

impl WindowParts<'_> {
    /// The intervals of the whole comparison. Only these hold at all times at once.
    fn any_time_report(&self) -> AnyTime {
        let is_plain = self.question.labels == Some(LabelKind::Plain);
        any_time_report(&self.total.sequences, is_plain)
    }
}

/// The requests of one window.
#[derive(Clone, Debug)]
pub struct Window {
    tally: Tally,
    watched: Option<Watched>,
    /// The numbers that base and candidate answered, if answers are numbers.
    numbers: [Sample<f64>; 2],
}

impl Window {
    fn add_numbers(&mut self, seen: &Observation) {
        for (sample, leg) in self.numbers.iter_mut().zip([Leg::Base, Leg::Candidate]) {
            if let Some(number) = seen.answer(leg).and_then(number) {
                sample.add(number);
            }
        }
    }
}

/// What is needed of the window before.
struct Before {
    mix: (Mix, Mix),
    numbers: [Vec<f64>; 2],
}

/// A window with the number of its time span.
struct Spanned {
    span: i64,
    window: Window,
}

/// The windows that fill.
///
/// The time span moves on with the timestamps. A single wrong timestamp, such as one of
/// the far future, must not move it, because all later requests would then be older
/// than the window. So a jump over more than one span needs two requests in a row. The
/// first of them waits in a window of its own.
pub struct Windows {
    length: WindowLength,
    /// A window without a request.
    empty: Window,
    filling: Option<Spanned>,
    /// The window to which one request has jumped.
    ahead: Option<Spanned>,
    /// Whether the last request with a time has jumped ahead.
    has_jumped: bool,
    /// The requests in a row that were behind the window by more than one span.
    behind: u32,
    has_numbers: bool,
    number: u64,
    before: Option<Before>,
}

impl Windows {
    /// Starts without a request. `has_numbers` tells whether answers are numbers instead
    /// of classes.
    pub fn new(
        length: WindowLength,
        question: &Question,
        reference: Option<&Reference>,
        has_numbers: bool,
    ) -> Windows {
        Windows {
            length,
            empty: Window {
                tally: Tally::new(question),
                watched: reference.map(Watched::new),
                numbers: Default::default(),
            },
            filling: None,
            ahead: None,
            has_jumped: false,
            behind: 0,
            has_numbers,
            number: 0,
            before: None,
        }
    }

    /// Adds a request. Returns the windows that it closes, the oldest first. A request
    /// that is older than the window counts in the window, so that windows come in
    /// order.
    pub fn add(
        &mut self,
        seen: &Observation,
        label: Option<&Label>,
        question: &Question,
        classes: &mut Classes,
        reference: Option<&Reference>,
    ) -> Vec<Window> {
        let mut closed = Vec::new();
        let is_ahead = match (self.length, seen.time) {
            (WindowLength::Span(length), Some(time)) => {
                let length = Micros::from_duration(length).0.max(1);
                self.move_on(time.0.div_euclid(length), &mut closed)
            }
            _ => false,
        };
        let place = match is_ahead {
            true => &mut self.ahead,
            false => &mut self.filling,
        };
        let place = place.get_or_insert_with(|| Spanned {
            span: 0,
            window: self.empty.clone(),
        });
        let window = &mut place.window;
        window.tally.add(seen, label, question, classes);
        if let (Some(reference), Some(watched)) = (reference, &mut window.watched) {
            watched.add(reference, seen);
        }
        if self.has_numbers {
            window.add_numbers(seen);
        }
        if let WindowLength::Requests(length) = self.length
            && window.tally.requests >= length
        {
            closed.extend(self.filling.take().map(|it| it.window));
        }
        closed
    }

    /// Moves the windows on to a request of `span`. Returns whether the request belongs to
    /// the window ahead.
    fn move_on(&mut self, span: i64, closed: &mut Vec<Window>) -> bool {
        let Some(filling) = self.filling.as_ref().map(|it| it.span) else {
            self.start(span);
            return false;
        };
        let has_jumped = std::mem::replace(&mut self.has_jumped, span > filling + 1);
        self.behind = match span < filling - 1 {
            true => self.behind + 1,
            false => 0,
        };
        if span > filling + 1 {
            let ahead = self.ahead.as_ref().map(|it| it.span);
            let Some(ahead) = ahead.filter(|_| has_jumped) else {
                // The jump of one request is not followed yet. An earlier lone jump is a
                // window of its own.
                if ahead != Some(span) {
                    closed.extend(self.ahead.take().map(|it| it.window));
                    self.ahead = Some(self.spanned(span));
                }
                return true;
            };
            closed.extend(self.filling.take().map(|it| it.window));
            if ahead <= span {
                self.filling = self.ahead.take();
                return self.move_on(span, closed);
            }
            self.filling = Some(self.spanned(span));
        } else if span == filling + 1 {
            closed.extend(self.filling.take().map(|it| it.window));
            self.start(span);
        } else if self.behind >= 2 {
            // The window itself had a wrong time.
            closed.extend(self.filling.take().map(|it| it.window));
            self.start(span);
            self.behind = 0;
        }
        false
    }

    fn spanned(&self, span: i64) -> Spanned {
        Spanned {
            span,
            window: self.empty.clone(),
        }
    }

    /// Starts to fill the window of `span`.
    fn start(&mut self, span: i64) {
        let ahead = self.ahead.take_if(|ahead| ahead.span == span);
        self.filling = Some(ahead.unwrap_or_else(|| self.spanned(span)));
    }

    /// The windows that are not full, at the end.
    pub fn take_rest(&mut self) -> Vec<Window> {
        let rest = [self.filling.take(), self.ahead.take()];
        rest.into_iter().flatten().map(|it| it.window).collect()
    }

    /// Appends the report of a window.
    pub fn write(&mut self, window: &Window, parts: WindowParts, out: &mut Vec<u8>) -> Result<()> {
        self.number += 1;
        let tally = &window.tally;
        let mut report = report(tally, parts.question, parts.classes, parts.any_time);
        report.window = tally
            .times
            .map(|times| self::window(times, Some(self.number)));
        report.any_time = parts.any_time_report();
        let now = Before {
            mix: tally.confusion.sums(),
            numbers: [0, 1].map(|leg| sorted(window.numbers[leg].values())),
        };
        if let Some(before) = &self.before {
            report.mix = Some(Both {
                base: change(&before.mix.0, &now.mix.0),
                candidate: change(&before.mix.1, &now.mix.1),
            });
            report.shift = self.has_numbers.then(|| Both {
                base: shift(&before.numbers[0], &now.numbers[0]),
                candidate: shift(&before.numbers[1], &now.numbers[1]),
            });
        }
        self.before = Some(now);
        if let (Some(reference), Some(watched)) = (parts.reference, &window.watched) {
            report.drift = watched.drift(reference);
        }
        report.gates = parts.gates;
        serde_json::to_writer(&mut *out, &report)?;
        out.push(b'\n');
        Ok(())
    }
}

/// The test of a change of the mix of classes between two windows.
fn change(before: &[u64], now: &[u64]) -> Option<ChiSquared> {
    let size = before.len().max(now.len());
    let padded = |mix: &[u64]| {
        let mut mix = mix.to_vec();
        mix.resize(size, 0);
        mix
    };
    g_test(&padded(before), &padded(now)).map(Into::into)
}

/// The test of a change of sorted numbers between two windows.
fn shift(before: &[f64], now: &[f64]) -> Option<DriftTest> {
    let (statistic, p_value) = kolmogorov_smirnov(before, now)?;
    Some(DriftTest {
        statistic,
        p_value: Some(p_value),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::compare::legs::Roles;
    use crate::compare::values::Equality;

    /// The numbers of requests of the windows that requests at these seconds make, with
    /// spans of ten seconds; the last ones are those that are not full.
    fn sizes(seconds: &[i64]) -> Vec<u64> {
        let question = Question {
            roles: Roles {
                models: [None, None, None, None],
            },
            equality: Equality::default(),
            slices: Vec::new(),
            needs_input: false,
            labels: None,
        };
        let length = WindowLength::Span(Duration::from_secs(10));
        let mut windows = Windows::new(length, &question, None, false);
        let mut classes = Classes::default();
        let mut closed = Vec::new();
        for second in seconds {
            let seen = Observation {
                message_id: "x",
                time: Some(Micros(second * 1_000_000)),
                model_input: None,
                answered: None,
                is_decision: true,
                scores: [None; 4],
            };
            closed.extend(windows.add(&seen, None, &question, &mut classes, None));
        }
        closed.extend(windows.take_rest());
        closed.iter().map(|it| it.tally.requests).collect()
    }

    #[test]
    fn windows_follow_the_time() {
        assert_eq!(sizes(&[]), [0_u64; 0]);
        assert_eq!(sizes(&[1, 2, 11, 9, 12, 25]), [2, 3, 1]);
        // Rare requests, and a pause.
        assert_eq!(sizes(&[1, 55, 105, 155, 157]), [1, 1, 1, 2]);
        assert_eq!(sizes(&[1, 2, 1001, 1002, 1003]), [2, 3]);
        assert_eq!(sizes(&[1, 1001, 55, 56, 57]), [1, 3, 1]);
    }

    #[test]
    fn one_wrong_time_does_not_freeze_the_windows() {
        const FUTURE: i64 = 253_000_000_000;
        assert_eq!(sizes(&[1, FUTURE, 2, 11, 12, 21]), [2, 2, 1, 1]);
        // At the start, and twice in a row.
        assert_eq!(sizes(&[FUTURE, 1, 2, 3, 11, 21]), [2, 2, 1, 1]);
        assert_eq!(
            sizes(&[1, 2, FUTURE, FUTURE, 3, 4, 11, 21]),
            [2, 3, 1, 1, 1]
        );
        // Again and again.
        let mut often = Vec::new();
        for second in 0..100 {
            often.extend([second, FUTURE + 1000 * second]);
        }
        let found = sizes(&often);
        assert_eq!(
            found.iter().filter(|size| **size == 10).count(),
            10,
            "{found:?}"
        );
        assert_eq!(found.iter().sum::<u64>(), 200);
    }
}
