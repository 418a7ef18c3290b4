//! Tests of `scripts/up.sh`: models are added and removed during calls, and stages die.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Finished, Run, Workdir, checkout, dt_then_lr, eventually, json, program};
use crate::http::Client;

/// The stages that `up.sh` runs in a folder. The stages end with the test.
struct Up {
    workdir: Workdir,
    address: String,
}

impl Up {
    fn start(flags: &[&str]) -> Up {
        let workdir = Workdir::new();
        let ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let mut up = Up {
            workdir,
            address: String::new(),
        };
        let said = up.run("up", &[&ports[..], flags].concat());
        let address = said.stdout().split_once("http://").unwrap().1;
        up.address = address.split(',').next().unwrap().to_owned();
        up
    }

    fn run(&self, command: &str, args: &[&str]) -> Finished {
        let finished = self.finish(command, args);
        finished.assert_status(0);
        // The shell itself must not report an error in the script.
        assert!(!finished.stderr.contains(".sh: line "), "{finished}");
        finished
    }

    fn finish(&self, command: &str, args: &[&str]) -> Finished {
        command_of(&self.workdir, command, args).finish()
    }

    fn policy(&self, text: &str) {
        self.workdir.write("run/policy.toml", text);
        self.run("reload", &[]);
    }

    fn stats(&self, stage: &str) -> serde_json::Value {
        json(&self.workdir.read(&format!("run/stats/{stage}.json")))
    }

    /// The processes that the supervisor of a stage has started.
    fn processes(&self, stage: &str) -> Vec<Pid> {
        let path = self.workdir.path(&format!("run/stages/{stage}/pid"));
        // The file holds the number and the start time of the first process.
        let noted = fs::read_to_string(path).unwrap_or_default();
        let group = noted.split(' ').next().unwrap_or_default();
        let mut processes = Vec::new();
        for entry in fs::read_dir("/proc").unwrap() {
            let name = entry.unwrap().file_name();
            let pid = name.to_str().and_then(|name| name.parse().ok());
            let stat = fs::read_to_string(format!("/proc/{}/stat", name.display()));
            let (Some(pid), Ok(stat)) = (pid.and_then(Pid::from_raw), stat) else {
                continue;
            };
            let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
            // The fields are the state, the parent, the group and others.
            if fields.split(' ').nth(2) == Some(group) {
                processes.push(pid);
            }
        }
        processes
    }

    fn down(&self) {
        self.run("down", &[]);
    }
}

/// A command of `up.sh` for the folder `run`.
fn command_of(workdir: &Workdir, command: &str, args: &[&str]) -> Run {
    let script = checkout().join("scripts/up.sh");
    let mut run = workdir.shell("exec \"$0\" --dir run \"$@\"");
    run.command
        .env("RV_BIN", program("rv-score").parent().unwrap());
    run.arg(script).arg(command).args(args)
}

/// The command lines of the processes that work in the test's folder or below it.
pub fn at_work_in(workdir: &Workdir) -> Vec<String> {
    let folder = fs::canonicalize(workdir.path(".")).unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        // A process may end meanwhile. A zombie has no working folder.
        if fs::read_link(process.join("cwd")).is_ok_and(|it| it.starts_with(&folder)) {
            let words = fs::read(process.join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&words).replace('\0', " "));
        }
    }
    found
}

/// Checks that all processes end soon after `down`.
fn assert_nothing_is_left(workdir: &Workdir) {
    let gone = eventually(|| at_work_in(workdir).is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}", at_work_in(workdir));
}

impl Drop for Up {
    fn drop(&mut self) {
        // This call also ends the stages of a failed test.
        let _ = self.finish("down", &[]);
    }
}

