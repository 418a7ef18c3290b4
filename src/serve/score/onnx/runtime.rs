//! Finds and loads the library of onnxruntime, and loads models with it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use ort::LoadDynamicError;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;

/// The names under which the loader of the system may know the library.
const SYSTEM_NAMES: [&str; 2] = ["libonnxruntime.so", "libonnxruntime.so.1"];

/// What to do if the library is missing.
const REMEDY: &str = "install it (pip install onnxruntime, 1.19 or newer) and name its library with --onnxruntime or \
    the variable ORT_DYLIB_PATH; a Python environment has it as \
    lib/python3.*/site-packages/onnxruntime/capi/libonnxruntime.so.*";

/// The loaded library. A process loads it once.
#[derive(Debug)]
pub struct Runtime {
    environment: Environment,
}

impl Runtime {
    /// Loads the library. `given` is its path, or the folder that holds it. The error
    /// contains the remedy.
    pub fn load(given: Option<&str>) -> Result<Runtime> {
        if cfg!(target_feature = "crt-static") {
            bail!(
                "this rv-score is linked statically, so it cannot load the library of onnxruntime that ONNX \
                 models need; use a build that is linked to glibc"
            );
        }
        let builder = match given.map(str::to_owned).or_else(variable) {
            Some(path) => {
                let path = library_in(Path::new(&path))?;
                ort::init_from(&path).map_err(|error| load_error(&error))?
            }
            None => load_found()?,
        };
        let environment = builder
            .with_name("rv-score")
            .with_telemetry(false)
            .build()
            .map_err(|error| anyhow!("onnxruntime does not start: {}", one_line(&error)))?;
        // onnxruntime prints nothing, because it returns every fault as an error, too.
        if std::env::var_os("ORT_LOG").is_none() {
            environment.set_log_level(LogLevel::Fatal);
        }
        Ok(Runtime { environment })
    }

    /// Loads a model from the content of its file. onnxruntime uses `threads` threads
    /// for one batch. The error describes the fault.
    pub fn session(&self, model: &[u8], threads: usize) -> Result<Session, String> {
        let builder = Session::builder(&self.environment).map_err(|error| one_line(&error))?;
        let builder = builder
            .with_intra_threads(threads)
            .map_err(|error| one_line(&error))?;
        // Without spinning, a thread that waits for the next batch uses no processor
        // time.
        let builder = builder.with_intra_op_spinning(false);
        let mut builder = builder.map_err(|error| one_line(&error))?;
        builder
            .commit_from_memory(model)
            .map_err(|error| one_line(&error))
    }
}

/// The path in `ORT_DYLIB_PATH`, if there is one.
fn variable() -> Option<String> {
    let path = std::env::var("ORT_DYLIB_PATH").ok();
    path.filter(|path| !path.is_empty())
}

/// Loads the system's library, or else the one in the active Python environment.
fn load_found() -> Result<ort::environment::EnvironmentBuilder> {
    let mut faults = Vec::new();
    let python =
        std::env::var_os("VIRTUAL_ENV").and_then(|root| library_of_python(Path::new(&root)));
    for path in SYSTEM_NAMES.iter().map(PathBuf::from).chain(python) {
        match ort::init_from(&path) {
            Ok(builder) => return Ok(builder),
            Err(error) => faults.push(load_error(&error)),
        }
    }
    // The fault of a library that exists but is too old says more than the fault of a
    // missing one.
    let is_missing = |fault: &anyhow::Error| fault.to_string().starts_with(MISSING);
    match faults.into_iter().find(|fault| !is_missing(fault)) {
        Some(fault) => Err(fault),
        None => bail!("the library of onnxruntime is missing, and ONNX models need it; {REMEDY}"),
    }
}

/// A message about a file that cannot be loaded begins with this text.
const MISSING: &str = "cannot load the library of onnxruntime";

fn load_error(error: &LoadDynamicError) -> anyhow::Error {
    match error {
        LoadDynamicError::Dlopen { error, .. } => anyhow!("{MISSING}: {error}; {REMEDY}"),
        LoadDynamicError::MissingApi { path } => anyhow!(
            "{}: is not the library of onnxruntime; {REMEDY}",
            path.display()
        ),
        LoadDynamicError::BadVersion { version_str, path } => anyhow!(
            "{}: is onnxruntime {version_str}, and ONNX models need 1.{} or newer; update it: pip install \
             --upgrade onnxruntime",
            path.display(),
            ort::MINOR_VERSION
        ),
        LoadDynamicError::InvalidVersionString => {
            anyhow!("the library of onnxruntime does not tell its version; {REMEDY}")
        }
    }
}

/// The library at `path`, which may be a folder that holds it. The result is absolute,
/// because the loader searches for a relative path elsewhere.
fn library_in(path: &Path) -> Result<PathBuf> {
    let found = if path.is_dir() {
        let found = newest_library(path).or_else(|| library_of_python(path));
        found.ok_or_else(|| {
            anyhow!(
                "{}: this folder holds no libonnxruntime.so; {REMEDY}",
                path.display()
            )
        })?
    } else {
        path.to_owned()
    };
    // The loader of the system searches for a name without a folder.
    match found.components().count() {
        1 if !found.exists() => Ok(found),
        _ => Ok(std::path::absolute(found)?),
    }
}

/// The library in the Python environment at `root`.
fn library_of_python(root: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(root.join("lib")).ok()?;
    let folders = versions.filter_map(|entry| Some(entry.ok()?.path()));
    folders
        .map(|folder| folder.join("site-packages/onnxruntime/capi"))
        .find_map(|folder| newest_library(&folder))
}

/// The library in a folder. If there are several, this is the last one by name.
fn newest_library(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_library = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| {
            let rest = name.strip_prefix("libonnxruntime.so");
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    paths.filter(is_library).max()
}

/// An error of onnxruntime on one line, cut to a bounded length.
pub fn one_line(error: &impl fmt::Display) -> String {
    const CHARS_MAX: usize = 500;
    let text = error.to_string();
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_in_its_folder_and_in_a_python_environment() {
        let root = tempfile::tempdir().unwrap();
        let capi = root
            .path()
            .join("lib/python3.11/site-packages/onnxruntime/capi");
        fs::create_dir_all(&capi).unwrap();
        assert!(library_in(root.path()).is_err());
        for name in [
            "libonnxruntime_providers_shared.so",
            "libonnxruntime.so.1.22.0",
        ] {
            fs::write(capi.join(name), "").unwrap();
        }
        let library = capi.join("libonnxruntime.so.1.22.0");
        for path in [root.path(), &capi, &library] {
            assert_eq!(library_in(path).unwrap(), library);
        }
        let bare = Path::new("libonnxruntime.so.1");
        assert_eq!(library_in(bare).unwrap(), bare);
    }

    #[test]
    fn a_file_that_is_no_library_is_an_error_with_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("libonnxruntime.so");
        fs::write(&file, "not a library").unwrap();
        let missing = root.path().join("missing.so");
        for path in [file, missing] {
            let message = Runtime::load(path.to_str()).unwrap_err().to_string();
            assert!(message.contains("ORT_DYLIB_PATH"), "{message}");
            assert!(message.contains("pip install onnxruntime"), "{message}");
        }
    }

    #[test]
    fn an_error_of_the_runtime_is_one_bounded_line() {
        assert_eq!(one_line(&"a\n  b"), "a b");
        assert_eq!(one_line(&"x".repeat(1000)).len(), 503);
    }
}
