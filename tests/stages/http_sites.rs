//! The headers of calls and answers. The front end refuses invalid headers, foreign
//! host names and pages of other sites. A response cannot write invalid headers into
//! its answer.

use std::io::Write;

use crate::harness::{eventually, json, open_reader, open_writer};
use crate::http::{Client, Reply, call_through, front_end, pipes};

/// Sends bytes on a new connection, and returns the reply. The connection must end
/// after the reply.
fn last_reply(address: &str, sent: &str) -> Reply {
    let mut client = Client::connect(address);
    client.send(sent);
    let reply = client.reply();
    assert!(client.ended(), "the connection goes on: {reply:?}");
    reply
}

fn assert_error(reply: &Reply, status: u16, said: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let error = reply.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains(said), "{error}");
}

#[test]
fn a_head_that_is_none_is_answered_in_json_like_any_call() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--admin", "127.0.0.1:0"]);
    let headers = "a: b\r\n".repeat(150);
    let ping = format!("GET /ping HTTP/1.1\r\nhost: {address}\r\n");
    let cases = [
        ("nonsense\r\n\r\n".to_owned(), 400, "not HTTP/1.1"),
        ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400, "not HTTP/1.1"),
        ("GET /ping HTTP/9.9\r\n\r\n".to_owned(), 400, "not HTTP/1.1"),
        (format!("{ping}no colon\r\n\r\n"), 400, "not HTTP/1.1"),
        (
            format!("{ping}content-length: x\r\n\r\n"),
            400,
            "not HTTP/1.1",
        ),
        (format!("{ping}{headers}\r\n"), 431, "100 headers"),
        (
            format!("{ping}a: {}\r\n\r\n", "b".repeat(70_000)),
            431,
            "65536 bytes",
        ),
    ];
    for (head, status, said) in &cases {
        assert_error(&last_reply(&address, head), *status, said);
    }
    // The invalid headers follow a valid call in the same write.
    let mut client = Client::connect(&address);
    client.send(format!("{ping}\r\nnonsense\r\n\r\n"));
    assert_eq!(client.reply().status, 200);
    assert_error(&client.reply(), 400, "not HTTP/1.1");
    assert!(client.ended());
    let counted = eventually(|| {
        let stats = std::fs::read_to_string(workdir.path("stats.json")).ok()?;
        let stats = json(&stats);
        (stats["malformed"] == cases.len() as u64 + 1 && stats["in"] == 1).then_some(())
    });
    assert!(counted.is_some());
}

#[test]
fn a_call_has_one_host_and_it_is_the_services_own() {
    let workdir = pipes();
    let flags = ["--admin", "127.0.0.1:0", "--host", "models.example"];
    let (running, address) = front_end(&workdir, &flags);
    let said = running.says("admin at http://");
    let admin = said.rsplit_once("http://").unwrap().1.to_owned();
    for (address, path) in [(&address, "/ping"), (&admin, "/healthz")] {
        let (_, port) = address.rsplit_once(':').unwrap();
        let status = |first: &str, hosts: &[&str]| {
            let hosts: String = hosts.iter().map(|it| format!("host: {it}\r\n")).collect();
            let mut client = Client::connect(address);
            client.send(format!("{first}\r\n{hosts}\r\n"));
            client.reply()
        };
        let (new, old) = (
            format!("GET {path} HTTP/1.1"),
            format!("GET {path} HTTP/1.0"),
        );
        let local = format!("localhost:{port}");
        for host in [address, &local, "models.example", "MODELS.example:1"] {
            assert_eq!(status(&new, &[host]).status, 200, "{host}");
        }
        assert_eq!(status(&old, &[]).status, 200);
        assert_error(&status(&new, &[]), 400, "Host is missing");
        assert_error(&status(&new, &[&local, &local]), 400, "Host occurs twice");
        assert_error(&status(&old, &[&local, "evil.example"]), 400, "twice");
        assert_error(&status(&new, &[""]), 400, "Host is not HOST");
        let evil = format!("evil.example:{port}");
        assert_error(&status(&new, &[&evil]), 421, "--host");
        let first = format!("GET http://{evil}{path} HTTP/1.1");
        assert_error(&status(&first, &[&local]), 421, "--host");
    }
}

#[test]
fn an_address_that_others_reach_answers_to_every_name() {
    let workdir = pipes();
    let run = workdir.run("rv-request").args(["--listen", "0.0.0.0:0"]);
    let run = run.args([
        "--allow-anonymous",
        "--responses",
        "responses",
        "-o",
        "requests",
    ]);
    let running = run.start();
    let said = running.says("listening at http://");
    let port = said.rsplit_once(':').unwrap().1;
    let mut client = Client::connect(&format!("127.0.0.1:{port}"));
    client.send("GET /ping HTTP/1.1\r\nhost: any.example\r\n\r\n");
    assert_eq!(client.reply().status, 200);
}

