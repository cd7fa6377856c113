//! Silent nodes: judged by numbers, and met by a client on loopback.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::*;
use crate::client::connection::{Endure, write_some};
use crate::client::fake_node::{FakeNode, Peer};
use crate::client::{
    AppendOptions, Client, CommandError, ConnectFailure, ConnectOptions, ConnectionLost,
    FollowEvent, Follower, LostReason, ReadError, Role, TailStart, WaitOptions,
};
use crate::limits::CLIENT_DEAD_AFTER;
use crate::types::{Level, Seq, Timeout};
use crate::wire::Message;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_node_that_owes_something_is_asked_and_then_called_silent() {
    let start = Instant::now();
    let mut pulse = Pulse::new(5 * SECOND, start);
    let began = start + 100 * SECOND;
    assert!(pulse.owe(began), "it was idle for long, and that is nobody's fault");
    assert_eq!(pulse.judge(began), Finding::Fine(began + 2 * SECOND));
    assert_eq!(pulse.judge(began + 2 * SECOND), Finding::Ask(began + 5 * SECOND));
    assert_eq!(pulse.judge(began + 5 * SECOND), Finding::Silent(5 * SECOND));
    assert!(!pulse.owe(began + 3 * SECOND), "another request is no sign of life");
    assert_eq!(pulse.judge(began + 5 * SECOND), Finding::Silent(5 * SECOND));
    assert_eq!(pulse.fall_silent(), Some(began));
    assert_eq!(pulse.fall_silent(), None, "it is told once");
    assert!(pulse.heard(began + 7 * SECOND), "and its end is told");
    assert_eq!(pulse.judge(began + 8 * SECOND), Finding::Fine(began + 9 * SECOND));
}

#[test]
fn who_does_not_listen_hears_no_silence() {
    let start = Instant::now();
    let mut pulse = Pulse::new(5 * SECOND, start);
    pulse.owe(start);
    pulse.set_deaf(true, start);
    assert!(matches!(pulse.judge(start + 60 * SECOND), Finding::Fine(_)));
    pulse.set_deaf(false, start + 60 * SECOND);
    assert!(matches!(pulse.judge(start + 61 * SECOND), Finding::Fine(_)));
    assert!(matches!(pulse.judge(start + 65 * SECOND), Finding::Silent(_)));
}

/// Our process was stopped, or our machine slept: what came meanwhile has not been read.
#[test]
fn who_was_away_begins_to_listen_anew() {
    let start = Instant::now();
    let mut pulse = Pulse::new(5 * SECOND, start);
    let mut timeouts = Timeouts::default();
    pulse.owe(start);
    timeouts.sent(SECOND, 1, start);
    let back = start + 60 * SECOND;
    pulse.excuse(back);
    timeouts.excuse(back);
    assert_eq!(pulse.judge(back), Finding::Fine(back + 2 * SECOND));
    assert_eq!(pulse.judge(back + 5 * SECOND), Finding::Silent(5 * SECOND));
    let patience = SECOND + ANSWER_MARGIN;
    assert_eq!(timeouts.due(), Some((back + patience, patience)));
    pulse.fall_silent();
    pulse.excuse(back + 60 * SECOND);
    assert!(pulse.silence().is_some(), "it does not end a silence: only the node can");
}

#[tokio::test]
async fn any_patience_can_be_asked_for() {
    let start = Instant::now();
    let longest = Pulse::new(Duration::MAX, start);
    assert!(matches!(longest.judge(start + 3600 * SECOND), Finding::Fine(_)));
    assert!(matches!(Pulse::new(Duration::ZERO, start).judge(start), Finding::Fine(_)));
    let node = FakeNode::master().await;
    let options = ConnectOptions { timeout: Duration::MAX, ..ConnectOptions::default() };
    let addrs = [node.addr()];
    let (client, _peer) = tokio::join!(Client::connect(&addrs, options), node.accept());
    assert!(client.is_ok());
}

