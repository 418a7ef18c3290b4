//! The stream of one client: reports the client's reads and writes to its connection, and
//! fails when the connection is closed.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::serve::request::http::connection::{ClientConnection, Phase};
use crate::serve::request::http::parse_error::{find_own_answer, with_body};
use crate::serve::request::http::transport::Transport;

/// After the last answer, the bytes that a client still sends are discarded for at most
/// this long.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The stream of one client. The stream reads calls only while the client reads its
/// answers. Otherwise the answers to a client that only sends would accumulate.
#[derive(Debug)]
pub struct ClientStream {
    stream: Transport,
    connection: Rc<ClientConnection>,
    /// Whether a read waits until the client has read its answers.
    read_is_held_back: bool,
    /// The unsent rest of the answer to invalid headers.
    parse_error: Vec<u8>,
    /// The time until which the client's bytes are discarded. It is set after the last
    /// answer.
    drain_end: Option<Instant>,
}

impl ClientStream {
    /// Wraps `stream`, which belongs to `connection`.
    pub fn new(stream: Transport, connection: Rc<ClientConnection>) -> ClientStream {
        ClientStream {
            stream,
            connection,
            read_is_held_back: false,
            parse_error: Vec::new(),
            drain_end: None,
        }
    }

    fn poll_write_stream(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.go_on_reading(context);
        written
    }

    /// Wakes the reading if it waits, and the client has read its answers.
    fn go_on_reading(&mut self, context: &mut Context<'_>) {
        if self.read_is_held_back && !self.connection.is_write_blocked() {
            self.read_is_held_back = false;
            context.waker().wake_by_ref();
        }
    }

    /// Sends the rest of the answer to invalid headers.
    fn poll_parse_error(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.parse_error.is_empty() {
            let parse_error = std::mem::take(&mut self.parse_error);
            let written = self.poll_write_stream(context, &parse_error);
            self.parse_error = parse_error;
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => drop(self.parse_error.drain(..count)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.connection.check_open(context)?;
        if self.connection.is_write_blocked() {
            self.read_is_held_back = true;
            return Poll::Pending;
        }
        let before = room.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, room))?;
        if room.filled().len() > before {
            self.connection.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.connection.check_open(context)?;
        match find_own_answer(bytes) {
            // The next flush sends the answer.
            Some((0, status)) => {
                self.parse_error = with_body(bytes, status);
                self.connection.mark_malformed();
                Poll::Ready(Ok(bytes.len()))
            }
            // The earlier answers are sent first.
            Some((start, _)) => self.poll_write_stream(context, &bytes[..start]),
            None => self.poll_write_stream(context, bytes),
        }
    }

    // The default `poll_write_vectored` calls `poll_write`.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.check_open(context)?;
        ready!(self.poll_parse_error(context))?;
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.go_on_reading(context);
        flushed
    }

    /// After the last answer, reads until the client closes or the time is over. If
    /// the stream closed while the client still sends, the connection would be reset,
    /// and the client might lose the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.check_open(context)?;
        ready!(self.poll_parse_error(context))?;
        let end = match self.drain_end {
            Some(end) => end,
            None => {
                ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
                let now = Instant::now();
                self.connection.enter(Phase::Draining, now);
                *self.drain_end.insert(now + DRAIN_MAX)
            }
        };
        let mut discarded = [0; 4096];
        loop {
            let mut room = ReadBuf::new(&mut discarded);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut room))?;
            let now = Instant::now();
            if room.filled().is_empty() || now > end {
                return Poll::Ready(Ok(()));
            }
            self.connection.enter(Phase::Draining, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::serve::request::http::socket::Socket;

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_is_read_while_the_client_has_answers_to_take() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        client.write_all(b"next call").unwrap();
        stream.readable().await.unwrap();
        let connection = Rc::new(ClientConnection::new(Instant::now(), 0));
        let transport = Transport::Plain(Socket::new(stream, Rc::clone(&connection)));
        let mut client_stream = ClientStream::new(transport, Rc::clone(&connection));
        let mut bytes = [0; 16];
        connection.write_blocked(Instant::now());
        let read = client_stream.read(&mut bytes);
        let read = tokio::time::timeout(Duration::from_millis(50), read).await;
        assert!(read.is_err(), "{read:?} while answers are unread");
        connection.write_progressed();
        assert_eq!(client_stream.read(&mut bytes).await.unwrap(), 9);
    }
}
