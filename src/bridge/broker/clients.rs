//! All clients of one bridge.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::bridge::address::{Broker, Cluster, ToAddress};
use crate::bridge::broker::{Handle, Outgoing, Sink, Source, SourceInput};
use crate::bridge::inbox::Inbox;
#[cfg(not(all(feature = "kafka", feature = "nats", feature = "pulsar")))]
use crate::stage::usage;

/// The clients. Inputs and outputs of one cluster share a connection where the broker's
/// client allows it.
#[derive(Debug)]
pub struct Clients {
    inbox: Arc<Inbox>,
    sources: Vec<Source>,
    sinks: Vec<Sink>,
    #[cfg(any(feature = "nats", feature = "pulsar"))]
    net: Option<crate::bridge::broker::net::Net>,
    #[cfg(feature = "nats")]
    nats: Vec<(Cluster, Arc<crate::bridge::broker::nats::Connection>)>,
    #[cfg(feature = "pulsar")]
    pulsar: Vec<(Cluster, Arc<crate::bridge::broker::pulsar::Connection>)>,
    #[cfg(feature = "kafka")]
    kafka_sinks: Vec<(Cluster, crate::bridge::broker::kafka::sink::KafkaSink)>,
}

/// The error for a broker whose client was not built in.
#[cfg(not(all(feature = "kafka", feature = "nats", feature = "pulsar")))]
pub fn not_built(broker: Broker) -> anyhow::Error {
    usage(format!(
        "this rv-bridge is built without {broker}; build it with `cargo install --path . --features {}` \
         (docs/bridge.md names what the build needs)",
        broker.scheme()
    ))
}

impl Clients {
    /// No clients yet. They send their events to `inbox`.
    pub fn new(inbox: Arc<Inbox>) -> Clients {
        Clients {
            inbox,
            sources: Vec::new(),
            sinks: Vec::new(),
            #[cfg(any(feature = "nats", feature = "pulsar"))]
            net: None,
            #[cfg(feature = "nats")]
            nats: Vec::new(),
            #[cfg(feature = "pulsar")]
            pulsar: Vec::new(),
            #[cfg(feature = "kafka")]
            kafka_sinks: Vec::new(),
        }
    }

    /// Starts to consume these inputs.
    pub fn consume(&mut self, inputs: Vec<SourceInput>) -> Result<()> {
        let mut kafka: Vec<Vec<SourceInput>> = Vec::new();
        for input in inputs {
            match input.address.cluster.broker {
                Broker::Kafka => {
                    // Inputs of one group are one consumer, so that their partitions are
                    // shared alike.
                    let group = |it: &SourceInput| {
                        let from = &it.address;
                        let is_claimed = from.partitions.is_some();
                        (
                            from.cluster.clone(),
                            from.group.clone(),
                            from.start,
                            is_claimed,
                        )
                    };
                    let same = kafka.iter_mut().find(|it| group(&it[0]) == group(&input));
                    match same {
                        Some(inputs) => inputs.push(input),
                        None => kafka.push(vec![input]),
                    }
                }
                Broker::Nats => self.consume_nats(input)?,
                Broker::Pulsar => self.consume_pulsar(input)?,
            }
        }
        kafka.into_iter().try_for_each(|it| self.consume_kafka(it))
    }

    /// Starts to publish to an address. Returns the index of the output's client.
    pub fn publish_to(&mut self, to: &ToAddress, records_max: usize) -> Result<usize> {
        let sink = match to.cluster.broker {
            Broker::Kafka => self.kafka_sink(to)?,
            Broker::Nats => self.nats_sink(to, records_max)?,
            Broker::Pulsar => self.pulsar_sink(to, records_max)?,
        };
        self.sinks.push(sink);
        Ok(self.sinks.len() - 1)
    }

    #[cfg(any(feature = "nats", feature = "pulsar"))]
    fn runtime(&mut self) -> Result<tokio::runtime::Handle> {
        if self.net.is_none() {
            self.net = Some(crate::bridge::broker::net::Net::start()?);
        }
        let net = self.net.as_ref().expect("was just made");
        Ok(net.handle().clone())
    }

