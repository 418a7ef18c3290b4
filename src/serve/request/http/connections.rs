//! The connections of one listener: what each waits for, which of them has had
//! its time, and which makes room for a new one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until};

/// A connection that waits for less than this is not closed to make room: its
/// client is likely to be about to send.
const WAIT_MIN: Duration = Duration::from_millis(20);

/// The same for a client that sends a body or reads an answer, which takes longer.
const TRANSFER_MIN: Duration = Duration::from_secs(1);

/// How long a client may be silent before its connection is closed behind the last
/// answer.
const LEAVING_SILENT: Duration = Duration::from_secs(2);

/// For how long connections that wait are kept after the program was told to end:
/// what a client sends in that moment is still answered.
const QUIET: Duration = Duration::from_millis(200);

/// What a connection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of a next call has come.
    Idle,
    /// The head of a call is on its way.
    Head,
    /// The body of a call is on its way.
    Body,
    /// A call is being answered.
    Call,
    /// The last answer was sent. What the client still sends is not wanted.
    Leaving,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Between two calls.
    pub idle: Duration,
    /// For a head.
    pub head: Duration,
    /// For taking some of an answer.
    pub write: Duration,
}

/// One connection, as its listener sees it.
#[derive(Debug)]
pub struct Connection {
    phase: Cell<Phase>,
    since: Cell<Instant>,
    /// Set while the client does not take what it is sent: since when.
    stuck: Cell<Option<Instant>>,
    closed: Cell<bool>,
    /// Whether its client has sent a head that was none.
    malformed: Cell<bool>,
    /// Of the task that serves it.
    waker: RefCell<Option<Waker>>,
    /// Where it is in the list; `None` when it has left.
    place: Cell<Option<usize>>,
}

impl Connection {
    fn new(now: Instant, place: usize) -> Connection {
        Connection {
            // The first head has to come soon.
            phase: Cell::new(Phase::Head),
            since: Cell::new(now),
            stuck: Cell::new(None),
            closed: Cell::new(false),
            malformed: Cell::new(false),
            waker: RefCell::default(),
            place: Cell::new(Some(place)),
        }
    }

    /// A new phase begins.
    pub fn enter(&self, phase: Phase, now: Instant) {
        self.phase.set(phase);
        self.since.set(now);
    }

    /// Bytes have come.
    pub fn received(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head, Instant::now());
        }
    }

    /// The client has taken bytes.
    pub fn sent(&self) {
        self.stuck.set(None);
    }

    /// The client takes nothing for now.
    pub fn is_stuck(&self) {
        if self.stuck.get().is_none() {
            self.stuck.set(Some(Instant::now()));
        }
    }

    /// Whether the client has yet to take what it was sent.
    pub fn has_unread(&self) -> bool {
        self.stuck.get().is_some()
    }

    /// Its client has sent a head that is none.
    pub fn is_malformed(&self) {
        self.malformed.set(true);
    }

    /// Whether its client has sent a head that was none.
    pub fn was_malformed(&self) -> bool {
        self.malformed.get()
    }

    /// Whether its listener has closed it.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Has its task woken when it is closed.
    pub fn wake_when_closed(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|it| it.will_wake(context.waker()))
        {
            *waker = Some(context.waker().clone());
        }
    }

    fn close(&self) {
        self.closed.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// When its client has had its time. A call has a time limit of its own, and
    /// so has a body, which ends with an answer.
    fn due(&self, times: Times) -> Option<Instant> {
        match (self.stuck.get(), self.phase.get()) {
            (Some(since), _) => Some(since + times.write),
            (None, Phase::Idle) => Some(self.since.get() + times.idle),
            (None, Phase::Head) => Some(self.since.get() + times.head),
            (None, Phase::Leaving) => Some(self.since.get() + LEAVING_SILENT),
            (None, Phase::Body | Phase::Call) => None,
        }
    }

    /// How readily it makes room for another: the least first. `None` where it is
    /// not to be closed, since the pipeline works for it or it has just begun to
    /// wait.
    fn worth(&self, now: Instant) -> Option<(u8, Instant)> {
        let (rank, since, least) = match (self.stuck.get(), self.phase.get()) {
            (_, Phase::Call) => return None,
            (None, Phase::Idle | Phase::Head | Phase::Leaving) => (0, self.since.get(), WAIT_MIN),
            (Some(since), _) => (1, since, TRANSFER_MIN),
            (None, Phase::Body) => (2, self.since.get(), TRANSFER_MIN),
        };
        (now.saturating_duration_since(since) >= least).then_some((rank, since))
    }

    /// Whether it may be closed when the program ends: no call has begun.
    fn is_waiting(&self) -> bool {
        !matches!(self.phase.get(), Phase::Body | Phase::Call) && !self.has_unread()
    }
}

