//! Connecting to `host:port`: all addresses of a name, in the manner of RFC 8305, within one time.
//!
//! Clients and nodes dial by this room alone. It knows nothing of the protocol: whoever dials
//! introduces itself on the connection it is given, and asks for the next one if that was the wrong
//! one. What a stranger answers instead of an introduction is recognised here too, so that a wrong
//! port is called by its name everywhere.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::address::Address;
use crate::limits::{
    KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, KEEPALIVE_TIME, NEXT_ADDRESS_AFTER, NUDGE_PATIENCE,
};

/// Why an address led to no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialFailure {
    /// The name has no address, or nobody said which within the time.
    #[error("cannot resolve: {0}")]
    Unresolved(String),
    /// Nobody listens there, nothing came back within the time, or the network says no.
    #[error("cannot connect: {0}")]
    Unconnected(String),
}

/// Attempts that begin one after the other and then run beside one another. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Race<K, T> {
    waiting: VecDeque<K>,
    running: JoinSet<(K, T)>,
    /// The keys of those that run, and since when.
    begun: Vec<(K, Instant)>,
    /// How long an attempt has to itself.
    delay: Duration,
    next_at: Instant,
}

impl<K, T> Race<K, T>
where
    K: Clone + PartialEq + Send + 'static,
    T: Send + 'static,
{
    /// Attempts for `keys` in this order; each begins `delay` after the one before it.
    pub(crate) fn new(keys: impl IntoIterator<Item = K>, delay: Duration) -> Self {
        Race {
            waiting: keys.into_iter().collect(),
            running: JoinSet::new(),
            begun: Vec::new(),
            delay,
            next_at: Instant::now(),
        }
    }

    /// The next attempt that ends, however it ends; `None` when all have. When one ends, the next
    /// begins at once. Cancel safe.
    pub(crate) async fn next<F>(&mut self, begin: impl Fn(K) -> F) -> Option<(K, T)>
    where
        F: Future<Output = T> + Send + 'static,
    {
        loop {
            if (self.running.is_empty() || self.next_at <= Instant::now())
                && let Some(key) = self.waiting.pop_front()
            {
                let attempt = begin(key.clone());
                self.begun.push((key.clone(), Instant::now()));
                self.running.spawn(async move { (key, attempt.await) });
                self.next_at = Instant::now() + self.delay;
                continue;
            }
            tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => match ended {
                    Ok((key, ended)) => {
                        self.begun.retain(|(begun, _)| *begun != key);
                        self.next_at = Instant::now();
                        return Some((key, ended));
                    }
                    Err(error) if error.is_panic() => {
                        std::panic::resume_unwind(error.into_panic())
                    }
                    // Attempts are cancelled in `put_back` only, which forgets them.
                    Err(_) => {}
                },
                () = sleep_until(self.next_at), if !self.waiting.is_empty() => {}
                else => return None,
            }
        }
    }

    /// Whether one that `is` has not begun.
    pub(crate) fn waits_for(&self, is: impl Fn(&K) -> bool) -> bool {
        self.waiting.iter().any(is)
    }

    /// Makes `key`, which does not run, the next one to begin.
    pub(crate) fn add_next(&mut self, key: K) {
        self.waiting.retain(|waiting| *waiting != key);
        self.waiting.push_front(key);
    }

    /// How many have not ended, those that have not begun included.
    pub(crate) fn left(&self) -> usize {
        self.begun.len() + self.waiting.len()
    }

    /// Those that run, and since when.
    pub(crate) fn running(&self) -> &[(K, Instant)] {
        &self.begun
    }

    /// Ends the attempts that run and lets them wait again, in their order, before all others.
    fn put_back(&mut self) {
        self.running = JoinSet::new();
        for (key, _) in self.begun.drain(..).rev() {
            self.waiting.push_front(key);
        }
    }
}

/// The way to one `host:port`: its addresses, and which of them were tried.
#[derive(Debug)]
pub(crate) struct Dial {
    race: Race<SocketAddr, io::Result<TcpStream>>,
    begun: Instant,
    deadline: Instant,
    failures: Vec<(SocketAddr, DialFailure)>,
}

