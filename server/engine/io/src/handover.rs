//! Passes a connection to another worker: one message with its descriptor and the bytes already read.
//!
//! The pair of `SOCK_SEQPACKET` sockets is shared by all workers: whoever reads first owns the connection. The
//! message keeps the connection open while it is on its way, also when the sender exits.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use crate::conn::Conn;
use crate::sys;

/// Distinguishes our messages, and their layout, from anything else.
const MAGIC: [u8; 8] = *b"pf-pass1";

const HEADER_BYTES: usize = 16;

/// Most bytes already read that go along. Above, the connection stays where it is.
pub const CARRIED_BYTES_MAX: usize = 80 * 1024;

/// The shared pair, this worker's ends of it.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Where to pass connections to.
    pub send: RawFd,
    /// Where to take passed connections from.
    pub receive: RawFd,
}

/// A connection on its way.
pub struct Passed {
    /// The socket.
    pub fd: OwnedFd,
    /// Bytes read by the sender, from the beginning of a request.
    pub bytes: Vec<u8>,
    /// When that request was complete, monotonic; 0 when it is not.
    pub ready_us: u64,
}

impl Pair {
    /// Passes `conn` on with `bytes`, received from the beginning of a request; it is to be forgotten here when
    /// that succeeded.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is full; else sendmsg(2); `InvalidInput` for too many bytes.
    pub fn pass(&self, conn: &Conn, bytes: &[u8], ready_us: u64) -> io::Result<()> {
        if bytes.len() > CARRIED_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..].copy_from_slice(&ready_us.to_le_bytes());
        sys::send_descriptor(self.send, [&header, bytes], conn.fd().as_fd())
    }

    /// Takes the next passed connection; `None` when none waits.
    ///
    /// # Errors
    /// `InvalidData` for a message that is not ours; else recvmsg(2).
    pub fn take(&self) -> io::Result<Option<Passed>> {
        let mut bytes = vec![0; HEADER_BYTES + CARRIED_BYTES_MAX];
        let (count, fd) = match sys::receive_descriptor(self.receive, &mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            other => other?,
        };
        match fd {
            Some(fd) if count >= HEADER_BYTES && bytes.starts_with(&MAGIC) => {
                let mut ready = [0; 8];
                ready.copy_from_slice(&bytes[8..HEADER_BYTES]);
                bytes.truncate(count);
                bytes.drain(..HEADER_BYTES);
                Ok(Some(Passed { fd, bytes, ready_us: u64::from_le_bytes(ready) }))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a passed connection")),
        }
    }
}
