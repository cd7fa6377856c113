//! What a session says, with answers made up here: a log that cannot be read is rare elsewhere.

use std::time::Duration;

use bytes::BytesMut;

use super::*;
use crate::gateway::command::TailFrom;
use crate::limits::Limits;
use crate::store::{LogStore, MemoryLog, RunBuilder, Slice};
use crate::types::{Epoch, Level, Seq, SeqRange};
use crate::wire::codec::{Hello, ReadLevel, Role as WireRole, TailRequest, TailStart};
use crate::wire::{FrameDecoder, Message};

const INTERVAL: Duration = Duration::from_millis(100);

/// A node with three entries, and how it looks.
fn node() -> (Site, View, MemoryLog) {
    let mut log = MemoryLog::new();
    let (mut arena, bounds) = (BytesMut::new(), log.bounds());
    let mut builder = RunBuilder::new(&mut arena, bounds.last, bounds.tail);
    (0..3).for_each(|_| builder.push(Epoch::new(1), 0, b"x"));
    log.append(builder.finish(&mut arena).expect("three entries")).expect("memory has room");
    let mut view = View::new(["m".parse().expect("an id")].into());
    (view.levels.commit, view.levels.held_by) = (Seq::new(3), vec![Seq::new(3)]);
    let limits = Limits {
        payload_max: 1024,
        connections_max: 10,
        inflight_max: 1 << 20,
        waiting_max: 100,
        output_max: 1 << 20,
        write_timeout: Duration::from_secs(1),
    };
    let about = About {
        id: "m".parse().expect("an id"),
        advertise: "here:1".to_owned(),
        payload_max: limits.payload_max,
    };
    let site = Site {
        about,
        role: Role::Master,
        limits,
        faults: false,
        heartbeat_interval: INTERVAL,
        log: log.reader(),
        provisional: SharedProvisional::default(),
    };
    (site, view, log)
}

fn at(site: &Site, view: &View, now: Duration, call: impl FnOnce(Sight<'_>)) {
    call(Sight { now: Time::ZERO.after(now), site, view });
}

/// Lets the session do what it can, and answers what it asks next.
#[track_caller]
fn asked(session: &mut impl Session, sight: Sight<'_>) -> Option<SeqRange> {
    while session.advance(sight).expect("the session goes on") {}
    match session.poll_request() {
        None => None,
        Some(Request::Ask(Question::Read { range, .. })) => Some(range),
        Some(other) => panic!("{other:?}"),
    }
}

fn take(session: &mut impl Session) -> Vec<u8> {
    let bytes: Vec<u8> = session.slices().iter().flat_map(|slice| slice.to_vec()).collect();
    session.taken(Time::ZERO, bytes.len());
    bytes
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange::inclusive(Seq::new(first), Seq::new(last))
}

/// Each entry once, in order: what cannot be read is waited for and not left out.
#[test]
fn a_tail_waits_for_what_cannot_be_read() {
    let (site, view, log) = node();
    let mut session = TextSession::new(&site.limits);
    session.input().extend_from_slice(b"TAIL from=1 level=local\n");
    at(&site, &view, Duration::ZERO, |sight| {
        assert_eq!(asked(&mut session, sight), Some(range(1, 3)));
        session.handle_answer(sight, Answer::Read(Slice::default()));
        assert_eq!(asked(&mut session, sight), None, "it is not read again and again");
        assert_eq!(take(&mut session), b"");
    });
    at(&site, &view, INTERVAL, |sight| {
        assert_eq!(asked(&mut session, sight), Some(range(1, 3)));
        let slice = log.reader().read(range(1, 3), usize::MAX);
        session.handle_answer(sight, Answer::Read(slice));
        assert_eq!(take(&mut session), b"1 x\n2 x\n3 x\n");
    });
}

#[test]
fn a_tail_by_wire_waits_for_what_cannot_be_read() {
    let (site, view, log) = node();
    let hello = Message::Hello(Hello::blank(WireRole::Master, "m")).encode();
    let takes = (false, 1 << 20);
    let mut session = WireSession::new(&site.limits, BytesMut::new(), hello, takes);
    let tail = TailRequest { id: 7, start: TailStart::From(1), level: ReadLevel::Local };
    let frame = Message::TailRequest(tail).encode().to_bytes();
    session.input().extend_from_slice(&frame);
    at(&site, &view, Duration::ZERO, |sight| {
        assert_eq!(asked(&mut session, sight), Some(range(1, 3)));
        session.handle_answer(sight, Answer::Read(Slice::default()));
        assert_eq!(asked(&mut session, sight), None, "it is not read again and again");
        take(&mut session);
    });
    at(&site, &view, INTERVAL, |sight| {
        assert_eq!(asked(&mut session, sight), Some(range(1, 3)));
        let slice = log.reader().read(range(1, 3), usize::MAX);
        session.handle_answer(sight, Answer::Read(slice));
        let mut bytes = BytesMut::from(&take(&mut session)[..]);
        let decoder = FrameDecoder { body_bytes_max: 1 << 20 };
        let frame = decoder.decode(&mut bytes).expect("a frame").expect("a whole one");
        let message = Message::decode(frame).expect("a good one").expect("of a known type");
        let Message::Entries(head, _) = message else { panic!("{message:?}") };
        assert_eq!((head.id, head.first, head.count, head.end), (7, 1, 3, false));
    });
}

/// END counts what was shown, and nothing behind a gap is.
#[test]
fn a_list_ends_before_what_cannot_be_read() {
    let (site, view, log) = node();
    let mut session = TextSession::new(&site.limits);
    session.input().extend_from_slice(b"LIST\n");
    at(&site, &view, Duration::ZERO, |sight| {
        assert_eq!(asked(&mut session, sight), Some(range(1, 3)));
        let slice = log.reader().read(range(1, 1), usize::MAX);
        session.handle_answer(sight, Answer::Read(slice));
        assert_eq!(asked(&mut session, sight), Some(range(2, 3)));
        session.handle_answer(sight, Answer::Read(Slice::default()));
        assert_eq!(asked(&mut session, sight), None);
        let shown = take(&mut session);
        let shown = String::from_utf8_lossy(&shown).into_owned();
        assert_eq!(shown, "1 x\nEND count=1 first=1 last=1 commit=3 level=local\n");
    });
}

/// New entries only, from an entry on, or the last few first.
#[test]
fn a_tail_begins_where_it_is_told_to() {
    let (site, view, _log) = node();
    at(&site, &view, Duration::ZERO, |sight| {
        for (start, first) in
            [(TailFrom::New, 4), (TailFrom::Seq(Seq::new(2)), 2), (TailFrom::Last(2), 2)]
        {
            let tail = reading::Tail::start(sight, start, Level::Local).expect("a good level");
            assert_eq!(tail.next, Seq::new(first), "{start:?}");
        }
    });
}
