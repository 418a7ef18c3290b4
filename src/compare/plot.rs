//! The plots of the page, as SVG.

use std::fmt::Write as _;

use crate::compare::report::Quantiles;
use crate::compare::statistics::rates::{CONFIDENCE, Interval, wilson};
use crate::compare::trend::Step;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 76.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 10.0;

/// The agreement of each step, with the band of its interval.
pub fn agreement_plot(steps: &[Step]) -> String {
    let rates: Vec<Interval> = steps
        .iter()
        .filter_map(|step| wilson(step.same, step.pairs, CONFIDENCE))
        .collect();
    let lowest = rates.iter().fold(1.0_f64, |low, it| low.min(it.low));
    let bottom = (lowest * 20.0).floor() / 20.0;
    let x = |place: usize| {
        let last = rates.len().max(2) - 1;
        LEFT + (WIDTH - LEFT - 8.0) * place as f64 / last as f64
    };
    let y = |rate: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - rate) / (1.0 - bottom).max(1e-9);
    let mut out = start("Agreement over time");
    for part in 0..=4 {
        let rate = bottom + (1.0 - bottom) * f64::from(part) / 4.0;
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"var(--line)\"/>\
             <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{3:.1} %</text>",
            y(rate),
            LEFT - 6.0,
            y(rate) + 4.0,
            100.0 * rate
        );
    }
    let points = |value: fn(&Interval) -> f64| -> Vec<String> {
        let points = rates.iter().enumerate();
        let point = |(place, rate)| format!("{:.1},{:.1}", x(place), y(value(rate)));
        points.map(point).collect()
    };
    let mut band = points(|rate| rate.high);
    band.extend(points(|rate| rate.low).into_iter().rev());
    let line = points(|rate| rate.value).join(" ");
    let _ = write!(
        out,
        "<polygon points=\"{}\" fill=\"var(--candidate)\" opacity=\"0.18\"/>\
         <polyline points=\"{line}\" fill=\"none\" stroke=\"var(--candidate)\" stroke-width=\"2\"/>",
        band.join(" ")
    );
    time_axis(steps, &mut out);
    out + "</svg>"
}

fn time_axis(steps: &[Step], out: &mut String) {
    let ends = [
        (steps.first(), LEFT, "start"),
        (steps.last(), WIDTH - 8.0, "end"),
    ];
    for (step, x, anchor) in ends {
        let time = step.and_then(|step| step.from);
        let time = time.and_then(|time| chrono::DateTime::from_timestamp_micros(time.0));
        if let Some(time) = time {
            let text = time.format("%m-%d %H:%M:%S");
            let y = HEIGHT - 6.0;
            let _ = write!(
                out,
                "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>"
            );
        }
    }
}

/// The quantiles of both models as bars.
pub fn latency_plot(base: &Quantiles, candidate: &Quantiles) -> String {
    let rows = [
        ("p50", base.p50, candidate.p50),
        ("p90", base.p90, candidate.p90),
        ("p99", base.p99, candidate.p99),
    ];
    let values = rows.iter().flat_map(|row| [row.1, row.2]).flatten();
    let largest = values.fold(0.0_f64, f64::max).max(1e-9);
    let mut out = start("Quantiles of the time from request to score");
    for (number, (name, base, candidate)) in rows.into_iter().enumerate() {
        let top = 14.0 + 64.0 * number as f64;
        let _ = write!(out, "<text x=\"0\" y=\"{}\">{name}</text>", top + 26.0);
        for (place, (model, value)) in [("base", base), ("candidate", candidate)]
            .into_iter()
            .enumerate()
        {
            let Some(value) = value else { continue };
            let width = (WIDTH - LEFT - 190.0) * value / largest;
            let y = top + 24.0 * place as f64;
            let _ = write!(
                out,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" rx=\"3\" \
                 fill=\"var(--{model})\"/><text x=\"{:.1}\" y=\"{}\">{value:.3} ms, {model}</text>",
                LEFT + width + 6.0,
                y + 13.0
            );
        }
    }
    out + "</svg>\n"
}

fn start(title: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_or_none_makes_no_number_that_svg_refuses() {
        let step = Step {
            pairs: 5,
            same: 5,
            from: None,
        };
        for steps in [vec![], vec![step], vec![step, Step::default()]] {
            let plot = agreement_plot(&steps);
            assert!(!plot.contains("NaN") && !plot.contains("inf"), "{plot}");
        }
    }
}
