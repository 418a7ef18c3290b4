//! The HTTP calls. One thread makes all of them, so that many can be in flight.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use reqwest::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, Url, Version};
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::serve::score::server::args::ServerOptions;
use crate::stage::http::call_failure::{has_cause, is_bad_certificate, reason};
use crate::stage::http::certificates::{install_provider, trusted_only};

/// The longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The wait before a refused connection is tried again.
const REFUSED_WAIT: Duration = Duration::from_millis(50);

/// The longest part of a server error's body that is kept, in bytes.
const ERROR_BODY_MAX: usize = 4096;

/// Makes calls in a thread. The number of calls in flight is bounded by the caller.
#[derive(Debug)]
pub struct Calls {
    jobs: UnboundedSender<Job>,
    done: mpsc::Receiver<Done>,
    /// An eventfd that becomes readable after a call has ended.
    ended: Arc<OwnedFd>,
    authorization: Arc<Mutex<Option<HeaderValue>>>,
}

/// A call that is to be made.
#[derive(Debug)]
struct Job {
    id: u64,
    body: String,
    trace: HeaderMap,
}

/// A finished call.
#[derive(Debug)]
pub struct Done {
    /// The number that the caller gave the call.
    pub id: u64,
    /// The outcome.
    pub outcome: CallOutcome,
    /// Whether the call was made twice.
    pub was_repeated: bool,
}

/// The outcome of a call.
#[derive(Debug)]
pub enum CallOutcome {
    /// The server has replied.
    Reply {
        /// The HTTP status.
        status: u16,
        /// The body, or its beginning if the status is an error.
        body: Vec<u8>,
        /// Whether the body is only a beginning.
        is_cut: bool,
    },
    /// There is no connection to the server, for this reason.
    Unreachable(String),
    /// There is no complete reply, for this reason.
    Broken(String),
}

/// The state that all calls share.
#[derive(Debug)]
struct Caller {
    client: Client,
    /// A client that opens a connection for each call.
    fresh: Client,
    url: Url,
    timeout: Duration,
    reply_bytes_max: usize,
    authorization: Arc<Mutex<Option<HeaderValue>>>,
    /// The number of open connections without a call, as far as is known.
    idle: AtomicUsize,
}

impl Calls {
    /// Starts the thread. Does not connect yet.
    pub fn start(options: &ServerOptions, login: Option<HeaderValue>) -> Result<Calls> {
        install_provider();
        let authorization = Arc::new(Mutex::new(login));
        let caller = Caller {
            client: build(client(options)?.pool_max_idle_per_host(options.in_flight))?,
            fresh: build(client(options)?.pool_max_idle_per_host(0))?,
            url: options.url.clone(),
            timeout: options.timeout,
            reply_bytes_max: options.reply_bytes_max,
            authorization: Arc::clone(&authorization),
            idle: AtomicUsize::new(0),
        };
        let (jobs, queue) = unbounded_channel();
        let (sender, done) = mpsc::channel();
        let ended = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        let ended = Arc::new(ended.context("cannot make an eventfd")?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot prepare calls")?;
        let notify = Arc::clone(&ended);
        thread::Builder::new()
            .name("calling".to_owned())
            .spawn(move || runtime.block_on(run(Arc::new(caller), queue, sender, notify)))
            .context("cannot start a thread")?;
        Ok(Calls {
            jobs,
            done,
            ended,
            authorization,
        })
    }

    /// Starts a call. `trace` holds the headers of its trace.
    pub fn call(&self, id: u64, body: String, trace: HeaderMap) -> Result<()> {
        let sent = self.jobs.send(Job { id, body, trace });
        sent.map_err(|_| anyhow!("the thread that makes calls has ended"))
    }

    /// The next call that has ended; `None` if there is none.
    pub fn next_done(&self) -> Result<Option<Done>> {
        if let Ok(done) = self.done.try_recv() {
            return Ok(Some(done));
        }
        // A call may have ended just before the reset, so check again. A call that ends
        // after the reset makes the eventfd readable again.
        let _ = rustix::io::read(&*self.ended, &mut [0; 8]);
        match self.done.try_recv() {
            Ok(done) => Ok(Some(done)),
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => {
                Err(anyhow!("the thread that makes calls has ended"))
            }
        }
    }

    /// Becomes readable when a call ends.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Uses another login from the next call on.
    pub fn set_login(&self, login: Option<HeaderValue>) {
        *lock(&self.authorization) = login;
    }
}

fn lock(login: &Mutex<Option<HeaderValue>>) -> MutexGuard<'_, Option<HeaderValue>> {
    // A header is only ever replaced as a whole, so a panic in another thread cannot
    // have damaged it.
    login.lock().unwrap_or_else(PoisonError::into_inner)
}

