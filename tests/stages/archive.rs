//! rv-archive: any stream -> files that survive crashes -> the same stream.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use rustix::process::Signal;

use crate::harness::{Finished, Run, Workdir, eventually, json, request, request_at, stat};

/// `count` lines, each with its number.
pub fn numbered(from: u64, count: u64) -> String {
    (from..from + count)
        .map(|number| format!("{{\"messageId\":\"m-{number}\",\"timestamp\":{number}}}\n"))
        .collect()
}

/// `rv-archive` on the folder `logs`.
pub fn archive(workdir: &Workdir) -> Run {
    workdir.run("rv-archive").args(["--dir", "logs"])
}

/// All lines of the archive `logs`.
pub fn cat(workdir: &Workdir) -> String {
    if !fs::exists(workdir.path("logs/rv-archive.lock")).unwrap() {
        // The program was killed before it created the archive.
        return String::new();
    }
    let finished = workdir.run("rv-archive").args(["cat", "logs"]).succeeds();
    finished.stdout().to_owned()
}

/// The names of the complete files.
pub fn complete_files(workdir: &Workdir) -> Vec<String> {
    let Ok(entries) = fs::read_dir(workdir.path("logs")) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<String> = names.filter(|name| name.starts_with("log-")).collect();
    names.into_iter().collect()
}

pub fn gunzip(workdir: &Workdir, name: &str) -> String {
    let file = fs::File::open(workdir.path(&format!("logs/{name}"))).unwrap();
    let mut text = String::new();
    let whole = MultiGzDecoder::new(file).read_to_string(&mut text);
    whole.unwrap_or_else(|error| panic!("{name}: {error}"));
    text
}

pub fn verify(workdir: &Workdir) -> Finished {
    workdir.run("rv-archive").args(["verify", "logs"]).finish()
}

#[test]
fn whenever_it_is_killed_what_it_wrote_is_a_prefix_and_every_final_name_is_whole() {
    let workdir = Workdir::new();
    // Measures how long the program takes to start on this machine.
    let since = Instant::now();
    let running = archive(&workdir).start();
    let ready = || fs::exists(workdir.path("logs/rv-archive.lock")).unwrap();
    assert!(eventually(|| ready().then_some(())).is_some());
    let startup = since.elapsed();
    drop(running);
    let mut archived = 0;
    for round in 0..200u64 {
        let flags = ["--max-records", "40", "--threads", "2", "--quiet"];
        let mut running = archive(&workdir).args(flags).start();
        // Each round kills the program at another moment. The last line may be torn.
        let text = numbered(archived, 40 + round);
        let cut = text.len() - (round as usize * 7) % 30;
        let _ = running
            .stdin
            .as_mut()
            .unwrap()
            .write_all(&text.as_bytes()[..cut]);
        std::thread::sleep(startup / 2 + (startup + Duration::from_millis(4)) * round as u32 / 200);
        running.signal(Signal::KILL);
        running.wait();
        for name in complete_files(&workdir) {
            assert!(gunzip(&workdir, &name).ends_with('\n'));
        }
        let text = cat(&workdir);
        archived = text.lines().count() as u64;
        assert!(
            text == numbered(0, archived),
            "after {round} rounds:\n{text}"
        );
    }
    assert!(archived > 40, "{archived}");
    archive(&workdir).succeeds();
    assert!(cat(&workdir) == numbered(0, archived));
    let verdict = verify(&workdir);
    verdict.assert_status(0);
    let files = complete_files(&workdir).len();
    let expected = format!("logs: {files} complete files, {archived} lines");
    assert!(verdict.stdout().starts_with(&expected), "{verdict}");
}

