//! The socket of a client: what came is handed to its session, what that asks is carried to the node,
//! and what it has to say is written. No rule of the protocols is in here.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info};

use super::door::Door;
use super::inbox::{ClientInput, Input, Node};
use super::link::try_write;
use super::metrics::Kind;
use super::reader;
use super::wake::{Wake, Wakes};
use crate::codes::RefuseCode;
use crate::engine::Token;
use crate::gateway::Command;
use crate::node::client::AppendRun;
use crate::node::session::command::{Step, begin};
use crate::node::session::{Answer, End, Question, Request, Session};

/// The node is going away: its driver answers nothing more.
#[derive(Debug)]
pub(super) struct DriverGone;

impl From<DriverGone> for End {
    fn from(_: DriverGone) -> Self {
        End::Broken
    }
}

/// A client's connection.
struct Client<S> {
    node: Arc<Node>,
    door: Door,
    connection: u64,
    write: OwnedWriteHalf,
    session: S,
}

/// Serves a client until it goes, or until its place is wanted for somebody else.
pub(super) async fn serve(
    node: Arc<Node>,
    door: Door,
    (read, write): (OwnedReadHalf, OwnedWriteHalf),
    session: impl Session,
    evicted: impl Future<Output = ()>,
) {
    let connection = node.connection_number();
    // One message answers at least one append that waits: see `limits.waiting_max`.
    let (sender, replies) = mpsc::channel(node.site.limits.waiting_max + 1);
    let opened = ClientInput::Opened { connection, replies: sender };
    if tell(&node, opened).await.is_err() {
        return;
    }
    let mut wakes = Wakes::new(&node, kind(door), read, replies);
    let mut client = Client { node, door, connection, write, session };
    let end = tokio::select! {
        end = client.run(&mut wakes) => end,
        () = evicted => End::Refuse(RefuseCode::Busy, "another operator came".to_owned()),
    };
    // A driver that is gone needs not be told.
    let _ = tell(&client.node, ClientInput::Closed { connection }).await;
    client.leave(wakes, end).await;
}

fn kind(door: Door) -> Kind {
    match door {
        Door::Wire => Kind::Wire,
        Door::Gateway => Kind::Gateway,
    }
}

impl<S: Session> Client<S> {
    async fn run(&mut self, wakes: &mut Wakes) -> End {
        loop {
            if let Err(end) = self.advance().await {
                return end;
            }
            let blocked = self.session.untaken() > 0;
            if !blocked && self.session.is_finished(wakes.stopping()) {
                return End::Clean;
            }
            let waits = self.node.with_sight(|sight| self.session.waits(sight));
            let (clock, input) = (self.node.clock, self.session.input());
            match wakes.next(clock, input, &self.write, waits).await {
                Wake::Answered(replies) => {
                    self.node.with_sight(|sight| self.session.handle_replies(sight, replies));
                }
                Wake::Ready => {}
                Wake::InputEnded => self.session.handle_input_end(),
                Wake::Idle => self.node.with_sight(|sight| self.session.handle_idle(sight)),
                Wake::Unfinished(after) => {
                    self.note_unfinished(after);
                    if let Some(end) = self.session.handle_unfinished(after) {
                        return end;
                    }
                }
                Wake::Stalled => {
                    self.note_slow_reader();
                    let reason = "the client does not take its output".to_owned();
                    return End::Refuse(RefuseCode::SlowReader, reason);
                }
                Wake::Broken => return End::Broken,
            }
        }
    }

    /// Does all that can be done without waiting for anybody but the node and its disk.
    async fn advance(&mut self) -> Result<(), End> {
        loop {
            let mut any = self.node.with_sight(|sight| self.session.advance(sight))?;
            while let Some(request) = self.session.poll_request() {
                any = true;
                self.carry(request).await?;
            }
            for (code, count) in self.session.drain_refusals() {
                self.node.metrics.refused(code, count);
            }
            let wrote = self.flush().map_err(|_| End::Broken)?;
            // Output that left makes room for more of a list or read that waited for it.
            if self.session.untaken() > 0 || !(any || wrote) {
                return Ok(());
            }
        }
    }

    async fn carry(&mut self, request: Request) -> Result<(), DriverGone> {
        match request {
            Request::Append(runs) => submit(&self.node, self.connection, runs).await,
            Request::Wait { slot, seq, options } => {
                let token = Token { connection: self.connection, slot };
                tell(&self.node, ClientInput::Wait { token, seq, options }).await
            }
            Request::Ask(question) => {
                let answer = answer(&self.node, question).await?;
                self.node.with_sight(|sight| self.session.handle_answer(sight, answer));
                Ok(())
            }
        }
    }

    /// Writes what the socket takes now. Returns whether that was anything.
    fn flush(&mut self) -> io::Result<bool> {
        let mut written = 0;
        while self.session.untaken() > 0 {
            let Some(bytes) = try_write(&self.write, &self.session.slices())? else { break };
            self.session.taken(self.node.clock.now(), bytes);
            written += bytes;
        }
        self.node.metrics.traffic(kind(self.door)).sent.inc_by(written as u64);
        Ok(written > 0)
    }

