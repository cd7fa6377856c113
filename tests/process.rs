//! A node as a process among others: outputs that nobody reads, signals, limits of the shell that
//! started it, its last words, and a service manager that waits for it (interface 1).

mod common;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{
    Gateway, Process, READ_TIMEOUT, Ready, loopback, replog, run_to_end, under_shell, wait_until,
};

/// A stop takes at most so long, by the interface.
const STOP: Duration = Duration::from_secs(5);

/// The number of SIGTERM.
const TERM: u32 = 15;

/// A program whose stderr is not collected by the harness. It ends with the test.
struct Unheard(Child);

impl Unheard {
    fn start(mut command: Command, stderr: impl Into<Stdio>) -> Unheard {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        Unheard(command.spawn().expect("the program runs"))
    }

    fn signal(&self, name: &str) {
        let order = format!("kill -{name} {}", self.0.id());
        let status = Command::new("sh").args(["-c", &order]).status().expect("sh runs");
        assert!(status.success(), "{order}: {status}");
    }

    /// The exit code; `None` if a signal ended it.
    #[track_caller]
    fn wait_exit(&mut self) -> Option<i32> {
        wait_until("the program to end", || self.0.try_wait().expect("it is our child")).code()
    }

    /// Stops it as a supervisor would.
    #[track_caller]
    fn stop_in_time(&mut self) {
        let begun = Instant::now();
        self.signal("TERM");
        assert_eq!(self.wait_exit(), Some(0));
        assert!(begun.elapsed() < STOP, "{:?}", begun.elapsed());
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        // Both fail only for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `replog master`, in memory unless the flags say otherwise, on free ports.
fn master(flags: &[&str]) -> Command {
    let any = format!("{}:0", loopback());
    let mut command = replog(["master", "--listen", &any, "--gateway", &any]);
    if !flags.contains(&"--data-dir") {
        command.arg("--memory");
    }
    command.args(flags);
    command
}

fn pipe() -> (BufReader<PipeReader>, OwnedFd) {
    let (reader, writer) = io::pipe().expect("a pipe");
    (BufReader::new(reader), writer.into())
}

/// Reads lines until the ready line, and not one more from the pipe than comes with it.
fn ready_line(reader: &mut impl BufRead) -> Ready {
    loop {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).expect("text"), 0, "ended before it was ready");
        if let Some(ready) = Ready::of(line.trim_end()) {
            return ready;
        }
    }
}

/// Lines of text without their times: each place takes its own, microseconds apart.
fn untimed(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| line.split_once(' ').map_or(line.as_str(), |(_, rest)| rest)).collect()
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

fn make_fifo(path: &Path) {
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a FIFO");
}

fn dropped(client: &mut Gateway, sink: &str) -> u64 {
    let name = format!("replog_log_lines_dropped_total{{sink=\"{sink}\"}} ");
    client.send("METRICS");
    let mut found = None;
    loop {
        let line = client.line();
        if let Some(value) = line.strip_prefix(&name) {
            found = Some(value.parse().expect("a count"));
        }
        if line == "# EOF" {
            return found.unwrap_or_else(|| panic!("{name} is missing"));
        }
    }
}

/// Makes log lines until some are lost: far more than the pipe and the node's own queue hold.
fn log_until_lines_are_lost(client: &mut Gateway, sink: &str) {
    wait_until("log lines to be lost", || {
        for _ in 0..500 {
            client.ok("APPEND another line of the log");
        }
        (dropped(client, sink) > 0).then_some(())
    });
}

#[test]
fn a_stderr_that_nobody_reads_stops_neither_the_node_nor_its_log_file_and_is_told_how_much_is_missing()
 {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node.log");
    let (mut stderr, writer) = pipe();
    let flags = ["--log-level", "trace", "--log-file", utf8(&file)];
    let mut node = Unheard::start(master(&flags), writer);
    let mut client = Gateway::connect(ready_line(&mut stderr).gateway);
    log_until_lines_are_lost(&mut client, "stderr");
    let last = client.ok("APPEND the last one").get("seq").to_owned();
    wait_until("the file to have what stderr has not", || {
        fs::read_to_string(&file).ok().filter(|text| text.contains(&format!("seq={last}")))
    });
    assert_eq!(dropped(&mut client, "file"), 0);

    // Somebody reads again: what was kept comes in its order, then how much is missing, and more.
    let mut missing = false;
    for line in stderr.by_ref().lines() {
        let line = line.expect("text");
        missing |= line.contains("log lines are missing here") && line.contains("lines=");
        if missing {
            break;
        }
    }
    assert!(missing, "stderr ended without a word about what is missing");
    node.stop_in_time();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("text");
    assert!(rest.contains("stopped"), "the last line before the end: {rest}");
}

