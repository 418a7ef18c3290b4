//! The credentials for the service. Credentials are read from files or the environment,
//! and are never shown.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine;
use clap::Args;
use reqwest::header::HeaderValue;

use crate::stage::usage;

const PASSWORD_VARIABLE: &str = "RV_ES_PASSWORD";
const API_KEY_VARIABLE: &str = "RV_ES_API_KEY";

/// The flags for the credentials.
#[derive(Args, Clone, Debug, Default)]
pub struct Credentials {
    /// Log in as NAME
    #[arg(long, value_name = "NAME", conflicts_with = "api_key_file")]
    pub user: Option<String>,

    /// Read the password of --user from FILE
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,

    /// Log in with the (encoded) API key in FILE
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
}

impl Credentials {
    /// Reads the credentials and makes the login header; `None` without credentials.
    /// The header is marked as sensitive, so that it is never printed.
    pub fn header(&self) -> Result<Option<HeaderValue>> {
        let text = if let Some(user) = &self.user {
            if user.contains(':') {
                return Err(usage("--user may not hold a colon"));
            }
            let Some(password) = secret(self.password_file.as_deref(), PASSWORD_VARIABLE)? else {
                return Err(usage(format!(
                    "--user needs a password, in {PASSWORD_VARIABLE} or --password-file"
                )));
            };
            let pair = format!("{user}:{password}");
            let pair = base64::engine::general_purpose::STANDARD.encode(pair);
            format!("Basic {pair}")
        } else if let Some(key) = secret(self.api_key_file.as_deref(), API_KEY_VARIABLE)? {
            format!("ApiKey {key}")
        } else {
            return Ok(None);
        };
        let Ok(mut value) = HeaderValue::from_str(&text) else {
            bail!("the API key holds characters that cannot be sent");
        };
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Reads a secret from its file, or from the environment if no file is given.
fn secret(path: Option<&Path>, variable: &str) -> Result<Option<String>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "canary\n").unwrap();
        let key = Credentials {
            api_key_file: Some(path.clone()),
            ..Credentials::default()
        };
        let header = key.header().unwrap().unwrap();
        assert_eq!(header.as_bytes(), b"ApiKey canary");
        assert!(!format!("{header:?} {key:?}").contains("canary"));
        let basic = Credentials {
            user: Some("me".to_owned()),
            password_file: Some(path.clone()),
            api_key_file: None,
        };
        let header = basic.header().unwrap().unwrap();
        assert_eq!(header.as_bytes(), b"Basic bWU6Y2FuYXJ5");
        fs::write(&path, "\n").unwrap();
        assert!(key.header().is_err());
    }
}
