//! The report as one page of HTML, without an outside request: it reads on a phone, in
//! the dark and on paper.

use std::fmt::{self, Write as _};

use crate::compare::plot::{agreement_plot, latency_plot};
use crate::compare::report::{Confusion, LabelReport, Rate, Report};
use crate::compare::table::{cell, drift_name, p_value, percent};
use crate::compare::trend::Step;
use crate::stage::cli::VERSION;

/// The largest number of rows of one table.
const ROWS_MAX: usize = 100;

/// The largest number of classes in the confusion table.
const CONFUSION_MAX: usize = 30;

/// The page.
pub fn page(report: &Report, steps: &[Step]) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_page(report, steps, &mut out);
    out
}

/// A text of the input as HTML.
fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in cell(text).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

fn write_page(report: &Report, steps: &[Step], out: &mut String) -> fmt::Result {
    let (base, candidate) = (html(&report.base), html(&report.candidate));
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{candidate} beside {base}</title>\n<style>\n{}</style></head><body>\n\
         <h1>{candidate} beside {base}</h1>\n",
        include_str!("page.css")
    )?;
    if let Some(window) = report.window {
        let time = |seconds: f64| {
            let time = chrono::DateTime::from_timestamp_micros((seconds * 1e6) as i64);
            time.map_or_else(String::new, |it| it.format("%Y-%m-%d %H:%M:%S").to_string())
        };
        let (from, to) = (time(window.from), time(window.to));
        writeln!(
            out,
            "<p class=\"soft\">Requests from {from} to {to} UTC</p>"
        )?;
    }
    gates(report, out)?;
    cards(report, out)?;
    if steps.len() > 1 {
        writeln!(
            out,
            "<h2>Agreement over time</h2>\n{}",
            agreement_plot(steps)
        )?;
        writeln!(
            out,
            "<p class=\"soft\">The band is the 95 % interval of each step.</p>"
        )?;
    }
    counts(report, out)?;
    if let Some(labels) = &report.labels {
        accuracy(labels, out)?;
    }
    latency(report, out)?;
    confusion(&report.confusion, out)?;
    tables(report, out)?;
    writeln!(
        out,
        "<p class=\"soft\">Written by rv-compare {VERSION}.</p>\n</body></html>"
    )
}

fn gates(report: &Report, out: &mut String) -> fmt::Result {
    for gate in &report.gates {
        let (name, state) = (html(&gate.gate), gate.state);
        write!(out, "<p><span class=\"{state}\">{state}</span> {name}")?;
        if let (Some(figure), Some(low), Some(high)) = (gate.figure, gate.low, gate.high) {
            write!(out, ": {figure:.4}, between {low:.4} and {high:.4}")?;
        }
        writeln!(out, "</p>")?;
    }
    Ok(())
}

fn card(out: &mut String, name: &str, value: &str, more: &str) -> fmt::Result {
    writeln!(
        out,
        "<div class=\"card\">{name}<b>{value}</b><span class=\"soft\">{more}</span></div>"
    )
}

fn rate_card(out: &mut String, name: &str, rate: Option<Rate>) -> fmt::Result {
    match rate {
        Some(it) => {
            let (low, high) = (100.0 * it.low, 100.0 * it.high);
            let value = format!("{:.2} %", 100.0 * it.rate);
            card(out, name, &value, &format!("{low:.2} to {high:.2} %"))
        }
        None => card(out, name, "–", "no data"),
    }
}

fn cards(report: &Report, out: &mut String) -> fmt::Result {
    writeln!(out, "<div class=\"cards\">")?;
    let pairs = report.pairs;
    let of = format!("of {} requests", report.requests);
    card(out, "Pairs", &pairs.to_string(), &of)?;
    rate_card(out, "Agreement", report.agreement)?;
    if let Some(it) = report.disagreement {
        let rate = Rate {
            rate: it.rate,
            low: it.low,
            high: it.high,
        };
        rate_card(out, "Disagreement, failures and gaps included", Some(rate))?;
    }
    if let Some(kappa) = report.kappa {
        card(
            out,
            "Cohen’s kappa",
            &format!("{kappa:.3}"),
            "1 is full agreement",
        )?;
    }
    if let Some(test) = report.marginal {
        let said = match test.p_value < 0.05 {
            true => "the mix of classes differs",
            false => "no difference in the mix of classes",
        };
        card(out, "Mix of classes", &html(&p_value(test.p_value)), said)?;
    }
    if let Some(noise) = &report.noise {
        let p = html(&p_value(noise.mcnemar.p_value));
        card(
            out,
            "More than noise",
            &p,
            &format!("beside {}", html(&noise.model)),
        )?;
    }
    writeln!(out, "</div>")
}

fn table_head(out: &mut String, title: &str, columns: &[&str]) -> fmt::Result {
    write!(out, "<h2>{title}</h2>\n<div class=\"wide\"><table><tr>")?;
    for column in columns {
        write!(out, "<th>{column}</th>")?;
    }
    writeln!(out, "</tr>")
}

fn row(out: &mut String, cells: &[&str]) -> fmt::Result {
    write!(out, "<tr>")?;
    for cell in cells {
        write!(out, "<td>{cell}</td>")?;
    }
    writeln!(out, "</tr>")
}

const TABLE_END: &str = "</table></div>\n";

fn counts(report: &Report, out: &mut String) -> fmt::Result {
    table_head(out, "Requests", &["", "base", "candidate"])?;
    for (name, both) in [
        ("unpaired", &report.unpaired),
        ("failed", &report.failed),
        ("late", &report.late),
    ] {
        let (base, candidate) = (both.base.to_string(), both.candidate.to_string());
        row(out, &[name, &base, &candidate])?;
    }
    out.write_str(TABLE_END)
}

