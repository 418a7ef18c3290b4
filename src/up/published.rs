//! The report that threads read while the supervisor runs.

use std::sync::{Arc, Mutex, PoisonError};

use crate::up::report::Report;

/// The state that the threads of commands and of the second listener read.
#[derive(Debug, Default)]
pub struct Published {
    report: Mutex<Arc<Report>>,
}

impl Published {
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
