//! `rv-tee` copies the input to every branch, and no branch delays the others.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{
    Finished, Running, Workdir, eventually, json, next_line, open_reader, open_writer,
    processor_ticks, stat,
};

/// Numbered lines of 103 bytes. A torn line cannot be mistaken for a whole one.
pub fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| format!("<{number:0100}>\n")).collect()
}

/// Reads a pipe to its end in another thread.
pub fn collect(path: String) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        text
    })
}

/// Waits until a figure of `branch` in the stats satisfies `is`, and returns the figure. If
/// `branch` is empty, `name` is a figure of the whole program.
pub fn figure_becomes(
    workdir: &Workdir,
    name: &str,
    branch: &str,
    is: impl Fn(u64) -> bool,
) -> u64 {
    let mut last = None;
    let found = eventually(|| {
        let stats = fs::read_to_string(workdir.path("stats.json")).ok()?;
        let stats = json(&stats);
        last = match branch {
            "" => stats[name].as_u64(),
            branch => stats[name][branch].as_u64(),
        };
        last.filter(|value| is(*value))
    });
    found.unwrap_or_else(|| panic!("{name} of {branch} is {last:?}"))
}

/// Returns a figure of `branch` in the stats. If `branch` is empty, `name` is a figure of the
/// whole program.
pub fn figure(workdir: &Workdir, name: &str, branch: &str) -> u64 {
    let stats = json(&workdir.read("stats.json"));
    let figure = match branch {
        "" => &stats[name],
        branch => &stats[name][branch],
    };
    figure
        .as_u64()
        .unwrap_or_else(|| panic!("no {name} of {branch:?} in {stats}"))
}

/// Checks for every branch that the counts of its lines add up to the number of lines read.
pub fn assert_balanced(workdir: &Workdir) {
    let stats = json(&workdir.read("stats.json"));
    let read = stats["in"].as_u64().unwrap() - stats["rejected"].as_u64().unwrap();
    let branches = stats["written"].as_object().unwrap();
    assert!(!branches.is_empty());
    for branch in branches.keys() {
        let of = |name: &str| stats[name][branch].as_u64().unwrap();
        assert_eq!(
            read + of("recovered"),
            of("written") + of("queued") + of("spilled") + of("dropped") + of("corrupt"),
            "{branch} of {stats}"
        );
    }
}

pub fn tee(workdir: &Workdir, args: &[&str]) -> Running {
    let run = workdir
        .run("rv-tee")
        .args(["--stats", "stats.json", "--no-stdout"]);
    run.args(args).start()
}

pub fn end_input(mut running: Running) -> Finished {
    drop(running.stdin.take());
    running.wait()
}

#[test]
fn every_branch_gets_the_bytes_as_they_came() {
    let workdir = Workdir::new();
    let input = b"\xef\xbb\xbfone\r\n\n \t\n\xff\xfe\0\nno newline";
    let (keeping, live) = (workdir.fifo("keeping"), workdir.fifo("live"));
    let run = workdir
        .run("rv-tee")
        .args(["file", "keeping", "--live", "live"]);
    let run = run.args(["--stats", "stats.json"]).input(input);
    let readers = [keeping, live].map(|path| thread::spawn(move || fs::read(path).unwrap()));
    let finished = run.succeeds();
    let expected = [&input[..], b"\n"].concat();
    assert_eq!(finished.stdout, expected);
    assert_eq!(fs::read(workdir.path("file")).unwrap(), expected);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), expected);
    }
    assert_balanced(&workdir);
}

#[test]
fn files_are_begun_anew_or_appended_to() {
    let workdir = Workdir::new();
    workdir.write("file", "old\n");
    let run = |args: &[&str]| {
        let run = workdir.run("rv-tee").args(["--no-stdout", "file"]);
        run.args(args).input("new\n").succeeds();
        workdir.read("file")
    };
    assert_eq!(run(&["--append"]), "old\nnew\n");
    assert_eq!(run(&[]), "new\n");
}

