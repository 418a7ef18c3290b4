//! Apache Pulsar.

pub mod check;
pub mod sink;
pub mod source;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pulsar::error::{ConnectionError, ConsumerError, ProducerError, ServiceDiscoveryError};
use pulsar::message::proto::ServerError;
use pulsar::{
    Authentication, ConnectionRetryOptions, Error, OperationRetryOptions, Pulsar, TokioExecutor,
};
use tokio::sync::Mutex;

use crate::bridge::address::{Cluster, read_secret};
use crate::bridge::inbox::{Event, Inbox};
use crate::stage::backoff::Backoff;

/// The waits between two attempts.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The limit of one question to a broker.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// The client of Pulsar.
pub type Client = Pulsar<TokioExecutor>;

/// A client that all inputs and outputs of one cluster share.
pub struct Connection {
    cluster: Cluster,
    inbox: Arc<Inbox>,
    client: Mutex<Option<Client>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str(&self.name())
    }
}

impl Connection {
    /// A connection that is made when it is first used.
    pub fn new(cluster: Cluster, inbox: Arc<Inbox>) -> Connection {
        Connection {
            cluster,
            inbox,
            client: Mutex::new(None),
        }
    }

    /// The client. Tries until a broker answers. `None` if none will ever answer; the loop
    /// was told why.
    pub async fn client(&self) -> Option<Client> {
        let mut client = self.client.lock().await;
        if client.is_none() {
            *client = self.connect().await;
        }
        client.clone()
    }

    async fn connect(&self) -> Option<Client> {
        let mut retry = Retry::new(Arc::clone(&self.inbox), self.name());
        for server in self.cluster.servers.iter().cycle() {
            match self.connect_once(server).await {
                Ok(client) => return Some(client),
                Err(fault) => {
                    if !retry.again(fault).await {
                        break;
                    }
                }
            }
        }
        None
    }

    /// Tries once to connect to one server.
    pub async fn connect_once(&self, server: &str) -> Result<Client, Fault> {
        let security = &self.cluster.security;
        let scheme = if security.tls { "pulsar+ssl" } else { "pulsar" };
        let mut builder = Pulsar::builder(format!("{scheme}://{server}"), TokioExecutor)
            .with_connection_retry_options(ConnectionRetryOptions {
                min_backoff: RETRY_MIN,
                max_backoff: RETRY_MAX,
                max_retries: 2,
                connection_timeout: REQUEST_TIME,
                keep_alive: Duration::from_secs(20),
                ..ConnectionRetryOptions::default()
            })
            .with_operation_retry_options(OperationRetryOptions {
                operation_timeout: REQUEST_TIME,
                retry_delay: Duration::from_millis(500),
                max_retries: Some(10),
            });
        if let Some(ca) = &security.ca {
            builder = builder
                .with_certificate_chain_file(PathBuf::from(ca))
                .map_err(|error| Fault::last(format!("{ca}: {error}")))?;
        }
        if let Some(file) = &security.token_file {
            builder = builder.with_auth(Authentication {
                name: "token".to_owned(),
                data: read_secret(file).map_err(Fault::last)?.into_bytes(),
            });
        }
        builder.build().await.map_err(|error| Fault::of(&error))
    }

    /// The servers, for messages.
    pub fn name(&self) -> String {
        format!("pulsar://{}", self.cluster.servers.join(","))
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
    /// It is of no use to try again.
    pub fn last(message: String) -> Fault {
        Fault {
            message,
            is_final: true,
        }
    }

    /// The fault of the client.
    pub fn of(error: &Error) -> Fault {
        let connection = match error {
            Error::Connection(error)
            | Error::Consumer(ConsumerError::Connection(error))
            | Error::Producer(ProducerError::Connection(error))
            | Error::ServiceDiscovery(ServiceDiscoveryError::Connection(error)) => Some(error),
            _ => None,
        };
        let said = match (connection, error) {
            (Some(ConnectionError::PulsarError(said, _)), _)
            | (_, Error::ServiceDiscovery(ServiceDiscoveryError::Query(said, _))) => *said,
            _ => None,
        };
        let is_refused = matches!(
            said,
            Some(
                ServerError::AuthenticationError
                    | ServerError::AuthorizationError
                    | ServerError::TopicNotFound
                    | ServerError::InvalidTopicName
                    | ServerError::IncompatibleSchema
                    | ServerError::NotAllowedError
            )
        );
        Fault {
            message: error.to_string(),
            is_final: is_refused || matches!(connection, Some(ConnectionError::Authentication(_))),
        }
    }
}

/// Attempts with waits between them, which the loop is told about.
pub struct Retry {
    inbox: Arc<Inbox>,
    name: String,
    backoff: Backoff,
    is_troubled: bool,
}

impl Retry {
    /// Attempts under a name for messages.
    pub fn new(inbox: Arc<Inbox>, name: String) -> Retry {
        Retry {
            inbox,
            name,
            backoff: Backoff::new(RETRY_MIN, RETRY_MAX),
            is_troubled: false,
        }
    }

    /// Reports a fault.
    pub fn report(&mut self, fault: &Fault) {
        let message = format!("{}: {}", self.name, fault.message);
        self.is_troubled = true;
        self.inbox.send(match fault.is_final {
            true => Event::Failed(message),
            false => Event::Trouble(message),
        });
    }

    /// Reports a fault. Returns whether to try again, after a wait.
    pub async fn again(&mut self, fault: Fault) -> bool {
        self.report(&fault);
        if fault.is_final {
            return false;
        }
        tokio::time::sleep(self.backoff.next_wait()).await;
        true
    }

    /// Something has worked.
    pub fn worked(&mut self) {
        if std::mem::take(&mut self.is_troubled) {
            self.backoff.reset();
            let message = format!("{}: connected again", self.name);
            self.inbox.send(Event::Recovered(message));
        }
    }
}
