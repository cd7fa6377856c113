//! The driver: the one task that carries a node.
//!
//! Each turn tells the node what has come in, lets it decide, writes what it has to say, and hands out
//! the answers, one message per connection. No rule of replication is in here.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::alarm::Alarm;
use super::clock::unix_ms;
use super::dial::{connect, dead_after};
use super::error::NodeError;
use super::inbox::{ClientInput, Input, Introduced, Node, PeerEvent};
use super::link::Link;
use super::store::{DiskNews, NodeLog};
use crate::config::ClusterConfig;
use crate::engine::{AttemptFailure, Effect, Request, SessionId};
use crate::gateway::Refusal;
use crate::node::client::{AppendRun, Outcome, Reply};
use crate::node::master::{DialFailure, class_of};
use crate::node::{Event, Machine, MasterNode, Output, SecondaryNode, View};
use crate::types::{NodeSet, Time};

/// What comes in that is taken in one turn.
const INPUTS_PER_TURN: usize = 256;

/// The node that is carried.
pub(super) enum Carried {
    Master(Box<MasterNode<NodeLog>>),
    Secondary(Box<SecondaryNode<NodeLog>>),
}

impl Carried {
    fn machine(&mut self) -> &mut dyn Machine {
        match self {
            Carried::Master(node) => &mut **node,
            Carried::Secondary(node) => &mut **node,
        }
    }

    fn storage(&self) -> &NodeLog {
        match self {
            Carried::Master(node) => node.storage(),
            Carried::Secondary(node) => node.storage(),
        }
    }
}

/// See the module.
pub(super) struct Driver {
    node: Arc<Node>,
    cluster: ClusterConfig,
    carried: Carried,
    news: Arc<DiskNews>,
    /// The sockets of the node's connections.
    links: HashMap<SessionId, Link>,
    inputs: mpsc::Receiver<Input>,
    view: watch::Sender<View>,
    /// Where clients' connections take their answers.
    replies: HashMap<u64, mpsc::Sender<Vec<Reply>>>,
    ended: bool,
}

impl Driver {
    pub(super) fn new(
        node: Arc<Node>,
        cluster: ClusterConfig,
        carried: Carried,
        inputs: mpsc::Receiver<Input>,
        view: watch::Sender<View>,
    ) -> Self {
        let news = carried.storage().news.clone();
        let (links, replies) = (HashMap::new(), HashMap::new());
        Driver { node, cluster, carried, news, links, inputs, view, replies, ended: false }
    }

    /// Runs until it is told to stop, answers everybody who waits, and goes on answering until it is
    /// told that this is the end.
    pub(super) async fn run(mut self) -> Result<(), NodeError> {
        let mut batch = Vec::with_capacity(INPUTS_PER_TURN);
        let news = self.news.clone();
        // What is waited for is registered once and not with each turn: a turn may be one entry.
        let mut told = pin!(news.changed());
        let mut alarm = pin!(Alarm::new());
        // Alone, a master leads at once, and nobody who waits for that should wait for an input.
        self.turn(&mut batch)?;
        while !self.ended {
            let due = self.carried.machine().poll_timeout();
            alarm.as_mut().set_by(due.map(|due| self.node.clock.instant(due)));
            // Whatever wakes it, a turn looks at all: what comes in most is asked for first.
            tokio::select! {
                biased;
                count = self.inputs.recv_many(&mut batch, INPUTS_PER_TURN) => {
                    if count == 0 {
                        return Ok(());
                    }
                }
                () = &mut told => told.set(news.changed()),
                () = alarm.as_mut() => {}
            }
            self.turn(&mut batch)?;
        }
        Ok(self.carried.machine().leave()?)
    }

    /// Takes what has come in, and carries out what follows.
    fn turn(&mut self, batch: &mut Vec<Input>) -> Result<(), NodeError> {
        let now = self.node.clock.now();
        self.carried.machine().begin_turn(now);
        self.check()?;
        for input in batch.drain(..) {
            match input {
                Input::Client(input) => self.handle_client(now, input),
                Input::Peer(event) => self.handle_peer(now, event),
                Input::Stop => {
                    if let Carried::Master(node) = &mut self.carried {
                        node.handle_stop();
                    }
                }
                Input::End => self.ended = true,
            }
        }
        loop {
            let more = self.carried.machine().step(now);
            let mut any = false;
            while let Some(output) = self.carried.machine().poll_output() {
                self.carry_out(now, output);
                any = true;
            }
            if !more && !any {
                break;
            }
        }
        self.count(now);
        self.deliver_replies();
        let machine = self.carried.machine();
        self.view.send_if_modified(|view| machine.show(view));
        self.check()
    }