/// Threads that call the front end again and again, and check each answer.
pub struct Callers {
    stop: Arc<AtomicBool>,
    pub seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
pub struct Seen {
    calls: AtomicU64,
    statuses: Mutex<BTreeMap<u16, u64>>,
    /// The models that have answered since this set was last cleared.
    models: Mutex<BTreeSet<String>>,
    pub slowest: Mutex<Duration>,
}

impl Callers {
    pub fn start(address: &str, count: u64) -> Callers {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Seen::default());
        let threads = (0..count).map(|caller| {
            let (address, stop, seen) = (address.to_owned(), Arc::clone(&stop), Arc::clone(&seen));
            thread::spawn(move || {
                let mut client = Client::connect(&address);
                for call in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    seen.call(&mut client, caller * 1_000_000_000 + call);
                }
            })
        });
        let threads = threads.collect();
        Callers {
            stop,
            seen,
            threads,
        }
    }

    /// Waits until the model answers.
    pub fn see(&self, model: &str) {
        self.seen.models.lock().unwrap().clear();
        let there = || self.seen.models.lock().unwrap().contains(model);
        let found = eventually(|| there().then_some(()));
        assert!(found.is_some(), "{model} never answers");
    }

    /// Waits until this model alone answers.
    pub fn see_only(&self, model: &str) {
        let mut last = BTreeSet::new();
        let found = eventually(|| {
            self.seen.models.lock().unwrap().clear();
            thread::sleep(Duration::from_millis(100));
            last = self.seen.models.lock().unwrap().clone();
            (last.len() == 1 && last.contains(model)).then_some(())
        });
        assert!(found.is_some(), "{last:?} answer");
    }

    /// Ends the calls, and checks that each was answered. Returns the number of answers
    /// with each status.
    pub fn end(self) -> BTreeMap<u16, u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let statuses = self.seen.statuses.lock().unwrap().clone();
        assert_eq!(
            statuses.values().sum::<u64>(),
            self.seen.calls.load(Ordering::Relaxed)
        );
        statuses
    }
}

impl Seen {
    fn call(&self, client: &mut Client, mark: u64) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let since = Instant::now();
        let reply = client.predict(&format!(
            "{{\"sepalLength\":9,\"sepalWidth\":10,\"petalLength\":11,\"petalWidth\":12,\"mark\":{mark}}}"
        ));
        if reply.status == 200 {
            assert_eq!(reply.json()["modelInput"]["mark"], mark);
            let model = reply.header("x-rv-model").unwrap_or("default");
            self.models.lock().unwrap().insert(model.to_owned());
        } else {
            assert!(reply.json()["error"].is_string(), "{reply:?}");
        }
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = slowest.max(since.elapsed());
        let mut statuses = self.statuses.lock().unwrap();
        *statuses.entry(reply.status).or_default() += 1;
    }
}

/// Checks that the counts of the rendezvous and of each keeping branch add up.
fn assert_balanced(up: &Up) {
    let stats = up.stats("rendezvous");
    let of = |name: &str| stats[name].as_u64().unwrap();
    assert_eq!(
        of("requests"),
        of("answersByModels") + of("refused") + of("defaults") + of("repeated")
    );
    let fates = ["used", "unused", "late", "duplicate", "orphaned", "failed"];
    assert_eq!(of("scores"), fates.map(of).iter().sum::<u64>());
    let stats = up.stats("tee");
    let branches = stats["written"].as_object().unwrap();
    assert!(branches.len() >= 3, "{stats}");
    for branch in branches.keys().filter(|branch| branch.starts_with("keep")) {
        let of = |name: &str| stats[name][branch].as_u64().unwrap();
        assert_eq!(
            stats["in"].as_u64().unwrap() + of("recovered"),
            of("written") + of("queued") + of("spilled") + of("dropped") + of("corrupt"),
            "{branch} of {stats}"
        );
    }
}

/// Checks that every file of an archive is complete gzip. Returns the lines.
fn archived(up: &Up, folder: &str) -> Vec<String> {
    let check = format!("gzip --test run/{folder}/*.gz && rv-archive cat run/{folder}");
    let finished = up.workdir.shell(&check).succeeds();
    finished.lines().into_iter().map(str::to_owned).collect()
}

#[test]
fn a_model_joins_is_ramped_promoted_and_another_leaves_and_no_call_fails() {
    let up = Up::start(&[]);
    // lr may answer only after a second.
    let shadow = dt_then_lr(5000, 1000);
    up.policy(&shadow);
    let callers = Callers::start(&up.address, 4);
    callers.see("dt@1");
    up.workdir.train("decision-tree", "dt", 2);
    fs::rename(up.workdir.path("dt.json"), up.workdir.path("dt2.json")).unwrap();
    let model = up.workdir.path("dt2.json");
    up.run(
        "add",
        &[
            "dt2",
            "rv-score",
            "--model",
            &model,
            "--stats",
            "stats/dt2.json",
        ],
    );
    // A shadow scores and never answers.
    let scored = eventually(|| {
        let stats = fs::read_to_string(up.workdir.path("run/stats/dt2.json")).ok()?;
        (json(&stats)["out"].as_u64()? > 100).then_some(())
    });
    assert!(scored.is_some(), "the shadow gets no requests");
    callers.see_only("dt@1");
    let ramp = "[split]\nkey = \"messageId\"\n[[share]]\nmodel = \"dt@2\"\nfrom = 0\nto = ";
    up.policy(&format!("{shadow}{ramp}0.5\n"));
    callers.see("dt@2");
    callers.see("dt@1");
    up.policy(&format!("{shadow}{ramp}1.0\n"));
    callers.see_only("dt@2");
    up.policy(&shadow.replace("dt = 1", "dt = 2"));
    callers.see_only("dt@2");
    up.run("remove", &["dt"]);
    up.run("remove", &["lr"]);
    callers.see_only("dt@2");
    let status = up.run("status", &[]);
    assert!(status.stdout().contains("ready"), "{status}");
    assert!(!status.stdout().contains("\nlr "), "{status}");
    let statuses = callers.end();
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200]);
    up.down();
    assert_balanced(&up);
    assert_eq!(archived(&up, "archive").len() as u64, statuses[&200]);
    assert_eq!(archived(&up, "decisions").len() as u64, statuses[&200]);
}

