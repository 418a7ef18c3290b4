//! What a run that was killed has left in the folder, made whole at the start of
//! the next.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Result;
use rustix::fs::OFlags;

use crate::observe::archive::folder::{Folder, rename_new, sync};
use crate::observe::archive::names::Id;
use crate::observe::archive::publisher::Closed;
use crate::stage::Stage;
use crate::stream::archives::{
    Kind, RecordedFile, end_of_last_line, names, not_opened, path_of, refuse_irregular,
};
use crate::wire::micros::Micros;

/// What was found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The parts with records in them, in order, cut to whole lines.
    pub parts: Vec<Closed>,
    /// How many bytes of torn lines were cut off.
    pub discarded_bytes: u64,
}

/// Removes what is half done or done twice, and cuts each part at the end of its
/// last whole line. What it cannot deal with is told, and left as it is. Only for
/// who holds the folder's lock. `now` is for names.
pub fn recover(stage: &mut Stage, folder: &mut Folder, now: Micros) -> Result<Recovered> {
    let mut recovered = Recovered::default();
    for name in names(folder.path())? {
        let path = folder.path().join(&name);
        match Kind::of(&name) {
            Some(Kind::Unfinished(id)) if Id::parse(id).is_some() => {
                if let Err(error) = fs::remove_file(&path) {
                    let message = format!("{}: cannot remove: {error}", path.display());
                    stage.report.damaged(&message)?;
                }
            }
            Some(Kind::Part(text)) => {
                let Some(id) = Id::parse(text) else { continue };
                if let Err(error) = recover_part(stage, folder, id, now, &mut recovered) {
                    let message = format!("{}: {}", path.display(), not_opened(&error));
                    stage.report.damaged(&message)?;
                }
            }
            _ => {}
        }
    }
    Ok(recovered)
}

/// Takes over one part. An error is what is wrong with it.
fn recover_part(
    stage: &mut Stage,
    folder: &mut Folder,
    id: Id,
    now: Micros,
    recovered: &mut Recovered,
) -> io::Result<()> {
    let path = path_of(folder.path(), Kind::Part(&id.to_string()));
    let file = open_part(&path)?;
    let length = file.metadata()?.len();
    let kept = end_of_last_line(&file, length)?;
    let shown = path.display();
    let complete = path_of(folder.path(), Kind::Complete(&id.to_string()));
    let has_complete = fs::symlink_metadata(&complete).is_ok();
    if has_complete && is_same(&file, kept, &complete) {
        // The killed run may not have come to sync the new name.
        sync(folder.path())?;
        return fs::remove_file(&path);
    }
    if kept < length {
        file.set_len(kept)?;
        recovered.discarded_bytes += length - kept;
        stage.report.warn(&format!(
            "{shown}: dropped {} bytes of a line that was not written to its end",
            length - kept
        ));
    }
    if kept == 0 {
        return fs::remove_file(&path);
    }
    // It may hold what the killed run had not synced yet.
    file.sync_all()?;
    stage.report.warn(&format!(
        "{shown}: recovering {kept} bytes that an earlier run has left"
    ));
    let mut closed = Closed::recovered(id);
    if has_complete {
        // Its name is another file's.
        closed.id = folder.next_id(now).map_err(io::Error::other)?;
        let new = path_of(folder.path(), Kind::Part(&closed.id.to_string()));
        rename_new(&path, &new)?;
        sync(folder.path())?;
        stage.report.damaged(&format!(
            "{}: is not made of {shown}, and is left as it is; the records of that get the name {}",
            complete.display(),
            closed.id
        )).map_err(io::Error::other)?;
    }
    recovered.parts.push(closed);
    Ok(())
}

/// Opens a part for reading and for cutting it. What is no file of its own is not
/// touched.
fn open_part(path: &Path) -> io::Result<File> {
    refuse_irregular(&fs::symlink_metadata(path)?)?;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    refuse_irregular(&file.metadata()?)?;
    Ok(file)
}

/// Whether a complete file holds the first `length` bytes of a part, and no more.
fn is_same(part: &File, length: u64, complete: &Path) -> bool {
    let Ok(complete) = RecordedFile::Complete(complete.to_owned()).open() else {
        return false;
    };
    let mut part = part.take(length);
    same_bytes(&mut part, complete).unwrap_or(false)
}

fn same_bytes(one: &mut impl Read, mut other: impl Read) -> io::Result<bool> {
    let mut expected = vec![0; 64 * 1024];
    let mut found = vec![0; expected.len()];
    loop {
        let count = match one.read(&mut expected) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        if count == 0 {
            return Ok(other.read(&mut found)? == 0);
        }
        match other.read_exact(&mut found[..count]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        if expected[..count] != found[..count] {
            return Ok(false);
        }
    }
}
