//! The clients of the brokers. One file or folder for each; the loop sees only this one.

pub mod check;
// Each client uses other arguments.
#[cfg_attr(
    not(all(feature = "kafka", feature = "nats", feature = "pulsar")),
    allow(unused_variables, unused_mut, clippy::unused_self)
)]
pub mod clients;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
#[cfg(any(feature = "nats", feature = "pulsar"))]
mod net;
#[cfg(feature = "pulsar")]
mod pulsar;

use std::sync::Arc;

use crate::bridge::address::FromAddress;
use crate::bridge::gate::Gate;
use crate::bridge::ledger::OutputKey;

/// What a client needs to acknowledge one message.
#[derive(Clone, Debug)]
pub enum Handle {
    /// Nothing: Kafka commits positions.
    #[cfg(feature = "kafka")]
    Kafka,
    /// The subject that takes the acknowledgement.
    #[cfg(feature = "nats")]
    Nats(async_nats::Subject),
    /// The message, and the consumer that has received it.
    #[cfg(feature = "pulsar")]
    Pulsar(Box<pulsar::source::MessageHandle>),
}

/// A record on its way to a broker.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The record, for the ledger.
    pub key: OutputKey,
    /// The topic or subject.
    pub topic: String,
    /// The partition, if it is not the broker's choice.
    pub partition: Option<i32>,
    /// The `messageId`, by which Kafka chooses the partition.
    pub id: Option<Box<str>>,
    /// The record.
    pub payload: Vec<u8>,
}

/// An input, as its client sees it.
#[derive(Clone, Debug)]
pub struct SourceInput {
    /// The index of the input.
    pub input: usize,
    /// The address.
    pub address: FromAddress,
    /// The bound.
    pub gate: Arc<Gate>,
}

/// The consumer of one or several inputs.
#[derive(Debug)]
pub enum Source {
    /// Kafka: all inputs of one group.
    #[cfg(feature = "kafka")]
    Kafka(kafka::source::KafkaSource),
    /// NATS: one input.
    #[cfg(feature = "nats")]
    Nats(nats::source::NatsSource),
    /// Pulsar: one input.
    #[cfg(feature = "pulsar")]
    Pulsar(pulsar::source::PulsarSource),
}

/// The producer of one output.
#[derive(Debug)]
pub enum Sink {
    /// Kafka.
    #[cfg(feature = "kafka")]
    Kafka(kafka::sink::KafkaSink),
    /// NATS.
    #[cfg(feature = "nats")]
    Nats(nats::sink::NatsSink),
    /// Pulsar.
    #[cfg(feature = "pulsar")]
    Pulsar(pulsar::sink::PulsarSink),
}
