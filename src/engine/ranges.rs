//! A set of sequence numbers as a few sorted, disjoint ranges: what a node holds early.

use crate::types::{Seq, SeqRange};

/// Sorted, disjoint, non-adjacent, non-empty ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<SeqRange>,
}

impl RangeSet {
    /// The set of all numbers in `ranges`, in any order.
    pub fn of(ranges: impl IntoIterator<Item = SeqRange>) -> Self {
        let mut set = RangeSet::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }

    /// Whether there is no number in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = SeqRange> + '_ {
        self.ranges.iter().copied()
    }

    /// Adds a range.
    pub fn insert(&mut self, range: SeqRange) {
        if range.is_empty() {
            return;
        }
        let from = self.ranges.partition_point(|known| known.end < range.first);
        let to = self.ranges.partition_point(|known| known.first <= range.end);
        let mut merged = range;
        if let Some(touched) = self.ranges.get(from..to)
            && let (Some(first), Some(last)) = (touched.first(), touched.last())
        {
            merged = SeqRange::new(merged.first.min(first.first), merged.end.max(last.end));
        }
        self.ranges.splice(from..to.max(from), [merged]);
    }

    /// Forgets all numbers up to and including `seq`.
    pub fn remove_up_to(&mut self, seq: Seq) {
        self.ranges.retain_mut(|range| {
            range.first = range.first.max(seq.next());
            !range.is_empty()
        });
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: SeqRange) {
        if range.is_empty() {
            return;
        }
        let parts = self.ranges.iter().flat_map(|known| {
            let before = SeqRange::new(known.first, known.end.min(range.first).max(known.first));
            let behind = SeqRange::new(known.first.max(range.end).min(known.end), known.end);
            [before, behind]
        });
        self.ranges = parts.filter(|part| !part.is_empty()).collect();
    }

    /// The first number in it.
    pub fn first(&self) -> Option<Seq> {
        self.ranges.first().map(|range| range.first)
    }

    /// Whether `seq` is in it, and up to where (exclusive) that stays so; `None`: for ever.
    pub fn holds(&self, seq: Seq) -> (bool, Option<Seq>) {
        let index = self.ranges.partition_point(|range| range.end <= seq);
        match self.ranges.get(index) {
            None => (false, None),
            Some(range) if range.contains(seq) => (true, Some(range.end)),
            Some(range) => (false, Some(range.first)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::inclusive(Seq::new(first), Seq::new(last))
    }

    #[test]
    fn neighbours_and_overlaps_become_one_range() {
        let set =
            RangeSet::of([range(4, 5), range(9, 9), range(6, 8), range(20, 30), range(25, 40)]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [range(4, 9), range(20, 40)]);
    }

    #[test]
    fn removing_cuts_a_range_in_the_middle() {
        let mut set = RangeSet::of([range(4, 9), range(20, 40)]);
        set.remove_up_to(Seq::new(6));
        assert_eq!(set.iter().collect::<Vec<_>>(), [range(7, 9), range(20, 40)]);
        set.remove_up_to(Seq::new(100));
        assert!(set.is_empty());
    }

    #[test]
    fn removing_a_range_leaves_what_is_before_and_behind_it() {
        let mut set = RangeSet::of([range(4, 9), range(20, 40), range(50, 60)]);
        set.remove(range(6, 30));
        assert_eq!(set.iter().collect::<Vec<_>>(), [range(4, 5), range(31, 40), range(50, 60)]);
        set.remove(range(33, 35));
        assert_eq!(set.iter().nth(1), Some(range(31, 32)));
        set.remove(range(1, 60));
        assert_eq!((set.is_empty(), set.first()), (true, None));
    }

    #[test]
    fn holds_tells_where_the_answer_changes() {
        let set = RangeSet::of([range(4, 9)]);
        assert_eq!(set.holds(Seq::new(3)), (false, Some(Seq::new(4))));
        assert_eq!(set.holds(Seq::new(4)), (true, Some(Seq::new(10))));
        assert_eq!(set.holds(Seq::new(10)), (false, None));
    }
}
