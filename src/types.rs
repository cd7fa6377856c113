//! The nouns of the field as types: two numbers of different meaning never share one.
//!
//! Nothing here does I/O and nothing here decides; every room of the house may import this file.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::NODES_MAX;

/// A sequence number: the position of an entry in the log, from 1, dense.
///
/// `Seq::ZERO` stands for "before the first entry", so that "everything up to and including" can be
/// said of an empty log too.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// Before the first entry.
    pub const ZERO: Seq = Seq(0);
    /// The first entry.
    pub const FIRST: Seq = Seq(1);

    /// The sequence number with this value.
    pub const fn new(number: u64) -> Self {
        Seq(number)
    }

    /// The plain number, for messages and arithmetic at the edge.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The following number. Saturates at the end of the number space, which a log that appends
    /// ten million entries a second reaches after 58,000 years.
    pub const fn next(self) -> Self {
        Seq(self.0.saturating_add(1))
    }

    /// The number before; `ZERO` stays `ZERO`.
    pub const fn previous(self) -> Self {
        Seq(self.0.saturating_sub(1))
    }

    /// This number plus `count`, saturating.
    pub const fn plus(self, count: u64) -> Self {
        Seq(self.0.saturating_add(count))
    }

    /// How many entries lie after `earlier` up to and including this one (0 if it is not earlier).
    pub const fn distance_from(self, earlier: Seq) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of consecutive sequence numbers, half-open: `first` is in it, `end` is not.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqRange {
    /// The first number of the run.
    pub first: Seq,
    /// The number after the last one of the run.
    pub end: Seq,
}

impl SeqRange {
    /// The run from `first` up to, but without, `end`; empty if `end <= first`.
    pub const fn new(first: Seq, end: Seq) -> Self {
        SeqRange { first, end }
    }

    /// The run from `first` up to and including `last`.
    pub const fn inclusive(first: Seq, last: Seq) -> Self {
        SeqRange { first, end: last.next() }
    }

    /// The run of `count` numbers that starts at `first`.
    pub const fn with_len(first: Seq, count: u64) -> Self {
        SeqRange { first, end: first.plus(count) }
    }

    /// Whether the run has no number at all.
    pub fn is_empty(self) -> bool {
        self.end <= self.first
    }

    /// How many numbers the run has.
    pub const fn len(self) -> u64 {
        self.end.distance_from(self.first)
    }

    /// The last number of the run. Meaningless for an empty run.
    pub const fn last(self) -> Seq {
        self.end.previous()
    }

    /// Whether `seq` is in the run.
    pub fn contains(self, seq: Seq) -> bool {
        self.first <= seq && seq < self.end
    }

    /// The numbers both runs have; empty if there are none.
    pub fn intersection(self, other: SeqRange) -> SeqRange {
        SeqRange { first: self.first.max(other.first), end: self.end.min(other.end) }
    }
}

impl fmt::Display for SeqRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            write!(f, "-")
        } else if self.len() == 1 {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}..{}", self.first, self.last())
        }
    }
}

/// The number of a master's reign. A frame of a lower epoch is refused (fencing).
///
/// 0 stands for "no epoch yet": a master that only asks, a log without an entry, an entry put in
/// by hand.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// No epoch yet.
    pub const ZERO: Epoch = Epoch(0);

    /// The epoch with this number.
    pub const fn new(number: u64) -> Self {
        Epoch(number)
    }

    /// The plain number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The following epoch.
    pub const fn next(self) -> Self {
        Epoch(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The chain digest at an entry: equal on two logs iff they are equal up to there (but for a
/// collision of a 64-bit hash). See `store::record` for how it is made.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(u64);

impl Digest {
    /// The digest of the empty log.
    pub const EMPTY: Digest = Digest(0);

    /// The digest with this value.
    pub const fn new(value: u64) -> Self {
        Digest(value)
    }

    /// The plain value.
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What identifies a whole prefix of a log: the epoch and the chain digest of its last entry.
///
/// Two logs whose ids at the same sequence number are equal hold the same entries up to there: the
/// log matching property of Raft, made checkable by one value.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixId {
    /// Epoch of the last entry of the prefix; 0 for the empty prefix.
    pub epoch: Epoch,
    /// Chain digest at the last entry; `Digest::EMPTY` for the empty prefix.
    pub digest: Digest,
}

impl PrefixId {
    /// The id of the empty prefix.
    pub const EMPTY: PrefixId = PrefixId { epoch: Epoch::ZERO, digest: Digest::EMPTY };
}

impl fmt::Display for PrefixId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.digest)
    }
}

/// The random identity of one history. Nodes of different histories never exchange an entry.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId([u8; 16]);

impl LogId {
    /// The id with these bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        LogId(bytes)
    }

    /// The bytes of the id.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The random identity of one process of a master. A promise binds an epoch and a run, so that two
/// masters started with the same epoch cannot both be followed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RunId(u64);

impl RunId {
    /// The id with this value.
    pub const fn new(value: u64) -> Self {
        RunId(value)
    }

