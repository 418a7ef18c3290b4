//! Tests of rv-score --url, whose model is behind an HTTP server.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Run, Workdir, assert_idle, eventually, json, now, stat};
use crate::model_server::{Call, ModelServer, Reaction};

/// A run of rv-score with a server as its model.
fn url(workdir: &Workdir, server: &ModelServer, protocol: &str) -> Run {
    let path = if protocol == "v2" {
        "/v2/models/iris"
    } else {
        ""
    };
    let run = workdir.run("rv-score");
    run.args(["--url", &server.url(path), "--protocol", protocol])
        .args(["--name", "m", "--model-version", "7"])
}

fn request_of(number: usize, input: &str) -> String {
    let time = now();
    format!("{{\"messageId\":\"r-{number}\",\"timestamp\":{time:.6},\"modelInput\":{input}}}\n")
}

/// A request that holds a number.
fn request(number: usize) -> String {
    request_of(number, &number.to_string())
}

fn requests(count: usize) -> String {
    (0..count).map(request).collect()
}

fn answer(text: impl Into<String>) -> Reaction {
    Reaction::Answer(200, text.into())
}

fn echo(call: &Call) -> Reaction {
    answer(call.body.clone())
}

/// The error of a score as JSON.
fn error(line: &str) -> serde_json::Value {
    let score = json(line);
    assert!(score.get("result").is_none(), "{line}");
    score["error"].clone()
}

/// A protocol, its flags and the reply of the server, and then what is expected: the
/// path and the body of the call, and the result.
type Case = (
    &'static str,
    &'static [&'static str],
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

#[test]
fn each_protocol_has_its_bodies() {
    let workdir = Workdir::new();
    let flower = r#"{"sepalLength":5.10,"petalWidth":2}"#;
    let v2 = r#"{"outputs":[{"name":"a","shape":[1,1],"datatype":"INT64","data":[1]},{"name":"b","shape":[1,2],"datatype":"FP64","data":[0.25,0.75]}]}"#;
    let cases: [Case; 6] = [
        (
            "v2",
            &[],
            v2,
            "/v2/models/iris/infer",
            r#"{"inputs":[{"name":"input-0","shape":[1,2],"datatype":"FP64","data":[5.10,2]}]}"#,
            "1",
        ),
        (
            "v2",
            &[
                "--features",
                "petalWidth",
                "--datatype",
                "FP32",
                "--input-name",
                "x",
                "--output-name",
                "b",
            ],
            v2,
            "/v2/models/iris/infer",
            r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[2]}]}"#,
            "[0.25,0.75]",
        ),
        (
            "mlflow",
            &[],
            r#"{"predictions": ["setosa"]}"#,
            "/invocations",
            r#"{"dataframe_split":{"columns":["sepalLength","petalWidth"],"data":[[5.10,2]]}}"#,
            "\"setosa\"",
        ),
        (
            "mlflow",
            &["--features", "petalWidth,sepalLength"],
            r#"{"predictions": [1.50]}"#,
            "/invocations",
            r#"{"dataframe_split":{"columns":["petalWidth","sepalLength"],"data":[[2,5.10]]}}"#,
            "1.50",
        ),
        (
            "json",
            &[],
            "{\n\"a\": 1.0}\n",
            "/",
            flower,
            r#"{ "a": 1.0}"#,
        ),
        (
            "json",
            &[
                "--input-pointer",
                "/instances/0",
                "--result-pointer",
                "/p/0",
            ],
            r#"{"p":[7]}"#,
            "/",
            r#"{"instances":[{"sepalLength":5.10,"petalWidth":2}]}"#,
            "7",
        ),
    ];
    for (protocol, flags, reply, path, body, result) in cases {
        let server = ModelServer::start(move |_| answer(reply));
        let run = url(&workdir, &server, protocol).args(flags);
        let finished = run.input(request_of(0, flower)).succeeds();
        let member = format!(r#""result":{{"modelName":"m","result":{result}}}"#);
        assert!(finished.stdout().contains(&member), "{finished}");
        let call = &server.calls()[0];
        assert!(
            call.head.starts_with(&format!("POST {path} HTTP/1.1\r\n")),
            "{}",
            call.head
        );
        assert!(
            call.head
                .to_lowercase()
                .contains("content-type: application/json")
        );
        assert_eq!(call.body, body);
        let entry = &json(finished.lines()[0])["provenance"]["model"];
        assert_eq!(entry["modelVersion"], 7);
        assert!(entry.get("modelHash").is_none());
    }
}

