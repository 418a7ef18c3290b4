//! The Open Inference Protocol, version 2, over HTTP: the rows of a call, and its answer
//! (pure).

use crate::serve::request::http::table::{Columns, Rows, TableFault, TableLimits, array, invalid};
use crate::wire::object::{Object, ObjectWriter, array_items, decode_string, write_string};

/// The name of the output, if the call names none.
const OUTPUT: &str = "predict";

/// The largest number of sides of a tensor.
const SIDES_MAX: usize = 8;

/// A call of `/infer`.
#[derive(Debug)]
pub struct InferCall {
    /// The model inputs, one for each row.
    pub rows: Vec<String>,
    /// What the answer repeats.
    pub echo: Echo,
}

/// The parts of a call that its answer repeats.
#[derive(Debug)]
pub struct Echo {
    /// The `id` of the call, as JSON text.
    id: Option<String>,
    output: String,
}

/// A tensor of a call.
struct Tensor<'a> {
    name: String,
    /// The number of rows, and the sides of each row.
    count: usize,
    sides: Vec<usize>,
    /// The items, row by row, as JSON texts.
    items: Vec<&'a str>,
}

impl InferCall {
    /// Reads the body of a call. If `columns` is given, a single tensor with as many
    /// columns makes objects with these names.
    pub fn read(
        body: &str,
        columns: Option<&[String]>,
        limits: TableLimits,
    ) -> Result<InferCall, TableFault> {
        let Ok(call) = Object::parse(body) else {
            return invalid("the body is not an object");
        };
        let id = call.get("id").filter(|id| *id != "null");
        if id.is_some_and(|id| !id.starts_with('"')) {
            return invalid("id is not a string");
        }
        let echo = Echo {
            id: id.map(str::to_owned),
            output: output_of(&call)?,
        };
        let Some(inputs) = call.get("inputs").and_then(array_items) else {
            return invalid("the body has no array \"inputs\"");
        };
        let mut tensors = Vec::new();
        for input in inputs {
            tensors.push(Tensor::read(input, limits)?);
        }
        let rows = rows(&tensors, columns, limits)?;
        Ok(InferCall { rows, echo })
    }
}

/// The name of the only output. A call may ask for one output by any name, because a
/// rendezvous has one result for each row.
fn output_of(call: &Object) -> Result<String, TableFault> {
    let Some(outputs) = call.get("outputs").filter(|outputs| *outputs != "null") else {
        return Ok(OUTPUT.to_owned());
    };
    match array_items(outputs).as_deref() {
        Some([]) => Ok(OUTPUT.to_owned()),
        Some([output]) => {
            let output = Object::parse(output).ok();
            let name = output.and_then(|it| it.get("name").and_then(decode_string));
            name.map_or_else(
                || invalid("the output has no name"),
                |it| Ok(it.into_owned()),
            )
        }
        Some(_) => invalid("the model has one output, and the call asks for several"),
        None => invalid("outputs is not an array"),
    }
}