#[test]
fn a_node_whose_stderr_is_stuck_stops_in_time() {
    for flags in
        [["--log-level", "trace"].as_slice(), &["--log-level", "trace", "--log-format", "json"]]
    {
        let (mut stderr, writer) = pipe();
        let mut node = Unheard::start(master(flags), writer);
        let mut client = Gateway::connect(ready_line(&mut stderr).gateway);
        log_until_lines_are_lost(&mut client, "stderr");
        node.stop_in_time();
    }
}

/// Ctrl-S at the terminal, as `replog dev` meets it: all its nodes go on.
#[test]
fn a_terminal_that_is_held_stops_no_node_of_dev() {
    use rustix::termios::{Action, tcflow};
    let (terminal, stderr) = terminal();
    let held = stderr.try_clone().expect("one more descriptor");
    let flags = ["dev", "--gateway-port", "0", "--wire-port", "0", "--set", "log.level=trace"];
    let mut dev = Unheard::start(replog(flags), stderr);
    let mut shown = BufReader::new(terminal.try_clone().expect("one more"));
    let ready =
        wait_until("the master", || Some(ready_line(&mut shown)).filter(|it| it.role == "master"));
    let mut client = Gateway::connect(ready.gateway);
    wait_until("appends to be accepted", || {
        (client.ask("HEALTH").get("mode") == "normal").then_some(())
    });
    // Output is suspended before anything more is read: whatever comes now stays with the nodes.
    tcflow(&held, Action::OOff).expect("a terminal can be held");
    log_until_lines_are_lost(&mut client, "stderr");
    dev.stop_in_time();
}

#[test]
fn a_log_file_that_is_a_fifo_without_a_reader_holds_up_neither_start_nor_run_nor_stop() {
    let dir = tempfile::tempdir().expect("a directory");
    let fifo = dir.path().join("fifo");
    make_fifo(&fifo);
    let flags = ["--log-level", "trace", "--log-file", utf8(&fifo)];
    let mut process = Process::spawn("master", master(&flags));
    let mut client = Gateway::connect(process.wait_ready().gateway);
    log_until_lines_are_lost(&mut client, "file");
    assert_eq!(dropped(&mut client, "stderr"), 0);
    let begun = Instant::now();
    process.signal("TERM");
    assert_eq!(process.wait_exit(), Some(0));
    assert!(begun.elapsed() < STOP, "{:?}", begun.elapsed());
    process.wait_for_log_line(&["stopped"]);
}

/// `mv node.log node.log.1; kill -HUP`: what logrotate does.
#[test]
fn a_hangup_opens_the_log_file_anew_and_loses_no_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, moved) = (dir.path().join("node.log"), dir.path().join("node.log.1"));
    let mut process =
        Process::spawn("master", master(&["--log-level", "debug", "--log-file", utf8(&path)]));
    let mut client = Gateway::connect(process.wait_ready().gateway);
    client.ok("APPEND before");
    fs::rename(&path, &moved).expect("the file is there");
    client.ok("APPEND between");
    process.signal("HUP");
    wait_until("the new file to say so", || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.contains("the log file was opened anew").then_some(())
    });
    client.ok("APPEND after");
    process.signal("TERM");
    assert_eq!(process.wait_exit(), Some(0));
    process.wait_for_log_line(&["stopped"]);
    let lines = |path: &Path| -> Vec<String> {
        let text = fs::read_to_string(path).expect("it is text");
        text.lines().map(str::to_owned).collect()
    };
    let both = [lines(&moved), lines(&path)].concat();
    assert_eq!(untimed(&both), untimed(&process.log()), "every line, in its order");
}

