//! Every bound on what a client may send, with its unit and default.
//!
//! The bounds that a person can set have the names of their options; the others are constants,
//! because nothing a well-behaved client does comes near them.

/// Bounds of one request; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest request line, without its CRLF. Above: 414.
    pub request_line: usize,
    /// Most field lines in a head, dropped ones counted too. Above: 431.
    pub request_fields: usize,
    /// Longest field line (name, colon and value), without its CRLF. Above: 431.
    pub request_field_size: usize,
    /// Longest head from its first byte to the end of its empty line. Above: 431.
    pub head_bytes: usize,
    /// Largest decoded body; 0 is no bound. Above: 413.
    pub request_body: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_line: 8190,
            request_fields: 100,
            request_field_size: 8190,
            head_bytes: 65_536,
            request_body: 0,
        }
    }
}

/// Longest method; a longer one is not implemented by anything (501).
pub const METHOD_BYTES: usize = 32;

/// Empty lines let pass before a request line (RFC 9112 §2.2 asks for at least one).
pub const LEADING_EMPTY_LINES: usize = 1;

/// Longest chunk-size line with its extensions, without CRLF.
pub const CHUNK_LINE_BYTES: usize = 256;

/// Chunk extension bytes in one body. Nobody reads them: a body of one-byte chunks with long
/// extensions would make the server read far more than the application ever sees.
pub const CHUNK_EXTENSION_BYTES: usize = 4096;

/// All trailer lines of one body together, with their CRLFs.
pub const TRAILER_BYTES: usize = 8192;

/// Most trailer lines of one body.
pub const TRAILER_FIELDS: usize = 32;
