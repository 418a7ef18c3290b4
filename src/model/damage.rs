//! Damages files, for the tests of everything that loads one.

use std::time::{Duration, Instant};

use proptest::prelude::Rng;
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// Texts that are inserted into a file at random places to damage it.
const PIECES: [&str; 18] = [
    "-1",
    "0",
    "1e999",
    "-0.0",
    "NaN",
    "null",
    "true",
    "[",
    "]",
    "{",
    "}",
    "\"",
    ",",
    "=",
    "\n",
    "4294967295",
    "9223372036854775808",
    "\u{0}",
];

/// Calls `check` with damaged copies of `whole` until the time in RV_FUZZ_SECONDS is
/// over. The default is one second. The seed is RV_FUZZ_SEED, or 1 if the variable is
/// not set.
pub fn fuzz(whole: &str, mut check: impl FnMut(&str)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seconds: u64 = number("RV_FUZZ_SECONDS").unwrap_or(1);
    let config = Config {
        rng_seed: RngSeed::Fixed(number("RV_FUZZ_SEED").unwrap_or(1)),
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let random = runner.rng();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0u64;
    while Instant::now() < end {
        check(&damaged(whole, random));
        count += 1;
    }
    println!("{count} damaged files");
}

/// A copy of `whole` with one to eight changes: a byte, a piece, a part that is removed,
/// repeated or moved, or the end cut off.
fn damaged(whole: &str, random: &mut impl Rng) -> String {
    let mut bytes = whole.as_bytes().to_vec();
    let below = |limit: usize, random: &mut dyn Rng| random.next_u64() as usize % limit.max(1);
    for _ in 0..1 + below(8, random) {
        let at = below(bytes.len(), random);
        let end = (at + below(40, random)).min(bytes.len());
        match below(12, random) {
            0..4 => {
                let piece = PIECES[below(PIECES.len(), random)];
                bytes.splice(at..end.min(at + below(6, random)), piece.bytes());
            }
            4..7 if at < bytes.len() => bytes[at] = below(256, random) as u8,
            7 => drop(bytes.drain(at..end)),
            8 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            9..11 => {
                let part: Vec<u8> = bytes.drain(at..end).collect();
                let to = below(bytes.len(), random);
                bytes.splice(to..to, part);
            }
            _ => bytes.truncate(bytes.len() - below(bytes.len() / 8, random)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
