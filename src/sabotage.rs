//! Deliberate bugs, to prove that the simulator sees bugs.
//!
//! Without the feature `sabotage` every switch is the constant `false`, and the compiler removes what
//! stands behind it. With the feature one bug at a time can be switched on for the whole process; only
//! the simulator does so. Each point is one line beside the line that it breaks.

macro_rules! bugs {
    ($($name:ident = $word:literal $text:literal,)*) => {
        /// A deliberate bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // The text beside each says it.
        pub enum Bug { $($name,)* }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Bug] = &[$(Bug::$name,)*];

            /// Its name on the command line.
            pub const fn word(self) -> &'static str {
                match self { $(Bug::$name => $word,)* }
            }

            /// What it does.
            pub const fn text(self) -> &'static str {
                match self { $(Bug::$name => $text,)* }
            }
        }
    };
}

bugs! {
    AckBeforeStored = "ack-before-stored" "a secondary acknowledges as stored what is only written",
    HoldBackForgets = "hold-back-forgets" "an early run is acknowledged as held and not kept",
    HoldBackSticks = "hold-back-sticks" "a run held back is not released when the hole is filled",
    HoleShown = "hole-shown" "a run that came early counts as part of the log",
    DuplicateStored = "duplicate-stored" "a run that overlaps the log is appended whole",
    CommitToldFalls = "commit-told-falls" "a secondary believes a commit position told late",
    PromiseForgotten = "promise-forgotten" "a secondary follows a lower epoch than it promised",
    WindowFreedOnSend = "window-freed-on-send" "bytes leave the window when they are sent",
    LadderNotReset = "ladder-not-reset" "progress does not begin the ladder of retries anew",
    NackTakenAsAck = "nack-taken-as-ack" "a NACK counts as an ACK of all that was sent",
    SessionStartsAtSent = "session-starts-at-sent" "a new session goes on behind what was sent on the old one",
    WipeNotNoticed = "wipe-not-noticed" "the position of a secondary never falls, though it was wiped",
    ReturnNotServed = "return-not-served" "nothing is repeated to a secondary that came back",
    SendsToUnhealthy = "sends-to-unhealthy" "entries go to an unhealthy secondary",
    HealthNotRecovered = "health-not-recovered" "a sign of life does not heal an unhealthy secondary",
    SilenceForgiven = "silence-forgiven" "an unanswered heartbeat is no miss",
    LevelOffByOne = "level-off-by-one" "C(k) is the next larger position",
    MasterNotCounted = "master-not-counted" "C(k) may be beyond what the master has stored",
    CommitFalls = "commit-falls" "commit follows C(majority) down",
    ReadOnlyNotEntered = "read-only-not-entered" "appends are accepted without a quorum",
    QuorumWithoutMaster = "quorum-without-master" "the master does not count itself as present",
    PendingTooSoon = "pending-too-soon" "PENDING does not wait for the master's own log",
    TimeoutIsOk = "timeout-is-ok" "what is out of time is answered OK",
    CountedTwice = "counted-twice" "a node that received an entry counts twice",
    ForgetsOthers = "forgets-others" "a client that goes takes others' waits with it",
    RefusalNumbered = "refusal-numbered" "a refused append uses up a number",
    AnsweredTwice = "answered-twice" "the part of a run that was answered is answered again",
    ReceivedKeptOverSession = "received-kept" "what a lost connection's node had in memory still counts",
    ReadOneTooMany = "read-one-too-many" "a read of the log names one entry more than it returns",
    ChainBroken = "chain-broken" "a run of records does not begin with the digest before it",
    AckBeforeSync = "ack-before-sync" "under `always` what is only written counts as stored",
    SyncSkipped = "sync-skipped" "a sync of the log returns without having synced",
    PromiseNotKept = "promise-not-kept" "history and promise are not written down",
    VouchesThoughEmpty = "vouches-though-empty" "a node that lost its log vouches for it",
    VouchesTooEarly = "vouches-too-early" "a node vouches by the commit that a new reign happens to know",
    UnledCommitBelieved = "unled-commit-believed" "a node vouches by the commit of a master that does not lead",
    AdoptsShorter = "adopts-shorter" "a starting master takes its own log for the longest",
    LeadsWithTooFew = "leads-with-too-few" "one answer less than needed is enough to lead",
    CountsUnsure = "counts-unsure" "answers of nodes that do not vouch count",
    AlignsTooFar = "aligns-too-far" "nothing is held to be common of logs that differ",
    EpochNotRaised = "epoch-not-raised" "a master that starts again leads the epoch that it led before",
    AnswersCommitIgnored = "answers-commit-ignored" "a new reign forgets what its answers know to be committed",
    CutsAnyBad = "cuts-any-bad" "whatever cannot be read is cut off as a torn tail",
    DamageServed = "damage-served" "the checksums of what is read from disk are not looked at",
    FrameDropsRest = "frame-drops-rest" "what arrived together with a frame is lost",
    FrameWaitsForNext = "frame-waits-for-next" "a whole frame is seen only when the next one begins",
}

#[cfg(feature = "sabotage")]
mod switch {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Bug;

    static ACTIVE: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Switches one bug on, or all off.
    pub fn set(bug: Option<Bug>) {
        ACTIVE.store(bug.map_or(usize::MAX, |bug| bug as usize), Ordering::SeqCst);
    }

    /// Whether a bug is on.
    pub fn active(bug: Bug) -> bool {
        ACTIVE.load(Ordering::Relaxed) == bug as usize
    }
}

#[cfg(feature = "sabotage")]
pub use switch::{active, set};

/// Whether a bug is on: never, in this build.
#[cfg(not(feature = "sabotage"))]
pub const fn active(_: Bug) -> bool {
    false
}
