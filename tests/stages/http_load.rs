//! The front end under slow clients, overload and a full ring of pipes.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::harness::{
    Workdir, eventually, json, next_line, open_reader, open_writer, resident_bytes,
};
use crate::http::{
    Client, await_pipeline, call_through, calls_with, front_end, pipes, start_doubling,
};
use crate::pipelines::{Pipeline, flower};

/// Raises the limit of open files for this process and its children.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

fn assert_serves(address: &str) {
    let mut fresh = Client::connect(address);
    assert_eq!(fresh.call("GET", "/ping", "", "").status, 200);
    let reply = fresh.predict("{\"n\":21}");
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["modelResult"]["result"], 42);
}

#[test]
fn two_thousand_slow_heads_past_the_cap_hold_up_nobody() {
    allow_many_files();
    let workdir = pipes();
    // The time-out is never reached here. A slow client is closed only to make room.
    let cap = ["--max-connections", "500", "--header-timeout", "1h"];
    let (running, address) = front_end(&workdir, &cap);
    start_doubling(&workdir);
    await_pipeline(&mut Client::connect(&address));
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..2000 {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_nonblocking(true).unwrap();
        write!(stream, "GET /ping HTTP/1.1\r\nhost: {address}\r\nx").unwrap();
        slow.push(stream);
        if slow.len().is_multiple_of(200) {
            assert_serves(&address);
        }
    }
    for _ in 0..5 {
        for stream in &mut slow {
            // The write fails on connections that were closed to make room.
            let _ = stream.write_all(b"t");
        }
        assert_serves(&address);
    }
    // The latest connections are still open, and can finish their calls.
    let mut last = slow.pop().unwrap();
    last.set_nonblocking(false).unwrap();
    last.write_all(b": x\r\n\r\n").unwrap();
    let mut reply = [0; 15];
    last.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"HTTP/1.1 200 OK");
    let open_files = std::fs::read_dir(format!("/proc/{}/fd", running.id()));
    let open_files = open_files.unwrap().count();
    assert!(open_files < 600, "{open_files} files are open");
}

#[test]
fn idle_connections_and_slow_heads_make_room_and_a_call_in_flight_does_not() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--max-connections", "3"]);
    let mut requests = open_reader(&workdir.path("requests"));
    let mut responses = open_writer(&workdir.path("responses"));
    let (mut in_flight, request) = call_through(&address, "", "{}", &mut requests);
    let mut others = Vec::new();
    for _ in 0..20 {
        let mut idle = Client::connect(&address);
        assert_eq!(idle.call("GET", "/ping", "", "").status, 200);
        let mut half_head = Client::connect(&address);
        half_head.send("GET /ping HT");
        others.extend([idle, half_head]);
    }
    assert!(others[0].ended(), "the first idle connection made no room");
    let id = &json(&request)["messageId"];
    writeln!(responses, "{{\"messageId\":{id},\"modelResult\":{{}}}}").unwrap();
    assert_eq!(in_flight.reply().status, 200);
}