impl Dial {
    /// Looks up the addresses of `target`. The look-up, connecting, and whatever the caller does
    /// with the connections share the time up to `deadline`.
    ///
    /// # Errors
    /// The name has no address, or the resolver does not answer in time.
    pub(crate) async fn resolve(target: &str, deadline: Instant) -> Result<Dial, DialFailure> {
        let begun = Instant::now();
        let unresolved = |why: String| Err(DialFailure::Unresolved(why));
        let addr: Address = match target.parse() {
            Ok(addr) => addr,
            Err(error) => return unresolved(format!("{target}: {error}")),
        };
        match timeout_at(deadline, tokio::net::lookup_host(addr.host_and_port())).await {
            Ok(Ok(addrs)) => {
                let dial = Dial { begun, ..Dial::to(addrs, deadline) };
                if dial.race.left() == 0 {
                    return unresolved(format!("{target} has no address"));
                }
                Ok(dial)
            }
            Ok(Err(error)) => unresolved(error.to_string()),
            Err(_) => unresolved(format!("no name server answers within {:?}", since(begun))),
        }
    }

    /// The way to these addresses.
    pub(crate) fn to(addrs: impl IntoIterator<Item = SocketAddr>, deadline: Instant) -> Dial {
        let addrs = interleaved(addrs);
        let begun = Instant::now();
        // However many there are: the last one gets its part of the time.
        let parts = u32::try_from(addrs.len()).unwrap_or(u32::MAX).saturating_add(1);
        let delay = NEXT_ADDRESS_AFTER.min(deadline.saturating_duration_since(begun) / parts);
        Dial { race: Race::new(addrs, delay), begun, deadline, failures: Vec::new() }
    }

    /// Connects to one of the addresses not given out yet: the next one is tried a little later or
    /// when one fails, and the first that connects is given; the others are let go, to be tried
    /// again when the caller comes back. `None` when none is left or the time is over.
    pub(crate) async fn next(&mut self) -> Option<(SocketAddr, TcpStream)> {
        loop {
            let ended = self.race.next(|addr| async move { TcpStream::connect(addr).await });
            match timeout_at(self.deadline, ended).await {
                Ok(Some((addr, Ok(stream)))) => {
                    self.race.put_back();
                    return Some((addr, stream));
                }
                Ok(Some((addr, Err(error)))) => {
                    let failure = DialFailure::Unconnected(error.to_string());
                    self.failures.push((addr, failure));
                }
                Ok(None) => return None,
                Err(_) => {
                    self.race.put_back();
                    // What was allowed, not what was measured: the same words for the same thing.
                    let within = rounded(self.deadline.saturating_duration_since(self.begun));
                    for addr in self.race.waiting.drain(..) {
                        let why = format!("no answer within {within:?}");
                        self.failures.push((addr, DialFailure::Unconnected(why)));
                    }
                    return None;
                }
            }
        }
    }

    /// Until when whoever was just given out may take to introduce itself: its share of the time,
    /// if there are others.
    pub(crate) fn share_ends(&self) -> Instant {
        let now = Instant::now();
        let parts = u32::try_from(self.race.left()).unwrap_or(u32::MAX).saturating_add(1);
        now + self.deadline.saturating_duration_since(now) / parts
    }

    /// The addresses that led to no connection, with the reason, as they failed.
    pub(crate) fn failures(&self) -> &[(SocketAddr, DialFailure)] {
        &self.failures
    }
}

/// How long ago, in tenths of a second: for people.
pub(crate) fn since(begun: Instant) -> Duration {
    rounded(begun.elapsed())
}

/// A duration in tenths of a second, or as it is if it is shorter.
pub(crate) fn rounded(duration: Duration) -> Duration {
    match duration.as_millis() {
        0..100 => Duration::from_millis(duration.as_millis() as u64), // Below 100.
        millis => Duration::from_millis(u64::try_from(millis + 50).unwrap_or(u64::MAX) / 100 * 100),
    }
}

/// Each address once, the two families in turn: one that swallows packets delays the other little.
fn interleaved(addrs: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut left: Vec<SocketAddr> = Vec::new();
    for addr in addrs {
        if !left.contains(&addr) {
            left.push(addr);
        }
    }
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let last_is_ipv6 = ordered.last().map(SocketAddr::is_ipv6);
        let other = left.iter().position(|addr| Some(addr.is_ipv6()) != last_is_ipv6);
        ordered.push(left.remove(other.unwrap_or(0)));
    }
    ordered
}

