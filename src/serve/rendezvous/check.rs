//! `rv-rendezvous check`: explains a policy in words, and warns of probable mistakes.

use std::collections::HashSet;
use std::fmt::Write;

use anyhow::Result;

use crate::serve::rendezvous::args::CheckArgs;
use crate::serve::rendezvous::policy::{MeasureFrom, Policy, Selector, Step};
use crate::serve::rendezvous::policy_files::load_policy;
use crate::stage::Stage;
use crate::stage::report::escaped;
use crate::stream::address::Address;
use crate::stream::output::Output;
use crate::wire::micros::Micros;

/// The largest number of warnings that are shown one by one.
const WARNINGS_SHOWN: usize = 100;

/// Runs `rv-rendezvous check`.
pub fn run(args: &CheckArgs, stage: &mut Stage) -> Result<()> {
    let policy = load_policy(&args.policy)?;
    let mut text = printable_description(&policy).into_bytes();
    let mut output = Output::open(&Address::Standard)?;
    stage.write_all(&mut output, &mut text)?;
    stage.close(&mut output)?;
    let warnings = warnings(&policy);
    for warning in warnings.iter().take(WARNINGS_SHOWN) {
        stage.report.warn(&format!("{}: {warning}", args.policy));
    }
    if warnings.len() > WARNINGS_SHOWN {
        let more = warnings.len() - WARNINGS_SHOWN;
        let message = format!("{}: {more} more warnings like these", args.policy);
        stage.report.warn(&message);
    }
    Ok(())
}

/// The description with its control characters escaped. Names and values of a policy
/// contain no line ends, so every line end belongs to the description.
fn printable_description(policy: &Policy) -> String {
    let text = describe(policy);
    text.lines().map(|line| escaped(line) + "\n").collect()
}

/// Describes the effect of the policy, with the time at which each step begins.
fn describe(policy: &Policy) -> String {
    let mut text = String::new();
    let origin = match policy.measure_from {
        MeasureFrom::Timestamp => "its timestamp",
        MeasureFrom::Arrival => "its arrival here",
    };
    let deadline = ms(policy.deadline);
    let _ = writeln!(
        text,
        "policy {}: every request is answered within {deadline} of {origin}",
        policy.hash,
    );
    describe_shares(&mut text, policy);
    describe_steps(&mut text, policy);
    describe_refusals(&mut text, policy);
    describe_expected(&mut text, policy);
    let _ = match &*policy.default {
        "null" => writeln!(text, "  at {deadline}: no answer (504 over HTTP)"),
        default => writeln!(text, "  at {deadline}: the default, {default}"),
    };
    text
}

fn describe_shares(text: &mut String, policy: &Policy) {
    let Some(split) = policy.split.as_ref().filter(|_| !policy.shares.is_empty()) else {
        return;
    };
    let _ = writeln!(
        text,
        "each request draws a number u by {} with salt {:?}:",
        split.pointer.escape_debug(),
        split.salt
    );
    for share in &policy.shares {
        let _ = writeln!(
            text,
            "  {} <= u < {} ({} % of the requests): only {} may answer or refuse until {}, then \
             the steps apply",
            share.draws.start,
            share.draws.end,
            percent(share.draws.end - share.draws.start),
            share.model,
            ms(share.until)
        );
    }
}

fn describe_steps(text: &mut String, policy: &Policy) {
    if let Some(first) = policy.steps.first()
        && first.after > Micros(0)
    {
        let after = ms(first.after);
        let _ = writeln!(
            text,
            "  from 0 ms: no model may answer; scores gather until {after}"
        );
    }
    for step in &policy.steps {
        let names: Vec<String> = step.selectors.iter().map(selector_text).collect();
        let _ = writeln!(
            text,
            "  from {}: the first score of {}; if several are there, this order decides",
            ms(step.after),
            names.join(", ")
        );
    }
}

/// Describes which refusals are answers.
fn describe_refusals(text: &mut String, policy: &Policy) {
    let mut before = None;
    for step in &policy.steps {
        let first = step.first_model();
        if before == Some(first) {
            continue;
        }
        before = Some(first);
        let after = ms(step.after);
        let _ = match first {
            Some(model) => writeln!(
                text,
                "  from {after}: a refusal by {model} is the answer, too"
            ),
            None => writeln!(text, "  from {after}: no refusal is an answer"),
        };
    }
    text.push_str(
        "  a refusal is an error with a status from 400 to 499, but not 401, 403, 407, 408, 425 or 429\n",
    );
}

/// Describes which reports end the wait for further scores.
fn describe_expected(text: &mut String, policy: &Policy) {
    let Some(expected) = &policy.expected else {
        text.push_str(
            "  any model may answer and `expect` names none: no number of reports ends the wait\n",
        );
        return;
    };
    if expected.models.is_empty() {
        text.push_str("  no step names a model: outside of the shares nobody is waited for\n");
        return;
    }
    let names: Vec<String> = expected.models.iter().map(ToString::to_string).collect();
    let source = match expected.is_written {
        true => "",
        false => " (the models that the steps name, since there is no `expect`)",
    };
    let _ = writeln!(
        text,
        "  when {} have all reported, errors included: the later steps apply at once{source}",
        names.join(", ")
    );
}

