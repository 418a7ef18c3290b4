//! SHA-256 in hexadecimal digits, whole and short.

use sha2::{Digest, Sha256};

/// The SHA-256 of `content` (FIPS 180-4), in 64 lower-case hexadecimal digits.
pub fn sha256_hex(content: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(content))
}

/// Bytes in lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of `text` as records show it: the first 16 digits of its SHA-256.
pub fn short_hash(text: &str) -> String {
    shorten(&sha256_hex(text))
}

/// The first 16 of the digits of a SHA-256.
pub fn shorten(sha256: &str) -> String {
    sha256.chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_the_standards_example_is_right() {
        assert_eq!(
            sha256_hex("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(short_hash("abc"), "ba7816bf8f01cfea");
    }
}
