//! Sockets, epoll, timers, the stats table and the handing over of connections, for one worker process.
//!
//! ```text
//! sys ← buffer, intake, unsent ← conn ← reactor ← server → threads
//!         budget, spool, pace      ↑        ↑         ↑
//!                                 context (settings, stats, log), handover
//! ```
//!
//! What is on its way: `intake` a request's body, `unsent` an answer. Both take memory from one `budget`, disk from a
//! `spool`, and time from the client's `pace`.
//!
//! Knows no Python: `py` gives calls to the app and brings back bytes.

pub mod budget;
pub mod buffer;
pub mod conn;
pub mod context;
pub mod forked;
pub mod handover;
pub mod intake;
pub mod log;
pub mod pace;
pub mod reactor;
pub mod server;
pub mod settings;
pub mod spool;
pub mod stats;
pub mod sys;
pub mod threads;
pub mod unsent;
