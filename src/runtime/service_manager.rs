//! Telling a service manager (systemd, `Type=notify`) that the process is ready, or stops: a datagram
//! to the socket that `NOTIFY_SOCKET` names, as sd_notify(3) describes it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::warn;

/// The node, or all nodes of the process, accept connections.
pub(super) fn ready() {
    tell("READY=1");
}

/// A stop was asked for.
pub(super) fn stopping() {
    tell("STOPPING=1");
}

/// Nobody who is not there is told, and nobody who is there is waited for.
fn tell(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        warn!(%error, state, socket = %socket.display(), "the service manager was not told");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(state.as_bytes(), &address(socket)?).map(drop)
}

/// A name that begins with `@` is one of the abstract names that Linux has beside the paths.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(socket)
}
