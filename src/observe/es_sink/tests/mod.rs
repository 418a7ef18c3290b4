//! Tests of the sink with a service that gives chosen answers.

mod fake;

use std::fs;
use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::thread;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::Value;
use tempfile::TempDir;

use self::fake::{Answer, BLOCKED, CREATE_ONLY, Fake, TOO_MANY_FIELDS, WELL_BUT};
use super::*;
use crate::stage::filter::{Background, Filter};
use crate::wire::lines::Line;

fn record(id: &str) -> String {
    format!(
        "{{\"messageId\":\"{id}\",\"timestamp\":1644370787.021771,\"modelInput\":{{\"x\":1.10}}}}\n"
    )
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

/// The results of a run.
struct Run {
    outcome: Result<()>,
    sink: EsSink,
    rejects: Vec<Value>,
    /// The records that were passed on.
    passed: String,
}

impl Run {
    /// Runs the sink on `input` until it ends.
    fn new(url: &str, flags: &[&str], input: &str) -> Run {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (from, rejects) = (path("in"), path("rejects"));
        fs::write(&from, input).unwrap();
        let mut all = vec!["rv-es-sink", "--url", url, "-i", &from, "-q"];
        let output = path("out");
        all.extend(["--index", "i", "--rejects", &rejects]);
        if flags.contains(&"--pass") {
            all.extend(["-o", &output]);
        }
        all.extend(flags);
        if !flags.iter().any(|flag| flag.starts_with("--retry-max")) {
            all.extend(["--retry-min", "1ms", "--retry-max", "4ms"]);
        }
        let args = EsSinkArgs::try_parse_from(all).unwrap();
        let mut stage = Stage::new(EsSinkArgs::NAME, args.run_args()).unwrap();
        let options = args.check().unwrap();
        let mut sink = EsSink::new(&stage, &options).unwrap();
        let streams = Streams::open_input(&options.input).unwrap();
        let outcome = sink
            .check_service(&mut stage)
            .and_then(|()| filter::run(&mut stage, streams, &mut sink))
            .map_err(|error| sink.reject_undelivered(&mut stage, error));
        stage.report.flush().unwrap();
        let text = fs::read_to_string(&rejects).unwrap();
        let rejects: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            sink.counts.records_in,
            sink.counts.indexed + rejects.len() as u64,
            "the counts add up"
        );
        Run {
            outcome,
            sink,
            rejects,
            passed: fs::read_to_string(&output).unwrap_or_default(),
        }
    }

    /// The numbers of the rejected lines, and the reasons.
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
         {\"messageId\":\"a\",\"modelInput\":{\"x\":1.10},\"timestamp\":\"2022-02-09T01:39:47.021771Z\"}\n"
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
    assert_eq!(fake.calls().len(), 1, "nothing is read before it is there");
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
    // The service accepted the first call, too. But the sink counts each record once,
    // because the second call wrote the same documents.
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
        (403, "let this user do this"),
        (404, "refuses the call (404)"),
        (400, "cannot read the call (400)"),
        (307, "redirects (307)"),
    ] {
        let fake = Fake::start(move |_, _| Answer::Whole(status, "{\"error\":\"so\"}"));
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "canary\n").unwrap();
        let file = file.to_str().unwrap();
        let flags = ["--user", "me", "--password-file", file, "--gzip"];
        let run = Run::new(&fake.url(), &flags, &records(3));
        let error = format!("{:#}", run.outcome.unwrap_err());
        for part in [&fake.url(), says, "3 records were read and not delivered"] {
            assert!(error.contains(part), "{part:?} in {error:?}");
        }
        assert!(!error.contains("canary") && !error.contains("bWU6Y2FuYXJ5"));
        assert!(!format!("{:?}", run.sink).contains("canary"));
        // No record is lost: the records that were read are in the rejects.
        assert_eq!(run.rejects.len(), 3);
        let calls = fake.calls();
        // After status 400, the sink sends the records in smaller calls, because a
        // single record may be the cause. The second call has one record, and its
        // failure ends the run.
        assert_eq!(calls.len(), if status == 400 { 2 } else { 1 }, "{status}");
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

/// A sink that no loop runs, and the stage that its functions need.
fn alone(url: &str, flags: &[&str]) -> (Stage, EsSink) {
    let all = ["rv-es-sink", "-q", "--index=i", "--url", url];
    let all = all.iter().chain(flags);
    let args = EsSinkArgs::try_parse_from(all).unwrap();
    let stage = Stage::new(EsSinkArgs::NAME, args.run_args()).unwrap();
    let sink = EsSink::new(&stage, &args.check().unwrap()).unwrap();
    (stage, sink)
}

fn give(stage: &mut Stage, sink: &mut EsSink, text: &str) {
    let line = Line {
        bytes: text.trim_end().as_bytes(),
        number: 1,
        offset: 0,
        oversized: None,
    };
    sink.line(stage, "in", &line, &mut Vec::new()).unwrap();
    sink.before_wait(stage).unwrap();
}

#[test]
fn a_slow_trickle_is_sent_by_its_age() {
    let fake = Fake::willing();
    let (mut stage, mut sink) = alone(&fake.url(), &["--batch-age=1h"]);
    assert_eq!(sink.due(), None, "an idle sink sleeps");
    give(&mut stage, &mut sink, &record("a"));
    assert!(fake.calls().is_empty());
    let left = sink.due().unwrap() - Instant::now();
    assert!(Duration::from_secs(3500) < left && left <= Duration::from_secs(3600));

    let (mut stage, mut sink) = alone(&fake.url(), &["--batch-age=0s"]);
    give(&mut stage, &mut sink, &record("a"));
    assert_eq!(sink.pending(), 1);
    assert_eq!(sink.due(), None, "the end of the call wakes it");
    sink.finish(&mut stage).unwrap();
    assert_eq!(fake.indexed_once(), ["a"]);
    assert_eq!((sink.due(), sink.pending()), (None, 0));
    assert!(sink.streams().is_empty());
}

#[test]
fn calls_overlap_up_to_the_number_of_connections() {
    for connections in [1, 3] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // The service answers only after the largest number of calls has arrived.
        let waiting = thread::spawn(move || {
            let mut streams = Vec::new();
            while streams.len() < connections {
                streams.push(listener.accept().unwrap().0);
            }
            listener.set_nonblocking(true).unwrap();
            (listener, streams)
        });
        let flag = format!("--connections={connections}");
        let (mut stage, mut sink) = alone(&url, &[&flag, "--batch-records=2", "--timeout=60s"]);
        for number in 0..2 * connections + 2 {
            give(&mut stage, &mut sink, &record(&id(number)));
        }
        let (listener, streams) = waiting.join().unwrap();
        assert_eq!(sink.streams().len(), connections);
        assert_eq!(
            sink.pending(),
            2 * connections + 2,
            "one more batch fills meanwhile"
        );
        assert!(listener.accept().is_err(), "no call more");
        drop(streams);
    }
}