    /// Hands a record over; returns the record if there is no room.
    pub fn publish(&self, sink: usize, record: Outgoing) -> Result<(), Outgoing> {
        match self.sinks.get(sink) {
            #[cfg(feature = "kafka")]
            Some(Sink::Kafka(sink)) => sink.publish(record),
            #[cfg(feature = "nats")]
            Some(Sink::Nats(sink)) => sink.publish(record),
            #[cfg(feature = "pulsar")]
            Some(Sink::Pulsar(sink)) => sink.publish(record),
            _ => Err(record),
        }
    }

    /// Acknowledges messages of an input one by one.
    pub fn acknowledge(&self, input: usize, handles: Vec<Handle>) {
        for source in &self.sources {
            match source {
                #[cfg(feature = "nats")]
                Source::Nats(source) if source.input() == input => {
                    use crate::bridge::broker::nats::source::Reply;
                    source.reply(handles, Reply::Finished);
                    return;
                }
                #[cfg(feature = "pulsar")]
                Source::Pulsar(source) if source.input() == input => {
                    source.acknowledge(handles);
                    return;
                }
                _ => {}
            }
        }
    }

    /// Keeps messages of an input from being delivered again.
    pub fn keep_alive(&self, input: usize, handles: impl FnOnce() -> Vec<Handle>) {
        for source in &self.sources {
            match source {
                #[cfg(feature = "nats")]
                Source::Nats(source) if source.input() == input => {
                    use crate::bridge::broker::nats::source::Reply;
                    source.reply(handles(), Reply::InProgress);
                    return;
                }
                _ => {}
            }
        }
    }

    /// Gives messages back that the program was never given, so that another consumer
    /// gets them at once.
    pub fn release(&self, input: usize, handles: Vec<Handle>) {
        for source in &self.sources {
            match source {
                #[cfg(feature = "nats")]
                Source::Nats(source) if source.input() == input => {
                    use crate::bridge::broker::nats::source::Reply;
                    source.reply(handles, Reply::Released);
                    return;
                }
                _ => {}
            }
        }
    }

    /// Commits a partition of an input up to a position.
    pub fn commit(&self, input: usize, partition: i32, next: u64) {
        for source in &self.sources {
            match source {
                #[cfg(feature = "kafka")]
                Source::Kafka(source) if source.reads(input) => {
                    source.commit(input, partition, next);
                    return;
                }
                _ => {}
            }
        }
    }

    /// Sends what waits, and closes everything. Waits at most `time` for each client.
    /// Returns whether all acknowledgements were sent.
    pub fn close(&self, time: Duration) -> bool {
        let mut all = true;
        for source in &self.sources {
            all &= match source {
                #[cfg(feature = "kafka")]
                Source::Kafka(source) => source.close(time),
                #[cfg(feature = "nats")]
                Source::Nats(source) => source.close(time),
                #[cfg(feature = "pulsar")]
                Source::Pulsar(source) => source.close(time),
                #[allow(unreachable_patterns, reason = "a build without clients has no source")]
                _ => true,
            };
        }
        #[cfg(feature = "kafka")]
        for (_, sink) in &self.kafka_sinks {
            all &= sink.close(time);
        }
        all
    }
}

#[cfg(feature = "kafka")]
impl Clients {
    fn consume_kafka(&mut self, inputs: Vec<SourceInput>) -> Result<()> {
        use crate::bridge::broker::kafka::source::KafkaSource;
        let source = KafkaSource::start(Arc::clone(&self.inbox), inputs)?;
        self.sources.push(Source::Kafka(source));
        Ok(())
    }

    fn kafka_sink(&mut self, to: &ToAddress) -> Result<Sink> {
        use crate::bridge::broker::kafka::sink::KafkaSink;
        let known = self.kafka_sinks.iter().find(|(it, _)| *it == to.cluster);
        if let Some((_, sink)) = known {
            return Ok(Sink::Kafka(sink.clone()));
        }
        let sink = KafkaSink::start(Arc::clone(&self.inbox), &to.cluster)?;
        self.kafka_sinks.push((to.cluster.clone(), sink.clone()));
        Ok(Sink::Kafka(sink))
    }
}

