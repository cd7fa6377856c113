//! What a person can do about a refused append: a sentence for each code, said once, on a terminal.

use std::collections::BTreeSet;
use std::io::IsTerminal;

use super::complain;
use crate::client::Refusal;
use crate::codes::Code;

/// Says what can be done, once for each code.
#[derive(Debug)]
pub(super) struct Adviser {
    /// Whether a person reads it.
    terminal: bool,
    said: BTreeSet<u16>,
}

impl Adviser {
    pub(super) fn new() -> Self {
        Adviser { terminal: std::io::stderr().is_terminal(), said: BTreeSet::new() }
    }

    pub(super) fn advise(&mut self, refusal: &Refusal) {
        if self.terminal
            && let Some(advice) = advice(refusal)
            && self.said.insert(refusal.number)
        {
            complain(advice);
        }
    }
}

/// What can be done about a refusal. Every code of an append has its sentence; the compiler asks
/// for one when a code is added.
fn advice(refusal: &Refusal) -> Option<String> {
    let fixed = match refusal.code()? {
        Code::ReadOnly => {
            "too few nodes are present: replog-cli status --all shows which are missing; start them, \
             and append again"
        }
        Code::BadWriteConcern => {
            "-w counts nodes of the cluster, the master included: name a smaller number, majority \
             or all"
        }
        Code::TooLarge => {
            "the entry is larger than limits.payload_max: split it, or raise the limit on every node"
        }
        Code::Mismatch => "the log has grown meanwhile: read what is new, and try again with next=",
        Code::DuplicateMismatch => {
            "this producer's number was used for another entry: continue with the next number"
        }
        Code::ProducerGap => "this producer skipped a number: continue with expected=",
        Code::ProducerFenced => {
            "a newer connection uses this producer: end the older program, or take another name"
        }
        Code::UnknownProducer => {
            "the cluster does not remember this producer: start again at 1, under a new name"
        }
        Code::Aborted => "nothing was appended anywhere: it may be sent again",
        Code::DiskFull => "the master's disk is full: make room there, and append again",
        Code::Busy => "a limit of the node is reached: wait a little, and append again",
        Code::NotMaster => {
            return Some(match refusal.field("master") {
                Some(addr) => {
                    format!("appends go to the master: replog-cli --server {addr} append …")
                }
                None => "appends go to the master, which this node has not heard of yet: name it \
                         with --server"
                    .to_owned(),
            });
        }
        Code::Recovering => {
            "the master is finding out what the log is: replog-cli status shows whom it awaits; \
             start those nodes, and append again"
        }
        Code::Damaged => {
            "a part of the master's log is damaged and being repaired: replog-cli status shows which"
        }
        Code::Stopping => "the node is stopping: append again once it, or its successor, is there",
        Code::NotReady => "this cannot be told yet: try again in a moment",
        // They are not about appends, or their own sentence says it all.
        Code::UnknownVerb
        | Code::BadOption
        | Code::BadValue
        | Code::TooLong
        | Code::NotHttp
        | Code::NotFound
        | Code::Unreadable
        | Code::Denied
        | Code::Conflict
        | Code::MasterOnly
        | Code::SecondaryOnly => return None,
    };
    Some(fixed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::Class;

    #[test]
    fn every_rejection_has_its_advice() {
        for code in Code::ALL.iter().filter(|code| code.class() == Class::Rejected) {
            let refusal = Refusal { number: code.number(), detail: String::new() };
            assert!(advice(&refusal).is_some_and(|advice| !advice.is_empty()), "{code}");
        }
    }

    #[test]
    fn who_is_not_the_master_says_who_is() {
        let detail = "master=127.0.0.1:9000 - appends go to the master".to_owned();
        let refusal = Refusal { number: Code::NotMaster.number(), detail };
        assert!(advice(&refusal).unwrap().contains("--server 127.0.0.1:9000 append"));
    }
}
