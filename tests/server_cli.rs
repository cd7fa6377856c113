//! `replog`: flags, configuration, ready lines, exit codes and signals (interface 1).

mod common;

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::Child;

use common::{
    Cluster, Finished, Gateway, Process, Ready, loopback, replog, reserve_addr, run_to_end,
    wait_until,
};

/// Runs `replog` with flags that are expected to end it.
#[track_caller]
fn run(args: &[&str]) -> Finished {
    run_to_end(replog(args), b"")
}

/// A master with these flags, on free ports.
#[track_caller]
fn master(flags: &[&str]) -> (Process, Ready) {
    let any = format!("{}:0", loopback());
    let mut command = replog(["master", "--memory", "--listen", &any, "--gateway", &any]);
    command.args(flags);
    let process = Process::spawn("master", command);
    let ready = process.wait_ready();
    (process, ready)
}

#[test]
fn help_and_version_work_on_every_level() {
    let version = run(&["--version"]).expect_code(0);
    assert!(version.text().contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    let help = run(&["--help"]).expect_code(0);
    for role in ["dev", "master", "secondary"] {
        assert!(help.text().contains(role), "{role}: {help:?}");
    }
    for (role, flags) in [
        ("dev", ["--secondaries", "--gateway-port", "--wire-port", "--quorum", "--heartbeat"]),
        ("master", ["--secondary", "--quorum", "--write-concern", "--heartbeat", "--config"]),
        ("secondary", ["--id", "--listen", "--gateway", "--faults", "--delay"]),
    ] {
        let help = run(&[role, "--help"]).expect_code(0);
        for flag in flags {
            assert!(help.text().contains(flag), "{role} {flag}: {help:?}");
        }
    }
}

#[test]
fn the_ready_line_tells_id_role_addresses_and_store() {
    let (_master, ready) = master(&[]);
    assert_eq!((ready.id.as_str(), ready.role.as_str()), ("master", "master"));
    assert_eq!(ready.store, "memory");
    let node = Cluster::lone_secondary();
    assert_eq!((node.ready.id.as_str(), node.ready.role.as_str()), ("s1", "secondary"));
    let (_named, ready) = master(&["--id", "Node_7.b-c"]);
    assert_eq!(ready.id, "Node_7.b-c");
}

/// The ready line comes at every log level; nothing on stderr has colour codes off a terminal.
#[test]
fn the_ready_line_comes_at_every_log_level_and_without_colours() {
    for level in ["error", "warn", "info", "debug", "trace"] {
        let (process, ready) = master(&["--log-level", level]);
        assert_eq!(Gateway::connect(ready.gateway).cmd("PING"), "PONG");
        assert!(process.log().iter().all(|line| !line.contains('\x1b')), "{level}");
    }
}

#[test]
fn a_value_may_follow_an_equals_sign() {
    let (_process, ready) = master(&["--id=m1", "--quorum=1", "--set=cluster.ack=received"]);
    assert_eq!(ready.id, "m1");
    run(&["master", "--heartbeat=soon"]).expect_code(2);
}

#[test]
fn the_gateway_can_be_switched_off() {
    let any = format!("{}:0", loopback());
    let flags = ["master", "--memory", "--listen", &any, "--gateway", "none"];
    let process = Process::spawn("master", replog(flags));
    let line = process.wait_for_log_line(&["ready id=master role=master wire="]);
    assert!(line.contains(" gateway=- ") || line.contains(" gateway=none "), "{line}");
}

/// Exit 1 with one clear line that names the address.
#[test]
fn a_port_that_is_taken_ends_the_node_with_1() {
    let listener = TcpListener::bind((loopback(), 0)).expect("a free port");
    let taken = listener.local_addr().expect("a bound socket has an address").to_string();
    let any = format!("{}:0", loopback());
    for (wire, gateway) in [(&taken, &any), (&any, &taken)] {
        for role in ["master", "secondary"] {
            let flags = [role, "--memory", "--listen", wire, "--gateway", gateway];
            let done = run(&flags).expect_code(1);
            assert!(done.stderr.contains(&taken), "{role}: {}", done.stderr);
        }
    }
}

/// Exit 2, naming the key or flag and the value.
#[test]
fn wrong_flags_end_the_node_with_2() {
    let s1 = ["--secondary", "s1=127.0.0.1:1"];
    for (flags, named) in [
        (["--frobnicate"].as_slice(), ["frobnicate"].as_slice()),
        (&["--heartbeat", "soon"], &["heartbeat", "soon"]),
        (&["--heartbeat", "1ms"], &["heartbeat", "1ms"]),
        (&["--heartbeat", "2m"], &["heartbeat", "2m"]),
        (&["--quorum", "2"], &["quorum", "2"]),
        (&["--quorum", "0"], &["quorum", "0"]),
        (&["--quorum", "many"], &["quorum", "many"]),
        (&["--write-concern", "2"], &["write", "concern", "2"]),
        (&["--write-concern", "some"], &["write", "concern", "some"]),
        (&["--secondary", "s1"], &["secondary", "s1"]),
        (&["--secondary", "s 1=127.0.0.1:1"], &["secondary", "s 1"]),
        (&["--id", "a b"], &["id", "a b"]),
        (&["--id", ""], &["id"]),
        (&["--id", "012345678901234567890123456789012"], &["id"]),
        (&["--listen", "nowhere"], &["listen", "nowhere"]),
        (&["--gateway", "nowhere"], &["gateway", "nowhere"]),
        (&["--log-level", "loud"], &["log", "level", "loud"]),
        (&["--set", "cluster.heartbet_interval=1s"], &["heartbet_interval"]),
        (&["--set", "clutter.quorum=1"], &["clutter"]),
        (&["--set", "cluster.quorum"], &["cluster.quorum"]),
        (&["--set", "cluster.quorum=2"], &["quorum", "2"]),
        (&["--set", "cluster.ack=maybe"], &["cluster.ack", "maybe"]),
        (&["--set", "cluster.unhealthy_after=1"], &["unhealthy_after", "1"]),
        (&["--set", "cluster.retry_delays=1s,x"], &["retry_delays", "x"]),
        (&["--set", "limits.payload_max=17MiB"], &["payload_max", "17MiB"]),
        (&["--delay", "1s"], &["delay"]),
    ] {
        let done = run(&[&["master"], flags].concat());
        assert_eq!(done.code, Some(2), "{flags:?}: {}", done.stderr);
        for word in named {
            assert!(done.stderr.contains(word), "{flags:?}, {word}: {}", done.stderr);
        }
    }
    let twice = run(&[&["master"], s1.as_slice(), &["--secondary", "s1=127.0.0.1:2"]].concat());
    assert!(twice.expect_code(2).stderr.contains("s1"));
    let larger = run(&[&["master"], s1.as_slice(), &["--quorum", "3"]].concat());
    assert!(larger.expect_code(2).stderr.contains("quorum"));
    for flag in ["--quorum", "--secondary", "--write-concern", "--heartbeat"] {
        let done = run(&["secondary", flag, "1"]).expect_code(2);
        assert!(done.stderr.contains(flag), "only the master has {flag}: {}", done.stderr);
    }
    run(&["frobnicate"]).expect_code(2);
}

/// The log is in memory in this version: asking for a disk is refused, not ignored.
#[test]
fn a_configuration_file_with_a_mistake_ends_the_node_with_2() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("replog.toml");
    let path_text = path.to_str().expect("a path of letters");
    for (text, named) in [
        ("[cluster]\nheartbet_interval = \"1s\"\n", "heartbet_interval"),
        ("[clutter]\nquorum = 1\n", "clutter"),
        ("[cluster]\nheartbeat_interval = \"1ms\"\n", "heartbeat_interval"),
        ("[cluster]\nquorum = 2\n", "quorum"),
        ("[cluster]\nwrite_concern = \"2\"\n", "write_concern"),
        ("[cluster]\nsuspected_after = 3\nunhealthy_after = 2\n", "unhealthy_after"),
        ("[node]\nid = \"a b\"\n", "a b"),
        ("[limits]\npayload_max = \"a lot\"\n", "payload_max"),
        (
            "[cluster]\nsecondaries = [{ id = \"s1\", addr = \"127.0.0.1:1\" }, \
             { id = \"s1\", addr = \"127.0.0.1:2\" }]\n",
            "s1",
        ),
        ("[cluster\n", "replog.toml"),
    ] {
        fs::write(&path, text).expect("the file is written");
        let done = run(&["master", "--config", path_text]);
        assert_eq!(done.code, Some(2), "{text}: {}", done.stderr);
        assert!(done.stderr.contains(named), "{text}: {}", done.stderr);
    }
    fs::write(&path, "[cluster]\nheartbeat_interval = \"1ms\"\n").expect("the file is written");
    let checked = run(&["secondary", "--config", path_text]).expect_code(2);
    assert!(checked.stderr.contains("heartbeat_interval"), "{}", checked.stderr);
    fs::remove_file(&path).expect("it was there");
    let missing = run(&["master", "--config", path_text]).expect_code(2);
    assert!(missing.stderr.contains(path_text), "{}", missing.stderr);
}