#[cfg(not(feature = "kafka"))]
impl Clients {
    fn consume_kafka(&mut self, _: Vec<SourceInput>) -> Result<()> {
        Err(not_built(Broker::Kafka))
    }

    fn kafka_sink(&mut self, _: &ToAddress) -> Result<Sink> {
        Err(not_built(Broker::Kafka))
    }
}

#[cfg(feature = "nats")]
impl Clients {
    fn nats(&mut self, cluster: &Cluster) -> Arc<crate::bridge::broker::nats::Connection> {
        use crate::bridge::broker::nats::Connection;
        if let Some((_, known)) = self.nats.iter().find(|(it, _)| it == cluster) {
            return Arc::clone(known);
        }
        let new = Arc::new(Connection::new(cluster.clone(), Arc::clone(&self.inbox)));
        self.nats.push((cluster.clone(), Arc::clone(&new)));
        new
    }

    fn consume_nats(&mut self, input: SourceInput) -> Result<()> {
        use crate::bridge::broker::nats::source::NatsSource;
        let connection = self.nats(&input.address.cluster);
        let runtime = self.runtime()?;
        let source = NatsSource::start(&runtime, connection, Arc::clone(&self.inbox), input);
        self.sources.push(Source::Nats(source));
        Ok(())
    }

    fn nats_sink(&mut self, to: &ToAddress, records_max: usize) -> Result<Sink> {
        use crate::bridge::broker::nats::sink::NatsSink;
        let connection = self.nats(&to.cluster);
        let runtime = self.runtime()?;
        let inbox = Arc::clone(&self.inbox);
        let sink = NatsSink::start(&runtime, connection, inbox, to.clone(), records_max);
        Ok(Sink::Nats(sink))
    }
}

#[cfg(not(feature = "nats"))]
impl Clients {
    fn consume_nats(&mut self, _: SourceInput) -> Result<()> {
        Err(not_built(Broker::Nats))
    }

    fn nats_sink(&mut self, _: &ToAddress, _: usize) -> Result<Sink> {
        Err(not_built(Broker::Nats))
    }
}

#[cfg(feature = "pulsar")]
impl Clients {
    fn pulsar(&mut self, cluster: &Cluster) -> Arc<crate::bridge::broker::pulsar::Connection> {
        use crate::bridge::broker::pulsar::Connection;
        if let Some((_, known)) = self.pulsar.iter().find(|(it, _)| it == cluster) {
            return Arc::clone(known);
        }
        let new = Arc::new(Connection::new(cluster.clone(), Arc::clone(&self.inbox)));
        self.pulsar.push((cluster.clone(), Arc::clone(&new)));
        new
    }

    fn consume_pulsar(&mut self, input: SourceInput) -> Result<()> {
        use crate::bridge::broker::pulsar::source::PulsarSource;
        let connection = self.pulsar(&input.address.cluster);
        let runtime = self.runtime()?;
        let source = PulsarSource::start(&runtime, connection, Arc::clone(&self.inbox), input);
        self.sources.push(Source::Pulsar(source));
        Ok(())
    }

    fn pulsar_sink(&mut self, to: &ToAddress, records_max: usize) -> Result<Sink> {
        use crate::bridge::broker::pulsar::sink::PulsarSink;
        let connection = self.pulsar(&to.cluster);
        let runtime = self.runtime()?;
        let inbox = Arc::clone(&self.inbox);
        let sink = PulsarSink::start(&runtime, connection, inbox, to.clone(), records_max);
        Ok(Sink::Pulsar(sink))
    }
}

#[cfg(not(feature = "pulsar"))]
impl Clients {
    fn consume_pulsar(&mut self, _: SourceInput) -> Result<()> {
        Err(not_built(Broker::Pulsar))
    }

    fn pulsar_sink(&mut self, _: &ToAddress, _: usize) -> Result<Sink> {
        Err(not_built(Broker::Pulsar))
    }
}