#[test]
fn a_refusal_becomes_an_error_score_with_its_status_and_body() {
    let workdir = Workdir::new();
    let replies = [
        (422, "{\n  \"detail\": [\"no age\"]\n}".to_owned()),
        (500, "Internal \"Server\" Error\n".to_owned()),
        (429, String::new()),
        (302, "moved".to_owned()),
        (401, "who?".to_owned()),
        (503, format!("{{\"long\":\"{}\"}}", "x".repeat(100_000))),
        (404, "\"no such \\u00e9\"\n".to_owned()),
        (400, String::new()),
    ];
    let shared = replies.clone();
    let server = ModelServer::start(move |call| {
        let (status, body) = shared[call.body.parse::<usize>().unwrap()].clone();
        Reaction::Answer(status, body)
    });
    let run = url(&workdir, &server, "json").args(["--in-flight", "1", "--stats", "stats"]);
    let finished = run.input(requests(replies.len())).succeeds();
    let lines = finished.lines();
    for (line, (status, _)) in lines.iter().zip(&replies) {
        let error = error(line);
        assert_eq!(error["status"], *status);
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains(&status.to_string())
        );
    }
    assert_eq!(error(lines[0])["body"]["detail"][0], "no age");
    assert_eq!(error(lines[1])["body"], "Internal \"Server\" Error\n");
    assert_eq!(error(lines[2])["body"], "");
    assert!(lines[3].contains("redirects are not followed"));
    assert!(lines[4].contains("--token-file"));
    assert_eq!(error(lines[5])["body"].as_str().unwrap().len(), 4096);
    // A JSON string keeps its quotes, so a front end can send the bytes of the server.
    assert_eq!(error(lines[6])["body"], replies[6].1.as_str());
    assert_eq!(error(lines[7])["body"], "");
    // No call was repeated, and no redirect was followed.
    assert_eq!(server.calls().len(), replies.len());
    assert_eq!(stat(&workdir, "stats", "repeated"), 0);
}

#[test]
fn a_reply_that_lies_fails_its_request_alone() {
    let workdir = Workdir::new();
    let raw = |text: &str| Reaction::Raw(text.as_bytes().to_vec());
    let lies: Vec<(Reaction, &str)> = vec![
        (
            raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\":"),
            "broke off",
        ),
        (
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\""),
            "broke off",
        ),
        (
            Reaction::RawAndKeep(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{\"a\":1}".to_vec()),
            "is not JSON",
        ),
        (raw("not HTTP at all\r\n\r\n"), ""),
        (answer("<html>welcome</html>"), "is not JSON"),
        (answer(""), "is not JSON"),
        (answer("NaN"), "is not JSON"),
        (
            Reaction::RawAndKeep(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\"\xff\"".to_vec()),
            "is not UTF-8",
        ),
        (answer("x".repeat(5000)), "longer than --max-line-bytes"),
        (
            Reaction::Endless(
                b"HTTP/1.1 200 OK\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".to_vec(),
            ),
            "longer than --max-line-bytes",
        ),
        (
            Reaction::Endless(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
            "",
        ),
        (Reaction::Stall, "not answered within"),
        (Reaction::Close, ""),
    ];
    let count = lies.len();
    let reactions: Vec<Reaction> = lies.iter().map(|(reaction, _)| reaction.clone()).collect();
    let server = ModelServer::start(move |call| {
        let number: usize = call.body.parse().unwrap();
        match number % 2 {
            0 => reactions[number / 2].clone(),
            _ => echo(call),
        }
    });
    let run = url(&workdir, &server, "json").args([
        "--in-flight",
        "1",
        "--timeout",
        "500ms",
        "--max-line-bytes",
        "4000",
    ]);
    let finished = run.input(requests(2 * count)).succeeds();
    let lines = finished.lines();
    assert_eq!(lines.len(), 2 * count, "{finished}");
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(json(line)["messageId"], format!("r-{number}"));
        match number % 2 {
            0 => {
                let message = error(line)["message"].to_string();
                assert!(message.contains(lies[number / 2].1), "{message}");
            }
            _ => assert_eq!(json(line)["result"]["result"], number, "{line}"),
        }
    }
}

