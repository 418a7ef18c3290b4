//! Writes a model file: to a stream, or to a file that is replaced atomically.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::stage::Stage;
use crate::stream::address::Address;
use crate::stream::output::Output;

/// Writes a model file. An existing file at `address` is replaced as a whole, and stays
/// unchanged on an error.
pub fn write(stage: &mut Stage, address: &Address, text: String) -> Result<()> {
    let path = address.as_str();
    let metadata = fs::metadata(path);
    let is_stream = *address == Address::Standard
        || metadata.as_ref().is_ok_and(|metadata| !metadata.is_file());
    if is_stream {
        if metadata.is_ok_and(|metadata| metadata.is_dir()) {
            bail!("{path}: is a directory; give the path of a file");
        }
        let mut output = Output::open(address)?;
        stage.write_all(&mut output, &mut text.into_bytes())?;
        return stage.close(&mut output);
    }
    // A symbolic link stays a link. The file that it points to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    let mut new = target.clone().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &target)
    });
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.with_context(|| format!("{path}: cannot write the model"))?;
    // Syncing the folder makes the new name survive a power cut. If this fails, the
    // file is still complete.
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => ".".as_ref(),
    };
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}
