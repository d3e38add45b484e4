//! What the worker was told about serving; fixed for the engine's life.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;

use prefork_core::Limits;
use prefork_core::forwarded::Trusted;

use crate::access_line::Format;
use crate::pace::Patience;

/// Settings of one engine; times in microseconds, sizes in bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// App threads.
    pub threads: usize,
    /// How long a connection may be idle between requests; 0 closes after each answer.
    pub keep_alive_us: u64,
    /// How long a call may take; 0 is for ever.
    pub request_timeout_us: u64,
    /// How long a head may take from its first byte.
    pub header_timeout_us: u64,
    /// How slowly a body may come.
    pub body_patience: Patience,
    /// How slowly a client may take its answer.
    pub response_patience: Patience,
    /// Whether the app reads bodies while they come; else it is called when they are here.
    pub is_streaming: bool,
    /// Memory for bodies and answers on their way.
    pub buffer_bytes: u64,
    /// Where bodies and answers go that memory should not hold.
    pub spool_directory: PathBuf,
    /// Bytes there for bodies, and as many for answers; 0 is no spool.
    pub spool_bytes: u64,
    /// Bounds of a request.
    pub limits: Limits,
    /// Requests after which the worker asks to be replaced; 0 is never.
    pub max_requests: u64,
    /// Connections above which none is accepted.
    pub max_connections: usize,
    /// Whom to believe.
    pub trusted: Trusted,
    /// `Server` of every answer; empty for none.
    pub server: Vec<u8>,
    /// How each answer is logged; `None` when it is not.
    pub access_format: Option<Arc<Format>>,
    /// Whose lock to take for each piece of the access log, as other logs go to the same pipe; -1 for none.
    pub access_log_lock_fd: RawFd,
    /// Query strings stay out of every log.
    pub hides_queries: bool,
    /// Whether calls run in greenlets of one hub; then `threads` is how many of them at most.
    pub has_hub: bool,
}