/// Flag over file over default, key by key; durations are strings or numbers.
#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let [nobody, either] = [loopback(), loopback()].map(reserve_addr);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("replog.toml");
    let text = format!(
        "[node]\nid = \"filed\"\n[cluster]\nquorum = 1\nwrite_concern = \"majority\"\n\
         append_timeout = 0.2\nretry_delays = [\"1s\", 2]\nheartbeat_interval = \"200ms\"\n\
         secondaries = [{{ id = \"f1\", addr = \"{nobody}\" }}, \
         {{ id = \"f2\", addr = \"{either}\" }}]\n"
    );
    fs::write(&path, text).expect("the file is written");
    let config = ["--config", path.to_str().expect("a path of letters")];

    let (_process, ready) = master(&config);
    assert_eq!(ready.id, "filed");
    let status = Gateway::connect(ready.gateway).status();
    assert_eq!(status.node.get("quorum"), "1/3");
    assert_eq!(ids(&status), ["f1", "f2"]);
    let mut client = normal_client(ready.gateway);
    let pending = client.ask("APPEND x");
    assert_eq!((pending.class(), pending.get("need")), ("PENDING", "2"), "{}", pending.line());

    let roster = format!("flagged={nobody}");
    let flags = ["--id", "typed", "--quorum", "2", "--secondary", &roster];
    let (_process, ready) = master(&[config.as_slice(), &flags].concat());
    assert_eq!(ready.id, "typed");
    let status = Gateway::connect(ready.gateway).status();
    assert_eq!(status.node.get("quorum"), "2/2");
    assert_eq!(ids(&status), ["flagged"], "the whole roster, instead of the file's");

    let flags = ["--set", "node.id=set", "--set", "cluster.write_concern=1"];
    let (_process, ready) = master(&[config.as_slice(), &flags].concat());
    assert_eq!(ready.id, "set");
    let ok = normal_client(ready.gateway).ok("APPEND x");
    assert_eq!(ok.get("need"), "1");

    let (_process, ready) = master(&[]);
    assert_eq!(ready.id, "master");
    assert_eq!(Gateway::connect(ready.gateway).status().node.get("quorum"), "1/1");
}

