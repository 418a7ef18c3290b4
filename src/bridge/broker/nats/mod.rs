//! NATS with JetStream.

pub mod check;
pub mod sink;
pub mod source;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::{self, ErrorCode, stream};
use async_nats::{Client, ConnectErrorKind, ConnectOptions};
use tokio::sync::OnceCell;

use crate::bridge::address::{Cluster, Security, read_secret};
use crate::bridge::inbox::{Event, Inbox};
use crate::stage::backoff::Backoff;

/// The waits between two attempts to connect.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The limit of one request to the server.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// A connection that all inputs and outputs of one cluster share.
#[derive(Debug)]
pub struct Connection {
    cluster: Cluster,
    inbox: Arc<Inbox>,
    client: OnceCell<Option<Client>>,
}

impl Connection {
    /// A connection that is made when it is first used.
    pub fn new(cluster: Cluster, inbox: Arc<Inbox>) -> Connection {
        Connection {
            cluster,
            inbox,
            client: OnceCell::new(),
        }
    }

    /// The client. Tries until the server answers. `None` if the server will never
    /// answer; the loop was told why.
    pub async fn client(&self) -> Option<Client> {
        self.client.get_or_init(|| self.connect()).await.clone()
    }

    async fn connect(&self) -> Option<Client> {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            let fault = match self.connect_once().await {
                Ok(client) => return Some(client),
                Err(fault) => fault,
            };
            let message = format!("{}: {}", self.name(), fault.message);
            if fault.is_final {
                self.inbox.send(Event::Failed(message));
                return None;
            }
            self.inbox.send(Event::Trouble(message));
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// Tries once to connect.
    pub async fn connect_once(&self) -> Result<Client, Fault> {
        let (inbox, name) = (Arc::clone(&self.inbox), self.name());
        let options = options(&self.cluster.security).map_err(Fault::last)?;
        let is_troubled = AtomicBool::new(false);
        let backoff = Mutex::new(Backoff::new(RETRY_MIN, RETRY_MAX));
        let options = options
            .reconnect_delay_callback(move |attempts| {
                let mut backoff = backoff.lock().unwrap_or_else(PoisonError::into_inner);
                if attempts <= 1 {
                    backoff.reset();
                }
                backoff.next_wait()
            })
            .event_callback(move |event| {
                let message = format!("{name}: {event}");
                if event != async_nats::Event::Connected {
                    is_troubled.store(true, Ordering::Relaxed);
                    inbox.send(Event::Trouble(message));
                } else if is_troubled.swap(false, Ordering::Relaxed) {
                    inbox.send(Event::Recovered(message));
                }
                std::future::ready(())
            });
        options
            .connect(&self.cluster.servers)
            .await
            .map_err(|error| {
                let is_final = matches!(
                    error.kind(),
                    ConnectErrorKind::Authentication
                        | ConnectErrorKind::AuthorizationViolation
                        | ConnectErrorKind::Tls
                        | ConnectErrorKind::ServerParse
                );
                Fault {
                    message: format!("cannot connect: {error}"),
                    is_final,
                }
            })
    }

    /// The servers, for messages.
    pub fn name(&self) -> String {
        format!("nats://{}", self.cluster.servers.join(","))
    }
}

/// Why something failed, and whether it is of no use to try again.
#[derive(Debug)]
pub struct Fault {
    /// The cause.
    pub message: String,
    /// Whether a second attempt would fail, too.
    pub is_final: bool,
}

impl Fault {
    fn last(message: String) -> Fault {
        Fault {
            message,
            is_final: true,
        }
    }
}

fn options(security: &Security) -> Result<ConnectOptions, String> {
    let mut options = ConnectOptions::new()
        .name("rv-bridge")
        .require_tls(security.tls)
        .connection_timeout(REQUEST_TIME)
        .max_reconnects(None);
    if let Some(ca) = &security.ca {
        options = options.add_root_certificates(PathBuf::from(ca));
    }
    if let Some((cert, key)) = &security.client {
        options = options.add_client_certificate(PathBuf::from(cert), PathBuf::from(key));
    }
    if let Some((user, file)) = &security.login {
        options = options.user_and_password(user.clone(), read_secret(file)?);
    }
    if let Some(file) = &security.token_file {
        options = options.token(read_secret(file)?);
    }
    if let Some(file) = &security.creds_file {
        let text = read_secret(file)?;
        options = options
            .credentials(&text)
            .map_err(|_| format!("{file}: holds no NATS credentials"))?;
    }
    Ok(options)
}

/// Gets a stream of the server.
pub async fn get_stream(context: &jetstream::Context, name: &str) -> Result<stream::Stream, Fault> {
    let found = context.get_stream(name).await;
    found.map_err(|error: GetStreamError| match error.kind() {
        GetStreamErrorKind::JetStream(fault)
            if fault.error_code() == ErrorCode::STREAM_NOT_FOUND =>
        {
            Fault::last(format!(
                "the stream {name} does not exist; make it with `nats stream add {name}`"
            ))
        }
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
            Fault::last(format!("{name:?} is not the name of a stream"))
        }
        _ => Fault {
            message: format!(
                "cannot find the stream {name}: {error}; does the server run with JetStream (-js)?"
            ),
            is_final: false,
        },
    })
}