#[test]
fn a_stopped_reader_holds_nobody_up_and_misses_nothing() {
    let workdir = Workdir::new();
    let (stopped, other) = (workdir.fifo("stopped"), workdir.fifo("other"));
    let mut running = tee(&workdir, &["stopped", "other", "--queue", "64KiB"]);
    let reader = open_reader(&stopped);
    let other = collect(other);
    let input = lines(0..100_000);
    running.write(&input);
    // The other reader gets all lines, although this reader reads nothing.
    figure_becomes(&workdir, "written", "other", |count| count == 100_000);
    figure_becomes(&workdir, "spilled", "stopped", |count| count > 90_000);
    figure_becomes(&workdir, "blocked_ms", "stopped", |span| span > 0);
    figure_becomes(&workdir, "oldest_ms", "stopped", |age| age > 0);
    let reading = thread::spawn(move || {
        let mut text = String::new();
        { reader }.read_to_string(&mut text).unwrap();
        text
    });
    let more = lines(100_000..100_100);
    running.write(&more);
    let finished = end_input(running);
    finished.assert_status(0);
    assert!(
        finished.stderr.contains("stopped: its reader is behind"),
        "{finished}"
    );
    let expected = input + &more;
    assert!(reading.join().unwrap() == expected);
    assert!(other.join().unwrap() == expected);
    assert_balanced(&workdir);
}

#[test]
fn a_live_branch_drops_its_oldest_lines_and_counts_them() {
    let workdir = Workdir::new();
    let (live, kept) = (workdir.fifo("live"), workdir.fifo("kept"));
    let args = [
        "kept",
        "--live",
        "live",
        "--queue",
        "64KiB",
        "--live-age",
        "1h",
    ];
    let mut running = tee(&workdir, &args);
    let reader = open_reader(&live);
    let kept = collect(kept);
    running.write(lines(0..50_000));
    let dropped = figure_becomes(&workdir, "dropped", "live", |count| count > 40_000);
    figure_becomes(&workdir, "written", "kept", |count| count == 50_000);
    let reading = thread::spawn(move || {
        let mut text = String::new();
        { reader }.read_to_string(&mut text).unwrap();
        text
    });
    end_input(running).assert_status(0);
    let text = reading.join().unwrap();
    assert_eq!(text.lines().count() as u64, 50_000 - dropped);
    // The lines are whole and in order, and the newest line is among them.
    let numbers: Vec<u64> = text
        .lines()
        .map(|line| line.trim_matches(['<', '>']).parse().unwrap())
        .collect();
    assert!(numbers.is_sorted());
    assert_eq!(numbers.last(), Some(&49_999));
    assert_eq!(kept.join().unwrap().lines().count(), 50_000);
    assert_balanced(&workdir);
}

#[test]
fn a_model_that_starts_after_a_short_input_still_sees_its_end() {
    let workdir = Workdir::new();
    let live = workdir.fifo("live");
    let running = tee(&workdir, &["--live", "live", "--live-age", "1h"]);
    let kept = thread::spawn(move || end_input(running));
    // The input has ended long before this reader comes.
    thread::sleep(Duration::from_millis(500));
    let mut text = String::new();
    open_reader(&live).read_to_string(&mut text).unwrap();
    kept.join().unwrap().assert_status(0);
}

#[test]
fn what_is_too_old_is_no_work_for_a_model() {
    let workdir = Workdir::new();
    let live = workdir.fifo("live");
    let args = ["--live", "live", "--live-age", "100ms"];
    let mut running = tee(&workdir, &args);
    running.write(lines(0..10));
    figure_becomes(&workdir, "dropped", "live", |count| count == 10);
    let mut reader = open_reader(&live);
    running.write(lines(10..11));
    assert_eq!(next_line(&mut reader) + "\n", lines(10..11));
    end_input(running).assert_status(0);
    assert_eq!(json(&workdir.read("stats.json"))["dropped"]["live"], 10);
    assert_balanced(&workdir);
}

