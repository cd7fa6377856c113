//! The client library against a fake node on loopback.

use std::time::Duration;

use bytes::Bytes;

use super::fake_node::{FakeNode, Peer};
use super::*;
use crate::codes::{Class, Code, RefuseCode};
use crate::types::{Level, Seq};
use crate::wire::Message;
use crate::wire::codec::{
    self, AppendReply, ReadLevel, Refuse, RequestRefused, TailStart as WireTailStart,
};

async fn connected(node: &FakeNode) -> (Client, Peer) {
    let addrs = [node.addr()];
    let client = Client::connect(&addrs, ConnectOptions::default());
    let (client, peer) = tokio::join!(client, node.accept());
    (client.unwrap(), peer)
}

async fn pair() -> (Client, Peer) {
    connected(&FakeNode::master().await).await
}

async fn pushed(appender: &mut Appender, payloads: &[&str]) {
    for payload in payloads {
        appender.push(payload.as_bytes()).await.unwrap();
    }
}

fn seq_of(answered: &Answered) -> u64 {
    answered.outcome.as_ref().unwrap().placed().unwrap().seq.number()
}

#[tokio::test]
async fn the_introduction_tells_who_is_there() {
    let node = FakeNode::master().await;
    let (client, _peer) = connected(&node).await;
    assert_eq!((client.node_id(), client.role()), ("master", Role::Master));
    let roster: Vec<&str> = client.roster().iter().map(NodeId::as_str).collect();
    assert_eq!(roster, ["master", "s1", "s2"]);
    assert_eq!(client.payload_max(), 1 << 20);
    assert_eq!(client.master_addr(), Some(node.addr().as_str()));
    assert_eq!(client.log_id(), Some(LogId::new([7; 16])));
}

#[tokio::test]
async fn every_address_is_tried_and_named_if_none_answers() {
    let refusing = FakeNode::master().await;
    let silent = FakeNode::master().await;
    let foreign = FakeNode::master().await;
    let web = FakeNode::master().await;
    let addrs = [refusing.addr(), silent.addr(), foreign.addr(), web.addr()];
    let options = ConnectOptions { timeout: Duration::from_secs(1), ..ConnectOptions::default() };
    let refuse = async {
        let mut peer = refusing.accept_silently().await;
        let (code, reason) = (RefuseCode::Busy.number(), "connections=1024".to_owned());
        peer.send(Message::Refuse(Refuse { code, epoch: 1, reason })).await;
        let silent = silent.accept_silently().await;
        foreign.accept_silently().await.send_bytes(b"220 mail.example ESMTP").await;
        web.accept_silently().await.send_bytes(b"HTTP/1.1 400").await;
        silent
    };
    let (result, _silent) = tokio::join!(Client::connect(&addrs, options), refuse);
    let error = result.unwrap_err();
    let failure = |addr: &String| &error.attempts.iter().find(|(at, _)| at == addr).unwrap().1;
    assert_eq!(error.attempts.len(), 4, "{error}");
    assert!(matches!(failure(&addrs[0]), ConnectFailure::Refused(refused)
        if refused.code == RefuseCode::Busy.number()));
    assert!(matches!(failure(&addrs[1]), ConnectFailure::NotIntroduced(_)), "{error}");
    assert!(matches!(failure(&addrs[2]), ConnectFailure::Protocol(_)), "{error}");
    assert!(matches!(failure(&addrs[3]), ConnectFailure::WrongPort(_)), "{error}");
}

#[tokio::test]
async fn the_next_address_is_used_if_the_first_does_not_answer() {
    let gone = FakeNode::master().await.addr();
    let node = FakeNode::master().await;
    let addrs = [gone, node.addr()];
    let client = Client::connect(&addrs, ConnectOptions::default());
    let (client, _peer) = tokio::join!(client, node.accept());
    assert_eq!(client.unwrap().addr(), node.addr());
}

