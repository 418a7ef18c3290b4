//! The whole architecture, built from programs and named pipes.

use std::io::Write;
use std::thread;

use rustix::process::Signal;

use crate::harness::{Finished, Running, Workdir, dt_then_lr, json, request, stat};
use crate::http::{Client, calls_with, front_end};

/// A pipeline that reads `requests` and writes `responses`: a tee, the models `dt` and
/// `lr`, a decoy and a rendezvous.
pub struct Pipeline {
    pub stages: Vec<Running>,
}

impl Pipeline {
    pub fn start(workdir: &Workdir) -> Pipeline {
        Pipeline::start_under(workdir, &dt_then_lr(5000, 2500))
    }

    pub fn start_under(workdir: &Workdir, policy: &str) -> Pipeline {
        for pipe in ["requests", "dt.in", "lr.in", "decoy.in", "rendezvous.in"] {
            workdir.fifo(pipe);
        }
        for pipe in ["dt.scores", "lr.scores", "responses"] {
            workdir.fifo(pipe);
        }
        workdir.train_iris_models();
        workdir.write("policy.toml", policy);
        let score = |model: &str| {
            let run = workdir
                .run("rv-score")
                .args(["--model", &format!("{model}.json")]);
            run.args([
                "-i",
                &format!("{model}.in"),
                "-o",
                &format!("{model}.scores"),
            ])
        };
        let rendezvous = workdir.run("rv-rendezvous");
        let rendezvous = rendezvous
            .args(["--requests", "rendezvous.in", "--policy", "policy.toml"])
            .args(["--scores", "dt.scores", "lr.scores", "-o", "responses"])
            .args(["--linger", "100ms", "--stats", "rendezvous.json"]);
        let decoy = workdir
            .run("rv-decoy")
            .args(["-i", "decoy.in", "-o", "decoyed"]);
        let tee = workdir.shell("exec tee dt.in lr.in decoy.in < requests > rendezvous.in");
        let stages = [rendezvous, score("dt"), score("lr"), decoy, tee];
        Pipeline {
            stages: stages.map(|stage| stage.start()).into(),
        }
    }

    pub fn wait(self) -> Vec<Finished> {
        self.stages.into_iter().map(Running::wait).collect()
    }
}

fn assert_balanced(workdir: &Workdir) {
    let of = |name| stat(workdir, "rendezvous.json", name);
    assert_eq!(
        of("requests"),
        of("answersByModels") + of("refused") + of("defaults") + of("repeated")
    );
    let fates = ["used", "unused", "late", "duplicate", "orphaned", "failed"];
    assert_eq!(of("scores"), fates.map(of).iter().sum::<u64>());
}

