//! The second listener of the front end, and what it reports about the first.

use std::fs;
use std::io::Write;

use rustix::process::Signal;

use crate::harness::{Running, Workdir, eventually, json, open_reader, open_writer};
use crate::http::{Client, Reply, await_pipeline, call_through, front_end, pipes, start_doubling};

/// A front end with a second listener: the program, and both addresses.
fn front_end_with_admin(workdir: &Workdir, flags: &[&str]) -> (Running, String, String) {
    let flags = [&["--admin", "127.0.0.1:0"], flags].concat();
    let (running, address) = front_end(workdir, &flags);
    let said = running.says("admin at http://");
    let admin = said.rsplit_once("http://").unwrap().1.to_owned();
    (running, address, admin)
}

fn get(address: &str, path: &str) -> Reply {
    Client::connect(address).call("GET", path, "", "")
}

fn await_ready(admin: &str, status: u16, reason: &str) {
    let mut last = None;
    let came = eventually(|| {
        let reply = get(admin, "/readyz");
        let body = reply.json();
        let fits = reply.status == status && body["reason"].as_str().unwrap_or("") == reason;
        last = Some(reply);
        fits.then_some(())
    });
    assert!(came.is_some(), "not {status} {reason:?}: {last:?}");
}

#[test]
fn readiness_follows_both_pipes_without_a_call() {
    let workdir = pipes();
    let (running, address, admin) = front_end_with_admin(&workdir, &[]);
    let neither = "the requests have no reader, and the responses have no writer";
    await_ready(&admin, 503, neither);
    let no_writer = "the responses have no writer";
    let mut requests = open_reader(&workdir.path("requests"));
    await_ready(&admin, 503, no_writer);
    let refused = Client::connect(&address).predict("{}");
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    assert!(refused.body.contains(no_writer), "{refused:?}");
    for _ in 0..3 {
        let mut responses = open_writer(&workdir.path("responses"));
        await_ready(&admin, 200, "");
        // The front end is ready without an earlier call, so the first call succeeds.
        let mut client = Client::connect(&address);
        client.send(format!(
            "POST /predict HTTP/1.1\r\nhost: {address}\r\ncontent-length: 2\r\n\r\n{{}}"
        ));
        let id = &json(&crate::harness::next_line(&mut requests))["messageId"];
        writeln!(responses, "{{\"messageId\":{id},\"modelResult\":{{}}}}").unwrap();
        assert_eq!(client.reply().status, 200);
        drop(responses);
        await_ready(&admin, 503, no_writer);
    }
    let _responses = open_writer(&workdir.path("responses"));
    await_ready(&admin, 200, "");
    drop(requests);
    await_ready(&admin, 503, "the requests have no reader");
    let mut requests = open_reader(&workdir.path("requests"));
    await_ready(&admin, 200, "");

    let (_client, _) = call_through(&address, "", "{}", &mut requests);
    running.signal(Signal::TERM);
    await_ready(&admin, 503, "shutting down");
    assert_eq!(get(&admin, "/healthz").status, 200);
}

#[test]
fn pipes_that_are_made_anew_are_found() {
    let workdir = pipes();
    let (_running, address, admin) = front_end_with_admin(&workdir, &[]);
    for round in 0..2 {
        if round > 0 {
            for name in ["requests", "responses"] {
                fs::remove_file(workdir.path(name)).unwrap();
            }
            await_ready(
                &admin,
                503,
                "the requests have no reader, and the responses have no writer",
            );
            for name in ["requests", "responses"] {
                workdir.fifo(name);
            }
        }
        let mut requests = open_reader(&workdir.path("requests"));
        let mut responses = open_writer(&workdir.path("responses"));
        await_ready(&admin, 200, "");
        let (mut client, request) = call_through(&address, "", "{}", &mut requests);
        let id = &json(&request)["messageId"];
        writeln!(responses, "{{\"messageId\":{id},\"modelResult\":{{}}}}").unwrap();
        assert_eq!(client.reply().status, 200);
    }
    // The pipes may also be replaced before anyone has opened them.
    await_ready(
        &admin,
        503,
        "the requests have no reader, and the responses have no writer",
    );
    for name in ["requests", "responses"] {
        fs::remove_file(workdir.path(name)).unwrap();
        workdir.fifo(name);
    }
    let _requests = open_reader(&workdir.path("requests"));
    let _responses = open_writer(&workdir.path("responses"));
    await_ready(&admin, 200, "");
}

