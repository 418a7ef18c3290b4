//! The sink against a service that answers what it is told to.

mod fake;

use std::fs;
use std::net::TcpListener;
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use self::fake::{Answer, Fake};
use super::*;

fn record(id: &str) -> String {
    format!("{{\"messageId\":\"{id}\",\"timestamp\":1644370787.021771,\"modelInput\":1.10}}\n")
}

fn records(count: usize) -> String {
    (0..count).map(|number| record(&id(number))).collect()
}

fn id(number: usize) -> String {
    format!("r-{number:03}")
}

fn ids(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(id).collect()
}

/// What came of a run.
struct Run {
    outcome: Result<()>,
    sink: EsSink,
    rejects: Vec<Value>,
}

impl Run {
    /// Runs the sink on `input` to its end.
    fn new(url: &str, flags: &[&str], input: &str) -> Run {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (from, rejects) = (path("in"), path("rejects"));
        fs::write(&from, input).unwrap();
        let mut all = vec!["rv-es-sink", "--url", url, "-i", &from, "-q"];
        all.extend(["--index", "i", "--rejects", &rejects]);
        all.extend(["--retry-min", "1ms", "--retry-max", "4ms"]);
        all.extend(flags);
        let args = EsSinkArgs::try_parse_from(all).unwrap();
        let mut stage = Stage::new(EsSinkArgs::NAME, args.run_args()).unwrap();
        let mut sink = EsSink::new(&stage, &args).unwrap();
        let streams = Streams::open_input(&args.input).unwrap();
        let outcome = filter::run(&mut stage, streams, &mut sink);
        stage.report.flush().unwrap();
        let text = fs::read_to_string(&rejects).unwrap();
        let rejects: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            sink.counts.records_in,
            sink.counts.indexed + rejects.len() as u64 + sink.batch.len() as u64,
            "the counts add up"
        );
        Run {
            outcome,
            sink,
            rejects,
        }
    }

    /// The numbers of the lines set aside, and why.
    fn refused(&self) -> Vec<(u64, &str)> {
        self.rejects
            .iter()
            .map(|reject| {
                let line = reject["line"].as_u64().unwrap();
                (line, reject["reason"].as_str().unwrap())
            })
            .collect()
    }
}

#[test]
fn each_record_is_sent_once_in_as_few_calls_as_may_be() {
    for (count, each, calls) in [(0, 10, 0), (1, 10, 1), (10, 10, 1), (25, 10, 3)] {
        let fake = Fake::willing();
        let flag = format!("--batch-records={each}");
        let run = Run::new(&fake.url(), &[&flag], &records(count));
        run.outcome.unwrap();
        assert_eq!(fake.indexed_once(), ids(0..count));
        assert_eq!(fake.calls().len(), calls);
        assert_eq!(run.sink.counts.batches, calls as u64);
        assert_eq!(run.sink.counts.retried, 0);
    }
    let fake = Fake::willing();
    Run::new(&fake.url(), &[], &record("a")).outcome.unwrap();
    let call = &fake.calls()[0];
    assert!(call.head.starts_with("POST /_bulk?"), "{}", call.head);
    assert!(call.head.contains("content-type: application/x-ndjson\r\n"));
    assert!(!call.head.contains("authorization"));
    assert_eq!(
        call.body,
        "{\"index\":{\"_index\":\"i\",\"_id\":\"a\"}}\n\
         {\"messageId\":\"a\",\"modelInput\":1.10,\"timestamp\":\"2022-02-09T01:39:47.021771Z\"}\n"
    );
}

#[test]
fn calls_are_bounded_in_bytes_too() {
    let fake = Fake::willing();
    let run = Run::new(&fake.url(), &["--batch-bytes=300B"], &records(10));
    run.outcome.unwrap();
    assert_eq!(fake.indexed_once(), ids(0..10));
    let calls = fake.calls();
    assert_eq!(calls.len(), 5, "two fit");
    assert!(calls.iter().all(|call| call.body.len() <= 300));
}

