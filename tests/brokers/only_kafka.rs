//! What is only for Kafka.

use crate::broker::{Broker, Running, bridge, counted, requests};
use crate::harness::Workdir;

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn a_score_goes_to_the_partition_of_its_request() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    let count = 200;
    broker.publish(&workdir, "same-in", &requests("k", 0..count));
    let from = format!("{}?group=x&from=earliest", broker.topic("same-in"));
    let to = format!("{}?partition=same", broker.topic("same-out"));
    let running = Running::start(bridge(&workdir, &["--from", &from, "--to", &to]));
    broker.read(&workdir, "same-out", count);
    assert_eq!(running.end(), 0);
    let of_partition = |topic: &str, number: usize| {
        let from = format!("{topic}?partitions={number}");
        let lines = broker.read_for(&workdir, &from, std::time::Duration::from_secs(4));
        counted(&lines, "messageId")
    };
    let mut all = 0;
    for number in 0..4 {
        let (asked, answered) = (
            of_partition("same-in", number),
            of_partition("same-out", number),
        );
        assert_eq!(asked, answered, "partition {number}");
        all += asked.len();
        assert!(asked.len() < count, "all records are in one partition");
    }
    assert_eq!(all, count);
}
