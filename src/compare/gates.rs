//! Gates: conditions under which a comparison says no.

use std::fmt;
use std::str::FromStr;

use crate::compare::statistics::sequence::Sequence;

/// The level of all gates together.
const ALPHA: f64 = 0.05;

/// What a gate measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The share of requests that the base answered and to which the candidate gave
    /// another answer, a late one or none.
    Disagreement,
    /// One minus the disagreement.
    Agreement,
    /// The share of these requests in which the candidate failed.
    Failures,
    /// The share of these requests in which the candidate was late.
    Late,
    /// The share of these requests in which the candidate is absent.
    Absent,
    /// The share of labelled pairs in which the candidate is right.
    Accuracy,
    /// The accuracy of the base minus that of the candidate.
    AccuracyLoss,
    /// A quantile of the candidate's times, in milliseconds, by its number in
    /// thousandths.
    Quantile(u16),
}

const NAMES: [(&str, Measure); 10] = [
    ("disagreement", Measure::Disagreement),
    ("agreement", Measure::Agreement),
    ("failures", Measure::Failures),
    ("late", Measure::Late),
    ("absent", Measure::Absent),
    ("accuracy", Measure::Accuracy),
    ("accuracyLoss", Measure::AccuracyLoss),
    ("p50", Measure::Quantile(500)),
    ("p90", Measure::Quantile(900)),
    ("p99", Measure::Quantile(990)),
];

/// A condition such as `disagreement > 0.02`, under which the comparison says no.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// What the gate measures.
    pub measure: Measure,
    /// Whether the gate fails above the limit; otherwise it fails below.
    pub fails_above: bool,
    /// The limit.
    pub limit: f64,
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Gate, String> {
        let form = "a gate is a measure, `>` or `<`, and a number, such as 'disagreement > 0.02'";
        let place = text.find(['<', '>']).ok_or(form)?;
        let (name, rest) = text.split_at(place);
        let known = NAMES.iter().find(|(known, _)| *known == name.trim());
        let Some((_, measure)) = known else {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            let name = name.trim();
            return Err(format!("{name:?} is not one of {}", names.join(", ")));
        };
        let limit: f64 = rest[1..].trim().parse().map_err(|_| form)?;
        if !limit.is_finite() {
            return Err(form.to_owned());
        }
        Ok(Gate {
            measure: *measure,
            fails_above: rest.starts_with('>'),
            limit,
        })
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let known = NAMES.iter().find(|(_, measure)| *measure == self.measure);
        let name = known.map_or("", |(name, _)| name);
        let sign = if self.fails_above { '>' } else { '<' };
        write!(formatter, "{name} {sign} {}", self.limit)
    }
}

impl Gate {
    /// Whether the gate can be read at any time.
    pub fn has_sequence(&self) -> bool {
        !matches!(self.measure, Measure::Quantile(_))
    }

    /// Whether the gate needs labels.
    pub fn needs_labels(&self) -> bool {
        matches!(self.measure, Measure::Accuracy | Measure::AccuracyLoss)
    }

    /// Whether the gate needs decisions, because scores do not tell what it measures.
    pub fn needs_decisions(&self) -> bool {
        self.measure == Measure::Late
    }

    /// Why the gate has no figure.
    pub fn why_absent(&self) -> &'static str {
        match self.measure {
            Measure::Disagreement | Measure::Agreement | Measure::Failures | Measure::Absent => {
                "the base answered no request; check the names of the models"
            }
            Measure::Late => {
                "the base answered no request of a decision, and only decisions tell whether a score \
                 was late"
            }
            Measure::Accuracy => {
                "the labels give no accuracy: no pair has a label, or only disagreements have one"
            }
            Measure::AccuracyLoss => {
                "the labels give no accuracy: fewer than two pairs have a label, or some of the \
                 disagreements have none while no agreement has one"
            }
            Measure::Quantile(_) => "no score of the candidate has a time",
        }
    }
}

/// The values so far, each from 0 to 1, for gates that are read at any time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequences {
    /// 1 for a request with a disagreement.
    pub disagreement: Sequence,
    /// 1 for a request in which the candidate failed.
    pub failures: Sequence,
    /// 1 for a request in which the candidate was late.
    pub late: Sequence,
    /// 1 for a request in which the candidate is absent.
    pub absent: Sequence,
    /// 1 for a labelled pair in which the candidate is right.
    pub accuracy: Sequence,
    /// For a labelled pair: 1 if only the base is right, 0 if only the candidate is,
    /// else one half.
    pub accuracy_loss: Sequence,
}

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The figure is on the wrong side of the limit.
    Failed,
    /// The figure is on the right side of the limit.
    Passed,
    /// There are too few values to tell.
    Undecided,
}

/// A figure with the interval in which the true value lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The figure.
    pub value: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

/// A gate that is read after every request. It fails for good at the first time at
/// which its one-sided bound is beyond the limit.
#[derive(Clone, Debug)]
pub struct AnyTimeGate {
    /// The gate.
    pub gate: Gate,
    alpha: f64,
    /// The figure at the time of the failure.
    pub failed_at: Option<Figure>,
}

impl AnyTimeGate {
    /// Shares the level among all gates.
    pub fn all(gates: &[Gate]) -> Vec<AnyTimeGate> {
        let alpha = ALPHA / gates.len().max(1) as f64;
        let of = |gate: &Gate| AnyTimeGate {
            gate: gate.clone(),
            alpha,
            failed_at: None,
        };
        gates.iter().map(of).collect()
    }

