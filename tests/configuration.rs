//! The four layers of the configuration, as the real programs read them: flag, environment, file,
//! default (interface 1). What every single key allows is in `src/config/tests.rs`.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{
    Cluster, Finished, Gateway, Process, Ready, loopback, replog, reserve_addr, run_to_end,
    wait_until,
};
use tempfile::TempDir;

/// What one node is told, layer by layer.
#[derive(Default)]
struct Told {
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    flags: Vec<String>,
}

impl Told {
    fn file(mut self, path: &Path) -> Told {
        self.file = Some(path.to_owned());
        self
    }

    fn environment(mut self, name: &str, value: &str) -> Told {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn flags(mut self, flags: &[&str]) -> Told {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// `replog` in this role, told so.
    fn command(&self, role: &str) -> Command {
        let mut command = replog([role]);
        if let Some(path) = &self.file {
            command.arg("--config").arg(path);
        }
        command.args(&self.flags).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a node on free ports and waits until it is ready.
    #[track_caller]
    fn start(&self, role: &str) -> (Process, Ready) {
        let any = format!("{}:0", loopback());
        let mut command = self.command(role);
        command.args(["--listen", &any, "--gateway", &any]);
        let process = Process::spawn(role, command);
        let ready = process.wait_ready();
        (process, ready)
    }

    /// Runs it, and expects that it does not start: exit code 2, nothing on stdout, one line on
    /// stderr that holds every one of `parts`.
    #[track_caller]
    fn refused(&self, role: &str, parts: &[&str]) {
        let done: Finished = run_to_end(self.command(role), b"").expect_code(2);
        assert_eq!(done.text(), "");
        assert_eq!(done.stderr.lines().count(), 1, "one line: {}", done.stderr);
        for part in parts {
            assert!(done.stderr.contains(part), "{role}, {part}: {}", done.stderr);
        }
    }
}

/// A file with this text; it goes with the directory.
fn file_with(text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("replog.toml");
    fs::write(&path, text).expect("the file is written");
    (dir, path)
}

/// Each set of layers that say something, and which of them is on top.
fn every_set_of_layers() -> impl Iterator<Item = [bool; 3]> {
    (0..8).map(|bits| [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0])
}

/// One key, set four different ways: whichever layers speak, the topmost wins, as STATUS tells.
#[test]
fn the_topmost_layer_wins_whichever_layers_speak() {
    let nobody = || reserve_addr(loopback());
    let roster: Vec<String> = (1..=4).map(|number| format!("s{number}={}", nobody())).collect();
    let roster = format!("cluster.secondaries={}", roster.join(","));
    let (_dir, path) = file_with("[cluster]\nquorum = 1\n");
    for [file, environment, flag] in every_set_of_layers() {
        // By its own flag, and by --set: both are flags.
        for flags in [["--quorum", "4"], ["--set", "cluster.quorum=4"]] {
            let mut told = Told::default().flags(&["--set", &roster]);
            let mut expected = "3/5";
            if file {
                (told, expected) = (told.file(&path), "1/5");
            }
            if environment {
                (told, expected) = (told.environment("REPLOG_CLUSTER_QUORUM", "2"), "2/5");
            }
            if flag {
                (told, expected) = (told.flags(&flags), "4/5");
            }
            let (_process, ready) = told.start("master");
            let status = Gateway::connect(ready.gateway).status();
            let layers = format!("file {file}, environment {environment}, flag {flag}");
            assert_eq!(status.node.get("quorum"), expected, "{layers}");
        }
    }
}

/// The same for a text and for the roster, on the ready line and in STATUS.
#[test]
fn every_layer_may_name_the_node_and_its_roster() {
    let [nobody, either] = [loopback(), loopback()].map(reserve_addr);
    let (_dir, path) = file_with(&format!(
        "[node]\nid = \"filed\"\n[[cluster.secondaries]]\nid = \"f1\"\naddr = \"{nobody}\"\n"
    ));
    for [file, environment, flag] in every_set_of_layers() {
        let mut told = Told::default();
        let mut expected = ("master", vec![]);
        if file {
            (told, expected) = (told.file(&path), ("filed", vec!["f1"]));
        }
        if environment {
            told = told
                .environment("REPLOG_NODE_ID", "envied")
                .environment("REPLOG_CLUSTER_SECONDARIES", &format!("e1={nobody},e2={either}"));
            expected = ("envied", vec!["e1", "e2"]);
        }
        if flag {
            told = told.flags(&["--id", "typed", "--secondary", &format!("t1={nobody}")]);
            expected = ("typed", vec!["t1"]);
        }
        let (_process, ready) = told.start("master");
        let status = Gateway::connect(ready.gateway).status();
        let roster: Vec<&str> = status.others.iter().map(|line| line.get("id")).collect();
        assert_eq!((ready.id.as_str(), roster), expected);
        assert_eq!(status.node.get("id"), expected.0);
    }
}

/// What appends get that do not say what they want comes from the topmost layer too, key by key.
#[test]
fn each_key_comes_from_its_own_topmost_layer() {
    let secondary = Cluster::lone_secondary();
    let roster = format!("s1={}", secondary.ready.wire);
    let (_dir, path) = file_with(
        "[cluster]\nwrite_concern = 1\nack = \"stored\"\nappend_timeout = \"50ms\"\n\
         heartbeat_interval = 0.2\n[node]\nid = \"filed\"\n",
    );
    let told = Told::default()
        .file(&path)
        .environment("REPLOG_CLUSTER_WRITE_CONCERN", "all")
        .environment("REPLOG_CLUSTER_HEARTBEAT_INTERVAL", "300ms")
        .flags(&["--secondary", &roster, "--heartbeat", "100ms"]);
    let (_process, ready) = told.start("master");
    assert_eq!(ready.id, "filed");
    let mut client = Gateway::connect(ready.gateway);
    wait_until("mode normal", || (client.ask("HEALTH").get("mode") == "normal").then_some(()));
    Gateway::connect(secondary.ready.gateway).ok("DELAY every=1000s");
    let reply = client.ask("APPEND x");
    assert_eq!((reply.class(), reply.get("need")), ("PENDING", "2"), "{}", reply.line());
}

/// A typo is never taken for nothing: wherever it is made, the node does not start and names it.
#[test]
fn a_typo_is_refused_in_every_layer() {
    let flag = |flags: &[&str]| Told::default().flags(flags);
    for role in ["master", "secondary", "dev"] {
        flag(&["--quorom", "1"]).refused(role, &["--quorom"]);
        flag(&["--quorom=1"]).refused(role, &["--quorom"]);
        let set = "cluster.quorom=1";
        flag(&["--set", set]).refused(role, &["--set", "cluster.quorom", "quorum"]);
        flag(&["--set", "clutter.quorum=1"]).refused(role, &["--set", "clutter", "cluster"]);
        flag(&["--set", "quorum=1"]).refused(role, &["--set", "quorum"]);
        Told::default()
            .environment("REPLOG_CLUSTER_QUOROM", "1")
            .refused(role, &["REPLOG_CLUSTER_QUOROM", "quorum"]);
        Told::default()
            .environment("REPLOG_NODE_FAULT", "true")
            .refused(role, &["REPLOG_NODE_FAULT", "faults"]);
    }
    for (text, parts) in [
        ("[cluster]\nquorom = 1\n", ["cluster.quorom", "quorum"]),
        ("[clutter]\nquorum = 1\n", ["clutter", "cluster"]),
        ("quorum = 1\n", ["quorum", "no section"]),
        ("[cluster.quorum]\nvalue = 1\n", ["cluster.quorum", "allowed is"]),
    ] {
        let (_dir, path) = file_with(text);
        for role in ["master", "secondary"] {
            Told::default().file(&path).refused(role, &parts);
        }
    }
    let missing = Told::default().file(Path::new("no-such.toml"));
    missing.refused("master", &["--config", "no-such.toml"]);
}

/// The key, the value, the layer and what is allowed are in the one line that a bad value gets.
#[test]
fn a_bad_value_is_refused_with_its_key_its_value_its_layer_and_what_is_allowed() {
    for role in ["master", "secondary"] {
        let (_dir, path) = file_with("[cluster]\nheartbeat_interval = \"1ms\"\n");
        let path_text = path.to_str().expect("a path of letters");
        let key = "cluster.heartbeat_interval";
        let allowed = "50ms to 60s";
        Told::default().file(&path).refused(role, &[key, "1ms", path_text, allowed]);
        let variable = "REPLOG_CLUSTER_HEARTBEAT_INTERVAL";
        let told = Told::default().environment(variable, "2m");
        told.refused(role, &[key, "2m", variable, allowed]);
        let told = Told::default().flags(&["--set", "cluster.heartbeat_interval=soon"]);
        told.refused(role, &[key, "soon", "--set", allowed]);
    }
    let told = Told::default().flags(&["--heartbeat", "61"]);
    told.refused("master", &["cluster.heartbeat_interval", "61", "--heartbeat", "50ms to 60s"]);
    let told = Told::default().environment("REPLOG_CLUSTER_SECONDARIES", "s1=h:1,s1=h:2");
    told.refused("master", &["cluster.secondaries", "s1", "twice", "REPLOG_CLUSTER_SECONDARIES"]);
    let told = Told::default().environment("REPLOG_CLUSTER_WRITE_CONCERN", "2");
    told.refused("master", &["cluster.write_concern", "2", "REPLOG_CLUSTER_WRITE_CONCERN"]);
    let told = Told::default().environment("REPLOG_CLUSTER_UNHEALTHY_AFTER", "1");
    told.refused("master", &["cluster.unhealthy_after", "1", "cluster.suspected_after"]);
}

/// Variables that begin like ours and name no section of ours belong to somebody else.
#[test]
fn an_unknown_section_in_the_environment_is_somebody_else_s() {
    let told = Told::default()
        .environment("REPLOG_SERVER", "not an address")
        .environment("REPLOG_CLUTTER_QUORUM", "9")
        .environment("REPLOG_NODES_ID", "a b")
        .environment("REPLOG", "1")
        .environment("REPLOG_NODE", "1")
        .environment("replog_node_id", "small");
    for (role, id) in [("master", "master"), ("secondary", "s1")] {
        let (_process, ready) = told.start(role);
        assert_eq!(ready.id, id);
    }
}

/// So that one file serves all nodes of a cluster: a secondary refuses a `[cluster]` that cannot be,
/// and does nothing with one that can.
#[test]
fn a_secondary_checks_the_cluster_section_and_ignores_it() {
    let [nobody, either] = [loopback(), loopback()].map(reserve_addr);
    let (_dir, path) = file_with(&format!(
        "[cluster]\nsecondaries = \"s1={nobody},s2={either}\"\nquorum = 3\nwrite_concern = 2\n\
         heartbeat_interval = \"50ms\"\nunhealthy_after = 2\nsuspected_after = 1\n"
    ));
    let (_process, ready) = Told::default().file(&path).start("secondary");
    assert_eq!((ready.id.as_str(), ready.role.as_str()), ("s1", "secondary"));
    let status = Gateway::connect(ready.gateway).status();
    for key in ["quorum", "present", "awaiting"] {
        assert_eq!(status.node.get(key), "-", "{}", status.node.line());
    }
    assert_eq!(status.master().get("connected"), "false", "it dials nobody");
    let told = Told::default().file(&path).environment("REPLOG_CLUSTER_QUORUM", "4");
    told.refused("secondary", &["cluster.quorum", "4", "REPLOG_CLUSTER_QUORUM"]);
    let told = Told::default().flags(&["--set", "cluster.ack=maybe"]);
    told.refused("secondary", &["cluster.ack", "maybe"]);
}

#[test]
fn one_file_serves_all_nodes_of_a_cluster() {
    let (s1, s2) = (reserve_addr(loopback()), reserve_addr(loopback()));
    let (_dir, path) = file_with(&format!(
        "[cluster]\nsecondaries = [{{ id = \"s1\", addr = \"{s1}\" }}, \
         {{ id = \"s2\", addr = \"{s2}\" }}]\nheartbeat_interval = \"200ms\"\n\
         [limits]\npayload_max = \"10\"\n[log]\nlevel = \"debug\"\n"
    ));
    let node = |role: &str, id: &str, listen: &str| {
        let mut command = Told::default().file(&path).command(role);
        let any = format!("{}:0", loopback());
        command.args(["--id", id, "--listen", listen, "--gateway", &any]);
        let process = Process::spawn(id, command);
        let ready = process.wait_ready();
        (process, ready)
    };
    let (_s1, _) = node("secondary", "s1", &s1.to_string());
    let (_s2, _) = node("secondary", "s2", &s2.to_string());
    let (master, ready) = node("master", "master", &format!("{}:0", loopback()));
    let mut client = Gateway::connect(ready.gateway);
    wait_until("all three to be there", || {
        let health = client.ask("HEALTH");
        (health.get("mode") == "normal" && health.get("present") == "3").then_some(())
    });
    let ok = "OK seq=1 epoch=1 have=3/3 need=3 by=master,s1,s2";
    assert_eq!(client.cmd("APPEND x"), ok);
    client.refused("APPEND 12345678901", "REJECTED too-large");
    master.wait_for_log_line(&["DEBUG", "seq=1"]);
}

/// As it is, and with every key that this version takes uncommented: the same node.
#[test]
fn the_example_file_starts_a_node_as_it_is() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("replog.example.toml");
    let text = fs::read_to_string(&example).expect("the example is there");
    let is_refused = |line: &str| {
        ["#data_dir = ", "#memory = ", "#fsync = "].iter().any(|key| line.starts_with(key))
    };
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !is_refused(line) => rest,
            _ => line,
        })
        .collect();
    assert!(uncommented.contains(&"quorum = \"majority\""), "a key with its default");
    let (_dir, all_keys) = file_with(&uncommented.join("\n"));
    for path in [&example, &all_keys] {
        let (_process, ready) = Told::default().file(path).start("master");
        assert_eq!((ready.id.as_str(), ready.role.as_str()), ("master", "master"));
        let status = Gateway::connect(ready.gateway).status();
        assert_eq!(status.node.get("quorum"), "1/1");
    }
    let (_process, ready) = Told::default().file(&example).start("secondary");
    assert_eq!((ready.id.as_str(), ready.role.as_str()), ("s1", "secondary"));
}

/// `--key=value` is `--key value`, also where the value has an equals sign of its own.
#[test]
fn flags_of_a_node_may_follow_an_equals_sign_or_a_space() {
    let spaced = ["--id", "n", "--quorum", "1", "--set", "cluster.write_concern=1"];
    let joined = ["--id=n", "--quorum=1", "--set=cluster.write_concern=1"];
    for flags in [spaced.as_slice(), &joined] {
        let (_process, ready) = Told::default().flags(flags).start("master");
        assert_eq!(ready.id, "n");
        assert_eq!(Gateway::connect(ready.gateway).status().node.get("quorum"), "1/1");
    }
}
