//! Tests of `rv-up`: the whole architecture from one file, and what happens to it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::callers::{Callers, Dice, at_work_in, setting};
use crate::harness::{Finished, Run, Workdir, checkout, dt_then_lr, eventually, json, program};
use crate::http::{Client, Reply};
use crate::model_server::{ModelServer, Reaction};

/// The front end and the listener of operators on free ports.
pub const PORTS: &str = "[front]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";

/// A flower, which both models call 2.
const FLOWER: &str = "{\"sepalLength\":9,\"sepalWidth\":10,\"petalLength\":11,\"petalWidth\":12}";

/// Both models of the demo.
pub const MODELS: &str = "[model.dt]\nfile = \"dt.json\"\n[model.lr]\nfile = \"lr.json\"\n";

/// Everything that `rv-up` runs in a folder. It ends with the test.
pub struct Up {
    pub workdir: Workdir,
    pub address: String,
    admin: String,
}

impl Up {
    /// Starts the models of the demo, with an archive and `more` in the file.
    pub fn start(more: &str) -> Up {
        let workdir = Workdir::new();
        workdir.train_iris_models();
        let policy = fs::read_to_string(checkout().join("fixtures/policy.toml")).unwrap();
        workdir.write("policy.toml", policy);
        Up::start_in(workdir, &format!("{PORTS}{more}\n[archive]\n{MODELS}"))
    }

    /// Starts what a file says.
    pub fn start_in(workdir: Workdir, file: &str) -> Up {
        workdir.write("rv.toml", file);
        let mut up = Up {
            workdir,
            address: String::new(),
            admin: String::new(),
        };
        up.start_again(&[]);
        up
    }

    fn start_again(&mut self, args: &[&str]) {
        let said = self.run(&[&["start"], args].concat());
        let addresses: Vec<&str> = said.stdout().split("http://").skip(1).collect();
        let address = |index: usize| {
            let text = addresses.get(index).copied().unwrap_or_default();
            text.split([',', '\n']).next().unwrap().to_owned()
        };
        (self.address, self.admin) = (address(0), address(1));
    }

    pub fn run(&self, args: &[&str]) -> Finished {
        let finished = self.finish(args);
        finished.assert_status(0);
        finished
    }

    pub fn finish(&self, args: &[&str]) -> Finished {
        command(&self.workdir, args).finish()
    }

    fn policy(&self, text: &str) {
        self.workdir.write("policy.toml", text);
        self.run(&["reload"]);
    }

    /// The number of a process that rv-up has noted; `None` if there is none.
    fn pid(&self, name: &str) -> Option<Pid> {
        let path = self.workdir.path(&format!("rv-run/processes/{name}"));
        let text = fs::read_to_string(path).ok()?;
        Pid::from_raw(text.split(' ').next()?.parse().ok()?)
    }

    /// Sends a signal to a process that rv-up has noted.
    fn signal(&self, name: &str, signal: Signal) {
        let pid = self
            .pid(name)
            .unwrap_or_else(|| panic!("no process of {name}"));
        // It may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }

    /// The counts of a stage, by the names that Prometheus sees.
    fn stats(&self, stage: &str) -> BTreeMap<String, u64> {
        let text = self.workdir.read(&format!("rv-run/stats/{stage}.prom"));
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse::<f64>().ok()? as u64))
        });
        samples.collect()
    }

    pub fn status(&self) -> serde_json::Value {
        let finished = self.finish(&["status", "--json"]);
        json(finished.stdout().trim_end())
    }

    /// The state of one stage; null if there is no such stage.
    fn state(&self, stage: &str) -> serde_json::Value {
        let status = self.status();
        let stages = status["stages"].as_array().unwrap().clone();
        let found = stages.into_iter().find(|it| it["name"] == stage);
        found.unwrap_or_default()
    }

    fn get(&self, path: &str, headers: &str) -> Reply {
        Client::connect(&self.admin).call("GET", path, headers, "")
    }

    fn ready(&self) {
        let ready = eventually(|| (self.finish(&["status"]).status == 0).then_some(()));
        assert!(ready.is_some(), "{}", self.finish(&["status"]));
    }

    /// The answer to one call. Connections that fail are made again.
    fn answer(&self) -> Reply {
        let answered = eventually(|| {
            let mut client = Client::try_connect(&self.address).ok()?;
            let call = format!(
                "POST /predict HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{FLOWER}",
                self.address,
                FLOWER.len()
            );
            client.try_call(&call).ok()
        });
        answered.unwrap()
    }

    fn log(&self, stage: &str) -> String {
        self.workdir.read(&format!("rv-run/logs/{stage}.log"))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // This call also ends the stages of a failed test.
        let _ = self.finish(&["stop"]);
    }
}

fn command(workdir: &Workdir, args: &[&str]) -> Run {
    workdir.run("rv-up").args(args)
}

fn assert_nothing_is_left(workdir: &Workdir) {
    let gone = eventually(|| at_work_in(workdir).is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}", at_work_in(workdir));
}

/// Checks that the counts of the rendezvous and of each keeping branch add up.
fn assert_balanced(up: &Up) {
    let stats = up.stats("rendezvous");
    let of = |name: &str| stats[&format!("rv_rendezvous_{name}_total")];
    let answers = ["answers_by_models", "refused", "defaults", "repeated"];
    assert_eq!(
        of("requests"),
        answers.map(of).iter().sum::<u64>(),
        "{stats:?}"
    );
    let fates = ["used", "unused", "late", "duplicate", "orphaned", "failed"];
    assert_eq!(of("scores"), fates.map(of).iter().sum::<u64>(), "{stats:?}");
    let stats = up.stats("tee");
    let keeping: Vec<&str> = { stats.keys() }
        .filter_map(|name| name.strip_prefix("rv_tee_written_total"))
        .filter(|labels| labels.contains("/keep/"))
        .collect();
    assert_eq!(keeping.len(), 2, "{stats:?}");
    for branch in keeping {
        let of = |name: &str| stats[&format!("rv_tee_{name}{branch}")];
        let gone = of("written_total") + of("dropped_total") + of("corrupt_total");
        assert_eq!(
            stats["rv_tee_in_total"] + of("recovered_total"),
            gone + of("queued") + of("spilled"),
            "{branch} of {stats:?}"
        );
    }
}

