//! What is read from disk to be sent to a peer: one piece at a time, by whoever carries the node.

use crate::engine::SessionId;
use crate::types::{Epoch, SeqRange};

/// What is to be sent to a peer: of these entries at most so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The entries.
    pub range: SeqRange,
    /// Bytes of records, though one entry is always sent whole.
    pub bytes_max: usize,
    /// They were sent before.
    pub again: bool,
    /// The epoch in which they were asked for.
    pub epoch: Epoch,
}

/// What is read for one peer: one piece at a time, however often connections change meanwhile, so that
/// a disk that hangs collects no threads.
#[derive(Debug, Default)]
pub struct PeerReads {
    under_way: bool,
    next: Option<(SessionId, Asked)>,
}

impl PeerReads {
    /// Asks for a read. Answers what is to be read now; otherwise it is when the one under way is done,
    /// unless something else is asked for before.
    pub fn start(&mut self, session: SessionId, asked: Asked) -> Option<(SessionId, Asked)> {
        if std::mem::replace(&mut self.under_way, true) {
            self.next = Some((session, asked));
            return None;
        }
        Some((session, asked))
    }

    /// The read that was under way is done. Answers what is to be read next.
    pub fn done(&mut self) -> Option<(SessionId, Asked)> {
        self.under_way = false;
        let (session, asked) = self.next.take()?;
        self.start(session, asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Seq;

    #[test]
    fn a_peer_that_comes_back_again_and_again_has_one_read_under_way() {
        let mut reads = PeerReads::default();
        let asked = |first| Asked {
            range: SeqRange::new(Seq::new(first), Seq::new(90)),
            bytes_max: 1,
            again: false,
            epoch: Epoch::new(1),
        };
        let begun: Vec<_> =
            (1..=50).filter_map(|at| reads.start(SessionId(at), asked(at))).collect();
        assert_eq!(begun, [(SessionId(1), asked(1))]);
        assert_eq!(reads.done(), Some((SessionId(50), asked(50))), "those in between are nobody's");
        assert_eq!(reads.done(), None);
        assert!(reads.start(SessionId(51), asked(51)).is_some());
    }
}
