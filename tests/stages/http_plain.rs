//! rv-request with --plain: the body of a call is the model input, and the answer is the
//! result alone. Ids, deadlines and traces of calls.

use std::io::{BufRead, Write};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Workdir, eventually, json, open_reader, open_writer};
use crate::http::{Client, await_pipeline, front_end, pipes};

/// A pipeline that answers each request with the text that `answer` makes of it: the
/// members of the response after its id. Without a text, there is no response. Returns
/// the requests as they came.
pub fn start_pipeline(
    workdir: &Workdir,
    answer: impl Fn(&Value) -> Option<String> + Send + 'static,
) -> (JoinHandle<()>, mpsc::Receiver<String>) {
    let (requests, responses) = (workdir.path("requests"), workdir.path("responses"));
    let (sender, came) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let requests = open_reader(&requests);
        let mut responses = open_writer(&responses);
        for line in requests.lines() {
            let line = line.unwrap();
            let request = json(&line);
            let _ = sender.send(line);
            if let Some(text) = answer(&request) {
                let id = &request["messageId"];
                writeln!(responses, "{{\"messageId\":{id},{text}}}").unwrap();
            }
        }
    });
    (thread, came)
}

/// The members of a response with a result.
pub fn result(result: &str) -> String {
    format!(
        r#""modelInput":0,"modelResult":{{"modelName":"m","result":{result}}},"provenance":{{"rendezvous":{{"modelVersion":3,"reason":"preferred"}}}}"#
    )
}

#[test]
fn a_plain_answer_is_the_result_byte_for_byte() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--plain", "/classify"]);
    let (_pipeline, came) = start_pipeline(&workdir, |request| {
        Some(match request["modelInput"].as_str() {
            Some("refuse") => r#""modelInput":0,"modelResult":null,"modelError":{"modelName":"m","status":418,"body":{"detail":  "no tea"}},"provenance":{"rendezvous":{"modelVersion":3,"reason":"refused"}}"#.to_owned(),
            Some("text") => r#""modelInput":0,"modelResult":null,"modelError":{"modelName":"m","status":404,"body":"Not Found"}"#.to_owned(),
            Some("nothing") => r#""modelInput":0,"modelResult":null"#.to_owned(),
            _ => result(r#"{"b":  1.10,"a":12345678901234567890123,"c":"caf\u00e9 é"}"#),
        })
    });
    let mut client = Client::connect(&address);
    await_pipeline(&mut client);
    while came.try_recv().is_ok() {}
    let body = "{\r\n \"x\": 1.10,\n\t\"y\": \"a\\nb\"\n}\n";
    let reply = client.call("POST", "/classify?verbose=1", "", body);
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.body,
        r#"{"b":  1.10,"a":12345678901234567890123,"c":"caf\u00e9 é"}"#
    );
    assert_eq!(reply.header("x-rv-model"), Some("m@3"));
    assert_eq!(reply.header("x-rv-reason"), Some("preferred"));
    let request = came.recv().unwrap();
    let carried = r#""modelInput":{   "x": 1.10, 	"y": "a\nb" }"#;
    assert!(request.contains(carried), "{request}");

    let refused = client.call("POST", "/classify", "", "\"refuse\"");
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (418, r#"{"detail":  "no tea"}"#)
    );
    assert_eq!(refused.header("content-type"), Some("application/json"));
    assert_eq!(refused.header("x-rv-reason"), Some("refused"));
    assert_eq!(refused.header("x-rv-model"), Some("m@3"));
    let text = client.call("POST", "/classify", "", "\"text\"");
    assert_eq!((text.status, text.body.as_str()), (404, "Not Found"));
    assert!(
        text.header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    // A refusal reaches the client at /predict, too.
    assert_eq!(client.predict("\"refuse\"").status, 418);
    let nothing = client.call("POST", "/classify", "", "\"nothing\"");
    assert_eq!(nothing.status, 504);
    assert!(nothing.json()["error"].is_string());
    let no_json = client.call("POST", "/classify", "", "a=1");
    assert_eq!(no_json.status, 415);
    assert!(no_json.body.contains("line 1, byte 1"), "{}", no_json.body);
    let get = client.call("GET", "/classify", "", "");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    assert!(client.predict("1").json()["messageId"].is_string());
}