/// Checks that every file of an archive is complete gzip. Returns the number of lines.
fn archived(up: &Up, folder: &str) -> u64 {
    let folder = format!("rv-run/{folder}");
    let check = format!("gzip --test {folder}/*.gz && rv-archive cat {folder} | wc --lines");
    up.workdir
        .shell(&check)
        .succeeds()
        .stdout()
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn a_model_joins_is_ramped_promoted_and_another_leaves_and_no_call_fails() {
    let up = Up::start("");
    // lr may answer only after a second.
    let shadow = dt_then_lr(5000, 1000);
    up.policy(&shadow);
    let callers = Callers::start(&up.address, 4);
    callers.see("dt@1");
    up.workdir.train("decision-tree", "dt", 2);
    fs::rename(up.workdir.path("dt.json"), up.workdir.path("dt2.json")).unwrap();
    up.workdir.train("decision-tree", "dt", 1);
    let added = up.run(&["add", "dt2", "--shadow", "--model", "dt2.json"]);
    assert_eq!(added.stdout(), "added shadow.dt2\n");
    // A shadow scores and never answers.
    let scored = eventually(|| {
        let counts = up.state("dt2")["counts"]["out"].as_u64();
        counts.filter(|out| *out > 100)
    });
    assert!(scored.is_some(), "the shadow gets no requests");
    callers.see_only("dt@1");
    let ramp = "[split]\nkey = \"messageId\"\n[[share]]\nmodel = \"dt@2\"\nfrom = 0\nto = ";
    // The seat moves from shadow to model.
    let file = up
        .workdir
        .read("rv.toml")
        .replace("[shadow.dt2]", "[model.dt2]");
    up.workdir.write("rv.toml", file);
    up.policy(&format!("{shadow}{ramp}0.5\n"));
    callers.see("dt@2");
    callers.see("dt@1");
    up.policy(&format!("{shadow}{ramp}1.0\n"));
    callers.see_only("dt@2");
    up.policy(&shadow.replace("dt = 1", "dt = 2"));
    callers.see_only("dt@2");
    up.run(&["remove", "dt"]);
    up.run(&["remove", "lr"]);
    callers.see_only("dt@2");
    let status = up.run(&["status"]);
    assert!(status.stdout().ends_with("ready\n"), "{status}");
    assert!(
        status.stdout().contains("degraded: the policy names lr@0"),
        "{status}"
    );
    assert!(!status.stdout().contains("\nlr "), "{status}");
    let statuses = callers.end();
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200]);
    up.run(&["stop"]);
    assert_nothing_is_left(&up.workdir);
    assert_balanced(&up);
    assert_eq!(archived(&up, "archive"), statuses[&200]);
    assert_eq!(archived(&up, "decisions"), statuses[&200]);
}

#[test]
fn a_shadow_never_answers_whatever_it_claims() {
    let up = Up::start("");
    // The shadow claims to be the production model, answers faster, and is wrong.
    let twin = ["--exec", "sed -u s/.*/77/", "--model-name", "dt"];
    up.run(&[&["add", "twin", "--shadow"], &twin[..]].concat());
    let scored = eventually(|| {
        let answer = up.answer();
        assert_eq!(answer.status, 200);
        assert_ne!(json(&answer.body)["modelResult"]["result"], 77);
        let counts = up.state("twin")["counts"]["out"].as_u64();
        counts.filter(|out| *out > 50)
    });
    assert!(scored.is_some(), "the shadow gets no requests");
    // A command may write any score, and cannot answer either. The policy wants version 9,
    // which only a shadow runs.
    let command = r#"sed -u 's/"timestamp".*/"result":{"modelName":"dt","result":77}}/'"#;
    let command = serde_json::to_string(command).unwrap();
    let shadows = format!(
        "\n[shadow.claims]\ncommand = {command}\n\
         [shadow.ninth]\nexec = \"cat\"\nname = \"dt\"\nversion = 9\n"
    );
    let file = up.workdir.read("rv.toml");
    up.workdir.write("rv.toml", file + &shadows);
    let policy = dt_then_lr(300, 100).replace("dt = 1", "dt = 9");
    up.workdir.write("policy.toml", policy);
    let reloaded = up.run(&["reload"]);
    let warning = "names dt@9, but only [shadow.ninth] runs it";
    assert!(reloaded.stdout().contains(warning), "{reloaded}");
    for _ in 0..30 {
        assert_ne!(json(&up.answer().body)["modelResult"]["result"], 77);
    }
    up.run(&["stop"]);
}

#[test]
fn a_model_that_is_too_slow_for_the_traffic_answers_what_it_can() {
    let workdir = Workdir::new();
    // 20 ms a request: 50 a second.
    let slow = "import sys, time\nfor line in sys.stdin:\n    time.sleep(0.02)\n    \
                print(1, flush=True)\n";
    workdir.write("slow.py", slow);
    let policy = "deadline_ms = 500\n[versions]\nslow = 1\n[[prefer]]\nafter_ms = 0\n\
                  models = [\"slow\"]\n[default]\nmodelResult = { result = \"none\" }\n";
    workdir.write("policy.toml", policy);
    let file = format!("{PORTS}\n[model.slow]\nexec = \"python3 slow.py\"\n");
    let up = Up::start_in(workdir, &file);
    // 40 callers, each with two calls a second: 80 calls a second, for 10 s.
    let calls = |number: u64| {
        std::thread::sleep(Duration::from_millis(number * 12));
        let begun = Instant::now();
        let answered = (1..=20).filter(|call| {
            let is_answered = !up.answer().body.contains("none");
            let next = begun + Duration::from_millis(500) * *call;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            is_answered
        });
        answered.count()
    };
    let answered: usize = std::thread::scope(|scope| {
        let calls = &calls;
        let callers = (0..40).map(|number| scope.spawn(move || calls(number)));
        let callers: Vec<_> = callers.collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .sum()
    });
    // The model can answer five eighths of the calls.
    let share = answered as f64 / 800.0;
    println!("answered by the model: {share}");
    assert!(share >= 0.5, "{share}");
    up.run(&["stop"]);
}

