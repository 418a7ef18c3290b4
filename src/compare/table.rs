//! The report as a table for people.

use std::fmt::Write as _;

use crate::compare::report::{
    ClassReport, Confusion, Drift, FieldReport, LabelReport, LabelledDisagreements, LatencyReport,
    NoiseReport, Quantiles, Rate, Report,
};
use crate::stage::report::escaped;

/// The largest number of rows of one list.
const ROWS_MAX: usize = 20;

/// The largest number of classes whose pairs are shown.
const CONFUSION_MAX: usize = 8;

/// The whole text.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(report, &mut out);
    out
}

/// The longest text of an input that is shown, in characters.
const CELL_CHARS_MAX: usize = 40;

/// A text of the input, without control characters, and not too long.
pub fn cell(text: &str) -> String {
    let text = escaped(text);
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A rate as percent, with its interval.
pub fn percent(rate: Option<Rate>) -> String {
    match rate {
        Some(rate) => format!(
            "{:.3} %  ({:.3} to {:.3})",
            100.0 * rate.rate,
            100.0 * rate.low,
            100.0 * rate.high
        ),
        None => "-".to_owned(),
    }
}

/// A p-value.
pub fn p_value(value: f64) -> String {
    match value {
        value if value < 0.0001 => "p < 0.0001".to_owned(),
        value => format!("p = {value:.4}"),
    }
}

fn write_all(report: &Report, out: &mut String) -> std::fmt::Result {
    let (base, candidate) = (escaped(&report.base), escaped(&report.candidate));
    writeln!(out, "base {base}, candidate {candidate}")?;
    writeln!(out)?;
    counts(report, out)?;
    writeln!(out, "\nagreement       {}", percent(report.agreement))?;
    if let Some(it) = report.disagreement {
        let rate = Rate {
            rate: it.rate,
            low: it.low,
            high: it.high,
        };
        writeln!(out, "disagreement    {}", percent(Some(rate)))?;
        writeln!(
            out,
            "                of {} requests that the base answered: {} differ, {} failed, {} late, \
             {} absent",
            it.requests, it.differ, it.failed, it.late, it.absent
        )?;
        let ends = report.any_time.disagreement;
        let (low, high) = (100.0 * ends.low, 100.0 * ends.high);
        writeln!(out, "                at any time {low:.3} to {high:.3} %")?;
    }
    if let Some(kappa) = report.kappa {
        writeln!(out, "kappa           {kappa:.4}")?;
    }
    if let Some(test) = report.marginal {
        let p = p_value(test.p_value);
        writeln!(
            out,
            "mix of classes  {p}, whether both give each class equally often"
        )?;
    }
    if let Some(noise) = &report.noise {
        write_noise(noise, out)?;
    }
    if let Some(ruler) = &report.ruler {
        writeln!(out, "\nagreement with the ruler {}", escaped(&ruler.model))?;
        writeln!(out, "  base          {}", percent(ruler.base))?;
        writeln!(out, "  candidate     {}", percent(ruler.candidate))?;
    }
    if let Some(labels) = &report.labels {
        write_labels(labels, out)?;
    }
    latency(&report.latency, out)?;
    classes(&report.classes, out)?;
    confusion(&report.confusion, out)?;
    drifts(&report.drift, out)?;
    fields(&report.fields, out)?;
    slices(report, out)?;
    gates(report, out)
}

fn counts(report: &Report, out: &mut String) -> std::fmt::Result {
    let pairs = report.pairs;
    let (base, candidate) = (report.unpaired.base, report.unpaired.candidate);
    writeln!(out, "requests        {}", report.requests)?;
    writeln!(out, "  pairs         {pairs}")?;
    writeln!(
        out,
        "  unpaired      {base} of the base, {candidate} of the candidate"
    )?;
    writeln!(
        out,
        "  errors        {} ({} of the base, {} of the candidate)",
        report.errors, report.failed.base, report.failed.candidate
    )?;
    if report.neither > 0 {
        writeln!(out, "  of neither    {}", report.neither)?;
    }
    if let Some(records) = report.records {
        writeln!(
            out,
            "records         {} read, {} rejected, {} repeated, {} too late to count",
            records.read, records.rejected, records.repeated, records.after_close
        )?;
    }
    Ok(())
}

fn write_noise(noise: &NoiseReport, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "\ndisagreement with the base, on {} requests",
        noise.requests
    )?;
    writeln!(out, "  candidate     {}", percent(noise.candidate))?;
    let name = escaped(&noise.model);
    writeln!(out, "  {name:<14}{}", percent(noise.noise))?;
    writeln!(
        out,
        "  more than noise: {} ({} only of the candidate, {} only of the noise)",
        p_value(noise.mcnemar.p_value),
        noise.mcnemar.candidate_only,
        noise.mcnemar.noise_only
    )
}

