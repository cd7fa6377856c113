//! The command line client against a fake node on loopback.

use super::append::append;
use super::gateway::ask;
use super::interrupt::{Interrupts, Signal};
use super::list::list;
use super::output::WRITTEN;
use super::request::{Ending, Form, List, Output, Part, Reply};
use super::*;
use crate::client::fake_node::{FakeNode, Peer};
use crate::client::{AppendOptions, Role};
use crate::wire::Message;
use crate::wire::codec;

/// Appends quietly: what the replies look like is tested elsewhere.
async fn append_to(servers: impl Into<Vec<String>>, entries: &[&str]) -> Exit {
    let servers = servers.into();
    let parts = entries.iter().map(|entry| Part::Entry(entry.as_bytes().to_owned())).collect();
    let never = &mut Interrupts::never();
    append(&servers, AppendOptions::default(), parts, Output::Text, true, never).await
}

async fn answer(peer: &mut Peer, id: u64, count: u32, outcome: codec::Outcome) {
    peer.send(Message::AppendReply(codec::AppendReply { id, count, outcome })).await;
}

fn placed() -> codec::Placed {
    codec::Placed { seq: 1, epoch: 1, need: 3, holders: 0b011 }
}

fn refusal() -> codec::Outcome {
    let detail = "present=1 need=2 - not enough".to_owned();
    codec::Outcome::Refused(codec::Refusal { code: 1, detail })
}

#[tokio::test]
async fn the_exit_code_is_that_of_the_worst_reply() {
    let (ok, pending) = (codec::Outcome::Ok(placed()), codec::Outcome::Pending(placed()));
    let unknown = codec::Outcome::Unknown(placed());
    let cases = [
        ([&ok, &ok], Exit::Done),
        ([&refusal(), &ok], Exit::Refused),
        ([&pending, &refusal()], Exit::Pending),
        ([&unknown, &pending], Exit::Unknown),
    ];
    for (outcomes, exit) in cases {
        let node = FakeNode::master().await;
        let serve = async {
            let mut peer = node.accept().await;
            let (head, _) = peer.recv_append().await;
            for (id, outcome) in (head.id..).zip(outcomes) {
                answer(&mut peer, id, 1, outcome.clone()).await;
            }
            peer
        };
        let (ended, _peer) = tokio::join!(append_to([node.addr()], &["a", "b"]), serve);
        assert_eq!(ended, exit, "{outcomes:?}");
    }
}

#[tokio::test]
async fn nobody_there_is_not_the_same_as_lost_in_between() {
    let gone = FakeNode::master().await.addr();
    assert_eq!(append_to([gone], &["a"]).await, Exit::Unreachable);

    let node = FakeNode::master().await;
    let serve = async {
        let mut peer = node.accept().await;
        peer.recv_append().await;
    };
    let (exit, ()) = tokio::join!(append_to([node.addr()], &["a"]), serve);
    assert_eq!(exit, Exit::Unknown);
}

/// One is answered, two wait, and input is still to come.
#[tokio::test]
async fn a_signal_ends_the_waiting_and_every_entry_that_was_sent_has_its_reply() {
    let node = FakeNode::master().await;
    let servers = [node.addr()];
    let parts = ["a", "b", "c"].map(|entry| Part::Entry(entry.into())).to_vec();
    let (signals, mut interrupts) = Interrupts::sent_by_test();
    let options = AppendOptions::default();
    let appended = append(&servers, options, parts, Output::Text, false, &mut interrupts);
    let serve = async {
        let mut peer = node.accept().await;
        let (mut received, mut first) = (0, None);
        while received < 3 {
            let (head, _) = peer.recv_append().await;
            first.get_or_insert(head.id);
            received += head.count;
        }
        answer(&mut peer, first.unwrap(), 1, codec::Outcome::Ok(placed())).await;
        signals.send_replace(Some(Signal::Interrupt));
        // It hangs up: nothing more is asked.
        assert!(peer.recv().await.is_none());
    };
    let (exit, ()) = tokio::join!(appended, serve);
    assert_eq!(exit, Exit::Unknown);
    let text = written();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("OK seq=1 "), "{text}");
    assert!(lines[1..].iter().all(|line| line.starts_with("UNKNOWN seq=- epoch=- - interrupted")));
}

