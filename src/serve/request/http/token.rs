//! The bearer token that calls have to bring.

use std::cell::RefCell;
use std::fmt;
use std::fs;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A secret, kept and compared as its hash, so that a comparison takes the same
/// time whatever the lengths; and in constant time, so that it says nothing of the
/// hash either.
pub struct Token([u8; 32]);

impl Token {
    /// Reads the token from a file, without the white space around it.
    pub fn read(path: &str) -> Result<Token> {
        let text = fs::read_to_string(path).with_context(|| format!("{path}: cannot read"))?;
        let token = text.trim();
        if token.is_empty() {
            bail!("{path}: holds no token; write one into it, as with `openssl rand -hex 32`");
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!(
                "{path}: holds no token: only one line of visible ASCII characters without \
                 spaces can be sent in a header"
            );
        }
        Ok(Token(Sha256::digest(token.as_bytes()).into()))
    }

    /// Whether an `Authorization` header brings the token.
    pub fn is_in(&self, header: Option<&[u8]>) -> bool {
        let Some((scheme, given)) = header.and_then(|header| header.split_at_checked(7)) else {
            return false;
        };
        let hash: [u8; 32] = Sha256::digest(given.trim_ascii()).into();
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(hash.ct_eq(&self.0))
    }
}

/// Who may call: everybody, or who has the token that is in a file.
#[derive(Debug)]
pub struct Access {
    token: Option<(String, RefCell<Token>)>,
}

impl Access {
    /// Reads the token, where there is one.
    pub fn new(token_file: Option<&str>) -> Result<Access> {
        let token = match token_file {
            Some(path) => Some((path.to_owned(), RefCell::new(Token::read(path)?))),
            None => None,
        };
        Ok(Access { token })
    }

    /// Whether calls need a token.
    pub fn asks(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a call with this `Authorization` header may be answered.
    pub fn allows(&self, header: Option<&[u8]>) -> bool {
        let token = self.token.as_ref();
        token.is_none_or(|(_, token)| token.borrow().is_in(header))
    }

    /// Reads the file again; where that fails, the old token stays. Returns the
    /// path, or `None` where there is no token.
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
    fn only_the_token_itself_is_let_in() {
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
    fn a_file_that_holds_no_token_is_refused_and_the_old_token_stays() {
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
