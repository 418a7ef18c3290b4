//! Messages from topics of Kafka.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use crate::bridge::address::Start;
use crate::bridge::broker::kafka::{Reporter, is_missing, settings};
use crate::bridge::broker::{Handle, SourceInput};
use crate::bridge::inbox::{Event, Inbox};
use crate::bridge::ledger::Position;
use crate::stage::clock::{Ids, Random};

/// Finished positions are committed this often.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

/// The wait for a message, if nothing else has to be done.
const POLL_TIME: Duration = Duration::from_millis(50);

/// The wait for room in an input that is full.
const FULL_TIME: Duration = Duration::from_millis(2);

/// An input that is full for this long is paused at the broker. A shorter pause would
/// throw away what was fetched ahead.
const PAUSE_AFTER: Duration = Duration::from_millis(200);

/// The limit of a question to the broker.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// The partitions of one consumer, with offsets.
type Offsets = BTreeMap<(usize, i32), i64>;

/// The consumer of all inputs of one group.
#[derive(Debug)]
pub struct KafkaSource {
    shared: Arc<Shared>,
    stop: mpsc::Sender<()>,
    done: mpsc::Receiver<()>,
}

/// What the loop, the thread of the consumer and its callbacks share.
#[derive(Debug)]
struct Shared {
    reporter: Reporter,
    inputs: Vec<SourceInput>,
    /// Positions to commit, by the index in `inputs` and the partition.
    commits: Mutex<Offsets>,
    assigned: Mutex<BTreeSet<(usize, i32)>>,
    /// Whether `assigned` has changed.
    is_reassigned: AtomicBool,
    has_group: bool,
}

impl KafkaSource {
    /// Starts to consume. All inputs belong to one cluster and one group.
    pub fn start(inbox: Arc<Inbox>, inputs: Vec<SourceInput>) -> Result<KafkaSource> {
        let first = inputs.first().context("a consumer without an input")?;
        let shared = Arc::new(Shared {
            reporter: Reporter::new(&first.address.cluster, inbox),
            commits: Mutex::default(),
            assigned: Mutex::default(),
            is_reassigned: AtomicBool::new(false),
            has_group: first.address.group.is_some(),
            inputs,
        });
        let consumer = Callbacks(Arc::clone(&shared)).consumer()?;
        let (stop, is_stopped) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        let polling = Polling::new(Arc::clone(&shared), consumer);
        thread::Builder::new()
            .name("kafka".to_owned())
            .spawn(move || {
                polling.run(&is_stopped);
                let _ = done.send(());
            })
            .context("cannot start a thread")?;
        Ok(KafkaSource {
            shared,
            stop,
            done: is_done,
        })
    }

    /// Notes that everything before `next` is finished in a partition of the input with
    /// this index.
    pub fn commit(&self, input: usize, partition: i32, next: u64) {
        let inputs = self.shared.inputs.iter();
        let Some(index) = inputs.map(|it| it.input).position(|it| it == input) else {
            return;
        };
        let mut commits = locked(&self.shared.commits);
        commits.insert((index, partition), i64::try_from(next).unwrap_or(i64::MAX));
    }

    /// Whether this consumer reads the input with this index.
    pub fn reads(&self, input: usize) -> bool {
        self.shared.inputs.iter().any(|it| it.input == input)
    }

    /// Commits what is finished, leaves the group and ends. Waits at most `time`.
    pub fn close(&self, time: Duration) -> bool {
        let _ = self.stop.send(());
        self.done.recv_timeout(time).is_ok()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The callbacks of the client.
struct Callbacks(Arc<Shared>);

impl ClientContext for Callbacks {
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.reporter.fault(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        for input in &self.0.inputs {
            let Some(topic) = statistics.topics.get(&input.address.topic) else {
                continue;
            };
            let lags = topic.partitions.values().map(|it| it.consumer_lag.max(0));
            self.0.reporter.send(Event::Lag {
                input: input.input,
                messages: lags.sum::<i64>() as u64,
            });
        }
    }
}

impl ConsumerContext for Callbacks {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(partitions) => {
                let leaving = self.0.indices(partitions);
                let is_leaving = |it: &(usize, i32)| leaving.contains(it);
                self.0.commit(consumer, CommitMode::Sync, is_leaving);
                locked(&self.0.assigned).retain(|it| !is_leaving(it));
                for (index, partition) in leaving {
                    self.0.reporter.send(Event::Revoked {
                        input: self.0.inputs[index].input,
                        topic: 0,
                        partition,
                    });
                }
            }
            Rebalance::Error(error) => {
                let reason = format!("the group cannot share its partitions: {error}");
                self.0.reporter.fault(error, &reason);
            }
            Rebalance::Assign(partitions) => self.0.pin_start(consumer, partitions),
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            self.0.assigned(partitions);
        }
    }
}

