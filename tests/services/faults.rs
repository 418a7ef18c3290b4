//! The service stops, restarts or refuses records. In the end the index has each
//! document once.

use std::io::Write;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Running, Workdir, eventually, json, resident_bytes};
use crate::records::sink;
use crate::service::{Service, score_ids, scores};

/// The load: this many requests, scored by two models.
const REQUESTS: usize = 20_000;

/// How long an outage lasts.
fn outage() -> Duration {
    let seconds = std::env::var("RV_OUTAGE_SECONDS").unwrap_or_else(|_| "5".to_owned());
    Duration::from_secs(seconds.parse().unwrap())
}

/// A running sink, and the thread that writes records to it.
struct Loaded {
    workdir: Workdir,
    running: Running,
    feeding: JoinHandle<()>,
}

impl Loaded {
    fn start(service: &Service, index: &str, flags: &[&str]) -> Loaded {
        let workdir = Workdir::new();
        let sink = sink(&workdir, service, index)
            .args(["--retry-max", "2s", "--batch-records", "500"])
            .args(flags);
        let mut running = sink.start();
        let mut stdin = running.stdin.take().unwrap();
        let feeding = thread::spawn(move || {
            // These writes wait while the sink does not read its input.
            for from in (0..REQUESTS).step_by(100) {
                stdin
                    .write_all(scores(from..from + 100).as_bytes())
                    .unwrap();
            }
        });
        Loaded {
            workdir,
            running,
            feeding,
        }
    }

    /// One of the counts in the file of the stats; 0 while the file is not written.
    fn count(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(self.workdir.path("stats.json"));
        let stats: Value = text
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        stats[name].as_u64().unwrap_or(0)
    }

    fn wait_for(&self, what: &str, mut holds: impl FnMut(&Loaded) -> bool) {
        eventually(|| holds(self).then_some(())).unwrap_or_else(|| panic!("never: {what}"));
    }

    /// Waits for the end. The sink must have indexed everything.
    fn finish(self) -> Workdir {
        self.feeding.join().unwrap();
        let finished = self.running.wait();
        finished.assert_status(0);
        let stats = json(&self.workdir.read("stats.json"));
        assert_eq!(stats["in"], 2 * REQUESTS, "{stats}");
        assert_eq!(stats["indexed"], 2 * REQUESTS, "{stats}");
        assert_eq!(self.workdir.read("rejects"), "");
        self.workdir
    }
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn a_service_that_is_down_under_load_holds_the_stream_and_loses_nothing() {
    let service = Service::running();
    let loaded = Loaded::start(&service, "outage", &[]);
    loaded.wait_for("some are indexed", |loaded| loaded.count("indexed") > 2000);
    service.stop();
    let down = Instant::now();
    loaded.wait_for("it tries again", |loaded| loaded.count("retried") > 0);
    loaded.running.says("sending again");
    while down.elapsed() < outage() {
        thread::sleep(Duration::from_millis(100));
    }
    // At most one call and one batch are pending, however many records wait.
    assert!(
        loaded.count("pending") <= 1000,
        "{}",
        loaded.count("pending")
    );
    assert!(resident_bytes(loaded.running.id()) < 64 << 20);
    service.start();
    loaded.finish();
    service.holds_exactly("outage", score_ids(0..REQUESTS));
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn a_service_that_is_killed_in_the_middle_of_calls_has_each_document_once() {
    let service = Service::running();
    let loaded = Loaded::start(&service, "killed", &["--connections", "3", "--gzip"]);
    loaded.wait_for("some are indexed", |loaded| loaded.count("indexed") > 2000);
    service.kill();
    service.start();
    loaded.finish();
    service.holds_exactly("killed", score_ids(0..REQUESTS));
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn an_index_that_becomes_read_only_is_waited_for() {
    let service = Service::running();
    for (number, block) in ["index.blocks.write", "index.blocks.read_only_allow_delete"]
        .iter()
        .enumerate()
    {
        let index = format!("blocked-{number}");
        service.put(&format!("/{index}"), json!({}));
        let loaded = Loaded::start(&service, &index, &[]);
        loaded.wait_for("some are indexed", |loaded| loaded.count("indexed") > 2000);
        let settings = format!("/{index}/_settings");
        service.put(&settings, json!({*block: true}));
        loaded.running.says("refused for now");
        loaded.wait_for("it tries again", |loaded| loaded.count("retried") > 500);
        let before = loaded.count("in");
        loaded.wait_for("it tries on", |loaded| loaded.count("retried") > 1500);
        assert!(loaded.count("in") <= before + 1000, "it stops reading");
        service.put(&settings, json!({*block: null}));
        loaded.finish();
        service.holds_exactly(&index, score_ids(0..REQUESTS));
    }
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn a_queue_that_is_full_puts_records_off() {
    let service = Service::running();
    // The service has one writing thread and a queue of eight writes. Each day has a
    // separate index, so one call makes several writes.
    let workdir = Workdir::new();
    let record = |number: usize| {
        let day = 86_400 * (number % 12);
        format!("{{\"messageId\":\"q-{number:05}\",\"timestamp\":{day}.5}}\n")
    };
    let sink = sink(&workdir, &service, "queue-%d").args([
        "--connections=16",
        "--batch-records=120",
        "--retry-max=1s",
    ]);
    let input: String = (0..20_000).map(record).collect();
    let finished = sink.arg("-v").input(input).succeeds();
    assert!(
        finished
            .stderr
            .contains("429 es_rejected_execution_exception")
            || finished.stderr.contains("429 rejected_execution_exception"),
        "{finished}"
    );
    service.holds_exactly(
        "queue-*",
        (0..20_000).map(|number| format!("q-{number:05}")),
    );
    service.ask(Method::DELETE, "/queue-01,queue-02,queue-03,queue-04,queue-05,queue-06,queue-07,queue-08,queue-09,queue-10,queue-11,queue-12", None);
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn what_cannot_be_delivered_before_the_end_is_set_aside_and_can_be_sent_later() {
    let service = Service::running();
    let workdir = Workdir::new();
    let sink = sink(&workdir, &service, "later").args(["--grace", "1s", "--batch-records", "100"]);
    let mut running = sink.start();
    running.write(scores(0..100));
    let indexed = || {
        let text = std::fs::read_to_string(workdir.path("stats.json")).ok()?;
        (serde_json::from_str::<Value>(&text).ok()?["indexed"] == 200).then_some(())
    };
    eventually(indexed).expect("the first are indexed");
    service.stop();
    running.write(scores(100..200));
    running.says("sending again");
    running.signal(Signal::TERM);
    let finished = running.wait();
    finished.assert_status(143);
    assert!(
        finished
            .stderr
            .contains("200 records were read and not delivered"),
        "{finished}"
    );
    service.start();
    let rejects = workdir.read("rejects");
    let raw: String = rejects
        .lines()
        .map(|line| json(line)["raw"].as_str().unwrap().to_owned() + "\n")
        .collect();
    assert_eq!(raw, scores(100..200));
    crate::records::sink(&workdir, &service, "later")
        .input(raw)
        .succeeds();
    service.holds_exactly("later", score_ids(0..200));
}
