//! How many calls the service is given at once: fewer while it has too much to do.

/// Grows by one in a round of calls that were taken whole, and is halved when the
/// service puts work off: as the senders of a network share it.
#[derive(Debug)]
pub struct Flow {
    /// At least 1, at most `max`.
    allowed: f64,
    max: usize,
}

impl Flow {
    /// Up to `max` calls, from the start.
    pub fn new(max: usize) -> Flow {
        let max = max.max(1);
        Flow {
            allowed: max as f64,
            max,
        }
    }

    /// How many calls there may be.
    pub fn calls_max(&self) -> usize {
        self.allowed as usize
    }

    /// A call was taken whole.
    pub fn taken(&mut self) {
        self.allowed = (self.allowed + 1.0 / self.allowed).min(self.max as f64);
    }

    /// The service had too much to do.
    pub fn refused(&mut self) {
        self.allowed = (self.allowed / 2.0).max(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_become_few_at_once_and_many_slowly() {
        let mut flow = Flow::new(16);
        assert_eq!(flow.calls_max(), 16);
        flow.taken();
        assert_eq!(flow.calls_max(), 16);
        flow.refused();
        assert_eq!(flow.calls_max(), 8);
        for _ in 0..9 {
            flow.taken();
        }
        assert_eq!(flow.calls_max(), 9);
        for _ in 0..10 {
            flow.refused();
        }
        assert_eq!(flow.calls_max(), 1);
    }
}
