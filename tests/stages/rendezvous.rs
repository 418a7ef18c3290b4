//! rv-rendezvous: requests and scores -> responses, live.

use std::fs::File;
use std::io::{BufReader, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{
    Run, Running, Workdir, assert_idle, dt_then_lr, eventually, json, next_line, now, open_reader,
    open_writer, request_at, score, stat,
};

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let head = "measure_from = \"arrival\"";
    let tail = "[default]
modelResult = { modelName = \"default\", result = 0 }
";
    format!("{head}{}{tail}", dt_then_lr(300, 100))
});

/// A rendezvous, and the ends of its pipes that the test uses.
pub struct Scene {
    pub workdir: Workdir,
    running: Running,
    requests: File,
    pub dt: File,
    pub lr: File,
    pub responses: BufReader<File>,
}

impl Scene {
    pub fn start(policy: &str, flags: &[&str]) -> Scene {
        Scene::start_with(Workdir::new(), policy, flags, |run| run)
    }

    /// Like `start`, in the given folder. `more` may change the command.
    fn start_with(
        workdir: Workdir,
        policy: &str,
        flags: &[&str],
        more: impl FnOnce(Run) -> Run,
    ) -> Scene {
        for pipe in ["requests", "dt.scores", "lr.scores", "responses"] {
            workdir.fifo(pipe);
        }
        workdir.write("policy.toml", policy);
        let run = workdir.run("rv-rendezvous");
        let run = run.args(["--requests", "requests", "--policy", "policy.toml"]);
        let run = run.args(["--scores", "dt.scores", "lr.scores", "-o", "responses"]);
        let run = run.args(["--stats", "stats.json", "--rejects", "rejects"]);
        let running = more(run.args(flags)).start();
        // The pipes may be opened in any order.
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

    pub fn request(&mut self, id: &str) {
        writeln!(self.requests, "{}", request_at(id, now())).unwrap();
    }

    /// The id, the model and the reason of the next response.
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
    pub fn end(self) -> Workdir {
        drop((self.requests, self.dt, self.lr));
        self.running.wait().assert_status(0);
        let of = |name| stat(&self.workdir, "stats.json", name);
        assert_eq!(
            of("requests"),
            of("answersByModels") + of("refused") + of("defaults") + of("repeated")
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
    let mut scene = Scene::start(&POLICY, &[]);
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
    let mut scene = Scene::start(&POLICY, &[]);
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
    let mut scene = Scene::start(&POLICY, &[]);
    scene.request("a");
    writeln!(scene.dt, "{}", score("a", "shadow", 0, 1)).unwrap();
    writeln!(scene.dt, "{}", score("a", "dt", 99, 1)).unwrap();
    assert_eq!(scene.response(), said("a", "default", "default"));
    scene.end();
}

#[test]
fn a_stream_of_shadows_never_answers_whatever_it_claims() {
    let workdir = Workdir::new();
    workdir.fifo("shadow.scores");
    let flags = ["--shadows", "shadow.scores", "--decisions", "decisions"];
    let mut scene = Scene::start_with(workdir, &POLICY, &flags, |run| run);
    let mut shadow = open_writer(&scene.workdir.path("shadow.scores"));
    scene.request("a");
    // The shadow claims to be the production model, and reports first.
    writeln!(shadow, "{}", score("a", "dt", 1, 7)).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    writeln!(scene.dt, "{}", score("a", "dt", 1, 2)).unwrap();
    assert_eq!(scene.response(), said("a", "dt", "preferred"));
    // The production model is silent, and the shadow does not stand in.
    scene.request("b");
    writeln!(shadow, "{}", score("b", "dt", 1, 7)).unwrap();
    assert_eq!(scene.response(), said("b", "default", "default"));
    drop(shadow);
    let workdir = scene.end();
    let decisions = decisions_of(&workdir.read("decisions"));
    let seats: Vec<_> = { decisions[0]["candidates"].as_array().unwrap().iter() }
        .map(|it| (&it["result"]["result"], &it["shadow"], &it["fate"]))
        .map(|(result, shadow, fate)| format!("{result} {shadow} {fate}"))
        .collect();
    assert_eq!(seats, ["7 true \"unused\"", "2 null \"used\""]);
    // A replay of the decisions gives the same answers, although "*" would accept the
    // shadow.
    workdir.write(
        "any.toml",
        "deadline_ms = 300\n[[prefer]]\nafter_ms = 0\nmodels = [\"*\"]\n",
    );
    for (policy, of_b) in [("policy.toml", "default"), ("any.toml", "null")] {
        let replay = workdir
            .run("rv-rendezvous")
            .args(["--replay", "-i", "decisions"]);
        let replayed = replay.args(["--policy", policy, "-q"]).succeeds();
        let answers: Vec<_> = replayed.lines().into_iter().map(json).collect();
        assert_eq!(answers[0]["modelResult"]["result"], 2, "{}", answers[0]);
        assert!(
            answers[1]["modelResult"].to_string().contains(of_b),
            "{}",
            answers[1]
        );
    }
}

#[test]
fn late_double_and_lost_scores_change_nothing_and_are_counted() {
    let mut scene = Scene::start(&POLICY, &["--orphan-age", "50ms"]);
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
    let mut scene = Scene::start(&POLICY, &[]);
    writeln!(scene.dt, "{}", score("a", "dt", 1, 2)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    scene.request("a");
    assert_eq!(scene.response(), said("a", "dt", "preferred"));
    scene.end();
}

#[test]
fn a_request_that_comes_again_is_not_answered_again() {
    let mut scene = Scene::start(&POLICY, &[]);
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
    let mut scene = Scene::start(&POLICY, &[]);
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
    // The steps are tried at once, so lr answers even if its step has not begun.
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
        .says("the old policy stays in effect: policy.toml:1: deadline_ms must be");
    scene.request("a");
    writeln!(scene.dt, "{}", score("a", "dt", 1, 2)).unwrap();
    assert_eq!(scene.response(), said("a", "dt", "preferred"));
    let promoted = POLICY.replace("dt = 1", "dt = 2");
    scene.workdir.write("policy.toml", promoted);
    scene.running.signal(Signal::HUP);
    scene.running.says("takes effect");
    scene.request("b");
    writeln!(scene.dt, "{}", score("b", "dt", 1, 2)).unwrap();
    writeln!(scene.dt, "{}", score("b", "dt", 2, 2)).unwrap();
    assert_eq!(scene.response(), said("b", "dt", "preferred"));
    scene.end();
}

#[test]
fn an_idle_rendezvous_uses_no_processor() {
    let mut scene = Scene::start(&POLICY, &["--linger", "0s"]);
    scene.request("a");
    scene.response();
    std::thread::sleep(Duration::from_millis(1200));
    assert_idle(scene.running.id());
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
    let expected = "rv-rendezvous: policy.toml:3: \"lr\" has no version";
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

/// Parses decisions, one a line.
fn decisions_of(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(json).collect()
}

#[test]
fn a_decision_tells_every_score_and_its_fate() {
    let mut scene = Scene::start(&POLICY, &["--linger", "200ms", "--decisions", "decisions"]);
    let line = r#"{"messageId":"a","x":1.10,"timestamp":1,"modelInput":{},"returnAddress":"r","scoreTopic":"s"}"#;
    writeln!(scene.requests, "{line}").unwrap();
    writeln!(scene.dt, "{}", score("a", "dt", 1, 2)).unwrap();
    assert_eq!(scene.response().1, "dt");
    writeln!(scene.dt, "{}", score("a", "dt", 1, 3)).unwrap();
    writeln!(scene.lr, "{}", score("a", "lr", 0, 1)).unwrap();
    writeln!(
        scene.lr,
        r#"{{"messageId":"a","error":{{"modelName":"x","message":"no"}}}}"#
    )
    .unwrap();
    std::thread::sleep(Duration::from_millis(350));
    writeln!(scene.lr, "{}", score("a", "slow", 4, 1)).unwrap();
    let workdir = scene.end();
    let text = workdir.read("decisions");
    assert!(text.starts_with(line.trim_end_matches('}')), "{text}");
    let decisions = decisions_of(&text);
    assert_eq!(decisions.len(), 1);
    let decision = &decisions[0];
    assert_eq!(decision["modelResult"]["result"], 2);
    assert_eq!(decision["provenance"]["rendezvous"]["reason"], "preferred");
    let candidates = decision["candidates"].as_array().unwrap();
    let fates: Vec<(&str, &str)> = candidates
        .iter()
        .map(|it| {
            (
                it["modelName"].as_str().unwrap(),
                it["fate"].as_str().unwrap(),
            )
        })
        .collect();
    for expected in [
        ("dt", "used"),
        ("dt", "duplicate"),
        ("lr", "unused"),
        ("x", "failed"),
        ("slow", "late"),
    ] {
        assert!(fates.contains(&expected), "{expected:?} in {fates:?}");
    }
    assert_eq!(fates.len(), 5);
    assert!(candidates[0]["arrivedAfter"].as_f64().unwrap() < 300.0);
    assert_eq!(candidates[0]["result"]["result"], 2);
}

#[test]
fn two_front_ends_each_get_their_own_responses_and_a_stuck_one_holds_nobody() {
    let policy = POLICY.replace("= 300", "= 5").replace("= 100", "= 5");
    let workdir = Workdir::new();
    for pipe in ["requests", "scores", "one", "two", "responses", "decisions"] {
        workdir.fifo(pipe);
    }
    workdir.write("policy.toml", policy);
    let run = workdir
        .run("rv-rendezvous")
        .args(["--requests", "requests", "--scores", "scores"]);
    let run = run.args([
        "--policy",
        "policy.toml",
        "-o",
        "responses",
        "--stats",
        "stats.json",
    ]);
    let run = run.args([
        "--route", "one=one", "--route", "two=two", "--queue", "100kB",
    ]);
    let run = run.args(["--linger", "0s", "--decisions", "decisions"]);
    let running = run.start();
    let mut requests = open_writer(&workdir.path("requests"));
    let mut one = open_reader(&workdir.path("one"));
    // The reader of decisions and the second front end open their pipes, but do not
    // read.
    let two = open_reader(&workdir.path("two"));
    let decisions = open_reader(&workdir.path("decisions"));
    let mut rest = open_reader(&workdir.path("responses"));
    let count = 3000;
    // The writer of requests waits for the two readers that do read, so no response to
    // them is dropped.
    let taken = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let (taken_of_one, taken_of_rest) = (Arc::clone(&taken[0]), Arc::clone(&taken[1]));
    let writing = std::thread::spawn(move || {
        for number in 0..count {
            let is_behind = |it: &Arc<AtomicU64>| it.load(Ordering::Relaxed) + 100 < number;
            while taken.iter().any(is_behind) {
                std::thread::sleep(Duration::from_millis(1));
            }
            for address in ["one", "two", "elsewhere"] {
                let line = request_at(&format!("{address}-{number}"), now());
                let address = format!(",\"returnAddress\":\"{address}\"}}");
                writeln!(requests, "{}{address}", line.strip_suffix('}').unwrap()).unwrap();
            }
        }
    });
    let reading = std::thread::spawn(move || {
        for _ in 0..count {
            assert!(next_line(&mut rest).contains("\"messageId\":\"elsewhere-"));
            taken_of_rest.fetch_add(1, Ordering::Relaxed);
        }
    });
    for _ in 0..count {
        assert!(next_line(&mut one).contains("\"messageId\":\"one-"));
        taken_of_one.fetch_add(1, Ordering::Relaxed);
    }
    reading.join().unwrap();
    writing.join().unwrap();
    // The stuck reader now gets whole records, up to the newest one.
    drop(decisions);
    let mut last = String::new();
    let mut two = two;
    while !last.contains(&format!("\"two-{}\"", count - 1)) {
        last = next_line(&mut two);
        assert_eq!(json(&last)["modelResult"]["modelName"], "default");
    }
    let finished = running.wait();
    finished.assert_status(1);
    let of = |name| stat(&workdir, "stats.json", name);
    assert_eq!(of("requests"), 3 * count);
    assert_eq!(of("unrouted"), count);
    assert!(of("routeDropped") > 0 && of("decisionsDropped") > 0);
}

#[test]
fn with_decisions_block_a_slow_reader_of_decisions_sets_the_pace_and_loses_none() {
    let policy = POLICY.replace("= 300", "= 5").replace("= 100", "= 5");
    let workdir = Workdir::new();
    for pipe in ["requests", "scores", "decisions"] {
        workdir.fifo(pipe);
    }
    workdir.write("policy.toml", policy);
    let run = workdir.run("rv-rendezvous");
    let run = run.args(["--requests", "requests", "--scores", "scores"]);
    let run = run.args(["--policy", "policy.toml", "-o", "responses"]);
    let run = run.args([
        "--linger",
        "0s",
        "--queue",
        "100kB",
        "--stats",
        "stats.json",
    ]);
    let running = run
        .args(["--decisions", "decisions", "--decisions-block"])
        .start();
    let mut requests = open_writer(&workdir.path("requests"));
    let mut decisions = open_reader(&workdir.path("decisions"));
    // Far more than fits in the pipes, the queue and the bound of waiting decisions.
    let count = 20_000;
    let written = Arc::new(AtomicU64::new(0));
    let written_so_far = Arc::clone(&written);
    let writing = std::thread::spawn(move || {
        for number in 0..count {
            writeln!(requests, "{}", request_at(&format!("r-{number}"), now())).unwrap();
            written.store(number + 1, Ordering::Relaxed);
        }
    });
    // The program stops reading, since nobody reads the decisions.
    let mut last = u64::MAX;
    let stopped = eventually(|| {
        std::thread::sleep(Duration::from_millis(500));
        let now = written_so_far.load(Ordering::Relaxed);
        let stands_still = now == last && now > 0;
        last = now;
        stands_still.then_some(now)
    });
    assert!(stopped.unwrap() < count, "nothing was held up");
    let mut ids: Vec<String> = Vec::new();
    for _ in 0..count {
        let decision = json(&next_line(&mut decisions));
        ids.push(decision["messageId"].as_str().unwrap().to_owned());
    }
    writing.join().unwrap();
    running.wait().assert_status(0);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len() as u64, count);
    assert_eq!(stat(&workdir, "stats.json", "decisionsDropped"), 0);
}

#[test]
fn a_model_joins_and_leaves_while_the_rendezvous_runs() {
    let workdir = Workdir::new();
    std::fs::create_dir(workdir.path("models")).unwrap();
    workdir.fifo("requests");
    workdir.fifo("models/dt");
    let run = workdir
        .run("rv-rendezvous")
        .args(["--requests", "requests", "--scores", "models"]);
    let run = run.args([
        "--prefer",
        "lr@0,dt@1",
        "--deadline",
        "400ms",
        "--stats",
        "stats.json",
    ]);
    let mut running = run.args(["--linger", "0s"]).start();
    let mut requests = open_writer(&workdir.path("requests"));
    let answers = |running: &mut Running,
                   requests: &mut File,
                   id: &str,
                   model: &mut File,
                   name: (&str, u32)| {
        writeln!(requests, "{}", request_at(id, now())).unwrap();
        writeln!(model, "{}", score(id, name.0, name.1, 1)).unwrap();
        let response = json(&running.line());
        assert_eq!(response["messageId"], id);
        assert_eq!(response["modelResult"]["modelName"], name.0);
        response["provenance"]["rendezvous"]["reason"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mut dt = open_writer(&workdir.path("models/dt"));
    assert_eq!(
        answers(&mut running, &mut requests, "a", &mut dt, ("dt", 1)),
        "fallback"
    );
    workdir.fifo("models/lr");
    running.says("models/lr: joined");
    let mut lr = open_writer(&workdir.path("models/lr"));
    assert_eq!(
        answers(&mut running, &mut requests, "b", &mut lr, ("lr", 0)),
        "preferred"
    );
    // A restarted model writes to the same pipe.
    drop(lr);
    let mut lr = open_writer(&workdir.path("models/lr"));
    assert_eq!(
        answers(&mut running, &mut requests, "c", &mut lr, ("lr", 0)),
        "preferred"
    );
    std::fs::remove_file(workdir.path("models/lr")).unwrap();
    writeln!(requests, "{}", request_at("d", now())).unwrap();
    // A removed pipe is still read until its writer closes the pipe.
    writeln!(lr, "{}", score("d", "lr", 0, 1)).unwrap();
    drop(lr);
    assert_eq!(json(&running.line())["modelResult"]["modelName"], "lr");
    assert_eq!(
        answers(&mut running, &mut requests, "e", &mut dt, ("dt", 1)),
        "fallback"
    );
    // A new pipe with the old name is another pipe, even if it replaces the old one at
    // once.
    std::fs::remove_file(workdir.path("models/dt")).unwrap();
    workdir.fifo("models/dt");
    drop(dt);
    let mut dt = open_writer(&workdir.path("models/dt"));
    assert_eq!(
        answers(&mut running, &mut requests, "f", &mut dt, ("dt", 1)),
        "fallback"
    );
    drop(requests);
    running.wait().assert_status(0);
    assert_eq!(stat(&workdir, "stats.json", "answersByModels"), 6);
}

#[test]
fn a_share_is_ramped_and_a_version_promoted_under_load_and_every_day_can_be_replayed() {
    let policy = |to: f64, version: u32| {
        let share = if to > 0.0 {
            format!(
                "[split]\nkey = \"messageId\"\n[[share]]\nmodel = \"dt@2\"\nfrom = 0.0\nto = {to:?}\nuntil_ms = 40\n"
            )
        } else {
            String::new()
        };
        POLICY
            .replace("dt = 1", &format!("dt = {version}"))
            .replace("arrival", "timestamp")
            + &share
    };
    let flags = [
        "--decisions",
        "decisions",
        "--keep-policies",
        "policies",
        "--linger",
        "50ms",
    ];
    let mut scene = Scene::start(&policy(0.0, 1), &flags);
    let count = 5_000u64;
    let answered = Arc::new(AtomicU64::new(0));
    let writing = std::thread::spawn({
        let answered = Arc::clone(&answered);
        let mut requests = scene.requests.try_clone().unwrap();
        let mut dt = scene.dt.try_clone().unwrap();
        let mut lr = scene.lr.try_clone().unwrap();
        move || {
            for number in 0..count {
                // The wait makes sure that each policy is read before its requests,
                // even on a busy machine.
                while number > answered.load(Ordering::Relaxed) + 300 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let id = number.to_string();
                writeln!(requests, "{}", request_at(&id, now())).unwrap();
                if number % 7 != 0 {
                    writeln!(dt, "{}", score(&id, "dt", 1, 1)).unwrap();
                }
                if number % 5 != 0 {
                    writeln!(lr, "{}", score(&id, "dt", 2, 2)).unwrap();
                }
                writeln!(lr, "{}", score(&id, "lr", 0, 0)).unwrap();
                if number % 10 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    });
    let mut responses = String::new();
    let steps = [
        policy(0.2, 1),
        policy(0.6, 1),
        policy(1.0, 1),
        policy(0.0, 2),
    ];
    let mut steps = steps.iter();
    let mut hashes = std::collections::BTreeSet::new();
    for number in 1..=count {
        let line = next_line(&mut scene.responses);
        hashes.insert(json(&line)["provenance"]["rendezvous"]["policyHash"].to_string());
        responses += &(line + "\n");
        answered.store(number, Ordering::Relaxed);
        if number % (count / 5) == 0
            && let Some(policy) = steps.next()
        {
            scene.workdir.write("policy.toml", policy);
            scene.running.signal(Signal::HUP);
        }
    }
    writing.join().unwrap();
    let workdir = scene.end();
    assert_eq!(hashes.len(), 5, "{hashes:?}");
    assert!(responses.contains("\"reason\":\"share\""));

    let run = workdir
        .run("rv-rendezvous")
        .args(["--replay", "-i", "decisions"]);
    let replayed = run.args(["--policies", "policies"]).succeeds();
    assert!(
        replayed.stderr.contains("0 of 5000 answers differ"),
        "{}",
        replayed.stderr
    );
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(replayed.stdout()), sorted(&responses));
    let run = workdir
        .run("rv-rendezvous")
        .args(["--replay", "-i", "decisions"]);
    let other = run
        .args(["--prefer", "lr@0", "--deadline", "300ms"])
        .succeeds();
    assert!(
        other.stderr.contains("by model: lr@0 5000"),
        "{}",
        other.stderr
    );
}

#[test]
fn requests_that_lag_behind_their_scores_by_a_second_still_get_them() {
    let mut scene = Scene::start(&POLICY, &[]);
    for number in 0..100 {
        writeln!(scene.dt, "{}", score(&number.to_string(), "dt", 1, 2)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(1000));
    for number in 0..100 {
        scene.request(&number.to_string());
    }
    for _ in 0..100 {
        assert_eq!(scene.response().1, "dt");
    }
    let workdir = scene.end();
    assert_eq!(stat(&workdir, "stats.json", "used"), 100);
}

#[test]
fn open_mailboxes_are_bounded_and_the_oldest_is_answered() {
    let policy = POLICY.replace("= 300", "= 3600000").replace("expect", "#");
    let flags = ["--max-open", "1000", "--remember", "10"];
    let mut scene = Scene::start(&policy, &flags);
    let count = 200_000;
    let writing = std::thread::spawn({
        let mut requests = std::io::BufWriter::new(scene.requests.try_clone().unwrap());
        move || {
            for number in 0..count {
                writeln!(requests, "{}", request_at(&number.to_string(), now())).unwrap();
            }
        }
    });
    for number in 0..count - 1000 {
        assert_eq!(
            scene.response(),
            said(&number.to_string(), "default", "overflow")
        );
    }
    writing.join().unwrap();
    let resident = crate::harness::resident_bytes(scene.running.id());
    assert!(resident < 64 << 20, "{resident} bytes");
    scene.running.signal(Signal::TERM);
    for _ in 0..1000 {
        assert_eq!(scene.response().2, "shutdown");
    }
    let workdir = scene.workdir;
    drop((scene.requests, scene.dt, scene.lr));
    scene.running.wait().assert_status(0);
    assert_eq!(stat(&workdir, "stats.json", "requests"), count);
}

#[test]
fn after_sigterm_deadlines_are_kept_while_a_line_that_was_begun_is_awaited() {
    let mut scene = Scene::start(&POLICY, &["--grace", "3s"]);
    scene.request("a");
    write!(scene.dt, "{}", &score("b", "dt", 1, 2)[..20]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let since = Instant::now();
    scene.running.signal(Signal::TERM);
    assert_eq!(scene.response(), said("a", "default", "default"));
    assert!(since.elapsed() < Duration::from_secs(2));
    let finished = scene.running.wait();
    finished.assert_status(143);
    assert!(
        finished.stderr.contains("dt.scores:1: the end of the line"),
        "{finished}"
    );
}

#[test]
fn for_a_production_model_that_died_the_canary_answers() {
    let Scene {
        workdir,
        mut running,
        mut requests,
        dt,
        mut lr,
        mut responses,
    } = Scene::start(&POLICY, &["--linger", "0s"]);
    drop(dt);
    writeln!(requests, "{}", request_at("a", now())).unwrap();
    writeln!(lr, "{}", score("a", "lr", 0, 1)).unwrap();
    let response = json(&next_line(&mut responses));
    assert_eq!(response["modelResult"]["modelName"], "lr");
    assert_eq!(response["provenance"]["rendezvous"]["reason"], "fallback");
    drop((requests, lr));
    running.stdin.take();
    running.wait().assert_status(0);
    assert_eq!(stat(&workdir, "stats.json", "answersByModels"), 1);
}

/// The lines with which one model floods its pipe.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// Scores of one id without a request.
    Equal,
    /// Scores of many ids without requests.
    Distinct,
    /// The same score of an open request, again and again.
    Duplicates,
    /// Scores of that request, each of another version.
    Versions,
    Rejects,
    /// Scores of that request, each of 1 MiB.
    Huge,
}

impl Flood {
    fn lines(self, from: u64) -> String {
        let line = |number: u64| match self {
            Flood::Equal => score("nobody", "bad", 1, 1),
            Flood::Distinct => score(&format!("nobody-{number}"), "bad", 1, 1),
            Flood::Duplicates => score("open", "lr", 0, 1),
            Flood::Versions => score("open", "bad", number as u32, 1),
            Flood::Rejects => "{\"messageId\":\"a\",\"result\":}".to_owned(),
            Flood::Huge => {
                let text = "x".repeat(1 << 20);
                format!(
                    r#"{{"messageId":"open","result":{{"modelName":"bad-{number}","result":"{text}"}}}}"#
                )
            }
        };
        let count = if matches!(self, Flood::Huge) { 1 } else { 500 };
        (from..from + count)
            .map(|number| line(number) + "\n")
            .collect()
    }
}

/// Starts a thread that writes as fast as the pipe accepts, until `stop` is set or
/// nobody reads.
fn flood(mut pipe: File, kind: Flood, stop: Arc<AtomicU64>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut count = 0;
        while stop.load(Ordering::Relaxed) == 0 {
            let lines = kind.lines(count);
            if pipe.write_all(lines.as_bytes()).is_err() {
                break;
            }
            count += lines.matches('\n').count() as u64;
        }
        count
    })
}

/// Checks the answers of another model while one model floods its pipe. The time limit
/// is long, because the machine may be busy. scripts/bench/flood.sh measures the
/// latency.
fn a_flood_changes_nothing_for_the_others(kind: Flood) {
    let policy = POLICY.replace("= 300", "= 60000").replace("expect", "#");
    let policy = policy.replace("= 100\n", "= 50000\n");
    let flags = [
        "--linger",
        "0s",
        "--max-open-bytes",
        "16MiB",
        "--orphan-bytes",
        "4MiB",
    ];
    let mut scene = Scene::start(&policy, &flags);
    scene.request("open");
    let stop = Arc::new(AtomicU64::new(0));
    let flooding = flood(scene.lr.try_clone().unwrap(), kind, Arc::clone(&stop));
    std::thread::sleep(Duration::from_millis(300));
    let mut times = Vec::new();
    for number in 0..100 {
        let since = Instant::now();
        let id = number.to_string();
        // Every second score arrives before its request.
        if number % 2 == 0 {
            writeln!(scene.dt, "{}", score(&id, "dt", 1, 2)).unwrap();
            scene.request(&id);
        } else {
            scene.request(&id);
            writeln!(scene.dt, "{}", score(&id, "dt", 1, 2)).unwrap();
        }
        assert_eq!(scene.response(), said(&id, "dt", "preferred"), "{kind:?}");
        times.push(since.elapsed());
    }
    let resident = crate::harness::resident_bytes(scene.running.id());
    assert!(resident < 100 << 20, "{kind:?}: {resident} bytes");
    times.sort();
    assert!(
        times[50] < Duration::from_millis(100),
        "{kind:?}: {times:?}"
    );
    writeln!(scene.dt, "{}", score("open", "dt", 1, 2)).unwrap();
    assert_eq!(
        scene.response(),
        said("open", "dt", "preferred"),
        "{kind:?}"
    );
    stop.store(1, Ordering::Relaxed);
    assert!(flooding.join().unwrap() > 1, "{kind:?}");
    drop((scene.requests, scene.dt, scene.lr));
    let status = scene.running.wait();
    let of = |name| stat(&scene.workdir, "stats.json", name);
    assert_eq!((of("requests"), of("answersByModels")), (101, 101));
    let fates = ["used", "unused", "late", "duplicate", "orphaned", "failed"];
    assert_eq!(of("scores"), fates.map(of).iter().sum::<u64>());
    status.assert_status(i32::from(matches!(kind, Flood::Rejects)));
}

#[test]
fn a_flood_of_equal_scores_that_nobody_asked_for() {
    a_flood_changes_nothing_for_the_others(Flood::Equal);
}

#[test]
fn a_flood_of_scores_that_nobody_asked_for() {
    a_flood_changes_nothing_for_the_others(Flood::Distinct);
}

#[test]
fn a_flood_of_duplicates() {
    a_flood_changes_nothing_for_the_others(Flood::Duplicates);
}

#[test]
fn a_flood_of_versions() {
    a_flood_changes_nothing_for_the_others(Flood::Versions);
}

#[test]
fn a_flood_of_rejects() {
    a_flood_changes_nothing_for_the_others(Flood::Rejects);
}

#[test]
fn a_flood_of_huge_results() {
    a_flood_changes_nothing_for_the_others(Flood::Huge);
}

#[test]
fn the_scores_of_one_request_take_bounded_memory_and_so_does_its_decision() {
    let flags = [
        "--linger",
        "0s",
        "--decisions",
        "decisions",
        "--max-mailbox-bytes",
        "2MiB",
    ];
    let policy = POLICY.replace("= 300", "= 60000").replace("expect", "#");
    let mut scene = Scene::start(&policy, &flags);
    scene.request("a");
    let result = "x".repeat(120_000);
    for version in 0..500 {
        let line = format!(
            r#"{{"messageId":"a","result":{{"modelName":"shadow","result":"{result}"}},"provenance":{{"model":{{"modelVersion":{version}}}}}}}"#
        );
        writeln!(scene.lr, "{line}").unwrap();
    }
    let resident = crate::harness::resident_bytes(scene.running.id());
    assert!(resident < 40 << 20, "{resident} bytes");
    scene.running.says("scores were counted and not kept");
    writeln!(scene.dt, "{}", score("a", "dt", 1, 2)).unwrap();
    assert_eq!(scene.response(), said("a", "dt", "fallback"));
    scene.running.signal(Signal::TERM);
    drop((scene.requests, scene.dt, scene.lr));
    scene.running.wait().assert_status(0);
    let of = |name| stat(&scene.workdir, "stats.json", name);
    // Half of 2 MiB holds eight of these scores.
    let kept = 500 - of("notKept");
    assert_eq!((of("used"), of("unused"), kept), (1, 500, 8));
    assert_eq!(
        scene
            .workdir
            .read("decisions")
            .matches("\"shadow\"")
            .count(),
        16
    );
}

#[test]
fn open_mailboxes_are_bounded_in_bytes_and_the_oldest_is_answered() {
    let policy = POLICY.replace("= 300", "= 60000");
    let mut scene = Scene::start(&policy, &["--max-open-bytes", "100KiB"]);
    for number in 0..30 {
        let request = request_at(&number.to_string(), now());
        let padding = format!(",\"padding\":\"{}\"}}", "x".repeat(10_000));
        let request = request.strip_suffix('}').unwrap().to_owned() + &padding;
        writeln!(scene.requests, "{request}").unwrap();
    }
    // Each mailbox takes a little more than 10,000 bytes, so nine fit.
    for number in 0..21 {
        assert_eq!(
            scene.response(),
            said(&number.to_string(), "default", "overflow")
        );
    }
    scene.running.signal(Signal::TERM);
    for _ in 21..30 {
        assert_eq!(scene.response().2, "shutdown");
    }
    scene.running.wait().assert_status(0);
}

#[test]
fn a_full_disk_under_the_rejects_stops_no_answer() {
    let workdir = Workdir::new();
    std::os::unix::fs::symlink("/dev/full", workdir.path("rejects")).unwrap();
    let mut scene = Scene::start_with(workdir, &POLICY, &["--linger", "0s"], |run| run);
    for number in 0..20 {
        writeln!(scene.lr, "nonsense").unwrap();
        let id = number.to_string();
        scene.request(&id);
        writeln!(scene.dt, "{}", score(&id, "dt", 1, 2)).unwrap();
        assert_eq!(scene.response(), said(&id, "dt", "preferred"));
    }
    drop((scene.requests, scene.dt, scene.lr));
    let finished = scene.running.wait();
    finished.assert_status(1);
    let lost = "rejects: 20 rejected records could not be kept";
    assert!(finished.stderr.contains(lost), "{finished}");
}

#[test]
fn early_scores_and_known_ids_are_bounded_as_told() {
    let policy = POLICY.replace("= 300", "= 400");
    let flags = [
        "--orphan-bytes",
        "10KiB",
        "--remember",
        "1",
        "--linger",
        "0s",
    ];
    let mut scene = Scene::start(&policy, &flags);
    for number in 0..100 {
        writeln!(scene.dt, "{}", score(&number.to_string(), "dt", 1, 2)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    // The oldest scores were dropped to make room for the newest.
    scene.request("99");
    assert_eq!(scene.response(), said("99", "dt", "preferred"));
    scene.request("0");
    assert_eq!(scene.response(), said("0", "default", "default"));
    // Both requests are closed, and only the id of the second one is remembered.
    std::thread::sleep(Duration::from_millis(500));
    scene.request("0");
    scene.request("99");
    assert_eq!(scene.response(), said("99", "default", "default"));
    let workdir = scene.end();
    assert_eq!(stat(&workdir, "stats.json", "repeated"), 1);
    assert_eq!(stat(&workdir, "stats.json", "orphaned"), 99);
}

#[test]
fn sigterm_ends_a_flood_of_long_lines_at_the_end_of_the_present_one() {
    let scene = Scene::start(&POLICY, &[]);
    let line = format!(
        r#"{{"messageId":"a","result":{{"modelName":"x","result":"{}"}}}}"#,
        "x".repeat(256 << 10)
    );
    let mut lr = scene.lr.try_clone().unwrap();
    let (head, tail) = line.split_at(128 << 10);
    lr.write_all(head.as_bytes()).unwrap();
    scene.running.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(100));
    writeln!(lr, "{tail}").unwrap();
    drop((scene.requests, scene.dt));
    let finished = scene.running.wait();
    finished.assert_status(0);
    assert_eq!(stat(&scene.workdir, "stats.json", "scores"), 1);
    drop((lr, scene.lr));
}

/// A library that changes the wall clock. The file that WALL_CLOCK names holds the
/// offset from the true time, in seconds.
const WALL_CLOCK: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = syscall(SYS_clock_gettime, clock, time);
  if (clock == CLOCK_REALTIME) {
    char text[32] = "";
    int file = open(getenv("WALL_CLOCK"), O_RDONLY);
    if (file >= 0 && read(file, text, sizeof text - 1) > 0)
      time->tv_sec += atol(text);
    close(file);
  }
  return result;
}
"#;

#[test]
fn a_wall_clock_that_jumps_an_hour_moves_no_deadline_of_an_open_request() {
    let workdir = Workdir::new();
    workdir.write("clock.c", WALL_CLOCK);
    workdir
        .shell("cc -shared -fPIC -o clock.so clock.c")
        .succeeds();
    let (library, clock) = (workdir.path("clock.so"), workdir.path("clock"));
    // The file is replaced atomically, so that the program never reads half of it.
    let jump = |workdir: &Workdir, seconds: &str| {
        let new = workdir.write("clock.new", seconds);
        std::fs::rename(new, workdir.path("clock")).unwrap();
    };
    jump(&workdir, "0");
    let policy = POLICY
        .replace("\"arrival\"", "\"timestamp\"")
        .replace("= 300", "= 1000");
    let policy = policy.replace("= 100\n", "= 500\n").replace("expect", "#");
    let mut scene = Scene::start_with(workdir, &policy, &["--linger", "300ms"], |mut run| {
        run.command
            .env("LD_PRELOAD", library)
            .env("WALL_CLOCK", clock);
        run
    });
    for offset in ["3600", "-3600"] {
        jump(&scene.workdir, "0");
        let since = Instant::now();
        scene.request(&format!("a{offset}"));
        scene.request(&format!("b{offset}"));
        writeln!(scene.lr, "{}", score(&format!("a{offset}"), "lr", 0, 1)).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        jump(&scene.workdir, offset);
        // This score wakes the program, so that it reads its clocks.
        writeln!(scene.lr, "{}", score("nobody", "lr", 0, 1)).unwrap();
        assert_eq!(
            scene.response(),
            said(&format!("a{offset}"), "lr", "fallback")
        );
        let step = since.elapsed();
        assert!(Duration::from_millis(490) < step, "{offset}: {step:?}");
        assert_eq!(
            scene.response(),
            said(&format!("b{offset}"), "default", "default")
        );
        let deadline = since.elapsed();
        assert!(
            Duration::from_millis(990) < deadline,
            "{offset}: {deadline:?}"
        );
        assert!(deadline < Duration::from_secs(10), "{offset}: {deadline:?}");
    }
    // Under a clock that is an hour slow, a request waits for the whole deadline. Under
    // a clock that is an hour fast, it does not wait. So the clock did jump.
    let since = Instant::now();
    scene.request("young");
    assert_eq!(scene.response().2, "default");
    assert!(since.elapsed() > Duration::from_millis(990));
    jump(&scene.workdir, "3600");
    let since = Instant::now();
    scene.request("old");
    assert_eq!(scene.response().2, "default");
    assert!(since.elapsed() < Duration::from_millis(900));
    scene.end();
}
