//! Everything is killed, and every request arrives.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::broker::{Broker, Running, bridge, counted, requests};
use crate::harness::Workdir;

/// The most deaths of the broker in one test.
const BROKER_KILLS_MAX: u32 = 3;

/// A variable of the environment as a number.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Numbers that look random, and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Runs a bridge, and starts it again whenever it ends.
struct Supervisor {
    pid: Arc<AtomicU32>,
    starts: Arc<AtomicU32>,
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<i32>>,
}

impl Supervisor {
    fn start(workdir: Arc<Workdir>, args: Vec<String>) -> Supervisor {
        let pid = Arc::new(AtomicU32::new(0));
        let starts = Arc::new(AtomicU32::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let (own_pid, own_starts) = (Arc::clone(&pid), Arc::clone(&starts));
        let ended = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            loop {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let mut command = bridge(&workdir, &args);
                command.stdin(Stdio::null()).stdout(Stdio::null());
                let mut running = Running::start(command);
                own_pid.store(running.0.id(), Ordering::Release);
                own_starts.fetch_add(1, Ordering::Relaxed);
                let status = running.0.wait().unwrap();
                if ended.load(Ordering::Acquire) {
                    return status.code().unwrap_or(-1);
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        Supervisor {
            pid,
            starts,
            is_over,
            thread: Some(thread),
        }
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.pid.load(Ordering::Acquire) as i32)
    }

    fn kill_bridge(&self) {
        if let Some(pid) = self.pid() {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }

    fn kill_stage(&self) {
        let Some(pid) = self.pid() else { return };
        let pid = pid.as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            let child = Pid::from_raw(child.parse().unwrap()).unwrap();
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
    }

    /// Tells the bridge to end, and returns its status.
    fn end(mut self) -> i32 {
        self.is_over.store(true, Ordering::Release);
        if let Some(pid) = self.pid() {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Kills the bridge, its program and the broker, until `is_over`. The broker is killed at
/// least once, and is away for a while. Returns the number of kills of each.
fn kill_at_random(
    broker: &Broker,
    supervisor: &Supervisor,
    dice: &mut Dice,
    is_over: impl Fn() -> bool,
) -> [u32; 3] {
    let outage = Duration::from_secs(number("RV_OUTAGE_SECONDS", 5));
    let mut kills = [0; 3];
    let mut next = 0;
    while !is_over() || kills.contains(&0) {
        thread::sleep(Duration::from_millis(300 + dice.below(900)));
        // Each kind of death occurs; the broker's is slow.
        let victim = match next {
            0..3 => next,
            // A broker needs seconds to come back, so it dies a few times only.
            _ if kills[2] >= BROKER_KILLS_MAX => dice.below(2),
            _ => dice.below(8),
        };
        next += 1;
        match victim {
            0 | 3 | 4 => {
                kills[0] += 1;
                supervisor.kill_bridge();
            }
            1 | 5 | 6 => {
                kills[1] += 1;
                supervisor.kill_stage();
            }
            _ => {
                kills[2] += 1;
                broker.kill();
                thread::sleep(if kills[2] == 1 {
                    outage
                } else {
                    Duration::ZERO
                });
                broker.start();
            }
        }
    }
    kills
}

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn every_request_gets_its_score_while_bridge_program_and_broker_are_killed() {
    let broker = Arc::new(Broker::running());
    let workdir = Arc::new(Workdir::new());
    let model = workdir.train("decision-tree", "dt", 1);
    let seed = number("RV_CHAOS_SEED", 20_261_127);
    let count = number("RV_REQUESTS", 50_000) as usize;
    let (requests_topic, scores_topic) = ("chaos-requests", "chaos-scores");
    broker.publish(&workdir, requests_topic, &requests("r", 0..1));
    let supervisor = Supervisor::start(
        Arc::clone(&workdir),
        vec![
            "--from".to_owned(),
            format!("{}?group=dt&from=earliest", broker.topic(requests_topic)),
            "--to".to_owned(),
            broker.topic(scores_topic),
            "--".to_owned(),
            "rv-score".to_owned(),
            "--model".to_owned(),
            model,
        ],
    );
    let is_published = Arc::new(Mutex::new(false));
    let published = Arc::clone(&is_published);
    let (publisher, folder) = (Arc::clone(&broker), Arc::clone(&workdir));
    let publishing = thread::spawn(move || {
        let batch = count.div_ceil(20);
        for first in (1..count).step_by(batch) {
            let lines = requests("r", first..count.min(first + batch));
            publisher.publish(&folder, requests_topic, &lines);
            thread::sleep(Duration::from_millis(400));
        }
        *published.lock().unwrap() = true;
    });
    let mut dice = Dice(seed);
    let kills = kill_at_random(&broker, &supervisor, &mut dice, || {
        *is_published.lock().unwrap()
    });
    publishing.join().unwrap();
    let mut seen = std::collections::HashSet::new();
    let mut taken = 0;
    let scores = broker.read_until(&workdir, scores_topic, |lines| {
        if lines.len() < taken {
            // The reading has begun anew.
            (taken, seen) = (0, std::collections::HashSet::new());
        }
        seen.extend(lines[taken..].iter().map(|line| id_of(line)));
        taken = lines.len();
        seen.len() >= count
    });
    let ids = counted(&scores, "messageId");
    let missing = (0..count).filter(|it| !ids.contains_key(&format!("r-{it}")));
    assert_eq!(missing.count(), 0, "requests without a score (seed {seed})");
    assert_eq!(ids.len(), count, "scores for requests that nobody has sent");
    println!(
        "seed {seed}: {} scores for {count} requests; killed: bridge {}, program {}, broker {}; the \
         bridge was started {} times",
        scores.len(),
        kills[0],
        kills[1],
        kills[2],
        supervisor.starts.load(Ordering::Relaxed)
    );
    assert_eq!(supervisor.end(), 0);
    let unread = broker.unread(&workdir, requests_topic, "dt");
    assert_eq!(unread.len(), 0, "everything is acknowledged in the end");
}

fn id_of(line: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    value["messageId"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs a real broker: scripts/check_brokers.sh"]
fn every_request_is_in_the_archive_while_the_archive_is_killed() {
    let broker = Broker::running();
    let workdir = Arc::new(Workdir::new());
    let count = 5000;
    let topic = "archived";
    broker.publish(&workdir, topic, &requests("a", 0..count / 2));
    let supervisor = Supervisor::start(
        Arc::clone(&workdir),
        vec![
            "--from".to_owned(),
            format!("{}?group=archive&from=earliest", broker.topic(topic)),
            "--".to_owned(),
            "rv-archive".to_owned(),
            "--dir".to_owned(),
            "logs".to_owned(),
            "--pass".to_owned(),
        ],
    );
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(700));
        supervisor.kill_stage();
        thread::sleep(Duration::from_millis(700));
        supervisor.kill_bridge();
    }
    broker.publish(&workdir, topic, &requests("a", count / 2..count));
    let archived = crate::harness::eventually(|| {
        thread::sleep(Duration::from_millis(500));
        let cat = workdir.run("rv-archive").args(["cat", "logs"]).finish();
        let lines: Vec<String> = cat.stdout().lines().map(str::to_owned).collect();
        let ids = counted(&lines, "messageId");
        (ids.len() == count).then_some(lines)
    });
    assert!(archived.is_some(), "not every request is in the archive");
    assert_eq!(supervisor.end(), 0);
    assert_eq!(broker.unread(&workdir, topic, "archive").len(), 0);
}
