//! Makes the bodies of calls and reads the bodies of replies, for each protocol.

use anyhow::Result;

use crate::stage::report::shown;
use crate::stage::usage;
use crate::wire::object::{
    Object, array_items, at_pointer, decode_string, one_line, parse_value, write_string,
};

/// The protocol of a server, with its settings.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// The Open Inference Protocol.
    V2(Tensor),
    /// A scoring server of MLflow, with the features to send.
    Mlflow(Option<Vec<String>>),
    /// Any other server.
    Json(JsonShape),
}

impl Protocol {
    /// The body of the call for a `modelInput`. The error says why there is none.
    pub fn body(&self, model_input: &str) -> Result<String, String> {
        match self {
            Protocol::V2(tensor) => tensor.body(model_input),
            Protocol::Mlflow(features) => mlflow_body(features.as_deref(), model_input),
            Protocol::Json(shape) => Ok([&shape.before, model_input, &shape.after].concat()),
        }
    }

    /// The result in the body of a successful reply, as JSON text on one line. The error
    /// says why there is none.
    pub fn result(&self, body: &[u8]) -> Result<String, String> {
        let text = std::str::from_utf8(body).map_err(|_| {
            let shown = shown(&String::from_utf8_lossy(body));
            format!("the reply {shown} is not UTF-8")
        })?;
        let reply = parse_value(text)
            .map_err(|fault| format!("the reply {} is not JSON ({fault})", shown(text)))?;
        let result = match self {
            Protocol::V2(tensor) => return Ok(one_line(&tensor.result(reply)?).into_owned()),
            Protocol::Mlflow(_) => mlflow_result(reply)?,
            Protocol::Json(shape) => match at_pointer(reply, &shape.result) {
                Some(result) => result,
                None => return Err(format!("the reply has no {}", shape.result)),
            },
        };
        Ok(one_line(result).into_owned())
    }
}

/// The shape of bodies and replies of a server that speaks plain JSON.
#[derive(Clone, Debug)]
pub struct JsonShape {
    /// The body up to the input.
    before: String,
    /// The body after the input.
    after: String,
    /// The place of the result in a reply.
    result: String,
}

impl JsonShape {
    /// `input` is the place of the input in the body of a call. `result` is the place
    /// of the result in a reply. An empty pointer means the whole body or reply.
    pub fn new(input: &str, result: &str) -> Result<JsonShape> {
        for (flag, pointer) in [("--input-pointer", input), ("--result-pointer", result)] {
            if !pointer.is_empty() && !pointer.starts_with('/') {
                return Err(usage(format!(
                    "{flag} {pointer}: a JSON pointer begins with a slash: write /{pointer}"
                )));
            }
        }
        let (mut before, mut after) = (Vec::new(), String::new());
        for token in input.split('/').skip(1) {
            if token == "0" {
                before.push(b'[');
                after.insert(0, ']');
            } else {
                before.push(b'{');
                write_string(&mut before, &token.replace("~1", "/").replace("~0", "~"));
                before.push(b':');
                after.insert(0, '}');
            }
        }
        Ok(JsonShape {
            before: String::from_utf8(before)?,
            after,
            result: result.to_owned(),
        })
    }
}

/// The input tensor and the output of a model behind the Open Inference Protocol.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The name of the input, as JSON text.
    name: String,
    datatype: String,
    features: Option<Vec<String>>,
    output: Option<String>,
}

/// The datatypes of the protocol.
const DATATYPES: [&str; 14] = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
    "FP32", "FP64", "BF16", "BYTES",
];

impl Tensor {
    /// A model with an input of this name and datatype. `features` are the members to
    /// send, and `output` is the output to take.
    pub fn new(
        name: &str,
        datatype: &str,
        features: Option<Vec<String>>,
        output: Option<String>,
    ) -> Result<Tensor> {
        if !DATATYPES.contains(&datatype) {
            return Err(usage(format!(
                "--datatype {datatype}: the protocol has {}",
                DATATYPES.join(", ")
            )));
        }
        let mut text = Vec::new();
        write_string(&mut text, name);
        Ok(Tensor {
            name: String::from_utf8(text)?,
            datatype: datatype.to_owned(),
            features,
            output,
        })
    }

