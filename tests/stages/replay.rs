//! rv-rendezvous on recordings: decisions, replays and explanations.

use std::fmt::Write as _;
use std::sync::LazyLock;

use crate::harness::{Workdir, dt_then_lr, json, now, request_at, score, stat};

static POLICY: LazyLock<String> = LazyLock::new(|| dt_then_lr(100, 50));

/// A score that was written `elapsed` ms after its request.
fn score_after(id: &str, timestamp: f64, model: &str, version: u32, elapsed: &str) -> String {
    format!(
        r#"{{"messageId":"{id}","timestamp":{timestamp:.6},"result":{{"modelName":"{model}","result":{version}}},"provenance":{{"model":{{"modelVersion":{version},"elapsedTimeAfterRequest":{elapsed}}}}}}}"#
    )
}

/// Writes recordings of requests, a millisecond apart, and of the scores of two models.
fn record(workdir: &Workdir, count: usize) {
    let (mut requests, mut dt, mut lr) = (String::new(), String::new(), String::new());
    for number in 0..count {
        let (id, time) = (format!("r-{number}"), 1000.0 + number as f64 / 1000.0);
        let _ = writeln!(requests, "{}", request_at(&id, time));
        let elapsed = format!("{}.000", number % 120);
        let _ = writeln!(dt, "{}", score_after(&id, time, "dt", 1, &elapsed));
        let _ = writeln!(lr, "{}", score_after(&id, time, "lr", 0, "1.000"));
    }
    workdir.write("requests", requests);
    workdir.write("dt", dt);
    workdir.write("lr", lr);
    workdir.write("policy.toml", &*POLICY);
}

#[test]
fn a_replay_of_recorded_streams_decides_by_the_recorded_times() {
    let workdir = Workdir::new();
    record(&workdir, 1200);
    let run = || {
        let run = workdir
            .run("rv-rendezvous")
            .args(["--replay", "--requests", "requests"]);
        let run = run.args(["--scores", "dt", "lr", "--policy", "policy.toml"]);
        run.args(["--stats", "stats.json", "--decisions", "decisions"])
    };
    let finished = run().succeeds();
    assert_eq!(finished.lines().len(), 1200);
    for (number, line) in finished.lines().iter().enumerate() {
        let response = json(line);
        assert_eq!(response["messageId"], format!("r-{number}"));
        let entry = &response["provenance"]["rendezvous"];
        let (reason, after) = match number % 120 {
            elapsed @ 0..50 => ("preferred", elapsed as f64),
            _ => ("fallback", 50.0),
        };
        assert_eq!(entry["reason"], reason, "{line}");
        assert_eq!(entry["answeredAfter"], after, "{line}");
        // If both scores have arrived when a step begins, the order of the models
        // decides.
        let winner = if number % 120 <= 50 { "dt" } else { "lr" };
        assert_eq!(response["modelResult"]["modelName"], winner, "{line}");
    }
    assert!(
        finished
            .stderr
            .contains("1200 requests: 1200 answered by models"),
        "{finished}"
    );
    assert_eq!(stat(&workdir, "stats.json", "late"), 190);
    // The same input and policy give the same bytes.
    assert_eq!(run().succeeds().stdout, finished.stdout);

    // A replay of these decisions gives the same answers.
    let again = workdir
        .run("rv-rendezvous")
        .args(["--replay", "-i", "decisions"]);
    let again = again.args(["--policy", "policy.toml", "--stats", "stats.json"]);
    let again = again.succeeds();
    assert_eq!(again.stdout, finished.stdout);
    assert!(again.stderr.contains("0 of 1200 answers differ"), "{again}");

    let other = workdir
        .run("rv-rendezvous")
        .args(["--replay", "-i", "decisions"]);
    let other = other
        .args(["--prefer", "lr@0,dt@1", "--deadline", "10ms"])
        .succeeds();
    assert!(other.stderr.contains("from dt@1 to lr@0"), "{other}");
    assert!(other.stderr.contains("by model: lr@0 1200"), "{other}");
}