fn ids(status: &common::Status) -> Vec<&str> {
    status.others.iter().map(|line| line.get("id")).collect()
}

/// A client of a master that accepts appends.
#[track_caller]
fn normal_client(gateway: SocketAddr) -> Gateway {
    let mut client = Gateway::connect(gateway);
    wait_until("mode normal", || (client.ask("HEALTH").get("mode") == "normal").then_some(()));
    client
}

/// The log file is written besides stderr, and appended to.
#[test]
fn the_log_file_is_appended_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("node.log");
    let path_text = path.to_str().expect("a path of letters");
    fs::write(&path, "from before\n").expect("the file is written");
    let mut length = fs::metadata(&path).expect("it is there").len();
    for _ in 0..2 {
        let (mut process, ready) = master(&["--log-file", path_text]);
        assert_eq!(Gateway::connect(ready.gateway).cmd("PING"), "PONG");
        process.signal("TERM");
        assert_eq!(process.wait_exit(), Some(0));
        let text = fs::read_to_string(&path).expect("it is text");
        assert!(text.starts_with("from before\n"), "{text}");
        assert!(text.len() as u64 > length, "{text}");
        assert!(!text.contains('\x1b'), "{text}");
        length = text.len() as u64;
    }
}

/// With `--log-format json` every line is one JSON object, on stderr and in the file, whatever level
/// is written; the ready line stands in `message`. The file keeps every line of every start.
#[test]
fn json_logs_are_one_object_a_line_and_the_file_keeps_them_over_restarts() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("node.log");
    let path_text = path.to_str().expect("a path of letters");
    let flags = ["--log-format", "json", "--log-level", "trace", "--log-file", path_text];
    let message = |line: &str| -> String {
        let parsed: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        parsed["message"].as_str().unwrap_or_else(|| panic!("no message: {line}")).to_owned()
    };
    let mut before = String::new();
    for starts in 1..=3 {
        let (mut process, ready) = master(&flags);
        let mut client = normal_client(ready.gateway);
        client.ok("APPEND \"quotes\" and \x01 control bytes");
        client.refused("FROBNICATE \"x\"", "ERR unknown-verb");
        process.signal("TERM");
        assert_eq!(process.wait_exit(), Some(0));
        process.wait_for_log_line(&["\"message\":\"stopped\""]);
        let is_ready = |line: &String| message(line).starts_with("ready id=master role=master ");
        assert_eq!(process.log().iter().filter(|line| is_ready(line)).count(), 1);
        let text = fs::read_to_string(&path).expect("it is text");
        assert!(text.starts_with(&before), "what was there is still there");
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(lines.iter().filter(|line| is_ready(line)).count(), starts);
        let messages =
            |lines: &[String]| lines.iter().map(|line| message(line)).collect::<Vec<_>>();
        let of_this_start = &lines[before.lines().count()..];
        assert_eq!(messages(of_this_start), messages(&process.log()), "every line, in both");
        before = text;
    }
}

