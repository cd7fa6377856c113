//! A link that can fail: a TCP proxy inside the test process.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Forwards connections to one target and lets the test spoil them.
pub struct Proxy {
    /// Where to connect instead of the target.
    pub addr: SocketAddr,
    link: Arc<Link>,
}

struct Link {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    cut: bool,
    stopped: bool,
    delay: Duration,
    streams: Vec<TcpStream>,
}

impl Proxy {
    /// A proxy on a free port of `ip` that forwards to `target`.
    pub fn to(ip: IpAddr, target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((ip, 0)).expect("a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let link = Arc::new(Link { target, state: Mutex::default(), changed: Condvar::new() });
        let accepting = Arc::clone(&link);
        thread::spawn(move || accept(&listener, &accepting));
        Proxy { addr, link }
    }

    /// Nothing passes any more, in either direction, and nothing is closed.
    pub fn cut(&self) {
        self.link.change(|state| state.cut = true);
    }

    /// Ends a cut: what was sent meanwhile arrives.
    pub fn heal(&self) {
        self.link.change(|state| state.cut = false);
    }

    /// Everything arrives this much later, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.link.change(|state| state.delay = delay);
    }

    /// Ends every connection there is; new ones are forwarded as before.
    pub fn drop_connections(&self) {
        self.link.change(State::close_streams);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.link.change(|state| {
            state.stopped = true;
            state.close_streams();
        });
        // Wakes the thread that accepts; if it cannot be woken it holds nothing but a port.
        let _ = TcpStream::connect(self.addr);
    }
}

impl State {
    fn close_streams(&mut self) {
        for stream in self.streams.drain(..) {
            // Fails only when the other side was faster.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits while the link is cut; the delay to keep, or nothing when the proxy is gone.
    fn pass(&self) -> Option<Duration> {
        let mut state = self.lock();
        while state.cut && !state.stopped {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.stopped).then_some(state.delay)
    }
}

fn accept(listener: &TcpListener, link: &Arc<Link>) {
    for near in listener.incoming() {
        if link.lock().stopped {
            return;
        }
        let Ok(near) = near else { continue };
        let link = Arc::clone(link);
        // What fails here ends this one connection, as a broken link would.
        thread::spawn(move || forward(near, &link));
    }
}

fn forward(near: TcpStream, link: &Arc<Link>) -> Option<()> {
    link.pass()?;
    let far = TcpStream::connect(link.target).ok()?;
    near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).ok()?;
    let (near_back, far_back) = (near.try_clone().ok()?, far.try_clone().ok()?);
    link.lock().streams.extend([near.try_clone().ok()?, far.try_clone().ok()?]);
    let back = Arc::clone(link);
    thread::spawn(move || pump(far_back, near_back, &back));
    pump(near, far, link);
    Some(())
}

fn pump(mut from: TcpStream, mut to: TcpStream, link: &Link) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        let Some(delay) = link.pass() else { break };
        thread::sleep(delay);
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