#[test]
fn of_a_mixed_reply_only_what_may_pass_is_sent_again() {
    let fake = Fake::start(|number, call| {
        Answer::Items(match number {
            0 => vec![201, 400, 429, 200, 409, 503, 403],
            1 => vec![429, 201],
            _ => vec![201; call.ids.len()],
        })
    });
    let run = Run::new(&fake.url(), &[], &records(7));
    run.outcome.as_ref().unwrap();
    let calls: Vec<Vec<String>> = fake.calls().into_iter().map(|call| call.ids).collect();
    assert_eq!(calls, [ids(0..7), ids([2, 5]), ids([2])]);
    assert_eq!(fake.indexed_once(), ids([0, 2, 3, 5]));
    assert_eq!(
        run.refused(),
        [
            (2, "refused: 400 t400: because"),
            (7, "refused: 403 t403: because")
        ]
    );
    assert_eq!(run.rejects[0]["raw"], record(&id(1)).trim_end());
    assert_eq!(run.rejects[0]["offset"], record(&id(0)).len());
    assert_eq!((run.sink.counts.indexed, run.sink.counts.retried), (5, 3));
}

#[test]
fn a_call_that_failed_as_a_whole_is_made_again() {
    let troubles: [Answer; 10] = [
        Answer::Whole(503, ""),
        Answer::Whole(429, "{}"),
        Answer::Whole(408, ""),
        Answer::Raw(b""),
        Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"items\":["),
        Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
        Answer::Whole(200, ""),
        Answer::Whole(200, "<html>a proxy's page</html>"),
        Answer::Whole(200, "{\"items\":[{\"index\":{\"status\":201}}]}"),
        Answer::Whole(200, "{\"errors\":false}"),
    ];
    let count = troubles.len();
    let mut troubles = troubles.into_iter();
    let fake = Fake::start(move |_, call| {
        let trouble = troubles.next();
        trouble.unwrap_or_else(|| Answer::Items(vec![201; call.ids.len()]))
    });
    let run = Run::new(&fake.url(), &["--batch-records=3"], &records(6));
    run.outcome.as_ref().unwrap();
    assert_eq!(fake.indexed_once(), ids(0..6));
    let calls = fake.calls();
    assert_eq!(calls.len(), count + 2);
    for call in &calls[..=count] {
        assert_eq!(call.ids, ids(0..3));
    }
    assert_eq!(run.sink.counts.retried, 3 * count as u64);
    assert!(run.rejects.is_empty());
}

#[test]
fn a_service_that_comes_later_is_waited_for() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let starting = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        let listener = TcpListener::bind(address).unwrap();
        Fake::on(listener, |_, call| Answer::Items(vec![201; call.ids.len()]))
    });
    let run = Run::new(&format!("http://{address}"), &[], &records(5));
    run.outcome.unwrap();
    let fake = starting.join().unwrap();
    assert_eq!(fake.indexed_once(), ids(0..5));
    assert!(run.sink.counts.retried >= 5);
}

#[test]
fn a_service_that_does_not_answer_is_given_up() {
    let fake = Fake::start(|number, call| {
        if number == 0 {
            thread::sleep(Duration::from_millis(60));
        }
        Answer::Items(vec![200; call.ids.len()])
    });
    let run = Run::new(&fake.url(), &["--timeout=30ms"], &records(2));
    run.outcome.unwrap();
    // The first call worked too: the second has written the same documents.
    assert!(fake.calls().len() >= 2);
    assert_eq!(run.sink.counts.indexed, 2);
}

#[test]
fn calls_that_are_too_large_are_halved_until_they_fit() {
    let limit = 1000;
    let fake = Fake::start(move |_, call| {
        if call.body.len() > limit {
            Answer::Whole(413, "")
        } else {
            Answer::Items(vec![201; call.ids.len()])
        }
    });
    let large = record(&"x".repeat(255)).replace("1.10", &format!("\"{}\"", "y".repeat(limit)));
    let input = records(20) + &large + &record("last");
    let run = Run::new(&fake.url(), &[], &input);
    run.outcome.as_ref().unwrap();
    let mut expected = ids(0..20);
    expected.insert(0, "last".to_owned());
    assert_eq!(fake.indexed_once(), expected);
    assert_eq!(
        run.refused(),
        [(21, "the service finds the record too large (413)")]
    );
    assert_eq!(run.rejects[0]["raw"], large.trim_end());
}

