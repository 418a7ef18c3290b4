//! Damage to an archive by other programs: each fault is reported, and affects no other
//! file.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::process::Signal;

use crate::archive::{archive, cat, complete_files, gunzip, numbered, traced, verify};
use crate::es::FakeService;
use crate::harness::{Finished, Run, Running, Workdir, eventually, request_at, stat};

/// Six requests in three files.
fn three_files(workdir: &Workdir) -> (Vec<String>, Vec<String>) {
    let lines: Vec<String> = (1..=6)
        .map(|number| request_at(&format!("m{number}"), 1_700_000_000.0 + f64::from(number)))
        .collect();
    let run = archive(workdir).args(["--max-records", "2", "--quiet"]);
    run.args(["--clock", "fixed:1700000000"])
        .input(lines.join("\n"))
        .succeeds();
    let files = complete_files(workdir).into_iter();
    let files = files.map(|name| workdir.path(&format!("logs/{name}")));
    (lines, files.collect())
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// Damage to the second file. `left` of its two lines can still be read. `said` is a
/// part of the message; it is empty if the damage is not a fault.
struct Damage {
    name: &'static str,
    harm: fn(&str),
    left: usize,
    said: &'static str,
}

fn append(path: &str, bytes: &[u8]) {
    let mut file = fs::File::options().append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

fn instead(path: &str, bytes: impl AsRef<[u8]>) {
    fs::write(path, bytes).unwrap();
}

const DAMAGES: &[Damage] = &[
    Damage {
        name: "padding",
        harm: |path| append(path, &[0; 512]),
        left: 2,
        said: "",
    },
    Damage {
        name: "garbage",
        harm: |path| append(path, b"junk\n"),
        left: 2,
        said: "is damaged: its last member is followed by data that is not gzip",
    },
    Damage {
        name: "padding and garbage",
        harm: |path| append(path, &[&[0; 512][..], b"junk\n"].concat()),
        left: 2,
        said: "is damaged: its last member is followed by zeros and data that is not gzip",
    },
    Damage {
        name: "an empty file",
        harm: |path| instead(path, ""),
        left: 0,
        said: "is damaged: it is empty",
    },
    Damage {
        name: "zeros alone",
        harm: |path| instead(path, [0; 512]),
        left: 0,
        said: "is damaged: it does not start like a gzip file",
    },
    Damage {
        name: "a head alone",
        harm: |path| {
            let bytes = fs::read(path).unwrap();
            instead(path, &bytes[..48]);
        },
        left: 0,
        said: "is damaged: it ends too early",
    },
    Damage {
        name: "plain text",
        harm: |path| instead(path, "{\"messageId\":\"m5\"}\n"),
        left: 0,
        said: "is damaged: it does not start like a gzip file",
    },
    Damage {
        name: "a checksum that is wrong",
        harm: |path| {
            let mut bytes = fs::read(path).unwrap();
            let at = bytes.len() - 5;
            bytes[at] ^= 1;
            instead(path, bytes);
        },
        left: 2,
        said: "is damaged: ",
    },
    Damage {
        name: "a second member that is cut",
        harm: |path| {
            let more = gzip(&"x".repeat(1000));
            append(path, &more[..more.len() - 9]);
        },
        left: 2,
        said: "is damaged: it ends too early",
    },
    Damage {
        name: "a second member that is damaged",
        harm: |path| {
            let mut more = gzip("x");
            more[10] = 0xff;
            append(path, &more);
        },
        left: 2,
        said: "is damaged: ",
    },
    Damage {
        name: "a link",
        harm: |path| {
            let target = path.replace("-000001.gz", "-000000.gz");
            fs::remove_file(path).unwrap();
            symlink(target, path).unwrap();
        },
        left: 0,
        said: "is a link, which is not followed",
    },
    Damage {
        name: "a link to nothing",
        harm: |path| {
            fs::remove_file(path).unwrap();
            symlink("nothing", path).unwrap();
        },
        left: 0,
        said: "is a link, which is not followed",
    },
    Damage {
        name: "a link to itself",
        harm: |path| {
            fs::remove_file(path).unwrap();
            symlink(path, path).unwrap();
        },
        left: 0,
        said: "is a link, which is not followed",
    },
    Damage {
        name: "a link to a device",
        harm: |path| {
            fs::remove_file(path).unwrap();
            symlink("/dev/zero", path).unwrap();
        },
        left: 0,
        said: "is a link, which is not followed",
    },
    Damage {
        name: "a named pipe",
        harm: |path| {
            fs::remove_file(path).unwrap();
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
        },
        left: 0,
        said: "is a named pipe, not a file",
    },
    Damage {
        name: "a socket",
        harm: |path| {
            fs::remove_file(path).unwrap();
            UnixListener::bind(path).unwrap();
        },
        left: 0,
        said: "is a socket, not a file",
    },
    Damage {
        name: "a folder",
        harm: |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
        left: 0,
        said: "is a folder, not a file",
    },
];

/// Checks that a program wrote these lines. If the damage is a fault, the program must
/// have reported it and exited with status 1.
fn assert_given(finished: &Finished, name: &str, expected: &[String], damage: &Damage) {
    assert_eq!(finished.lines(), expected, "{name}: {finished}");
    let is_fault = !damage.said.is_empty();
    finished.assert_status(i32::from(is_fault));
    assert!(finished.stderr.contains(damage.said), "{name}: {finished}");
    if is_fault {
        assert!(finished.stderr.contains("-000001.gz: "), "{finished}");
    }
}

#[test]
fn one_bad_file_among_others_costs_itself_alone() {
    for damage in DAMAGES {
        let workdir = Workdir::new();
        let (mut lines, files) = three_files(&workdir);
        (damage.harm)(&files[1]);
        lines.drain(2 + damage.left..4);
        let is_fault = !damage.said.is_empty();
        let name = damage.name;

        let run = workdir.run("rv-archive").args(["cat", "logs"]);
        assert_given(&run.finish(), name, &lines, damage);
        let run = workdir.run("rv-archive").args(["find", "m5", "logs"]);
        assert_given(&run.finish(), name, &lines[lines.len() - 2..][..1], damage);
        let run = workdir.run("rv-decoy").args(["-i", "logs"]);
        assert_given(&run.finish(), name, &lines, damage);
        let verdict = verify(&workdir);
        verdict.assert_status(i32::from(is_fault));
        assert!(verdict.stdout().contains(damage.said), "{name}: {verdict}");
        assert_eq!(verdict.stdout().contains("no faults"), !is_fault);
        // The next `rv-archive` can still write and count the complete files.
        let run = archive(&workdir).args(["--keep-files", "100", "--quiet"]);
        let finished = run.input("{\"new\":1}").finish();
        finished.assert_status(0);
        assert!(cat_whatever(&workdir).ends_with("{\"new\":1}\n"), "{name}");
        // The damaged file is read alone.
        if fs::symlink_metadata(&files[1]).unwrap().is_file() {
            let run = workdir.run("rv-decoy").args(["-i", &files[1]]);
            let own = &lines[2..2 + damage.left];
            assert_given(&run.finish(), name, own, damage);
        }
    }
}

/// The lines of an archive that may be damaged.
fn cat_whatever(workdir: &Workdir) -> String {
    let run = workdir.run("rv-archive").args(["cat", "logs", "--quiet"]);
    run.finish().stdout().to_owned()
}

#[test]
fn a_line_that_breaks_off_is_not_given_for_a_whole_one() {
    let workdir = Workdir::new();
    let (mut lines, files) = three_files(&workdir);
    // The file is not compressed, so all bytes before the cut can be read.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    let text = lines[2..4].join("\n") + "\n";
    gzip.write_all(text.as_bytes()).unwrap();
    let bytes = gzip.finish().unwrap();
    fs::write(&files[1], &bytes[..bytes.len() - 30]).unwrap();
    lines.remove(3);
    for run in [
        workdir.run("rv-archive").args(["cat", "logs"]),
        workdir.run("rv-decoy").args(["-i", "logs"]),
    ] {
        let finished = run.exits(1);
        assert_eq!(finished.lines(), lines, "{finished}");
        let torn = "bytes of a line whose end is missing";
        assert!(finished.stderr.contains(torn), "{finished}");
    }
    let run = workdir.run("rv-archive").args(["find", "m4", "logs"]);
    assert_eq!(run.exits(1).stdout(), "");
}

#[test]
fn every_program_goes_on_behind_a_bad_file() {
    let workdir = Workdir::new();
    workdir.train_iris_models();
    let (lines, files) = three_files(&workdir);
    fs::write(&files[1], "").unwrap();
    workdir.fifo("logs/log-20000101T000000.000Z-000000.gz");
    let rest = [&lines[..2], &lines[4..]].concat();
    let said = |finished: &Finished| {
        finished.assert_status(1);
        assert!(finished.stderr.contains("it is empty"), "{finished}");
        assert!(finished.stderr.contains("is a named pipe"), "{finished}");
    };
    let model = ["--model", "dt.json", "--rescore", "-i", "logs"];
    let replay = ["--replay", "--requests", "logs", "--scores", "logs"];
    let service = FakeService::start();
    let sink = ["--url", &service.url(), "--index", "i", "-i", "logs"];
    for (name, flags, counted) in [
        ("rv-decoy", &["-i", "logs"][..], 4),
        ("rv-tee", &["-i", "logs"], 4),
        ("rv-request", &["-i", "logs"], 4),
        ("rv-score", &model, 4),
        ("rv-archive", &["-i", "logs", "--dir", "copy", "--pass"], 4),
        ("rv-es-sink", &sink, 0),
    ] {
        let finished = workdir.run(name).args(flags).finish();
        said(&finished);
        assert_eq!(finished.lines().len(), counted, "{finished}");
        if ["rv-decoy", "rv-tee", "rv-archive"].contains(&name) {
            assert_eq!(finished.lines(), rest, "{finished}");
        }
    }
    assert_eq!(service.documents().len(), 4);
    // A replay reads each recording in a separate thread.
    let run = workdir.run("rv-rendezvous").args(replay);
    let finished = run.args(["--prefer", "dt@1", "--deadline", "1s"]).finish();
    said(&finished);
    assert_eq!(finished.lines().len(), 4, "{finished}");
    // Training reads the archive and a file of labels.
    let labels = (1..=6).map(|number| format!("m{number},{}\n", number % 2));
    workdir.write(
        "labels.csv",
        "messageId,y\n".to_owned() + &labels.collect::<String>(),
    );
    let run = workdir.run("rv-score").args(["train", "--input", "logs"]);
    let run = run.args(["--labels", "labels.csv", "--target", "y", "--name", "n"]);
    let run = run.args(["--algorithm", "decision-tree", "--output", "n.json"]);
    // All requests are the same, so no field would be used otherwise.
    let run = run.args(["--model-version", "1", "--features", "sepalLength"]);
    said(&run.finish());
    assert!(fs::exists(workdir.path("n.json")).unwrap());
    // With --strict the fault ends the program.
    let run = workdir.run("rv-decoy").args(["-i", "logs", "--strict"]);
    run.exits(3);
}

/// Starts an archive that writes five lines into its part. Also returns the path of the
/// part.
fn with_a_part(workdir: &Workdir, flags: &[&str]) -> (Running, String) {
    let run = archive(workdir).args(["--stats", "stats.json", "--clock", "fixed:1"]);
    let mut running = run.args(flags).start();
    running.write(numbered(0, 5));
    let part = workdir.path("logs/part-19700101T000001.000Z-000000.ndjson");
    let length = numbered(0, 5).len() as u64;
    let written = || {
        fs::metadata(&part)
            .is_ok_and(|it| it.len() == length)
            .then_some(())
    };
    assert!(eventually(written).is_some());
    (running, part)
}

/// `harm` changes the part, `more` lines follow, and the archive ends. Checks the kept
/// lines, the message and the counts.
fn interfere(harm: fn(&str), more: u64, kept: &[u64], said: &str) {
    for early in [false, true] {
        let workdir = Workdir::new();
        let sync: &[&str] = match early {
            true => &["--sync-every", "1ms"],
            false => &["--sync-every", "1h"],
        };
        let (mut running, part) = with_a_part(&workdir, sync);
        harm(&part);
        if more > 0 {
            running.write(numbered(5, more));
        }
        drop(running.stdin.take());
        let finished = running.wait();
        finished.assert_status(1);
        assert!(finished.stderr.contains(said), "{finished}");
        let expected: String = kept.iter().map(|number| numbered(*number, 1)).collect();
        let kept_lines: String = complete_files(&workdir)
            .iter()
            .map(|name| gunzip(&workdir, name))
            .collect();
        assert_eq!(kept_lines, expected, "{finished}");
        let count = |name: &str| stat(&workdir, "stats.json", name);
        assert_eq!(count("in"), 5 + more);
        assert_eq!(count("archived"), kept.len() as u64);
        assert_eq!(count("lost"), 5 + more - kept.len() as u64, "{finished}");
        assert_eq!(count("open"), 0);
    }
}

#[test]
fn a_part_that_is_cut_keeps_its_whole_lines_and_the_loss_is_told() {
    fn to(path: &str, length: u64) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(length).unwrap();
    }
    interfere(|path| to(path, 40), 0, &[0], "4 lines are lost");
    interfere(|path| to(path, 40), 2, &[0, 5, 6], "4 lines are lost");
    interfere(|path| to(path, 0), 0, &[], "5 lines are lost");
    interfere(|path| to(path, 0), 1, &[5], "5 lines are lost");
    interfere(|path| to(path, 110), 1, &[0, 1, 2, 5], "2 lines are lost");
}

#[test]
fn what_something_else_writes_into_a_part_is_taken_out_or_told() {
    let all: Vec<u64> = (0..7).collect();
    let undone = "this is undone";
    interfere(|path| append(path, b"torn"), 0, &all[..5], undone);
    interfere(|path| append(path, b"torn"), 2, &all, undone);
    interfere(|path| append(path, b"a\nb\n"), 1, &all[..6], undone);
}

#[test]
fn a_part_that_is_overwritten_is_told() {
    let workdir = Workdir::new();
    let (mut running, part) = with_a_part(&workdir, &[]);
    let text = fs::read_to_string(&part).unwrap().replace("m-3", "x-3");
    let file = fs::File::options().write(true).open(&part).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, text.as_bytes(), 0).unwrap();
    drop(running.stdin.take());
    let finished = running.wait();
    finished.assert_status(1);
    assert!(
        finished
            .stderr
            .contains("has changed its content; 5 of 5 lines are left"),
        "{finished}"
    );
    assert!(cat(&workdir) == text);
}