#[test]
fn of_several_addresses_those_that_answer_do_the_work() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = dead.local_addr().unwrap();
    drop(dead);
    let failing = Fake::start(|_, _| Answer::Whole(503, ""));
    let (one, two) = (Fake::willing(), Fake::willing());
    let urls = [format!("http://{address}"), failing.url(), two.url()];
    let mut flags = vec!["--batch-records=2", "--retry-min=1h", "--retry-max=1h"];
    for url in &urls {
        flags.extend(["--url", url]);
    }
    let run = Run::new(&one.url(), &flags, &records(20));
    run.outcome.unwrap();
    assert_eq!(failing.calls().len(), 1, "it is left alone");
    let mut all = one.indexed_once();
    assert!(all.len() >= 8 && two.indexed_once().len() >= 8, "in turn");
    all.extend(two.indexed_once());
    all.sort();
    assert_eq!(all, ids(0..20));
}

#[test]
fn credentials_that_stop_working_are_read_again_and_nothing_is_lost() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, "old").unwrap();
    let fresh = file.clone();
    let fake = Fake::start(move |number, call| {
        let statuses = vec![201; call.ids.len()];
        match number {
            0 => Answer::Items(statuses),
            1 => Answer::Whole(401, "{}"),
            2 => {
                fs::write(&fresh, "new").unwrap();
                Answer::Whole(403, "{}")
            }
            3 => Answer::Whole(404, "not now"),
            _ => Answer::Items(statuses),
        }
    });
    let flags = [
        "--batch-records=2",
        "--api-key-file",
        file.to_str().unwrap(),
    ];
    let run = Run::new(&fake.url(), &flags, &records(6));
    run.outcome.unwrap();
    assert_eq!(fake.indexed_once(), ids(0..6));
    let calls = fake.calls();
    let key = |call: &fake::Call| call.head.split("ApiKey ").nth(1).unwrap()[..3].to_owned();
    let keys: Vec<String> = calls.iter().map(key).collect();
    assert_eq!(keys, ["old", "old", "old", "new", "new", "new"]);
}