fn selector_text(selector: &Selector) -> String {
    match selector {
        Selector::Model(model) => model.to_string(),
        Selector::Any => "any model that no share names".to_owned(),
    }
}

/// Describes settings that are valid, but probably mistakes.
fn warnings(policy: &Policy) -> Vec<String> {
    let mut warnings = Vec::new();
    warn_of_first_step(&mut warnings, policy);
    if policy
        .steps
        .iter()
        .any(|step| step.selectors.contains(&Selector::Any))
    {
        let message = "\"*\" lets any model answer, also one that is started only for a trial";
        warnings.push(message.to_owned());
    }
    warn_of_later_steps(&mut warnings, policy);
    warn_of_unexpected_models(&mut warnings, policy);
    for share in &policy.shares {
        if share.until == Micros(0) {
            warnings.push(format!("the share of {} waits 0 ms for it", share.model));
        }
    }
    if policy.steps.is_empty() {
        let message = "no [[prefer]] step: every request outside of the shares gets the default at \
                       once";
        warnings.push(message.to_owned());
    }
    warnings
}

fn warn_of_first_step(warnings: &mut Vec<String>, policy: &Policy) {
    if let Some(first) = policy.steps.first()
        && first.after == Micros(0)
        && first.selectors.len() > 1
    {
        let message = "two models in the first step at 0 ms: the first score to come answers, so \
                       their order hardly ever decides; give the preferred model a step of its \
                       own, or begin later so that scores gather";
        warnings.push(message.to_owned());
    }
}

fn warn_of_later_steps(warnings: &mut Vec<String>, policy: &Policy) {
    for pair in policy.steps.windows(2) {
        let after = ms(pair[1].after);
        if pair[0].selectors == pair[1].selectors {
            warnings.push(format!(
                "the step at {after} changes nothing: it names the same models in the same order"
            ));
        } else if !accepts_all(&pair[1], &pair[0]) {
            warnings.push(format!(
                "the step at {after} no longer accepts a model that the step before it accepts"
            ));
        }
    }
    if let Some(last) = policy.steps.last()
        && last.after == policy.deadline
    {
        warnings.push(format!(
            "the step at {} begins at the deadline and counts for that one moment",
            ms(last.after)
        ));
    }
}

fn warn_of_unexpected_models(warnings: &mut Vec<String>, policy: &Policy) {
    if policy.expected.as_ref().is_none_or(|it| !it.is_written) {
        return;
    }
    let mut seen = HashSet::new();
    for selector in policy.steps.iter().flat_map(|step| &step.selectors) {
        if let Selector::Model(model) = selector
            && !policy
                .index
                .expects(policy.index.find(&model.name, model.version))
            && seen.insert(model)
        {
            warnings.push(format!(
                "{model} may answer and is not in `expect`: when the others have reported, no \
                 request waits for it"
            ));
        }
    }
}

/// Whether a step accepts every model that an earlier one accepts.
fn accepts_all(step: &Step, earlier: &Step) -> bool {
    let accepted: HashSet<&Selector> = step.selectors.iter().collect();
    let mut before = earlier.selectors.iter();
    accepted.contains(&Selector::Any) || before.all(|selector| accepted.contains(selector))
}

/// Formats a time as milliseconds without trailing zeros.
fn ms(time: Micros) -> String {
    let text = time.as_millis().to_string();
    let short = text.trim_end_matches('0').trim_end_matches('.');
    format!("{short} ms")
}

