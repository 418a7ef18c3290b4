//! A fake model server that does what a test tells it to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What the server does with a call.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// Answers with a status and a body.
    Answer(u16, String),
    /// Answers with a status and a body after a while.
    Slow(Duration, String),
    /// Writes these bytes and closes the connection.
    Raw(Vec<u8>),
    /// Writes these bytes and keeps the connection open for the next call.
    RawAndKeep(Vec<u8>),
    /// Writes these bytes again and again.
    Endless(Vec<u8>),
    /// Keeps the connection open and never answers.
    Stall,
    /// Closes the connection without a byte.
    Close,
}

/// A call as the server has got it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The request line and the headers, in lower case.
    pub head: String,
    pub body: String,
    /// The number of earlier calls on the same connection.
    pub earlier: usize,
}

/// What the server has seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub calls: Mutex<Vec<Call>>,
    pub connections: AtomicUsize,
    pub now: AtomicUsize,
    pub most: AtomicUsize,
}

/// A running server. Its threads end with the test program.
#[derive(Debug)]
pub struct ModelServer {
    pub address: String,
    pub seen: Arc<Seen>,
}

impl ModelServer {
    /// A server on a free port.
    pub fn start(react: impl Fn(&Call) -> Reaction + Send + Sync + 'static) -> ModelServer {
        ModelServer::start_at("127.0.0.1:0", react)
    }

    pub fn start_at(
        address: &str,
        react: impl Fn(&Call) -> Reaction + Send + Sync + 'static,
    ) -> ModelServer {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let react = Arc::new(react);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (react, seen) = (Arc::clone(&react), Arc::clone(&shared));
                thread::spawn(move || serve(&stream, &*react, &seen));
            }
        });
        ModelServer { address, seen }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.seen.calls.lock().unwrap().clone()
    }
}

/// Serves one connection.
fn serve(stream: &TcpStream, react: &dyn Fn(&Call) -> Reaction, seen: &Seen) {
    let mut reader = BufReader::new(stream);
    let mut earlier = 0;
    while let Some(call) = read_call(&mut reader, earlier) {
        earlier += 1;
        seen.calls.lock().unwrap().push(call.clone());
        let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most.fetch_max(now, Ordering::SeqCst);
        let goes_on = answer(stream, react(&call));
        seen.now.fetch_sub(1, Ordering::SeqCst);
        if !goes_on {
            return;
        }
    }
}

fn read_call(reader: &mut BufReader<&TcpStream>, earlier: usize) -> Option<Call> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.to_lowercase();
    let length = length.split("content-length: ").nth(1)?;
    let mut body = vec![0; length.split('\r').next()?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Call {
        head,
        body: String::from_utf8(body).ok()?,
        earlier,
    })
}

/// Returns whether the connection goes on.
fn answer(mut stream: &TcpStream, reaction: Reaction) -> bool {
    let whole = |status: u16, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nLocation: /other\r\n\r\n{body}")
    };
    match reaction {
        Reaction::Answer(status, body) => stream.write_all(whole(status, &body).as_bytes()).is_ok(),
        Reaction::Slow(time, body) => {
            thread::sleep(time);
            stream.write_all(whole(200, &body).as_bytes()).is_ok()
        }
        Reaction::Raw(bytes) => {
            let _ = stream.write_all(&bytes);
            false
        }
        Reaction::RawAndKeep(bytes) => stream.write_all(&bytes).is_ok(),
        Reaction::Endless(bytes) => {
            while stream.write_all(&bytes).is_ok() {}
            false
        }
        Reaction::Stall => {
            // Until the client gives up.
            let _ = stream.read(&mut [0]);
            false
        }
        Reaction::Close => false,
    }
}
