//! The program between the topics: its process group, and the pipes of its streams.
//!
//! Both ends of every pipe are open before the program starts, so no opening can wait for
//! the other side. No method here waits.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tempfile::TempDir;

use crate::bridge::plan::Plan;
use crate::stream::output::Output;

/// The names of the folders of all bridges begin with this.
const FOLDER_PREFIX: &str = "rv-bridge-";

/// A running program. When this value is dropped, its process group is killed.
#[derive(Debug)]
pub struct Program {
    child: Child,
    group: Pid,
    /// Readable when the program has ended.
    exit: OwnedFd,
    ended: Option<ExitStatus>,
    /// The other ends of the named pipes.
    _held: Vec<OwnedFd>,
    _folder: PipeFolder,
}

/// The ends of the program's pipes that belong to the bridge.
#[derive(Debug, Default)]
pub struct ProgramPipes {
    /// For each input.
    pub inputs: Vec<Output>,
    /// For each output.
    pub outputs: Vec<OwnedFd>,
    /// The program's own rejects.
    pub rejects: Option<OwnedFd>,
    /// The paths of the inputs, as the program names them.
    pub input_paths: Vec<String>,
}

impl Program {
    /// Starts the program of a plan.
    pub fn start(plan: &Plan, words: &[String]) -> Result<(Program, ProgramPipes)> {
        let folder = PipeFolder::new()?;
        let mut pipes = ProgramPipes::default();
        let mut held = Vec::new();
        let mut paths = Vec::new();
        let (mut stdin, mut stdout) = (Stdio::null(), Stdio::null());
        for input in &plan.inputs {
            let (reader, writer) = match &input.address.name {
                None => {
                    let (reader, writer) = anonymous()?;
                    stdin = reader.into();
                    pipes.input_paths.push("<stdin>".to_owned());
                    (None, writer)
                }
                Some(name) => {
                    let path = folder.path(name);
                    let (reader, writer) = named(&path)?;
                    pipes.input_paths.push(path.clone());
                    paths.push((name.as_str(), path));
                    (Some(reader), writer)
                }
            };
            held.extend(reader);
            rustix::fs::fcntl_setfl(&writer, OFlags::WRONLY | OFlags::NONBLOCK)?;
            pipes
                .inputs
                .push(Output::of_pipe(&input.address.to_string(), writer));
        }
        for output in &plan.outputs {
            let (reader, writer) = match &output.name {
                None => {
                    let (reader, writer) = anonymous()?;
                    stdout = writer.into();
                    (reader, None)
                }
                Some(name) => {
                    let path = folder.path(name);
                    let (reader, writer) = named(&path)?;
                    paths.push((name.as_str(), path));
                    (reader, Some(writer))
                }
            };
            held.extend(writer);
            rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK)?;
            pipes.outputs.push(reader);
        }
        if plan.has_rejects_pipe {
            let path = folder.path("rejects");
            let (reader, writer) = named(&path)?;
            held.push(writer);
            paths.push(("rejects", path));
            pipes.rejects = Some(reader);
        }
        let command = command(words, &paths, stdin, stdout);
        Ok((Program::spawn(command, held, folder, &words[0])?, pipes))
    }

    fn spawn(
        mut command: Command,
        held: Vec<OwnedFd>,
        folder: PipeFolder,
        name: &str,
    ) -> Result<Program> {
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let group = Pid::from_child(&child);
        match pidfd_open(group, PidfdFlags::empty()) {
            Ok(exit) => Ok(Program {
                child,
                group,
                exit,
                ended: None,
                _held: held,
                _folder: folder,
            }),
            Err(errno) => {
                let _ = kill_process_group(group, Signal::KILL);
                let _ = child.wait();
                Err(errno).context("cannot watch the program")
            }
        }
    }

    /// Readable when the program ends; `None` if the end is known.
    pub fn exit(&self) -> Option<BorrowedFd<'_>> {
        self.ended.is_none().then(|| self.exit.as_fd())
    }

    /// The status of the program, if it has ended.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Sends a signal to the program and its children.
    pub fn signal(&self, signal: Signal) {
        // A group that has ended needs no signal.
        let _ = kill_process_group(self.group, signal);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The exit status, as a shell reports it.
pub fn shell_status(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// A word of the command line with the paths of the pipes.
fn with_paths(word: &str, paths: &[(&str, String)]) -> String {
    let mut word = word.to_owned();
    for (name, path) in paths {
        word = word.replace(&format!("{{{name}}}"), path);
    }
    word
}

fn command(words: &[String], paths: &[(&str, String)], stdin: Stdio, stdout: Stdio) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(words[1..].iter().map(|word| with_paths(word, paths)));
    command.stdin(stdin).stdout(stdout).process_group(0);
    command
}

fn anonymous() -> Result<(OwnedFd, OwnedFd)> {
    let flags = rustix::pipe::PipeFlags::CLOEXEC;
    rustix::pipe::pipe_with(flags).context("cannot make a pipe")
}

/// Makes a named pipe and opens both ends, neither of which blocks.
fn named(path: &str) -> Result<(OwnedFd, OwnedFd)> {
    let open = |access| {
        let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
    };
    let ends = || -> rustix::io::Result<(OwnedFd, OwnedFd)> {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RUSR | Mode::WUSR)?;
        let reader = open(OFlags::RDONLY)?;
        Ok((reader, open(OFlags::WRONLY)?))
    };
    ends().with_context(|| format!("{path}: cannot make the pipe"))
}

