//! The ends of a bridge, and what it says about wrong settings.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::broker::{Broker, Running, bridge, counted, requests};
use crate::harness::Workdir;

/// Runs a command to its end. Returns its status, stdout and stderr.
fn finished(mut command: Command) -> (i32, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let status = output.status.code().unwrap_or(-1);
    (status, text(output.stdout), text(output.stderr))
}

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn check_says_in_words_what_the_bridge_would_do_and_changes_nothing() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    broker.publish(&workdir, "checked", &requests("c", 0..3));
    let from = format!("{}?group=looker&from=earliest", broker.topic("checked"));
    let to = broker.topic("checked");
    let args = ["check", "--from", &from, "--to", &to, "--", "rv-decoy"];
    for _ in 0..2 {
        let (status, said, errors) = finished(bridge(&workdir, &args));
        assert_eq!(status, 0, "{errors}");
        for part in [
            "group looker",
            "begins with the oldest message",
            "acknowledges a message when its output is stored",
            "program: rv-decoy",
        ] {
            assert!(said.contains(part), "{part} is missing:\n{said}");
        }
    }
    let running = Running::start(bridge(
        &workdir,
        &["--from", &from, "--to", &broker.topic("checked-out")],
    ));
    let lines = broker.read(&workdir, "checked-out", 3);
    assert_eq!(
        counted(&lines, "messageId").len(),
        3,
        "the check has read nothing"
    );
    assert_eq!(running.end(), 0);
}

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn a_missing_topic_is_named_with_its_remedy() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    let (address, remedy) = match broker.kind.as_str() {
        "nats" => (
            broker.topic("x").replace("/RV/RV.x", "/NONE/none.x"),
            "nats stream add NONE",
        ),
        "kafka" => (broker.topic("nowhere"), "kafka-topics.sh --create"),
        // Pulsar makes a missing topic, but no missing namespace.
        _ => (
            broker.topic("x").replace("/default/", "/nowhere/"),
            "nowhere",
        ),
    };
    let mut check = bridge(&workdir, &["check", "--from"]);
    check
        .arg(format!("{address}?group=x"))
        .args(["--", "rv-decoy"]);
    let (status, _, said) = finished(check);
    assert!(status == 3 && said.contains(remedy), "{status}: {said}");
    let mut run = bridge(&workdir, &["--from"]);
    run.arg(format!("{address}?group=x"))
        .args(["--", "rv-decoy"]);
    let (status, _, said) = finished(run);
    assert!(status == 3 && said.contains(remedy), "{status}: {said}");
}

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn a_broker_that_is_away_is_waited_for() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    broker.kill();
    let mut command = bridge(&workdir, &["--to", &broker.topic("waited")]);
    let mut running = Running::start({
        command.stdin(Stdio::piped());
        command
    });
    let mut stdin = running.0.stdin.take().unwrap();
    stdin.write_all(requests("z", 0..10).as_bytes()).unwrap();
    drop(stdin);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(running.0.try_wait().unwrap().is_none(), "it did not wait");
    broker.start();
    assert_eq!(running.wait(), 0);
    let ids = counted(&broker.read(&workdir, "waited", 10), "messageId");
    assert_eq!(ids.len(), 10);
}

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn the_status_of_the_program_is_that_of_the_bridge() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    broker.publish(&workdir, "status", &requests("e", 0..2));
    let from = format!("{}?group=x&from=earliest", broker.topic("status"));
    let program = |words: &[&str]| {
        let mut command = bridge(
            &workdir,
            &["--from", &from, "--to", &broker.topic("status-out")],
        );
        command.arg("--").args(words);
        finished(command)
    };
    assert_eq!(program(&["rv-score", "--no-such-flag"]).0, 2);
    assert_eq!(program(&["sh", "-c", "exit 41"]).0, 41);
    let (status, _, said) = program(&["no-such-program"]);
    assert!(
        status == 3 && said.contains("cannot start no-such-program"),
        "{said}"
    );
    assert_eq!(program(&["true"]).0, 0);
}

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn a_record_over_the_limit_of_the_broker_is_set_aside() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    let long = format!(
        "{{\"messageId\":\"long\",\"x\":\"{}\"}}\n",
        "y".repeat(6_000_000)
    );
    let lines = requests("l", 0..1) + &long + &requests("l", 1..2);
    workdir.write("lines", lines);
    let mut command = bridge(
        &workdir,
        &[
            "--to",
            &broker.topic("limit"),
            "--rejects-to",
            &broker.topic("limit-rejects"),
        ],
    );
    command.stdin(std::fs::File::open(workdir.path("lines")).unwrap());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    // The record does not fit in the topic of rejects either, so the bridge says so and
    // ends. With a file, the record is kept.
    assert_eq!(output.status.code(), Some(3), "{said}");
    let mut command = bridge(
        &workdir,
        &["--to", &broker.topic("limit2"), "--rejects", "rejects"],
    );
    command.stdin(std::fs::File::open(workdir.path("lines")).unwrap());
    assert_eq!(command.output().unwrap().status.code(), Some(1));
    assert!(workdir.read("rejects").contains("\"messageId\\\":\\\"long"));
    let ids = counted(&broker.read(&workdir, "limit2", 2), "messageId");
    assert_eq!(ids.len(), 2);
}