#[test]
fn a_log_file_that_cannot_be_opened_anew_leaves_the_one_that_is_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let below = dir.path().join("logs");
    fs::create_dir(&below).expect("a directory");
    let path = below.join("node.log");
    let mut process = Process::spawn("master", master(&["--log-file", utf8(&path)]));
    process.wait_ready();
    let moved = dir.path().join("moved");
    fs::rename(&below, &moved).expect("it is there");
    process.signal("HUP");
    process.wait_for_log_line(&["WARN", "could not be opened anew", "node.log"]);
    process.signal("TERM");
    assert_eq!(process.wait_exit(), Some(0));
    let text = fs::read_to_string(moved.join("node.log")).expect("it is text");
    assert!(text.contains("could not be opened anew") && text.contains("stopped"), "{text}");
}

#[test]
fn signals_that_a_node_has_no_use_for_end_no_node() {
    for role in ["master", "secondary"] {
        let any = format!("{}:0", loopback());
        let flags = [role, "--memory", "--listen", &any, "--gateway", &any];
        let mut process = Process::spawn(role, replog(flags));
        let ready = process.wait_ready();
        for signal in ["HUP", "USR1", "USR2", "PIPE", "XFSZ"] {
            process.signal(signal);
        }
        process.wait_for_log_line(&["no log.file", "signal=\"HUP\""]);
        process.wait_for_log_line(&["ignored", "signal=\"USR1\""]);
        process.wait_for_log_line(&["ignored", "signal=\"USR2\""]);
        assert_eq!(Gateway::connect(ready.gateway).cmd("PING"), "PONG");
        process.signal("TERM");
        assert_eq!(process.wait_exit(), Some(0));
    }
}

/// `nohup`: who started the node had the signal ignored, and so it stays.
#[test]
fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, moved) = (dir.path().join("node.log"), dir.path().join("node.log.1"));
    let ignoring = under_shell(&master(&["--log-file", utf8(&path)]), "trap '' HUP USR1");
    let mut process = Process::spawn("master", ignoring);
    process.wait_ready();
    fs::rename(&path, &moved).expect("the file is there");
    process.signal("HUP");
    process.signal("USR1");
    process.signal("USR2");
    process.wait_for_log_line(&["ignored", "signal=\"USR2\""]);
    process.signal("TERM");
    assert_eq!(process.wait_exit(), Some(0));
    assert!(!path.exists(), "nothing was opened anew");
    assert!(process.log().iter().all(|line| !line.contains("USR1")), "{:?}", process.log());
}

#[test]
fn a_terminal_that_hangs_up_stops_the_node_cleanly() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("node.log");
    let (terminal, stderr) = terminal();
    let mut node = Unheard::start(master(&["--log-file", utf8(&path)]), stderr);
    ready_line(&mut BufReader::new(terminal));
    // Our end is closed by now: that is the hang-up, of which a shell tells what it started.
    node.signal("HUP");
    assert_eq!(node.wait_exit(), Some(0));
    let text = fs::read_to_string(&path).expect("it is text");
    assert!(text.contains("the terminal hung up") && text.contains("stopped"), "{text}");
}

/// A terminal: the side that reads what is shown, and the side that a program gets.
fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let reading = openpt(flags).expect("a terminal");
    grantpt(&reading).and_then(|()| unlockpt(&reading)).expect("it is ours");
    let program = ioctl_tiocgptpeer(&reading, flags).expect("it has another side");
    (reading.into(), program.into())
}

/// `ulimit -f`: a log file that may not grow is one that cannot be written, and no reason to die.
#[test]
fn a_file_size_limit_of_the_shell_does_not_end_a_node_that_logs() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("node.log");
    let command = master(&["--log-level", "trace", "--log-file", utf8(&path)]);
    let mut process = Process::spawn("master", under_shell(&command, "ulimit -f 16"));
    let mut client = Gateway::connect(process.wait_ready().gateway);
    wait_until("the file to have all that it may have", || {
        client.ok("APPEND another line of the log");
        (dropped(&mut client, "file") > 0).then_some(())
    });
    process.wait_for_log_line(&["WARN", "log lines cannot be written", "sink=\"file\""]);
    process.signal("TERM");
    assert_eq!(process.wait_exit(), Some(0));
    process.wait_for_log_line(&["stopped"]);
    let text = fs::read_to_string(&path).expect("it is text");
    assert!(text.len() <= 16 * 1024, "{}", text.len());
}

