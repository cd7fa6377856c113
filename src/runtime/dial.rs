//! Connecting to a secondary and introducing ourselves.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::inbox::{DialError, Introduced};
use super::link::tune;
use super::reader::{IntroductionError, read_hello, refuse};
use crate::config::ClusterConfig;
use crate::engine::SessionId;
use crate::limits::READ_CHUNK_BYTES;
use crate::wire::Message;
use crate::wire::codec::Hello;

/// A connection whose other side takes nothing for so long is cut: as long as it takes to be judged
/// unhealthy, within bounds.
pub(super) fn dead_after(cluster: &ClusterConfig) -> Duration {
    (cluster.heartbeat_interval * cluster.unhealthy_after)
        .clamp(Duration::from_secs(2), Duration::from_secs(60))
}

/// Connects and exchanges HELLOs, all within `dead_after`.
pub(super) async fn connect(
    addr: &str,
    session: SessionId,
    hello: Hello,
    dead_after: Duration,
) -> Result<Box<Introduced>, DialError> {
    let unreachable = |error: &dyn std::fmt::Display| DialError::Unreachable(error.to_string());
    let epoch = hello.epoch;
    let dial = async {
        let stream = TcpStream::connect(addr).await.map_err(|error| unreachable(&error))?;
        tune(&stream, dead_after);
        let (mut read, mut write) = stream.into_split();
        let frame = Message::Hello(hello).encode().to_bytes();
        write.write_all(&frame).await.map_err(|error| unreachable(&error))?;
        let mut buffer = BytesMut::with_capacity(READ_CHUNK_BYTES);
        match read_hello(&mut read, &mut buffer).await {
            Ok(hello) => Ok(Box::new(Introduced { session, hello, read, write, buffer })),
            Err(IntroductionError::Refused(refuse)) => Err(DialError::Refused(refuse)),
            Err(IntroductionError::Gone(reason)) => Err(DialError::Unreachable(reason)),
            Err(IntroductionError::Refuse(code, reason)) => {
                // Told in a task of its own: whoever sends nonsense may be slow to listen, too.
                let (epoch, told) = (epoch, reason.clone());
                tokio::spawn(async move { refuse(read, write, code, epoch, &told).await });
                Err(DialError::Unreachable(reason))
            }
        }
    };
    let late = DialError::Unreachable("no answer to the introduction".to_owned());
    timeout(dead_after, dial).await.unwrap_or(Err(late))
}
