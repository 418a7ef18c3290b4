//! The comparison itself: counts requests, reads gates, and writes the reports.

use std::fs;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::compare::args::{CompareArgs, Format};
use crate::compare::classes::Classes;
use crate::compare::decisions::read_decision;
use crate::compare::drifting::{Reference, Watched};
use crate::compare::gates::{AnyTimeGate, Figure, Gate, Measure, Verdict, verdict};
use crate::compare::html;
use crate::compare::label_file::{Label, Labels};
use crate::compare::label_summary::{accuracy_loss, candidate_accuracy, kind_of};
use crate::compare::late_labels::LateLabels;
use crate::compare::legs::{Leg, Observation};
use crate::compare::reader::Observer;
use crate::compare::report::{GateReport, RecordCounts, Report};
use crate::compare::statistics::rates::{CONFIDENCE, wilson};
use crate::compare::summary::report;
use crate::compare::table;
use crate::compare::tally::{LabelKind, Question, Tally};
use crate::compare::trend::Trend;
use crate::compare::windows::{WindowParts, Windows};
use crate::stage::Stage;
use crate::stage::stats::Snapshot;
use crate::wire::lines::Line;
use crate::wire::message::Record;

/// A comparison that runs.
pub struct Comparing {
    question: Question,
    format: Format,
    html: Option<String>,
    labels: Option<Labels>,
    /// The searches for the requests of labels that come late.
    late: Option<LateLabels>,
    classes: Classes,
    total: Tally,
    trend: Trend,
    windows: Option<Windows>,
    /// The reference, and the requests that are compared with it.
    drift: Option<(Reference, Watched)>,
    gates: Vec<Gate>,
    /// The same gates, if they are read after every request.
    any_time: Option<Vec<AnyTimeGate>>,
    stops_on_failure: bool,
    has_stopped: bool,
    /// The requests whose model input is known.
    with_input: u64,
    /// The labels that came after their request.
    late_labels: u64,
    has_failed_gate: bool,
    /// The page and its path, when it is ready to be written.
    page: Option<(String, String)>,
}

impl Comparing {
    /// Starts without a request. Reads the labels.
    pub fn open(args: &CompareArgs, question: Question, stage: &mut Stage) -> Result<Comparing> {
        let labels = match args.labels.source() {
            Some(source) if args.labels.live().is_some() => Some(Labels::live(&source)),
            Some(source) => Some(Labels::read(&source, stage)?),
            None => None,
        };
        let late = args.labels.late();
        if let (Some(labels), None) = (&labels, &late) {
            stage.report.info(&format!(
                "{} labels, {} given twice, {} in conflict, {} lines without a label",
                labels.len(),
                labels.repeated,
                labels.conflicting,
                labels.without_label
            ));
        }
        let reference = match (&args.reference, &args.profile) {
            (Some(address), _) => Some(Reference::recorded(address, &question.roles, stage)?),
            (None, Some(path)) => Some(Reference::profile(path, &question.roles)?),
            (None, None) => None,
        };
        let windows = args.window_length().map(|length| {
            let numbers = question.equality.tolerance.is_some();
            Windows::new(length, &question, reference.as_ref(), numbers)
        });
        let gates = args.gates.fail_if.clone();
        Ok(Comparing {
            format: args.format,
            html: args.html.clone(),
            labels,
            late,
            drift: reference.map(|it| {
                let watched = Watched::new(&it);
                (it, watched)
            }),
            classes: Classes::default(),
            total: Tally::new(&question),
            trend: Trend::default(),
            windows,
            any_time: args.gates.any_time.then(|| AnyTimeGate::all(&gates)),
            gates,
            stops_on_failure: args.gates.stop_on_failure,
            has_stopped: false,
            with_input: 0,
            late_labels: 0,
            has_failed_gate: false,
            page: None,
            question,
        })
    }

