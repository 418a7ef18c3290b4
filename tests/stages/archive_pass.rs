//! `rv-archive --pass`: every line that its reader gets is in the archive.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::archive::{archive, cat, numbered, traced, verify};
use crate::harness::Workdir;

/// Two long lines, then short ones. The second line ends one byte after a multiple of
/// 64 KiB.
fn lines_around_a_long_one() -> String {
    let first = format!("{{\"first\":\"{}\"}}\n", "z".repeat(61_441 - 13));
    let long = format!("{{\"a\":\"{}\"}}\n", "x".repeat(200_704 - 9));
    let mut text = first + &long;
    for number in 0..600 {
        text += &format!("{{\"n\":{number:05},\"p\":\"{}\"}}\n", "y".repeat(80));
    }
    text
}

/// Reads a trace of writes and syncs. Checks that no byte was passed on before its
/// sync. Returns the largest number of bytes that was written between two syncs of a
/// part.
fn most_between_syncs(trace: &str) -> usize {
    let (mut written, mut synced, mut passed, mut most) = (0, 0, 0, 0);
    let mut syncs = 0;
    let mut begun: HashMap<&str, String> = HashMap::new();
    for line in trace.lines() {
        let Some((thread, text)) = line.split_once(' ') else {
            continue;
        };
        // If two threads make calls at the same time, strace prints a call in two
        // pieces.
        let text = text.trim_start();
        if let Some(start) = text.strip_suffix("<unfinished ...>") {
            begun.insert(thread, start.to_owned());
            continue;
        }
        let whole = match text.strip_prefix("<... ") {
            Some(rest) => {
                let start = begun.remove(thread).unwrap_or_default();
                start + rest.split_once('>').map_or("", |(_, end)| end)
            }
            None => text.to_owned(),
        };
        let Some((call, rest)) = whole.split_once('(') else {
            continue;
        };
        let count = || -> usize {
            let (_, count) = rest.rsplit_once("= ").unwrap();
            count.trim().parse().unwrap_or(0)
        };
        let of_a_part = rest.contains("/logs/part-") && rest.contains(".ndjson>");
        if call.ends_with("write") && of_a_part {
            written += count();
            most = most.max(written - synced);
        } else if call.ends_with("fdatasync") && of_a_part {
            synced = written;
            syncs += 1;
        } else if call.ends_with("write") && rest.contains("passed>") {
            passed += count();
            assert!(passed <= synced, "{passed} of {synced} bytes:\n{line}");
        }
    }
    assert!(
        syncs > 0 && passed == synced && passed == written,
        "{trace}"
    );
    most
}

const CALLS: &str = "trace=write,fdatasync,fsync";

#[test]
fn a_line_is_synced_before_it_is_passed_on_and_many_share_a_sync() {
    let workdir = Workdir::new();
    let text = lines_around_a_long_one();
    workdir.write("input", &text);
    let pass = ["--dir", "logs", "--pass", "-o", "passed", "-i", "input"];
    for flags in [
        &[][..],
        &["--pass-bytes", "1KiB"],
        &["--max-records", "7"],
        &["--sync-every", "1h"],
        &["--sync-every", "0s"],
    ] {
        let _ = std::fs::remove_dir_all(workdir.path("logs"));
        let run = traced(&workdir, &[CALLS]).args(pass).args(flags);
        run.succeeds();
        assert!(workdir.read("passed") == text, "{flags:?}");
        most_between_syncs(&workdir.read("trace"));
        assert!(cat(&workdir) == text, "{flags:?}");
    }
}

#[test]
fn no_more_waits_to_be_passed_on_than_the_flag_says() {
    let workdir = Workdir::new();
    // A file never pauses, and `--sync-every` is too long to matter. So only the bound
    // causes syncs.
    let line = format!("{{\"p\":\"{}\"}}\n", "y".repeat(1000));
    workdir.write("input", line.repeat(20_000));
    for (flags, bound) in [
        (&["--pass-bytes", "256KiB"][..], 256 << 10),
        (&["--pass-bytes", "1B"], 1),
        (&[], 4 << 20),
    ] {
        let _ = std::fs::remove_dir_all(workdir.path("logs"));
        let run = traced(&workdir, &[CALLS]).args(["--dir", "logs", "--pass", "-o", "passed"]);
        let run = run.args(["--sync-every", "1h", "-i", "input"]).args(flags);
        run.succeeds();
        let most = most_between_syncs(&workdir.read("trace"));
        assert!(most <= bound + line.len(), "{flags:?}: {most}");
        assert!(most + line.len() >= bound, "{flags:?}: {most}");
    }
}

