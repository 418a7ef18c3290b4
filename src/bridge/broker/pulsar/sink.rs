//! Records to topics of Pulsar.
//!
//! Each record is a message of its own: a consumer that acknowledges one message of a
//! batch would acknowledge all of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use pulsar::producer::{Message, SendFuture};
use pulsar::{Producer, ProducerOptions, TokioExecutor};
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;

use crate::bridge::address::ToAddress;
use crate::bridge::broker::Outgoing;
use crate::bridge::broker::pulsar::{Client, Connection, Fault, Retry};
use crate::bridge::inbox::{Event, Inbox};

/// The most records that wait for the broker at once.
const UNCONFIRMED_MAX: usize = 1000;

/// The wait before records that have failed together are sent again.
const RESEND_AFTER: Duration = Duration::from_millis(200);

/// The most topics with an open producer. A producer takes 3 ms to open.
const PRODUCERS_MAX: usize = 64;

/// The largest record: the limit of a broker (5 MiB) without room for the metadata.
const RECORD_BYTES_MAX: usize = 5 * 1024 * 1024 - 10 * 1024;

/// The producer of one output.
#[derive(Debug)]
pub struct PulsarSink {
    records: mpsc::Sender<Outgoing>,
}

impl PulsarSink {
    /// Starts the producer. At most `records_max` records may be on their way.
    pub fn start(
        runtime: &Runtime,
        connection: Arc<Connection>,
        inbox: Arc<Inbox>,
        to: ToAddress,
        records_max: usize,
    ) -> PulsarSink {
        let (sender, records) = mpsc::channel(records_max);
        let producers = Producers {
            connection,
            retry: Retry::new(Arc::clone(&inbox), to.to_string()),
            inbox,
            open: VecDeque::new(),
        };
        runtime.spawn(producers.run(records));
        PulsarSink { records: sender }
    }

    /// Hands a record over; returns the record if there is no room.
    pub fn publish(&self, record: Outgoing) -> Result<(), Outgoing> {
        self.records
            .try_send(record)
            .map_err(mpsc::error::TrySendError::into_inner)
    }
}

struct Producers {
    connection: Arc<Connection>,
    inbox: Arc<Inbox>,
    retry: Retry,
    /// The producers of topics, the one that was used last at the end.
    open: VecDeque<(String, Producer<TokioExecutor>)>,
}

impl Producers {
    async fn run(mut self, mut records: mpsc::Receiver<Outgoing>) {
        let Some(client) = self.connection.client().await else {
            return;
        };
        let mut unconfirmed = FuturesUnordered::new();
        let mut failed: Vec<Outgoing> = Vec::new();
        let mut is_open = true;
        while is_open || !unconfirmed.is_empty() || !failed.is_empty() {
            let has_room = unconfirmed.len() < UNCONFIRMED_MAX && failed.is_empty();
            let mut to_send = Vec::new();
            tokio::select! {
                record = records.recv(), if is_open && has_room => match record {
                    Some(record) => to_send.push(record),
                    None => is_open = false,
                },
                Some((record, outcome)) = unconfirmed.next(), if !unconfirmed.is_empty() => {
                    if let Some(record) = self.take_outcome(record, outcome) {
                        failed.push(record);
                    }
                }
                // The others on the same connection fail in the same moment.
                () = tokio::time::sleep(RESEND_AFTER), if !failed.is_empty() => {
                    to_send = std::mem::take(&mut failed);
                }
            }
            for record in to_send {
                match self.send(&client, record).await {
                    Ok(Some(sent)) => unconfirmed.push(confirmed(sent)),
                    Ok(None) => {}
                    Err(()) => return,
                }
            }
        }
    }

    /// Tells the loop that a record is stored; or returns it to be sent again.
    fn take_outcome(&mut self, record: Outgoing, outcome: Result<(), Fault>) -> Option<Outgoing> {
        match outcome {
            Ok(()) => {
                self.retry.worked();
                self.inbox.send(Event::Published(record.key));
                None
            }
            Err(fault) => {
                // The producer may be of a connection that is gone.
                let topic = full_topic(&record);
                self.open.retain(|(it, _)| *it != topic);
                self.retry.report(&fault);
                Some(record)
            }
        }
    }

    /// Hands a record to the producer of its topic. Tries until a broker takes it. The
    /// error says that none ever will; the loop was told why.
    async fn send(&mut self, client: &Client, record: Outgoing) -> Result<Option<Sent>, ()> {
        if record.payload.len() > RECORD_BYTES_MAX {
            self.inbox.send(Event::Refused {
                key: record.key,
                payload: record.payload,
                reason: format!("longer than {RECORD_BYTES_MAX} bytes"),
            });
            return Ok(None);
        }
        loop {
            let fault = match self.send_once(client, &record).await {
                Ok(future) => return Ok(Some((record, future))),
                Err(fault) => fault,
            };
            let topic = full_topic(&record);
            self.open.retain(|(it, _)| *it != topic);
            if !self.retry.again(fault).await {
                return Err(());
            }
        }
    }

    async fn send_once(&mut self, client: &Client, record: &Outgoing) -> Result<SendFuture, Fault> {
        let message = Message {
            payload: record.payload.clone(),
            partition_key: record.id.as_deref().map(str::to_owned),
            ..Message::default()
        };
        let producer = self.producer(client, full_topic(record)).await?;
        let sent = producer.send_non_blocking(message).await;
        sent.map_err(|error| Fault::of(&error))
    }

    /// The producer of a topic, which is opened if it is not open.
    async fn producer(
        &mut self,
        client: &Client,
        topic: String,
    ) -> Result<&mut Producer<TokioExecutor>, Fault> {
        let known = self.open.iter().position(|(it, _)| *it == topic);
        let entry = match known.and_then(|at| self.open.remove(at)) {
            Some(entry) => entry,
            None => {
                let builder = client.producer().with_topic(&topic);
                let options = ProducerOptions {
                    block_queue_if_full: true,
                    ..ProducerOptions::default()
                };
                let producer = builder.with_options(options).build().await;
                (topic, producer.map_err(|error| Fault::of(&error))?)
            }
        };
        if self.open.len() >= PRODUCERS_MAX {
            self.open.pop_front();
        }
        self.open.push_back(entry);
        let (_, producer) = self.open.back_mut().expect("was just added");
        Ok(producer)
    }
}

/// A record that was handed to a producer.
type Sent = (Outgoing, SendFuture);

/// Waits until a record is stored.
async fn confirmed((record, future): Sent) -> (Outgoing, Result<(), Fault>) {
    let outcome = future.await.map(drop);
    (record, outcome.map_err(|error| Fault::of(&error)))
}

/// The topic of a record, with its partition.
fn full_topic(record: &Outgoing) -> String {
    match record.partition {
        Some(number) => format!("persistent://{}-partition-{number}", record.topic),
        None => format!("persistent://{}", record.topic),
    }
}
