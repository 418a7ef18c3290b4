//! Tests the commands, records, policies and links of the README and docs/.
//! docs/README.md says what each fence means.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::thread;

use crate::harness::{Finished, Workdir, checkout, program};
use crate::schemas::Schema;

/// The least number of fences of each kind. A fence that the tests do not find is not
/// run.
const FENCES_AT_LEAST: [(&str, usize); 5] = [
    ("sh", 30),
    ("bash", 3),
    ("json", 6),
    ("toml", 1),
    ("console", 4),
];

/// One fenced block of a page.
struct Fence {
    page: String,
    /// `sh`, `json` and so on.
    kind: String,
    /// The second word of the fence line.
    detail: String,
    text: String,
}

/// The README and all pages, by their path in the checkout.
fn pages() -> Vec<String> {
    let docs = fs::read_dir(checkout().join("docs")).unwrap();
    let names = docs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pages: Vec<String> = names
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("docs/{name}"))
        .collect();
    pages.push("README.md".to_owned());
    pages.sort();
    pages
}

fn read(page: &str) -> String {
    fs::read_to_string(checkout().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The fences of a page, from top to bottom.
fn fences(page: &str) -> Vec<Fence> {
    let text = read(page);
    let mut fences: Vec<Fence> = Vec::new();
    let mut open: Option<Fence> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), open.as_mut()) {
            (Some(info), None) => {
                let (kind, detail) = info.split_once(' ').unwrap_or((info, ""));
                open = Some(Fence {
                    page: page.to_owned(),
                    kind: kind.to_owned(),
                    detail: detail.to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => fences.extend(open.take()),
            (None, Some(fence)) => {
                fence.text.push_str(line);
                fence.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: the last fence is not closed");
    fences
}

fn all_fences(kind: &str) -> Vec<Fence> {
    let pages = pages();
    let all = pages.iter().flat_map(|page| fences(page));
    all.filter(|fence| fence.kind == kind).collect()
}

/// Runs a page's commands as one script, in a new folder.
fn type_in(page: &str) -> (Workdir, Finished) {
    let workdir = Workdir::new();
    for folder in ["fixtures", "scripts", "examples"] {
        symlink(checkout().join(folder), workdir.path(folder)).unwrap();
    }
    let commands: String = fences(page)
        .into_iter()
        .filter(|fence| fence.kind == "sh")
        .map(|fence| fence.text)
        .collect();
    let front = free_port();
    let commands = commands
        // This test is part of `cargo test`, and the programs are built already.
        .replace("\ncargo test\n", "\n")
        // Another program may use the port.
        .replace(
            "rv-up demo\n",
            &format!("rv-up demo --listen 127.0.0.1:{front} --admin 127.0.0.1:0\n"),
        )
        .replace("127.0.0.1:8000", &format!("127.0.0.1:{front}"));
    // The script stops the pipeline at its end, even after a failure.
    let cleanup = "here=$PWD; trap 'for file in \"$here\"{,/rv-demo}/rv.toml; do \
        [ ! -e \"$file\" ] || rv-up --file \"$file\" stop > /dev/null 2>&1; done' EXIT\n";
    let mut run = workdir.shell(&format!("{cleanup}{commands}"));
    let programs = program("rv-score").parent().unwrap().to_owned();
    run.command.env("RV_BIN", programs);
    let finished = run.succeeds();
    (workdir, finished)
}

/// A port on which nobody listens now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn every_command_of_the_readme_works() {
    let (workdir, finished) = type_in("README.md");
    assert!(finished.stdout().contains("== all answered"), "{finished}");
    let answer = workdir.read("rv-demo/answer.json");
    assert!(answer.contains(r#""modelName":"dt""#), "{answer}");
    for said in ["dt@1 answers, preferred", "next@1 says 1 (unused)"] {
        assert!(finished.stdout().contains(said), "{said}: {finished}");
    }
}

#[test]
fn every_command_of_the_pages_works() {
    // For each page, the files that its commands leave behind, each with a text. In
    // each file, 150 lines contain the text, one for each flower.
    let outcomes: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::from([
        (
            "docs/by-hand.md",
            vec![
                ("scores.ndjson", r#""result":{"modelName":"dt""#),
                ("answers.ndjson", r#""modelResult":{"modelName":"#),
            ],
        ),
        (
            "docs/records.md",
            vec![
                ("scores.ndjson", r#""result": {"modelName": "nearest""#),
                (
                    "responses.ndjson",
                    r#""modelResult":{"modelName": "nearest""#,
                ),
                ("constant.ndjson", r#""result":{"modelName":"always-one""#),
            ],
        ),
        (
            "docs/models.md",
            vec![("scores.ndjson", r#""probabilities":"#)],
        ),
        ("docs/tee.md", vec![("scores.ndjson", r#""result":{"#)]),
        (
            "docs/replay.md",
            vec![("other.ndjson", r#""modelResult":{"#)],
        ),
        (
            "docs/archive.md",
            vec![
                ("replayed.ndjson", r#""result":{"#),
                ("rescored.ndjson", r#""rescored":true"#),
            ],
        ),
    ]);
    for page in outcomes.keys() {
        assert!(pages().contains(&page.to_string()), "{page} is gone");
    }
    let pages = pages();
    thread::scope(|scope| {
        for page in pages.iter().filter(|page| *page != "README.md") {
            let outcomes = outcomes.get(page.as_str());
            scope.spawn(move || {
                let (workdir, _) = type_in(page);
                for (file, text) in outcomes.into_iter().flatten() {
                    let found = workdir.read(file).matches(text).count();
                    assert_eq!(found, 150, "{page}: {file}");
                }
            });
        }
    });
}

#[test]
fn every_fence_says_who_runs_it() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for page in pages() {
        for fence in fences(&page) {
            let known = match fence.kind.as_str() {
                "sh" | "toml" | "console" | "text" => true,
                // scripts/check_services.sh reads no other page.
                "bash" => page == "docs/elasticsearch.md",
                "json" => !fence.detail.is_empty(),
                _ => false,
            };
            assert!(
                known,
                "{page}: a fence begins with ```{} {}; docs/README.md says which there are",
                fence.kind, fence.detail
            );
            *counts.entry(fence.kind).or_default() += 1;
        }
    }
    for (kind, least) in FENCES_AT_LEAST {
        let found = counts.get(kind).copied().unwrap_or_default();
        assert!(found >= least, "only {found} fences of {kind} were found");
    }
}

#[test]
fn every_record_of_the_pages_fits_its_schema() {
    for fence in all_fences("json") {
        let schema = Schema::named(&fence.detail);
        for line in fence.text.lines() {
            schema.accepts(line, &fence.page);
        }
    }
}

#[test]
fn every_policy_of_the_pages_is_accepted() {
    for fence in all_fences("toml") {
        let workdir = Workdir::new();
        workdir.write("policy.toml", &fence.text);
        let check = workdir.run("rv-rendezvous").args(["check", "policy.toml"]);
        let finished = check.finish();
        assert_eq!(finished.status, 0, "{}: {finished}", fence.page);
    }
}

#[test]
fn every_link_leads_to_a_file() {
    let others = ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];
    let mut links = 0;
    for page in pages().into_iter().chain(others.map(str::to_owned)) {
        let folder = PathBuf::from(&page).parent().unwrap().to_owned();
        let text = read(&page);
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = checkout().join(&folder).join(target);
            assert!(path.exists(), "{page}: there is no {target}");
            links += 1;
        }
    }
    assert!(links >= 40, "only {links} links were found");
}

#[test]
fn every_page_is_in_the_index() {
    let index = read("docs/README.md");
    for page in pages() {
        let name = page.trim_start_matches("docs/");
        assert!(
            name == "README.md" || index.contains(&format!("| [{name}]({name}) |")),
            "docs/README.md does not name {name}"
        );
    }
}

#[test]
fn the_readme_is_short_and_names_every_program() {
    let text = read("README.md");
    let lines = text.lines().count();
    assert!(
        lines < 150,
        "the README has {lines} lines; move a part to docs/"
    );
    let mut programs = 0;
    for entry in fs::read_dir(checkout().join("src/bin")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.strip_suffix(".rs").unwrap().to_owned();
        assert!(text.contains(&format!("| `{name}` |")), "{name}");
        programs += 1;
    }
    assert!(programs >= 7);
}

/// The files of the checkout that hold code, with their text.
fn code() -> Vec<(PathBuf, String)> {
    let mut folders = ["src", "tests", "scripts"]
        .map(|name| checkout().join(name))
        .to_vec();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                files.push((path, text));
            }
        }
    }
    files
}

#[test]
fn what_architecture_names_exists() {
    let text = read("ARCHITECTURE.md");
    let code = code();
    let (mut files, mut tests) = (0, 0);
    for name in text.split('`').skip(1).step_by(2) {
        if name.ends_with(".rs") {
            let found = code.iter().any(|(path, _)| path.ends_with(name));
            assert!(found, "ARCHITECTURE.md names {name}; there is no such file");
            files += 1;
        }
        // A name of four or more words is the name of a test.
        let is_word = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
        if name.chars().all(is_word) && name.matches('_').count() >= 3 {
            let definition = format!("fn {name}(");
            let found = code.iter().any(|(_, text)| text.contains(&definition));
            assert!(
                found,
                "ARCHITECTURE.md names the test {name}; there is none"
            );
            tests += 1;
        }
    }
    assert!(files >= 50 && tests >= 45, "{files} files, {tests} tests");
}

#[test]
fn the_oldest_rust_is_the_same_everywhere() {
    let manifest = read("Cargo.toml");
    let (_, rest) = manifest.split_once("rust-version = \"").unwrap();
    let version = rest.split('"').next().unwrap();
    for page in ["README.md", "CONTRIBUTING.md"] {
        let said = format!("Rust {version} or newer");
        assert!(read(page).contains(&said), "{page} does not say {said:?}");
    }
}