#[test]
fn what_cannot_be_is_refused_before_anything_starts() {
    let workdir = Workdir::new();
    workdir.train_iris_models();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let policy = dt_then_lr(1000, 500);
    let busy = format!("[front]\n\nlisten = \"{taken}\"\n{MODELS}");
    let busy_admin =
        format!("[front]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"{taken}\"\n{MODELS}");
    for (file, policy, status, said) in [
        (
            "[front]\nlisten = \"x\"\n[back]\n",
            &*policy,
            2,
            "rv.toml:3: \"back\" is no key of the file",
        ),
        (
            "[front]\n\nmax_bodi = 3\n[model.a]\nfile = \"dt.json\"\n",
            &policy,
            2,
            "rv.toml:3: rv-request: unexpected argument '--max-bodi'",
        ),
        (
            "[front]\ntimeout = \"soon\"\n[model.a]\nfile = \"dt.json\"\n",
            &policy,
            2,
            "rv.toml:2: rv-request: invalid value 'soon'",
        ),
        (
            "[model.a]\nexec = \"no-such-program x\"\n",
            &policy,
            2,
            "rv.toml:2: no-such-program: no such program",
        ),
        (
            "[model.a]\nfile = \"none.json\"\n",
            &policy,
            2,
            "rv.toml:2: none.json: cannot open the model",
        ),
        (
            "[model.a]\nexec = \"cat\"\nbatsh = 3\n",
            &policy,
            2,
            "rv.toml:3: rv-score: unexpected argument '--batsh'",
        ),
        (
            "[model.\"../x\"]\nexec = \"cat\"\n",
            &policy,
            2,
            "rv.toml:1: \"../x\" cannot name a model",
        ),
        (
            "[shadow.a]\nfile = \"dt.json\"\n",
            &policy,
            2,
            "no model may answer",
        ),
        (
            "dir = \".\"\n[model.a]\nfile = \"dt.json\"\n",
            &policy,
            2,
            "rv.toml: the run folder is the folder of the file",
        ),
        (MODELS, "nonsense", 2, "policy.toml:1: "),
        (&busy, &policy, 3, "rv.toml:3: cannot listen at 127.0.0.1:"),
        (
            &busy_admin,
            &policy,
            3,
            "rv.toml:4: cannot listen at 127.0.0.1:",
        ),
        (
            "[front]\nlisten = \"0.0.0.0:0\"\n[model.dt]\nfile = \"dt.json\"\n",
            &policy,
            2,
            "rv.toml:2: 0.0.0.0:0 can be reached from other machines",
        ),
    ] {
        workdir.write("rv.toml", file);
        workdir.write("policy.toml", policy);
        let refused = command(&workdir, &["start"]).exits(status);
        assert!(refused.stderr.contains(said), "{said}: {refused}");
        assert!(at_work_in(&workdir).is_empty());
    }
    workdir.write("rv.toml", format!("{PORTS}{MODELS}"));
    fs::remove_file(workdir.path("policy.toml")).unwrap();
    let refused = command(&workdir, &["start"]).exits(2);
    assert!(
        refused
            .stderr
            .contains("there is no policy, and rv.toml has 2 models"),
        "{refused}"
    );
    let missing = command(&workdir, &["start", "none.toml"]).exits(2);
    assert!(
        missing.stderr.contains("none.toml: cannot read"),
        "{missing}"
    );
    let stopped = command(&workdir, &["status"]).exits(3);
    assert!(
        stopped.stderr.contains("start it with `rv-up start`"),
        "{stopped}"
    );
}

#[test]
fn a_change_that_cannot_be_is_refused_and_leaves_nothing() {
    let up = Up::start("");
    let file = up.workdir.read("rv.toml");
    let pipes = || {
        let list = up.workdir.shell("find rv-run -type p | sort").succeeds();
        list.stdout().to_owned()
    };
    let before = pipes();
    up.workdir.write("damaged.json", "{}");
    for (args, status, said) in [
        (&["start"][..], 3, "is up already"),
        (&["add", "tee", "--exec", "cat"], 2, "a stage has this name"),
        (&["add", "../x", "--exec", "cat"], 2, "cannot name a model"),
        (
            &["add", "x", "--exec", "no-such-program"],
            2,
            "no such program",
        ),
        (&["add", "x", "--model", "none.json"], 2, "none.json"),
        (&["add", "x", "--model", "damaged.json"], 2, "damaged.json"),
        (
            &["add", "x", "--exec", "cat", "--", "--batsh=1"],
            2,
            "unexpected argument '--batsh'",
        ),
        // The program is there, and ends at once.
        (
            &[
                "add",
                "x",
                "--command",
                "sh -c 'echo no licence >&2; exit 7'",
            ],
            3,
            "x ended with status 7: no licence",
        ),
        (
            &["add", "dt", "--exec", "cat"],
            2,
            "dt exists already; remove it first",
        ),
        (&["remove", "front"], 2, "no model is called front"),
        (
            &["logs", "nobody"],
            2,
            "there is no log of nobody; there are archive, decisions",
        ),
    ] {
        let refused = up.finish(args);
        refused.assert_status(status);
        assert!(refused.stderr.contains(said), "{said}: {refused}");
    }
    assert_eq!(up.workdir.read("rv.toml"), file);
    assert_eq!(pipes(), before);
    up.workdir
        .write("rv.toml", file.replace("[archive]", "[archive]\nlevel = 1"));
    let refused = up.finish(&["reload"]);
    refused.assert_status(2);
    assert!(
        refused.stderr.contains("`rv-up stop` and `rv-up start`"),
        "{refused}"
    );
    up.workdir.write("rv.toml", file);
    assert_eq!(up.answer().status, 200);
}