#[test]
fn a_part_without_its_name_is_saved_from_the_open_file() {
    let all: Vec<u64> = (0..7).collect();
    let said = "its records were saved from the open file";
    let remove = |path: &str| fs::remove_file(path).unwrap();
    interfere(remove, 0, &all[..5], said);
    interfere(remove, 2, &all, said);
    interfere(
        |path| fs::rename(path, path.to_owned() + ".old").unwrap(),
        1,
        &all[..6],
        said,
    );
    let elsewhere = |path: &str| {
        let to = path.replace("/logs/", "/moved-");
        fs::rename(path, to).unwrap();
    };
    interfere(elsewhere, 1, &all[..6], said);
    interfere(
        |path| {
            fs::remove_file(path).unwrap();
            symlink("/dev/null", path).unwrap();
        },
        2,
        &all,
        said,
    );
}

#[test]
fn a_part_that_is_replaced_becomes_two_files_and_neither_is_lost() {
    let workdir = Workdir::new();
    let (mut running, part) = with_a_part(&workdir, &[]);
    fs::remove_file(&part).unwrap();
    fs::write(&part, "another\n").unwrap();
    drop(running.stdin.take());
    running.wait().assert_status(1);
    let name = "log-19700101T000001.000Z-000000.gz";
    assert_eq!(gunzip(&workdir, name), numbered(0, 5));
    let finished = archive(&workdir).args(["--clock", "fixed:1"]).exits(1);
    assert!(finished.stderr.contains("is left unchanged"), "{finished}");
    assert_eq!(gunzip(&workdir, name), numbered(0, 5));
    assert_eq!(cat(&workdir), numbered(0, 5) + "another\n");
    archive(&workdir).succeeds();
}

