//! Reads NDJSON into a table: each line is an object, and its members are the columns.

use std::collections::HashSet;

use anyhow::{Result, bail};

use crate::model::scalar::ScalarType;
use crate::stage::report::shown;
use crate::train::source::Source;
use crate::train::table::{ColumnNames, RowFault, TableBuilder};
use crate::wire::object::{Object, decode_string};
use crate::wire::reject::Reject;

/// Reads all rows into `builder`.
pub fn read(source: &mut Source, names: &ColumnNames, builder: &mut TableBuilder) -> Result<()> {
    if let Some(features) = &names.features {
        builder.set_features(features.clone());
    }
    let mut number = 0;
    let mut row = Vec::new();
    while source.advance()? {
        let line = source.line();
        let record = match line.record() {
            Ok(None) => continue,
            Ok(Some(record)) => std::str::from_utf8(record).map_err(Reject::not_utf8),
            Err(reject) => Err(reject),
        };
        number += 1;
        let outcome = record.and_then(|text| {
            take_text(text, number, &names.target, &mut row, builder)
                .map_err(|fault| Reject::Row(format!("row {number}: {fault}")))
        });
        if let Err(reject) = outcome {
            source.leave_out_line(&reject)?;
            builder.left_out += 1;
        }
        if let Some(fault) = builder.fault() {
            bail!("{}: {fault}", source.name());
        }
    }
    Ok(())
}

/// Adds the object that is all of `text` to the table. The error is the reason why it
/// cannot be used.
fn take_text(
    text: &str,
    number: u64,
    target: &str,
    row: &mut Vec<f64>,
    builder: &mut TableBuilder,
) -> Result<(), RowFault> {
    let object = Object::parse(text)?;
    if builder.features.is_empty() {
        builder.set_features(all_but_target(&object, target));
    }
    take_row(&object, number, row, builder)
}

/// The features if --features is not given: all members except the target of the first
/// object that has the target.
fn all_but_target(object: &Object, target: &str) -> Vec<String> {
    let mut names = Vec::new();
    if object.get(target).is_some() {
        for member in &object.members {
            names.extend(decode_string(member.key).map(|name| name.into_owned()));
        }
        names.retain(|name| name != target);
    }
    // A name that occurs twice is reported when the row is read.
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Adds one object to the table. The error is the reason why it cannot be used.
fn take_row(
    object: &Object,
    number: u64,
    row: &mut Vec<f64>,
    builder: &mut TableBuilder,
) -> Result<(), RowFault> {
    let label = single(object, &builder.target)?.filter(|raw| *raw != "null");
    let features = take_features(object, row, builder);
    let Some(label) = label else {
        let names = object.members.iter().map(|member| member.key);
        let names: Vec<&str> = names.take(20).collect();
        return Err(format!(
            "field {}, the target, is missing; the row has {}",
            shown(&builder.target),
            names.join(", ")
        ));
    };
    features?;
    let label = builder
        .labels
        .json(label)
        .map_err(|fault| format!("field {}: {fault}", shown(&builder.target)))?;
    builder.push(number, row, label);
    Ok(())
}

/// Reads the features of an object into `row`, and counts those that are missing. The
/// error is the reason why the row cannot be used.
pub fn take_features(
    object: &Object,
    row: &mut Vec<f64>,
    builder: &mut TableBuilder,
) -> Result<(), RowFault> {
    row.clear();
    let mut fault = None;
    for (index, name) in builder.features.iter().enumerate() {
        match single(object, name)?.filter(|raw| *raw != "null") {
            None => {
                builder.missing[index] += 1;
                fault.get_or_insert_with(|| format!("field {} is missing", shown(name)));
            }
            Some(raw) => match number_of(raw) {
                Ok(value) => row.push(value),
                Err(reason) => {
                    fault.get_or_insert_with(|| format!("field {} {reason}", shown(name)));
                }
            },
        }
    }
    match fault {
        Some(fault) => Err(fault),
        None if row.is_empty() => Err("has no field but the target".to_owned()),
        None => Ok(()),
    }
}

/// The text of the value of member `name`, which may occur at most once.
fn single<'a>(object: &Object<'a>, name: &str) -> Result<Option<&'a str>, RowFault> {
    let mut found = object.members.iter().filter(|member| member.is(name));
    let first = found.next();
    match found.next() {
        Some(_) => Err(format!("field {} occurs twice", shown(name))),
        None => Ok(first.map(|member| member.value)),
    }
}

fn number_of(raw: &str) -> Result<f64, String> {
    if ScalarType::of_json(raw) != Some(ScalarType::Number) {
        return Err(format!(
            "is {}, not a number; name the fields to learn from with --features",
            shown(raw)
        ));
    }
    match raw.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err("is out of range".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use crate::train::tests::{TREE, train_on};

    #[test]
    fn an_object_that_cannot_be_used_is_named_with_its_field() {
        let good: String = (0..8)
            .map(|row| format!("{{\"a\":{row},\"y\":\"{}\"}}\n", row > 3))
            .collect();
        for (bad, reason) in [
            ("{\"a\":1", "not JSON"),
            ("[1]", "not a JSON object"),
            ("{\"y\":\"x\"}", "field \"a\" is missing"),
            ("{\"a\":null,\"y\":\"x\"}", "field \"a\" is missing"),
            (
                "{\"a\":1}",
                "field \"y\", the target, is missing; the row has \"a\"",
            ),
            (
                "{\"a\":\"1\",\"y\":\"x\"}",
                "field \"a\" is \"\\\"1\\\"\", not a number; name the fields",
            ),
            ("{\"a\":1e400,\"y\":\"x\"}", "field \"a\" is out of range"),
            ("{\"a\":1,\"a\":1,\"y\":\"x\"}", "field \"a\" occurs twice"),
            (
                "{\"a\":1,\"y\":2}",
                "field \"y\": the label 2 is of another type than the earlier ones, which are strings",
            ),
            ("{\"a\":1,\"y\":[2]}", "field \"y\": a label must be"),
            (
                "{\"a\":1,\"y\":\"\\ud800\"}",
                "field \"y\": the label is not valid Unicode",
            ),
        ] {
            let data = format!("{good}\n{bad}\n{good}");
            let outcome = train_on("bad.ndjson", data.as_bytes(), TREE);
            let message = outcome.message();
            assert!(
                message.contains(&format!("bad.ndjson:10: row 9: {reason}")),
                "{message}"
            );
            let outcome = train_on(
                "bad.ndjson",
                data.as_bytes(),
                &format!("{TREE} --skip-bad-rows"),
            );
            assert_eq!(outcome.message(), "");
            assert_eq!(outcome.rows(), (16, 1));
        }
    }
}
