//! What was asked for, checked: the inputs, the outputs, and when a message is finished.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;

use crate::bridge::address::{Broker, Done, FromAddress, ToAddress};
use crate::bridge::args::StreamArgs;
use crate::bridge::ledger::{AckMode, DoneRule, InputRules, Rules};
use crate::stage::cli::bytes;
use crate::stage::usage;

/// The most outputs: each is one bit of a mask.
const OUTPUTS_MAX: usize = 32;

/// The checked streams and the program.
#[derive(Debug)]
pub struct Plan {
    /// The inputs.
    pub inputs: Vec<PlannedInput>,
    /// The outputs.
    pub outputs: Vec<PlannedOutput>,
    /// The topic of the rejects, if there is one.
    pub rejects_to: Option<ToAddress>,
    /// Whether the program was given the pipe of the rejects.
    pub has_rejects_pipe: bool,
    /// The rules of the ledger.
    pub rules: Rules,
    /// The program; without one, the streams are those of the bridge itself.
    pub program: Option<Vec<String>>,
    /// The bound of the records on their way, and of their bytes.
    pub publishing_max: usize,
    /// The largest size of the records on their way.
    pub publishing_bytes_max: usize,
}

/// One input.
#[derive(Clone, Debug)]
pub struct PlannedInput {
    /// Its address.
    pub address: FromAddress,
    /// Its rules.
    pub rules: InputRules,
}

/// One output.
#[derive(Clone, Debug)]
pub struct PlannedOutput {
    /// The name of its pipe; `None` is standard output.
    pub name: Option<String>,
    /// The topic; `None` if nothing is published.
    pub to: Option<ToAddress>,
}

impl Plan {
    /// Checks what was asked for. `has_rejects_file` says whether `--rejects` is given.
    pub fn new(args: &StreamArgs, has_rejects_file: bool) -> Result<Plan> {
        check_names(args)?;
        check_program(args, has_rejects_file)?;
        let outputs = outputs(args)?;
        let inputs = args
            .from
            .iter()
            .map(|address| planned_input(args, address, &outputs))
            .collect::<Result<Vec<_>>>()?;
        check_rules(args, &inputs, &outputs)?;
        Ok(Plan {
            inputs,
            outputs,
            rejects_to: args.rejects_to.clone(),
            has_rejects_pipe: args.program.iter().any(|it| it.contains("{rejects}")),
            rules: Rules {
                ordered: args.ordered,
                unanswered: args.unanswered,
                deaths_max: args.max_deaths,
                remembered_max: args.remember as usize,
            },
            program: (!args.program.is_empty()).then(|| args.program.clone()),
            publishing_max: args.max_publishing as usize,
            publishing_bytes_max: bytes(args.max_in_flight_bytes),
        })
    }

    /// Whether messages are published as they are.
    pub fn is_direct(&self) -> bool {
        self.program.is_none() && !self.inputs.is_empty() && self.outputs[0].to.is_some()
    }
}

fn check_names(args: &StreamArgs) -> Result<()> {
    if args.from.is_empty() && args.to.is_empty() {
        return Err(usage(
            "no stream: name a topic to consume with --from, or one to publish to with --to",
        ));
    }
    let from = args.from.iter().map(|it| &it.name);
    let to = args.to.iter().map(|it| &it.name);
    let mut seen = BTreeSet::new();
    for name in from.chain(to).flatten() {
        if !seen.insert(name) {
            return Err(usage(format!("two streams are named {name}; rename one")));
        }
    }
    for (flag, unnamed) in [
        (
            "--from",
            args.from.iter().filter(|it| it.name.is_none()).count(),
        ),
        (
            "--to",
            args.to.iter().filter(|it| it.name.is_none()).count(),
        ),
    ] {
        if unnamed > 1 {
            return Err(usage(format!(
                "two {flag} have no name; write {flag} NAME=ADDRESS, and {{NAME}} where the program \
                 takes the path"
            )));
        }
    }
    if args.to.len() > OUTPUTS_MAX {
        return Err(usage(format!("at most {OUTPUTS_MAX} --to")));
    }
    let mut topics = BTreeSet::new();
    for from in &args.from {
        if !topics.insert((&from.cluster, &from.group, &from.stream, &from.topic)) {
            return Err(usage(format!("{from}: occurs twice in the same group")));
        }
    }
    Ok(())
}