#[test]
fn the_next_reader_begins_with_the_torn_line_and_misses_nothing() {
    let workdir = Workdir::new();
    let (kept, other) = (workdir.fifo("kept"), workdir.fifo("other"));
    let mut running = tee(&workdir, &["kept", "other", "--queue", "64KiB"]);
    let other = collect(other);
    let mut first = File::open(&kept).unwrap();
    let input = lines(0..20_000);
    running.write(&input);
    figure_becomes(&workdir, "written", "other", |count| count == 20_000);
    // The reader dies in the middle of line 10, and the pipe holds more lines.
    let mut taken = vec![0; 10 * 103 + 50];
    first.read_exact(&mut taken).unwrap();
    assert_eq!(taken, input.as_bytes()[..taken.len()]);
    drop(first);
    running.says("kept: its reader has closed the pipe");
    // The second reader also dies in the middle of a line.
    let mut second = File::open(&kept).unwrap();
    let mut taken = vec![0; 3 * 103 + 1];
    second.read_exact(&mut taken).unwrap();
    let begins = 10 * 103;
    assert!(taken == input.as_bytes()[begins..begins + taken.len()]);
    drop(second);
    figure_becomes(&workdir, "torn", "kept", |count| count == 2);
    let third = collect(kept);
    end_input(running).assert_status(0);
    let begins = 13 * 103;
    let third = third.join().unwrap();
    assert!(
        third.starts_with(&input[begins..]),
        "{:?}",
        third.get(..200)
    );
    assert!(other.join().unwrap().starts_with(&input));
    assert_balanced(&workdir);
}

#[test]
fn pipes_may_be_opened_in_any_order() {
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for order in orders {
        let workdir = Workdir::new();
        let input = workdir.fifo("input");
        let names = ["one", "two", "three"];
        let paths = names.map(|name| workdir.fifo(name));
        let running = tee(&workdir, &["-i", "input", "one", "two", "--live", "three"]);
        let mut writer = open_writer(&input);
        let text = lines(0..3_000);
        writer.write_all(text.as_bytes()).unwrap();
        let mut readers = Vec::new();
        for place in order {
            readers.push(collect(paths[place].clone()));
            figure_becomes(&workdir, "written", names[place], |count| count > 0);
        }
        drop(writer);
        running.wait().assert_status(0);
        for reader in readers {
            assert!(reader.join().unwrap() == text);
        }
    }
}

#[test]
fn a_reader_that_comes_when_all_is_over_finds_its_lines_and_their_end() {
    let workdir = Workdir::new();
    let (late, empty) = (workdir.fifo("late"), workdir.fifo("empty"));
    let mut running = tee(&workdir, &["late"]);
    running.write("one\n");
    drop(running.stdin.take());
    thread::sleep(Duration::from_millis(50));
    assert_eq!(collect(late).join().unwrap(), "one\n");
    running.wait().assert_status(0);
    let running = tee(&workdir, &["empty"]);
    let reader = collect(empty);
    end_input(running).assert_status(0);
    assert_eq!(reader.join().unwrap(), "");
}

#[test]
fn models_join_and_leave_while_it_runs() {
    let workdir = Workdir::new();
    for folder in ["models", "keepers"] {
        fs::create_dir(workdir.path(folder)).unwrap();
    }
    let always = workdir.fifo("models/always");
    let mut running = tee(
        &workdir,
        &[
            "--live-dir",
            "models",
            "--keep-dir",
            "keepers",
            "--spill-dir",
            "spill",
        ],
    );
    let mut always = open_reader(&always);
    running.write("one\n");
    assert_eq!(next_line(&mut always), "one");
    let new = workdir.fifo("models/new");
    running.says("models/new: joined");
    let mut new = open_reader(&new);
    let kept = workdir.fifo("keepers/kept");
    running.says("keepers/kept: joined");
    running.write("two\n");
    assert_eq!(next_line(&mut always), "two");
    assert_eq!(next_line(&mut new), "two");
    // When the pipe is removed, the branch ends and its reader reads the end of the stream.
    fs::remove_file(workdir.path("models/new")).unwrap();
    let mut rest = String::new();
    new.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(fs::exists(workdir.path("spill/keepers%2Fkept")).unwrap());
    fs::remove_file(kept).unwrap();
    running.says("keepers/kept: removed; 1 records were dropped");
    assert!(!fs::exists(workdir.path("spill/keepers%2Fkept")).unwrap());
    running.write("three\n");
    assert_eq!(next_line(&mut always), "three");
    end_input(running).assert_status(0);
    assert_balanced(&workdir);
}

