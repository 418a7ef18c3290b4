//! Every program ends within the grace period after a signal to stop, whatever it does.
//! A table lists programs and subcommands that work for a long time or wait forever.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::es::FakeService;
use crate::harness::{
    Finished, Run, Running, Workdir, eventually, open_writer, processor_ticks, request, stat,
};

/// The `--grace` of the programs in the table.
const GRACE: Duration = Duration::from_secs(1);

/// The time that a program may need after the grace period: for its last message, and
/// on a busy machine.
const LATE: Duration = Duration::from_secs(6);

/// What a program does when the signal arrives.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// Works without a pause.
    Work,
    /// Waits, and uses no processor.
    Wait,
}

use At::{Wait, Work};

/// What the program does, its command line, and its exit status after SIGTERM.
/// `prepare` makes the files for the command lines.
type Row = (At, &'static str, i32);

/// `nobody` is a pipe that nobody opens at the other end. `endless.gz` and similar
/// files hold more data than a test can read. `huge.json` is a model that takes long to
/// load.
const TABLE: &[Row] = &[
    // These programs open a pipe that nobody opens at the other end.
    (Wait, "rv-score --model nobody", 143),
    (Wait, "rv-score --model dt.json -i nobody", 0),
    (Wait, "rv-score --model dt.json -i one -o nobody", 143),
    (Wait, "rv-score --model dt.json -i nobody -o nobody2", 143),
    (
        Wait,
        "rv-score train --input nobody --output m.json TRAIN",
        143,
    ),
    (
        Wait,
        "rv-score train --input one --labels nobody --output m.json TRAIN",
        143,
    ),
    (
        Wait,
        "rv-score train --input iris.csv --output nobody TRAIN",
        143,
    ),
    (Wait, "rv-score inspect nobody", 143),
    (Wait, "rv-score eval --model dt.json --data nobody", 143),
    (Wait, "rv-request -i nobody", 0),
    (
        Wait,
        "rv-request -i nobody -o nobody2 --responses nobody3 --answers nobody4",
        143,
    ),
    (Wait, "rv-request --model nobody -i one", 143),
    (
        Wait,
        "rv-request --listen 127.0.0.1:0 --responses nobody -o nobody2",
        0,
    ),
    (
        Wait,
        "rv-request --listen 127.0.0.1:0 --token-file nobody --responses nobody2 -o nobody3",
        143,
    ),
    (Wait, "rv-tee -i nobody", 0),
    (Wait, "rv-tee -i one --no-stdout nobody", 143),
    (Wait, "rv-decoy -i nobody", 0),
    (Wait, "rv-decoy -i one -o nobody", 143),
    (Wait, "rv-rendezvous check nobody", 143),
    (Wait, "rv-rendezvous explain r-1 nobody", 143),
    (
        Wait,
        "rv-rendezvous --requests nobody --scores nobody2 --policy nobody3",
        143,
    ),
    (
        Wait,
        "rv-rendezvous --requests nobody --scores nobody2 -o nobody3 --decisions nobody4 POLICY",
        143,
    ),
    (
        Wait,
        "rv-rendezvous --requests nobody --scores nobody2 POLICY",
        0,
    ),
    (Wait, "rv-rendezvous --replay -i nobody POLICY", 143),
    (
        Wait,
        "rv-rendezvous --replay --requests nobody --scores one POLICY",
        143,
    ),
    (
        Wait,
        "rv-rendezvous --replay --requests one --scores one -o nobody POLICY",
        143,
    ),
    (Wait, "rv-archive --dir logs -i nobody", 0),
    (Wait, "rv-es-sink --url URL --index i -i nobody", 0),
    (
        Wait,
        "rv-es-sink --url URL --index i --api-key-file nobody",
        143,
    ),
    // These programs call a service that never answers.
    (Wait, "rv-es-sink --url SILENT --index i -i nobody", 143),
    (Wait, "rv-es-sink setup --url SILENT", 143),
    // These programs work for a long time.
    (
        Work,
        "rv-score train --input endless.csv.gz --output m.json TRAIN",
        143,
    ),
    (
        Work,
        "rv-score train --input endless.ndjson.gz --output m.json TRAIN",
        143,
    ),
    (
        Work,
        "rv-score train --input endless.gz --labels labels.csv --output m.json TRAIN",
        143,
    ),
    (
        Work,
        "rv-score train --input one --labels endless-labels.csv.gz --output m.json TRAIN",
        143,
    ),
    (
        Work,
        "rv-score train --input noise.csv --output m.json NOISE decision-tree",
        143,
    ),
    (
        Work,
        "rv-score train --input noise.csv --output m.json NOISE linfa-tree",
        143,
    ),
    (
        Work,
        "rv-score train --input noise.csv --output m.json NOISE logistic-regression --max-iterations 1000000",
        143,
    ),
    (
        Work,
        "rv-score train --input noise.csv --output m.json NOISE random-forest --trees 10000",
        143,
    ),
    (Work, "rv-score inspect huge.json", 143),
    (
        Work,
        "rv-score eval --model dt.json --data endless.gz --labels labels.csv",
        143,
    ),
    (Work, "rv-score --model huge.json -i one", 143),
    (Work, "rv-request --model huge.json -i one", 143),
    (Work, "rv-score --model dt.json --warm-up endless.gz", 143),
    (
        Work,
        "rv-score --model dt.json --rescore -i endless.gz -o /dev/null",
        143,
    ),
    (
        Work,
        "rv-score --model dt.json --rescore --threads 2 -i endless.gz -o /dev/null",
        143,
    ),
    (Work, "rv-request -i endless.gz -o /dev/null", 143),
    (Work, "rv-decoy -i endless.gz -o /dev/null", 143),
    (Work, "rv-tee -i endless.gz --no-stdout out", 143),
    (Work, "rv-rendezvous check huge.toml", 143),
    (Work, "rv-rendezvous explain r-2 endless.gz", 143),
    (
        Work,
        "rv-rendezvous --replay -i endless-decisions.gz -o /dev/null POLICY",
        143,
    ),
    (
        Work,
        "rv-rendezvous --replay --requests endless.gz --scores one -o /dev/null POLICY",
        143,
    ),
];

const TRAIN: &str = "--target target --algorithm decision-tree --name m --model-version 1 \
                     --features sepalLength,sepalWidth,petalLength,petalWidth";

/// Makes the files for all rows of the table.
fn prepare(workdir: &Workdir) {
    workdir.train("decision-tree", "dt", 1);
    for pipe in ["nobody", "nobody2", "nobody3", "nobody4"] {
        workdir.fifo(pipe);
    }
    let one = request("r-1");
    workdir.write("one", format!("{one}\n"));
    let iris = fs::read(crate::harness::checkout().join("fixtures/iris.csv")).unwrap();
    workdir.write("iris.csv", &iris);
    // A decision in which the default is the answer.
    let decision = r#"{"messageId":"r","timestamp":1.5,"modelInput":{},"modelResult":null,"provenance":{"rendezvous":{"reason":"default","answeredAfter":9.000,"policyHash":"00ff"}},"candidates":[]}"#;
    for (name, head, row) in [
        ("endless.gz", "", one.as_str()),
        ("endless-decisions.gz", "", decision),
        (
            "endless.csv.gz",
            "sepalLength,sepalWidth,petalLength,petalWidth,target\n",
            "1,2,3,4,a",
        ),
        (
            "endless.ndjson.gz",
            "",
            r#"{"sepalLength":1,"sepalWidth":2,"petalLength":3,"petalWidth":4,"target":"a"}"#,
        ),
        ("endless-labels.csv.gz", "messageId,target\n", "r-1,a"),
    ] {
        workdir.write("head", head);
        workdir.write("rows", format!("{row}\n").repeat(100_000));
        let script = "gzip -1 < rows > rows.gz; gzip < head > \"$0\"
            for _ in {1..400}; do cat rows.gz; done >> \"$0\"";
        workdir.shell(script).arg(name).succeeds();
    }
    workdir.write("labels.csv", "messageId,target\nr-1,a\n");
    workdir.write(
        "huge.toml",
        "# nothing but words\n".repeat(5_000_000) + "deadline_ms = 1\n",
    );
    let model = workdir.read("dt.json");
    let huge = format!("{{{}{}", " ".repeat(200_000_000), &model[1..]);
    workdir.write("huge.json", huge);
    workdir.write("noise.csv", noise());
}

/// Random rows, on which training takes long.
fn noise() -> String {
    let mut state = 1u64;
    let mut next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 40
    };
    let mut text = (0..30).map(|it| format!("f{it},")).collect::<String>() + "target\n";
    for _ in 0..6_000 {
        for _ in 0..30 {
            text += &format!("{},", next());
        }
        text += &format!("c{}\n", next() % 100);
    }
    text
}