    fn body(&self, model_input: &str) -> Result<String, String> {
        let values = match array_items(model_input) {
            Some(items) if self.features.is_none() => {
                let named = items.into_iter().enumerate();
                named
                    .map(|(index, value)| (index.to_string(), value))
                    .collect()
            }
            _ => columns(self.features.as_deref(), model_input)?,
        };
        let mut data = String::new();
        for (name, value) in &values {
            if !data.is_empty() {
                data.push(',');
            }
            data.push_str(self.item(name, value)?);
        }
        let (name, datatype, width) = (&self.name, &self.datatype, values.len());
        Ok(format!(
            "{{\"inputs\":[{{\"name\":{name},\"shape\":[1,{width}],\"datatype\":\"{datatype}\",\"data\":[{data}]}}]}}"
        ))
    }

    /// The value of a feature as an item of the tensor.
    fn item<'a>(&self, name: &str, value: &'a str) -> Result<&'a str, String> {
        let first = value.as_bytes().first().copied().unwrap_or_default();
        let is_boolean = value == "true" || value == "false";
        let (item, expected) = match self.datatype.as_str() {
            "BYTES" => ((first == b'"').then_some(value), "a string"),
            "BOOL" => (is_boolean.then_some(value), "true or false"),
            _ if value == "true" => (Some("1"), ""),
            _ if value == "false" => (Some("0"), ""),
            _ => {
                let is_number = first == b'-' || first.is_ascii_digit();
                (is_number.then_some(value), "a number")
            }
        };
        item.ok_or_else(|| match value {
            "null" => format!("feature {name:?} is missing"),
            _ => format!("feature {name:?} is not {expected}"),
        })
    }

    /// Returns the only row of the output.
    fn result(&self, reply: &str) -> Result<String, String> {
        let outputs = at_pointer(reply, "/outputs").and_then(array_items);
        let outputs = outputs.ok_or_else(|| "the reply has no outputs".to_owned())?;
        let is_wanted = |output: &&&str| match &self.output {
            Some(wanted) => {
                at_pointer(output, "/name")
                    .and_then(decode_string)
                    .as_deref()
                    == Some(wanted)
            }
            None => true,
        };
        let Some(output) = outputs.iter().find(is_wanted) else {
            return Err(match &self.output {
                Some(wanted) => format!("the reply has no output {wanted:?}"),
                None => "the reply has no outputs".to_owned(),
            });
        };
        let shape = at_pointer(output, "/shape").and_then(array_items);
        let shape: Option<Vec<usize>> =
            shape.and_then(|shape| shape.iter().map(|side| side.parse().ok()).collect());
        let data = at_pointer(output, "/data").and_then(array_items);
        let (Some(shape), Some(data)) = (shape, data) else {
            return Err("the output has no shape or no data".to_owned());
        };
        let rows = shape.first().copied().unwrap_or(1);
        if rows != 1 {
            return Err(format!("the output has {rows} rows for one input"));
        }
        row(&data, &shape)
    }
}

/// Returns the row of a tensor that has one row. `data` are the items of the tensor.
fn row(data: &[&str], shape: &[usize]) -> Result<String, String> {
    let count = shape
        .iter()
        .try_fold(1usize, |count, side| count.checked_mul(*side));
    // The data may be nested. Its only item is then the row.
    if let [only] = data
        && only.starts_with('[')
    {
        return match array_items(only).as_deref() {
            Some([item]) if shape.len() == 2 => Ok((*item).to_owned()),
            _ => Ok((*only).to_owned()),
        };
    }
    if count != Some(data.len()) {
        return Err(format!(
            "the output has {} items, which do not fit its shape {shape:?}",
            data.len()
        ));
    }
    Ok(match data {
        [item] => (*item).to_owned(),
        _ => format!("[{}]", data.join(",")),
    })
}

/// The values to send, with their names: the values of `features` in the order of the
/// list, or all members.
fn columns<'a>(
    features: Option<&'a [String]>,
    model_input: &'a str,
) -> Result<Vec<(String, &'a str)>, String> {
    let object =
        Object::parse(model_input).map_err(|_| "modelInput is not an object".to_owned())?;
    let Some(features) = features else {
        let members = object.members.iter();
        return Ok(members
            .map(|it| (it.name().into_owned(), it.value))
            .collect());
    };
    let value = |name: &String| {
        let value = match name.starts_with('/') {
            true => at_pointer(model_input, name),
            false => object.get(name),
        };
        let value = value.ok_or_else(|| format!("feature {name:?} is missing"))?;
        Ok((name.clone(), value))
    };
    features.iter().map(value).collect()
}

