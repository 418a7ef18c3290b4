//! Secrets, from files or the environment.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine;
use reqwest::header::HeaderValue;

use crate::stage::exit::usage;

/// Reads a secret from its file, or from the environment if no file is given.
pub fn secret(path: Option<&Path>, variable: &str) -> Result<Option<String>> {
    let (place, text) = match path {
        Some(path) => {
            let text = fs::read_to_string(path);
            let shown = path.display();
            (
                shown.to_string(),
                text.with_context(|| format!("{shown}: cannot read"))?,
            )
        }
        None => match std::env::var(variable) {
            Ok(text) => (variable.to_owned(), text),
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(usage(format!("{variable}: is not UTF-8")));
            }
        },
    };
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(usage(format!("{place}: is empty")));
    }
    Ok(Some(text.to_owned()))
}

/// The header of a login with the password from `path` or the environment.
pub fn basic_login(user: &str, path: Option<&Path>, variable: &str) -> Result<HeaderValue> {
    if user.contains(':') {
        return Err(usage("--user may not hold a colon"));
    }
    let Some(password) = secret(path, variable)? else {
        return Err(usage(format!(
            "--user needs a password, in {variable} or --password-file"
        )));
    };
    let pair = format!("{user}:{password}");
    let pair = base64::engine::general_purpose::STANDARD.encode(pair);
    login(&format!("Basic {pair}"))
}

/// A login header. It is marked as sensitive, so that it is never printed.
pub fn login(text: &str) -> Result<HeaderValue> {
    let Ok(mut value) = HeaderValue::from_str(text) else {
        bail!("the secret for the login holds characters that cannot be sent");
    };
    value.set_sensitive(true);
    Ok(value)
}