#[test]
fn a_removed_part_is_noticed_before_it_is_closed() {
    let workdir = Workdir::new();
    let (mut running, part) = with_a_part(&workdir, &["--sync-every", "10ms"]);
    fs::remove_file(&part).unwrap();
    running.write(numbered(5, 1));
    running.says("its records were saved from the open file");
    assert_eq!(cat(&workdir), numbered(0, 6));
    running.write(numbered(6, 1));
    drop(running.stdin.take());
    running.wait().assert_status(1);
    assert_eq!(cat(&workdir), numbered(0, 7));
    verify(&workdir).assert_status(0);
}

#[test]
fn what_is_passed_on_is_kept_though_the_part_is_removed_or_cut() {
    let workdir = Workdir::new();
    let (mut running, part) = with_a_part(&workdir, &["--pass"]);
    for number in 0..5 {
        assert_eq!(running.line() + "\n", numbered(number, 1));
    }
    fs::remove_file(&part).unwrap();
    running.write(numbered(5, 1));
    assert_eq!(running.line() + "\n", numbered(5, 1));
    // By now the line is in a complete file.
    running.signal(Signal::KILL);
    running.wait();
    assert_eq!(cat(&workdir), numbered(0, 6));
}

#[test]
fn a_complete_file_is_never_replaced() {
    for faults in [
        &[][..],
        &["renameat2:error=EINVAL"],
        &["renameat2:error=EINVAL", "link,linkat:error=EPERM"],
    ] {
        let workdir = Workdir::new();
        let run = |input: String| -> Run {
            let mut expressions: Vec<String> =
                vec!["trace=renameat2,rename,link,linkat".to_owned()];
            expressions.extend(faults.iter().map(|fault| format!("inject={fault}")));
            let expressions: Vec<&str> = expressions.iter().map(String::as_str).collect();
            let run = traced(&workdir, &expressions).args(["--dir", "logs", "--clock", "fixed:1"]);
            run.input(input)
        };
        run(numbered(0, 1)).succeeds();
        // While the next part is open, another file takes its final name.
        let mut running = run(String::new()).start();
        running.write(numbered(1, 1));
        let part = workdir.path("logs/part-19700101T000001.000Z-000001.ndjson");
        assert!(eventually(|| fs::exists(&part).unwrap().then_some(())).is_some());
        let taken = workdir.path("logs/log-19700101T000001.000Z-000001.gz");
        fs::write(&taken, gzip("taken\n")).unwrap();
        drop(running.stdin.take());
        let finished = running.wait();
        finished.assert_status(1);
        assert!(finished.stderr.contains("is left unchanged"), "{finished}");
        assert_eq!(fs::read(&taken).unwrap(), gzip("taken\n"));
        assert_eq!(cat(&workdir), numbered(0, 1) + "taken\n" + &numbered(1, 1));
        run(numbered(2, 1)).succeeds();
        let expected = numbered(0, 1) + "taken\n" + &numbered(1, 2);
        assert_eq!(cat(&workdir), expected, "{faults:?}");
        let rest = fs::read_dir(workdir.path("logs")).unwrap();
        assert_eq!(rest.count(), 5, "four files and the lock");
    }
}