/// What is less important than the level is not written; the ready line always is.
#[test]
fn the_log_level_leaves_out_what_is_less_important() {
    let lines_with = |level: &str, kinds: &[&str]| {
        let (mut process, ready) = master(&["--log-level", level]);
        normal_client(ready.gateway).ok("APPEND x");
        process.signal("TERM");
        assert_eq!(process.wait_exit(), Some(0));
        let log = process.log();
        log.iter()
            .filter(|line| Ready::of(line).is_none())
            .filter(|line| kinds.iter().any(|kind| line.contains(&format!(" {kind} "))))
            .count()
    };
    assert_eq!(lines_with("error", &["WARN", "INFO", "DEBUG", "TRACE"]), 0);
    assert_eq!(lines_with("info", &["DEBUG", "TRACE"]), 0);
    assert!(lines_with("info", &["INFO"]) > 0);
    assert!(lines_with("debug", &["DEBUG"]) > 0);
}

/// Colours are for people at a terminal who did not refuse them.
#[test]
fn colours_are_on_a_terminal_only_and_no_color_switches_them_off() {
    let on = |term: &str, no_color: Option<&str>| {
        let (mut terminal, stderr) = terminal();
        let any = format!("{}:0", loopback());
        let mut command = replog(["master", "--listen", &any, "--gateway", &any]);
        command.env_remove("NO_COLOR").env("TERM", term);
        command.envs(no_color.map(|value| ("NO_COLOR", value)));
        let mut node = Ended(command.stderr(stderr).spawn().expect("replog runs"));
        // The command holds our end of the terminal's other side.
        drop(command);
        let mut shown = Vec::new();
        let mut chunk = [0; 1024];
        while !String::from_utf8_lossy(&shown).contains("ready id=master") {
            let count = terminal.read(&mut chunk).expect("the node says that it is ready");
            shown.extend_from_slice(&chunk[..count]);
        }
        node.0.kill().expect("it runs");
        String::from_utf8_lossy(&shown).into_owned()
    };
    assert!(on("xterm", None).contains('\x1b'));
    assert!(on("xterm", Some("")).contains('\x1b'), "an empty NO_COLOR says nothing");
    assert!(!on("xterm", Some("1")).contains('\x1b'));
    assert!(!on("dumb", None).contains('\x1b'), "a terminal that has no colours");
    let (process, ready) = master(&[]);
    normal_client(ready.gateway);
    assert!(process.log().iter().all(|line| !line.contains('\x1b')), "off a terminal");
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Fails only for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A terminal: the side that reads what is shown, and the side that a program gets.
fn terminal() -> (fs::File, fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let reading = openpt(flags).expect("a terminal");
    grantpt(&reading).and_then(|()| unlockpt(&reading)).expect("it is ours");
    let program = ioctl_tiocgptpeer(&reading, flags).expect("it has another side");
    (reading.into(), program.into())
}

/// A person who starts a cluster for the first time is told what to try, at addresses that answer.
#[test]
fn dev_tells_a_person_what_to_try() {
    let dev = start_dev(&["--secondaries", "1"]);
    let nodes = dev_nodes(&dev, 2);
    let [master, s1] = [&nodes[0], &nodes[1]].map(|node| node.gateway.port().to_string());
    dev.wait_for_log_line(&["try: nc 127.0.0.1", &master, "APPEND hello"]);
    dev.wait_for_log_line(&["try: nc 127.0.0.1", &s1, "DELAY every=3s"]);
    let wire = nodes[0].wire.to_string();
    dev.wait_for_log_line(&["try: replog-cli", &wire, "status"]);
    let log = dev.log();
    let at = |part: &str| log.iter().position(|line| line.contains(part));
    assert!(at("ready cluster nodes=2 mode=normal") < at("try: nc"), "after it is ready: {log:?}");
}

/// A port of its own for each node, one after the other, when the first one is named.
#[test]
fn dev_gives_the_following_nodes_the_following_ports() {
    // Six ports in a row that were free a moment ago; others may take them, then others are tried.
    let (dev, first) = wait_until("six free ports in a row", || {
        let first = reserve_addr(IpAddr::V4(Ipv4Addr::LOCALHOST)).port();
        let wire = first.checked_add(3).filter(|wire| wire.checked_add(2).is_some())?;
        let (gateway, wire) = (first.to_string(), wire.to_string());
        let flags = ["dev", "--gateway-port", gateway.as_str(), "--wire-port", &wire];
        let dev = Process::spawn("dev", replog(flags));
        let started = wait_until("the first word of dev", || {
            let log = dev.log();
            let ready = log.iter().any(|line| line.contains("ready cluster"));
            let failed = log.iter().any(|line| line.contains("cannot listen"));
            (ready || failed).then_some(ready)
        });
        started.then_some((dev, first))
    });
    let ports: Vec<(u16, u16)> = dev_nodes(&dev, 3)
        .iter()
        .map(|node| (node.gateway.port() - first, node.wire.port() - first))
        .collect();
    assert_eq!(ports, [(0, 3), (1, 4), (2, 5)]);
}

/// Every stage of an append can be found by its number at level debug.
#[test]
fn an_append_can_be_followed_by_its_number_in_the_log() {
    let cluster = Cluster::of(1).master_flags(&["--log-level", "debug"]).start();
    cluster.client().ok("APPEND secret payload");
    cluster.master.process.wait_for_log_line(&["seq=1"]);
    let log = cluster.master.process.log();
    assert!(log.iter().all(|line| !line.contains("secret payload")), "payloads are not logged");
}

/// SIGTERM: appends that wait are answered PENDING, new ones at most `REJECTED stopping`; exit 0.
#[test]
fn a_master_that_is_stopped_answers_the_appends_that_wait() {
    let mut cluster = Cluster::of(2).absent("s2").start();
    let mut waiting = cluster.client();
    waiting.send("APPEND w=3 waits");
    let mut late = cluster.client();
    wait_until("the entry", || (late.list("").entries.len() == 1).then_some(()));
    cluster.master.process.signal("TERM");
    let reply = waiting.line();
    assert!(reply.starts_with("PENDING seq=1 epoch=1 "), "{reply}");
    // The node may be gone before this arrives; what it answers, if anything, is a refusal.
    let _ = std::io::Write::write_all(&mut late.stream(), b"APPEND w=1 late\n");
    if let Some(reply) = late.line_or_end() {
        let reply = String::from_utf8_lossy(&reply).into_owned();
        assert!(reply.starts_with("REJECTED stopping "), "{reply}");
    }
    assert_eq!(cluster.master.process.wait_exit(), Some(0));
}

#[test]
fn sigterm_and_sigint_stop_every_role_with_0() {
    for signal in ["TERM", "INT"] {
        let mut cluster = Cluster::of(1).start();
        cluster.client().ok("APPEND x");
        cluster.master.process.signal(signal);
        assert_eq!(cluster.master.process.wait_exit(), Some(0), "master, {signal}");
        let mut secondary = Cluster::lone_secondary();
        let _idle_client = Gateway::connect(secondary.ready.gateway);
        secondary.process.signal(signal);
        assert_eq!(secondary.process.wait_exit(), Some(0), "secondary, {signal}");
    }
}

#[test]
fn dev_starts_a_whole_cluster_with_fault_verbs() {
    let mut dev = start_dev(&[]);
    dev.wait_for_log_line(&["ready cluster nodes=3 mode=normal"]);
    let nodes = dev_nodes(&dev, 3);
    let named: Vec<(&str, &str, &str)> = nodes
        .iter()
        .map(|node| (node.id.as_str(), node.role.as_str(), node.store.as_str()))
        .collect();
    let secondary = |id| (id, "secondary", "memory");
    assert_eq!(named, [("master", "master", "memory"), secondary("s1"), secondary("s2")]);
    let mut ports: Vec<u16> =
        nodes.iter().flat_map(|node| [node.wire.port(), node.gateway.port()]).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 6, "each node has ports of its own: {nodes:?}");
    assert!(
        nodes.iter().all(|node| node.wire.ip().is_loopback() && node.gateway.ip().is_loopback())
    );

    let mut client = Gateway::connect(nodes[0].gateway);
    let ok = "OK seq=1 epoch=1 have=3/3 need=3 by=master,s1,s2";
    assert_eq!(client.cmd("APPEND hello"), ok);
    Gateway::connect(nodes[1].gateway).ok("DELAY every=1s");
    assert_eq!(client.ok("APPEND w=2 x").get("by"), "master,s2");
    assert_eq!(Gateway::connect(nodes[2].gateway).list("").payloads(), ["hello", "x"]);
    assert!(dev.log().iter().all(|line| !line.contains('\x1b')), "no colours off a terminal");
    dev.signal("TERM");
    assert_eq!(dev.wait_exit(), Some(0));
}

