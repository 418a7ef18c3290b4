//! The thread that runs the clients of NATS and Pulsar.

use std::thread;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A thread with a runtime. The thread ends when this value is dropped.
#[derive(Debug)]
pub struct Net {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Net {
    /// Starts the thread.
    pub fn start() -> Result<Net> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the runtime of the clients")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new()
            .name("broker".to_owned())
            .spawn(move || {
                // The sender is dropped and never sends, so the outcome is an error.
                let _ = runtime.block_on(stopped);
            })
            .context("cannot start a thread")?;
        Ok(Net {
            handle,
            _stop: stop,
        })
    }

    /// The runtime.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}
