//! What commands print, and how they fail.

use anyhow::{Result, anyhow};

use crate::stage::{Stage, usage};
use crate::stream::address::Address;
use crate::stream::output::Output;
use crate::up::control::Reply;

/// Writes a text to standard output.
pub fn print(text: &str, stage: &mut Stage) -> Result<()> {
    let mut bytes = text.as_bytes().to_vec();
    let mut output = Output::open(&Address::Standard)?;
    stage.write_all(&mut output, &mut bytes)?;
    stage.close(&mut output)
}

/// The text of an answer; the fault if the command has failed.
pub fn succeeded(reply: Reply) -> Result<String> {
    match (reply.ok, reply.usage) {
        (true, _) => Ok(reply.text),
        (false, true) => Err(usage(reply.text)),
        (false, false) => Err(anyhow!("{}", reply.text)),
    }
}