#[test]
fn what_cannot_be_is_refused() {
    let up = Up::start(&["--no-models"]);
    for (command, args, said) in [
        ("up", &[][..], "is up already"),
        ("add", &["tee", "cat"], "cannot name a model"),
        ("add", &["../x", "cat"], "cannot name a model"),
        ("add", &["x", "no-such-program"], "no such program"),
        ("remove", &["front"], "no model is called front"),
        ("remove", &["x"], "no model is called x"),
    ] {
        let refused = up.finish(command, args);
        assert!([2, 3].contains(&refused.status), "{refused}");
        assert!(refused.stderr.contains(said), "{refused}");
    }
    up.workdir.write("run/policy.toml", "nonsense");
    let refused = up.finish("reload", &[]);
    refused.assert_status(2);
    up.down();
    let status = up.finish("status", &[]);
    status.assert_status(3);
    assert!(status.stdout().contains("not ready"), "{status}");
}

#[test]
fn commands_at_once_are_commands_in_turn_and_nothing_outlives_down() {
    let mut up = Up::start(&["--no-models"]);
    up.workdir.train_iris_models();
    let model = up.workdir.path("lr.json");
    let shadow = ["same", "rv-score", "--model", &model];
    let adds: Vec<_> = (0..3)
        .map(|_| command_of(&up.workdir, "add", &shadow).start())
        .collect();
    let mut joined = 0;
    for add in adds {
        let finished = add.wait();
        joined += usize::from(finished.status == 0);
        assert!(
            finished.status == 0 || finished.stderr.contains("same exists already"),
            "{finished}"
        );
    }
    assert_eq!(joined, 1);
    let supervisors = |name: &str| {
        let wanted = format!("supervise {name} ");
        let all = at_work_in(&up.workdir);
        all.iter().filter(|it| it.contains(&wanted)).count()
    };
    assert_eq!(supervisors("same"), 1);
    // `down` runs in the middle of an `add`, after different delays.
    for delay in [0, 50, 200] {
        let late = ["late", "rv-score", "--model", &model];
        let add = command_of(&up.workdir, "add", &late).start();
        thread::sleep(Duration::from_millis(delay));
        up.down();
        let added = add.wait();
        assert!(
            added.status == 0 || added.stderr.contains("is not up"),
            "{added}"
        );
        assert_nothing_is_left(&up.workdir);
        let ports = [
            "--no-models",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ];
        // `down` also runs in the middle of an `up`.
        let starting = command_of(&up.workdir, "up", &ports).start();
        thread::sleep(Duration::from_millis(delay));
        let ended = up.finish("down", &[]);
        assert!([0, 3].contains(&ended.status), "{ended}");
        starting.wait();
        up.run("down", &[]);
        assert_nothing_is_left(&up.workdir);
        up.run("up", &ports);
    }
    up.down();
    assert_nothing_is_left(&up.workdir);
    up.address.clear();
}

#[test]
fn a_port_that_is_taken_is_said_and_nothing_is_left_running() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let workdir = Workdir::new();
    for ports in [
        ["--listen", &address, "--admin", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--admin", &address],
    ] {
        let args = [&["--no-models"][..], &ports].concat();
        let refused = command_of(&workdir, "up", &args).exits(3);
        assert!(refused.stderr.contains(&address), "{refused}");
        assert!(refused.stderr.contains("in use"), "{refused}");
        assert_nothing_is_left(&workdir);
    }
}

#[test]
fn folders_may_have_any_name_and_cargo_may_build_elsewhere() {
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
        (
            Some("../--relative".to_owned()),
            "up() { bash -- '--check out/scripts/up.sh' --dir '--a run' \"$@\"; }
            trap 'up down' EXIT
            up up --listen 127.0.0.1:0 --admin 127.0.0.1:0
            up add shadow rv-score --model lr.json
            up status
            up remove shadow",
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
    assert!(fs::exists(workdir.path("--relative/release/rv-score")).unwrap());
    assert_nothing_is_left(&workdir);
}

/// Random numbers that depend only on the seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: u64) -> u64 {
        // This is splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

pub fn setting(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap())
}

