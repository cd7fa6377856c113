//! The codes of refusals and the classes of answers: one table, the same in `protocol.md`, on the
//! wire and in the text gateway. Append-only: a number is never given to another meaning, and a code
//! never changes its class.

use std::fmt;

/// The class of an answer: whether the entry may be in the log.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Done as asked.
    Ok,
    /// In the master's log, where it stays; what was asked is not met yet.
    Pending,
    /// Appended nothing and never will.
    Rejected,
    /// The node lost its reign while the append waited: it may or may not survive.
    Unknown,
    /// Malformed or not possible here; no effect.
    Err,
}

impl Class {
    /// The first word of the reply.
    pub const fn word(self) -> &'static str {
        match self {
            Class::Ok => "OK",
            Class::Pending => "PENDING",
            Class::Rejected => "REJECTED",
            Class::Unknown => "UNKNOWN",
            Class::Err => "ERR",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every code, in the order of the table in `protocol.md`.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self { $($name::$variant => $number,)* }
            }

            /// The word that people see.
            pub const fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }

            /// The code with this number, if this version knows it.
            pub fn from_number(number: u16) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.number() == number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

codes! {
    /// Why a client's request was refused. Numbers below 100 are `REJECTED`, the others `ERR`.
    Code {
        /// Fewer nodes present than the quorum.
        ReadOnly = 1 "read-only",
        /// `w` is not between 1 and the number of configured nodes.
        BadWriteConcern = 2 "bad-write-concern",
        /// The payload is longer than `limits.payload_max`.
        TooLarge = 3 "too-large",
        /// `match=` is not the next sequence number.
        Mismatch = 4 "mismatch",
        /// The producer's number was used for another payload.
        DuplicateMismatch = 5 "duplicate-mismatch",
        /// The producer skipped a number.
        ProducerGap = 6 "producer-gap",
        /// A newer connection uses this producer.
        ProducerFenced = 7 "producer-fenced",
        /// The producer is not known and did not start at 1.
        UnknownProducer = 8 "unknown-producer",
        /// An atomic append did not reach its nodes.
        Aborted = 9 "aborted",
        /// No room for the entry.
        DiskFull = 10 "disk-full",
        /// A limit of this node is reached.
        Busy = 11 "busy",
        /// Appends go to the master.
        NotMaster = 12 "not-master",
        /// The master has not yet found out what the log is.
        Recovering = 13 "recovering",
        /// Part of the log is damaged.
        Damaged = 14 "damaged",
        /// The node is stopping.
        Stopping = 15 "stopping",
        /// No such verb.
        UnknownVerb = 100 "unknown-verb",
        /// An option this verb does not have, or one given twice.
        BadOption = 101 "bad-option",
        /// A value that is not allowed.
        BadValue = 102 "bad-value",
        /// The line is too long.
        TooLong = 103 "too-long",
        /// Somebody speaks HTTP or TLS.
        NotHttp = 104 "not-http",
        /// Not in the log.
        NotFound = 105 "not-found",
        /// Cannot be told yet.
        NotReady = 106 "not-ready",
        /// In a damaged range.
        Unreadable = 107 "unreadable",
        /// Not allowed on this node.
        Denied = 108 "denied",
        /// Another entry is stored under that number.
        Conflict = 109 "conflict",
        /// Only the master can answer this.
        MasterOnly = 110 "master-only",
        /// Only a secondary can do this.
        SecondaryOnly = 111 "secondary-only",
    }
}

impl Code {
    /// The class of an answer with this code; it never changes.
    pub const fn class(self) -> Class {
        if self.number() < 100 { Class::Rejected } else { Class::Err }
    }
}

codes! {
    /// Why a peer was sent away. The sender closes the connection after a REFUSE frame.
    RefuseCode {
        /// The bytes are not a frame of this protocol, or not in this state of the connection.
        BadFrame = 1 "bad-frame",
        /// No protocol version in common.
        UnknownVersion = 2 "unknown-version",
        /// A frame type this node does not know.
        UnknownFrame = 3 "unknown-frame",
        /// The body is longer than allowed here.
        FrameTooLong = 4 "frame-too-long",
        /// The checksum is wrong.
        BadChecksum = 5 "bad-checksum",
        /// The first frame was not a HELLO, or came too late.
        NoIntroduction = 6 "no-introduction",
        /// The role cannot be served here.
        WrongRole = 7 "wrong-role",
        /// This is not the node that was meant: the roster is wrong.
        WrongNode = 8 "wrong-node",
        /// The log belongs to another cluster.
        ForeignLog = 9 "foreign-log",
        /// A higher epoch was promised.
        StaleEpoch = 10 "stale-epoch",
        /// The same epoch was promised to another process.
        EpochTaken = 11 "epoch-taken",
        /// The secondary holds entries that the master does not.
        AheadOfMaster = 12 "ahead-of-master",
        /// The logs differ.
        Diverged = 13 "diverged",
        /// Part of the log is damaged.
        Damaged = 14 "damaged",
        /// A newer connection took this one's place.
        Replaced = 15 "replaced",
        /// Too many connections.
        Busy = 16 "busy",
        /// The node is stopping.
        Stopping = 17 "stopping",
        /// The peer did not take its output in time.
        SlowReader = 18 "slow-reader",
    }
}

codes! {
    /// Why a secondary did not take an entry.
    NackCode {
        /// Another entry is stored under this number.
        Conflict = 1 "conflict",
        /// The entries do not continue the log they name.
        Mismatch = 2 "mismatch",
        /// A record's checksum or layout is wrong.
        BadRecord = 3 "bad-record",
        /// No room to hold the entry back.
        HoldBackFull = 4 "hold-back-full",
        /// The disk is full.
        DiskFull = 5 "disk-full",
        /// A fault verb asked for this.
        Injected = 6 "injected-fault",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number_and_no_number_is_used_twice() {
        for &code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(code));
        }
        for &code in RefuseCode::ALL {
            assert_eq!(RefuseCode::from_number(code.number()), Some(code));
        }
        for &code in NackCode::ALL {
            assert_eq!(NackCode::from_number(code.number()), Some(code));
        }
    }

    #[test]
    fn classes_are_as_the_interface_lists_them() {
        assert_eq!(Code::Stopping.class(), Class::Rejected);
        assert_eq!(Code::UnknownVerb.class(), Class::Err);
        assert_eq!(Code::ALL.iter().filter(|code| code.class() == Class::Rejected).count(), 15);
        assert_eq!(Code::ALL.iter().filter(|code| code.class() == Class::Err).count(), 12);
    }
}
