//! Questions to a broker that change nothing.

use anyhow::Result;

use crate::bridge::address::{Broker, FromAddress, ToAddress};
#[cfg(not(all(feature = "kafka", feature = "nats", feature = "pulsar")))]
use crate::bridge::broker::clients::not_built;

/// What the broker says about an input, in words.
pub fn checked_input(address: &FromAddress) -> Result<Vec<String>> {
    match address.cluster.broker {
        #[cfg(feature = "kafka")]
        Broker::Kafka => crate::bridge::broker::kafka::check::input(address),
        #[cfg(feature = "nats")]
        Broker::Nats => crate::bridge::broker::nats::check::input(address),
        #[cfg(feature = "pulsar")]
        Broker::Pulsar => crate::bridge::broker::pulsar::check::input(address),
        #[cfg(not(all(feature = "kafka", feature = "nats", feature = "pulsar")))]
        broker => Err(not_built(broker)),
    }
}

/// What the broker says about an output, in words.
pub fn checked_output(to: &ToAddress) -> Result<Vec<String>> {
    match to.cluster.broker {
        #[cfg(feature = "kafka")]
        Broker::Kafka => crate::bridge::broker::kafka::check::output(to),
        #[cfg(feature = "nats")]
        Broker::Nats => crate::bridge::broker::nats::check::output(to),
        #[cfg(feature = "pulsar")]
        Broker::Pulsar => crate::bridge::broker::pulsar::check::output(to),
        #[cfg(not(all(feature = "kafka", feature = "nats", feature = "pulsar")))]
        broker => Err(not_built(broker)),
    }
}