#[tokio::test]
async fn appends_on_their_way_share_frames_and_get_their_own_answers() {
    let (client, mut peer) = pair().await;
    let options = AppendOptions { concern: Some("2".parse().unwrap()), ..Default::default() };
    let first = client.append("a".into(), options.clone()).await.unwrap();
    let second = client.append("b".into(), options).await.unwrap();
    let third = client.append("c".into(), AppendOptions::default()).await.unwrap();

    let (head, payloads) = peer.recv_append().await;
    assert_eq!((head.count, head.concern), (2, codec::Concern::Nodes(2)));
    assert_eq!(payloads, ["a", "b"]);
    let (other, _) = peer.recv_append().await;
    assert_eq!((other.id, other.concern), (head.id + 2, codec::Concern::Default));

    peer.send_ok(other.id, 1, 9).await;
    let refusal = codec::Refusal { code: Code::ReadOnly.number(), detail: "present=1".to_owned() };
    let outcome = codec::Outcome::Refused(refusal);
    peer.send(Message::AppendReply(AppendReply { id: head.id, count: 2, outcome })).await;
    assert_eq!(third.await.unwrap().placed().unwrap().seq, Seq::new(9));
    for handle in [first, second] {
        assert_eq!(handle.await.unwrap().class(), Class::Rejected);
    }
}

#[tokio::test]
async fn a_stream_of_appends_leaves_in_runs_and_is_answered_in_order() {
    let (client, mut peer) = pair().await;
    let (mut appender, mut outcomes) = client.appender(AppendOptions::default(), 100_000);
    for number in 0..10_000 {
        appender.push(number.to_string().as_bytes()).await.unwrap();
    }
    drop(appender);
    let mut runs = Vec::new();
    let mut count = 0;
    while count < 10_000 {
        let (head, payloads) = peer.recv_append().await;
        assert_eq!(payloads[0], count.to_string());
        count += head.count;
        runs.push(head);
    }
    assert_eq!(runs.iter().map(|run| run.count).collect::<Vec<_>>(), [4096, 4096, 1808]);
    // The last first, then one answer that spans the others.
    let first_id = runs[0].id;
    peer.send_ok(first_id + 9_000, 1_000, 9_001).await;
    peer.send_ok(first_id, 9_000, 1).await;
    let mut answered = 0;
    while let Some(item) = outcomes.next().await {
        assert_eq!((item.first, seq_of(&item)), (answered, answered + 1));
        answered += item.count;
    }
    assert_eq!(answered, 10_000);
}

#[tokio::test]
async fn no_more_entries_are_in_flight_than_allowed() {
    let (client, mut peer) = pair().await;
    let (mut appender, mut outcomes) = client.appender(AppendOptions::default(), 2);
    pushed(&mut appender, &["a", "b"]).await;
    let (head, _) = peer.recv_append().await;
    let third = appender.push(b"c");
    tokio::pin!(third);
    let early = tokio::time::timeout(Duration::from_millis(20), &mut third).await;
    assert!(early.is_err(), "a third entry was taken");
    peer.send_ok(head.id, 1, 1).await;
    assert_eq!(outcomes.next().await.unwrap().count, 1);
    third.await.unwrap();
    assert_eq!(peer.recv_append().await.1, ["c"]);
}

#[tokio::test]
async fn an_entry_that_no_frame_can_carry_is_refused_in_its_place() {
    let mut node = FakeNode::master().await;
    node.hello.frame_bytes_max = 64 << 10;
    let (client, mut peer) = connected(&node).await;
    let (mut appender, mut outcomes) = client.appender(AppendOptions::default(), 10);
    let long = "x".repeat(64 << 10);
    pushed(&mut appender, &["a", &long, "b"]).await;
    drop(appender);
    let (first, _) = peer.recv_append().await;
    let (second, payloads) = peer.recv_append().await;
    assert_eq!((first.count, second.id), (1, first.id + 1));
    assert_eq!(payloads, ["b"]);
    peer.send_ok(first.id, 2, 1).await;
    let mut classes = Vec::new();
    while let Some(item) = outcomes.next().await {
        classes.push((item.first, item.count, item.outcome.unwrap().class()));
    }
    let expected = [(0, 1, Class::Ok), (1, 1, Class::Rejected), (2, 1, Class::Ok)];
    assert_eq!(classes, expected);
}