fn write_labels(labels: &LabelReport, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\naccuracy on {} labelled pairs", labels.labelled)?;
    for (name, model) in [("base", &labels.base), ("candidate", &labels.candidate)] {
        write!(out, "  {name:<14}{}", percent(model.accuracy))?;
        if let (Some(mae), Some(rmse)) = (model.mae, model.rmse) {
            write!(out, ", MAE {mae:.6}, RMSE {rmse:.6}")?;
        }
        if let Some(brier) = model.brier {
            write!(out, ", Brier score of the classes {brier:.4}")?;
        }
        if let Some(brier) = model.confidence_brier {
            write!(out, ", Brier score of the confidence {brier:.4}")?;
        }
        writeln!(out)?;
    }
    if labels.kind == "disagreements" {
        let LabelledDisagreements { all, labelled } = labels.disagreements;
        writeln!(
            out,
            "  only disagreements have labels ({labelled} of {all}), so that the accuracies are unknown"
        )?;
    }
    if let (Some(loss), Some(ends)) = (labels.accuracy_loss, labels.accuracy_loss_interval) {
        let rate = Rate {
            rate: loss,
            low: ends.low,
            high: ends.high,
        };
        writeln!(out, "  base minus candidate  {}", percent(Some(rate)))?;
    }
    writeln!(
        out,
        "  one is better: {} (only the base is right in {}, only the candidate in {})",
        p_value(labels.mcnemar.p_value),
        labels.mcnemar.base_only,
        labels.mcnemar.candidate_only
    )?;
    if let Some(answers) = labels.answers {
        writeln!(
            out,
            "  as the answer to {} requests, the candidate would have corrected {} and spoilt {}",
            answers.answered, answers.gained, answers.lost
        )?;
    }
    Ok(())
}

fn latency(latency: &LatencyReport, out: &mut String) -> std::fmt::Result {
    if latency.base.count + latency.candidate.count == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "\nms after the request        p50         p90         p99"
    )?;
    for (name, of) in [("base", &latency.base), ("candidate", &latency.candidate)] {
        writeln!(out, "  {name:<18}{}", quantiles(of))?;
    }
    if let Some(mean) = latency.difference {
        writeln!(
            out,
            "  mean difference   {:.3}  ({:.3} to {:.3})",
            mean.mean, mean.low, mean.high
        )?;
    }
    Ok(())
}

fn quantiles(of: &Quantiles) -> String {
    let mut text = String::new();
    for value in [of.p50, of.p90, of.p99] {
        let value = value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        let _ = write!(text, "{value:>12}");
    }
    text
}

fn rest(out: &mut String, all: usize) -> std::fmt::Result {
    match all.checked_sub(ROWS_MAX) {
        Some(more @ 1..) => writeln!(out, "  and {more} more; --format json has all"),
        _ => Ok(()),
    }
}

fn classes(classes: &[ClassReport], out: &mut String) -> std::fmt::Result {
    if classes.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nclass                     base   candidate")?;
    for class in classes.iter().take(ROWS_MAX) {
        let name = cell(class.label.get());
        writeln!(out, "  {name:<16}{:>12}{:>12}", class.base, class.candidate)?;
    }
    rest(out, classes.len())
}

fn confusion(confusion: &Confusion, out: &mut String) -> std::fmt::Result {
    let size = confusion.labels.len();
    if !(2..=CONFUSION_MAX).contains(&size) {
        return Ok(());
    }
    writeln!(out, "\nbase (rows) by candidate (columns)")?;
    write!(out, "  {:<16}", "")?;
    for label in &confusion.labels {
        write!(out, "{:>12}", cell(label.get()))?;
    }
    writeln!(out)?;
    for (label, row) in confusion.labels.iter().zip(&confusion.counts) {
        write!(out, "  {:<16}", cell(label.get()))?;
        for count in row {
            write!(out, "{count:>12}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn drifts(drifts: &[Drift], out: &mut String) -> std::fmt::Result {
    if drifts.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\ndrift from the reference          PSI       floor      unseen     missing"
    )?;
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.4}"));
    for drift in drifts.iter().take(ROWS_MAX) {
        writeln!(
            out,
            "  {:<26}{:>10}{:>12}{:>12}{:>12}{}",
            drift_name(drift),
            shown(drift.psi),
            shown(drift.floor),
            shown(drift.unseen),
            shown(Some(drift.missing.current)),
            if drift.drifts { "  drifts" } else { "" }
        )?;
    }
    rest(out, drifts.len())
}

/// The name of a field that may drift. That of an answer has its model.
pub fn drift_name(drift: &Drift) -> String {
    match drift.of {
        "input" => cell(&drift.field),
        of => format!("{} of the {of}", cell(&drift.field)),
    }
}

fn fields(fields: &[FieldReport], out: &mut String) -> std::fmt::Result {
    if fields.is_empty() {
        return Ok(());
    }
    writeln!(out, "\ndisagreement by field")?;
    let mut sorted: Vec<&FieldReport> = fields.iter().collect();
    let rate = |field: &FieldReport| field.disagreement.map_or(0.0, |it| it.rate);
    sorted.sort_by(|one, other| rate(other).total_cmp(&rate(one)));
    for field in sorted.iter().take(ROWS_MAX) {
        let path = cell(&field.path);
        write!(out, "  {path:<24}{}", percent(field.disagreement))?;
        if let Some(noise) = field.noise {
            let said = match noise.differs {
                true => "more than noise",
                false => "not more than noise",
            };
            write!(out, "  {said}, {}", p_value(noise.corrected))?;
        }
        writeln!(out)?;
    }
    rest(out, fields.len())
}

fn slices(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.slices.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nagreement by slice")?;
    for slice in report.slices.iter().take(ROWS_MAX) {
        let name = format!("{} {}", cell(&slice.field), cell(&slice.value));
        let agreement = percent(slice.agreement);
        writeln!(out, "  {name:<24}{agreement} of {} pairs", slice.pairs)?;
    }
    rest(out, report.slices.len())
}

fn gates(report: &Report, out: &mut String) -> std::fmt::Result {
    for (place, gate) in report.gates.iter().enumerate() {
        if place == 0 {
            writeln!(out)?;
        }
        write!(out, "gate '{}' {}", gate.gate, gate.state)?;
        if let (Some(figure), Some(low), Some(high)) = (gate.figure, gate.low, gate.high) {
            write!(out, ": {figure:.6}, between {low:.6} and {high:.6}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