#[test]
fn a_refusal_without_a_body_stays_without_one() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--plain", "/classify"]);
    let (_pipeline, _came) = start_pipeline(&workdir, |request| {
        Some(match request["modelInput"].as_u64() {
            Some(status) if status >= 400 => format!(
                r#""modelInput":0,"modelResult":null,"modelError":{{"modelName":"m","status":{status},"body":""}}"#
            ),
            _ => result("1"),
        })
    });
    let mut client = Client::connect(&address);
    await_pipeline(&mut client);
    // hyper itself answers with these statuses and no body, too.
    for status in [400, 414, 431, 422] {
        let reply = client.call("POST", "/classify", "", &status.to_string());
        assert_eq!((reply.status, reply.body.as_str()), (status, ""));
        assert_eq!(client.call("POST", "/classify", "", "1").body, "1");
    }
    client.send("no HTTP\r\n\r\n");
    assert!(client.reply().json()["error"].is_string());
}

#[test]
fn predict_itself_may_be_plain_and_a_path_must_be_one() {
    let workdir = pipes();
    let (running, address) = front_end(&workdir, &["--plain", "/predict"]);
    let (_pipeline, _came) = start_pipeline(&workdir, |_| Some(result("7")));
    let mut client = Client::connect(&address);
    await_pipeline(&mut client);
    assert_eq!(client.predict("1").body, "7");
    drop(running);
    for path in ["classify", "/a?b=1", "/a b", ""] {
        let flags = ["--listen", "127.0.0.1:0", "--responses", "responses"];
        let run = workdir.run("rv-request").args(flags);
        let said = run.args(["-o", "requests", "--plain", path]).exits(2);
        assert!(
            said.stderr.contains("a path begins with"),
            "{path}: {}",
            said.stderr
        );
    }
}

#[test]
fn a_repeated_call_gets_its_answer_at_once_and_another_call_with_its_id_409() {
    let workdir = pipes();
    workdir.write("token", "one");
    let flags = ["--id-header", "X-Id", "--plain", "/p", "--timeout", "3s"];
    let (_running, address) = front_end(&workdir, &flags);
    let (_pipeline, came) = start_pipeline(&workdir, |request| {
        (request["modelInput"] != "never").then(|| result("\"to all\""))
    });
    let mut client = Client::connect(&address);
    await_pipeline(&mut client);
    let mut call = |id: &str, path: &str, headers: &str, body: &str| {
        let headers = format!("x-id: {id}\r\n{headers}");
        let started = Instant::now();
        let reply = client.call("POST", path, &headers, body);
        assert!(started.elapsed() < Duration::from_millis(2500) || reply.status == 504);
        reply
    };
    let first = call("a", "/predict", "", "{\"n\": 1}");
    assert_eq!(first.status, 200);
    let again = call("a", "/predict", "", "{\"n\": 1}");
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(again.header("x-rv-message-id"), Some("a"));
    for (path, headers, body) in [
        ("/predict", "", "{\"n\": 2}"),
        ("/p", "", "{\"n\": 1}"),
        ("/predict", "authorization: Bearer x\r\n", "{\"n\": 1}"),
    ] {
        assert_eq!(
            call("a", path, headers, body).status,
            409,
            "{path} {headers} {body}"
        );
    }
    // After a time-out, the id is used, and no answer is known.
    assert_eq!(call("b", "/predict", "", "\"never\"").status, 504);
    assert_eq!(call("b", "/predict", "", "\"never\"").status, 409);
    // A call that was refused before it became a request does not use its id.
    assert_eq!(call("c", "/predict", "", "{").status, 400);
    assert_eq!(call("c", "/predict", "", "{}").status, 200);
    let sent: Vec<String> = came.try_iter().filter(|it| it.contains("\"a\"")).collect();
    assert_eq!(sent.len(), 1, "{sent:?}");
}

