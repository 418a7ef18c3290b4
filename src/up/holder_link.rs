//! The supervisor's side of the connection to the holder.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use rustix::process::Signal;

use crate::up::channel::{Channel, Message};
use crate::up::holder::HOLDER;
use crate::up::pipes::End;
use crate::up::process;
use crate::up::run_folder::RunFolder;

/// How long the holder may take to answer. It never waits itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connection to the holder, and everything that the next holder needs.
#[derive(Debug)]
pub struct HolderLink {
    run: RunFolder,
    channel: Channel,
    ends: BTreeSet<(String, End)>,
    sockets: BTreeMap<String, TcpListener>,
    /// The holder, if this supervisor has started it.
    child: Option<Child>,
}

impl HolderLink {
    /// The connection that the supervisor has got as its standard input.
    pub fn of_stdin(run: &RunFolder) -> Result<HolderLink> {
        Ok(HolderLink {
            run: run.clone(),
            channel: Channel::of_stdin()?,
            ends: BTreeSet::new(),
            sockets: BTreeMap::new(),
            child: None,
        })
    }

    /// A descriptor that is readable if the holder has died.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.channel.readiness()
    }

    /// Holds one end of a pipe.
    pub fn hold(&mut self, path: &str, end: End) -> Result<()> {
        self.ends.insert((path.to_owned(), end));
        let verb = match end {
            End::Reading => "read",
            End::Writing => "write",
        };
        self.ask_surely(&format!("{verb} {path}")).map(drop)
    }

    /// Closes one end of a pipe. If the holder has died, the next one does not open it.
    pub fn close(&mut self, path: &str, end: End) {
        self.ends.remove(&(path.to_owned(), end));
        let verb = match end {
            End::Reading => "close-read",
            End::Writing => "close-write",
        };
        let _ = self.ask(&format!("{verb} {path}"));
    }

    /// The listening socket with this name, and its address. It is bound when it is first
    /// asked for.
    pub fn socket(&mut self, name: &str, address: &str) -> Result<(TcpListener, String)> {
        let answer = self.ask_surely(&format!("bind {name} {address}"))?;
        let socket = answer.fd.context("the holder has sent no socket")?;
        let socket = TcpListener::from(socket);
        self.sockets.insert(name.to_owned(), socket.try_clone()?);
        Ok((socket, answer.text))
    }

    /// Tells the holder that all stages have ended, and why the start has failed, if it
    /// has.
    pub fn bye(&self, fault: Option<&str>) {
        // A message has a limited length.
        let fault: String = fault.unwrap_or_default().chars().take(1000).collect();
        let _ = self.ask(format!("bye {fault}").trim_end());
    }

    /// Starts a new holder, after the old one has died, and gives it everything that the
    /// old one held.
    pub fn start_holder(&mut self) -> Result<()> {
        // A holder that hangs is no holder.
        if let Some(old) = process::noted(&process::file(&self.run.dir, HOLDER)) {
            old.signal(Signal::KILL);
        }
        if let Some(mut old) = self.child.take() {
            let _ = old.wait();
        }
        let (own, other) = Channel::pair()?;
        let journal = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.run.path("logs/rv-up.log"))?;
        let child = Command::new(std::env::current_exe()?)
            .arg(format!("--file={}", self.run.file))
            .args(["hold", "--adopt"])
            .arg(format!("--dir={}", self.run.dir))
            .stdin(Stdio::from(other))
            .stdout(Stdio::null())
            .stderr(journal)
            .spawn()
            .context("rv-up hold")?;
        self.child = Some(child);
        self.channel = own;
        for (name, socket) in &self.sockets {
            let verb = format!("adopt {name}");
            answer(&self.channel, &verb, Some(socket.as_fd()))?;
        }
        self.ask(&format!("supervisor {}", std::process::id()))?;
        for (path, end) in &self.ends {
            let verb = match end {
                End::Reading => "read",
                End::Writing => "write",
            };
            self.ask(&format!("{verb} {path}"))?;
        }
        Ok(())
    }

    /// Like [`ask`](Self::ask). If the holder has died, starts the next one and asks it.
    fn ask_surely(&mut self, text: &str) -> Result<Message> {
        match self.ask(text) {
            Err(error) if error.downcast_ref::<HolderEnded>().is_some() => {
                self.start_holder()?;
                self.ask(text)
            }
            answer => answer,
        }
    }

    fn ask(&self, text: &str) -> Result<Message> {
        answer(&self.channel, text, None)
    }
}

/// The holder has ended, or does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the holder has ended")]
struct HolderEnded;

/// Sends a request and waits for the answer.
fn answer(channel: &Channel, text: &str, fd: Option<BorrowedFd<'_>>) -> Result<Message> {
    if channel.send(text, fd).is_err() {
        return Err(HolderEnded.into());
    }
    let Ok(Some(message)) = channel.receive(PATIENCE) else {
        return Err(HolderEnded.into());
    };
    match message.text.split_once(' ') {
        Some(("ok", rest)) => Ok(Message {
            text: rest.to_owned(),
            fd: message.fd,
        }),
        Some((_, fault)) => bail!("{fault}"),
        None => bail!("the holder has sent {:?}", message.text),
    }
}
