//! Collects the requests of all calls, so that one write sends all that are ready.

use std::cell::{Cell, RefCell};

use tokio::sync::Notify;

/// The largest batch whose memory is used again, in bytes.
const REUSED_BYTES_MAX: usize = 1 << 20;

/// Requests that are not written yet.
#[derive(Debug)]
pub struct RequestBuffer {
    pending: RefCell<Vec<u8>>,
    /// The size of the batch that is being written.
    batch_bytes: Cell<usize>,
    bytes_max: usize,
    something_pending: Notify,
}

impl RequestBuffer {
    /// An empty buffer. The buffer is full above `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> RequestBuffer {
        RequestBuffer {
            pending: RefCell::default(),
            batch_bytes: Cell::new(0),
            bytes_max,
            something_pending: Notify::new(),
        }
    }

    /// Whether the buffer accepts no more requests. The batch that is being written
    /// counts, too.
    pub fn is_full(&self) -> bool {
        self.pending.borrow().len() + self.batch_bytes.get() > self.bytes_max
    }

    /// Appends the output of `write`, and wakes the writer.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.pending.borrow_mut());
        self.something_pending.notify_one();
    }

    /// Appends a newline, to end a line that another writer or reader has torn.
    pub fn append_newline(&self) {
        self.append(|pending| pending.push(b'\n'));
    }

    /// Drops the pending requests. A newline before them is kept.
    pub fn drop_requests(&self) {
        let mut pending = self.pending.borrow_mut();
        let begins_with_newline = pending.first() == Some(&b'\n');
        pending.clear();
        pending.extend(begins_with_newline.then_some(b'\n'));
    }

    /// Waits until requests are pending, and takes them. Before it takes them, all
    /// ready calls append their requests.
    pub async fn take_batch(&self) -> Vec<u8> {
        loop {
            if !self.pending.borrow().is_empty() {
                tokio::task::yield_now().await;
                let batch = std::mem::take(&mut *self.pending.borrow_mut());
                self.batch_bytes.set(batch.len());
                return batch;
            }
            self.something_pending.notified().await;
        }
    }

    /// Takes back a batch that was written or lost, to use its memory again.
    pub fn finish_batch(&self, mut batch: Vec<u8>) {
        self.batch_bytes.set(0);
        batch.clear();
        let mut pending = self.pending.borrow_mut();
        if pending.capacity() == 0 && batch.capacity() <= REUSED_BYTES_MAX {
            *pending = batch;
        }
    }
}