#[tokio::test]
async fn a_signal_before_anything_was_sent_leaves_nothing_in_doubt() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let servers = [silent.local_addr().unwrap().to_string()];
    let (signals, mut interrupts) = Interrupts::sent_by_test();
    let parts = vec![Part::Entry("a".into())];
    let options = AppendOptions::default();
    let appended = append(&servers, options, parts, Output::Text, false, &mut interrupts);
    let (exit, _) = tokio::join!(appended, async {
        let connection = silent.accept().await.unwrap();
        signals.send_replace(Some(Signal::Terminate));
        connection
    });
    assert_eq!((exit.code(), written().as_str()), (143, ""));
}

#[tokio::test]
async fn entries_that_were_not_sent_go_out_over_a_new_connection_and_no_others() {
    let node = FakeNode::master().await;
    let long = "x".repeat(1_000_000);
    let entries: Vec<String> = (0..40).map(|number| format!("{number} {long}")).collect();
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let number_of = |payload: &[u8]| payload.split(|byte| *byte == b' ').next().unwrap().to_owned();
    let serve = async {
        let mut peer = node.accept().await;
        let (head, payloads) = peer.recv_append().await;
        assert_eq!(number_of(&payloads[0]), b"0");
        answer(&mut peer, head.id, head.count, codec::Outcome::Ok(placed())).await;
        drop(peer);
        let mut peer = node.accept().await;
        let mut resumed_at = None;
        loop {
            let (head, payloads) = peer.recv_append().await;
            let number = String::from_utf8(number_of(&payloads[0])).unwrap();
            resumed_at.get_or_insert(number.parse::<u64>().unwrap());
            answer(&mut peer, head.id, head.count, codec::Outcome::Ok(placed())).await;
            if number == "39" {
                break (resumed_at, peer);
            }
        }
    };
    let (exit, (resumed_at, _peer)) = tokio::join!(append_to([node.addr()], &entries), serve);
    assert_eq!(exit, Exit::Unknown, "some were sent and not answered");
    assert!(resumed_at > Some(1), "an entry that was sent was sent again");
}

#[tokio::test]
async fn with_several_servers_the_master_is_found() {
    let master = FakeNode::master().await;
    let mut secondary = FakeNode::master().await;
    secondary.hello.role = Role::Secondary;
    for known in [true, false] {
        secondary.hello.master_addr = if known { master.addr() } else { String::new() };
        let servers = [secondary.addr(), master.addr()];
        let serve = async {
            let _first = secondary.accept().await;
            let mut peer = master.accept().await;
            let (head, _) = peer.recv_append().await;
            answer(&mut peer, head.id, head.count, codec::Outcome::Ok(placed())).await;
            peer
        };
        let (exit, _peer) = tokio::join!(append_to(servers, &["a"]), serve);
        assert_eq!(exit, Exit::Done);
    }
}

#[tokio::test]
async fn with_one_server_the_user_hears_what_it_says() {
    let mut secondary = FakeNode::master().await;
    secondary.hello.role = Role::Secondary;
    let serve = async {
        let mut peer = secondary.accept().await;
        let (head, _) = peer.recv_append().await;
        let detail = "master=- - appends go to the master".to_owned();
        let refused = codec::Outcome::Refused(codec::Refusal { code: 12, detail });
        answer(&mut peer, head.id, head.count, refused).await;
        peer
    };
    let (exit, _peer) = tokio::join!(append_to([secondary.addr()], &["a"]), serve);
    assert_eq!(exit, Exit::Refused);
}