/// The command of a row.
fn run(workdir: &Workdir, command: &str, grace: &str) -> Run {
    let command = command
        .replace("TRAIN", TRAIN)
        .replace(
            "NOISE",
            "--target target --name m --model-version 1 --algorithm",
        )
        .replace("POLICY", "--prefer dt@1 --deadline 100ms");
    let mut words = command.split_whitespace();
    let run = workdir.run(words.next().unwrap());
    run.args(words).args(["--grace", grace])
}

/// Waits until the program handles signals, and works or waits.
fn reach(id: u32, at: At) {
    let hears = || {
        let tasks = fs::read_dir(format!("/proc/{id}/task")).ok()?;
        let names = tasks.filter_map(|it| fs::read_to_string(it.ok()?.path().join("comm")).ok());
        { names }.any(|it| it == "watchdog\n").then_some(())
    };
    assert!(eventually(hears).is_some(), "no signal is heard");
    let is_there = || match at {
        Work => (processor_ticks(id) >= 60).then_some(()),
        Wait => {
            let before = processor_ticks(id);
            std::thread::sleep(Duration::from_millis(200));
            (processor_ticks(id) == before).then_some(())
        }
    };
    assert!(eventually(is_there).is_some());
}

fn wait_at_most(running: Running, most: Duration) -> (Finished, Duration) {
    let since = Instant::now();
    let finished = running.wait();
    let took = since.elapsed();
    assert!(took <= most, "{took:?}: {finished}");
    (finished, took)
}