impl Callbacks {
    fn consumer(self) -> Result<BaseConsumer<Callbacks>> {
        let shared = Arc::clone(&self.0);
        let settings = consumer_settings(&shared.inputs[0]).map_err(|fault| anyhow!(fault))?;
        let consumer: BaseConsumer<Callbacks> = settings.create_with_context(self)?;
        let topics: Vec<&str> = shared.inputs.iter().map(|it| &*it.address.topic).collect();
        if shared
            .inputs
            .iter()
            .all(|it| it.address.partitions.is_none())
        {
            consumer.subscribe(&topics)?;
            return Ok(consumer);
        }
        let mut partitions = TopicPartitionList::new();
        for input in &shared.inputs {
            for partition in input.address.partitions.clone().into_iter().flatten() {
                partitions.add_partition_offset(&input.address.topic, partition, Offset::Stored)?;
            }
        }
        shared.pin_start(&consumer, &partitions);
        consumer.assign(&partitions)?;
        shared.assigned(&partitions);
        Ok(consumer)
    }
}

fn consumer_settings(first: &SourceInput) -> Result<ClientConfig, String> {
    let address = &first.address;
    let group = address.group.clone().unwrap_or_else(|| {
        let own = Ids::Uuid(Random::default()).next_id();
        format!("rv-bridge-{own}")
    });
    let mut settings = settings(&address.cluster)?;
    settings
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set(
            "auto.offset.reset",
            match address.start {
                Start::Earliest => "earliest",
                Start::Latest => "latest",
            },
        )
        .set("partition.assignment.strategy", "range")
        // A killed bridge holds its partitions for this long.
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "2000")
        .set("max.poll.interval.ms", "300000")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.wait.max.ms", "100")
        .set("statistics.interval.ms", "5000");
    Ok(settings)
}

impl Shared {
    /// The index of the input and the partition of each.
    fn indices(&self, partitions: &TopicPartitionList) -> Vec<(usize, i32)> {
        let elements = partitions.elements();
        let known = elements.iter().filter_map(|it| {
            let index = self.index(it.topic())?;
            Some((index, it.partition()))
        });
        known.collect()
    }

    fn index(&self, topic: &str) -> Option<usize> {
        self.inputs.iter().position(|it| it.address.topic == topic)
    }

    /// Commits where a group begins that has committed nothing. Otherwise, with
    /// `from=latest`, it would begin after the messages that came while no bridge ran.
    fn pin_start(&self, consumer: &BaseConsumer<Callbacks>, partitions: &TopicPartitionList) {
        if !self.has_group {
            return;
        }
        if let Err(error) = self.commit_starts(consumer, partitions) {
            let reason = format!("cannot commit where the group begins: {error}");
            self.reporter.fault(&error, &reason);
        }
    }

    fn commit_starts(
        &self,
        consumer: &BaseConsumer<Callbacks>,
        partitions: &TopicPartitionList,
    ) -> KafkaResult<()> {
        let committed = consumer.committed_offsets(partitions.clone(), REQUEST_TIME)?;
        let mut starts = TopicPartitionList::new();
        for element in committed.elements() {
            if matches!(element.offset(), Offset::Offset(_)) {
                continue;
            }
            let (topic, partition) = (element.topic(), element.partition());
            let (first, end) = consumer.fetch_watermarks(topic, partition, REQUEST_TIME)?;
            let start = match self.inputs[0].address.start {
                Start::Earliest => first,
                Start::Latest => end,
            };
            starts.add_partition_offset(topic, partition, Offset::Offset(start))?;
        }
        match starts.count() {
            0 => Ok(()),
            _ => consumer.commit(&starts, CommitMode::Sync),
        }
    }

    fn assigned(&self, partitions: &TopicPartitionList) {
        let indices = self.indices(partitions);
        locked(&self.assigned).extend(indices);
        self.is_reassigned.store(true, Ordering::Release);
        self.reporter.worked();
        for input in &self.inputs {
            let input = input.input;
            self.reporter.send(Event::Assigned { input });
        }
    }

    /// Commits finished positions of assigned partitions.
    fn commit(
        &self,
        consumer: &BaseConsumer<Callbacks>,
        mode: CommitMode,
        is_wanted: impl Fn(&(usize, i32)) -> bool,
    ) {
        let mut commits = std::mem::take(&mut *locked(&self.commits));
        let later = commits.extract_if(.., |it, _| !is_wanted(it));
        locked(&self.commits).extend(later);
        let assigned = locked(&self.assigned).clone();
        let mut offsets = TopicPartitionList::new();
        for ((index, partition), next) in &commits {
            if assigned.contains(&(*index, *partition)) {
                let topic = &self.inputs[*index].address.topic;
                // The name and the number come from the client itself.
                let _ = offsets.add_partition_offset(topic, *partition, Offset::Offset(*next));
            }
        }
        if !self.has_group || offsets.count() == 0 {
            return;
        }
        if let Err(error) = consumer.commit(&offsets, mode) {
            let reason = format!("cannot commit: {error}");
            self.reporter.fault(&error, &reason);
        }
    }
}

/// The thread of the consumer.
struct Polling {
    shared: Arc<Shared>,
    consumer: BaseConsumer<Callbacks>,
    /// Since when each input is full.
    full_since: Vec<Option<Instant>>,
    is_paused: Vec<bool>,
    committed_at: Instant,
    /// The first offset of each partition that nobody can have read before, for inputs
    /// that mark repeats.
    unread_from: Offsets,
}

