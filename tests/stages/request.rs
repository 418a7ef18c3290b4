//! rv-request without HTTP: model inputs -> requests.

use std::io::{BufRead, Read, Write};
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{
    Running, Workdir, eventually, json, next_line, now, open_reader, open_writer, read_line, stat,
};

#[test]
fn a_line_becomes_a_request() {
    let workdir = Workdir::new();
    let run = workdir.run("rv-request");
    let before = now();
    let finished = run.input("{\"a\":1.10}\n[1]\n\"x\"\n").succeeds();
    let lines = finished.lines();
    assert_eq!(lines.len(), 3);
    let mut ids = std::collections::BTreeSet::new();
    for (line, input) in lines.iter().zip(["{\"a\":1.10}", "[1]", "\"x\""]) {
        let request = json(line);
        assert!(ids.insert(request["messageId"].as_str().unwrap().to_owned()));
        let timestamp = request["timestamp"].as_f64().unwrap();
        assert!((before - 0.001..=now() + 0.001).contains(&timestamp));
        assert!(
            line.ends_with(&format!("\"modelInput\":{input}}}")),
            "{line}"
        );
    }
}

#[test]
fn the_output_can_be_the_same_every_time() {
    let workdir = Workdir::new();
    let run = workdir
        .run("rv-request")
        .args(["--clock", "fixed:1644370787.021771"]);
    let run = run.args([
        "--ids",
        "seq:r-",
        "--return-address",
        "here",
        "--score-topic",
        "score",
    ]);
    assert_eq!(
        run.input("{}").succeeds().stdout(),
        "{\"messageId\":\"r-1\",\"timestamp\":1644370787.021771,\"modelInput\":{},\"returnAddress\":\"here\",\"scoreTopic\":\"score\"}\n"
    );
}

#[test]
fn fields_that_have_to_be_numbers_are_checked() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let whole = r#"{"sepalLength":1,"sepalWidth":1,"petalLength":1,"petalWidth":2}"#;
    let input = format!("{whole}\n{{\"petalWidth\":1}}\n");
    for flags in [
        ["--fields", "petalWidth,petalLength"],
        ["--model", "dt.json"],
    ] {
        let finished = workdir.run("rv-request").args(flags).input(&input).exits(1);
        assert_eq!(finished.lines().len(), 1, "{finished}");
        assert!(finished.stderr.contains("is missing"), "{finished}");
    }
}

#[test]
fn sigint_ends_a_source() {
    let workdir = Workdir::new();
    let mut running = workdir.run("rv-request").start();
    running.write("{}\n");
    running.line();
    running.signal(Signal::INT);
    running.wait().assert_status(0);
}

/// A response to `request`.
fn response(request: &str) -> String {
    let id = &json(request)["messageId"];
    format!("{{\"messageId\":{id},\"modelResult\":{{\"modelName\":\"m\",\"result\":1}}}}")
}

#[test]
fn no_more_than_so_many_requests_are_unanswered() {
    let workdir = Workdir::new();
    workdir.fifo("requests");
    workdir.fifo("responses");
    let input: String = (0..5)
        .map(|number| format!("{{\"n\":{number}}}\n"))
        .collect();
    let run = workdir
        .run("rv-request")
        .args(["-o", "requests", "--responses", "responses"]);
    let run = run.args([
        "--max-in-flight",
        "2",
        "--answers",
        "-",
        "--stats",
        "stats.json",
    ]);
    let mut running = run.start();
    running.write(input);
    drop(running.stdin.take());
    let mut requests = open_reader(&workdir.path("requests"));
    let mut responses = open_writer(&workdir.path("responses"));
    let mut open = vec![next_line(&mut requests), next_line(&mut requests)];
    let fd = requests.get_ref();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(
        rustix::io::ioctl_fionread(fd).unwrap(),
        0,
        "a third one came"
    );
    for number in 0..5 {
        // The later request is answered first, because the order of answers is free.
        let request = open.pop().unwrap();
        writeln!(responses, "{}", response(&request)).unwrap();
        assert_eq!(running.line(), response(&request));
        if number < 3 {
            open.push(next_line(&mut requests));
        }
    }
    running.wait().assert_status(0);
    assert_eq!(stat(&workdir, "stats.json", "answered"), 5);
}