#[test]
fn a_part_file_torn_at_any_byte_is_recovered_and_the_tail_counted() {
    let text = numbered(0, 3);
    for cut in 0..=text.len() {
        let workdir = Workdir::new();
        fs::create_dir(workdir.path("logs")).unwrap();
        workdir.write("logs/part-20200101T000000.000Z-000000.ndjson", &text[..cut]);
        let whole = text[..cut].rfind('\n').map_or(0, |at| at + 1);
        let finished = archive(&workdir).args(["--stats", "stats.json"]).succeeds();
        assert_eq!(cat(&workdir), text[..whole]);
        let torn = (cut - whole) as u64;
        assert_eq!(stat(&workdir, "stats.json", "discardedBytes"), torn);
        let message = format!("dropped {torn} bytes of a line");
        assert_eq!(finished.stderr.contains(&message), torn > 0, "{finished}");
        assert_eq!(complete_files(&workdir).len(), usize::from(whole > 0));
    }
}

#[test]
fn fifty_successors_on_one_pipe_lose_nothing_and_double_nothing() {
    let workdir = Workdir::new();
    let pipe = workdir.fifo("pipe");
    // Keeps the pipe open while no `rv-archive` reads it.
    let held = fs::File::options().read(true).write(true).open(&pipe);
    let held = held.unwrap();
    let count = 30_000;
    let writing = std::thread::spawn(move || {
        let mut writer = crate::harness::open_writer(&pipe);
        for number in 0..count {
            writer.write_all(numbered(number, 1).as_bytes()).unwrap();
            if number % 100 == 0 {
                std::thread::sleep(Duration::from_millis(4));
            }
        }
    });
    let mut restarts = 0;
    let mut seen = 0;
    while restarts < 50 || seen < count {
        let flags = ["-i", "pipe", "--quiet", "--stats", "stats.json"];
        let running = archive(&workdir).args(flags).start();
        std::thread::sleep(Duration::from_millis(15));
        running.signal(Signal::TERM);
        let finished = running.wait();
        // A signal that arrives before the handlers are installed ends the program at
        // once.
        assert!([0, 143].contains(&finished.status), "{finished}");
        seen = cat(&workdir).lines().count() as u64;
        restarts += 1;
    }
    writing.join().unwrap();
    drop(held);
    assert!(cat(&workdir) == numbered(0, count));
    verify(&workdir).assert_status(0);
}

/// Runs `rv-archive` under strace. The file `trace` gets the system calls, with the
/// paths of the descriptors. The caller adds the arguments of `rv-archive`.
pub fn traced(workdir: &Workdir, expressions: &[&str]) -> Run {
    let mut script = "exec strace -f -y -qq -o trace".to_owned();
    for expression in expressions {
        script += &format!(" -e {expression}");
    }
    workdir
        .shell(&format!("{script} rv-archive \"$@\""))
        .arg("rv-archive")
}

#[test]
fn a_file_and_its_folder_are_synced_before_the_name_counts() {
    let workdir = Workdir::new();
    let calls = "trace=fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat";
    let run = traced(&workdir, &[calls]).args(["--dir", "logs"]);
    run.input(numbered(0, 10)).succeeds();
    let trace = workdir.read("trace");
    let mut rest = trace.as_str();
    for (call, what) in [
        ("fsync(", "/logs>"),
        ("fsync(", ".gz.tmp>"),
        ("rename", ".gz.tmp\""),
        ("fsync(", "/logs>"),
        ("unlink", ".ndjson\""),
    ] {
        let found = rest
            .lines()
            .position(|line| line.contains(call) && line.contains(what))
            .unwrap_or_else(|| panic!("no {call} of {what} in its place:\n{trace}"));
        rest = rest.splitn(found + 2, '\n').last().unwrap();
    }
    // The part must be synced, too, no matter when. Without this sync, a power cut
    // would lose the part.
    let of_the_part = |line: &&str| line.contains("fdatasync(") && line.contains(".ndjson>");
    assert!(trace.lines().any(|line| of_the_part(&line)), "{trace}");
}

#[test]
fn what_was_written_is_synced_though_nothing_more_comes() {
    let workdir = Workdir::new();
    let run = traced(&workdir, &["trace=fdatasync"]);
    let mut running = run.args(["--dir", "logs", "--sync-every", "20ms"]).start();
    running.write(numbered(0, 1));
    let synced = eventually(|| {
        let trace = fs::read_to_string(workdir.path("trace")).ok()?;
        trace.contains(".ndjson>").then_some(())
    });
    assert!(synced.is_some());
    drop(running.stdin.take());
    running.wait().assert_status(0);
}

