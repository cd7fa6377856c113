//! Positions and levels: how many nodes hold what.

use crate::types::{Level, Seq, majority};

/// The positions that at least k nodes hold, the master always among them, for every k; and the
/// highest position a majority ever held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Never falls while the node runs.
    pub commit: Seq,
    /// At index k−1: C(k). Falls with k; may fall over time when a node is wiped.
    pub held_by: Vec<Seq>,
}

impl Levels {
    /// The levels of `nodes` empty logs.
    pub fn empty(nodes: usize) -> Self {
        Levels { commit: Seq::ZERO, held_by: vec![Seq::ZERO; nodes] }
    }

    /// C(k); for k beyond the number of nodes the position that nobody can reach.
    pub fn held_by(&self, nodes: usize) -> Seq {
        nodes.checked_sub(1).and_then(|at| self.held_by.get(at)).copied().unwrap_or(Seq::ZERO)
    }

    /// Takes new positions: the master's and, in any order, the secondaries'. `scratch` is reused.
    /// Returns whether anything changed.
    ///
    /// `C(1) = master`, `C(k) = min(master, (k−1)-th largest of the secondaries)`.
    pub fn update(&mut self, master: Seq, secondaries: &mut [Seq]) -> bool {
        debug_assert_eq!(self.held_by.len(), secondaries.len() + 1);
        secondaries.sort_unstable_by(|a, b| b.cmp(a));
        let mut changed = false;
        let positions = std::iter::once(&master).chain(secondaries.iter());
        for (level, position) in self.held_by.iter_mut().zip(positions) {
            let held = master.min(*position);
            changed |= *level != held;
            *level = held;
        }
        let commit = self.commit.max(self.held_by(majority(self.held_by.len())));
        changed |= commit != self.commit;
        self.commit = commit;
        changed
    }

    /// The last entry that a reader at `level` may see on a node that holds everything up to
    /// `local`. `None` if the cluster has not so many nodes.
    pub fn visible(&self, level: Level, local: Seq) -> Option<Seq> {
        let position = match level {
            Level::Local => local,
            Level::Committed => self.commit,
            Level::All => self.held_by(self.held_by.len()),
            Level::Nodes(count) if usize::from(count.get()) > self.held_by.len() => return None,
            Level::Nodes(count) => self.held_by(usize::from(count.get())),
        };
        Some(position.min(local))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(master: u64, secondaries: &[u64]) -> (Vec<u64>, u64) {
        let mut levels = Levels::empty(secondaries.len() + 1);
        let mut positions: Vec<_> = secondaries.iter().copied().map(Seq::new).collect();
        levels.update(Seq::new(master), &mut positions);
        (levels.held_by.iter().map(|seq| seq.number()).collect(), levels.commit.number())
    }

    #[test]
    fn a_level_counts_the_master_and_the_best_secondaries() {
        assert_eq!(levels(9, &[]), (vec![9], 9));
        assert_eq!(levels(9, &[3, 7]), (vec![9, 7, 3], 7));
        assert_eq!(levels(9, &[3, 7, 1, 5, 9]), (vec![9, 9, 7, 5, 3, 1], 5));
        // Nobody counts beyond what the master itself has stored.
        assert_eq!(levels(2, &[3, 7]), (vec![2, 2, 2], 2));
        assert_eq!(levels(4, &[3]), (vec![4, 3], 3));
    }

    #[test]
    fn the_commit_position_never_falls() {
        let mut levels = Levels::empty(3);
        levels.update(Seq::new(9), &mut [Seq::new(9), Seq::new(4)]);
        assert_eq!(levels.commit, Seq::new(9));
        levels.update(Seq::new(9), &mut [Seq::ZERO, Seq::new(4)]);
        assert_eq!((levels.commit, levels.held_by(2)), (Seq::new(9), Seq::new(4)));
    }

    #[test]
    fn a_reader_never_sees_more_than_the_node_holds() {
        let mut levels = Levels::empty(3);
        levels.update(Seq::new(9), &mut [Seq::new(9), Seq::new(4)]);
        assert_eq!(levels.visible(Level::Committed, Seq::new(6)), Some(Seq::new(6)));
        assert_eq!(levels.visible(Level::All, Seq::new(6)), Some(Seq::new(4)));
        assert_eq!(levels.visible("4".parse().unwrap(), Seq::new(6)), None);
    }
}
