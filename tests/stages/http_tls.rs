//! rv-request with HTTPS, and rv-score with a server behind HTTPS.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::{Running, Workdir, eventually, json, request, stat};
use crate::http::{pipes, start_doubling};

/// Makes an authority `ca.pem`, and for each word a certificate of the service with its
/// key: `WORD.pem` and `WORD.key`. The certificate of `expired` expires at once.
const MAKE: &str = r#"
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "$@"; }
new -x509 -keyout ca.key -out ca.pem -days 30 -subj /CN=ca \
  -addext basicConstraints=critical,CA:TRUE
echo 'subjectAltName=DNS:localhost,IP:127.0.0.1' > names
for name; do
  days=30
  test "$name" != expired || days=0
  new -keyout "$name.key" -out "$name.csr" -subj "/CN=$name"
  openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial \
    -days "$days" -extfile names -out "$name.pem"
done
"#;

/// A folder with the two pipes and with these certificates.
fn certified(names: &[&str]) -> Workdir {
    let workdir = pipes();
    let run = workdir.shell(&format!("set -e\n{MAKE}")).arg("sh");
    run.args(names).succeeds();
    workdir
}

/// Starts the front end with the pair `cert.pem` and `key.pem`. Returns its address.
fn front_end(workdir: &Workdir, flags: &[&str]) -> (Running, String) {
    let run = workdir.run("rv-request").args(["--listen", "127.0.0.1:0"]);
    let run = run.args(["--responses", "responses", "-o", "requests"]);
    let run = run.args(["--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
    let running = run.args(["--stats", "stats.json"]).args(flags).start();
    let said = running.says("listening at https://");
    let address = said.rsplit_once("https://").unwrap().1.to_owned();
    (running, address)
}

/// Puts the pair of this name into place.
fn install(workdir: &Workdir, name: &str) {
    for (from, to) in [("pem", "cert.pem"), ("key", "key.pem")] {
        std::fs::copy(workdir.path(&format!("{name}.{from}")), workdir.path(to)).unwrap();
    }
}

/// Calls with curl, which trusts the authority. Returns the exit status and the output.
fn curl(workdir: &Workdir, flags: &[&str]) -> (i32, String) {
    let run = workdir.shell("exec curl --silent --show-error --max-time 30 \"$@\"");
    let run = run.args(["sh", "--cacert", "ca.pem"]).args(flags);
    let finished = run.finish();
    (finished.status, finished.stdout().to_owned())
}

/// A connection through TLS that stays open.
struct Secure {
    /// The `Host` header of its calls.
    host: String,
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Secure {
    fn connect(workdir: &Workdir, address: &str) -> Secure {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(workdir, "ca.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        Secure {
            host: address.to_owned(),
            stream: StreamOwned::new(session, stream),
        }
    }

    /// The status line and the headers of the answer to a call without a body.
    fn get(&mut self, path: &str) -> String {
        let host = &self.host;
        let call = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        self.stream.write_all(call.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}\n") {
            let mut piece = [0; 4096];
            let count = self.stream.read(&mut piece).unwrap();
            assert!(count > 0, "the connection has ended");
            answer.extend_from_slice(&piece[..count]);
        }
        String::from_utf8(answer).unwrap()
    }

    /// The certificate that the service has shown.
    fn shown(&self) -> Vec<u8> {
        let shown = self.stream.conn.peer_certificates().unwrap();
        shown[0].to_vec()
    }
}

fn certificate(workdir: &Workdir, name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(workdir.path(name)).unwrap()
}

#[test]
fn https_serves_clients_that_trust_its_authority() {
    let workdir = certified(&["a"]);
    install(&workdir, "a");
    let (running, address) = front_end(&workdir, &["--plain", "/classify"]);
    start_doubling(&workdir);
    let (_, port) = address.rsplit_once(':').unwrap();
    let url = |path: &str| format!("https://localhost:{port}{path}");
    let called = eventually(|| {
        let (status, said) = curl(&workdir, &["-d", r#"{"n":21}"#, &url("/classify")]);
        assert_eq!(status, 0);
        (said == "42").then_some(())
    });
    assert!(called.is_some());
    // Each version of TLS, and a client that would rather speak HTTP/2 or HTTP/1.0.
    for flags in [
        &["--tls-max", "1.2"][..],
        &["--tlsv1.3"],
        &["--http2"],
        &["--http1.0"],
    ] {
        let more = ["--write-out", "%{http_version}", "-d", r#"{"n":1}"#];
        let (status, said) = curl(&workdir, &[flags, &more, &[&*url("/classify")]].concat());
        let version = if flags == ["--http1.0"] { "1" } else { "1.1" };
        assert_eq!((status, said), (0, format!("2{version}")), "{flags:?}");
    }
    // A long body and a long answer.
    let body = format!(r#"{{"n":1,"long":"{}"}}"#, "x".repeat(900_000));
    workdir.write("body", &body);
    let (status, said) = curl(&workdir, &["-d", "@body", &url("/predict")]);
    assert_eq!((status, &json(&said)["modelInput"]), (0, &json(&body)));
    // A client of another library.
    let script = "import ssl, sys, urllib.request as r; \
                  c = ssl.create_default_context(cafile='ca.pem'); \
                  print(r.urlopen(sys.argv[1], b'{\"n\":4}', context=c).read().decode())";
    let run = workdir.shell("exec python3 -c \"$@\"").args(["sh", script]);
    assert_eq!(run.arg(url("/classify")).succeeds().lines(), ["8"]);
    // A client that does not trust the authority, and one that speaks only HTTP/2.
    let strange = workdir.shell("exec curl --silent \"$0\"").arg(url("/ping"));
    assert_eq!(strange.finish().status, 60);
    running.says("a TLS handshake has failed");
    let script = "import socket, ssl, sys; c = ssl.create_default_context(cafile='ca.pem'); \
                  c.set_alpn_protocols(['h2']); \
                  c.wrap_socket(socket.create_connection(('127.0.0.1', sys.argv[1])), \
                                server_hostname='localhost')";
    let run = workdir.shell("exec python3 -c \"$@\"").args(["sh", script]);
    let refused = run.arg(port).exits(1);
    let alert = "alert no application protocol";
    assert!(refused.stderr.contains(alert), "{refused}");
    // A client without TLS learns what to do.
    let plain = format!("http://{address}/ping");
    let (_, said) = curl(&workdir, &["--write-out", "%{http_code}", &plain]);
    assert!(said.contains("https://") && said.ends_with("400"), "{said}");
    running.signal(Signal::TERM);
    running.wait().assert_status(0);
    assert_eq!(stat(&workdir, "stats.json", "failedHandshakes"), 2);
    assert_eq!(stat(&workdir, "stats.json", "malformed"), 1);
}

#[test]
fn sighup_takes_a_new_pair_and_a_bad_one_leaves_the_old_one() {
    let workdir = certified(&["a", "b", "expired"]);
    install(&workdir, "a");
    let (running, address) = front_end(&workdir, &[]);
    let mut first = Secure::connect(&workdir, &address);
    assert!(first.get("/ping").contains("200 OK"));
    assert_eq!(first.shown(), certificate(&workdir, "a.pem").to_vec());
    let said = |text: &str| running.said().matches(text).count();
    let hang_up = |text: &str| {
        let before = said(text);
        running.signal(Signal::HUP);
        let heard = eventually(|| (said(text) > before).then_some(()));
        assert!(heard.is_some(), "{text}: {}", running.said());
    };
    install(&workdir, "b");
    hang_up("cert.pem and key.pem: read again");
    let shows_b = || {
        let mut secure = Secure::connect(&workdir, &address);
        assert!(secure.get("/ping").contains("200 OK"));
        assert_eq!(secure.shown(), certificate(&workdir, "b.pem").to_vec());
    };
    shows_b();
    // The open connection keeps its certificate and goes on.
    assert!(first.get("/ping").contains("200 OK"));

    let (cert, key) = (workdir.read("b.pem"), workdir.read("b.key"));
    let bad: [(&str, &str, &str); 7] = [
        (&cert, &workdir.read("a.key"), "is not the key of the first"),
        (&cert[..cert.len() / 2], &key, "cert.pem: "),
        (
            &cert,
            &key[..key.len() / 2],
            "key.pem: holds no private key",
        ),
        ("", &key, "holds no certificate"),
        (&key, &key, "holds no certificate"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
            "cannot be used",
        ),
        (&cert, &cert, "holds no private key"),
    ];
    for (cert, key, reason) in bad {
        workdir.write("cert.pem", cert);
        workdir.write("key.pem", key);
        let before = said(reason);
        hang_up("the old certificate and key stay in use");
        assert!(said(reason) > before, "{reason}: {}", running.said());
        shows_b();
    }
    std::fs::remove_file(workdir.path("key.pem")).unwrap();
    install(&workdir, "b");
    std::fs::remove_file(workdir.path("cert.pem")).unwrap();
    hang_up("cert.pem: cannot read");
    shows_b();
    assert!(first.get("/ping").contains("200 OK"));

    // What is unwise is done and said.
    install(&workdir, "expired");
    let warned = eventually(|| {
        running.signal(Signal::HUP);
        (said("the certificate has expired") > 0).then_some(())
    });
    assert!(warned.is_some(), "{}", running.said());
    assert_eq!(said("can read the key"), 0);
    workdir.shell("chmod o+r key.pem").succeeds();
    hang_up("all users of this machine can read the key; run `chmod o= key.pem`");
    let secret = workdir.read("b.key");
    for line in secret.lines().filter(|line| !line.starts_with('-')) {
        assert_eq!(said(line), 0);
    }
}

#[test]
fn a_pair_that_cannot_be_used_is_refused_before_it_listens() {
    let workdir = certified(&["a", "b"]);
    for (cert, key, status, reason) in [
        ("a.pem", "b.key", 2, "is not the key"),
        ("ca.key", "a.key", 2, "holds no certificate"),
        ("missing", "a.key", 3, "missing: cannot read"),
    ] {
        let run = workdir.run("rv-request").args(["--listen", "127.0.0.1:0"]);
        let run = run.args(["--responses", "responses", "-o", "requests"]);
        let said = run
            .args(["--tls-cert", cert, "--tls-key", key])
            .exits(status);
        assert!(said.stderr.contains(reason), "{said}");
    }
    let run = workdir.run("rv-request").args(["--listen", "127.0.0.1:0"]);
    let run = run.args(["--responses", "responses", "-o", "requests"]);
    let said = run.args(["--tls-cert", "a.pem"]).exits(2);
    assert!(said.stderr.contains("--tls-key"), "{said}");
}

#[test]
fn a_client_that_does_not_finish_its_handshake_is_let_go_and_makes_room() {
    let workdir = certified(&["a"]);
    install(&workdir, "a");
    let flags = ["--header-timeout", "1s", "--max-connections", "4"];
    let (running, address) = front_end(&workdir, &flags);
    for begin in [&b""[..], &[22], &[22, 3, 1, 2, 0, 1, 0]] {
        let mut silent: Vec<TcpStream> = (0..4)
            .map(|_| {
                let mut stream = TcpStream::connect(&address).unwrap();
                stream.write_all(begin).unwrap();
                stream
            })
            .collect();
        // The fifth client is served, though four connections are open.
        let mut secure = Secure::connect(&workdir, &address);
        assert!(secure.get("/ping").contains("200 OK"));
        for stream in &mut silent {
            let patience = Some(Duration::from_secs(60));
            stream.set_read_timeout(patience).unwrap();
            match stream.read(&mut [0]) {
                Ok(0) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                other => panic!("{other:?}"),
            }
        }
    }
    running.signal(Signal::TERM);
    running.wait().assert_status(0);
    let count = |name| stat(&workdir, "stats.json", name);
    assert!(count("timedOut") >= 9, "{}", count("timedOut"));
    assert!(count("shed") >= 1);
}

#[test]
fn a_secure_client_that_never_reads_its_answers_is_let_go() {
    let workdir = certified(&["a"]);
    install(&workdir, "a");
    let (running, address) = front_end(&workdir, &["--write-timeout", "1s"]);
    let mut deaf = Secure::connect(&workdir, &address);
    let patience = Some(Duration::from_millis(200));
    deaf.stream.sock.set_write_timeout(patience).unwrap();
    let calls = format!("GET /ping HTTP/1.1\r\nhost: {address}\r\n\r\n").repeat(1000);
    while deaf.stream.write_all(calls.as_bytes()).is_ok() {}
    assert!(
        Secure::connect(&workdir, &address)
            .get("/ping")
            .contains("200")
    );
    let let_go = eventually(|| {
        let error = deaf.stream.sock.write(b"x").err()?;
        let gone = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        gone.contains(&error.kind()).then_some(())
    });
    assert!(let_go.is_some(), "a client that does not read is kept");
    running.signal(Signal::TERM);
    running.wait().assert_status(0);
}

#[test]
fn a_secure_client_that_has_shut_its_writing_side_still_gets_its_answer() {
    let workdir = certified(&["a"]);
    install(&workdir, "a");
    let (_running, address) = front_end(&workdir, &["--plain", "/classify"]);
    start_doubling(&workdir);
    for says_so in [true, false] {
        let answered = eventually(|| {
            let mut secure = Secure::connect(&workdir, &address);
            let call = format!(
                "POST /classify HTTP/1.1\r\nhost: {address}\r\ncontent-length: 7\r\n\r\n{{\"n\":4}}"
            );
            secure.stream.write_all(call.as_bytes()).unwrap();
            // With or without the message of TLS that no more data will come.
            if says_so {
                secure.stream.conn.send_close_notify();
            }
            secure.stream.flush().unwrap();
            secure.stream.sock.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            secure.stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 "), "{says_so}: {answer:?}");
            answer.ends_with("\r\n\r\n8").then_some(())
        });
        assert!(answered.is_some(), "{says_so}");
    }
}

#[test]
fn an_inherited_socket_serves_https_too() {
    let workdir = certified(&["a"]);
    install(&workdir, "a");
    let holder = "import os, socket, sys; held = socket.create_server(('127.0.0.1', 0)); \
                  os.dup2(held.fileno(), 3); os.set_inheritable(3, True); os.environ['LISTEN_FDS'] = '1'; \
                  os.execv(sys.argv[1], sys.argv[1:])";
    let run = workdir.shell("exec python3 -c \"$@\"").args(["sh", holder]);
    let run = run.arg(crate::harness::program("rv-request"));
    let run = run.args(["--listen", "127.0.0.1:1", "--responses", "responses"]);
    let run = run.args([
        "-o",
        "requests",
        "--tls-cert",
        "cert.pem",
        "--tls-key",
        "key.pem",
    ]);
    let running = run.start();
    let said = running.says("listening at https://");
    let address = said.rsplit_once("https://").unwrap().1;
    assert!(
        Secure::connect(&workdir, address)
            .get("/ping")
            .contains("200 OK")
    );
}

#[test]
fn a_model_server_behind_https_is_called_with_its_authority() {
    let workdir = certified(&["a"]);
    let server = "import http.server, ssl, threading\n\
        class Model(http.server.BaseHTTPRequestHandler):\n\
        \x20   protocol_version = 'HTTP/1.1'\n\
        \x20   def do_POST(self):\n\
        \x20       body = self.rfile.read(int(self.headers['content-length']))\n\
        \x20       self.send_response(200)\n\
        \x20       self.send_header('content-length', str(len(body)))\n\
        \x20       self.end_headers()\n\
        \x20       self.wfile.write(body)\n\
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
        context.load_cert_chain('a.pem', 'a.key')\n\
        def start(host, port):\n\
        \x20   server = http.server.ThreadingHTTPServer((host, port), Model)\n\
        \x20   server.socket = context.wrap_socket(server.socket, server_side=True)\n\
        \x20   threading.Thread(target=server.serve_forever).start()\n\
        \x20   return server.server_port\n\
        port = start('127.0.0.1', 0)\n\
        start('127.0.0.2', port)\n\
        print(port, flush=True)\n";
    let run = workdir.shell("exec python3 -c \"$0\"").arg(server);
    let mut running = run.start();
    let port = running.line();
    let score = |host: &str, flags: &[&str]| {
        let url = format!("https://{host}:{}/classify", port.trim());
        let run = workdir.run("rv-score").args(["--url", &url]);
        let run = run.args(["--protocol", "json", "--name", "m", "--model-version", "1"]);
        let finished = run.args(flags).input(request("a")).succeeds();
        json(finished.stdout())
    };
    let trusted = score("localhost", &["--ca-file", "ca.pem"]);
    assert_eq!(trusted["result"]["result"], trusted["modelInput"]);
    for (host, flags) in [
        // The certificate does not name this host.
        ("127.0.0.2", &["--ca-file", "ca.pem"][..]),
        ("localhost", &["--ca-file", "a.pem"]),
    ] {
        let score = score(host, flags);
        let message = score["error"]["message"].as_str().unwrap();
        assert!(message.contains("certificate"), "{host}: {message}");
    }
}
