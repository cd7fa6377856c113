//! Taking an address: the sockets behind one door.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::address::Address;

/// The sockets that listen for one door: one, or both of what `localhost` stands for.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: Vec<TcpListener>,
    /// Whose turn is first.
    turn: usize,
}

impl Listeners {
    /// The next connection, by whichever socket it comes.
    ///
    /// # Errors
    /// As [`TcpListener::accept`].
    pub(super) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.turn = self.turn.wrapping_add(1);
        poll_fn(|context| {
            let count = self.sockets.len();
            let in_turn = (0..count).map(|step| &self.sockets[(self.turn + step) % count]);
            for socket in in_turn {
                if let Poll::Ready(accepted) = socket.poll_accept(context) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The address of each socket; the first one is the one to be shown.
    pub(super) fn addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(TcpListener::local_addr).collect()
    }
}

/// Listens on an address. A name that stands for several stands for the first one that can be taken;
/// `localhost` stands for all that this machine has, because a client may try any of them.
///
/// # Errors
/// The name stands for nothing, or an address cannot be taken.
pub(super) async fn listen_on(addr: &str) -> io::Result<Listeners> {
    /// With port 0: so often another port is tried if the first one is free on one address only.
    const TRIES: usize = 16;
    let addr: Address =
        addr.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let found: Vec<SocketAddr> = tokio::net::lookup_host(addr.host_and_port()).await?.collect();
    if !addr.is_localhost() {
        return Ok(Listeners { sockets: vec![first_of(&found)?], turn: 0 });
    }
    let mut tries = 0;
    loop {
        tries += 1;
        match all_of(&found) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && addr.port() == 0
                    && tries < TRIES => {}
            Err(error) => return Err(error),
            Ok(sockets) => return Ok(Listeners { sockets, turn: 0 }),
        }
    }
}

fn first_of(addrs: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut last_error = io::ErrorKind::AddrNotAvailable.into();
    for &addr in addrs {
        match listen(addr) {
            Ok(listener) => return Ok(listener),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// Leaves out what this machine does not have, such as `::1` where IPv6 is switched off.
fn all_of(addrs: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut last_error = io::ErrorKind::AddrNotAvailable.into();
    for &(mut addr) in addrs {
        if let Some(first) = listeners.first() {
            addr.set_port(first.local_addr()?.port());
        }
        let known = |listener: &TcpListener| listener.local_addr().is_ok_and(|known| known == addr);
        if listeners.iter().any(known) {
            continue;
        }
        match listen(addr) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => last_error = error,
        }
    }
    if listeners.is_empty() { Err(last_error) } else { Ok(listeners) }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    /// Connections that wait to be accepted: a burst of strangers must not make a peer wait for its
    /// kernel to try again, which takes a second.
    const BACKLOG: u32 = 1024;
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted node takes its port while connections of its former life still fade.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}
