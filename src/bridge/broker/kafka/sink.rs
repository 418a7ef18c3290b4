//! Records to topics of Kafka.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer,
};

use crate::bridge::address::Cluster;
use crate::bridge::broker::Outgoing;
use crate::bridge::broker::kafka::{Reporter, is_missing, settings};
use crate::bridge::inbox::{Event, Inbox};
use crate::bridge::ledger::OutputKey;

/// The producer of all outputs of one cluster.
#[derive(Clone)]
pub struct KafkaSink {
    producer: Arc<ThreadedProducer<Callbacks, NoCustomPartitioner>>,
    reporter: Arc<Reporter>,
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("KafkaSink").finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// Starts the producer.
    pub fn start(inbox: Arc<Inbox>, cluster: &Cluster) -> Result<KafkaSink> {
        let reporter = Arc::new(Reporter::new(cluster, inbox));
        let mut settings = settings(cluster).map_err(|fault| anyhow!(fault))?;
        settings
            // Every replica in sync has the record, in order and once.
            .set("enable.idempotence", "true")
            // The client tries until the broker is back.
            .set("message.timeout.ms", "0")
            .set("linger.ms", "1")
            .set("queue.buffering.max.kbytes", "65536");
        let callbacks = Callbacks(Arc::clone(&reporter));
        let producer = settings.create_with_context(callbacks)?;
        Ok(KafkaSink {
            producer: Arc::new(producer),
            reporter,
        })
    }

    /// Hands a record over; returns the record if there is no room.
    pub fn publish(&self, record: Outgoing) -> Result<(), Outgoing> {
        let key = usize::try_from(record.key.0).unwrap_or(usize::MAX);
        let mut message = BaseRecord::with_opaque_to(&record.topic, key).payload(&record.payload);
        message.partition = record.partition;
        // Records with one id go to one partition.
        message.key = record.id.as_deref();
        let outcome = self.producer.send(message).map_err(|(error, _)| error);
        match outcome {
            Ok(()) => Ok(()),
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                Err(record)
            }
            Err(error) => {
                let Outgoing {
                    key,
                    topic,
                    payload,
                    ..
                } = record;
                self.reporter.undelivered(key, &error, &topic, payload);
                Ok(())
            }
        }
    }

    /// Waits at most `time` until everything is stored.
    pub fn close(&self, time: Duration) -> bool {
        self.producer.flush(time).is_ok()
    }
}

impl Reporter {
    /// Reports a record that the client will not try again.
    fn undelivered(&self, key: OutputKey, error: &KafkaError, topic: &str, payload: Vec<u8>) {
        let is_refused = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::MessageSizeTooLarge
                    | RDKafkaErrorCode::InvalidMessageSize
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::InvalidRecord
            )
        );
        let reason = format!("cannot publish to {topic}: {error}");
        self.send(if is_refused {
            Event::Refused {
                key,
                payload,
                reason,
            }
        } else if is_missing(error) {
            Event::Failed(format!(
                "the topic {topic} does not exist; make it with `kafka-topics.sh --create --topic {topic}`"
            ))
        } else {
            Event::Failed(reason)
        });
    }
}

/// The callbacks of the client.
struct Callbacks(Arc<Reporter>);

impl ClientContext for Callbacks {
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.fault(&error, reason);
    }
}

impl ProducerContext for Callbacks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, key: usize) {
        use rdkafka::message::Message;
        let key = OutputKey(key as u64);
        match result {
            Ok(_) => {
                self.0.worked();
                self.0.send(Event::Published(key));
            }
            Err((error, message)) => {
                let payload = message.payload().unwrap_or_default().to_vec();
                self.0.undelivered(key, error, message.topic(), payload);
            }
        }
    }
}
