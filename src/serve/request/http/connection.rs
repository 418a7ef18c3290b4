//! One connection: its phase, its time-outs, and its eviction rank.

use std::cell::{Cell, RefCell};
use std::io;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// A connection whose wait is shorter than this is not evicted: its client will probably
/// send soon.
pub const EVICTABLE_AFTER: Duration = Duration::from_millis(20);

/// A connection that transfers a body or an answer is not evicted if its wait is shorter
/// than this. Transfers take longer than headers.
const TRANSFER_EVICTABLE_AFTER: Duration = Duration::from_secs(1);

/// After the last answer, the connection is closed if the client is silent for this long.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The connection waits for the next call.
    Idle,
    /// The headers of a call are being read.
    Headers,
    /// The body of a call is being read.
    Body,
    /// A call is being answered.
    Answering,
    /// The last answer is sent. All further bytes of the client are discarded.
    Draining,
}

/// The time-outs of a client.
#[derive(Clone, Copy, Debug)]
pub struct ClientTimeouts {
    /// The longest time between two calls.
    pub idle: Duration,
    /// The longest time for the headers of a call.
    pub headers: Duration,
    /// The longest time in which the client reads nothing of an answer.
    pub write: Duration,
}

/// The order in which connections are evicted, lowest first: the kind of wait, then
/// the time when the wait began.
pub type EvictionRank = (u8, Instant);

/// The state of one connection. The task that serves it and the list of all connections
/// share it.
#[derive(Debug)]
pub struct ClientConnection {
    phase: Cell<Phase>,
    phase_since: Cell<Instant>,
    /// The time since which the client has read nothing of its answer; `None` while it
    /// reads.
    write_blocked_since: Cell<Option<Instant>>,
    closed: Cell<bool>,
    malformed: Cell<bool>,
    /// Wakes the task that serves the connection.
    waker: RefCell<Option<Waker>>,
    /// The index in the list of connections; `None` once the connection is removed.
    pub index: Cell<Option<usize>>,
}

impl ClientConnection {
    /// A connection that was accepted at `now`. Its first headers must come soon.
    pub fn new(now: Instant, index: usize) -> ClientConnection {
        ClientConnection {
            phase: Cell::new(Phase::Headers),
            phase_since: Cell::new(now),
            write_blocked_since: Cell::new(None),
            closed: Cell::new(false),
            malformed: Cell::new(false),
            waker: RefCell::default(),
            index: Cell::new(Some(index)),
        }
    }

    /// Begins a phase.
    pub fn enter(&self, phase: Phase, now: Instant) {
        self.phase.set(phase);
        self.phase_since.set(now);
    }

    /// The time at which the phase began.
    pub fn phase_since(&self) -> Instant {
        self.phase_since.get()
    }

    /// Notes that the client has sent bytes.
    pub fn received(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Headers, Instant::now());
        }
    }

    /// Notes that the client has read bytes.
    pub fn write_progressed(&self) {
        self.write_blocked_since.set(None);
    }

    /// Notes that the client reads no bytes at `now`.
    pub fn write_blocked(&self, now: Instant) {
        if self.write_blocked_since.get().is_none() {
            self.write_blocked_since.set(Some(now));
        }
    }

    /// Whether the client has not yet read all of its answers.
    pub fn is_write_blocked(&self) -> bool {
        self.write_blocked_since.get().is_some()
    }

    /// Notes that the client has sent invalid headers.
    pub fn mark_malformed(&self) {
        self.malformed.set(true);
    }

    /// Whether the client has sent invalid headers.
    pub fn is_malformed(&self) -> bool {
        self.malformed.get()
    }

    /// Whether the connection was evicted or has timed out.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Fails if the connection was evicted or has timed out. Otherwise remembers the task
    /// of `context`, to wake it when the connection is closed.
    pub fn check_open(&self, context: &Context<'_>) -> io::Result<()> {
        if self.is_closed() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|it| it.will_wake(context.waker()))
        {
            *waker = Some(context.waker().clone());
        }
        Ok(())
    }

    /// Closes the connection: its task is woken, and its stream fails.
    pub fn close(&self) {
        self.closed.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The time at which the connection times out. `None` while a call is being
    /// answered, because calls have their own time-out. Also `None` while a body is
    /// being read, because a body that takes too long is answered with an error before
    /// the connection closes.
    pub fn expiry(&self, timeouts: ClientTimeouts) -> Option<Instant> {
        let since = self.phase_since.get();
        match (self.write_blocked_since.get(), self.phase.get()) {
            (Some(since), _) => Some(since + timeouts.write),
            (None, Phase::Idle) => Some(since + timeouts.idle),
            (None, Phase::Headers) => Some(since + timeouts.headers),
            (None, Phase::Draining) => Some(since + DRAIN_TIMEOUT),
            (None, Phase::Body | Phase::Answering) => None,
        }
    }

    /// The eviction rank. `None` if the connection must not be evicted because a call
    /// is in flight or the wait has just begun.
    pub fn eviction_rank(&self, now: Instant) -> Option<EvictionRank> {
        let phase_since = self.phase_since.get();
        let (kind, since, evictable_after) =
            match (self.write_blocked_since.get(), self.phase.get()) {
                (_, Phase::Answering) => return None,
                (None, Phase::Idle | Phase::Headers | Phase::Draining) => {
                    (0, phase_since, EVICTABLE_AFTER)
                }
                (Some(since), _) => (1, since, TRANSFER_EVICTABLE_AFTER),
                (None, Phase::Body) => (2, phase_since, TRANSFER_EVICTABLE_AFTER),
            };
        (now.saturating_duration_since(since) >= evictable_after).then_some((kind, since))
    }

    /// Whether the connection may be closed when the program ends: no call has begun,
    /// and the client has read all answers.
    pub fn is_quiet(&self) -> bool {
        !matches!(self.phase.get(), Phase::Body | Phase::Answering) && !self.is_write_blocked()
    }
}