#[test]
fn names_at_the_end_of_time_are_kept_and_go_out_of_the_way() {
    for (name, warns) in [
        ("log-99991231T235959.999Z-999999.gz", true),
        ("log-99991231T235959.999Z-000000.gz", true),
        // The next id after this one is at the time limit, too.
        ("log-99991231T235959.998Z-999999.gz", false),
        ("log-29991231T235959.998Z-999999.gz", false),
    ] {
        let workdir = Workdir::new();
        archive(&workdir).input(numbered(0, 1)).succeeds();
        let first = complete_files(&workdir).remove(0);
        let far = workdir.path(&format!("logs/{name}"));
        fs::rename(workdir.path(&format!("logs/{first}")), &far).unwrap();
        let before = fs::read(&far).unwrap();
        for run in 0..3 {
            let records = ["--max-records", "1"];
            let input = numbered(1 + 3 * run, 3);
            let finished = archive(&workdir).args(records).input(input).succeeds();
            let said = finished.stderr.contains("new files may sort before it");
            assert!(said || !warns, "{finished}");
            assert!(fs::read(&far).unwrap() == before, "{name}");
            assert_eq!(complete_files(&workdir).len() as u64, 4 + 3 * run);
        }
        let kept = cat(&workdir);
        let mut lines: Vec<&str> = kept.lines().collect();
        if warns {
            assert!(kept.ends_with(&numbered(0, 1)));
            lines.rotate_right(1);
        }
        assert!(lines.join("\n") + "\n" == numbered(0, 10), "{name}: {kept}");
    }
}