/// Sets what every connection needs: no delay for small frames, and an end to connections whose
/// other side is gone. One that takes nothing for `dead_after` is cut (a cut cable gives no sign by
/// itself); on an idle one the kernel asks now and then.
pub(crate) fn tune(stream: &TcpStream, dead_after: Duration) {
    let socket = socket2::SockRef::from(stream);
    // A socket that cannot be tuned still works: slower, or longer in noticing a cut.
    let _ = stream.set_nodelay(true);
    set_dead_after(stream, Some(dead_after));
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// After how long the kernel cuts a connection whose other side acknowledges nothing, or takes
/// nothing: it does not tell the two apart. `None`: after a quarter of an hour, and never.
pub(crate) fn set_dead_after(stream: &TcpStream, dead_after: Option<Duration>) {
    // See `tune`.
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(dead_after);
}

/// Whoever listens on a port that is not the one wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// The text gateway of a node of ours.
    TextGateway,
    /// A web server.
    Http,
    /// A server that speaks TLS.
    Tls,
    /// An SSH server.
    Ssh,
}

impl Stranger {
    /// Recognises it by the first bytes it says.
    pub(crate) fn of(bytes: &[u8]) -> Option<Stranger> {
        let begins = |texts: &[&str]| texts.iter().any(|text| bytes.starts_with(text.as_bytes()));
        if begins(&["ERR ", "REJECTED ", "PONG", "OK "]) {
            Some(Stranger::TextGateway)
        } else if begins(&["HTTP/", "<!DOCTYPE", "<!doctype", "<html", "<HTML"]) {
            Some(Stranger::Http)
        } else if bytes.starts_with(&[0x15, 0x03]) {
            // An alert: what a TLS server says to anything but a hello of TLS.
            Some(Stranger::Tls)
        } else if begins(&["SSH-"]) {
            Some(Stranger::Ssh)
        } else {
            None
        }
    }

    /// A sentence that says who is there, at `port`, and what is wanted instead.
    pub(crate) fn sentence(self, port: u16) -> String {
        const WANTED: &str = "the wire address of a replog node is wanted";
        match self {
            Stranger::TextGateway => {
                // The default ports of a node's two doors are a thousand apart.
                let wire = if (8000..9000).contains(&port) { port + 1000 } else { 9000 };
                format!(
                    "that is the text gateway of a replog node; its wire address is wanted, by \
                     default port {wire}"
                )
            }
            Stranger::Http => format!("an HTTP server answers there; {WANTED}"),
            Stranger::Tls => format!("a TLS server answers there; {WANTED}"),
            Stranger::Ssh => format!("an SSH server answers there; {WANTED}"),
        }
    }
}

/// When the introduction on a connection is given up before `deadline`, so that time is left for
/// [`nudged`].
pub(crate) fn nudge_at(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - NUDGE_PATIENCE.min(left / 4)
}

/// Makes somebody who is silent after an introduction say who it is: servers that speak in lines
/// wait for the end of one. The connection is of no use afterwards. Returns what was said by
/// `deadline`, which may be nothing.
pub(crate) async fn nudged(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    deadline: Instant,
) -> Vec<u8> {
    let mut said = Vec::new();
    let nudge = async {
        stream.write_all(b"\r\n\r\n").await?;
        stream.read_buf(&mut said).await
    };
    // Silence, and an end, are answers too.
    let _ = timeout_at(deadline, nudge).await;
    said
}

/// An address of this machine that swallows packets: the queue of its listener is full, and nobody
/// accepts.
#[cfg(test)]
pub(crate) struct BlackHole {
    pub(crate) addr: SocketAddr,
    _listener: socket2::Socket,
    _queued: Vec<TcpStream>,
}

#[cfg(test)]
impl BlackHole {
    pub(crate) async fn new() -> BlackHole {
        let listener =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        let patience = Duration::from_millis(300);
        while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(addr)).await {
            queued.push(stream.unwrap());
            assert!(queued.len() < 100, "this system queues for ever");
        }
        BlackHole { addr, _listener: listener, _queued: queued }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    /// Nobody listens there any more.
    async fn gone() -> SocketAddr {
        listening().await.1
    }

