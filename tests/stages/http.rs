//! rv-request with HTTP: calls -> requests, responses -> answers.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{
    Running, Workdir, assert_idle, eventually, json, next_line, open_reader, open_writer,
};

/// The answer to a call.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        json(&self.body)
    }
}

/// One connection, kept open between calls.
pub struct Client {
    /// The `Host` header of its calls.
    host: String,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: &str) -> Client {
        Client::try_connect(address).unwrap()
    }

    /// Connects. Returns an error if the connection is refused.
    pub fn try_connect(address: &str) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Ok(Client {
            host: address.to_owned(),
            reader: BufReader::new(stream),
        })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    pub fn call(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let (length, host) = (body.len(), &self.host);
        self.send(format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: {length}\r\n\r\n{body}"
        ));
        self.reply()
    }

    pub fn predict(&mut self, body: &str) -> Reply {
        self.call("POST", "/predict", "", body)
    }

    /// Sends a call and reads its reply. Returns an error if the connection ends before
    /// the reply begins.
    pub fn try_call(&mut self, call: &str) -> io::Result<Reply> {
        self.reader.get_mut().write_all(call.as_bytes())?;
        if self.reader.fill_buf()?.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.reply())
    }

    pub fn reply(&mut self) -> Reply {
        let status = self.text_line();
        let status = status
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("{status:?}"));
        let status = status.parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.text_line();
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map_or(0, |(_, value)| value.parse().unwrap());
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).unwrap();
        Reply {
            status,
            headers,
            body: String::from_utf8(body).unwrap(),
        }
    }

    fn text_line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Whether unread bytes have arrived, or the connection has ended.
    pub fn has_reply(&mut self) -> bool {
        let stream = self.reader.get_ref();
        stream.set_nonblocking(true).unwrap();
        let there = self.reader.fill_buf().is_ok();
        self.reader.get_ref().set_nonblocking(false).unwrap();
        there
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let stream = self.reader.get_ref();
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
    }

    pub fn ended(&mut self) -> bool {
        self.reader.read(&mut [0]).is_ok_and(|count| count == 0)
    }
}

/// Starts the front end of a folder with the pipes `requests` and `responses`.
pub fn front_end(workdir: &Workdir, flags: &[&str]) -> (Running, String) {
    let run = workdir.run("rv-request").args(["--listen", "127.0.0.1:0"]);
    let run = run.args(["--responses", "responses", "-o", "requests"]);
    let running = run.args(["--stats", "stats.json"]).args(flags).start();
    let said = running.says("listening at http://");
    let address = said.rsplit_once("http://").unwrap().1.to_owned();
    (running, address)
}

/// Repeats a call until its request arrives in `requests`. The front end refuses calls
/// until it has noticed the reader. Returns the client, which waits for its answer, and
/// the request.
pub fn call_through(
    address: &str,
    headers: &str,
    body: &str,
    requests: &mut BufReader<File>,
) -> (Client, String) {
    let through = eventually(|| {
        let mut client = Client::connect(address);
        let length = body.len();
        client.send(format!(
            "POST /predict HTTP/1.1\r\nhost: {address}\r\n{headers}content-length: {length}\r\n\r\n{body}"
        ));
        let came = eventually(|| {
            let waiting = |requests: &BufReader<File>| {
                rustix::io::ioctl_fionread(requests.get_ref()).unwrap() > 0
                    || !requests.buffer().is_empty()
            };
            // After a reader has died, a blank line precedes the next request.
            while waiting(requests) {
                let line = next_line(requests);
                if !line.is_empty() {
                    return Some(Some(line));
                }
            }
            client.has_reply().then_some(None)
        });
        if let Some(Some(line)) = came {
            return Some((client, line));
        }
        assert_eq!(client.reply().status, 503);
        None
    });
    through.expect("no call came through")
}

/// A pipeline whose only stage doubles `n`.
pub fn start_doubling(workdir: &Workdir) -> std::thread::JoinHandle<()> {
    let (requests, responses) = (workdir.path("requests"), workdir.path("responses"));
    std::thread::spawn(move || {
        let requests = open_reader(&requests);
        let mut responses = open_writer(&responses);
        for line in requests.lines() {
            let request = json(&line.unwrap());
            let n = request["modelInput"]["n"].as_i64().unwrap();
            let (id, input) = (&request["messageId"], &request["modelInput"]);
            writeln!(
                responses,
                "{{\"messageId\":{id},\"modelInput\":{input},\"modelResult\":{{\"modelName\":\"m\",\"result\":{}}},\"provenance\":{{\"rendezvous\":{{\"modelVersion\":3,\"reason\":\"preferred\"}}}}}}",
                2 * n
            )
            .unwrap();
        }
    })
}

