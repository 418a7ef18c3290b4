//! The protocol of MLflow's scoring servers: the rows of a call, and its answer (pure).

use crate::serve::request::http::table::{Columns, Rows, TableFault, TableLimits, array, invalid};
use crate::wire::object::{Object, array_items, decode_string};

/// The forms of a call. A call has exactly one of them.
const FORMS: [&str; 4] = [
    "dataframe_split",
    "dataframe_records",
    "instances",
    "inputs",
];

/// The model inputs of a call with this body, one for each row.
pub fn rows(body: &str, limits: TableLimits) -> Result<Vec<String>, TableFault> {
    let Ok(call) = Object::parse(body) else {
        return invalid("the body is not an object");
    };
    if call.get("params").is_some_and(|params| params != "null") {
        let fault = "params cannot be passed to the models".to_owned();
        return Err(TableFault::Unsupported(fault));
    }
    let mut found = FORMS
        .into_iter()
        .filter_map(|form| Some((form, call.get(form)?)));
    let (Some((form, table)), None) = (found.next(), found.next()) else {
        return invalid(format!(
            "the body must have exactly one of {}",
            FORMS.join(", ")
        ));
    };
    match form {
        "dataframe_split" => split(table, limits),
        "inputs" if table.starts_with('{') => columnar(table, limits),
        _ => {
            let Some(items) = array_items(table) else {
                return invalid(format!("{form} is not an array"));
            };
            let is_record = |item: &&str| item.starts_with('{');
            if form == "dataframe_records" && !items.iter().all(is_record) {
                return invalid("a row of dataframe_records is not an object");
            }
            each(items.into_iter().map(str::to_owned), limits)
        }
    }
}

/// The body of the answer with these results, which are JSON texts.
pub fn answer(results: &[&str]) -> String {
    format!("{{\"predictions\":{}}}", array(results.iter().copied()))
}

fn each(
    inputs: impl ExactSizeIterator<Item = String>,
    limits: TableLimits,
) -> Result<Vec<String>, TableFault> {
    let mut rows = Rows::new(inputs.len(), limits)?;
    for input in inputs {
        rows.push(input)?;
    }
    Ok(rows.into_inputs())
}

/// A data frame as pandas writes it with `orient="split"`.
fn split(table: &str, limits: TableLimits) -> Result<Vec<String>, TableFault> {
    let Ok(frame) = Object::parse(table) else {
        return invalid("dataframe_split is not an object");
    };
    let Some(data) = frame.get("data").and_then(array_items) else {
        return invalid("dataframe_split has no array \"data\"");
    };
    let names = match frame.get("columns") {
        None | Some("null") => return each(data.into_iter().map(str::to_owned), limits),
        Some(names) => array_items(names),
    };
    let Some(names) = names else {
        return invalid("the columns of dataframe_split are not an array");
    };
    // A data frame without names has numbers as the names of its columns.
    let name = |name: &str| decode_string(name).map_or(name.to_owned(), |name| name.into_owned());
    let names: Vec<String> = names.into_iter().map(name).collect();
    let columns = Columns::new(names.iter().map(String::as_str))?;
    let mut rows = Rows::new(data.len(), limits)?;
    for (number, row) in data.into_iter().enumerate() {
        let values = array_items(row).unwrap_or_default();
        if values.len() != columns.count() {
            return invalid(format!(
                "row {number} of dataframe_split has {} values for {} columns",
                values.len(),
                columns.count()
            ));
        }
        rows.push(columns.object(values.into_iter()))?;
    }
    Ok(rows.into_inputs())
}

