//! `replog-cli` on a terminal: what it says to people there and nowhere else (interface 3).

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use common::{Cluster, replog, replog_cli, run_to_end, wait_until};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// A program on a pseudo terminal of its own, 100 columns by 24 rows unless it is made otherwise.
struct Session {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Session {
    /// Starts `command` with the terminal as its standard input and error, and as its output too
    /// unless that is wanted apart.
    #[track_caller]
    fn start(command: Command, stdout_apart: bool) -> Session {
        Session::start_sized(command, stdout_apart, 100)
    }

    #[track_caller]
    fn start_sized(command: Command, stdout_apart: bool, columns: u16) -> Session {
        let controller =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
        grantpt(&controller).and_then(|()| unlockpt(&controller)).expect("its other end opens");
        tcsetwinsize(&controller, size_of(columns)).expect("it has a size");
        let name = ptsname(&controller, Vec::new()).expect("its other end has a name");
        let name = name.into_string().expect("the name is text");
        let end =
            || OwnedFd::from(File::options().read(true).write(true).open(&name).expect("it opens"));
        // setsid makes the terminal the one whose Ctrl-C reaches the program.
        let mut session = Command::new("setsid");
        session.arg("-c").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        if !command.get_envs().any(|(name, _)| name == "NO_COLOR") {
            session.env_remove("NO_COLOR");
        }
        if !command.get_envs().any(|(name, _)| name == "TERM") {
            session.env("TERM", "xterm");
        }
        session.stdin(end()).stderr(end());
        session.stdout(if stdout_apart { Stdio::piped() } else { end().into() });
        let child = session.spawn().expect("setsid runs");
        let mut controller = File::from(controller);
        let keyboard = controller.try_clone().expect("it can be shared");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let filled = Arc::clone(&screen);
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            // Ends with an error when the program has closed the other end.
            while let Ok(count @ 1..) = controller.read(&mut chunk) {
                let mut screen = filled.lock().unwrap_or_else(PoisonError::into_inner);
                screen.extend_from_slice(&chunk[..count]);
            }
        });
        Session { child, keyboard, screen }
    }

    fn shown(&self) -> String {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&screen).into_owned()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        let shown = || self.shown().contains(text);
        wait_until(&format!("{text:?} on the terminal"), || shown().then_some(()));
    }

    fn resize(&mut self, columns: u16) {
        tcsetwinsize(&self.keyboard, size_of(columns)).expect("it takes a size");
    }

    fn press_ctrl_c(&mut self) {
        self.keyboard.write_all(b"\x03").expect("the terminal is there");
    }

    #[track_caller]
    fn wait_exit(&mut self) -> Option<i32> {
        wait_until("the program to end", || self.child.try_wait().expect("it is our child")).code()
    }

    /// What it wrote to a standard output of its own, to its end.
    fn stdout(&mut self) -> String {
        let mut text = String::new();
        let stdout = self.child.stdout.as_mut().expect("stdout is apart");
        stdout.read_to_string(&mut text).expect("it writes text");
        text
    }
}

fn size_of(columns: u16) -> Winsize {
    Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Both fail only for a program that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- on the terminal: {:?}", self.shown());
        }
    }
}

fn cli(server: &str, args: &[&str]) -> Command {
    let mut command = replog_cli(["--server", server]);
    command.args(args);
    command
}

/// stdout stays the exact reply; what helps a person goes to the terminal, once for each code.
#[test]
fn a_refused_append_says_on_a_terminal_what_to_do() {
    let cluster = Cluster::of(1).start();
    let s1 = cluster.node("s1").ready.wire.to_string();
    let master = cluster.master.ready.wire.to_string();
    let reply = format!("REJECTED not-master master={master} - appends go to the master\n");
    let mut session = Session::start(cli(&s1, &["append", "x", "y"]), true);
    assert_eq!(session.stdout(), reply.repeat(2));
    assert_eq!(session.wait_exit(), Some(1));
    session.wait_for(&format!("appends go to the master: replog-cli --server {master} append"));
    assert_eq!(session.shown().matches("appends go to the master:").count(), 1);

    let mut session = Session::start(cli(&master, &["append", "-w", "3", "x"]), true);
    assert!(session.stdout().starts_with("REJECTED bad-write-concern w=3 nodes=2 - "));
    session.wait_for("name a smaller number");

    let done = run_to_end(cli(&s1, &["append", "x"]), b"").expect_code(1);
    assert_eq!((done.text(), done.stderr), (reply, String::new()), "elsewhere nothing is said");
}

