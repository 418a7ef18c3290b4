//! Messages from a topic of Pulsar.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use futures_util::StreamExt;
use pulsar::consumer::{InitialPosition, Message};
use pulsar::message::proto::MessageIdData;
use pulsar::{Consumer, ConsumerOptions, SubType, TokioExecutor};
use tokio::runtime::Handle as Runtime;
use tokio::sync::Notify;

use crate::bridge::address::{FromAddress, Start};
use crate::bridge::broker::pulsar::{Client, Connection, Fault, Retry};
use crate::bridge::broker::{Handle, SourceInput};
use crate::bridge::inbox::{Event, Inbox};
use crate::bridge::ledger::Position;
use crate::stage::clock::{Ids, Random};

/// The most messages that the broker sends ahead.
const AHEAD_MAX: u32 = 1000;

/// The client sends acknowledgements in a task of its own. At the end it gets this long.
const FLUSH_TIME: Duration = Duration::from_millis(200);

type PulsarConsumer = Consumer<Vec<u8>, TokioExecutor>;

/// What the client needs to acknowledge a message.
#[derive(Clone, Debug)]
pub struct MessageHandle {
    topic: String,
    id: MessageIdData,
}

/// The consumer of one input.
#[derive(Debug)]
pub struct PulsarSource {
    shared: Arc<Shared>,
    done: mpsc::Receiver<()>,
}

/// What the loop and the task share.
#[derive(Debug)]
struct Shared {
    connection: Arc<Connection>,
    inbox: Arc<Inbox>,
    from: SourceInput,
    /// Finished messages that the broker was not told about. At most one for each message
    /// that the bridge holds.
    finished: Mutex<Vec<MessageHandle>>,
    wake: Notify,
    is_ending: AtomicBool,
}

impl PulsarSource {
    /// Starts to consume.
    pub fn start(
        runtime: &Runtime,
        connection: Arc<Connection>,
        inbox: Arc<Inbox>,
        from: SourceInput,
    ) -> PulsarSource {
        let shared = Arc::new(Shared {
            connection,
            inbox,
            from,
            finished: Mutex::default(),
            wake: Notify::new(),
            is_ending: AtomicBool::new(false),
        });
        let (done, is_done) = mpsc::channel();
        let task = Arc::clone(&shared);
        runtime.spawn(async move {
            task.consume().await;
            let _ = done.send(());
        });
        PulsarSource {
            shared,
            done: is_done,
        }
    }

    /// The index of the input.
    pub fn input(&self) -> usize {
        self.shared.from.input
    }

    /// Acknowledges messages.
    pub fn acknowledge(&self, handles: Vec<Handle>) {
        let handles = handles.into_iter().filter_map(|handle| match handle {
            Handle::Pulsar(handle) => Some(*handle),
            #[allow(unreachable_patterns, reason = "the other clients may not be built")]
            _ => None,
        });
        let finished = self.shared.finished.lock();
        finished
            .unwrap_or_else(PoisonError::into_inner)
            .extend(handles);
        self.shared.wake.notify_one();
    }

    /// Sends what waits to be sent, and ends. Waits at most `time`.
    pub fn close(&self, time: Duration) -> bool {
        self.shared.is_ending.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        self.done.recv_timeout(time).is_ok()
    }
}

impl Shared {
    /// Delivers messages until the end.
    async fn consume(&self) {
        let name = self.from.address.to_string();
        let mut retry = Retry::new(Arc::clone(&self.inbox), name);
        while !self.is_ending.load(Ordering::Acquire) {
            let Some(client) = self.connection.client().await else {
                return;
            };
            let mut consumer = match self.subscribe(&client).await {
                Ok(consumer) => consumer,
                Err(fault) => match retry.again(fault).await {
                    true => continue,
                    false => return,
                },
            };
            retry.worked();
            let input = self.from.input;
            self.inbox.send(Event::Assigned { input });
            if let Err(fault) = self.deliver(&mut consumer, &mut retry).await {
                // The new consumer gets everything again that is not acknowledged.
                retry.again(fault).await;
            }
        }
    }

