//! JSON that is not one object a line, and times that are not in seconds. Each program
//! that parses lines rejects them and names a remedy.

use std::os::unix::fs::PermissionsExt;

use crate::conventions::each_tool;
use crate::harness::{Finished, Workdir, json, request, score};

/// A request whose timestamp is this JSON text.
fn at(id: &str, timestamp: &str) -> String {
    format!("{{\"messageId\":\"{id}\",\"timestamp\":{timestamp},\"modelInput\":{{\"x\":1}}}}\n")
}

/// JSON over several lines, as printers write it.
fn pretty(line: &str) -> String {
    serde_json::to_string_pretty(&json(line)).unwrap() + "\n"
}

/// How many lines of stderr name a place in the input, and how many name a remedy.
fn said(finished: &Finished) -> (usize, usize) {
    let count = |text: &str| {
        let lines = finished.stderr.lines();
        lines.filter(|line| line.contains(text)).count()
    };
    (count("<stdin>:"), count("jq -c") + count("sed 's"))
}

#[test]
fn json_in_another_form_gets_one_hint_and_each_line_is_set_aside() {
    let (one, two) = (request("r-1"), request("r-2"));
    let (pretty_one, pretty_two) = (pretty(&one), pretty(&two));
    let array = pretty(&format!("[{one},{two}]"));
    let each_line = format!("[{one},\n{two}]\n");
    let many = pretty_one.repeat(20);
    for (story, input, hint) in [
        (
            "one object over several lines",
            pretty_one.clone(),
            "`jq -c .`",
        ),
        ("many of them", many, "`jq -c .`"),
        (
            "two, and a blank line",
            format!("{pretty_one}\n{pretty_two}"),
            "`jq -c .`",
        ),
        (
            "an array over several lines",
            array.clone(),
            "`jq -c '.[]'`",
        ),
        (
            "behind a byte order mark",
            format!("\u{feff}{array}"),
            "`jq -c '.[]'`",
        ),
        ("with CRLF", array.replace('\n', "\r\n"), "`jq -c '.[]'`"),
        ("an array with an item a line", each_line, "`jq -c '.[]'`"),
        (
            "two objects on a line",
            format!("{one}{two}\n{one} {two}\n"),
            "`jq -c .`",
        ),
        ("a comma behind each", format!("{one},\n{two},\n"), "sed"),
        (
            "a JSON text sequence",
            format!("\u{1e}{one}\n\u{1e}{two}\n"),
            "tr -d",
        ),
    ] {
        let lines = input.lines().filter(|line| !line.trim().is_empty()).count();
        each_tool(|scene| {
            if !scene.tool.parses {
                return;
            }
            let finished = scene.finish(&input);
            finished.assert_status(1);
            assert_eq!(said(&finished), (1, 1), "{story}: {finished}");
            assert!(finished.stderr.contains(hint), "{story}: {finished}");
            assert!(
                finished.stderr.contains("<stdin>:1: "),
                "{story}: {finished}"
            );
            assert_eq!(scene.rejects().len(), lines, "{story}");
            assert_eq!(scene.ids(&finished), [""; 0], "{story}");
            scene.assert_counts(lines as u64, lines as u64);
        });
    }
}

#[test]
fn records_between_pieces_of_other_forms_are_worked_on() {
    let (one, two, three) = (request("r-1"), request("r-2"), request("r-3"));
    // The last item of an array has no comma, so it is a valid record.
    let input = format!("[\n{one},\n{two}\n]\n{three}\n");
    each_tool(|scene| {
        if !scene.tool.parses {
            return;
        }
        let finished = scene.finish(&input);
        finished.assert_status(1);
        assert_eq!(said(&finished), (1, 1), "{finished}");
        assert_eq!(scene.ids(&finished), ["r-2", "r-3"], "{finished}");
        scene.assert_counts(5, 3);
    });
}

#[test]
fn a_torn_line_and_other_faults_are_shown_as_before() {
    let one = request("r-1");
    let torn = &one[..30];
    let input = format!(
        "{torn}\n{one}\n{torn}\n{}\nplain text\n{one}\n",
        pretty(&one)
    );
    each_tool(|scene| {
        if !scene.tool.parses {
            return;
        }
        let finished = scene.finish(&input);
        finished.assert_status(1);
        let (shown, hints) = said(&finished);
        // The plain text directly follows fragments, so it counts as a fragment.
        assert_eq!((shown, hints), (3, 1), "{finished}");
        for place in ["<stdin>:1: ", "<stdin>:3: ", "<stdin>:4: "] {
            assert!(finished.stderr.contains(place), "{finished}");
        }
    });
}

