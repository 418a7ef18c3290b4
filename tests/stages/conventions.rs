//! The conventions of all programs. Each program is tested with each kind of input.

use std::fs;
use std::io::Write;

use rustix::process::Signal;

use crate::es::FakeService;
use crate::harness::{Finished, Run, Workdir, json, open_writer, read_line, request};

/// A program, and the place of its output.
pub struct Tool {
    pub name: &'static str,
    /// Whether the program parses lines and rejects bad ones.
    pub parses: bool,
    /// Whether the program writes its records to stdout.
    writes_stdout: bool,
}

const TOOLS: [Tool; 7] = [
    Tool {
        name: "rv-request",
        parses: true,
        writes_stdout: true,
    },
    Tool {
        name: "rv-tee",
        parses: false,
        writes_stdout: true,
    },
    Tool {
        name: "rv-score",
        parses: true,
        writes_stdout: true,
    },
    Tool {
        name: "rv-decoy",
        parses: false,
        writes_stdout: true,
    },
    Tool {
        name: "rv-rendezvous",
        parses: true,
        writes_stdout: true,
    },
    Tool {
        name: "rv-archive",
        parses: false,
        writes_stdout: false,
    },
    Tool {
        name: "rv-es-sink",
        parses: true,
        writes_stdout: false,
    },
];

/// One program in a separate folder.
pub struct Scene {
    pub tool: &'static Tool,
    pub workdir: Workdir,
    service: FakeService,
}

impl Scene {
    fn new(tool: &'static Tool) -> Scene {
        let workdir = Workdir::new();
        if tool.name == "rv-score" {
            workdir.train("decision-tree", "dt", 1);
        }
        if tool.name == "rv-rendezvous" {
            workdir.fifo("scores");
        }
        Scene {
            tool,
            workdir,
            service: FakeService::start(),
        }
    }

    /// The program with the flags that it needs. It reads `input`.
    pub fn run(&self, input: &str) -> Run {
        let run = self.workdir.run(self.tool.name);
        let run = run.args(["--rejects", "rejects", "--stats", "stats.json"]);
        match self.tool.name {
            "rv-request" => run.args(["--id", "/messageId", "-i", input]),
            "rv-score" => run.args(["--model", "dt.json", "-i", input]),
            "rv-decoy" | "rv-tee" => run.args(["-i", input]),
            // No model ever reports, so every answer is the default.
            "rv-rendezvous" => run
                .args([
                    "--scores",
                    "scores",
                    "--prefer",
                    "dt@1",
                    "--deadline",
                    "20ms",
                ])
                .args(["--linger", "0s", "--requests", input]),
            "rv-archive" => run.args(["--dir", "logs", "-i", input]),
            "rv-es-sink" => run
                .args(["--url", &self.service.url(), "--index", "log"])
                .args(["--batch-age", "10ms", "-i", input]),
            name => panic!("no arguments for {name}"),
        }
    }

    pub fn finish(&self, input: impl AsRef<[u8]>) -> Finished {
        self.run("-").input(input).finish()
    }