#[test]
fn an_index_that_is_read_only_holds_its_records_and_not_those_of_others() {
    let fake = Fake::start(|number, call| {
        let status = |id: &String| match id.starts_with("blocked") && number < 6 {
            true => BLOCKED,
            false => 201,
        };
        Answer::Items(call.ids.iter().map(status).collect())
    });
    let input = record("blocked-1") + &records(8);
    let run = Run::new(&fake.url(), &["--batch-records=3"], &input);
    run.outcome.unwrap();
    let mut expected = ids(0..8);
    expected.insert(0, "blocked-1".to_owned());
    assert_eq!(fake.indexed_once(), expected);
    assert!(run.rejects.is_empty());
    let last = fake.calls().pop().unwrap();
    assert_eq!(last.ids, ["blocked-1"], "the others have overtaken it");
}

#[test]
fn a_record_that_never_passes_while_others_do_is_set_aside() {
    let fake = Fake::start(|_, call| {
        let status = |id: &String| if id == "poison" { 500 } else { 201 };
        Answer::Items(call.ids.iter().map(status).collect())
    });
    let input = record("poison") + &records(40);
    let flags = ["--batch-records=2", "--give-up=0s"];
    let run = Run::new(&fake.url(), &flags, &input);
    run.outcome.as_ref().unwrap();
    assert_eq!(fake.indexed_once(), ids(0..40));
    let refused = run.refused();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].0, 1);
    assert!(
        refused[0]
            .1
            .contains("500 t500: because, for longer than --give-up"),
        "{refused:?}"
    );
}

#[test]
fn where_nothing_passes_nothing_is_given_up() {
    let fake = Fake::start(|number, call| {
        Answer::Items(vec![if number < 30 { 503 } else { 201 }; call.ids.len()])
    });
    let flags = ["--batch-records=4", "--give-up=0s"];
    let run = Run::new(&fake.url(), &flags, &records(12));
    run.outcome.unwrap();
    assert_eq!(fake.indexed_once(), ids(0..12));
    assert!(run.rejects.is_empty());
}

#[test]
fn one_record_that_spoils_its_call_is_found() {
    let fake = Fake::start(|_, call| {
        if call.ids.iter().any(|id| id == "poison") {
            Answer::Whole(400, r#"{"error":{"reason":"cannot be"}}"#)
        } else {
            Answer::Items(vec![201; call.ids.len()])
        }
    });
    let input = records(5) + &record("poison") + &record("r-005");
    let run = Run::new(&fake.url(), &[], &input);
    run.outcome.as_ref().unwrap();
    assert_eq!(fake.indexed_once(), ids(0..6));
    let refused = run.refused();
    assert_eq!(refused.len(), 1);
    assert!(refused[0].1.contains("\"cannot be\""), "{refused:?}");
}

#[test]
fn a_data_stream_is_known_by_its_answer() {
    let fake = Fake::start(|_, call| {
        let actions = call.body.lines().step_by(2);
        let status = |action: &str| match action.contains("\"create\"") {
            true if action.contains("r-001") => 409,
            true => 201,
            false => CREATE_ONLY,
        };
        Answer::Items(actions.map(status).collect())
    });
    let untimed = "{\"messageId\":\"untimed\"}\n";
    let input = records(4) + untimed;
    let run = Run::new(&fake.url(), &["--batch-records=3"], &input);
    run.outcome.as_ref().unwrap();
    assert_eq!(fake.indexed_once(), ids([0, 2, 3]));
    assert_eq!((run.sink.counts.indexed, run.sink.counts.present), (4, 1));
    assert!(run.refused()[0].1.contains("the target is a data stream"));
    let last = fake.calls().pop().unwrap();
    assert!(
        last.body
            .contains("\"@timestamp\":\"2022-02-09T01:39:47.021771Z\""),
        "{}",
        last.body
    );
}

#[test]
fn with_strict_the_other_records_of_the_call_are_accounted_for() {
    let fake = Fake::start(|_, call| {
        let status = |id: &String| match id.as_str() {
            "r-001" | "r-003" => 400,
            "r-002" => 503,
            _ => 201,
        };
        Answer::Items(call.ids.iter().map(status).collect())
    });
    let run = Run::new(&fake.url(), &["--strict", "--batch-records=5"], &records(9));
    let error = format!("{:#}", run.outcome.as_ref().unwrap_err());
    // Of five records, two were accepted; one may have been accepted, and the others
    // were not sent.
    assert!(
        error.contains("5 records were read and not delivered"),
        "{error}"
    );
    assert!(error.contains("in:2: refused: 400"), "{error}");
    let lines: Vec<u64> = run.refused().iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 4, 3, 6, 7, 8, 9]);
    assert_eq!(run.sink.counts.indexed, 2);
}