#[test]
fn where_all_connections_are_busy_the_next_that_is_answered_makes_room() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--max-connections", "1"]);
    let mut requests = open_reader(&workdir.path("requests"));
    let mut responses = open_writer(&workdir.path("responses"));
    let (mut busy, request) = call_through(&address, "", "{}", &mut requests);
    let mut fresh = Client::connect(&address);
    fresh.send(format!("GET /ping HTTP/1.1\r\nhost: {address}\r\n\r\n"));
    thread::sleep(Duration::from_millis(100));
    let id = &json(&request)["messageId"];
    writeln!(responses, "{{\"messageId\":{id},\"modelResult\":{{}}}}").unwrap();
    let reply = busy.reply();
    // The header tells the client not to send another call on this connection.
    assert_eq!(
        (reply.status, reply.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(fresh.reply().status, 200);
}

#[test]
fn clients_that_never_read_their_answers_hold_up_nobody_and_are_let_go() {
    let workdir = pipes();
    let (running, address) = front_end(&workdir, &["--write-timeout", "1s"]);
    start_doubling(&workdir);
    await_pipeline(&mut Client::connect(&address));
    let mut deaf: Vec<TcpStream> = Vec::new();
    let calls = format!("GET /ping HTTP/1.1\r\nhost: {address}\r\n\r\n").repeat(1000);
    for _ in 0..5 {
        let mut stream = TcpStream::connect(&address).unwrap();
        let patience = Some(Duration::from_millis(200));
        stream.set_write_timeout(patience).unwrap();
        // Writes until the buffers of both directions are full.
        while stream.write_all(calls.as_bytes()).is_ok() {}
        deaf.push(stream);
        assert_serves(&address);
    }
    let resident = resident_bytes(running.id());
    assert!(resident < 256 << 20, "{resident} bytes");
    for stream in &mut deaf {
        let let_go = eventually(|| {
            let error = stream.write(b"x").err()?;
            let gone = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            gone.contains(&error.kind()).then_some(())
        });
        assert!(let_go.is_some(), "a client that does not read is kept");
    }
}

#[test]
fn no_call_is_begun_while_the_answers_before_it_are_unread() {
    // These are more bytes than the kernel's buffers for calls and answers hold
    // together.
    const BYTES: usize = 64 << 20;
    let workdir = pipes();
    let (running, address) = front_end(&workdir, &["--write-timeout", "1h"]);
    // These calls are answered before their bodies are read. The HTTP library would
    // then begin the next call.
    for call in ["POST /nowhere", "GET /ping"] {
        let mut deaf = TcpStream::connect(&address).unwrap();
        let patience = Some(Duration::from_millis(500));
        deaf.set_write_timeout(patience).unwrap();
        let call = format!("{call} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 2\r\n\r\n{{}}");
        let calls = call.repeat(1000);
        let mut sent = 0;
        while sent < BYTES
            && let Ok(count) = deaf.write(calls.as_bytes())
        {
            sent += count;
        }
        assert!(sent < BYTES, "calls are taken though no answer is read");
        let resident = resident_bytes(running.id());
        assert!(resident < 64 << 20, "{resident} bytes");
    }
}

#[test]
fn a_call_that_failed_before_it_was_written_never_comes_to_a_later_reader() {
    let workdir = pipes();
    let flags = ["--admin", "127.0.0.1:0", "--timeout", "1m"];
    let (running, address) = front_end(&workdir, &flags);
    let said = running.says("admin at http://");
    let admin = said.rsplit_once("http://").unwrap().1.to_owned();
    let mut requests = open_reader(&workdir.path("requests"));
    let _responses = open_writer(&workdir.path("responses"));
    let (mut first, _) = call_through(&address, "", "{}", &mut requests);
    // The writer waits in the middle of this long request, so the next requests stay
    // unwritten.
    let client = |body: &str| {
        let mut client = Client::connect(&address);
        client.send(format!(
            "POST /predict HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        client
    };
    let mut failed = vec![client(&format!("\"failed {}\"", "x".repeat(500_000)))];
    let filled = eventually(|| {
        let filled = rustix::io::ioctl_fionread(requests.get_ref()).unwrap();
        (filled >= 65_536).then_some(())
    });
    assert!(filled.is_some());
    failed.extend((0..20).map(|number| client(&format!("\"failed {number}\""))));
    let all_open = eventually(|| {
        let metrics = Client::connect(&admin).call("GET", "/metrics", "", "").body;
        metrics.contains("\nrv_request_open 22\n").then_some(())
    });
    assert!(all_open.is_some());
    drop(requests);
    for client in failed.iter_mut().chain([&mut first]) {
        assert_eq!(client.reply().status, 503);
    }
    let mut requests = open_reader(&workdir.path("requests"));
    let (_fresh, request) = call_through(&address, "", "\"fresh\"", &mut requests);
    assert_eq!(json(&request)["modelInput"], "fresh");
    assert_eq!(rustix::io::ioctl_fionread(requests.get_ref()).unwrap(), 0);
}

#[test]
fn a_body_that_is_too_big_gets_its_413_even_where_all_of_it_is_sent_first() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--max-body", "1KiB"]);
    let big = "x".repeat(20 << 20);
    for head in [
        format!("content-length: {}\r\n\r\n", big.len()),
        format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", big.len()),
    ] {
        let mut client = Client::connect(&address);
        client.send(format!("POST /predict HTTP/1.1\r\nhost: {address}\r\n"));
        client.send(&head);
        client.send(&big);
        let reply = client.reply();
        assert_eq!(
            (reply.status, reply.header("connection")),
            (413, Some("close"))
        );
        assert!(reply.json()["error"].is_string());
    }
}

#[test]
fn bodies_are_bounded_all_together() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--max-bodies", "1500B"]);
    start_doubling(&workdir);
    let mut other = Client::connect(&address);
    await_pipeline(&mut other);
    let body = format!("{{\"n\":1,\"x\":\"{}\"}}", "y".repeat(986));
    let mut slow = Client::connect(&address);
    slow.send(format!(
        "POST /predict HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1000\r\n\r\n"
    ));
    slow.send(&body[..10]);
    let refused = eventually(|| {
        let reply = Client::connect(&address).predict(&body);
        (reply.status == 503).then_some(reply)
    });
    assert_eq!(refused.unwrap().header("retry-after"), Some("1"));
    assert_eq!(other.predict("{\"n\":1}").status, 200);
    slow.send(&body[10..]);
    assert_eq!(slow.reply().status, 200);
    assert_eq!(other.predict(&body).status, 200);
}

#[test]
fn what_is_past_the_bound_gets_503_at_once_and_what_was_accepted_its_answer() {
    const BOUND: usize = 20;
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--max-in-flight", "20"]);
    let mut requests = open_reader(&workdir.path("requests"));
    let mut responses = open_writer(&workdir.path("responses"));
    let (first, line) = call_through(&address, "", "{}", &mut requests);
    let mut accepted = vec![first];
    let mut lines = vec![line];
    let call =
        format!("POST /predict HTTP/1.1\r\nhost: {address}\r\ncontent-length: 2\r\n\r\n{{}}");
    while accepted.len() < BOUND {
        let mut client = Client::connect(&address);
        client.send(&call);
        lines.push(next_line(&mut requests));
        accepted.push(client);
    }
    // These calls are refused at once, while no call has been answered.
    for _ in 0..4 * BOUND {
        let reply = Client::connect(&address).predict("{}");
        assert_eq!(
            (reply.status, reply.header("retry-after")),
            (503, Some("1"))
        );
    }
    for line in lines {
        let id = &json(&line)["messageId"];
        writeln!(responses, "{{\"messageId\":{id},\"modelResult\":{{}}}}").unwrap();
    }
    for client in &mut accepted {
        assert_eq!(client.reply().status, 200);
    }
}

#[test]
fn at_five_times_the_capacity_every_accepted_call_is_answered_by_its_deadline() {
    let workdir = Workdir::new();
    let policy = "deadline_ms = 1000\nexpect = [\"dt@1\"]\n\
        [[prefer]]\nafter_ms = 0\nmodels = [\"dt@1\"]\n\
        [default]\nmodelResult = { result = 0 }\n";
    let pipeline = Pipeline::start_under(&workdir, policy);
    let (front, address) = front_end(&workdir, &["--max-in-flight", "20"]);
    await_flower(&address);
    // From here on no model answers in time, so each call takes its whole deadline. The
    // pipeline has its lowest capacity.
    for model in &pipeline.stages[1..3] {
        model.signal(Signal::STOP);
    }
    let answered = AtomicU64::new(0);
    let refused = AtomicU64::new(0);
    thread::scope(|scope| {
        for caller in 0..100 {
            let (address, answered, refused) = (&address, &answered, &refused);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for _ in 0..5 {
                    let reply = client.predict(&flower(caller));
                    match reply.status {
                        200 => {
                            assert_eq!(reply.header("x-rv-reason"), Some("default"));
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        503 => {
                            assert_eq!(reply.header("retry-after"), Some("1"));
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => panic!("{reply:?}"),
                    }
                }
            });
        }
    });
    for model in &pipeline.stages[1..3] {
        model.signal(Signal::CONT);
    }
    let (answered, refused) = (answered.into_inner(), refused.into_inner());
    assert!(answered >= 20 && refused > 0, "{answered} {refused}");
    assert_eq!(Client::connect(&address).predict(&flower(0)).status, 200);
    front.signal(Signal::TERM);
    front.wait().assert_status(0);
    for stage in pipeline.wait() {
        stage.assert_status(0);
    }
}

/// Calls until the pipeline of models is ready.
fn await_flower(address: &str) {
    let reply = eventually(|| {
        let reply = Client::connect(address).predict(&flower(0));
        (reply.status == 200).then_some(())
    });
    assert!(reply.is_some(), "the pipeline does not answer");
}

#[test]
fn sigterm_under_load_fails_no_call_that_was_accepted() {
    let workdir = Workdir::new();
    let pipeline = Pipeline::start(&workdir);
    let (front, address) = front_end(&workdir, &[]);
    await_flower(&address);
    let stopping = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let address = address.clone();
            let (stopping, calls) = (Arc::clone(&stopping), Arc::clone(&calls));
            thread::spawn(move || call_until_refused(&address, &stopping, &calls))
        })
        .collect();
    let loaded = eventually(|| (calls.load(Ordering::Relaxed) > 2000).then_some(()));
    assert!(loaded.is_some());
    stopping.store(true, Ordering::SeqCst);
    front.signal(Signal::TERM);
    for caller in callers {
        caller.join().unwrap();
    }
    front.wait().assert_status(0);
    // Each answer was counted, and none was lost on the way.
    let counted = calls_with(&workdir, 200);
    assert!(counted > calls.load(Ordering::Relaxed));
    assert!(counted <= calls.load(Ordering::Relaxed) + 21);
    for stage in pipeline.wait() {
        stage.assert_status(0);
    }
}

