//! Calls to a front end while a test changes what is behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::{Workdir, eventually};
use crate::http::Client;

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
