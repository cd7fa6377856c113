//! Appending: one entry with its own answer, or a stream of them with their answers in order.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Client;
use super::error::ConnectionLost;
use super::options::AppendOptions;
use super::order::{Answered, Order};
use super::outbox::{APPEND_HEAD_BYTES_MAX, AppenderKey};
use super::outcome::{AppendOutcome, Refusal};
use super::requests::Single;
use crate::codes::Code;
use crate::types::{Seq, WaitOptions};
use crate::wire::codec;

/// The answer to a request that is on its way. Dropping it gives up waiting, not the append.
#[derive(Debug)]
#[must_use = "the answer tells whether the entry is in the log"]
pub struct AppendHandle {
    answer: oneshot::Receiver<Result<AppendOutcome, ConnectionLost>>,
    /// Keeps the connection while somebody waits for its answer.
    client: Client,
}

impl AppendHandle {
    pub(super) fn new(
        answer: oneshot::Receiver<Result<AppendOutcome, ConnectionLost>>,
        client: Client,
    ) -> Self {
        AppendHandle { answer, client }
    }
}

impl Future for AppendHandle {
    type Output = Result<AppendOutcome, ConnectionLost>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(context)
            .map(|answer| answer.unwrap_or_else(|_| Err(self.client.shared().unanswered())))
    }
}

impl Client {
    /// Sends an entry. Waits only for room among the requests under way; the handle that it
    /// returns then waits for the answer. Entries get their numbers in the order in which these
    /// calls return, and those on their way at the same time share frames.
    ///
    /// ```
    /// use replog::client::{AppendOptions, AppendOutcome, Client, ConnectOptions};
    /// use replog::types::{AckLevel, Timeout, WriteConcern};
    ///
    /// # replog::testing::example(|servers| async move {
    /// # let client = Client::connect([&servers[0]], ConnectOptions::default()).await?;
    /// // As the master is configured; on every node; on a majority; on two of them, in memory;
    /// // in the master's log, at once.
    /// for options in [
    ///     AppendOptions::default(),
    ///     AppendOptions { concern: Some(WriteConcern::All), ..Default::default() },
    ///     AppendOptions { concern: Some(WriteConcern::Majority), ..Default::default() },
    ///     AppendOptions {
    ///         concern: Some("2".parse()?),
    ///         ack: Some(AckLevel::Received),
    ///         ..Default::default()
    ///     },
    ///     AppendOptions { timeout: Some("0".parse::<Timeout>()?), ..Default::default() },
    /// ] {
    ///     match client.append("hello".into(), options).await?.await? {
    ///         AppendOutcome::Ok(placed) => println!("{} is where it should be", placed.seq),
    ///         AppendOutcome::Pending(placed) => println!("{} is in the log", placed.seq),
    ///         AppendOutcome::Unknown(placed) => println!("{} may be in the log", placed.seq),
    ///         AppendOutcome::Refused(refusal) => println!("not in the log: {refusal}"),
    ///     }
    /// }
    /// // No cluster of three holds anything on five nodes.
    /// let options = AppendOptions { concern: Some("5".parse()?), ..Default::default() };
    /// let outcome = client.append("hello".into(), options).await?.await?;
    /// assert!(!outcome.maybe_applied() && !outcome.is_retryable());
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    /// The connection is lost; nothing was sent.
    pub async fn append(
        &self,
        payload: Bytes,
        options: AppendOptions,
    ) -> Result<AppendHandle, ConnectionLost> {
        let (reply, answer) = oneshot::channel();
        let handle = AppendHandle::new(answer, self.clone());
        if let Some(refusal) = self.refusal_of(&payload) {
            // The other end is in the handle.
            let _ = reply.send(Ok(AppendOutcome::Refused(refusal)));
            return Ok(handle);
        }
        let shared = self.shared();
        let place = shared.single_place().await?;
        let limit = options.limit();
        let register = |requests: &mut super::requests::Requests| {
            (requests.register_single(Single::Append, reply, place, limit), 0)
        };
        shared.send_entry(None, &Arc::new(options), &payload, register).await?;
        Ok(handle)
    }

    /// Waits until an entry that is in the log is held as `options` ask.
    ///
    /// ```
    /// use replog::client::{AppendOptions, Client, ConnectOptions, WaitOptions};
    /// use replog::codes::Class;
    /// use replog::types::WriteConcern;
    ///
    /// # replog::testing::example(|servers| async move {
    /// # let client = Client::connect([&servers[0]], ConnectOptions::default()).await?;
    /// let at_once = AppendOptions { timeout: Some("0".parse()?), ..Default::default() };
    /// let outcome = client.append("hello".into(), at_once).await?.await?;
    /// let placed = *outcome.placed().ok_or("it was refused")?;
    /// // Later, and over any connection: is it everywhere by now?
    /// let options = WaitOptions { concern: Some(WriteConcern::All), ..Default::default() };
    /// let outcome = client.wait(placed.seq, options).await?;
    /// assert_eq!(outcome.class(), Class::Ok);
    /// # Ok(())
    /// # });
    /// ```
    ///
    /// # Errors
    /// The connection is lost, the node is silent, or it does not keep the timeout. Waiting changes
    /// nothing, so that it may be repeated, elsewhere too.
    pub async fn wait(
        &self,
        seq: Seq,
        options: WaitOptions,
    ) -> Result<AppendOutcome, ConnectionLost> {
        const WAIT_BYTES: usize = 64;
        let (reply, answer) = oneshot::channel();
        let handle = AppendHandle::new(answer, self.clone());
        let shared = self.shared();
        let place = shared.single_place().await?;
        let options = AppendOptions::from(options);
        let encode = |id| {
            let (seq, concern) = (seq.number(), options.concern.into());
            let (ack, timeout) = (options.ack.into(), options.timeout.into());
            let request = codec::WaitRequest { id, seq, concern, ack, timeout };
            crate::wire::Message::WaitRequest(request).encode()
        };
        let limit = options.limit();
        let register = |requests: &mut super::requests::Requests| {
            requests.register_single(Single::Wait, reply, place, limit)
        };
        shared.send(WAIT_BYTES, limit, register, encode).await?;
        handle.await
    }

