//! The state of the front end that its tasks share. All tasks run on one thread.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use crate::serve::request::http::connections::Connections;
use crate::serve::request::http::counts::CallCounts;
use crate::serve::request::http::open_calls::OpenCalls;
use crate::serve::request::http::reports::Reports;
use crate::serve::request::http::tls::Tls;
use crate::serve::request::http::token::Access;
use crate::serve::request::http_args::HttpOptions;
use crate::serve::request::request_writer::RequestWriter;
use crate::stage::stats::Snapshot;

/// The shared state of the tasks.
#[derive(Debug)]
pub struct FrontEnd {
    /// The prefix of the metrics' names.
    program: &'static str,
    started: Instant,
    /// The check of the bearer token.
    pub access: Access,
    /// The certificate of the first listener; `None` without HTTPS.
    pub tls: Option<Rc<Tls>>,
    /// The pipeline that answers the calls.
    pub open_calls: Rc<OpenCalls>,
    /// The connections of the clients.
    pub connections: Rc<Connections>,
    /// The counts of the calls, by outcome.
    pub counts: Rc<CallCounts>,
    /// The messages that the main task must print.
    pub reports: Rc<Reports>,
    /// Whether the program was told to end.
    pub stopping: Cell<bool>,
}

impl FrontEnd {
    /// A front end that no client has called yet.
    pub fn new(
        program: &'static str,
        options: &HttpOptions,
        writer: RequestWriter,
        access: Access,
        tls: Option<Rc<Tls>>,
        connections_max: usize,
    ) -> Rc<FrontEnd> {
        let reports = Rc::new(Reports::new());
        let counts = Rc::new(CallCounts::new(Rc::clone(&reports)));
        Rc::new(FrontEnd {
            program,
            started: Instant::now(),
            access,
            tls,
            open_calls: Rc::new(OpenCalls::new(
                writer,
                options.in_flight_max,
                options.bodies.body_bytes_max,
                Rc::clone(&counts),
                Rc::clone(&reports),
            )),
            connections: Connections::new(connections_max, options.client_timeouts),
            counts,
            reports,
            stopping: Cell::new(false),
        })
    }

    /// The reason why the service cannot answer calls; `None` if it can.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.stopping.get() {
            return Some("shutting down");
        }
        self.open_calls.missing_end()
    }

    /// The present counts.
    pub fn snapshot(&self) -> Snapshot {
        let is_ready = self.not_ready().is_none();
        self.counts.snapshot(&self.connections, is_ready)
    }

    /// The present counts in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        self.snapshot()
            .prometheus(self.program, self.started.elapsed())
    }
}
