//! The kinds of paths on the command line: files, pipes and descriptors.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::{Workdir, json, request, stat};

#[test]
fn an_inherited_pipe_whose_writer_has_gone_has_ended() {
    let workdir = Workdir::new();
    workdir.fifo("pipe");
    for path in ["/dev/fd/3", "/proc/self/fd/3"] {
        for (story, writing) in [("lines", "printf 'a\\nb'"), ("nothing", ":")] {
            let script = format!("({writing} > pipe) & exec 3< pipe; wait; rv-decoy -i {path}");
            let finished = workdir.shell(&script).succeeds();
            let expected = if story == "lines" { "a\nb\n" } else { "" };
            assert_eq!(finished.stdout(), expected, "{finished}");
        }
    }
}

#[test]
fn an_inherited_pipe_ends_with_its_writer_and_not_before() {
    let workdir = Workdir::new();
    workdir.fifo("pipe");
    let script = "(echo a; read -r _ < go; echo b) > pipe & exec 3< pipe; rv-decoy -i /dev/fd/3";
    workdir.fifo("go");
    let mut running = workdir.shell(script).start();
    assert_eq!(running.line(), "a");
    fs::write(workdir.path("go"), "\n").unwrap();
    let finished = running.wait();
    finished.assert_status(0);
    assert_eq!(finished.stdout(), "b\n");
    let finished = workdir.shell("rv-decoy -i <(printf 'a\\nb\\n')").succeeds();
    assert_eq!(finished.stdout(), "a\nb\n");
}

#[test]
fn stats_never_replace_what_is_no_file() {
    let workdir = Workdir::new();
    workdir.fifo("pipe");
    std::os::unix::fs::symlink("/dev/null", workdir.path("null")).unwrap();
    let run = |path| workdir.run("rv-decoy").args(["--stats", path]).input("a\n");
    run("null").succeeds();
    run("pipe").succeeds();
    let null = fs::symlink_metadata(workdir.path("null")).unwrap();
    assert!(null.is_symlink());
    let there = fs::metadata(workdir.path("pipe")).unwrap();
    assert!(there.file_type().is_fifo());
    assert!(!fs::exists(workdir.path("pipe.new")).unwrap());
    // If the pipe has a reader, the reader gets the counts.
    let mut options = fs::File::options();
    let mut reader = options
        .read(true)
        .write(true)
        .open(workdir.path("pipe"))
        .unwrap();
    run("pipe").succeeds();
    let mut text = vec![0; rustix::io::ioctl_fionread(&reader).unwrap() as usize];
    reader.read_exact(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(json(text.lines().last().unwrap())["out"], 1);
}

#[test]
fn rejects_go_to_a_pipe_only_if_it_has_a_reader() {
    let workdir = Workdir::new();
    workdir.fifo("pipe");
    let script =
        "exec 3<> pipe; printf '1\\nno JSON\\n' | rv-request --rejects pipe > requests || true
        head --lines=1 <&3";
    let finished = workdir.shell(script).succeeds();
    assert_eq!(json(finished.stdout())["raw"], "no JSON", "{finished}");
    let finished = workdir.run("rv-decoy").args(["--rejects", "pipe"]).exits(2);
    assert!(
        finished.stderr.contains("--rejects pipe: is a pipe"),
        "{finished}"
    );
}

#[test]
fn a_stream_under_the_name_of_a_compressed_file_is_refused() {
    let workdir = Workdir::new();
    workdir.fifo("pipe.gz");
    for program in ["rv-decoy", "rv-request"] {
        let run = workdir.run(program).args(["-o", "x.gz"]);
        let finished = run.input("1\n").exits(2);
        assert!(finished.stderr.contains("rv-archive"), "{finished}");
        assert!(!fs::exists(workdir.path("x.gz")).unwrap());
    }
    let script = "echo 1 | rv-decoy -o pipe.gz & cat pipe.gz; wait";
    assert_eq!(workdir.shell(script).succeeds().stdout(), "1\n");
}

#[test]
fn a_file_is_not_input_and_output_at_once() {
    let workdir = Workdir::new();
    let whole = format!("{}\n", request("r-1"));
    workdir.write("file", &whole);
    fs::hard_link(workdir.path("file"), workdir.path("other")).unwrap();
    for command in [
        "rv-decoy -i file -o file",
        "rv-decoy -i file -o ./other",
        "rv-decoy -o file < file",
        "rv-decoy -i file >> file",
        "rv-request -i file -o file",
        "rv-archive cat file -o other",
        "mkfifo a b; rv-request -i file -o a --responses b --answers file",
    ] {
        let finished = workdir.shell(command).exits(2);
        assert!(finished.stderr.contains("input and output"), "{finished}");
        assert_eq!(workdir.read("file"), whole, "{command}");
    }
}

#[test]
fn cat_sets_long_lines_aside() {
    let workdir = Workdir::new();
    let long = "x".repeat(1 << 20);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut gzip, format!("a\n{long}\nb").as_bytes()).unwrap();
    workdir.write("log.gz", gzip.finish().unwrap());
    let cat = || {
        let run = workdir.run("rv-archive").args(["cat", "log.gz"]);
        run.args(["--max-line-bytes", "64KiB"])
    };
    let run = cat().args(["--rejects", "rejects", "--stats", "stats.json"]);
    let finished = run.exits(1);
    assert_eq!(finished.stdout(), "a\nb\n");
    let reject = json(workdir.read("rejects").trim_end());
    assert_eq!(
        (&reject["input"], &reject["line"], &reject["offset"]),
        (&"log.gz".into(), &2.into(), &2.into())
    );
    for (name, count) in [("in", 3), ("out", 2), ("rejected", 1)] {
        assert_eq!(stat(&workdir, "stats.json", name), count, "{name}");
    }
    let finished = cat().arg("--strict").exits(3);
    assert!(finished.stderr.contains("log.gz:2: "), "{finished}");
}