    /// Delivers messages and acknowledges them, until the consumer fails or the bridge
    /// ends.
    async fn deliver(&self, consumer: &mut PulsarConsumer, retry: &mut Retry) -> Result<(), Fault> {
        loop {
            let finished = self.finished.lock();
            let finished = std::mem::take(&mut *finished.unwrap_or_else(PoisonError::into_inner));
            if finished.is_empty() && self.is_ending.load(Ordering::Acquire) {
                tokio::time::sleep(FLUSH_TIME).await;
                // The consumer ends with its connection in any case.
                let _ = consumer.close().await;
                return Ok(());
            }
            for handle in finished {
                // A lost acknowledgement makes the broker deliver the message again, and
                // the ledger knows the message.
                let _ = consumer.ack_with_id(&handle.topic, handle.id).await;
            }
            let has_room = self.from.gate.room().is_some();
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.from.gate.opened(), if !has_room => {}
                message = consumer.next(), if has_room => match message {
                    Some(Ok(message)) => {
                        retry.worked();
                        self.send(message);
                    }
                    Some(Err(error)) => {
                        if !retry.again(Fault::of(&error)).await {
                            return Ok(());
                        }
                    }
                    None => {
                        return Err(Fault {
                            message: "the consumer has ended".to_owned(),
                            is_final: false,
                        });
                    }
                }
            }
        }
    }

    fn send(&self, message: Message<Vec<u8>>) {
        let id = message.message_id.id;
        let batch = message.message_id.batch_size.unwrap_or(1).max(1);
        let position = Position {
            topic: 0,
            partition: id.partition.unwrap_or(-1),
            epoch: id.ledger_id,
            sequence: id.entry_id,
            index: u32::try_from(id.batch_index.unwrap_or(0)).unwrap_or(0),
        };
        let handle = MessageHandle {
            topic: message.topic,
            id,
        };
        let payload = message.payload.data;
        self.from.gate.consumed(payload.len());
        self.inbox.send(Event::Message {
            input: self.from.input,
            position,
            handle: Handle::Pulsar(Box::new(handle)),
            payload,
            is_repeat: false,
            batch: batch.unsigned_abs(),
        });
    }

    async fn subscribe(&self, client: &Client) -> Result<PulsarConsumer, Fault> {
        let address = &self.from.address;
        let group = address.group.clone().unwrap_or_else(|| {
            let own = Ids::Uuid(Random::default()).next_id();
            format!("rv-bridge-{own}")
        });
        let kind = match (&address.partitions, &address.group) {
            // Named partitions are claimed: a second consumer is refused.
            (Some(_), _) | (_, None) => SubType::Exclusive,
            (None, Some(_)) => SubType::Shared,
        };
        let consumer = client
            .consumer()
            .with_topics(topics(address))
            .with_subscription(group)
            .with_subscription_type(kind)
            .with_batch_size(AHEAD_MAX)
            .with_options(ConsumerOptions {
                durable: Some(address.group.is_some()),
                receiver_queue_size: Some(AHEAD_MAX),
                initial_position: match address.start {
                    Start::Earliest => InitialPosition::Earliest,
                    Start::Latest => InitialPosition::Latest,
                },
                ..ConsumerOptions::default()
            });
        consumer.build().await.map_err(|error| Fault::of(&error))
    }
}

/// The topics of an address: the topic itself, or those of its partitions.
pub fn topics(address: &FromAddress) -> Vec<String> {
    let topic = format!("persistent://{}", address.topic);
    match &address.partitions {
        None => vec![topic],
        Some(partitions) => partitions
            .clone()
            .map(|number| format!("{topic}-partition-{number}"))
            .collect(),
    }
}
