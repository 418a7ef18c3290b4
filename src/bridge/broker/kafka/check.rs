//! What a broker of Kafka says about a topic.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::bridge::address::{Cluster, FromAddress, ToAddress};
use crate::bridge::broker::kafka::settings;

/// The longest wait for one answer.
const CHECK_TIME: Duration = Duration::from_secs(10);

/// What the broker says about an input.
pub fn input(address: &FromAddress) -> Result<Vec<String>> {
    let mut config = config(&address.cluster)?;
    if let Some(group) = &address.group {
        config.set("group.id", group);
    }
    let consumer: BaseConsumer = config.create()?;
    let name = address.to_string();
    let partitions = partitions(&consumer, &name, &address.topic)?;
    let mut said = vec![format!("the topic has {} partitions", partitions.len())];
    if let Some(wanted) = &address.partitions
        && let Some(missing) = wanted.clone().find(|it| !partitions.contains(it))
    {
        bail!("{name}: the topic has no partition {missing}");
    }
    let mut committed = TopicPartitionList::new();
    for partition in &partitions {
        committed.add_partition(&address.topic, *partition);
    }
    if address.group.is_some() {
        let committed = consumer
            .committed_offsets(committed, CHECK_TIME)
            .with_context(|| format!("{name}: cannot ask for the committed positions"))?;
        let mut lag = 0;
        for element in committed.elements() {
            let (start, end) = consumer
                .fetch_watermarks(&address.topic, element.partition(), CHECK_TIME)
                .with_context(|| format!("{name}: cannot ask for the ends of the partitions"))?;
            if let Offset::Offset(offset) = element.offset() {
                lag += end - offset.max(start);
            }
        }
        said.push(format!(
            "the group has {lag} messages to read after its commits"
        ));
    }
    Ok(said)
}

/// What the broker says about an output.
pub fn output(to: &ToAddress) -> Result<Vec<String>> {
    let consumer: BaseConsumer = config(&to.cluster)?.create()?;
    if to.topic.has_fields() {
        let metadata = consumer.fetch_metadata(None, CHECK_TIME);
        let metadata = metadata.with_context(|| format!("{to}: no answer"))?;
        return Ok(vec![format!(
            "the topic depends on the record; the broker has {} topics",
            metadata.topics().len()
        )]);
    }
    let partitions = partitions(&consumer, &to.to_string(), &to.topic.to_string())?;
    Ok(vec![format!(
        "the topic has {} partitions",
        partitions.len()
    )])
}

fn config(cluster: &Cluster) -> Result<ClientConfig> {
    let mut config = settings(cluster).map_err(|fault| anyhow!(fault))?;
    config.set("allow.auto.create.topics", "false");
    config.set("group.id", "rv-bridge-check");
    Ok(config)
}

fn partitions(consumer: &BaseConsumer, name: &str, topic: &str) -> Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), CHECK_TIME);
    let metadata = metadata.with_context(|| format!("{name}: no answer from the broker"))?;
    let found = metadata.topics().iter().find(|it| it.name() == topic);
    match found {
        Some(found) if found.error().is_none() => {
            Ok(found.partitions().iter().map(|it| it.id()).collect())
        }
        _ => bail!(
            "{name}: the topic does not exist; make it with `kafka-topics.sh --create --topic {topic}`"
        ),
    }
}