#[test]
fn a_call_with_an_id_goes_on_when_its_client_leaves() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--id-header", "x-id"]);
    let (_pipeline, came) = start_pipeline(&workdir, |request| {
        if request["modelInput"] == "slow" {
            std::thread::sleep(Duration::from_millis(500));
        }
        Some(result("1"))
    });
    let mut client = Client::connect(&address);
    await_pipeline(&mut client);
    while came.try_recv().is_ok() {}
    let mut leaving = Client::connect(&address);
    let head = format!("POST /predict HTTP/1.1\r\nhost: {address}\r\nx-id: r\r\n");
    leaving.send(format!("{head}content-length: 6\r\n\r\n\"slow\""));
    came.recv().unwrap();
    leaving.reset();
    let repeated = eventually(|| {
        let reply = client.call("POST", "/predict", "x-id: r\r\n", "\"slow\"");
        (reply.status == 200).then_some(reply)
    });
    assert_eq!(repeated.unwrap().json()["messageId"], "r");
    assert!(came.try_recv().is_err());
}

#[test]
fn a_header_lowers_the_deadline_of_its_call() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--timeout", "2s"]);
    let (_pipeline, _came) = start_pipeline(&workdir, |request| {
        (request["modelInput"] != "never").then(|| result("1"))
    });
    let mut client = Client::connect(&address);
    await_pipeline(&mut client);
    for (header, from, to) in [("50", 50, 1500), ("999999", 2000, 20_000)] {
        let started = Instant::now();
        let header = format!("X-Rv-Deadline-Ms: {header}\r\n");
        let reply = client.call("POST", "/predict", &header, "\"never\"");
        assert_eq!(reply.status, 504);
        let took = started.elapsed().as_millis();
        assert!((from..to).contains(&took), "{took}");
    }
    let reply = client.call("POST", "/predict", "x-rv-deadline-ms: soon\r\n", "1");
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("x-rv-deadline-ms"), "{}", reply.body);
}

#[test]
fn the_upload_of_a_body_takes_no_time_from_the_deadline() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--timeout", "20s"]);
    let (_pipeline, _came) = start_pipeline(&workdir, |_| Some(result("1")));
    let mut client = Client::connect(&address);
    await_pipeline(&mut client);
    client.send(format!(
        "POST /predict HTTP/1.1\r\nhost: {address}\r\nx-rv-deadline-ms: 2000\r\n\
         content-length: 3\r\n\r\n\"a"
    ));
    // Longer than the deadline. The rest of the body is late, and the answer is not.
    std::thread::sleep(Duration::from_millis(2500));
    client.send("\"");
    assert_eq!(client.reply().status, 200);
}

#[test]
fn a_trace_is_kept_in_the_record_and_given_back() {
    let workdir = pipes();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for begins in [false, true] {
        let flags: &[&str] = if begins { &["--trace"] } else { &[] };
        let (running, address) = front_end(&workdir, flags);
        let (pipeline, came) = start_pipeline(&workdir, |_| Some(result("1")));
        let mut client = Client::connect(&address);
        await_pipeline(&mut client);
        while came.try_recv().is_ok() {}
        let headers =
            format!("Traceparent: {parent}\r\ntracestate: a=1\r\ntracestate: b=\"2\"\r\n");
        let reply = client.call("POST", "/predict", &headers, "1");
        assert_eq!(reply.header("traceparent"), Some(parent));
        assert_eq!(reply.header("tracestate"), Some("a=1,b=\"2\""));
        let request = json(&came.recv().unwrap());
        assert_eq!(request["traceparent"], parent);
        assert_eq!(request["tracestate"], "a=1,b=\"2\"");
        // An error has the trace, too.
        let reply = client.call("POST", "/predict", &headers, "{");
        assert_eq!(reply.header("traceparent"), Some(parent));
        for headers in ["", "traceparent: 00-1-2-3\r\n"] {
            let reply = client.call("POST", "/predict", headers, "1");
            let request = json(&came.recv().unwrap());
            assert_eq!(reply.header("traceparent").is_some(), begins);
            assert_eq!(request["traceparent"].as_str(), reply.header("traceparent"));
            assert!(request.get("tracestate").is_none());
        }
        drop(running);
        pipeline.join().unwrap();
    }
}