#[test]
fn a_slow_call_holds_up_nobody_and_scores_leave_as_they_are_ready() {
    let workdir = Workdir::new();
    let server = ModelServer::start(|call| match call.body.as_str() {
        "0" => Reaction::Stall,
        _ => echo(call),
    });
    let run = url(&workdir, &server, "json").args(["--in-flight", "2", "--timeout", "3s"]);
    let mut running = run.start();
    let begun = Instant::now();
    running.write(request(0));
    let mut number = 1;
    while begun.elapsed() < Duration::from_millis(1500) {
        running.write(request(number));
        assert_eq!(json(&running.line())["result"]["result"], number);
        number += 1;
    }
    assert!(number > 20, "{number}");
    assert!(
        error(&running.line())["message"]
            .as_str()
            .unwrap()
            .contains("within 3s")
    );
    drop(running.stdin.take());
    running.wait().assert_status(0);
}

#[test]
fn calls_in_flight_are_bounded_and_connections_are_kept() {
    let workdir = Workdir::new();
    let server =
        ModelServer::start(|call| Reaction::Slow(Duration::from_millis(20), call.body.clone()));
    let run = url(&workdir, &server, "json").args(["--in-flight", "5"]);
    let finished = run.input(requests(100)).succeeds();
    assert_eq!(finished.lines().len(), 100);
    assert_eq!(server.seen.most.load(Ordering::SeqCst), 5);
    assert!(server.seen.connections.load(Ordering::SeqCst) <= 7);
}

#[test]
fn only_a_call_that_cannot_have_begun_is_repeated() {
    let workdir = Workdir::new();
    // The server answers the first call on each connection. At the second call, it
    // closes the connection without a reply.
    let server = ModelServer::start(|call| match call.earlier {
        0 => echo(call),
        _ => Reaction::Close,
    });
    let run = url(&workdir, &server, "json").args(["--in-flight", "1", "--stats", "stats"]);
    let finished = run.input(requests(20)).succeeds();
    for (number, line) in finished.lines().iter().enumerate() {
        assert_eq!(json(line)["result"]["result"], number, "{line}");
    }
    assert!(stat(&workdir, "stats", "repeated") >= 10);
    // If the server closes a new connection, it may have begun to work on the call, so
    // the call is not repeated.
    let server = ModelServer::start(|_| Reaction::Close);
    let run = url(&workdir, &server, "json").args(["--in-flight", "1", "--stats", "stats"]);
    run.input(requests(3)).succeeds();
    assert_eq!(server.calls().len(), 3);
    assert_eq!(stat(&workdir, "stats", "repeated"), 0);
}

#[test]
fn a_call_on_a_new_connection_is_not_repeated_after_one_that_was_not_kept() {
    let workdir = Workdir::new();
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n0";
    let calls = AtomicUsize::new(0);
    let server = ModelServer::start(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Reaction::Raw(reply.as_bytes().to_vec()),
        _ => Reaction::Close,
    });
    let run = url(&workdir, &server, "json").args(["--in-flight", "1", "--stats", "stats"]);
    run.input(requests(2)).succeeds();
    assert_eq!(server.calls().len(), 2);
    assert_eq!(stat(&workdir, "stats", "repeated"), 0);
}

/// Answers `count` calls, each on its own connection.
fn answer_calls(listener: &std::net::TcpListener, count: usize) {
    for _ in 0..count {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).unwrap();
        let reply = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n0";
        stream.write_all(reply.as_bytes()).unwrap();
    }
}