fn percent(part: f64) -> f64 {
    (part * 1e6).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_described_in_words() {
        let policy = Policy::parse(
            r#"
            deadline_ms = 100
            expect = ["dt@1", "lr@0"]
            [[prefer]]
            after_ms = 2.5
            models = ["dt@1", "*"]
            [split]
            key = "messageId"
            salt = "s"
            [[share]]
            model = "dt@2"
            from = 0.0
            to = 0.05
            until_ms = 80
            "#,
            "policy",
        );
        let policy = policy.unwrap();
        let text = describe(&policy);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("within 100 ms of its timestamp"));
        assert_eq!(
            lines[1..],
            [
                "each request draws a number u by /messageId with salt \"s\":",
                "  0 <= u < 0.05 (5 % of the requests): only dt@2 may answer or refuse until 80 ms, then the steps apply",
                "  from 0 ms: no model may answer; scores gather until 2.5 ms",
                "  from 2.5 ms: the first score of dt@1, any model that no share names; if several are there, this order decides",
                "  from 2.5 ms: a refusal by dt@1 is the answer, too",
                "  a refusal is an error with a status from 400 to 499, but not 401, 403, 407, 408, 425 or 429",
                "  when dt@1, lr@0 have all reported, errors included: the later steps apply at once",
                "  at 100 ms: no answer (504 over HTTP)",
            ]
        );
    }

    #[test]
    fn the_description_says_whose_refusals_and_reports_count() {
        let lines = |steps: &str| {
            let policy = format!("deadline_ms = 100\n{steps}");
            let policy = Policy::parse(&policy, "policy").unwrap();
            let text = describe(&policy);
            let told = |line: &&str| line.contains("refusal by") || line.contains("no refusal");
            let refusals: Vec<String> = text.lines().filter(told).map(str::to_owned).collect();
            let last = text.lines().rev().nth(1).unwrap().to_owned();
            (refusals.join("\n"), last)
        };
        let step = |after: u8, models: &str| {
            format!("[[prefer]]\nafter_ms = {after}\nmodels = [{models}]\n")
        };
        let by_name = [
            step(0, "\"a@1\""),
            step(5, "\"a@1\", \"b@2\""),
            step(9, "\"b@2\""),
        ];
        assert_eq!(
            lines(&by_name.concat()),
            (
                "  from 0 ms: a refusal by a@1 is the answer, too\n  \
                 from 9 ms: a refusal by b@2 is the answer, too"
                    .to_owned(),
                "  when a@1, b@2 have all reported, errors included: the later steps apply at \
                 once (the models that the steps name, since there is no `expect`)"
                    .to_owned()
            )
        );
        let any = [step(0, "\"a@1\""), step(5, "\"*\", \"a@1\"")];
        assert_eq!(
            lines(&any.concat()),
            (
                "  from 0 ms: a refusal by a@1 is the answer, too\n  \
                 from 5 ms: no refusal is an answer"
                    .to_owned(),
                "  any model may answer and `expect` names none: no number of reports ends the \
                 wait"
                    .to_owned()
            )
        );
        let share =
            "[split]\nkey = \"messageId\"\n[[share]]\nmodel = \"a@1\"\nfrom = 0.0\nto = 0.5";
        assert_eq!(
            lines(share).1,
            "  no step names a model: outside of the shares nobody is waited for"
        );
    }

    #[test]
    fn what_is_probably_a_mistake_is_warned_of() {
        for (policy, warning) in [
            (
                "[[prefer]]\nafter_ms = 0\nmodels = [\"a@1\", \"b@1\"]",
                "the first score to come answers",
            ),
            (
                "[[prefer]]\nafter_ms = 1\nmodels = [\"*\"]",
                "lets any model answer",
            ),
            (
                "[[prefer]]\nafter_ms = 10\nmodels = [\"a@1\"]",
                "begins at the deadline",
            ),
            (
                "expect = [\"b@1\"]\n[[prefer]]\nafter_ms = 0\nmodels = [\"a@1\"]",
                "a@1 may answer and is not in `expect`",
            ),
            (
                "[[prefer]]\nafter_ms = 0\nmodels = [\"a@1\"]\n[[prefer]]\nafter_ms = 1\nmodels = [\"a@1\"]",
                "changes nothing",
            ),
            (
                "[[prefer]]\nafter_ms = 0\nmodels = [\"a@1\"]\n[[prefer]]\nafter_ms = 1\nmodels = [\"b@1\"]",
                "no longer accepts",
            ),
            (
                "[split]\nkey = \"messageId\"\n[[share]]\nmodel = \"a@1\"\nfrom = 0.0\nto = 1.0\nuntil_ms = 0",
                "waits 0 ms",
            ),
        ] {
            let policy = Policy::parse(&format!("deadline_ms = 10\n{policy}"), "p").unwrap();
            let warnings = warnings(&policy);
            assert!(
                warnings.iter().any(|it| it.contains(warning)),
                "{warning}: {warnings:?}"
            );
        }
        let good =
            "deadline_ms = 10\nexpect = [\"a@1\"]\n[[prefer]]\nafter_ms = 0\nmodels = [\"a@1\"]";
        assert!(warnings(&Policy::parse(good, "p").unwrap()).is_empty());
    }

    #[test]
    fn what_is_printed_of_a_policy_cannot_move_the_cursor() {
        let text = r#"
            deadline_ms = 100
            [[prefer]]
            after_ms = 0
            models = ["d\u202et@1"]
            [default]
            modelResult = { a = "\u001b[2J\u2028", b = "x\u007f" }
            "#;
        let policy = Policy::parse(text, "policy").unwrap();
        let shown = printable_description(&policy);
        assert!(shown.contains("d\\u{202e}t@1"), "{shown}");
        assert!(shown.contains("x\\u{7f}"), "{shown}");
        let is_odd =
            |it: char| it != '\n' && (it.is_control() || it == '\u{2028}' || it == '\u{202e}');
        assert!(!shown.contains(is_odd), "{shown:?}");
        assert_eq!(shown.lines().count(), 6);
    }
}