/// The body of a call to a scoring server of MLflow: one row of named columns, or an
/// array without names.
fn mlflow_body(features: Option<&[String]>, model_input: &str) -> Result<String, String> {
    if features.is_none() && model_input.starts_with('[') {
        return Ok(format!("{{\"inputs\":[{model_input}]}}"));
    }
    let columns = columns(features, model_input)?;
    let mut body = b"{\"dataframe_split\":{\"columns\":[".to_vec();
    for (index, (name, _)) in columns.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write_string(&mut body, name);
    }
    let values: Vec<&str> = columns.iter().map(|(_, value)| *value).collect();
    body.extend_from_slice(format!("],\"data\":[[{}]]}}}}", values.join(",")).as_bytes());
    String::from_utf8(body).map_err(|error| error.to_string())
}

/// The only prediction in a reply of MLflow.
fn mlflow_result(reply: &str) -> Result<&str, String> {
    // Servers of MLflow before version 2 answer with the array alone.
    let predictions = match reply.starts_with('[') {
        true => Some(reply),
        false => at_pointer(reply, "/predictions"),
    };
    let predictions = predictions.and_then(array_items);
    match predictions.as_deref() {
        Some([only]) => Ok(only),
        Some(all) => Err(format!(
            "the reply has {} predictions for one input",
            all.len()
        )),
        None => Err("the reply has no array of predictions".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(features: Option<&[&str]>, datatype: &str, output: Option<&str>) -> Protocol {
        let features = features.map(|names| names.iter().map(|it| (*it).to_owned()).collect());
        let output = output.map(str::to_owned);
        Protocol::V2(Tensor::new("x\"", datatype, features, output).unwrap())
    }

    fn json(input: &str, result: &str) -> Protocol {
        Protocol::Json(JsonShape::new(input, result).unwrap())
    }

    #[test]
    fn a_tensor_has_the_features_in_order() {
        let body = |data: &str, width| {
            Ok(format!(
                r#"{{"inputs":[{{"name":"x\"","shape":[1,{width}],"datatype":"FP64","data":[{data}]}}]}}"#
            ))
        };
        let all = v2(None, "FP64", None);
        assert_eq!(all.body(r#"{"b":1.50,"a":true}"#), body("1.50,1", 2));
        assert_eq!(all.body("[1, -2e3]"), body("1,-2e3", 2));
        let chosen = v2(Some(&["a", "/c/0"]), "FP64", None);
        assert_eq!(chosen.body(r#"{"b":1,"c":[7],"a":2}"#), body("2,7", 2));
        for (input, fault) in [
            (r#"{"a":1}"#, "feature \"/c/0\" is missing"),
            (r#"{"a":null,"c":[1]}"#, "feature \"a\" is missing"),
            (r#"{"a":"1","c":[1]}"#, "feature \"a\" is not a number"),
            ("[1,2]", "modelInput is not an object"),
            ("7", "modelInput is not an object"),
        ] {
            assert_eq!(chosen.body(input), Err(fault.to_owned()));
        }
        let bytes = v2(None, "BYTES", None).body(r#"{"a":"x"}"#).unwrap();
        assert!(bytes.contains(r#""data":["x"]"#), "{bytes}");
        assert!(v2(None, "BOOL", None).body(r#"{"a":1}"#).is_err());
        assert!(Tensor::new("x", "FLOAT", None, None).is_err());
    }

    #[test]
    fn one_row_of_an_output_is_the_result() {
        let reply = |shape: &str, data: &str| {
            format!(
                r#"{{"outputs":[{{"name":"p","shape":{shape},"datatype":"FP64","data":{data}}},{{"name":"q","shape":[1],"data":["x"]}}]}}"#
            )
        };
        let first = v2(None, "FP64", None);
        for (shape, data, result) in [
            ("[1]", "[2]", "2"),
            ("[1,1]", "[2.50]", "2.50"),
            ("[1,3]", "[1, 2,\n3]", "[1,2,3]"),
            ("[1,3]", "[[1,2,3]]", "[1,2,3]"),
            ("[1,1]", "[[5]]", "5"),
        ] {
            assert_eq!(first.result(reply(shape, data).as_bytes()).unwrap(), result);
        }
        let second = v2(None, "FP64", Some("q"));
        assert_eq!(
            second.result(reply("[1]", "[2]").as_bytes()).unwrap(),
            "\"x\""
        );
        for (shape, data, fault) in [
            ("[2]", "[1,2]", "2 rows"),
            ("[1,3]", "[1,2]", "do not fit"),
            ("[1,9999999999999,9999999999999]", "[1]", "do not fit"),
            ("[-1]", "[1]", "no shape"),
            ("[1]", "7", "no data"),
        ] {
            let error = first.result(reply(shape, data).as_bytes()).unwrap_err();
            assert!(error.contains(fault), "{error}");
        }
        let other = v2(None, "FP64", Some("z"));
        assert!(other.result(reply("[1]", "[2]").as_bytes()).is_err());
        for nothing in ["{}", "[]", "{\"outputs\":[]}", "{\"outputs\":7}", "x", ""] {
            assert!(first.result(nothing.as_bytes()).is_err(), "{nothing}");
        }
    }

    #[test]
    fn mlflow_gets_one_row_and_answers_with_one_prediction() {
        let all = Protocol::Mlflow(None);
        assert_eq!(
            all.body(r#"{"a b":1.0,"c\"":null}"#).unwrap(),
            r#"{"dataframe_split":{"columns":["a b","c\""],"data":[[1.0,null]]}}"#
        );
        assert_eq!(all.body("[1,2]").unwrap(), r#"{"inputs":[[1,2]]}"#);
        let chosen = Protocol::Mlflow(Some(vec!["b".to_owned()]));
        assert_eq!(
            chosen.body(r#"{"a":1,"b":"x"}"#).unwrap(),
            r#"{"dataframe_split":{"columns":["b"],"data":[["x"]]}}"#
        );
        assert!(chosen.body("{}").is_err() && all.body("1").is_err());
        assert_eq!(all.result(b"{\"predictions\": [\"a\"]}").unwrap(), "\"a\"");
        assert_eq!(all.result(b"[[0.1, 0.9]]").unwrap(), "[0.1, 0.9]");
        for wrong in ["{\"predictions\":[1,2]}", "{\"predictions\":1}", "{}", "1"] {
            assert!(all.result(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pointers_shape_the_body_and_the_result() {
        assert_eq!(json("", "").body("[1, 2]").unwrap(), "[1, 2]");
        assert_eq!(json("/a/b", "").body("1").unwrap(), r#"{"a":{"b":1}}"#);
        assert_eq!(
            json("/in\"~1~0/0", "").body("{}").unwrap(),
            r#"{"in\"/~":[{}]}"#
        );
        let reply = b"{\n \"p\": [{\"x\":\n1.10}]\n}";
        assert_eq!(json("", "/p/0/x").result(reply).unwrap(), "1.10");
        assert_eq!(json("", "/p/0").result(reply).unwrap(), r#"{"x": 1.10}"#);
        assert_eq!(
            json("", "/q").result(reply),
            Err("the reply has no /q".to_owned())
        );
        assert!(
            json("", "")
                .result(b"<html>")
                .unwrap_err()
                .contains("is not JSON")
        );
        assert!(
            json("", "")
                .result(b"\xff")
                .unwrap_err()
                .contains("is not UTF-8")
        );
        assert!(JsonShape::new("a", "").is_err() && JsonShape::new("", "a").is_err());
    }

    proptest! {
        #[test]
        fn any_reply_gives_a_result_on_one_line_or_an_error(
            reply in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..50),
                r#"(\{"outputs":\[\{("shape":\[[0-9,]{1,3}\],"data":[\[\]0-9,"{}]{0,8}|)\}\]\}|\{"predictions":[\[\]0-9,]{0,6}\}|[\[\]{}\n:",a0-9]{0,20})"#
                    .prop_map(String::into_bytes),
            ],
        ) {
            for protocol in [v2(None, "FP64", None), Protocol::Mlflow(None), json("", "")] {
                if let Ok(result) = protocol.result(&reply) {
                    prop_assert!(parse_value(&result).is_ok(), "{result}");
                    prop_assert!(!result.contains(['\n', '\r']));
                }
            }
        }
    }
}