#[test]
fn a_recording_and_a_warm_up_wait_for_a_server_that_is_away_for_a_second() {
    let workdir = Workdir::new();
    let file = workdir.write("requests", requests(20));
    for warm_up in [false, true] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let calls = if warm_up { 40 } else { 20 };
        let server = std::thread::spawn(move || {
            answer_calls(&listener, 5);
            drop(listener);
            std::thread::sleep(Duration::from_secs(1));
            let listener = std::net::TcpListener::bind(address).unwrap();
            answer_calls(&listener, calls - 5);
        });
        let place = format!("http://{address}/");
        let run = workdir
            .run("rv-score")
            .args(["--url", &place, "--protocol", "json"]);
        let run = run.args(["--name", "m", "--model-version", "7", "--rescore"]);
        let run = run.args(["--in-flight", "1", "-i", &file]);
        let run = match warm_up {
            true => run.args(["--warm-up", &file]),
            false => run,
        };
        let finished = run.finish();
        assert_eq!(finished.lines().len(), 20);
        finished.assert_status(0);
        server.join().unwrap();
    }
}

#[test]
fn a_server_that_is_away_costs_no_time_and_is_found_when_it_is_back() {
    let workdir = Workdir::new();
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let run = workdir.run("rv-score");
    let mut running = run
        .args([
            "--url",
            &format!("http://{address}/?key=canary"),
            "--protocol",
            "json",
        ])
        .args(["--name", "m", "--model-version", "7", "--stats", "stats"])
        .start();
    running.write(request(0));
    let message = error(&running.line())["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("cannot be reached") && message.contains("refused"),
        "{message}"
    );
    let begun = Instant::now();
    for number in 1..500 {
        running.write(request(number));
        error(&running.line());
    }
    // The server was already known to be down for most of these requests, so they got
    // errors without a call.
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert!(stat(&workdir, "stats", "repeated") < 20);
    let server = ModelServer::start_at(&address, echo);
    let mut number = 500;
    let found = eventually(|| {
        running.write(request(number));
        let score = json(&running.line());
        number += 1;
        score.get("result").is_some().then_some(())
    });
    assert!(found.is_some() && !server.calls().is_empty());
    running.says("can be reached again");
    assert!(!running.said().contains("canary"));
    let about = running.said().matches("cannot be reached").count();
    assert!(about <= 3, "{}", running.said());
    drop(running.stdin.take());
    running.wait().assert_status(0);
}

#[test]
fn a_recording_keeps_the_order_of_its_requests() {
    let workdir = Workdir::new();
    let server = ModelServer::start(|call| {
        let number: u64 = call.body.parse().unwrap();
        match number % 10 {
            3 => Reaction::Answer(500, "no".to_owned()),
            _ => Reaction::Slow(Duration::from_millis(number * 7919 % 23), call.body.clone()),
        }
    });
    let run = url(&workdir, &server, "json").args(["--rescore", "--in-flight", "8"]);
    let finished = run.input(requests(300)).exits(1);
    let lines = finished.lines();
    assert_eq!(lines.len(), 300);
    for (number, line) in lines.iter().enumerate() {
        let score = json(line);
        assert_eq!(score["messageId"], format!("r-{number}"));
        match number % 10 {
            3 => assert_eq!(score["error"]["status"], 500),
            _ => assert_eq!(score["result"]["result"], number),
        }
    }
    assert!(server.seen.most.load(Ordering::SeqCst) > 4);
}