/// The log itself under the same limit: whatever the node does, it says why.
#[test]
fn a_file_size_limit_of_the_shell_ends_no_node_without_a_word() {
    let dir = tempfile::tempdir().expect("a directory");
    let flags = ["--data-dir", utf8(dir.path())];
    let mut process = Process::spawn("master", under_shell(&master(&flags), "ulimit -f 2048"));
    let ready = wait_until("a node that is ready, or its reason", || {
        let log = process.log();
        let ready = log.iter().find_map(|line| Ready::of(line));
        let reason = log.iter().any(|line| line.contains("ERROR"));
        (ready.is_some() || reason).then_some(ready)
    });
    if let Some(ready) = ready {
        let mut client = Gateway::connect(ready.gateway);
        let payload = "x".repeat(100_000);
        wait_until("an append that is refused", || {
            client.send(&format!("APPEND {payload}"));
            let reply = client.line_or_end();
            reply.is_none_or(|reply| !reply.starts_with(b"OK")).then_some(())
        });
        process.signal("TERM");
    }
    assert!(process.wait_exit().is_some(), "no signal ended it");
}

/// A client that takes nothing keeps a stop waiting, within bounds. Supervisors and wrappers repeat
/// themselves; a person who does so does not want to wait.
#[test]
fn a_second_terminate_changes_nothing_and_a_second_interrupt_ends_at_once() {
    for (signal, code) in [("TERM", 0), ("INT", 130)] {
        let flags = ["--set", "limits.write_timeout=1000s", "--set", "limits.output_max=64MiB"];
        let mut node = Process::spawn("master", master(&flags));
        let ready = node.wait_ready();
        let mut client = Gateway::connect(ready.gateway);
        let payload = "\x01".repeat(1 << 20);
        for _ in 0..8 {
            client.ok(&format!("APPEND {payload}"));
        }
        let mut idle = Gateway::connect(ready.gateway);
        idle.send("LIST");
        let begun = Instant::now();
        let exit = wait_until("the node to end", || {
            node.signal(signal);
            node.try_exit()
        });
        assert_eq!(exit, Some(code), "{signal}");
        assert!(begun.elapsed() < STOP, "{signal}: {:?}", begun.elapsed());
        let last = node.log().pop().expect("a last line");
        match code {
            0 => assert!(last.contains("stopped"), "{last}"),
            _ => assert!(last.contains("interrupted again") && last.contains("130"), "{last}"),
        }
    }
}

/// What cannot be told is not waited for: nobody reads why the start failed.
#[test]
fn a_start_that_fails_ends_although_nobody_reads_why() {
    let listener = std::net::TcpListener::bind((loopback(), 0)).expect("a free port");
    let taken = listener.local_addr().expect("it is bound").to_string();
    for (flags, code) in [
        (["--frobnicate"].as_slice(), 2),
        (&["--quorum", "9"], 2),
        (&["--log-format", "json", "--quorum", "9"], 2),
        (&["--gateway", "none", "--memory", "--listen", &taken], 1),
    ] {
        let (_reader, mut full) = io::pipe().expect("a pipe");
        full.write_all(&[b'x'; 64 << 10]).expect("a pipe holds so much");
        let mut command = replog(["master"]);
        command.args(flags);
        let mut node = Unheard::start(command, OwnedFd::from(full));
        assert_eq!(node.wait_exit(), Some(code), "{flags:?}");
    }
}

/// A directory that takes for ever to be opened, as on a file system that hangs or a log of terabytes.
#[test]
fn a_stop_during_the_start_is_a_stop() {
    for signal in ["TERM", "INT"] {
        let dir = tempfile::tempdir().expect("a directory");
        let meta = dir.path().join("meta");
        make_fifo(&meta);
        let mut process = Process::spawn("master", master(&["--data-dir", utf8(dir.path())]));
        // It would wait for a writer of this FIFO for ever.
        wait_until("the node to hear signals", || process.catches(TERM).then_some(()));
        let begun = Instant::now();
        process.signal(signal);
        assert_eq!(process.wait_exit(), Some(0), "{signal}: {:?}", process.log());
        assert!(begun.elapsed() < STOP, "{:?}", begun.elapsed());
        process.wait_for_log_line(&["stopped before it was ready"]);
    }
}