    /// Takes the label of a request that both models answered. It takes the type of an
    /// answer.
    fn take_label(&mut self, seen: &Observation) -> Option<Label> {
        seen.answer(Leg::Candidate)?;
        let answer = seen.answer(Leg::Base)?;
        self.labels.as_mut()?.take(seen.message_id, answer)
    }

    /// Counts the labels whose requests a search has found, and starts the next search.
    fn search_for_late_labels(&mut self, stage: &mut Stage, is_last: bool) -> Result<()> {
        let Some(late) = &mut self.late else {
            return Ok(());
        };
        let found = late.take(stage)?;
        for line in found.iter().flat_map(|found| &found.decisions) {
            self.add_late_label(line);
        }
        if found.is_some() {
            self.read_gates(stage);
        }
        // A decision from before the first request, or from after the last one, was not
        // counted.
        if let (Some(late), Some(labels)) = (&mut self.late, &self.labels)
            && let Some(times) = self.total.times
            && late.is_due(is_last)
        {
            late.start(labels.ids(), times, stage)?;
        }
        Ok(())
    }

    /// Counts the label of a decision that was read before.
    fn add_late_label(&mut self, line: &[u8]) {
        let Ok(record) = Record::parse(line) else {
            return;
        };
        let Ok(read) = read_decision(&record, &self.question.roles) else {
            return;
        };
        let seen = read.observation();
        match self.take_label(&seen) {
            Some(label) => {
                let (question, classes) = (&self.question, &mut self.classes);
                self.total.add_label(&seen, &label, question, classes);
                self.late_labels += 1;
            }
            // The request is no pair, and never will be.
            None => {
                if let Some(labels) = &mut self.labels {
                    labels.forget(seen.message_id);
                }
            }
        }
    }

    /// Reads the gates. A gate that fails is reported at once.
    fn read_gates(&mut self, stage: &mut Stage) {
        let base_requests = self.total.asked.all;
        for gate in self.any_time.iter_mut().flatten() {
            if gate.read(&self.total.sequences)
                && let Some(figure) = gate.failed_at
            {
                stage.report.warn(&format!(
                    "after {base_requests} requests: {}",
                    failure(&gate.gate, figure)
                ));
                self.has_stopped |= self.stops_on_failure;
            }
        }
    }

    fn any_time_on(&self) -> bool {
        self.any_time.is_some()
    }

    /// The gates as they are now. At the end, a gate without a figure has failed.
    fn gate_reports(&self, is_final: bool) -> Vec<GateReport> {
        match &self.any_time {
            Some(gates) => gates
                .iter()
                .map(|gate| {
                    let now = gate.figure(&self.total.sequences);
                    let is_unknown =
                        is_final && gate.gate.needs_labels() && self.has_only_disagreements();
                    let figure = gate.failed_at.or(now).filter(|_| !is_unknown);
                    let said = match figure {
                        None if is_final => Verdict::Failed,
                        _ => gate.verdict(&self.total.sequences),
                    };
                    gate_report(&gate.gate, figure, said, true)
                })
                .collect(),
            None => self
                .gates
                .iter()
                .map(|gate| {
                    let figure = figure(gate, &self.total, self.question.labels);
                    let said = match figure {
                        None if is_final => Verdict::Failed,
                        _ => verdict(gate, figure),
                    };
                    gate_report(gate, figure, said, false)
                })
                .collect(),
        }
    }

    /// Whether only disagreements have labels, which then give no accuracy.
    fn has_only_disagreements(&self) -> bool {
        let kind = self.question.labels.map(|kind| kind_of(&self.total, kind));
        kind == Some(LabelKind::Disagreements)
    }

    /// Reports the gates that fail, and those that have no figure.
    fn conclude_gates(&self, stage: &mut Stage, reports: &[GateReport]) {
        for (gate, report) in self.gates.iter().zip(reports) {
            let figure = report.figure.zip(report.low.zip(report.high));
            match figure {
                None => {
                    stage.has_findings = true;
                    stage.report.warn(&format!(
                        "the gate '{gate}' fails, because it has no figure: {}",
                        gate.why_absent()
                    ));
                }
                Some(_) if report.state != "failed" => {}
                Some((value, (low, high))) => {
                    stage.has_findings = true;
                    if !self.any_time_on() {
                        let figure = Figure { value, low, high };
                        stage.report.warn(&failure(gate, figure));
                    }
                }
            }
        }
    }