fn client(options: &ServerOptions) -> Result<ClientBuilder> {
    let builder = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        // The time-out of the connection is shorter than the time-out of the call. So a
        // server that cannot be reached can be told from a slow server.
        .connect_timeout((options.timeout / 2).min(CONNECT_MAX));
    let any_tls = options.url.scheme() == "https";
    Ok(match trusted_only(options.ca_file.as_deref(), any_tls)? {
        Some(trusted) => builder.tls_certs_only(trusted),
        None => builder,
    })
}

fn build(builder: ClientBuilder) -> Result<Client> {
    builder.build().context(
        "cannot prepare calls; are the system's certificates installed? --ca-file names others",
    )
}

/// Makes the calls until the engine closes its end of the channel.
async fn run(
    caller: Arc<Caller>,
    mut queue: UnboundedReceiver<Job>,
    done: mpsc::Sender<Done>,
    ended: Arc<OwnedFd>,
) {
    while let Some(Job { id, body, trace }) = queue.recv().await {
        let (caller, done, ended) = (Arc::clone(&caller), done.clone(), Arc::clone(&ended));
        tokio::spawn(async move {
            let (outcome, was_repeated) = caller.call(body, trace).await;
            // The send fails only if the program is about to end.
            let _ = done.send(Done {
                id,
                outcome,
                was_repeated,
            });
            // The write fails only if the counter is full. The eventfd is then readable
            // already.
            let _ = rustix::io::write(&*ended, &1u64.to_ne_bytes());
        });
    }
}

/// The reason why an attempt has failed, and whether it may be repeated.
struct Failure {
    outcome: CallOutcome,
    remedy: Remedy,
}

enum Remedy {
    None,
    /// The call is repeated after a short wait.
    Wait,
    /// The call is repeated at once, on a new connection.
    Reconnect,
}

impl Caller {
    /// Makes a call within the time-out. The call is repeated once if the connection was
    /// refused, or if a connection that was kept for the next call turns out to be
    /// closed. A server closes such a connection when it has waited for a call long
    /// enough.
    async fn call(&self, body: String, trace: HeaderMap) -> (CallOutcome, bool) {
        let mut was_repeated = false;
        let both = async {
            let is_reused = self.take_idle();
            let first = self.attempt(&self.client, body.clone(), trace.clone(), is_reused);
            let failure = match first.await {
                Ok((outcome, is_kept)) => {
                    if is_kept {
                        self.idle.fetch_add(1, Ordering::Relaxed);
                    }
                    return outcome;
                }
                Err(failure) => failure,
            };
            match failure.remedy {
                Remedy::None => return failure.outcome,
                Remedy::Wait => tokio::time::sleep(REFUSED_WAIT).await,
                Remedy::Reconnect => {}
            }
            was_repeated = true;
            let second = self.attempt(&self.fresh, body, trace, false).await;
            second.map_or_else(|failure| failure.outcome, |(outcome, _)| outcome)
        };
        let outcome = tokio::time::timeout(self.timeout, both).await;
        let outcome = outcome.unwrap_or_else(|_| {
            let timeout = humantime::format_duration(self.timeout);
            CallOutcome::Broken(format!("the server has not answered within {timeout}"))
        });
        (outcome, was_repeated)
    }