#[test]
fn commands_at_once_are_commands_in_turn() {
    let up = Up::start("");
    let add = |name: &str| {
        let args = [
            "add",
            name,
            "--shadow",
            "--exec",
            "cat",
            "--model-version",
            "9",
        ];
        command(&up.workdir, &args).start()
    };
    // One of three with the same name is added, and both with different names are.
    let same: Vec<Finished> = ["same"; 3]
        .map(add)
        .map(crate::harness::Running::wait)
        .into();
    let joined = same.iter().filter(|it| it.status == 0).count();
    assert_eq!(joined, 1, "{} {} {}", same[0], same[1], same[2]);
    let refused = same
        .iter()
        .filter(|it| it.stderr.contains("same exists already"));
    assert_eq!(refused.count(), 2);
    for added in ["one", "two"].map(add).map(crate::harness::Running::wait) {
        added.assert_status(0);
    }
    let file = up.workdir.read("rv.toml");
    for name in ["same", "one", "two"] {
        assert_eq!(
            file.matches(&format!("[shadow.{name}]")).count(),
            1,
            "{file}"
        );
        assert_eq!(up.state(name)["state"], "up");
    }
}

#[test]
fn what_was_added_and_removed_is_the_same_after_a_stop_and_a_start() {
    let mut up = Up::start("# Our service.");
    let before = up.workdir.read("rv.toml");
    up.run(&[
        "add",
        "next",
        "--shadow",
        "--exec",
        "cat",
        "--model-version",
        "4",
        "--",
        "--batch=8",
    ]);
    up.run(&["remove", "lr"]);
    let names = |up: &Up| -> Vec<(String, String)> {
        let status = up.status();
        let stages = status["stages"].as_array().unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let mut names: Vec<_> = { stages.iter() }
            .map(|stage| (text(&stage["name"]), text(&stage["model"])))
            .collect();
        names.sort();
        names
    };
    let running = names(&up);
    assert!(
        running.contains(&("next".to_owned(), "next@4".to_owned())),
        "{running:?}"
    );
    up.run(&["stop"]);
    assert_nothing_is_left(&up.workdir);
    let stopped = up.finish(&["status"]);
    stopped.assert_status(3);
    assert!(stopped.stdout().contains("not ready"), "{stopped}");
    // To stop what is down is no fault.
    up.run(&["stop"]);
    up.start_again(&[]);
    assert_eq!(names(&up), running);
    assert_eq!(up.answer().status, 200);
    up.run(&["remove", "next"]);
    let after = up.workdir.read("rv.toml");
    assert_eq!(
        after,
        before.replace("[model.lr]\nfile = \"lr.json\"\n", "")
    );
}

#[test]
fn a_second_model_does_not_change_who_answers_after_a_start() {
    let workdir = Workdir::new();
    workdir.train_iris_models();
    let mut up = Up::start_in(workdir, &format!("{PORTS}[model.dt]\nfile = \"dt.json\"\n"));
    up.run(&["add", "lr", "--model", "lr.json"]);
    up.run(&["stop"]);
    up.start_again(&[]);
    assert_eq!(up.answer().header("x-rv-model"), Some("dt@1"));
    let policy = up.workdir.read("policy.toml");
    assert!(policy.contains("models = [\"dt@1\"]"), "{policy}");
    let names = up.run(&["status"]);
    assert!(names.stdout().contains("\nlr "), "{names}");
}

#[test]
fn nothing_outlives_a_stop_in_the_middle_of_a_start_or_an_add() {
    let mut up = Up::start("");
    for delay in [0, 50, 200] {
        let args = [
            "add",
            "late",
            "--shadow",
            "--exec",
            "cat",
            "--model-version",
            "9",
        ];
        let add = command(&up.workdir, &args).start();
        thread::sleep(Duration::from_millis(delay));
        up.run(&["stop"]);
        let added = add.wait();
        assert!([0, 3].contains(&added.status), "{added}");
        assert_nothing_is_left(&up.workdir);
        let starting = command(&up.workdir, &["start"]).start();
        thread::sleep(Duration::from_millis(delay));
        up.run(&["stop"]);
        starting.wait();
        up.run(&["stop"]);
        assert_nothing_is_left(&up.workdir);
        up.start_again(&[]);
        if up.state("late") != serde_json::Value::Null {
            up.run(&["remove", "late"]);
        }
    }
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let workdir = Workdir::new();
    let broken = "[model.a]\ncommand = \"sh -c 'echo no licence >&2; exit 7'\"\n";
    workdir.write("rv.toml", format!("{PORTS}{broken}"));
    let refused = command(&workdir, &["start"]).exits(3);
    assert!(
        refused.stderr.contains("a ended with status 7: no licence"),
        "{refused}"
    );
    assert_nothing_is_left(&workdir);
    // In the foreground, too.
    let refused = command(&workdir, &["start", "--foreground"]).exits(3);
    assert!(
        refused.stderr.contains("a ended with status 7: no licence"),
        "{refused}"
    );
    assert_nothing_is_left(&workdir);
}