#[test]
fn a_redirect_takes_nothing_elsewhere() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = elsewhere.local_addr().unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let reply = format!(
        "HTTP/1.1 307 Moved\r\nLocation: http://{address}/_bulk\r\nContent-Length: 0\r\n\r\n"
    );
    let reply: &'static [u8] = reply.into_bytes().leak();
    let fake = Fake::start(move |_, _| Answer::Raw(reply));
    let run = Run::new(&fake.url(), &[], &records(2));
    let error = format!("{:#}", run.outcome.unwrap_err());
    assert!(error.contains("redirects (307)"), "{error}");
    assert!(elsewhere.accept().is_err(), "nobody came");
}

#[test]
fn the_pipeline_is_asked_for_and_named_in_each_call() {
    let fake = Fake::willing();
    let run = Run::new(&fake.url(), &["--pipeline=p-1"], &records(1));
    run.outcome.unwrap();
    let head = &fake.calls()[0].head;
    assert!(
        head.lines().next().unwrap().contains("&pipeline=p-1 "),
        "{head}"
    );
}

/// Calls are torn, delayed, answered with too many bytes or not answered, in an order
/// that a seed gives. In the end each record is indexed.
#[test]
fn whatever_the_service_does_each_record_is_there_in_the_end() {
    for seed in 0..20u64 {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let there = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
        let seen = Arc::clone(&there);
        let fake = Fake::start(move |number, call| {
            count.fetch_add(1, Ordering::Relaxed);
            let mut state = seed * 1_000_003 + number as u64;
            let mut roll = |sides: u64| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % sides
            };
            let troubled = number < 60 && roll(3) > 0;
            // The service may execute a call and still answer with an error.
            if !troubled || roll(2) == 0 {
                let statuses: Vec<u16> = call
                    .ids
                    .iter()
                    .map(|_| {
                        if troubled && roll(3) == 0 {
                            [429, 503, BLOCKED][roll(3) as usize]
                        } else {
                            201
                        }
                    })
                    .collect();
                for (id, status) in call.ids.iter().zip(&statuses) {
                    if *status == 201 {
                        seen.lock().unwrap().insert(id.clone());
                    }
                }
                if !troubled || roll(2) == 0 {
                    return Answer::Items(statuses);
                }
            }
            match roll(7) {
                0 => Answer::Whole(503, ""),
                1 => Answer::Whole(429, ""),
                2 => Answer::Raw(b""),
                3 => Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"items\":["),
                4 => Answer::Whole(200, "{\"items\":[]}"),
                5 => Answer::Whole(413, ""),
                _ => Answer::Whole(502, "<html>"),
            }
        });
        let flags = ["--batch-records=7", "--connections=3"];
        let run = Run::new(&fake.url(), &flags, &records(100));
        // A single record may have been refused as too large.
        run.outcome.unwrap();
        let set_aside: Vec<String> = run
            .rejects
            .iter()
            .map(|reject| id(reject["line"].as_u64().unwrap() as usize - 1))
            .collect();
        let mut all = there.lock().unwrap().clone();
        all.extend(set_aside);
        assert_eq!(
            all.into_iter().collect::<Vec<_>>(),
            ids(0..100),
            "seed {seed}"
        );
        assert!(calls.load(Ordering::Relaxed) >= 15);
    }
}

