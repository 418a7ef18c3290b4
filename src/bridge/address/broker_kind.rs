//! The kinds of brokers.

use std::fmt;

/// A kind of broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Broker {
    /// Apache Kafka.
    Kafka,
    /// NATS with JetStream.
    Nats,
    /// Apache Pulsar.
    Pulsar,
}

impl Broker {
    /// The scheme of its addresses, which is also the name of its cargo feature.
    pub fn scheme(self) -> &'static str {
        match self {
            Broker::Kafka => "kafka",
            Broker::Nats => "nats",
            Broker::Pulsar => "pulsar",
        }
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Broker::Kafka => "Kafka",
            Broker::Nats => "NATS",
            Broker::Pulsar => "Pulsar",
        })
    }
}
