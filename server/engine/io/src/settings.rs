//! What the worker was told about serving; fixed for the engine's life.

use prefork_core::Limits;
use prefork_core::forwarded::Trusted;

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
    /// How long a body may pause.
    pub body_timeout_us: u64,
    /// How long a client may take nothing of its answer.
    pub write_timeout_us: u64,
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
    /// Whether each answer is logged.
    pub is_access_logged: bool,
}