/// A folder with the pipes of a front end.
pub fn pipes() -> Workdir {
    let workdir = Workdir::new();
    workdir.fifo("requests");
    workdir.fifo("responses");
    workdir
}

/// Calls until the pipeline behind the front end is ready.
pub fn await_pipeline(client: &mut Client) {
    let reply = eventually(|| {
        let reply = client.predict("{\"n\":0}");
        (reply.status == 200).then_some(())
    });
    assert!(reply.is_some(), "the pipeline does not answer");
}

/// The number of calls with this status, from the stats.
pub fn calls_with(workdir: &Workdir, status: u16) -> u64 {
    let stats = json(&workdir.read("stats.json"));
    stats["statuses"][status.to_string()].as_u64().unwrap_or(0)
}

#[test]
fn ping_is_pong() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &[]);
    let mut client = Client::connect(&address);
    let reply = client.call("GET", "/ping", "", "");
    assert_eq!(
        (reply.status, reply.body.trim_end()),
        (200, r#"{"ping":"pong"}"#)
    );
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(
        client.call("POST", "/ping", "", "").header("allow"),
        Some("GET, HEAD")
    );
    assert_eq!(client.call("GET", "/predict", "", "").status, 405);
    assert_eq!(client.call("GET", "/other", "", "").status, 404);
}

#[test]
fn a_call_gets_its_response_without_the_provenance() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--id-header", "X-Request-Id"]);
    start_doubling(&workdir);
    let mut client = Client::connect(&address);
    await_pipeline(&mut client);
    let body = "{\r\n  \"n\": 21,\n  \"x\": 1.10\n}\n";
    let reply = client.call("POST", "/predict", "x-request-id: mine\r\n", body);
    assert_eq!(reply.status, 200, "{reply:?}");
    let answer = reply.json();
    assert_eq!(answer["messageId"], "mine");
    assert_eq!(answer["modelResult"]["result"], 42);
    assert!(answer.get("provenance").is_none());
    assert_eq!(reply.header("x-rv-message-id"), Some("mine"));
    assert_eq!(reply.header("x-rv-model"), Some("m@3"));
    assert_eq!(reply.header("x-rv-reason"), Some("preferred"));
}

#[test]
fn bad_calls_get_an_error_and_never_enter_the_pipeline() {
    let workdir = pipes();
    let (_running, address) = front_end(
        &workdir,
        &["--fields", "n", "--max-body", "1KiB", "--id-header", "x-id"],
    );
    start_doubling(&workdir);
    let mut client = Client::connect(&address);
    await_pipeline(&mut client);
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("not json", 400),
        ("[1]", 422),
        ("{}", 422),
        ("{\"n\":\"1\"}", 422),
        ("{\"n\":1e999}", 422),
    ] {
        let reply = client.predict(body);
        assert_eq!(reply.status, status, "{body:?}: {reply:?}");
        assert!(reply.json()["error"].is_string());
    }
    let long = format!("x-id: {}\r\n", "y".repeat(300));
    assert_eq!(
        client.call("POST", "/predict", &long, "{\"n\":1}").status,
        400
    );
    let large = format!("{{\"n\":1,\"x\":\"{}\"}}", "y".repeat(2000));
    assert_eq!(client.predict(&large).status, 413);
    let mut client = Client::connect(&address);
    client.send(format!(
        "POST /predict HTTP/1.1\r\nhost: {address}\r\ntransfer-encoding: chunked\r\n\r\n"
    ));
    client.send(format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len()));
    assert_eq!(client.reply().status, 413);
}

#[test]
fn a_token_is_asked_for() {
    let workdir = pipes();
    workdir.write("token", "canary-secret\n");
    let (running, address) = front_end(&workdir, &["--token-file", "token"]);
    start_doubling(&workdir);
    let mut client = Client::connect(&address);
    let right = "authorization: Bearer canary-secret\r\n";
    let reply = eventually(|| {
        let reply = client.call("POST", "/predict", right, "{\"n\":1}");
        (reply.status == 200).then_some(())
    });
    assert!(reply.is_some());
    let reply = client.predict("{\"n\":1}");
    assert_eq!(
        (reply.status, reply.header("www-authenticate")),
        (401, Some("Bearer"))
    );
    let wrong = "authorization: Bearer canary-secre\r\n";
    assert_eq!(
        client.call("POST", "/predict", wrong, "{\"n\":1}").status,
        401
    );
    assert_eq!(client.call("GET", "/ping", "", "").status, 200);
    running.signal(Signal::TERM);
    let finished = running.wait();
    assert!(!finished.stderr.contains("canary-secret"), "{finished}");
}

