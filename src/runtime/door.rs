//! The two doors of a node.

/// Which door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The wire protocol.
    Wire,
    /// The text gateway.
    Gateway,
}
