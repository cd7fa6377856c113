//! A link that can fail: a TCP proxy with weather.
//!
//! Each direction has its own weather. What is cut is not closed: bytes wait in the proxy, as in
//! the buffers of a network that lost its route, and pass when the cut ends. Memory is bounded by
//! `QUEUE_PIECES` pieces for each direction of each connection.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::rng::Rng;

/// Bytes read at a time.
const PIECE_BYTES: usize = 16 << 10;

/// Pieces on their way in one direction of one connection.
const QUEUE_PIECES: usize = 256;

/// What happens to bytes in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    /// Nothing passes, nothing is closed.
    pub cut: bool,
    /// Everything comes this much later.
    pub delay: Duration,
    /// And up to this much later still, without changing the order.
    pub jitter: Duration,
    /// Written in pieces of at most so many bytes.
    pub piece_bytes: Option<usize>,
    /// At most so many bytes a second.
    pub bytes_per_second: Option<u64>,
}

/// What happens to a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Towards the target.
    pub there: Direction,
    /// Back from it.
    pub back: Direction,
}

/// A proxy on a port of its own. It ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where to connect instead of the target.
    pub addr: SocketAddr,
    link: Arc<Link>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Link {
    target: watch::Sender<Option<SocketAddr>>,
    weather: watch::Sender<Weather>,
    /// Counts resets.
    resets: watch::Sender<u64>,
    connections: AtomicU64,
    seed: u64,
}

impl Proxy {
    /// A proxy on a free loopback port. Without a target, connections are closed at once.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: Option<SocketAddr>, seed: u64) -> io::Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let link = Arc::new(Link {
            target: watch::Sender::new(target),
            weather: watch::Sender::new(Weather::default()),
            resets: watch::Sender::new(0),
            connections: AtomicU64::new(0),
            seed,
        });
        let accepting = tokio::spawn(accept(listener, link.clone()));
        Ok(Proxy { addr, link, accepting })
    }

    /// Where new connections go.
    pub fn set_target(&self, target: Option<SocketAddr>) {
        self.link.target.send_replace(target);
    }

    /// Changes the weather for all connections.
    pub fn set_weather(&self, weather: Weather) {
        self.link.weather.send_replace(weather);
    }

    /// Resets all connections: both ends hear at once that they are gone.
    pub fn reset(&self) {
        self.link.resets.send_modify(|count| *count += 1);
    }

    /// Connections taken so far.
    pub fn connections(&self) -> u64 {
        self.link.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.reset();
    }
}

