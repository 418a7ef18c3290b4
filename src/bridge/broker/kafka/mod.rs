//! Apache Kafka.

pub mod check;
pub mod sink;
pub mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::bridge::address::{Cluster, Sasl, Security, read_secret};
use crate::bridge::inbox::{Event, Inbox};

/// What the callbacks of a client tell the loop.
#[derive(Debug)]
pub struct Reporter {
    name: String,
    inbox: Arc<Inbox>,
    /// Whether the last news was bad.
    is_troubled: AtomicBool,
}

impl Reporter {
    /// A reporter for the client of a cluster.
    pub fn new(cluster: &Cluster, inbox: Arc<Inbox>) -> Reporter {
        Reporter {
            name: format!("kafka://{}", cluster.servers.join(",")),
            inbox,
            is_troubled: AtomicBool::new(false),
        }
    }

    /// Sends an event.
    pub fn send(&self, event: Event) {
        self.inbox.send(event);
    }

    /// Reports a fault of the client.
    pub fn fault(&self, error: &KafkaError, reason: &str) {
        let message = format!("{}: {reason}", self.name);
        if is_final(error) {
            self.inbox.send(Event::Failed(message));
        } else {
            self.is_troubled.store(true, Ordering::Relaxed);
            self.inbox.send(Event::Trouble(message));
        }
    }

    /// Something has worked.
    pub fn worked(&self) {
        if self.is_troubled.swap(false, Ordering::Relaxed) {
            let message = format!("{}: connected again", self.name);
            self.inbox.send(Event::Recovered(message));
        }
    }
}

/// Whether it is of no use to try again.
fn is_final(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::Fatal
        )
    )
}

/// Whether the topic or the partition does not exist.
fn is_missing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

/// The settings of every client of a cluster.
pub fn settings(cluster: &Cluster) -> Result<ClientConfig, String> {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", cluster.servers.join(","))
        .set("client.id", "rv-bridge")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "5000")
        .set("socket.keepalive.enable", "true");
    secure(&mut settings, &cluster.security)?;
    Ok(settings)
}

fn secure(settings: &mut ClientConfig, security: &Security) -> Result<(), String> {
    let needs_openssl = security.tls || security.sasl.is_some_and(|sasl| sasl != Sasl::Plain);
    if needs_openssl && !cfg!(feature = "kafka-tls") {
        return Err(
            "this rv-bridge is built without TLS and SCRAM for Kafka; build it with \
             `cargo install --features brokers,kafka-tls`, which needs the headers of OpenSSL"
                .to_owned(),
        );
    }
    let protocol = match (security.tls, &security.login) {
        (false, None) => "plaintext",
        (false, Some(_)) => "sasl_plaintext",
        (true, None) => "ssl",
        (true, Some(_)) => "sasl_ssl",
    };
    settings.set("security.protocol", protocol);
    if let Some(ca) = &security.ca {
        settings.set("ssl.ca.location", ca);
    }
    if let Some((cert, key)) = &security.client {
        settings.set("ssl.certificate.location", cert);
        settings.set("ssl.key.location", key);
    }
    if let (Some(sasl), Some((user, file))) = (security.sasl, &security.login) {
        settings.set("sasl.mechanism", sasl.mechanism());
        settings.set("sasl.username", user);
        settings.set("sasl.password", read_secret(file)?);
    }
    Ok(())
}
