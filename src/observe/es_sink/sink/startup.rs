//! Checks the service before anything is read: it must answer, and this user must be
//! allowed to use it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use reqwest::Method;

use super::EsSink;
use crate::observe::es_sink::call_error::CallError;
use crate::observe::es_sink::client::Reply;
use crate::observe::es_sink::service_version;
use crate::stage::task::{Task, pause};
use crate::stage::{Stage, Stop, usage};

impl EsSink {
    /// Waits for the service. Fails if the sink cannot use it, if it refuses this user, or
    /// if it has no pipeline of the given name.
    pub fn check_service(&mut self, stage: &mut Stage) -> Result<()> {
        let Some(reply) = self.get(stage, "/")? else {
            return Ok(());
        };
        if let Err(error) = service_version::read(reply.status, &reply.body) {
            bail!("{}: {}", self.client.urls(), error.into_reason());
        }
        let Some(pipeline) = self.pipeline.clone() else {
            return Ok(());
        };
        let reply = self.get(stage, &format!("/_ingest/pipeline/{pipeline}"))?;
        // Another status may mean that the user may use pipelines, but not read
        // them.
        if reply.is_some_and(|reply| reply.status == 404) {
            return Err(usage(format!(
                "--pipeline {pipeline:?}: the service has no pipeline of this name"
            )));
        }
        Ok(())
    }

    /// Gets a reply from the first address that answers, however long this takes.
    /// Returns `None` after SIGTERM: no record has been read yet, so nothing is left
    /// to do.
    fn get(&mut self, stage: &mut Stage, path: &str) -> Result<Option<Reply>> {
        loop {
            if stage.signals.stop() == Some(Stop::Terminate) {
                return Ok(None);
            }
            let now = Instant::now();
            let Some(server) = self.servers.take_turn(now) else {
                let until = self.servers.available_at(now).unwrap_or(now);
                pause(stage, self, until)?;
                continue;
            };
            let (client, path) = (Arc::clone(&self.client), path.to_owned());
            let task = Task::spawn("asking", move || {
                client.call(server, Method::GET, &path, None)
            })?;
            task.wait(stage, self)?;
            let url = self.client.url(server);
            let reason = match task.join()? {
                Ok(reply) if matches!(reply.status, 408 | 429 | 500..=599) => {
                    format!("the service answers {}", reply.status)
                }
                Ok(reply) => {
                    self.servers.succeeded(server);
                    return Ok(Some(reply));
                }
                Err(CallError::Fatal(reason)) => bail!("{url}: {reason}"),
                Err(CallError::Retry(reason)) => reason,
            };
            stage
                .report
                .warn_seldom("retry", &format!("{url}: {reason}; trying again"));
            self.servers.failed(server, Instant::now());
        }
    }
}