async fn accept(listener: TcpListener, link: Arc<Link>) {
    loop {
        match listener.accept().await {
            Ok((near, _)) => {
                let number = link.connections.fetch_add(1, Ordering::Relaxed);
                let resets = link.resets.subscribe();
                tokio::spawn(forward(near, link.clone(), resets, number));
            }
            // Out of descriptors, most likely: others must close some first.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Carries one connection to its end. What fails ends this connection, as a broken link would.
async fn forward(near: TcpStream, link: Arc<Link>, mut resets: watch::Receiver<u64>, number: u64) {
    let weather = link.weather.subscribe();
    let connected = async {
        // A connection request does not pass a cut link either.
        wait_until_open(&mut weather.clone(), |weather| weather.there.cut).await?;
        let target = (*link.target.borrow()).ok_or(io::ErrorKind::ConnectionRefused)?;
        TcpStream::connect(target).await
    };
    let far = tokio::select! {
        far = connected => far,
        _ = resets.changed() => Err(io::ErrorKind::ConnectionReset.into()),
    };
    let Ok(far) = far else {
        let _ = near.set_zero_linger();
        return;
    };
    let (random, back_random) =
        (Rng::keyed(&[link.seed, number, 0]), Rng::keyed(&[link.seed, number, 1]));
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, mut near_write) = near.into_split();
    let (far_read, mut far_write) = far.into_split();
    let mut there = Side { weather: weather.clone(), of: |weather| weather.there, random };
    let mut back = Side { weather, of: |weather| weather.back, random: back_random };
    let reset = {
        let carry = async {
            tokio::join!(
                there.carry(&near_read, &mut far_write),
                back.carry(&far_read, &mut near_write)
            )
        };
        tokio::select! {
            _ = carry => false,
            _ = resets.changed() => true,
        }
    };
    if reset {
        // Both fail only for a socket that is gone already.
        let _ = (near_write.as_ref().set_zero_linger(), far_write.as_ref().set_zero_linger());
        // An orderly end of the stream must not come before the reset.
        near_write.forget();
        far_write.forget();
    }
}

async fn wait_until_open(
    weather: &mut watch::Receiver<Weather>,
    cut: impl FnMut(&Weather) -> bool,
) -> io::Result<()> {
    let mut cut = cut;
    weather.wait_for(|weather| !cut(weather)).await.map_err(|_| io::ErrorKind::ConnectionReset)?;
    Ok(())
}

/// One direction of one connection.
struct Side {
    weather: watch::Receiver<Weather>,
    of: fn(&Weather) -> Direction,
    random: Rng,
}

impl Side {
    /// Until the end of the stream has passed, or either socket failed.
    async fn carry(&mut self, from: &OwnedReadHalf, to: &mut OwnedWriteHalf) {
        let (queue, mut due) = mpsc::channel::<(Instant, Bytes)>(QUEUE_PIECES);
        let weather = self.weather.clone();
        let of = self.of;
        let random = &mut self.random;
        let read = async move {
            let mut buffer = BytesMut::new();
            let mut last = Instant::now();
            loop {
                buffer.reserve(PIECE_BYTES);
                let count = loop {
                    if from.readable().await.is_err() {
                        break 0;
                    }
                    match from.try_read_buf(&mut buffer) {
                        Ok(count) => break count,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => break 0,
                    }
                };
                let direction = of(&weather.borrow());
                let jitter = direction.jitter.as_micros() as u64;
                let jitter = if jitter == 0 { 0 } else { random.below(jitter) };
                last = last.max(Instant::now() + direction.delay + Duration::from_micros(jitter));
                if queue.send((last, buffer.split().freeze())).await.is_err() || count == 0 {
                    break;
                }
            }
        };
        let mut weather = self.weather.clone();
        let write = async move {
            while let Some((at, bytes)) = due.recv().await {
                sleep_until(at).await;
                if write(&bytes, to, &mut weather, of).await.is_err() {
                    break;
                }
                if bytes.is_empty() {
                    // Fails only if the connection is gone altogether.
                    let _ = to.shutdown().await;
                    break;
                }
            }
            // Ends the reading side too: its queue is closed.
            drop(due);
        };
        tokio::join!(read, write);
    }
}

/// Writes a piece through the weather as it is; an empty one ends the stream.
async fn write(
    bytes: &[u8],
    to: &OwnedWriteHalf,
    weather: &mut watch::Receiver<Weather>,
    of: fn(&Weather) -> Direction,
) -> io::Result<()> {
    let mut rest = bytes;
    loop {
        wait_until_open(weather, |weather| of(weather).cut).await?;
        if rest.is_empty() {
            return Ok(());
        }
        let direction = of(&weather.borrow());
        let (chunk, later) =
            rest.split_at(rest.len().min(direction.piece_bytes.unwrap_or(rest.len())));
        let mut chunk = chunk;
        while !chunk.is_empty() {
            to.writable().await?;
            match to.try_write(chunk) {
                Ok(count) => chunk = &chunk[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(rate) = direction.bytes_per_second {
            let written = (rest.len() - later.len()) as u64;
            sleep(Duration::from_micros(1_000_000 * written / rate.max(1))).await;
        }
        rest = later;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(30);
    /// Long enough for what is not held up to arrive on a busy machine.
    const SILENCE: Duration = Duration::from_millis(200);

    fn run(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        runtime.block_on(async { timeout(PATIENCE, test).await.expect("the test ends in time") });
    }

    /// A connection through a proxy: the proxy, the near end and the far end.
    async fn connection() -> (Proxy, TcpStream, TcpStream) {
        let target = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let addr = target.local_addr().expect("it is bound");
        let proxy = Proxy::start(Some(addr), 7).await.expect("a free port");
        let near = TcpStream::connect(proxy.addr).await.expect("the proxy listens");
        let (far, _) = target.accept().await.expect("the proxy connects");
        (proxy, near, far)
    }

    async fn read_exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).await.expect("they come");
        bytes
    }

    #[test]
    fn bytes_pass_unchanged_in_small_pieces_late_and_slowly() {
        run(async {
            let (proxy, mut near, mut far) = connection().await;
            let direction = Direction {
                cut: false,
                delay: Duration::from_millis(2),
                jitter: Duration::from_millis(2),
                piece_bytes: Some(3),
                bytes_per_second: Some(10_000_000),
            };
            proxy.set_weather(Weather { there: direction, back: direction });
            let sent: Vec<u8> = (0..5000_u32).map(|number| number as u8).collect();
            near.write_all(&sent).await.expect("the proxy reads");
            assert_eq!(read_exactly(&mut far, sent.len()).await, sent);
            far.write_all(&sent).await.expect("the proxy reads");
            assert_eq!(read_exactly(&mut near, sent.len()).await, sent);
            drop(near);
            assert_eq!(far.read(&mut [0]).await.expect("an orderly end"), 0);
        });
    }

    #[test]
    fn a_cut_holds_one_direction_up_and_closes_nothing() {
        run(async {
            let (proxy, mut near, mut far) = connection().await;
            let there = Direction { cut: true, ..Direction::default() };
            proxy.set_weather(Weather { there, ..Weather::default() });
            near.write_all(b"held up").await.expect("the proxy reads");
            far.write_all(b"back").await.expect("the proxy reads");
            assert_eq!(read_exactly(&mut near, 4).await, b"back");
            let mut bytes = [0; 7];
            assert!(timeout(SILENCE, far.read(&mut bytes)).await.is_err(), "nothing passes");
            proxy.set_weather(Weather::default());
            assert_eq!(read_exactly(&mut far, 7).await, b"held up");
        });
    }

    #[test]
    fn a_reset_ends_both_ends_and_a_new_connection_passes() {
        run(async {
            let (proxy, mut near, mut far) = connection().await;
            near.write_all(b"x").await.expect("the proxy reads");
            read_exactly(&mut far, 1).await;
            proxy.reset();
            for end in [&mut near, &mut far] {
                let error = end.read(&mut [0]).await.expect_err("a reset is no orderly end");
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
            let target = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
            proxy.set_target(Some(target.local_addr().expect("it is bound")));
            let mut near = TcpStream::connect(proxy.addr).await.expect("the proxy listens");
            let (mut far, _) = target.accept().await.expect("the proxy connects");
            near.write_all(b"y").await.expect("the proxy reads");
            assert_eq!(read_exactly(&mut far, 1).await, b"y");
            assert_eq!(proxy.connections(), 2);
        });
    }

    #[test]
    fn a_proxy_without_a_target_refuses() {
        run(async {
            let proxy = Proxy::start(None, 7).await.expect("a free port");
            let mut near = TcpStream::connect(proxy.addr).await.expect("the proxy listens");
            assert!(near.read(&mut [0]).await.is_err(), "closed without a word");
        });
    }
}