    /// Two ends of a stream of appends: entries go in, their outcomes come out in the same order.
    /// At most `in_flight_max` entries are between the two, so that both must be served at the same
    /// time.
    ///
    /// ```
    /// use replog::client::{AppendOptions, Client, ConnectOptions};
    ///
    /// # replog::testing::example(|servers| async move {
    /// # let client = Client::connect([&servers[0]], ConnectOptions::default()).await?;
    /// let (mut appender, mut outcomes) = client.appender(AppendOptions::default(), 10_000);
    /// let feed = async move {
    ///     for number in 0..20_000 {
    ///         appender.push(format!("line {number}").as_bytes()).await?;
    ///     }
    ///     Ok::<_, replog::client::ConnectionLost>(())
    /// };
    /// let collect = async {
    ///     let mut stored = 0;
    ///     // Neighbours with the same outcome come together.
    ///     while let Some(answered) = outcomes.next().await {
    ///         match answered.outcome {
    ///             Ok(outcome) if outcome.maybe_applied() => stored += answered.count,
    ///             other => println!("{} from {} on: {other:?}", answered.count, answered.first),
    ///         }
    ///     }
    ///     stored
    /// };
    /// let (fed, stored) = tokio::join!(feed, collect);
    /// fed?;
    /// assert_eq!(stored, 20_000);
    /// # Ok(())
    /// # });
    /// ```
    pub fn appender(&self, options: AppendOptions, in_flight_max: usize) -> (Appender, Outcomes) {
        let order = Arc::new(Order::new(in_flight_max));
        let key = self.shared().register_appender(&order);
        let (client, options) = (self.clone(), Arc::new(options));
        let outcomes = Outcomes { client: client.clone(), order: order.clone(), key };
        (Appender { client, order, options, key }, outcomes)
    }

    /// Why the node cannot even be asked to append this payload: a frame over its limit would end
    /// the connection.
    fn refusal_of(&self, payload: &[u8]) -> Option<Refusal> {
        let fits = payload.len() + 4 + APPEND_HEAD_BYTES_MAX <= self.frame_bytes_max();
        (!fits).then(|| {
            let max = self.payload_max();
            let detail = format!("max={max} - the payload is longer than limits.payload_max");
            Refusal { number: Code::TooLarge.number(), detail }
        })
    }
}

/// Takes the entries of a stream of appends. Dropping it ends the stream; what was sent is still
/// answered.
#[derive(Debug)]
pub struct Appender {
    client: Client,
    order: Arc<Order>,
    options: Arc<AppendOptions>,
    key: AppenderKey,
}

impl Appender {
    /// Adds an entry; its index is the number of entries added before. Waits while
    /// `in_flight_max` entries have no outcome that was read, and while the socket does not take
    /// more. Entries leave at once when the socket is idle, and in runs while it is busy.
    ///
    /// # Errors
    /// The connection is lost; this entry was not sent and has no index. [`Outcomes`] tells of the
    /// earlier ones.
    pub async fn push(&mut self, payload: &[u8]) -> Result<(), ConnectionLost> {
        let permit = match self.order.room.try_acquire() {
            Ok(permit) => permit,
            // The semaphore is never closed: a lost connection frees room and is found out below.
            Err(_) => match self.order.room.acquire().await {
                Ok(permit) => permit,
                Err(_) => return Err(self.client.shared().unanswered()),
            },
        };
        if let Some(refusal) = self.client.refusal_of(payload) {
            permit.forget();
            let index = self.order.submit();
            let refused = self.order.answer(index, 1, Ok(AppendOutcome::Refused(refusal)));
            debug_assert!(refused.is_ok(), "an entry just submitted has no answer");
            return Ok(());
        }
        let (order, limit) = (&self.order, self.options.limit());
        let register = |requests: &mut super::requests::Requests| {
            permit.forget();
            let index = order.submit();
            (requests.register_entry(order, index, limit), index)
        };
        self.client.shared().send_entry(Some(self.key), &self.options, payload, register).await
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.order.finish();
    }
}

/// Gives the outcomes of a stream of appends, in the order in which the entries were added.
#[derive(Debug)]
pub struct Outcomes {
    client: Client,
    order: Arc<Order>,
    key: AppenderKey,
}

impl Outcomes {
    /// The next outcomes; `None` when the [`Appender`] is dropped, or the connection is lost, and
    /// all were given. Cancel safe.
    pub async fn next(&mut self) -> Option<Answered> {
        self.order.next().await
    }

    /// How many entries were added and have no outcome that was given.
    pub fn waiting(&self) -> u64 {
        self.order.waiting()
    }

    /// After the connection was lost, and `next` gave `None`: the payloads of the entries that
    /// were added and never sent, in order. They may be sent again.
    pub fn take_unsent(&mut self) -> Vec<Bytes> {
        self.client.shared().take_unsent(self.key)
    }
}

impl Drop for Outcomes {
    fn drop(&mut self) {
        self.order.stop_reading();
    }
}
