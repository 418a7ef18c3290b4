//! Messages from a stream of NATS.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::{Subject, jetstream};
use futures_util::StreamExt;
use tokio::runtime::Handle as Runtime;
use tokio::sync::Notify;

use crate::bridge::address::{FromAddress, Start};
use crate::bridge::broker::nats::{Connection, Fault, RETRY_MAX, RETRY_MIN, get_stream};
use crate::bridge::broker::{Handle, SourceInput};
use crate::bridge::inbox::{Event, Inbox};
use crate::bridge::ledger::Position;
use crate::stage::backoff::Backoff;

/// A message that is not acknowledged, nor kept alive, is delivered again after this
/// time.
pub const ACK_WAIT: Duration = Duration::from_secs(30);

/// One request for messages waits at most this long.
const BATCH_TIME: Duration = Duration::from_secs(5);

/// The most messages of one request.
const BATCH_RECORDS_MAX: usize = 1000;

/// A consumer without a group is removed by the server after this time.
const INACTIVE_TIME: Duration = Duration::from_secs(60);

/// The size that a message is expected to have before one has come.
const MESSAGE_BYTES_GUESS: usize = 4096;

/// The consumer of one input.
#[derive(Debug)]
pub struct NatsSource {
    shared: Arc<Shared>,
    done: mpsc::Receiver<()>,
}

/// What the loop and the tasks share.
#[derive(Debug)]
struct Shared {
    connection: Arc<Connection>,
    inbox: Arc<Inbox>,
    from: SourceInput,
    /// Replies that wait to be sent. At most three for each message that the bridge
    /// holds.
    replies: Mutex<Vec<(Subject, Reply)>>,
    wake: Notify,
    is_ending: AtomicBool,
}

/// What the server is told about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is finished.
    Finished,
    /// It is being worked on.
    InProgress,
    /// Another consumer should get it at once.
    Released,
}

impl Reply {
    fn payload(self) -> &'static [u8] {
        match self {
            Reply::Finished => b"+ACK",
            Reply::InProgress => b"+WPI",
            Reply::Released => b"-NAK",
        }
    }
}

impl NatsSource {
    /// Starts to consume.
    pub fn start(
        runtime: &Runtime,
        connection: Arc<Connection>,
        inbox: Arc<Inbox>,
        from: SourceInput,
    ) -> NatsSource {
        let shared = Arc::new(Shared {
            connection,
            inbox,
            from,
            replies: Mutex::default(),
            wake: Notify::new(),
            is_ending: AtomicBool::new(false),
        });
        let (done, is_done) = mpsc::channel();
        runtime.spawn(consume(Arc::clone(&shared)));
        runtime.spawn(reply(Arc::clone(&shared), done));
        NatsSource {
            shared,
            done: is_done,
        }
    }

    /// The index of the input.
    pub fn input(&self) -> usize {
        self.shared.from.input
    }

    /// Sends replies about messages.
    pub fn reply(&self, handles: impl IntoIterator<Item = Handle>, reply: Reply) {
        let subjects = handles.into_iter().filter_map(|handle| match handle {
            Handle::Nats(subject) => Some((subject, reply)),
            #[allow(unreachable_patterns, reason = "the other clients may not be built")]
            _ => None,
        });
        let replies = self.shared.replies.lock();
        let mut replies = replies.unwrap_or_else(PoisonError::into_inner);
        replies.extend(subjects);
        self.shared.wake.notify_one();
    }

    /// Sends what waits to be sent, and ends. Waits at most `time`.
    pub fn close(&self, time: Duration) -> bool {
        self.shared.is_ending.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        self.done.recv_timeout(time).is_ok()
    }
}

/// Sends replies.
async fn reply(shared: Arc<Shared>, done: mpsc::Sender<()>) {
    let Some(client) = shared.connection.client().await else {
        return;
    };
    loop {
        let is_ending = shared.is_ending.load(Ordering::Acquire);
        let replies = shared.replies.lock();
        let replies = std::mem::take(&mut *replies.unwrap_or_else(PoisonError::into_inner));
        if replies.is_empty() {
            if is_ending {
                break;
            }
            shared.wake.notified().await;
        }
        for (subject, reply) in replies {
            // A lost reply makes the server deliver the message again, and the ledger
            // knows the message.
            let _ = client.publish(subject, reply.payload().into()).await;
        }
    }
    let _ = client.flush().await;
    let _ = done.send(());
}

