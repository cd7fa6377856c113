//! What would otherwise silently be something else: contradictions, blanks, addresses that are none.

use super::*;

/// A variable that somebody forgot to set must not make a cluster of one: that is said on purpose.
#[test]
fn a_roster_of_nothing_is_refused_unless_it_is_meant() {
    let way_out = "--set cluster.secondaries=";
    for blank in ["", " ", "\t"] {
        let variable = [("REPLOG_CLUSTER_SECONDARIES", blank)];
        for role in ["master", "secondary"] {
            let parts = ["cluster.secondaries", "REPLOG_CLUSTER_SECONDARIES", way_out];
            refusal_in(&variable, &[role], &parts);
        }
        // Also where a file below it has a roster, and not where a flag above it has one.
        assert_eq!(node_in(&variable, &["master", "--secondary", "s1=h:1"]).cluster.nodes(), 2);
        let flag = ["cluster.secondaries", "set by --secondary", way_out];
        refusal(&["master", "--secondary", blank], &flag);
        file_refusal(
            &format!("[cluster]\nsecondaries = {blank:?}"),
            &["cluster.secondaries", way_out],
        );
        let meant = format!("cluster.secondaries={blank}");
        assert_eq!(node_in(&variable, &["master", "--set", &meant]).cluster.nodes(), 1);
    }
    refusal_in(&[("REPLOG_CLUSTER_SECONDARIES", ",")], &["master"], &["cluster.secondaries"]);
    refusal_in(&[("REPLOG_CLUSTER_SECONDARIES", "s1=h:1,")], &["master"], &["cluster.secondaries"]);
    refusal(&["master", "--secondary", "", "--secondary", "s2=h:2"], &["cluster.secondaries"]);
    refusal(&["master", "--secondary", "s1="], &["cluster.secondaries", "s1="]);
    assert_eq!(from_file("[cluster]\nsecondaries = []").unwrap().cluster.nodes(), 1);
}

#[test]
fn no_two_nodes_share_an_address_or_nearly_a_name() {
    let with = |roster: &str| {
        let mut args = vec!["master".to_owned()];
        for secondary in roster.split(' ') {
            args.extend(["--secondary".to_owned(), secondary.to_owned()]);
        }
        args
    };
    for (roster, parts) in [
        ("s1=h:1 s2=h:1", ["s1 and s2 are both at h:1", "each address once"]),
        ("s1=h:1 s2=H:1", ["s1 and s2 are both at H:1", "each address once"]),
        ("s1=localhost:1 s2=127.0.0.1:1", ["s1 and s2", "each address once"]),
        ("s1=[::1]:1 s2=localhost:1", ["s1 and s2", "each address once"]),
        ("s1=10.0.0.1:1 s2=[::ffff:10.0.0.1]:1", ["s1 and s2", "each address once"]),
        ("s1=h:1 S1=i:1", ["s1 and S1", "case"]),
        ("Master=h:1", ["Master", "node.id"]),
        ("s1=127.0.0.1:9000", ["s1=127.0.0.1:9000 is the master itself", "node.listen"]),
        ("s1=localhost:9000", ["s1=localhost:9000 is the master itself", "node.listen"]),
        ("s1=127.0.0.1:8000", ["s1=127.0.0.1:8000 is the master itself", "node.gateway"]),
    ] {
        let args = with(roster);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        refusal(&args, &[&["cluster.secondaries", "--secondary"], &parts[..]].concat());
    }
    refusal(
        &["master", "--secondary", "s1=0.0.0.0:9001"],
        &["secondaries", "0.0.0.0:9001 leads nowhere"],
    );
    refusal(&["master", "--set", "node.advertise=[::]:1"], &["node.advertise", "leads nowhere"]);
    let all = ["master", "--insecure", "--listen", "0.0.0.0:7000", "--secondary"];
    refusal(&[&all[..], &["s1=127.0.0.1:7000"]].concat(), &["s1", "master itself", "node.listen"]);
    node(&[&all[..], &["s1=10.0.0.1:7000"]].concat());
    let told = ["master", "--set", "node.advertise=me:7000", "--secondary", "s1=me:7000"];
    refusal(&told, &["s1", "master itself", "node.advertise"]);
    // One file may serve all nodes: on a secondary the roster names the node itself.
    let own = ["secondary", "--set", "cluster.secondaries=s1=127.0.0.1:9001,s2=127.0.0.1:9002"];
    node(&own);
    refusal(&["master", "--gateway", "127.0.0.1:9000"], &["node.gateway", "node.listen as well"]);
    assert_eq!(dev(&["dev", "--wire-port=0", "--gateway-port=0"]).nodes.len(), 3);
}