#[test]
fn a_record_that_says_more_than_there_is_room_for_is_indexed_by_its_named_fields() {
    let fake = Fake::start(|_, call| {
        let documents = call.body.lines().skip(1).step_by(2);
        let status = |document: &str| match document.contains("\"modelInput\":{\"x\"") {
            true => TOO_MANY_FIELDS,
            false => 201,
        };
        Answer::Items(documents.map(status).collect())
    });
    let run = Run::new(&fake.url(), &["--pass"], &records(3));
    run.outcome.unwrap();
    assert_eq!(fake.indexed_once(), ids(0..3));
    assert_eq!(run.sink.counts.narrowed, 3);
    assert_eq!(run.passed, records(3));
    let last = fake.calls().pop().unwrap();
    assert!(last.body.contains("\"asReceived\":\"{"), "{}", last.body);
    // If the service refuses the mapped fields, too, the record is rejected.
    let fake = Fake::start(|_, call| Answer::Items(vec![TOO_MANY_FIELDS; call.ids.len()]));
    let run = Run::new(&fake.url(), &[], &records(3));
    run.outcome.as_ref().unwrap();
    assert_eq!(fake.calls().len(), 2);
    assert!(run.refused()[2].1.contains("Limit of total fields [5]"));
    let run = Run::new(&fake.url(), &["--keep-shape"], &records(3));
    run.outcome.unwrap();
    assert_eq!(fake.calls().len(), 3);
}

#[test]
fn an_object_is_taken_apart_unless_its_shape_is_to_be_kept() {
    let record = record("a").replace("1.10", "{\"y\":1.10}");
    for (flags, part) in [
        (&[][..], "\"modelInput\":{\"x/y\":1.10},\"asReceived\":\"{"),
        (
            &["--keep-shape"],
            "\"modelInput\":{\"x\":{\"y\":1.10}},\"timestamp\"",
        ),
    ] {
        let fake = Fake::willing();
        Run::new(&fake.url(), flags, &record).outcome.unwrap();
        let body = &fake.calls()[0].body;
        assert!(body.contains(part), "{body}");
    }
}

#[test]
fn an_item_with_an_error_is_not_indexed_whatever_its_status() {
    let fake = Fake::start(|number, call| {
        Answer::Items(match number {
            0 => vec![201, WELL_BUT, 201],
            _ => vec![201; call.ids.len()],
        })
    });
    let run = Run::new(&fake.url(), &["--pass"], &records(3));
    run.outcome.unwrap();
    assert_eq!(fake.indexed_once(), ids(0..3));
    let calls: Vec<Vec<String>> = fake.calls().into_iter().map(|call| call.ids).collect();
    assert_eq!(calls, [ids(0..3), ids([1])]);
    assert_eq!(run.passed, records(3));
}

#[test]
fn what_has_too_much_to_do_is_left_alone_for_a_while() {
    type Busy = fn(usize) -> Answer;
    let busy: [Busy; 3] = [
        |_| Answer::Whole(429, ""),
        |count| Answer::Items(vec![429; count]),
        |_| Answer::Whole(503, ""),
    ];
    for busy in busy {
        let fake = Fake::start(move |number, call| match number {
            0..3 => busy(call.ids.len()),
            _ => Answer::Items(vec![201; call.ids.len()]),
        });
        let flags = ["--retry-min=40ms", "--retry-max=80ms"];
        let run = Run::new(&fake.url(), &flags, &records(2));
        run.outcome.unwrap();
        let calls = fake.calls();
        assert_eq!(calls.len(), 4);
        for (pair, least_ms) in calls.windows(2).zip([20, 40, 40]) {
            let waited = pair[1].at - pair[0].at;
            assert!(waited >= Duration::from_millis(least_ms), "{waited:?}");
        }
    }
}

