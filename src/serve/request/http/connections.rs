//! The connections of one listener: their limit, eviction, time-outs and shutdown.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until};

use crate::serve::request::http::connection::{
    ClientConnection, ClientTimeouts, DRAIN_TIMEOUT, EVICTABLE_AFTER,
};

/// After the program was told to end, quiet connections stay open for this long. A call
/// that a client sends at that moment is still answered.
const QUIET_BEFORE_CLOSE: Duration = Duration::from_millis(200);

/// A slot among the connections of a listener. Dropping it frees the slot.
#[derive(Debug)]
pub struct ConnectionSlot {
    connections: Rc<Connections>,
    /// The connection that occupies the slot.
    pub connection: Rc<ClientConnection>,
}

impl ConnectionSlot {
    /// Counts the connection as one that ended with invalid headers.
    pub fn count_malformed(&self) {
        let malformed = &self.connections.malformed;
        malformed.set(malformed.get() + 1);
    }

    /// Counts the connection as one whose TLS handshake has failed.
    pub fn count_failed_handshake(&self) {
        let failed = &self.connections.failed_handshakes;
        failed.set(failed.get() + 1);
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.connections.remove(&self.connection);
    }
}

/// All connections of one listener.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    timeouts: ClientTimeouts,
    list: RefCell<Vec<Rc<ClientConnection>>>,
    added: Notify,
    removed: Notify,
    /// Whether a new connection waits for a slot because no connection can be
    /// evicted.
    slot_wanted: Cell<bool>,
    stopping: Cell<bool>,
    evicted: Cell<u64>,
    timed_out: Cell<u64>,
    malformed: Cell<u64>,
    failed_handshakes: Cell<u64>,
}

impl Connections {
    /// Allows `max` connections at a time.
    pub fn new(max: usize, timeouts: ClientTimeouts) -> Rc<Connections> {
        Rc::new(Connections {
            max,
            timeouts,
            list: RefCell::default(),
            added: Notify::new(),
            removed: Notify::new(),
            slot_wanted: Cell::new(false),
            stopping: Cell::new(false),
            evicted: Cell::new(0),
            timed_out: Cell::new(0),
            malformed: Cell::new(0),
            failed_handshakes: Cell::new(0),
        })
    }

    /// The number of open connections.
    pub fn count(&self) -> usize {
        self.list.borrow().len()
    }

    /// The number of evicted connections.
    pub fn evicted(&self) -> u64 {
        self.evicted.get()
    }

    /// The number of connections that a time-out closed.
    pub fn timed_out(&self) -> u64 {
        self.timed_out.get()
    }

    /// The number of connections that ended with invalid headers.
    pub fn malformed(&self) -> u64 {
        self.malformed.get()
    }

    /// The number of TLS handshakes that have failed.
    pub fn failed_handshakes(&self) -> u64 {
        self.failed_handshakes.get()
    }

    /// Waits for a slot. At the limit, the connection that has waited longest for its
    /// client is evicted. If no connection can be evicted, the next connection that
    /// has answered its call is closed.
    pub async fn acquire_slot(self: &Rc<Self>) -> ConnectionSlot {
        loop {
            let now = Instant::now();
            if self.count() < self.max || self.evict_one(now) {
                self.slot_wanted.set(false);
                return self.add(now);
            }
            self.slot_wanted.set(true);
            tokio::select! {
                () = self.removed.notified() => {}
                () = sleep(EVICTABLE_AFTER) => {}
            }
        }
    }

    /// Asks, before an answer is sent, whether its connection must close afterwards.
    /// This is so if the program ends, or if a new connection waits for a slot. Only
    /// one connection closes for each new one.
    pub fn takes_close_request(&self) -> bool {
        self.stopping.get() || self.slot_wanted.take()
    }

    /// Closes expired connections. Never returns.
    pub async fn keep_closing_expired(self: Rc<Self>) {
        loop {
            if self.count() == 0 {
                self.added.notified().await;
            }
            let next = self.close_expired(Instant::now());
            sleep_until(next.into()).await;
        }
    }

    /// Answers the calls that have begun, and closes quiet connections. Returns when
    /// no connection is left.
    pub async fn shut_down(&self) {
        self.stopping.set(true);
        let stopped = Instant::now();
        loop {
            let now = Instant::now();
            let close_at = |connection: &ClientConnection| {
                connection.phase_since().max(stopped) + QUIET_BEFORE_CLOSE
            };
            let list = self.list.borrow().clone();
            let quiet = list.iter().filter(|connection| connection.is_quiet());
            for connection in quiet.filter(|connection| close_at(connection) <= now) {
                self.close(connection);
            }
            if self.count() == 0 {
                return;
            }
            tokio::select! {
                () = self.removed.notified() => {}
                () = sleep(QUIET_BEFORE_CLOSE / 4) => {}
            }
        }
    }

    /// Adds a connection, even above the limit.
    pub fn add(self: &Rc<Self>, now: Instant) -> ConnectionSlot {
        let mut list = self.list.borrow_mut();
        let connection = Rc::new(ClientConnection::new(now, list.len()));
        list.push(Rc::clone(&connection));
        if list.len() == 1 {
            self.added.notify_one();
        }
        ConnectionSlot {
            connections: Rc::clone(self),
            connection,
        }
    }

