//! Tests of the whole archive, on real files.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use flate2::read::MultiGzDecoder;
use tempfile::TempDir;

use super::*;
use crate::observe::archive::part::PartLimits;
use crate::observe::archive::time_range::{TimeRangeArgs, files_in_range};
use crate::stage::filter::{Background, Filter};
use crate::wire::lines::Line;

/// A temporary folder that contains the folder of an archive and the file of its input.
struct Sandbox {
    root: TempDir,
}

impl Sandbox {
    fn new() -> Sandbox {
        Sandbox {
            root: TempDir::new().unwrap(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("archive")
    }

    fn args(&self, flags: &[&str]) -> ArchiveArgs {
        let dir = self.dir();
        let mut all = vec!["rv-archive", "--dir", dir.to_str().unwrap(), "-q"];
        all.extend(flags);
        ArchiveArgs::try_parse_from(all).unwrap()
    }

    fn stage(&self, args: &ArchiveArgs) -> Stage {
        Stage::new(ArchiveArgs::NAME, args.run_args()).unwrap()
    }

    /// Runs the program on `input` until it ends. Returns the number of rejected
    /// lines.
    fn archive(&self, flags: &[&str], input: &[u8]) -> Result<u64> {
        let path = self.root.path().join("input.ndjson");
        fs::write(&path, input).unwrap();
        let mut all = vec!["-i", path.to_str().unwrap()];
        all.extend(flags);
        let args = self.args(&all);
        let mut stage = self.stage(&args);
        args.run(&mut stage)?;
        Ok(stage.report.rejected())
    }

    /// The output of `rv-archive cat` for the folder.
    fn cat(&self) -> Vec<u8> {
        let (dir, out) = (self.dir(), self.root.path().join("out"));
        let all = ["rv-archive", "cat", "-q", "-o", out.to_str().unwrap()];
        let all = all.into_iter().chain([dir.to_str().unwrap()]);
        let args = ArchiveArgs::try_parse_from(all).unwrap();
        let mut stage = self.stage(&args);
        args.run(&mut stage).unwrap();
        fs::read(out).unwrap()
    }

    /// The names in the folder, without the lock.
    fn names(&self) -> Vec<String> {
        let mut names = crate::stream::archives::names(&self.dir()).unwrap();
        names.retain(|name| name != "rv-archive.lock");
        names
    }

    /// The uncompressed content of each file, in the order of the names. Fails if a
    /// file is not complete.
    fn contents(&self) -> Vec<Vec<u8>> {
        let gunzip = |name: &String| {
            assert!(name.starts_with("log-") && name.ends_with(".gz"), "{name}");
            let file = fs::File::open(self.dir().join(name)).unwrap();
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
            let mut content = Vec::new();
            MultiGzDecoder::new(file).read_to_end(&mut content).unwrap();
            content
        };
        self.names().iter().map(gunzip).collect()
    }
}

fn line(bytes: &[u8]) -> Line<'_> {
    Line {
        bytes,
        number: 1,
        offset: 0,
        oversized: None,
    }
}

#[test]
fn lines_are_kept_as_they_came() {
    let sandbox = Sandbox::new();
    let input = b"\xef\xbb\xbf{\"a\":1.10}\r\n\n\xff\0 no JSON\nlast without newline";
    assert_eq!(sandbox.archive(&[], input).unwrap(), 0);
    let expected = [&input[..], b"\n"].concat();
    assert_eq!(sandbox.contents(), [&expected[..]]);
    assert_eq!(sandbox.cat(), expected);
    let mode = fs::metadata(sandbox.dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn no_file_is_empty() {
    let sandbox = Sandbox::new();
    sandbox.archive(&[], b"").unwrap();
    assert!(sandbox.names().is_empty());
    assert!(sandbox.cat().is_empty());
}

#[test]
fn a_new_file_begins_after_so_many_records_or_bytes() {
    let lines = |count: usize| -> Vec<u8> {
        let lines = (0..count).map(|number| format!("{{\"n\":{number}}}\n"));
        lines.collect::<String>().into_bytes()
    };
    for count in [1, 2, 3, 6, 7, 10] {
        for each in [1, 2, 3, 7, 20] {
            let sandbox = Sandbox::new();
            let flag = format!("--max-records={each}");
            sandbox.archive(&[&flag], &lines(count)).unwrap();
            let contents = sandbox.contents();
            assert_eq!(contents.len(), count.div_ceil(each), "{count} by {each}");
            assert_eq!(contents.concat(), lines(count));

            // A line has 8 bytes. So a file has room for `each` lines, but not for one
            // more.
            for more in [0, 3, 7] {
                let sandbox = Sandbox::new();
                let flag = format!("--max-bytes={}B", 8 * each + more);
                sandbox.archive(&[&flag], &lines(count)).unwrap();
                let contents = sandbox.contents();
                assert_eq!(contents.len(), count.div_ceil(each), "{count} by {each}");
                assert_eq!(contents.concat(), lines(count));
            }
        }
    }
    let sandbox = Sandbox::new();
    sandbox
        .archive(&["--max-bytes=4B"], b"a\nlonger than that\nb\n")
        .unwrap();
    let expected: [&[u8]; 3] = [b"a\n", b"longer than that\n", b"b\n"];
    assert_eq!(sandbox.contents(), expected);
}

#[test]
fn an_oversized_line_is_set_aside_and_the_next_is_kept() {
    let sandbox = Sandbox::new();
    let rejected = sandbox.archive(&["--max-line-bytes=4B"], b"abcd\nabcde\nx\n");
    assert_eq!(rejected.unwrap(), 1);
    assert_eq!(sandbox.contents(), [b"abcd\nx\n"]);
}

#[test]
fn what_came_before_a_fatal_line_is_kept() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.archive(&["--max-line-bytes=4B", "--strict"], b"abcd\nabcde\nx\n");
    assert!(outcome.is_err());
    assert_eq!(sandbox.cat(), b"abcd\n");
    sandbox.archive(&[], b"next\n").unwrap();
    assert_eq!(sandbox.contents(), [&b"abcd\n"[..], b"next\n"]);
}

#[test]
fn the_age_of_a_file_counts_from_its_first_record() {
    let sandbox = Sandbox::new();
    let args = sandbox.args(&["--max-age=1h", "--max-records=2", "--sync-every=2h"]);
    let mut stage = sandbox.stage(&args);
    let mut archive = ArchiveWriter::open(&mut stage, &args.check().unwrap()).unwrap();
    let hour = Duration::from_secs(3600);
    assert_eq!(archive.due(), None);

    let mut take = |archive: &mut ArchiveWriter| {
        let from = Instant::now();
        archive
            .line(&mut stage, "in", &line(b"x"), &mut Vec::new())
            .unwrap();
        archive.before_wait(&mut stage).unwrap();
        from
    };
    let from = take(&mut archive);
    let due = archive.due().unwrap();
    assert!(from + hour <= due && due <= Instant::now() + hour);

    // The part is full. The next part has a new age.
    take(&mut archive);
    assert!(archive.part.is_none());
    let from = take(&mut archive);
    let age = archive.part.as_ref().unwrap().due(&archive.limits).unwrap();
    assert!(from + hour <= age);

    // The part becomes too old and is closed, even if no line arrives.
    archive.limits.age = Duration::ZERO;
    assert!(archive.due().unwrap() <= Instant::now());
    archive.before_wait(&mut stage).unwrap();
    assert!(archive.part.is_none());
    archive.finish(&mut stage).unwrap();
    assert_eq!(sandbox.contents(), [b"x\nx\n".to_vec(), b"x\n".to_vec()]);
    assert_eq!(archive.due(), None, "an idle archive sleeps");
}

#[test]
fn a_hangup_closes_the_present_file() {
    let sandbox = Sandbox::new();
    let args = sandbox.args(&[]);
    let mut stage = sandbox.stage(&args);
    let mut archive = ArchiveWriter::open(&mut stage, &args.check().unwrap()).unwrap();
    archive.hangup(&mut stage).unwrap();
    for bytes in [b"a", b"b"] {
        archive
            .line(&mut stage, "in", &line(bytes), &mut Vec::new())
            .unwrap();
        archive.hangup(&mut stage).unwrap();
    }
    archive.finish(&mut stage).unwrap();
    assert_eq!(sandbox.contents(), [b"a\n", b"b\n"]);
}

#[test]
fn unsynced_bytes_are_synced_though_nothing_more_comes() {
    let sandbox = Sandbox::new();
    let args = sandbox.args(&["--sync-every=1h"]);
    let mut stage = sandbox.stage(&args);
    let mut archive = ArchiveWriter::open(&mut stage, &args.check().unwrap()).unwrap();
    archive
        .line(&mut stage, "in", &line(b"a"), &mut Vec::new())
        .unwrap();
    archive.before_wait(&mut stage).unwrap();
    let sync_due = |archive: &ArchiveWriter| {
        let far = PartLimits {
            age: Duration::MAX,
            ..archive.limits
        };
        archive.part.as_ref().unwrap().due(&far)
    };
    assert!(sync_due(&archive).is_some());
    archive.limits.sync_every = Duration::ZERO;
    archive.before_wait(&mut stage).unwrap();
    assert_eq!(sync_due(&archive), None);
}

#[test]
fn a_part_cut_anywhere_becomes_a_complete_file_of_its_whole_lines() {
    let text = b"{\"a\":1}\n\n{\"b\":\"\xff\"}\nlast\n";
    for cut in 0..=text.len() {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.dir()).unwrap();
        let part = sandbox
            .dir()
            .join("part-20200101T000000.000Z-000000.ndjson");
        fs::write(&part, &text[..cut]).unwrap();
        // The killed run has also left an unfinished compression of this part.
        fs::write(
            sandbox
                .dir()
                .join("part-20200101T000000.000Z-000000.gz.tmp"),
            b"\x1f\x8b",
        )
        .unwrap();
        let whole = text[..cut]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        assert_eq!(sandbox.cat(), text[..whole], "before, cut at {cut}");

        let args = sandbox.args(&[]);
        let mut stage = sandbox.stage(&args);
        let mut archive = ArchiveWriter::open(&mut stage, &args.check().unwrap()).unwrap();
        assert_eq!(archive.discarded_bytes, (cut - whole) as u64);
        archive.finish(&mut stage).unwrap();
        let lines = text[..whole].iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(archive.publisher.counts().recovered, lines as u64);
        assert_eq!(archive.publisher.counts().archived, 0);
        if whole == 0 {
            assert!(sandbox.names().is_empty());
        } else {
            assert_eq!(sandbox.names(), ["log-20200101T000000.000Z-000000.gz"]);
            assert_eq!(sandbox.contents(), [&text[..whole]]);
        }
    }
}

#[test]
fn a_part_that_was_published_is_not_published_twice() {
    let sandbox = Sandbox::new();
    sandbox
        .archive(&["--clock=fixed:1577836800"], b"a\n")
        .unwrap();
    assert_eq!(sandbox.names(), ["log-20200101T000000.000Z-000000.gz"]);
    let part = sandbox
        .dir()
        .join("part-20200101T000000.000Z-000000.ndjson");
    fs::write(&part, b"a\n").unwrap();
    assert_eq!(sandbox.cat(), b"a\n");
    sandbox
        .archive(&["--clock=fixed:1577836800"], b"b\n")
        .unwrap();
    assert_eq!(
        sandbox.names(),
        [
            "log-20200101T000000.000Z-000000.gz",
            "log-20200101T000000.000Z-000001.gz"
        ]
    );
    assert_eq!(sandbox.contents(), [b"a\n", b"b\n"]);
}

#[test]
fn order_survives_a_clock_that_steps_back() {
    let sandbox = Sandbox::new();
    for (clock, input) in [("10", "a\nb\n"), ("7.5", "c\nd\n"), ("11", "e\n")] {
        let clock = format!("--clock=fixed:{clock}");
        let flags = ["--max-records=1", &clock];
        sandbox.archive(&flags, input.as_bytes()).unwrap();
    }
    assert_eq!(sandbox.cat(), b"a\nb\nc\nd\ne\n");
}

#[test]
fn files_of_others_are_left_alone() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.dir()).unwrap();
    let foreign = ["log-mine.txt", "part-1.ndjson", "part-1.gz.tmp", "notes"];
    for name in foreign {
        fs::write(sandbox.dir().join(name), b"torn").unwrap();
    }
    sandbox.archive(&[], b"a\n").unwrap();
    for name in foreign {
        assert_eq!(fs::read(sandbox.dir().join(name)).unwrap(), b"torn");
    }
    assert_eq!(sandbox.names().len(), foreign.len() + 1);
}

