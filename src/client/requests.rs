//! Who waits for which answer: request ids to the ones who asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::error::{ConnectionLost, LostReason};
use super::order::Order;
use super::outcome::{AppendOutcome, Refusal};
use super::silence::Timeouts;
use crate::wire::codec::{AppendReply, EntriesHead};

/// A piece of the answer to a read or tail.
#[derive(Debug)]
pub(super) enum EntriesPiece {
    Entries(EntriesHead, Bytes),
    Refused(Refusal),
}

/// A piece of the answer to a command.
#[derive(Debug)]
pub(super) struct ReplyPiece {
    pub(super) bytes: Bytes,
    pub(super) end: bool,
}

/// Where the pieces of an answer go. Bounded: the connection is not read while one is full.
#[derive(Clone, Debug)]
pub(super) enum PieceSender {
    Entries(mpsc::Sender<EntriesPiece>),
    Reply(mpsc::Sender<ReplyPiece>),
    /// Whoever asked was told that no answer comes; what comes all the same is thrown away.
    Nobody,
}

#[derive(Debug)]
struct Channel {
    sender: PieceSender,
    /// A place among the requests of its kind that the node serves at a time.
    _place: OwnedSemaphorePermit,
}

impl Channel {
    fn is_given_up(&self) -> bool {
        matches!(self.sender, PieceSender::Nobody)
    }
}

/// Consecutive ids that are answered by APPEND_REPLYs.
#[derive(Debug)]
struct Owner {
    count: u64,
    answered: u64,
    /// The timeout of each.
    limit: Option<Duration>,
    waiter: Waiter,
}

/// What one request with an answer of its own is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Single {
    Append,
    /// It changes nothing.
    Wait,
}

impl Owner {
    fn is_append(&self) -> bool {
        match self.waiter {
            Waiter::Single { kind, .. } => kind == Single::Append,
            Waiter::Run { .. } => true,
            Waiter::Nobody => false,
        }
    }
}

#[derive(Debug)]
enum Waiter {
    /// One append or wait; `count` is 1.
    Single {
        kind: Single,
        reply: oneshot::Sender<Result<AppendOutcome, ConnectionLost>>,
        _place: OwnedSemaphorePermit,
    },
    /// Told that no answer comes; one that comes all the same is thrown away.
    Nobody,
    /// Entries of an appender, from this index on.
    Run { order: Arc<Order>, index: u64 },
}

/// The requests that have no complete answer yet. Bounded by the permits that its items hold.
#[derive(Debug)]
pub(super) struct Requests {
    next_id: u64,
    owners: BTreeMap<u64, Owner>,
    channels: HashMap<u64, Channel>,
    /// The PING that was sent to hear a sign of life and has no answer.
    ping: Option<u64>,
    /// By when what was sent must be answered.
    pub(super) timeouts: Timeouts,
    /// All that are in use, to tell them of the end even if none of their entries waits.
    appenders: Vec<Weak<Order>>,
}

impl Requests {
    pub(super) fn new() -> Self {
        let (owners, channels, appenders) = (BTreeMap::new(), HashMap::new(), Vec::new());
        let timeouts = Timeouts::default();
        Requests { next_id: 1, owners, channels, ping: None, timeouts, appenders }
    }

    /// Whether an answer is awaited by somebody.
    pub(super) fn owes(&self) -> bool {
        let reads = || self.channels.values().any(|channel| !channel.is_given_up());
        self.owners.values().any(|owner| !matches!(owner.waiter, Waiter::Nobody)) || reads()
    }

    /// Whether an answer to an append is awaited.
    pub(super) fn owes_an_append(&self) -> bool {
        self.owners.values().any(Owner::is_append)
    }

    /// Ends what changes nothing, and may therefore be asked of somebody else: everything but
    /// appends.
    pub(super) fn give_up_what_may_be_asked_again(&mut self, reason: &LostReason) {
        // Their readers find them closed.
        self.channels.values_mut().for_each(|channel| channel.sender = PieceSender::Nobody);
        for owner in self.owners.values_mut().filter(|owner| !owner.is_append()) {
            if let Waiter::Single { reply, .. } =
                std::mem::replace(&mut owner.waiter, Waiter::Nobody)
            {
                let lost = ConnectionLost { sent: true, reason: reason.clone() };
                let _ = reply.send(Err(lost)); // See `answer`.
            }
        }
    }

    /// The id of a PING that is to be sent; `None` if one is on its way.
    pub(super) fn register_ping(&mut self) -> Option<u64> {
        if self.ping.is_some() {
            return None;
        }
        self.ping = Some(self.take_id());
        self.ping
    }

