//! Makes the report of a tally.

use serde_json::value::RawValue;

use crate::compare::classes::Classes;
use crate::compare::fields::Fields;
use crate::compare::gates::Sequences;
use crate::compare::label_summary::label_report;
use crate::compare::legs::Leg;
use crate::compare::report::{
    AnyTime, Both, ClassReport, Confusion, Disagreement, FieldNoise, FieldReport, LatencyReport,
    NoiseReport, NoiseTest, QuantileEnds, Quantiles, Rate, Report, RulerReport, SliceReport,
    WindowReport,
};
use crate::compare::speed::{Speed, Speeds};
use crate::compare::statistics::binomial::at_least;
use crate::compare::statistics::rates::{CONFIDENCE, benjamini_hochberg, wilson};
use crate::compare::statistics::tables::{homogeneity, kappa};
use crate::compare::tally::{LabelKind, Question, RulerCounts, Tally};
use crate::wire::micros::Micros;

/// The level of the intervals that hold at all times, and of the tests by field.
const ALPHA: f64 = 1.0 - CONFIDENCE;

fn rate(count: u64, total: u64) -> Option<Rate> {
    wilson(count, total, CONFIDENCE).map(Rate::from)
}

/// The report of a tally. `any_time` makes the correction for the number of fields that
/// of Bonferroni.
pub fn report(tally: &Tally, question: &Question, classes: &Classes, any_time: bool) -> Report {
    let roles = &question.roles;
    let (used, table) = tally.confusion.table(classes);
    let has_classes = !used.is_empty();
    Report {
        base: roles.name(Leg::Base),
        candidate: roles.name(Leg::Candidate),
        window: tally.times.map(|times| window(times, None)),
        records: None,
        requests: tally.requests,
        pairs: tally.pairs,
        unpaired: Both {
            base: tally.unpaired_base,
            candidate: tally.unpaired_candidate,
        },
        errors: tally.errors,
        failed: Both {
            base: tally.base_failed,
            candidate: tally.candidate_failed,
        },
        late: Both {
            base: tally.base_late,
            candidate: tally.candidate_late,
        },
        neither: tally.neither,
        agreement: rate(tally.same, tally.pairs),
        disagreement: disagreement(tally),
        kappa: match tally.confusion.has_others_on_both_sides() {
            // How often two of the others are equal by chance is not known.
            true => None,
            false => kappa(&table),
        },
        classes: class_reports(&used, &table, classes),
        marginal: has_classes.then(|| homogeneity(&table).into()),
        confusion: Confusion {
            labels: names(&used, classes),
            counts: table,
            others_differ: tally.confusion.others_differ(),
        },
        mix: None,
        shift: None,
        any_time: any_time_report(&tally.sequences, question.labels == Some(LabelKind::Plain)),
        noise: roles.has(Leg::Noise).then(|| noise(tally, question)),
        ruler: roles.has(Leg::Ruler).then(|| ruler(tally, question)),
        labels: question
            .labels
            .map(|kind| label_report(tally, kind, classes)),
        latency: latency(&tally.speeds),
        drift: Vec::new(),
        fields: fields(&tally.fields, roles.has(Leg::Noise), any_time),
        slices: slices(tally),
        gates: Vec::new(),
    }
}

/// The time of the requests of a report.
pub fn window((from, to): (Micros, Micros), number: Option<u64>) -> WindowReport {
    let seconds = |time: Micros| time.0 as f64 / 1e6;
    WindowReport {
        number,
        from: seconds(from),
        to: seconds(to),
    }
}

fn disagreement(tally: &Tally) -> Option<Disagreement> {
    let asked = tally.asked;
    let found = rate(asked.disagreements(), asked.all)?;
    Some(Disagreement {
        rate: found.rate,
        low: found.low,
        high: found.high,
        requests: asked.all,
        differ: asked.differ,
        failed: asked.failed,
        late: asked.late,
        absent: asked.absent,
    })
}

fn names(used: &[usize], classes: &Classes) -> Vec<Box<RawValue>> {
    used.iter().map(|class| classes.json_name(*class)).collect()
}