#[test]
fn an_address_that_others_reach_needs_a_token() {
    let workdir = pipes();
    let run = workdir
        .run("rv-request")
        .args(["--listen", "0.0.0.0:0", "--responses", "responses"]);
    let finished = run.exits(2);
    assert!(finished.stderr.contains("--token-file"), "{finished}");
    let run = workdir
        .run("rv-request")
        .args(["--listen", "nonsense", "--responses", "responses"]);
    assert!(run.exits(2).stderr.contains("HOST:PORT"));
}

#[test]
fn without_a_pipeline_the_answer_is_503_at_once() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &[]);
    let mut client = Client::connect(&address);
    let since = Instant::now();
    let reply = client.predict("{\"n\":1}");
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (503, Some("1"))
    );
    assert!(since.elapsed() < Duration::from_secs(2));

    // The pipeline starts and stops twice.
    for _ in 0..2 {
        let mut requests = open_reader(&workdir.path("requests"));
        let responses = open_writer(&workdir.path("responses"));
        let (mut caller, _) = call_through(&address, "", "{\"n\":1}", &mut requests);
        drop((requests, responses));
        assert_eq!(caller.reply().status, 503);
    }
}

#[test]
fn no_response_in_time_is_504_and_too_many_calls_are_503() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--timeout", "1s", "--max-in-flight", "1"]);
    let mut requests = open_reader(&workdir.path("requests"));
    let mut responses = open_writer(&workdir.path("responses"));
    let (mut client, _) = call_through(&address, "", "{}", &mut requests);
    let refused = Client::connect(&address).predict("{}");
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(client.reply().status, 504);
    // A late response is counted, and has no other effect.
    writeln!(responses, "{{\"messageId\":\"late\",\"modelResult\":null}}").unwrap();
    let counted = eventually(|| {
        let stats = std::fs::read_to_string(workdir.path("stats.json")).ok()?;
        (json(&stats)["unmatched"] == 1).then_some(())
    });
    assert!(counted.is_some());
    drop(requests);
}

#[test]
fn a_policy_without_an_answer_is_504_too() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &[]);
    let (requests, responses) = (workdir.path("requests"), workdir.path("responses"));
    std::thread::spawn(move || {
        let requests = open_reader(&requests);
        let mut responses = open_writer(&responses);
        for line in requests.lines() {
            let id = &json(&line.unwrap())["messageId"];
            writeln!(responses, "{{\"messageId\":{id},\"modelResult\":null}}").unwrap();
        }
    });
    let reply = eventually(|| {
        let reply = Client::connect(&address).predict("{}");
        (reply.status == 504).then_some(reply)
    });
    assert!(reply.unwrap().json()["modelResult"].is_null());
}

#[test]
fn slow_clients_are_let_go_and_bother_nobody() {
    let workdir = pipes();
    let flags = ["--header-timeout", "300ms", "--body-timeout", "300ms"];
    let (_running, address) = front_end(&workdir, &flags);
    let mut half_head = Client::connect(&address);
    half_head.send("GET /ping HTTP/1.1\r\nhos");
    let mut half_body = Client::connect(&address);
    half_body.send(format!(
        "POST /predict HTTP/1.1\r\nhost: {address}\r\ncontent-length: 10\r\n\r\n{{"
    ));
    let mut quick = Client::connect(&address);
    assert_eq!(quick.call("GET", "/ping", "", "").status, 200);
    assert_eq!(half_body.reply().status, 408);
    assert!(half_head.ended());
}

#[test]
fn sigterm_waits_for_the_answers_of_open_calls() {
    let workdir = pipes();
    let (running, address) = front_end(&workdir, &[]);
    let mut requests = open_reader(&workdir.path("requests"));
    let mut responses = open_writer(&workdir.path("responses"));
    let (mut client, request) = call_through(&address, "", "{}", &mut requests);
    let request = json(&request);
    running.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(100));
    let refused = TcpStream::connect(&address).is_err();
    assert!(refused, "new calls are still accepted");
    let id = &request["messageId"];
    writeln!(
        responses,
        "{{\"messageId\":{id},\"modelResult\":{{\"modelName\":\"m\"}}}}"
    )
    .unwrap();
    assert_eq!(client.reply().status, 200);
    running.wait().assert_status(0);
    assert_eq!(calls_with(&workdir, 200), 1);
}

#[test]
fn an_idle_front_end_uses_no_processor() {
    let workdir = pipes();
    let (running, address) = front_end(&workdir, &[]);
    Client::connect(&address).call("GET", "/ping", "", "");
    std::thread::sleep(Duration::from_millis(1500));
    assert_idle(running.id());
}

/// Checks that the front end refuses these flags. Returns the message.
fn refused(workdir: &Workdir, flags: &[&str]) -> String {
    let run = workdir.run("rv-request").args(["--listen", "127.0.0.1:0"]);
    run.args(flags).exits(2).stderr
}