#[test]
fn a_read_only_cluster_says_where_to_look() {
    let cluster = Cluster::of(2).absent("s1").absent("s2").launch();
    let master = cluster.master.ready.wire.to_string();
    let mut session = Session::start(cli(&master, &["append", "x"]), true);
    assert!(session.stdout().starts_with("REJECTED "));
    assert_eq!(session.wait_exit(), Some(1));
    session.wait_for("start those nodes, and append again");
}

#[test]
fn a_long_wait_says_on_a_terminal_for_whom() {
    let mut cluster = Cluster::of(2).absent("s2").start();
    let master = cluster.master.ready.wire.to_string();
    let mut append = Session::start(cli(&master, &["append", "-w", "3", "x"]), true);
    append.wait_for("waiting for s2 (unhealthy, has 0 of 1)");
    let mut wait = Session::start(cli(&master, &["wait", "1", "-w", "3"]), true);
    wait.wait_for("waiting for s2 (unhealthy, has 0 of 1)");
    cluster.start("s2");
    for session in [&mut append, &mut wait] {
        assert_eq!(session.stdout(), "OK seq=1 epoch=1 have=3/3 need=3 by=master,s1,s2\n");
        assert_eq!(session.wait_exit(), Some(0));
        session.wait_for("\r\x1b[K");
        assert!(session.shown().ends_with("\r\x1b[K"), "the line is taken away at the end");
    }
}

/// Each block is written over the one before; nothing is switched, so nothing is left switched.
#[test]
fn watch_redraws_in_place_and_leaves_a_clean_terminal() {
    let cluster = Cluster::of(1).start();
    let master = cluster.master.ready.wire.to_string();
    let mut session = Session::start(cli(&master, &["status", "--all", "--watch"]), false);
    // Five lines and one for each node.
    session.wait_for("\x1b[6A\r");
    cluster.client().ok("APPEND seen");
    session.wait_for("logs: 2 equal up to 1 ");
    assert!(session.shown().contains("\x1b[32mhealthy\x1b[0m"), "colours on a terminal");
    session.press_ctrl_c();
    assert_eq!(session.wait_exit(), Some(0));
    session.wait_for("\r\x1b[J");
    let shown = session.shown();
    assert!(shown.ends_with("\r\x1b[J"), "the ^C is taken away: {shown:?}");
    assert!(!shown.contains("\x1b[?"), "no mode of the terminal was changed: {shown:?}");
    assert!(!shown.contains("\n\r\n"), "no blank lines between the blocks: {shown:?}");
}

/// A terminal keeps its modes in one place, whichever end is asked.
#[test]
fn a_key_ends_watch_and_the_terminal_is_as_it_was() {
    let cluster = Cluster::of(0).start();
    let master = cluster.master.ready.wire.to_string();
    for end in [&b"q"[..], b"\x1b", b"\x03"] {
        let mut session = Session::start(cli(&master, &["status", "--watch"]), false);
        session.wait_for("mode=normal");
        let modes =
            |session: &Session| tcgetattr(&session.keyboard).expect("it has modes").local_modes;
        let taken = modes(&session);
        assert!(!taken.intersects(LocalModes::ICANON | LocalModes::ECHO), "{taken:?}");
        // Other keys mean nothing: those that begin as Esc does neither.
        session.keyboard.write_all(b"~").expect("the terminal is there");
        session.keyboard.write_all(b"\x1b[A").expect("the terminal is there");
        let blocks = session.shown().matches("mode=normal").count();
        wait_until("another block", || {
            (session.shown().matches("mode=normal").count() > blocks).then_some(())
        });
        session.keyboard.write_all(end).expect("the terminal is there");
        assert_eq!(session.wait_exit(), Some(0), "{end:?}");
        let left = modes(&session);
        assert!(left.contains(LocalModes::ICANON | LocalModes::ECHO), "{end:?}: {left:?}");
        let shown = session.shown();
        assert!(!shown.contains("^C") && !shown.contains('~'), "nothing is echoed: {shown:?}");
    }
}

#[test]
fn no_color_is_heeded() {
    let cluster = Cluster::of(0).start();
    let master = cluster.master.ready.wire.to_string();
    let mut command = cli(&master, &["status", "--all"]);
    command.env("NO_COLOR", "1");
    let mut session = Session::start(command, false);
    session.wait_for("waiting: nobody");
    assert_eq!(session.wait_exit(), Some(0));
    assert!(!session.shown().contains('\x1b'), "{:?}", session.shown());
}

#[test]
fn tail_ends_with_ctrl_c_as_it_should() {
    let cluster = Cluster::of(0).start();
    cluster.client().ok("APPEND one");
    let master = cluster.master.ready.wire.to_string();
    let mut session = Session::start(cli(&master, &["tail", "-f"]), false);
    session.wait_for("1 one");
    session.press_ctrl_c();
    assert_eq!(session.wait_exit(), Some(0));
}