    fn final_report(&self, counts: &RecordCounts) -> Report {
        let mut report = report(
            &self.total,
            &self.question,
            &self.classes,
            self.any_time_on(),
        );
        report.records = Some(*counts);
        report.gates = self.gate_reports(true);
        if let Some((reference, watched)) = &self.drift {
            report.drift = watched.drift(reference);
        }
        report
    }

    /// Reports that flags had no effect, because no record has a model input.
    fn conclude_inputs(&self, stage: &mut Stage) {
        if self.question.needs_input && self.total.requests > 0 && self.with_input == 0 {
            stage.has_findings = true;
            stage.report.warn(
                "no record has a model input, so there are no slices and no drift; give decisions or \
                 scores that keep the input",
            );
        }
    }
}

/// The message about a gate that fails.
fn failure(gate: &Gate, figure: Figure) -> String {
    format!(
        "the gate '{gate}' fails: {:.6}, between {:.6} and {:.6}",
        figure.value, figure.low, figure.high
    )
}

fn gate_report(gate: &Gate, figure: Option<Figure>, said: Verdict, any_time: bool) -> GateReport {
    GateReport {
        gate: gate.to_string(),
        state: match said {
            Verdict::Failed => "failed",
            Verdict::Passed => "passed",
            Verdict::Undecided => "undecided",
        },
        figure: figure.map(|it| it.value),
        low: figure.map(|it| it.low),
        high: figure.map(|it| it.high),
        any_time,
    }
}

/// The figure of a gate that is read once, with its 95 % interval.
fn figure(gate: &Gate, tally: &Tally, labels: Option<LabelKind>) -> Option<Figure> {
    let asked = tally.asked;
    let of = |count: u64, total: u64| wilson(count, total, CONFIDENCE);
    let found = match gate.measure {
        Measure::Disagreement => of(asked.disagreements(), asked.all),
        Measure::Agreement => of(asked.all - asked.disagreements(), asked.all),
        Measure::Failures => of(asked.failed, asked.all),
        Measure::Late => of(asked.late, asked.decided),
        Measure::Absent => of(asked.absent, asked.all),
        Measure::Accuracy => labels.and_then(|kind| candidate_accuracy(tally, kind)),
        Measure::AccuracyLoss => labels.and_then(|kind| accuracy_loss(tally, kind)),
        Measure::Quantile(thousandths) => tally
            .speeds
            .candidate
            .quantile(f64::from(thousandths) / 1e3),
    };
    found.map(|it| Figure {
        value: it.value,
        low: it.low,
        high: it.high,
    })
}

impl Observer for Comparing {
    fn observe(&mut self, stage: &mut Stage, seen: &Observation, out: &mut Vec<u8>) -> Result<()> {
        if self.has_stopped {
            return Ok(());
        }
        self.with_input += u64::from(seen.model_input.is_some());
        if let Some((reference, watched)) = &mut self.drift {
            watched.add(reference, seen);
        }
        let label = self.take_label(seen);
        let label = label.as_ref();
        let is_same = self
            .total
            .add(seen, label, &self.question, &mut self.classes);
        if let Some(is_same) = is_same {
            self.trend.add(is_same, seen.time);
        }
        self.read_gates(stage);
        if let Some(mut windows) = self.windows.take() {
            let reference = self.drift.as_ref().map(|(reference, _)| reference);
            let closed = windows.add(seen, label, &self.question, &mut self.classes, reference);
            for window in closed {
                windows.write(&window, self.window_parts(false), out)?;
            }
            self.windows = Some(windows);
        }
        Ok(())
    }

    fn is_satisfied(&self) -> bool {
        self.has_stopped
    }

