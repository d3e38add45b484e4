//! The rules of HTTP/1.1 (RFC 9110, RFC 9112) and WSGI (PEP 3333) as pure functions over bytes.
//!
//! This crate knows neither Python nor sockets nor a clock. Bytes that came from the network go
//! in; values, or one [`Reject`], come out:
//!
//! ```text
//! bytes → head::parse → Head ┬→ body::Body::decode  → spans of body data
//!                            └→ forwarded::scheme   → url_scheme
//! status, fields → reply::Reply → bytes, and the Outgoing body that they promise
//! ```
//!
//! Nothing here allocates per request once its buffers have grown: [`Head`] is reused, its parts
//! are [`Span`]s of the caller's buffer.
#![forbid(unsafe_code)]

pub mod body;
pub mod forwarded;
pub mod head;
pub mod limits;
pub mod name;
pub mod reject;
pub mod reply;
mod scan;

pub use body::Body;
pub use head::{Framing, Head, Method, Parsed, Span};
pub use limits::Limits;
pub use name::NameId;
pub use reject::Reject;