/// The same where only one node of several cannot get on.
#[test]
fn a_stop_during_the_start_of_dev_is_a_stop() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("s1")).expect("a directory");
    let meta = dir.path().join("s1/meta");
    make_fifo(&meta);
    let ports = ["dev", "--gateway-port", "0", "--wire-port", "0"];
    let mut dev = Process::spawn("dev", {
        let mut command = replog(ports);
        command.arg("--data-dir").arg(dir.path());
        command
    });
    dev.wait_for_log_line(&["ready id=master"]);
    let begun = Instant::now();
    dev.signal("TERM");
    assert_eq!(dev.wait_exit(), Some(0), "{:?}", dev.log());
    assert!(begun.elapsed() < STOP, "{:?}", begun.elapsed());
}

/// What a line of JSON says of the end.
#[track_caller]
fn last_word(text: &str) -> (String, i64) {
    let last = text.lines().last().expect("a last line");
    let line: serde_json::Value =
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"));
    assert_eq!(line["level"], "ERROR", "{last}");
    let code = line["exit_code"].as_i64().unwrap_or_else(|| panic!("no exit code: {last}"));
    (line["message"].as_str().expect("a message").to_owned(), code)
}

/// Whatever keeps a node from starting: the last line of stderr and of the file, once, as JSON.
#[test]
fn the_reason_of_a_start_that_failed_is_the_last_log_line_in_both_places() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let holder = Process::spawn("holder", master(&["--data-dir", utf8(&data)]));
    let taken = holder.wait_ready().wire.to_string();
    let any = format!("{}:0", loopback());
    let config = dir.path().join("replog.toml");
    fs::write(&config, "[cluster]\nquorom = 2\n").expect("the file is written");
    let some = ["--listen", any.as_str(), "--gateway", any.as_str()];
    for (flags, code, part) in [
        (["--memory", "--listen", &taken, "--gateway", &any].as_slice(), 1, taken.as_str()),
        (&[&some[..], &["--data-dir", utf8(&data)]].concat(), 1, "in use"),
        (&[&some[..], &["--quorum", "9"]].concat(), 2, "cluster.quorum"),
        (&[&some[..], &["--config", utf8(&config)]].concat(), 2, "quorom"),
        (&[&some[..], &["--config", "no-such.toml"]].concat(), 2, "no-such.toml"),
        (&[&some[..], &["--set", "clutter.quorum=1"]].concat(), 2, "clutter"),
        (&[&some[..], &["--accept-data-loss", "x"]].concat(), 2, "--accept-data-loss"),
    ] {
        let file = dir.path().join("node.log");
        let mut command = replog(["master"]);
        command.args(flags).args(["--log-format", "json", "--log-file", utf8(&file)]);
        let done = run_to_end(command, b"").expect_code(code);
        let text = fs::read_to_string(&file).expect("the file is there");
        let (message, exit_code) = last_word(&text);
        assert_eq!(last_word(&done.stderr), (message.clone(), exit_code), "the same in both");
        assert_eq!(done.stderr.matches("ERROR").count(), 1, "once: {}", done.stderr);
        assert_eq!(exit_code, i64::from(code));
        assert!(message.starts_with("replog: ") && message.contains(part), "{part}: {message}");
        assert_eq!(text.matches("ERROR").count(), 1, "once: {text}");
        fs::remove_file(&file).expect("it is there");
    }
}

/// Flags that nobody understands say nothing about the log; the environment still does.
#[test]
fn a_usage_error_goes_where_the_environment_says() {
    let plain = run_to_end(replog(["master", "--frobnicate"]), b"").expect_code(2);
    assert!(plain.stderr.starts_with("replog: "), "{}", plain.stderr);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node.log");
    let mut command = replog(["master", "--frobnicate"]);
    command.env("REPLOG_LOG_FORMAT", "json").env("REPLOG_LOG_FILE", &file);
    let done = run_to_end(command, b"").expect_code(2);
    let text = fs::read_to_string(&file).expect("the file is there");
    assert_eq!(last_word(&text), last_word(&done.stderr), "the same in both");
    assert!(last_word(&text).0.contains("--frobnicate"), "{text}");
}

