//! An address, and the connections that come to it.

use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::serve::request::http::connections::{Connection, Connections, Place};
use crate::serve::request::http::front::Front;
use crate::serve::request::http::watched::Watched;
use crate::stage::usage;

/// The largest head of a call, in bytes; a larger one gets 431. The buffer of a
/// connection grows to about as much.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How many connections may wait in the kernel to be accepted.
const BACKLOG: u32 = 4096;

/// The address that a flag names.
pub fn address(flag: &str, text: &str) -> Result<SocketAddr> {
    let mut addresses = text.to_socket_addrs().map_err(|error| {
        usage(format!(
            "{flag} {text}: {error}; it has the form HOST:PORT, as in 127.0.0.1:8000"
        ))
    })?;
    addresses
        .next()
        .ok_or_else(|| usage(format!("{flag} {text}: no such host")))
}

/// Begins to listen.
pub fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("cannot listen at {address}"))
}

/// Accepts connections and has `answer` answer their calls, until it is told to
/// stop; then those that the kernel has accepted already are still served.
pub async fn accept<Answer, Answering>(
    listener: TcpListener,
    front: Rc<Front>,
    connections: Rc<Connections>,
    stop: Rc<Notify>,
    answer: Answer,
) where
    Answer: Fn(Rc<Front>, Rc<Connections>, Rc<Connection>, Request<Incoming>) -> Answering,
    Answer: Copy + 'static,
    Answering: Future<Output = Response<Full<Bytes>>> + 'static,
{
    let begin = async |stream| {
        let place = connections.admit().await;
        let service_place = (Rc::clone(&connections), Rc::clone(&place.connection));
        let service_front = Rc::clone(&front);
        let front = Rc::clone(&front);
        spawn_local(serve(front, stream, place, move |request| {
            let (connections, connection) = service_place.clone();
            answer(Rc::clone(&service_front), connections, connection, request)
        }));
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.notified() => break,
        };
        match accepted {
            Ok((stream, _)) => begin(stream).await,
            Err(error) => {
                // Out of descriptors, or a client that has gone already. Trying
                // again at once would use up the processor.
                front.warn("accept", format!("cannot accept a connection: {error}"));
                sleep(Duration::from_millis(20)).await;
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

/// Serves one connection to its end.
async fn serve<Answer, Answering>(front: Rc<Front>, stream: TcpStream, place: Place, answer: Answer)
where
    Answer: Fn(Request<Incoming>) -> Answering,
    Answering: Future<Output = Response<Full<Bytes>>>,
{
    let _ = stream.set_nodelay(true);
    let watched = Watched::new(stream, Rc::clone(&place.connection));
    let service = service_fn(|request| {
        let answering = answer(request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        // The connections of a listener are timed together.
        .header_read_timeout(None)
        // Answers are short: one piece is cheaper to send than two.
        .writev(false)
        // `max_buf_size` alone lets a head pass that is whole in the buffer.
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(watched), service);
    // A client that goes away or sends no HTTP is its own affair.
    let is_malformed = http.await.is_err_and(|error| error.is_parse());
    if is_malformed || place.connection.was_malformed() {
        place.count_malformed();
        front.count();
    }
}
