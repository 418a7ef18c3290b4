//! The processes that an earlier run has left.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;

use crate::stage::Stage;
use crate::up::holder::{HOLDER, SUPERVISOR};
use crate::up::process::{self, Process};
use crate::up::run_folder::RunFolder;

/// How long a stage that an earlier run has left may take to end after SIGTERM.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(5);

/// Ends the processes that an earlier run has left because its supervisor and its holder
/// were killed.
pub fn end_leftovers(run: &RunFolder, stage: &mut Stage) -> Result<()> {
    let mut left = Vec::new();
    let notes = fs::read_dir(run.path("processes"));
    for note in notes.into_iter().flatten().flatten() {
        let name = note.file_name().to_string_lossy().into_owned();
        if let Some(process) = note.path().to_str().and_then(process::noted) {
            left.push((name, process));
        }
    }
    for (name, process) in &left {
        if [HOLDER, SUPERVISOR].contains(&name.as_str()) {
            process.signal(Signal::KILL);
        }
    }
    // The front end first, the archives last, as in an orderly end.
    let order = |name: &str| match name {
        HOLDER | SUPERVISOR => 0,
        "front" => 1,
        "tee" => 2,
        "rendezvous" => 4,
        "decided" | "decisions" | "archive" | "elasticsearch" => 5,
        _ => 3,
    };
    for turn in 1..=5 {
        let these = left.iter().filter(|(name, _)| order(name) == turn);
        let these: Vec<&Process> = these.map(|(_, process)| process).collect();
        end_processes(&these, stage)?;
    }
    Ok(())
}

/// Ends processes with SIGTERM, and by force those that have not ended in time.
fn end_processes(processes: &[&Process], stage: &mut Stage) -> Result<()> {
    for process in processes {
        process.signal_group(Signal::TERM);
    }
    let until = Instant::now() + LEFTOVER_PATIENCE;
    loop {
        let open: Vec<_> = { processes.iter() }.filter(|it| !it.has_ended()).collect();
        if open.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            for process in open {
                process.signal_group(Signal::KILL);
            }
            return Ok(());
        }
        let streams = open.iter().map(|process| {
            let flags = rustix::event::PollFlags::IN;
            (process.readiness(), flags)
        });
        let streams: Vec<_> = streams.collect();
        crate::stage::wait::wait(&streams, &mut stage.signals, Some(until))?;
    }
}

/// Whether a holder runs for this folder. Another command may have the lock for a moment,
/// because it looks, too; so one refusal is no proof.
pub fn is_held(run: &RunFolder) -> bool {
    (0..3).all(|_| has_lock(run))
}

fn has_lock(run: &RunFolder) -> bool {
    Path::new(&run.path("holder.lock")).exists()
        && run.lock("holder.lock").is_ok_and(|it| it.is_none())
}