#[test]
fn a_log_file_that_cannot_be_opened_is_told_in_the_format_that_was_asked_for() {
    let flags = ["--log-format", "json", "--log-file", "/no/such/directory/node.log"];
    let done = run_to_end(master(&flags), b"").expect_code(1);
    let (message, code) = last_word(&done.stderr);
    assert_eq!((done.stderr.lines().count(), code), (1, 1), "{}", done.stderr);
    assert!(message.contains("log.file"), "{message}");
}

/// systemd, `Type=notify`: the socket has a path, or a name of its own.
#[test]
fn a_service_manager_is_told_when_the_node_is_ready_and_when_it_stops() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let name = format!("replog-test-{}", std::process::id());
    let hidden = SocketAddr::from_abstract_name(&name).expect("a name");
    let sockets = [
        (utf8(&path).to_owned(), UnixDatagram::bind(&path).expect("a socket")),
        (format!("@{name}"), UnixDatagram::bind_addr(&hidden).expect("a socket")),
    ];
    let dev = || replog(["dev", "--gateway-port", "0", "--wire-port", "0"]);
    for (address, socket) in &sockets {
        socket.set_read_timeout(Some(READ_TIMEOUT)).expect("a timeout");
        for (mut command, ready) in [(master(&[]), "ready id="), (dev(), "ready cluster")] {
            command.env("NOTIFY_SOCKET", address);
            let mut process = Process::spawn("told", command);
            let mut said = [0; 64];
            let count = socket.recv(&mut said).expect("a word");
            assert_eq!(&said[..count], b"READY=1");
            process.wait_for_log_line(&[ready]);
            process.signal("TERM");
            let count = socket.recv(&mut said).expect("a word");
            assert_eq!(&said[..count], b"STOPPING=1");
            assert_eq!(process.wait_exit(), Some(0));
        }
    }
}

/// Nobody is behind the name: that is not the node's trouble.
#[test]
fn a_service_manager_that_is_not_there_is_a_warning() {
    let mut command = master(&[]);
    command.env("NOTIFY_SOCKET", "/no/such/socket");
    let mut process = Process::spawn("master", command);
    process.wait_ready();
    process.wait_for_log_line(&["WARN", "the service manager was not told", "/no/such/socket"]);
    process.signal("TERM");
    assert_eq!(process.wait_exit(), Some(0));
}

/// Both addresses of `localhost` are served, on one port: a client may try either.
#[test]
fn localhost_listens_on_all_that_the_name_stands_for() {
    let addrs = std::net::ToSocketAddrs::to_socket_addrs("localhost:1").expect("it is known");
    let ips: Vec<_> = addrs.map(|addr| addr.ip()).collect();
    let flags = ["secondary", "--memory", "--listen", "localhost:0", "--gateway", "localhost:0"];
    let mut process = Process::spawn("s1", replog(flags));
    let ready = process.wait_ready();
    for ip in ips {
        if std::net::TcpListener::bind((ip, 0)).is_ok() {
            let addr = std::net::SocketAddr::new(ip, ready.gateway.port());
            assert_eq!(Gateway::connect(addr).cmd("PING"), "PONG", "{addr}");
        }
    }
    process.signal("TERM");
    assert_eq!(process.wait_exit(), Some(0));
}

/// A cluster of one has nobody to wait for.
#[test]
fn a_cluster_of_one_accepts_appends_as_soon_as_it_is_ready() {
    let flags = ["dev", "--secondaries", "0", "--gateway-port", "0", "--wire-port", "0"];
    let begun = Instant::now();
    let dev = Process::spawn("dev", replog(flags));
    dev.wait_for_log_line(&["ready cluster nodes=1 mode=normal"]);
    assert!(begun.elapsed() < replog::limits::ROSTER_WAIT, "{:?}", begun.elapsed());
}
