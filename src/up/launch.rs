//! The first moments of a stage's process: it becomes its program.
//!
//! The supervisor starts `rv-up launch`, which prepares its own process and then calls
//! exec. So no code runs between fork and exec, where little is allowed.

use std::io::Write;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal, setsid};

use crate::up::process::note_self;

/// The first descriptor that LISTEN_FDS passes on.
const LISTEN_FD: i32 = 3;

/// How much less processor time a nice stage gets.
const NICE: i32 = 10;

/// The arguments of the hidden subcommand.
#[derive(Args, Clone, Debug)]
pub struct LaunchArgs {
    /// The process that starts this one
    #[arg(long)]
    parent: i32,
    /// The file for the identity of this process
    #[arg(long)]
    note: String,
    /// Standard input is a listening socket: pass it on as LISTEN_FDS
    #[arg(long)]
    socket: bool,
    /// Give precedence to other processes
    #[arg(long)]
    nice: bool,
    /// Begin standard output with a newline
    #[arg(long)]
    newline: bool,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Becomes the program. Returns only if that fails.
pub fn run(args: &LaunchArgs) -> Result<()> {
    // Until the file is written, this process ends with its parent. So no stage runs that
    // the next supervisor cannot find.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Pid::from_raw(args.parent) {
        bail!("the supervisor has ended");
    }
    // A session of its own keeps Ctrl-C in a terminal from the stage. It also makes a
    // process group, so that all processes of the stage can be ended.
    setsid()?;
    note_self(&args.note).with_context(|| format!("{}: cannot write", args.note))?;
    if args.newline {
        // The last process may have died in the middle of a line.
        std::io::stdout().write_all(b"\n")?;
        std::io::stdout().flush()?;
    }
    if args.nice {
        let _ = rustix::process::nice(NICE);
    }
    let Some((program, arguments)) = args.command.split_first() else {
        bail!("no program is given");
    };
    let mut command = match args.socket {
        true => with_socket(program)?,
        false => {
            let mut command = Command::new(program);
            command.env_remove("LISTEN_FDS");
            command
        }
    };
    command.args(arguments).env_remove("LISTEN_PID");
    set_parent_process_death_signal(None)?;
    Err(command.exec()).with_context(|| format!("{program}: cannot start"))
}

/// A command that gets standard input, a listening socket, as the descriptor 3.
fn with_socket(program: &str) -> Result<Command> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), LISTEN_FD)?;
    let mut command = if socket.as_raw_fd() == LISTEN_FD {
        rustix::io::fcntl_setfd(&socket, FdFlags::empty())?;
        // The descriptor stays open until exec.
        let _ = socket.into_raw_fd();
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        command
    } else {
        // This process has inherited a descriptor 3, which only a shell can replace without
        // unsafe code.
        let mut command = Command::new("sh");
        command.args(["-c", "exec 3<&0 < /dev/null; exec \"$@\"", "sh", program]);
        command
    };
    command.env("LISTEN_FDS", "1");
    Ok(command)
}
