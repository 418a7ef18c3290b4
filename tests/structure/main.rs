//! Checks that the sources have the structure that ARCHITECTURE.md describes. Each
//! failure names the remedy.

// A failing test must panic.
#![allow(clippy::unwrap_used)]

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::source::{File, read_sources};

/// The largest number of lines of a file, without its unit tests. A longer file usually
/// has two subjects and should be divided.
const FILE_LINES_MAX: usize = 500;

/// The largest number of lines of a function, from its signature to its closing brace.
const FUNCTION_LINES_MAX: usize = 60;

/// The layers, from the bottom up. A folder may import itself and the folders before
/// it.
const LAYERS: [&str; 12] = [
    "wire", "stream", "stage", "join", "model", "train", "import", "compare", "serve", "observe",
    "bridge", "up",
];

/// The folders of the stages, and of the program that runs them. No stage imports another,
/// and `serve`, `observe`, `compare`, `bridge` and `up` never import each other.
const STAGES: [&str; 10] = [
    "serve::request",
    "serve::tee",
    "serve::score",
    "serve::decoy",
    "serve::rendezvous",
    "observe::archive",
    "observe::es_sink",
    "compare",
    "bridge",
    "up",
];

/// Fails the test if there are faults, and prints all of them.
fn refuse(faults: &[String], remedy: &str) {
    assert!(faults.is_empty(), "\n{}\n\n{remedy}\n", faults.join("\n"));
}

fn is_inside(module: &str, folder: &str) -> bool {
    module
        .strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn a_layer_imports_only_what_is_below_it() {
    let layer = |module: &str| LAYERS.iter().position(|folder| is_inside(module, folder));
    let mut faults = Vec::new();
    for file in read_sources() {
        let Some(own) = layer(&file.module) else {
            continue;
        };
        for import in &file.imports {
            match layer(import) {
                Some(other) if other <= own => {}
                _ => faults.push(format!("{}: imports {import}", file.path)),
            }
        }
    }
    refuse(
        &faults,
        "A layer imports only those before it: wire, stream, stage, model, train, import, then compare, \
         serve, observe and up. Move what both sides need down, or pass it in as an argument.",
    );
}

#[test]
fn no_stage_imports_another() {
    let stage = |module: &str| STAGES.iter().find(|folder| is_inside(module, folder));
    let mut faults = Vec::new();
    for file in read_sources() {
        for import in &file.imports {
            let crosses = match (stage(&file.module), stage(import)) {
                (Some(own), Some(other)) => own != other,
                _ => false,
            };
            if crosses {
                faults.push(format!("{}: imports {import}", file.path));
            }
        }
    }
    refuse(
        &faults,
        "Stages speak to each other by records on streams. Move what both need to stage/ or wire/.",
    );
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let files = read_sources();
    let edges: BTreeMap<&str, BTreeSet<&str>> = files
        .iter()
        .map(|file| {
            let targets = file
                .imports
                .iter()
                .filter_map(|import| owner(&files, import))
                .filter(|target| *target != file.module);
            (file.module.as_str(), targets.collect())
        })
        .collect();
    let faults: Vec<String> = circles(&edges)
        .into_iter()
        .map(|circle| circle.join(" -> "))
        .collect();
    refuse(
        &faults,
        "Files that import each other can only be understood together. Move what both need into a \
         file of its own.",
    );
}

/// The module that an imported path belongs to. If the path begins with several
/// modules, the longest one counts.
fn owner<'f>(files: &'f [File], import: &str) -> Option<&'f str> {
    let modules = files.iter().map(|file| file.module.as_str());
    modules
        .filter(|module| !module.is_empty() && is_inside(import, module))
        .max_by_key(|module| module.len())
}

/// Circles of imports. For each file that is not in an earlier circle, returns a
/// shortest circle through the file.
fn circles<'f>(edges: &BTreeMap<&'f str, BTreeSet<&'f str>>) -> Vec<Vec<&'f str>> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    for start in edges.keys() {
        if found.iter().any(|circle| circle.contains(start)) {
            continue;
        }
        let mut paths = vec![vec![*start]];
        let mut seen = BTreeSet::new();
        'search: while !paths.is_empty() {
            let mut longer = Vec::new();
            for path in paths {
                for next in edges.get(path[path.len() - 1]).into_iter().flatten() {
                    let mut path = path.clone();
                    path.push(next);
                    if next == start {
                        found.push(path);
                        break 'search;
                    }
                    if seen.insert(*next) {
                        longer.push(path);
                    }
                }
            }
            paths = longer;
        }
    }
    found
}

#[test]
fn a_file_holds_one_idea_and_a_function_fits_on_a_screen() {
    let mut faults = Vec::new();
    for file in read_sources() {
        if file.lines > FILE_LINES_MAX {
            faults.push(format!("{}: {} lines", file.path, file.lines));
        }
        for function in &file.functions {
            if function.lines > FUNCTION_LINES_MAX {
                faults.push(format!(
                    "{}:{}: {} has {} lines",
                    file.path, function.line, function.name, function.lines
                ));
            }
        }
    }
    refuse(
        &faults,
        "A file has at most 500 lines without its tests, and a function at most 60. Split the file \
         by its ideas, and the function by its steps.",
    );
}

#[test]
fn only_the_programs_are_public_and_every_public_item_says_what_it_is() {
    let mut faults = Vec::new();
    for file in read_sources() {
        if file.module.is_empty() {
            // If a module is private, the compiler reports its unused `pub` items.
            let public = file.public_modules.iter();
            faults.extend(public.map(|module| format!("{}: `pub mod {module}`", file.path)));
        }
        let bare = file.undocumented.iter();
        faults.extend(bare.map(|item| format!("{}: `{item}` has no doc comment", file.path)));
        if !file.has_module_doc {
            faults.push(format!(
                "{}: does not begin with a `//!` comment",
                file.path
            ));
        }
    }
    refuse(
        &faults,
        "lib.rs declares its modules without `pub`, so that the compiler finds what nobody uses. \
         Describe each file, and each public item with its shapes, units, errors and source.",
    );
}

#[test]
fn a_module_with_parts_is_a_folder_with_mod_rs() {
    let mut faults = Vec::new();
    for file in read_sources() {
        let folder = Path::new(&file.path).with_extension("");
        if !file.path.ends_with("mod.rs") && root().join(&folder).is_dir() {
            faults.push(format!("{}: beside {}/", file.path, folder.display()));
        }
    }
    refuse(&faults, "Move the file to mod.rs in its folder.");
}

#[test]
fn every_folder_of_the_sources_has_its_place_in_the_architecture() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut faults = Vec::new();
    for file in read_sources() {
        let (Some(folder), Some(name)) = (
            Path::new(&file.path).parent(),
            Path::new(&file.path).file_name(),
        ) else {
            continue;
        };
        let folder = folder.strip_prefix("src").unwrap();
        let top = folder.components().next();
        if let Some(top) = top {
            let heading = format!("{}/", top.as_os_str().display());
            if !architecture.contains(&heading) {
                faults.push(format!("{}: {heading} is not described", name.display()));
            }
        }
    }
    refuse(
        &faults,
        "Describe the folder in ARCHITECTURE.md, with its invariants.",
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
