//! Reads NDJSON into a table: each line is an object, and its members are the columns.

use anyhow::{Result, bail};

use crate::stage::report::shown;
use crate::train::cell::{Cell, CellKind};
use crate::train::columns::{Columns, Origin};
use crate::train::fields::{Fields, kind_of_json};
use crate::train::options::TableOptions;
use crate::train::source::Source;
use crate::train::table::RowFault;
use crate::wire::object::Object;
use crate::wire::reject::Reject;

/// Reads all rows.
pub fn read(source: &mut Source, options: &TableOptions) -> Result<Columns> {
    let mut columns = Columns::new(Origin::Ndjson, options);
    let mut fields = Fields::new(&options.columns, &mut columns);
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
            take_text(text, &mut fields, &mut row, &mut columns)
                .map_err(|fault| Reject::Row(format!("row {number}: {fault}")))
        });
        match outcome {
            Ok(()) => columns.push(number, &line, &row),
            Err(reject) => {
                source.leave_out_line(&reject)?;
                columns.left_out += 1;
            }
        }
        if let Some(fault) = columns.fault() {
            bail!("{}: {fault}", source.name());
        }
    }
    fields.check(source.name())?;
    Ok(columns)
}

/// Reads `text`, which must be one object, into `row`. The error is the reason why it
/// cannot be used.
fn take_text(
    text: &str,
    fields: &mut Fields,
    row: &mut Vec<Cell>,
    columns: &mut Columns,
) -> Result<(), RowFault> {
    let object = Object::parse(text)?;
    let raw = only_value(&object, &columns.columns[0].name)?;
    let cell = target_cell(raw, &object, columns)?;
    fields.read(&object, text, row, columns);
    row[0] = cell;
    Ok(())
}

/// The value of a member that may occur only once; `None` if it is absent.
pub fn only_value<'a>(object: &Object<'a>, name: &str) -> Result<Option<&'a str>, RowFault> {
    let mut values = object.members.iter().filter(|member| member.is(name));
    let value = values.next().map(|member| member.value);
    match values.next() {
        None => Ok(value),
        Some(_) => Err(format!("field {} occurs twice", shown(name))),
    }
}

/// The cell of the target. The error is the reason why the row cannot be used.
fn target_cell(
    raw: Option<&str>,
    object: &Object,
    columns: &mut Columns,
) -> Result<Cell, RowFault> {
    let target = shown(&columns.columns[0].name);
    let Some(raw) = raw.filter(|raw| *raw != "null") else {
        let names = object.members.iter().map(|member| member.key);
        let names: Vec<&str> = names.take(20).collect();
        return Err(format!(
            "field {target}, the target, is missing; the row has {}",
            names.join(", ")
        ));
    };
    json_label(raw, columns).map_err(|fault| format!("field {target}: {fault}"))
}

/// The cell of a label in JSON. The error is the reason why it cannot be used.
pub fn json_label(raw: &str, columns: &mut Columns) -> Result<Cell, RowFault> {
    let (kind, value, form, text) = kind_of_json(raw, &columns.syntax);
    match kind {
        CellKind::Nested => Err("a label must be a string, a number or a boolean".to_owned()),
        CellKind::NotUnicode => Err("the label is not valid Unicode".to_owned()),
        CellKind::Missing => Err(format!("the target is missing: it is {}", shown(raw))),
        CellKind::Infinite => Err(format!("the label {raw} is out of range")),
        _ => Ok(columns.add_cell(0, (kind, value), form, &text)),
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
            (
                "{\"a\":1}",
                "field \"y\", the target, is missing; the row has \"a\"",
            ),
            (
                "{\"a\":\"1\",\"y\":\"x\"}",
                "field \"a\": \"1\" is not a number, but 16 of the 17 values are",
            ),
            (
                "{\"a\":1e400,\"y\":\"x\"}",
                "field \"a\": \"1e400\" is not a finite number",
            ),
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
