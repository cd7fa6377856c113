//! Rare things that a long run must have seen: a fault that never bit proves nothing.

macro_rules! sometimes {
    ($($name:ident = $text:literal,)*) => {
        /// Something rare.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // The text beside each says it.
        pub enum Sometimes { $($name,)* }

        impl Sometimes {
    fn needs_disks(self) -> bool {
        matches!(
            self,
            Sometimes::Aligned
                | Sometimes::SecondaryRepaired
                | Sometimes::MasterRepaired
                | Sometimes::TornTailCut
                | Sometimes::RoomAgain
                | Sometimes::DiskFullRefused
                | Sometimes::DamagedRefused
                | Sometimes::SyncFailed
                | Sometimes::EpochRaised
                | Sometimes::NewHistory
                | Sometimes::AnswersMissing
                | Sometimes::TailAdopted
                | Sometimes::LedAgain
                | Sometimes::ColdRead
                | Sometimes::RepairedTogether
                | Sometimes::WorkBrokenOff
        )
    }

            /// All of them.
            pub const ALL: &'static [Sometimes] = &[$(Sometimes::$name,)*];

            /// What it is.
            pub fn text(self) -> &'static str {
                match self { $(Sometimes::$name => $text,)* }
            }
        }
    };
}

sometimes! {
    HoleFilled = "a hole was filled and entries held back were released",
    HeldListed = "an ACK listed entries held back",
    ReadOnlyEntered = "read-only was entered",
    ReadOnlyLeft = "read-only was left",
    ReadOnlyRefused = "an append was refused because of read-only",
    RecoveringRefused = "an append was refused because the master was recovering",
    BadConcernRefused = "an append asked for more nodes than there are",
    Duplicate = "a duplicate was acknowledged",
    WindowFull = "a window was full",
    OversizeAlone = "an entry larger than the window went alone",
    AgainAfterNack = "entries were repeated after a NACK",
    AgainAfterSilence = "entries were repeated after silence",
    AgainAfterReturn = "entries were repeated to a secondary that came back",
    ManyAttempts = "three attempts failed in a row",
    Refilled = "a wiped secondary was refilled from 1",
    LevelFell = "a level fell after a wipe",
    CommitAbove = "commit stayed above what a majority held after a wipe",
    Suspected = "a secondary was suspected and came back",
    UnhealthyAndBack = "a secondary was unhealthy and came back",
    OneWayNoticed = "a one-way cut made a secondary unhealthy",
    PausedUnhealthy = "a paused secondary became unhealthy with its connection open",
    PendingThenDone = "an entry answered PENDING was later held by all that were asked for",
    OkReceivedFirst = "an entry was OK in memory on nodes that had not stored it",
    OkHeldBack = "an entry was OK in memory while a node held it back",
    PartAnswered = "a run of appends was answered in parts",
    GoneWhileWaiting = "a client was gone while its append waited",
    LateStored = "an entry was written long before it was stored",
    Deposed = "a master was deposed",
    Unknown = "a waiting append was answered UNKNOWN",
    OldSession = "something arrived of a connection that was replaced",
    Replaced = "a secondary closed a connection because a newer one leads",
    HalfOpenFound = "a half-open connection was found by its silence",
    DialRefused = "a connection was refused",
    DialTimedOut = "a connection attempt got no answer in time",
    Backpressure = "a full socket took nothing",
    LineAnswered = "a client heard an answer as lines",
    WireAnswered = "a client heard an answer as frames",
    RequestCut = "a request arrived in two pieces",
    RequestsMerged = "several requests of a client became one run",
    AnswerAwaited = "a session waited for the answer to its question",
    EntryShown = "a client was shown an entry by a list or a tail",
    QueuedControl = "a control frame overtook entries in the queue",
    SplitFrame = "a frame arrived in three pieces or more",
    MergedFrames = "several frames arrived in one piece",
    DelayedFrame = "the verb DELAY held a frame",
    FailedBefore = "the verb FAIL before refused a frame",
    FailedAfter = "the verb FAIL after stored a frame and said no",
    Muted = "a muted secondary kept an answer to itself",
    GaveWay = "entries by hand gave way to the master's",
    MovedAside = "entries by hand were moved aside",
    LongCatchUp = "a secondary was more than one run behind",
    ReadBehindCommit = "a read at a level showed less than the node held",
    StrangerAnswered = "a stranger that only asked got an answer",
    WaitNotFound = "a wait for an entry beyond the log was refused",
    WaitAtOnce = "a wait was answered at once",
    TailAdopted = "a master that started again adopted a tail",
    OwnAside = "a master that started again set its own suffix aside",
    Aligned = "a secondary set aside what its master's log has not",
    SecondaryRepaired = "what was damaged on a secondary was repaired",
    MasterRepaired = "what was damaged on the master was repaired",
    TornTailCut = "a torn tail was cut off",
    RoomAgain = "a full disk had room again",
    DiskFullRefused = "an append was refused because the disk was full",
    DamagedRefused = "an append was refused because the log was damaged",
    SyncFailed = "a sync that failed ended a node",
    AnswersMissing = "a master that started again was left recovering for want of answers",
    EpochRaised = "a starting master raised its epoch because it was taken",
    LedAgain = "a master that started again leads",
    NewHistory = "a new history began because too many nodes were empty",
    ColdRead = "entries that were not in memory any more were read for a peer",
    RepairedTogether = "several entries were put in place of damaged ones at once",
    WorkBrokenOff = "a node ended while its files were repaired",
    InboxFull = "a node's inbox was full and its connections were not read",
}

impl Sometimes {
    /// After so many seeds it must have been seen. Two things happen in one run of ten thousands only.
    pub fn seeds_to_see(self) -> u64 {
        match self {
            Sometimes::OldSession | Sometimes::InboxFull => 400_000,
            // Two masters, or a directory brought back from between two reigns.
            Sometimes::OwnAside => u64::MAX,
            // Disks are played on demand, and what is rarer without them.
            _ if !crate::plan::disks() && self.needs_disks() => u64::MAX,
            _ => 3_000,
        }
    }
}

/// How often each was seen.
#[derive(Clone, Debug)]
pub struct Seen(Vec<u64>);

impl Default for Seen {
    fn default() -> Self {
        Seen(vec![0; Sometimes::ALL.len()])
    }
}

impl Seen {
    /// It happened.
    pub fn note(&mut self, what: Sometimes) {
        self.0[what as usize] += 1;
    }

    /// How often.
    pub fn count(&self, what: Sometimes) -> u64 {
        self.0[what as usize]
    }

    /// Adds what another run saw, counting runs in which it was seen.
    pub fn add(&mut self, other: &Seen) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, theirs)| *own += u64::from(*theirs > 0));
    }
}