#[test]
fn records_out_of_order_find_each_other_within_the_disorder() {
    let workdir = Workdir::new();
    record(&workdir, 1000);
    let reversed = |name: &str, by: usize| {
        let text = workdir.read(name);
        let lines: Vec<&str> = text.lines().collect();
        let chunks = lines.chunks(by).flat_map(|chunk| chunk.iter().rev());
        let text: Vec<&str> = chunks.copied().collect();
        workdir.write(name, text.join("\n"));
    };
    reversed("dt", 300);
    reversed("requests", 7);
    let run = |disorder: &str| {
        let run = workdir
            .run("rv-rendezvous")
            .args(["--replay", "--requests", "requests"]);
        let run = run.args(["--scores", "dt", "lr", "--policy", "policy.toml"]);
        run.args(["--stats", "stats.json", "--disorder", disorder])
    };
    run("1s").succeeds();
    assert_eq!(stat(&workdir, "stats.json", "orphaned"), 0);
    assert_eq!(stat(&workdir, "stats.json", "requests"), 1000);
    // If `--disorder` is too small, late scores are counted and reported.
    run("10ms").exits(1);
    assert!(stat(&workdir, "stats.json", "orphaned") > 0);
}

#[test]
fn what_a_replay_cannot_pair_is_counted() {
    let workdir = Workdir::new();
    workdir.write("policy.toml", &*POLICY);
    let requests = [
        request_at("a", 1.0),
        request_at("a", 1.0),
        request_at("b", 2.0),
        "nonsense".into(),
    ];
    workdir.write("requests", requests.join("\n"));
    let scores = [
        score_after("a", 1.0, "dt", 1, "30.000"),
        // The earlier score counts, whatever the order of the lines.
        score_after("a", 1.0, "dt", 1, "7.000"),
        score_after("nobody", 1.0, "dt", 1, "7.000"),
        score("b", "dt", 1, 3),
    ];
    workdir.write("scores", scores.join("\n"));
    let run = workdir
        .run("rv-rendezvous")
        .args(["--replay", "--requests", "requests"]);
    let run = run.args([
        "--scores",
        "scores",
        "--policy",
        "policy.toml",
        "--stats",
        "stats.json",
    ]);
    let finished = run.exits(1);
    let lines = finished.lines();
    assert_eq!(
        json(lines[0])["provenance"]["rendezvous"]["answeredAfter"],
        7.0
    );
    assert_eq!(json(lines[1])["modelResult"]["result"], 3);
    for (name, count) in [
        ("repeated", 1),
        ("duplicate", 1),
        ("orphaned", 1),
        ("used", 2),
        ("rejected", 1),
    ] {
        assert_eq!(stat(&workdir, "stats.json", name), count, "{name}");
    }
}

#[test]
fn one_input_of_a_replay_may_be_a_pipe_and_two_are_refused() {
    let workdir = Workdir::new();
    record(&workdir, 100);
    let command = "rv-rendezvous --replay --policy policy.toml";
    let script = format!("cat dt | {command} --requests requests --scores - lr");
    assert_eq!(workdir.shell(&script).succeeds().lines().len(), 100);
    let script = format!("cat dt | {command} --requests <(cat requests) --scores - lr");
    let finished = workdir.shell(&script).finish();
    assert!(finished.stderr.contains("two pipes"), "{finished}");
    assert_eq!(finished.status, 2);
}

#[test]
fn archives_and_compressed_files_are_read_as_they_are() {
    let workdir = Workdir::new();
    record(&workdir, 100);
    let script = "
        rv-rendezvous --replay --requests requests --scores dt lr --policy policy.toml \
          --decisions decisions > plain
        gzip --keep dt
        rv-archive --dir requests.archive < requests
        rv-archive --dir decisions.archive < decisions
        rv-rendezvous --replay --requests requests.archive --scores dt.gz lr --policy policy.toml > packed
        cmp plain packed
        rv-rendezvous --replay -i decisions.archive --policy policy.toml > again
        cmp plain again
        rv-rendezvous explain r-77 decisions.archive";
    let finished = workdir.shell(script).succeeds();
    for expected in [
        "request \"r-77\", accepted 1970-01-01T00:16:40.077000Z",
        "1.000 ms  lr@0 says 0 (used)",
        "50.000 ms  => lr@0 answers, fallback",
        "77.000 ms  dt@1 says 1 (unused)",
    ] {
        assert!(
            finished.stdout().contains(expected),
            "{expected}: {finished}"
        );
    }
    let nobody = workdir
        .shell("rv-rendezvous explain nobody decisions")
        .finish();
    assert_eq!(nobody.status, 3);
    assert!(
        nobody.stderr.contains("no decision of \"nobody\""),
        "{nobody}"
    );
}

