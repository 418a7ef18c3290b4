//! The connection between the commands and the supervisor: a socket in the run folder.
//!
//! A command sends one line of JSON and gets one line back. The folder is for its owner
//! alone, so nobody else can connect.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crossbeam_channel::{Sender, bounded};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::up::report::Report;

/// The name of the socket in the run folder.
const SOCKET: &str = "control.sock";

/// The longest request, in bytes.
const REQUEST_BYTES_MAX: u64 = 256 << 10;

/// The largest number of connections at once.
const CONNECTIONS_MAX: usize = 32;

/// How long a connection may take to send its request.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);

/// How long a command waits for its answer. Commands run one after the other, and each of
/// them has a limit of its own.
const REPLY_PATIENCE: Duration = Duration::from_secs(600);

/// What a command asks for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Request {
    /// Wait until the start has succeeded or failed.
    Started,
    /// The state of everything.
    Status,
    /// Add a seat, given by its role, its name and the text of its table.
    Add {
        /// Whether the seat is a shadow.
        shadow: bool,
        /// The name of the seat.
        name: String,
        /// The text of its table in the file.
        section: String,
    },
    /// Remove a seat.
    Remove {
        /// The name of the seat.
        name: String,
    },
    /// Read the file and the policy again.
    Reload,
    /// End everything.
    Stop,
}

/// The answer to a command.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Reply {
    /// Whether the command has succeeded.
    pub ok: bool,
    /// Whether a failure is one of usage or configuration.
    pub usage: bool,
    /// What has happened.
    pub text: String,
    /// The state of everything, for `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

impl Reply {
    /// The answer to a command that has succeeded.
    pub fn done(text: impl Into<String>) -> Reply {
        Reply {
            ok: true,
            usage: false,
            text: text.into(),
            report: None,
        }
    }

    /// The answer to a command that has failed.
    pub fn failed(error: &anyhow::Error) -> Reply {
        Reply {
            ok: false,
            usage: error.downcast_ref::<crate::stage::EndedEarly>().is_some(),
            text: format!("{error:#}"),
            report: None,
        }
    }
}

/// A request, and where its answer goes.
#[derive(Debug)]
pub struct Call {
    /// The request.
    pub request: Request,
    /// Takes one answer.
    pub reply: Sender<Reply>,
}

/// The socket's address by a short path: an address has at most 108 bytes, and the run
/// folder may have a longer path.
fn short_path(dir: &str) -> io::Result<(OwnedFd, String)> {
    let folder = rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    Ok((folder, path))
}

/// Listens for commands. `handle` gets each of them, in a thread, and returns when it has
/// passed the call on. Returns the number of commands that are not answered yet.
pub fn serve<Handle>(dir: &str, handle: Handle) -> Result<Arc<AtomicUsize>>
where
    Handle: Fn(Call) + Send + Sync + 'static,
{
    let _ = fs::remove_file(format!("{dir}/{SOCKET}"));
    let cannot = || format!("{dir}/{SOCKET}: cannot listen for commands");
    let (_folder, path) = short_path(dir).with_context(cannot)?;
    let listener = UnixListener::bind(path).with_context(cannot)?;
    let handle = Arc::new(handle);
    let open = Arc::new(AtomicUsize::new(0));
    let unanswered = Arc::clone(&open);
    let accept = move || {
        for stream in listener.incoming().flatten() {
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (handle, open) = (Arc::clone(&handle), Arc::clone(&open));
            let answer = move || {
                // The client has gone if this fails.
                let _ = answer(&stream, &*handle);
                open.fetch_sub(1, Ordering::Relaxed);
            };
            // Without a thread, the client sees that the connection closes.
            let _ = thread::Builder::new()
                .name("command".to_owned())
                .spawn(answer);
        }
    };
    thread::Builder::new()
        .name("commands".to_owned())
        .spawn(accept)
        .context("cannot start a thread")?;
    Ok(unanswered)
}

fn answer(stream: &UnixStream, handle: &dyn Fn(Call)) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_PATIENCE))?;
    stream.set_write_timeout(Some(REQUEST_PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => {
            let (reply, answered) = bounded(1);
            handle(Call { request, reply });
            answered.recv().unwrap_or_else(|_| Reply {
                ok: false,
                usage: false,
                text: "the supervisor has ended".to_owned(),
                report: None,
            })
        }
        Err(error) => Reply {
            ok: false,
            usage: true,
            text: format!("is no request: {error}"),
            report: None,
        },
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    let mut stream = stream;
    stream.write_all(&text)
}

/// Sends a request and waits for the answer. Returns `None` if nobody listens.
pub fn ask(dir: &str, request: &Request) -> Result<Option<Reply>> {
    let Ok((_folder, path)) = short_path(dir) else {
        return Ok(None);
    };
    let Ok(stream) = UnixStream::connect(path) else {
        return Ok(None);
    };
    let patience = match request {
        Request::Status => REQUEST_PATIENCE,
        _ => REPLY_PATIENCE,
    };
    stream.set_read_timeout(Some(patience))?;
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    (&stream)
        .write_all(&text)
        .context("cannot ask the supervisor")?;
    let mut line = String::new();
    BufReader::new(&stream)
        .read_line(&mut line)
        .context("the supervisor does not answer")?;
    if line.is_empty() {
        bail!("the supervisor has ended; try again");
    }
    let reply = serde_json::from_str(&line);
    Ok(Some(reply.context("the supervisor has sent no answer")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gets_its_answer_also_in_a_folder_with_a_long_path() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("x".repeat(200));
        fs::create_dir(&dir).unwrap();
        let dir = dir.to_str().unwrap();
        assert!(ask(dir, &Request::Status).unwrap().is_none());
        serve(dir, |call: Call| {
            let text = format!("{:?}", call.request);
            let _ = call.reply.send(Reply::done(text));
        })
        .unwrap();
        let request = Request::Remove {
            name: "dt".to_owned(),
        };
        let reply = ask(dir, &request).unwrap().unwrap();
        assert!(reply.ok && reply.text.contains("\"dt\""), "{reply:?}");
    }

    #[test]
    fn nonsense_is_answered_too() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_str().unwrap();
        serve(dir, |_| {}).unwrap();
        let mut stream = UnixStream::connect(format!("{dir}/{SOCKET}")).unwrap();
        stream.write_all(b"nonsense\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("is no request"), "{text}");
    }
}