#[test]
fn a_page_of_another_site_never_enters_the_pipeline() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &[]);
    let mut requests = open_reader(&workdir.path("requests"));
    let _responses = open_writer(&workdir.path("responses"));
    // Waits until the pipeline is ready.
    let (_waiting, _) = call_through(&address, "", "{}", &mut requests);
    let mut client = Client::connect(&address);
    for origin in ["https://evil.example", "http://localhost:1", "null"] {
        // A form sends such a call without a preflight.
        let headers = format!("origin: {origin}\r\ncontent-type: text/plain\r\n");
        let reply = client.call("POST", "/predict", &headers, "{\"evil\":1}");
        assert_error(&reply, 403, "--cors");
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
    let asks = "origin: https://evil.example\r\naccess-control-request-method: POST\r\n";
    let reply = client.call("OPTIONS", "/predict", asks, "");
    assert_error(&reply, 403, "--cors");
    assert_eq!(rustix::io::ioctl_fionread(requests.get_ref()).unwrap(), 0);
    // The service's own pages may call, and so may clients that are not browsers.
    let own = format!("origin: http://{address}\r\n");
    assert_eq!(client.call("GET", "/ping", &own, "").status, 200);
    assert_eq!(client.call("OPTIONS", "/predict", "", "").status, 405);
}

#[test]
fn a_site_that_is_allowed_asks_first_and_reads_every_answer() {
    const PAGE: &str = "origin: https://app.example\r\n";
    let workdir = pipes();
    workdir.write("token", "canary-secret\n");
    let flags = ["--cors", "https://app.example", "--token-file", "token"];
    let flags = [&flags[..], &["--id-header", "X-Id"]].concat();
    let (_running, address) = front_end(&workdir, &flags);
    let mut client = Client::connect(&address);
    let asks = format!(
        "{PAGE}access-control-request-method: POST\r\n\
         access-control-request-headers: authorization,x-id\r\n\
         access-control-request-private-network: true\r\n"
    );
    // The preflight has no token, because browsers never send one with it.
    let reply = client.call("OPTIONS", "/predict", &asks, "");
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-methods", "GET, HEAD, POST"),
        (
            "access-control-allow-headers",
            "authorization, content-encoding, content-type, traceparent, tracestate, \
             x-rv-deadline-ms, x-id",
        ),
        ("access-control-allow-private-network", "true"),
        ("vary", "origin"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    let token = format!("{PAGE}authorization: Bearer canary-secret\r\n");
    for (headers, body, status) in [(PAGE, "{}", 401), (&token, "{", 400), (&token, "{}", 503)] {
        let reply = client.call("POST", "/predict", headers, body);
        assert_eq!(reply.status, status, "{reply:?}");
        let allowed = reply.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://app.example"), "{reply:?}");
        let readable = reply.header("access-control-expose-headers").unwrap();
        assert!(readable.contains("x-rv-model"), "{readable}");
    }
    let other = client.call("POST", "/predict", "origin: https://b.example\r\n", "{}");
    assert_error(&other, 403, "--cors");
    let reply = client.call("GET", "/ping", "", "");
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

#[test]
fn sites_and_names_that_are_none_are_refused() {
    let workdir = pipes();
    for flags in [
        ["--cors", "app.example"],
        ["--cors", "https://app.example/page"],
        ["--host", "http://x"],
        ["--host", "a b"],
    ] {
        let run = workdir.run("rv-request").args(["--listen", "127.0.0.1:0"]);
        let run = run.args(["--responses", "responses"]).args(flags);
        let finished = run.exits(2);
        assert!(finished.stderr.contains(flags[0]), "{finished}");
    }
}

#[test]
fn whatever_a_response_says_its_call_is_answered() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &[]);
    let mut requests = open_reader(&workdir.path("requests"));
    let mut responses = open_writer(&workdir.path("responses"));
    let long = "x".repeat(1 << 20);
    for (name, header) in [
        ("\"dt\"", Some("dt@1")),
        ("\"d t\"", Some("d t@1")),
        ("\"\"", None),
        (r#""a\r\nx-evil: 1""#, None),
        (r#""a\u0000b""#, None),
        (r#""a\tb""#, None),
        (r#""\u007f""#, None),
        ("\"mod\u{e8}le\"", None),
        (r#""\ud83d\ude00""#, None),
        (r#""\ud800""#, None),
        (&format!("\"{long}\""), None),
        ("{}", None),
        ("1", None),
        ("null", None),
    ] {
        let (mut client, request) = call_through(&address, "", "{}", &mut requests);
        let id = &json(&request)["messageId"];
        writeln!(
            responses,
            "{{\"messageId\":{id},\"modelResult\":{{\"modelName\":{name}}},\
             \"provenance\":{{\"rendezvous\":{{\"modelVersion\":1,\"reason\":{name}}}}}}}"
        )
        .unwrap();
        let reply = client.reply();
        assert_eq!(reply.status, 200, "{name:.40}");
        assert_eq!(reply.header("x-rv-model"), header, "{name:.40}");
        assert_eq!(reply.header("x-evil"), None);
        assert!(reply.body.contains(name), "{name:.40}");
    }
}
