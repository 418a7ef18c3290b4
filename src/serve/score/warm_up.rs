//! Evaluates recorded requests before the first real one, to load code and data into
//! memory.

use std::time::Instant;

use anyhow::{Result, bail};
use rustix::event::PollFlags;

use crate::serve::score::engine::{Engine, Finished};
use crate::stage::wait::wait;
use crate::stage::{EndedEarly, Stage};
use crate::stream::address::Address;
use crate::stream::cursor::Cursor;
use crate::stream::input::Input;

/// Evaluates the requests in a file, and drops their scores. Fails if the model cannot
/// evaluate a single one.
pub fn warm_up(path: &Address, engine: &mut dyn Engine, stage: &mut Stage) -> Result<()> {
    let input = Input::open(path, false)?;
    if !input.is_file() {
        bail!("{path}: is not a regular file; --warm-up reads only those");
    }
    engine.set_warming_up(true);
    let mut cursor = Cursor::new(input, stage.line_bytes_max);
    let mut finished = Finished::default();
    let mut evaluated = 0u64;
    while !cursor.is_done() {
        cursor.read()?;
        stage.report_faults(cursor.take_faults())?;
        while let Some(line) = cursor.next_line() {
            let Ok(Some(record)) = line.record() else {
                continue;
            };
            loop {
                // This time is read before the check. It cannot pass in between.
                let due = engine.due();
                if engine.has_room() {
                    break;
                }
                take_finished(engine, stage, &mut finished, due)?;
            }
            engine.submit(record, &line, &mut finished)?;
            evaluated += take_results(&mut finished);
        }
    }
    while !engine.is_idle() {
        engine.flush()?;
        let due = engine.due();
        take_finished(engine, stage, &mut finished, due)?;
        evaluated += take_results(&mut finished);
    }
    engine.set_warming_up(false);
    if evaluated == 0 {
        bail!("{path}: has no request that the model can evaluate");
    }
    Ok(())
}

/// Takes the finished requests. If there are none, waits until the engine may have
/// finished one, at most until `due`.
fn take_finished(
    engine: &mut dyn Engine,
    stage: &mut Stage,
    finished: &mut Finished,
    due: Option<Instant>,
) -> Result<()> {
    let has_finished = engine.collect(finished)?;
    for message in engine.take_messages() {
        message.print(&mut stage.report);
    }
    if let Some(stop) = stage.signals.stop() {
        return Err(EndedEarly::Signal(stop).into());
    }
    if !has_finished {
        let readiness = engine.readiness().into_iter();
        let streams: Vec<_> = readiness.map(|fd| (fd, PollFlags::IN)).collect();
        wait(&streams, &mut stage.signals, due)?;
    }
    Ok(())
}

/// Drops the finished requests. Returns the number of results among them.
fn take_results(finished: &mut Finished) -> u64 {
    std::mem::take(finished).results
}
