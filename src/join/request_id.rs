//! The id of a request with its hash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::wire::text::Text;

/// The seed of the hashes of a recording. A fixed seed gives the same output for the
/// same input.
pub const RECORDING_SEED: u64 = 0;

/// The hash of an id.
pub fn hash_id(id: &str, seed: u64) -> u64 {
    xxh3_64_with_seed(id.as_bytes(), seed)
}

/// The id of a recorded request, and its hash with [`RECORDING_SEED`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// The hash, so that no map has to compute it again.
    pub hash: u64,
    /// The id, decoded.
    pub text: Text,
}

impl Hash for RequestId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A map by id.
pub type ById<T> = HashMap<RequestId, T, BuildHasherDefault<KeepHash>>;

/// A hasher for keys that are already hashes.
#[derive(Debug, Default)]
pub struct KeepHash(u64);

impl Hasher for KeepHash {
    fn write(&mut self, bytes: &[u8]) {
        // A `RequestId` already has a hash and does not call this function. Any other
        // key is hashed here.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
