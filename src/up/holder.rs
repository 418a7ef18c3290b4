//! The holder: it holds descriptors, and starts the supervisor again if it dies.
//!
//! A stage ends when its input has no writer, and fails when its output has no reader. So
//! the holder holds the other ends of the stages' pipes, and the listening sockets. It
//! decides nothing. It does what the supervisor asks it to do. It is the parent of all
//! stages whose parent has died.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::PollFlags;
use rustix::process::{Pid, Signal, WaitOptions, set_child_subreaper, setsid, wait};

use crate::stage::Stage;
use crate::stage::backoff::Backoff;
use crate::up::channel::{Channel, Message};
use crate::up::log_file::LogFile;
use crate::up::pipes::{self, End};
use crate::up::process::{Process, note_self};
use crate::up::run_folder::RunFolder;

/// The name of the holder's lock and of the file with its identity.
pub const HOLDER: &str = "holder";

/// The name of the file with the supervisor's identity.
pub const SUPERVISOR: &str = "supervisor";

/// How often the holder looks for stages that have ended and have no other parent.
const REAP_EVERY: Duration = Duration::from_secs(5);

/// The number of connections that may wait in the kernel, also while there is no front
/// end.
const BACKLOG: i32 = 4096;

/// How long a new holder waits until the lock of the dead one is free.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// The longest wait before the supervisor is started again.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(5);

/// A supervisor that ran for this long was well.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// The descriptors, and the process that decides.
struct Holder {
    run: RunFolder,
    ends: BTreeMap<(String, End), OwnedFd>,
    sockets: BTreeMap<String, TcpListener>,
    channel: Option<Channel>,
    supervisor: Option<Process>,
    started: Instant,
    waits: Backoff,
    /// When the supervisor is started again.
    restart_at: Option<Instant>,
    /// Whether the supervisor has said that all stages have ended.
    is_done: bool,
    /// Why the start has failed, if it has.
    fault: Option<String>,
}

/// How a holder was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By `start`, which does not wait for its end.
    Background,
    /// By `start --foreground`, which is this process.
    Foreground,
    /// By a supervisor whose holder has died. Standard input is the connection to it.
    Adopting,
}

/// Runs until the supervisor says that it is done. In the foreground, a start that fails is
/// an error.
pub fn run(stage: &mut Stage, run: &RunFolder, mode: Mode) -> Result<()> {
    let until = Instant::now() + LOCK_PATIENCE;
    let _lock = loop {
        match run.lock("holder.lock")? {
            Some(lock) => break lock,
            // `stop` takes the lock for a moment, to see whether somebody has it.
            None if Instant::now() < until => {
                crate::stage::wait::wait(
                    &[],
                    &mut stage.signals,
                    Some(Instant::now() + Duration::from_millis(20)),
                )?;
            }
            None => bail!("{} is up already; stop it with `rv-up stop`", run.dir),
        }
    };
    // In the foreground, the program may lead its group already.
    let _ = setsid();
    set_child_subreaper(Some(rustix::process::getpid()))?;
    note_self(&crate::up::process::file(&run.dir, HOLDER))?;
    let mut holder = Holder {
        run: run.clone(),
        ends: BTreeMap::new(),
        sockets: BTreeMap::new(),
        channel: None,
        supervisor: None,
        started: Instant::now(),
        waits: Backoff::new(Duration::from_millis(100), RESTART_WAIT_MAX),
        restart_at: None,
        is_done: false,
        fault: None,
    };
    match mode {
        Mode::Adopting => holder.channel = Some(Channel::of_stdin()?),
        Mode::Background | Mode::Foreground => holder.start_supervisor()?,
    }
    let outcome = holder.serve(stage);
    let _ = std::fs::remove_file(crate::up::process::file(&run.dir, HOLDER));
    match holder.fault {
        Some(fault) if mode == Mode::Foreground => outcome.and(Err(anyhow!("{fault}"))),
        // The supervisor has written it into the log.
        Some(_) => {
            stage.has_findings = true;
            outcome
        }
        None => outcome,
    }
}

impl Holder {
    fn serve(&mut self, stage: &mut Stage) -> Result<()> {
        let mut has_passed_on = false;
        while !self.is_done {
            self.wait(stage)?;
            self.answer_requests();
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            let has_ended = self.supervisor.as_ref().is_some_and(Process::has_ended);
            if has_ended {
                self.supervisor_ended();
            }
            if stage.signals.stop().is_some() {
                match &self.supervisor {
                    Some(supervisor) if !has_passed_on => {
                        supervisor.signal(Signal::TERM);
                        has_passed_on = true;
                    }
                    Some(_) => {}
                    // Nobody can end the stages in order; `rv-up stop` ends what is left.
                    None => break,
                }
            } else if stage.signals.take_hangup()
                && let Some(supervisor) = &self.supervisor
            {
                supervisor.signal(Signal::HUP);
            }
            if self.restart_at.is_some_and(|at| at <= Instant::now()) && !self.is_done {
                self.restart_at = None;
                if let Err(error) = self.start_supervisor() {
                    self.say(&format!("cannot start the supervisor: {error:#}"));
                    self.restart_at = Some(Instant::now() + self.waits.next_wait());
                }
            }
        }
        Ok(())
    }

