//! The connection between the holder and the supervisor: messages with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::stage::clock::time_left;

/// The longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 8192;

/// One end of the connection.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// A message, and the descriptor that came with it.
#[derive(Debug)]
pub struct Message {
    /// The text.
    pub text: String,
    /// The descriptor, if there was one.
    pub fd: Option<OwnedFd>,
}

impl Channel {
    /// A new connection: this end, and the end for the other process.
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        // SEQPACKET keeps the messages apart.
        let (own, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Channel { socket: own }, other))
    }

    /// The end that the program has got as its standard input.
    pub fn of_stdin() -> io::Result<Channel> {
        let socket = rustix::stdio::stdin().try_clone_to_owned()?;
        Ok(Channel { socket })
    }

    /// The descriptor, to wait for messages.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a message. Does not wait: if the other end does not read, the message fails.
    pub fn send(&self, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds: Vec<BorrowedFd> = fd.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let parts = [IoSlice::new(text.as_bytes())];
        rustix::net::sendmsg(&self.socket, &parts, &mut control, flags)?;
        Ok(())
    }

    /// Receives a message; `None` if the other process has ended. Waits at most
    /// `patience`.
    pub fn receive(&self, patience: Duration) -> io::Result<Option<Message>> {
        let until = Instant::now() + patience;
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut fds, Some(&time_left(until))) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = match rustix::net::recvmsg(&self.socket, &mut parts, &mut control, flags) {
            // The other process was killed before it read our last message.
            Err(Errno::CONNRESET) => return Ok(None),
            received => received?,
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                fd = fds.last();
            }
        }
        bytes.truncate(received.bytes.min(MESSAGE_BYTES_MAX));
        let text = String::from_utf8(bytes)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a message is no text"))?;
        Ok(Some(Message { text, fd }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_message_carries_a_descriptor_and_the_end_is_seen() {
        let (own, other) = Channel::pair().unwrap();
        let other = Channel { socket: other };
        let (mut reader, writer) = io::pipe().unwrap();
        own.send("hold it", Some(writer.as_fd())).unwrap();
        drop(writer);
        own.send("and no more", None).unwrap();
        let patience = Duration::from_secs(5);
        let message = other.receive(patience).unwrap().unwrap();
        assert_eq!(message.text, "hold it");
        let mut writer = std::fs::File::from(message.fd.unwrap());
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "x");
        let message = other.receive(patience).unwrap().unwrap();
        assert_eq!(
            (message.text.as_str(), message.fd.is_none()),
            ("and no more", true)
        );
        let waited = other.receive(Duration::ZERO).unwrap_err();
        assert_eq!(waited.kind(), io::ErrorKind::TimedOut);
        drop(own);
        assert!(other.receive(patience).unwrap().is_none());
    }
}
