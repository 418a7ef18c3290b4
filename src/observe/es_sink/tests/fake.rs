//! A service on the loopback that gives the answers that a test chooses.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use flate2::read::GzDecoder;
use serde_json::Value;

/// One call that the service received.
#[derive(Clone, Debug)]
pub struct Call {
    /// The request line and the headers.
    pub head: String,
    /// The body as it was sent, uncompressed.
    pub body: String,
    /// The ids of the documents.
    pub ids: Vec<String>,
    /// The time at which the call was received.
    pub at: Instant,
}

/// The answer of the service to a call.
pub enum Answer {
    /// Status 200, with a status for each record. [`BLOCKED`] and the following
    /// constants stand for a status with an error.
    Items(Vec<u16>),
    /// This status and body for the whole call.
    Whole(u16, &'static str),
    /// These bytes, after which the connection is closed. Without bytes, the
    /// connection is reset.
    Raw(&'static [u8]),
}

/// Stands for status 403 with the error of a read-only index.
pub const BLOCKED: u16 = 1;

/// Stands for status 400 with the error of a data stream, which accepts only `create`.
pub const CREATE_ONLY: u16 = 2;

/// Stands for status 400 with the error of an index that has reached its limit of
/// fields.
pub const TOO_MANY_FIELDS: u16 = 3;

/// Stands for status 201 together with an error.
pub const WELL_BUT: u16 = 4;

/// A service on the loopback. Its thread ends with the tests.
pub struct Fake {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    /// The number of times that each id was answered with 200 or 201.
    indexed: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Fake {
    /// Starts a service. `answer` gets the number of the call, from 0, and the call.
    pub fn start(answer: impl FnMut(usize, &Call) -> Answer + Send + 'static) -> Fake {
        Fake::on(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    /// Like [`start`](Fake::start), on a port that was chosen before.
    pub fn on(
        listener: TcpListener,
        mut answer: impl FnMut(usize, &Call) -> Answer + Send + 'static,
    ) -> Fake {
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let indexed = Arc::new(Mutex::new(BTreeMap::new()));
        let (seen, there) = (Arc::clone(&calls), Arc::clone(&indexed));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(call) = read_call(&stream) else {
                    let _ = stream.write_all(&http(200, ABOUT));
                    continue;
                };
                let number = seen.lock().unwrap().len();
                seen.lock().unwrap().push(call.clone());
                let reply = match answer(number, &call) {
                    Answer::Items(statuses) => {
                        for (id, status) in call.ids.iter().zip(&statuses) {
                            if matches!(status, 200 | 201) {
                                *there.lock().unwrap().entry(id.clone()).or_insert(0) += 1;
                            }
                        }
                        http(200, &items(&statuses))
                    }
                    Answer::Whole(status, body) => http(status, body),
                    Answer::Raw(bytes) => bytes.to_vec(),
                };
                // The sink may have abandoned the call.
                let _ = stream.write_all(&reply);
            }
        });
        Fake {
            address,
            calls,
            indexed,
        }
    }

    /// A service that accepts everything.
    pub fn willing() -> Fake {
        Fake::start(|_, call| Answer::Items(vec![201; call.ids.len()]))
    }

    /// The URL of the service.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// The ids that were indexed exactly once.
    pub fn indexed_once(&self) -> Vec<String> {
        let indexed = self.indexed.lock().unwrap();
        assert!(indexed.values().all(|count| *count == 1), "{indexed:?}");
        indexed.keys().cloned().collect()
    }
}

/// The answer to every `GET`.
const ABOUT: &str = r#"{"version":{"number":"8.0.0"}}"#;

fn items(statuses: &[u16]) -> String {
    let item = |status: &u16| {
        match status {
        // The errors have the form that real services use.
        &BLOCKED => r#"{"index":{"status":403,"error":{"type":"cluster_block_exception","reason":"index [i] blocked"}}}"#.to_owned(),
        &CREATE_ONLY => r#"{"index":{"status":400,"error":{"type":"illegal_argument_exception","reason":"only write ops with an op_type of create are allowed in data streams"}}}"#.to_owned(),
        &TOO_MANY_FIELDS => r#"{"index":{"status":400,"error":{"type":"document_parsing_exception","reason":"failed to parse","caused_by":{"reason":"Limit of total fields [5] has been exceeded"}}}}"#.to_owned(),
        &WELL_BUT => r#"{"index":{"status":201,"error":{"type":"t","reason":"because"}}}"#.to_owned(),
        409 => r#"{"index":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"there"}}}"#.to_owned(),
        200..=299 => format!("{{\"index\":{{\"status\":{status}}}}}"),
        _ => format!(
            "{{\"index\":{{\"status\":{status},\"error\":{{\"type\":\"t{status}\",\"reason\":\"because\"}}}}}}"
        ),
    }
    };
    let items: Vec<String> = statuses.iter().map(item).collect();
    format!("{{\"items\" : [{}]}}", items.join(","))
}

fn http(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Said\r\nConnection: close\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A call of `_bulk`; `None` for a `GET`.
fn read_call(stream: &TcpStream) -> Option<Call> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head:?}");
    }
    if head.starts_with("GET ") {
        return None;
    }
    let plain = head.clone();
    head.make_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length: usize = length.lines().next().unwrap().parse().unwrap();
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent).unwrap();
    let mut body = String::new();
    if head.contains("content-encoding: gzip") {
        GzDecoder::new(&sent[..]).read_to_string(&mut body).unwrap();
    } else {
        body = String::from_utf8(sent).unwrap();
    }
    assert!(body.ends_with('\n'));
    let actions: Vec<Value> = body
        .lines()
        .step_by(2)
        .map(|action| serde_json::from_str(action).unwrap())
        .collect();
    let id = |action: &Value| {
        let target = action.get("index").or(action.get("create")).unwrap();
        target["_id"].as_str().unwrap().to_owned()
    };
    let ids: Vec<String> = actions.iter().map(id).collect();
    assert_eq!(body.lines().count(), 2 * ids.len());
    Some(Call {
        head: plain,
        body,
        ids,
        at: Instant::now(),
    })
}