impl Polling {
    fn new(shared: Arc<Shared>, consumer: BaseConsumer<Callbacks>) -> Polling {
        let inputs = shared.inputs.len();
        Polling {
            shared,
            consumer,
            full_since: vec![None; inputs],
            is_paused: vec![false; inputs],
            committed_at: Instant::now(),
            unread_from: Offsets::new(),
        }
    }

    /// Polls until the stop is sent.
    fn run(mut self, stop: &mpsc::Receiver<()>) {
        loop {
            if self.committed_at.elapsed() >= COMMIT_EVERY {
                self.committed_at = Instant::now();
                self.shared
                    .commit(&self.consumer, CommitMode::Async, |_| true);
            }
            if self.shared.is_reassigned.swap(false, Ordering::AcqRel) {
                self.take_assignment();
            }
            let waits_for_room = self.update_pauses();
            let wait = if waits_for_room {
                FULL_TIME
            } else {
                Duration::ZERO
            };
            match stop.recv_timeout(wait) {
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            if waits_for_room {
                continue;
            }
            let is_paused = self.is_paused.contains(&true);
            let wait = if is_paused { FULL_TIME } else { POLL_TIME };
            match self.consumer.poll(wait) {
                None => {}
                Some(Ok(message)) => self.deliver(&message),
                Some(Err(error)) => self.report(&error),
            }
        }
        self.shared
            .commit(&self.consumer, CommitMode::Sync, |_| true);
    }

    /// New partitions are not paused. For inputs that mark repeats, asks where the
    /// partitions end.
    fn take_assignment(&mut self) {
        self.is_paused.fill(false);
        self.unread_from.clear();
        let assigned = locked(&self.shared.assigned).clone();
        for (index, partition) in assigned {
            let address = &self.shared.inputs[index].address;
            if address.marks_repeats
                && let Ok((_, end)) =
                    self.consumer
                        .fetch_watermarks(&address.topic, partition, REQUEST_TIME)
            {
                self.unread_from.insert((index, partition), end);
            }
        }
    }

    /// Pauses inputs that are full for long, and resumes those that have room. Returns
    /// whether an input is full and not yet paused.
    fn update_pauses(&mut self) -> bool {
        let mut waits_for_room = false;
        for index in 0..self.shared.inputs.len() {
            let has_room = self.shared.inputs[index].gate.room().is_some();
            let since = &mut self.full_since[index];
            if has_room {
                *since = None;
                if self.is_paused[index] && self.shared.inputs[index].gate.is_mostly_empty() {
                    self.set_paused(index, false);
                }
            } else if !self.is_paused[index] {
                let since = *since.get_or_insert_with(Instant::now);
                if since.elapsed() >= PAUSE_AFTER {
                    self.set_paused(index, true);
                } else {
                    waits_for_room = true;
                }
            }
        }
        waits_for_room
    }

    fn set_paused(&mut self, index: usize, is_paused: bool) {
        let mut partitions = TopicPartitionList::new();
        let assigned = locked(&self.shared.assigned).clone();
        for (_, partition) in assigned.iter().filter(|it| it.0 == index) {
            partitions.add_partition(&self.shared.inputs[index].address.topic, *partition);
        }
        let outcome = match is_paused {
            true => self.consumer.pause(&partitions),
            false => self.consumer.resume(&partitions),
        };
        match outcome {
            Ok(()) => self.is_paused[index] = is_paused,
            Err(error) => self.report(&error),
        }
    }

    fn deliver(&self, message: &BorrowedMessage) {
        self.shared.reporter.worked();
        let Some(index) = self.shared.index(message.topic()) else {
            return;
        };
        let from = &self.shared.inputs[index];
        let payload = message.payload().unwrap_or_default().to_vec();
        let place = (index, message.partition());
        let is_repeat = from.address.marks_repeats
            && self
                .unread_from
                .get(&place)
                .is_none_or(|end| message.offset() < *end);
        from.gate.consumed(payload.len());
        self.shared.reporter.send(Event::Message {
            input: from.input,
            position: Position {
                partition: message.partition(),
                sequence: u64::try_from(message.offset()).unwrap_or(0),
                ..Position::default()
            },
            handle: Handle::Kafka,
            payload,
            is_repeat,
            batch: 1,
        });
    }

    fn report(&self, error: &KafkaError) {
        if is_missing(error) {
            let topics: Vec<&str> = self
                .shared
                .inputs
                .iter()
                .map(|it| &*it.address.topic)
                .collect();
            self.shared.reporter.send(Event::Failed(format!(
                "a topic of these does not exist: {}; make it with `kafka-topics.sh --create --topic`",
                topics.join(", ")
            )));
        } else if !is_reported_elsewhere(error) {
            self.shared.reporter.fault(error, &error.to_string());
        }
    }
}

/// Whether the callback of the client reports the fault, too.
fn is_reported_elsewhere(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve
        )
    )
}
