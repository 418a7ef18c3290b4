//! Named streams: a rendezvous between topics, and the rules that finish a message.

use std::process::Stdio;

use crate::broker::{Broker, Running, bridge, counted, requests};
use crate::harness::{Workdir, eventually};

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn a_rendezvous_between_topics_answers_every_request_once_in_both_outputs() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    let model = workdir.train("decision-tree", "dt", 1);
    let count = 2000;
    let topic = |name: &str| broker.topic(&format!("rendezvous-{name}"));
    broker.publish(&workdir, "rendezvous-requests", &requests("q", 0..count));
    let from_requests = format!("{}?group=dt&from=earliest", topic("requests"));
    let stage = Running::start(bridge(
        &workdir,
        &[
            "--from",
            &from_requests,
            "--to",
            &topic("scores"),
            "--",
            "rv-score",
            "--model",
            &model,
        ],
    ));
    broker.read(&workdir, "rendezvous-scores", count);
    let from = [
        format!("requests={}?group=rv&from=earliest", topic("requests")),
        format!(
            "scores={}?group=rv&from=earliest&done=age:2s",
            topic("scores")
        ),
    ];
    let to = [
        format!("responses={}", topic("responses")),
        format!("decisions={}", topic("decisions")),
    ];
    let mut command = bridge(&workdir, &["--from", &from[0], "--from", &from[1]]);
    command
        .args([
            "--to",
            &to[0],
            "--to",
            &to[1],
            "--done",
            "responses,decisions",
        ])
        .args(["--stats", "stats.json"])
        .args([
            "--",
            "rv-rendezvous",
            "--requests",
            "{requests}",
            "--scores",
            "{scores}",
        ])
        .args([
            "-o",
            "{responses}",
            "--decisions",
            "{decisions}",
            "--decisions-block",
        ])
        .args(["--prefer", "dt@1", "--deadline", "2s", "--linger", "200ms"]);
    let rendezvous = Running::start(command);
    for output in ["rendezvous-responses", "rendezvous-decisions"] {
        let ids = counted(&broker.read(&workdir, output, count), "messageId");
        assert_eq!(ids.len(), count, "{output}");
        assert!(ids.values().all(|times| *times == 1), "{output}");
    }
    let acknowledged = eventually(|| {
        let text = std::fs::read_to_string(workdir.path("stats.json")).ok()?;
        let stats: serde_json::Value = serde_json::from_str(&text).ok()?;
        (stats["acknowledged"].as_u64()? == 2 * count as u64).then_some(stats)
    });
    let stats = acknowledged.expect("scores are finished by their age, requests by their outputs");
    assert_eq!(stats["in"], stats["acknowledged"]);
    assert_eq!((rendezvous.end(), stage.end()), (0, 0));
    for group in ["rv", "dt"] {
        assert_eq!(
            broker.unread(&workdir, "rendezvous-requests", group).len(),
            0
        );
    }
}

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn a_field_of_the_record_names_the_topic_if_that_is_allowed() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    let record = |id: &str, field: &str| format!("{{\"messageId\":\"{id}\"{field}}}\n");
    let lines = record("1", ",\"returnAddress\":\"front-1\"")
        + &record("2", ",\"returnAddress\":\"front-2\"")
        + &record("3", ",\"returnAddress\":\"decisions\"")
        + &record("4", "");
    broker.publish(&workdir, "named-in", &lines);
    let from = format!("{}?group=x&from=earliest", broker.topic("named-in"));
    let to = format!("{}?allow=front-*", broker.topic("named-{returnAddress}"));
    let running = Running::start(bridge(
        &workdir,
        &["--from", &from, "--to", &to, "--rejects", "rejects"],
    ));
    for number in ["1", "2"] {
        let lines = broker.read(&workdir, &format!("named-front-{number}"), 1);
        assert_eq!(
            counted(&lines, "messageId").keys().collect::<Vec<_>>(),
            [number]
        );
    }
    let rejected = eventually(|| {
        let text = std::fs::read_to_string(workdir.path("rejects")).ok()?;
        (text.lines().count() == 2).then_some(text)
    });
    let rejected = rejected.expect("two records are rejected");
    assert!(rejected.contains("allow= does not allow") && rejected.contains("is missing"));
    assert_eq!(running.end(), 1, "something was rejected");
    assert_eq!(broker.unread(&workdir, "named-in", "x").len(), 0);
}

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn two_replicas_of_one_group_share_the_messages() {
    let broker = Broker::running();
    if broker.kind == "kafka" && std::env::var("PARTITIONS").is_ok_and(|it| it == "1") {
        panic!("check_brokers.sh starts Kafka with several partitions");
    }
    let workdir = Workdir::new();
    broker.publish(&workdir, "shared", &requests("s", 0..1));
    let from = format!("{}?group=shared&from=earliest", broker.topic("shared"));
    let to = broker.topic("shared-out");
    let start = |stats: &str| {
        let args = [
            "--from", &from, "--to", &to, "--stats", stats, "--", "rv-decoy",
        ];
        let mut command = bridge(&workdir, &args);
        command.stdin(Stdio::null());
        Running::start(command)
    };
    let replicas = [start("one.json"), start("two.json")];
    // A group needs a moment until both have joined.
    std::thread::sleep(std::time::Duration::from_secs(8));
    let count = 4000;
    broker.publish(&workdir, "shared", &requests("s", 1..count));
    let ids = counted(&broker.read(&workdir, "shared-out", count), "messageId");
    assert_eq!(ids.len(), count);
    for replica in replicas {
        assert_eq!(replica.end(), 0);
    }
    for stats in ["one.json", "two.json"] {
        let stats: serde_json::Value = serde_json::from_str(&workdir.read(stats)).unwrap();
        assert!(stats["acknowledged"].as_u64().unwrap() > 100, "{stats}");
    }
}

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn a_new_group_gets_what_came_while_no_bridge_ran() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    broker.publish(&workdir, "pinned", &requests("old", 0..3));
    let from = format!("{}?group=pinned", broker.topic("pinned"));
    let mut first = Running::start(bridge(
        &workdir,
        &[
            "--from",
            &from,
            "--",
            "sh",
            "-c",
            "touch started; cat > seen",
        ],
    ));
    eventually(|| {
        std::fs::exists(workdir.path("started"))
            .unwrap()
            .then_some(())
    })
    .unwrap();
    first.0.kill().unwrap();
    broker.publish(&workdir, "pinned", &requests("new", 0..3));
    // Kafka needs a moment to notice that the first bridge is gone.
    std::thread::sleep(std::time::Duration::from_secs(7));
    let unread = counted(&broker.unread(&workdir, "pinned", "pinned"), "messageId");
    assert_eq!(
        unread.keys().collect::<Vec<_>>(),
        ["new-0", "new-1", "new-2"]
    );
}
