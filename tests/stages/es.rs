//! A service that accepts `_bulk` calls and keeps the documents.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Answers every call with success. Ends with the test's process.
pub struct FakeService {
    address: String,
    /// The documents by id, in the order in which each first arrived.
    documents: Arc<Mutex<Documents>>,
}

#[derive(Default)]
struct Documents {
    order: Vec<String>,
    by_id: BTreeMap<String, String>,
}

impl FakeService {
    pub fn start() -> FakeService {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let documents = Arc::new(Mutex::new(Documents::default()));
        let shared = Arc::clone(&documents);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        FakeService { address, documents }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The indexed documents, each once.
    pub fn documents(&self) -> Vec<String> {
        let documents = self.documents.lock().unwrap();
        let of = |id: &String| documents.by_id[id].clone();
        documents.order.iter().map(of).collect()
    }

    pub fn ids(&self) -> Vec<String> {
        self.documents.lock().unwrap().order.clone()
    }
}

fn serve(stream: TcpStream, documents: &Mutex<Documents>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut length = 0;
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let is_question = line.starts_with("GET ");
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        if is_question {
            let reply = r#"{"version":{"number":"8.0.0"}}"#;
            if write_reply(&mut writer, reply).is_err() {
                return;
            }
            continue;
        }
        let body = String::from_utf8(body).unwrap();
        assert!(body.ends_with('\n'), "a bulk body ends with a newline");
        let lines: Vec<&str> = body.lines().collect();
        let mut items = Vec::new();
        for pair in lines.chunks(2) {
            let action = crate::harness::json(pair[0]);
            let id = action["index"]["_id"].as_str().unwrap().to_owned();
            items.push(format!(r#"{{"index":{{"_id":"{id}","status":201}}}}"#));
            let mut documents = documents.lock().unwrap();
            if documents
                .by_id
                .insert(id.clone(), pair[1].to_owned())
                .is_none()
            {
                documents.order.push(id);
            }
        }
        let reply = format!(
            r#"{{"took":1,"errors":false,"items":[{}]}}"#,
            items.join(",")
        );
        if write_reply(&mut writer, &reply).is_err() {
            return;
        }
    }
}

fn write_reply(writer: &mut TcpStream, reply: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        reply.len()
    );
    writer.write_all((head + reply).as_bytes())
}