#[test]
fn input_that_does_not_fit_and_old_requests_make_no_call() {
    let workdir = Workdir::new();
    let server = ModelServer::start(|_| answer(r#"{"predictions":[1]}"#));
    let run = url(&workdir, &server, "mlflow").args(["--features", "a", "--skip-older", "1m"]);
    let old = r#"{"messageId":"old","timestamp":1,"modelInput":{"a":1}}"#;
    let input = format!("{}{old}\n", request_of(0, "{\"b\":1}"));
    let finished = run.input(input).succeeds();
    assert!(
        finished.lines()[0].contains(r#"feature \"a\" is missing"#),
        "{finished}"
    );
    assert!(finished.lines()[1].contains("older than 1m"), "{finished}");
    assert!(server.calls().is_empty());
}

#[test]
fn sighup_reads_the_credentials_again_and_no_secret_is_shown() {
    let workdir = Workdir::new();
    let server = ModelServer::start(echo);
    let token = workdir.write("token", "canary-1\n");
    let run = url(&workdir, &server, "json").args(["--token-file", &token, "--verbose"]);
    let mut running = run.start();
    running.write(request(0));
    running.line();
    workdir.write("token", "canary-2\n");
    running.signal(Signal::HUP);
    running.says("loaded the credentials");
    running.write(request(1));
    running.line();
    workdir.write("token", "");
    running.signal(Signal::HUP);
    running.says("is empty");
    running.write(request(2));
    running.line();
    drop(running.stdin.take());
    let finished = running.wait();
    finished.assert_status(0);
    assert!(!finished.stderr.contains("canary"), "{finished}");
    for (call, expected) in server
        .calls()
        .iter()
        .zip(["canary-1", "canary-2", "canary-2"])
    {
        assert!(
            call.head.contains(&format!("Bearer {expected}\r\n")),
            "{}",
            call.head
        );
    }
    let mut run = url(&workdir, &server, "json").args(["--user", "me"]);
    run.command.env("RV_SCORE_PASSWORD", "canary");
    run.input(request(0)).succeeds();
    assert!(server.calls()[3].head.contains("Basic bWU6Y2FuYXJ5"));
}

#[test]
fn meaningless_flags_are_refused() {
    let workdir = Workdir::new();
    let all = [
        "--url",
        "http://127.0.0.1:1/x",
        "--name",
        "m",
        "--model-version",
        "1",
    ];
    for (args, message) in [
        (vec![], "--protocol"),
        (vec!["--protocol", "v2"], "must name the model"),
        (
            vec!["--protocol", "json", "--features", "a"],
            "--features applies only to --protocol v2 or",
        ),
        (
            vec!["--protocol", "mlflow", "--result-pointer", "/a"],
            "--result-pointer applies only",
        ),
        (
            vec!["--protocol", "json", "--result-pointer", "a"],
            "write /a",
        ),
        (
            vec!["--protocol", "json", "--in-flight", "0"],
            "from 1 to 1024",
        ),
        (
            vec!["--protocol", "json", "--threads", "2"],
            "--in-flight says",
        ),
        (
            vec!["--protocol", "json", "--exec", "cat"],
            "give only one of",
        ),
        (vec!["--protocol", "json", "--batch", "2"], "--exec"),
        (
            vec!["--protocol", "json", "--user", "me"],
            "needs a password",
        ),
        (
            vec!["--protocol", "json", "--ca-file", "none.pem"],
            "cannot read",
        ),
    ] {
        let finished = workdir.run("rv-score").args(all).args(&args).finish();
        let expected = if message == "cannot read" { 3 } else { 2 };
        finished.assert_status(expected);
        assert!(finished.stderr.contains(message), "{args:?}: {finished}");
    }
    let run = workdir
        .run("rv-score")
        .args(["--protocol", "json", "--url", "http://me:canary@h/"]);
    let finished = run.args(&all[2..]).exits(2);
    assert!(finished.stderr.contains("RV_SCORE_PASSWORD") && !finished.stderr.contains("canary"));
}

#[test]
fn sigterm_waits_for_the_calls_in_flight() {
    let workdir = Workdir::new();
    let server =
        ModelServer::start(|call| Reaction::Slow(Duration::from_millis(500), call.body.clone()));
    let mut running = url(&workdir, &server, "json").start();
    running.write(requests(3));
    assert!(eventually(|| (server.calls().len() == 3).then_some(())).is_some());
    running.signal(Signal::TERM);
    let finished = running.wait();
    finished.assert_status(0);
    assert_eq!(finished.lines().len(), 3);
    // After the grace period, requests without a score are set aside.
    let server = ModelServer::start(|_| Reaction::Stall);
    let run = url(&workdir, &server, "json").args(["--grace", "200ms", "--rejects", "rejects"]);
    let mut running = run.start();
    running.write(requests(3));
    assert!(eventually(|| (server.calls().len() == 3).then_some(())).is_some());
    running.signal(Signal::TERM);
    running.wait().assert_status(143);
    assert_eq!(workdir.read("rejects").lines().count(), 3);
}

#[test]
fn an_idle_engine_uses_no_processor() {
    let workdir = Workdir::new();
    let server = ModelServer::start(|call| match call.body.as_str() {
        "0" => echo(call),
        _ => Reaction::Stall,
    });
    let mut running = url(&workdir, &server, "json")
        .args(["--timeout", "1m"])
        .start();
    running.write(request(0));
    running.line();
    assert_idle(running.id());
    running.write((1..20).map(request).collect::<String>());
    assert!(eventually(|| (server.calls().len() == 9).then_some(())).is_some());
    assert_idle(running.id());
}

#[test]
fn whatever_a_server_does_each_request_has_one_score_and_nobody_elses_answer() {
    let workdir = Workdir::new();
    for extra in [
        &["--in-flight", "6"][..],
        &["--in-flight", "6", "--rescore"],
    ] {
        let server = ModelServer::start(|call| {
            let dice = now().fract() * 1e6 % 40.0;
            match dice as u32 {
                0 => Reaction::Close,
                1 => Reaction::Stall,
                2 => Reaction::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1".to_vec()),
                3 => Reaction::Raw(b"HTTP/1.1 200 OK\r\n\r\nnonsense".to_vec()),
                4 => Reaction::Answer(503, "{}".to_owned()),
                5..10 => Reaction::Slow(
                    Duration::from_millis(u64::from(dice as u32)),
                    call.body.clone(),
                ),
                _ => echo(call),
            }
        });
        let run = url(&workdir, &server, "json").args(extra);
        let run = run.args(["--timeout", "100ms", "--stats", "stats"]);
        let count = 1500;
        let finished = run.input(requests(count)).finish();
        finished.assert_status(i32::from(extra.len() > 2));
        let mut seen = vec![false; count];
        let mut results = 0;
        for line in finished.lines() {
            let score = json(line);
            let id = score["messageId"].as_str().unwrap();
            let number: usize = id.strip_prefix("r-").unwrap().parse().unwrap();
            assert!(!std::mem::replace(&mut seen[number], true), "{line}");
            if let Some(result) = score.get("result") {
                assert_eq!(result["result"], number, "{line}");
                results += 1;
            }
        }
        assert!(seen.iter().all(|seen| *seen));
        assert!((count / 2..count).contains(&results), "{results}");
        assert_eq!(stat(&workdir, "stats", "out"), count as u64);
    }
}

#[test]
fn a_trace_is_sent_on_with_a_span_of_its_own() {
    let workdir = Workdir::new();
    let server = ModelServer::start(echo);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = |id: &str, parent: &str, state: &str| {
        format!(
            r#"{{"messageId":"{id}","timestamp":1.0,"modelInput":{{"a":1}},"traceparent":"{parent}"{state}}}"#
        )
    };
    let lines = [
        traced("a", parent, r#","tracestate":"v=1,w=2""#),
        traced("b", "not one", r#","tracestate":"v=1""#),
        request(3),
    ];
    let run = url(&workdir, &server, "json");
    run.input(lines.join("\n") + "\n").succeeds();
    let calls = server.seen.calls.lock().unwrap();
    let traced: Vec<_> = calls
        .iter()
        .filter(|call| call.head.contains("trace"))
        .collect();
    assert_eq!((calls.len(), traced.len()), (3, 1), "{calls:?}");
    // The span is the beginning of the SHA-256 of "a\0m@7".
    let span = "9287e1a39f084b7b";
    let sent = format!("\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-{span}-01\r\n");
    assert!(traced[0].head.contains(&sent), "{}", traced[0].head);
    assert!(traced[0].head.contains("\r\ntracestate: v=1,w=2\r\n"));
}