    /// Remembers an appender.
    pub(super) fn register_appender(&mut self, order: &Arc<Order>) {
        self.appenders.retain(|known| known.strong_count() > 0);
        self.appenders.push(Arc::downgrade(order));
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Registers one append or wait.
    pub(super) fn register_single(
        &mut self,
        kind: Single,
        reply: oneshot::Sender<Result<AppendOutcome, ConnectionLost>>,
        place: OwnedSemaphorePermit,
        limit: Option<Duration>,
    ) -> u64 {
        let id = self.take_id();
        let waiter = Waiter::Single { kind, reply, _place: place };
        self.owners.insert(id, Owner { count: 1, answered: 0, limit, waiter });
        id
    }

    /// Registers the entry `index` of an appender.
    pub(super) fn register_entry(
        &mut self,
        order: &Arc<Order>,
        index: u64,
        limit: Option<Duration>,
    ) -> u64 {
        let id = self.take_id();
        if let Some(mut last) = self.owners.last_entry() {
            let (first, owner) = (*last.key(), last.get_mut());
            if let Waiter::Run { order: its_order, index: its_index } = &owner.waiter
                && Arc::ptr_eq(its_order, order)
                && first + owner.count == id
                && *its_index + owner.count == index
            {
                owner.count += 1;
                return id;
            }
        }
        let waiter = Waiter::Run { order: order.clone(), index };
        self.owners.insert(id, Owner { count: 1, answered: 0, limit, waiter });
        id
    }

    /// Registers a request whose answer comes in pieces.
    pub(super) fn register_channel(
        &mut self,
        sender: PieceSender,
        place: OwnedSemaphorePermit,
    ) -> u64 {
        let id = self.take_id();
        self.channels.insert(id, Channel { sender, _place: place });
        id
    }

    /// Whether the pieces of `id` have not ended yet.
    pub(super) fn is_under_way(&self, id: u64) -> bool {
        self.channels.contains_key(&id)
    }

    /// Where a piece for `id` goes; forgets the request if it is the last.
    pub(super) fn piece(&mut self, id: u64, end: bool) -> Option<PieceSender> {
        if self.ping == Some(id) {
            self.ping = self.ping.filter(|_| !end);
            return Some(PieceSender::Nobody);
        }
        if end {
            self.channels.remove(&id).map(|channel| channel.sender)
        } else {
            self.channels.get(&id).map(|channel| channel.sender.clone())
        }
    }

    /// Hands an APPEND_REPLY to those it answers; it may span entries of several of them.
    ///
    /// # Errors
    /// How the node broke the protocol.
    pub(super) fn answer(&mut self, reply: AppendReply, now: Instant) -> Result<(), &'static str> {
        const UNASKED: &str = "an answer to no request";
        let end = reply.id.checked_add(u64::from(reply.count)).ok_or(UNASKED)?;
        let outcome = AppendOutcome::from(reply.outcome);
        let mut id = reply.id;
        if id == end {
            return Err(UNASKED);
        }
        while id < end {
            let (&first, owner) = self.owners.range_mut(..=id).next_back().ok_or(UNASKED)?;
            let owner_end = first + owner.count;
            if owner_end <= id {
                return Err(UNASKED);
            }
            let count = end.min(owner_end) - id;
            let part = outcome.later(id - reply.id);
            owner.answered += count;
            if let Some(limit) = owner.limit {
                self.timeouts.answered(limit, count, now);
            }
            if let Waiter::Run { order, index } = &owner.waiter {
                let two_answers = |_| "two answers to one request";
                order.answer(index + (id - first), count, Ok(part)).map_err(two_answers)?;
                if owner.answered == owner.count {
                    self.owners.remove(&first);
                }
            } else if let Some(Owner { waiter: Waiter::Single { reply, .. }, .. }) =
                self.owners.remove(&first)
            {
                // Whoever asked may have gone; the append goes on without.
                let _ = reply.send(Ok(part));
            }
            id += count;
        }
        Ok(())
    }

    /// The connection ended; every request below `sent_end` had been sent.
    pub(super) fn lose(&mut self, sent_end: u64, reason: &LostReason) {
        // Who reads pieces finds its channel closed before the end.
        self.channels.clear();
        let mut sent_ends: Vec<(Arc<Order>, u64)> = Vec::new();
        for (first, owner) in std::mem::take(&mut self.owners) {
            match owner.waiter {
                Waiter::Nobody => {}
                Waiter::Single { reply, .. } => {
                    let lost = ConnectionLost { sent: first < sent_end, reason: reason.clone() };
                    let _ = reply.send(Err(lost)); // See `answer`.
                }
                // Ids and indexes grow together: the last run of which anything was sent tells
                // how far its appender got.
                Waiter::Run { order, index } if first < sent_end => {
                    let sent_index = index + owner.count.min(sent_end - first);
                    match sent_ends.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &order)) {
                        Some((_, known)) => *known = sent_index,
                        None => sent_ends.push((order, sent_index)),
                    }
                }
                Waiter::Run { .. } => {}
            }
        }
        for order in self.appenders.drain(..).filter_map(|order| order.upgrade()) {
            let sent_index = sent_ends.iter().find(|(other, _)| Arc::ptr_eq(other, &order));
            order.lose(sent_index.map_or(0, |(_, sent_index)| *sent_index), reason);
        }
    }
}