#[test]
fn what_was_spilled_outlives_a_kill() {
    let workdir = Workdir::new();
    let kept = workdir.fifo("kept");
    let args = ["kept", "--queue", "64KiB", "--spill-dir", "spill"];
    let mut running = tee(&workdir, &args);
    let mut reader = File::open(&kept).unwrap();
    running.write(lines(0..20_000));
    let spilled = figure_becomes(&workdir, "spilled", "kept", |count| count > 15_000);
    running.signal(Signal::KILL);
    drop(running);
    // The reader gets the bytes that are already in the pipe, then the end of the stream.
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let mut running = tee(&workdir, &[&args[..], &["--resume"]].concat());
    let rest = collect(kept);
    running.write(lines(20_000..20_010));
    let finished = end_input(running);
    finished.assert_status(0);
    let rest = rest.join().unwrap();
    let whole: Vec<&str> = rest.lines().filter(|line| !line.is_empty()).collect();
    let expected = lines(20_000 - spilled..20_010);
    assert!(
        whole == expected.lines().collect::<Vec<_>>(),
        "{}",
        whole.len()
    );
    let stats = json(&workdir.read("stats.json"));
    assert_eq!(stats["recovered"]["kept"], spilled);
    assert_balanced(&workdir);
}

#[test]
fn sigterm_leaves_what_is_not_taken_to_the_next_process() {
    let workdir = Workdir::new();
    let kept = workdir.fifo("kept");
    let args = ["kept", "--queue", "64KiB", "--spill-dir", "spill"];
    let mut text = String::new();
    for round in 0..4 {
        let mut running = tee(&workdir, &args);
        let mut reader = File::open(&kept).unwrap();
        running.write(lines(round * 5_000..(round + 1) * 5_000));
        figure_becomes(&workdir, "spilled", "kept", |count| count > 2_000);
        let read = eventually(|| (stat(&workdir, "stats.json", "in") == 5_000).then_some(()));
        assert!(read.is_some());
        running.signal(Signal::TERM);
        // The line that was sent in part must be read, so that rv-tee can exit.
        let mut begun = [0; 103];
        reader.read_exact(&mut begun[..1]).unwrap();
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        running.wait().assert_status(0);
        assert_balanced(&workdir);
        text.push(char::from(begun[0]));
        text += &reading.join().unwrap();
    }
    let running = tee(&workdir, &args);
    let rest = collect(kept);
    end_input(running).assert_status(0);
    text += &rest.join().unwrap();
    assert!(text == lines(0..20_000), "{} lines", text.lines().count());
}

#[test]
fn a_full_spill_leaves_a_gap_that_is_said() {
    let workdir = Workdir::new();
    let kept = workdir.fifo("kept");
    let args = ["kept", "other", "--queue", "64KiB", "--spill-max", "256KiB"];
    let mut running = tee(&workdir, &[&args[..], &["--on-full", "drop"]].concat());
    let reader = open_reader(&kept);
    running.write(lines(0..20_000));
    let dropped = figure_becomes(&workdir, "dropped", "kept", |count| count > 15_000);
    running.says("kept: the spill loses records");
    let reading = thread::spawn(move || {
        let mut text = String::new();
        { reader }.read_to_string(&mut text).unwrap();
        text
    });
    let finished = end_input(running);
    finished.assert_status(1);
    assert!(
        finished
            .stderr
            .contains(&format!("kept: {dropped} records are lost")),
        "{finished}"
    );
    assert_eq!(
        reading.join().unwrap().lines().count() as u64,
        20_000 - dropped
    );
    assert!(workdir.read("other") == lines(0..20_000));
    assert_balanced(&workdir);
}

#[test]
fn a_full_spill_can_hold_everybody_up_instead() {
    let workdir = Workdir::new();
    let (kept, other) = (workdir.fifo("kept"), workdir.fifo("other"));
    let args = ["kept", "other", "--queue", "64KiB", "--spill-max", "256KiB"];
    let mut running = tee(&workdir, &[&args[..], &["--on-full", "block"]].concat());
    let reader = open_reader(&kept);
    let other = collect(other);
    let mut stdin = running.stdin.take().unwrap();
    let input = lines(0..300_000);
    let feeding = thread::spawn({
        let input = input.clone();
        move || stdin.write_all(input.as_bytes()).unwrap()
    });
    running.says("kept: the spill is full, and reading the input waits for room");
    assert!(!feeding.is_finished());
    let reading = thread::spawn(move || {
        let mut text = String::new();
        { reader }.read_to_string(&mut text).unwrap();
        text
    });
    feeding.join().unwrap();
    running.wait().assert_status(0);
    assert!(reading.join().unwrap() == input);
    assert!(other.join().unwrap() == input);
    assert_balanced(&workdir);
}

