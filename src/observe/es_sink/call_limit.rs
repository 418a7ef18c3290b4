//! Limits the number of simultaneous calls: fewer while the service is overloaded.

/// A limit that is halved when the service is overloaded. A limit of N grows by one
/// after about N successful calls, like the window of a TCP sender.
#[derive(Debug)]
pub struct CallLimit {
    /// The present limit, from 1 to `max`.
    allowed: f64,
    max: usize,
}

impl CallLimit {
    /// Starts at `max` calls.
    pub fn new(max: usize) -> CallLimit {
        let max = max.max(1);
        CallLimit {
            allowed: max as f64,
            max,
        }
    }

    /// The number of calls that are allowed now.
    pub fn calls_max(&self) -> usize {
        self.allowed as usize
    }

    /// Raises the limit a little: the service has accepted a whole call.
    pub fn raise(&mut self) {
        self.allowed = (self.allowed + 1.0 / self.allowed).min(self.max as f64);
    }

    /// Halves the limit: the service is overloaded.
    pub fn halve(&mut self) {
        self.allowed = (self.allowed / 2.0).max(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_falls_at_once_and_rises_slowly() {
        let mut limit = CallLimit::new(16);
        assert_eq!(limit.calls_max(), 16);
        limit.raise();
        assert_eq!(limit.calls_max(), 16);
        limit.halve();
        assert_eq!(limit.calls_max(), 8);
        for _ in 0..9 {
            limit.raise();
        }
        assert_eq!(limit.calls_max(), 9);
        for _ in 0..10 {
            limit.halve();
        }
        assert_eq!(limit.calls_max(), 1);
    }
}
