//! The lock between the main loop and the thread of a spill.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::serve::tee::spill::state::SpillState;

/// The state that the main loop and the thread share.
#[derive(Debug)]
pub struct SharedSpill {
    /// The state itself.
    pub state: Mutex<SpillState>,
    /// Notifies the thread of a change.
    pub changed: Condvar,
    /// An eventfd that wakes the main loop.
    pub wake: Arc<OwnedFd>,
}

impl SharedSpill {
    /// Locks the state.
    pub fn lock(&self) -> MutexGuard<'_, SpillState> {
        // After a panic of the thread, the state is still consistent.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Wakes the main loop.
    pub fn wake_loop(&self) {
        // A write to a full eventfd fails. The loop is then about to wake anyway.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}