/// Makes one call after the other. Keeps each connection until the front end closes it.
/// After the signal, a new connection may be refused.
fn call_until_refused(address: &str, stopping: &AtomicBool, calls: &AtomicU64) {
    let length = flower(1).len();
    let call = format!(
        "POST /predict HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n{}",
        flower(1)
    );
    loop {
        let was_stopping = stopping.load(Ordering::SeqCst);
        let Ok(mut client) = Client::try_connect(address) else {
            assert!(stopping.load(Ordering::SeqCst), "refused before the signal");
            return;
        };
        let mut is_first = true;
        loop {
            match client.try_call(&call) {
                Ok(reply) => {
                    assert_eq!(reply.status, 200, "{reply:?}");
                    calls.fetch_add(1, Ordering::Relaxed);
                    if reply.header("connection") == Some("close") {
                        break;
                    }
                }
                Err(error) => {
                    let was_refused = is_first && (was_stopping || stopping.load(Ordering::SeqCst));
                    assert!(was_refused, "an accepted call failed: {error}");
                    return;
                }
            }
            is_first = false;
        }
    }
}

#[test]
fn a_ring_of_full_pipes_goes_on() {
    const CALLS: usize = 1000;
    allow_many_files();
    let workdir = Workdir::new();
    let pipeline = Pipeline::start(&workdir);
    let (front, address) = front_end(&workdir, &[]);
    await_flower(&address);
    let fifos = [
        "requests",
        "responses",
        "dt.in",
        "lr.in",
        "decoy.in",
        "rendezvous.in",
        "dt.scores",
        "lr.scores",
    ];
    for fifo in fifos {
        let mut options = File::options();
        // Opens the pipe as a second writer for a moment. The size belongs to the pipe.
        let pipe = options.write(true).open(workdir.path(fifo)).unwrap();
        let shrunk = eventually(|| rustix::pipe::fcntl_setpipe_size(&pipe, 4096).ok());
        assert_eq!(shrunk, Some(4096), "{fifo}");
    }
    let mut clients: Vec<Client> = (0..CALLS).map(|_| Client::connect(&address)).collect();
    for client in &mut clients {
        assert_eq!(client.call("GET", "/ping", "", "").status, 200);
    }
    // The calls are sent while the front end is stopped. It then has over a thousand
    // times as many bytes to write as a pipe holds.
    front.signal(Signal::STOP);
    let padding = "y".repeat(8000);
    for (mark, client) in clients.iter_mut().enumerate() {
        let body = flower(mark).replacen('{', &format!("{{\"padding\":\"{padding}\","), 1);
        client.send(format!(
            "POST /predict HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
    }
    front.signal(Signal::CONT);
    for (mark, client) in clients.iter_mut().enumerate() {
        let reply = client.reply();
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.json()["modelInput"]["mark"], mark);
    }
    drop(clients);
    front.signal(Signal::TERM);
    front.wait().assert_status(0);
    for stage in pipeline.wait() {
        stage.assert_status(0);
    }
}
