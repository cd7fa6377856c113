//! Connecting to a secondary and introducing ourselves.
//!
//! A name may have several addresses, and what answers at one of them may be another node, or no
//! node at all: then the next one is tried, within the same attempt. Never are two introductions
//! under way at once: two addresses may lead to the same node, and a HELLO asks for a promise.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::inbox::Introduced;
use super::link::tune;
use super::reader::{IntroductionError, read_hello, refuse};
use crate::codes::RefuseCode;
use crate::config::ClusterConfig;
use crate::connect::{Dial, Stranger, nudge_at, nudged};
use crate::engine::SessionId;
use crate::limits::{INTRODUCTION_TIMEOUT, READ_CHUNK_BYTES};
use crate::node::introduction::cut;
use crate::node::master::DialFailure;
use crate::wire::Message;
use crate::wire::codec::{Hello, Refuse, Role};

/// A connection whose other side takes nothing for so long is cut: as long as it takes to be judged
/// unhealthy, within bounds.
pub(super) fn dead_after(cluster: &ClusterConfig) -> Duration {
    (cluster.heartbeat_interval * cluster.unhealthy_after)
        .clamp(Duration::from_secs(2), Duration::from_secs(60))
}

/// Connects to one of the addresses of `addr` and exchanges HELLOs, all within `dead_after`.
pub(super) async fn connect(
    addr: &str,
    session: SessionId,
    hello: Hello,
    dead_after: Duration,
) -> Result<Box<Introduced>, DialFailure> {
    match Dial::resolve(addr, Instant::now() + dead_after).await {
        Ok(dial) => connect_to(dial, session, hello, dead_after).await,
        Err(failure) => Err(DialFailure::Unreachable(failure.to_string())),
    }
}

/// The same, for a name whose addresses are known.
async fn connect_to(
    mut dial: Dial,
    session: SessionId,
    hello: Hello,
    dead_after: Duration,
) -> Result<Box<Introduced>, DialFailure> {
    let mut failures: Vec<(SocketAddr, DialFailure)> = Vec::new();
    while let Some((addr, stream)) = dial.next().await {
        tune(&stream, dead_after);
        // Nobody needs longer, and after it the peer may close.
        let until = dial.share_ends().min(Instant::now() + INTRODUCTION_TIMEOUT);
        match introduce(stream, addr, session, hello.clone(), until).await {
            Ok(introduced) => return Ok(introduced),
            Err(error) if is_about_the_address(&error) => failures.push((addr, error)),
            Err(error) => return Err(error),
        }
    }
    let unconnected = dial.failures().iter();
    failures.extend(unconnected.map(|(addr, failure)| {
        let failure = DialFailure::Unreachable(failure.to_string());
        (*addr, failure)
    }));
    Err(sum_of(failures))
}

/// Whether another address may lead to the node that is wanted.
fn is_about_the_address(error: &DialFailure) -> bool {
    match error {
        DialFailure::Unreachable(_) => true,
        DialFailure::Refused(refuse) => matches!(
            RefuseCode::from_number(refuse.code),
            Some(RefuseCode::WrongNode | RefuseCode::WrongRole)
        ),
    }
}

/// One error for all addresses. Somebody else at each of them is a refusal, which stays; if one does
/// not answer, the node that is wanted may be there.
fn sum_of(mut failures: Vec<(SocketAddr, DialFailure)>) -> DialFailure {
    if failures.len() == 1 {
        return failures.remove(0).1;
    }
    let mut wrong: Option<(u16, u64)> = None;
    let mut unreachable = false;
    let mut reasons = Vec::new();
    for (addr, failure) in failures {
        match failure {
            DialFailure::Refused(refuse) => {
                wrong.get_or_insert((refuse.code, refuse.epoch));
                reasons.push(format!("{addr}: {}", cut(&refuse.reason)));
            }
            DialFailure::Unreachable(reason) => {
                unreachable = true;
                reasons.push(format!("{addr}: {reason}"));
            }
        }
    }
    let reason = reasons.join("; ");
    match wrong {
        Some((code, epoch)) if !unreachable => DialFailure::Refused(Refuse { code, epoch, reason }),
        _ => DialFailure::Unreachable(reason),
    }
}