    fn dial(addrs: &[SocketAddr], patience: Duration) -> Dial {
        Dial::to(addrs.iter().copied(), Instant::now() + patience)
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses_or_swallows_packets() {
        let swallowing = BlackHole::new().await;
        let (_listener, right) = listening().await;
        let addrs = [gone().await, swallowing.addr, right];
        let mut dial = dial(&addrs, Duration::from_secs(20));
        let begun = Instant::now();
        let (addr, _stream) = dial.next().await.unwrap();
        assert_eq!(addr, right);
        assert!(begun.elapsed() < Duration::from_secs(10), "it waited for {:?}", begun.elapsed());
        assert_eq!(dial.failures().len(), 1, "{:?}", dial.failures());
        assert_eq!(dial.race.left(), 1, "the one that was let go may be tried again");
    }

    /// Eight addresses, the wait before the next one 250 ms, and a time too short for all those waits.
    #[tokio::test]
    async fn the_last_of_many_addresses_gets_its_part_of_the_time() {
        let swallowing = BlackHole::new().await;
        let (_listener, right) = listening().await;
        let mut holes = vec![swallowing];
        for _ in 0..7 {
            holes.push(BlackHole::new().await);
        }
        let mut addrs: Vec<SocketAddr> = holes.iter().map(|hole| hole.addr).collect();
        addrs.push(right);
        let mut dial = dial(&addrs, Duration::from_millis(1500));
        assert_eq!(dial.next().await.map(|(addr, _)| addr), Some(right));
    }

    #[tokio::test]
    async fn when_the_time_is_over_each_address_has_its_reason() {
        let swallowing = BlackHole::new().await;
        let addrs = [swallowing.addr, gone().await];
        let mut dial = dial(&addrs, Duration::from_millis(700));
        assert!(dial.next().await.is_none());
        let reasons: Vec<_> = dial.failures().iter().map(|(addr, why)| (*addr, why)).collect();
        let refused = reasons.iter().find(|(addr, _)| *addr == addrs[1]).unwrap();
        assert!(refused.1.to_string().starts_with("cannot connect: Connection refused"));
        let swallowed = reasons.iter().find(|(addr, _)| *addr == addrs[0]).unwrap();
        assert_eq!(swallowed.1.to_string(), "cannot connect: no answer within 700ms");
    }

    #[tokio::test]
    async fn one_that_connects_is_given_after_another_that_did_not_do() {
        let (_first, one) = listening().await;
        let (_second, other) = listening().await;
        let mut dial = dial(&[one, other], Duration::from_secs(20));
        let (first, _stream) = dial.next().await.unwrap();
        let half = dial.share_ends().saturating_duration_since(Instant::now());
        assert!(half < Duration::from_secs(11), "the other one has its share, too: {half:?}");
        let (second, _stream) = dial.next().await.unwrap();
        assert_ne!(first, second);
        assert!(dial.next().await.is_none() && dial.failures().is_empty());
    }

    #[tokio::test]
    async fn the_kernel_is_told_when_a_connection_is_dead() {
        let (_listener, addr) = listening().await;
        let stream = TcpStream::connect(addr).await.unwrap();
        tune(&stream, Duration::from_secs(7));
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
        set_dead_after(&stream, None);
        assert_eq!(socket.tcp_user_timeout().unwrap(), None, "for as long as it takes");
    }

    #[tokio::test]
    async fn a_name_without_address_is_not_resolved() {
        let deadline = Instant::now() + Duration::from_secs(20);
        let failure = Dial::resolve("no such name:1", deadline).await.unwrap_err();
        assert!(failure.to_string().starts_with("cannot resolve: "), "{failure}");
        assert!(Dial::resolve("127.0.0.1:1", deadline).await.is_ok());
    }

    #[test]
    fn the_families_take_turns_and_no_address_comes_twice() {
        let addrs = ["[::1]:1", "[::2]:1", "127.0.0.1:1", "[::1]:1", "127.0.0.2:1", "127.0.0.3:1"];
        let ordered = interleaved(addrs.map(|addr| addr.parse().unwrap()));
        let ordered: Vec<String> = ordered.iter().map(SocketAddr::to_string).collect();
        let expected = ["[::1]:1", "127.0.0.1:1", "[::2]:1", "127.0.0.2:1", "127.0.0.3:1"];
        assert_eq!(ordered, expected);
    }

    #[test]
    fn strangers_are_known_by_what_they_say_first() {
        let cases: [(&[u8], &str); 6] = [
            (b"ERR unknown-verb - x", "wire address is wanted, by default port 9001"),
            (b"REJECTED busy connections=3", "that is the text gateway of a replog node"),
            (b"HTTP/1.1 400 Bad Request", "an HTTP server answers there"),
            (b"<!DOCTYPE HTML>", "an HTTP server answers there"),
            (b"\x15\x03\x01\x00\x02\x02F", "a TLS server answers there"),
            (b"SSH-2.0-OpenSSH", "an SSH server answers there"),
        ];
        for (said, sentence) in cases {
            let stranger = Stranger::of(said).unwrap();
            assert!(stranger.sentence(8001).contains(sentence), "{}", stranger.sentence(8001));
        }
        assert_eq!(Stranger::of(b"RL\x01\x01"), None);
        assert_eq!(Stranger::of(b""), None);
    }
}
