//! What a server of NATS says about a stream and a subject.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use async_nats::jetstream;
use tokio::runtime::Builder;

use crate::bridge::address::{Cluster, FromAddress, ToAddress};
use crate::bridge::broker::nats::sink::check_subject;
use crate::bridge::broker::nats::source::{ACK_WAIT, durable_name};
use crate::bridge::broker::nats::{Connection, Fault, get_stream};
use crate::bridge::inbox::Inbox;

/// The longest wait for all answers.
const CHECK_TIME: Duration = Duration::from_secs(10);

/// What the server says about an input.
pub fn input(address: &FromAddress) -> Result<Vec<String>> {
    ask(&address.cluster, |context| async move {
        let name = address.stream.as_deref().unwrap_or_default();
        let stream = get_stream(&context, name).await?;
        let state = &stream.cached_info().state;
        let mut said = vec![format!(
            "the stream {name} holds {} messages",
            state.messages
        )];
        if let Some(name) = durable_name(address) {
            said.push(match stream.consumer_info(&name).await {
                Ok(info) => format!(
                    "its consumer {name} has {} messages to read, and {} in flight",
                    info.num_pending, info.num_ack_pending
                ),
                Err(_) => format!("it has no consumer {name} yet; the bridge makes it"),
            });
        }
        said.push(format!(
            "a message that is not acknowledged nor kept alive comes again after {} s",
            ACK_WAIT.as_secs()
        ));
        Ok(said)
    })
}

/// What the server says about an output.
pub fn output(to: &ToAddress) -> Result<Vec<String>> {
    ask(&to.cluster, |context| async move {
        check_subject(&context, to).await?;
        Ok(vec!["the stream takes the subject".to_owned()])
    })
}

fn ask<F>(cluster: &Cluster, question: impl FnOnce(jetstream::Context) -> F) -> Result<Vec<String>>
where
    F: Future<Output = Result<Vec<String>, Fault>>,
{
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime of the client")?;
    let connection = Connection::new(cluster.clone(), Arc::new(Inbox::new()?));
    let name = connection.name();
    runtime.block_on(async {
        let answer = tokio::time::timeout(CHECK_TIME, async {
            let client = connection.connect_once().await?;
            question(jetstream::new(client)).await
        });
        match answer.await {
            Ok(Ok(said)) => Ok(said),
            Ok(Err(fault)) => Err(anyhow!("{name}: {}", fault.message)),
            Err(_) => bail!("{name}: no answer within {} s", CHECK_TIME.as_secs()),
        }
    })
}