#[test]
fn a_clock_at_the_end_of_time_gives_names_too() {
    let workdir = Workdir::new();
    archive(&workdir).succeeds();
    let clock = ["--clock", "fixed:253402300799.999"];
    archive(&workdir)
        .args(clock)
        .input(numbered(0, 1))
        .succeeds();
    assert_eq!(
        complete_files(&workdir),
        ["log-99991231T235959.999Z-000000.gz"]
    );
    archive(&workdir)
        .args(clock)
        .input(numbered(1, 1))
        .succeeds();
    assert_eq!(cat(&workdir), numbered(0, 2));
}

#[test]
fn two_that_share_a_folder_against_its_lock_lose_and_replace_nothing() {
    let workdir = Workdir::new();
    let (mut first, _) = with_a_part(&workdir, &[]);
    fs::remove_file(workdir.path("logs/rv-archive.lock")).unwrap();
    let mut second = archive(&workdir).args(["--clock", "fixed:1"]).start();
    second.write("second\n");
    let begun = || (cat(&workdir).contains("second")).then_some(());
    assert!(eventually(begun).is_some());
    first.write(numbered(5, 3));
    drop(first.stdin.take());
    first.wait().assert_status(1);
    drop(second.stdin.take());
    second.wait();
    let kept = cat(&workdir);
    for line in (numbered(0, 8) + "second").lines() {
        assert!(kept.contains(line), "{line}:\n{kept}");
    }
    for name in complete_files(&workdir) {
        assert!(gunzip(&workdir, &name).ends_with('\n'));
    }
}

