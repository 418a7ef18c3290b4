//! The answer to a head that is none.
//!
//! hyper answers such a head by itself, without a body and without asking anybody.
//! That answer is the last thing that it writes to a connection, so it is known by
//! its form, and takes its body on the way out.

use hyper::StatusCode;

use crate::serve::request::http::listener::HEAD_BYTES_MAX;
use crate::wire::object::ObjectWriter;

/// Where in `bytes`, which are about to be written, hyper's own answer begins, and its
/// status; `None` where they do not end with one. No other answer ends with its head
/// and says that its body is empty.
pub fn own_answer(bytes: &[u8]) -> Option<(usize, StatusCode)> {
    if !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let start = memchr::memmem::rfind(bytes, b"HTTP/1.")?;
    let follows_an_answer = start == 0 || bytes[start - 1] == b'\n';
    let head = &bytes[start..];
    let status = StatusCode::from_bytes(head.get(9..12)?).ok()?;
    let is_refusal = matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::URI_TOO_LONG
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
    let is_empty = memchr::memmem::find(head, EMPTY).is_some();
    (follows_an_answer && is_refusal && is_empty).then_some((start, status))
}

const EMPTY: &[u8] = b"\r\ncontent-length: 0\r\n";

/// hyper's own answer with a body: JSON with an `error`, as every other has it.
pub fn with_body(head: &[u8], status: StatusCode) -> Vec<u8> {
    let error = match status {
        StatusCode::URI_TOO_LONG => "the path of the call is too long".to_owned(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            format!(
                "the head of the call is longer than {HEAD_BYTES_MAX} bytes, or has over 100 headers"
            )
        }
        _ => "the head of the call is not HTTP/1.1".to_owned(),
    };
    let mut body = Vec::new();
    let mut object = ObjectWriter::new(&mut body);
    object.string("error", &error);
    object.end();
    body.push(b'\n');
    let lines = format!(
        "\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    let at = memchr::memmem::find(head, EMPTY).unwrap_or(head.len());
    let rest = head.get(at + EMPTY.len()..).unwrap_or_default();
    [&head[..at], lines.as_bytes(), rest, &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_refusal_at_the_end_takes_a_body() {
        let refusal =
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert_eq!(
            own_answer(refusal.as_bytes()),
            Some((0, StatusCode::BAD_REQUEST))
        );
        let before = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}\n";
        let both = format!("{before}{refusal}");
        assert_eq!(
            own_answer(both.as_bytes()),
            Some((before.len(), StatusCode::BAD_REQUEST))
        );
        let text = with_body(refusal.as_bytes(), StatusCode::BAD_REQUEST);
        let text = String::from_utf8(text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n"));
        assert!(head.ends_with("\r\ndate: x"));
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())));
        assert_eq!(own_answer(text.as_bytes()), None);
        for other in [
            before,
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n",
            "x: HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.\r\n\r\n",
            "",
        ] {
            assert_eq!(own_answer(other.as_bytes()), None, "{other}");
        }
    }
}
