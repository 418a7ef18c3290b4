//! A stream whose connection knows what its client does.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::serve::request::http::connections::{Connection, Phase};
use crate::serve::request::http::refusal::{own_answer, with_body};

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
    /// The answer to a head that was none, as far as it is not sent yet.
    refusal: Vec<u8>,
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
            refusal: Vec::new(),
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

    fn poll_write_stream(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.after_write(context, written)
    }

    /// Sends what is left of the answer to a head that was none.
    fn poll_refusal(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            let refusal = std::mem::take(&mut self.refusal);
            let written = self.poll_write_stream(context, &refusal);
            self.refusal = refusal;
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => drop(self.refusal.drain(..count)),
            }
        }
        Poll::Ready(Ok(()))
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
        match own_answer(bytes) {
            // It is sent by the flush that follows.
            Some((0, status)) => {
                self.refusal = with_body(bytes, status);
                self.connection.is_malformed();
                Poll::Ready(Ok(bytes.len()))
            }
            // What stands before it goes first.
            Some((start, _)) => self.poll_write_stream(context, &bytes[..start]),
            None => self.poll_write_stream(context, bytes),
        }
    }

    // The default of `poll_write_vectored` writes by `poll_write`.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Reads on after the last answer, to no end but the client's: to close while
    /// it still sends would reset the connection, and the answer could be lost on
    /// its way.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        ready!(self.poll_refusal(context))?;
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::serve::request::http::connections::{Connections, Times};

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_is_read_while_the_client_has_answers_to_take() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        client.write_all(b"next call").unwrap();
        stream.readable().await.unwrap();
        let minute = Duration::from_secs(60);
        let times = Times {
            idle: minute,
            head: minute,
            write: minute,
        };
        let place = Connections::new(1, times).enter(Instant::now());
        let mut watched = Watched::new(stream, Rc::clone(&place.connection));
        let mut bytes = [0; 16];
        place.connection.is_stuck();
        let read = tokio::time::timeout(Duration::from_millis(50), watched.read(&mut bytes)).await;
        assert!(read.is_err(), "{read:?} while answers are unread");
        place.connection.sent();
        assert_eq!(watched.read(&mut bytes).await.unwrap(), 9);
    }
}
