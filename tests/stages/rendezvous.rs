//! rv-rendezvous: requests and scores -> responses, live.

use std::fs::File;
use std::io::{BufReader, Write};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{
    Running, Workdir, json, next_line, now, open_reader, open_writer, processor_ticks, request_at,
    score, stat,
};

const POLICY: &str = r#"
deadline_ms = 300
measure_from = "arrival"
expect = ["dt", "lr"]

[versions]
dt = 1
lr = 0

[[prefer]]
after_ms = 0
models = ["dt"]

[[prefer]]
after_ms = 100
models = ["dt", "lr"]

[default]
modelResult = { modelName = "default", result = 0 }
"#;

/// A rendezvous between pipes that the test holds.
struct Scene {
    workdir: Workdir,
    running: Running,
    requests: File,
    dt: File,
    lr: File,
    responses: BufReader<File>,
}

impl Scene {
    fn start(policy: &str, flags: &[&str]) -> Scene {
        let workdir = Workdir::new();
        for pipe in ["requests", "dt.scores", "lr.scores", "responses"] {
            workdir.fifo(pipe);
        }
        workdir.write("policy.toml", policy);
        let run = workdir.run("rv-rendezvous");
        let run = run.args(["--requests", "requests", "--policy", "policy.toml"]);
        let run = run.args(["--scores", "dt.scores", "lr.scores", "-o", "responses"]);
        let run = run.args(["--stats", "stats.json", "--rejects", "rejects"]);
        let running = run.args(flags).start();
        // In no order of its own: every order has to do.
        let responses = open_reader(&workdir.path("responses"));
        let lr = open_writer(&workdir.path("lr.scores"));
        let requests = open_writer(&workdir.path("requests"));
        let dt = open_writer(&workdir.path("dt.scores"));
        Scene {
            workdir,
            running,
            requests,
            dt,
            lr,
            responses,
        }
    }

    fn request(&mut self, id: &str) {
        writeln!(self.requests, "{}", request_at(id, now())).unwrap();
    }

    /// (id, model, reason) of the next response.
    fn response(&mut self) -> (String, String, String) {
        let response = json(&next_line(&mut self.responses));
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let entry = &response["provenance"]["rendezvous"];
        (
            text(&response["messageId"]),
            text(&response["modelResult"]["modelName"]),
            text(&entry["reason"]),
        )
    }

    /// Ends all inputs, and checks that the counts add up.
    fn end(self) -> Workdir {
        drop((self.requests, self.dt, self.lr));
        self.running.wait().assert_status(0);
        let of = |name| stat(&self.workdir, "stats.json", name);
        assert_eq!(
            of("requests"),
            of("answersByModels") + of("defaults") + of("repeated")
        );
        let fates = ["used", "unused", "late", "duplicate", "orphaned", "failed"];
        assert_eq!(of("scores"), fates.map(of).iter().sum::<u64>());
        self.workdir
    }
}

fn said(id: &str, model: &str, reason: &str) -> (String, String, String) {
    (id.to_owned(), model.to_owned(), reason.to_owned())
}

#[test]
fn the_preferred_model_answers_at_once_and_the_other_when_its_step_begins() {
    let mut scene = Scene::start(POLICY, &[]);
    scene.request("a");
    writeln!(scene.dt, "{}", score("a", "dt", 1, 2)).unwrap();
    assert_eq!(scene.response(), said("a", "dt", "preferred"));

    let since = Instant::now();
    scene.request("b");
    writeln!(scene.lr, "{}", score("b", "lr", 0, 1)).unwrap();
    assert_eq!(scene.response(), said("b", "lr", "fallback"));
    assert!(since.elapsed() >= Duration::from_millis(100));
    scene.end();
}

#[test]
fn a_deadline_fires_without_traffic() {
    let mut scene = Scene::start(POLICY, &[]);
    let since = Instant::now();
    scene.request("a");
    assert_eq!(scene.response(), said("a", "default", "default"));
    assert!(since.elapsed() >= Duration::from_millis(300));
    scene.end();
}