#[test]
fn sigterm_ends_every_program_within_the_grace_whatever_it_is_at() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let service = FakeService::start();
    let workdir = Workdir::new();
    prepare(&workdir);
    for (at, command, status) in TABLE {
        let command = command.replace("SILENT", &silent);
        let command = command.replace("URL", &service.url());
        let running = run(&workdir, &command, "1s").start();
        reach(running.id(), *at);
        running.signal(Signal::TERM);
        // A supervisor may send SIGTERM several times. Only the first one has an
        // effect.
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(20));
            let pid = rustix::process::Pid::from_raw(running.id() as i32).unwrap();
            // The program may have ended already.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let (finished, took) = wait_at_most(running, GRACE + LATE);
        println!("{took:?} {command}");
        finished.assert_status(*status);
        // There must be no incomplete model file.
        assert!(!fs::exists(workdir.path("m.json")).unwrap(), "{command}");
        assert!(
            !fs::exists(workdir.path("m.json.new")).unwrap(),
            "{command}"
        );
        let _ = fs::remove_dir_all(workdir.path("logs"));
        let _ = fs::remove_file(workdir.path("out"));
    }
}

#[test]
fn what_holds_nothing_ends_at_once() {
    let workdir = Workdir::new();
    workdir.fifo("nobody");
    workdir.write("noise.csv", noise());
    for (at, command) in [
        (Wait, "rv-score --model nobody"),
        (Wait, "rv-rendezvous check nobody"),
        (
            Work,
            "rv-score train --input noise.csv --output m.json NOISE linfa-tree",
        ),
    ] {
        for (signal, status, name) in [(Signal::TERM, 143, "SIGTERM"), (Signal::INT, 130, "SIGINT")]
        {
            let running = run(&workdir, command, "1h").start();
            reach(running.id(), at);
            running.signal(signal);
            let (finished, _) = wait_at_most(running, Duration::from_secs(3));
            finished.assert_status(status);
            let said = format!("cut short by {name}\n");
            assert!(finished.stderr.ends_with(&said), "{finished}");
        }
    }
}

#[test]
fn sigterm_ends_a_program_whose_disk_blocks() {
    let workdir = Workdir::new();
    let rows: String = (0..100_000)
        .map(|id| request(&format!("r-{id}")) + "\n")
        .collect();
    workdir.write("rows", rows);
    workdir.shell("gzip < rows > rows.gz").succeeds();
    workdir.shell("rv-archive --dir logs < rows").succeeds();
    let archived = workdir.shell("echo logs/log-*.gz").succeeds();
    for (input, file) in [("rows.gz", "rows.gz"), ("logs", archived.stdout().trim())] {
        // From the third read on, each read takes longer than the test.
        let script = "exec strace -f -qq -o trace -e trace=read \
             -e inject=read:delay_enter=100000000:when=3+ \"$@\"";
        let file = workdir.path(file);
        let run = workdir.shell(script).args(["strace", "-P", &file]);
        let run = run.args(["rv-decoy", "-i", input, "-o", "/dev/null"]);
        let running = run.args(["--grace", "1s"]).start();
        // The signal must go to the program, not to strace.
        let children = format!("/proc/{0}/task/{0}/children", running.id());
        let child = || {
            let child = fs::read_to_string(&children).ok()?.trim().to_owned();
            let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (name == "rv-decoy\n").then_some(child)
        };
        let child: u32 = eventually(child).unwrap().parse().unwrap();
        reach(child, Wait);
        let pid = rustix::process::Pid::from_raw(child as i32).unwrap();
        let since = Instant::now();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        running.says("cut short by SIGTERM: it could not finish in time");
        let took = since.elapsed();
        println!("{took:?} {input}");
        assert!(took <= GRACE + LATE, "{took:?}: {input}");
        // strace would keep the ended program until its read returns.
        running.signal(Signal::KILL);
        running.wait();
    }
}