impl<'a> Tensor<'a> {
    fn read(text: &'a str, limits: TableLimits) -> Result<Tensor<'a>, TableFault> {
        let Ok(input) = Object::parse(text) else {
            return invalid("an input is not an object");
        };
        let name = input.get("name").and_then(decode_string);
        let name =
            name.map_or_else(|| invalid("an input has no name"), |it| Ok(it.into_owned()))?;
        let fault = |fault: &str| invalid(format!("input {name:?} {fault}"));
        let parameters = input
            .get("parameters")
            .and_then(|it| Object::parse(it).ok());
        if parameters.is_some_and(|it| it.get("binary_data_size").is_some()) {
            return fault("has binary data, which this server does not take; send it as JSON");
        }
        let datatype = input.get("datatype").and_then(decode_string);
        let Some(kind) = datatype.as_deref().and_then(Kind::of) else {
            return fault("has no datatype of the protocol");
        };
        let sides = input.get("shape").and_then(array_items).unwrap_or_default();
        let sides: Option<Vec<usize>> = sides.iter().map(|side| side.parse().ok()).collect();
        let Some((count, sides)) = sides.as_deref().and_then(<[usize]>::split_first) else {
            return fault("has no shape of whole numbers");
        };
        if sides.len() >= SIDES_MAX || sides.contains(&0) {
            return fault("has a shape with an empty side or with more than 8 sides");
        }
        // Checked before the items are counted, so that the status says what is wrong.
        Rows::new(*count, limits)?;
        let mut items = Vec::new();
        let is_flat = input
            .get("data")
            .is_some_and(|data| flatten(data, sides.len() + 1, &mut items));
        if !is_flat {
            return fault("has no array \"data\", or one that is nested deeper than its shape");
        }
        let mut sizes = sides.iter().copied();
        let size = sizes.try_fold(*count, usize::checked_mul);
        if size != Some(items.len()) {
            let shape = array_of(*count, sides);
            return fault(&format!("has {} items for the shape {shape}", items.len()));
        }
        if let Some(wrong) = items.iter().find(|item| !kind.holds(item)) {
            let wrong: String = wrong.chars().take(40).collect();
            let datatype = datatype.unwrap_or_default();
            return fault(&format!("has the item {wrong}, which is not {datatype}"));
        }
        Ok(Tensor {
            count: *count,
            sides: sides.to_vec(),
            items,
            name,
        })
    }

    /// The number of items of a row.
    fn width(&self) -> usize {
        self.sides.iter().product()
    }

    fn items_of(&self, row: usize) -> &[&'a str] {
        let width = self.width();
        &self.items[row * width..(row + 1) * width]
    }

    /// The row as an array, with the sides of the tensor.
    fn array_of(&self, row: usize) -> String {
        nest(self.items_of(row), &self.sides)
    }

    /// Whether each row is a single item.
    fn is_scalar(&self) -> bool {
        matches!(self.sides.as_slice(), [] | [1])
    }
}

fn array_of(count: usize, sides: &[usize]) -> String {
    let all: Vec<String> = [&[count], sides]
        .concat()
        .iter()
        .map(usize::to_string)
        .collect();
    array(all.iter().map(String::as_str))
}

/// The items as arrays within arrays.
fn nest(items: &[&str], sides: &[usize]) -> String {
    match sides {
        [] => items.first().copied().unwrap_or("null").to_owned(),
        [_] => array(items.iter().copied()),
        [count, inner @ ..] => {
            let width: usize = inner.iter().product();
            let part = |index| nest(&items[index * width..(index + 1) * width], inner);
            let parts: Vec<String> = (0..*count).map(part).collect();
            array(parts.iter().map(String::as_str))
        }
    }
}

/// Collects the items of an array that may be nested up to `depth` deep. Returns false
/// for another text.
fn flatten<'a>(data: &'a str, depth: usize, items: &mut Vec<&'a str>) -> bool {
    let Some(parts) = array_items(data) else {
        return false;
    };
    for part in parts {
        if part.starts_with('[') {
            if depth <= 1 || !flatten(part, depth - 1, items) {
                return false;
            }
        } else {
            items.push(part);
        }
    }
    true
}

/// The model inputs of the tensors. A single tensor of two or more sides makes an array
/// or an object a row; other tensors make objects with their names.
fn rows(
    tensors: &[Tensor],
    names: Option<&[String]>,
    limits: TableLimits,
) -> Result<Vec<String>, TableFault> {
    let Some(first) = tensors.first() else {
        return invalid("the call has no input");
    };
    if let Some(other) = tensors.iter().find(|it| it.count != first.count) {
        return invalid(format!(
            "input {:?} has {} rows, and input {:?} has {}",
            first.name, first.count, other.name, other.count
        ));
    }
    let mut rows = Rows::new(first.count, limits)?;
    let has_columns = matches!(tensors, [_]) && first.sides.len() == 1;
    let names = names.filter(|names| has_columns && names.len() == first.width());
    if let Some(names) = names {
        let columns = Columns::new(names.iter().map(String::as_str))?;
        for row in 0..first.count {
            rows.push(columns.object(first.items_of(row).iter().copied()))?;
        }
    } else if matches!(tensors, [_]) && !first.sides.is_empty() {
        for row in 0..first.count {
            rows.push(first.array_of(row))?;
        }
    } else {
        let columns = Columns::new(tensors.iter().map(|it| it.name.as_str()))?;
        for row in 0..first.count {
            let value = |tensor: &Tensor| match tensor.is_scalar() {
                true => tensor.items_of(row)[0].to_owned(),
                false => tensor.array_of(row),
            };
            let values: Vec<String> = tensors.iter().map(value).collect();
            rows.push(columns.object(values.iter().map(String::as_str)))?;
        }
    }
    Ok(rows.into_inputs())
}

/// What the items of a datatype are.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Boolean,
    Integer(i128, i128),
    Number,
    Text,
}

