//! A stream whose connection knows what its client does.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::serve::request::http::connections::{Connection, Phase};

/// For how long a client may go on sending what nobody reads, after its answer.
const LINGER: Duration = Duration::from_secs(10);

/// The stream of a client. It fails when its connection is closed, and nothing is
/// read while the client does not take what it is sent: calls that are sent and
/// never read must not pile up their answers.
#[derive(Debug)]
pub struct Watched {
    stream: TcpStream,
    connection: Rc<Connection>,
    /// A read waits until the client has taken its answers.
    read_held_back: bool,
    /// Set when the last answer has been sent: until when to read on.
    linger_end: Option<Instant>,
}

impl Watched {
    /// Shows `connection` what happens on `stream`.
    pub fn new(stream: TcpStream, connection: Rc<Connection>) -> Watched {
        Watched {
            stream,
            connection,
            read_held_back: false,
            linger_end: None,
        }
    }

    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        if self.connection.is_closed() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.connection.wake_when_closed(context);
        Ok(())
    }

    fn after_write(
        &mut self,
        context: &Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            self.connection.is_stuck();
        } else {
            self.connection.sent();
            if std::mem::take(&mut self.read_held_back) {
                context.waker().wake_by_ref();
            }
        }
        written
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        if self.connection.has_unread() {
            self.read_held_back = true;
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

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.after_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.after_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Reads on after the last answer, to no end but the client's: to close while
    /// it still sends would reset the connection, and the answer could be lost on
    /// its way.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        let end = match self.linger_end {
            Some(end) => end,
            None => {
                ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
                let now = Instant::now();
                self.connection.enter(Phase::Leaving, now);
                *self.linger_end.insert(now + LINGER)
            }
        };
        let mut unwanted = [0; 4096];
        loop {
            let mut room = ReadBuf::new(&mut unwanted);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut room))?;
            let now = Instant::now();
            if room.filled().is_empty() || now > end {
                return Poll::Ready(Ok(()));
            }
            self.connection.enter(Phase::Leaving, now);
        }
    }
}