/// What was written to stdout since the last call.
fn written() -> String {
    String::from_utf8(WRITTEN.take()).unwrap()
}

#[tokio::test]
async fn replies_are_printed_in_order_and_as_objects_if_wanted() {
    for (output, expected) in [
        (Output::Text, "PENDING seq=1 epoch=1 have=2/3 need=3 by=master,s1 missing=s2\n"),
        (
            Output::Json,
            "{\"class\":\"PENDING\",\"seq\":1,\"epoch\":1,\"have\":\"2/3\",\"need\":3,\
             \"by\":[\"master\",\"s1\"],\"missing\":[\"s2\"]}\n",
        ),
    ] {
        let node = FakeNode::master().await;
        let servers = [node.addr()];
        let parts = vec![Part::Entry(b"a".to_vec())];
        let mut never = Interrupts::never();
        let options = AppendOptions::default();
        let appended = append(&servers, options, parts, output, false, &mut never);
        let serve = async {
            let mut peer = node.accept().await;
            let (head, _) = peer.recv_append().await;
            answer(&mut peer, head.id, 1, codec::Outcome::Pending(placed())).await;
            peer
        };
        let (exit, _peer) = tokio::join!(appended, serve);
        assert_eq!(exit, Exit::Pending);
        assert_eq!(written(), expected);
    }
}

#[tokio::test]
async fn a_list_goes_on_behind_the_last_entry_that_it_printed() {
    let node = FakeNode::master().await;
    let servers = [node.addr()];
    let asked = List { from: Some(2), limit: Some(9), level: None, form: Form::Lines };
    let serve = async {
        let mut peer = node.accept().await;
        let (id, line) = peer.recv_command().await;
        assert_eq!(line, "LIST from=2 limit=9");
        // The third line is not known to be whole.
        peer.send_reply(id, false, b"2 two\n3 three\n4 fo").await;
        drop(peer);
        let mut peer = node.accept().await;
        let (id, line) = peer.recv_command().await;
        assert_eq!(line, "LIST from=4 limit=7");
        peer.send_reply(id, true, b"4 four\nEND count=1 first=4 last=4 commit=4 level=local\n")
            .await;
        peer
    };
    let (exit, _peer) = tokio::join!(list(&servers, &asked), serve);
    assert_eq!((exit, written().as_str()), (Exit::Done, "2 two\n3 three\n4 four\n"));
}

#[tokio::test]
async fn a_raw_list_goes_on_too_and_ends_where_the_log_ended_at_first() {
    let node = FakeNode::master().await;
    let servers = [node.addr()];
    let asked = List { form: Form::Raw(Ending::LineFeed), ..List::default() };
    let recv_read = async |peer: &mut Peer| match peer.recv().await {
        Some(Message::ReadRequest(read)) => read,
        other => panic!("instead of a read came {other:?}"),
    };
    let serve = async {
        let mut peer = node.accept().await;
        let read = recv_read(&mut peer).await;
        peer.send_entries(read.id, 1, &[b"one", b"two"], (4, false)).await;
        drop(peer);
        let mut peer = node.accept().await;
        let read = recv_read(&mut peer).await;
        assert_eq!((read.from, read.limit), (3, Some(1)));
        peer.send_entries(read.id, 3, &[b"three"], (9, true)).await;
        peer
    };
    let (exit, _peer) = tokio::join!(list(&servers, &asked), serve);
    assert_eq!((exit, written().as_str()), (Exit::Done, "one\ntwo\nthree\n"));
}