#[test]
fn a_response_that_does_not_come_is_given_up() {
    let workdir = Workdir::new();
    workdir.fifo("responses");
    let run = workdir
        .run("rv-request")
        .args(["--responses", "responses", "--timeout", "50ms"]);
    let run = run.args(["--rejects", "rejects"]);
    let running = run.args(["--stats", "stats.json"]).start();
    let responses = open_writer(&workdir.path("responses"));
    let mut running = running;
    running.write("{\"n\":1}\n{\"n\":2}\n");
    drop(running.stdin.take());
    let finished = running.wait();
    finished.assert_status(1);
    assert!(
        finished.stderr.contains("2 requests had no response"),
        "{finished}"
    );
    drop(responses);
    // Both inputs are in the file of rejects, so they can be sent again.
    let rejects = workdir.read("rejects");
    let rejects: Vec<_> = rejects.lines().map(json).collect();
    assert_eq!(rejects.len(), 2);
    for (reject, (line, raw)) in rejects.iter().zip([(1, "{\"n\":1}"), (2, "{\"n\":2}")]) {
        assert_eq!(
            (&reject["line"], &reject["raw"]),
            (&line.into(), &raw.into())
        );
        let reason = reject["reason"].as_str().unwrap();
        assert!(reason.contains("--timeout"), "{reason}");
    }
    assert_eq!(stat(&workdir, "stats.json", "unanswered"), 2);
    assert_eq!(stat(&workdir, "stats.json", "rejected"), 2);
}

#[test]
fn responses_that_end_too_early_are_a_failure() {
    let workdir = Workdir::new();
    workdir.fifo("responses");
    let run = workdir.run("rv-request").args(["--responses", "responses"]);
    let run = run.args(["--max-in-flight", "1", "--rejects", "rejects"]);
    let mut running = run.args(["--stats", "stats.json"]).start();
    let responses = open_writer(&workdir.path("responses"));
    running.write("1\n2\n3");
    running.line();
    drop(running.stdin.take());
    drop(responses);
    let finished = running.wait();
    finished.assert_status(3);
    // All unanswered inputs are rejected, whether they were sent or not.
    let rejects = workdir.read("rejects");
    let raw: Vec<_> = rejects
        .lines()
        .map(|line| json(line)["raw"].clone())
        .collect();
    assert_eq!(raw, ["1", "2", "3"]);
    assert_eq!(stat(&workdir, "stats.json", "in"), 3);
    assert_eq!(stat(&workdir, "stats.json", "rejected"), 3);
    assert!(
        finished.stderr.contains("ended while 1 requests"),
        "{finished}"
    );
}

/// A closed loop over the pipes `inputs`, `requests` and `responses`; its answers
/// go to stdout.
fn closed_loop(flags: &[&str]) -> (Workdir, Running) {
    let workdir = Workdir::new();
    for pipe in ["inputs", "requests", "responses"] {
        workdir.fifo(pipe);
    }
    let run = workdir.run("rv-request").args(["-i", "inputs"]);
    let run = run.args(["-o", "requests", "--responses", "responses"]);
    let run = run.args(["--answers", "-", "--rejects", "rejects"]);
    let running = run.args(["--stats", "stats.json"]).args(flags).start();
    (workdir, running)
}

/// Starts a pipeline that answers each request of a closed loop. Returns the ids of the
/// requests at the end.
fn answer_each(workdir: &Workdir) -> std::thread::JoinHandle<Vec<String>> {
    let (requests, responses) = (workdir.path("requests"), workdir.path("responses"));
    std::thread::spawn(move || {
        let requests = open_reader(&requests);
        let mut responses = open_writer(&responses);
        let mut ids = Vec::new();
        for request in requests.lines() {
            let request = request.unwrap();
            ids.push(json(&request)["messageId"].as_str().unwrap().to_owned());
            writeln!(responses, "{}", response(&request)).unwrap();
        }
        ids
    })
}

/// Checks the counts of a closed loop that has ended: each input is answered or
/// rejected.
fn assert_balanced(workdir: &Workdir, read: u64, answered: u64, repeated: u64) {
    let of = |name| stat(workdir, "stats.json", name);
    assert_eq!((of("in"), of("answered")), (read, answered));
    assert_eq!(of("rejected"), read - answered);
    assert_eq!(of("repeated"), repeated);
    let rejects = workdir.read("rejects");
    assert_eq!(rejects.lines().count() as u64, read - answered);
}