#[test]
fn an_answer_is_overdue_a_margin_after_its_timeout() {
    let start = Instant::now();
    let mut timeouts = Timeouts::default();
    assert_eq!(timeouts.due(), None);
    timeouts.sent(10 * SECOND, 1, start);
    timeouts.sent(SECOND, 2, start + SECOND);
    timeouts.sent(SECOND, 1, start + 2 * SECOND);
    let patience = SECOND + ANSWER_MARGIN;
    assert_eq!(timeouts.due(), Some((start + SECOND + patience, patience)));
    timeouts.answered(SECOND, 1, start + 3 * SECOND);
    assert_eq!(timeouts.due(), Some((start + 3 * SECOND + patience, patience)));
    timeouts.answered(SECOND, 2, start + 4 * SECOND);
    let patience = 10 * SECOND + ANSWER_MARGIN;
    assert_eq!(timeouts.due(), Some((start + patience, patience)));
    // What is being sent counts from when the socket last took a part of it.
    timeouts.sending(Some(SECOND), start + 5 * SECOND);
    let earlier = SECOND + ANSWER_MARGIN;
    assert_eq!(timeouts.due(), Some((start + 5 * SECOND + earlier, earlier)));
    timeouts.sending(None, start + 6 * SECOND);
    timeouts.sent(Duration::MAX, 1, start);
    assert_eq!(timeouts.due(), Some((start + patience, patience)), "that one has no end");
}

/// Writes into a pipe, and remembers what it was told about the system's patience.
struct Remembering {
    pipe: tokio::io::DuplexStream,
    told: Arc<Mutex<Vec<Option<Duration>>>>,
}

impl AsyncWrite for Remembering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}

impl Endure for Remembering {
    fn endure(&self, dead_after: Option<Duration>) {
        self.told.lock().unwrap().push(dead_after);
    }
}

/// The kernel does not tell a node that is slow to read from one that is gone, and would cut both.
#[tokio::test]
async fn a_node_that_reads_nothing_for_a_while_is_not_cut_for_it() {
    let (pipe, mut far) = tokio::io::duplex(8);
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut writer = Remembering { pipe, told: told.clone() };
    let write = async |writer: &mut Remembering| {
        write_some(writer, &[std::io::IoSlice::new(b"12345678")]).await.unwrap()
    };
    assert_eq!(write(&mut writer).await, 8);
    assert_eq!(*told.lock().unwrap(), [], "nothing was slow");
    let read = async {
        while told.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut chunk = [0; 8];
        tokio::io::AsyncReadExt::read_exact(&mut far, &mut chunk).await.unwrap();
    };
    let (written, ()) = tokio::join!(write(&mut writer), read);
    assert_eq!(written, 8);
    assert_eq!(*told.lock().unwrap(), [None, Some(CLIENT_DEAD_AFTER)]);
}

// ---- against a node that does what a test says ----

const SILENT_AFTER: Duration = Duration::from_millis(500);

fn options() -> ConnectOptions {
    ConnectOptions { silent_after: SILENT_AFTER, ..ConnectOptions::default() }
}

async fn pair() -> (Client, Peer) {
    let node = FakeNode::master().await;
    let addrs = [node.addr()];
    let (client, peer) = tokio::join!(Client::connect(&addrs, options()), node.accept());
    (client.unwrap(), peer)
}

fn is_silent(lost: &ConnectionLost) -> bool {
    lost.sent && matches!(lost.reason, LostReason::Silent(_))
}

#[tokio::test]
async fn a_command_to_a_frozen_node_ends_after_a_ping_in_vain() {
    let (client, mut peer) = pair().await;
    let frozen = async {
        assert_eq!(peer.recv_command().await.1, "STATUS");
        assert_eq!(peer.recv_command().await.1, "PING");
        peer.recv().await
    };
    let (reply, rest) = tokio::join!(client.command("STATUS"), frozen);
    assert!(matches!(&reply, Err(CommandError::Lost(lost)) if is_silent(lost)), "{reply:?}");
    assert_eq!(rest, None, "the connection is closed, and nothing else was asked");
}

#[tokio::test]
async fn a_node_that_answers_pings_may_take_its_time() {
    let (client, mut peer) = pair().await;
    let slow = async {
        let (id, _) = peer.recv_command().await;
        let until = Instant::now() + 4 * SILENT_AFTER;
        while Instant::now() < until {
            let (ping, line) = peer.recv_command().await;
            assert_eq!(line, "PING");
            peer.send_reply(ping, true, b"PONG\n").await;
        }
        peer.send_reply(id, true, b"OK\n").await;
    };
    let (reply, ()) = tokio::join!(client.command("DIGEST"), slow);
    assert_eq!(reply.unwrap(), "OK\n");
}

