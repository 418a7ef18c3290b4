//! A time limit for a unit test that runs threads: one that hangs fails with its
//! name.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How long such a test may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test, and fails where it panics or does not end in time.
pub fn in_time(test: impl FnOnce() + Send + 'static) {
    in_time_of(PATIENCE, test);
}

fn in_time_of(patience: Duration, test: impl FnOnce() + Send + 'static) {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (done, outcome) = mpsc::channel();
    let running = thread::Builder::new().name(name.clone()).spawn(move || {
        test();
        let _ = done.send(());
    });
    match outcome.recv_timeout(patience) {
        Ok(()) => {}
        Err(RecvTimeoutError::Disconnected) => {
            // It panicked: with its own words.
            if let Err(panic) = running.unwrap().join() {
                std::panic::resume_unwind(panic);
            }
        }
        Err(RecvTimeoutError::Timeout) => panic!("{name} has not ended in {patience:?}"),
    }
}

#[test]
fn what_hangs_or_panics_fails() {
    in_time(|| ());
    let fails = |patience, test: fn()| {
        let caught = std::panic::catch_unwind(move || in_time_of(patience, test));
        let panic = caught.unwrap_err();
        panic.downcast_ref::<String>().cloned().unwrap_or_default()
    };
    let hung = fails(Duration::from_millis(50), || thread::sleep(PATIENCE));
    assert!(
        hung.contains("what_hangs_or_panics_fails has not ended"),
        "{hung}"
    );
    assert_eq!(fails(PATIENCE, || panic!("{}", "no")), "no");
}