#[tokio::test]
async fn a_lost_connection_tells_what_was_sent_and_gives_the_rest_back() {
    let (client, mut peer) = pair().await;
    let (mut appender, mut outcomes) = client.appender(AppendOptions::default(), 1_000_000);
    // More than the sockets hold, so that something stays behind.
    let payload = vec![b'x'; 100_000];
    let feed = async move {
        let mut pushed = 0_u64;
        while appender.push(&payload).await.is_ok() {
            pushed += 1;
        }
        pushed
    };
    let close = async {
        let (head, _) = peer.recv_append().await;
        peer.send_ok(head.id, 1, 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(peer);
    };
    let collect = async {
        let (mut answered, mut sent, mut unsent) = (0, 0, 0);
        while let Some(item) = outcomes.next().await {
            match item.outcome {
                Ok(_) => answered += item.count,
                Err(lost) if lost.sent => {
                    assert_eq!(unsent, 0, "sent entries stand before unsent ones");
                    sent += item.count;
                }
                Err(_) => unsent += item.count,
            }
        }
        (answered, sent, unsent)
    };
    let (pushed, (), (answered, sent, unsent)) = tokio::join!(feed, close, collect);
    assert_eq!(answered + sent + unsent, pushed);
    assert!(answered <= 1 && sent > 0 && unsent > 0, "{answered} {sent} {unsent}");
    let given_back = outcomes.take_unsent();
    assert_eq!(given_back.len() as u64, unsent);
    assert!(given_back.iter().all(|entry| entry.len() == 100_000));
    let late = client.append("x".into(), AppendOptions::default()).await;
    assert!(late.is_err_and(|lost| !lost.maybe_applied()));
}

#[tokio::test]
async fn a_connection_lost_while_nothing_is_under_way_ends_the_outcomes() {
    let (client, peer) = pair().await;
    let (_appender, mut outcomes) = client.appender(AppendOptions::default(), 10);
    drop(peer);
    assert_eq!(outcomes.next().await, None);
    assert_eq!(client.lost(), Some(LostReason::Closed));
}

#[tokio::test]
async fn what_a_stopping_node_still_answers_is_heard() {
    let (client, mut peer) = pair().await;
    let handle = client.append("a".into(), AppendOptions::default()).await.unwrap();
    let (head, _) = peer.recv_append().await;
    peer.send_ok(head.id, 1, 1).await;
    let (code, reason) = (RefuseCode::Stopping.number(), "stopping".to_owned());
    peer.send(Message::Refuse(Refuse { code, epoch: 1, reason })).await;
    drop(peer);
    assert_eq!(handle.await.unwrap().class(), Class::Ok);
    let lost = client.command("PING").await.unwrap_err();
    assert!(lost.to_string().contains("stopping"), "{lost}");
}

#[tokio::test]
async fn a_node_that_breaks_the_protocol_is_left() {
    let ok = |id, count| {
        let placed = codec::Placed { seq: 1, epoch: 1, need: 1, holders: 1 };
        let reply = AppendReply { id, count, outcome: codec::Outcome::Ok(placed) };
        Message::AppendReply(reply).encode().to_bytes()
    };
    let entries = codec::EntriesHead { id: 1, first: 1, count: 0, next: 1, commit: 0, end: true };
    let cases: [(&str, Bytes); 6] = [
        ("an answer to no request", ok(99, 1)),
        ("an answer for nothing", ok(1, 0)),
        ("an answer to more than was asked", ok(1, 2)),
        ("an answer at the end of the numbers", ok(u64::MAX, 2)),
        ("entries for an append", Message::Entries(entries, Bytes::new()).encode().to_bytes()),
        ("no frame", Bytes::from_static(b"RLxx")),
    ];
    for (what, bytes) in cases {
        let (client, mut peer) = pair().await;
        let handle = client.append("a".into(), AppendOptions::default()).await.unwrap();
        assert_eq!(peer.recv_append().await.0.id, 1);
        peer.send_bytes(&bytes).await;
        match client.command("PING").await {
            Err(CommandError::Lost(lost)) => {
                assert!(matches!(lost.reason, LostReason::Protocol(_)), "{what}: {lost}");
            }
            other => panic!("{what}: {other:?}"),
        }
        drop(handle);
    }
}

#[tokio::test]
async fn an_entry_answered_twice_ends_the_connection() {
    let (client, mut peer) = pair().await;
    let (mut appender, mut outcomes) = client.appender(AppendOptions::default(), 10);
    pushed(&mut appender, &["a", "b", "c"]).await;
    let (head, _) = peer.recv_append().await;
    peer.send_ok(head.id + 1, 1, 2).await;
    peer.send_ok(head.id + 1, 1, 2).await;
    let first = outcomes.next().await.unwrap();
    let lost = first.outcome.unwrap_err();
    assert!(lost.sent && matches!(lost.reason, LostReason::Protocol(_)), "{lost}");
}

#[tokio::test]
async fn a_read_gives_batches_to_its_end() {
    let (client, mut peer) = pair().await;
    let mut entries = client.read(Seq::new(5), Some(3), Level::Committed).await.unwrap();
    let Some(Message::ReadRequest(request)) = peer.recv().await else { panic!("no read came") };
    assert_eq!((request.from, request.limit), (5, Some(3)));
    assert_eq!(request.level, ReadLevel::Committed);
    peer.send_entries(request.id, 5, &[b"five", b""], (8, false)).await;
    peer.send_entries(request.id, 7, &[b"seven"], (8, true)).await;
    let mut payloads = Vec::new();
    while let Some(batch) = entries.next_batch().await.unwrap() {
        assert_eq!((batch.next(), batch.commit()), (Seq::new(8), Seq::new(7)));
        payloads.extend(batch.records().map(|record| {
            let record = record.unwrap();
            (record.seq.number(), record.payload)
        }));
    }
    assert_eq!(payloads, [(5, "five".into()), (6, "".into()), (7, Bytes::from("seven"))]);
}

#[tokio::test]
async fn entries_that_are_not_as_announced_are_not_given() {
    let (client, mut peer) = pair().await;
    let mut entries = client.read(Seq::FIRST, None, Level::Local).await.unwrap();
    let Some(Message::ReadRequest(request)) = peer.recv().await else { panic!("no read came") };
    peer.send_entries(request.id, 1, &[b"one", b"two"], (3, false)).await;
    let batch = entries.next_batch().await.unwrap().unwrap();
    let good: Vec<_> = batch.records().map(|record| record.is_ok()).collect();
    assert_eq!(good, [true, true]);
    let with = |first, count| {
        let head = codec::EntriesHead { id: 1, first, count, next: 3, commit: 0, end: false };
        Batch::new(head, batch.bytes())
    };
    for wrong in [with(2, 2), with(1, 1), with(1, 3)] {
        assert!(wrong.records().any(|record| record.is_err()), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_refused_read_says_why() {
    let (client, mut peer) = pair().await;
    let mut entries = client.read(Seq::ZERO, None, Level::Local).await.unwrap();
    let Some(Message::ReadRequest(request)) = peer.recv().await else { panic!("no read came") };
    let refusal =
        codec::Refusal { code: Code::BadValue.number(), detail: "from=0 - from 1".to_owned() };
    peer.send(Message::RequestRefused(RequestRefused { id: request.id, refusal })).await;
    match entries.next_batch().await {
        Err(error) => assert_eq!(error.to_string(), "ERR bad-value from=0 - from 1"),
        other => panic!("it was not refused: {other:?}"),
    }
    assert_eq!(entries.next_batch().await, Ok(None));
}

#[tokio::test]
async fn a_tail_that_is_dropped_is_cancelled_once_it_is_known() {
    let (client, mut peer) = pair().await;
    let tail = client.tail(TailStart::Last(3), Level::Local).await.unwrap();
    let Some(Message::TailRequest(request)) = peer.recv().await else { panic!("no tail came") };
    assert_eq!(request.start, WireTailStart::Last(3));
    drop(tail);
    assert_eq!(peer.recv().await, Some(Message::Cancel(codec::Cancel { id: request.id })));
    // What was on its way, and the end, disturb nobody.
    peer.send_entries(request.id, 1, &[b"one"], (2, false)).await;
    peer.send_entries(request.id, 2, &[], (2, true)).await;
    let (pong, ()) = tokio::join!(client.command("PING"), async {
        let (id, line) = peer.recv_command().await;
        assert_eq!(line, "PING");
        peer.send_reply(id, true, b"PONG\n").await;
    });
    assert_eq!(pong.unwrap(), "PONG\n");
}

#[tokio::test]
async fn a_reply_may_come_in_pieces() {
    let (client, mut peer) = pair().await;
    let answer = async {
        let (id, _) = peer.recv_command().await;
        for (piece, end) in [(&b"1 a\n2"[..], false), (b"", false), (b" b\nEND\n", true)] {
            peer.send_reply(id, end, piece).await;
        }
    };
    let (reply, ()) = tokio::join!(client.command("LIST"), answer);
    assert_eq!(reply.unwrap(), "1 a\n2 b\nEND\n");
}

#[tokio::test]
async fn a_command_is_one_line_that_fits() {
    let mut node = FakeNode::master().await;
    node.hello.frame_bytes_max = 8 << 10;
    let (client, _peer) = connected(&node).await;
    assert_eq!(client.command("PING\nPING").await, Err(CommandError::NotOneLine));
    let long = "x".repeat(8 << 10);
    let refused = client.command(long).await;
    assert!(matches!(refused, Err(CommandError::LineTooLong { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_wait_is_answered_like_an_append() {
    let (client, mut peer) = pair().await;
    let options = WaitOptions { concern: Some("all".parse().unwrap()), ..Default::default() };
    let answer = async {
        match peer.recv().await {
            Some(Message::WaitRequest(wait)) => {
                assert_eq!((wait.seq, wait.concern), (5, codec::Concern::All));
                peer.send_ok(wait.id, 1, 5).await;
            }
            other => panic!("instead of a wait came {other:?}"),
        }
    };
    let (outcome, ()) = tokio::join!(client.wait(Seq::new(5), options), answer);
    assert_eq!(outcome.unwrap().class(), Class::Ok);
}

#[tokio::test]
async fn the_connection_ends_with_the_last_handle() {
    let (client, mut peer) = pair().await;
    let clone = client.clone();
    let handle = client.append("a".into(), AppendOptions::default()).await.unwrap();
    drop((client, clone));
    let (head, _) = peer.recv_append().await;
    peer.send_ok(head.id, 1, 1).await;
    assert_eq!(handle.await.unwrap().class(), Class::Ok);
    assert_eq!(peer.recv().await, None);
}

async fn recv_tail(peer: &mut Peer) -> codec::TailRequest {
    match peer.recv().await {
        Some(Message::TailRequest(request)) => request,
        other => panic!("instead of a tail came {other:?}"),
    }
}

/// Answers the question where the log ends, which comes before the first tail.
async fn tell_end(peer: &mut Peer, next: u64) {
    match peer.recv().await {
        Some(Message::ReadRequest(request)) => {
            assert_eq!((request.from, request.limit), (1 << 62, Some(1)));
            peer.send_entries(request.id, request.from, &[], (next, true)).await;
        }
        other => panic!("instead of a read came {other:?}"),
    }
}

/// A follower of `node` and the other end of its connection, which was told `end`.
async fn following(node: &FakeNode, start: TailStart, end: u64) -> (Follower, Peer) {
    let options = ConnectOptions::default();
    let start = Follower::start([node.addr()], options, start, Level::Local);
    let (follower, peer) = tokio::join!(start, async {
        let mut peer = node.accept().await;
        tell_end(&mut peer, end).await;
        peer
    });
    (follower.unwrap(), peer)
}

async fn next_payloads(follower: &mut Follower) -> Vec<Bytes> {
    loop {
        if let FollowEvent::Entries(batch) = follower.next_event().await.unwrap()
            && !batch.is_empty()
        {
            return batch.records().map(|record| record.unwrap().payload).collect();
        }
    }
}

#[tokio::test]
async fn a_follower_goes_on_where_it_was_after_a_lost_connection() {
    let node = FakeNode::master().await;
    let (mut follower, mut peer) = following(&node, TailStart::Last(2), 6).await;
    let request = recv_tail(&mut peer).await;
    assert_eq!(request.start, WireTailStart::From(4));
    peer.send_entries(request.id, 4, &[b"four", b"five"], (6, false)).await;
    assert_eq!(next_payloads(&mut follower).await, ["four", "five"]);
    let chain = peer.chain;
    drop(peer);
    let serve = async {
        let mut peer = node.accept().await;
        peer.chain = chain;
        let request = recv_tail(&mut peer).await;
        assert_eq!(request.start, WireTailStart::From(6));
        peer.send_entries(request.id, 6, &[], (6, false)).await;
        peer.send_entries(request.id, 6, &[b"six"], (7, false)).await;
        peer
    };
    let (payloads, _peer) = tokio::join!(next_payloads(&mut follower), serve);
    assert_eq!(payloads, ["six"]);
    assert_eq!(follower.next_seq(), Some(Seq::new(7)));
}

/// Entries that are appended while the first connection is lost come too.
#[tokio::test]
async fn a_follower_of_new_entries_knows_from_the_start_where_it_begins() {
    let node = FakeNode::master().await;
    let (mut follower, mut peer) = following(&node, TailStart::New, 9).await;
    assert_eq!(recv_tail(&mut peer).await.start, WireTailStart::From(9));
    drop(peer);
    assert!(matches!(follower.next_event().await, Ok(FollowEvent::Lost(_))));
    let (event, mut peer) = tokio::join!(follower.next_event(), node.accept());
    assert_eq!(event, Ok(FollowEvent::Resumed("master".to_owned())));
    assert_eq!(recv_tail(&mut peer).await.start, WireTailStart::From(9));
}

#[tokio::test]
async fn a_follower_notices_a_hole_and_another_log() {
    let mut node = FakeNode::master().await;
    let from = TailStart::From(Seq::new(3));
    let start = Follower::start([node.addr()], ConnectOptions::default(), from, Level::Local);
    let (follower, mut peer) = tokio::join!(start, node.accept());
    let mut follower = follower.unwrap();
    let request = recv_tail(&mut peer).await;
    peer.send_entries(request.id, 4, &[b"four"], (5, false)).await;
    assert!(matches!(follower.next_event().await, Err(FollowError::BadRecord(_))));

    drop(peer);
    assert!(matches!(follower.next_event().await, Ok(FollowEvent::Lost(_))));
    node.hello.log_id = Some([8; 16]);
    let (event, _peer) = tokio::join!(follower.next_event(), node.accept());
    assert!(matches!(event, Err(FollowError::OtherLog { .. })), "{event:?}");
}

/// The numbers fit and the log's name was not known: only the chain of digests tells.
#[tokio::test]
async fn entries_that_do_not_continue_what_was_given_out_are_not_given() {
    let mut node = FakeNode::master().await;
    node.hello.log_id = None;
    let (mut follower, mut peer) = following(&node, TailStart::Last(1), 5).await;
    let request = recv_tail(&mut peer).await;
    let no_log = b"node id=master role=master next=5 log_id=-\nEND\n";
    let answer_status = async |peer: &mut Peer| {
        let (id, line) = peer.recv_command().await;
        assert_eq!(line, "STATUS");
        peer.send_reply(id, true, no_log).await;
    };
    peer.send_entries(request.id, 4, &[b"four"], (5, false)).await;
    let (payloads, ()) = tokio::join!(next_payloads(&mut follower), answer_status(&mut peer));
    assert_eq!(payloads, ["four"]);
    // The chain of another log.
    peer.send_entries(7, 4, &[b"other"], (5, true)).await;
    drop(peer);
    let serve = async {
        let mut peer = node.accept().await;
        let request = recv_tail(&mut peer).await;
        assert_eq!(request.start, WireTailStart::From(5));
        peer.send_entries(request.id, 5, &[b"five"], (6, false)).await;
        answer_status(&mut peer).await;
        peer
    };
    let followed = async {
        loop {
            match follower.next_event().await {
                Ok(FollowEvent::Entries(batch)) => assert!(batch.is_empty(), "{batch:?}"),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    };
    let (error, _peer) = tokio::join!(followed, serve);
    let seq = Seq::new(5);
    assert_eq!(error, FollowError::OtherEntries { node: "master".to_owned(), seq });
}

/// It is empty at first, and is then filled with the wrong log.
#[tokio::test]
async fn a_node_that_had_no_log_is_asked_which_it_holds_by_now() {
    let mut node = FakeNode::master().await;
    let (mut follower, mut peer) = following(&node, TailStart::New, 5).await;
    recv_tail(&mut peer).await;
    drop(peer);
    assert!(matches!(follower.next_event().await, Ok(FollowEvent::Lost(_))));
    node.hello.log_id = None;
    let (event, mut peer) = tokio::join!(follower.next_event(), node.accept());
    assert!(matches!(event, Ok(FollowEvent::Resumed(_))), "{event:?}");
    let request = recv_tail(&mut peer).await;
    peer.send_entries(request.id, 5, &[], (1, false)).await;
    let (event, ()) = tokio::join!(follower.next_event(), async {
        let (id, _) = peer.recv_command().await;
        let log_id = LogId::new([8; 16]);
        let status = format!("node id=master next=1 log_id={log_id} store=memory\nEND\n");
        peer.send_reply(id, true, status.as_bytes()).await;
    });
    match event {
        Err(FollowError::OtherLog { found, .. }) => assert_eq!(found, LogId::new([8; 16])),
        other => panic!("the other log was not noticed: {other:?}"),
    }
}

#[tokio::test]
async fn a_follower_gives_up_when_it_was_told_to() {
    let node = FakeNode::master().await;
    let reconnect = ReconnectPolicy {
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(1),
        give_up_after: Some(Duration::ZERO),
    };
    let options = ConnectOptions { reconnect, ..ConnectOptions::default() };
    let from = TailStart::From(Seq::FIRST);
    let start = Follower::start([node.addr()], options, from, Level::Local);
    let (follower, peer) = tokio::join!(start, node.accept());
    let mut follower = follower.unwrap();
    drop((peer, node));
    assert!(matches!(follower.next_event().await, Ok(FollowEvent::Lost(_))));
    let ended = follower.next_event().await;
    assert!(matches!(ended, Err(FollowError::Connect(_))), "{ended:?}");
}
