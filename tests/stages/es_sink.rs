//! The sink as a program, mostly with a service that refuses every record.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;

use crate::es::FakeService;
use crate::harness::{
    Run, Running, Workdir, eventually, json, processor_ticks, request, resident_bytes, stat,
};

/// A service that answers every `_bulk` with this status. Returns its address, and the
/// headers of the calls.
fn unwilling(status: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    unwilling_after(0, status)
}

/// A service that accepts the first `willing` calls of `_bulk`, and answers later calls
/// with `status`.
fn unwilling_after(willing: usize, status: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let calls = seen.lock().unwrap();
            let bulk = calls
                .iter()
                .filter(|head: &&String| head.starts_with("POST "));
            let is_willing = bulk.count() < willing;
            drop(calls);
            answer(
                stream.unwrap(),
                if is_willing { 200 } else { status },
                &seen,
            );
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
        (status, r#"{"items":[{"index":{"status":201}}]}"#)
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

/// The sink with short waits.
fn sink(workdir: &Workdir, url: &str) -> Run {
    let sink = workdir
        .run("rv-es-sink")
        .args(["--url", url, "--index", "i"]);
    sink.args(["--batch-age=10ms", "--grace=200ms", "--stats=stats.json"])
}

/// The records in the file of rejects.
fn set_aside(workdir: &Workdir) -> Vec<String> {
    let rejects = workdir.read("rejects");
    let raw = |line| json(line)["raw"].as_str().unwrap().to_owned();
    rejects.lines().map(raw).collect()
}

fn requests(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers
        .map(|number| request(&format!("r-{number}")))
        .collect()
}

#[test]
fn a_second_sigterm_changes_nothing() {
    let (url, _) = unwilling(503);
    for pauses_ms in [&[0][..], &[1, 5, 20, 0, 0], &[100]] {
        let workdir = Workdir::new();
        let mut running = sink(&workdir, &url).args(["--rejects=rejects"]).start();
        running.write(requests(0..2).join("\n") + "\n");
        running.says("sending again");
        running.signal(Signal::TERM);
        for pause_ms in pauses_ms {
            thread::sleep(std::time::Duration::from_millis(*pause_ms));
            running.signal(Signal::TERM);
        }
        let finished = running.wait();
        finished.assert_status(143);
        assert!(
            finished
                .stderr
                .contains("2 records were read and not delivered"),
            "{finished}"
        );
        assert_eq!(set_aside(&workdir), requests(0..2));
    }
}

#[test]
fn what_was_read_and_not_even_looked_at_is_set_aside_too() {
    let (url, _) = unwilling(503);
    let workdir = Workdir::new();
    let sink = sink(&workdir, &url).args(["--rejects=rejects", "--batch-records=2", "--pass"]);
    let mut running = sink.start();
    running.write(requests(0..100).join("\n") + "\n{\"messageId\":");
    running.says("sending again");
    running.signal(Signal::TERM);
    let finished = running.wait();
    finished.assert_status(143);
    assert!(
        finished
            .stderr
            .contains("101 records were read and not delivered"),
        "{finished}"
    );
    let mut expected = requests(0..100);
    expected.push("{\"messageId\":".to_owned());
    assert_eq!(set_aside(&workdir), expected);
    for (name, count) in [
        ("in", 101),
        ("rejected", 101),
        ("indexed", 0),
        ("pending", 0),
    ] {
        assert_eq!(stat(&workdir, "stats.json", name), count, "{name}");
    }
}

#[test]
fn the_proxies_of_the_environment_are_not_used() {
    let service = FakeService::start();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    proxy.set_nonblocking(true).unwrap();
    let workdir = Workdir::new();
    let mut sink = sink(&workdir, &service.url()).input(request("r-1"));
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "all_proxy",
        "ALL_PROXY",
    ] {
        sink.command.env(name, &address);
    }
    for name in ["no_proxy", "NO_PROXY", "REQUEST_METHOD"] {
        sink.command.env_remove(name);
    }
    let running = sink.args(["--timeout=5s", "--retry-max=100ms"]).succeeds();
    assert_eq!(service.ids(), ["r-1"], "{running}");
    assert!(proxy.accept().is_err(), "nobody came");
}

#[test]
fn an_address_without_a_scheme_is_told_what_to_write() {
    for url in ["localhost:9200", "127.0.0.1:9200"] {
        let finished = sink(&Workdir::new(), url).exits(2);
        let remedy = format!("write --url http://{url}");
        assert!(finished.stderr.contains(&remedy), "{finished}");
    }
}

#[test]
fn a_file_is_not_input_and_output_at_once() {
    let workdir = Workdir::new();
    let file = workdir.write("one", request("r-1"));
    let both = ["--pass", "-i", &file, "-o", &file];
    let finished = sink(&workdir, "http://127.0.0.1:1").args(both).exits(2);
    assert!(
        finished.stderr.contains("is both input and output"),
        "{finished}"
    );
    assert_eq!(workdir.read("one"), request("r-1"));
}

#[test]
fn what_is_passed_on_is_what_came_as_soon_as_it_is_indexed() {
    let service = FakeService::start();
    let workdir = Workdir::new();
    let mut running = sink(&workdir, &service.url()).arg("--pass").start();
    for number in 0..3 {
        let record = request(&format!("r-{number}"));
        running.write(format!("{record}\n"));
        assert_eq!(running.line(), record);
        assert_eq!(service.ids().len(), number + 1);
    }
    drop(running.stdin.take());
    running.wait().assert_status(0);
    // Many records on several connections.
    let input = requests(0..20_000).join("\n") + "\n";
    let finished = sink(&workdir, &service.url())
        .args(["--pass", "--connections=4", "--batch-records=100"])
        .input(input.clone())
        .succeeds();
    assert!(finished.stdout() == input, "as it came, in its order");
    assert_eq!(stat(&workdir, "stats.json", "passed"), 20_000);
}

fn closed(workdir: &Workdir, url: &str, flags: &[&str]) -> Running {
    let mut running = sink(workdir, url)
        .args(["--pass", "--batch-records=1"])
        .args(flags)
        .start();
    drop(running.stdout.take());
    running
}

#[test]
fn a_reader_that_has_gone_ends_it_and_what_is_held_is_set_aside() {
    for (flags, says) in [
        (
            &["--rejects=rejects", "-q"][..],
            "they are in the file of --rejects",
        ),
        (&[], "with --rejects FILE they would have been kept"),
    ] {
        let (url, _) = unwilling_after(1, 503);
        let workdir = Workdir::new();
        let mut running = closed(&workdir, &url, flags);
        running.write(requests(0..4).join("\n") + "\n");
        let finished = running.wait();
        finished.assert_status(141);
        assert!(
            finished
                .stderr
                .contains("3 records were read and not delivered")
                && finished.stderr.contains(says),
            "{finished}"
        );
        if !flags.is_empty() {
            assert_eq!(set_aside(&workdir), requests(1..4));
        }
    }
    // If no record is held, no message is printed.
    let workdir = Workdir::new();
    let mut running = closed(&workdir, &FakeService::start().url(), &[]);
    running.write(requests(0..1).join("\n") + "\n");
    let finished = running.wait();
    finished.assert_status(141);
    assert_eq!(finished.stderr, "");
}

#[test]
fn a_reader_that_does_not_read_holds_the_stream_and_nothing_grows() {
    let service = FakeService::start();
    let workdir = Workdir::new();
    let mut running = sink(&workdir, &service.url())
        .args(["--pass", "--batch-records=50", "--connections=2"])
        .start();
    let records = requests(0..30_000);
    let input = records.join("\n") + "\n";
    let (mut stdin, mut stdout) = (
        running.stdin.take().unwrap(),
        running.stdout.take().unwrap(),
    );
    let text = input.clone();
    let feeding = thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let first = crate::harness::read_line(&mut stdout);
    assert_eq!(first, records[0]);
    // The pipe and the records in memory are far smaller than the input.
    let mut earlier = 0;
    let still = eventually(|| {
        let now = service.ids().len();
        thread::sleep(std::time::Duration::from_millis(100));
        (std::mem::replace(&mut earlier, now) == now && now > 0).then_some(now)
    });
    assert!(still.is_some_and(|count| count < 5000), "{still:?}");
    assert!(resident_bytes(running.id()) < 64 << 20);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    feeding.join().unwrap();
    running.wait().assert_status(0);
    assert!(
        format!("{first}\n{rest}") == input,
        "all of it in its order"
    );
}

#[test]
fn what_is_indexed_and_not_passed_on_at_the_end_is_counted() {
    let service = FakeService::start();
    let workdir = Workdir::new();
    let mut running = sink(&workdir, &service.url())
        .args(["--pass", "--batch-records=100"])
        .start();
    let (mut stdin, stdout) = (running.stdin.take().unwrap(), running.stdout.take());
    // Nobody reads the output, and the input is far longer than its pipe.
    let text = requests(0..10_000).join("\n") + "\n";
    let feeding = thread::spawn(move || stdin.write_all(text.as_bytes()));
    eventually(|| (service.ids().len() > 500).then_some(())).unwrap();
    thread::sleep(std::time::Duration::from_millis(200));
    running.signal(Signal::TERM);
    let finished = running.wait();
    drop(stdout);
    assert!(feeding.join().unwrap().is_err(), "the rest was not read");
    finished.assert_status(143);
    let said = &finished.stderr;
    assert!(
        said.contains(" records were indexed and not passed on"),
        "{finished}"
    );
    let [read, indexed, rejected, passed] =
        ["in", "indexed", "rejected", "passed"].map(|name| stat(&workdir, "stats.json", name));
    assert_eq!(read, indexed + rejected);
    assert!(passed < indexed);
}
