//! The certificates that a client trusts.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use reqwest::tls::Certificate;

use crate::stage::exit::usage;

/// Installs the cryptography that HTTP clients need. Call this before a client is built.
pub fn install_provider() {
    // An error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The certificates that a client trusts instead of the system's: those in `ca_file`, or
/// none if no call uses TLS; `None` for those of the system.
pub fn trusted_only(ca_file: Option<&Path>, any_tls: bool) -> Result<Option<Vec<Certificate>>> {
    match ca_file {
        Some(path) => certificates(path).map(Some),
        // Without this, a machine without certificates could not use HTTP.
        None if !any_tls => Ok(Some(Vec::new())),
        None => Ok(None),
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let shown = path.display();
    let text = fs::read(path).with_context(|| format!("{shown}: cannot read"))?;
    let found = Certificate::from_pem_bundle(&text)
        .map_err(|error| usage(format!("{shown}: no certificates in PEM: {error}")))?;
    if found.is_empty() {
        return Err(usage(format!("{shown}: holds no certificate")));
    }
    Ok(found)
}