/// Exchanges HELLOs on one connection.
async fn introduce(
    stream: TcpStream,
    addr: SocketAddr,
    session: SessionId,
    hello: Hello,
    deadline: Instant,
) -> Result<Box<Introduced>, DialFailure> {
    let (epoch, wanted) = (hello.epoch, hello.peer_id.clone());
    let (mut read, mut write) = stream.into_split();
    let mut buffer = BytesMut::with_capacity(READ_CHUNK_BYTES);
    let frame = Message::Hello(hello).encode().to_bytes();
    let exchange = async {
        if write.write_all(&frame).await.is_err() {
            return Err(IntroductionError::Gone);
        }
        read_hello(&mut read, &mut buffer).await
    };
    let unreachable = |reason: String| Err(DialFailure::Unreachable(reason));
    let (code, reason) = match timeout_at(nudge_at(deadline), exchange).await {
        Err(_) => {
            let said = nudged(tokio::io::join(read, write), deadline).await;
            return unreachable(match Stranger::of(&said) {
                Some(stranger) => stranger.sentence(addr.port()),
                None => {
                    "connected, but no introduction: the node is frozen, or this is not its wire \
                         address"
                        .to_owned()
                }
            });
        }
        Ok(Ok(hello)) if hello.role == Role::Secondary && hello.node_id == wanted => {
            return Ok(Box::new(Introduced { session, hello, read, write, buffer }));
        }
        Ok(Ok(hello)) => {
            let role = match hello.role {
                Role::Master => "master",
                Role::Secondary => "secondary",
                Role::Client => "client",
            };
            let id = cut(&hello.node_id).escape_debug();
            (RefuseCode::WrongNode, format!("this is the {role} {id}, not the secondary {wanted}"))
        }
        Ok(Err(IntroductionError::Refused(refuse))) => return Err(DialFailure::Refused(refuse)),
        // However it says so, which may differ from one attempt to the next: it is one trouble.
        Ok(Err(IntroductionError::Gone)) => {
            return unreachable(
                "connected, but closed before the introduction: the node is stopping, or this is not \
                 its wire address (a TLS port closes so)"
                    .to_owned(),
            );
        }
        Ok(Err(IntroductionError::Refuse(code, reason))) => (code, reason),
    };
    let stranger = Stranger::of(&buffer);
    let error = match (stranger, code) {
        (Some(stranger), _) => DialFailure::Unreachable(stranger.sentence(addr.port())),
        (None, RefuseCode::WrongNode) => {
            DialFailure::Refused(Refuse { code: code.number(), epoch: 0, reason: reason.clone() })
        }
        (None, _) => DialFailure::Unreachable(reason.clone()),
    };
    if stranger.is_none() {
        // Told in a task of its own: whoever sends nonsense may be slow to listen, too.
        tokio::spawn(async move { refuse(read, write, code, epoch, &reason).await });
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::connect::BlackHole;
    use crate::wire::FrameDecoder;

    const PATIENCE: Duration = Duration::from_secs(4);

    /// A HELLO of `id`, as far as dialling looks at it.
    fn hello_of(role: Role, id: &str, peer_id: &str) -> Hello {
        Hello { peer_id: peer_id.to_owned(), epoch: 1, run_id: 7, ..Hello::blank(role, id) }
    }

    /// Answers the first frame of each connection with `answer`, or says nothing. The task gives the
    /// HELLOs that came when all is over.
    async fn answering(answer: Option<Message>) -> (SocketAddr, JoinHandle<Hello>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = stream.into_split();
            let mut buffer = BytesMut::new();
            let hello = match read_hello(&mut read, &mut buffer).await {
                Ok(hello) => hello,
                Err(_) => panic!("the first frame is no HELLO"),
            };
            if let Some(answer) = answer {
                write.write_all(&answer.encode().to_bytes()).await.unwrap();
            }
            // Until the other side closes: what it says last is thrown away.
            let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
            hello
        });
        (addr, serving)
    }

    fn refusal(code: RefuseCode, reason: &str) -> Message {
        Message::Refuse(Refuse { code: code.number(), epoch: 0, reason: reason.to_owned() })
    }

    async fn dial(addrs: &[SocketAddr]) -> Result<Box<Introduced>, DialFailure> {
        let dial = Dial::to(addrs.iter().copied(), Instant::now() + PATIENCE);
        let hello = hello_of(Role::Master, "master", "s1");
        connect_to(dial, SessionId(1), hello, PATIENCE).await
    }

    async fn error_of(addrs: &[SocketAddr]) -> String {
        match dial(addrs).await {
            Ok(introduced) => panic!("{} answered", introduced.hello.node_id),
            Err(DialFailure::Unreachable(reason)) => reason,
            Err(DialFailure::Refused(refuse)) => format!("{}: {}", refuse.code, refuse.reason),
        }
    }

    #[tokio::test]
    async fn the_node_behind_the_second_address_is_found_whoever_is_at_the_first() {
        let firsts = [
            Some(refusal(RefuseCode::WrongNode, "this is s2, not s1")),
            Some(refusal(RefuseCode::WrongRole, "this node is a master")),
            Some(Message::Hello(hello_of(Role::Secondary, "s2", ""))),
            None,
        ];
        for first in firsts {
            let what = format!("{first:?}");
            let (wrong, _serving) = answering(first).await;
            let answer = Message::Hello(hello_of(Role::Secondary, "s1", ""));
            let (right, _serving) = answering(Some(answer)).await;
            let found = dial(&[wrong, right]).await;
            assert!(found.is_ok_and(|found| found.hello.node_id == "s1"), "{what}");
        }
        let swallowing = BlackHole::new().await;
        let answer = Message::Hello(hello_of(Role::Secondary, "s1", ""));
        let (right, _serving) = answering(Some(answer)).await;
        assert!(dial(&[swallowing.addr, right]).await.is_ok());
    }

    /// A HELLO asks for a promise, and two addresses may be one node: the second is asked when the
    /// first one's connection is over.
    #[tokio::test]
    async fn two_introductions_are_never_under_way_at_once() {
        let (silent, first) = answering(None).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addrs = [silent, listener.local_addr().unwrap()];
        let second = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = BytesMut::new();
            let decoder = FrameDecoder { body_bytes_max: 8192 };
            while decoder.decode(&mut buffer).unwrap().is_none() {
                let mut chunk = [0; 1024];
                let count = tokio::io::AsyncReadExt::read(&mut stream, &mut chunk).await.unwrap();
                buffer.extend_from_slice(&chunk[..count]);
            }
            // It ends when we have closed, and gives what was introduced there.
            let hello = first.await.unwrap();
            assert_eq!((hello.peer_id.as_str(), hello.run_id), ("s1", 7));
        };
        let (error, ()) = tokio::join!(error_of(&addrs), second);
        let [first, second] = addrs.map(|addr| addr.to_string());
        assert!(error.contains(&first) && error.contains(&second), "{error}");
    }

    #[tokio::test]
    async fn a_refusal_by_the_node_that_is_wanted_is_the_answer() {
        let (right, _serving) = answering(Some(refusal(RefuseCode::ForeignLog, "other"))).await;
        let (other, _serving) = answering(None).await;
        let code = RefuseCode::ForeignLog.number();
        assert_eq!(error_of(&[right, other]).await, format!("{code}: other"));
    }

    #[tokio::test]
    async fn the_error_names_every_address_and_why() {
        let (wrong, _serving) = answering(Some(refusal(RefuseCode::WrongNode, "this is s2"))).await;
        let (other, _serving) = answering(Some(refusal(RefuseCode::WrongNode, "this is s3"))).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = listener.local_addr().unwrap();
        drop(listener);
        let error = error_of(&[wrong, gone]).await;
        assert!(error.starts_with(&format!("{wrong}: this is s2; {gone}: cannot connect: ")));
        let (wrong, _serving) = answering(Some(refusal(RefuseCode::WrongNode, "this is s2"))).await;
        let code = RefuseCode::WrongNode.number();
        assert_eq!(
            error_of(&[wrong, other]).await,
            format!("{code}: {wrong}: this is s2; {other}: this is s3"),
            "somebody else everywhere: that is a refusal"
        );
    }

    /// Servers that speak in lines wait for the end of one before they answer.
    #[tokio::test]
    async fn a_text_gateway_is_called_by_its_name_though_it_waits_for_the_end_of_a_line() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let gateway = async {
            let (stream, _) = listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            let mut line = Vec::new();
            let mut lines = tokio::io::BufReader::new(read);
            tokio::io::AsyncBufReadExt::read_until(&mut lines, b'\n', &mut line).await.unwrap();
            write.write_all(b"ERR unknown-verb - try HELP\n").await.unwrap();
        };
        let addrs = [addr];
        let (error, ()) = tokio::join!(error_of(&addrs), gateway);
        assert!(error.starts_with("that is the text gateway of a replog node"), "{error}");
    }
}