    /// The plain value.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// The configured name of a node: 1 to 32 of `a-z A-Z 0-9 . _ -`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=32).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(NodeId(text.into()))
        } else {
            Err(ParseError::new("1 to 32 of a-z A-Z 0-9 . _ -"))
        }
    }
}

/// A node's place in the roster: 0 is the master, k the k-th configured secondary.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(u8);

impl NodeIndex {
    /// The master's place.
    pub const MASTER: NodeIndex = NodeIndex(0);

    /// The place of the `position`-th secondary, counted from 0.
    ///
    /// # Panics
    /// If the roster could not be that long; the configuration refuses such a roster.
    pub fn secondary(position: usize) -> Self {
        assert!(position + 1 < NODES_MAX, "BUG: a roster longer than NODES_MAX was accepted");
        NodeIndex((position + 1) as u8)
    }

    /// The place as an index into a list of all nodes.
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }

    /// The place as an index into a list of the secondaries only, `None` for the master.
    pub const fn secondary_position(self) -> Option<usize> {
        (self.0 as usize).checked_sub(1)
    }
}

/// A set of nodes of the roster. One bit per node; bit 0 is the master.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeSet(u128);

impl NodeSet {
    /// The set with these bits.
    pub const fn from_bits(bits: u128) -> Self {
        NodeSet(bits)
    }

    /// The bits of the set.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// The set with `node` added.
    #[must_use]
    pub const fn with(self, node: NodeIndex) -> Self {
        NodeSet(self.0 | 1 << node.0)
    }

    /// Whether `node` is in the set.
    pub const fn contains(self, node: NodeIndex) -> bool {
        self.0 & (1 << node.0) != 0
    }

    /// How many nodes the set has.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether the set has no node.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What a node is in its cluster.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Accepts appends and replicates them.
    Master,
    /// Holds a copy, serves reads, acknowledges.
    Secondary,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Master => "master",
            Role::Secondary => "secondary",
        })
    }
}

/// How many nodes, the master always among them, must hold an entry before its client hears OK.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum WriteConcern {
    /// So many nodes.
    Nodes(NonZeroU16),
    /// More than half of the configured nodes.
    Majority,
    /// Every configured node.
    All,
}

impl WriteConcern {
    /// The number of nodes meant in a cluster of `nodes`, `None` if it has not so many.
    pub fn resolve(self, nodes: usize) -> Option<usize> {
        match self {
            WriteConcern::Nodes(count) => Some(usize::from(count.get())).filter(|&w| w <= nodes),
            WriteConcern::Majority => Some(majority(nodes)),
            WriteConcern::All => Some(nodes),
        }
    }
}

impl FromStr for WriteConcern {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "majority" => Ok(WriteConcern::Majority),
            "all" => Ok(WriteConcern::All),
            _ => parse_decimal(text)
                .and_then(|number| u16::try_from(number).ok())
                .and_then(NonZeroU16::new)
                .map(WriteConcern::Nodes)
                .ok_or(ParseError::new("a number of nodes from 1, majority or all")),
        }
    }
}

impl fmt::Display for WriteConcern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteConcern::Nodes(count) => count.fmt(f),
            WriteConcern::Majority => f.write_str("majority"),
            WriteConcern::All => f.write_str("all"),
        }
    }
}

/// More than half of `nodes`.
pub const fn majority(nodes: usize) -> usize {
    nodes / 2 + 1
}

/// What "a node holds it" means for an append.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AckLevel {
    /// In the log without a hole before it, and durable as the node's fsync policy says.
    #[default]
    Stored,
    /// In memory, even if it still waits for an earlier entry.
    Received,
}

impl FromStr for AckLevel {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "stored" => Ok(AckLevel::Stored),
            "received" => Ok(AckLevel::Received),
            _ => Err(ParseError::new("stored or received")),
        }
    }
}

impl fmt::Display for AckLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AckLevel::Stored => "stored",
            AckLevel::Received => "received",
        })
    }
}

/// How long a client waits for its write concern to be met.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// As long as it takes.
    Forever,
    /// So long; then the answer is PENDING.
    For(Duration),
}

impl FromStr for Timeout {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "none" => Ok(Timeout::Forever),
            _ => parse_duration(text)
                .map(Timeout::For)
                .map_err(|_| ParseError::new("a duration such as 500ms, 5s, 2m or 30, or none")),
        }
    }
}

/// How an entry that is in the log, or comes into it, is to be acknowledged. What is `None` is as the
/// master is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitOptions {
    /// How many nodes must hold it before the answer is OK.
    pub concern: Option<WriteConcern>,
    /// What holding means.
    pub ack: Option<AckLevel>,
    /// How long to wait before the answer is PENDING.
    pub timeout: Option<Timeout>,
}

/// Which entries a reader may see.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// All that this node holds without holes.
    #[default]
    Local,
    /// Held by a majority of the configured nodes.
    Committed,
    /// Held by every configured node.
    All,
    /// Held by at least so many nodes.
    Nodes(NonZeroU16),
}