#[test]
fn an_id_is_the_name_of_a_directory() {
    for id in [".", ".."] {
        refusal(&["master", "--id", id], &["node.id", id, "directory", "--id"]);
        let roster = format!("{id}=h:1");
        refusal(&["master", "--secondary", &roster], &["cluster.secondaries", "directory"]);
    }
    assert_eq!(node(&["master", "--id", "..."]).node.id.as_str(), "...");
}

/// Of a directory and memory the upper layer is meant.
#[test]
fn a_data_directory_and_memory_contradict_one_another_in_one_layer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replog.toml");
    let file = |text: &str| std::fs::write(&path, text).unwrap();
    let config = ["master", "--config", path.to_str().unwrap()];
    let parts = ["node.memory", "node.data_dir = d", "one of the two"];
    refusal(&["master", "--memory", "--data-dir", "d"], &parts);
    refusal(&["secondary", "--set", "node.memory=true", "--data-dir", "d"], &parts);
    let both = [("REPLOG_NODE_MEMORY", "true"), ("REPLOG_NODE_DATA_DIR", "d")];
    refusal_in(&both, &["master"], &parts);
    file("[node]\nmemory = true\ndata_dir = \"d\"\n");
    refusal(&config, &parts);

    let of = |environment: &[(&str, &str)], args: &[&str]| node_in(environment, args).node.data_dir;
    let with = |more: &[&'static str]| -> Vec<&str> { [&config[..], more].concat() };
    file("[node]\nmemory = true\n");
    assert_eq!(of(&[], &with(&["--data-dir", "d"])), Some("d".into()));
    assert_eq!(of(&both[1..], &config), Some("d".into()));
    file("[node]\ndata_dir = \"d\"\n");
    assert_eq!(of(&both[..1], &config), None);
    assert_eq!(of(&[], &with(&["--memory"])), None);
    assert_eq!(of(&[], &with(&["--set", "node.memory=false"])), Some("d".into()));
    assert_eq!(of(&both[..1], &["master", "--data-dir", "d"]), Some("d".into()));
}

/// What Kubernetes, and Docker's links before it, set for a service called like a section of ours.
#[test]
fn variables_that_a_scheduler_sets_for_a_service_are_ignored_and_named() {
    let injected = [
        ("REPLOG_NODE_SERVICE_HOST", "10.96.0.12"),
        ("REPLOG_NODE_SERVICE_PORT", "9000"),
        ("REPLOG_NODE_SERVICE_PORT_WIRE", "9000"),
        ("REPLOG_NODE_PORT", "tcp://10.96.0.12:9000"),
        ("REPLOG_NODE_PORT_9000_TCP", "tcp://10.96.0.12:9000"),
        ("REPLOG_NODE_PORT_9000_TCP_PROTO", "tcp"),
        ("REPLOG_NODE_PORT_9000_TCP_PORT", "9000"),
        ("REPLOG_NODE_PORT_9000_TCP_ADDR", "10.96.0.12"),
        ("REPLOG_CLUSTER_PORT_53_UDP", "udp://[fd00::1]:53"),
        ("REPLOG_CLUSTER_PORT_53_UDP_ADDR", "fd00::1"),
        ("REPLOG_LOG_STORE_SERVICE_HOST", "10.96.0.13"),
        ("REPLOG_LIMITS_0_PORT", "sctp://10.96.0.13:1"),
    ];
    for role in ["master", "secondary"] {
        let notes = node_in(&injected, &[role]).notes;
        assert_eq!(notes.len(), 1, "{notes:?}");
        for part in ["REPLOG_CLUSTER_PORT_53_UDP,", "4 more", "enableServiceLinks: false"] {
            assert!(notes[0].contains(part), "{part}: {notes:?}");
        }
    }
    let one = node_in(&injected[..1], &["master"]).notes;
    assert!(one[0].contains("REPLOG_NODE_SERVICE_HOST (Kubernetes"), "{one:?}");
    assert!(node(&["master"]).notes.is_empty());
    // What only looks like it is a mistake as before.
    for (name, value) in [
        ("REPLOG_NODE_PORT", "9000"),
        ("REPLOG_NODE_PORT", "http://10.96.0.12:9000"),
        ("REPLOG_NODE_HOST", "10.96.0.12"),
        ("REPLOG_NODE_SERVICE_HOST", "master"),
        ("REPLOG_NODE_PORT_9000_TCP", "9000"),
        ("REPLOG_NODE_PORT_9000_HTTP", "tcp://10.96.0.12:9000"),
        ("REPLOG_NODE_PORT_9000_TCP_NAME", "x"),
        ("REPLOG_NODE_TRANSPORT", "tcp://10.96.0.12:9000"),
    ] {
        let parts = [name, "there is no key", "enableServiceLinks: false"];
        refusal_in(&[(name, value)], &["master"], &parts);
    }
}

