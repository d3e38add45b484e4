//! The bytes of one request between the socket and the app, and the pool such buffers come from.

use prefork_core::Head;

/// First size of a receive buffer.
pub(crate) const BUFFER_BYTES: usize = 4096;
/// A buffer that grew above this is not kept for others.
const POOLED_BYTES_MAX: usize = 128 * 1024;

/// Bytes of one request on their way from the socket to the app. Pooled: an idle connection has none.
#[derive(Default)]
pub struct Buffer {
    pub(crate) raw: Vec<u8>,
    /// First byte of the request.
    pub(crate) start: usize,
    /// Behind the last byte received.
    pub(crate) filled: usize,
    /// Behind the last byte that is part of this request.
    pub(crate) used: usize,
    /// Length of the complete head.
    pub(crate) head_len: usize,
    /// The parsed head, relative to `start`.
    pub head: Head,
    /// Decoded body bytes the app has not taken, from `body_at` on.
    pub(crate) body: Vec<u8>,
    pub(crate) body_at: usize,
}

impl Buffer {
    pub(crate) fn received(&self) -> &[u8] {
        &self.raw[self.start..self.filled]
    }

    /// The head's bytes: what its spans refer to.
    #[must_use]
    pub fn head_bytes(&self) -> &[u8] {
        &self.raw[self.start..self.start + self.head_len]
    }

    /// Body bytes ready for the app.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body[self.body_at..]
    }

    /// The app took so many of [`Buffer::body`].
    pub fn take_body(&mut self, count: usize) {
        self.body_at += count;
        if self.body_at == self.body.len() {
            self.body.clear();
            self.body_at = 0;
        }
    }

    /// Takes all of a received body, leaving nothing.
    #[must_use]
    pub fn take_whole_body(&mut self) -> Vec<u8> {
        let mut body = std::mem::take(&mut self.body);
        body.drain(..self.body_at);
        self.body_at = 0;
        body
    }

    /// Room behind the received bytes, at least `want` of it.
    pub(crate) fn room(&mut self, want: usize) -> &mut [u8] {
        if self.start == self.filled {
            (self.start, self.filled, self.used) = (0, 0, 0);
        }
        if self.raw.len() - self.filled < want {
            if self.start > 0 {
                self.raw.copy_within(self.start..self.filled, 0);
                self.filled -= self.start;
                self.used = self.used.saturating_sub(self.start);
                self.start = 0;
            }
            let need = self.filled + want;
            if self.raw.len() < need {
                self.raw.resize(need.next_power_of_two().max(BUFFER_BYTES), 0);
            }
        }
        &mut self.raw[self.filled..]
    }

    /// Puts bytes behind the received ones, as if they had come from the socket.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Forgets the request, keeps what came after it.
    pub(crate) fn next_request(&mut self) {
        self.start = self.used;
        if self.start == self.filled {
            (self.start, self.filled, self.used) = (0, 0, 0);
        }
        self.head_len = 0;
        self.body.clear();
        self.body_at = 0;
        self.head.clear();
    }

    fn clear(&mut self) {
        self.used = self.filled;
        self.next_request();
    }
}

/// Buffers that no connection needs now, and memory that is used within one turn.
#[derive(Default)]
pub struct Pool {
    #[allow(clippy::vec_box)] // a buffer moves between pool and connection as one pointer
    buffers: Vec<Box<Buffer>>,
    scratch: Vec<u8>,
}

impl Pool {
    pub(crate) fn get(&mut self) -> Box<Buffer> {
        self.buffers.pop().unwrap_or_default()
    }

    /// `length` bytes to read into; what they hold is left from somebody else.
    pub(crate) fn scratch(&mut self, length: usize) -> &mut [u8] {
        if self.scratch.len() < length {
            self.scratch.resize(length, 0);
        }
        &mut self.scratch[..length]
    }

    pub(crate) fn put(&mut self, mut buffer: Box<Buffer>) {
        if self.buffers.len() < 64
            && buffer.raw.len() <= POOLED_BYTES_MAX
            && buffer.body.capacity() <= POOLED_BYTES_MAX
        {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}
