//! rv-compare: two models on the same requests.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Workdir, checkout, eventually, json, open_writer, resident_bytes, stat};

/// One candidate of a decision: the model, its version, and its result as JSON, or
/// `None` for an error.
type Answer<'a> = (&'a str, u32, Option<&'a str>);

/// A decision. The first answer is the one that the client got.
fn decision(number: usize, input: &str, answers: &[Answer]) -> String {
    let candidates: Vec<String> = answers
        .iter()
        .enumerate()
        .map(|(place, (model, version, result))| {
            let (outcome, fate) = match (result, place) {
                (None, _) => (
                    format!(r#""error":{{"modelName":"{model}","message":"no"}}"#),
                    "failed",
                ),
                (Some(result), 0) => (
                    format!(r#""result":{{"modelName":"{model}","result":{result}}}"#),
                    "used",
                ),
                (Some(result), _) => (
                    format!(r#""result":{{"modelName":"{model}","result":{result}}}"#),
                    "unused",
                ),
            };
            let after = 1 + place + number % 7;
            format!(
                r#"{{"modelName":"{model}","modelVersion":{version},"arrivedAfter":{after}.000,{outcome},"fate":"{fate}"}}"#
            )
        })
        .collect();
    let time = 1_700_000_000 + number;
    let answer = answers
        .first()
        .and_then(|answer| answer.2)
        .unwrap_or("null");
    format!(
        r#"{{"messageId":"r-{number}","timestamp":{time}.000000,"modelInput":{input},"modelResult":{{"modelName":"dt","result":{answer}}},"provenance":{{"rendezvous":{{"modelVersion":1,"reason":"preferred","answeredAfter":1.000,"policyHash":"00ff00ff00ff00ff"}}}},"candidates":[{}]}}"#,
        candidates.join(",")
    )
}

/// A thousand decisions of three classes. The candidate differs in 40 of them, fails in
/// 10 and is absent in 10; the base fails in 5.
fn thousand() -> String {
    let mut text = String::new();
    for number in 0..1000 {
        let class = (number % 3).to_string();
        let other = ((number + 1) % 3).to_string();
        let candidate = match number % 100 {
            0..4 => Some(Some(&*other)),
            4 => Some(None),
            5 => None,
            _ => Some(Some(&*class)),
        };
        let base = (number % 200 != 6).then_some(&*class);
        let mut answers: Vec<Answer> = vec![("dt", 1, base), ("canary", 0, Some(&class))];
        if let Some(candidate) = candidate {
            answers.push(("dt", 2, candidate));
        }
        let region = if number % 2 == 0 { "eu" } else { "us" };
        let input = format!(r#"{{"region":"{region}"}}"#);
        let _ = writeln!(text, "{}", decision(number, &input, &answers));
    }
    text
}

const MODELS: [&str; 4] = ["--base", "dt@1", "--candidate", "dt@2"];

/// The report of a run as JSON.
fn report(workdir: &Workdir, args: &[&str]) -> Value {
    let run = workdir.run("rv-compare").args(MODELS);
    json(
        run.args(["--format", "json"])
            .args(args)
            .succeeds()
            .stdout(),
    )
}

#[test]
fn the_report_is_the_golden_one() {
    let workdir = Workdir::new();
    workdir.write("decisions", thousand());
    for (file, format) in [("report.json", "json"), ("report.txt", "table")] {
        let args = [
            "-i",
            "decisions",
            "--ruler",
            "canary@0",
            "--slice",
            "/region",
        ];
        let run = workdir.run("rv-compare").args(MODELS).args(args);
        let gates = ["--fail-if", "disagreement > 0.07", "--fail-if", "p99 > 100"];
        let found = run.args(gates).args(["--format", format]).succeeds();
        let path = checkout().join("fixtures/compare").join(file);
        if std::env::var_os("RV_RENEW_GOLDEN").is_some() {
            fs::write(&path, found.stdout()).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap();
        assert_eq!(
            found.stdout(),
            golden,
            "renew with RV_RENEW_GOLDEN=1 cargo test compare"
        );
    }
}

#[test]
fn every_request_is_counted_once() {
    let workdir = Workdir::new();
    let mut lines = thousand();
    lines += "nonsense\n\n{\"messageId\":\"x\"}\n";
    lines += &decision(3, "{}", &[("dt", 1, Some("1"))]);
    workdir.write("decisions", lines);
    let run = workdir.run("rv-compare").args(MODELS);
    let args = [
        "-i",
        "decisions",
        "--format",
        "json",
        "--stats",
        "stats.json",
        "-q",
    ];
    let found = run.args(args).args(["--rejects", "rejects"]).exits(1);
    let report = json(found.stdout());
    let count = |pointer: &str| report.pointer(pointer).unwrap().as_u64().unwrap();
    assert_eq!(count("/records/read"), 1003);
    assert_eq!(count("/records/rejected"), 2);
    assert_eq!(count("/records/repeated"), 1);
    let sum = count("/pairs")
        + count("/unpaired/base")
        + count("/unpaired/candidate")
        + count("/errors")
        + count("/neither");
    assert_eq!(sum + 2 + 1, count("/records/read"));
    assert_eq!(count("/pairs"), 975);
    assert_eq!(count("/unpaired/base"), 10);
    assert_eq!(count("/errors"), 15);
    assert_eq!(report["confusion"]["labels"], json("[0,1,2]"));
    assert_eq!(count("/disagreement/requests"), 995);
    for (name, wanted) in [("differ", 40), ("failed", 10), ("absent", 10), ("late", 0)] {
        assert_eq!(report["disagreement"][name], wanted, "{report}");
    }
    assert_eq!(stat(&workdir, "stats.json", "in"), 1003);
    assert_eq!(stat(&workdir, "stats.json", "pairs"), 975);
    assert_eq!(workdir.read("rejects").lines().count(), 2);
}

/// The scores of one model, as rv-score writes them.
fn scores(model: &str, version: u32, count: usize, result: impl Fn(usize) -> usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        let (time, result) = (1_700_000_000.0 + number as f64 / 100.0, result(number));
        let _ = writeln!(
            text,
            r#"{{"messageId":"r-{number}","timestamp":{time:.6},"modelInput":{{}},"result":{{"modelName":"{model}","result":{result}}},"provenance":{{"model":{{"modelVersion":{version},"elapsedTimeAfterRequest":2.500}}}}}}"#
        );
    }
    text
}

#[test]
fn streams_of_scores_are_joined_whatever_their_form() {
    let workdir = Workdir::new();
    let base = scores("dt", 1, 3000, |number| number % 3);
    let candidate = scores("dt", 2, 2900, |number| {
        (number % 3 + usize::from(number % 10 == 0)) % 3
    });
    workdir.write("base", &base);
    workdir.write("candidate", &candidate);
    let apart = report(&workdir, &["--scores", "base", "candidate"]);
    assert_eq!(apart["pairs"], 2900);
    assert_eq!(apart["unpaired"]["base"], 100);
    assert_eq!(apart["agreement"]["rate"], 0.9);
    assert_eq!(apart["latency"]["base"]["count"], 3000);
    // One stream with the scores of both models, in the order of their requests.
    let mut mixed = String::new();
    let mut others = candidate.lines();
    for line in base.lines() {
        let _ = writeln!(mixed, "{line}");
        if let Some(other) = others.next() {
            let _ = writeln!(mixed, "{other}");
        }
    }
    workdir.write("mixed", &mixed);
    let together = report(&workdir, &["--input", "mixed"]);
    assert_eq!(together, apart);
    // Archives of the same streams.
    for name in ["base", "candidate"] {
        let run = workdir
            .run("rv-archive")
            .args(["-i", name, "--max-records", "500"]);
        run.args(["--dir", &format!("{name}.archive")]).succeeds();
    }
    let archived = report(&workdir, &["--scores", "base.archive", "candidate.archive"]);
    assert_eq!(archived, apart);
}

#[test]
fn a_join_that_waits_too_long_is_bounded_and_counted() {
    let workdir = Workdir::new();
    let base = scores("dt", 1, 3000, |_| 1);
    // All scores of the candidate come after those of the base: 30 s late.
    workdir.write("one", base + &scores("dt", 2, 3000, |_| 1));
    let found = report(&workdir, &["-i", "one", "--disorder", "1m"]);
    assert_eq!(
        (&found["pairs"], &found["records"]["afterClose"]),
        (&3000.into(), &0.into())
    );
    let found = report(&workdir, &["-i", "one", "--disorder", "1s"]);
    assert_eq!(found["requests"], 3000);
    let late = found["records"]["afterClose"].as_u64().unwrap();
    assert!(late > 2800, "{found}");
    let found = report(
        &workdir,
        &["-i", "one", "--disorder", "1m", "--max-open", "10"],
    );
    assert_eq!(found["pairs"], 10);
    assert_eq!(found["records"]["afterClose"], 2990);
}

#[test]
fn a_gate_that_fails_is_exit_status_1_with_its_figure() {
    let workdir = Workdir::new();
    workdir.write("decisions", thousand());
    let run = |gates: &[&str]| {
        let run = workdir
            .run("rv-compare")
            .args(MODELS)
            .args(["-i", "decisions"]);
        gates
            .iter()
            .fold(run, |run, gate| run.args(["--fail-if", gate]))
    };
    run(&["disagreement > 0.07", "failures > 0.02"]).exits(0);
    let found = run(&["disagreement > 0.07", "disagreement > 0.05"]).exits(1);
    // 60 of 995, with statsmodels' proportion_confint(method="wilson").
    let message = "the gate 'disagreement > 0.05' fails: 0.060302, between 0.047134 and 0.076852";
    assert!(found.stderr.contains(message), "{found}");
    assert!(found.stdout().contains("gate 'disagreement > 0.07' passed"));
    run(&["agreement < 0.95"]).exits(1);
    run(&["p50 > 1"]).exits(1);
    // At any time, the evidence of 60 of 995 is not enough.
    run(&["disagreement > 0.05"]).arg("--any-time").exits(0);
    let found = run(&["disagreement > 0.01"]).arg("--any-time").exits(1);
    assert!(
        found
            .stderr
            .contains("requests: the gate 'disagreement > 0.01' fails"),
        "{found}"
    );
    // A gate from which nothing can be read does not pass.
    let run = workdir
        .run("rv-compare")
        .args(["--base", "dt@1", "--candidate", "dt@9"]);
    let found = run
        .args(["-i", "/dev/null", "--fail-if", "disagreement > 0.5"])
        .exits(1);
    assert!(found.stderr.contains("has no figure"), "{found}");
    assert!(
        found.stdout().contains("gate 'disagreement > 0.5' failed"),
        "{found}"
    );
}

#[test]
fn a_gate_without_a_figure_never_passes() {
    let workdir = Workdir::new();
    workdir.write("decisions", thousand());
    workdir.write("base", scores("dt", 1, 10, |_| 1));
    workdir.write("candidate", scores("dt", 2, 10, |_| 1));
    let mixed = scores("dt", 1, 10, |_| 1) + &scores("dt", 2, 10, |_| 1);
    workdir.write("mixed", mixed.replace("2.500", "0"));
    let untimed = mixed.replace(",\"elapsedTimeAfterRequest\":2.500", "");
    assert_ne!(untimed, mixed);
    workdir.write("untimed", untimed);
    workdir.write("labels", "messageId,label\nr-1,1\n");
    for (args, gate, why) in [
        (&["-i", "mixed"][..], "late > 0.5", "only decisions tell"),
        (
            &["-i", "mixed", "--any-time"],
            "late > 0.5",
            "only decisions tell",
        ),
        (
            &["-i", "untimed"],
            "p99 > 100",
            "no score of the candidate has a time",
        ),
        (
            &["-i", "decisions", "--labels", "labels"],
            "accuracyLoss > 1",
            "fewer than two pairs",
        ),
        (
            &["-i", "mixed", "--labels", "/dev/null"],
            "accuracy < 0",
            "no pair has a label",
        ),
        (
            &["-i", "/dev/null"],
            "absent > 0.5",
            "the base answered no request",
        ),
    ] {
        let run = workdir.run("rv-compare").args(MODELS).args(args);
        let found = run.args(["--fail-if", gate]).exits(1);
        let message = format!("rv-compare: the gate '{gate}' fails, because it has no figure");
        assert!(found.stderr.contains(&message), "{args:?}: {found}");
        assert!(found.stderr.contains(why), "{args:?}: {found}");
        assert!(
            found.stdout().contains(&format!("gate '{gate}' failed")),
            "{found}"
        );
    }
    // Scores without a place for lateness are known before.
    let run = workdir.run("rv-compare").args(MODELS);
    let args = ["--scores", "base", "candidate", "--fail-if", "late > 0.5"];
    let found = run.args(args).exits(2);
    assert!(found.stderr.contains("needs decisions"), "{found}");
    // A time of 0 is a time.
    let found = report(&workdir, &["-i", "mixed"]);
    assert_eq!(found["latency"]["candidate"]["count"], 10, "{found}");
    workdir.write("base", scores("dt", 1, 10, |_| 1).replace("2.500", "0.000"));
    let found = report(&workdir, &["--scores", "base", "candidate"]);
    assert_eq!(found["latency"]["base"]["p50"], 0.0, "{found}");
}

#[test]
fn the_page_that_cannot_be_written_costs_neither_the_report_nor_the_gates() {
    let workdir = Workdir::new();
    workdir.write("decisions", thousand());
    for (gate, status) in [("disagreement > 0.05", 1), ("disagreement > 0.5", 3)] {
        let run = workdir.run("rv-compare").args(MODELS);
        let run = run.args(["-i", "decisions", "--html", "no/such/folder/page.html"]);
        let found = run.args(["--fail-if", gate]).exits(status);
        let message = "no/such/folder/page.html: cannot write";
        assert!(found.stderr.contains(message), "{found}");
        assert!(found.stdout().contains("requests        1000"), "{found}");
    }
}

#[test]
fn a_pipe_is_followed_to_the_next_writer() {
    let workdir = Workdir::new();
    let pipe = workdir.fifo("decisions");
    let run = workdir.run("rv-compare").args(MODELS);
    let args = [
        "-i",
        &pipe,
        "--follow",
        "--format",
        "ndjson",
        "--window-records",
        "2",
    ];
    let mut running = run.args(args).start();
    let answers = [("dt", 1, Some("1")), ("dt", 2, Some("1"))];
    for writer in 0..3 {
        let mut pipe = open_writer(&pipe);
        for number in 0..2 {
            let number = 2 * writer + number;
            writeln!(pipe, "{}", decision(number, "{}", &answers)).unwrap();
        }
        drop(pipe);
        let line = json(&running.line());
        assert_eq!(line["window"]["number"], writer + 1);
    }
    running.signal(Signal::TERM);
    running.wait().assert_status(0);
    // Without the flag, the first writer's end is the end.
    let run = workdir.run("rv-compare").args(MODELS);
    let running = run.args(["-i", &pipe]).start();
    drop(open_writer(&pipe));
    running.wait().assert_status(0);
}

#[test]
fn several_pipes_of_scores_are_followed_side_by_side() {
    let workdir = Workdir::new();
    let (one, other) = (workdir.fifo("base"), workdir.fifo("candidate"));
    let run = workdir.run("rv-compare").args(MODELS);
    let args = ["--scores", &one, &other, "--follow", "--format", "ndjson"];
    let run = run
        .args(args)
        .args(["--window-records", "100", "--disorder", "10s"]);
    let mut running = run.args(["--slice", "/region"]).start();
    let with_input =
        |text: String| text.replace("\"modelInput\":{}", "\"modelInput\":{\"region\":1}");
    let base = with_input(scores("dt", 1, 400, |number| number % 3));
    let candidate = with_input(scores("dt", 2, 400, |number| number % 2));
    // The candidate writes nothing at first, and the base does not wait for it.
    let part = |text: &str, from: usize| -> String {
        let lines = text.lines().skip(from).take(200);
        lines.map(|line| format!("{line}\n")).collect()
    };
    let mut base_pipe = open_writer(&one);
    base_pipe.write_all(part(&base, 0).as_bytes()).unwrap();
    let mut candidate_pipe = open_writer(&other);
    candidate_pipe
        .write_all(part(&candidate, 0).as_bytes())
        .unwrap();
    // The next writer of a pipe goes on.
    drop(candidate_pipe);
    base_pipe.write_all(part(&base, 200).as_bytes()).unwrap();
    let mut candidate_pipe = open_writer(&other);
    candidate_pipe
        .write_all(part(&candidate, 200).as_bytes())
        .unwrap();
    // Later records close the requests before.
    for line in scores("dt", 1, 20_002, |_| 1).lines().skip(20_000) {
        writeln!(base_pipe, "{line}").unwrap();
    }
    for _ in 0..4 {
        let line = json(&running.line());
        assert_eq!(line["pairs"], 100, "{line}");
        assert_eq!(line["slices"][0]["value"], "1");
    }
    drop((base_pipe, candidate_pipe));
    running.signal(Signal::INT);
    let finished = running.wait();
    finished.assert_status(0);
    let last = json(finished.stdout().trim());
    assert_eq!(last["unpaired"]["base"], 2, "{finished}");
    // A file cannot be followed.
    workdir.write("file", base);
    let run = workdir.run("rv-compare").args(MODELS);
    let found = run.args(["--scores", "file", "--follow"]).exits(2);
    assert!(found.stderr.contains("is not a pipe"), "{found}");
}

#[test]
fn late_labels_find_their_requests_in_the_recording() {
    let workdir = Workdir::new();
    let text = thousand();
    workdir.write("recording", &text);
    let (decisions, labels) = (workdir.fifo("decisions"), workdir.fifo("labels"));
    let run = workdir.run("rv-compare").args(MODELS);
    let args = [
        "-i",
        &decisions,
        "--follow",
        "--labels",
        &labels,
        "--recording",
        "recording",
    ];
    let run = run
        .args(args)
        .args(["--search-every", "50ms", "--stats", "stats.json"]);
    let gate = ["--format", "json", "--fail-if", "accuracy < 0.5"];
    let running = run.args(gate).args(["--remember", "10", "-q"]).start();
    let (decisions_path, labels_path) = (decisions.clone(), labels.clone());
    let mut labels = open_writer(&labels);
    writeln!(labels, "messageId,label\nr-9,0").unwrap();
    let mut decisions = open_writer(&decisions);
    let stats = workdir.path("stats.json");
    eventually(|| fs::metadata(&stats).ok()).unwrap();
    eventually(|| (stat(&workdir, "stats.json", "labelsWaiting") == 1).then_some(())).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[..800] {
        writeln!(decisions, "{line}").unwrap();
    }
    // r-9 was early. r-900 is in the recording, and was not read yet. r-0 is right by the
    // candidate alone, and comes twice. x is unknown.
    eventually(|| (stat(&workdir, "stats.json", "requests") == 800).then_some(())).unwrap();
    writeln!(labels, "r-0,1\nr-7,1\nr-900,0\nx,1").unwrap();
    let count = |name: &str| stat(&workdir, "stats.json", name);
    eventually(|| (count("lateLabels") == 2).then_some(())).unwrap();
    writeln!(labels, "r-0,1\nr-8,2").unwrap();
    for line in &lines[800..] {
        writeln!(decisions, "{line}").unwrap();
    }
    eventually(|| (count("requests") == 1000 && count("lateLabels") == 3).then_some(())).unwrap();
    drop((decisions, labels));
    running.signal(Signal::TERM);
    let finished = running.wait();
    finished.assert_status(0);
    let found = json(finished.stdout());
    // r-0, r-7, r-8, r-9 and r-900.
    assert_eq!(found["labels"]["labelled"], 5, "{found}");
    assert_eq!(found["labels"]["mcnemar"]["candidateOnly"], 1, "{found}");
    assert_eq!(count("labelsWaiting"), 1);
    // A last search finds what has come since the one before.
    let run = workdir.run("rv-compare").args(MODELS);
    let args = ["-i", &decisions_path, "--follow", "--labels", &labels_path];
    let run = run
        .args(args)
        .args(["--recording", "recording", "--search-every", "1h"]);
    let running = run
        .args(["--format", "json", "--stats", "more.json"])
        .start();
    let (mut decisions, mut labels) = (open_writer(&decisions_path), open_writer(&labels_path));
    for line in &lines[..20] {
        writeln!(decisions, "{line}").unwrap();
    }
    let stats = workdir.path("more.json");
    eventually(|| fs::metadata(&stats).ok()).unwrap();
    eventually(|| (stat(&workdir, "more.json", "requests") == 20).then_some(())).unwrap();
    writeln!(labels, "messageId,label\nr-10,1").unwrap();
    eventually(|| (stat(&workdir, "more.json", "labelsWaiting") == 1).then_some(())).unwrap();
    running.signal(Signal::TERM);
    let finished = running.wait();
    assert_eq!(
        json(finished.stdout())["labels"]["labelled"],
        1,
        "{finished}"
    );
    // Late labels need a place to look for their requests.
    let run = workdir.run("rv-compare").args(MODELS);
    run.args(["-i", "recording", "--labels", "x", "--recording", "y"])
        .exits(2);
}

#[test]
fn one_timestamp_of_the_far_future_does_not_freeze_the_windows_or_the_join() {
    let workdir = Workdir::new();
    let far = |line: String| line.replace("\"timestamp\":17", "\"timestamp\":99");
    let mut text = String::new();
    for (number, line) in thousand().lines().enumerate() {
        let line = line.to_owned();
        let _ = writeln!(text, "{}", if number == 300 { far(line) } else { line });
    }
    workdir.write("decisions", text);
    let run = workdir.run("rv-compare").args(MODELS);
    let args = ["-i", "decisions", "--format", "ndjson", "--window", "5m"];
    let found = run.args(args).succeeds();
    let counts: Vec<Value> = found
        .lines()
        .into_iter()
        .map(|it| json(it)["requests"].clone())
        .collect();
    assert_eq!(counts, [100, 299, 300, 300, 1]);
    // A score of the far future closes no other request, and blocks none.
    let (base, candidate) = (scores("dt", 1, 3000, |_| 1), scores("dt", 2, 3000, |_| 1));
    let mut text = String::new();
    for (number, (one, other)) in base.lines().zip(candidate.lines()).enumerate() {
        let one = one.to_owned();
        let _ = writeln!(text, "{}", if number == 1000 { far(one) } else { one });
        // The candidate is late by half a second.
        let late = number
            .checked_sub(50)
            .map(|number| candidate.lines().nth(number).unwrap());
        let _ = late.map(|late| writeln!(text, "{late}"));
        let _ = other;
    }
    workdir.write("scores", text);
    let args = ["-i", "scores", "--disorder", "2s", "--stats", "stats.json"];
    let found = report(&workdir, &args);
    assert_eq!(found["pairs"], 2950, "{found}");
    assert_eq!(found["records"]["afterClose"], 0, "{found}");
}

#[test]
fn slices_and_drift_are_of_scores_too_and_of_each_window() {
    let workdir = Workdir::new();
    let regional = |text: String, region: &str| {
        text.replace(
            "\"modelInput\":{}",
            &format!("\"modelInput\":{{\"region\":\"{region}\"}}"),
        )
    };
    let both = |count: usize| {
        let (one, other) = (
            scores("dt", 1, count, |_| 1),
            scores("dt", 2, count, |it| it % 2),
        );
        let pairs = one.lines().zip(other.lines());
        pairs
            .map(|(one, other)| format!("{one}\n{other}\n"))
            .collect::<String>()
    };
    workdir.write("eu", regional(both(200), "eu"));
    workdir.write("us", regional(both(200), "us"));
    let args = ["-i", "us", "--slice", "/region", "--reference", "eu"];
    let found = report(&workdir, &args);
    let slice = &found["slices"][0];
    assert_eq!(
        (&slice["value"], &slice["pairs"]),
        (&"\"us\"".into(), &200.into())
    );
    assert_eq!(found["drift"][0]["drifts"], true, "{found}");
    let run = workdir.run("rv-compare").args(MODELS).args(args);
    let found = run
        .args(["--format", "ndjson", "--window-records", "100"])
        .succeeds();
    let lines: Vec<Value> = found.lines().into_iter().map(json).collect();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert_eq!(line["drift"][0]["drifts"], true, "{line}");
        assert_eq!(line["slices"][0]["pairs"], 100, "{line}");
    }
    // Records without a model input.
    workdir.write("bare", both(200).replace(",\"modelInput\":{}", ""));
    let run = workdir.run("rv-compare").args(MODELS);
    let found = run.args(["-i", "bare", "--slice", "/region"]).exits(1);
    assert!(
        found.stderr.contains("no record has a model input"),
        "{found}"
    );
    let run = workdir.run("rv-compare").args(MODELS);
    let found = run.args(["-i", "eu", "--reference", "/dev/null"]).exits(3);
    assert!(found.stderr.contains("no drift can be found"), "{found}");
}

#[test]
fn drift_from_the_profile_of_a_model_is_found() {
    let workdir = Workdir::new();
    let model = checkout().join("fixtures/one_request/0_model.dt.json");
    let model = model.to_str().unwrap();
    let flowers = fs::read_to_string(checkout().join("fixtures/flowers.ndjson")).unwrap();
    let recording = |from: &str, to: &str| {
        let mut text = String::new();
        for (number, flower) in flowers.lines().enumerate() {
            let class = format!("{},\"confidence\":1.0", number / 50);
            let answers = [("dt", 1, Some(&*class)), ("dt", 2, Some(&*class))];
            let _ = writeln!(
                text,
                "{}",
                decision(number, &flower.replace(from, to), &answers)
            );
        }
        text
    };
    workdir.write("same", recording("", ""));
    workdir.write("longer", recording("\"petalLength\":", "\"petalLength\":1"));
    let drifting = |input: &str| -> Vec<String> {
        let found = report(&workdir, &["-i", input, "--profile", model]);
        let all = found["drift"].as_array().unwrap().clone();
        assert!(all.len() >= 5, "{found}");
        assert!(all[0]["kolmogorovSmirnov"]["pValue"].is_null(), "{found}");
        let drifting = all.iter().filter(|it| it["drifts"] == true);
        drifting
            .map(|it| format!("{}/{}", it["of"], it["field"]))
            .collect()
    };
    assert!(drifting("same").is_empty());
    assert_eq!(drifting("longer"), ["\"input\"/\"petalLength\""]);
    let run = workdir
        .run("rv-compare")
        .args(MODELS)
        .args(["-i", "longer", "--profile", model]);
    let found = run.args(["--html", "page.html"]).succeeds();
    assert!(found.stdout().contains("result of the base"), "{found}");
    assert!(workdir.read("page.html").contains("result of the base"));
    let run = workdir.run("rv-compare").args(MODELS);
    let found = run.args(["-i", "same", "--profile", "same"]).exits(3);
    assert!(found.stderr.contains("same: "), "{found}");
}

#[test]
fn labels_of_disagreements_give_no_accuracy() {
    let workdir = Workdir::new();
    workdir.write("decisions", thousand());
    let (mut plain, mut weighted) = (
        "messageId,label\n".to_owned(),
        "messageId,label,w\n".to_owned(),
    );
    for number in 0..1000 {
        let differs = number % 100 < 4;
        let truth = if number % 100 < 3 {
            (number + 1) % 3
        } else {
            number % 3
        };
        if differs {
            let _ = writeln!(plain, "r-{number},{truth}");
        }
        if differs || number % 7 == 0 {
            let weight = if differs { 1.0 } else { 7.0 };
            let _ = writeln!(weighted, "r-{number},{truth},{weight}");
        }
    }
    workdir.write("plain", plain);
    workdir.write("weighted", weighted);
    let labels =
        |args: &[&str]| report(&workdir, &[&["-i", "decisions"], args].concat())["labels"].clone();
    for args in [
        &["--labels", "plain"][..],
        &["--labels", "plain", "--labels-of-disagreements"],
    ] {
        let found = labels(args);
        assert_eq!(found["kind"], "disagreements", "{found}");
        assert_eq!(found["base"]["accuracy"], Value::Null);
        assert_eq!(found["disagreements"], json(r#"{"all":40,"labelled":40}"#));
        let loss = found["accuracyLoss"].as_f64().unwrap();
        assert!((loss + 20.0 / 975.0).abs() < 1e-12, "{found}");
    }
    let found = labels(&["--labels", "weighted", "--label-weight", "w"]);
    assert_eq!(found["kind"], "weighted");
    let accuracy = found["candidate"]["accuracy"]["rate"].as_f64().unwrap();
    assert!((accuracy - 0.99).abs() < 0.002, "{found}");
    let run = |args: &[&str]| {
        let run = workdir
            .run("rv-compare")
            .args(MODELS)
            .args(["-i", "decisions"]);
        run.args(args)
    };
    let gate = ["--fail-if", "accuracy < 0.5"];
    let found = run(&["--labels", "plain"]).args(gate).exits(1);
    assert!(
        found.stderr.contains("only disagreements have one"),
        "{found}"
    );
    assert!(
        found
            .stdout()
            .contains("only disagreements have labels (40 of 40)"),
        "{found}"
    );
    let found = run(&["--labels", "plain", "--any-time"])
        .args(["--fail-if", "accuracy < 0"])
        .exits(1);
    assert!(
        found.stderr.contains("only disagreements have one"),
        "{found}"
    );
    run(&["--labels", "plain", "--labels-of-disagreements"])
        .args(gate)
        .exits(2);
    run(&["--labels", "weighted", "--label-weight", "w"])
        .args(gate)
        .exits(0);
    run(&["--labels", "weighted", "--label-weight", "w", "--any-time"])
        .args(gate)
        .exits(2);
    let loss = ["--fail-if", "accuracyLoss > 0"];
    run(&["--labels", "plain"]).args(loss).exits(0);
    run(&["--labels", "plain", "--label-weight", "w"]).exits(3);
}

#[test]
fn a_candidate_that_never_answers_disagrees() {
    let workdir = Workdir::new();
    workdir.write("decisions", thousand());
    let run = workdir
        .run("rv-compare")
        .args(["--base", "dt@1", "--candidate", "dt@9"]);
    let found = run
        .args(["-i", "decisions", "--fail-if", "disagreement > 0.5"])
        .exits(1);
    assert!(found.stdout().contains("995 absent"), "{found}");
}

#[test]
fn a_live_comparison_stops_at_the_failure() {
    let workdir = Workdir::new();
    let pipe = workdir.fifo("decisions");
    let run = workdir
        .run("rv-compare")
        .args(MODELS)
        .args(["-i", &pipe, "--follow"]);
    let gates = [
        "--fail-if",
        "disagreement > 0.02",
        "--any-time",
        "--stop-on-failure",
    ];
    let running = run.args(gates).start();
    let mut writer = open_writer(&pipe);
    for number in 0..2000 {
        let answers = [("dt", 1, Some("1")), ("dt", 2, Some("2"))];
        if writeln!(writer, "{}", decision(number, "{}", &answers)).is_err() {
            break;
        }
    }
    let finished = running.wait();
    finished.assert_status(1);
    assert!(finished.stderr.contains("fails"), "{finished}");
    assert!(finished.stdout().contains("failed: 1.0"), "{finished}");
}

#[test]
fn a_line_is_written_as_soon_as_its_window_is_full() {
    let workdir = Workdir::new();
    let pipe = workdir.fifo("decisions");
    let run = workdir
        .run("rv-compare")
        .args(MODELS)
        .args(["-i", &pipe, "--follow"]);
    let mut running = run
        .args(["--format", "ndjson", "--window-records", "3"])
        .start();
    let mut writer = open_writer(&pipe);
    let answers = |candidate| [("dt", 1, Some("1")), ("dt", 2, Some(candidate))];
    for number in 0..4 {
        writeln!(writer, "{}", decision(number, "{}", &answers("1"))).unwrap();
    }
    let line = json(&running.line());
    assert_eq!(
        (&line["window"]["number"], &line["pairs"]),
        (&1.into(), &3.into())
    );
    for number in 4..7 {
        writeln!(writer, "{}", decision(number, "{}", &answers("2"))).unwrap();
    }
    let line = json(&running.line());
    assert_eq!(
        (&line["window"]["number"], &line["agreement"]["rate"]),
        (&2.into(), &(1.0 / 3.0).into())
    );
    // The mix of the candidate has changed: scipy's chi2_contingency of [3,0] and [1,2].
    let p_value = line["mix"]["candidate"]["pValue"].as_f64().unwrap();
    assert!((p_value - 0.050_671_902).abs() < 1e-8, "{p_value}");
    running.signal(Signal::TERM);
    let finished = running.wait();
    finished.assert_status(0);
    let last = json(finished.stdout().trim());
    assert_eq!(
        (&last["window"]["number"], &last["pairs"]),
        (&3.into(), &1.into())
    );
}

#[test]
fn windows_follow_the_timestamps() {
    let workdir = Workdir::new();
    workdir.write("decisions", thousand());
    let run = workdir
        .run("rv-compare")
        .args(MODELS)
        .args(["-i", "decisions"]);
    let found = run
        .args(["--format", "ndjson", "--window", "5m"])
        .succeeds();
    let lines: Vec<Value> = found.lines().into_iter().map(json).collect();
    let counts: Vec<u64> = lines
        .iter()
        .map(|it| it["requests"].as_u64().unwrap())
        .collect();
    // The first timestamp is 200 s before a multiple of 300 s.
    assert_eq!(counts, [100, 300, 300, 300]);
    assert_eq!(lines[1]["window"]["from"], 1_700_000_100.0);
}

#[test]
fn labels_tell_which_model_is_right() {
    let workdir = Workdir::new();
    workdir.write("decisions", thousand());
    let (mut csv, mut ndjson) = ("label,messageId\n".to_owned(), String::new());
    // The candidate is right where it differs, but for 10 of the 40.
    for number in 0..1000 {
        let truth = match number % 100 {
            0..3 => (number + 1) % 3,
            _ => number % 3,
        };
        let _ = writeln!(csv, "{truth}.0,r-{number}");
        let _ = writeln!(ndjson, r#"{{"messageId":"r-{number}","label":{truth}}}"#);
    }
    workdir.write("labels.csv", &csv);
    workdir.write("labels.ndjson", &ndjson);
    let found = report(&workdir, &["-i", "decisions", "--labels", "labels.csv"]);
    let labels = &found["labels"];
    assert_eq!(labels["labelled"], 975);
    assert_eq!(labels["mcnemar"]["baseOnly"], 10);
    assert_eq!(labels["mcnemar"]["candidateOnly"], 30);
    // scipy's binomtest(10, 40).
    let p_value = labels["mcnemar"]["pValue"].as_f64().unwrap();
    assert!((p_value - 0.002_221_434).abs() < 1e-8, "{p_value}");
    assert_eq!(labels["candidate"]["accuracy"]["rate"], 965.0 / 975.0);
    assert_eq!(
        labels["answers"],
        json(r#"{"answered":975,"gained":30,"lost":10}"#)
    );
    let same = report(&workdir, &["-i", "decisions", "--labels", "labels.ndjson"]);
    assert_eq!(same, found);
    let gate = |gate: &str, status: i32| {
        let run = workdir
            .run("rv-compare")
            .args(MODELS)
            .args(["-i", "decisions"]);
        run.args(["--labels", "labels.csv", "--fail-if", gate])
            .exits(status);
    };
    gate("accuracyLoss > 0", 0);
    gate("accuracy < 0.995", 1);
    gate("accuracyLoss > -0.1", 1);
}

#[test]
fn labels_in_conflict_are_set_aside() {
    let workdir = Workdir::new();
    workdir.write("decisions", thousand());
    workdir.write(
        "labels",
        "messageId,label\nr-1,1\nr-1,2\nr-2\nr-8,2\nr-8,2.0\nr-9,\n",
    );
    let run = workdir
        .run("rv-compare")
        .args(MODELS)
        .args(["-i", "decisions"]);
    let run = run.args([
        "--labels",
        "labels",
        "--format",
        "json",
        "--rejects",
        "rejects",
    ]);
    let found = run.exits(1);
    assert_eq!(json(found.stdout())["labels"]["labelled"], 1);
    assert_eq!(json(found.stdout())["records"]["rejected"], 0);
    let rejects = workdir.read("rejects");
    assert!(rejects.contains("two different labels"), "{rejects}");
    assert!(
        rejects.contains("the id or the label is missing"),
        "{rejects}"
    );
    workdir.write("labels", "id,truth\nr-1,1\n");
    let run = workdir
        .run("rv-compare")
        .args(MODELS)
        .args(["-i", "decisions"]);
    let found = run.args(["--labels", "labels"]).exits(3);
    assert!(found.stderr.contains("--label-column"), "{found}");
}

#[test]
fn numbers_are_compared_within_a_tolerance() {
    let workdir = Workdir::new();
    let (mut text, mut labels) = (String::new(), "messageId,label\n".to_owned());
    for number in 0..100 {
        let value = number as f64;
        let (base, candidate) = (format!("{value}"), format!("{:.2}", value + 0.01 * value));
        let answers = [("dt", 1, Some(&*base)), ("dt", 2, Some(&*candidate))];
        let _ = writeln!(text, "{}", decision(number, "{}", &answers));
        let _ = writeln!(labels, "r-{number},{}", value + 1.0);
    }
    workdir.write("decisions", text);
    workdir.write("labels", labels);
    let found = report(
        &workdir,
        &[
            "-i",
            "decisions",
            "--tolerance",
            "0.5",
            "--labels",
            "labels",
        ],
    );
    assert_eq!(found["agreement"]["rate"], 0.51);
    assert_eq!(found["confusion"]["labels"], json("[]"));
    assert_eq!(found["labels"]["base"]["mae"], 1.0);
    let of = |pointer: &str| found.pointer(pointer).unwrap().as_f64().unwrap();
    assert!((of("/labels/candidate/mae") - 0.505).abs() < 1e-12);
    assert!((of("/labels/errorDifference/mean") + 0.495).abs() < 1e-12);
}

#[test]
fn a_difference_of_a_field_is_one_only_beyond_the_noise() {
    let workdir = Workdir::new();
    let mut text = String::new();
    for number in 0..200 {
        // The price is noisy in both copies; the candidate alone changes the name.
        let noisy = |leg: usize| (number * 7 + leg * 3) % 5;
        let result = |leg: usize, name: &str| {
            format!(
                r#"{{"name":"{name}","price":{},"tags":[{{"id":1}}]}}"#,
                noisy(leg)
            )
        };
        let name = if number % 10 == 0 { "b" } else { "a" };
        let (base, copy, candidate) = (result(0, "a"), result(1, "a"), result(2, name));
        let answers = [
            ("dt", 1, Some(&*base)),
            ("copy", 1, Some(&*copy)),
            ("dt", 2, Some(&*candidate)),
        ];
        let _ = writeln!(text, "{}", decision(number, "{}", &answers));
    }
    workdir.write("decisions", text);
    let found = report(&workdir, &["-i", "decisions", "--noise", "copy@1"]);
    // Everything differs by the price, in the copy too.
    assert_eq!(found["agreement"]["rate"], 0.0);
    assert_eq!(
        found["noise"]["mcnemar"],
        json(r#"{"candidateOnly":0,"noiseOnly":0,"pValue":1.0}"#)
    );
    let fields = found["fields"].as_array().unwrap();
    let differs: Vec<(&str, bool)> = fields
        .iter()
        .map(|it| {
            (
                it["path"].as_str().unwrap(),
                it["noise"]["differs"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        differs,
        [("name", true), ("price", false), ("tags[].id", false)]
    );
    assert_eq!(fields[0]["noise"]["candidateOnly"], 20);
    // binomtest(20, 20, alternative="greater"), times three fields.
    let p_value = fields[0]["noise"]["corrected"].as_f64().unwrap();
    assert!(
        (p_value - 3.0 * 0.5_f64.powi(20)).abs() < 1e-12,
        "{p_value}"
    );
}

#[test]
fn inputs_that_have_drifted_are_found() {
    let workdir = Workdir::new();
    let recording = |shift: usize| {
        let mut text = String::new();
        for number in 0..2000 {
            let x = number * 7919 % 1000 + shift;
            let input = format!(r#"{{"x":{x},"region":"eu"}}"#);
            let answers = [("dt", 1, Some("1")), ("dt", 2, Some("1"))];
            let _ = writeln!(text, "{}", decision(number, &input, &answers));
        }
        text
    };
    workdir.write("before", recording(0));
    workdir.write("same", recording(0));
    workdir.write("moved", recording(400));
    let drifts = |input: &str| -> Vec<(String, bool)> {
        let found = report(&workdir, &["-i", input, "--reference", "before"]);
        let fields = found["drift"].as_array().unwrap().iter();
        let named = |it: &Value| {
            let name = format!("{} {}", it["of"].as_str()?, it["field"].as_str()?);
            Some((name, it["drifts"].as_bool()?))
        };
        fields.map(|it| named(it).unwrap()).collect()
    };
    let wanted = |drifting: &str| {
        let names = ["input region", "input x", "base result", "candidate result"];
        names.map(|name| (name.to_owned(), name == drifting))
    };
    assert_eq!(drifts("same"), wanted(""));
    assert_eq!(drifts("moved"), wanted("input x"));
    // The base answers another class.
    workdir.write(
        "other",
        recording(0).replace("\"result\":1}", "\"result\":2}"),
    );
    let found = drifts("other");
    assert!(
        found.contains(&("candidate result".to_owned(), true)),
        "{found:?}"
    );
}

#[test]
fn the_page_stands_alone_and_shows_no_text_as_markup() {
    let workdir = Workdir::new();
    let evil = r#""<script>alert(1)</script>""#;
    let mut text = String::new();
    for number in 0..100 {
        let input = format!(r#"{{"region":{evil}}}"#);
        let answers = [("dt", 1, Some(evil)), ("dt", 2, Some("\"b\""))];
        let _ = writeln!(text, "{}", decision(number, &input, &answers));
    }
    workdir.write("decisions", text);
    let run = workdir
        .run("rv-compare")
        .args(MODELS)
        .args(["-i", "decisions"]);
    run.args(["--slice", "/region", "--html", "page.html"])
        .succeeds();
    let page = workdir.read("page.html");
    assert!(page.starts_with("<!doctype html>") && page.contains("</html>"));
    assert!(page.contains("Agreement over time") && page.contains("<svg"));
    for outside in ["<script", "http://", "https://", "<link", "@import", "src="] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("&lt;script&gt;"), "{page}");
}

#[test]
fn disagreements_are_written_for_somebody_to_label() {
    let workdir = Workdir::new();
    workdir.write("decisions", thousand());
    let run = workdir.run("rv-compare").arg("disagreements").args(MODELS);
    let found = run.args(["-i", "decisions"]).succeeds();
    let lines: Vec<Value> = found.lines().into_iter().map(json).collect();
    assert_eq!(lines.len(), 40);
    assert_eq!(lines[1]["messageId"], "r-1");
    assert_eq!(lines[1]["modelInput"]["region"], "us");
    assert_eq!(lines[1]["base"]["result"], 1);
    assert_eq!(lines[1]["candidate"]["result"], 2);
    // The surest ones.
    let mut text = String::new();
    for (number, confidence) in [0.7, 0.9, 0.8, 0.9].into_iter().enumerate() {
        let result = |class: u32| format!("{class},\"confidence\":{confidence}");
        let (one, other) = (result(1), result(2));
        let answers = [("dt", 1, Some(&*one)), ("dt", 2, Some(&*other))];
        let _ = writeln!(text, "{}", decision(number, "{}", &answers));
    }
    workdir.write("decisions", text);
    let run = workdir.run("rv-compare").arg("disagreements").args(MODELS);
    let found = run.args(["-i", "decisions", "--top", "3"]).succeeds();
    let ids: Vec<Value> = found
        .lines()
        .into_iter()
        .map(|it| json(it)["messageId"].clone())
        .collect();
    assert_eq!(ids, ["r-1", "r-3", "r-2"]);
}

#[test]
fn meaningless_flags_are_refused_with_the_remedy() {
    let workdir = Workdir::new();
    workdir.write("decisions", "");
    for (args, remedy) in [
        (vec!["--base", "dt@1"], "--candidate"),
        (
            vec!["--base", "dt@1", "--candidate", "dt"],
            "may be the same model",
        ),
        (
            vec!["--base", "dt@x", "--candidate", "lr"],
            "is not a whole number",
        ),
        (
            vec!["--base", "dt", "--candidate", "lr", "--fail-if", "x > 1"],
            "is not one of",
        ),
        (
            vec!["--base", "dt", "--candidate", "lr", "--any-time"],
            "--fail-if",
        ),
        (
            vec![
                "--base",
                "dt",
                "--candidate",
                "lr",
                "--fail-if",
                "accuracy < 1",
            ],
            "needs --labels",
        ),
        (
            vec![
                "--base",
                "dt",
                "--candidate",
                "lr",
                "--fail-if",
                "p99 > 1",
                "--any-time",
            ],
            "leave out --any-time",
        ),
        (
            vec![
                "--base",
                "dt",
                "--candidate",
                "lr",
                "--profile",
                "m",
                "--scores",
                "decisions",
            ],
            "give decisions",
        ),
        (
            vec![
                "--base",
                "dt",
                "--candidate",
                "lr",
                "--profile",
                "m",
                "--reference",
                "decisions",
            ],
            "cannot be used with",
        ),
        (
            vec!["--base", "dt", "--candidate", "lr", "--window", "5m"],
            "--format ndjson",
        ),
        (
            vec!["--base", "dt", "--candidate", "lr", "--slice", "region"],
            "JSON pointer",
        ),
        (
            vec!["--base", "dt", "--candidate", "lr", "--tolerance=-1"],
            "from 0 up",
        ),
        (
            vec![
                "--base",
                "dt",
                "--candidate",
                "lr",
                "--scores",
                "decisions",
                "--slice",
                "/a",
            ],
            "give decisions",
        ),
        (
            vec![
                "--base",
                "dt",
                "--candidate",
                "lr",
                "-i",
                "decisions",
                "-o",
                "decisions",
            ],
            "both input and output",
        ),
        (
            vec![
                "--base",
                "dt",
                "--candidate",
                "lr",
                "--scores",
                "decisions",
                "-o",
                "decisions",
            ],
            "both input and output",
        ),
    ] {
        let finished = workdir.run("rv-compare").args(&args).finish();
        finished.assert_status(2);
        assert!(finished.stderr.contains(remedy), "{args:?}: {finished}");
    }
}

#[test]
fn the_conventions_of_all_programs_hold() {
    let workdir = Workdir::new();
    let help = workdir.run("rv-compare").arg("--help").succeeds();
    assert!(help.stdout().contains("Examples:"), "{help}");
    let version = workdir.run("rv-compare").arg("--version").succeeds();
    assert!(version.stdout().starts_with("rv-compare 0."), "{version}");
    let man = workdir.run("rv-compare").arg("--man").succeeds();
    assert!(man.stdout().contains(".TH"), "{man}");
    let completions = workdir.run("rv-compare").args(["--completions", "bash"]);
    assert!(completions.succeeds().stdout().contains("disagreements"));
    let compare = || workdir.run("rv-compare").args(MODELS);
    let found = compare().args(["-i", "no/such/file"]).exits(3);
    assert!(
        found
            .stderr
            .contains("rv-compare: no/such/file: cannot open"),
        "{found}"
    );
    let found = compare().input("").succeeds();
    assert!(found.stdout().contains("requests        0"), "{found}");
    let decision = decision(1, "{}", &[("dt", 1, Some("1")), ("dt", 2, Some("1"))]);
    // A BOM, CRLF, no last newline.
    for input in [format!("\u{feff}{decision}"), format!("{decision}\r\n\r\n")] {
        let found = compare().input(input).succeeds();
        assert!(found.stdout().contains("pairs         1"), "{found}");
    }
    let long = format!("{{\"messageId\":\"{}\"}}\n{decision}\n", "x".repeat(2000));
    let found = compare()
        .args(["--max-line-bytes", "1000B"])
        .input(long)
        .exits(1);
    assert!(found.stdout().contains("2 read, 1 rejected"), "{found}");
    compare().arg("--strict").input("x\n").exits(3);
    let full = "rv-compare --base dt --candidate lr < /dev/null > /dev/full";
    workdir.shell(full).exits(3);
}

#[test]
fn memory_does_not_grow_with_the_input() {
    let workdir = Workdir::new();
    let pipe = workdir.fifo("decisions");
    let args = ["-i", &pipe, "--remember", "1000", "--stats", "stats.json"];
    let running = workdir.run("rv-compare").args(MODELS).args(args).start();
    let mut writer = open_writer(&pipe);
    let mut sizes = Vec::new();
    for part in 0..4 {
        for number in 0..10_000 {
            let number = part * 10_000 + number;
            let class = (number % 1000).to_string();
            let answers = [("dt", 1, Some(&*class)), ("dt", 2, Some("7"))];
            writeln!(writer, "{}", decision(number, "{}", &answers)).unwrap();
        }
        writer.flush().unwrap();
        sizes.push(resident_bytes(running.id()));
    }
    drop(writer);
    running.wait().assert_status(0);
    assert!(sizes[3] < sizes[1] + (4 << 20), "{sizes:?}");
}