#[test]
fn what_no_call_can_mend_ends_the_run_and_shows_no_secret() {
    for (status, says) in [
        (401, "other credentials"),
        (403, "let this user write"),
        (404, "refuses the call (404)"),
        (400, "refuses the call (400)"),
        (307, "redirects (307)"),
    ] {
        let fake = Fake::start(move |_, _| Answer::Whole(status, "{\"error\":\"so\"}"));
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "canary\n").unwrap();
        let file = file.to_str().unwrap();
        let flags = ["--user", "me", "--password-file", file, "--gzip"];
        let run = Run::new(&fake.url(), &flags, &records(3));
        let error = run.sink.explain(run.outcome.unwrap_err());
        let error = format!("{error:#}");
        for part in [&fake.url(), says, "3 records were read and not delivered"] {
            assert!(error.contains(part), "{part:?} in {error:?}");
        }
        assert!(!error.contains("canary") && !error.contains("bWU6Y2FuYXJ5"));
        assert!(!format!("{:?}", run.sink).contains("canary"));
        let calls = fake.calls();
        assert_eq!(calls.len(), 1, "{status}");
        let head = &calls[0].head;
        assert!(head.contains("authorization: Basic bWU6Y2FuYXJ5\r\n"));
    }
}

#[test]
fn compressed_calls_hold_the_same() {
    let fake = Fake::willing();
    let run = Run::new(&fake.url(), &["--gzip"], &records(50));
    run.outcome.unwrap();
    assert_eq!(fake.indexed_once(), ids(0..50));
    assert!(fake.calls()[0].head.contains("content-encoding: gzip\r\n"));
}

#[test]
fn a_bad_record_is_set_aside_before_it_is_sent() {
    let fake = Fake::willing();
    let input = format!(
        "{}\n\nno json\n[1]\n{{\"messageId\":\"\"}}\n{}",
        record("a").trim_end(),
        record("b").trim_end()
    );
    let run = Run::new(&fake.url(), &[], &input);
    run.outcome.as_ref().unwrap();
    assert_eq!(fake.indexed_once(), ["a", "b"]);
    let lines: Vec<u64> = run.refused().iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [3, 4, 5]);
}

#[test]
fn a_slow_trickle_is_sent_by_its_age() {
    let fake = Fake::willing();
    let url = fake.url();
    let flags = ["rv-es-sink", "--url", &url, "--index=i", "--batch-age=1h"];
    let args = EsSinkArgs::try_parse_from(flags).unwrap();
    let mut stage = Stage::new(EsSinkArgs::NAME, args.run_args()).unwrap();
    let mut sink = EsSink::new(&stage, &args).unwrap();
    assert_eq!(sink.due(), None, "an idle sink sleeps");
    let text = record("a");
    let line = Line {
        bytes: text.trim_end().as_bytes(),
        number: 1,
        offset: 0,
        oversized: None,
    };
    sink.line(&mut stage, "in", &line, &mut Vec::new()).unwrap();
    sink.before_wait(&mut stage).unwrap();
    assert!(fake.calls().is_empty());
    let left = sink.due().unwrap() - Instant::now();
    assert!(Duration::from_secs(3500) < left && left <= Duration::from_secs(3600));
    sink.age_max = Duration::ZERO;
    sink.before_wait(&mut stage).unwrap();
    assert_eq!(fake.indexed_once(), ["a"]);
    assert_eq!(sink.due(), None);
}

#[test]
fn the_command_line_is_checked() {
    let outcome = |flags: &[&str]| -> Result<()> {
        let all = ["rv-es-sink"].into_iter().chain(flags.iter().copied());
        let args = EsSinkArgs::try_parse_from(all)?;
        let stage = Stage::new(EsSinkArgs::NAME, args.run_args())?;
        EsSink::new(&stage, &args).map(|_| ())
    };
    let url = "--url=http://127.0.0.1:1";
    outcome(&[url, "--index=i"]).unwrap();
    outcome(&["--url=https://search.example:9200", "--index=i-%Y"]).unwrap();
    EsSinkArgs::try_parse_from(["rv-es-sink", "--man"]).unwrap();
    for wrong in [
        &[url][..],
        &["--index=i"],
        &[url, "--index=I"],
        &["--url=localhost:9200", "--index=i"],
        &[url, "--index=i", "--batch-bytes=0"],
        &[url, "--index=i", "--batch-records=0"],
        &[url, "--index=i", "--timeout=0s"],
        &[url, "--index=i", "--ca-file=/dev/null"],
        &[url, "--index=i", "--password-file=/dev/null"],
        &[url, "--index=i", "--api-key-file=/dev/null"],
        &[url, "--index=i", "--user=me", "--password-file=/dev/null"],
        &[url, "--index=i", "--user=me", "--api-key-file=/dev/null"],
    ] {
        assert!(outcome(wrong).is_err(), "{wrong:?}");
    }
}
