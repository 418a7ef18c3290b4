//! Where the programs of rv are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::Access;

use crate::stage::usage;

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This program.
    pub own: PathBuf,
    /// The folder of this program, which holds the others.
    folder: PathBuf,
}

impl Programs {
    /// The programs beside this one.
    pub fn find() -> Result<Programs> {
        let own = std::env::current_exe().context("cannot find this program's file")?;
        let folder = own.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Programs { own, folder })
    }

    /// The path of a program: beside this one, or else its bare name, which is looked up
    /// in PATH.
    pub fn path(&self, program: &str) -> PathBuf {
        let beside = self.folder.join(program);
        match program.starts_with("rv-") && is_executable(&beside) {
            true => beside,
            false => PathBuf::from(program),
        }
    }

    /// PATH, with the folder of the programs first.
    pub fn search_path(&self) -> OsString {
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(self.folder.clone()).chain(std::env::split_paths(&rest));
        std::env::join_paths(all).unwrap_or(rest)
    }

    /// Refuses a program of rv that is missing.
    pub fn check(&self, program: &str) -> Result<()> {
        let path = self.path(program);
        if is_executable(&path) || self.is_in_path(program) {
            return Ok(());
        }
        Err(usage(format!(
            "{program}: no such program, neither in {} nor in PATH; install all programs of rv \
             in one folder",
            self.folder.display()
        )))
    }

    /// Whether a program is found in PATH, or in the folder of the programs.
    pub fn is_in_path(&self, program: &str) -> bool {
        let path = self.search_path();
        std::env::split_paths(&path).any(|folder| is_executable(&folder.join(program)))
    }
}

/// Whether a file may be executed.
pub fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_refused_with_the_remedy() {
        let programs = Programs::find().unwrap();
        assert!(programs.is_in_path("sh"));
        assert_eq!(programs.path("sh"), PathBuf::from("sh"));
        let error = programs.check("rv-nothing").unwrap_err().to_string();
        assert!(
            error.contains("install all programs of rv in one folder"),
            "{error}"
        );
    }
}