#[test]
fn one_that_writes_follows_no_link_and_waits_for_no_pipe() {
    let id = "20200101T000000.000Z-000000";
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = |path: &str| rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
    let part = format!("logs/part-{id}.ndjson");
    let tmp = format!("logs/part-{id}.gz.tmp");
    let log = format!("logs/log-{id}.gz");
    type Harm<'a> = (&'a str, &'a dyn Fn(&str));
    let scenes: [Harm; 7] = [
        (&part, &|path| symlink("../target", path).unwrap()),
        (&part, &|path| symlink("nothing", path).unwrap()),
        (&part, &fifo),
        (&part, &|path| fs::create_dir(path).unwrap()),
        (&tmp, &|path| fs::create_dir(path).unwrap()),
        (&log, &fifo),
        (&log, &|path| fs::create_dir(path).unwrap()),
    ];
    for (name, make) in scenes {
        let workdir = Workdir::new();
        fs::create_dir(workdir.path("logs")).unwrap();
        workdir.write("target", "one\ntorn");
        make(&workdir.path(name));
        let run = archive(&workdir).args(["--keep-files", "1"]);
        let finished = run.input(numbered(0, 1)).exits(1);
        assert!(finished.stderr.contains(name), "{finished}");
        assert_eq!(workdir.read("target"), "one\ntorn");
        assert!(cat_whatever(&workdir).contains(&numbered(0, 1)));
        assert!(fs::symlink_metadata(workdir.path(name)).is_ok(), "{name}");
    }
    // An unfinished compression is removed. If it is a link, its target stays.
    let workdir = Workdir::new();
    fs::create_dir(workdir.path("logs")).unwrap();
    workdir.write("target", "one\ntorn");
    workdir.write(&part, "line\n");
    symlink("../target", workdir.path(&tmp)).unwrap();
    archive(&workdir).succeeds();
    assert_eq!(workdir.read("target"), "one\ntorn");
    assert_eq!(cat(&workdir), "line\n");
}

