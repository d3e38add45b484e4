//! What a client has not taken yet of its answer: bytes of ours, bytes of the app, a file, in order.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::budget::{Budget, Reserved};
use crate::pace::{Pace, Patience};
use crate::spool::{Spool, SpoolFile};
use crate::sys;

/// Of an answer that goes on, memory holds no more than this, and what the app adds at once.
pub const UNSENT_BYTES_MAX: usize = 1024 * 1024;

/// Sent of one answer in one go; then the others have their turn. A client on the same machine takes a file as fast as
/// it is sent: without a bound, one call would go on for gigabytes.
pub const SLICE_BYTES: usize = 512 * 1024;

/// A file to be sent behind the bytes of an answer.
pub struct FileSegment {
    /// A descriptor of our own: the app may close its file.
    pub fd: OwnedFd,
    /// Next byte to send.
    pub offset: i64,
    /// Bytes still to send.
    pub left: u64,
}

/// Bytes that belong to somebody else until they are sent: of the app, in the engine's case.
pub type SharedBytes = Box<dyn AsRef<[u8]> + Send + Sync>;

/// A part of what is still to be sent.
enum Segment {
    Bytes(Vec<u8>),
    /// Bytes up to `end`.
    Shared {
        bytes: SharedBytes,
        end: usize,
    },
    File(FileSegment),
    /// A part of our own file.
    Spooled {
        offset: i64,
        left: u64,
    },
}

/// What the client has not taken yet.
#[derive(Default)]
pub struct OutQueue {
    pieces: VecDeque<Segment>,
    /// Bytes of the first piece that are sent.
    at: usize,
    /// Bytes in memory that are still to be sent.
    held: usize,
    /// Bytes of memory that this keeps from being freed: shared ones are kept whole.
    kept: usize,
    /// Set aside for these.
    reserved: Option<Reserved>,
    /// What memory should not hold; there is one until all is sent.
    spooled: Option<SpoolFile>,
    progress: Option<Progress>,
}

/// How the client takes what waits for it. What the kernel took is not what the client took: a socket's buffer holds
/// megabytes, and room in it is reported late.
struct Progress {
    pace: Pace,
    /// Bytes given to the kernel since then.
    given: u64,
    /// Those that were unacknowledged before.
    before: u64,
    /// The kernel has had room since the last look. The client may have made it long before that look, and then
    /// waited for us.
    had_room: bool,
}

impl Segment {
    fn memory_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Shared { bytes, .. } => (**bytes).as_ref().len(),
            Self::File(_) | Self::Spooled { .. } => 0,
        }
    }
}

/// How far [`OutQueue::flush`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// All is sent.
    All,
    /// The socket is full.
    Blocked,
    /// [`SLICE_BYTES`] are sent, and the socket may take more.
    More,
    /// The client is gone, or the file ended early.
    Broken,
}

impl OutQueue {
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

    /// Part of it is in a file: what is added should soon be there too.
    #[must_use]
    pub fn is_spilling(&self) -> bool {
        self.spooled.is_some()
    }

    /// Others may be waiting for what it holds.
    #[must_use]
    pub fn holds_room(&self) -> bool {
        self.reserved.is_some() || self.spooled.is_some()
    }

    /// Sets memory aside for all that is kept in it; false when there is not so much.
    pub fn cover(&mut self, memory: &Budget) -> bool {
        self.kept == 0 || memory.cover(&mut self.reserved, self.kept as u64)
    }

    /// Moves all that is in memory to a file; false when the spool has no room for it.
    ///
    /// # Errors
    /// The file system refuses; then part of it may have been moved, and none is lost.
    pub fn spill(&mut self, spool: &Spool) -> io::Result<bool> {
        let bytes = self.held as u64;
        if self.spooled.is_none() {
            self.spooled = spool.open(bytes)?;
        }
        let Some(file) = &mut self.spooled else { return Ok(false) };
        if !file.cover(file.length() + bytes) {
            return Ok(false);
        }
        let mut pieces = std::mem::take(&mut self.pieces);
        let mut result = Ok(true);
        while let Some(piece) = pieces.pop_front() {
            let rest = match &piece {
                Segment::Bytes(bytes) => &bytes[self.at..],
                Segment::Shared { bytes, end } => &(**bytes).as_ref()[self.at..*end],
                Segment::File(_) | Segment::Spooled { .. } => {
                    self.pieces.push_back(piece);
                    continue;
                }
            };
            let (offset, count) = (file.length(), rest.len());
            if let Err(error) = file.append(rest) {
                self.pieces.push_back(piece);
                result = Err(error);
                break;
            }
            self.held -= count;
            self.kept -= piece.memory_bytes();
            self.at = 0;
            match self.pieces.back_mut() {
                Some(Segment::Spooled { left, .. }) => *left += count as u64,
                _ => self.pieces.push_back(Segment::Spooled {
                    offset: i64::try_from(offset).unwrap_or(i64::MAX),
                    left: count as u64,
                }),
            }
        }
        self.pieces.extend(pieces);
        self.shrink();
        result
    }