    /// The lines of the program's output, in order.
    fn lines(&self, finished: &Finished) -> Vec<String> {
        let text = match self.tool.name {
            "rv-archive" => {
                let folder = self.workdir.path("logs");
                if fs::exists(&folder).unwrap() {
                    let cat = self.workdir.run("rv-archive").args(["cat", "logs"]);
                    cat.succeeds().stdout
                } else {
                    Vec::new()
                }
            }
            "rv-es-sink" => self.service.documents().join("\n").into_bytes(),
            _ => finished.stdout.clone(),
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().map(str::to_owned).collect()
    }

    /// The ids of the records in the program's output.
    pub fn ids(&self, finished: &Finished) -> Vec<String> {
        let lines = self.lines(finished);
        let ids = lines.iter().filter_map(|line| {
            let id = serde_json::from_str::<serde_json::Value>(line).ok()?["messageId"].clone();
            id.as_str().map(str::to_owned)
        });
        ids.collect()
    }

    pub fn rejects(&self) -> Vec<serde_json::Value> {
        self.workdir.read("rejects").lines().map(json).collect()
    }

    /// Checks the numbers of lines that were read and rejected.
    pub fn assert_counts(&self, read: u64, rejected: u64) {
        let stats = json(&self.workdir.read("stats.json"));
        let of = |name: &str| {
            stats[name]
                .as_u64()
                .unwrap_or_else(|| panic!("{name}: {stats}"))
        };
        assert_eq!(of("rejected"), rejected, "{stats}");
        let by_reason = stats.get("rejectedBy").and_then(|it| it.as_object());
        let counts = by_reason.into_iter().flat_map(|it| it.values());
        let counted: Option<u64> = counts.map(serde_json::Value::as_u64).sum();
        assert_eq!(counted, Some(rejected), "{stats}");
        match self.tool.name {
            "rv-rendezvous" => {
                assert_eq!(of("requests"), read - rejected, "{stats}");
                assert_eq!(of("requests"), of("defaults"), "{stats}");
                assert_eq!(of("open"), 0, "{stats}");
            }
            _ => assert_eq!(of("in"), read, "{stats}"),
        }
    }
}

pub fn each_tool(check: impl Fn(&Scene)) {
    for tool in &TOOLS {
        println!("{}", tool.name);
        check(&Scene::new(tool));
    }
}

#[test]
fn no_input_is_no_output() {
    each_tool(|scene| {
        let finished = scene.finish("");
        finished.assert_status(0);
        assert!(scene.lines(&finished).is_empty(), "{finished}");
        scene.assert_counts(0, 0);
    });
}

#[test]
fn each_record_is_worked_on_whatever_ends_its_line() {
    let (one, two) = (request("r-1"), request("r-2"));
    for (story, input, ids) in [
        ("one record", format!("{one}\n"), vec!["r-1"]),
        (
            "no last newline",
            format!("{one}\n{two}"),
            vec!["r-1", "r-2"],
        ),
        ("CRLF", format!("{one}\r\n{two}\r\n"), vec!["r-1", "r-2"]),
    ] {
        each_tool(|scene| {
            let finished = scene.finish(&input);
            finished.assert_status(0);
            assert_eq!(scene.ids(&finished), ids, "{story}: {finished}");
            scene.assert_counts(ids.len() as u64, 0);
        });
    }
}

#[test]
fn archives_and_compressed_files_are_inputs_like_any() {
    let (one, two) = (request("r-1"), request("r-2"));
    each_tool(|scene| {
        let archive = scene.workdir.run("rv-archive").args(["--dir", "recording"]);
        archive
            .args(["--max-records", "1"])
            .input(format!("{one}\n{two}"))
            .succeeds();
        let script = "rv-archive cat recording | gzip > recording.gz";
        scene.workdir.shell(script).succeeds();
        for input in ["recording", "recording.gz"] {
            let finished = scene.run(input).finish();
            if scene.tool.name == "rv-rendezvous" {
                // `rv-rendezvous` reads recordings only with --replay.
                finished.assert_status(2);
                assert!(finished.stderr.contains("--replay"), "{finished}");
                let run = scene.workdir.run("rv-rendezvous").args(["--replay"]);
                let run = run.args(["--requests", input, "--scores", "/dev/null"]);
                let replay = run
                    .args(["--prefer", "dt@1", "--deadline", "1s"])
                    .succeeds();
                assert_eq!(scene.ids(&replay), ["r-1", "r-2"], "{input}: {replay}");
                continue;
            }
            finished.assert_status(0);
            let ids = scene.ids(&finished);
            assert_eq!(ids[ids.len() - 2..], ["r-1", "r-2"], "{input}: {finished}");
            scene.assert_counts(2, 0);
        }
    });
}

#[test]
fn marks_and_blank_lines_are_carried_or_dropped() {
    let (one, two) = (request("r-1"), request("r-2"));
    for input in [
        format!("\u{feff}{one}\n{two}\n"),
        format!("\n{one}\n \t\n\r\n{two}\n\n"),
    ] {
        each_tool(|scene| {
            let finished = scene.finish(&input);
            finished.assert_status(0);
            if scene.tool.parses {
                assert_eq!(scene.ids(&finished), ["r-1", "r-2"], "{finished}");
            } else {
                // `lines` drops a carriage return.
                let expected: Vec<_> = input.lines().collect();
                assert_eq!(scene.lines(&finished), expected, "{finished}");
            }
        });
    }
}

#[test]
fn a_bad_line_is_set_aside_and_the_next_is_worked_on() {
    let (one, two) = (request("r-1"), request("r-2"));
    for (bad, reason) in [
        (&b"{\"messageId\":"[..], "not JSON"),
        (b"{\"timestamp\":1,\"modelInput\":{}}", "id"),
        (
            b"{\"messageId\":\"\xff\xfe\",\"timestamp\":1,\"modelInput\":{}}",
            "not UTF-8",
        ),
        (
            b"{\"messageId\":\"a\0b\",\"timestamp\":1,\"modelInput\":{}}",
            "not JSON",
        ),
        (b"plain text \x1b[2J", "not JSON"),
    ] {
        each_tool(|scene| {
            let input = [one.as_bytes(), bad, two.as_bytes(), b""].join(&b'\n');
            let finished = scene.finish(&input);
            if !scene.tool.parses {
                finished.assert_status(0);
                if scene.tool.writes_stdout {
                    assert_eq!(finished.stdout, input);
                }
                assert_eq!(scene.lines(&finished).len(), 3, "{finished}");
                return;
            }
            finished.assert_status(1);
            assert_eq!(scene.ids(&finished), ["r-1", "r-2"], "{finished}");
            let rejects = scene.rejects();
            assert_eq!(rejects.len(), 1, "{rejects:?}");
            let reject = &rejects[0];
            assert_eq!(reject["program"], scene.tool.name);
            assert_eq!(reject["input"], "<stdin>");
            assert_eq!(reject["line"], 2);
            assert_eq!(reject["offset"], one.len() as u64 + 1);
            let said = reject["reason"].as_str().unwrap().to_lowercase();
            assert!(said.contains(&reason.to_lowercase()), "{reject}");
            match std::str::from_utf8(bad) {
                Ok(text) => assert_eq!(reject["raw"], text),
                Err(_) => assert!(reject["rawBase64"].is_string(), "{reject}"),
            }
            assert!(finished.stderr.contains("<stdin>:2: "), "{finished}");
            assert!(!finished.stderr.contains('\x1b'), "{finished}");
            scene.assert_counts(3, 1);
        });
    }
}

#[test]
fn a_line_over_the_limit_is_set_aside_by_every_tool() {
    let (one, two) = (request("r-1"), request("r-2"));
    let long = format!("{{\"messageId\":\"{}\"}}", "x".repeat(100_000));
    each_tool(|scene| {
        let run = scene.run("-").args(["--max-line-bytes", "4KiB"]);
        let finished = run.input(format!("{one}\n{long}\n{two}\n")).finish();
        finished.assert_status(1);
        assert_eq!(scene.ids(&finished), ["r-1", "r-2"], "{finished}");
        let rejects = scene.rejects();
        assert_eq!(rejects.len(), 1, "{rejects:?}");
        assert_eq!(rejects[0]["raw"], long[..1024]);
        let reason = rejects[0]["reason"].as_str().unwrap();
        assert!(
            reason.contains(&format!("{} bytes", long.len())),
            "{reason}"
        );
        scene.assert_counts(3, 1);
    });
}

#[test]
fn strict_ends_at_the_first_bad_line() {
    each_tool(|scene| {
        let input = format!("{}\n[]\n{}\n", request("r-1"), request("r-2"));
        let finished = scene.run("-").arg("--strict").input(input).finish();
        if scene.tool.parses {
            finished.assert_status(3);
            assert!(finished.stderr.contains("<stdin>:2: "), "{finished}");
        } else {
            finished.assert_status(0);
        }
    });
}

#[test]
fn a_full_disk_is_a_failure() {
    each_tool(|scene| {
        if !scene.tool.writes_stdout {
            return;
        }
        let mut run = scene.run("-").arg("-o").arg("/dev/full");
        run.command.env("LC_ALL", "C");
        let finished = run.input(format!("{}\n", request("r-1"))).finish();
        finished.assert_status(3);
        let message = format!(
            "{}: /dev/full: cannot write: No space left",
            scene.tool.name
        );
        assert!(finished.stderr.contains(&message), "{finished}");
    });
}

#[test]
fn full_standard_output_is_a_failure() {
    each_tool(|scene| {
        if !scene.tool.writes_stdout {
            return;
        }
        let input = scene.workdir.write("input", request("r-1"));
        let mut run = scene.run("-");
        let args: Vec<_> = run.command.get_args().map(|arg| arg.to_owned()).collect();
        run = scene.workdir.shell("cat input | \"$0\" \"$@\" > /dev/full");
        let run = run.arg(scene.tool.name).args(args);
        run.exits(3);
        fs::remove_file(input).unwrap();
    });
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    each_tool(|scene| {
        if !scene.tool.writes_stdout {
            return;
        }
        let input: String = (0..5_000)
            .map(|n| request(&format!("r-{n}")) + "\n")
            .collect();
        let mut running = scene.run("-").start();
        let mut stdin = running.stdin.take().unwrap();
        let feeding = std::thread::spawn(move || {
            // The write fails, because the program ends before it has read everything.
            let _ = stdin.write_all(input.as_bytes());
        });
        assert!(running.line().contains("r-0"));
        drop(running.stdout.take());
        let finished = running.wait();
        feeding.join().unwrap();
        finished.assert_status(141);
        assert_eq!(finished.stderr, "", "{finished}");
    });
}

#[test]
fn sigterm_finishes_what_was_read() {
    each_tool(|scene| {
        let mut running = scene.run("-").start();
        running.write(format!("{}\n{}\n", request("r-1"), request("r-2")));
        if scene.tool.writes_stdout {
            for id in ["r-1", "r-2"] {
                assert!(running.line().contains(id));
            }
        } else {
            let stats = || fs::read_to_string(scene.workdir.path("stats.json"));
            let seen = crate::harness::eventually(|| {
                stats()
                    .ok()
                    .filter(|text| text.contains("\"in\":2"))
                    .map(|_| ())
            });
            assert!(seen.is_some(), "{} never read its input", scene.tool.name);
        }
        running.signal(Signal::TERM);
        let finished = running.wait();
        finished.assert_status(0);
        scene.assert_counts(2, 0);
        if !scene.tool.writes_stdout {
            assert_eq!(scene.ids(&finished), ["r-1", "r-2"], "{finished}");
        }
    });
}

#[test]
fn sigterm_reads_to_the_end_of_a_line_begun_and_not_a_byte_further() {
    each_tool(|scene| {
        let pipe = scene.workdir.fifo("pipe");
        let running = scene.run(&pipe).start();
        let mut writer = open_writer(&pipe);
        let first = request("r-1");
        let (head, tail) = first.split_at(20);
        writer.write_all(head.as_bytes()).unwrap();
        // A second reader keeps the unread bytes in the pipe.
        let mut rest = fs::File::options()
            .read(true)
            .write(true)
            .open(&pipe)
            .unwrap();
        let taken = crate::harness::eventually(|| {
            (rustix::io::ioctl_fionread(&rest).unwrap() == 0).then_some(())
        });
        assert!(taken.is_some(), "{} does not read", scene.tool.name);
        running.signal(Signal::TERM);
        std::thread::sleep(std::time::Duration::from_millis(100));
        let second = request("r-2");
        writer
            .write_all(format!("{tail}\n{second}\n").as_bytes())
            .unwrap();
        let finished = running.wait();
        finished.assert_status(0);
        assert_eq!(scene.ids(&finished), ["r-1"], "{finished}");
        assert_eq!(read_line(&mut rest), second, "{}", scene.tool.name);
    });
}

#[test]
fn a_torn_line_spoils_only_itself() {
    each_tool(|scene| {
        let pipe = scene.workdir.fifo("pipe");
        let running = scene.run(&pipe).start();
        let mut first = open_writer(&pipe);
        // Keeps the pipe open between the two writers.
        let held = fs::File::options()
            .read(true)
            .write(true)
            .open(&pipe)
            .unwrap();
        let whole = request("r-1");
        write!(first, "{whole}\n{}", &request("torn")[..30]).unwrap();
        drop(first);
        let mut second = open_writer(&pipe);
        // The second writer begins with a newline, as with `--resume`.
        writeln!(second, "\n{}", request("r-2")).unwrap();
        drop((second, held));
        let finished = running.wait();
        if scene.tool.parses {
            finished.assert_status(1);
            assert_eq!(scene.ids(&finished), ["r-1", "r-2"], "{finished}");
            let reason = scene.rejects()[0]["reason"].to_string();
            assert!(reason.contains("not JSON"), "{reason}");
        } else {
            finished.assert_status(0);
            assert_eq!(scene.lines(&finished).len(), 3, "{finished}");
        }
    });
}

#[test]
fn follow_waits_for_the_next_writer() {
    const WRITERS: usize = 100;
    each_tool(|scene| {
        let pipe = scene.workdir.fifo("pipe");
        let mut running = scene.run(&pipe).arg("--follow").start();
        // Reads standard output, so that the program never waits for its reader.
        let reading = running.stdout.take().map(|mut stdout| {
            std::thread::spawn(move || {
                let mut text = String::new();
                std::io::Read::read_to_string(&mut stdout, &mut text).unwrap();
                text
            })
        });
        for number in 0..WRITERS {
            let mut writer = open_writer(&pipe);
            let whole = request(&format!("r-{number}"));
            if number == WRITERS / 2 {
                // This writer dies inside a line. The next one begins with a newline.
                write!(writer, "{}", &whole[..30]).unwrap();
            } else if number == WRITERS / 2 + 1 {
                write!(writer, "\n{whole}\n").unwrap();
            } else {
                writeln!(writer, "{whole}").unwrap();
            }
        }
        let name = match scene.tool.name {
            "rv-rendezvous" => "requests",
            _ => "in",
        };
        let whole = WRITERS - usize::from(scene.tool.name == "rv-rendezvous");
        let emptied = crate::harness::eventually(|| {
            let stats = fs::read_to_string(scene.workdir.path("stats.json")).ok()?;
            (json(&stats)[name] == whole).then_some(())
        });
        assert!(emptied.is_some(), "{}", scene.tool.name);
        running.signal(Signal::TERM);
        let mut finished = running.wait();
        let text = reading.unwrap().join().unwrap();
        finished.stdout = text.into_bytes();
        finished.assert_status(i32::from(scene.tool.parses));
        let ids: Vec<String> = (0..WRITERS)
            .filter(|number| *number != WRITERS / 2)
            .map(|number| format!("r-{number}"))
            .collect();
        assert_eq!(scene.ids(&finished), ids, "{finished}");
    });
}

#[test]
fn sigint_ends_a_follow_with_its_last_writer() {
    each_tool(|scene| {
        if scene.tool.name == "rv-request" {
            // `rv-request` is a source, so SIGINT stops it at once.
            return;
        }
        let pipe = scene.workdir.fifo("pipe");
        let running = scene.run(&pipe).arg("--follow").start();
        let mut writer = open_writer(&pipe);
        writeln!(writer, "{}", request("r-1")).unwrap();
        let name = match scene.tool.name {
            "rv-rendezvous" => "requests",
            _ => "in",
        };
        let read = crate::harness::eventually(|| {
            let stats = fs::read_to_string(scene.workdir.path("stats.json")).ok()?;
            (json(&stats)[name] == 1).then_some(())
        });
        assert!(read.is_some(), "{}", scene.tool.name);
        running.signal(Signal::INT);
        writeln!(writer, "{}", request("r-2")).unwrap();
        drop(writer);
        let finished = running.wait();
        finished.assert_status(0);
        assert_eq!(scene.ids(&finished), ["r-1", "r-2"], "{finished}");
    });
}

#[test]
fn resume_begins_with_a_newline() {
    each_tool(|scene| {
        if !scene.tool.writes_stdout {
            return;
        }
        let run = scene.run("-").arg("--resume");
        let finished = run.input(request("r-1")).finish();
        finished.assert_status(0);
        assert!(finished.stdout().starts_with("\n{"), "{finished}");
    });
}

#[test]
fn wrong_usage_is_status_2() {
    each_tool(|scene| {
        let finished = scene.run("-").arg("--no-such-flag").finish();
        finished.assert_status(2);
    });
}

#[test]
fn an_input_that_is_missing_is_named() {
    each_tool(|scene| {
        let finished = scene.run("no/such/file").finish();
        finished.assert_status(3);
        let message = format!("{}: no/such/file: cannot open", scene.tool.name);
        assert!(finished.stderr.contains(&message), "{finished}");
    });
}

#[test]
fn help_has_an_example_and_the_version_names_the_package() {
    for tool in &TOOLS {
        let workdir = Workdir::new();
        let help = workdir.run(tool.name).arg("--help").succeeds();
        let example = help.lines().iter().any(|line| {
            line.trim_start().starts_with(tool.name) || line.contains(&format!("| {}", tool.name))
        });
        assert!(help.stdout().contains("Example") && example, "{help}");
        let version = workdir.run(tool.name).arg("--version").succeeds();
        let expected = format!("{} {}", tool.name, env!("CARGO_PKG_VERSION"));
        assert!(version.stdout().starts_with(&expected), "{version}");
        let completions = workdir.run(tool.name).args(["--completions", "bash"]);
        assert!(completions.succeeds().stdout().contains(tool.name));
        let man = workdir.run(tool.name).arg("--man").succeeds();
        assert!(man.stdout().contains(".TH"), "{man}");
    }
}

#[test]
fn messages_can_be_json() {
    let scene = Scene::new(&TOOLS[0]);
    let run = scene.run("-").args(["--log-format", "json"]);
    let finished = run.input("nonsense\n").finish();
    finished.assert_status(1);
    for line in finished.stderr.lines() {
        assert_eq!(json(line)["program"], "rv-request", "{line}");
    }
    assert!(
        finished.stderr.contains("<stdin>:1: not JSON"),
        "{finished}"
    );
}

#[test]
fn only_the_first_rejects_are_shown_one_by_one() {
    let scene = Scene::new(&TOOLS[0]);
    let finished = scene.finish("x\n".repeat(1000));
    finished.assert_status(1);
    assert_eq!(
        finished.stderr.matches("not JSON").count(),
        10,
        "{finished}"
    );
    assert!(finished.stderr.contains("1000 rejected"), "{finished}");
    assert_eq!(scene.rejects().len(), 1000);
}