#[tokio::test]
async fn a_node_that_owes_nothing_is_left_in_peace() {
    let (client, mut peer) = pair().await;
    let idle = tokio::time::timeout(3 * SILENT_AFTER, peer.recv()).await;
    assert!(idle.is_err(), "{idle:?} came though nothing was asked");
    let answer = async {
        let (id, line) = peer.recv_command().await;
        assert_eq!(line, "HEALTH");
        peer.send_reply(id, true, b"OK\n").await;
    };
    let (reply, ()) = tokio::join!(client.command("HEALTH"), answer);
    assert_eq!(reply.unwrap(), "OK\n");
}

#[tokio::test]
async fn a_tail_ends_with_a_node_that_freezes_between_two_entries_or_within_one() {
    for begun in [&b""[..], b"RL\x01\x31\0\0"] {
        let (client, mut peer) = pair().await;
        let mut tail = client.tail(TailStart::New, Level::Local).await.unwrap();
        let Some(Message::TailRequest(request)) = peer.recv().await else { panic!("no tail") };
        peer.send_entries(request.id, 1, &[b"one"], (2, false)).await;
        assert!(!tail.next_batch().await.unwrap().unwrap().is_empty());
        peer.send_bytes(begun).await;
        match tail.next_batch().await {
            Err(ReadError::Lost(lost)) => assert!(is_silent(&lost), "{lost}"),
            other => panic!("{other:?} instead of silence"),
        }
    }
}

/// Whoever asked reads nothing for a while, which fills the way to it.
#[tokio::test]
async fn a_client_that_does_not_read_blames_nobody() {
    let (client, mut peer) = pair().await;
    let mut entries = client.read(Seq::FIRST, None, Level::Local).await.unwrap();
    let Some(Message::ReadRequest(request)) = peer.recv().await else { panic!("no read") };
    let count = 2 * crate::client::connection::PIECES_MAX as u64;
    for seq in 1..=count {
        peer.send_entries(request.id, seq, &[b"x"], (count + 1, seq == count)).await;
    }
    tokio::time::sleep(3 * SILENT_AFTER).await;
    let mut found = 0;
    while let Some(batch) = entries.next_batch().await.unwrap() {
        found += batch.range().len();
    }
    assert_eq!(found, count);
}

/// Nobody can tell what became of it, so that it is waited for; everything else ends.
#[tokio::test]
async fn an_append_without_timeout_outlasts_the_silence_of_its_node() {
    let (client, mut peer) = pair().await;
    let mut silence = client.silence();
    let append = client.append("x".into(), AppendOptions::default()).await.unwrap();
    let mut tail = client.tail(TailStart::New, Level::Local).await.unwrap();
    let wait = client.wait(Seq::FIRST, WaitOptions::default());
    let (told, waited) = tokio::join!(silence.changed(), wait);
    assert!(told.is_some() && silence.lasting().is_some());
    assert!(is_silent(&waited.unwrap_err()));
    let ended = tail.next_batch().await;
    assert!(matches!(&ended, Err(ReadError::Lost(lost)) if is_silent(lost)), "{ended:?}");
    let late = client.command("STATUS").await;
    assert!(matches!(&late, Err(CommandError::Lost(lost)) if is_silent(lost)), "{late:?}");
    assert_eq!(client.lost(), None, "the append is waited for");

    // It goes on, and answers everything that it was asked.
    let (head, _) = peer.recv_append().await;
    let Some(Message::TailRequest(tail)) = peer.recv().await else { panic!("no tail") };
    let Some(Message::WaitRequest(wait)) = peer.recv().await else { panic!("no wait") };
    peer.send_entries(tail.id, 1, &[b"one"], (2, false)).await;
    peer.send_ok(wait.id, 1, 1).await;
    peer.send_ok(head.id, 1, 7).await;
    assert_eq!(append.await.unwrap().placed().unwrap().seq, Seq::new(7));
    assert_eq!((silence.changed().await, silence.lasting()), (None, None));
    let answer = async {
        loop {
            match peer.recv().await {
                Some(Message::Command(head, line)) if line == "HEALTH" => {
                    return peer.send_reply(head.id, true, b"OK\n").await;
                }
                // What was asked while it was frozen, and that the tail is not wanted any more.
                Some(Message::Command(head, _)) => peer.send_reply(head.id, true, b"PONG\n").await,
                Some(Message::Cancel(_)) => {}
                other => panic!("{other:?} instead of a command"),
            }
        }
    };
    let (reply, ()) = tokio::join!(client.command("HEALTH"), answer);
    assert_eq!(reply.unwrap(), "OK\n");
}

