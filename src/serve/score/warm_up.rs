//! Evaluates recorded requests before the first real one, to load code and data into
//! memory.

use anyhow::{Result, bail};

use crate::serve::score::evaluator::{Buffers, Evaluator};
use crate::stage::Stage;
use crate::stream::address::Address;
use crate::stream::cursor::Cursor;
use crate::stream::input::Input;
use crate::wire::message::Record;

/// Evaluates the requests in a file. Fails if the model cannot evaluate a single one.
pub fn warm_up(path: &Address, evaluator: &Evaluator, stage: &mut Stage) -> Result<()> {
    let input = Input::open(path, false)?;
    if !input.is_file() {
        bail!("{path}: is not a regular file; --warm-up reads only those");
    }
    let mut cursor = Cursor::new(input, stage.line_bytes_max);
    let mut buffers = Buffers::default();
    let mut evaluated = 0u64;
    while !cursor.is_done() {
        cursor.read()?;
        stage.report_faults(cursor.take_faults())?;
        while let Some(line) = cursor.next_line() {
            let bytes = line.record().ok().flatten();
            let record = bytes.and_then(|bytes| Record::parse(bytes).ok());
            let model_input = record.as_ref().and_then(|record| record.model_input().ok());
            let outcome = model_input.map(|input| evaluator.predict(&mut buffers, input));
            evaluated += u64::from(matches!(outcome, Some(Ok(_))));
        }
    }
    if evaluated == 0 {
        bail!("{path}: has no request that the model can evaluate");
    }
    Ok(())
}