#[test]
fn a_failure_settles_a_request_early() {
    let mut scene = Scene::start(&POLICY.replace("= 300", "= 60000"), &["--linger", "0s"]);
    scene.request("a");
    let failure = r#"{"messageId":"a","error":{"modelName":"dt","message":"no"},"provenance":{"model":{"modelVersion":1}}}"#;
    writeln!(scene.dt, "{failure}").unwrap();
    writeln!(scene.lr, "{}", score("a", "lr", 0, 1)).unwrap();
    assert_eq!(scene.response(), said("a", "lr", "settled"));
    scene.end();
}

#[test]
fn a_shadow_never_answers() {
    let mut scene = Scene::start(POLICY, &[]);
    scene.request("a");
    writeln!(scene.dt, "{}", score("a", "shadow", 0, 1)).unwrap();
    writeln!(scene.dt, "{}", score("a", "dt", 99, 1)).unwrap();
    assert_eq!(scene.response(), said("a", "default", "default"));
    scene.end();
}

#[test]
fn late_double_and_lost_scores_change_nothing_and_are_counted() {
    let mut scene = Scene::start(POLICY, &["--orphan-age", "50ms"]);
    scene.request("a");
    writeln!(scene.dt, "{}", score("a", "dt", 1, 2)).unwrap();
    assert_eq!(scene.response(), said("a", "dt", "preferred"));
    writeln!(scene.dt, "{}", score("a", "dt", 1, 3)).unwrap();
    writeln!(scene.dt, "{}", score("nobody", "dt", 1, 3)).unwrap();
    writeln!(scene.dt, "garbage").unwrap();
    let bare = r#"{"messageId":"a","result":{"modelName":"bare"}}"#;
    writeln!(scene.dt, "{bare}").unwrap();
    scene.request("b");
    assert_eq!(scene.response(), said("b", "default", "default"));
    writeln!(scene.lr, "{}", score("b", "lr", 0, 1)).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    drop((scene.requests, scene.dt, scene.lr));
    scene.running.wait().assert_status(1);
    for (name, count) in [
        ("used", 1),
        ("unused", 1),
        ("duplicate", 1),
        ("orphaned", 1),
        ("late", 1),
        ("rejected", 1),
    ] {
        assert_eq!(stat(&scene.workdir, "stats.json", name), count, "{name}");
    }
}

