//! Requests that have not arrived whole.

use crate::limits::UNFINISHED_FREE_BYTES;

/// A request of which a part has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Unfinished {
    /// How many requests of this connection were whole before it.
    pub request: u64,
    /// How much of it has arrived.
    pub arrived: usize,
    /// How long it will be at most.
    pub bytes: usize,
}

impl Unfinished {
    /// A request of which so many bytes have `arrived`, and which will have at most `bytes`; `None`
    /// if that is little enough to need no room.
    pub fn new(request: u64, arrived: usize, bytes: usize) -> Option<Self> {
        (arrived > UNFINISHED_FREE_BYTES).then_some(Unfinished { request, arrived, bytes })
    }

    /// Whether both speak of the same request.
    pub fn is_same(&self, other: &Unfinished) -> bool {
        (self.request, self.bytes) == (other.request, other.bytes)
    }
}
