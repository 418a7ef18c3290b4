//! Evaluates recorded requests before the first real one, to load code and data into
//! memory.

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
            while !engine.has_room() {
                take_finished(engine, stage, &mut finished)?;
            }
            engine.submit(record, &line, &mut finished)?;
            evaluated += take_results(&mut finished);
        }
    }
    while !engine.is_idle() {
        engine.flush()?;
        take_finished(engine, stage, &mut finished)?;
        evaluated += take_results(&mut finished);
    }
    engine.set_warming_up(false);
    if evaluated == 0 {
        bail!("{path}: has no request that the model can evaluate");
    }
    Ok(())
}

/// Waits until the engine has finished a request, and takes the finished ones.
fn take_finished(
    engine: &mut dyn Engine,
    stage: &mut Stage,
    finished: &mut Finished,
) -> Result<()> {
    loop {
        let has_finished = engine.collect(finished)?;
        for message in engine.take_messages() {
            message.print(&mut stage.report);
        }
        if has_finished {
            return Ok(());
        }
        if let Some(stop) = stage.signals.stop() {
            return Err(EndedEarly::Signal(stop).into());
        }
        let readiness = engine.readiness().into_iter();
        let streams: Vec<_> = readiness.map(|fd| (fd, PollFlags::IN)).collect();
        wait(&streams, &mut stage.signals, engine.due())?;
    }
}

/// Drops the finished requests. Returns the number of results among them.
fn take_results(finished: &mut Finished) -> u64 {
    std::mem::take(finished).results
}