#[test]
fn dev_has_as_many_secondaries_as_asked_for() {
    for (secondaries, nodes) in [("0", 1), ("1", 2), ("4", 5)] {
        let dev = start_dev(&["--secondaries", secondaries, "--heartbeat", "200ms"]);
        dev.wait_for_log_line(&[&format!("ready cluster nodes={nodes} mode=normal")]);
        let master = &dev_nodes(&dev, nodes)[0];
        let reply = Gateway::connect(master.gateway).ok("APPEND x");
        assert_eq!(reply.get("have"), format!("{nodes}/{nodes}"));
    }
}

#[test]
fn dev_takes_quorum_write_concern_and_settings() {
    let flags =
        ["--quorum", "all", "--write-concern", "1", "--set", "cluster.append_timeout=200ms"];
    let dev = start_dev(&flags);
    dev.wait_for_log_line(&["ready cluster nodes=3 mode=normal"]);
    let nodes = dev_nodes(&dev, 3);
    let mut client = Gateway::connect(nodes[0].gateway);
    assert_eq!(client.status().node.get("quorum"), "3/3");
    assert_eq!(client.ok("APPEND x").get("need"), "1");
    Gateway::connect(nodes[2].gateway).ok("MUTE 1000s");
    assert_eq!(client.ask("APPEND w=3 x").class(), "PENDING");
}

#[track_caller]
fn start_dev(flags: &[&str]) -> Process {
    let mut command = replog(["dev", "--gateway-port", "0", "--wire-port", "0"]);
    command.args(flags);
    Process::spawn("dev", command)
}

/// The ready lines of all nodes of a `replog dev`, the master's first.
#[track_caller]
fn dev_nodes(dev: &Process, count: usize) -> Vec<Ready> {
    let mut nodes = wait_until("a ready line for each node", || {
        let nodes: Vec<Ready> = dev.log().iter().filter_map(|line| Ready::of(line)).collect();
        (nodes.len() == count).then_some(nodes)
    });
    nodes.sort_by(|a, b| (a.role.as_str(), &a.id).cmp(&(b.role.as_str(), &b.id)));
    nodes
}