impl FromStr for Level {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "local" => Ok(Level::Local),
            "committed" => Ok(Level::Committed),
            "all" => Ok(Level::All),
            _ => parse_decimal(text)
                .and_then(|number| u16::try_from(number).ok())
                .and_then(NonZeroU16::new)
                .map(Level::Nodes)
                .ok_or(ParseError::new("local, committed, all or a number of nodes from 1")),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Level::Local => f.write_str("local"),
            Level::Committed => f.write_str("committed"),
            Level::All => f.write_str("all"),
            Level::Nodes(count) => count.fmt(f),
        }
    }
}

/// A moment on a monotonic clock that starts at 0 with the node (or the test): microseconds.
///
/// Our own type, so that the engine cannot read a clock and a script can write `t=150ms`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The beginning.
    pub const ZERO: Time = Time(0);

    /// The moment so many microseconds after the beginning.
    pub const fn from_micros(micros: u64) -> Self {
        Time(micros)
    }

    /// Microseconds since the beginning.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The moment `duration` later, saturating.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Time(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero if it was not earlier.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Why a text is not the value it was meant to be: what is allowed instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    expected: &'static str,
}

impl ParseError {
    /// An error that says what is allowed.
    pub const fn new(expected: &'static str) -> Self {
        ParseError { expected }
    }

    /// What is allowed.
    pub const fn expected(&self) -> &'static str {
        self.expected
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl std::error::Error for ParseError {}

/// Parses a plain decimal number: digits only, no sign, no space. `None` for anything else and for
/// what does not fit.
pub fn parse_decimal(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// Parses a duration as users write it: `500ms`, `5s`, `2m`, or a bare number of seconds (`30`,
/// `0.5`). At most a thousand years, so that no sum of durations overflows.
///
/// # Errors
/// Says what is allowed.
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    const EXPECTED: ParseError = ParseError::new("a duration such as 500ms, 5s, 2m, 30 or 0.5");
    const SECONDS_MAX: f64 = 1000.0 * 365.0 * 86_400.0;
    let (number, unit_micros) = [("ms", 1e3), ("us", 1.0), ("s", 1e6), ("m", 60e6), ("h", 3600e6)]
        .into_iter()
        .find_map(|(unit, micros)| text.strip_suffix(unit).map(|number| (number, micros)))
        .unwrap_or((text, 1e6));
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value: f64 = number.parse().ok().filter(|_| plain).ok_or(EXPECTED)?;
    let micros = value * unit_micros;
    if micros > SECONDS_MAX * 1e6 {
        return Err(EXPECTED);
    }
    Ok(Duration::from_micros(micros.round() as u64))
}

/// Parses a size in bytes as users write it: `4096`, `64KiB`, `1MiB`, `4GiB`.
///
/// # Errors
/// Says what is allowed.
pub fn parse_size(text: &str) -> Result<u64, ParseError> {
    const EXPECTED: ParseError = ParseError::new("a size such as 4096, 64KiB or 1MiB");
    let (number, shift) = [("KiB", 10), ("MiB", 20), ("GiB", 30)]
        .into_iter()
        .find_map(|(unit, shift)| text.strip_suffix(unit).map(|number| (number, shift)))
        .unwrap_or((text, 0));
    parse_decimal(number).and_then(|value| value.checked_mul(1 << shift)).ok_or(EXPECTED)
}

/// Room on a disk that is wanted and not to be had.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes that must become free before more entries are taken.
    pub need: u64,
    /// Bytes that are free, where that can be known.
    pub free: Option<u64>,
    /// What is used up.
    pub limit: RoomLimit,
}

/// What can be used up on a disk.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RoomLimit {
    /// The file system's space.
    Space,
    /// The share of it that the node's user may have.
    Quota,
    /// The length that the system allows one file of this process, in bytes (`ulimit -f`).
    FileSize(u64),
}

impl fmt::Display for RoomLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoomLimit::Space => f.write_str("the file system"),
            RoomLimit::Quota => f.write_str("the disk quota"),
            RoomLimit::FileSize(bytes) => {
                write!(f, "the process's limit of {bytes} bytes for a file (ulimit -f)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_the_interface_says() {
        let cases = [
            ("500ms", 500_000),
            ("5s", 5_000_000),
            ("2m", 120_000_000),
            ("30", 30_000_000),
            ("0.5", 500_000),
            ("0", 0),
        ];
        for (text, micros) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for text in ["", "s", "-1", "1e9", "5 s", "abc", "1.2.3", "99999999999999h", "NaN", "inf"] {
            assert!(parse_duration(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn sizes_are_written_as_the_interface_says() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("1MiB"), Ok(1_048_576));
        for text in ["", "KiB", "-1", "1KB", "99999999999GiB", "1.5MiB"] {
            assert!(parse_size(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn a_write_concern_counts_configured_nodes() {
        let resolve = |text: &str, nodes| text.parse::<WriteConcern>().ok()?.resolve(nodes);
        assert_eq!(resolve("1", 3), Some(1));
        assert_eq!(resolve("3", 3), Some(3));
        assert_eq!(resolve("4", 3), None);
        assert_eq!(resolve("0", 3), None);
        assert_eq!(resolve("+1", 3), None);
        assert_eq!(resolve("majority", 3), Some(2));
        assert_eq!(resolve("majority", 4), Some(3));
        assert_eq!(resolve("all", 6), Some(6));
    }
}
