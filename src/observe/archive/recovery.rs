//! What a run that was killed has left in the folder, made whole at the start of
//! the next.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use crate::observe::archive::folder::sync;
use crate::observe::archive::names::Id;
use crate::observe::archive::publisher::Closed;
use crate::stage::Stage;
use crate::wire::recording::{Kind, end_of_last_line, names, path_of};

/// What was found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The parts with records in them, in order, cut to whole lines.
    pub parts: Vec<Closed>,
    /// How many bytes of torn lines were cut off.
    pub discarded_bytes: u64,
}

/// Removes what is half done or done twice, and cuts each part at the end of its
/// last whole line. Only for who holds the folder's lock.
pub fn recover(stage: &Stage, folder: &Path) -> Result<Recovered> {
    let mut recovered = Recovered::default();
    for name in names(folder)? {
        let path = folder.join(&name);
        let shown = path.display();
        match Kind::of(&name) {
            Some(Kind::Unfinished(id)) if Id::parse(id).is_some() => remove(&path)?,
            Some(Kind::Part(text)) => {
                let Some(id) = Id::parse(text) else { continue };
                if path_of(folder, Kind::Complete(text)).exists() {
                    // The killed run may not have come to sync the new name.
                    sync(folder).with_context(|| format!("{}: cannot sync", folder.display()))?;
                    remove(&path)?;
                    continue;
                }
                let (kept, cut) =
                    cut_torn_line(&path).with_context(|| format!("{shown}: cannot recover"))?;
                recovered.discarded_bytes += cut;
                if cut > 0 {
                    stage.report.warn(&format!(
                        "{shown}: dropped {cut} bytes of a line that was not written to its end"
                    ));
                }
                if kept == 0 {
                    remove(&path)?;
                    continue;
                }
                stage.report.warn(&format!(
                    "{shown}: recovering {kept} bytes that an earlier run has left"
                ));
                recovered.parts.push(Closed {
                    id,
                    recovered: true,
                });
            }
            _ => {}
        }
    }
    Ok(recovered)
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("{}: cannot remove", path.display()))
}

/// Shortens a file to the end of its last whole line. Returns the bytes kept and
/// the bytes cut.
fn cut_torn_line(path: &Path) -> io::Result<(u64, u64)> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let whole = end_of_last_line(&file, length)?;
    if whole < length {
        file.set_len(whole)?;
    }
    // It may hold what the killed run had not synced yet.
    file.sync_all()?;
    Ok((whole, length - whole))
}