/// The name of an archive's first part with the clock [`STOPPED`].
const PART: &str = "logs/part-19700101T000001.000Z-000000.ndjson";

/// The compressed file of that part, before it gets its final name.
const UNFINISHED: &str = "logs/part-19700101T000001.000Z-000000.gz.tmp";

const STOPPED: [&str; 2] = ["--clock", "fixed:1"];

/// `rv-archive` under strace, which makes a system call on the file `path` fail as
/// `fault` says.
fn with_fault(workdir: &Workdir, path: &str, fault: &str) -> Run {
    let (call, _) = fault.split_once(':').unwrap();
    let path = workdir.path(path);
    let mut run = workdir
        .shell("exec strace -f -qq -o trace \"$@\"")
        .args(["strace", "-P", &path, "-e", &format!("trace={call}")])
        .args([
            "-e",
            &format!("inject={fault}"),
            "rv-archive",
            "--dir",
            "logs",
        ]);
    run.command.env("LC_ALL", "C");
    run.args(STOPPED)
}

#[test]
fn a_sync_that_fails_is_not_tried_again_but_the_file_is_written_anew() {
    for (path, fault, published) in [
        // The part is synced and compressed at the same time, so either may end first.
        (PART, "fdatasync:error=EIO:when=1", 0..2),
        (UNFINISHED, "fsync:error=EIO:when=1", 0..1),
        ("logs", "fsync:error=EIO:when=1", 1..2),
    ] {
        let workdir = Workdir::new();
        let mut input = numbered(0, 10);
        if path == "logs" {
            // A new part also syncs the folder. So this run has only the part of an
            // earlier run.
            fs::create_dir(workdir.path("logs")).unwrap();
            workdir.write(PART, std::mem::take(&mut input));
        }
        let finished = with_fault(&workdir, path, fault).input(input).exits(3);
        let message = format!("{path}: cannot sync: Input/output error");
        assert!(finished.stderr.contains(&message), "{finished}");
        let files = complete_files(&workdir).len();
        assert!(published.contains(&files), "{path}: {files}");
        // The next start makes a complete file from the part, and syncs the file.
        archive(&workdir).succeeds();
        assert_eq!(cat(&workdir), numbered(0, 10), "{path}");
        verify(&workdir).assert_status(0);
    }
}

#[test]
fn a_full_disk_is_waited_for_and_no_line_is_torn() {
    let workdir = Workdir::new();
    let count = 3000;
    workdir.write("input", numbered(0, count));
    // The ballast leaves room for only some of the input. It is removed later.
    let script = "
        head -c 180000 /dev/zero > disk/ballast
        rv-archive --dir disk/logs --stats stats.json < input 2> stderr &
        until grep --quiet 'reading pauses until there is room' stderr; do sleep 0.02; done
        rm disk/ballast
        wait $!
        rv-archive verify disk/logs > verdict
        rv-archive cat disk/logs > output";
    match workdir.on_a_small_disk(script) {
        Some(run) => {
            run.succeeds();
            assert!(workdir.read("output") == workdir.read("input"));
            assert!(workdir.read("verdict").contains("no faults"));
        }
        None => a_disk_that_refuses_writes_for_a_while_is_waited_for(),
    }
}

#[test]
fn a_disk_that_refuses_writes_for_a_while_is_waited_for() {
    let workdir = Workdir::new();
    let count = 3000;
    let run = with_fault(&workdir, PART, "write:error=ENOSPC:when=1..2");
    let finished = run.input(numbered(0, count)).succeeds();
    let warnings = finished
        .stderr
        .matches("reading pauses until there is room")
        .count();
    assert_eq!(warnings, 1, "one warning in ten seconds: {finished}");
    assert!(cat(&workdir) == numbered(0, count));
    verify(&workdir).assert_status(0);
}