#[test]
fn where_the_input_never_pauses_a_line_waits_no_longer_than_asked_for() {
    let workdir = Workdir::new();
    let line = format!("{{\"p\":\"{}\"}}\n", "y".repeat(1000));
    workdir.write("input", line.repeat(20_000));
    let run = traced(&workdir, &[CALLS]).args(["--dir", "logs", "--pass", "-o", "passed"]);
    let run = run.args(["--pass-bytes", "1GiB", "--sync-every", "1ms"]);
    run.args(["-i", "input"]).succeeds();
    let most = most_between_syncs(&workdir.read("trace"));
    assert!(most < 10 << 20, "{most}");
}

#[test]
fn a_line_passes_as_soon_as_the_input_pauses() {
    let workdir = Workdir::new();
    let flags = ["--pass", "--sync-every", "1h", "--max-age", "1h"];
    let mut running = archive(&workdir).args(flags).start();
    let started = Instant::now();
    for number in 0..20 {
        running.write(numbered(number, 1));
        assert_eq!(running.line() + "\n", numbered(number, 1));
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    running.signal(Signal::TERM);
    running.wait().assert_status(0);
    assert_eq!(cat(&workdir), numbered(0, 20));
}

#[test]
fn what_has_passed_is_kept_wherever_it_is_killed() {
    let text = lines_around_a_long_one();
    for (call, times) in [("write", 1..16), ("fdatasync", 1..6), ("fsync", 1..5)] {
        for time in times {
            let workdir = Workdir::new();
            workdir.write("input", &text);
            let inject = format!("inject={call}:signal=KILL:when={time}");
            let trace = format!("trace={call}");
            let run = traced(&workdir, &[&trace, &inject]).args(["--dir", "logs", "--pass"]);
            let run = run.args(["--pass-bytes", "64KiB", "-i", "input", "-o", "passed"]);
            run.finish();
            let passed = std::fs::read_to_string(workdir.path("passed")).unwrap_or_default();
            archive(&workdir).succeeds();
            let kept = cat(&workdir);
            assert!(text.starts_with(&kept), "{call} {time}");
            assert!(
                kept.starts_with(&passed),
                "{call} {time}: {} bytes passed, {} kept",
                passed.len(),
                kept.len()
            );
            verify(&workdir).assert_status(0);
        }
    }
}

#[test]
fn what_has_passed_is_kept_whenever_it_is_killed_in_live_use() {
    let workdir = Workdir::new();
    let mut sent = 0;
    for round in 0..40u64 {
        let flags = ["--pass", "--max-records", "40", "--quiet"];
        let mut running = archive(&workdir).args(flags).start();
        let text = numbered(sent, 100);
        let mut stdin = running.stdin.take().unwrap();
        let writing = std::thread::spawn(move || {
            for line in text.split_inclusive('\n') {
                if std::io::Write::write_all(&mut stdin, line.as_bytes()).is_err() {
                    break;
                }
            }
        });
        std::thread::sleep(Duration::from_micros(2000 + round * 997 % 30_000));
        running.signal(Signal::KILL);
        let passed = running.wait();
        writing.join().unwrap();
        let kept = cat(&workdir);
        let from = numbered(0, sent).len();
        let whole = passed.stdout().rfind('\n').map_or(0, |at| at + 1);
        assert!(
            kept.len() >= from && kept[from..].starts_with(&passed.stdout()[..whole]),
            "round {round}: {passed}"
        );
        sent = kept.lines().count() as u64;
        assert!(kept == numbered(0, sent));
    }
    assert!(sent > 40, "{sent}");
}

#[test]
fn sigterm_passes_on_what_was_taken() {
    let workdir = Workdir::new();
    let flags = ["--pass", "--sync-every", "1h", "-i", "pipe", "--quiet"];
    let pipe = workdir.fifo("pipe");
    let held = std::fs::File::options().read(true).write(true).open(&pipe);
    let mut held = held.unwrap();
    let running = archive(&workdir).args(flags).start();
    std::io::Write::write_all(&mut held, numbered(0, 500).as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    running.signal(Signal::TERM);
    let finished = running.wait();
    // A signal that arrives before the handlers are installed ends the program at once.
    assert!([0, 143].contains(&finished.status), "{finished}");
    assert_eq!(finished.stdout(), cat(&workdir));
}