#[test]
fn an_id_that_came_before_is_set_aside_while_the_first_is_open() {
    let (workdir, mut running) = closed_loop(&["--id", "/id"]);
    let mut inputs = open_writer(&workdir.path("inputs"));
    let mut requests = open_reader(&workdir.path("requests"));
    let mut responses = open_writer(&workdir.path("responses"));
    write!(
        inputs,
        "{{\"id\":\"a\"}}\n{{\"id\":\"a\",\"n\":2}}\n{{\"id\":\"b\"}}\n"
    )
    .unwrap();
    let first = next_line(&mut requests);
    let second = next_line(&mut requests);
    assert_eq!(json(&second)["messageId"], "b");
    for request in [&first, &second] {
        writeln!(responses, "{}", response(request)).unwrap();
        assert_eq!(running.line(), response(request));
    }
    // The id is also refused after the first request was answered.
    writeln!(inputs, "{{\"id\":\"a\",\"n\":4}}").unwrap();
    drop(inputs);
    let finished = running.wait();
    finished.assert_status(1);
    for line in [2, 4] {
        let place = format!("inputs:{line}: the id \"a\" has occurred before");
        assert!(finished.stderr.contains(&place), "{finished}");
    }
    let rejects = workdir.read("rejects");
    let reject = json(rejects.lines().next().unwrap());
    assert_eq!(
        (&reject["line"], &reject["offset"]),
        (&2.into(), &11.into())
    );
    assert_eq!(reject["raw"], "{\"id\":\"a\",\"n\":2}");
    assert_balanced(&workdir, 4, 2, 2);
}

#[test]
fn an_id_that_came_before_is_set_aside_in_a_long_file() {
    const IDS: usize = 20_000;
    for (in_flight, flags) in [("1024", &[][..]), ("1", &[]), ("8", &["--strict"])] {
        let workdir = Workdir::new();
        workdir.fifo("requests");
        workdir.fifo("responses");
        let ids = if in_flight == "1024" { IDS } else { 200 };
        let input: String = (0..2 * ids)
            .map(|number| format!("{{\"id\":{},\"n\":{number}}}\n", number % ids))
            .collect();
        workdir.write("inputs", input);
        let run = workdir
            .run("rv-request")
            .args(["-i", "inputs", "--id", "/id"]);
        let run = run.args(["-o", "requests", "--responses", "responses"]);
        let run = run.args(["--answers", "answers", "--rejects", "rejects"]);
        let run = run.args(["--stats", "stats.json", "--max-in-flight", in_flight]);
        let running = run.args(flags).start();
        let sent = answer_each(&workdir);
        let finished = running.wait();
        let sent = sent.join().unwrap();
        if flags.contains(&"--strict") {
            finished.assert_status(3);
            let said = format!("inputs:{}: the id \"0\" has occurred before", ids + 1);
            assert!(finished.stderr.contains(&said), "{finished}");
            continue;
        }
        finished.assert_status(1);
        assert_eq!(sent.len(), ids, "{finished}");
        assert_eq!(workdir.read("answers").lines().count(), ids);
        assert_balanced(&workdir, 2 * ids as u64, ids as u64, ids as u64);
    }
}

#[test]
fn so_many_ids_are_remembered_and_no_more_than_twice_as_many() {
    let workdir = Workdir::new();
    workdir.fifo("requests");
    workdir.fifo("responses");
    // The id 401 is among the last 100 ids. The id 100 is not among the last 200.
    let mut input: String = (0..500).map(|number| format!("{number}\n")).collect();
    input += "401\n100\n";
    let input: String = input
        .lines()
        .map(|id| format!("{{\"id\":{id}}}\n"))
        .collect();
    let run = workdir
        .run("rv-request")
        .args(["--id", "/id", "--remember-ids", "100"]);
    let run = run.args(["-o", "requests", "--responses", "responses"]);
    let run = run.args(["--rejects", "rejects", "--stats", "stats.json"]);
    let mut running = run.args(["--max-in-flight", "1"]).start();
    running.write(&input);
    drop(running.stdin.take());
    let sent = answer_each(&workdir);
    running.wait().assert_status(1);
    assert_eq!(sent.join().unwrap().last().unwrap(), "100");
    assert_balanced(&workdir, 502, 501, 1);
}

/// Sends SIGTERM, and returns when the program has noticed.
fn terminate(running: &Running) {
    running.signal(Signal::TERM);
    // The program checks for SIGTERM and prints its counts in one step.
    running.signal(Signal::USR1);
    running.says("\"in\":");
}

#[test]
fn sigterm_reads_to_the_end_of_a_line_begun_while_answers_come() {
    let (workdir, mut running) = closed_loop(&[]);
    let mut inputs = open_writer(&workdir.path("inputs"));
    let mut requests = open_reader(&workdir.path("requests"));
    let mut responses = open_writer(&workdir.path("responses"));
    // A second reader keeps the unread bytes in the pipe.
    let mut rest = std::fs::File::options()
        .read(true)
        .write(true)
        .open(workdir.path("inputs"))
        .unwrap();
    write!(inputs, "{{\"n\":1}}\n{{\"n\"").unwrap();
    let first = next_line(&mut requests);
    let emptied = || rustix::io::ioctl_fionread(&rest).unwrap() == 0;
    assert!(eventually(|| emptied().then_some(())).is_some());
    terminate(&running);
    writeln!(responses, "{}", response(&first)).unwrap();
    assert_eq!(running.line(), response(&first));
    write!(inputs, ":2}}\n{{\"n\":3}}\n").unwrap();
    let second = next_line(&mut requests);
    assert_eq!(json(&second)["modelInput"]["n"], 2);
    writeln!(responses, "{}", response(&second)).unwrap();
    running.wait().assert_status(0);
    assert_eq!(read_line(&mut rest), "{\"n\":3}");
    assert_eq!(stat(&workdir, "stats.json", "answered"), 2);
}