#[test]
fn sigterm_ends_an_archive_that_waits_for_room_and_says_what_it_could_not_write() {
    let workdir = Workdir::new();
    workdir.write("input", numbered(0, 10_000));
    let run = with_fault(&workdir, PART, "write:error=ENOSPC:when=2+");
    let running = run.args(["--grace", "200ms", "-i", "input"]).start();
    let paused = eventually(|| {
        let trace = fs::read_to_string(workdir.path("trace")).ok()?;
        trace.contains("ENOSPC").then_some(())
    });
    assert!(paused.is_some());
    // The signal must go to the program, not to strace.
    let children = format!("/proc/{0}/task/{0}/children", running.id());
    let pid = fs::read_to_string(children).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let finished = running.wait();
    finished.assert_status(143);
    assert!(
        finished.stderr.contains("bytes were read and not written"),
        "{finished}"
    );
    archive(&workdir).succeeds();
    let kept = cat(&workdir);
    let lines = kept.lines().count() as u64;
    assert!(kept == numbered(0, lines) && lines < 10_000, "{lines}");
}

#[test]
fn a_file_that_may_not_grow_ends_the_program_and_keeps_what_is_whole() {
    let workdir = Workdir::new();
    workdir.write("input", numbered(0, 10_000));
    let script = "trap '' XFSZ; ulimit -f 64; exec rv-archive --dir logs -i input";
    let mut run = workdir.shell(script);
    run.command.env("LC_ALL", "C");
    let finished = run.exits(3);
    assert!(
        finished.stderr.contains("cannot write: File too large"),
        "{finished}"
    );
    archive(&workdir).succeeds();
    let kept = cat(&workdir);
    let lines = kept.lines().count() as u64;
    assert!(kept == numbered(0, lines) && lines > 1000, "{lines}");
}

#[test]
fn two_writers_never_share_a_folder() {
    let workdir = Workdir::new();
    let mut first = archive(&workdir).start();
    first.write(numbered(0, 1));
    let begun = eventually(|| fs::exists(workdir.path("logs")).unwrap().then_some(()));
    assert!(begun.is_some());
    let second = eventually(|| {
        let finished = archive(&workdir).finish();
        (finished.status == 3).then_some(finished)
    });
    let second = second.expect("the second writer is let in");
    assert!(
        second.stderr.contains("another rv-archive writes here"),
        "{second}"
    );
    first.write(numbered(1, 1));
    drop(first.stdin.take());
    first.wait().assert_status(0);
    assert_eq!(cat(&workdir), numbered(0, 2));
    archive(&workdir).input(numbered(2, 1)).succeeds();
    assert_eq!(cat(&workdir), numbered(0, 3));
}

#[test]
fn an_archive_is_copied_into_another_folder_and_not_into_itself() {
    let workdir = Workdir::new();
    archive(&workdir).input(numbered(0, 3)).succeeds();
    let finished = archive(&workdir).args(["-i", "./logs/"]).exits(2);
    assert!(
        finished.stderr.contains("input and output at once"),
        "{finished}"
    );
    assert_eq!(cat(&workdir), numbered(0, 3));
    let copy = workdir
        .run("rv-archive")
        .args(["--dir", "copy", "-i", "logs"]);
    copy.succeeds();
    let copied = workdir.run("rv-archive").args(["cat", "copy"]).succeeds();
    assert_eq!(copied.stdout(), numbered(0, 3));
}

#[test]
fn sighup_and_age_close_a_file_while_the_stream_goes_on() {
    let workdir = Workdir::new();
    let mut running = archive(&workdir).args(["--stats", "stats.json"]).start();
    for files in 1..=3 {
        running.write(numbered(files - 1, 1));
        let read = eventually(|| {
            let stats = fs::read_to_string(workdir.path("stats.json")).ok()?;
            stats.contains(&format!("\"in\":{files}")).then_some(())
        });
        assert!(read.is_some());
        running.signal(Signal::HUP);
        let closed = || (complete_files(&workdir).len() as u64 == files).then_some(());
        assert!(eventually(closed).is_some(), "{files}");
    }
    // No record has arrived since, so no file may be made.
    running.signal(Signal::HUP);
    drop(running.stdin.take());
    running.wait().assert_status(0);
    assert_eq!(complete_files(&workdir).len(), 3);

    let mut running = archive(&workdir).args(["--max-age", "50ms"]).start();
    for files in 4..=5 {
        running.write(numbered(files - 1, 1));
        let closed = || (complete_files(&workdir).len() as u64 == files).then_some(());
        assert!(eventually(closed).is_some(), "{files}");
    }
    drop(running.stdin.take());
    running.wait().assert_status(0);
    assert_eq!(cat(&workdir), numbered(0, 5));
}

