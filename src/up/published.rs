//! The report that threads read while the supervisor runs.

use std::sync::{Arc, Mutex, PoisonError};

use crate::up::report::Report;

/// The state that the threads of commands and of the second listener read.
#[derive(Debug)]
pub struct Published {
    report: Mutex<Arc<Report>>,
}

impl Published {
    /// The state before the first look: nothing is ready.
    pub fn new() -> Published {
        let report = Report {
            reason: Some("the supervisor is starting".to_owned()),
            ..Report::default()
        };
        Published {
            report: Mutex::new(Arc::new(report)),
        }
    }

    /// The present report.
    pub fn report(&self) -> Arc<Report> {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&report)
    }

    /// Publishes a new report.
    pub fn set(&self, report: Report) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(report);
    }
}