#[tokio::test]
async fn a_list_does_not_go_on_for_ever_nor_in_another_log() {
    let mut node = FakeNode::master().await;
    let servers = [node.addr()];
    let serve = async {
        for reply in [&b"1 one\n2 t"[..], b""] {
            let mut peer = node.accept().await;
            let (id, _) = peer.recv_command().await;
            peer.send_reply(id, false, reply).await;
        }
    };
    let everything = List::default();
    let (exit, ()) = tokio::join!(list(&servers, &everything), serve);
    assert_eq!((exit, written().as_str()), (Exit::Unknown, "1 one\n"));

    let (exit, ()) = tokio::join!(list(&servers, &everything), async {
        let mut peer = node.accept().await;
        let (id, _) = peer.recv_command().await;
        peer.send_reply(id, false, b"1 one\n2 t").await;
        drop(peer);
        node.hello.log_id = Some([9; 16]);
        node.accept().await;
    });
    assert_eq!((exit, written().as_str()), (Exit::Unknown, "1 one\n"));
}

#[tokio::test]
async fn tail_prints_what_is_there_without_waiting_for_a_sign_of_life() {
    let node = FakeNode::master().await;
    let servers = [node.addr()];
    let serve = async {
        let mut peer = node.accept().await;
        let mut requests = Vec::new();
        for (first, payloads) in [(0, &[][..]), (8, &[&b"eight"[..], b"ni\ne"][..])] {
            match peer.recv().await {
                Some(Message::ReadRequest(read)) => {
                    peer.send_entries(read.id, first, payloads, (10, true)).await;
                    requests.push((read.from, read.limit));
                }
                other => panic!("instead of a read came {other:?}"),
            }
        }
        requests
    };
    let (exit, requests) = tokio::join!(
        super::tail::last(&servers, 2, crate::types::Level::Committed, Form::Lines),
        serve
    );
    assert_eq!((exit, written().as_str()), (Exit::Done, "8 eight\n9 ni\\ne\n"));
    assert_eq!(requests[1], (8, Some(2)));
}

/// Asks a server that freezes behind the question, and another one. Tells how it ended, and whether
/// the other one was asked.
async fn asked_of_a_frozen_one(line: &'static [u8], reply: Reply) -> (Exit, bool) {
    let (frozen, other) = (FakeNode::master().await, FakeNode::master().await);
    let other_asked = std::cell::Cell::new(false);
    let freeze = async {
        let mut peer = frozen.accept().await;
        assert_eq!(peer.recv_command().await.1.as_bytes(), line);
        // Whatever else it is asked, it answers nothing.
        while peer.recv().await.is_some() {}
        std::future::pending().await
    };
    let serve = async {
        let mut peer = other.accept().await;
        let (id, _) = peer.recv_command().await;
        other_asked.set(true);
        peer.send_reply(id, true, b"OK mode=normal\n").await;
        std::future::pending().await
    };
    let servers = [frozen.addr(), other.addr()];
    let exit = tokio::select! {
        exit = ask(&servers, line, reply, Output::Text) => exit,
        exit = freeze => exit,
        exit = serve => exit,
    };
    (exit, other_asked.get())
}

/// Whoever is frozen may carry it out when it goes on: twice would be wrong.
#[tokio::test]
async fn only_what_changes_nothing_is_asked_again_when_a_node_falls_silent() {
    let (health, mute, store) = tokio::join!(
        asked_of_a_frozen_one(b"HEALTH", Reply::Health),
        asked_of_a_frozen_one(b"MUTE 1ms", Reply::Line),
        asked_of_a_frozen_one(b"STORE 1 x", Reply::Line),
    );
    assert_eq!(health, (Exit::Done, true));
    assert_eq!((mute, store), ((Exit::Unknown, false), (Exit::Unknown, false)));
}

async fn asked(line: &[u8], reply: Reply, output: Output, answer: &[u8]) -> (Exit, String) {
    let node = FakeNode::master().await;
    let servers = [node.addr()];
    let serve = async {
        let mut peer = node.accept().await;
        let (id, found) = peer.recv_command().await;
        assert_eq!(found.as_bytes(), line);
        // In two pieces, cut where no line ends.
        let (first, second) = answer.split_at(answer.len() / 2);
        peer.send_reply(id, false, first).await;
        peer.send_reply(id, true, second).await;
        peer
    };
    let (exit, _peer) = tokio::join!(ask(&servers, line, reply, output), serve);
    (exit, written())
}

