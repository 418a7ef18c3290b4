//! The bearer token of calls, and its check.

use std::cell::RefCell;
use std::fmt;
use std::fs;

use anyhow::{Context, Result, bail};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::serve::request::http::answer::{HttpAnswer, unauthorized};

/// A secret token, kept as its hash. Hashes have equal lengths and are compared in
/// constant time, so the time of a comparison reveals nothing about the token.
struct Token([u8; 32]);

impl Token {
    /// Reads the token from a file, and strips the white space around it.
    fn read(path: &str) -> Result<Token> {
        let text = fs::read_to_string(path).with_context(|| format!("{path}: cannot read"))?;
        let token = text.trim();
        if token.is_empty() {
            bail!("{path}: holds no token; write one with `openssl rand -hex 32 > {path}`");
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!(
                "{path}: holds no token: a token is one line of visible ASCII characters \
                 without spaces"
            );
        }
        Ok(Token(Sha256::digest(token.as_bytes()).into()))
    }

    /// Whether an `Authorization` header holds the token.
    fn is_in(&self, header: Option<&[u8]>) -> bool {
        let Some((scheme, given)) = header.and_then(|header| header.split_at_checked(7)) else {
            return false;
        };
        let hash: [u8; 32] = Sha256::digest(given.trim_ascii()).into();
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(hash.ct_eq(&self.0))
    }
}

/// The callers that are allowed: all clients, or only clients that send the token.
#[derive(Debug)]
pub struct Access {
    /// The path of the file and the token in it; `None` allows all clients.
    token: Option<(String, RefCell<Token>)>,
}

impl Access {
    /// Reads the token from `token_file`; `None` allows all clients. Fails if the
    /// file does not contain a token.
    pub fn new(token_file: Option<&str>) -> Result<Access> {
        let token = match token_file {
            Some(path) => Some((path.to_owned(), RefCell::new(Token::read(path)?))),
            None => None,
        };
        Ok(Access { token })
    }

    /// Whether calls need a token.
    pub fn needs_token(&self) -> bool {
        self.token.is_some()
    }

    /// Checks the `Authorization` header of a call. The error is the answer to a call
    /// without the token.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Box<HttpAnswer>> {
        let authorization = headers.get(AUTHORIZATION);
        if self.allows(authorization.map(HeaderValue::as_bytes)) {
            return Ok(());
        }
        Err(Box::new(unauthorized()))
    }

    fn allows(&self, authorization: Option<&[u8]>) -> bool {
        let token = self.token.as_ref();
        token.is_none_or(|(_, token)| token.borrow().is_in(authorization))
    }

    /// Reads the file again. Returns its path, or `None` if calls need no token. If
    /// this fails, the old token stays valid.
    pub fn reload(&self) -> Result<Option<&str>> {
        let Some((path, token)) = &self.token else {
            return Ok(None);
        };
        *token.borrow_mut() = Token::read(path)?;
        Ok(Some(path))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_accepted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "s3cret\n").unwrap();
        let token = Token::read(file.path().to_str().unwrap()).unwrap();
        assert!(token.is_in(Some(b"Bearer s3cret")));
        assert!(token.is_in(Some(b"bearer  s3cret")));
        for wrong in ["Bearer s3cre", "Bearer ", "Basic s3cret", "s3cret", ""] {
            assert!(!token.is_in(Some(wrong.as_bytes())), "{wrong}");
        }
        assert!(!token.is_in(None));
        assert!(!format!("{token:?}").contains("s3cret"));
    }

    #[test]
    fn a_file_without_a_token_is_refused_and_the_old_token_stays_valid() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        fs::write(&file, "first").unwrap();
        let access = Access::new(Some(path)).unwrap();
        for bad in ["", " \n", "one\ntwo", "two words", "caf\u{e9}"] {
            fs::write(&file, bad).unwrap();
            assert!(Token::read(path).is_err(), "{bad:?}");
            assert!(access.reload().is_err(), "{bad:?}");
            assert!(access.allows(Some(b"Bearer first")), "{bad:?}");
        }
        fs::write(&file, "second").unwrap();
        assert_eq!(access.reload().unwrap(), Some(path));
        assert!(!access.allows(Some(b"Bearer first")));
        assert!(access.allows(Some(b"Bearer second")));
    }
}
