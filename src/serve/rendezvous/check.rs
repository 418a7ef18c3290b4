//! A policy -> what it does, in words.

use std::collections::HashSet;
use std::fmt::Write;

use anyhow::Result;
use clap::Args;

use crate::serve::rendezvous::load_policy;
use crate::serve::rendezvous::policy::{MeasureFrom, Policy, Selector, Step};
use crate::stage::Stage;
use crate::stage::report::escaped;
use crate::stream::address::Address;
use crate::stream::output::Output;
use crate::wire::micros::Micros;

/// The most warnings that are shown one by one.
const WARNINGS_SHOWN: usize = 100;

/// Say in words what a policy does, and warn of what is hardly meant
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The policy, a TOML file
    #[arg(value_name = "POLICY")]
    policy: String,
}

/// Runs `rv-rendezvous check`.
pub fn run(args: &CheckArgs, stage: &mut Stage) -> Result<()> {
    let policy = load_policy(&args.policy)?;
    let mut text = printed(&policy).into_bytes();
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

/// The description as it may be shown. Names and values of a policy hold no line ends,
/// so the lines are those that are written here.
fn printed(policy: &Policy) -> String {
    let text = describe(policy);
    text.lines().map(|line| escaped(line) + "\n").collect()
}

/// What the policy does from which millisecond on.
fn describe(policy: &Policy) -> String {
    let mut text = String::new();
    let origin = match policy.measure_from {
        MeasureFrom::Timestamp => "its timestamp",
        MeasureFrom::Arrival => "its arrival here",
    };
    let _ = writeln!(
        text,
        "policy {}: every request is answered within {} of {origin}",
        policy.hash,
        ms(policy.deadline)
    );
    if let (Some(split), false) = (&policy.split, policy.shares.is_empty()) {
        let _ = writeln!(
            text,
            "one draw a request, of {} with salt {:?}:",
            split.pointer.escape_debug(),
            split.salt
        );
        for share in &policy.shares {
            let _ = writeln!(
                text,
                "  {} <= u < {} ({} % of the requests) wait for {} alone until {}, then go on as \
                 the others",
                share.draws.start,
                share.draws.end,
                percent(share.draws.end - share.draws.start),
                share.model,
                ms(share.until)
            );
        }
    }
    if policy
        .steps
        .first()
        .is_some_and(|step| step.after > Micros(0))
    {
        let _ = writeln!(
            text,
            "  from 0 ms: nobody answers, scores gather until {}",
            ms(policy.steps[0].after)
        );
    }
    for step in &policy.steps {
        let names: Vec<String> = step.selectors.iter().map(selector_text).collect();
        let _ = writeln!(
            text,
            "  from {}: the first to come of {}; of several that are there: in this order",
            ms(step.after),
            names.join(", ")
        );
    }
    if !policy.expect.is_empty() {
        let names: Vec<String> = policy.expect.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            text,
            "  as soon as {} have all reported, errors too: the later steps, at once",
            names.join(", ")
        );
    }
    let _ = match &*policy.default {
        "null" => writeln!(
            text,
            "  at {}: no answer (504 over HTTP)",
            ms(policy.deadline)
        ),
        default => writeln!(text, "  at {}: the default, {default}", ms(policy.deadline)),
    };
    text
}

fn selector_text(selector: &Selector) -> String {
    match selector {
        Selector::Model(model) => model.to_string(),
        Selector::Any => "any model that no share names".to_owned(),
    }
}

/// What is legal, but hardly meant.
fn warnings(policy: &Policy) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(first) = policy.steps.first()
        && first.after == Micros(0)
        && first.selectors.len() > 1
    {
        warnings.push(
            "two models in the first step at 0 ms: whoever comes first answers, and preference \
             hardly ever speaks; give the preferred one a step of its own, or begin later so that \
             scores gather"
                .to_owned(),
        );
    }
    if any_step(policy, |step| step.selectors.contains(&Selector::Any)) {
        warnings.push(
            "\"*\" lets any model answer, also one that is started for a trial alone".to_owned(),
        );
    }
    for pair in policy.steps.windows(2) {
        if pair[0].selectors == pair[1].selectors {
            warnings.push(format!(
                "the step at {} changes nothing: it names the same models in the same order",
                ms(pair[1].after)
            ));
        } else if !accepts_all(&pair[1], &pair[0]) {
            warnings.push(format!(
                "the step at {} no longer accepts a model that the step before accepts",
                ms(pair[1].after)
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
    if !policy.expect.is_empty() {
        let mut seen = HashSet::new();
        for model in policy.steps.iter().flat_map(|step| &step.selectors) {
            if let Selector::Model(model) = model
                && !policy.index.expects(&model.name, model.version)
                && seen.insert(model)
            {
                warnings.push(format!(
                    "{model} may answer and is not in `expect`: once the others have reported, it \
                     is not waited for"
                ));
            }
        }
    }
    for share in &policy.shares {
        if share.until == Micros(0) {
            warnings.push(format!("the share of {} waits 0 ms for it", share.model));
        }
    }
    if policy.steps.is_empty() {
        warnings
            .push("no [[prefer]] step: outside the shares every request gets the default".into());
    }
    warnings
}

/// Whether a step accepts every model that an earlier one accepts.
fn accepts_all(step: &Step, earlier: &Step) -> bool {
    let accepted: HashSet<&Selector> = step.selectors.iter().collect();
    let mut before = earlier.selectors.iter();
    accepted.contains(&Selector::Any) || before.all(|selector| accepted.contains(selector))
}

fn any_step(policy: &Policy, is: impl Fn(&Step) -> bool) -> bool {
    policy.steps.iter().any(is)
}

/// Milliseconds without zeros that say nothing.
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
    fn a_policy_is_told_in_words() {
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
                "one draw a request, of /messageId with salt \"s\":",
                "  0 <= u < 0.05 (5 % of the requests) wait for dt@2 alone until 80 ms, then go on as the others",
                "  from 0 ms: nobody answers, scores gather until 2.5 ms",
                "  from 2.5 ms: the first to come of dt@1, any model that no share names; of several that are there: in this order",
                "  as soon as dt@1, lr@0 have all reported, errors too: the later steps, at once",
                "  at 100 ms: no answer (504 over HTTP)",
            ]
        );
    }

    #[test]
    fn what_is_hardly_meant_is_warned_of() {
        for (policy, warning) in [
            (
                "[[prefer]]\nafter_ms = 0\nmodels = [\"a@1\", \"b@1\"]",
                "whoever comes first",
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
        let shown = printed(&policy);
        assert!(shown.contains("d\\u{202e}t@1"), "{shown}");
        assert!(shown.contains("x\\u{7f}"), "{shown}");
        let is_odd =
            |it: char| it != '\n' && (it.is_control() || it == '\u{2028}' || it == '\u{202e}');
        assert!(!shown.contains(is_odd), "{shown:?}");
        assert_eq!(shown.lines().count(), 3);
    }
}