    fn take_label_line(&mut self, stage: &mut Stage, input: &str, line: &Line) -> Result<()> {
        let (Some(labels), Some(late)) = (&mut self.labels, &mut self.late) else {
            return Ok(());
        };
        late.note();
        match labels.add_line(line, input)? {
            Ok(()) => Ok(()),
            Err(reject) => stage.report.reject(input, line, &reject),
        }
    }

    fn collect(&mut self, stage: &mut Stage) -> Result<()> {
        self.search_for_late_labels(stage, false)
    }

    fn collecting(&self) -> Option<BorrowedFd<'_>> {
        self.late.as_ref().and_then(LateLabels::done)
    }

    fn collect_due(&self) -> Option<Instant> {
        self.late.as_ref().and_then(LateLabels::due)
    }

    fn collect_rest(&mut self, stage: &mut Stage) -> Result<()> {
        // The first search may have begun before the last labels came, and a search that
        // finds much is cut. Each search leaves fewer labels to search for.
        while let Some(late) = &self.late {
            if !late.wait(stage)? {
                break;
            }
            self.search_for_late_labels(stage, true)?;
            let has_failed = self.late.as_ref().is_some_and(LateLabels::has_failed);
            if has_failed || self.collecting().is_none() {
                break;
            }
        }
        Ok(())
    }

    fn needs_input(&self) -> bool {
        self.question.needs_input
    }

    fn conclude(
        &mut self,
        stage: &mut Stage,
        counts: &RecordCounts,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let report = self.final_report(counts);
        self.conclude_gates(stage, &report.gates);
        self.has_failed_gate = report.gates.iter().any(|gate| gate.state == "failed");
        self.conclude_inputs(stage);
        match (&self.format, self.windows.take()) {
            (_, Some(mut windows)) => {
                for window in windows.take_rest() {
                    windows.write(&window, self.window_parts(true), out)?;
                }
            }
            (Format::Table, None) => out.extend_from_slice(table::text(&report).as_bytes()),
            (Format::Json | Format::Ndjson, None) => {
                serde_json::to_writer(&mut *out, &report)?;
                out.push(b'\n');
            }
        }
        if let Some(path) = &self.html {
            self.page = Some((path.clone(), html::page(&report, &self.trend.steps())));
        }
        Ok(())
    }

    /// Writes the page, after the report. If a gate has failed, a page that cannot be
    /// written does not change the exit status.
    fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        let Some((path, page)) = self.page.take() else {
            return Ok(());
        };
        let written = fs::write(&path, page).with_context(|| format!("{path}: cannot write"));
        match written {
            Err(error) if self.has_failed_gate => {
                stage.report.warn(&format!("{error:#}"));
                Ok(())
            }
            written => written,
        }
    }

    fn snapshot(&self, snapshot: Snapshot) -> Snapshot {
        let total = &self.total;
        let gates = self.any_time.iter().flatten();
        let failed = gates.filter(|gate| gate.failed_at.is_some()).count();
        snapshot
            .count("requests", total.requests)
            .count("pairs", total.pairs)
            .count("same", total.same)
            .count("unpairedBase", total.unpaired_base)
            .count("unpairedCandidate", total.unpaired_candidate)
            .count("errors", total.errors)
            .count("neither", total.neither)
            .count("labelled", total.labels.labelled)
            .count("lateLabels", self.late_labels)
            .count(
                "labelsDropped",
                self.labels.as_ref().map_or(0, |it| it.dropped),
            )
            .gauge(
                "labelsWaiting",
                self.labels.as_ref().map_or(0, Labels::len) as u64,
            )
            .count("disagreements", total.asked.disagreements())
            .gauge("gatesFailed", failed as u64)
    }
}

impl Comparing {
    fn window_parts(&self, is_final: bool) -> WindowParts<'_> {
        WindowParts {
            question: &self.question,
            classes: &self.classes,
            total: &self.total,
            gates: self.gate_reports(is_final),
            reference: self.drift.as_ref().map(|(reference, _)| reference),
            any_time: self.any_time_on(),
        }
    }
}