/// The frames tell where the reply ends: lines that look like the end of other replies are data.
#[tokio::test]
async fn metrics_come_out_byte_for_byte_and_as_objects() {
    let metrics = "# HELP replog_next The next number.\n# TYPE replog_next gauge\nreplog_next 4\n\
        END replog\nreplog_lag{node=\"s1\"} 0.5\n# EOF\n";
    let (exit, text) = asked(b"METRICS", Reply::Metrics, Output::Text, metrics.as_bytes()).await;
    assert_eq!((exit, text.as_str()), (Exit::Done, metrics));
    let metrics = metrics.replace("END replog\n", "");
    let (exit, text) = asked(b"METRICS", Reply::Metrics, Output::Json, metrics.as_bytes()).await;
    assert_eq!(
        (exit, text.as_str()),
        (
            Exit::Done,
            "{\"name\":\"replog_next\",\"labels\":{},\"value\":4}\n\
             {\"name\":\"replog_lag\",\"labels\":{\"node\":\"s1\"},\"value\":0.5}\n"
        )
    );
}

#[tokio::test]
async fn a_refusal_is_one_whatever_was_asked() {
    let refusal = b"ERR master-only - only the master knows who holds what\n";
    for reply in [Reply::Metrics, Reply::Waiters, Reply::Status, Reply::Line] {
        let (exit, text) = asked(b"X", reply, Output::Text, refusal).await;
        assert_eq!((exit, text.as_bytes()), (Exit::Refused, &refusal[..]), "{reply:?}");
        let (exit, text) = asked(b"X", reply, Output::Json, refusal).await;
        assert_eq!(exit, Exit::Refused);
        assert!(text.starts_with("{\"class\":\"ERR\",\"code\":\"master-only\","), "{text}");
    }
}

#[tokio::test]
async fn waiters_are_data_lines_without_their_end() {
    let reply = b"seq=3 need=3 have=2 missing=s2 age_ms=17\nEND count=1\n";
    let (exit, text) = asked(b"WAITERS", Reply::Waiters, Output::Text, reply).await;
    assert_eq!((exit, text.as_str()), (Exit::Done, "seq=3 need=3 have=2 missing=s2 age_ms=17\n"));
    let (_, text) = asked(b"WAITERS", Reply::Waiters, Output::Json, reply).await;
    assert_eq!(text, "{\"seq\":3,\"need\":3,\"have\":2,\"missing\":[\"s2\"],\"age_ms\":17}\n");
}

/// A node of a cluster of two for `verify`: what it answers, and how often it was asked.
async fn serve_copy(node: &FakeNode, status: &str, first_own: u64) -> u64 {
    let mut peer = node.accept().await;
    let mut asked = 0;
    while let Some(Message::Command(head, line)) = peer.recv().await {
        asked += 1;
        let line = String::from_utf8(line.to_vec()).unwrap();
        let reply = match line.split_once(' ') {
            None => format!("{status}END\n"),
            Some(("DIGEST", seq)) => {
                let own = if seq.parse::<u64>().unwrap() >= first_own { "own" } else { "" };
                format!("OK seq={seq} epoch=1 digest=d{seq}{own}\n")
            }
            Some((_, seq)) => format!(
                "OK seq={seq} epoch=1 time=T bytes=3 by=- payload=p{own}\n",
                own = first_own
            ),
        };
        peer.send_reply(head.id, true, reply.as_bytes()).await;
    }
    asked
}