impl Kind {
    fn of(datatype: &str) -> Option<Kind> {
        Some(match datatype {
            "BOOL" => Kind::Boolean,
            "UINT8" => Kind::Integer(0, u8::MAX.into()),
            "UINT16" => Kind::Integer(0, u16::MAX.into()),
            "UINT32" => Kind::Integer(0, u32::MAX.into()),
            "UINT64" => Kind::Integer(0, u64::MAX.into()),
            "INT8" => Kind::Integer(i8::MIN.into(), i8::MAX.into()),
            "INT16" => Kind::Integer(i16::MIN.into(), i16::MAX.into()),
            "INT32" => Kind::Integer(i32::MIN.into(), i32::MAX.into()),
            "INT64" => Kind::Integer(i64::MIN.into(), i64::MAX.into()),
            "FP16" | "FP32" | "FP64" | "BF16" => Kind::Number,
            "BYTES" => Kind::Text,
            _ => return None,
        })
    }

    fn holds(self, item: &str) -> bool {
        match self {
            Kind::Boolean => matches!(item, "true" | "false"),
            Kind::Integer(least, most) => item
                .parse()
                .is_ok_and(|number: i128| (least..=most).contains(&number)),
            Kind::Number => is_number(item),
            Kind::Text => item.starts_with('"'),
        }
    }
}

fn is_number(item: &str) -> bool {
    item.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// The body of the answer with these results, which are JSON texts.
pub fn answer(model: &str, echo: &Echo, results: &[&str]) -> Vec<u8> {
    let all = |is: fn(&str) -> bool| results.iter().all(|result| is(result));
    let datatype = if all(|it| it.starts_with('"')) {
        "BYTES"
    } else if all(|it| matches!(it, "true" | "false")) {
        "BOOL"
    } else if all(|it| it.parse::<i64>().is_ok()) {
        "INT64"
    } else if all(is_number) {
        "FP64"
    } else {
        ""
    };
    let data = match datatype {
        // Each result is a text that holds JSON.
        "" => array(
            results
                .iter()
                .map(|it| string(it))
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str),
        ),
        _ => array(results.iter().copied()),
    };
    let mut body = Vec::new();
    let mut object = ObjectWriter::new(&mut body);
    object.string("model_name", model);
    if let Some(id) = &echo.id {
        object.raw("id", id);
    }
    object.array("outputs", [data], |output, data| {
        output
            .string("name", &echo.output)
            .raw("shape", &format!("[{}]", results.len()))
            .string(
                "datatype",
                if datatype.is_empty() {
                    "BYTES"
                } else {
                    datatype
                },
            )
            .raw("data", &data);
    });
    object.end();
    body
}

