//! The fault verbs, repetition and conflicts (interface 2.6, design 5): the same on a log in memory and
//! on one on disk, where what is written is not yet stored.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{Cluster, Gateway, Node, Setup, Status, wait_until};

/// Where the logs are.
#[derive(Clone, Copy)]
enum Store {
    Memory,
    Disk,
}

impl Store {
    fn of(self, secondaries: usize) -> Setup {
        match self {
            Store::Memory => Cluster::of(secondaries),
            Store::Disk => Cluster::of(secondaries).on_disk(),
        }
    }

    /// A secondary that no master has spoken to, and what keeps its directory.
    #[track_caller]
    fn lone_secondary(self) -> (Node, Option<tempfile::TempDir>) {
        match self {
            Store::Memory => (Cluster::lone_secondary(), None),
            Store::Disk => {
                let dir = tempfile::tempdir().expect("a temporary directory");
                (Cluster::lone_secondary_in(Some(&dir.path().join("s1"))), Some(dir))
            }
        }
    }
}

/// Makes two tests of each: `in_memory::…` and `on_disk::…`.
macro_rules! on_both_stores {
    ($($(#[$meta:meta])* fn $name:ident($store:ident: Store) $body:block)*) => {
        $(fn $name($store: Store) $body)*

        mod in_memory {
            $($(#[$meta])* fn $name() { super::$name(super::Store::Memory); })*
        }

        mod on_disk {
            $($(#[$meta])* fn $name() { super::$name(super::Store::Disk); })*
        }
    };
}

on_both_stores! {

#[test]
fn fault_verbs_answer_ok_and_refuse_nonsense(store: Store) {
    let (node, _dir) = store.lone_secondary();
    let mut client = Gateway::connect(node.ready.gateway);
    for command in [
        "DELAY 10",
        "DELAY 500ms",
        "DELAY every=3s",
        "DELAY off",
        "FAIL after",
        "FAIL after count=3",
        "FAIL after p=0.5",
        "FAIL before",
        "FAIL before count=1",
        "FAIL off",
        "MUTE 10s",
        "MUTE off",
    ] {
        client.ok(command);
    }
    for command in
        ["DELAY", "DELAY soon", "DELAY every=x", "FAIL", "FAIL maybe", "FAIL after p=2", "MUTE x"]
    {
        assert_eq!(client.ask(command).class(), "ERR", "{command}");
    }
    for command in ["STORE", "STORE x y", "STORE 0 x"] {
        assert_eq!(client.ask(command).class(), "ERR", "{command}");
    }
    assert_eq!(client.list("").entries, []);
}

/// What is handed in out of order stays invisible until the hole before it is filled.
#[test]
fn stored_entries_appear_without_holes(store: Store) {
    let (node, _dir) = store.lone_secondary();
    let mut client = Gateway::connect(node.ready.gateway);
    assert_eq!(client.cmd("STORE 1 one"), "OK seq=1");
    assert_eq!(client.cmd("STORE 2 two words"), "OK seq=2");
    assert_eq!(client.cmd("STORE 4 four"), "OK seq=4 held=true");
    assert_eq!(client.list("").payloads(), ["one", "two words"]);
    client.refused("GET 4", "ERR not-found");
    assert_eq!(client.cmd("STORE 3 three"), "OK seq=3");
    assert_eq!(client.list("").payloads(), ["one", "two words", "three", "four"]);
    assert_eq!(client.ok("GET 4").get("payload"), "four");
}

#[test]
fn a_second_entry_comes_to_light_only_with_the_first(store: Store) {
    let (node, _dir) = store.lone_secondary();
    let mut client = Gateway::connect(node.ready.gateway);
    assert_eq!(client.cmd("STORE 2 two"), "OK seq=2 held=true");
    assert_eq!(client.list("").entries, []);
    assert_eq!(client.cmd("STORE 1 one"), "OK seq=1");
    assert_eq!(client.list("").payloads(), ["one", "two"]);
}

/// The same again is a duplicate, another text under the same number is a conflict, also for an
/// entry that is only held; nothing saved is ever overwritten.
#[test]
fn another_text_under_a_stored_number_is_a_conflict(store: Store) {
    let (node, _dir) = store.lone_secondary();
    let mut client = Gateway::connect(node.ready.gateway);
    client.ok("STORE 1 one");
    client.ok("STORE 3 three");
    assert_eq!(client.cmd("STORE 1 one"), "OK seq=1 duplicate=true");
    assert_eq!(client.cmd("STORE 3 three"), "OK seq=3 duplicate=true");
    client.refused("STORE 1 other", "ERR conflict");
    client.refused("STORE 3 other", "ERR conflict");
    client.ok("STORE 2 two");
    client.refused("STORE 3 other", "ERR conflict");
    assert_eq!(client.list("").payloads(), ["one", "two", "three"]);
}

#[test]
fn entries_handed_in_are_shown_but_never_counted(store: Store) {
    let (node, _dir) = store.lone_secondary();
    let mut client = Gateway::connect(node.ready.gateway);
    let digest = client.cmd("DIGEST");
    client.ok("STORE 1 one");
    client.ok("STORE 2 two");
    assert_eq!(client.list("").entries.len(), 2);
    assert_eq!(client.status().node.number("next"), 1);
    assert_eq!(client.cmd("DIGEST"), digest);
    assert_eq!(client.list("level=committed").entries, []);
}

/// The master's own entry for the number replaces what was handed in; what differed is moved
/// aside with all behind it, in the log and in STATUS.
#[test]
fn the_master_s_entry_moves_another_one_aside(store: Store) {
    let cluster = store.of(2).start();
    let mut s1 = cluster.client_of("s1");
    let before = s1.status().node.get("aside").to_owned();
    s1.ok("STORE 1 mine");
    s1.ok("STORE 2 mine too");
    assert_eq!(s1.list("").payloads(), ["mine", "mine too"]);
    let ok = "OK seq=1 epoch=1 have=3/3 need=3 by=master,s1,s2";
    assert_eq!(cluster.client().cmd("APPEND the master's"), ok);
    assert_eq!(s1.list("").payloads(), ["the master's"]);
    assert_ne!(s1.status().node.get("aside"), before);
    cluster.node("s1").process.wait_for_log_line(&["aside"]);
    assert_eq!(cluster.wait_equal_lists().payloads(), ["the master's"]);
}

#[test]
fn the_master_s_entry_that_is_equal_to_one_handed_in_is_a_duplicate(store: Store) {
    let cluster = store.of(1).start();
    let mut s1 = cluster.client_of("s1");
    let before = s1.status();
    s1.ok("STORE 1 same");
    cluster.client().ok("APPEND same");
    let after = s1.status();
    assert_eq!(after.node.get("aside"), before.node.get("aside"));
    let duplicates = |status: &Status| status.master().number("duplicates");
    assert!(duplicates(&after) > duplicates(&before), "{after:?}");
    assert_eq!(cluster.wait_equal_lists().payloads(), ["same"]);
}

/// Nodes that store and then answer with an error get the entry again and acknowledge it: all
/// appends are OK and nothing is doubled.
#[test]
fn errors_after_storing_double_nothing(store: Store) {
    const CLIENTS: usize = 8;
    const APPENDS: usize = 25;
    let cluster = store.of(2).set("cluster.retry_delays", "100ms,200ms").start();
    cluster.client_of("s1").ok("FAIL after p=0.5");
    cluster.client_of("s2").ok("FAIL after p=0.5");
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let mut client = cluster.client();
            scope.spawn(move || {
                for entry in 0..APPENDS {
                    let reply = client.ok(&format!("APPEND w=3 client {number} entry {entry}"));
                    assert_eq!(reply.get("have"), "3/3");
                }
            });
        }
    });
    let list = cluster.wait_equal_lists();
    assert_eq!(list.entries.len(), CLIENTS * APPENDS);
    let mut payloads = list.payloads();
    payloads.sort_unstable();
    payloads.dedup();
    assert_eq!(payloads.len(), CLIENTS * APPENDS, "each once");
}

/// One error after storing: the entry is there, not acknowledged, repeated, a duplicate.
#[test]
fn an_error_is_never_an_ack_even_when_the_entry_was_stored(store: Store) {
    let cluster = store.of(1).set("cluster.retry_delays", "1s").start();
    let mut s1 = cluster.client_of("s1");
    s1.ok("FAIL after count=1");
    let mut client = cluster.client();
    let asked = Instant::now();
    client.send("APPEND w=2 x");
    wait_until("s1 to store it", || (s1.list("").entries.len() == 1).then_some(()));
    assert_eq!(client.line(), "OK seq=1 epoch=1 have=2/2 need=2 by=master,s1");
    assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
    assert!(s1.status().master().number("duplicates") >= 1);
}

/// Errors instead of storing: nothing is counted, the failed attempts are visible in STATUS and
/// in the log, heartbeats are not touched; without the errors the next attempt succeeds.
#[test]
fn errors_before_storing_show_the_ladder_and_count_nothing(store: Store) {
    let cluster = store.of(2).start();
    let mut s2 = cluster.client_of("s2");
    s2.ok("FAIL before count=1000000");
    let mut client = cluster.client();
    client.ok("APPEND w=2 x");
    let pending = "PENDING seq=1 epoch=1 have=2/3 need=3 by=master,s1 missing=s2";
    assert_eq!(client.cmd("WAIT 1 w=3 timeout=0"), pending);
    let mut last = 0;
    wait_until("three failed attempts in a row and a next one that is due", || {
        let status = client.status();
        let s2 = status.secondary("s2");
        let attempts = s2.number("attempts");
        assert!(attempts >= last, "no progress, so no fewer attempts: {}", s2.line());
        assert_eq!((s2.number("stored"), s2.get("health")), (0, "healthy"));
        last = attempts;
        (attempts >= 3 && s2.get("next_retry_ms") != "-").then_some(())
    });
    assert_eq!(s2.list("").entries, []);
    assert_eq!(client.cmd("WAIT 1 w=3 timeout=0"), pending);
    for delay in ["200", "400"] {
        cluster.master.process.wait_for_log(&format!("a retry after {delay} ms"), |line| {
            let mut words = line.split([' ', '=']);
            let told = words.any(|word| word.trim_end_matches("ms") == delay);
            (line.contains("s2") && told).then_some(())
        });
    }
    s2.ok("FAIL off");
    assert_eq!(client.cmd("WAIT 1 w=3"), "OK seq=1 epoch=1 have=3/3 need=3 by=master,s1,s2");
    wait_until("the ladder to start again", || {
        let status = client.status();
        let s2 = status.secondary("s2");
        (s2.number("attempts") == 0 && s2.get("next_retry_ms") == "-").then_some(())
    });
}

/// `count` counts APPEND frames; afterwards everything is as before.
#[test]
fn failures_end_after_their_count(store: Store) {
    let cluster = store.of(1).set("cluster.retry_delays", "100ms").start();
    cluster.client_of("s1").ok("FAIL before count=2");
    let mut client = cluster.client();
    let asked = Instant::now();
    client.ok("APPEND a");
    assert!(asked.elapsed() >= Duration::from_millis(200), "two waits of the ladder");
    client.ok("APPEND b");
    assert_eq!(cluster.wait_equal_lists().payloads(), ["a", "b"]);
}

/// A mute secondary goes on storing; the master hears nothing and counts nothing. What it did not
/// say is not lost for good: with its first sign of life it is asked again, whatever the ladder
/// says, whose only wait here is far longer than this test may take.
#[test]
fn a_mute_secondary_stores_but_is_not_counted(store: Store) {
    let cluster = store.of(2).set("cluster.retry_delays", "300s").start();
    let mut s2 = cluster.client_of("s2");
    s2.ok("MUTE 1000s");
    let mut client = cluster.client();
    let pending = "PENDING seq=1 epoch=1 have=2/3 need=3 by=master,s1 missing=s2";
    client.ok("APPEND w=2 x");
    assert_eq!(client.cmd("WAIT 1 w=3 timeout=0"), pending);
    wait_until("s2 to store it", || (s2.list("").payloads() == ["x"]).then_some(()));
    cluster.wait_health("s2", "unhealthy");
    assert_eq!(client.cmd("WAIT 1 w=3 timeout=0"), pending);
    s2.ok("MUTE off");
    cluster.wait_health("s2", "healthy");
    assert_eq!(client.cmd("WAIT 1 w=3"), "OK seq=1 epoch=1 have=3/3 need=3 by=master,s1,s2");
    assert_eq!(cluster.wait_equal_lists().payloads(), ["x"]);
}

#[test]
fn muteness_ends_by_itself(store: Store) {
    let cluster = store.of(1).start();
    let asked = Instant::now();
    cluster.client_of("s1").ok("MUTE 700ms");
    cluster.client().ok("APPEND w=1 x");
    cluster.client().ok("WAIT 1 w=2");
    assert!(asked.elapsed() >= Duration::from_millis(700), "{:?}", asked.elapsed());
}

/// A one-time delay is for the next APPEND frame; DELAY never touches heartbeats.
#[test]
fn a_delay_touches_one_frame_and_no_heartbeat(store: Store) {
    let cluster = store.of(1).set("cluster.attempt_timeout", "10s").start();
    cluster.client_of("s1").ok("DELAY 3s");
    let mut client = cluster.client();
    let asked = Instant::now();
    client.send("APPEND late");
    let mut observer = cluster.client();
    wait_until("the late entry to be acknowledged", || {
        let status = observer.status();
        let s1 = status.secondary("s1");
        assert_eq!(s1.get("health"), "healthy");
        (s1.number("stored") == 1).then_some(())
    });
    client.line();
    assert!(asked.elapsed() >= Duration::from_secs(3), "{:?}", asked.elapsed());
    client.ok("APPEND in time");
    assert_eq!(cluster.wait_equal_lists().payloads(), ["late", "in time"]);
}

/// `DELAY off` ends the delay of the frames that wait, or at least lets their repetition through.
#[test]
fn delay_off_ends_every_delay(store: Store) {
    let cluster = store.of(1).start();
    let mut s1 = cluster.client_of("s1");
    s1.ok("DELAY every=1000s");
    s1.ok("DELAY 1000s");
    let mut client = cluster.client();
    client.send("APPEND x");
    let mut observer = cluster.client();
    wait_until("the entry", || (observer.list("").entries.len() == 1).then_some(()));
    client.assert_still_waiting();
    s1.ok("DELAY off");
    assert_eq!(client.line(), "OK seq=1 epoch=1 have=2/2 need=2 by=master,s1");
}

/// However many errors there are and whatever else is acknowledged meanwhile: without a repetition no
/// ACK covers what was answered with an error. The only wait here is longer than this test may take.
#[test]
fn nothing_but_its_repetition_acknowledges_what_was_answered_with_an_error(store: Store) {
    for verb in ["FAIL after count=1", "FAIL before count=1"] {
        let cluster = store.of(2).set("cluster.retry_delays", "300s").start();
        let mut s1 = cluster.client_of("s1");
        s1.ok(verb);
        let mut client = cluster.client();
        client.ok("APPEND w=2 first");
        for number in 0..20 {
            client.ok(&format!("APPEND w=2 ack=received {number}"));
        }
        // Long enough for every sync, whatever it would have acknowledged.
        let reply = client.cmd("WAIT 1 w=3 timeout=2s");
        assert!(reply.starts_with("PENDING seq=1 epoch=1 have=2/3"), "{verb}: {reply}");
        let status = client.status();
        assert_eq!(status.secondary("s1").number("stored"), 0, "{verb}");
        assert_eq!(status.secondary("s1").number("attempts"), 1, "{verb}");
    }
}

/// A repetition may fail as well: it is no acknowledgement either.
#[test]
fn a_repetition_that_fails_acknowledges_nothing(store: Store) {
    let cluster = store.of(1).set("cluster.retry_delays", "100ms").start();
    let mut s1 = cluster.client_of("s1");
    s1.ok("FAIL after count=3");
    let mut client = cluster.client();
    let asked = Instant::now();
    client.ok("APPEND w=2 x");
    assert!(asked.elapsed() >= Duration::from_millis(300), "three waits: {:?}", asked.elapsed());
    assert_eq!(s1.status().master().number("duplicates"), 3);
    assert_eq!(cluster.wait_equal_lists().payloads(), ["x"]);
}

}

/// `--delay` and `node.delay` are a standing DELAY of the secondary.
#[test]
fn a_standing_delay_comes_from_the_command_line() {
    let ip = common::loopback();
    let any = format!("{ip}:0");
    let flags = ["secondary", "--memory", "--listen", &any, "--gateway", &any, "--delay", "1s"];
    let secondary = common::Process::spawn("s1", common::replog(flags));
    let at = format!("s1={}", secondary.wait_ready().wire);
    let flags = ["master", "--memory", "--listen", &any, "--gateway", &any, "--secondary", &at];
    let master = common::Process::spawn("master", common::replog(flags));
    let mut client = Gateway::connect(master.wait_ready().gateway);
    wait_until("mode normal", || (client.ask("HEALTH").get("mode") == "normal").then_some(()));
    let asked = Instant::now();
    client.ok("APPEND w=2 x");
    assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
}
