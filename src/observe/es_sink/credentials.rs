//! The credentials for the service. Credentials are read from files or the environment,
//! and are never shown.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use reqwest::header::HeaderValue;

use crate::stage::http::secret::{basic_login, login, secret};

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
        if let Some(user) = &self.user {
            let path = self.password_file.as_deref();
            return basic_login(user, path, PASSWORD_VARIABLE).map(Some);
        }
        let key = secret(self.api_key_file.as_deref(), API_KEY_VARIABLE)?;
        key.map(|key| login(&format!("ApiKey {key}"))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
