//! What can go wrong with a connection. Every error answers the one question that matters: may
//! something have happened?

use std::fmt;
use std::time::Duration;

use crate::codes::RefuseCode;
use crate::store::RecordError;

use super::outcome::Refusal;

/// The connection ended before the answer came, or was given up because none does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection lost: {reason}")]
pub struct ConnectionLost {
    /// Whether the whole request had been handed to the socket. If not, the node cannot have acted
    /// on it: nothing happened. If so, it may have, and only the log tells.
    pub sent: bool,
    /// Why it ended.
    pub reason: LostReason,
}

impl ConnectionLost {
    pub(super) fn unsent(reason: &LostReason) -> Self {
        ConnectionLost { sent: false, reason: reason.clone() }
    }

    /// Whether the request may have been carried out.
    pub fn maybe_applied(&self) -> bool {
        self.sent
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostReason {
    /// The node closed it without a word, or its process ended.
    #[error("closed by the node")]
    Closed,
    /// The system reported an error.
    #[error("{0}")]
    Io(String),
    /// The node said why.
    #[error("the node ended it: {0}")]
    Refused(RefusedByNode),
    /// The node sent what it must not.
    #[error("the node broke the protocol: {0}")]
    Protocol(String),
    /// Nothing came from the node for so long, though it was asked with a PING.
    #[error("silent for {0:?}, and does not answer a PING")]
    Silent(Duration),
    /// An append or wait was not answered within its timeout and
    /// [`ANSWER_MARGIN`](crate::limits::ANSWER_MARGIN).
    #[error("no answer within {0:?}, the timeout included")]
    Overdue(Duration),
    /// The last handle of the client is gone.
    #[error("the client was dropped")]
    Dropped,
}

impl LostReason {
    /// Whether the node is there and says nothing, as far as is known: it may be frozen, or its
    /// machine gone.
    pub fn is_silence(&self) -> bool {
        matches!(self, LostReason::Silent(_) | LostReason::Overdue(_))
    }

    pub(super) fn protocol(what: impl fmt::Display) -> Self {
        LostReason::Protocol(what.to_string())
    }
}

impl From<std::io::Error> for LostReason {
    fn from(error: std::io::Error) -> Self {
        LostReason::Io(error.to_string())
    }
}

/// A REFUSE frame: the node sent us away and said why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedByNode {
    /// The number on the wire; [`RefuseCode::from_number`] names those this version knows.
    pub code: u16,
    /// The node's sentence.
    pub reason: String,
}

impl fmt::Display for RefusedByNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match RefuseCode::from_number(self.code) {
            Some(code) => write!(f, "{code}"),
            None => write!(f, "code {}", self.code),
        }?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " - {}", self.reason) }
    }
}

/// No node could be reached. Nothing was asked of any, so nothing happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// Each address tried, with the reason.
    pub attempts: Vec<(String, ConnectFailure)>,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.attempts.is_empty() {
            return f.write_str("no address was given");
        }
        for (index, (addr, failure)) in self.attempts.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{addr}: {failure}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConnectError {}

/// Why one address did not do. Nothing was asked there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    /// The name has no address, or no name server answers in time.
    #[error("cannot resolve: {0}")]
    Unresolved(String),
    /// Nobody listens there, nothing came back in time, or the network says no.
    #[error("cannot connect: {0}")]
    Unconnected(String),
    /// There is a connection and nothing else: a frozen node, or no node at all.
    #[error(
        "connected, but no introduction within {0:?}: the node is frozen, or this is not its wire \
         address"
    )]
    NotIntroduced(Duration),
    /// The connection ended before the introduction.
    #[error(
        "connected, but closed before the introduction ({0}): the node is stopping, or this is not \
         its wire address (a TLS port closes so)"
    )]
    Closed(String),
    /// It had no time to say more: another server was quicker.
    #[error("no introduction within {0:?}")]
    Overtaken(Duration),
    /// The node refused.
    #[error("refused: {0}")]
    Refused(RefusedByNode),
    /// Somebody else answers there, who is known by what was said: the text gateway of a node,
    /// say, or a web server.
    #[error("{0}")]
    WrongPort(String),
    /// It answers, but not as a node of this protocol does.
    #[error("not a replog node: {0}")]
    Protocol(String),
}

/// Why reading ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The node does not serve this request.
    #[error("{0}")]
    Refused(Refusal),
    /// The connection ended; what was read before stays valid.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
    /// The entries are damaged, or not the ones that must follow.
    #[error("bad entries: {0}")]
    BadRecord(#[from] RecordError),
}

/// Why a command has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The connection ended first.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
    /// The line is longer than the node takes; nothing was sent.
    #[error("the command has {bytes} bytes, the node takes at most {max}")]
    LineTooLong {
        /// Its length.
        bytes: usize,
        /// The longest one allowed.
        max: usize,
    },
    /// A line feed would have started a second command; nothing was sent.
    #[error("a command is one line")]
    NotOneLine,
    /// The reply is longer than may be kept in one piece; read it in pieces.
    #[error("the reply is longer than {max} bytes")]
    ReplyTooLong {
        /// The bound.
        max: usize,
    },
}