#[test]
fn a_full_disk_under_a_spill_is_waited_for_and_no_line_is_torn() {
    let workdir = Workdir::new();
    workdir.write("input", lines(0..10_000));
    for pipe in ["kept", "go"] {
        workdir.fifo(pipe);
    }
    let tee = "rv-tee --no-stdout kept --queue 64KiB --spill-dir disk/spill --on-full block";
    // The reader opens its pipe, but reads nothing before `go` is written.
    let script = |tee: &str, freed: &str| {
        format!(
            "{{ cat go > /dev/null; cat > output; }} < kept &
            cat input | {tee} 2> stderr &
            until grep --quiet 'the spill is full' stderr; do sleep 0.02; done
            {freed}
            echo > go
            wait"
        )
    };
    let ballast = "head -c 150000 /dev/zero > disk/ballast\n".to_owned();
    let small = ballast + &script(tee, "rm disk/ballast");
    match workdir.on_a_small_disk(&small) {
        Some(run) => run.succeeds(),
        None => {
            // If no file system can be mounted, strace makes the writes fail.
            let refused = "strace -f -qq -o trace -e inject=pwrite64:error=ENOSPC:when=2..4";
            workdir
                .shell(&script(&format!("{refused} {tee}"), ""))
                .succeeds()
        }
    };
    assert!(workdir.read("output") == lines(0..10_000));
    assert_eq!(
        workdir.read("stderr").matches("the spill is full").count(),
        1
    );
}

#[test]
fn a_flipped_bit_in_a_spill_costs_one_line() {
    let workdir = Workdir::new();
    let kept = workdir.fifo("kept");
    let args = ["kept", "--queue", "64KiB", "--spill-dir", "spill"];
    let mut running = tee(&workdir, &args);
    let reader = File::open(&kept).unwrap();
    running.write(lines(0..20_000));
    let spilled = figure_becomes(&workdir, "spilled", "kept", |count| count > 15_000);
    running.signal(Signal::KILL);
    drop((running, reader));
    let segment = fs::read_dir(workdir.path("spill/kept"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|it| it == "spill"))
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[1_000] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let running = tee(&workdir, &args);
    let rest = collect(kept);
    let finished = end_input(running);
    finished.assert_status(1);
    assert_eq!(rest.join().unwrap().lines().count() as u64, spilled - 1);
    assert_eq!(json(&workdir.read("stats.json"))["corrupt"]["kept"], 1);
    assert_balanced(&workdir);
}

#[test]
fn a_spill_whose_end_is_spoiled_comes_to_an_end() {
    let workdir = Workdir::new();
    let kept = workdir.fifo("kept");
    let args = ["kept", "--queue", "64KiB", "--spill-dir", "spill"];
    let mut running = tee(&workdir, &args);
    let reader = File::open(&kept).unwrap();
    running.write(lines(0..2_000));
    let spilled = figure_becomes(&workdir, "spilled", "kept", |count| count > 700);
    running.signal(Signal::KILL);
    drop((running, reader));
    let folder = fs::read_dir(workdir.path("spill/kept")).unwrap();
    let segment = folder
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|it| it == "spill"))
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let end = bytes.len();
    // Flip a bit in each of the last three lines.
    for back in [10, 130, 250] {
        bytes[end - back] ^= 1;
    }
    fs::write(&segment, bytes).unwrap();
    // This test does not use --stats, because the timer of the stats would wake a loop that waits
    // for nothing.
    let run = || {
        let run = workdir.run("rv-tee").args(["--no-stdout"]).args(args);
        let running = run.start();
        let rest = collect(kept.clone());
        let finished = end_input(running);
        (finished.status, rest.join().unwrap().lines().count() as u64)
    };
    assert_eq!(run(), (1, spilled - 3));
    // The corrupt lines are not found again.
    assert_eq!(run(), (0, 0));
}

#[test]
fn a_line_longer_than_the_queue_goes_through_every_branch() {
    let workdir = Workdir::new();
    let (kept, live) = (workdir.fifo("kept"), workdir.fifo("live"));
    let args = ["kept", "--live", "live", "--queue", "64KiB"];
    let mut running = tee(&workdir, &args);
    let readers = [collect(kept), collect(live)];
    let line = "x".repeat(300_000) + "\n";
    running.write(&line);
    end_input(running).assert_status(0);
    for reader in readers {
        assert!(reader.join().unwrap() == line);
    }
    assert_balanced(&workdir);
}

