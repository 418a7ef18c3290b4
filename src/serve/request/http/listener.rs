//! Accepts connections, and serves each with hyper.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::serve::request::http::answer::{HttpAnswer, close_connection_after, error};
use crate::serve::request::http::client_stream::ClientStream;
use crate::serve::request::http::connection::ClientConnection;
use crate::serve::request::http::connections::{ConnectionSlot, Connections};
use crate::serve::request::http::parse_error::HEADERS_BYTES_MAX;
use crate::serve::request::http::reports::Reports;
use crate::serve::request::http::socket::Socket;
use crate::serve::request::http::tls::Tls;
use crate::serve::request::http::transport::Transport;

/// The number of connections that may wait in the kernel until they are accepted.
const BACKLOG: u32 = 4096;

/// The wait after a connection could not be accepted. Without this wait, a lack of
/// descriptors would use the whole processor.
const WAIT_AFTER_ERROR: Duration = Duration::from_millis(20);

/// Binds `address` and listens. Fails if the address is in use or does not belong to this
/// machine.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let bind = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().with_context(|| format!("cannot listen at {address}"))
}

/// The listening socket that the program has inherited, as `LISTEN_FDS` says. The
/// variable counts if `LISTEN_PID` is absent or names this process. Fails if the first
/// inherited descriptor is not a listening TCP socket.
pub fn inherited() -> Result<Option<TcpListener>> {
    let remedy = "LISTEN_FDS: the inherited descriptor 3 is not a listening TCP socket";
    let socket = ListenFd::from_env().take_tcp_listener(0).context(remedy)?;
    let Some(socket) = socket else {
        return Ok(None);
    };
    if !rustix::net::sockopt::socket_acceptconn(&socket).context(remedy)? {
        bail!("{remedy}");
    }
    socket.set_nonblocking(true).context(remedy)?;
    TcpListener::from_std(socket).context(remedy).map(Some)
}

/// Accepts connections until `stop` is notified, and calls `answer` for each call.
/// Connections that wait in the kernel at that time are still served. With `tls`, only
/// calls through TLS are answered.
pub async fn accept<Handler, Answering>(
    listener: TcpListener,
    connections: Rc<Connections>,
    reports: Rc<Reports>,
    stop: Rc<Notify>,
    tls: Option<Rc<Tls>>,
    answer: Handler,
) where
    Handler: Fn(Rc<ClientConnection>, Request<Incoming>) -> Answering + Clone + 'static,
    Answering: Future<Output = HttpAnswer> + 'static,
{
    let begin = async |stream| {
        let slot = connections.acquire_slot().await;
        let (reports, tls) = (Rc::clone(&reports), tls.clone());
        spawn_local(serve(stream, slot, reports, tls, answer.clone()));
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.notified() => break,
        };
        match accepted {
            Ok((stream, _)) => begin(stream).await,
            Err(error) => {
                reports.warn("accept", format!("cannot accept a connection: {error}"));
                sleep(WAIT_AFTER_ERROR).await;
            }
        }
    }
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok((stream, _)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            begin(stream).await;
        }
    }
}

/// Serves one connection until it ends.
async fn serve<Handler, Answering>(
    stream: TcpStream,
    slot: ConnectionSlot,
    reports: Rc<Reports>,
    tls: Option<Rc<Tls>>,
    answer: Handler,
) where
    Handler: Fn(Rc<ClientConnection>, Request<Incoming>) -> Answering,
    Answering: Future<Output = HttpAnswer>,
{
    let _ = stream.set_nodelay(true);
    let socket = Socket::new(stream, Rc::clone(&slot.connection));
    let transport = match &tls {
        None => Transport::Plain(socket.clone()),
        Some(tls) => match tls.accept(socket.clone(), &slot.connection).await {
            Ok(transport) => transport,
            Err(error) => return report_handshake(&error, &slot, &reports),
        },
    };
    let needs_tls = tls.is_some() && matches!(transport, Transport::Plain(_));
    let client_stream = ClientStream::new(transport, Rc::clone(&slot.connection));
    let service = service_fn(|request| {
        let answering = match needs_tls {
            true => None,
            false => Some(answer(Rc::clone(&slot.connection), request)),
        };
        async move {
            Ok::<_, Infallible>(match answering {
                Some(answering) => answering.await,
                None => https_only(),
            })
        }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        // A client that has shut its writing side still gets its answer.
        .half_close(true)
        // `Connections` times out all connections of a listener.
        .header_read_timeout(None)
        // Answers are short, so it is cheaper to send one buffer than two.
        .writev(false)
        // `max_buf_size` alone accepts longer headers if they arrive in one
        // piece.
        .max_header_size(HEADERS_BYTES_MAX)
        .max_buf_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(client_stream), service);
    // Other errors are not reported: the client has closed the connection.
    let is_parse_error = tokio::select! {
        ended = http => ended.is_err_and(|error| error.is_parse()),
        () = socket.reset() => false,
    };
    if is_parse_error || needs_tls || slot.connection.is_malformed() {
        slot.count_malformed();
        reports.note_count();
    }
}

/// The answer to a call without TLS.
fn https_only() -> HttpAnswer {
    let reason = "this address speaks HTTPS only; call it with https://";
    let mut answer = error(StatusCode::BAD_REQUEST, reason);
    close_connection_after(&mut answer);
    answer
}

/// Counts a handshake that has failed. A client that leaves or is closed before the
/// handshake is not reported.
fn report_handshake(error: &io::Error, slot: &ConnectionSlot, reports: &Reports) {
    if error.kind() == io::ErrorKind::InvalidData {
        slot.count_failed_handshake();
        reports.note_count();
        reports.warn("handshake", format!("a TLS handshake has failed: {error}"));
    }
}
