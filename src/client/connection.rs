//! The one task that owns the socket, and what it shares with the handles.
//!
//! Handles put requests into the outbox and register who waits for the answer, both under one
//! short lock, so that ids grow in the order of sending. The task writes everything that waits in
//! one vectored write after the other, and hands out what it reads. Nothing is locked across an
//! await, and nothing is unbounded: requests wait for room in bytes before they enter the outbox,
//! and for a place among those that have no answer yet.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::error::{ConnectionLost, LostReason, RefusedByNode};
use super::options::AppendOptions;
use super::order::Order;
use super::outbox::{AppenderKey, Outbox, Outgoing, payloads};
use super::outcome::Refusal;
use super::requests::{EntriesPiece, PieceSender, ReplyPiece, Requests};
use super::silence::{Finding, LOOK_EVERY, Pulse, WE_WERE_AWAY};
use crate::connect::{rounded, set_dead_after};
use crate::limits::{
    CLIENT_DEAD_AFTER, COMMANDS_PER_CONNECTION_MAX, FRAME_BODY_BYTES_MAX,
    STREAMS_PER_CONNECTION_MAX,
};
use crate::wire::codec::{Cancel, CommandHead};
use crate::wire::{Frame, FrameDecoder, Message, OutFrame, reserve_for_read};

/// Request bytes that wait to be written: enough to keep the socket busy, little enough that a
/// command does not wait long behind appends. One longer request may wait alone.
pub(super) const UNSENT_BYTES_MAX: usize = 1 << 20;

/// Single appends and waits without an answer. The node reads no further when so many of its
/// default `limits.waiting_max` wait, so that more would only hide in socket buffers.
const UNANSWERED_MAX: usize = 65_536;

/// Pieces of one answer that wait to be read by whoever asked; each is at most a frame.
pub(super) const PIECES_MAX: usize = 4;

/// Most slices in one write: what Linux takes is 1024, and a frame needs two.
const WRITE_SLICES_MAX: usize = 64;

/// How long answers are still read after the node stopped taking requests.
const LAST_ANSWERS_WAIT: Duration = Duration::from_secs(1);

/// A node that reads nothing for so long has more to do than it can: it is slow, and may stay so.
const SLOW_READER_AFTER: Duration = Duration::from_secs(1);

/// A stream of bytes whose system may be told how long to bear that nothing is acknowledged.
pub(super) trait Endure {
    /// `None`: for as long as it takes.
    fn endure(&self, dead_after: Option<Duration>);
}

impl Endure for OwnedWriteHalf {
    fn endure(&self, dead_after: Option<Duration>) {
        set_dead_after(self.as_ref(), dead_after);
    }
}

/// What the task and the handles share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the task: the outbox is no longer empty.
    work: Notify,
    /// Wakes the task: something is owed.
    owed: Notify,
    /// Since when the node is silent, while it owes an answer to an append.
    pub(super) silence: watch::Sender<Option<Instant>>,
    /// Permits are bytes: room in the outbox.
    room: Semaphore,
    /// Places for single appends and waits.
    unanswered: Arc<Semaphore>,
    /// Places for commands.
    pub(super) commands: Arc<Semaphore>,
    /// Places for reads and tails.
    pub(super) streams: Arc<Semaphore>,
    next_appender: AtomicU64,
}

#[derive(Debug)]
struct State {
    outbox: Outbox,
    requests: Requests,
    /// All requests with a lower id were handed to the socket whole.
    sent_end: u64,
    /// Entries of appenders that were not sent before the connection ended.
    unsent: Vec<(AppenderKey, Bytes)>,
    pulse: Pulse,
    lost: Option<LostReason>,
}

