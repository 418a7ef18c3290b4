//! What rv-bridge refuses before it connects. `tests/brokers` has the rest.

use crate::harness::{Finished, Workdir};

fn bridge(args: &[&str]) -> Finished {
    Workdir::new().run("rv-bridge").args(args).finish()
}

fn refused(args: &[&str], text: &str) {
    let finished = bridge(args);
    finished.assert_status(2);
    // Messages are wrapped at the width of a terminal.
    let said = finished
        .stderr
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(said.contains(text), "{text:?} is not in {finished}");
}

#[test]
fn streams_that_make_no_sense_together_are_refused_with_the_remedy() {
    let requests = "kafka://127.0.0.1:1/requests?group=x";
    let scores = "kafka://127.0.0.1:1/scores";
    let named = |name: &str, address: &str| format!("{name}={address}");
    let (one, two) = (
        named("one", scores),
        named("two", "kafka://127.0.0.1:1/others"),
    );
    for (args, text) in [
        (vec![], "no stream"),
        (
            vec!["--from", requests, "--from", requests, "--", "cat"],
            "have no name",
        ),
        (
            vec!["--to", &one, "--to", &one],
            "two streams are named one",
        ),
        (vec!["--from", requests, "--to", &one], "need a program"),
        (
            vec!["--from", requests, "--to", &one, "--", "cat"],
            "write {one} in its arguments",
        ),
        (
            vec!["--from", "kafka://127.0.0.1:1/r", "--", "cat"],
            "add ?group=NAME",
        ),
        (
            vec![
                "--from", requests, "--to", &one, "--to", &two, "--", "cat", "{one}", "{two}",
            ],
            "--done NAME,NAME",
        ),
        (
            vec![
                "--from", requests, "--to", scores, "--done", "nothing", "--", "cat",
            ],
            "no --to has this name",
        ),
        (
            vec!["--from", requests, "--to", scores, "--", "cat", "{rejects}"],
            "--rejects-to ADDRESS",
        ),
        (
            vec![
                "--from",
                "kafka://127.0.0.1:1/r?group=x&done=written",
                "--to",
                scores,
            ],
            "done= needs a program",
        ),
        (
            vec!["--from", "kafka://127.0.0.1:1/r?colour=x"],
            "\"colour\" is unknown",
        ),
        (
            vec!["--from", "kafka://me:pw@127.0.0.1:1/r"],
            "password-file",
        ),
    ] {
        refused(&args, text);
    }
}

#[cfg(not(any(feature = "kafka", feature = "nats", feature = "pulsar")))]
#[test]
fn a_build_without_brokers_says_how_to_get_one() {
    for (address, feature) in [
        ("kafka://127.0.0.1:1/x", "--features kafka"),
        ("nats://127.0.0.1:1/S/x", "--features nats"),
        ("pulsar://127.0.0.1:1/a/b/x", "--features pulsar"),
    ] {
        refused(&["--to", address], feature);
        refused(&["check", "--to", address], feature);
        refused(&["--from", address], feature);
    }
}