fn check_program(args: &StreamArgs, has_rejects_file: bool) -> Result<()> {
    let from = args.from.iter().map(|it| &it.name);
    let names: Vec<_> = from
        .chain(args.to.iter().map(|it| &it.name))
        .flatten()
        .collect();
    if args.program.is_empty() {
        if args.from.len() > 1 || args.to.len() > 1 || !names.is_empty() {
            return Err(usage(
                "named or several streams need a program: add `-- PROGRAM` with {NAME} in its arguments",
            ));
        }
        return Ok(());
    }
    for name in names {
        let place = format!("{{{name}}}");
        if !args.program[1..].iter().any(|it| it.contains(&place)) {
            return Err(usage(format!(
                "the program is not told where the stream {name} is: write {place} in its arguments"
            )));
        }
    }
    let has_pipe = args.program.iter().any(|it| it.contains("{rejects}"));
    if has_pipe && args.rejects_to.is_none() && !has_rejects_file {
        return Err(usage(
            "{rejects} needs a place for the records: add --rejects-to ADDRESS or --rejects FILE",
        ));
    }
    Ok(())
}

fn outputs(args: &StreamArgs) -> Result<Vec<PlannedOutput>> {
    let mut outputs: Vec<PlannedOutput> = args
        .to
        .iter()
        .map(|to| PlannedOutput {
            name: to.name.clone(),
            to: Some(to.clone()),
        })
        .collect();
    if outputs.is_empty() {
        // What a program without --to writes is read, and then discarded.
        outputs.push(PlannedOutput {
            name: None,
            to: None,
        });
    }
    for name in &args.done {
        if !outputs.iter().any(|it| it.name.as_ref() == Some(name)) {
            return Err(usage(format!("--done {name}: no --to has this name")));
        }
    }
    if let Some(to) = &args.rejects_to
        && (to.name.is_some() || to.topic.has_fields() || to.same_partition)
    {
        return Err(usage(
            "--rejects-to takes an address without NAME=, {FIELD} and partition=same",
        ));
    }
    Ok(outputs)
}

fn planned_input(
    args: &StreamArgs,
    address: &FromAddress,
    outputs: &[PlannedOutput],
) -> Result<PlannedInput> {
    let is_worked_on = !args.program.is_empty() || !args.to.is_empty();
    if is_worked_on && address.group.is_none() {
        return Err(usage(format!(
            "{address}: without a group, the next start would not know where this one has ended; \
             add ?group=NAME"
        )));
    }
    let done = match &address.done {
        Some(Done::Age(age)) => DoneRule::Age(*age),
        Some(Done::Written) => DoneRule::Written,
        Some(Done::Outputs(names)) => mask(names, outputs)?,
        None if !is_worked_on => DoneRule::Written,
        None if args.done.is_empty() => DoneRule::Output,
        None => mask(&args.done, outputs)?,
    };
    let is_direct = args.program.is_empty() && !args.to.is_empty();
    if is_direct && done != DoneRule::Output {
        return Err(usage(format!(
            "{address}: done= needs a program; from topic to topic, a message is finished when it is \
             published"
        )));
    }
    Ok(PlannedInput {
        address: address.clone(),
        rules: InputRules {
            done,
            acknowledge: match address.cluster.broker {
                Broker::Kafka => AckMode::Prefix,
                Broker::Nats | Broker::Pulsar => AckMode::Single,
            },
            records_max: args.max_in_flight as usize,
            bytes_max: bytes(args.max_in_flight_bytes).max(1),
            span_max: args.max_span as usize,
        },
    })
}

fn mask(names: &[String], outputs: &[PlannedOutput]) -> Result<DoneRule> {
    let mut mask = 0;
    for name in names {
        let found = outputs.iter().position(|it| it.name.as_ref() == Some(name));
        let Some(index) = found else {
            return Err(usage(format!("done={name}: no --to has this name")));
        };
        mask |= 1 << index;
    }
    Ok(DoneRule::Outputs(mask))
}

fn check_rules(
    args: &StreamArgs,
    inputs: &[PlannedInput],
    outputs: &[PlannedOutput],
) -> Result<()> {
    let is_filter = inputs.iter().any(|it| it.rules.done == DoneRule::Output);
    if is_filter && outputs.len() > 1 {
        return Err(usage(
            "several outputs, and nothing says when a message is finished: name the outputs that a \
             record of it must be safe in with --done NAME,NAME",
        ));
    }
    if args.ordered && !is_filter {
        return Err(usage(
            "--ordered is for messages that one output finishes, and no input has this rule",
        ));
    }
    if args.ordered && inputs.len() > 1 {
        return Err(usage("--ordered takes one --from"));
    }
    for input in inputs {
        if let DoneRule::Age(age) = input.rules.done
            && age == Duration::ZERO
        {
            return Err(usage(format!(
                "{}: done=age: must be more than 0",
                input.address
            )));
        }
    }
    Ok(())
}