impl Shared {
    pub(super) fn new(frame_bytes_max: usize, silent_after: Duration) -> Self {
        Shared {
            state: Mutex::new(State {
                outbox: Outbox::new(frame_bytes_max),
                requests: Requests::new(),
                sent_end: 0,
                unsent: Vec::new(),
                pulse: Pulse::new(silent_after, Instant::now()),
                lost: None,
            }),
            work: Notify::new(),
            owed: Notify::new(),
            silence: watch::Sender::new(None),
            room: Semaphore::new(UNSENT_BYTES_MAX),
            unanswered: Arc::new(Semaphore::new(UNANSWERED_MAX)),
            commands: Arc::new(Semaphore::new(COMMANDS_PER_CONNECTION_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_PER_CONNECTION_MAX)),
            next_appender: AtomicU64::new(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock ends the task or the caller; the state is used for reporting only
        // from then on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the connection ended, if it did.
    pub(super) fn lost(&self) -> Option<LostReason> {
        self.lock().lost.clone()
    }

    fn unsent(&self) -> ConnectionLost {
        ConnectionLost::unsent(&self.lost().unwrap_or(LostReason::Dropped))
    }

    /// The error of a request that was sent and whose answer will not come.
    pub(super) fn unanswered(&self) -> ConnectionLost {
        let state = self.lock();
        let silent = || state.pulse.silence().map(|silence| LostReason::Silent(rounded(silence)));
        let reason = state.lost.clone().or_else(silent).unwrap_or(LostReason::Dropped);
        ConnectionLost { sent: true, reason }
    }

    /// Waits for room for a request of `bytes`; returns what was taken, to be forgotten by whoever
    /// puts the request into the outbox.
    async fn room(&self, bytes: usize) -> Result<tokio::sync::SemaphorePermit<'_>, ConnectionLost> {
        let permits = charge(bytes) as u32; // At most UNSENT_BYTES_MAX.
        // Trying first is not only quicker: tokio makes a task yield after some waits, even ones
        // that need not wait, which would cut a stream of appends into small runs.
        if let Ok(permit) = self.room.try_acquire_many(permits) {
            return Ok(permit);
        }
        self.room.acquire_many(permits).await.map_err(|_| self.unsent())
    }

    /// Waits for a place among the requests of a kind.
    pub(super) async fn place(
        &self,
        places: &Arc<Semaphore>,
    ) -> Result<OwnedSemaphorePermit, ConnectionLost> {
        places.clone().acquire_owned().await.map_err(|_| self.unsent())
    }

    /// A place for a single append or wait.
    pub(super) async fn single_place(&self) -> Result<OwnedSemaphorePermit, ConnectionLost> {
        self.place(&self.unanswered).await
    }

    /// Sends a request of about `bytes`. `register` says who waits and returns the id; `encode`
    /// makes the frame. An answer to it that must come within a time is `timed`.
    pub(super) async fn send(
        &self,
        bytes: usize,
        timed: Option<Duration>,
        register: impl FnOnce(&mut Requests) -> u64,
        encode: impl FnOnce(u64) -> OutFrame,
    ) -> Result<u64, ConnectionLost> {
        let permit = self.room(bytes).await?;
        let mut state = self.lock();
        if let Some(reason) = &state.lost {
            return Err(ConnectionLost::unsent(reason));
        }
        permit.forget();
        let id = register(&mut state.requests);
        self.enqueue(&mut state, |outbox| {
            outbox.push_request(encode(id), id + 1, charge(bytes), timed);
        });
        self.owe(&mut state);
        Ok(id)
    }

    /// Sends one entry; `register` says who waits and returns the id and the entry's index.
    pub(super) async fn send_entry(
        &self,
        appender: Option<AppenderKey>,
        options: &Arc<AppendOptions>,
        payload: &[u8],
        register: impl FnOnce(&mut Requests) -> (u64, u64),
    ) -> Result<(), ConnectionLost> {
        let bytes = 4 + payload.len();
        let permit = self.room(bytes).await?;
        let mut state = self.lock();
        if let Some(reason) = &state.lost {
            return Err(ConnectionLost::unsent(reason));
        }
        permit.forget();
        let place = register(&mut state.requests);
        self.enqueue(&mut state, |outbox| {
            outbox.push_entry(appender, options, place, payload, charge(bytes));
        });
        self.owe(&mut state);
        Ok(())
    }

    /// The node owes an answer from now on.
    fn owe(&self, state: &mut State) {
        if !state.pulse.owing && state.pulse.owe(Instant::now()) {
            self.owed.notify_one();
        }
    }

    fn enqueue(&self, state: &mut State, push: impl FnOnce(&mut Outbox)) {
        let was_empty = state.outbox.is_empty();
        push(&mut state.outbox);
        if was_empty {
            self.work.notify_one();
        }
    }

    /// Remembers a new appender and names it.
    pub(super) fn register_appender(&self, order: &Arc<Order>) -> AppenderKey {
        let mut state = self.lock();
        match &state.lost {
            Some(reason) => order.lose(0, reason),
            None => state.requests.register_appender(order),
        }
        self.next_appender.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks the node to end a read or tail. Needs no room: there are few of them, and each is
    /// cancelled once.
    pub(super) fn cancel(&self, id: u64) {
        let mut state = self.lock();
        if state.lost.is_none() && state.requests.is_under_way(id) {
            let frame = Message::Cancel(Cancel { id }).encode();
            self.enqueue(&mut state, |outbox| outbox.push_request(frame, 0, 0, None));
        }
    }

    /// The entries of an appender that never left, in order.
    pub(super) fn take_unsent(&self, appender: AppenderKey) -> Vec<Bytes> {
        let mut state = self.lock();
        let mine = state.unsent.extract_if(.., |(key, _)| *key == appender);
        mine.flat_map(|(_, entries)| payloads(entries)).collect()
    }

    /// Tells everybody that the connection ended.
    fn lose(&self, reason: LostReason, mut outgoing: VecDeque<Outgoing>) {
        let mut state = self.lock();
        state.outbox.drain_into(&mut outgoing);
        state.unsent = outgoing.into_iter().filter_map(|outgoing| outgoing.entries).collect();
        let sent_end = state.sent_end;
        state.lost = Some(reason.clone());
        state.requests.lose(sent_end, &reason);
        self.room.close();
        for places in [&self.unanswered, &self.commands, &self.streams] {
            places.close();
        }
        drop(state);
        self.silence.send_if_modified(|silence| silence.take().is_some());
    }
}

/// Bytes of room that a request of `bytes` takes: a long one takes all there is.
fn charge(bytes: usize) -> usize {
    bytes.clamp(1, UNSENT_BYTES_MAX)
}

/// Tells everybody of the end even when the task is aborted in the middle.
struct Ending {
    shared: Arc<Shared>,
    reason: LostReason,
    outgoing: VecDeque<Outgoing>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let reason = std::mem::replace(&mut self.reason, LostReason::Dropped);
        self.shared.lose(reason, std::mem::take(&mut self.outgoing));
    }
}

/// Serves the connection until it ends. `buffer` holds what was read already.
pub(super) async fn run(
    shared: Arc<Shared>,
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Endure + Unpin,
    buffer: BytesMut,
) {
    let outgoing = VecDeque::new();
    let mut ending = Ending { shared, reason: LostReason::Dropped, outgoing };
    let Ending { shared, outgoing, reason } = &mut ending;
    let mut reading = pin!(read(shared, reader, buffer));
    *reason = tokio::select! {
        biased;
        lost = &mut reading => lost,
        // A node that stops answers what it can, says why, and closes: that is worth reading.
        lost = write(shared, writer, outgoing) => {
            timeout(LAST_ANSWERS_WAIT, reading).await.unwrap_or(lost)
        }
        lost = watch_over(shared) => lost,
    };
}

/// Watches that the node gives signs of life while it owes something, until it does not.
async fn watch_over(shared: &Shared) -> LostReason {
    loop {
        let began = Instant::now();
        let look_at = match shared.look(began) {
            Look::Idle => {
                shared.owed.notified().await;
                continue;
            }
            Look::At(at) => at.min(began + LOOK_EVERY),
            Look::Over(reason) => return reason,
        };
        sleep_until(look_at).await;
        let now = Instant::now();
        if now >= look_at + WE_WERE_AWAY {
            shared.excuse(now);
        }
    }
}

/// What is to be done about the node's silence.
enum Look {
    /// Nothing is owed.
    Idle,
    /// Look again at this moment.
    At(Instant),
    /// The connection is given up.
    Over(LostReason),
}

impl Shared {
    fn look(&self, now: Instant) -> Look {
        let mut state = self.lock();
        if !state.requests.owes() {
            state.pulse.owing = false;
            return Look::Idle;
        }
        let due = state.requests.timeouts.due();
        if let Some((at, patience)) = due
            && at <= now
        {
            return Look::Over(LostReason::Overdue(rounded(patience)));
        }
        let look_at = match state.pulse.judge(now) {
            Finding::Fine(until) => until,
            Finding::Ask(until) => {
                self.ask(&mut state);
                until
            }
            Finding::Silent(silence) if state.requests.owes_an_append() => {
                state
                    .requests
                    .give_up_what_may_be_asked_again(&LostReason::Silent(rounded(silence)));
                if let Some(since) = state.pulse.fall_silent() {
                    self.silence.send_replace(Some(since));
                }
                now + LOOK_EVERY
            }
            Finding::Silent(silence) => return Look::Over(LostReason::Silent(rounded(silence))),
        };
        Look::At(due.map_or(look_at, |(at, _)| at.min(look_at)))
    }

    /// Asks the node for a sign of life, unless that is on its way.
    fn ask(&self, state: &mut State) {
        if let Some(id) = state.requests.register_ping() {
            let head = CommandHead { id, end: true };
            let frame = Message::Command(head, Bytes::from_static(b"PING")).encode();
            self.enqueue(state, |outbox| outbox.push_request(frame, id + 1, 0, None));
        }
    }

    /// Something came.
    fn heard(&self, now: Instant) {
        if self.lock().pulse.heard(now) {
            self.silence.send_replace(None);
        }
    }

    /// We were away ourselves for a while.
    fn excuse(&self, now: Instant) {
        let mut state = self.lock();
        state.requests.timeouts.excuse(now);
        state.pulse.excuse(now);
    }

    /// Hands a piece to whoever reads it. Who asked may have gone; what still comes is thrown away.
    /// Nothing else is read meanwhile, which is no silence of the node.
    async fn hand_over<T>(&self, sender: &mpsc::Sender<T>, piece: T) {
        let Err(TrySendError::Full(piece)) = sender.try_send(piece) else { return };
        self.lock().pulse.set_deaf(true, Instant::now());
        let _ = sender.send(piece).await;
        self.lock().pulse.set_deaf(false, Instant::now());
    }
}

async fn write(
    shared: &Shared,
    mut writer: impl AsyncWrite + Endure + Unpin,
    outgoing: &mut VecDeque<Outgoing>,
) -> LostReason {
    loop {
        if outgoing.is_empty() {
            shared.lock().outbox.drain_into(outgoing);
        }
        if outgoing.is_empty() {
            shared.work.notified().await;
            continue;
        }
        shared.note_writing(outgoing);
        let mut slices = Vec::with_capacity(WRITE_SLICES_MAX);
        for item in &*outgoing {
            if slices.len() >= WRITE_SLICES_MAX {
                break;
            }
            item.frame.io_slices(&mut slices, WRITE_SLICES_MAX);
        }
        match write_some(&mut writer, &slices).await {
            Ok(written) => shared.note_written(outgoing, written),
            Err(error) => return error.into(),
        }
    }
}

/// Writes what the socket takes. The system does not tell a node that reads nothing from one that is
/// gone: while the socket takes nothing, the connection is not cut for it.
pub(super) async fn write_some(
    writer: &mut (impl AsyncWrite + Endure + Unpin),
    slices: &[IoSlice<'_>],
) -> std::io::Result<usize> {
    let written = match timeout(SLOW_READER_AFTER, writer.write_vectored(slices)).await {
        Ok(written) => written,
        Err(_) => {
            writer.endure(None);
            let written = writer.write_vectored(slices).await;
            writer.endure(Some(CLIENT_DEAD_AFTER));
            written
        }
    };
    match written? {
        0 => Err(std::io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

impl Shared {
    /// The front is to be written now: somebody who takes nothing of it is not waited for either.
    fn note_writing(&self, outgoing: &VecDeque<Outgoing>) {
        if let Some((timeout, _)) = outgoing.front().and_then(|front| front.timed) {
            self.lock().requests.timeouts.sending(Some(timeout), Instant::now());
        }
    }

    /// Takes what was written off the front of `outgoing`. A frame counts as sent when all of it
    /// is: the node does nothing with a part.
    fn note_written(&self, outgoing: &mut VecDeque<Outgoing>, mut written: usize) {
        let (mut freed, mut sent_end) = (0, 0);
        let mut timed = Vec::new();
        while let Some(front) = outgoing.front_mut() {
            let part = written.min(front.frame.len());
            front.frame.advance(part);
            written -= part;
            if !front.frame.is_empty() {
                break;
            }
            freed += front.charged;
            sent_end = sent_end.max(front.ids_end);
            timed.extend(front.timed);
            outgoing.pop_front();
        }
        let mut state = self.lock();
        state.sent_end = state.sent_end.max(sent_end);
        let now = Instant::now();
        state.requests.timeouts.sending(None, now);
        if !timed.is_empty() {
            timed
                .iter()
                .for_each(|&(after, count)| state.requests.timeouts.sent(after, count, now));
        }
        drop(state);
        self.room.add_permits(freed);
    }
}

async fn read(
    shared: &Shared,
    mut reader: impl AsyncRead + Unpin,
    mut buffer: BytesMut,
) -> LostReason {
    let decoder = FrameDecoder { body_bytes_max: FRAME_BODY_BYTES_MAX };
    loop {
        loop {
            match decoder.decode(&mut buffer) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if let Err(reason) = dispatch(shared, frame).await {
                        return reason;
                    }
                }
                Err(error) => return LostReason::protocol(error),
            }
        }
        reserve_for_read(&mut buffer);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return LostReason::Closed,
            Ok(_) => shared.heard(Instant::now()),
            Err(error) => return error.into(),
        }
    }
}

/// Hands a frame to whoever waits for it. Waits while a reader of pieces is behind: the protocol
/// has no way to slow down one answer alone.
async fn dispatch(shared: &Shared, frame: Frame) -> Result<(), LostReason> {
    let unexpected = |what: &str| Err(LostReason::protocol(what));
    let piece = |id, end| shared.lock().requests.piece(id, end);
    match Message::decode(frame).map_err(LostReason::protocol)? {
        Some(Message::AppendReply(reply)) => {
            let now = Instant::now();
            shared.lock().requests.answer(reply, now).map_err(LostReason::protocol)
        }
        Some(Message::Entries(head, records)) => match piece(head.id, head.end) {
            Some(PieceSender::Entries(sender)) => {
                shared.hand_over(&sender, EntriesPiece::Entries(head, records)).await;
                Ok(())
            }
            Some(PieceSender::Nobody) => Ok(()),
            _ => unexpected("entries that nobody asked for"),
        },
        Some(Message::RequestRefused(refused)) => {
            let refusal = Refusal::from(refused.refusal);
            match piece(refused.id, true) {
                // The protocol refuses a command in its reply. One refused so reads the same.
                Some(PieceSender::Reply(sender)) => {
                    let bytes = format!("{refusal}\n").into();
                    shared.hand_over(&sender, ReplyPiece { bytes, end: true }).await;
                    Ok(())
                }
                Some(PieceSender::Entries(sender)) => {
                    shared.hand_over(&sender, EntriesPiece::Refused(refusal)).await;
                    Ok(())
                }
                Some(PieceSender::Nobody) => Ok(()),
                None => unexpected("a refusal of no request"),
            }
        }
        Some(Message::CommandReply(head, bytes)) => match piece(head.id, head.end) {
            Some(PieceSender::Reply(sender)) => {
                shared.hand_over(&sender, ReplyPiece { bytes, end: head.end }).await;
                Ok(())
            }
            Some(PieceSender::Nobody) => Ok(()),
            _ => unexpected("a reply to no command"),
        },
        Some(Message::Refuse(refuse)) => {
            let (code, reason) = (refuse.code, refuse.reason);
            Err(LostReason::Refused(RefusedByNode { code, reason }))
        }
        Some(_) => unexpected("a frame that no client expects"),
        None => unexpected("a frame of an unknown type"),
    }
}