    fn remove(&self, connection: &ClientConnection) {
        if let Some(index) = connection.index.take() {
            let mut list = self.list.borrow_mut();
            list.swap_remove(index);
            if let Some(moved) = list.get(index) {
                moved.index.set(Some(index));
            }
            self.removed.notify_one();
        }
    }

    /// Frees the slot at once. The task of the connection ends when it is woken.
    fn close(&self, connection: &ClientConnection) {
        self.remove(connection);
        connection.close();
    }

    /// Closes the connection with the lowest eviction rank. Returns false if no
    /// connection can be evicted.
    fn evict_one(&self, now: Instant) -> bool {
        let list = self.list.borrow();
        let ranked = list
            .iter()
            .filter_map(|connection| Some((connection.eviction_rank(now)?, connection)));
        let lowest = ranked.min_by_key(|(rank, _)| *rank);
        let Some(connection) = lowest.map(|(_, connection)| Rc::clone(connection)) else {
            return false;
        };
        drop(list);
        self.close(&connection);
        self.evicted.set(self.evicted.get() + 1);
        true
    }

    /// Closes the connections that have expired. Returns the time of the next check.
    fn close_expired(&self, now: Instant) -> Instant {
        let ClientTimeouts {
            idle,
            headers,
            write,
        } = self.timeouts;
        // A wait that begins now does not expire before `shortest` has passed.
        let shortest = idle.min(headers).min(write).min(DRAIN_TIMEOUT);
        let mut next = now + shortest.max(Duration::from_millis(1));
        let list = self.list.borrow().clone();
        for connection in list {
            match connection.expiry(self.timeouts) {
                Some(expiry) if expiry <= now => {
                    self.close(&connection);
                    self.timed_out.set(self.timed_out.get() + 1);
                }
                Some(expiry) => next = next.min(expiry),
                None => {}
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::request::http::connection::Phase;

    const TIMEOUTS: ClientTimeouts = ClientTimeouts {
        idle: Duration::from_secs(60),
        headers: Duration::from_secs(5),
        write: Duration::from_secs(10),
    };

    /// A listener with one connection for each item. An item gives the phase of the
    /// connection, whether its writes are blocked, and for how many seconds it has been
    /// so.
    fn connections(each: &[(Phase, bool, u64)]) -> (Rc<Connections>, Vec<ConnectionSlot>, Instant) {
        let start = Instant::now();
        let now = start + Duration::from_secs(1000);
        let connections = Connections::new(each.len(), TIMEOUTS);
        let slots = each.iter().map(|(phase, is_write_blocked, seconds)| {
            let slot = connections.add(start);
            let since = now - Duration::from_secs(*seconds);
            slot.connection.enter(*phase, since);
            if *is_write_blocked {
                slot.connection.write_blocked(since);
            }
            slot
        });
        let slots = slots.collect();
        (connections, slots, now)
    }

    fn closed(slots: &[ConnectionSlot]) -> Vec<usize> {
        (0..slots.len())
            .filter(|index| slots[*index].connection.is_closed())
            .collect()
    }

    #[test]
    fn the_longest_wait_is_evicted_first_and_a_call_in_flight_never() {
        let (connections, slots, now) = connections(&[
            (Phase::Answering, false, 900),
            (Phase::Body, false, 800),
            (Phase::Idle, true, 700),
            (Phase::Headers, false, 3),
            (Phase::Idle, false, 4),
            (Phase::Idle, false, 0),
        ]);
        let mut order = Vec::new();
        while connections.evict_one(now) {
            let new = closed(&slots)
                .into_iter()
                .find(|index| !order.contains(index));
            order.push(new.unwrap());
        }
        // The wait of the last connection has just begun.
        assert_eq!(order, [4, 3, 2, 1]);
        assert_eq!((connections.count(), connections.evicted()), (2, 4));
    }

    #[test]
    fn each_phase_has_its_timeout() {
        let (connections, slots, now) = connections(&[
            (Phase::Headers, false, 5),
            (Phase::Headers, false, 4),
            (Phase::Idle, false, 59),
            (Phase::Idle, false, 60),
            (Phase::Idle, true, 10),
            (Phase::Answering, false, 999),
            (Phase::Body, false, 999),
        ]);
        let next = connections.close_expired(now);
        assert_eq!(closed(&slots), [0, 3, 4]);
        assert_eq!(next, now + Duration::from_secs(1));
        // A closed connection is removed before its task ends.
        assert_eq!(connections.count(), 4);
        drop(slots);
        assert_eq!(connections.count(), 0);
    }

    #[test]
    fn removing_a_connection_keeps_the_indices_of_the_others_right() {
        let (connections, mut slots, _) = connections(&[(Phase::Idle, false, 1); 5]);
        for index in [1, 0, 2] {
            drop(slots.remove(index));
        }
        let last = Rc::clone(&slots[1].connection);
        drop(slots);
        assert_eq!((connections.count(), last.index.get()), (0, None));
    }
}
