//! `rv-bridge check`: connects, and says in words what the bridge would do.

use std::fmt::Write;

use anyhow::Result;

use crate::bridge::address::{Broker, Start, ToAddress};
use crate::bridge::broker::check::{checked_input, checked_output};
use crate::bridge::ledger::DoneRule;
use crate::bridge::plan::{Plan, PlannedInput};
use crate::stage::Stage;
use crate::stream::address::Address;
use crate::stream::output::Output;

/// Checks a plan. The first thing that is wrong is the error.
pub fn run(plan: &Plan, stage: &mut Stage) -> Result<()> {
    let mut text = String::new();
    for input in &plan.inputs {
        describe_input(&mut text, plan, input)?;
    }
    for to in plan.outputs.iter().filter_map(|it| it.to.as_ref()) {
        describe_output(&mut text, "output", to)?;
    }
    match &plan.rejects_to {
        Some(to) => describe_output(&mut text, "rejects", to)?,
        None => text += "rejects: only to the file of --rejects, if it is given\n",
    }
    match &plan.program {
        Some(words) => writeln!(text, "program: {}", words.join(" "))?,
        None => writeln!(text, "program: none")?,
    }
    let mut output = Output::open(&Address::Standard)?;
    stage.write_all(&mut output, &mut text.into_bytes())?;
    stage.close(&mut output)
}

fn describe_input(text: &mut String, plan: &Plan, input: &PlannedInput) -> Result<()> {
    let address = &input.address;
    writeln!(
        text,
        "input {}: {address}",
        name(address.name.as_deref(), "<stdin>")
    )?;
    for line in checked_input(address)? {
        writeln!(text, "  {line}")?;
    }
    match &address.group {
        Some(group) => writeln!(
            text,
            "  group {group}; if it has read nothing yet, it begins with the {}",
            match address.start {
                Start::Earliest => "oldest message",
                Start::Latest => "next message",
            }
        )?,
        None => writeln!(text, "  no group: nothing is remembered at the end")?,
    }
    if let Some(partitions) = &address.partitions {
        let (first, last) = (partitions.start(), partitions.end());
        writeln!(
            text,
            "  partitions {first} to {last}, whoever else reads them"
        )?;
    }
    writeln!(text, "  {}", acknowledges(plan, input))?;
    let rules = &input.rules;
    writeln!(
        text,
        "  holds at most {} messages and {} bytes",
        rules.records_max, rules.bytes_max
    )?;
    Ok(())
}

/// When messages of an input are acknowledged, in words.
fn acknowledges(plan: &Plan, input: &PlannedInput) -> String {
    let how = match input.address.cluster.broker {
        Broker::Kafka => "; commits each partition up to its first unfinished message",
        Broker::Nats | Broker::Pulsar => "",
    };
    let when = match &input.rules.done {
        DoneRule::Output if plan.outputs[0].to.is_none() => {
            "when the program has written the record to its standard output".to_owned()
        }
        DoneRule::Output if plan.rules.ordered => {
            "when its output is stored, and so are all messages before it".to_owned()
        }
        DoneRule::Output => "when its output is stored".to_owned(),
        DoneRule::Outputs(mask) => {
            let outputs = plan.outputs.iter().enumerate();
            let names = outputs.filter(|(index, _)| mask & (1 << index) != 0);
            let names: Vec<&str> = names.filter_map(|(_, it)| it.name.as_deref()).collect();
            format!(
                "when a record with its id is stored in {}",
                names.join(" and ")
            )
        }
        DoneRule::Age(age) => format!("{age:?} after the program was given it"),
        DoneRule::Written => {
            "when the pipe has taken it: at most once, since the reader may die with it".to_owned()
        }
    };
    format!("acknowledges a message {when}{how}")
}

fn describe_output(text: &mut String, kind: &str, to: &ToAddress) -> Result<()> {
    writeln!(
        text,
        "{kind} {}: {to}",
        name(to.name.as_deref(), "<stdout>")
    )?;
    for line in checked_output(to)? {
        writeln!(text, "  {line}")?;
    }
    Ok(())
}

fn name<'n>(name: Option<&'n str>, unnamed: &'n str) -> &'n str {
    name.unwrap_or(unnamed)
}