/// Delivers messages until the end of the process.
async fn consume(shared: Arc<Shared>) {
    let Some(client) = shared.connection.client().await else {
        return;
    };
    let context = jetstream::new(client);
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    let consumer = loop {
        match consumer(&context, &shared.from).await {
            Ok(consumer) => break consumer,
            Err(fault) => {
                if !shared.report(&mut backoff, fault).await {
                    return;
                }
            }
        }
    };
    let input = shared.from.input;
    shared.inbox.send(Event::Assigned { input });
    let mut message_bytes = MESSAGE_BYTES_GUESS;
    loop {
        let Some((records, bytes)) = shared.from.gate.room() else {
            shared.from.gate.opened().await;
            continue;
        };
        let records = records
            .min(bytes / message_bytes)
            .clamp(1, BATCH_RECORDS_MAX);
        match deliver_batch(&shared, &consumer, records, &mut message_bytes).await {
            Ok(()) => backoff.reset(),
            Err(message) => {
                let fault = Fault {
                    message,
                    is_final: false,
                };
                shared.report(&mut backoff, fault).await;
            }
        }
    }
}

impl Shared {
    /// Reports a fault. Returns whether to try again, after a wait.
    async fn report(&self, backoff: &mut Backoff, fault: Fault) -> bool {
        let message = format!("{}: {}", self.from.address, fault.message);
        if fault.is_final {
            self.inbox.send(Event::Failed(message));
            return false;
        }
        self.inbox.send(Event::Trouble(message));
        tokio::time::sleep(backoff.next_wait()).await;
        true
    }
}

/// Delivers up to `records` messages.
async fn deliver_batch(
    shared: &Shared,
    consumer: &PullConsumer,
    records: usize,
    message_bytes: &mut usize,
) -> Result<(), String> {
    let batch = consumer.batch().max_messages(records).expires(BATCH_TIME);
    let batch = batch.messages().await;
    let mut batch = batch.map_err(|error| format!("cannot ask for messages: {error}"))?;
    let input = shared.from.input;
    let mut lag = None;
    while let Some(message) = batch.next().await {
        let message = message.map_err(|error| format!("cannot get messages: {error}"))?;
        let info = message.info();
        let info = info.map_err(|error| format!("a message without its place: {error}"))?;
        let position = Position {
            sequence: info.stream_sequence,
            // The time tells a new stream of the same name apart.
            epoch: info.published.unix_timestamp_nanos() as u64,
            ..Position::default()
        };
        let is_repeat = info.delivered > 1;
        if info.pending == 0 {
            let messages = 0;
            shared.inbox.send(Event::Lag { input, messages });
        }
        lag = Some(info.pending);
        let message = message.message;
        let Some(subject) = message.reply else {
            continue;
        };
        *message_bytes = (*message_bytes).max(message.payload.len());
        shared.from.gate.consumed(message.payload.len());
        shared.inbox.send(Event::Message {
            input,
            position,
            handle: Handle::Nats(subject),
            payload: message.payload.to_vec(),
            is_repeat,
            batch: 1,
        });
    }
    if let Some(messages) = lag {
        shared.inbox.send(Event::Lag { input, messages });
    }
    Ok(())
}

/// The name of the consumer that a group shares. A consumer belongs to a stream and has one
/// subject, so the name has both the group and the subject.
pub fn durable_name(address: &FromAddress) -> Option<String> {
    let plain = |it: char| if it.is_ascii_alphanumeric() { it } else { '_' };
    let subject: String = address.topic.chars().map(plain).collect();
    let group = address.group.as_ref()?;
    Some(format!("{group}-{subject}"))
}

/// The consumer that the group shares, which is made if it is missing; or one of our own
/// without a group.
pub async fn consumer(
    context: &jetstream::Context,
    from: &SourceInput,
) -> Result<PullConsumer, Fault> {
    let address = &from.address;
    let stream = address.stream.as_deref().unwrap_or_default();
    let stream = get_stream(context, stream).await?;
    let name = durable_name(address);
    if let Some(name) = &name
        && let Ok(there) = stream.get_consumer::<pull::Config>(name).await
    {
        let config = &there.cached_info().config;
        if config.ack_policy != AckPolicy::Explicit || config.filter_subject != address.topic {
            return Err(Fault::last(format!(
                "the consumer {name} exists with other settings (subject {:?}, acknowledgements \
                 {:?}); choose another group, or remove it with `nats consumer rm`",
                config.filter_subject, config.ack_policy
            )));
        }
        return Ok(there);
    }
    let created = stream.create_consumer(pull::Config {
        durable_name: name,
        filter_subject: address.topic.clone(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        // The bridge has bounds of its own, and this one would be for the whole group.
        max_ack_pending: -1,
        deliver_policy: match address.start {
            Start::Earliest => DeliverPolicy::All,
            Start::Latest => DeliverPolicy::New,
        },
        inactive_threshold: match address.group {
            Some(_) => Duration::ZERO,
            None => INACTIVE_TIME,
        },
        ..pull::Config::default()
    });
    created.await.map_err(|error| Fault {
        message: format!("cannot make the consumer: {error}"),
        is_final: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subject_of_a_group_has_a_consumer_of_its_own() {
        let name = |text: &str| durable_name(&text.parse().unwrap());
        assert_eq!(
            name("nats://b:4222/RV/RV.requests.>?group=rv").as_deref(),
            Some("rv-RV_requests__")
        );
        assert_eq!(name("nats://b:4222/RV/RV.requests"), None);
    }
}