#[test]
fn a_decision_without_its_policy_is_said() {
    let workdir = Workdir::new();
    record(&workdir, 2);
    let script = "
        rv-rendezvous --replay --requests requests --scores dt lr --policy policy.toml \
          --decisions decisions > plain
        mkdir policies
        rv-rendezvous --replay -i decisions --policies policies";
    let finished = workdir.shell(script).finish();
    assert_eq!(finished.status, 2, "{finished}");
    assert!(finished.stderr.contains("--keep-policies"), "{finished}");
}

#[test]
fn check_says_what_a_policy_does_and_refuses_a_bad_one() {
    let workdir = Workdir::new();
    workdir.write("policy.toml", &*POLICY);
    let finished = workdir
        .run("rv-rendezvous")
        .args(["check", "policy.toml"])
        .succeeds();
    assert!(
        finished
            .stdout()
            .contains("from 50 ms: the first score of dt@1, lr@0"),
        "{finished}"
    );
    workdir.write(
        "policy.toml",
        POLICY.replace("after_ms = 50", "after_ms = 0"),
    );
    let finished = workdir
        .run("rv-rendezvous")
        .args(["check", "policy.toml"])
        .exits(2);
    assert!(
        finished.stderr.contains("policy.toml:11: steps must stand"),
        "{finished}"
    );
    let both = "deadline_ms = 5\n[[prefer]]\nafter_ms = 0\nmodels = [\"a@1\", \"b@1\"]";
    workdir.write("policy.toml", both);
    let finished = workdir
        .run("rv-rendezvous")
        .args(["check", "policy.toml"])
        .succeeds();
    assert!(
        finished.stderr.contains("the first score to come answers"),
        "{finished}"
    );
}

#[test]
fn a_replay_reads_no_clock() {
    let workdir = Workdir::new();
    record(&workdir, 10);
    // A recording may have timestamps in the future.
    let text = workdir
        .read("requests")
        .replace("\"timestamp\":1000", "\"timestamp\":99991000");
    workdir.write("requests", text);
    for name in ["dt", "lr"] {
        let text = workdir
            .read(name)
            .replace("\"timestamp\":1000", "\"timestamp\":99991000");
        workdir.write(name, text);
    }
    let run = workdir
        .run("rv-rendezvous")
        .args(["--replay", "--requests", "requests"]);
    let since = now();
    let finished = run
        .args(["--scores", "dt", "lr", "--policy", "policy.toml"])
        .succeeds();
    assert_eq!(
        finished
            .stdout()
            .matches("\"reason\":\"preferred\"")
            .count(),
        10
    );
    assert!(now() - since < 30.0);
}

#[test]
fn the_routes_of_a_replay_drop_nothing() {
    let workdir = Workdir::new();
    record(&workdir, 1000);
    let routed = workdir
        .read("requests")
        .replace("\"modelInput\"", "\"returnAddress\":\"r\",\"modelInput\"");
    workdir.write("requests", routed);
    let run = workdir
        .run("rv-rendezvous")
        .args(["--replay", "--requests", "requests"]);
    let run = run.args(["--scores", "dt", "lr", "--policy", "policy.toml"]);
    let finished = run
        .args(["--route", "r=routed", "--decisions", "decisions"])
        .succeeds();
    assert_eq!(finished.stdout(), "");
    for file in ["routed", "decisions"] {
        assert_eq!(workdir.read(file).lines().count(), 1000, "{file}");
    }
    // The bounds of a live rendezvous do not apply to a replay, so their flags are
    // refused.
    for flag in [["--linger", "1s"], ["--max-open", "5"], ["--queue", "1kB"]] {
        let run = workdir
            .run("rv-rendezvous")
            .args(["--replay", "-i", "decisions"]);
        run.args(["--policy", "policy.toml"]).args(flag).exits(2);
    }
}