/// An append that waits says what is known, below the line about the waiting.
#[test]
fn ctrl_c_in_an_append_that_waits_says_what_is_known_of_the_entry() {
    let cluster = Cluster::of(2).absent("s2").start();
    let master = cluster.master.ready.wire.to_string();
    let mut session = Session::start(cli(&master, &["append", "-w", "3", "x"]), true);
    session.wait_for("waiting for s2");
    session.press_ctrl_c();
    assert!(session.stdout().starts_with("UNKNOWN seq=- "));
    assert_eq!(session.wait_exit(), Some(3));
    session.wait_for("\r\x1b[Kinterrupted: entry 1 of those given has been sent and has no answer");
}

#[test]
fn whoever_types_an_entry_is_told_how_it_ends() {
    let cluster = Cluster::of(0).start();
    let master = cluster.master.ready.wire.to_string();
    for (args, invitation) in [
        (&["append"][..], "each line you type is an entry; end with Ctrl-D"),
        (&["append", "--file", "-"], "all that you type is one entry; end with Ctrl-D"),
    ] {
        let mut session = Session::start(cli(&master, args), true);
        session.wait_for(invitation);
        session.keyboard.write_all(b"one\ntwo\n\x04").expect("the terminal is there");
        assert_eq!(session.wait_exit(), Some(0));
    }
    assert_eq!(cluster.client().list("").payloads(), ["one", "two", "one\\ntwo\\n"]);
}

/// Lines of the terminal as they stand there in the end, if nothing wraps: each is what was written
/// last between two line feeds.
fn widest(shown: &str) -> usize {
    let pieces = shown.split(['\r', '\n']);
    pieces.map(|piece| piece.replace("\x1b[K", "").chars().count()).max().unwrap_or(0)
}

#[test]
fn the_line_about_the_waiting_never_wraps() {
    let cluster = Cluster::of(2).absent("s2").start();
    let master = cluster.master.ready.wire.to_string();
    let mut session = Session::start_sized(cli(&master, &["append", "-w", "3", "x"]), true, 20);
    session.wait_for("\rwaiting for s2 (un…\x1b[K");
    let shown = session.shown();
    assert!(widest(&shown) < 20, "{shown:?}");
    session.press_ctrl_c();
    assert_eq!(session.wait_exit(), Some(3));
}

/// A dumb terminal knows no way back in a line: it gets a line of its own, now and then.
#[test]
fn a_dumb_terminal_gets_plain_lines() {
    let cluster = Cluster::of(2).absent("s2").start();
    let master = cluster.master.ready.wire.to_string();
    let mut command = cli(&master, &["append", "-w", "3", "x"]);
    command.env("TERM", "dumb");
    let mut session = Session::start(command, true);
    session.wait_for("waiting for s2 (unhealthy, has 0 of 1)\r\n");
    session.press_ctrl_c();
    assert_eq!(session.wait_exit(), Some(3));
    let shown = session.shown();
    let mut command = cli(&master, &["status", "--all", "--watch"]);
    command.env("TERM", "dumb");
    let mut watch = Session::start(command, false);
    watch.wait_for("\r\n\r\nmode=normal ");
    watch.press_ctrl_c();
    assert_eq!(watch.wait_exit(), Some(0));
    for shown in [shown, watch.shown()] {
        let shown = shown.replace("\r\n", "");
        assert!(!shown.contains(['\x1b', '\r']), "{shown:?}");
    }
}

#[test]
fn the_table_fits_the_terminal_and_keeps_the_digests() {
    let cluster = Cluster::of(2).start();
    cluster.client().ok("APPEND w=all one");
    let master = cluster.master.ready.wire.to_string();
    for columns in [20, 40, 80] {
        for args in [&["status", "--all"][..], &["status", "--all", "--watch"]] {
            let mut session = Session::start_sized(cli(&master, args), false, columns);
            session.wait_for("nobody");
            if args.len() == 3 {
                session.press_ctrl_c();
            }
            assert_eq!(session.wait_exit(), Some(0));
            let plain = plain(&session.shown());
            let table = plain.lines().skip_while(|line| !line.starts_with("NODE"));
            let table: Vec<&str> = table.take(4).map(|line| line.trim_end_matches('\r')).collect();
            assert!(
                table.iter().all(|line| line.chars().count() <= usize::from(columns)),
                "{plain}"
            );
            assert!(table[0].ends_with("DIGEST"), "{plain}");
            assert!(table[1..].iter().all(|line| line.ends_with("equal")), "{plain}");
            assert!(plain.contains("no room for"), "what is left out is said: {plain}");
        }
    }
}