#[tokio::test]
async fn an_append_that_was_sent_is_unknown_a_margin_after_its_timeout() {
    let (client, mut peer) = pair().await;
    let timeout = Duration::from_millis(100);
    let options = AppendOptions { timeout: Some(Timeout::For(timeout)), ..Default::default() };
    let begun = Instant::now();
    let append = client.append("x".into(), options).await.unwrap();
    // It answers PINGs, and everything but the append.
    let alive = async {
        peer.recv_append().await;
        while let Some(message) = peer.recv().await {
            let Message::Command(head, _) = message else { panic!("{message:?} came") };
            peer.send_reply(head.id, true, b"PONG\n").await;
        }
    };
    let (answer, ()) = tokio::join!(append, alive);
    let lost = answer.unwrap_err();
    assert!(lost.maybe_applied() && matches!(lost.reason, LostReason::Overdue(_)), "{lost}");
    assert!(begun.elapsed() >= timeout + ANSWER_MARGIN, "after {:?}", begun.elapsed());
}

/// The socket takes a part of them only: what was not sent may be sent to somebody else.
#[tokio::test]
async fn of_a_stream_of_appends_to_a_frozen_node_the_unsent_ones_come_back() {
    let (client, peer) = pair().await;
    let timeout = Some(Timeout::For(Duration::ZERO));
    let options = AppendOptions { timeout, ..Default::default() };
    let (mut appender, mut outcomes) = client.appender(options, 1_000_000);
    let payload = vec![b'x'; 200_000];
    let feed = async move {
        let mut pushed = 0;
        while appender.push(&payload).await.is_ok() {
            pushed += 1;
        }
        pushed
    };
    let collect = async {
        let (mut sent, mut unsent) = (0, 0);
        while let Some(item) = outcomes.next().await {
            let lost = item.outcome.unwrap_err();
            assert!(matches!(lost.reason, LostReason::Overdue(_)), "{lost}");
            *(if lost.sent { &mut sent } else { &mut unsent }) += item.count;
        }
        (sent, unsent)
    };
    let (pushed, (sent, unsent)) = tokio::join!(feed, collect);
    assert!(sent > 0 && unsent > 0 && sent + unsent == pushed, "{sent} + {unsent} of {pushed}");
    assert_eq!(outcomes.take_unsent().len() as u64, unsent);
    drop(peer);
}

/// The socket takes only a part of it: the node can do nothing with that.
#[tokio::test]
async fn an_entry_that_a_frozen_node_took_in_part_was_not_sent_and_is_given_up_all_the_same() {
    let (client, peer) = pair().await;
    let timeout = Some(Timeout::For(Duration::ZERO));
    let options = AppendOptions { timeout, ..Default::default() };
    let payload = vec![b'x'; 16 << 20];
    let append = client.append(payload.into(), options).await.unwrap();
    let lost = append.await.unwrap_err();
    assert!(!lost.maybe_applied() && matches!(lost.reason, LostReason::Overdue(_)), "{lost}");
    drop(peer);
}

#[tokio::test]
async fn a_node_frozen_before_or_within_its_introduction_costs_a_share_of_the_time() {
    for introduced in [0, 9] {
        let (frozen, healthy) = (FakeNode::master().await, FakeNode::master().await);
        let addrs = [frozen.addr(), healthy.addr()];
        let freeze = async {
            let mut peer = frozen.accept_silently().await;
            let hello = Message::Hello(frozen.hello.clone()).encode().to_bytes();
            peer.send_bytes(&hello[..introduced]).await;
            peer
        };
        let connect = Client::connect(&addrs, options());
        let (client, _healthy, _frozen) = tokio::join!(connect, healthy.accept(), freeze);
        let client = client.unwrap();
        assert_eq!(client.addr(), healthy.addr());
        match client.unreached() {
            [(addr, ConnectFailure::Overtaken(_))] => assert_eq!(*addr, frozen.addr()),
            other => panic!("{other:?} instead of the frozen one"),
        }
    }
}