    /// The sequence, the limit on its scale, and whether a larger value of the sequence
    /// is a larger figure.
    fn scaled<'s>(&self, sequences: &'s Sequences) -> Option<(&'s Sequence, f64, bool)> {
        let limit = self.gate.limit;
        Some(match self.gate.measure {
            Measure::Disagreement => (&sequences.disagreement, limit, true),
            Measure::Agreement => (&sequences.disagreement, 1.0 - limit, false),
            Measure::Failures => (&sequences.failures, limit, true),
            Measure::Late => (&sequences.late, limit, true),
            Measure::Absent => (&sequences.absent, limit, true),
            Measure::Accuracy => (&sequences.accuracy, limit, true),
            Measure::AccuracyLoss => (&sequences.accuracy_loss, (limit + 1.0) / 2.0, true),
            Measure::Quantile(_) => return None,
        })
    }

    /// Reads the gate. Returns whether it fails now for the first time.
    pub fn read(&mut self, sequences: &Sequences) -> bool {
        if self.failed_at.is_some() {
            return false;
        }
        let Some((sequence, limit, is_rising)) = self.scaled(sequences) else {
            return false;
        };
        let fails = match self.gate.fails_above == is_rising {
            true => sequence.is_above(limit, self.alpha),
            false => sequence.is_below(limit, self.alpha),
        };
        if fails {
            self.failed_at = self.figure(sequences);
        }
        fails
    }

    /// The figure now, with the interval of both one-sided bounds.
    pub fn figure(&self, sequences: &Sequences) -> Option<Figure> {
        let (sequence, _, _) = self.scaled(sequences)?;
        if sequence.count() == 0 {
            return None;
        }
        let found = sequence.interval(2.0 * self.alpha);
        let scale = |value: f64| match self.gate.measure {
            Measure::Agreement => 1.0 - value,
            Measure::AccuracyLoss => 2.0 * value - 1.0,
            _ => value,
        };
        let (one, other) = (scale(found.low), scale(found.high));
        Some(Figure {
            value: scale(found.value),
            low: one.min(other),
            high: one.max(other),
        })
    }

    /// What the gate says at the end.
    pub fn verdict(&self, sequences: &Sequences) -> Verdict {
        if self.failed_at.is_some() {
            return Verdict::Failed;
        }
        let Some(figure) = self.figure(sequences) else {
            return Verdict::Undecided;
        };
        let passes = match self.gate.fails_above {
            true => figure.high < self.gate.limit,
            false => figure.low > self.gate.limit,
        };
        match passes {
            true => Verdict::Passed,
            false => Verdict::Undecided,
        }
    }
}

/// What a gate says that is read once, at the end.
pub fn verdict(gate: &Gate, figure: Option<Figure>) -> Verdict {
    match figure {
        None => Verdict::Undecided,
        Some(figure) if gate.fails_above && figure.value > gate.limit => Verdict::Failed,
        Some(figure) if !gate.fails_above && figure.value < gate.limit => Verdict::Failed,
        Some(_) => Verdict::Passed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_read_from_their_text() {
        let gate: Gate = "disagreement>0.02".parse().unwrap();
        assert_eq!(gate.to_string(), "disagreement > 0.02");
        let gate: Gate = " accuracyLoss < -0.5 ".parse().unwrap();
        assert_eq!((gate.measure, gate.limit), (Measure::AccuracyLoss, -0.5));
        for wrong in [
            "",
            "disagreement",
            "x > 1",
            "late > x",
            "late >",
            "late > NaN",
            "p99 >= 1",
        ] {
            assert!(wrong.parse::<Gate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_gate_fails_once_its_bound_is_beyond_the_limit_and_stays_failed() {
        let gates = [
            "disagreement > 0.1",
            "agreement < 0.9",
            "disagreement < 0.05",
            "late > 0.1",
        ];
        let gates: Vec<Gate> = gates.iter().map(|text| text.parse().unwrap()).collect();
        let mut gates = AnyTimeGate::all(&gates);
        let mut sequences = Sequences::default();
        let mut failures = vec![0; 4];
        for number in 0..2_000 {
            // Three of ten differ at first, and none later.
            let differs = number < 1_000 && number % 10 < 3;
            sequences.disagreement.add(f64::from(u8::from(differs)));
            for (gate, failures) in gates.iter_mut().zip(&mut failures) {
                *failures += u32::from(gate.read(&sequences));
            }
        }
        assert_eq!(failures, [1, 1, 0, 0]);
        let verdicts: Vec<Verdict> = gates.iter().map(|it| it.verdict(&sequences)).collect();
        let (failed, passed, undecided) = (Verdict::Failed, Verdict::Passed, Verdict::Undecided);
        assert_eq!(verdicts, [failed, failed, passed, undecided]);
        let figure = gates[0].failed_at.unwrap();
        assert!(figure.low > 0.1 && figure.value > figure.low, "{figure:?}");
        let agreement = gates[1].failed_at.unwrap();
        assert!(
            agreement.high < 0.9 && agreement.low < agreement.value,
            "{agreement:?}"
        );
    }

    #[test]
    fn a_gate_that_is_read_once_compares_the_figure() {
        let gate: Gate = "late > 0.1".parse().unwrap();
        let figure = |value| {
            Some(Figure {
                value,
                low: 0.0,
                high: 1.0,
            })
        };
        assert_eq!(verdict(&gate, figure(0.1)), Verdict::Passed);
        assert_eq!(verdict(&gate, figure(0.11)), Verdict::Failed);
        assert_eq!(verdict(&gate, None), Verdict::Undecided);
    }
}