#[test]
fn scores_may_come_before_their_request() {
    let mut scene = Scene::start(POLICY, &[]);
    writeln!(scene.dt, "{}", score("a", "dt", 1, 2)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    scene.request("a");
    assert_eq!(scene.response(), said("a", "dt", "preferred"));
    scene.end();
}

#[test]
fn a_request_that_comes_again_is_not_answered_again() {
    let mut scene = Scene::start(POLICY, &[]);
    for _ in 0..2 {
        scene.request("a");
        writeln!(scene.dt, "{}", score("a", "dt", 1, 2)).unwrap();
    }
    scene.request("b");
    assert_eq!(scene.response(), said("a", "dt", "preferred"));
    assert_eq!(scene.response(), said("b", "default", "default"));
    let workdir = scene.end();
    assert_eq!(stat(&workdir, "stats.json", "repeated"), 1);
}

#[test]
fn the_response_has_the_requests_fields_and_says_why() {
    let mut scene = Scene::start(POLICY, &[]);
    let line = r#"{"messageId":"a","x":1.10,"timestamp":1,"returnAddress":"r","modelInput":{},"provenance":{"front":{"y":2.50}},"scoreTopic":"s"}"#;
    writeln!(scene.requests, "{line}").unwrap();
    writeln!(scene.dt, "{}", score("a", "dt", 1, 2)).unwrap();
    let response = next_line(&mut scene.responses);
    let (head, tail) = response.split_once("\"answeredAfter\":").unwrap();
    assert_eq!(
        head,
        r#"{"messageId":"a","x":1.10,"timestamp":1,"modelInput":{},"modelResult":{"modelName":"dt","result":2},"provenance":{"front":{"y":2.50},"rendezvous":{"modelVersion":1,"reason":"preferred","#
    );
    let (_, hash) = tail.split_once("\"policyHash\":\"").unwrap();
    assert_eq!(hash.find('"'), Some(16));
    scene.end();
}

#[test]
fn without_a_default_the_answer_is_null() {
    let policy = POLICY.split("[default]").next().unwrap();
    let mut scene = Scene::start(policy, &[]);
    scene.request("a");
    let response = json(&next_line(&mut scene.responses));
    assert!(response["modelResult"].is_null());
    assert!(response["provenance"]["rendezvous"]["modelVersion"].is_null());
    scene.end();
}

#[test]
fn sigterm_answers_what_is_open() {
    let mut scene = Scene::start(&POLICY.replace("= 300", "= 60000"), &[]);
    scene.request("a");
    writeln!(scene.lr, "{}", score("a", "lr", 0, 1)).unwrap();
    scene.request("b");
    let read = crate::harness::eventually(|| {
        let stats = std::fs::read_to_string(scene.workdir.path("stats.json")).ok()?;
        (json(&stats)["requests"] == 2).then_some(())
    });
    assert!(read.is_some());
    scene.running.signal(Signal::TERM);
    let mut answers = [scene.response(), scene.response()];
    answers.sort();
    // The first settles at the step to come, if it is not there already.
    assert_eq!(answers[0].1, "lr");
    assert_eq!(answers[1], said("b", "default", "shutdown"));
    scene.running.wait().assert_status(0);
}

#[test]
fn a_reader_that_does_not_read_stops_the_reading_and_loses_nothing() {
    let policy = POLICY.replace("= 300", "= 5").replace("= 100", "= 5");
    let mut scene = Scene::start(&policy, &["--linger", "0s"]);
    let count = 30_000;
    let writing = std::thread::spawn({
        let mut requests = scene.requests.try_clone().unwrap();
        move || {
            for number in 0..count {
                writeln!(requests, "{}", request_at(&number.to_string(), now())).unwrap();
            }
        }
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(!writing.is_finished(), "nothing held the writer back");
    for _ in 0..count {
        scene.response();
    }
    writing.join().unwrap();
    scene.end();
}

#[test]
fn a_changed_policy_is_in_force_after_sighup_and_a_bad_one_never() {
    let mut scene = Scene::start(&POLICY.replace("= 300", "= 60000"), &["--linger", "0s"]);
    scene.workdir.write("policy.toml", "deadline_ms = 0");
    scene.running.signal(Signal::HUP);
    scene
        .running
        .says("the policy in force stays: policy.toml:1: deadline_ms must be");
    scene.request("a");
    writeln!(scene.dt, "{}", score("a", "dt", 1, 2)).unwrap();
    assert_eq!(scene.response(), said("a", "dt", "preferred"));
    let promoted = POLICY.replace("dt = 1", "dt = 2");
    scene.workdir.write("policy.toml", promoted);
    scene.running.signal(Signal::HUP);
    scene.running.says("is in force");
    scene.request("b");
    writeln!(scene.dt, "{}", score("b", "dt", 1, 2)).unwrap();
    writeln!(scene.dt, "{}", score("b", "dt", 2, 2)).unwrap();
    assert_eq!(scene.response(), said("b", "dt", "preferred"));
    scene.end();
}

#[test]
fn an_idle_rendezvous_uses_no_processor() {
    let mut scene = Scene::start(POLICY, &["--linger", "0s"]);
    scene.request("a");
    scene.response();
    std::thread::sleep(Duration::from_millis(1200));
    let before = processor_ticks(scene.running.id());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(processor_ticks(scene.running.id()), before);
    scene.end();
}

#[test]
fn what_is_wrong_with_a_policy_or_an_input_is_said() {
    let workdir = Workdir::new();
    workdir.write("policy.toml", POLICY.replace("lr = 0", ""));
    workdir.write("requests", "");
    workdir.fifo("scores");
    let run = || {
        workdir
            .run("rv-rendezvous")
            .args(["--requests", "requests", "--scores", "scores"])
    };
    let finished = run().args(["--policy", "policy.toml"]).exits(2);
    let expected = "rv-rendezvous: policy.toml:4: \"lr\" has no version";
    assert!(finished.stderr.starts_with(expected), "{finished}");
    let finished = run()
        .args(["--prefer", "dt@1", "--deadline", "1s"])
        .exits(2);
    assert!(
        finished.stderr.contains("requests: is a file"),
        "{finished}"
    );
    run().exits(2);
    run().args(["--prefer", "dt@1"]).exits(2);
}
