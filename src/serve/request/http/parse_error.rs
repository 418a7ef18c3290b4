//! JSON bodies for hyper's answers to calls that hyper cannot parse.
//!
//! If headers are invalid, hyper itself sends an answer without a body. This answer is
//! the last one on its connection. The client's stream recognises such an answer by its
//! form and adds a body.

use hyper::StatusCode;

use crate::serve::request::http::answer::error_body;

/// The largest request line and headers of a call, in bytes; larger ones get 431. The
/// buffer of a connection grows to about this size.
pub const HEADERS_BYTES_MAX: usize = 64 * 1024;

const NO_BODY: &[u8] = b"\r\ncontent-length: 0\r\n";

/// Every answer of the front end has this header, and hyper's own answer has not.
const CONTENT_TYPE: &[u8] = b"\r\ncontent-type:";

/// Finds hyper's own answer at the end of `bytes`, which are about to be written. Returns
/// its start and its status. No other answer has one of these statuses, an empty body,
/// and no content type. The refusal of a model may have such a status and an empty body.
pub fn find_own_answer(bytes: &[u8]) -> Option<(usize, StatusCode)> {
    if !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let start = memchr::memmem::rfind(bytes, b"HTTP/1.")?;
    let follows_an_answer = start == 0 || bytes[start - 1] == b'\n';
    let headers = &bytes[start..];
    let status = StatusCode::from_bytes(headers.get(9..12)?).ok()?;
    let is_parse_error = matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::URI_TOO_LONG
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
    let has = |header| memchr::memmem::find(headers, header).is_some();
    let is_own = is_parse_error && has(NO_BODY) && !has(CONTENT_TYPE);
    (follows_an_answer && is_own).then_some((start, status))
}

/// Adds a JSON body with an `error` to hyper's own answer, which consists of `headers`
/// alone.
pub fn with_body(headers: &[u8], status: StatusCode) -> Vec<u8> {
    let message = match status {
        StatusCode::URI_TOO_LONG => "the path of the call is too long".to_owned(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            format!(
                "the headers of the call take more than {HEADERS_BYTES_MAX} bytes, or there are \
                 more than 100 headers"
            )
        }
        _ => "the headers of the call are not HTTP/1.1".to_owned(),
    };
    let body = error_body(&message);
    let lines = format!(
        "\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    let at = memchr::memmem::find(headers, NO_BODY).unwrap_or(headers.len());
    let rest = headers.get(at + NO_BODY.len()..).unwrap_or_default();
    [&headers[..at], lines.as_bytes(), rest, &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_parse_error_at_the_end_gets_a_body() {
        let parse_error =
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert_eq!(
            find_own_answer(parse_error.as_bytes()),
            Some((0, StatusCode::BAD_REQUEST))
        );
        let before = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}\n";
        let both = format!("{before}{parse_error}");
        assert_eq!(
            find_own_answer(both.as_bytes()),
            Some((before.len(), StatusCode::BAD_REQUEST))
        );
        let text = with_body(parse_error.as_bytes(), StatusCode::BAD_REQUEST);
        let text = String::from_utf8(text).unwrap();
        let (headers, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(headers.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n"));
        assert!(headers.ends_with("\r\ndate: x"));
        assert!(headers.contains(&format!("\r\ncontent-length: {}\r\n", body.len())));
        assert_eq!(find_own_answer(text.as_bytes()), None);
        for other in [
            before,
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n",
            "x: HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.\r\n\r\n",
            "",
        ] {
            assert_eq!(find_own_answer(other.as_bytes()), None, "{other}");
        }
    }
}