/// RV_CHAOS_SEED repeats a run. RV_CHAOS_SECONDS sets its length.
#[test]
fn stages_die_and_stop_at_random_and_every_call_is_answered() {
    let now = crate::harness::now() as u64;
    let seed = setting("RV_CHAOS_SEED", now);
    println!("RV_CHAOS_SEED={seed}");
    let mut dice = Dice(seed);
    let up = Up::start(&["--", "--timeout", "3s"]);
    up.run("add", &["shadow", "rv-score", "--model", "dt.json"]);
    let callers = Callers::start(&up.address, 8);
    callers.see("dt@1");
    let stages = [
        "tee",
        "rendezvous",
        "dt",
        "lr",
        "shadow",
        "decoy",
        "decisions",
    ];
    let end = Instant::now() + Duration::from_secs(setting("RV_CHAOS_SECONDS", 60));
    let mut stopped: Vec<(Instant, Pid)> = Vec::new();
    let mut kills = 0;
    while Instant::now() < end {
        thread::sleep(Duration::from_millis(dice.below(500)));
        stopped.retain(|(until, pid)| {
            let is_over = *until <= Instant::now();
            if is_over {
                let _ = kill_process(*pid, Signal::CONT);
            }
            !is_over
        });
        let stage = stages[dice.below(stages.len() as u64) as usize];
        let processes = up.processes(stage);
        if processes.is_empty() {
            continue;
        }
        let process = processes[dice.below(processes.len() as u64) as usize];
        if dice.below(2) == 0 {
            // The process may have ended meanwhile.
            let _ = kill_process(process, Signal::KILL);
            kills += 1;
        } else if kill_process(process, Signal::STOP).is_ok() {
            let until = Instant::now() + Duration::from_millis(dice.below(1500));
            stopped.push((until, process));
        }
    }
    for (_, pid) in stopped {
        let _ = kill_process(pid, Signal::CONT);
    }
    assert!(kills > 10, "{kills} kills are no chaos");
    // Afterwards the production model answers again.
    callers.see_only("dt@1");
    let slowest = *callers.seen.slowest.lock().unwrap();
    let statuses = callers.end();
    println!("{kills} kills, statuses {statuses:?}, slowest {slowest:?}");
    assert!(
        statuses
            .keys()
            .all(|status| [200, 503, 504].contains(status))
    );
    assert!(statuses[&200] > 1000, "{statuses:?}");
    // The limit is far above the front end's time-out, because the machine may be busy.
    assert!(slowest < Duration::from_secs(30), "{slowest:?}");
    let ready = eventually(|| (up.finish("status", &[]).status == 0).then_some(()));
    assert!(ready.is_some(), "{}", up.finish("status", &[]));
    up.down();
    assert_balanced(&up);
    let decisions = archived(&up, "decisions");
    assert!(!decisions.is_empty());
    assert!(!archived(&up, "archive").is_empty());
}

#[test]
fn the_production_model_stopped_the_canary_answers_and_a_stuck_shadow_changes_nothing() {
    let up = Up::start(&[]);
    up.run("add", &["shadow", "rv-score", "--model", "dt.json"]);
    let callers = Callers::start(&up.address, 4);
    callers.see_only("dt@1");
    for pid in up.processes("shadow") {
        kill_process(pid, Signal::STOP).unwrap();
    }
    callers.see_only("dt@1");
    for pid in up.processes("dt") {
        kill_process(pid, Signal::STOP).unwrap();
    }
    callers.see_only("lr@0");
    for stage in ["dt", "shadow"] {
        for pid in up.processes(stage) {
            kill_process(pid, Signal::CONT).unwrap();
        }
    }
    callers.see_only("dt@1");
    let statuses = callers.end();
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200]);
    // A killed front end is restarted, and answers a new call.
    for pid in up.processes("front") {
        kill_process(pid, Signal::KILL).unwrap();
    }
    let answered = eventually(|| {
        let mut client = Client::try_connect(&up.address).ok()?;
        let call = format!(
            "POST /predict HTTP/1.1\r\nhost: {}\r\ncontent-length: 2\r\n\r\n{{}}",
            up.address
        );
        let reply = client.try_call(&call).ok()?;
        (reply.status == 200).then_some(())
    });
    assert!(answered.is_some());
    up.down();
    assert_balanced(&up);
}