#[test]
fn a_lock_that_is_no_file_of_its_own_is_refused() {
    let lock = "logs/rv-archive.lock";
    for scene in 0..3 {
        let workdir = Workdir::new();
        fs::create_dir(workdir.path("logs")).unwrap();
        match scene {
            0 => symlink("../elsewhere", workdir.path(lock)).unwrap(),
            1 => drop(workdir.fifo(lock)),
            _ => fs::create_dir(workdir.path(lock)).unwrap(),
        }
        let finished = archive(&workdir).input(numbered(0, 1)).exits(3);
        assert!(finished.stderr.contains("remove it"), "{finished}");
        assert!(!fs::exists(workdir.path("elsewhere")).unwrap());
    }
}

#[test]
fn recovery_syncs_what_it_takes_over_and_what_it_publishes() {
    let workdir = Workdir::new();
    fs::create_dir(workdir.path("logs")).unwrap();
    let part = "logs/part-20200101T000000.000Z-000000.ndjson";
    workdir.write(part, numbered(0, 3) + "torn");
    let calls = "trace=fsync,fdatasync,ftruncate,rename,renameat2,unlink,unlinkat";
    let in_order = |expected: &[(&str, &str)]| {
        let trace = workdir.read("trace");
        let mut lines = trace.lines();
        for (call, what) in expected {
            assert!(
                lines.any(|line| line.contains(call) && line.contains(what)),
                "no {call} of {what} in its place:\n{trace}"
            );
        }
    };
    traced(&workdir, &[calls])
        .args(["--dir", "logs"])
        .succeeds();
    in_order(&[
        ("ftruncate(", ".ndjson>"),
        ("fsync(", ".ndjson>"),
        ("fsync(", ".gz.tmp>"),
        ("rename", ".gz.tmp\""),
        ("fsync(", "/logs>"),
        ("unlink", ".ndjson\""),
    ]);
    // An earlier run was killed after the rename. The folder is synced before the part
    // is removed.
    workdir.write(part, numbered(0, 3));
    traced(&workdir, &[calls])
        .args(["--dir", "logs"])
        .succeeds();
    in_order(&[("fsync(", "/logs>"), ("unlink", ".ndjson\"")]);
    assert_eq!(cat(&workdir), numbered(0, 3));
}