/// What stands there without the sequences that colour and clear.
fn plain(shown: &str) -> String {
    let mut plain = String::new();
    let mut rest = shown;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        let end = after.find(|letter: char| letter.is_ascii_alphabetic()).map_or(0, |end| end + 1);
        rest = &after[end..];
    }
    plain + rest
}

#[test]
fn a_change_of_size_is_followed_at_once() {
    let cluster = Cluster::of(1).start();
    let master = cluster.master.ready.wire.to_string();
    let mut session =
        Session::start_sized(cli(&master, &["status", "--all", "--watch"]), false, 100);
    session.wait_for("CONTACT  DIGEST");
    session.resize(40);
    session.wait_for("\x1b[Hmode=normal present=2 quorum=2/2");
    session.wait_for("NODE    MODE    HEALTH   STORED  DIGEST");
    session.press_ctrl_c();
    assert_eq!(session.wait_exit(), Some(0));
}

/// ESC is escaped everywhere. Its one-character forms, U+0080 to U+009F, and the bytes that they are
/// in terminals of eight bits, are characters and bytes like others, but not on a terminal.
#[test]
fn nothing_that_comes_from_a_node_steers_the_terminal() {
    let cluster = Cluster::of(0).start();
    let master = cluster.master.ready.wire.to_string();
    let evil = b"\x1b[31m \xc2\x9b31m \x9b31m \xff ok".as_slice();
    run_to_end(cli(&master, &["append", "--file", "-"]), evil).expect_code(0);
    let shown_payload = "\\x1b[31m \\xc2\\x9b31m \\x9b31m \u{fffd} ok";
    for args in [&["list"][..], &["get", "1"], &["tail"], &["ping", "\u{9b}31m"]] {
        let mut session = Session::start(cli(&master, args), false);
        assert_eq!(session.wait_exit(), Some(0));
        session.wait_for(if args[0] == "ping" { "PONG \\xc2\\x9b31m" } else { shown_payload });
        assert!(!session.shown().contains(['\x1b', '\u{9b}']), "{args:?}: {:?}", session.shown());
    }
    let elsewhere = run_to_end(cli(&master, &["list"]), b"").expect_code(0);
    assert_eq!(elsewhere.stdout, b"1 \\x1b[31m \xc2\x9b31m \x9b31m \xff ok\n");

    run_to_end(cli(&master, &["append", "\u{9b}31m\u{7f}"]), b"").expect_code(0);
    for args in [&["list"][..], &["get", "2"], &["tail", "-n", "1"]] {
        let mut command = cli(&master, args);
        command.args(["--output", "json"]);
        let mut session = Session::start(command, false);
        assert_eq!(session.wait_exit(), Some(0));
        session.wait_for("\"payload\":\"\\u009b31m\\u007f\"");
        assert!(!session.shown().contains(['\u{7f}', '\u{9b}']), "{args:?}: {:?}", session.shown());
    }
    let mut raw = Session::start(cli(&master, &["get", "2", "--raw"]), false);
    assert_eq!(raw.wait_exit(), Some(0));
    raw.wait_for("\u{9b}31m\u{7f}");
}

#[test]
fn an_inspection_does_not_steer_the_terminal_either() {
    let cluster = Cluster::of(0).on_disk().start();
    let master = cluster.master.ready.wire.to_string();
    run_to_end(cli(&master, &["append", "\u{9b}31m\x1b[31m ok"]), b"").expect_code(0);
    let dir = cluster.dir("master");
    let dir = dir.to_str().expect("a path of ours");
    for (args, payload) in [
        (&["inspect", dir][..], "payload=\\xc2\\x9b31m\\x1b[31m ok"),
        (&["inspect", dir, "--output", "json"], "\"\\u009b31m\\u001b[31m ok\""),
    ] {
        let mut session = Session::start(replog(args), false);
        assert_eq!(session.wait_exit(), Some(0));
        session.wait_for(payload);
        assert!(!session.shown().contains(['\x1b', '\u{9b}']), "{:?}", session.shown());
    }
}

#[test]
fn a_message_that_repeats_what_was_typed_does_not_steer_the_terminal() {
    let nobody = "127.0.0.1:1";
    for args in [&["\u{9b}31m\x1b[31m"][..], &["get", "\u{9b}31m\x1b[31m"]] {
        let mut session = Session::start(cli(nobody, args), false);
        assert_eq!(session.wait_exit(), Some(2));
        session.wait_for("--help for more information");
        assert!(!session.shown().contains(['\x1b', '\u{9b}']), "{args:?}: {:?}", session.shown());
    }
}
