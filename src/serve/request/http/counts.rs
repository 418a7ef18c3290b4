//! Counts the calls and responses by their outcome.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use hyper::StatusCode;

use crate::serve::request::http::connection::{ClientConnection, Phase};
use crate::serve::request::http::connections::Connections;
use crate::serve::request::http::reports::Reports;
use crate::stage::stats::{Latencies, Snapshot};
use crate::wire::micros::Micros;

/// The counts of a front end.
#[derive(Debug)]
pub struct CallCounts {
    reports: Rc<Reports>,
    totals: RefCell<Totals>,
}

#[derive(Debug, Default)]
struct Totals {
    /// Calls whose headers were read.
    begun: u64,
    /// Calls whose client closed the connection before the answer.
    abandoned: u64,
    /// Answered calls, by status.
    answered: BTreeMap<StatusCode, u64>,
    /// Responses that match no open call.
    unmatched: u64,
    /// Lines of the responses that are not valid responses.
    rejected: u64,
    latency: Latencies,
}

impl CallCounts {
    /// Starts from zero. Each count is also noted in `reports`.
    pub fn new(reports: Rc<Reports>) -> CallCounts {
        CallCounts {
            reports,
            totals: RefCell::default(),
        }
    }

    /// Counts a call whose headers were read, and begins its phase.
    pub fn begin_call(self: &Rc<Self>, connection: Rc<ClientConnection>) -> CountedCall {
        self.totals.borrow_mut().begun += 1;
        self.reports.note_count();
        let begun_at = Instant::now();
        connection.enter(Phase::Answering, begun_at);
        CountedCall {
            counts: Rc::clone(self),
            connection,
            begun_at,
            status: None,
        }
    }

    /// Counts a response that matches no open call.
    pub fn count_unmatched(&self) {
        self.totals.borrow_mut().unmatched += 1;
        self.reports.note_count();
    }

    /// Counts a line that is not a valid response.
    pub fn count_rejected(&self) {
        self.totals.borrow_mut().rejected += 1;
        self.reports.note_count();
    }

    /// The present counts, including the counts of the clients' connections.
    pub fn snapshot(&self, connections: &Connections, is_ready: bool) -> Snapshot {
        let totals = self.totals.borrow();
        let ended = totals.abandoned + totals.answered.values().sum::<u64>();
        let answered = totals.answered.iter();
        let answered = answered.map(|(status, count)| (status.as_str().to_owned(), *count));
        Snapshot::default()
            .count("in", totals.begun)
            .help("Calls whose headers were read")
            .by_label("statuses", "status", answered)
            .help("Calls that were answered, by status")
            .count("abandoned", totals.abandoned)
            .help("Calls whose client left before the answer")
            .gauge("open", totals.begun - ended)
            .help("Calls that have no answer yet")
            .count("unmatched", totals.unmatched)
            .help("Responses that match no open call")
            .count("rejected", totals.rejected)
            .help("Lines of the responses that are not valid responses")
            .gauge("connections", connections.count() as u64)
            .help("Connections that are open")
            .count("shed", connections.evicted())
            .help("Connections that were closed to make room")
            .count("timedOut", connections.timed_out())
            .help("Connections that were closed by a time-out")
            .count("malformed", connections.malformed())
            .help("Connections that ended with invalid headers, or without TLS where it is needed")
            .count("failedHandshakes", connections.failed_handshakes())
            .help("Connections whose TLS handshake has failed")
            .gauge("ready", u64::from(is_ready))
            .help("Whether calls can be answered")
            .latencies("call", &totals.latency)
            .help("Time from the headers of a call to its answer")
    }
}

/// A call that is counted. When this value is dropped, the call has ended: with a status,
/// or because its client closed the connection.
#[derive(Debug)]
pub struct CountedCall {
    counts: Rc<CallCounts>,
    connection: Rc<ClientConnection>,
    begun_at: Instant,
    status: Option<StatusCode>,
}

impl CountedCall {
    /// Ends the call with an answer of this status.
    pub fn answered(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        let now = Instant::now();
        self.connection.enter(Phase::Idle, now);
        let mut totals = self.counts.totals.borrow_mut();
        match self.status {
            Some(status) => {
                *totals.answered.entry(status).or_default() += 1;
                let latency = Micros::from_duration(now - self.begun_at);
                totals.latency.record(latency);
            }
            // The connection was dropped, and the call with it.
            None => totals.abandoned += 1,
        }
        drop(totals);
        self.counts.reports.note_count();
    }
}