#[test]
fn what_is_no_pipe_is_refused_before_it_listens() {
    let workdir = pipes();
    workdir.write("file", "");
    for (requests, responses, said) in [
        ("requests", "file", "--responses file: is not a pipe"),
        (
            "requests",
            "/dev/null",
            "--responses /dev/null: is not a pipe",
        ),
        ("file", "responses", "mkfifo file"),
        ("missing", "responses", "mkfifo missing"),
    ] {
        let stderr = refused(&workdir, &["-o", requests, "--responses", responses]);
        assert!(stderr.contains(said), "{stderr}");
        assert!(!stderr.contains("listening"), "{stderr}");
    }
    assert!(!std::fs::exists(workdir.path("missing")).unwrap());
}

#[test]
fn flags_that_would_do_nothing_are_refused() {
    let workdir = pipes();
    for flags in [&["--follow"][..], &["-i", "x"], &["--id", "/id"]] {
        let stderr = refused(&workdir, &[&["--responses", "responses"], flags].concat());
        assert!(stderr.contains("cannot be used with"), "{stderr}");
    }
}

#[test]
fn responses_that_can_be_read_no_more_end_the_front_end() {
    let workdir = pipes();
    let (running, _) = front_end(&workdir, &[]);
    let responses = open_writer(&workdir.path("responses"));
    std::fs::remove_file(workdir.path("responses")).unwrap();
    workdir.write("responses", "");
    drop(responses);
    let finished = running.wait();
    finished.assert_status(3);
    assert!(finished.stderr.contains("must be a pipe"), "{finished}");
}

#[test]
fn responses_that_are_none_are_all_kept() {
    let workdir = pipes();
    let (running, _) = front_end(&workdir, &["--rejects", "rejects"]);
    let mut responses = open_writer(&workdir.path("responses"));
    // There are many bad responses in one block, and more in total than may wait to be
    // rejected.
    let mut bad = "x\n".repeat(1000);
    for _ in 0..2000 {
        bad += &"y".repeat(1000);
        bad.push('\n');
    }
    responses.write_all(bad.as_bytes()).unwrap();
    let counted = eventually(|| {
        let stats = std::fs::read_to_string(workdir.path("stats.json")).ok()?;
        (json(&stats)["rejected"] == 3000).then_some(())
    });
    assert!(counted.is_some());
    running.signal(Signal::TERM);
    running.wait().assert_status(1);
    assert_eq!(workdir.read("rejects").lines().count(), 3000);
}

#[test]
fn a_last_response_without_a_newline_answers_its_call() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &[]);
    let mut requests = open_reader(&workdir.path("requests"));
    let mut responses = open_writer(&workdir.path("responses"));
    let (mut client, request) = call_through(&address, "", "{}", &mut requests);
    let id = &json(&request)["messageId"];
    write!(responses, "{{\"messageId\":{id},\"modelResult\":{{}}}}").unwrap();
    drop(responses);
    assert_eq!(client.reply().status, 200);
}

#[test]
fn a_large_head_is_refused_however_it_comes() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &[]);
    for (bytes, status) in [(60_000, 200), (70_000, 431), (100_000, 431)] {
        let mut client = Client::connect(&address);
        let head = format!(
            "GET /ping HTTP/1.1\r\nhost: {address}\r\nx: {}\r\n\r\n",
            "y".repeat(bytes)
        );
        client.send(head);
        assert_eq!(client.reply().status, status, "{bytes}");
    }
}

#[test]
fn a_call_whose_client_leaves_is_counted() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &[]);
    let mut requests = open_reader(&workdir.path("requests"));
    let _responses = open_writer(&workdir.path("responses"));
    let (client, _) = call_through(&address, "", "{}", &mut requests);
    let stats = |name: &str| {
        let text = std::fs::read_to_string(workdir.path("stats.json")).ok()?;
        json(&text)[name].as_u64()
    };
    assert!(eventually(|| (stats("open") == Some(1)).then_some(())).is_some());
    // A client that only closes its writing side still waits for its answer. A reset
    // says that the client is gone.
    client.reset();
    assert!(eventually(|| (stats("abandoned") == Some(1)).then_some(())).is_some());
    let refused = calls_with(&workdir, 503);
    assert_eq!((stats("in"), stats("open")), (Some(refused + 1), Some(0)));
}

#[test]
fn an_inherited_pipe_whose_writer_has_gone_has_ended() {
    let workdir = pipes();
    let script = "(: > responses) & exec 3< responses; wait; \
        exec rv-request --listen 127.0.0.1:0 -o requests --responses \"$1\" <&3";
    for responses in ["-", "/dev/fd/3"] {
        let mut running = workdir.shell(script).args(["sh", responses]).start();
        running.says("the last writer of the responses has closed");
        drop(running.stdin.take());
    }
}