/// A connection's place among those of its listener, until it is dropped.
#[derive(Debug)]
pub struct Place {
    connections: Rc<Connections>,
    pub connection: Rc<Connection>,
}

impl Place {
    /// Its client has sent what is no head of a call.
    pub fn count_malformed(&self) {
        let malformed = &self.connections.malformed;
        malformed.set(malformed.get() + 1);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.leave(&self.connection);
    }
}

/// All connections of one listener.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    times: Times,
    list: RefCell<Vec<Rc<Connection>>>,
    entered: Notify,
    left: Notify,
    /// Somebody waits for a place, and all connections are busy.
    wanted: Cell<bool>,
    stopping: Cell<bool>,
    shed: Cell<u64>,
    timed_out: Cell<u64>,
    malformed: Cell<u64>,
}

impl Connections {
    /// Room for `max` connections at a time.
    pub fn new(max: usize, times: Times) -> Rc<Connections> {
        Rc::new(Connections {
            max,
            times,
            list: RefCell::default(),
            entered: Notify::new(),
            left: Notify::new(),
            wanted: Cell::new(false),
            stopping: Cell::new(false),
            shed: Cell::new(0),
            timed_out: Cell::new(0),
            malformed: Cell::new(0),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.borrow().len()
    }

    /// How many were closed to make room, and how many since their client took
    /// too long.
    pub fn closed(&self) -> (u64, u64) {
        (self.shed.get(), self.timed_out.get())
    }

    /// How many ended with a head that was none.
    pub fn malformed(&self) -> u64 {
        self.malformed.get()
    }

    /// A place for one more. Where there is none, the connection that has waited
    /// longest for its client makes room; where none waits, the next one that has
    /// been answered does.
    pub async fn admit(self: &Rc<Self>) -> Place {
        loop {
            let now = Instant::now();
            if self.count() < self.max || self.shed_one(now) {
                self.wanted.set(false);
                return self.enter(now);
            }
            self.wanted.set(true);
            tokio::select! {
                () = self.left.notified() => {}
                () = sleep(WAIT_MIN) => {}
            }
        }
    }

    /// Whether the connection of a call that is being answered has to end with it.
    pub fn is_last_call(&self) -> bool {
        self.stopping.get() || self.wanted.take()
    }

    /// Closes those that wait too long for their clients, for ever.
    pub async fn sweep(self: Rc<Self>) {
        loop {
            if self.count() == 0 {
                self.entered.notified().await;
            }
            let next = self.close_overdue(Instant::now());
            sleep_until(next.into()).await;
        }
    }

    /// Lets the calls that have begun come to their end, and closes the rest.
    /// Returns when no connection is left.
    pub async fn finish(&self) {
        self.stopping.set(true);
        let stopped = Instant::now();
        loop {
            let now = Instant::now();
            let quiet_end = |connection: &Connection| connection.since.get().max(stopped) + QUIET;
            let list = self.list.borrow().clone();
            let waiting = list.iter().filter(|connection| connection.is_waiting());
            for connection in waiting.filter(|connection| quiet_end(connection) <= now) {
                self.close(connection);
            }
            if self.count() == 0 {
                return;
            }
            tokio::select! {
                () = self.left.notified() => {}
                () = sleep(QUIET / 4) => {}
            }
        }
    }

    pub(super) fn enter(self: &Rc<Self>, now: Instant) -> Place {
        let mut list = self.list.borrow_mut();
        let connection = Rc::new(Connection::new(now, list.len()));
        list.push(Rc::clone(&connection));
        if list.len() == 1 {
            self.entered.notify_one();
        }
        Place {
            connections: Rc::clone(self),
            connection,
        }
    }

    fn leave(&self, connection: &Connection) {
        if let Some(place) = connection.place.take() {
            let mut list = self.list.borrow_mut();
            list.swap_remove(place);
            if let Some(moved) = list.get(place) {
                moved.place.set(Some(place));
            }
            self.left.notify_one();
        }
    }

    /// Its place is free at once; its task sees it when it is woken.
    fn close(&self, connection: &Connection) {
        self.leave(connection);
        connection.close();
    }

    fn shed_one(&self, now: Instant) -> bool {
        let list = self.list.borrow();
        let worths = list
            .iter()
            .filter_map(|connection| Some((connection.worth(now)?, connection)));
        let least = worths.min_by_key(|(worth, _)| *worth);
        let Some(connection) = least.map(|(_, connection)| Rc::clone(connection)) else {
            return false;
        };
        drop(list);
        self.close(&connection);
        self.shed.set(self.shed.get() + 1);
        true
    }

    /// Closes those whose time is up, and says when to look again.
    fn close_overdue(&self, now: Instant) -> Instant {
        let Times { idle, head, write } = self.times;
        // Whatever begins to wait from now on is not due before then.
        let least = idle.min(head).min(write).min(LEAVING_SILENT);
        let mut next = now + least.max(Duration::from_millis(1));
        let list = self.list.borrow().clone();
        for connection in list {
            match connection.due(self.times) {
                Some(due) if due <= now => {
                    self.close(&connection);
                    self.timed_out.set(self.timed_out.get() + 1);
                }
                Some(due) => next = next.min(due),
                None => {}
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        idle: Duration::from_secs(60),
        head: Duration::from_secs(5),
        write: Duration::from_secs(10),
    };

    /// A listener with these connections: their phase, whether they are stuck, and
    /// for how many seconds.
    fn connections(each: &[(Phase, bool, u64)]) -> (Rc<Connections>, Vec<Place>, Instant) {
        let start = Instant::now();
        let now = start + Duration::from_secs(1000);
        let connections = Connections::new(each.len(), TIMES);
        let places = each.iter().map(|(phase, stuck, seconds)| {
            let place = connections.enter(start);
            let since = now - Duration::from_secs(*seconds);
            place.connection.enter(*phase, since);
            place.connection.stuck.set(stuck.then_some(since));
            place
        });
        let places = places.collect();
        (connections, places, now)
    }

    fn closed(places: &[Place]) -> Vec<usize> {
        (0..places.len())
            .filter(|index| places[*index].connection.is_closed())
            .collect()
    }

    #[test]
    fn who_waits_longest_makes_room_and_a_call_never_does() {
        let (connections, places, now) = connections(&[
            (Phase::Call, false, 900),
            (Phase::Body, false, 800),
            (Phase::Idle, true, 700),
            (Phase::Head, false, 3),
            (Phase::Idle, false, 4),
            (Phase::Idle, false, 0),
        ]);
        let mut order = Vec::new();
        while connections.shed_one(now) {
            let new = closed(&places)
                .into_iter()
                .find(|index| !order.contains(index));
            order.push(new.unwrap());
        }
        // The last one has only just begun to wait.
        assert_eq!(order, [4, 3, 2, 1]);
        assert_eq!((connections.count(), connections.closed().0), (2, 4));
    }

    #[test]
    fn each_phase_has_its_time() {
        let (connections, places, now) = connections(&[
            (Phase::Head, false, 5),
            (Phase::Head, false, 4),
            (Phase::Idle, false, 59),
            (Phase::Idle, false, 60),
            (Phase::Idle, true, 10),
            (Phase::Call, false, 999),
            (Phase::Body, false, 999),
        ]);
        let next = connections.close_overdue(now);
        assert_eq!(closed(&places), [0, 3, 4]);
        assert_eq!(next, now + Duration::from_secs(1));
        // What is closed has left, whenever its task notices.
        assert_eq!(connections.count(), 4);
        drop(places);
        assert_eq!(connections.count(), 0);
    }

    #[test]
    fn a_place_is_its_own_however_the_others_come_and_go() {
        let (connections, mut places, _) = connections(&[(Phase::Idle, false, 1); 5]);
        for index in [1, 0, 2] {
            drop(places.remove(index));
        }
        let last = Rc::clone(&places[1].connection);
        drop(places);
        assert_eq!((connections.count(), last.place.get()), (0, None));
    }
}