#[tokio::test]
async fn verify_finds_the_first_difference_by_halving() {
    let (master, other) = (FakeNode::master().await, FakeNode::master().await);
    let servers = [master.addr(), other.addr()];
    let status = "node id=master role=master next=100001 commit=100000 log_id=-\n";
    let verifying = super::verify::verify(&servers, super::request::PATIENCE, Output::Text);
    let (exit, asked, _) = tokio::join!(
        verifying,
        serve_copy(&master, status, u64::MAX),
        serve_copy(&other, status, 61_803)
    );
    assert_eq!(exit, Exit::Different);
    let text = written();
    assert!(text.contains("\nDIFFERENT seq=61803 nodes=2 commit=100000 - "), "{text}");
    assert!(text.contains("digest=d61803 payload=p18446744073709551615\n"), "{text}");
    assert!(text.contains("digest=d61803own payload=p61803\n"), "{text}");
    assert!(asked < 30, "asked {asked} times");
}

/// A node that is too busy to show its entry has one all the same.
#[tokio::test]
async fn verify_says_missing_only_of_what_is_missing() {
    let status = "node id=m role=master next=2 commit=1 log_id=-\nEND\n";
    let serve = async |node: &FakeNode, shows: bool| {
        let mut peer = node.accept().await;
        while let Some(Message::Command(head, line)) = peer.recv().await {
            let reply = match line.split(|&byte| byte == b' ').next() {
                Some(b"STATUS") => status.to_owned(),
                Some(b"DIGEST") => format!("OK seq=1 epoch=1 digest={shows}\n"),
                _ if shows => "OK seq=1 epoch=1 time=T bytes=1 by=- payload=p\n".to_owned(),
                _ => "ERR unreadable seq=1 - damaged\n".to_owned(),
            };
            peer.send_reply(head.id, true, reply.as_bytes()).await;
        }
    };
    let (whole, damaged) = (FakeNode::master().await, FakeNode::master().await);
    let servers = [whole.addr(), damaged.addr()];
    for (output, expected) in [
        (Output::Text, "seq=1 error=\"ERR unreadable seq=1 - damaged\"\n"),
        (Output::Json, "\"missing\":false,\"error\":\"ERR unreadable seq=1 - damaged\"}"),
    ] {
        let verifying = super::verify::verify(&servers, super::request::PATIENCE, output);
        let (exit, (), ()) = tokio::join!(verifying, serve(&whole, true), serve(&damaged, false));
        let text = written();
        assert_eq!(exit, Exit::Different);
        assert!(text.contains(expected) && !text.contains("missing=true"), "{text}");
    }
}

#[tokio::test]
async fn a_raw_get_is_the_payload_and_nothing_else() {
    let raw = Reply::Payload { seq: 4 };
    let serve = async |node: &FakeNode, seq: u64, reply: Option<&[u8]>| {
        let mut peer = node.accept().await;
        match peer.recv().await {
            Some(Message::ReadRequest(read)) => {
                let payloads: &[&[u8]] = if reply.is_some() { &[] } else { &[b"a\\n\xff\0\n"] };
                peer.send_entries(read.id, seq, payloads, (seq + 1, true)).await;
            }
            other => panic!("instead of a read came {other:?}"),
        }
        if let Some(reply) = reply {
            let (id, line) = peer.recv_command().await;
            assert_eq!(line, "GET 4");
            peer.send_reply(id, true, reply).await;
        }
        peer
    };
    let by_hand = b"OK seq=4 epoch=0 time=- bytes=4 by=- payload=a\\\\\\n\xff\n";
    for (reply, exit, expected) in [
        (None, Exit::Done, &b"a\\n\xff\0\n"[..]),
        (Some(&by_hand[..]), Exit::Done, &b"a\\\n\xff"[..]),
        (Some(&b"ERR not-found seq=4 next=4 - no such entry\n"[..]), Exit::Refused, &b""[..]),
    ] {
        let node = FakeNode::master().await;
        let servers = [node.addr()];
        let asked = ask(&servers, b"GET 4", raw, Output::Text);
        let (ended, _peer) = tokio::join!(asked, serve(&node, 4, reply));
        assert_eq!(ended, exit);
        assert_eq!(WRITTEN.take(), expected);
    }
}
