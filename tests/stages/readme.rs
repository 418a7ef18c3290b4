//! The commands of the README do what it says.

use std::os::unix::fs::symlink;

use crate::harness::{Workdir, checkout, program};

/// The blocks of the README that are marked as shell.
fn shell_blocks() -> Vec<String> {
    let text = std::fs::read_to_string(checkout().join("README.md")).unwrap();
    let mut blocks = Vec::new();
    let mut rest = text.as_str();
    while let Some((_, from)) = rest.split_once("\n```sh\n") {
        let (block, after) = from.split_once("\n```").unwrap();
        blocks.push(block.to_owned());
        rest = after;
    }
    blocks
}

#[test]
fn every_command_of_the_readme_works() {
    let blocks = shell_blocks();
    assert!(
        blocks.len() >= 11,
        "only {} blocks were found",
        blocks.len()
    );
    let workdir = Workdir::new();
    for folder in ["fixtures", "scripts"] {
        symlink(checkout().join(folder), workdir.path(folder)).unwrap();
    }
    // This test is part of `cargo test`; the programs are built already.
    assert_eq!(blocks[0].matches("\ncargo test").count(), 1);
    let script = blocks
        .join("\n")
        .replace("\ncargo test ", "\n: cargo test ");
    let mut run = workdir.shell(&script);
    run.command
        .env("RV_BIN", program("rv-score").parent().unwrap());
    let finished = run.succeeds();
    assert!(finished.stdout().contains("== all answered"), "{finished}");
    assert_eq!(workdir.read("answers.ndjson").lines().count(), 150);
    for scored in [
        "scores.ndjson",
        "rescored.ndjson",
        "replayed.ndjson",
        "constant.ndjson",
    ] {
        let text = workdir.read(scored);
        assert_eq!(
            text.matches("\"result\":{\"modelName\":").count(),
            150,
            "{scored}"
        );
    }
}

#[test]
fn every_program_is_in_the_readme() {
    let text = std::fs::read_to_string(checkout().join("README.md")).unwrap();
    let mut programs = 0;
    for entry in std::fs::read_dir(checkout().join("src/bin")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.strip_suffix(".rs").unwrap().to_owned();
        assert!(text.contains(&format!("| `{name}` |")), "{name}");
        programs += 1;
    }
    assert!(programs >= 6);
}