#[test]
fn metrics_are_the_counts_in_the_text_format_of_prometheus() {
    let workdir = pipes();
    let (_running, address, admin) = front_end_with_admin(&workdir, &[]);
    start_doubling(&workdir);
    let mut client = Client::connect(&address);
    await_pipeline(&mut client);
    client.predict("not json");
    let reply = get(&admin, "/metrics");
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let mut samples = 0;
    let mut family = String::new();
    for line in reply.body.lines() {
        if let Some(named) = line.strip_prefix("# TYPE ") {
            let (name, kind) = named.split_once(' ').unwrap();
            assert!(["counter", "gauge", "summary"].contains(&kind), "{line}");
            name.clone_into(&mut family);
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(&family), "{line} is no {family}");
            value.parse::<f64>().unwrap();
            samples += 1;
        }
    }
    assert!(samples > 10, "{}", reply.body);
    let bad = "rv_request_statuses_total{status=\"400\"} 1\n";
    assert!(reply.body.contains(bad), "{}", reply.body);
    assert!(
        reply.body.contains("\nrv_request_ready 1\n"),
        "{}",
        reply.body
    );
    // A call of `/metrics` does not change the counts.
    assert_eq!(get(&admin, "/metrics").body.matches(bad).count(), 1);
    assert_eq!(
        Client::connect(&admin)
            .call("POST", "/metrics", "", "")
            .status,
        405
    );
    assert_eq!(get(&admin, "/predict").status, 404);
    assert_eq!(get(&address, "/metrics").status, 404);
}

#[test]
fn the_service_describes_itself_as_it_is_configured() {
    let workdir = pipes();
    workdir.train("decision-tree", "dt", 1);
    workdir.write("token", "canary-secret\n");
    let flags = ["--model", "dt.json", "--token-file", "token"];
    let (_running, address, admin) = front_end_with_admin(&workdir, &flags);
    let token = "authorization: Bearer canary-secret\r\n";
    let reply = Client::connect(&address).call("GET", "/openapi.json", token, "");
    assert_eq!(reply.status, 200);
    let described = reply.json();
    assert_eq!(described["openapi"], "3.1.0");
    let input = &described["components"]["schemas"]["ModelInput"];
    assert_eq!(input["required"].as_array().unwrap().len(), 4);
    assert_eq!(input["properties"]["petalWidth"]["type"], "number");
    assert!(described["paths"]["/predict"]["post"]["responses"]["401"].is_object());
    assert!(described["paths"].get("/metrics").is_none());
    assert_eq!(get(&address, "/openapi.json").status, 401);
    // Only this machine reaches the second listener, so it needs no token.
    let described = get(&admin, "/openapi.json").json();
    assert!(described["paths"]["/metrics"].is_object());
    let server = &described["paths"]["/predict"]["servers"][0]["url"];
    assert_eq!(server, &format!("http://{address}"));
}

#[test]
fn a_second_listener_that_others_reach_needs_the_token() {
    let workdir = pipes();
    let run = workdir.run("rv-request").args(["--listen", "127.0.0.1:0"]);
    let run = run.args(["--responses", "responses", "-o", "requests"]);
    let refused = run.args(["--admin", "0.0.0.0:0"]).exits(2);
    assert!(refused.stderr.contains("--admin 0.0.0.0:0"), "{refused}");

    workdir.write("token", "canary-secret\n");
    let (running, _) = front_end(&workdir, &["--token-file", "token", "--admin", "0.0.0.0:0"]);
    let said = running.says("admin at http://");
    let port = said.rsplit_once(':').unwrap().1;
    let admin = format!("127.0.0.1:{port}");
    for (path, without) in [
        ("/healthz", 200),
        ("/readyz", 503),
        ("/metrics", 401),
        ("/openapi.json", 401),
    ] {
        assert_eq!(get(&admin, path).status, without, "{path}");
    }
    let token = "authorization: Bearer canary-secret\r\n";
    for path in ["/metrics", "/openapi.json"] {
        let reply = Client::connect(&admin).call("GET", path, token, "");
        assert_eq!(reply.status, 200, "{path}");
    }
}

#[test]
fn sighup_reads_the_token_again_and_a_bad_file_changes_nothing() {
    let workdir = pipes();
    workdir.write("token", "first\n");
    let (running, address) = front_end(&workdir, &["--token-file", "token"]);
    let status_with = |token: &str| {
        let header = format!("authorization: Bearer {token}\r\n");
        Client::connect(&address)
            .call("POST", "/predict", &header, "{}")
            .status
    };
    assert_eq!((status_with("first"), status_with("second")), (503, 401));
    workdir.write("token", " \n");
    running.signal(Signal::HUP);
    running.says("token: holds no token");
    assert_eq!((status_with("first"), status_with("")), (503, 401));
    workdir.write("token", "second\n");
    running.signal(Signal::HUP);
    running.says("token: read again");
    assert_eq!((status_with("first"), status_with("second")), (401, 503));
}