    /// When the client is too slow, as far as is known now: its kernel is asked.
    pub fn deadline_us(&mut self, fd: RawFd, patience: Patience, now_us: u64) -> u64 {
        let unacknowledged = sys::unacknowledged(fd);
        let progress = self.progress.get_or_insert_with(|| Progress {
            pace: Pace::start(now_us),
            given: 0,
            before: unacknowledged,
            had_room: false,
        });
        if std::mem::take(&mut progress.had_room) {
            progress.pace.renew(now_us);
        }
        let taken = (progress.given + progress.before).saturating_sub(unacknowledged);
        progress.pace.moved(taken.saturating_sub(progress.pace.bytes()), now_us);
        progress.pace.deadline_us(patience)
    }

    /// So much time was not the client's.
    pub fn excuse(&mut self, time_us: u64) {
        if let Some(progress) = &mut self.progress {
            progress.pace.excuse(time_us);
        }
    }

    fn shrink(&mut self) {
        if let Some(reserved) = &mut self.reserved {
            reserved.shrink(self.kept as u64);
        }
    }

    /// Adds bytes to be sent behind what is there.
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.held += bytes.len();
        self.kept += bytes.len();
        match self.pieces.back_mut() {
            Some(Segment::Bytes(last)) => last.extend_from_slice(bytes),
            _ => self.pieces.push_back(Segment::Bytes(bytes.to_vec())),
        }
    }

    /// Adds the part `from..end` of bytes that are not copied.
    pub fn push_shared(&mut self, bytes: SharedBytes, from: usize, end: usize) {
        if from == end {
            return;
        }
        if self.pieces.is_empty() {
            self.at = from;
        } else if from > 0 {
            return self.push(&(*bytes).as_ref()[from..end]);
        }
        self.held += end - from;
        let piece = Segment::Shared { bytes, end };
        self.kept += piece.memory_bytes();
        self.pieces.push_back(piece);
    }

    /// Adds a file to be sent behind what is there.
    pub fn push_file(&mut self, file: FileSegment) {
        if file.left > 0 {
            self.pieces.push_back(Segment::File(file));
        }
    }

    /// Sends what the socket takes, [`SLICE_BYTES`] at most; adds what went out to `sent`.
    pub fn flush(&mut self, fd: RawFd, sent: &mut u64) -> Flushed {
        let before = *sent;
        let flushed = self.flush_pieces(fd, sent);
        if self.pieces.is_empty() {
            self.spooled = None;
            self.reserved = None;
            self.progress = None;
        } else if let Some(progress) = &mut self.progress {
            progress.given += *sent - before;
            progress.had_room |= *sent > before;
        }
        self.shrink();
        flushed
    }

    fn flush_pieces(&mut self, fd: RawFd, sent: &mut u64) -> Flushed {
        let mut slice = SLICE_BYTES;
        while let Some(piece) = self.pieces.front_mut() {
            if slice == 0 {
                return Flushed::More;
            }
            let (result, left) = match piece {
                Segment::Bytes(bytes) => send_some(fd, &bytes[self.at..], slice),
                Segment::Shared { bytes, end } => {
                    send_some(fd, &(**bytes).as_ref()[self.at..*end], slice)
                }
                Segment::Spooled { offset, left } => {
                    let file = self.spooled.as_ref().map_or(-1, AsRawFd::as_raw_fd);
                    let whole = usize::try_from(*left).unwrap_or(usize::MAX);
                    (sys::send_file(fd, file, offset, whole.min(slice)), whole)
                }
                Segment::File(file) => {
                    let whole = usize::try_from(file.left).unwrap_or(usize::MAX);
                    let from = file.fd.as_raw_fd();
                    (sys::send_file(fd, from, &mut file.offset, whole.min(slice)), whole)
                }
            };
            let count = match result {
                // Only of a file: it is shorter than it was.
                Ok(0) => return Flushed::Broken,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(_) => return Flushed::Broken,
            };
            *sent += count as u64;
            slice = slice.saturating_sub(count);
            match piece {
                Segment::Bytes(_) | Segment::Shared { .. } => {
                    self.held -= count;
                    self.at += count;
                }
                Segment::File(file) => file.left -= count as u64,
                Segment::Spooled { left, .. } => *left -= count as u64,
            }
            if count == left {
                self.kept -= piece.memory_bytes();
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
        if let Some(Segment::Bytes(bytes)) = self.pieces.front_mut()
            && self.at > bytes.len() / 2
        {
            bytes.drain(..self.at);
            self.kept -= self.at;
            self.at = 0;
        }
    }
}

/// Sends some of `rest`; returns how that went, and how much there was.
fn send_some(fd: RawFd, rest: &[u8], most: usize) -> (io::Result<usize>, usize) {
    (sys::send(fd, &rest[..rest.len().min(most)]), rest.len())
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
        let mut unsent = OutQueue::default();
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
    fn what_is_spilled_goes_out_in_order_and_frees_its_memory() {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let (memory, spool) = (Budget::new(1_000_000), Spool::new(std::env::temp_dir(), 2_000_000));
        let mut unsent = OutQueue::default();
        unsent.push_shared(Box::new(vec![b's'; 600_000]), 1000, 500_000);
        unsent.push(&vec![b'b'; 300_000]);
        assert!(unsent.cover(&memory));
        assert!(memory.take(100_001).is_none());
        let mut sent = 0;
        assert_eq!(unsent.flush(near.as_raw_fd(), &mut sent), Flushed::Blocked);
        assert!(unsent.spill(&spool).unwrap());
        assert_eq!((unsent.held(), unsent.is_spilling()), (0, true));
        assert!(memory.take(1_000_000).is_some());
        unsent.push(&[b'c'; 5000]);
        assert!(unsent.spill(&spool).unwrap());
        unsent.push(&[b'd'; 10]);
        let expected =
            [vec![b's'; 499_000], vec![b'b'; 300_000], vec![b'c'; 5000], vec![b'd'; 10]].concat();
        let mut taken = Vec::new();
        while taken.len() < expected.len() {
            taken.extend(read_all(&far, usize::try_from(sent).unwrap() - taken.len()));
            unsent.flush(near.as_raw_fd(), &mut sent);
        }
        assert!(taken == expected);
        assert!(unsent.is_empty() && !unsent.is_spilling());
        assert!(spool.open(2_000_000).unwrap().is_some());
    }

    #[test]
    fn a_full_spool_changes_nothing() {
        let spool = Spool::new(std::env::temp_dir(), 9);
        let mut unsent = OutQueue::default();
        unsent.push(b"0123456789");
        assert!(!unsent.spill(&spool).unwrap());
        assert_eq!((unsent.held(), unsent.is_spilling()), (10, false));
        let nowhere = Spool::new("/proc/no-such-directory".into(), 100);
        assert!(unsent.spill(&nowhere).is_err());
        assert_eq!(unsent.held(), 10);
    }

    #[test]
    fn a_client_is_as_fast_as_it_reads_not_as_the_kernel_takes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = listener.accept().unwrap().0;
        near.set_nonblocking(true).unwrap();
        let patience = Patience { pause_us: 100, bytes_per_s: 0 };
        let mut unsent = OutQueue::default();
        unsent.push(&vec![b'x'; 64 << 20]);
        let (fd, mut sent) = (near.as_raw_fd(), 0);
        while unsent.flush(fd, &mut sent) != Flushed::Blocked {}
        let first = unsent.deadline_us(fd, patience, 1000);
        assert_eq!(first, 1100);
        // No room for us yet, but the client has taken some.
        let mut some = vec![0; 1 << 20];
        let mut moved = first;
        while moved == first {
            std::io::Read::read_exact(&mut &far, &mut some[..1 << 14]).unwrap();
            moved = unsent.deadline_us(fd, patience, 2000);
        }
        assert_eq!(moved, 2100);
        // It takes all there is, and we are away for long: when we are back, it has a new grace.
        while sys::unacknowledged(fd) > 0 {
            std::io::Read::read_exact(&mut &far, &mut some[..1 << 14]).unwrap();
        }
        assert_eq!(unsent.deadline_us(fd, patience, 3000), 3100);
        while unsent.flush(fd, &mut sent) != Flushed::Blocked {}
        assert_eq!(unsent.deadline_us(fd, patience, 9000), 9100);
    }

    #[test]
    fn a_shared_part_that_was_begun_elsewhere_goes_on_from_there() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut unsent = OutQueue::default();
        unsent.push_shared(Box::new(b"0123456789".to_vec()), 3, 8);
        assert_eq!(unsent.held(), 5);
        assert_eq!(unsent.flush(near.as_raw_fd(), &mut 0), Flushed::All);
        assert_eq!(read_all(&far, 5), b"34567");
    }

    #[test]
    fn a_client_that_left_and_a_file_that_shrank_are_broken() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut unsent = OutQueue::default();
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        unsent.push_file(FileSegment { fd, offset: 0, left: 10 });
        assert_eq!(unsent.flush(near.as_raw_fd(), &mut 0), Flushed::Broken);
        drop(far);
        let mut unsent = OutQueue::default();
        unsent.push(b"x");
        assert_eq!(unsent.flush(near.as_raw_fd(), &mut 0), Flushed::Broken);
    }
}