    async fn leave(mut self, wakes: Wakes, end: End) {
        let clean = matches!(end, End::Clean);
        debug!(connection = self.connection, door = ?self.door, clean, "client gone");
        if let End::Refuse(code, reason) = end {
            self.node.metrics.connection_refused(code);
            // What the socket takes goes first; into the middle of a frame nothing can be said.
            let whole = self.flush().is_ok() && self.session.untaken() == 0;
            if matches!(self.door, Door::Wire) && whole {
                debug!(connection = self.connection, code = code.word(), reason, "client refused");
                *self.session.input() = BytesMut::new(); // Who is refused may stay a while.
                reader::refuse(wakes.into_read_half(), self.write, code, 0, &reason).await;
            }
        } else if self.session.refuses_rest() {
            let at_most = self.node.site.limits.write_timeout;
            drain(wakes.into_read_half(), self.write, at_most).await;
        }
    }

    // ---- what is logged ----

    /// A client is cut because it did not take its output: the only one who could be told does not
    /// listen.
    fn note_slow_reader(&self) {
        let Some(more) = self.node.cut.pass(Instant::now()) else { return };
        let seconds = self.node.site.limits.write_timeout.as_secs_f64();
        info!(
            connection = self.connection,
            addr = %self.addr(),
            bytes = self.session.untaken(),
            seconds,
            more,
            "cut a client that took no output for limits.write_timeout"
        );
    }

    /// A client is cut because it did not finish what it had begun to send.
    fn note_unfinished(&mut self, after: Duration) {
        let Some(more) = self.node.cut.pass(Instant::now()) else { return };
        let (bytes, seconds) = (self.session.input().len(), after.as_secs());
        info!(
            connection = self.connection,
            addr = %self.addr(),
            bytes,
            seconds,
            more,
            "cut a client that did not finish its line or frame"
        );
    }

    fn addr(&self) -> String {
        self.write.peer_addr().map_or_else(|_| "-".to_owned(), |addr| addr.to_string())
    }
}

/// Throws away what a client still sends, for a while: closing over unread bytes would destroy the
/// last reply on its way.
pub(super) async fn drain(mut read: OwnedReadHalf, mut write: OwnedWriteHalf, at_most: Duration) {
    let mut thrown_away = [0; 8192];
    let reading = async {
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
        while matches!(read.read(&mut thrown_away).await, Ok(count) if count > 0) {}
    };
    // Whether it came to an end or not, the connection ends.
    let _ = tokio::time::timeout(at_most, reading).await;
}

/// Carries out a command of somebody who has no session, and writes the reply.
pub(super) async fn carry_out(
    node: &Node,
    command: Command,
    line: &Bytes,
    out: &mut BytesMut,
) -> Result<(), DriverGone> {
    let mut step = node.with_sight(|sight| begin(sight, command, line, out));
    loop {
        step = match step {
            Ok(Step::Done) => return Ok(()),
            Ok(Step::More(work)) => Ok(node.with_sight(|sight| work.go_on(sight, out))),
            Ok(Step::Ask(work, question)) => {
                let answer = answer(node, question).await?;
                node.with_sight(|sight| work.resume(sight, answer, out))
            }
            Err(refusal) => {
                node.metrics.refused(refusal.code, 1);
                refusal.write(out);
                return Ok(());
            }
        };
    }
}

/// Asks the node, or reads its log.
async fn answer(node: &Node, question: Question) -> Result<Answer, DriverGone> {
    Ok(match question {
        Question::Status => Answer::Status(Box::new(ask(node, ClientInput::Status).await?)),
        Question::Waiters => {
            let (lines, count) = ask(node, ClientInput::Waiters).await?;
            Answer::Waiters(lines, count)
        }
        Question::Metrics => Answer::Metrics(ask(node, ClientInput::Metrics).await?),
        Question::Holders(seq) => {
            Answer::Holders(ask(node, |reply| ClientInput::Holders(seq, reply)).await?)
        }
        Question::Fault(fault) => {
            ask(node, |reply| ClientInput::Fault(fault, reply)).await?;
            Answer::Injected
        }
        Question::Store(seq, payload) => {
            Answer::Stored(ask(node, |reply| ClientInput::Store(seq, payload, reply)).await?)
        }
        Question::Read { range, bytes_max } => {
            Answer::Read(node.reads.read(range, bytes_max).await)
        }
        Question::Record(seq) => Answer::Record(node.reads.record(seq).await),
        Question::PrefixId(seq) => Answer::PrefixId(node.reads.prefix_id(seq).await),
    })
}

async fn ask<T>(
    node: &Node,
    question: impl FnOnce(oneshot::Sender<T>) -> ClientInput,
) -> Result<T, DriverGone> {
    let (sender, receiver) = oneshot::channel();
    tell(node, question(sender)).await?;
    receiver.await.map_err(|_| DriverGone)
}

/// Tells the driver something.
async fn tell(node: &Node, input: ClientInput) -> Result<(), DriverGone> {
    node.driver.send(Input::Client(input)).await.map_err(|_| DriverGone)
}

/// Hands runs of appends to the driver, after waiting for room for their bytes.
async fn submit(node: &Node, connection: u64, runs: Vec<AppendRun>) -> Result<(), DriverGone> {
    let bytes: usize = runs.iter().map(|run| run.payloads.bytes()).sum();
    // A batch larger than all room is admitted alone.
    let wanted = u32::try_from(bytes.min(node.site.limits.inflight_max)).unwrap_or(u32::MAX);
    let permit = node.inflight.clone().acquire_many_owned(wanted).await.map_err(|_| DriverGone)?;
    tell(node, ClientInput::Appends { connection, runs, permit }).await
}