#[tokio::test]
async fn the_master_is_looked_for_beside_a_frozen_server() {
    let (frozen, master) = (FakeNode::master().await, FakeNode::master().await);
    let mut secondary = FakeNode::master().await;
    secondary.hello.role = Role::Secondary;
    secondary.hello.node_id = "s1".to_owned();
    secondary.hello.master_addr = master.addr();
    let addrs = [frozen.addr(), secondary.addr()];
    let connect = Client::connect_to_master(&addrs, options());
    let accepting = async { tokio::join!(secondary.accept(), master.accept()) };
    let (client, _peers) = tokio::join!(connect, accepting);
    assert_eq!(client.unwrap().addr(), master.addr());

    // It says that the frozen one is the master: it is given its time, and named.
    secondary.hello.master_addr = frozen.addr();
    let options = ConnectOptions { timeout: Duration::from_secs(2), ..options() };
    let connect = Client::connect_to_master(&addrs, options);
    let (client, _peer) = tokio::join!(connect, secondary.accept());
    let client = client.unwrap();
    assert_eq!(client.node_id(), "s1", "what it says of an append is the answer");
    match client.unreached() {
        [(addr, ConnectFailure::NotIntroduced(_))] => assert_eq!(*addr, frozen.addr()),
        other => panic!("{other:?} instead of the frozen one"),
    }
}

async fn next_event(follower: &mut Follower) -> FollowEvent {
    loop {
        match follower.next_event().await.unwrap() {
            FollowEvent::Entries(batch) if batch.is_empty() => {}
            event => return event,
        }
    }
}

fn payloads(event: &FollowEvent) -> Vec<Bytes> {
    match event {
        FollowEvent::Entries(batch) => {
            batch.records().map(|record| record.unwrap().payload).collect()
        }
        other => panic!("{other:?} instead of entries"),
    }
}

/// No entry is lost and none comes twice, though the first server freezes behind one of them.
#[tokio::test]
async fn a_follower_leaves_a_frozen_server_for_the_next_and_comes_back() {
    let servers = [FakeNode::master().await, FakeNode::master().await];
    let addrs = [servers[0].addr(), servers[1].addr()];
    let start = Follower::start(addrs, options(), TailStart::From(Seq::FIRST), Level::Local);
    let (follower, mut first) = tokio::join!(start, servers[0].accept());
    let mut follower = follower.unwrap();
    let Some(Message::TailRequest(request)) = first.recv().await else { panic!("no tail") };
    first.send_entries(request.id, 1, &[b"one"], (2, false)).await;
    assert_eq!(payloads(&next_event(&mut follower).await), ["one"]);
    match next_event(&mut follower).await {
        FollowEvent::Lost(lost) => assert!(is_silent(&lost), "{lost}"),
        other => panic!("{other:?} instead of silence"),
    }
    // The second one is not kept waiting for the first.
    let (event, mut second) = tokio::join!(next_event(&mut follower), servers[1].accept());
    assert!(matches!(event, FollowEvent::Resumed(_)), "{event:?}");
    second.chain = first.chain;
    let Some(Message::TailRequest(request)) = second.recv().await else { panic!("no tail") };
    second.send_entries(request.id, 2, &[b"two"], (3, false)).await;
    assert_eq!(payloads(&next_event(&mut follower).await), ["two"]);
    let chain = second.chain;
    let [again, gone] = servers;
    drop((second, gone, first));
    assert!(matches!(next_event(&mut follower).await, FollowEvent::Lost(_)));
    let back = async {
        // What the follower closed while it was frozen.
        let mut peer = again.accept().await;
        peer.chain = chain;
        let Some(Message::TailRequest(request)) = peer.recv().await else { panic!("no tail") };
        peer.send_entries(request.id, 3, &[b"three"], (4, false)).await;
        peer
    };
    let follow = async {
        loop {
            match next_event(&mut follower).await {
                FollowEvent::Entries(batch) => return payloads(&FollowEvent::Entries(batch)),
                FollowEvent::Resumed(_) | FollowEvent::Unreachable(_) => {}
                other => panic!("{other:?} instead of entries"),
            }
        }
    };
    let (entries, _peer) = tokio::join!(follow, back);
    assert_eq!(entries, ["three"]);
}

/// It lets everybody in, and out.
#[tokio::test]
async fn a_server_that_closes_at_once_is_said_to_do_so() {
    let node = FakeNode::master().await;
    let addrs = [node.addr()];
    let connect = Client::connect(&addrs, options());
    let (client, ()) = tokio::join!(connect, async { drop(node.accept_silently().await) });
    let attempts = client.unwrap_err().attempts;
    assert!(matches!(&attempts[..], [(_, ConnectFailure::Closed(_))]), "{attempts:?}");
}