    /// Ends with what the node cannot go on with.
    fn check(&mut self) -> Result<(), NodeError> {
        match self.carried.machine().failure() {
            Some(failure) => Err(failure.clone().into()),
            None => Ok(()),
        }
    }

    // ---- clients ----

    fn handle_client(&mut self, now: Time, input: ClientInput) {
        match (input, &mut self.carried) {
            (ClientInput::Opened { connection, replies }, _) => {
                self.replies.insert(connection, replies);
            }
            (ClientInput::Closed { connection }, carried) => {
                self.replies.remove(&connection);
                if let Carried::Master(node) = carried {
                    node.handle_gone(connection);
                }
            }
            (ClientInput::Appends { connection, runs, permit }, Carried::Master(node)) => {
                for run in runs {
                    node.handle_append(now, unix_ms(), connection, run);
                }
                drop(permit);
            }
            // Refused by the connection before they come here; answered all the same.
            (ClientInput::Appends { connection, runs, permit }, Carried::Secondary(node)) => {
                drop(permit);
                let refusal = Refusal::not_master(node.master_addr());
                let count: usize = runs.iter().map(|run| run.payloads.len()).sum();
                self.node.metrics.refused(refusal.code, count as u64);
                let refuse = |run: AppendRun| Reply {
                    slot: run.slot,
                    offset: 0,
                    count: run.payloads.len() as u64,
                    outcome: Outcome::Refused(refusal.clone()),
                };
                if let Some(replies) = self.replies.get(&connection) {
                    // A connection that is full or gone reads no answer.
                    let _ = replies.try_send(runs.into_iter().map(refuse).collect());
                }
            }
            (ClientInput::Wait { token, seq, options }, Carried::Master(node)) => {
                node.handle_wait(now, token, seq, options);
            }
            // Whoever asked may be gone: then nobody misses the answer.
            (ClientInput::Status(reply), carried) => {
                let _ = reply.send(carried.machine().status(now));
            }
            (ClientInput::Waiters(reply), carried) => {
                let _ = reply.send(match carried {
                    Carried::Master(node) => node.waiters(now),
                    Carried::Secondary(_) => (String::new(), 0),
                });
            }
            (ClientInput::Metrics(reply), _) => {
                let _ = reply.send(self.scrape(now));
            }
            (ClientInput::Holders(seq, reply), carried) => {
                let _ = reply.send(match carried {
                    Carried::Master(node) => node.holders(seq),
                    Carried::Secondary(_) => NodeSet::default(),
                });
            }
            (ClientInput::Fault(fault, reply), Carried::Secondary(node)) => {
                node.handle_fault(now, fault);
                let _ = reply.send(());
            }
            (ClientInput::Store(seq, payload, reply), Carried::Secondary(node)) => {
                let _ = reply.send(node.handle_store(seq, payload));
            }
            // Refused by the service before they come here: these are for the other role.
            (ClientInput::Fault(..) | ClientInput::Store(..), Carried::Master(_))
            | (ClientInput::Wait { .. }, Carried::Secondary(_)) => {}
        }
    }

    fn scrape(&mut self, now: Time) -> String {
        let machine = self.carried.machine();
        let (status, levels) = (machine.status(now), machine.levels().clone());
        let (stored, shortage) = (machine.stored(), machine.shortage());
        let log = self.carried.storage();
        self.node.metrics.scrape(&status, &levels, log, shortage, stored)
    }

    fn deliver_replies(&mut self) {
        let Carried::Master(node) = &mut self.carried else { return };
        for (connection, replies) in node.take_replies() {
            let Some(sender) = self.replies.get(&connection) else { continue };
            // A connection has room for one message per append that waits, and each message answers
            // at least one: it is full only if it broke that rule, and closed if it is gone.
            if sender.try_send(replies).is_err() {
                self.replies.remove(&connection);
            }
        }
    }

    // ---- other nodes ----

