//! Completes or removes the files that a killed run has left in the folder. The next run
//! does this at its start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Result;
use rustix::fs::OFlags;

use crate::observe::archive::closed_part::ClosedPart;
use crate::observe::archive::file_id::FileId;
use crate::observe::archive::folder::{ArchiveFolder, rename_new, sync_folder};
use crate::stage::Stage;
use crate::stream::archives::{
    FileKind, RecordedFile, end_of_last_line, names, not_opened, path_of, refuse_irregular,
};
use crate::wire::micros::Micros;

/// The result of a recovery.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The parts that contain records, in order. Each was cut to whole lines.
    pub parts: Vec<ClosedPart>,
    /// The number of bytes of torn lines that were cut off.
    pub discarded_bytes: u64,
}

/// Removes unfinished compressions, and parts whose complete files exist. Cuts every
/// other part after its last whole line. Reports files that it cannot handle, and leaves
/// them unchanged. `folder` is locked, so no other run uses it. New ids get the time
/// `now`.
pub fn recover(stage: &mut Stage, folder: &mut ArchiveFolder, now: Micros) -> Result<Recovered> {
    let mut recovered = Recovered::default();
    for name in names(folder.path())? {
        let path = folder.path().join(&name);
        match FileKind::of(&name) {
            Some(FileKind::Unfinished(id)) if FileId::parse(id).is_some() => {
                if let Err(error) = fs::remove_file(&path) {
                    let message = format!("{}: cannot remove: {error}", path.display());
                    stage.report.damaged(&message)?;
                }
            }
            Some(FileKind::Part(text)) => {
                let Some(id) = FileId::parse(text) else {
                    continue;
                };
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

/// Handles one part. The error is the reason why it cannot be read or changed.
fn recover_part(
    stage: &mut Stage,
    folder: &mut ArchiveFolder,
    id: FileId,
    now: Micros,
    recovered: &mut Recovered,
) -> io::Result<()> {
    let path = path_of(folder.path(), FileKind::Part(&id.to_string()));
    let file = open_part(&path)?;
    let length = file.metadata()?.len();
    let kept = end_of_last_line(&file, length)?;
    let shown = path.display();
    let complete = path_of(folder.path(), FileKind::Complete(&id.to_string()));
    let has_complete = fs::symlink_metadata(&complete).is_ok();
    if has_complete && is_same(&file, kept, &complete) {
        // The killed run may not have synced the new name.
        sync_folder(folder.path())?;
        return fs::remove_file(&path);
    }
    if kept < length {
        file.set_len(kept)?;
        recovered.discarded_bytes += length - kept;
        stage.report.warn(&format!(
            "{shown}: dropped {} bytes of a line that was not completely written",
            length - kept
        ));
    }
    if kept == 0 {
        return fs::remove_file(&path);
    }
    // The killed run may not have synced the whole file.
    file.sync_all()?;
    stage.report.warn(&format!(
        "{shown}: recovering {kept} bytes of an earlier run"
    ));
    let mut part = ClosedPart::recovered(id);
    if has_complete {
        // Another file has the name of this part's complete file.
        part.id = folder.next_id(now).map_err(io::Error::other)?;
        let new = path_of(folder.path(), FileKind::Part(&part.id.to_string()));
        rename_new(&path, &new)?;
        sync_folder(folder.path())?;
        let message = format!(
            "{}: holds other records than {shown} and is left unchanged; the records of {shown} get \
             the name {}",
            complete.display(),
            part.id
        );
        stage.report.damaged(&message).map_err(io::Error::other)?;
    }
    recovered.parts.push(part);
    Ok(())
}

/// Opens a part for reading and cutting. Fails if it is a link or not a regular file.
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

/// Whether a complete file holds exactly the first `length` bytes of a part.
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
