//! The sink as a program, at a service that is there and takes nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;

use crate::harness::{Workdir, eventually, json, processor_ticks, request};

/// A service that answers every `_bulk` with this status. Returns its address, and
/// the heads of the calls.
fn unwilling(status: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), status, &seen);
        }
    });
    (url, heads)
}

fn answer(mut stream: TcpStream, status: u16, heads: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let lower = head.to_ascii_lowercase();
    if let Some((_, length)) = lower.split_once("content-length: ") {
        let length: u64 = length.lines().next().unwrap().parse().unwrap();
        std::io::copy(&mut reader.take(length), &mut std::io::sink()).unwrap();
    }
    let (status, body) = if head.starts_with("GET ") {
        (200, r#"{"version":{"number":"8.0.0"}}"#)
    } else {
        (status, "{}")
    };
    heads.lock().unwrap().push(head);
    let length = body.len();
    let _ = stream.write_all(
        format!(
            "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .as_bytes(),
    );
}

#[test]
fn what_is_not_delivered_at_the_end_is_set_aside_and_counted() {
    let (url, _) = unwilling(503);
    let workdir = Workdir::new();
    let flags = [
        "--grace",
        "100ms",
        "--batch-age",
        "10ms",
        "--stats",
        "stats.json",
    ];
    for (rejects, says) in [
        (
            &["--rejects", "rejects"][..],
            "they are in the file of --rejects",
        ),
        (&[], "with --rejects FILE they would have been kept"),
    ] {
        let sink = workdir
            .run("rv-es-sink")
            .args(["--url", &url, "--index", "i"]);
        let mut running = sink.args(flags).args(rejects).start();
        running.write(format!("{}\n{}\n", request("r-1"), request("r-2")));
        running.says("the service answers 503; sending again");
        running.signal(Signal::TERM);
        let finished = running.wait();
        finished.assert_status(143);
        assert!(
            finished
                .stderr
                .contains("2 records were read and not delivered")
                && finished.stderr.contains(says),
            "{finished}"
        );
        let stats = json(&workdir.read("stats.json"));
        assert_eq!((&stats["in"], &stats["rejected"]), (&2.into(), &2.into()));
        assert_eq!(
            (&stats["indexed"], &stats["pending"]),
            (&0.into(), &0.into())
        );
    }
    let raws: Vec<String> = workdir
        .read("rejects")
        .lines()
        .map(|line| json(line)["raw"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(raws, [request("r-1"), request("r-2")]);
}

#[test]
fn sighup_reads_the_credentials_again_and_no_secret_is_shown() {
    let (url, heads) = unwilling(503);
    let workdir = Workdir::new();
    let key = workdir.write("key", "canary-old\n");
    let sink = workdir
        .run("rv-es-sink")
        .args(["--url", &url, "--index", "i"]);
    let sink = sink.args([
        "--api-key-file",
        &key,
        "--batch-age",
        "10ms",
        "--retry-max",
        "200ms",
    ]);
    let mut running = sink
        .args(["--grace", "100ms", "-v", "--stats", "stats.json"])
        .start();
    running.write(format!("{}\n", request("r-1")));
    let is_sent = |key: &str| {
        let sent = || {
            let heads = heads.lock().unwrap();
            heads.iter().any(|head| head.contains(key)).then_some(())
        };
        eventually(sent).unwrap_or_else(|| panic!("{key} is never sent"));
    };
    is_sent("authorization: ApiKey canary-old");
    workdir.write("key", "");
    running.signal(Signal::HUP);
    running.says("the old ones stay: ");
    workdir.write("key", "canary-new");
    running.signal(Signal::HUP);
    running.says("the credentials were read again");
    is_sent("authorization: ApiKey canary-new");
    running.signal(Signal::TERM);
    let finished = running.wait();
    assert!(!format!("{finished}{}", workdir.read("stats.json")).contains("canary"));
}

#[test]
fn a_sink_that_waits_uses_no_processor() {
    let (url, _) = unwilling(503);
    let workdir = Workdir::new();
    let sink = workdir
        .run("rv-es-sink")
        .args(["--url", &url, "--index", "i"]);
    let sink = sink.args([
        "--batch-age",
        "1ms",
        "--retry-min",
        "1h",
        "--retry-max",
        "1h",
    ]);
    let mut running = sink.args(["--grace", "100ms"]).start();
    running.write(format!("{}\n", request("r-1")));
    running.says("sending again");
    let before = processor_ticks(running.id());
    thread::sleep(std::time::Duration::from_millis(500));
    let used = processor_ticks(running.id()) - before;
    assert!(used <= 5, "{used} ticks in half a second");
    running.signal(Signal::TERM);
    running.wait().assert_status(143);
}