    fn handle_peer(&mut self, now: Time, event: PeerEvent) {
        match event {
            PeerEvent::Dialled { to, session, result } => {
                let result = result.map(|introduced| self.take_over(*introduced));
                if let Carried::Master(node) = &mut self.carried {
                    node.handle_dialled(now, to, session, result);
                }
            }
            PeerEvent::Accepted(introduced) => {
                let session = introduced.session;
                let hello = self.take_over(*introduced);
                if let Carried::Secondary(node) = &mut self.carried {
                    node.handle_accepted(now, session, &hello);
                }
            }
            PeerEvent::Messages { session, messages } => {
                if !self.carried.machine().handle_heard(now, session) {
                    return;
                }
                for message in messages {
                    self.carried.machine().handle_message(now, session, message);
                    // What answers it leaves before the next one: each heartbeat has an answer of its own,
                    // as long as the peer takes them.
                    while let Some(output) = self.carried.machine().poll_output() {
                        self.carry_out(now, output);
                    }
                }
            }
            PeerEvent::Closed { session, refuse, reason } => {
                self.carried.machine().handle_closed(now, session, refuse, &reason);
            }
            PeerEvent::Writable { session } => {
                if let Some(link) = self.links.get_mut(&session) {
                    link.unblock();
                }
                self.write(now, session);
            }
            PeerEvent::Read { peer, session, asked, slice } => {
                self.carried.machine().handle_read(now, peer, session, asked, slice);
            }
        }
    }

    fn take_over(&mut self, introduced: Introduced) -> crate::wire::codec::Hello {
        let Introduced { session, hello, read, write, buffer } = introduced;
        self.links.insert(session, Link::start(session, read, write, buffer, &self.node));
        hello
    }

    /// Writes what the node has to say on a connection.
    fn write(&mut self, now: Time, session: SessionId) {
        let machine = self.carried.machine();
        let Some(link) = self.links.get_mut(&session) else { return };
        while let Some(queue) = machine.queue(session)
            && !queue.is_empty()
        {
            match link.write(queue) {
                Ok(Some(bytes)) => machine.handle_taken(now, session, bytes),
                Ok(None) => return machine.handle_taken(now, session, 0),
                Err(error) => {
                    return machine.handle_closed(now, session, None, &error.to_string());
                }
            }
        }
    }

    fn carry_out(&mut self, now: Time, output: Output) {
        match output {
            Output::Write { session } => self.write(now, session),
            Output::Close { session, last_words } => {
                if let (Some(link), Some(words)) = (self.links.remove(&session), last_words) {
                    link.close(words);
                }
            }
            Output::Dial { to, session, addr, hello } => {
                let (driver, stop) = (self.node.driver.clone(), self.node.stop.clone());
                let dead_after = dead_after(&self.cluster);
                tokio::spawn(async move {
                    let result: Result<Box<Introduced>, DialFailure> = tokio::select! {
                        result = connect(&addr, session, *hello, dead_after) => result,
                        () = stop.cancelled() => return,
                    };
                    // A driver that is gone needs no event.
                    let dialled = PeerEvent::Dialled { to, session, result };
                    let _ = driver.send(Input::Peer(dialled)).await;
                });
            }
            Output::Read { peer, session, asked } => {
                let (log, driver) = (self.node.site.log.clone(), self.node.driver.clone());
                tokio::task::spawn_blocking(move || {
                    let mut slice = log.read(asked.range, asked.bytes_max);
                    if slice.before.is_none() {
                        slice.before = log.prefix_id(asked.range.first.previous());
                    }
                    // A driver that is gone needs no event.
                    let read = PeerEvent::Read { peer, session, asked, slice };
                    let _ = driver.blocking_send(Input::Peer(read));
                });
            }
        }
    }

    // ---- metrics ----

    /// Counts what happened.
    fn count(&mut self, now: Time) {
        let (metrics, roster) = (&self.node.metrics, &self.cluster.secondaries);
        for event in self.carried.machine().drain_events() {
            match event {
                Event::Answered(answer) if answer.request == Request::Append => {
                    let (class, took) = (class_of(answer.verdict), now.since(answer.since));
                    metrics.answered(class, answer.need, took, answer.range.len());
                }
                Event::Refused { count, code, .. } => metrics.refused(code, count),
                Event::Turned(code) => metrics.connection_refused(code),
                Event::Sent { to, sent, again: true, .. } => {
                    metrics.repeated(&roster[to.as_usize() - 1].id, sent.len());
                }
                Event::Decided(Effect::AttemptFailed { to, failure, .. }) => {
                    let cause = match failure {
                        AttemptFailure::Timeout => "no progress",
                        AttemptFailure::Nack => "nack",
                    };
                    metrics.attempt_failed(&roster[to.as_usize() - 1].id, cause);
                }
                _ => {}
            }
        }
    }
}
