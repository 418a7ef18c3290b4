//! rv-request with the Open Inference Protocol and with MLflow's protocol: each row of a
//! call is a request.

use serde_json::{Value, json};

use crate::harness::Workdir;
use crate::http::{Client, Reply, await_pipeline, front_end, pipes};
use crate::http_plain::{result, start_pipeline};

/// A pipeline whose result is the model input, with some exceptions.
fn start_echoing(workdir: &Workdir) -> std::sync::mpsc::Receiver<String> {
    let (_, came) = start_pipeline(workdir, |request| {
        let input = &request["modelInput"];
        match input.as_str().or_else(|| input["x"].as_str()) {
            Some("never") => None,
            Some("nothing") => Some(r#""modelInput":0,"modelResult":null"#.to_owned()),
            Some("refuse") => Some(r#""modelInput":0,"modelResult":null,"modelError":{"modelName":"m","status":422,"body":{"detail":"no"}}"#.to_owned()),
            _ => Some(result(&input.to_string())),
        }
    });
    came
}

fn post(address: &str, path: &str, headers: &str, body: &Value) -> Reply {
    let body = body.to_string();
    Client::connect(address).call("POST", path, headers, &body)
}

fn ids(came: &std::sync::mpsc::Receiver<String>, count: usize) -> Vec<String> {
    let requests = came.iter().take(count);
    let id = |line: String| {
        crate::harness::json(&line)["messageId"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    requests.map(id).collect()
}

#[test]
fn an_inference_call_is_one_request_a_row() {
    let workdir = pipes();
    let flags = [
        "--served-name",
        "iris",
        "--columns",
        "a,b",
        "--id-header",
        "x-id",
    ];
    let (_running, address) = front_end(&workdir, &flags);
    let came = start_echoing(&workdir);
    await_pipeline(&mut Client::connect(&address));
    while came.try_recv().is_ok() {}
    let infer =
        |headers: &str, body: &Value| post(&address, "/v2/models/iris/infer", headers, body);
    let tensor = |shape: Value, datatype: &str, data: Value| json!({"id": "call-1", "inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]});
    let call = tensor(json!([2, 2]), "FP64", json!([1.5, 2, 3, 4]));
    let reply = infer("x-id: r\r\n", &call);
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(
        reply.json(),
        json!({"model_name": "iris", "id": "call-1", "outputs": [{"name": "predict",
            "shape": [2], "datatype": "BYTES",
            "data": ["{\"a\":1.5,\"b\":2}", "{\"a\":3,\"b\":4}"]}]})
    );
    assert_eq!(reply.header("x-rv-message-id"), Some("r"));
    assert_eq!(reply.header("x-rv-model"), Some("m@3"));
    assert_eq!(ids(&came, 2), ["r/0", "r/1"]);
    // The same call is answered from memory.
    assert_eq!(infer("x-id: r\r\n", &call).body, reply.body);
    let one = infer("x-id: s\r\n", &tensor(json!([1]), "INT32", json!([7])));
    assert_eq!(one.json()["outputs"][0]["data"], json!(["{\"x\":7}"]));
    assert_eq!(ids(&came, 1), ["s/0"]);

    for (body, status, said) in [
        (tensor(json!([2, 2]), "FP64", json!([1])), 400, "1 items"),
        (tensor(json!([1]), "INT8", json!([300])), 400, "not INT8"),
        (
            tensor(json!([1]), "BYTES", json!(["refuse"])),
            422,
            "{\\\"detail\\\":\\\"no\\\"}",
        ),
        (
            tensor(json!([1]), "BYTES", json!(["nothing"])),
            504,
            "row 0",
        ),
        (
            tensor(json!([2000]), "INT8", json!(vec![1; 2000])),
            413,
            "--max-in-flight",
        ),
        (json!({"inputs": []}), 400, "no input"),
    ] {
        let reply = infer("", &body);
        assert_eq!(reply.status, status, "{}", reply.body);
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(reply.body.contains(said), "{error}");
    }
    let binary = infer("inference-header-content-length: 10\r\n", &call);
    assert_eq!(binary.status, 400);
    assert!(binary.body.contains("binary"), "{}", binary.body);
    assert_eq!(
        post(&address, "/v2/models/rose/infer", "", &call).status,
        404
    );
}

#[test]
fn a_call_that_repeats_an_open_one_gets_409_even_if_rows_are_answered() {
    let workdir = pipes();
    let flags = ["--id-header", "x-id", "--timeout", "60s"];
    let (_running, address) = front_end(&workdir, &flags);
    let came = start_echoing(&workdir);
    let mut client = Client::connect(&address);
    await_pipeline(&mut client);
    while came.try_recv().is_ok() {}
    let body = json!({"instances": [1, 2, "never"]}).to_string();
    let length = body.len();
    let mut waiting = Client::connect(&address);
    waiting.send(format!(
        "POST /invocations HTTP/1.1\r\nhost: {address}\r\nx-id: r\r\ncontent-length: {length}\r\n\r\n{body}"
    ));
    assert_eq!(ids(&came, 3), ["r/0", "r/1", "r/2"]);
    // A later request was answered, so the first two rows are answered, too.
    assert_eq!(client.predict("1").status, 200);
    assert_eq!(ids(&came, 1).len(), 1);
    for (path, id, body) in [
        ("/invocations", "r", json!({"instances": [1, 2, "never"]})),
        ("/invocations", "r", json!({"instances": [1]})),
        ("/predict", "r", json!(1)),
        ("/predict", "r/0", json!(1)),
        ("/predict", "r/2", json!(1)),
    ] {
        let reply = post(&address, path, &format!("x-id: {id}\r\n"), &body);
        assert_eq!(reply.status, 409, "{path} {id} {}", reply.body);
        assert!(reply.body.contains("is open"), "{}", reply.body);
    }
    assert_eq!(
        post(&address, "/predict", "x-id: r/3\r\n", &json!(1)).status,
        200
    );
    // The rows of a call that has ended are used, too.
    let two = json!({"instances": [1, 2]});
    assert_eq!(
        post(&address, "/invocations", "x-id: s\r\n", &two).status,
        200
    );
    let row = post(&address, "/predict", "x-id: s/1\r\n", &json!(2));
    assert!(
        row.status == 409 && row.body.contains("earlier"),
        "{} {}",
        row.status,
        row.body
    );
}

#[test]
fn the_server_and_its_model_describe_themselves() {
    let workdir = pipes();
    workdir.write("token", "secret");
    let flags = ["--columns", "a,b", "--token-file", "token"];
    let (_running, address) = front_end(&workdir, &flags);
    let get = |path: &str, headers: &str| Client::connect(&address).call("GET", path, headers, "");
    assert_eq!(get("/v2/health/ready", "").status, 503);
    assert_eq!(get("/v2/models/default/ready", "").status, 503);
    let _came = start_echoing(&workdir);
    let ready =
        crate::harness::eventually(|| (get("/v2/health/ready", "").status == 200).then_some(()));
    assert!(ready.is_some());
    assert_eq!(
        get("/v2/models/default/ready", "").json()["name"],
        "default"
    );
    for path in ["/v2/health/live", "/ping", "/health", "/version"] {
        assert_eq!(get(path, "").status, 200, "{path}");
    }
    let token = "authorization: Bearer secret\r\n";
    assert_eq!(get("/v2", token).json()["name"], "rv-request");
    let model = get("/v2/models/default", token).json();
    assert_eq!(model["inputs"][0]["shape"], json!([-1, 2]));
    for path in ["/v2", "/v2/models/default"] {
        assert_eq!(get(path, "").status, 401, "{path}");
    }
    assert_eq!(get("/v2/models/other", token).status, 404);
    for path in ["/invocations", "/v2/models/default/infer"] {
        assert_eq!(post(&address, path, "", &json!({})).status, 401);
        assert_eq!(get(path, token).status, 405);
    }
}

#[test]
fn invocations_are_one_request_a_row() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--fields", "a"]);
    let came = start_echoing(&workdir);
    let mut client = Client::connect(&address);
    crate::harness::eventually(|| {
        (client.predict("{\"n\":1,\"a\":1}").status == 200).then_some(())
    });
    while came.try_recv().is_ok() {}
    let invoke = |headers: &str, body: &Value| post(&address, "/invocations", headers, body);
    let split = json!({"dataframe_split": {"columns": ["a", "b"], "index": [5, 6],
        "data": [[1.5, "x"], [2, null]]}});
    let reply = invoke("content-type: application/json; charset=utf-8\r\n", &split);
    assert_eq!(
        reply.json(),
        json!({"predictions": [{"a": 1.5, "b": "x"}, {"a": 2, "b": null}]})
    );
    let ids = ids(&came, 2);
    assert!(ids[0].ends_with("/0") && ids[1].ends_with("/1"), "{ids:?}");
    let many: Vec<Value> = (0..1000).map(|n| json!({"a": n})).collect();
    let reply = invoke("", &json!({"dataframe_records": many}));
    let predictions = reply.json()["predictions"].as_array().unwrap().clone();
    assert_eq!(predictions, many);
    for (headers, body, status, said) in [
        (
            "",
            json!({"dataframe_records": [{"a": 1}, {"b": 2}]}),
            422,
            "row 1",
        ),
        (
            "",
            json!({"inputs": {"a": [1], "b": []}}),
            400,
            "different lengths",
        ),
        (
            "",
            json!({"instances": [1], "params": {"t": 1}}),
            415,
            "params",
        ),
        (
            "content-type: text/csv\r\n",
            json!({"inputs": []}),
            415,
            "CSV",
        ),
        ("", json!({}), 400, "exactly one of"),
    ] {
        let reply = invoke(headers, &body);
        assert_eq!(reply.status, status, "{}", reply.body);
        assert!(reply.body.contains(said), "{}", reply.body);
    }
}

#[test]
fn every_row_counts_as_in_flight_and_a_call_that_ends_frees_its_rows() {
    let workdir = pipes();
    let flags = ["--max-in-flight", "10", "--timeout", "60s"];
    let (_running, address) = front_end(&workdir, &flags);
    let came = start_echoing(&workdir);
    await_pipeline(&mut Client::connect(&address));
    while came.try_recv().is_ok() {}
    let body = json!({"instances": vec!["never"; 10]}).to_string();
    let mut waiting = Client::connect(&address);
    let length = body.len();
    waiting.send(format!(
        "POST /invocations HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n{body}"
    ));
    assert_eq!(ids(&came, 10).len(), 10);
    assert_eq!(post(&address, "/predict", "", &json!(1)).status, 503);
    let eleven = json!({"instances": vec!["x"; 11]});
    assert_eq!(post(&address, "/invocations", "", &eleven).status, 413);
    waiting.reset();
    let free = crate::harness::eventually(|| {
        (post(&address, "/predict", "", &json!(1)).status == 200).then_some(())
    });
    assert!(free.is_some());
}
