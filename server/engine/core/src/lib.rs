//! The rules of HTTP/1.1 (RFC 9110, RFC 9112) and WSGI (PEP 3333) as pure functions over bytes.
//!
//! This crate knows neither Python nor sockets nor a clock. Bytes that came from the network go
//! in; values, or one [`Reject`], come out:
//!
//! ```text
//! bytes → head::parse → Head ┬→ request_body::BodyDecoder::decode → spans of body data
//!                            └→ forwarded::scheme   → url_scheme
//! status, fields → response::ResponseHead → bytes, and the BodyEncoder that they promise
//! ```
//!
//! Nothing here allocates per request once its buffers have grown: [`Head`] is reused, its parts
//! are [`Span`]s of the caller's buffer.
#![forbid(unsafe_code)]

pub mod date;
pub mod error_page;
mod field_value;
pub mod forwarded;
pub mod head;
pub mod identity;
pub mod limits;
pub mod name;
pub mod reject;
pub mod request_body;
pub mod response;
mod scan;

pub use head::{Framing, Head, Method, Parsed, Span};
pub use limits::Limits;
pub use name::NameId;
pub use reject::Reject;
pub use request_body::BodyDecoder;
