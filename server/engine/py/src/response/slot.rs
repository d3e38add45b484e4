//! The request that is being answered: the response's own, or shared with its `wsgi.input`.

use std::sync::Arc;

use prefork_io::reactor::Call;

use crate::input::Stream;

/// The call, ours alone or shared with its `wsgi.input`.
pub enum RequestSlot {
    /// Its body is complete.
    Own(Call),
    /// Its body is still coming.
    Shared(Arc<Stream>),
}

impl RequestSlot {
    pub(super) fn with<T>(&mut self, action: impl FnOnce(&mut Call) -> T) -> Option<T> {
        match self {
            Self::Own(call) => Some(action(call)),
            Self::Shared(stream) => stream.with_call(action),
        }
    }

    pub(super) fn peek<T>(&self, look: impl FnOnce(&Call) -> T) -> Option<T> {
        match self {
            Self::Own(call) => Some(look(call)),
            Self::Shared(stream) => stream.peek(look),
        }
    }

    pub(super) fn end(self) -> Option<Call> {
        match self {
            Self::Own(call) => Some(call),
            Self::Shared(stream) => stream.end(),
        }
    }

    pub(super) fn is_body_received(&self) -> bool {
        match self {
            Self::Own(_) => true,
            Self::Shared(stream) => stream.is_received(),
        }
    }
}