    fn wait(&self, stage: &mut Stage) -> Result<()> {
        let mut streams = Vec::new();
        if let Some(channel) = &self.channel {
            streams.push((channel.readiness(), PollFlags::IN));
        }
        if let Some(supervisor) = &self.supervisor {
            streams.push((supervisor.readiness(), PollFlags::IN));
        }
        let reap_at = Instant::now() + REAP_EVERY;
        let until = self.restart_at.map_or(reap_at, |at| at.min(reap_at));
        crate::stage::wait::wait(&streams, &mut stage.signals, Some(until))?;
        Ok(())
    }

    /// Starts a supervisor with a new connection.
    fn start_supervisor(&mut self) -> Result<()> {
        let (own, other) = Channel::pair()?;
        let journal = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.run.path("logs/rv-up.log"))?;
        let child = Command::new(std::env::current_exe()?)
            .arg(format!("--file={}", self.run.file))
            .arg("supervise")
            .arg(format!("--dir={}", self.run.dir))
            .stdin(Stdio::from(other))
            .stdout(Stdio::null())
            .stderr(journal)
            // Ctrl-C in a terminal reaches the holder alone, which passes it on.
            .process_group(0)
            .spawn()
            .context("rv-up supervise")?;
        self.supervisor = Some(Process::open(Pid::from_child(&child))?);
        self.channel = Some(own);
        self.started = Instant::now();
        Ok(())
    }

    fn supervisor_ended(&mut self) {
        // The last message may have been "bye".
        self.answer_requests();
        self.supervisor = None;
        self.channel = None;
        if self.is_done {
            return;
        }
        if self.started.elapsed() > WELL_AFTER {
            self.waits.reset();
        }
        self.say("the supervisor has ended; starting it again");
        self.restart_at = Some(Instant::now() + self.waits.next_wait());
    }

    /// Answers the requests that have arrived.
    fn answer_requests(&mut self) {
        while let Some(channel) = &self.channel {
            let message = match channel.receive(Duration::ZERO) {
                Ok(Some(message)) => message,
                Ok(None) => {
                    self.channel = None;
                    // A supervisor that has died before it has named itself.
                    if self.supervisor.is_none() && !self.is_done {
                        self.restart_at = Some(Instant::now() + self.waits.next_wait());
                    }
                    return;
                }
                Err(_) => return,
            };
            let (text, fd) = match self.obey(message) {
                Ok((text, fd)) => (format!("ok {text}"), fd),
                Err(error) => (format!("error {error:#}"), None),
            };
            if let Some(channel) = &self.channel {
                // A supervisor that has died meanwhile needs no answer.
                let _ = channel.send(&text, fd.as_ref().map(OwnedFd::as_fd));
            }
        }
    }

    /// Does what the supervisor asks for. Returns the text of the answer and a descriptor.
    fn obey(&mut self, message: Message) -> Result<(String, Option<OwnedFd>)> {
        let (verb, rest) = message.text.split_once(' ').unwrap_or((&message.text, ""));
        let nothing = Ok((String::new(), None));
        match verb {
            "read" => self.hold(rest, End::Reading)?,
            "write" => self.hold(rest, End::Writing)?,
            "close-read" => drop(self.ends.remove(&(rest.to_owned(), End::Reading))),
            "close-write" => drop(self.ends.remove(&(rest.to_owned(), End::Writing))),
            "bind" => {
                let (name, address) = rest.split_once(' ').context("bind NAME ADDRESS")?;
                return self.bind(name, address);
            }
            "adopt" => {
                let socket = message.fd.context("no socket came with the message")?;
                self.sockets
                    .insert(rest.to_owned(), TcpListener::from(socket));
            }
            "supervisor" => {
                let pid = rest.parse().ok().and_then(Pid::from_raw);
                self.supervisor = Some(Process::open(pid.context("no process")?)?);
            }
            "bye" => {
                self.is_done = true;
                self.fault = Some(rest.to_owned()).filter(|fault| !fault.is_empty());
            }
            _ => bail!("the holder does not know {verb:?}"),
        }
        nothing
    }

    /// Holds one end of a pipe. A pipe that has another inode than the held one is a new
    /// pipe.
    fn hold(&mut self, path: &str, end: End) -> Result<()> {
        let key = (path.to_owned(), end);
        if let Some(held) = self.ends.get(&key) {
            let same = rustix::fs::fstat(held)?.st_ino == rustix::fs::stat(path)?.st_ino;
            if same {
                return Ok(());
            }
        }
        let fd = pipes::open(path, end).with_context(|| format!("{path}: cannot open"))?;
        self.ends.insert(key, fd);
        Ok(())
    }

    fn bind(&mut self, name: &str, address: &str) -> Result<(String, Option<OwnedFd>)> {
        if !self.sockets.contains_key(name) {
            let socket = bind(address)?;
            self.sockets.insert(name.to_owned(), socket);
        }
        let socket = &self.sockets[name];
        let own = socket.local_addr()?.to_string();
        Ok((own, Some(socket.try_clone()?.into())))
    }

    fn say(&self, message: &str) {
        if let Ok(mut log) = LogFile::open(&self.run.path("logs/rv-up.log")) {
            let _ = log.append(message);
        }
    }
}

/// Binds an address and listens. The error names the address.
pub fn bind(address: &str) -> Result<TcpListener> {
    let wrong = || format!("{address}: is no address; it has the form HOST:PORT");
    let mut resolved = address.to_socket_addrs().with_context(wrong)?;
    let resolved: SocketAddr = resolved.next().with_context(wrong)?;
    let listen = || -> std::io::Result<TcpListener> {
        let socket = TcpListener::bind(resolved)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    listen().with_context(|| format!("cannot listen at {address}"))
}