#[test]
fn a_branch_that_fails_while_it_holds_everybody_up_lets_them_go() {
    let workdir = Workdir::new();
    let run = workdir.run("rv-tee").args(["kept", "--queue", "64KiB"]);
    let run = run.args(["--spill-max", "256KiB", "--on-full", "block"]);
    let mut running = run.start();
    let mut stdin = running.stdin.take().unwrap();
    let input = lines(0..20_000);
    let feeding = thread::spawn({
        let input = input.clone();
        move || stdin.write_all(input.as_bytes()).unwrap()
    });
    running.says("the spill is full");
    drop(running.stdout.take());
    let fed = eventually(|| feeding.is_finished().then_some(()));
    assert!(fed.is_some(), "nothing more is read");
    feeding.join().unwrap();
    running.wait().assert_status(0);
    assert!(workdir.read("kept") == input);
}

#[test]
fn a_file_waits_for_its_readers_instead_of_being_spilled() {
    let workdir = Workdir::new();
    let input = lines(0..100_000);
    workdir.write("input", &input);
    let slow = workdir.fifo("slow");
    let running = tee(&workdir, &["-i", "input", "slow", "--queue", "64KiB"]);
    let mut reader = open_reader(&slow);
    let mut text = next_line(&mut reader) + "\n";
    thread::sleep(Duration::from_millis(100));
    reader.read_to_string(&mut text).unwrap();
    let finished = running.wait();
    finished.assert_status(0);
    assert_eq!(finished.stderr, "");
    assert!(text == input);
    assert_balanced(&workdir);
}

#[test]
fn a_branch_that_fails_leaves_the_others_whole() {
    let workdir = Workdir::new();
    let run = workdir.run("rv-tee").args(["/dev/full", "file"]);
    let finished = run.input("one\ntwo\n").exits(3);
    assert!(
        finished
            .stderr
            .contains("/dev/full: cannot write: No space left"),
        "{finished}"
    );
    assert_eq!(finished.stdout(), "one\ntwo\n");
    assert_eq!(workdir.read("file"), "one\ntwo\n");
    // The reader of standard output may close it early.
    let script = "for ((i = 0; i < 100000; i++)); do echo $i; done | rv-tee kept | head -n 1";
    workdir.shell(script).succeeds();
    assert_eq!(workdir.read("kept").lines().count(), 100_000);
}

#[test]
fn two_never_spill_into_one_folder() {
    let workdir = Workdir::new();
    let args = ["file", "--spill-dir", "spill"];
    let running = tee(&workdir, &args);
    let there = eventually(|| fs::exists(workdir.path("file")).unwrap().then_some(()));
    assert!(there.is_some());
    let second = workdir.run("rv-tee").args(args).exits(3);
    assert!(
        second.stderr.contains("another rv-tee uses this folder"),
        "{second}"
    );
    end_input(running).assert_status(0);
}

#[test]
fn what_can_be_no_branch_is_refused_with_the_remedy() {
    let workdir = Workdir::new();
    workdir.write("file", "");
    for (args, said) in [
        (&["--live", "file"][..], "mkfifo file"),
        (&["--live", "missing"], "missing: cannot open"),
        (&["--live-dir", "missing"], "mkdir"),
        (&["--no-stdout"], "nowhere to write"),
    ] {
        let refused = workdir.run("rv-tee").args(args).exits(2);
        assert!(refused.stderr.contains(said), "{refused}");
    }
}

#[test]
fn an_idle_tee_uses_no_processor() {
    let workdir = Workdir::new();
    let (present, absent) = (workdir.fifo("present"), workdir.fifo("absent"));
    let mut running = tee(&workdir, &["present", absent.as_str(), "--live", "present"]);
    let mut reader = open_reader(&present);
    running.write("one\n");
    next_line(&mut reader);
    thread::sleep(Duration::from_millis(300));
    let before = processor_ticks(running.id());
    thread::sleep(Duration::from_secs(1));
    assert!(processor_ticks(running.id()) - before <= 1);
}
