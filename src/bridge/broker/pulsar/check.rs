//! What a broker of Pulsar says about a topic.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use tokio::runtime::Builder;

use crate::bridge::address::{Cluster, FromAddress, ToAddress};
use crate::bridge::broker::pulsar::{Connection, Fault, REQUEST_TIME};
use crate::bridge::inbox::Inbox;

/// What the broker says about an input.
pub fn input(address: &FromAddress) -> Result<Vec<String>> {
    let partitions = partitions(&address.cluster, &address.topic)?;
    if let Some(wanted) = &address.partitions
        && *wanted.end() >= partitions
    {
        bail!("{address}: the topic has {partitions} partitions, from 0 on");
    }
    Ok(vec![shown(partitions)])
}

/// What the broker says about an output.
pub fn output(to: &ToAddress) -> Result<Vec<String>> {
    let topic = to.topic.to_string();
    if to.topic.has_fields() {
        let (namespace, _) = topic.rsplit_once('/').unwrap_or((&topic, ""));
        partitions(&to.cluster, &format!("{namespace}/rv-bridge-check"))?;
        return Ok(vec!["the topic depends on the record".to_owned()]);
    }
    Ok(vec![shown(partitions(&to.cluster, &topic)?)])
}

fn shown(partitions: i32) -> String {
    match partitions {
        0 => "the topic has no partitions; the broker makes it if it is missing".to_owned(),
        _ => format!("the topic has {partitions} partitions"),
    }
}

fn partitions(cluster: &Cluster, topic: &str) -> Result<i32> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime of the client")?;
    let connection = Connection::new(cluster.clone(), Arc::new(Inbox::new()?));
    let name = connection.name();
    let answer = runtime.block_on(async {
        let question = async {
            let client = connection.connect_once(&cluster.servers[0]).await?;
            let full_name = format!("persistent://{topic}");
            let number = client.lookup_partitioned_topic_number(full_name).await;
            number.map_err(|error| Fault::of(&error))
        };
        tokio::time::timeout(REQUEST_TIME, question).await
    });
    match answer {
        Ok(Ok(number)) => Ok(i32::try_from(number).unwrap_or(i32::MAX)),
        Ok(Err(fault)) => Err(anyhow!("{name}/{topic}: {}", fault.message)),
        Err(_) => bail!("{name}: no answer within {} s", REQUEST_TIME.as_secs()),
    }
}