#[test]
fn a_reply_without_an_end_is_given_up_in_bounded_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let counting = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The service reads the call first. A reply that precedes the call would be
        // invalid.
        let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while !line.starts_with("{\"messageId\"") {
            line.clear();
            assert!(reader.read_line(&mut line).unwrap() > 0);
        }
        // The announced length is far above the limit.
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 400000000\r\n\r\n{\"items\":[";
        let mut sent = 0;
        let mut piece = &head[..];
        while sent < 400_000_000 && stream.write_all(piece).is_ok() {
            sent += piece.len();
            piece = &[b' '; 65_536];
        }
        sent
    });
    let (mut stage, mut sink) = alone(
        &url,
        &["--batch-age=0s", "--retry-min=1h", "--retry-max=1h"],
    );
    give(&mut stage, &mut sink, &record("a"));
    let end = Instant::now() + Duration::from_secs(30);
    while sink.counts.retried == 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
        sink.before_wait(&mut stage).unwrap();
    }
    assert_eq!((sink.counts.retried, sink.pending()), (1, 1));
    let sent = counting.join().unwrap();
    let bounds = 64 << 20..100_000_000;
    assert!(bounds.contains(&sent), "{sent} bytes were read");
}

#[test]
fn what_is_indexed_is_passed_on_in_the_order_of_the_input() {
    // There are seven records. The service accepts the last records before the first
    // ones, and always refuses the third.
    let fake = Fake::start(|number, call| {
        let status = |id: &String| match id.as_str() {
            "r-002" => 400,
            "r-000" if number < 4 => 429,
            "r-001" if number < 2 => 503,
            "r-004" => 409,
            _ => 201,
        };
        Answer::Items(call.ids.iter().map(status).collect())
    });
    let flags = ["--pass", "--batch-records=3", "--connections=2", "--resume"];
    let input = records(2) + "no json\n" + &records(7)[records(2).len()..];
    let run = Run::new(&fake.url(), &flags, &input);
    run.outcome.as_ref().unwrap();
    let expected: String = [0, 1, 3, 4, 5, 6]
        .iter()
        .map(|number| record(&id(*number)))
        .collect();
    assert_eq!(run.passed, format!("\n{expected}"));
    assert_eq!(run.refused().len(), 2);
    let snapshot = format!("{:?}", run.sink.pass);
    assert!(snapshot.contains("passed: 6"), "{snapshot}");
}

#[test]
fn a_record_that_never_passes_holds_the_others_up_until_it_is_given_up() {
    let fake = Fake::start(|_, call| {
        let status = |id: &String| if id == "poison" { 500 } else { 201 };
        Answer::Items(call.ids.iter().map(status).collect())
    });
    let input = record("poison") + &records(200);
    let flags = [
        "--pass",
        "--pass-bytes=2KiB",
        "--batch-records=2",
        "--give-up=200ms",
    ];
    let began = Instant::now();
    let run = Run::new(&fake.url(), &flags, &input);
    run.outcome.as_ref().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200));
    // The sink had to stop reading: 2 KiB cannot hold all records that follow the
    // poisoned one.
    let poisoned = |call: &fake::Call| call.ids.iter().any(|id| id == "poison");
    let calls = fake.calls();
    let last = calls.iter().rposition(poisoned).unwrap();
    let before: usize = calls[..last].iter().map(|call| call.ids.len()).sum();
    assert!(
        calls[last + 1..].len() > 80 && before > 4,
        "{before} before"
    );
    assert_eq!(run.passed, records(200));
    assert_eq!(run.refused().len(), 1);
    assert!(run.refused()[0].1.contains("for longer than --give-up"));
}

#[test]
fn the_command_line_is_checked() {
    let outcome = |flags: &[&str]| -> Result<()> {
        let all = ["rv-es-sink"].into_iter().chain(flags.iter().copied());
        let args = EsSinkArgs::try_parse_from(all)?;
        let stage = Stage::new(EsSinkArgs::NAME, args.run_args())?;
        EsSink::new(&stage, &args.check()?).map(|_| ())
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
        &[url, "--index=i", "--connections=0"],
        &[url, "--index=i", "--connections=65"],
        &[url, "--index=i", "--pipeline=p/../x"],
        &[url, "--index=i", "--output=x"],
        &[url, "--index=i", "--resume"],
        &[url, "--index=i", "--pass-bytes=1MiB"],
        &[url, "--index=i", "--ca-file=/dev/null"],
        &[url, "--index=i", "--password-file=/dev/null"],
        &[url, "--index=i", "--api-key-file=/dev/null"],
        &[url, "--index=i", "--user=me", "--password-file=/dev/null"],
        &[url, "--index=i", "--user=me", "--api-key-file=/dev/null"],
    ] {
        assert!(outcome(wrong).is_err(), "{wrong:?}");
    }
}
