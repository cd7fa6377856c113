//! What must hold, seen from above: from here every log, every position and every promise is visible.
//!
//! How wiped nodes are accounted for. A secondary in memory that crashes loses its log, and until it
//! introduces itself anew the master cannot know. So an OK counts a node that held the entry when it
//! told the master so, and was wiped since without the master having been able to learn it: what such a
//! node told is its *ghost*. A ghost ends when the master accepts the next introduction of the node's
//! new life. The same holds for what was only held back (`ack=received`) and dropped with a connection:
//! that ghost ends when the master loses the connection or follows the node on a new one. In a run
//! without crashes the ghosts of stored entries are empty and the count is exact.

mod answers;
mod end;
mod reigns;
mod turns;

use replog::engine::Levels;
use replog::node::Storage as _;
use replog::types::{Epoch, PrefixId, Seq, SeqRange};

use super::World;

/// What a node told the master and lost since.
#[derive(Clone, Debug, Default)]
pub(super) struct Ghost {
    pub(super) stored: Seq,
    pub(super) received: Seq,
    pub(super) held: Vec<SeqRange>,
}

/// What the checks remember.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    commit: Seq,
    /// What was committed: the prefix id of each entry, where somebody could read it then.
    committed: Vec<Option<PrefixId>>,
    /// What was committed and on a secondary when its process ended.
    must_hold: Vec<Seq>,
    held_by: Vec<Seq>,
    /// The highest C(k) ever, and the highest commit.
    held_by_max: Vec<Seq>,
    /// Per secondary: the commit position it knew, and how far its log was compared.
    known: Vec<(u32, Seq, Seq)>,
    /// Per secondary: the epoch it promised, in this life.
    promised: Vec<(u32, replog::types::Epoch)>,
    pending: std::collections::BTreeMap<Seq, usize>,
    turns: u64,
    /// What the ghosts that ended in this turn had told: the commit may have moved before they did.
    ended: Vec<(usize, Seq)>,
    /// No judgement of silence before this: the master slept, or the world was made.
    awake_since: u64,
}

impl Memory {
    pub(super) fn new(nodes: usize) -> Self {
        let zeros = vec![Seq::ZERO; nodes];
        Memory {
            held_by: zeros.clone(),
            must_hold: zeros.clone(),
            held_by_max: zeros,
            known: vec![(0, Seq::ZERO, Seq::ZERO); nodes],
            promised: vec![(0, replog::types::Epoch::ZERO); nodes],
            ..Memory::default()
        }
    }

    /// A master's process begins, with what its log tells.
    pub(super) fn master_restarts(&mut self, now: u64, levels: Levels) {
        self.awake_since = now;
        self.commit = levels.commit;
        for (max, now) in self.held_by_max.iter_mut().zip(&levels.held_by) {
            *max = (*max).max(*now);
        }
        self.held_by = levels.held_by;
        self.pending.clear();
    }

    /// A secondary's process begins, with what its log tells.
    pub(super) fn secondary_restarts(
        &mut self,
        node: usize,
        life: u32,
        commit: Seq,
        last: Seq,
        epoch: Epoch,
    ) {
        self.known[node] = (life, commit, last);
        self.promised[node] = (life, epoch);
    }

    /// The epoch that a secondary promised.
    pub(super) fn promised(&self, node: usize) -> Epoch {
        self.promised[node].1
    }

    /// The highest commit position ever, unless it was lost.
    pub(in crate::world) fn committed(&self) -> Seq {
        Seq::new(self.committed.len() as u64)
    }

    /// What was committed as `seq`, if that is known.
    fn committed_id(&self, seq: Seq) -> Option<PrefixId> {
        match seq.number() {
            0 => Some(PrefixId::EMPTY),
            number => self.committed.get(number as usize - 1).copied().flatten(),
        }
    }

    /// The master judges nobody before `at`: it was, or still will be, late itself.
    pub(super) fn master_woke(&mut self, at: u64) {
        self.awake_since = self.awake_since.max(at);
    }
}

impl World {
    /// A secondary's process ends: what it told is a ghost.
    pub(super) fn wiped(&mut self, node: usize) {
        let own = &self.secondaries[node - 1];
        let mut had = own.engine().stored().min(self.memory.committed());
        // What it has of a reign that others did not follow is not what was committed.
        let (log, committed) = (own.store().log().reader(), |seq| self.memory.committed_id(seq));
        let differs = |seq| log.prefix_id(seq).zip(committed(seq)).is_some_and(|(a, b)| a != b);
        while differs(had) {
            had = had.previous();
        }
        let held_behind = (!own.engine().held().is_empty()).then_some(own.engine().written());
        self.memory.must_hold[node] = self.memory.must_hold[node].max(had);
        let ghost = &mut self.ghosts[node];
        ghost.stored = ghost.stored.max(own.engine().stored());
        ghost.received = ghost.received.max(own.engine().written());
        ghost.held.extend(own.engine().held().iter());
        if let Some(written) = held_behind {
            self.record_drop(node, written);
        }
    }

    /// The master follows a secondary on a connection to its `life`.
    pub(super) fn now_follows(&mut self, node: usize, life: Option<u32>, stored: Seq) {
        let own = &self.secondaries[node - 1];
        if life != Some(self.hosts[node].life) || !self.hosts[node].up {
            return;
        }
        if own.engine().stored() < stored {
            return; // It has become damaged since it said so.
        }
        let ids = (
            own.store().log().reader().prefix_id(stored),
            self.master.store().log().reader().prefix_id(stored),
        );
        if ids.0 != ids.1 && !self.is_hurt(0) && !self.is_hurt(node) {
            self.fail(
                "whoever is followed has a prefix of the master's log",
                format!("n{node} at {stored}: {ids:?}"),
            );
        }
        let ended = std::mem::take(&mut self.ghosts[node]);
        self.memory.ended.push((node, ended.stored));
    }

    /// Whether something was done to a node's disk that no crash does.
    pub(super) fn is_hurt(&self, node: usize) -> bool {
        self.disks[node].as_ref().is_some_and(|disk| disk.hurt || disk.fs.is_dead())
    }
}
