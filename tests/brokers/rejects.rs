//! Messages that cannot be worked on never stop a topic.

use crate::broker::{Broker, Running, bridge, counted, requests};
use crate::harness::Workdir;

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn what_is_no_record_and_what_the_program_rejects_go_to_the_topic_of_rejects() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    let model = workdir.train("decision-tree", "dt", 1);
    // From standard input, rv-bridge publishes only records. So what is no record goes
    // through a program that makes it.
    let bad = "{\"messageId\":\"no-timestamp\",\"modelInput\":{}}\n";
    let topic = |name: &str| broker.topic(&format!("bad-{name}"));
    let lines = requests("g", 0..3) + bad + &requests("g", 3..5);
    broker.publish(&workdir, "bad-requests", &lines);
    let from = format!("{}?group=dt&from=earliest", topic("requests"));
    let running = Running::start(bridge(
        &workdir,
        &[
            "--from",
            &from,
            "--to",
            &topic("scores"),
            "--rejects-to",
            &topic("rejects"),
            "--",
            "rv-score",
            "--model",
            &model,
            "--rejects",
            "{rejects}",
        ],
    ));
    let scores = broker.read(&workdir, "bad-scores", 5);
    assert_eq!(counted(&scores, "messageId").len(), 5);
    let rejects = broker.read(&workdir, "bad-rejects", 1);
    assert!(rejects[0].contains("no-timestamp"), "{rejects:?}");
    assert_eq!(
        counted(&rejects, "program").keys().collect::<Vec<_>>(),
        ["rv-score"]
    );
    running.end();
    assert_eq!(broker.unread(&workdir, "bad-requests", "dt").len(), 0);
}

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn a_message_that_kills_the_program_is_set_aside_and_the_others_go_through() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    let count = 200;
    let poison = "{\"messageId\":\"poison\",\"timestamp\":1,\"modelInput\":{}}\n";
    let lines = requests("p", 0..100) + poison + &requests("p", 100..count);
    broker.publish(&workdir, "poison-in", &lines);
    workdir.write(
        "fragile.py",
        "import os, sys\n\
         for line in sys.stdin:\n    \
             if 'poison' in line: os._exit(9)\n    \
             sys.stdout.write(line)\n    \
             sys.stdout.flush()\n",
    );
    let from = format!("{}?group=x&from=earliest", broker.topic("poison-in"));
    let running = Running::start(bridge(
        &workdir,
        &[
            "--from",
            &from,
            "--to",
            &broker.topic("poison-out"),
            "--rejects-to",
            &broker.topic("poison-rejects"),
            "--",
            "python3",
            "fragile.py",
        ],
    ));
    let ids = counted(&broker.read(&workdir, "poison-out", count), "messageId");
    assert_eq!(ids.len(), count);
    let rejects = broker.read(&workdir, "poison-rejects", 1);
    assert!(
        rejects[0].contains("poison") && rejects[0].contains("--max-deaths"),
        "{rejects:?}"
    );
    running.end();
    assert_eq!(broker.unread(&workdir, "poison-in", "x").len(), 0);
}

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn a_swallowed_message_is_set_aside_in_time_or_finished_by_the_order() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    broker.publish(&workdir, "swallow-in", &requests("w", 0..20));
    let from = |group: &str| {
        let topic = broker.topic("swallow-in");
        format!("{topic}?group={group}&from=earliest")
    };
    let to = broker.topic("swallow-out");
    let program = ["--", "grep", "--line-buffered", "--invert-match", "w-7\""];
    let mut ordered = bridge(
        &workdir,
        &["--from", &from("ordered"), "--to", &to, "--ordered"],
    );
    ordered.args(program);
    let ordered = Running::start(ordered);
    broker.read(&workdir, "swallow-out", 19);
    assert_eq!(ordered.end(), 0);
    assert_eq!(broker.unread(&workdir, "swallow-in", "ordered").len(), 0);
    let rejects = broker.topic("swallow-rejects");
    let mut timed = bridge(&workdir, &["--from", &from("timed"), "--to", &to]);
    timed
        .args(["--unanswered", "2s", "--rejects-to", &rejects])
        .args(program);
    let timed = Running::start(timed);
    let rejects = broker.read(&workdir, "swallow-rejects", 1);
    assert!(
        rejects[0].contains("w-7") && rejects[0].contains("--unanswered"),
        "{rejects:?}"
    );
    timed.end();
    assert_eq!(broker.unread(&workdir, "swallow-in", "timed").len(), 0);
}

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn without_a_place_for_rejects_the_bridge_ends_and_acknowledges_nothing() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    broker.publish(&workdir, "placeless", &requests("n", 0..1));
    let from = format!("{}?group=x&from=earliest", broker.topic("placeless"));
    let mut command = bridge(
        &workdir,
        &["--from", &from, "--to", &broker.topic("placeless-out")],
    );
    command.args([
        "--unanswered",
        "1s",
        "--",
        "grep",
        "--line-buffered",
        "nothing",
    ]);
    let mut running = Running::start(command);
    assert_eq!(running.wait(), 3);
    let wait = match broker.kind.as_str() {
        // The message comes again when its time is over.
        "nats" => std::time::Duration::from_secs(31),
        _ => std::time::Duration::ZERO,
    };
    std::thread::sleep(wait);
    assert_eq!(broker.unread(&workdir, "placeless", "x").len(), 1);
}
