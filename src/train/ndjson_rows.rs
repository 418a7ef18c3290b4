//! NDJSON -> rows: every line an object, its members the columns.

use std::collections::HashSet;

use anyhow::{Result, bail};

use crate::stage::report::shown;
use crate::train::label::Kind;
use crate::train::source::{Source, Wanted};
use crate::train::table::{Builder, Fault};
use crate::wire::lines::Line;
use crate::wire::object::{Object, decode_string};

/// Reads all rows into `builder`.
pub fn read(source: &mut Source, wanted: &Wanted, builder: &mut Builder) -> Result<()> {
    if let Some(features) = &wanted.features {
        builder.set_features(features.clone());
    }
    let mut number = 0;
    let mut row = Vec::new();
    while source.advance()? {
        let line = source.line();
        if line.oversized.is_none() && line.record().is_none() {
            continue;
        }
        number += 1;
        let outcome = object_text(&line)
            .and_then(|text| Object::parse(text).map_err(|fault| format!("row {number}: {fault}")))
            .and_then(|object| {
                if builder.features.is_empty() {
                    builder.set_features(all_but_target(&object, &wanted.target));
                }
                take_row(&object, number, &mut row, builder)
                    .map_err(|fault| format!("row {number}: {fault}"))
            });
        if let Err(fault) = outcome {
            source.leave_out_line(&fault)?;
            builder.left_out += 1;
        }
        if let Some(fault) = builder.fault() {
            bail!("{}: {fault}", source.name());
        }
    }
    Ok(())
}

fn object_text<'a>(line: &Line<'a>) -> Result<&'a str, Fault> {
    if line.oversized.is_some() {
        return Err("the line is longer than --max-line-bytes".to_owned());
    }
    std::str::from_utf8(line.record().unwrap_or_default())
        .map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))
}

/// The features where none are named: those of the first object that has the
/// target.
fn all_but_target(object: &Object, target: &str) -> Vec<String> {
    let mut names = Vec::new();
    if object.get(target).is_some() {
        for member in &object.members {
            names.extend(decode_string(member.key).map(|name| name.into_owned()));
        }
        names.retain(|name| name != target);
    }
    // A name that stands there twice is a fault of the row.
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Takes one object into the table, or says why not and leaves the table as it
/// was.
fn take_row(
    object: &Object,
    number: u64,
    row: &mut Vec<f64>,
    builder: &mut Builder,
) -> Result<(), Fault> {
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

/// Reads the features out of an object into `row`, or says why not.
pub fn take_features(
    object: &Object,
    row: &mut Vec<f64>,
    builder: &mut Builder,
) -> Result<(), Fault> {
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
        None if row.is_empty() => Err("the row has no field but the target".to_owned()),
        None => Ok(()),
    }
}

/// The text of the value under `name`, which may stand there once.
fn single<'a>(object: &Object<'a>, name: &str) -> Result<Option<&'a str>, Fault> {
    let mut found = object.members.iter().filter(|member| member.is(name));
    let first = found.next();
    match found.next() {
        Some(_) => Err(format!("field {} stands there twice", shown(name))),
        None => Ok(first.map(|member| member.value)),
    }
}

fn number_of(raw: &str) -> Result<f64, String> {
    if Kind::of_json(raw) != Some(Kind::Number) {
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