#[test]
fn in_the_foreground_it_runs_until_sigterm() {
    let workdir = Workdir::new();
    workdir.train_iris_models();
    workdir.write("policy.toml", dt_then_lr(1000, 500));
    workdir.write("rv.toml", format!("{PORTS}{MODELS}"));
    let running = command(&workdir, &["start", "--foreground"]).start();
    let up = eventually(|| {
        let status = command(&workdir, &["status"]).finish();
        (status.status == 0).then_some(())
    });
    assert!(up.is_some());
    running.signal(Signal::TERM);
    running.wait().assert_status(0);
    assert_nothing_is_left(&workdir);
}

/// RV_CHAOS_SEED repeats a run. RV_CHAOS_SECONDS sets its length.
#[test]
fn stages_the_supervisor_and_the_holder_die_at_random_and_models_answer_again() {
    let now = crate::harness::now() as u64;
    let seed = setting("RV_CHAOS_SEED", now);
    println!("RV_CHAOS_SEED={seed}");
    let mut dice = Dice(seed);
    let up = Up::start("");
    up.run(&[
        "add",
        "shadow",
        "--shadow",
        "--exec",
        "sed -u s/.*/1/",
        "--model-version",
        "3",
    ]);
    let callers = Callers::start(&up.address, 8);
    callers.see("dt@1");
    let names = [
        "tee",
        "rendezvous",
        "dt",
        "lr",
        "shadow",
        "archive",
        "decisions",
        "supervisor",
        "holder",
    ];
    let end = Instant::now() + Duration::from_secs(setting("RV_CHAOS_SECONDS", 60));
    let mut stopped: Vec<(Instant, Pid)> = Vec::new();
    let mut kills: BTreeMap<&str, u32> = BTreeMap::new();
    while Instant::now() < end {
        thread::sleep(Duration::from_millis(dice.below(500)));
        stopped.retain(|(until, pid)| {
            let is_over = *until <= Instant::now();
            if is_over {
                let _ = kill_process(*pid, Signal::CONT);
            }
            !is_over
        });
        let name = names[dice.below(names.len() as u64) as usize];
        let Some(pid) = up.pid(name) else {
            continue;
        };
        if dice.below(2) == 0 {
            // The process may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
            *kills.entry(name).or_default() += 1;
            if ["supervisor", "holder"].contains(&name) {
                // The other one may be stopped, and could not start this one.
                for (_, pid) in stopped.drain(..) {
                    let _ = kill_process(pid, Signal::CONT);
                }
                // One of both starts the other; who kills both at once has stopped it.
                let again = eventually(|| up.pid(name).filter(|new| *new != pid));
                assert!(again.is_some(), "the {name} is not started again");
            }
        } else if kill_process(pid, Signal::STOP).is_ok() {
            let until = Instant::now() + Duration::from_millis(dice.below(1500));
            stopped.push((until, pid));
        }
    }
    for (_, pid) in stopped {
        let _ = kill_process(pid, Signal::CONT);
    }
    assert!(kills.values().sum::<u32>() > 10, "{kills:?} are no chaos");
    // Afterwards the production model answers again.
    callers.see_only("dt@1");
    let slowest = *callers.seen.slowest.lock().unwrap();
    let statuses = callers.end();
    println!("{kills:?}, statuses {statuses:?}, slowest {slowest:?}");
    assert!(
        statuses
            .keys()
            .all(|status| [200, 503, 504].contains(status))
    );
    assert!(statuses[&200] > 1000, "{statuses:?}");
    // The limit is far above the front end's time-out, because the machine may be busy.
    assert!(slowest < Duration::from_secs(30), "{slowest:?}");
    up.ready();
    for name in names {
        assert!(up.pid(name).is_some(), "{name}");
    }
    // There is one process of each stage.
    let all = at_work_in(&up.workdir);
    for program in [
        "rv-tee ",
        "rv-rendezvous ",
        "rv-request ",
        "rv-archive --input=rv-run/keep",
    ] {
        let count = all.iter().filter(|it| it.contains(program)).count();
        assert_eq!(count, 1, "{program}: {all:?}");
    }
    up.run(&["stop"]);
    assert_nothing_is_left(&up.workdir);
    assert_balanced(&up);
    assert!(archived(&up, "decisions") > 0 && archived(&up, "archive") > 0);
}

#[test]
fn a_front_end_that_is_killed_refuses_no_connection() {
    let up = Up::start("");
    for round in 0..10 {
        up.signal("front", Signal::KILL);
        // The connection waits in the listening socket until the next front end takes it.
        let mut client = Client::try_connect(&up.address).unwrap();
        let call = format!("GET /ping HTTP/1.1\r\nhost: {}\r\n\r\n", up.address);
        match client.try_call(&call) {
            Ok(reply) => assert_eq!(reply.status, 200),
            // The dying front end had taken this connection.
            Err(error) => println!("round {round}: {error}"),
        }
        assert_eq!(up.answer().status, 200);
    }
    let restarts = up.state("front")["restarts"].as_u64().unwrap();
    assert!(restarts >= 9, "{restarts}");
}

#[test]
fn an_inherited_descriptor_does_not_take_the_place_of_the_listening_socket() {
    let workdir = Workdir::new();
    workdir.train_iris_models();
    workdir.write(
        "rv.toml",
        format!("{PORTS}[model.dt]\nfile = \"dt.json\"\n"),
    );
    let start = workdir.shell("exec rv-up start 3< /dev/null").succeeds();
    let address = start.stdout().split("http://").nth(1).unwrap().to_owned();
    let up = Up {
        workdir,
        address: address.split(',').next().unwrap().to_owned(),
        admin: String::new(),
    };
    for _ in 0..2 {
        assert_eq!(up.answer().header("x-rv-model"), Some("dt@1"));
        up.signal("front", Signal::KILL);
        // A refused connection would be an error.
        drop(Client::connect(&up.address));
    }
}