#[test]
fn an_address_that_is_none_gets_the_sentence_that_shows_the_way_out() {
    for (addr, part) in [
        ("::1:9000", "[::1]:9000"),
        ("http://127.0.0.1:9000", "leave out http://"),
        ("256.0.0.1:9000", "not an IPv4 address"),
        (":9000", "a host is missing"),
        ("*:9000", "a host is missing"),
    ] {
        for flag in ["--listen", "--gateway"] {
            refusal(&["master", flag, addr], &[flag, addr, part, "allowed is host:port"]);
        }
        let roster = format!("s1={addr}");
        refusal(&["master", "--secondary", &roster], &["cluster.secondaries", &roster, part]);
        let advertise = format!("node.advertise={addr}");
        refusal(&["master", "--set", &advertise], &["node.advertise", part]);
    }
    let spaced = node(&["master", "--listen", " 127.0.0.1:7000\t", "--secondary", " s1 = h:1 "]);
    assert_eq!(spaced.node.listen, "127.0.0.1:7000");
    assert_eq!(spaced.cluster.secondaries[0].addr, "h:1");
    let local = ["secondary", "--insecure", "--listen", "[fe80::1%lo]:7001"];
    assert_eq!(node(&local).node.listen, "[fe80::1%lo]:7001");
}

#[test]
fn what_is_set_twice_by_one_flag_is_refused() {
    let twice = ["master", "--set", "cluster.ack=stored", "--set", "cluster.ack=received"];
    refusal(&twice, &["--set", "cluster.ack", "twice"]);
    refusal(&["master", "--log-file", " "], &["log.file", "--log-file"]);
    refusal(&["master", "--data-dir", "\t"], &["node.data_dir", "--data-dir"]);
    refusal(&["master", "--log-file", "-"], &["log.file: - is not allowed", "./-"]);
}

/// A flag of another command is no typo: it is said whose it is.
#[test]
fn a_flag_of_another_command_is_called_so() {
    for (command, flag, owners) in [
        ("secondary", "--bootstrap", "only replog master has it"),
        ("secondary", "--accept-data-loss", "only replog master has it"),
        ("master", "--delay", "only replog secondary has it"),
        ("dev", "--memory", "only replog master and replog secondary have it"),
        ("master", "--secondaries", "only replog dev has it"),
    ] {
        refusal(&[command, flag, "1"], &[flag, owners, &format!("replog {command} --help")]);
    }
    let typo = read(&["master", "--bogus"]).unwrap_err().to_string();
    assert!(!typo.contains("only replog"), "{typo}");
}

#[test]
fn a_delay_on_a_master_is_said_to_do_nothing() {
    let notes = node(&["master", "--set", "node.delay=1s"]).notes;
    assert!(notes[0].contains("node.delay (set by --set) does nothing on a master"), "{notes:?}");
    assert!(node(&["secondary", "--delay", "1s"]).notes.is_empty());
    assert!(dev(&["dev", "--set", "node.delay=1s"]).nodes.iter().all(|it| it.notes.is_empty()));
}

/// A refusal goes where log lines go, as far as that was understood before and behind the mistake.
#[test]
fn a_refusal_knows_where_log_lines_go() {
    let log_in = |environment: &[(&str, &str)], args: &[&str]| {
        read_in(environment, args).unwrap_err().log().cloned()
    };
    let json = ["--log-format", "json", "--log-file", "f"];
    for wrong in [
        ["--quorum", "9"].as_slice(),
        &["--config", "no/such.toml"],
        &["--set", "clutter.quorum=1"],
        &["--accept-data-loss", "x"],
        &["--log-level", "loud"],
    ] {
        let log = log_in(&[], &[&["master"], wrong, &json].concat()).unwrap();
        assert_eq!((log.format, log.file), (LogFormat::Json, Some("f".into())), "{wrong:?}");
    }
    let variables = [("REPLOG_LOG_FORMAT", "json"), ("REPLOG_NODE_HOST", "h")];
    assert_eq!(log_in(&variables, &["master"]).unwrap().format, LogFormat::Json);
    assert_eq!(log_in(&variables, &["dev"]).unwrap().format, LogFormat::Json);
    assert_eq!(log_in(&variables, &["master", "--frob"]).unwrap().format, LogFormat::Json);
    assert_eq!(log_in(&[], &["master", "--frob"]), None);
}
