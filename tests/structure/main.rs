//! The structure that ARCHITECTURE.md describes, checked against the sources. Each
//! failure says what to do.

// A test that fails has to panic.
#![allow(clippy::unwrap_used)]

mod source;

use std::fs;
use std::path::Path;

use crate::source::read_sources;

/// From the bottom up: a folder imports those before it, and itself.
const LAYERS: [&str; 8] = [
    "wire", "stream", "stage", "join", "model", "train", "serve", "observe",
];

/// The folders of the stages. No stage imports another, and `serve` and `observe` never
/// import each other.
const STAGES: [&str; 7] = [
    "serve::request",
    "serve::tee",
    "serve::score",
    "serve::decoy",
    "serve::rendezvous",
    "observe::archive",
    "observe::es_sink",
];

/// Fails with all faults at once.
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
        "A layer imports only those before it: wire, stream, stage, join, model, train, then serve \
         and observe. Move what both sides need down, or pass it in as an argument.",
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