/// A folder for named pipes, which goes with the bridge. The folders of killed bridges go
/// when the next bridge starts.
#[derive(Debug)]
struct PipeFolder {
    folder: TempDir,
    _lock: fs::File,
}

impl PipeFolder {
    fn new() -> Result<PipeFolder> {
        let parent = std::env::temp_dir();
        remove_left_over(&parent);
        let made = || -> io::Result<PipeFolder> {
            let folder = tempfile::Builder::new()
                .prefix(FOLDER_PREFIX)
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir_in(&parent)?;
            let lock = fs::File::create(folder.path().join("lock"))?;
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            Ok(PipeFolder {
                folder,
                _lock: lock,
            })
        };
        made().with_context(|| format!("{}: cannot make a folder for the pipes", parent.display()))
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// Removes the folders whose bridge was killed: nobody holds their lock. A folder without
/// a lock may be of a bridge that has just begun.
fn remove_left_over(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        if !entry
            .file_name()
            .to_string_lossy()
            .starts_with(FOLDER_PREFIX)
        {
            continue;
        }
        let Ok(lock) = fs::File::open(entry.path().join("lock")) else {
            continue;
        };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_killed_bridge_goes_and_that_of_a_living_one_stays() {
        let parent = tempfile::tempdir().unwrap();
        for name in [
            "rv-bridge-dead",
            "rv-bridge-alive",
            "rv-bridge-new",
            "other",
        ] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let lock = |name: &str| fs::File::create(parent.path().join(name).join("lock")).unwrap();
        drop(lock("rv-bridge-dead"));
        drop(lock("other"));
        let alive = lock("rv-bridge-alive");
        rustix::fs::flock(&alive, FlockOperation::LockExclusive).unwrap();
        remove_left_over(parent.path());
        let left = |name: &str| parent.path().join(name).exists();
        assert!(!left("rv-bridge-dead"));
        assert!(left("rv-bridge-alive") && left("rv-bridge-new") && left("other"));
    }

    #[test]
    fn the_paths_of_pipes_replace_their_names() {
        let paths = [("a", "/x/a".to_owned()), ("b", "/x/b".to_owned())];
        assert_eq!(with_paths("--in={a},{b},{c}", &paths), "--in=/x/a,/x/b,{c}");
    }
}