fn string(text: &str) -> String {
    let mut string = Vec::new();
    write_string(&mut string, text);
    String::from_utf8_lossy(&string).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: TableLimits = TableLimits {
        rows_max: 4,
        bytes_max: 1000,
    };

    fn tensor(name: &str, shape: &str, datatype: &str, data: &str) -> String {
        format!(r#"{{"name":"{name}","shape":{shape},"datatype":"{datatype}","data":{data}}}"#)
    }

    fn read(tensors: &[String], columns: Option<&[&str]>) -> Result<Vec<String>, TableFault> {
        let columns: Option<Vec<String>> =
            columns.map(|all| all.iter().map(|it| (*it).to_owned()).collect());
        let body = format!("{{\"inputs\":[{}]}}", tensors.join(","));
        InferCall::read(&body, columns.as_deref(), LIMITS).map(|call| call.rows)
    }

    #[test]
    fn one_tensor_is_an_array_or_an_object_a_row() {
        for data in ["[1.10,2,3,4]", "[[1.10,2],[3,4]]"] {
            let one = [tensor("x", "[2,2]", "FP64", data)];
            assert_eq!(read(&one, None).unwrap(), ["[1.10,2]", "[3,4]"]);
            let named = read(&one, Some(&["a", "b"])).unwrap();
            assert_eq!(named, [r#"{"a":1.10,"b":2}"#, r#"{"a":3,"b":4}"#]);
            let other = read(&one, Some(&["a", "b", "c"])).unwrap();
            assert_eq!(other, ["[1.10,2]", "[3,4]"]);
        }
        let scalar = [tensor("x", "[2]", "INT8", "[1,-2]")];
        assert_eq!(read(&scalar, None).unwrap(), [r#"{"x":1}"#, r#"{"x":-2}"#]);
        let single = [tensor("x", "[1,1]", "BYTES", "[\"a\"]")];
        assert_eq!(read(&single, None).unwrap(), ["[\"a\"]"]);
        let deep = [tensor("x", "[1,2,2]", "INT8", "[1,2,3,4]")];
        assert_eq!(read(&deep, None).unwrap(), ["[[1,2],[3,4]]"]);
    }

    #[test]
    fn several_tensors_make_objects_with_their_names() {
        let several = [
            tensor("a", "[2,1]", "FP32", "[1,2.50]"),
            tensor("b", "[2]", "BYTES", "[\"x\",\"y\"]"),
            tensor("c", "[2,2]", "BOOL", "[[true,false],[false,true]]"),
        ];
        assert_eq!(
            read(&several, None).unwrap(),
            [
                r#"{"a":1,"b":"x","c":[true,false]}"#,
                r#"{"a":2.50,"b":"y","c":[false,true]}"#
            ]
        );
    }

    #[test]
    fn wrong_shapes_and_types_are_refused() {
        for (shape, datatype, data) in [
            ("[2,2]", "FP64", "[1,2,3]"),
            ("[-1,2]", "FP64", "[1,2]"),
            ("[9999999999,9999999999999]", "FP64", "[1,2]"),
            ("[1,9999999999999,9999999999]", "FP64", "[1,2]"),
            ("[]", "FP64", "[]"),
            ("[0,2]", "FP64", "[]"),
            ("[1,1000000000,0]", "FP64", "[]"),
            ("7", "FP64", "[1]"),
            ("[1]", "FP63", "[1]"),
            ("[1]", "FP64", "[null]"),
            ("[1]", "FP64", "[\"1\"]"),
            ("[1]", "INT32", "[1.5]"),
            ("[1]", "UINT8", "[256]"),
            ("[1]", "BOOL", "[1]"),
            ("[1]", "BYTES", "[1]"),
            ("[1]", "FP64", "[[1]]"),
            ("[1]", "FP64", "1"),
            ("[1,1,1,1,1,1,1,1,1]", "FP64", "[1]"),
        ] {
            let fault = read(&[tensor("x", shape, datatype, data)], None).unwrap_err();
            let is_refused = match fault {
                TableFault::TooLarge(_) => shape.starts_with("[9"),
                fault => matches!(fault, TableFault::Invalid(_)),
            };
            assert!(is_refused, "{shape} {datatype} {data}");
        }
        let binary =
            r#"{"name":"x","shape":[1],"datatype":"FP64","parameters":{"binary_data_size":8}}"#;
        let fault = read(&[binary.to_owned()], None).unwrap_err();
        assert!(matches!(fault, TableFault::Invalid(it) if it.contains("binary")));
        let uneven = [
            tensor("a", "[1]", "INT8", "[1]"),
            tensor("b", "[2]", "INT8", "[1,2]"),
        ];
        assert!(read(&uneven, None).is_err());
        let twice = [
            tensor("a", "[1]", "INT8", "[1]"),
            tensor("a", "[1]", "INT8", "[1]"),
        ];
        assert!(read(&twice, None).is_err() && read(&[], None).is_err());
    }

    #[test]
    fn the_datatype_of_the_answer_follows_the_results() {
        let body = r#"{"id":"q\"1","inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}],"outputs":[{"name":"label"}]}"#;
        let call = InferCall::read(body, None, LIMITS).unwrap();
        for (results, datatype, data) in [
            (&["\"a\"", "\"b\""][..], "BYTES", r#"["a","b"]"#),
            (&["1", "-2"], "INT64", "[1,-2]"),
            (&["1", "2.50"], "FP64", "[1,2.50]"),
            (&["99999999999999999999"], "FP64", "[99999999999999999999]"),
            (&["true"], "BOOL", "[true]"),
            (&["1", "\"a\""], "BYTES", r#"["1","\"a\""]"#),
            (&["[1.0]", "{}"], "BYTES", r#"["[1.0]","{}"]"#),
            (&["null"], "BYTES", r#"["null"]"#),
        ] {
            let body = String::from_utf8(answer("m", &call.echo, results)).unwrap();
            let count = results.len();
            assert_eq!(
                body,
                format!(
                    r#"{{"model_name":"m","id":"q\"1","outputs":[{{"name":"label","shape":[{count}],"datatype":"{datatype}","data":{data}}}]}}"#
                )
            );
        }
    }

    proptest! {
        #[test]
        fn any_tensor_gives_rows_of_json_or_a_fault(
            shape in "\\[[0-3](,[0-3]){0,3}\\]",
            data in "[\\[\\],0-9]{0,16}",
            datatype in "(INT8|FP64|BYTES)",
            body in ".{0,40}",
        ) {
            let _ = InferCall::read(&body, None, LIMITS);
            for data in [format!("[{data}]"), data] {
                let rows = read(&[tensor("x", &shape, &datatype, &data)], None);
                for row in rows.unwrap_or_default() {
                    prop_assert!(serde_json::from_str::<serde_json::Value>(&row).is_ok(), "{row}");
                }
            }
        }
    }
}