#[test]
fn a_folder_has_one_writer() {
    let sandbox = Sandbox::new();
    let args = sandbox.args(&[]);
    let mut stage = sandbox.stage(&args);
    let options = args.check().unwrap();
    let held = ArchiveWriter::open(&mut stage, &options).unwrap();
    let error = ArchiveWriter::open(&mut stage, &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("another rv-archive writes here"), "{error}");
    drop(held);
    ArchiveWriter::open(&mut stage, &options).unwrap();
}

#[test]
fn the_command_line_is_checked() {
    let parse = |flags: &[&str]| {
        let all = ["rv-archive"].into_iter().chain(flags.iter().copied());
        ArchiveArgs::try_parse_from(all).map(|_| ())
    };
    parse(&["--dir", "d"]).unwrap();
    parse(&["cat", "d", "-q"]).unwrap();
    parse(&["--man"]).unwrap();
    for wrong in [
        &[][..],
        &["cat"],
        &["--dir", "d", "cat", "d"],
        &["--dir", "d", "--level", "0"],
        &["--dir", "d", "--max-records", "0"],
        &["--dir", "d", "--max-age", "10"],
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
    let sandbox = Sandbox::new();
    let error = sandbox.archive(&["--max-bytes", "0"], b"").unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(EndedEarly::Usage(_))));
}