#[test]
fn everything_goes_on_while_the_supervisor_and_the_holder_are_dead() {
    let up = Up::start("");
    let callers = Callers::start(&up.address, 2);
    callers.see("dt@1");
    for name in ["supervisor", "holder", "supervisor", "holder"] {
        let before = up.pid(name);
        let dt = up.pid("dt");
        up.signal(name, Signal::KILL);
        let again = eventually(|| up.pid(name).filter(|pid| Some(*pid) != before));
        assert!(again.is_some(), "the {name} is not started again");
        up.ready();
        // The stages are taken over, and not started again.
        assert_eq!(up.pid("dt"), dt);
    }
    // What is killed now has the new holder to thank for its pipes.
    for stage in ["tee", "rendezvous", "dt"] {
        let before = up.pid(stage);
        up.signal(stage, Signal::KILL);
        let again = eventually(|| up.pid(stage).filter(|pid| Some(*pid) != before));
        assert!(again.is_some(), "{stage}");
        callers.see("dt@1");
    }
    let statuses = callers.end();
    assert!(statuses[&200] > 100, "{statuses:?}");
    up.run(&[
        "add",
        "next",
        "--shadow",
        "--exec",
        "cat",
        "--model-version",
        "4",
    ]);
    up.run(&["stop"]);
    assert_nothing_is_left(&up.workdir);
}

#[test]
fn what_both_leave_is_ended_by_the_next_start_or_stop() {
    let mut up = Up::start("");
    let kill_both = |up: &Up| {
        for name in ["holder", "supervisor"] {
            up.signal(name, Signal::STOP);
        }
        for name in ["holder", "supervisor"] {
            up.signal(name, Signal::KILL);
        }
    };
    kill_both(&up);
    assert!(!at_work_in(&up.workdir).is_empty());
    let status = up.finish(&["status"]);
    status.assert_status(3);
    up.run(&["stop"]);
    assert_nothing_is_left(&up.workdir);
    up.start_again(&[]);
    kill_both(&up);
    up.start_again(&[]);
    assert_eq!(up.answer().status, 200);
    let all = at_work_in(&up.workdir);
    assert_eq!(
        all.iter().filter(|it| it.contains("rv-tee ")).count(),
        1,
        "{all:?}"
    );
}

#[test]
fn the_production_model_stopped_the_canary_answers_and_a_stuck_stage_is_shown() {
    let up = Up::start("[supervision]\nstuck_after = \"2s\"");
    up.run(&[
        "add",
        "shadow",
        "--shadow",
        "--exec",
        "cat",
        "--model-version",
        "3",
        "--restart-when-stuck",
    ]);
    let callers = Callers::start(&up.address, 4);
    callers.see_only("dt@1");
    let shadow = up.pid("shadow");
    up.signal("shadow", Signal::STOP);
    up.signal("dt", Signal::STOP);
    callers.see_only("lr@0");
    let shown = eventually(|| (up.state("dt")["state"] == "stuck").then_some(()));
    assert!(shown.is_some(), "{}", up.status());
    let body = up.get("/readyz", "");
    assert_eq!(body.status, 200, "{body:?}");
    assert!(body.body.contains("dt makes no progress"), "{body:?}");
    assert!(
        up.log("dt").contains("it has read nothing for"),
        "{}",
        up.log("dt")
    );
    // The shadow's file says that it is restarted.
    let again = eventually(|| up.pid("shadow").filter(|pid| Some(*pid) != shadow));
    assert!(again.is_some(), "{}", up.log("shadow"));
    up.signal("dt", Signal::CONT);
    callers.see_only("dt@1");
    let well = eventually(|| (up.state("dt")["state"] == "up").then_some(()));
    assert!(well.is_some());
    let statuses = callers.end();
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200]);
    up.run(&["stop"]);
    assert_balanced(&up);
}

#[test]
fn it_is_ready_only_while_a_model_that_may_answer_is_up() {
    let workdir = Workdir::new();
    let server = ModelServer::start(|_| Reaction::Answer(200, "{\"label\":\"a\"}".to_owned()));
    let file = format!(
        "{PORTS}[supervision]\nstuck_after = \"1s\"\n[model.production]\nurl = \"http://{}/x\"\n\
         [shadow.next]\nexec = \"cat\"\n",
        server.address
    );
    let up = Up::start_in(workdir, &file);
    let body = up.get("/readyz", "");
    assert_eq!(
        (body.status, body.json()),
        (200, serde_json::json!({"ready": true, "degraded": []}))
    );
    assert_eq!(up.answer().json()["modelResult"]["result"]["label"], "a");
    // A dead shadow is a blemish.
    up.signal("next", Signal::STOP);
    let seen = eventually(|| {
        up.answer();
        up.get("/readyz", "")
            .body
            .contains("next makes no progress")
            .then_some(())
    });
    assert!(seen.is_some());
    assert_eq!(up.get("/readyz", "").status, 200);
    up.signal("next", Signal::CONT);
    // A stage of the path that makes no progress is not.
    up.signal("rendezvous", Signal::STOP);
    let mut caller = Client::connect(&up.address);
    caller.send(format!(
        "POST /predict HTTP/1.1\r\nhost: {}\r\ncontent-length: 2\r\n\r\n{{}}",
        up.address
    ));
    let seen = eventually(|| (up.get("/readyz", "").status == 503).then(|| up.get("/readyz", "")));
    assert_eq!(
        seen.unwrap().json()["reason"],
        "rendezvous makes no progress"
    );
    let status = up.finish(&["status"]);
    status.assert_status(3);
    assert!(
        status
            .stdout()
            .contains("not ready: rendezvous makes no progress"),
        "{status}"
    );
    up.signal("rendezvous", Signal::CONT);
    up.ready();
}