/// Columns of equal length, by name. Columns that are no arrays make one row.
fn columnar(table: &str, limits: TableLimits) -> Result<Vec<String>, TableFault> {
    let Ok(frame) = Object::parse(table) else {
        return invalid("inputs is not an object");
    };
    let names: Vec<_> = frame.members.iter().map(|member| member.name()).collect();
    let columns = Columns::new(names.iter().map(|name| &**name))?;
    let values = || frame.members.iter().map(|member| member.value);
    if values().all(|value| !value.starts_with('[')) {
        let count = usize::from(columns.count() > 0);
        let mut rows = Rows::new(count, limits)?;
        rows.push(columns.object(values()))?;
        return Ok(rows.into_inputs());
    }
    let lists: Vec<Vec<&str>> = values()
        .map(|it| array_items(it).unwrap_or_default())
        .collect();
    let count = lists.first().map_or(0, Vec::len);
    if lists.iter().any(|list| list.len() != count) {
        return invalid("the columns of inputs have different lengths");
    }
    let mut rows = Rows::new(count, limits)?;
    for row in 0..count {
        rows.push(columns.object(lists.iter().map(|list| list[row])))?;
    }
    Ok(rows.into_inputs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: TableLimits = TableLimits {
        rows_max: 3,
        bytes_max: 100,
    };

    #[test]
    fn each_row_is_a_model_input_with_the_text_of_its_values() {
        for (body, expected) in [
            (
                r#"{"dataframe_split":{"index":[7,8],"columns":["a","b \""],"data":[[1.10,"x"],[null,true]]}}"#,
                &[r#"{"a":1.10,"b \"":"x"}"#, r#"{"a":null,"b \"":true}"#][..],
            ),
            (
                r#"{"dataframe_split":{"columns":[0,1],"data":[[1,2]]}}"#,
                &[r#"{"0":1,"1":2}"#],
            ),
            (r#"{"dataframe_split":{"data":[[1, 2]]}}"#, &["[1, 2]"]),
            (
                r#"{"dataframe_records":[{"a": 1e400},{"b":[]}],"params":null}"#,
                &[r#"{"a": 1e400}"#, r#"{"b":[]}"#],
            ),
            (
                r#"{"instances":[[1.0,2],"x",3]}"#,
                &["[1.0,2]", "\"x\"", "3"],
            ),
            (r#"{"inputs":[[1],[2]]}"#, &["[1]", "[2]"]),
            (
                r#"{"inputs":{"a":[1,2],"b":[[3],"4"]}}"#,
                &[r#"{"a":1,"b":[3]}"#, r#"{"a":2,"b":"4"}"#],
            ),
            (r#"{"inputs":{"q":"why"}}"#, &[r#"{"q":"why"}"#]),
        ] {
            assert_eq!(rows(body, LIMITS).unwrap(), expected, "{body}");
        }
        assert_eq!(answer(&["1.0", "\"a\""]), r#"{"predictions":[1.0,"a"]}"#);
    }

    #[test]
    fn a_table_that_is_none_is_refused_by_its_kind() {
        for body in [
            "[]",
            "{}",
            r#"{"inputs":[1],"instances":[1]}"#,
            r#"{"inputs":7}"#,
            r#"{"inputs":[]}"#,
            r#"{"inputs":{}}"#,
            r#"{"inputs":{"a":[1],"b":[]}}"#,
            r#"{"inputs":{"a":[1],"b":1}}"#,
            r#"{"inputs":{"a":[1],"a":[1]}}"#,
            r#"{"dataframe_records":[1]}"#,
            r#"{"dataframe_split":[]}"#,
            r#"{"dataframe_split":{"columns":["a"]}}"#,
            r#"{"dataframe_split":{"columns":["a"],"data":[[1,2]]}}"#,
            r#"{"dataframe_split":{"columns":["a","a"],"data":[[1,2]]}}"#,
            r#"{"dataframe_split":{"columns":"a","data":[[1]]}}"#,
        ] {
            let fault = rows(body, LIMITS).unwrap_err();
            assert!(matches!(fault, TableFault::Invalid(_)), "{body}: {fault:?}");
        }
        let params = rows(r#"{"inputs":[1],"params":{"t":1}}"#, LIMITS).unwrap_err();
        assert!(matches!(params, TableFault::Unsupported(_)));
        let long_name = "n".repeat(40);
        for body in [
            r#"{"inputs":[1,2,3,4]}"#,
            &format!(r#"{{"dataframe_split":{{"columns":["{long_name}"],"data":[[1],[2],[3]]}}}}"#),
        ] {
            let fault = rows(body, LIMITS).unwrap_err();
            assert!(
                matches!(fault, TableFault::TooLarge(_)),
                "{body}: {fault:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_body_gives_rows_of_json_or_a_fault(
            form in "(dataframe_split|dataframe_records|instances|inputs|params)",
            table in "[\\[\\]{}\",:0-9a]{0,20}",
            data in "[\\[\\],0-9]{0,12}",
        ) {
            for body in [
                format!("{{\"{form}\":{table}}}"),
                format!("{{\"{form}\":{{\"columns\":[\"a\"],\"data\":[{data}]}}}}"),
            ] {
                for row in rows(&body, LIMITS).unwrap_or_default() {
                    prop_assert!(serde_json::from_str::<serde_json::Value>(&row).is_ok(), "{row}");
                }
            }
        }
    }
}
