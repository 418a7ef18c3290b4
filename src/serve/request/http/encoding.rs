//! The encodings of bodies: decodes gzip within a limit.

use std::io::Read;

use flate2::bufread::MultiGzDecoder;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use crate::serve::request::http::answer::{HttpAnswer, bad_request, error};

/// Between two pieces of this size, other calls get their turn.
const PIECE_BYTES: usize = 64 * 1024;

/// The encoding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The body is sent as it is.
    Identity,
    /// The body is compressed with gzip.
    Gzip,
}

/// The encoding that the headers of a call name. The error is a 415 for an encoding that
/// cannot be decoded.
pub fn encoding_of(headers: &HeaderMap) -> Result<Encoding, Box<HttpAnswer>> {
    let mut encoding = Encoding::Identity;
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.as_bytes().split(|byte| *byte == b',') {
            let name = name.trim_ascii().to_ascii_lowercase();
            match (encoding, name.as_slice()) {
                (_, b"" | b"identity") => {}
                (Encoding::Identity, b"gzip" | b"x-gzip") => encoding = Encoding::Gzip,
                _ => return Err(unknown_encoding()),
            }
        }
    }
    Ok(encoding)
}

fn unknown_encoding() -> Box<HttpAnswer> {
    let message = "the encoding of the body is not known; send the body as it is, or in gzip";
    let mut answer = error(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    let gzip = HeaderValue::from_static("gzip");
    answer.headers_mut().insert(ACCEPT_ENCODING, gzip);
    Box::new(answer)
}

/// Decodes a body in gzip. Calls `grow` with each new length before memory is used for
/// the length. The error of `grow` ends the decoding, and so does damage, with a 400.
pub async fn gunzip(
    body: &[u8],
    mut grow: impl FnMut(usize) -> Result<(), Box<HttpAnswer>>,
) -> Result<Vec<u8>, Box<HttpAnswer>> {
    let mut decoder = MultiGzDecoder::new(body);
    let mut decoded = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => return Ok(decoded),
            Ok(count) => {
                grow(decoded.len() + count)?;
                decoded.extend_from_slice(&piece[..count]);
            }
            Err(fault) => {
                let message = format!("the body is not valid gzip: {fault}");
                return Err(bad_request(&message));
            }
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(body: &[u8], bytes_max: usize) -> (Result<Vec<u8>, u16>, usize) {
        let mut longest = 0;
        let grow = |length| {
            longest = length;
            match length > bytes_max {
                true => Err(Box::new(error(StatusCode::PAYLOAD_TOO_LARGE, ""))),
                false => Ok(()),
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread();
        let decoded = { runtime }.build().unwrap().block_on(gunzip(body, grow));
        (decoded.map_err(|answer| answer.status().as_u16()), longest)
    }

    #[test]
    fn a_bomb_stops_at_the_limit_and_damage_is_refused() {
        let content = b"{\"a\": 1}".repeat(20_000);
        assert_eq!(decode(&gzip(&content), 1 << 20).0.unwrap(), content);
        let two = [gzip(b"[1,"), gzip(b"2]")].concat();
        assert_eq!(decode(&two, 100).0.unwrap(), b"[1,2]");
        let (refused, longest) = decode(&gzip(&vec![0; 50 << 20]), 1 << 20);
        assert_eq!(refused, Err(413));
        assert!(longest <= (1 << 20) + PIECE_BYTES, "{longest}");
        let whole = gzip(b"{}");
        for damaged in [&whole[..whole.len() - 1], &whole[..4], b"{}", b""] {
            assert_eq!(decode(damaged, 100).0, Err(400), "{damaged:?}");
        }
    }

    #[test]
    fn only_gzip_is_decoded() {
        for (given, expected) in [
            ("gzip", Some(Encoding::Gzip)),
            ("X-GZIP", Some(Encoding::Gzip)),
            ("identity", Some(Encoding::Identity)),
            ("", Some(Encoding::Identity)),
            ("br", None),
            ("gzip, gzip", None),
            ("deflate, gzip", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(given));
            let found = encoding_of(&headers);
            if let Err(refused) = &found {
                assert_eq!(refused.status(), 415);
                assert_eq!(refused.headers()[ACCEPT_ENCODING], "gzip");
            }
            assert_eq!(found.ok(), expected, "{given}");
        }
    }
}