    /// Makes a call once. Returns the outcome, and whether the connection is kept for the
    /// next call. `is_reused` says whether an earlier call has used the connection.
    async fn attempt(
        &self,
        client: &Client,
        body: String,
        trace: HeaderMap,
        is_reused: bool,
    ) -> Result<(CallOutcome, bool), Failure> {
        let mut call = client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .headers(trace)
            .body(body);
        let login = lock(&self.authorization).clone();
        if let Some(login) = login {
            call = call.header(AUTHORIZATION, login);
        }
        match call.send().await {
            Ok(reply) => {
                let may_be_kept = may_be_kept(&reply);
                let outcome = self.read(reply).await;
                let is_whole = matches!(outcome, CallOutcome::Reply { is_cut: false, .. });
                Ok((outcome, may_be_kept && is_whole))
            }
            Err(error) => {
                // The server has probably closed the other kept connections, too.
                self.idle.store(0, Ordering::Relaxed);
                Err(failure(error, is_reused))
            }
        }
    }

    /// Counts one kept connection as used. Returns whether the call gets a connection
    /// that an earlier call has used.
    fn take_idle(&self) -> bool {
        let taken = self
            .idle
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |idle| {
                idle.checked_sub(1)
            });
        taken.is_ok()
    }

    /// Reads the body of a reply within its bounds.
    async fn read(&self, mut reply: Response) -> CallOutcome {
        let status = reply.status();
        // The body of a refusal may be the answer to the client.
        let bytes_max = match status.is_success() || status.is_client_error() {
            true => self.reply_bytes_max,
            false => ERROR_BODY_MAX,
        };
        let mut body = Vec::new();
        loop {
            match reply.chunk().await {
                Ok(Some(chunk)) => {
                    let room = bytes_max - body.len();
                    body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                    if chunk.len() > room {
                        return CallOutcome::Reply {
                            status: status.as_u16(),
                            body,
                            is_cut: true,
                        };
                    }
                }
                Ok(None) => {
                    return CallOutcome::Reply {
                        status: status.as_u16(),
                        body,
                        is_cut: false,
                    };
                }
                Err(error) => {
                    return CallOutcome::Broken(format!("the reply broke off: {}", reason(error)));
                }
            }
        }
    }
}

/// Whether a server keeps the connection after this reply.
fn may_be_kept(reply: &Response) -> bool {
    let closes = reply.headers().get(CONNECTION);
    let closes = closes.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    reply.version() >= Version::HTTP_11 && !closes
}

/// Decides what an error before the head of a reply means.
fn failure(error: reqwest::Error, is_reused: bool) -> Failure {
    let is_refused = has_io_error(&error, &[std::io::ErrorKind::ConnectionRefused]);
    let is_untrusted = is_bad_certificate(&error);
    let is_connect = error.is_connect();
    let is_closed = !is_connect && was_closed(&error);
    let reason = reason(error);
    if is_connect {
        let hint = match is_untrusted {
            true => "; name the certificate of its authority with --ca-file",
            false => "",
        };
        return Failure {
            outcome: CallOutcome::Unreachable(format!("{reason}{hint}")),
            remedy: match is_refused {
                true => Remedy::Wait,
                false => Remedy::None,
            },
        };
    }
    Failure {
        outcome: CallOutcome::Broken(reason),
        remedy: match is_closed && is_reused {
            true => Remedy::Reconnect,
            false => Remedy::None,
        },
    }
}

/// Whether the error says that the server closed the connection before it replied.
fn was_closed(error: &reqwest::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let is_incomplete = has_cause(error, &|error| {
        let error = error.downcast_ref::<hyper::Error>();
        error.is_some_and(|error| {
            error.is_incomplete_message() || error.is_canceled() || error.is_closed()
        })
    });
    is_incomplete
        || has_io_error(
            error,
            &[
                BrokenPipe,
                ConnectionAborted,
                ConnectionReset,
                UnexpectedEof,
            ],
        )
}

fn has_io_error(error: &reqwest::Error, kinds: &[std::io::ErrorKind]) -> bool {
    has_cause(error, &|error| {
        let error = error.downcast_ref::<std::io::Error>();
        error.is_some_and(|error| kinds.contains(&error.kind()))
    })
}