#[test]
fn a_table_for_training_gets_the_hint_too() {
    let workdir = Workdir::new();
    for (name, text, hint) in [
        (
            "pretty.json",
            "{\n  \"a\": 1,\n  \"y\": 0\n}\n",
            "`jq -c .`",
        ),
        (
            "array.json",
            "[{\"a\": 1, \"y\": 0},\n {\"a\": 2, \"y\": 1}]\n",
            "`jq -c '.[]'`",
        ),
        (
            "array.data",
            "[{\"a\": 1, \"y\": 0},\n {\"a\": 2, \"y\": 1}]\n",
            "`jq -c '.[]'`",
        ),
    ] {
        workdir.write(name, text);
        let run = workdir
            .run("rv-score")
            .args(["train", "-t", "y", "-i", name]);
        let run = run.args(["-a", "decision-tree", "-n", "m", "--model-version", "1"]);
        let finished = run.args(["-o", "/dev/null"]).finish();
        assert_eq!(finished.status, 3, "{finished}");
        assert_eq!(finished.stderr.lines().count(), 1, "{finished}");
        let place = format!("{name}:1: ");
        assert!(finished.stderr.contains(&place), "{finished}");
        assert!(finished.stderr.contains(hint), "{finished}");
    }
}

#[test]
fn a_time_in_another_unit_is_set_aside_with_the_remedy() {
    let (one, two) = (request("r-1"), request("r-2"));
    for (timestamp, remedy) in [
        ("1700000000000", "milliseconds? Divide them by 1000"),
        ("1700000000000.25", "milliseconds? Divide them by 1000"),
        ("-1700000000000", "milliseconds? Divide them by 1000"),
        ("1.7e15", "microseconds? Divide them by 1000000"),
        (
            "1700000000000000000",
            "nanoseconds? Divide them by 1000000000",
        ),
        ("\"2026-01-01T00:00:00Z\"", "a date; write 1767225600"),
        ("\"1700000000\"", "a number in quotes"),
        ("null", "not a number of seconds"),
    ] {
        each_tool(|scene| {
            // rv-request makes the timestamps itself.
            if !scene.tool.parses || scene.tool.name == "rv-request" {
                return;
            }
            let input = format!("{one}\n{}{two}\n", at("bad", timestamp));
            let finished = scene.finish(&input);
            finished.assert_status(1);
            assert_eq!(scene.ids(&finished), ["r-1", "r-2"], "{finished}");
            let reason = scene.rejects()[0]["reason"].to_string();
            assert!(reason.contains(remedy), "{timestamp}: {reason}");
            assert!(finished.stderr.contains(remedy), "{finished}");
            scene.assert_counts(3, 1);
        });
    }
}

#[test]
fn a_replay_and_an_archive_know_the_same_times() {
    let workdir = Workdir::new();
    let requests = format!("{}\n{}", request("r-1"), at("bad", "1700000000000"));
    workdir.write("requests", &requests);
    let bad_score = score("r-1", "dt", 1, 2).replacen('{', "{\"timestamp\":1700000000000,", 1);
    workdir.write(
        "scores",
        format!("{}\n{bad_score}\n", score("r-1", "lr", 0, 1)),
    );
    let replay = |input: &[&str]| {
        let run = workdir.run("rv-rendezvous").args(["--replay"]).args(input);
        run.args([
            "--prefer",
            "dt@1,lr@0",
            "--deadline",
            "1s",
            "--decisions",
            "decisions",
        ])
    };
    let finished = replay(&["--requests", "requests", "--scores", "scores"]).exits(1);
    assert_eq!(finished.lines().len(), 1, "{finished}");
    assert_eq!(
        finished.stderr.matches("milliseconds?").count(),
        2,
        "{finished}"
    );

    let decision = workdir.read("decisions");
    let bad = decision.replace("\"timestamp\":1.500000", "\"timestamp\":1700000000000");
    workdir.write("recorded", format!("{decision}{bad}"));
    let finished = replay(&["-i", "recorded"]).exits(1);
    assert_eq!(finished.lines().len(), 1, "{finished}");
    assert!(finished.stderr.contains("milliseconds?"), "{finished}");

    let archive = workdir.run("rv-archive").args(["--dir", "logs"]);
    archive.input(&requests).succeeds();
    let cat = |flags: &[&str]| workdir.run("rv-archive").args(["cat", "logs"]).args(flags);
    // Without a time range, `cat` writes the lines unchanged.
    assert_eq!(cat(&[]).succeeds().stdout(), requests);
    let finished = cat(&["--since", "1970-01-01", "--until", "1970-01-02"]).exits(1);
    assert_eq!(finished.stdout(), format!("{}\n", request("r-1")));
    assert!(finished.stderr.contains("milliseconds?"), "{finished}");
    for (since, remedy) in [
        ("20231114", "write 2023-11-14"),
        ("1700000000000", "milliseconds?"),
    ] {
        let finished = cat(&["--since", since]).exits(2);
        assert!(finished.stderr.contains(remedy), "{finished}");
    }
    let clock = workdir
        .run("rv-request")
        .args(["--clock", "fixed:1700000000000"]);
    assert!(clock.exits(2).stderr.contains("milliseconds?"));
}

#[test]
fn rejects_are_for_their_owner_alone() {
    let workdir = Workdir::new();
    let script = "umask 000; echo nonsense | rv-request --rejects rejects";
    workdir.shell(script).exits(1);
    let mode = |name: &str| {
        let metadata = std::fs::metadata(workdir.path(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode("rejects"), 0o600);
    // An existing file keeps its permissions.
    let script = "umask 022; : > shared; echo nonsense | rv-request --rejects shared";
    workdir.shell(script).exits(1);
    assert_eq!(mode("shared"), 0o644);
}