#[test]
fn a_policy_that_names_what_never_reports_is_warned_of() {
    let up = Up::start("");
    let policy = up.workdir.read("policy.toml").replace("dt = 1", "dt = 2");
    up.workdir.write("policy.toml", policy);
    let reloaded = up.run(&["reload"]);
    assert!(
        reloaded.stdout().contains(
            "warning: policy.toml: names dt@2, and no model of this name and version runs; dt@1 \
             runs, and is not wanted"
        ),
        "{reloaded}"
    );
    let status = up.run(&["status"]);
    assert!(
        status.stdout().contains("degraded: the policy names dt@2"),
        "{status}"
    );
    assert_eq!(up.answer().header("x-rv-model"), Some("lr@0"));
}

#[test]
fn without_a_policy_the_production_model_alone_answers() {
    let workdir = Workdir::new();
    let (seen, slow) = (
        std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)),
        Duration::from_millis(1500),
    );
    let counted = std::sync::Arc::clone(&seen);
    let server = ModelServer::start(move |call| {
        assert!(call.head.starts_with("POST /classify"), "{}", call.head);
        counted.fetch_add(1, Ordering::Relaxed);
        Reaction::Slow(slow, "{\"label\":\"spam\"}".to_owned())
    });
    let url = format!("http://{}/classify", server.address);
    workdir.write(
        "next.py",
        "import sys\nfor line in sys.stdin:\n    print('\"ham\"', flush=True)\n",
    );
    let mut up = Up {
        workdir,
        address: String::new(),
        admin: String::new(),
    };
    let args = [
        "--production",
        &url,
        "--shadow",
        "python3 next.py",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    up.start_again(&args);
    // Clients call the path that they called before, and get the same bytes.
    let call = |up: &Up| Client::connect(&up.address).call("POST", "/classify", "", "{\"a\": 1}");
    let reply = call(&up);
    assert_eq!(
        (reply.status, reply.body.trim_end()),
        (200, "{\"label\":\"spam\"}")
    );
    let scored = eventually(|| {
        up.state("shadow")["counts"]["out"]
            .as_u64()
            .filter(|it| *it > 0)
    });
    assert!(scored.is_some());
    up.run(&["stop"]);
    // The file brings the same up.
    up.start_again(&[]);
    let reply = call(&up);
    assert_eq!(
        (reply.status, reply.body.trim_end()),
        (200, "{\"label\":\"spam\"}")
    );
    assert_eq!(seen.load(Ordering::Relaxed), 2);
    let decided = up.status();
    assert_eq!(decided["stages"][0]["name"], "decisions", "{decided}");
    up.run(&["stop"]);
    let other = ["start", "--production", "http://127.0.0.1:9/other"];
    let refused = up.finish(&other);
    refused.assert_status(2);
    assert!(
        refused
            .stderr
            .contains("rv.toml exists and says something else"),
        "{refused}"
    );
}

#[test]
fn operators_get_the_metrics_of_all_stages_in_one_place() {
    let up = Up::start("");
    assert_eq!(up.answer().status, 200);
    let there = eventually(|| {
        let text = up.get("/metrics", "").body;
        let wanted = [
            "rv_rendezvous_requests_total{stage=\"rendezvous\"} 1\n",
            "rv_score_in_total{stage=\"dt\"} 1\nrv_score_in_total{stage=\"lr\"} 1\n",
            "rv_request_in_total{stage=\"front\"} 1\n",
            "rv_tee_written_total{stage=\"tee\",branch=\"rv-run/models/dt\"} 1\n",
            "rv_archive_in_total{stage=\"archive\"} 1\n",
            "rv_up_ready 1\n",
        ];
        wanted.iter().all(|it| text.contains(it)).then_some(text)
    });
    let text = there.unwrap_or_else(|| up.get("/metrics", "").body);
    // Each metric has one block.
    let types = text.lines().filter(|line| line.starts_with("# TYPE"));
    let mut names: Vec<&str> = types.map(|line| line.split(' ').nth(2).unwrap()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() == count && count > 20, "{text}");
    let status = up.get("/status.json", "").json();
    assert_eq!(
        (&status["ready"], &status["listen"]),
        (&true.into(), &up.address.clone().into())
    );
    let page = up.get("/", "");
    assert!(page.body.contains("<!doctype html>"), "{page:?}");
    assert_eq!(up.get("/nothing", "").status, 404);
    let mut client = Client::connect(&up.admin);
    assert_eq!(client.call("POST", "/status.json", "", "").status, 405);
    client.send("GET /status.json HTTP/1.1\r\nhost: evil.example\r\n\r\n");
    assert_eq!(client.reply().status, 421);
}

#[test]
fn operators_need_the_token_for_everything_but_the_health() {
    let workdir = Workdir::new();
    workdir.train_iris_models();
    workdir.write("token", "secret-of-operators\n");
    let file = format!("{PORTS}token_file = \"token\"\n[model.dt]\nfile = \"dt.json\"\n");
    let up = Up::start_in(workdir, &file);
    for path in ["/metrics", "/status.json"] {
        assert_eq!(up.get(path, "").status, 401);
        assert_eq!(up.get(path, "authorization: Bearer wrong\r\n").status, 401);
        let right = up.get(path, "authorization: Bearer secret-of-operators\r\n");
        assert_eq!(right.status, 200);
    }
    for path in ["/healthz", "/readyz", "/"] {
        assert_eq!(up.get(path, "").status, 200);
    }
}

