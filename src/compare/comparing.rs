//! The comparison itself: counts requests, reads gates, and writes the reports.

use std::fs;

use anyhow::{Context, Result};

use crate::compare::args::{CompareArgs, Format, WindowLength};
use crate::compare::classes::Classes;
use crate::compare::drifting::{drift, read_reference};
use crate::compare::gates::{AnyTimeGate, Figure, Gate, Measure, Verdict, verdict};
use crate::compare::html;
use crate::compare::inputs::Inputs;
use crate::compare::label_file::Labels;
use crate::compare::legs::{Leg, Observation};
use crate::compare::reader::Observer;
use crate::compare::report::{GateReport, RecordCounts, Report};
use crate::compare::statistics::rates::{CONFIDENCE, wilson};
use crate::compare::summary::report;
use crate::compare::table;
use crate::compare::tally::{Question, Tally};
use crate::compare::trend::Trend;
use crate::compare::windows::{WindowParts, Windows};
use crate::stage::Stage;
use crate::stage::stats::Snapshot;

/// A comparison that runs.
pub struct Comparing {
    question: Question,
    format: Format,
    html: Option<String>,
    labels: Option<Labels>,
    classes: Classes,
    total: Tally,
    trend: Trend,
    windows: Option<Windows>,
    /// The inputs of the reference, and those that are compared.
    inputs: Option<(Inputs, Inputs)>,
    gates: Vec<Gate>,
    /// The same gates, if they are read after every request.
    any_time: Option<Vec<AnyTimeGate>>,
    stops_on_failure: bool,
    has_stopped: bool,
}

impl Comparing {
    /// Starts without a request. Reads the labels.
    pub fn open(args: &CompareArgs, question: Question, stage: &mut Stage) -> Result<Comparing> {
        let labels = match args.labels.source() {
            Some(source) => Some(Labels::read(&source, stage)?),
            None => None,
        };
        if let Some(labels) = &labels {
            stage.report.info(&format!(
                "{} labels, {} given twice, {} in conflict",
                labels.len(),
                labels.repeated,
                labels.conflicting
            ));
        }
        let inputs = match &args.reference {
            Some(address) => Some((read_reference(address, stage)?, Inputs::default())),
            None => None,
        };
        let gates = args.gates.fail_if.clone();
        Ok(Comparing {
            format: args.format,
            html: args.html.clone(),
            labels,
            inputs,
            classes: Classes::default(),
            total: Tally::new(&question),
            trend: Trend::default(),
            windows: args
                .window_length()
                .map(|length: WindowLength| Windows::new(length, &question)),
            any_time: args.gates.any_time.then(|| AnyTimeGate::all(&gates)),
            gates,
            stops_on_failure: args.gates.stop_on_failure,
            has_stopped: false,
            question,
        })
    }

    /// The label of a request. It takes the type of an answer.
    fn label(&self, seen: &Observation) -> Option<String> {
        let answer = seen.answer(Leg::Base)?;
        let label = self.labels.as_ref()?.label(seen.message_id, answer)?;
        Some(label.into_owned())
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

    /// The gates as they are now.
    fn gate_reports(&self) -> Vec<GateReport> {
        match &self.any_time {
            Some(gates) => gates
                .iter()
                .map(|gate| {
                    let now = gate.figure(&self.total.sequences);
                    let figure = gate.failed_at.or(now);
                    let said = gate.verdict(&self.total.sequences);
                    gate_report(&gate.gate, figure, said, true)
                })
                .collect(),
            None => self
                .gates
                .iter()
                .map(|gate| {
                    let figure = figure(gate, &self.total);
                    gate_report(gate, figure, verdict(gate, figure), false)
                })
                .collect(),
        }
    }

    /// Reports the gates that fail, and those that nothing could be read from.
    fn conclude_gates(&self, stage: &mut Stage, reports: &[GateReport]) {
        for (gate, report) in self.gates.iter().zip(reports) {
            let figure = report.figure.zip(report.low.zip(report.high));
            match figure {
                None => {
                    stage.has_findings = true;
                    stage.report.warn(&format!(
                        "the gate '{gate}' has no figure, because no request could be counted; check \
                         the names of the models"
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
        report.gates = self.gate_reports();
        if let Some((reference, current)) = &self.inputs {
            report.drift = drift(reference, current);
        }
        report
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
fn figure(gate: &Gate, tally: &Tally) -> Option<Figure> {
    let asked = tally.asked;
    let of = |count: u64, total: u64| wilson(count, total, CONFIDENCE);
    let labels = &tally.labels;
    let found = match gate.measure {
        Measure::Disagreement => of(asked.disagreements(), asked.all),
        Measure::Agreement => of(asked.all - asked.disagreements(), asked.all),
        Measure::Failures => of(asked.failed, asked.all),
        Measure::Late => of(asked.late, asked.all),
        Measure::Absent => of(asked.absent, asked.all),
        Measure::Accuracy => of(labels.candidate.right, labels.labelled),
        Measure::AccuracyLoss => labels.loss.mean_interval(CONFIDENCE),
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
        if let (Some((_, inputs)), Some(model_input)) = (&mut self.inputs, seen.model_input) {
            inputs.add(model_input);
        }
        let label = self.label(seen);
        let label = label.as_deref();
        let is_same = self
            .total
            .add(seen, label, &self.question, &mut self.classes);
        if let Some(is_same) = is_same {
            self.trend.add(is_same, seen.time);
        }
        self.read_gates(stage);
        if let Some(mut windows) = self.windows.take() {
            let closed = windows.add(seen, label, &self.question, &mut self.classes);
            if let Some(tally) = closed {
                windows.write(&tally, self.window_parts(), out)?;
            }
            self.windows = Some(windows);
        }
        Ok(())
    }

    fn is_satisfied(&self) -> bool {
        self.has_stopped
    }

    fn conclude(
        &mut self,
        stage: &mut Stage,
        counts: &RecordCounts,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let report = self.final_report(counts);
        self.conclude_gates(stage, &report.gates);
        match (&self.format, self.windows.take()) {
            (_, Some(mut windows)) => {
                if let Some(tally) = windows.take(&self.question) {
                    windows.write(&tally, self.window_parts(), out)?;
                }
            }
            (Format::Table, None) => out.extend_from_slice(table::text(&report).as_bytes()),
            (Format::Json | Format::Ndjson, None) => {
                serde_json::to_writer(&mut *out, &report)?;
                out.push(b'\n');
            }
        }
        if let Some(path) = &self.html {
            let page = html::page(&report, &self.trend.steps());
            fs::write(path, page).with_context(|| format!("{path}: cannot write"))?;
        }
        Ok(())
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
            .count("disagreements", total.asked.disagreements())
            .gauge("gatesFailed", failed as u64)
    }
}

impl Comparing {
    fn window_parts(&self) -> WindowParts<'_> {
        WindowParts {
            question: &self.question,
            classes: &self.classes,
            total: &self.total,
            gates: self.gate_reports(),
            any_time: self.any_time_on(),
        }
    }
}
