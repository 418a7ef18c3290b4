//! The bearer token that calls have to bring.

use std::fmt;
use std::fs;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// A secret, kept and compared as its hash: the time that a comparison takes
/// says nothing of where two tokens differ.
pub struct Token([u8; 32]);

impl Token {
    /// Reads the token from a file, without the white space around it.
    pub fn read(path: &str) -> Result<Token> {
        let text = fs::read_to_string(path).with_context(|| format!("{path}: cannot read"))?;
        let token = text.trim();
        if token.is_empty() {
            bail!("{path}: holds no token; write one into it, as with `openssl rand -hex 32`");
        }
        Ok(Token(Sha256::digest(token.as_bytes()).into()))
    }

    /// Whether an `Authorization` header brings the token.
    pub fn is_in(&self, header: Option<&[u8]>) -> bool {
        let Some((scheme, given)) = header.and_then(|header| header.split_at_checked(7)) else {
            return false;
        };
        let hash: [u8; 32] = Sha256::digest(given.trim_ascii()).into();
        scheme.eq_ignore_ascii_case(b"bearer ") && hash == self.0
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
    fn an_empty_file_is_no_token() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Token::read(file.path().to_str().unwrap()).is_err());
    }
}