#[test]
fn a_file_that_goes_while_a_folder_is_read_is_told_and_passed_over() {
    let sandbox = Sandbox::new();
    sandbox.archive(&["--max-records=1"], b"a\nb\n").unwrap();
    let args = sandbox.args(&[]);
    let mut stage = sandbox.stage(&args);
    let range = TimeRangeArgs::default().range();
    let files = files_in_range(&mut stage, &[sandbox.dir()], range).unwrap();
    assert_eq!(files.len(), 2);
    fs::remove_file(files[0].path()).unwrap();
    let error = files[0].open().unwrap_err();
    let told = crate::stream::archives::not_opened(&error);
    assert_eq!(told, "was removed before it was read");
    assert!(files[1].open().is_ok());
}

#[test]
fn a_part_becomes_a_complete_file_between_the_look_and_the_opening() {
    let sandbox = Sandbox::new();
    let args = sandbox.args(&[]);
    let mut stage = sandbox.stage(&args);
    let mut archive = ArchiveWriter::open(&mut stage, &args.check().unwrap()).unwrap();
    archive
        .line(&mut stage, "in", &line(b"a"), &mut Vec::new())
        .unwrap();
    archive.before_wait(&mut stage).unwrap();
    let range = TimeRangeArgs::default().range();
    let files = files_in_range(&mut stage, &[sandbox.dir()], range).unwrap();
    archive.finish(&mut stage).unwrap();
    let mut text = Vec::new();
    let mut opened = files[0].open().unwrap();
    opened.read_to_end(&mut text).unwrap();
    assert_eq!(text, b"a\n");
}