#[test]
fn an_archive_stands_inside_a_pipe_and_has_a_line_before_it_passes_it_on() {
    let workdir = Workdir::new();
    let input = b"\xef\xbb\xbfone\r\n\n\xff\0two\nlast".to_vec();
    let finished = archive(&workdir).arg("--pass").input(&input).succeeds();
    assert_eq!(finished.stdout, [&input[..], b"\n"].concat());
    fs::remove_dir_all(workdir.path("logs")).unwrap();

    let mut running = archive(&workdir).arg("--pass").start();
    for number in 0..20 {
        running.write(numbered(number, 1));
        assert_eq!(running.line() + "\n", numbered(number, 1));
    }
    running.signal(Signal::KILL);
    running.wait();
    assert_eq!(cat(&workdir), numbered(0, 20));

    let finished = archive(&workdir).args(["-o", "x"]).exits(2);
    assert!(finished.stderr.contains("--pass"), "{finished}");
    workdir.write("file", "a\n");
    let run = archive(&workdir).args(["--pass", "-i", "file", "-o", "file"]);
    assert!(run.exits(2).stderr.contains("input and output"));
}

#[test]
fn when_the_reader_of_a_passing_archive_leaves_what_was_read_is_kept() {
    let workdir = Workdir::new();
    let script = "exec rv-archive --dir logs --pass | head -n 1";
    let mut running = workdir.shell(&format!("set +o pipefail; {script}")).start();
    running.write(numbered(0, 1));
    assert_eq!(running.line() + "\n", numbered(0, 1));
    let mut sent = 1;
    while running
        .stdin
        .as_mut()
        .unwrap()
        .write_all(numbered(sent, 1).as_bytes())
        .is_ok()
    {
        sent += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    let finished = running.wait();
    assert_eq!(finished.stderr, "", "{finished}");
    // The lines that were left in the pipe are lost, and no line before them.
    let kept = cat(&workdir);
    let lines = kept.lines().count() as u64;
    assert!((2..=sent).contains(&lines), "{lines} of {sent}");
    assert!(kept == numbered(0, lines));
    assert!(!complete_files(&workdir).is_empty());
}

#[test]
fn the_oldest_files_go_where_there_are_too_many() {
    let workdir = Workdir::new();
    let run = archive(&workdir).args(["--max-records", "10", "--keep-files", "3"]);
    run.args(["--stats", "stats.json"])
        .input(numbered(0, 75))
        .succeeds();
    assert_eq!(complete_files(&workdir).len(), 3);
    assert_eq!(cat(&workdir), numbered(50, 25));
    assert_eq!(stat(&workdir, "stats.json", "removedFiles"), 5);
    assert_eq!(stat(&workdir, "stats.json", "archived"), 75);
    let verdict = verify(&workdir);
    verdict.assert_status(0);
    assert!(
        verdict.stdout().contains("5 older files were removed"),
        "{verdict}"
    );

    let size = |name: &String| {
        fs::metadata(workdir.path(&format!("logs/{name}")))
            .unwrap()
            .len()
    };
    let before: Vec<u64> = complete_files(&workdir).iter().map(size).collect();
    let limit = (before[1] + before[2]).to_string() + "B";
    archive(&workdir).args(["--keep-bytes", &limit]).succeeds();
    assert_eq!(cat(&workdir), numbered(60, 15));
    // The latest file is larger than the limit, and stays.
    archive(&workdir).args(["--keep-bytes", "1B"]).succeeds();
    assert_eq!(cat(&workdir), numbered(70, 5));
}

/// Writes a complete file without a stamp.
fn write_complete(workdir: &Workdir, id: &str, text: &str) {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    workdir.write(&format!("logs/log-{id}.gz"), gzip.finish().unwrap());
}

#[test]
fn twenty_thousand_files_in_a_folder_are_read_like_one() {
    let workdir = Workdir::new();
    // Creates an archive without records.
    archive(&workdir).succeeds();
    let count = 20_000;
    for number in 0..count {
        let (second, millisecond) = (number / 1000, number % 1000);
        let id = format!("20260101T0000{second:02}.{millisecond:03}Z-000000");
        write_complete(&workdir, &id, &numbered(number, 1));
    }
    // All files are read as one stream.
    let all = numbered(0, count);
    assert!(cat(&workdir) == all);
    let decoy = workdir.run("rv-decoy").args(["-i", "logs"]).succeeds();
    assert!(decoy.stdout() == all);
    let find = workdir.run("rv-archive").args(["find", "m-19999", "logs"]);
    assert_eq!(find.succeeds().stdout(), numbered(19_999, 1));
    let verdict = verify(&workdir);
    verdict.assert_status(0);
    assert!(
        verdict
            .stdout()
            .contains("20000 complete files, 20000 lines"),
        "{verdict}"
    );
    archive(&workdir).input(numbered(count, 1)).succeeds();
    assert!(cat(&workdir) == numbered(0, count + 1));
}

#[test]
fn cat_gives_the_lines_of_a_time_and_a_number_of_them() {
    let workdir = Workdir::new();
    let text: String = (0..100)
        .map(|number| match number % 10 {
            5 => format!("no record {number}\n"),
            _ => request_at(&format!("m-{number}"), 1_700_000_000.0 + f64::from(number)) + "\n",
        })
        .collect();
    let clock = ["--clock", "fixed:1700000050"];
    let run = archive(&workdir).args(["--max-records", "10"]).args(clock);
    run.input(&text).succeeds();
    let lines: Vec<&str> = text.lines().collect();
    let cat = |flags: &[&str]| {
        let finished = workdir.run("rv-archive").arg("cat").args(flags).arg("logs");
        finished.succeeds().stdout().to_owned()
    };
    let expected = |from: usize, to: usize| lines[from..to].join("\n") + "\n";
    for (flags, from, to) in [
        (&["--since", "1700000020"][..], 20, 100),
        (&["--until", "2023-11-14T22:13:50Z"], 0, 30),
        (
            &[
                "--since",
                "1700000017",
                "--until",
                "1700000042.5",
                "--slack",
                "1s",
            ],
            17,
            43,
        ),
        // A line without a timestamp gets the timestamp of the line before it.
        (&["--since", "1700000064", "--until", "1700000065"], 64, 66),
        (&["-n", "7"], 0, 7),
        (&["-n", "3", "--since", "1700000050"], 50, 53),
        (&["--since", "2023-11-14", "--until", "2023-11-15"], 0, 100),
    ] {
        assert_eq!(cat(flags), expected(from, to), "{flags:?}");
    }
    assert_eq!(cat(&["--since", "1s"]), "");
    let wrong = workdir
        .run("rv-archive")
        .args(["cat", "logs", "--since", "noon"]);
    assert!(wrong.exits(2).stderr.contains("2026-05-01T12:30:00Z"));
}

#[test]
fn cat_keeps_a_pace() {
    let workdir = Workdir::new();
    let text: String = [0.0, 0.1, 0.3]
        .map(|at| request_at("m", 1e9 + at) + "\n")
        .concat();
    archive(&workdir).input(&text).succeeds();
    for (flags, at_least) in [
        (&["--rate", "10"][..], 200),
        (&["--as-recorded"], 300),
        (&["--as-recorded", "--speed", "2"], 150),
    ] {
        let started = Instant::now();
        let run = workdir.run("rv-archive").args(["cat", "logs"]).args(flags);
        let finished = run.args(["--stats", "stats.json"]).succeeds();
        assert!(
            started.elapsed() >= Duration::from_millis(at_least),
            "{flags:?}"
        );
        assert_eq!(finished.stdout(), text);
        assert_eq!(json(&workdir.read("stats.json"))["behind_ms"]["count"], 3);
    }
    // The last line is due many years later. The lines before it do not wait, and a
    // signal ends the wait.
    archive(&workdir)
        .input(request_at("m", 2e9) + "\n")
        .succeeds();
    let run = workdir
        .run("rv-archive")
        .args(["cat", "logs", "--as-recorded"]);
    let mut running = run.start();
    for line in text.lines() {
        assert_eq!(running.line(), line);
    }
    running.signal(Signal::INT);
    running.wait().assert_status(130);
}

#[test]
fn find_prints_the_records_of_an_id() {
    let workdir = Workdir::new();
    let lines = [
        request("a"),
        request("b").replace("5.1", "\"a\""),
        r#"{"messageId":"\u0061","result":{}}"#.to_owned(),
        request("c"),
    ];
    archive(&workdir)
        .args(["--max-records", "1"])
        .input(lines.join("\n"))
        .succeeds();
    fs::write(
        workdir.path("logs/part-29990101T000000.000Z-000000.ndjson"),
        request("d") + "\n" + &request("torn"),
    )
    .unwrap();
    let find = |id: &str, flags: &[&str]| {
        let run = workdir.run("rv-archive").args(["find", id, "logs"]);
        run.args(flags).finish()
    };
    let found = find("a", &["--stats", "stats.json"]);
    found.assert_status(0);
    assert_eq!(found.lines(), [&lines[0], &lines[2]]);
    assert_eq!(stat(&workdir, "stats.json", "found"), 2);
    assert_eq!(find("a", &["-n", "1"]).lines(), [&lines[0]]);
    assert_eq!(find("d", &[]).stdout(), request("d") + "\n");
    let nothing = find("torn", &[]);
    nothing.assert_status(1);
    assert_eq!(nothing.stdout(), "");
    find("", &[]).assert_status(2);
}

#[test]
fn verify_tells_each_kind_of_damage() {
    let archived = |story: &dyn Fn(&Workdir, Vec<String>)| {
        let workdir = Workdir::new();
        let run = archive(&workdir).args(["--max-records", "10"]);
        run.input(numbered(0, 50)).succeeds();
        let paths = complete_files(&workdir).into_iter();
        story(
            &workdir,
            paths
                .map(|name| workdir.path(&format!("logs/{name}")))
                .collect(),
        );
        verify(&workdir)
    };
    let assert_fault = |verdict: Finished, file: usize, fault: &str| {
        verdict.assert_status(1);
        let lines = verdict.lines();
        assert!(lines[0].contains(fault), "{verdict}");
        assert!(
            lines[0].contains(&format!("-{file:06}.gz: ")) || file == 9,
            "{verdict}"
        );
        assert!(verdict.stdout().contains("fault"), "{verdict}");
    };
    let verdict = archived(&|_, _| {});
    verdict.assert_status(0);
    let sum = "logs: 5 complete files, 50 lines, ";
    assert!(
        verdict.stdout().starts_with(sum) && verdict.lines().len() == 1,
        "{verdict}"
    );

    for at in [30, 60, -7, -3] {
        let verdict = archived(&|_, files| {
            let mut bytes = fs::read(&files[2]).unwrap();
            let at = if at < 0 { bytes.len() as i32 + at } else { at };
            bytes[at as usize] ^= 0x10;
            fs::write(&files[2], bytes).unwrap();
        });
        verdict.assert_status(1);
        assert!(
            verdict.stdout().contains("1 fault") || verdict.lines().len() > 1,
            "{verdict}"
        );
    }
    let verdict = archived(&|_, files| {
        let bytes = fs::read(&files[2]).unwrap();
        fs::write(&files[2], &bytes[..bytes.len() - 10]).unwrap();
    });
    assert_fault(verdict, 9, "is damaged: ");
    let verdict = archived(&|_, files| {
        fs::remove_file(&files[2]).unwrap();
        fs::remove_file(&files[3]).unwrap();
    });
    assert_fault(verdict, 9, "2 files with 20 lines are missing before it");
    let verdict = archived(&|workdir, files| {
        fs::rename(&files[1], workdir.path("aside")).unwrap();
        fs::rename(&files[2], &files[1]).unwrap();
        fs::rename(workdir.path("aside"), &files[2]).unwrap();
    });
    assert_fault(verdict, 9, "1 files with 10 lines are missing before it");
    // A valid file of another archive replaces a file.
    let verdict = archived(&|workdir, files| {
        let other = Workdir::new();
        archive(&other).input(numbered(0, 9)).succeeds();
        let name = complete_files(&other).remove(0);
        fs::copy(other.path(&format!("logs/{name}")), &files[2]).unwrap();
        assert_eq!(cat(workdir).lines().count(), 49);
    });
    assert_fault(verdict, 9, "follows file 1");
    // A line was removed, and the other lines were compressed again under the old
    // header.
    let verdict = archived(&|_, files| {
        let bytes = fs::read(&files[2]).unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(numbered(20, 9).as_bytes()).unwrap();
        let anew = gzip.finish().unwrap();
        fs::write(&files[2], [&bytes[..48], &anew[10..]].concat()).unwrap();
    });
    assert_fault(verdict, 9, "has 9 lines");
}

#[test]
fn a_folder_that_is_being_written_is_read_up_to_its_last_whole_line() {
    let workdir = Workdir::new();
    let mut running = archive(&workdir).args(["--stats", "stats.json"]).start();
    running.write(numbered(0, 3) + "torn");
    let read = eventually(|| {
        let names = fs::read_dir(workdir.path("logs")).ok()?;
        let mut parts = names.filter_map(|entry| {
            let entry = entry.unwrap();
            let part = entry.file_name().to_str()?.starts_with("part-");
            part.then(|| entry.metadata().unwrap().len())
        });
        (parts.next()? as usize == numbered(0, 3).len()).then_some(())
    });
    assert!(read.is_some());
    assert_eq!(cat(&workdir), numbered(0, 3));
    let decoy = workdir.run("rv-decoy").args(["-i", "logs"]).succeeds();
    assert_eq!(decoy.stdout(), numbered(0, 3));
    let verdict = verify(&workdir);
    verdict.assert_status(0);
    assert!(
        verdict.stdout().contains("files not complete yet: 1"),
        "{verdict}"
    );
    drop(running.stdin.take());
    running.wait().assert_status(0);
    assert_eq!(cat(&workdir), numbered(0, 3) + "torn\n");
}

#[test]
fn sigint_to_all_loses_nothing_on_its_way_into_the_archive() {
    let workdir = Workdir::new();
    let mut run = workdir.shell("rv-request | rv-decoy | rv-archive --dir logs --stats stats.json");
    // A terminal, too, would start the pipeline in its own process group.
    std::os::unix::process::CommandExt::process_group(&mut run.command, 0);
    let mut running = run.start();
    running.write("{}\n".repeat(1000));
    let read = eventually(|| {
        let stats = fs::read_to_string(workdir.path("stats.json")).ok()?;
        stats.contains("\"in\":1000").then_some(())
    });
    assert!(read.is_some());
    let group = rustix::process::Pid::from_raw(running.id() as i32).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    drop(running.stdin.take());
    let _ = running.wait();
    let whole = eventually(|| (cat(&workdir).lines().count() == 1000).then_some(()));
    assert!(whole.is_some(), "{} lines", cat(&workdir).lines().count());
    verify(&workdir).assert_status(0);
}

#[test]
fn what_cannot_be_passed_on_is_a_failure_and_in_the_archive() {
    let workdir = Workdir::new();
    let run = archive(&workdir).args(["--pass", "-o", "/dev/full"]);
    let finished = run.input(numbered(0, 10)).exits(3);
    assert!(
        finished
            .stderr
            .contains("/dev/full: cannot write: No space left"),
        "{finished}"
    );
    assert_eq!(cat(&workdir), numbered(0, 10));
}