/// A stage that waits for the end of a line.
fn inside_a_line(workdir: &Workdir, flags: &[&str]) -> (Running, fs::File) {
    let pipe = workdir.fifo("pipe");
    let run = workdir.run("rv-decoy").args(["-i", "pipe"]);
    let run = run.args(["--rejects", "rejects", "--stats", "stats.json"]);
    let running = run.args(flags).start();
    let mut writer = open_writer(&pipe);
    writer.write_all(b"begun").unwrap();
    let emptied = || (rustix::io::ioctl_fionread(&writer).unwrap() == 0).then_some(());
    assert!(eventually(emptied).is_some());
    (running, writer)
}

#[test]
fn a_second_sigint_ends_the_grace_and_what_is_held_is_set_aside() {
    let workdir = Workdir::new();
    let (running, _writer) = inside_a_line(&workdir, &["--grace", "1h"]);
    running.signal(Signal::TERM);
    running.signal(Signal::TERM);
    running.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(300));
    assert!(fs::exists(format!("/proc/{}/fd", running.id())).unwrap());
    assert_eq!(workdir.read("rejects"), "");
    running.signal(Signal::INT);
    let (finished, _) = wait_at_most(running, Duration::from_secs(3));
    finished.assert_status(130);
    let reject = crate::harness::json(workdir.read("rejects").trim_end());
    assert_eq!(reject["raw"], "begun");
    assert_eq!(stat(&workdir, "stats.json", "rejected"), 1);
}

#[test]
fn sigterm_after_sigint_ends_a_stage_that_drains() {
    let workdir = Workdir::new();
    let (running, mut writer) = inside_a_line(&workdir, &["--grace", "1h"]);
    running.signal(Signal::INT);
    writer.write_all(b" and ended\nnext").unwrap();
    let emptied = || (rustix::io::ioctl_fionread(&writer).unwrap() == 0).then_some(());
    assert!(eventually(emptied).is_some(), "SIGINT stops its reading");
    running.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(100));
    writer.write_all(b" line\nnot read\n").unwrap();
    let (finished, _) = wait_at_most(running, Duration::from_secs(3));
    finished.assert_status(0);
    assert_eq!(finished.stdout(), "begun and ended\nnext line\n");
}

#[test]
fn a_program_whose_stderr_nobody_reads_ends_too() {
    let workdir = Workdir::new();
    let path = workdir.fifo("stderr");
    let stuck = fs::File::options().read(true).write(true).open(path);
    let mut stuck = stuck.unwrap();
    rustix::fs::fcntl_setfl(
        &stuck,
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NONBLOCK,
    )
    .unwrap();
    while stuck.write(&[b'.'; 4096]).is_ok() {}
    let script = "exec rv-request --grace 1s 2> stderr";
    let mut running = workdir.shell(script).start();
    running.write("no JSON\n");
    std::thread::sleep(Duration::from_millis(300));
    running.signal(Signal::TERM);
    let (finished, _) = wait_at_most(running, Duration::from_secs(5));
    finished.assert_status(143);
    assert!(stuck.as_fd().try_clone_to_owned().is_ok());
}

#[test]
fn ten_thousand_hangups_cost_a_few_reloads_and_a_line_of_the_log() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let mut running = workdir.run("rv-score").args(["--model", "dt.json"]).start();
    running.write(request("r-0") + "\n");
    assert!(running.line().contains("r-0"));
    for number in 1..=10_000 {
        running.signal(Signal::HUP);
        if number % 1000 == 0 {
            let id = format!("r-{number}");
            running.write(request(&id) + "\n");
            assert!(running.line().contains(&id));
        }
    }
    running.says("loaded dt@1");
    // The last SIGHUP is not lost.
    workdir.train("linfa-tree", "dt", 1);
    running.signal(Signal::HUP);
    let two = || (running.said().matches("loaded dt@1").count() >= 2).then_some(());
    assert!(eventually(two).is_some(), "{}", running.said());
    drop(running.stdin.take());
    let finished = running.wait();
    finished.assert_status(0);
    assert_eq!(finished.stderr.matches("loaded").count(), 2, "{finished}");
}

#[test]
fn a_hangup_waits_for_nobody() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let mut running = workdir.run("rv-score").args(["--model", "dt.json"]).start();
    running.write(request("r-0") + "\n");
    assert!(running.line().contains("r-0"));
    fs::remove_file(workdir.path("dt.json")).unwrap();
    workdir.fifo("dt.json");
    running.signal(Signal::HUP);
    running.says("dt.json: is not a regular file, so it cannot be read again");
    running.write(request("r-1") + "\n");
    assert!(running.line().contains("r-1"));
}