#[test]
fn a_line_whose_end_does_not_come_is_set_aside() {
    let (workdir, running) = closed_loop(&["--grace", "200ms"]);
    let mut inputs = open_writer(&workdir.path("inputs"));
    let mut requests = open_reader(&workdir.path("requests"));
    let _responses = open_writer(&workdir.path("responses"));
    write!(inputs, "1").unwrap();
    let emptied = || rustix::io::ioctl_fionread(&inputs).unwrap() == 0;
    assert!(eventually(|| emptied().then_some(())).is_some());
    terminate(&running);
    running.wait().assert_status(143);
    let mut sent = String::new();
    requests.read_to_string(&mut sent).unwrap();
    assert_eq!(sent, "");
    let reject = json(workdir.read("rejects").trim_end());
    assert_eq!(reject["raw"], "1");
    let reason = reject["reason"].as_str().unwrap();
    assert!(reason.contains("--grace"), "{reason}");
    assert_eq!(stat(&workdir, "stats.json", "in"), 1);
    assert_eq!(stat(&workdir, "stats.json", "rejected"), 1);
}

#[test]
fn answers_that_are_waiting_to_be_read_are_in_time() {
    let (workdir, mut running) = closed_loop(&["--timeout", "1s"]);
    let mut inputs = open_writer(&workdir.path("inputs"));
    let mut requests = open_reader(&workdir.path("requests"));
    let mut responses = open_writer(&workdir.path("responses"));
    write!(inputs, "1\n2\n3\n").unwrap();
    let sent: Vec<_> = (0..3).map(|_| next_line(&mut requests)).collect();
    running.signal(Signal::STOP);
    // The pipe must hold more than one read returns.
    rustix::pipe::fcntl_setpipe_size(&responses, 1 << 18).unwrap();
    for request in &sent {
        writeln!(responses, "{}{}", " ".repeat(60_000), response(request)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(1100));
    running.signal(Signal::CONT);
    drop(inputs);
    for request in &sent {
        assert!(running.line().ends_with(&response(request)));
    }
    running.wait().assert_status(0);
}

#[test]
fn the_time_for_which_nobody_takes_the_answers_is_not_the_pipelines() {
    let (workdir, mut running) = closed_loop(&["--timeout", "1s"]);
    let mut inputs = open_writer(&workdir.path("inputs"));
    let mut requests = open_reader(&workdir.path("requests"));
    let mut responses = open_writer(&workdir.path("responses"));
    write!(inputs, "1\n2\n").unwrap();
    drop(inputs);
    let sent: Vec<_> = (0..2).map(|_| next_line(&mut requests)).collect();
    // This response is longer than the pipe of the answers.
    let long = format!("{}{}", " ".repeat(200_000), response(&sent[0]));
    writeln!(responses, "{long}").unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(running.line(), long);
    writeln!(responses, "{}", response(&sent[1])).unwrap();
    assert_eq!(running.line(), response(&sent[1]));
    running.wait().assert_status(0);
}

#[test]
fn with_follow_another_may_go_on_with_the_responses() {
    let (workdir, mut running) = closed_loop(&["--follow"]);
    let mut inputs = open_writer(&workdir.path("inputs"));
    let mut requests = open_reader(&workdir.path("requests"));
    write!(inputs, "1\n2\n").unwrap();
    for _ in 0..2 {
        let request = next_line(&mut requests);
        let mut responses = open_writer(&workdir.path("responses"));
        writeln!(responses, "{}", response(&request)).unwrap();
        drop(responses);
        assert_eq!(running.line(), response(&request));
    }
    running.signal(Signal::TERM);
    running.wait().assert_status(0);
}

#[test]
fn flags_and_streams_that_make_no_sense_are_refused() {
    let workdir = Workdir::new();
    workdir.fifo("responses");
    for (flags, said) in [
        (
            &["--id", "/id", "--ids", "seq:x"][..],
            "cannot be used with",
        ),
        (
            &["--responses", "responses", "-o", "requests"],
            "mkfifo requests",
        ),
    ] {
        let finished = workdir.run("rv-request").args(flags).exits(2);
        assert!(finished.stderr.contains(said), "{finished}");
    }
}