#[test]
fn every_call_of_many_at_once_gets_its_own_answer() {
    const CONNECTIONS: usize = 100;
    const CALLS: usize = 100;
    let workdir = Workdir::new();
    let pipeline = Pipeline::start(&workdir);
    let (front, address) = front_end(&workdir, &[]);
    let ready = crate::harness::eventually(|| {
        let reply = Client::connect(&address).predict(&flower(0));
        (reply.status == 200).then_some(())
    });
    assert!(ready.is_some(), "the pipeline does not answer");
    let callers: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            let address = address.clone();
            thread::spawn(move || {
                let mut client = Client::connect(&address);
                for call in 0..CALLS {
                    let mark = 1 + connection * CALLS + call;
                    let reply = client.predict(&flower(mark));
                    assert_eq!(reply.status, 200, "{reply:?}");
                    let answer = reply.json();
                    assert_eq!(answer["modelInput"]["mark"], mark);
                    assert_eq!(answer["modelResult"]["modelName"], "dt");
                    let id = answer["messageId"].as_str().unwrap();
                    assert_eq!(reply.header("x-rv-message-id"), Some(id));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    front.signal(Signal::TERM);
    front.wait().assert_status(0);
    for stage in pipeline.wait() {
        stage.assert_status(0);
    }
    let calls = calls_with(&workdir, 200);
    assert!(calls > (CONNECTIONS * CALLS) as u64);
    let stats = json(&workdir.read("rendezvous.json"));
    assert_eq!(stats["answersByReason"]["preferred"], calls);
    assert_eq!(workdir.read("decoyed").lines().count() as u64, calls);
    assert_balanced(&workdir);
}

pub fn flower(mark: usize) -> String {
    format!(
        "{{\"sepalLength\":9,\"sepalWidth\":10,\"petalLength\":11,\"petalWidth\":12,\"mark\":{mark}}}"
    )
}

#[test]
fn a_file_runs_through_the_ring_and_every_line_is_answered() {
    let workdir = Workdir::new();
    let pipeline = Pipeline::start(&workdir);
    let input: String = (0..20_000).map(|mark| flower(mark) + "\n").collect();
    workdir.write("flowers", input);
    let run = workdir
        .run("rv-request")
        .args(["-i", "flowers", "-o", "requests"]);
    let run = run.args(["--responses", "responses", "--answers", "answers"]);
    run.args(["--max-in-flight", "256"]).succeeds();
    for stage in pipeline.wait() {
        stage.assert_status(0);
    }
    let mut marks: Vec<u64> = workdir
        .read("answers")
        .lines()
        .map(|line| json(line)["modelInput"]["mark"].as_u64().unwrap())
        .collect();
    marks.sort_unstable();
    assert!(marks.iter().copied().eq(0..20_000));
    assert_balanced(&workdir);
}

#[test]
fn a_stage_makes_room_for_its_successor_and_nothing_is_lost() {
    let workdir = Workdir::new();
    // A signal may come before the shell has made the file.
    let (input, output) = (workdir.fifo("in"), workdir.write("out", ""));
    // Keeps the pipe open between one stage and its successor.
    let held = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&input)
        .unwrap();
    let count = 40_000;
    let writing = thread::spawn(move || {
        let mut writer = crate::harness::open_writer(&input);
        for number in 0..count {
            writeln!(writer, "{}", request(&number.to_string())).unwrap();
        }
    });
    let mut lines = 0;
    let mut restarts = 0;
    let mut seen = String::new();
    while lines < count {
        let run = workdir.shell("exec rv-decoy -i in >> out");
        let running = run.start();
        thread::sleep(std::time::Duration::from_millis(10));
        running.signal(Signal::TERM);
        let finished = running.wait();
        // A signal that arrives before the handlers are installed ends the program at
        // once.
        assert!([0, 143].contains(&finished.status), "{finished}");
        seen = std::fs::read_to_string(&output).unwrap();
        lines = seen.lines().count();
        restarts += 1;
    }
    writing.join().unwrap();
    drop(held);
    assert!(restarts > 1, "it was over too soon");
    for (number, line) in seen.lines().enumerate() {
        assert_eq!(line, request(&number.to_string()));
    }
}

#[test]
fn sigint_to_all_loses_nothing() {
    let workdir = Workdir::new();
    let script = "rv-request | rv-decoy | rv-decoy > out";
    let mut run = workdir.shell(script);
    // A terminal, too, would start the pipeline in its own process group.
    std::os::unix::process::CommandExt::process_group(&mut run.command, 0);
    let mut running = run.start();
    running.write("{}\n".repeat(1000));
    let out = workdir.path("out");
    let all = crate::harness::eventually(|| {
        let text = std::fs::read_to_string(&out).ok()?;
        (text.lines().count() == 1000).then_some(())
    });
    assert!(all.is_some());
    running.write("{}\n".repeat(500));
    let group = rustix::process::Pid::from_raw(running.id() as i32).unwrap();
    thread::sleep(std::time::Duration::from_millis(50));
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    drop(running.stdin.take());
    let ended = crate::harness::eventually(|| {
        let text = std::fs::read_to_string(&out).unwrap();
        (text.lines().count() == 1500).then_some(())
    });
    assert!(ended.is_some(), "{}", workdir.read("out").lines().count());
    let _ = running.wait();
}

#[test]
fn an_answer_leaves_when_the_preferred_model_has_it_and_not_at_the_deadline() {
    let workdir = Workdir::new();
    let _pipeline = Pipeline::start(&workdir);
    let (_front, address) = front_end(&workdir, &[]);
    let mut client = Client::connect(&address);
    let ready =
        crate::harness::eventually(|| (client.predict(&flower(0)).status == 200).then_some(()));
    assert!(ready.is_some());
    // A hundred calls take less time than the deadline of one.
    let since = std::time::Instant::now();
    for mark in 1..=100 {
        assert_eq!(
            client.predict(&flower(mark)).header("x-rv-reason"),
            Some("preferred")
        );
    }
    assert!(since.elapsed() < std::time::Duration::from_millis(2500));
}

#[test]
fn while_the_production_model_hangs_the_canary_answers_by_the_policy() {
    let workdir = Workdir::new();
    let pipeline = Pipeline::start(&workdir);
    let (_front, address) = front_end(&workdir, &[]);
    let mut client = Client::connect(&address);
    let ready =
        crate::harness::eventually(|| (client.predict(&flower(0)).status == 200).then_some(()));
    assert!(ready.is_some());
    let dt = &pipeline.stages[1];
    dt.signal(Signal::STOP);
    let reply = client.predict(&flower(1));
    assert_eq!(
        (reply.status, reply.header("x-rv-model")),
        (200, Some("lr@0"))
    );
    assert_eq!(reply.header("x-rv-reason"), Some("fallback"));
    dt.signal(Signal::CONT);
    let reply = client.predict(&flower(2));
    assert_eq!(reply.header("x-rv-model"), Some("dt@1"));
}