fn accuracy(labels: &LabelReport, out: &mut String) -> fmt::Result {
    table_head(out, "Right or wrong", &["", "base", "candidate"])?;
    let (base, candidate) = (&labels.base, &labels.candidate);
    let rates = [percent(base.accuracy), percent(candidate.accuracy)];
    row(out, &["accuracy", &rates[0], &rates[1]])?;
    for (name, values) in [
        ("MAE", [base.mae, candidate.mae]),
        ("RMSE", [base.rmse, candidate.rmse]),
        ("Brier score of the classes", [base.brier, candidate.brier]),
        (
            "Brier score of the confidence",
            [base.confidence_brier, candidate.confidence_brier],
        ),
    ] {
        if let [Some(base), Some(candidate)] = values {
            row(
                out,
                &[name, &format!("{base:.4}"), &format!("{candidate:.4}")],
            )?;
        }
    }
    out.write_str(TABLE_END)?;
    if labels.kind == "disagreements" {
        let found = labels.disagreements;
        writeln!(
            out,
            "<p>Only disagreements have labels ({} of {}), so that the accuracies are unknown.</p>",
            found.labelled, found.all
        )?;
    }
    if let (Some(loss), Some(ends)) = (labels.accuracy_loss, labels.accuracy_loss_interval) {
        let [loss, low, high] = [loss, ends.low, ends.high].map(|it| 100.0 * it);
        writeln!(
            out,
            "<p>Accuracy of the base minus that of the candidate: {loss:.3} % ({low:.3} to \
             {high:.3}).</p>"
        )?;
    }
    let test = labels.mcnemar;
    writeln!(
        out,
        "<p>{} labelled pairs. Only the base is right in {}, only the candidate in {}: {}.</p>",
        labels.labelled,
        test.base_only,
        test.candidate_only,
        html(&p_value(test.p_value))
    )
}

fn latency(report: &Report, out: &mut String) -> fmt::Result {
    let latency = &report.latency;
    if latency.base.count + latency.candidate.count == 0 {
        return Ok(());
    }
    writeln!(out, "<h2>Time from request to score</h2>")?;
    out.write_str(&latency_plot(&latency.base, &latency.candidate))?;
    match latency.difference {
        Some(mean) => writeln!(
            out,
            "<p>On the same request, the candidate takes {:+.3} ms on average ({:+.3} to \
             {:+.3}).</p>",
            mean.mean, mean.low, mean.high
        ),
        None => Ok(()),
    }
}

fn confusion(confusion: &Confusion, out: &mut String) -> fmt::Result {
    let size = confusion.labels.len();
    if !(2..=CONFUSION_MAX).contains(&size) {
        return Ok(());
    }
    let labels: Vec<String> = confusion.labels.iter().map(|it| html(it.get())).collect();
    let mut columns = vec![""];
    columns.extend(labels.iter().map(String::as_str));
    table_head(out, "Classes: base (rows) by candidate (columns)", &columns)?;
    for (label, counts) in labels.iter().zip(&confusion.counts) {
        let total: u64 = counts.iter().sum();
        write!(out, "<tr><th>{label}</th>")?;
        for count in counts {
            let share = *count as f64 / total.max(1) as f64;
            let alpha = 0.75 * share;
            write!(
                out,
                "<td style=\"background:rgba(var(--heat),{alpha:.3})\">{count}</td>"
            )?;
        }
        writeln!(out, "</tr>")?;
    }
    out.write_str(TABLE_END)
}

fn tables(report: &Report, out: &mut String) -> fmt::Result {
    drifts(report, out)?;
    if !report.fields.is_empty() {
        table_head(
            out,
            "By field",
            &["field", "pairs", "disagreement", "beside the noise"],
        )?;
        for field in report.fields.iter().take(ROWS_MAX) {
            let noise = field.noise.map_or_else(String::new, |noise| {
                let said = match noise.differs {
                    true => "more than noise",
                    false => "not more than noise",
                };
                format!("{said}, {}", html(&p_value(noise.corrected)))
            });
            let (path, pairs) = (html(&field.path), field.pairs.to_string());
            row(out, &[&path, &pairs, &percent(field.disagreement), &noise])?;
        }
        out.write_str(TABLE_END)?;
    }
    if !report.slices.is_empty() {
        table_head(out, "By slice", &["slice", "pairs", "agreement"])?;
        for slice in report.slices.iter().take(ROWS_MAX) {
            let name = format!("{} {}", html(&slice.field), html(&slice.value));
            let pairs = slice.pairs.to_string();
            row(out, &[&name, &pairs, &percent(slice.agreement)])?;
        }
        out.write_str(TABLE_END)?;
    }
    Ok(())
}

fn drifts(report: &Report, out: &mut String) -> fmt::Result {
    if report.drift.is_empty() {
        return Ok(());
    }
    let columns = ["field", "PSI", "floor", "unseen", "missing", ""];
    table_head(out, "Drift from the reference", &columns)?;
    let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |it| format!("{it:.4}"));
    for drift in report.drift.iter().take(ROWS_MAX) {
        let said = match drift.drifts {
            true => "<span class=\"failed\">drifts</span>",
            false => "",
        };
        row(
            out,
            &[
                &html(&drift_name(drift)),
                &shown(drift.psi),
                &shown(drift.floor),
                &shown(drift.unseen),
                &shown(Some(drift.missing.current)),
                said,
            ],
        )?;
    }
    out.write_str(TABLE_END)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_the_input_is_never_markup() {
        assert_eq!(html("<b a='\"'>&"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;");
        assert!(!html("\u{1b}[31m").contains('\u{1b}'));
        assert!(html(&"x".repeat(1000)).len() < 100);
    }
}
