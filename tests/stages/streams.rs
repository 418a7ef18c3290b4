//! What a path on the command line may stand for: files, pipes, descriptors.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;

use crate::harness::{Workdir, json};

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
    // With a reader, the counts come through.
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
fn rejects_do_not_go_to_a_pipe() {
    let workdir = Workdir::new();
    workdir.fifo("pipe");
    let finished = workdir.run("rv-decoy").args(["--rejects", "pipe"]).exits(2);
    assert!(
        finished.stderr.contains("--rejects pipe: is a pipe"),
        "{finished}"
    );
}
