//! Passes a connection to another worker: one message with its descriptor and the bytes already read.
//!
//! The pair of `SOCK_SEQPACKET` sockets is shared by all workers: whoever reads first owns the connection. The
//! message keeps the connection open while it is on its way, also when the sender exits.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::sys;

/// Distinguishes our messages, and their layout, from anything else.
const MAGIC: [u8; 8] = *b"pf-pass1";

const HEADER_BYTES: usize = 16;

/// Most bytes already read that go along. Above, the connection stays where it is.
pub const CARRIED_BYTES_MAX: usize = 80 * 1024;

/// The hand-over sockets, this worker's ends of it.
#[derive(Clone, Copy, Debug)]
pub struct HandoverSockets {
    /// Where to hand connections over to.
    pub send: RawFd,
    /// Where to take connection that is handed overs from.
    pub receive: RawFd,
}

/// A connection on its way.
pub struct HandedOver {
    /// The socket.
    pub fd: OwnedFd,
    /// Bytes read by the sender, from the beginning of a request.
    pub bytes: Vec<u8>,
    /// When that request was complete, monotonic; 0 when it is not.
    pub ready_us: u64,
}

impl HandoverSockets {
    /// Passes `socket` on with `bytes`, received from the beginning of a request; it is to be forgotten here when
    /// that succeeded.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is full; else sendmsg(2); `InvalidInput` for too many bytes.
    pub fn hand_over(&self, socket: &OwnedFd, bytes: &[u8], ready_us: u64) -> io::Result<()> {
        if bytes.len() > CARRIED_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..].copy_from_slice(&ready_us.to_le_bytes());
        sys::send_descriptor(self.send, [&header, bytes], socket.as_fd())
    }

    /// Takes the next connection that is handed over; `None` when none waits. `scratch` is memory to be used again and again.
    ///
    /// # Errors
    /// `InvalidData` for a message that is not ours; else recvmsg(2).
    pub fn receive(&self, scratch: &mut Vec<u8>) -> io::Result<Option<HandedOver>> {
        scratch.resize(HEADER_BYTES + CARRIED_BYTES_MAX, 0);
        let (count, fd) = match sys::receive_descriptor(self.receive, scratch) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            other => other?,
        };
        let message = &scratch[..count];
        match (fd, message.split_first_chunk::<8>()) {
            (Some(fd), Some((&MAGIC, rest))) if rest.len() >= 8 => {
                // Part of the open description, which any process that has it can change.
                sys::set_nonblocking(fd.as_raw_fd())?;
                let (ready_us, bytes) = rest.split_at(8);
                let ready_us = ready_us.try_into().map_or(0, u64::from_le_bytes);
                Ok(Some(HandedOver { fd, bytes: bytes.to_vec(), ready_us }))
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a connection that is handed over",
            )),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A `SOCK_SEQPACKET` pair.
    fn sockets() -> ([OwnedFd; 2], HandoverSockets) {
        let ends = sys::socket_pair().unwrap();
        let sockets = HandoverSockets { send: ends[0].as_raw_fd(), receive: ends[1].as_raw_fd() };
        (ends, sockets)
    }

    #[test]
    fn a_connection_arrives_with_its_bytes_and_lives_on_without_its_sender() {
        let (_ends, sockets) = sockets();
        let (near, far) = UnixStream::pair().unwrap();
        let near = OwnedFd::from(near);
        sockets.hand_over(&near, b"GET / HT", 7).unwrap();
        drop(near);
        let handed_over = sockets.receive(&mut Vec::new()).unwrap().unwrap();
        assert_eq!((handed_over.bytes.as_slice(), handed_over.ready_us), (&b"GET / HT"[..], 7));
        sys::send(handed_over.fd.as_raw_fd(), b"here").unwrap();
        let mut heard = [0; 10];
        assert_eq!(sys::receive(far.as_raw_fd(), &mut heard).unwrap(), 4);
    }

    #[test]
    fn a_connection_that_blocks_does_not_block_whoever_takes_it() {
        let (_ends, sockets) = sockets();
        let (near, _far) = UnixStream::pair().unwrap();
        let near = OwnedFd::from(near);
        let is_nonblocking = |fd: &OwnedFd| {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
            let info = info.unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            u32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_NONBLOCK.cast_unsigned() != 0
        };
        assert!(!is_nonblocking(&near));
        sockets.hand_over(&near, b"", 0).unwrap();
        let handed_over = sockets.receive(&mut Vec::new()).unwrap().unwrap();
        assert!(is_nonblocking(&handed_over.fd));
    }

    #[test]
    fn nothing_waits_is_no_error_and_no_sender_is_one() {
        let (ends, sockets) = sockets();
        assert!(sockets.receive(&mut Vec::new()).unwrap().is_none());
        let [send, _receive] = ends;
        drop(send);
        assert_eq!(
            sockets.receive(&mut Vec::new()).err().unwrap().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn a_full_queue_says_so_and_loses_nothing() {
        let (_ends, sockets) = sockets();
        let (near, _far) = UnixStream::pair().unwrap();
        let near = OwnedFd::from(near);
        let mut sent = 0;
        let error = loop {
            match sockets.hand_over(&near, &[b'x'; 10_000], 0) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let mut scratch = Vec::new();
        for _ in 0..sent {
            assert_eq!(sockets.receive(&mut scratch).unwrap().unwrap().bytes.len(), 10_000);
        }
        assert!(sockets.receive(&mut scratch).unwrap().is_none());
    }

    #[test]
    fn foreign_messages_and_too_many_bytes_are_refused() {
        let (_ends, sockets) = sockets();
        let (near, _far) = UnixStream::pair().unwrap();
        let near = OwnedFd::from(near);
        sys::send(sockets.send, b"hello").unwrap();
        let error = sockets.receive(&mut Vec::new()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = sockets.hand_over(&near, &vec![0; CARRIED_BYTES_MAX + 1], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
