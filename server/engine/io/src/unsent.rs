//! What a client has not taken yet of its answer: bytes of ours, bytes of the app, a file, in order.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::sys;

/// Unsent bytes above which the app has to wait for its client.
pub const UNSENT_BYTES_MAX: usize = 1024 * 1024;

/// A file to be sent behind the bytes of an answer.
pub struct FileOut {
    /// A descriptor of our own: the app may close its file.
    pub fd: OwnedFd,
    /// Next byte to send.
    pub offset: i64,
    /// Bytes still to send.
    pub left: u64,
}

/// Bytes that belong to somebody else until they are sent: of the app, in the engine's case.
pub type Shared = Box<dyn AsRef<[u8]> + Send + Sync>;

/// A part of what is still to be sent.
enum Piece {
    Bytes(Vec<u8>),
    /// Bytes up to `end`.
    Shared {
        bytes: Shared,
        end: usize,
    },
    File(FileOut),
}

/// What the client has not taken yet.
#[derive(Default)]
pub struct Unsent {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that are sent.
    at: usize,
    /// Bytes in memory, ours and shared ones.
    held: usize,
}

/// How far [`Unsent::flush`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// All is sent.
    All,
    /// The socket is full.
    Blocked,
    /// The client is gone, or the file ended early.
    Broken,
}

impl Unsent {
    /// Nothing is left to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes held in memory, ours and shared ones.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Adds bytes to be sent behind what is there.
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.held += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Bytes(last)) => last.extend_from_slice(bytes),
            _ => self.pieces.push_back(Piece::Bytes(bytes.to_vec())),
        }
    }

    /// Adds the part `from..end` of bytes that are not copied.
    pub fn push_shared(&mut self, bytes: Shared, from: usize, end: usize) {
        if from == end {
            return;
        }
        if self.pieces.is_empty() {
            self.at = from;
        } else if from > 0 {
            return self.push(&(*bytes).as_ref()[from..end]);
        }
        self.held += end - from;
        self.pieces.push_back(Piece::Shared { bytes, end });
    }

    /// Adds a file to be sent behind what is there.
    pub fn push_file(&mut self, file: FileOut) {
        if file.left > 0 {
            self.pieces.push_back(Piece::File(file));
        }
    }

    /// Sends what the socket takes; adds what went out to `sent`.
    pub fn flush(&mut self, fd: RawFd, sent: &mut u64) -> Flushed {
        while let Some(piece) = self.pieces.front_mut() {
            let (result, left) = match piece {
                Piece::Bytes(bytes) => (sys::send(fd, &bytes[self.at..]), bytes.len() - self.at),
                Piece::Shared { bytes, end } => {
                    let rest = &(**bytes).as_ref()[self.at..*end];
                    (sys::send(fd, rest), rest.len())
                }
                Piece::File(file) => (
                    sys::send_file(fd, file.fd.as_raw_fd(), &mut file.offset, file.left),
                    usize::try_from(file.left).unwrap_or(usize::MAX),
                ),
            };
            let count = match result {
                // Only of a file: it is shorter than it was.
                Ok(0) => return Flushed::Broken,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(_) => return Flushed::Broken,
            };
            *sent += count as u64;
            match piece {
                Piece::Bytes(_) | Piece::Shared { .. } => {
                    self.held -= count;
                    self.at += count;
                }
                Piece::File(file) => file.left -= count as u64,
            }
            if count == left {
                self.pieces.pop_front();
                self.at = 0;
            } else {
                self.compact();
            }
        }
        Flushed::All
    }

    /// Moved to the front only when that frees half: else each flush of a slow client would move a megabyte.
    fn compact(&mut self) {
        if let Some(Piece::Bytes(bytes)) = self.pieces.front_mut()
            && self.at > bytes.len() / 2
        {
            bytes.drain(..self.at);
            self.at = 0;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn read_all(socket: &UnixStream, count: usize) -> Vec<u8> {
        let mut all = vec![0; count];
        std::io::Read::read_exact(&mut &*socket, &mut all).unwrap();
        all
    }

    #[test]
    fn what_is_unsent_goes_out_in_order_however_slowly_it_is_taken() {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut unsent = Unsent::default();
        unsent.push(b"head");
        unsent.push_shared(Box::new(vec![b's'; 600_000]), 0, 500_000);
        unsent.push(&vec![b'b'; 300_000]);
        unsent.push_shared(Box::new(vec![b't'; 10]), 4, 10);
        assert_eq!(unsent.held(), 800_010);
        let expected =
            [b"head".to_vec(), vec![b's'; 500_000], vec![b'b'; 300_000], vec![b't'; 6]].concat();
        let (mut sent, mut taken) = (0, Vec::new());
        while unsent.flush(near.as_raw_fd(), &mut sent) != Flushed::All {
            taken.extend(read_all(&far, usize::try_from(sent).unwrap() - taken.len()));
        }
        taken.extend(read_all(&far, expected.len() - taken.len()));
        assert!(taken == expected);
        assert_eq!((unsent.held(), unsent.is_empty()), (0, true));
        assert_eq!(sent, expected.len() as u64);
    }

    #[test]
    fn a_shared_part_that_was_begun_elsewhere_goes_on_from_there() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut unsent = Unsent::default();
        unsent.push_shared(Box::new(b"0123456789".to_vec()), 3, 8);
        assert_eq!(unsent.held(), 5);
        assert_eq!(unsent.flush(near.as_raw_fd(), &mut 0), Flushed::All);
        assert_eq!(read_all(&far, 5), b"34567");
    }

    #[test]
    fn a_client_that_left_and_a_file_that_shrank_are_broken() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut unsent = Unsent::default();
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        unsent.push_file(FileOut { fd, offset: 0, left: 10 });
        assert_eq!(unsent.flush(near.as_raw_fd(), &mut 0), Flushed::Broken);
        drop(far);
        let mut unsent = Unsent::default();
        unsent.push(b"x");
        assert_eq!(unsent.flush(near.as_raw_fd(), &mut 0), Flushed::Broken);
    }
}
