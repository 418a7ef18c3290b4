//! What the Open Inference Protocol says about the server and its model.

use hyper::body::Bytes;
use serde_json::json;

use crate::serve::request::http::open_table::Table;
use crate::stage::cli::VERSION;

/// The metadata of the server.
pub fn server() -> Bytes {
    text(&json!({"name": "rv-request", "version": VERSION, "extensions": []}))
}

/// The metadata of the model. The protocol wants the tensors of a model. The front end
/// knows those of the inputs if it knows the names of the columns, and never those of
/// the outputs, because each policy may choose another model.
pub fn model(table: &Table) -> Bytes {
    let inputs = table.columns.as_ref().map(
        |columns| json!([{"name": "input", "datatype": "FP64", "shape": [-1, columns.len()]}]),
    );
    text(&json!({
        "name": table.served_name,
        "versions": [],
        "platform": "rv",
        "inputs": inputs.unwrap_or(json!([])),
        "outputs": [],
    }))
}

/// The answer to the question whether the model is ready.
pub fn ready(table: &Table) -> Bytes {
    text(&json!({"name": table.served_name, "ready": true}))
}

fn text(value: &serde_json::Value) -> Bytes {
    format!("{value}\n").into()
}