#[test]
fn each_line_of_a_log_has_its_time_and_a_healthy_log_has_no_fault() {
    let up = Up::start("");
    up.run(&[
        "add",
        "next",
        "--shadow",
        "--exec",
        "cat",
        "--model-version",
        "4",
    ]);
    let callers = Callers::start(&up.address, 2);
    callers.see("dt@1");
    callers.end();
    up.run(&["remove", "next"]);
    up.run(&["stop"]);
    let mut lines = 0;
    for entry in fs::read_dir(up.workdir.path("rv-run/logs")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines() {
            let (time, said) = line.split_once(' ').unwrap();
            assert!(
                time.len() == 24 && time.ends_with('Z') && time.contains('T'),
                "{line}"
            );
            for fault in [
                "error",
                "cannot",
                "panicked",
                "ended with",
                "ending it by force",
                "torn",
            ] {
                assert!(!said.contains(fault), "{line}");
            }
            lines += 1;
        }
    }
    assert!(lines >= 4, "{lines} lines");
    let front = up.run(&["logs", "front", "-n", "1"]);
    assert_eq!(front.lines().len(), 1);
    let own = up.run(&["logs"]);
    assert!(
        own.stdout().contains("added shadow.next")
            && own.stdout().contains("all stages have ended"),
        "{own}"
    );
}

#[test]
fn a_program_that_writes_scores_is_restarted_with_a_new_line() {
    let workdir = Workdir::new();
    let model = checkout().join("examples/model.py");
    let command_line = format!("python3 '{}'", model.display());
    let file = format!("{PORTS}[model.nearest]\ncommand = \"{command_line}\"\n");
    let up = Up::start_in(workdir, &file);
    let flower = "{\"sepalLength\":5.9,\"sepalWidth\":3.2,\"petalLength\":4.8,\"petalWidth\":1.8}";
    for _ in 0..3 {
        let reply = Client::connect(&up.address).predict(flower);
        assert_eq!(reply.header("x-rv-model"), Some("nearest@1"), "{reply:?}");
        let before = up.pid("nearest");
        up.signal("nearest", Signal::KILL);
        let again = eventually(|| up.pid("nearest").filter(|pid| Some(*pid) != before));
        assert!(again.is_some());
    }
    assert_eq!(up.state("nearest")["kind"], "model");
}

#[test]
fn the_demo_is_one_command() {
    let workdir = Workdir::new();
    let demo = command(
        &workdir,
        &[
            "demo",
            "try",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ],
    );
    let said = demo.succeeds();
    let address = said.stdout().split("up at http://").nth(1).unwrap();
    let address = address.split(',').next().unwrap().to_owned();
    let flower = "{\"sepalLength\":5.1,\"sepalWidth\":3.5,\"petalLength\":1.4,\"petalWidth\":0.2}";
    let reply = Client::connect(&address).predict(flower);
    assert_eq!(
        (reply.status, reply.header("x-rv-model")),
        (200, Some("dt@1"))
    );
    command(&workdir, &["--file", "try/rv.toml", "stop"]).succeeds();
    assert_nothing_is_left(&workdir);
    workdir.write("other", "");
    let refused = command(&workdir, &["demo", "."]).exits(2);
    assert!(refused.stderr.contains("is not empty"), "{refused}");
}

#[test]
fn the_folder_of_the_file_may_have_any_name() {
    let workdir = Workdir::new();
    let folder = format!("--a 'run' {}", "x".repeat(120));
    fs::create_dir(workdir.path(&folder)).unwrap();
    workdir.write(
        &format!("{folder}/rv.toml"),
        format!("dir = \"my run\"\n{PORTS}[model.a]\nexec = \"cat\"\n"),
    );
    let file = format!("--file={folder}/rv.toml");
    command(&workdir, &[&file, "start"]).succeeds();
    let added = [
        "add",
        "next",
        "--shadow",
        "--exec",
        "cat",
        "--model-version",
        "2",
    ];
    command(&workdir, &[&[&*file][..], &added].concat()).succeeds();
    command(&workdir, &[&file, "status"]).succeeds();
    command(&workdir, &[&file, "stop"]).succeeds();
    assert!(fs::exists(workdir.path(&format!("{folder}/my run/stats"))).unwrap());
    assert_nothing_is_left(&workdir);
}

#[test]
fn the_demo_runs_from_any_folder_and_cargo_may_build_elsewhere() {
    let workdir = Workdir::new();
    // Copies the checkout, and makes a `cargo` that reports programs as already built.
    let top = workdir.path("--check out");
    fs::create_dir(&top).unwrap();
    for folder in ["scripts", "fixtures"] {
        let run = workdir.shell("cp --recursive -- \"$0\" \"$1\"");
        let run = run.arg(checkout().join(folder));
        run.arg(&top).succeeds();
    }
    let bin = program("rv-score").parent().unwrap().to_owned();
    fs::create_dir(workdir.path("tools")).unwrap();
    workdir.write(
        "tools/cargo",
        "#!/usr/bin/env bash\n\
         target=$(realpath --canonicalize-missing -- \"${CARGO_TARGET_DIR:-target}\")\n\
         mkdir --parents -- \"$target\"\n\
         ln --symbolic --force --no-target-directory -- \"$BUILT\" \"$target/release\"\n\
         echo '{\"reason\":\"build-finished\",\"success\":true}'\n\
         echo \"{\\\"reason\\\":\\\"compiler-artifact\\\",\\\"executable\\\":\\\"$target/release/rv-score\\\",\\\"fresh\\\":true}\"\n",
    );
    for (target, script) in [
        (None, "cd -- '--check out'; bash scripts/demo.sh"),
        (
            Some(workdir.path("elsewhere and more")),
            "bash -- '--check out/scripts/demo.sh'",
        ),
    ] {
        let mut run = workdir.shell(&format!(
            "chmod +x tools/cargo; PATH=$PWD/tools:$PATH; {script}"
        ));
        run.command
            .env("BUILT", &bin)
            .env_remove("RV_BIN")
            .env_remove("CARGO_TARGET_DIR");
        if let Some(target) = target {
            run.command.env("CARGO_TARGET_DIR", target);
        }
        let finished = run.succeeds();
        assert!(!finished.stderr.contains(".sh: line "), "{finished}");
    }
    assert!(fs::exists(workdir.path("elsewhere and more/release/rv-score")).unwrap());
    assert_nothing_is_left(&workdir);
}
