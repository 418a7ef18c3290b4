//! Records to a stream of NATS.

use std::future::IntoFuture;
use std::sync::Arc;

use async_nats::jetstream::{self, context};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;

use crate::bridge::address::ToAddress;
use crate::bridge::broker::Outgoing;
use crate::bridge::broker::nats::{
    Connection, Fault, REQUEST_TIME, RETRY_MAX, RETRY_MIN, get_stream,
};
use crate::bridge::inbox::{Event, Inbox};
use crate::stage::backoff::Backoff;

/// The most records that wait for the server at once. With many more, the server's
/// answers come too late.
const UNCONFIRMED_MAX: usize = 1000;

/// The producer of one output.
#[derive(Debug)]
pub struct NatsSink {
    records: mpsc::Sender<Outgoing>,
}

impl NatsSink {
    /// Starts the producer. At most `records_max` records may be on their way.
    pub fn start(
        runtime: &Runtime,
        connection: Arc<Connection>,
        inbox: Arc<Inbox>,
        to: ToAddress,
        records_max: usize,
    ) -> NatsSink {
        let (sender, records) = mpsc::channel(records_max);
        let producer = Producer {
            connection,
            inbox,
            to,
        };
        runtime.spawn(producer.run(records));
        NatsSink { records: sender }
    }

    /// Hands a record over; returns the record if there is no room.
    pub fn publish(&self, record: Outgoing) -> Result<(), Outgoing> {
        self.records
            .try_send(record)
            .map_err(mpsc::error::TrySendError::into_inner)
    }
}

struct Producer {
    connection: Arc<Connection>,
    inbox: Arc<Inbox>,
    to: ToAddress,
}

impl Producer {
    async fn run(self, mut records: mpsc::Receiver<Outgoing>) {
        let Some(context) = self.ready().await else {
            return;
        };
        let mut unconfirmed = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !unconfirmed.is_empty() {
            tokio::select! {
                record = records.recv(), if is_open && unconfirmed.len() < UNCONFIRMED_MAX => {
                    match record {
                        Some(record) => unconfirmed.push(self.store(&context, record)),
                        None => is_open = false,
                    }
                }
                Some(event) = unconfirmed.next(), if !unconfirmed.is_empty() => {
                    self.inbox.send(event);
                }
            }
        }
    }

    /// Publishes a record until it is stored, or refused for good.
    async fn store(&self, context: &jetstream::Context, record: Outgoing) -> Event {
        let mut backoff: Option<Backoff> = None;
        loop {
            let fault = match publish(context, &record).await {
                Ok(()) => return Event::Published(record.key),
                Err(fault) if fault.is_final => {
                    return Event::Refused {
                        key: record.key,
                        payload: record.payload,
                        reason: fault.message,
                    };
                }
                Err(fault) => fault,
            };
            let message = format!("{}: {}", self.to, fault.message);
            self.inbox.send(Event::Trouble(message));
            let backoff = backoff.get_or_insert_with(|| Backoff::new(RETRY_MIN, RETRY_MAX));
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// Connects, and checks that the stream takes the subject.
    async fn ready(&self) -> Option<jetstream::Context> {
        let client = self.connection.client().await?;
        let context = context::ContextBuilder::new()
            .ack_timeout(REQUEST_TIME)
            .timeout(REQUEST_TIME)
            .max_ack_inflight(UNCONFIRMED_MAX * 2)
            .build(client);
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            let fault = match check_subject(&context, &self.to).await {
                Ok(()) => return Some(context),
                Err(fault) => fault,
            };
            let message = format!("{}: {}", self.to, fault.message);
            if fault.is_final {
                self.inbox.send(Event::Failed(message));
                return None;
            }
            self.inbox.send(Event::Trouble(message));
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }
}

/// Checks that the stream of an address exists and takes its subject.
pub async fn check_subject(context: &jetstream::Context, to: &ToAddress) -> Result<(), Fault> {
    let name = to.stream.as_deref().unwrap_or_default();
    get_stream(context, name).await?;
    if to.topic.has_fields() {
        return Ok(());
    }
    let subject = to.topic.to_string();
    match context.stream_by_subject(subject.as_str()).await {
        Ok(found) if found == name => Ok(()),
        Ok(found) => Err(Fault::last(format!(
            "the subject {subject} belongs to the stream {found}, not to {name}"
        ))),
        Err(error) if error.kind() == context::GetStreamByNameErrorKind::NotFound => {
            Err(Fault::last(format!(
                "the stream {name} does not take the subject {subject}; add it with `nats stream \
                 edit {name} --subjects`"
            )))
        }
        Err(error) => Err(Fault {
            message: format!("cannot find the stream of {subject}: {error}"),
            is_final: false,
        }),
    }
}

/// Publishes a record once, and waits until it is stored.
async fn publish(context: &jetstream::Context, record: &Outgoing) -> Result<(), Fault> {
    let payload = record.payload.clone().into();
    let sent = context.publish(record.topic.clone(), payload).await;
    let stored = match sent {
        Ok(confirmation) => confirmation.into_future().await.map(drop),
        Err(error) => Err(error),
    };
    stored.map_err(|error| Fault {
        is_final: error.kind() == context::PublishErrorKind::MaxPayloadExceeded,
        message: format!("cannot publish to {}: {error}", record.topic),
    })
}
