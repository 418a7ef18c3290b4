//! The time limit of every test. A test that hangs fails with its name, its folder and
//! the output of its programs.
//!
//! A hanging thread cannot be stopped from outside, so the whole test run ends, with
//! status 101. Every wait of the harness has a shorter limit, which fails only its own
//! test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// The output of a program so far.
pub type Output = Arc<Mutex<Vec<u8>>>;

/// The time limit of a test in seconds, unless RV_TEST_SECONDS is set.
const SECONDS: u64 = 300;

/// The time limit of one test, which holds this value until its end.
pub struct TimeLimit {
    number: u64,
}

struct Watched {
    test: String,
    folder: PathBuf,
    until: Instant,
    programs: BTreeMap<u32, (String, Output)>,
}

#[derive(Default)]
struct All {
    last: u64,
    watched: BTreeMap<u64, Watched>,
}

static ALL: Mutex<Option<All>> = Mutex::new(None);

fn all() -> MutexGuard<'static, Option<All>> {
    ALL.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl TimeLimit {
    /// Starts the time. `folder` is the folder of the test.
    pub fn new(folder: PathBuf) -> TimeLimit {
        static WATCHING: Once = Once::new();
        WATCHING.call_once(|| {
            thread::spawn(watch);
        });
        let mut all = all();
        let all = all.get_or_insert_default();
        all.last += 1;
        let watched = Watched {
            test: thread::current().name().unwrap_or("a thread").to_owned(),
            folder,
            until: Instant::now() + allowed(),
            programs: BTreeMap::new(),
        };
        all.watched.insert(all.last, watched);
        TimeLimit { number: all.last }
    }

    /// Adds a program of the test.
    pub fn started(&self, pid: u32, name: &str, output: &Output) {
        self.change(|watched| {
            let program = (name.to_owned(), Arc::clone(output));
            watched.programs.insert(pid, program);
        });
    }

    /// Removes a program that has ended.
    pub fn ended(&self, pid: u32) {
        self.change(|watched| {
            watched.programs.remove(&pid);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Watched)) {
        let mut all = all();
        if let Some(watched) = all.as_mut().and_then(|it| it.watched.get_mut(&self.number)) {
            change(watched);
        }
    }
}

impl Drop for TimeLimit {
    fn drop(&mut self) {
        if let Some(all) = all().as_mut() {
            all.watched.remove(&self.number);
        }
    }
}

/// The time limit. RV_CHAOS_SECONDS, the length of a random test, is added.
fn allowed() -> Duration {
    let setting = |name: &str| std::env::var(name).ok()?.parse().ok();
    let seconds: u64 = setting("RV_TEST_SECONDS").unwrap_or(SECONDS);
    Duration::from_secs(seconds + setting("RV_CHAOS_SECONDS").unwrap_or(0))
}

fn watch() {
    loop {
        thread::sleep(Duration::from_millis(500));
        let mut all = all();
        let now = Instant::now();
        let Some(All { watched, .. }) = all.as_mut() else {
            continue;
        };
        let late: Vec<_> = watched.values().filter(|it| it.until <= now).collect();
        if late.is_empty() {
            continue;
        }
        for Watched {
            test,
            folder,
            programs,
            ..
        } in late
        {
            eprintln!(
                "{test} has not ended in time; it works in {}",
                folder.display()
            );
            for (pid, (name, output)) in programs {
                let output = output.lock().map(|it| it.clone()).unwrap_or_default();
                let said = String::from_utf8_lossy(&output).into_owned();
                eprintln!("  {pid}: {name} has said:\n{said}");
            }
        }
        // The programs must not outlive the test run.
        for pid in watched.values().flat_map(|it| it.programs.keys()) {
            if let Some(pid) = Pid::from_raw(*pid as i32) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        #[expect(clippy::exit, reason = "no thread can make the one that hangs fail")]
        std::process::exit(101);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;
    use crate::harness::{Workdir, checkout};

    /// This variable is set in the run that must hang.
    const HANGS: &str = "RV_TEST_HANGS";

    #[test]
    fn a_test_that_hangs_fails_with_its_name_its_folder_and_what_was_said() {
        let workdir = Workdir::new();
        if std::env::var_os(HANGS).is_some() {
            let running = workdir.shell("echo said so far >&2; sleep 60").start();
            running.says("said so far");
            println!("{}", running.id());
            thread::sleep(Duration::from_secs(60));
        }
        let name = thread::current().name().unwrap().to_owned();
        let mut run = workdir.shell("exec \"$0\" \"$@\"");
        run.command.env(HANGS, "yes").env("RV_TEST_SECONDS", "1");
        let run = run.arg(std::env::current_exe().unwrap());
        let finished = run.args([&name, "--exact", "--nocapture"]).exits(101);
        let said = &finished.stderr;
        assert!(said.contains(&format!("{name} has not ended")), "{said}");
        assert!(said.contains("it works in /"), "{said}");
        assert!(said.contains("has said:\nsaid so far"), "{said}");
    }

    #[test]
    fn a_run_of_unit_tests_that_hangs_fails() {
        let config = fs::read_to_string(checkout().join(".cargo/config.toml")).unwrap();
        assert!(config.contains("runner = \"scripts/run_in_time.sh\""));
        let workdir = Workdir::new();
        let script = "mkdir deps; cp \"$(command -v sleep)\" deps/; exec \"$0\" ./deps/sleep 60";
        let mut run = workdir.shell(script);
        run.command.env("RV_TEST_RUN_SECONDS", "1");
        let runner = checkout().join("scripts/run_in_time.sh");
        let finished = run.arg(runner).exits(124);
        assert!(finished.stderr.contains("sending signal"), "{finished}");
    }

    /// The functions of a file: each name, whether it is a test, and its text.
    fn functions(text: &str) -> Vec<(String, bool, String)> {
        let mut functions = Vec::new();
        let mut is_test = false;
        for line in text.lines() {
            if line.trim() == "#[test]" {
                is_test = true;
            }
            let head = line.trim_start().trim_start_matches("pub ");
            if let Some(rest) = head.strip_prefix("fn ") {
                let end = rest.find(|it: char| !it.is_alphanumeric() && it != '_');
                let name = rest[..end.unwrap_or(rest.len())].to_owned();
                functions.push((name, is_test, String::new()));
                is_test = false;
            }
            if let Some((_, _, body)) = functions.last_mut() {
                body.push_str(line);
                body.push('\n');
            }
        }
        functions
    }

    /// A function has a limit if it makes a `Workdir`, or calls a function that has a
    /// limit.
    #[test]
    fn every_test_of_a_program_has_a_time_limit() {
        let mut all = Vec::new();
        for entry in fs::read_dir(checkout().join("tests/stages")).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            // The text is split, so that it does not match this line.
            let starts_processes = text.contains(&["Command", "::new("].concat());
            assert!(
                !starts_processes || file == "harness.rs",
                "{file}: start programs by `Workdir::run` or `Workdir::shell`, which see to it \
                 that they end"
            );
            all.extend(functions(&text).into_iter().map(|it| (file.clone(), it)));
        }
        let scenes = ["Scene::", "Up::start", "Pipeline::start"];
        let makes_folder = |body: &str| {
            body.contains("Workdir::new") || scenes.iter().any(|scene| body.contains(scene))
        };
        let mut limited: BTreeSet<&str> = BTreeSet::from(["TimeLimit"]);
        let calls = |body: &str, name: &str| {
            let (call, method) = (format!("{name}("), format!("{name}::new("));
            body.contains(&call) || body.contains(&method)
        };
        loop {
            let before = limited.len();
            for (_, (name, is_test, body)) in &all {
                let is_limited = makes_folder(body)
                    || limited
                        .iter()
                        .any(|it| *it != name.as_str() && calls(body, it));
                // Many types have functions of these names, so a call does not show
                // which one is meant. `scenes` lists the types that count.
                if is_limited
                    && !is_test
                    && !["new", "run", "start", "end"].contains(&name.as_str())
                {
                    limited.insert(name);
                }
            }
            if limited.len() == before {
                break;
            }
        }
        let tests: Vec<_> = all.iter().filter(|(_, (_, is_test, _))| *is_test).collect();
        assert!(tests.len() > 100, "{} tests are not all", tests.len());
        for (file, (name, _, body)) in tests {
            let is_limited = makes_folder(body)
                || limited.iter().any(|it| calls(body, it))
                || !(body.contains("thread::")
                    || body.contains(".start()")
                    || body.contains("Tcp"));
            assert!(
                is_limited,
                "{file}: {name} has no time limit: begin it with `Workdir::new()`"
            );
        }
    }
}