#[test]
fn verify_finds_stamps_that_no_archive_writes() {
    // The stamp of the second of three files: its number, the lines before it, its
    // lines, its bytes.
    let forged = |stamp: [Option<u64>; 4]| {
        let workdir = Workdir::new();
        let (_, files) = three_files(&workdir);
        let mut bytes = fs::read(&files[1]).unwrap();
        for (place, value) in stamp.into_iter().enumerate() {
            if let Some(value) = value {
                let at = 16 + 8 * place;
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        fs::write(&files[1], bytes).unwrap();
        let verdict = verify(&workdir);
        verdict.assert_status(1);
        // All lines can still be read.
        assert_eq!(cat(&workdir).lines().count(), 6);
        // The next archive does not continue from the forged stamp.
        fs::remove_file(&files[2]).unwrap();
        archive(&workdir).input(numbered(0, 1)).succeeds();
        verdict.stdout().to_owned()
    };
    let (max, no) = (Some(u64::MAX), None);
    for (stamp, said) in [
        (
            [max, max, no, no],
            "-000001.gz: its stamp has impossibly large numbers",
        ),
        (
            [max, no, no, no],
            "-000001.gz: its stamp has impossibly large numbers",
        ),
        (
            [no, max, no, no],
            "-000001.gz: its stamp has impossibly large numbers",
        ),
        (
            [no, no, max, no],
            "-000001.gz: its stamp has impossibly large numbers",
        ),
        (
            [no, no, no, max],
            "-000001.gz: its stamp has impossibly large numbers",
        ),
        (
            [Some(0), no, no, no],
            "its stamp contradicts itself about the files before it",
        ),
        (
            [no, Some(0), no, no],
            "its stamp contradicts itself about the files before it",
        ),
        (
            [Some(9), Some(2), no, no],
            "its stamp contradicts itself about the files before it",
        ),
        (
            [no, Some(3), no, no],
            "its stamp says that 3 lines are before it, and there are 2",
        ),
        (
            [Some(0), Some(0), no, no],
            "is file 0 of its archive, and follows file 0",
        ),
        ([no, no, Some(3), no], "has 2 lines in"),
        ([no, no, no, Some(3)], "has 2 lines in"),
    ] {
        let verdict = forged(stamp);
        assert!(verdict.contains(said), "{stamp:?}: {verdict}");
    }
}

#[test]
fn a_signal_does_not_wait_for_a_disk_that_blocks() {
    let workdir = Workdir::new();
    let (_, files) = three_files(&workdir);
    for flags in [&["find", "m6"][..], &["verify"], &["cat"]] {
        let trace = workdir.write("trace", "");
        let run = workdir.shell("exec strace -f -qq -o trace \"$@\"");
        let run = run.args(["strace", "-P", &files[1], "-e", "trace=read"]);
        let run = run.args(["-e", "inject=read:delay_enter=50s", "rv-archive"]);
        let running = run.args(flags).arg("logs").start();
        // strace is delayed, too. The program is the child of strace.
        let children = format!("/proc/{0}/task/{0}/children", running.id());
        let blocked = || {
            let child = fs::read_to_string(&children).ok()?;
            let began = fs::metadata(&trace).is_ok_and(|it| it.len() > 0);
            began.then_some(child.trim().parse::<i32>().ok()?)
        };
        let pid = eventually(blocked).expect("it reads the file");
        let signalled = rustix::process::Pid::from_raw(pid).unwrap();
        let since = Instant::now();
        rustix::process::kill_process(signalled, Signal::TERM).unwrap();
        let has_ended = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status"));
            status
                .map_or(true, |status| status.contains("State:\tZ"))
                .then_some(())
        };
        assert!(eventually(has_ended).is_some());
        assert!(since.elapsed() < Duration::from_secs(10), "{flags:?}");
    }
}

#[test]
fn a_time_that_may_be_a_date_or_milliseconds_is_refused_with_the_remedy() {
    let workdir = Workdir::new();
    three_files(&workdir);
    for command in [&["cat"][..], &["find", "m1"]] {
        for flag in ["--since", "--until"] {
            for (time, remedy) in [
                ("20231114", "2023-11-14"),
                ("1700000000500", "Divide them by 1000"),
            ] {
                let run = workdir.run("rv-archive").args(command).arg("logs");
                let finished = run.args([flag, time]).exits(2);
                assert!(finished.stderr.contains(remedy), "{finished}");
            }
        }
    }
}
