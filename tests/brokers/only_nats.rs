//! What is only for NATS.

use std::process::Command;

use crate::broker::{Broker, Running, counted, requests};
use crate::harness::{Workdir, checkout};

/// The example needs the packages that scripts/check_brokers.sh installs.
#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn a_model_with_the_brokers_own_client_is_one_of_the_models() {
    let broker = Broker::running();
    let workdir = Workdir::new();
    // Subjects of this run, so that the scores are those of this model.
    let run = std::process::id();
    let (asked, scored) = (format!("python-{run}"), format!("python-scores-{run}"));
    broker.publish(&workdir, &asked, &requests("y", 0..10));
    let address = broker.topic(&asked);
    let server = address.split("/RV/").next().unwrap();
    let mut command = Command::new("python3");
    command
        .arg(checkout().join("examples/model_nats.py"))
        .args([
            server,
            "RV",
            &format!("RV.{asked}"),
            &format!("RV.{scored}"),
        ]);
    let model = Running::start(command);
    let scores = broker.read(&workdir, &scored, 10);
    assert_eq!(counted(&scores, "messageId").len(), 10);
    for score in &scores {
        let score: serde_json::Value = serde_json::from_str(score).unwrap();
        assert_eq!(score["result"]["modelName"], "nearest", "{score}");
    }
    assert_eq!(model.end(), 0);
}