fn class_reports(used: &[usize], table: &[Vec<u64>], classes: &Classes) -> Vec<ClassReport> {
    let total: u64 = table.iter().flatten().sum();
    let of = |(place, class): (usize, &usize)| {
        let base = table[place].iter().sum();
        let candidate = table.iter().map(|row| row[place]).sum();
        ClassReport {
            label: classes.json_name(*class),
            base,
            candidate,
            base_rate: rate(base, total),
            candidate_rate: rate(candidate, total),
        }
    };
    used.iter().enumerate().map(of).collect()
}

/// The intervals that hold at all times at once.
pub fn any_time_report(sequences: &Sequences, has_labels: bool) -> AnyTime {
    AnyTime {
        disagreement: sequences.disagreement.interval(ALPHA).into(),
        accuracy_loss: has_labels.then(|| {
            let mut ends = sequences.accuracy_loss.interval(ALPHA);
            ends.low = 2.0 * ends.low - 1.0;
            ends.high = 2.0 * ends.high - 1.0;
            ends.into()
        }),
    }
}

fn noise(tally: &Tally, question: &Question) -> NoiseReport {
    let noise = tally.noise;
    NoiseReport {
        model: question.roles.name(Leg::Noise),
        requests: noise.requests,
        candidate: rate(noise.candidate_only + noise.both, noise.requests),
        noise: rate(noise.noise_only + noise.both, noise.requests),
        mcnemar: noise_test(noise.candidate_only, noise.noise_only),
    }
}

fn noise_test(candidate_only: u64, noise_only: u64) -> NoiseTest {
    NoiseTest {
        candidate_only,
        noise_only,
        p_value: at_least(candidate_only, candidate_only + noise_only, 0.5),
    }
}

fn ruler(tally: &Tally, question: &Question) -> RulerReport {
    let of = |counts: RulerCounts| rate(counts.same, counts.pairs);
    RulerReport {
        model: question.roles.name(Leg::Ruler),
        base: of(tally.base_ruler),
        candidate: of(tally.candidate_ruler),
    }
}

fn latency(speeds: &Speeds) -> LatencyReport {
    LatencyReport {
        base: quantiles(&speeds.base),
        candidate: quantiles(&speeds.candidate),
        difference: speeds.differences.mean_interval(CONFIDENCE).map(Into::into),
    }
}

fn quantiles(speed: &Speed) -> Quantiles {
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| speed.quantile(q));
    Quantiles {
        count: speed.count(),
        p50: p50.map(|it| it.value),
        p90: p90.map(|it| it.value),
        p99: p99.map(|it| it.value),
        intervals: QuantileEnds {
            p50: p50.map(Into::into),
            p90: p90.map(Into::into),
            p99: p99.map(Into::into),
        },
    }
}

fn fields(fields: &Fields, has_noise: bool, any_time: bool) -> Vec<FieldReport> {
    let all: Vec<_> = fields.by_path.iter().collect();
    let tests: Vec<NoiseTest> = all
        .iter()
        .map(|(_, counts)| noise_test(counts.candidate_only, counts.noise_only))
        .collect();
    let p_values: Vec<f64> = tests.iter().map(|test| test.p_value).collect();
    let corrected = match any_time {
        true => p_values
            .iter()
            .map(|p| (p * p_values.len() as f64).min(1.0))
            .collect(),
        false => benjamini_hochberg(&p_values),
    };
    let noise = tests.into_iter().zip(corrected);
    let noise = noise.map(|(test, corrected)| FieldNoise {
        candidate_only: test.candidate_only,
        noise_only: test.noise_only,
        p_value: test.p_value,
        corrected,
        differs: corrected < ALPHA,
    });
    all.into_iter()
        .zip(noise)
        .map(|((path, counts), noise)| FieldReport {
            path: path.clone(),
            pairs: counts.pairs,
            disagreement: rate(counts.differ, counts.pairs),
            noise: has_noise.then_some(noise),
        })
        .collect()
}

fn slices(tally: &Tally) -> Vec<SliceReport> {
    let mut reports = Vec::new();
    for slices in &tally.slices {
        for (value, counts) in &slices.by_value {
            reports.push(SliceReport {
                field: slices.pointer.clone(),
                value: value.clone(),
                pairs: counts.pairs,
                agreement: rate(counts.pairs - counts.differ, counts.pairs),
            });
        }
    }
    reports
}
