//! The bodies of calls, in every form that clients send: with a byte order mark, in gzip,
//! over several lines, on connections that are half closed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::harness::eventually;
use crate::http::{Client, Reply, await_pipeline, calls_with, front_end, pipes};
use crate::http_plain::{result, start_pipeline};

fn gzip(content: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::best();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn post(address: &str, headers: &str, body: &[u8]) -> Reply {
    let mut client = Client::connect(address);
    let length = body.len();
    client.send(format!(
        "POST /predict HTTP/1.1\r\nhost: {address}\r\n{headers}content-length: {length}\r\n\r\n"
    ));
    client.send(body);
    client.reply()
}

#[test]
fn a_byte_order_mark_is_skipped_and_gzip_is_decoded_within_the_limit() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &["--max-body", "1MiB", "--max-bodies", "4MiB"]);
    let (_pipeline, came) = start_pipeline(&workdir, |_| Some(result("1")));
    await_pipeline(&mut Client::connect(&address));
    while came.try_recv().is_ok() {}
    let row = b"{\"a\": 1.10}";
    let marked = [b"\xef\xbb\xbf", &row[..]].concat();
    for (headers, body) in [
        ("", row.to_vec()),
        ("", marked.clone()),
        ("content-encoding: identity\r\n", row.to_vec()),
        ("content-encoding: gzip\r\n", gzip(row)),
        ("content-encoding: gzip\r\n", gzip(&marked)),
    ] {
        assert_eq!(post(&address, headers, &body).status, 200, "{headers}");
        let request = came.recv().unwrap();
        assert!(
            request.contains("\"modelInput\":{\"a\": 1.10}"),
            "{request}"
        );
    }
    // A bomb: 200 MB of spaces in 200 KB.
    let bomb = gzip(&vec![b' '; 200 << 20]);
    assert!(bomb.len() < 1 << 20);
    for _ in 0..8 {
        assert_eq!(
            post(&address, "content-encoding: gzip\r\n", &bomb).status,
            413
        );
    }
    let damaged = post(&address, "content-encoding: gzip\r\n", row);
    assert_eq!(damaged.status, 400);
    let brotli = post(&address, "content-encoding: br\r\n", row);
    assert_eq!(
        (brotli.status, brotli.header("accept-encoding")),
        (415, Some("gzip"))
    );
    assert!(brotli.json()["error"].is_string());
    // The memory of refused bodies is released.
    assert_eq!(post(&address, "", row).status, 200);
}

#[test]
fn an_error_in_a_body_has_its_line_and_byte() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &[]);
    let reply = post(&address, "", b"{\n  \"a\": 5.1,\n  \"b\": 0.2,\n}\n");
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.json()["error"],
        "not JSON: key must be a string at line 4, byte 27"
    );
}

/// The bytes that come after the writing side was shut.
fn half_closed(address: &str, call: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.write_all(call.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut came = String::new();
    stream.read_to_string(&mut came).unwrap();
    came
}

#[test]
fn a_client_that_has_shut_its_writing_side_gets_its_answers() {
    let workdir = pipes();
    let (_running, address) = front_end(&workdir, &[]);
    let (_pipeline, _came) = start_pipeline(&workdir, |_| {
        std::thread::sleep(Duration::from_millis(20));
        Some(result("1"))
    });
    await_pipeline(&mut Client::connect(&address));
    let call =
        format!("POST /predict HTTP/1.1\r\nhost: {address}\r\ncontent-length: 2\r\n\r\n{{}}");
    let close = call.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    let old = call.replacen("1.1", "1.0", 1);
    let two = call.repeat(2);
    for (call, answers) in [(&call, 1), (&close, 1), (&old, 1), (&two, 2)] {
        for _ in 0..5 {
            let came = half_closed(&address, call);
            assert_eq!(
                came.matches(" 200 OK\r\n").count(),
                answers,
                "{call} {came}"
            );
        }
    }
    let after = eventually(|| (calls_with(&workdir, 200) >= 25).then_some(()));
    assert!(after.is_some());
    // A body that ends too soon is an error, as before.
    let cut = call.replace("content-length: 2", "content-length: 3");
    assert!(!half_closed(&address, &cut).contains(" 200 OK"));
}
