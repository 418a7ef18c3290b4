//! The socket of a client, which reports to its connection whether the client reads, and
//! can be watched for a reset while it is in use.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::serve::request::http::connection::ClientConnection;

/// A socket with several owners on one thread.
#[derive(Clone, Debug)]
pub struct Socket {
    stream: Rc<TcpStream>,
    connection: Rc<ClientConnection>,
}

impl Socket {
    /// Takes the socket of `connection`.
    pub fn new(stream: TcpStream, connection: Rc<ClientConnection>) -> Socket {
        Socket {
            stream: Rc::new(stream),
            connection,
        }
    }

    /// Waits for the next byte, without reading it. Fails if the client sends no more.
    pub fn poll_peek(&self, context: &mut Context<'_>) -> Poll<io::Result<u8>> {
        let mut byte = [0];
        let count = ready!(
            self.stream
                .poll_peek(context, &mut ReadBuf::new(&mut byte))?
        );
        Poll::Ready(match count {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(byte[0]),
        })
    }

    fn poll_write_by(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(ready) = self.stream.poll_write_ready(context) else {
                self.connection.write_blocked(Instant::now());
                return Poll::Pending;
            };
            ready?;
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.connection.write_progressed();
                    return Poll::Ready(written);
                }
            }
        }
    }

    /// Waits until the client has reset the connection. A client that has only shut its
    /// writing side may still read.
    pub async fn reset(&self) {
        loop {
            match self.stream.ready(Interest::ERROR).await {
                Ok(ready) if !ready.is_error() => {}
                _ => return,
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read_buf(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_by(context, |stream| stream.try_write(bytes))
    }

    // TLS has several records to write, such as an alert after the beginning of a
    // handshake.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_by(context, |stream| stream.try_write_vectored(pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(&*self.stream, Shutdown::Write) {
            // The client has closed the connection already.
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}
