//! Configuration: precedence, ranges and refusals, over all keys.

use std::path::Path;

mod mistakes;

use super::keys::{self, About};
use super::layers::Settings;
use super::*;

fn read_in(environment: &[(&str, &str)], args: &[&str]) -> Result<Invocation, ConfigError> {
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    Invocation::read(args.iter().map(OsString::from), environment)
}

fn read(args: &[&str]) -> Result<Invocation, ConfigError> {
    read_in(&[], args)
}

fn node_in(environment: &[(&str, &str)], args: &[&str]) -> Config {
    match read_in(environment, args) {
        Ok(Invocation::Node(config)) => *config,
        other => panic!("{args:?} gave {other:?}"),
    }
}

fn node(args: &[&str]) -> Config {
    node_in(&[], args)
}

fn dev(args: &[&str]) -> DevConfig {
    match read(args) {
        Ok(Invocation::Dev(config)) => config,
        other => panic!("{args:?} gave {other:?}"),
    }
}

/// The refusal, which must be one line and have all of `parts`.
fn refusal_in(environment: &[(&str, &str)], args: &[&str], parts: &[&str]) {
    let line = match read_in(environment, args) {
        Err(error) => error.to_string(),
        Ok(other) => panic!("{args:?} was accepted: {other:?}"),
    };
    assert!(!line.contains('\n'), "{line:?}");
    for part in parts {
        assert!(line.contains(part), "{line:?} lacks {part:?}");
    }
}

fn refusal(args: &[&str], parts: &[&str]) {
    refusal_in(&[], args, parts);
}

fn help(args: &[&str]) -> String {
    match read(args) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{args:?} gave {other:?}"),
    }
}

/// A master with the text as its file.
fn from_file(text: &str) -> Result<Config, ConfigError> {
    let mut settings = Settings::default();
    file::apply(text, Path::new("replog.toml"), &mut settings);
    build::build(Role::Master, &settings, build::Switches::default())
}

fn file_refusal(text: &str, parts: &[&str]) {
    let line = match from_file(text) {
        Err(error) => error.to_string(),
        Ok(config) => panic!("{text:?} was accepted: {config:?}"),
    };
    for part in parts {
        assert!(line.contains(part), "{line:?} lacks {part:?}");
    }
}

const THREE: [&str; 5] = ["master", "--secondary", "s1=h1:9001", "--secondary", "s2=h2:9002"];

#[test]
fn the_defaults_are_those_of_the_interface() {
    let master = Config::default_for(Role::Master);
    assert_eq!(master.node.id.as_str(), "master");
    assert_eq!(master.node.listen, "127.0.0.1:9000");
    assert_eq!(master.node.gateway.as_deref(), Some("127.0.0.1:8000"));
    assert_eq!(master.node.advertise, None);
    assert!(!master.node.faults && !master.node.insecure);
    assert_eq!(master.cluster.nodes(), 1);
    assert_eq!(master.cluster.quorum, 1);
    assert_eq!(master.cluster.write_concern, WriteConcern::All);
    assert_eq!(master.cluster.ack, AckLevel::Stored);
    assert_eq!(master.cluster.append_timeout, Timeout::Forever);
    assert_eq!(master.cluster.heartbeat_interval, Duration::from_secs(1));
    assert_eq!((master.cluster.suspected_after, master.cluster.unhealthy_after), (2, 5));
    let delays: Vec<_> = master.cluster.retry_delays.iter().map(Duration::as_secs).collect();
    assert_eq!(delays, [1, 2, 5, 10, 30, 60, 90, 180, 300]);
    assert_eq!(master.storage.fsync, Fsync::Always);
    assert_eq!(master.storage.segment_size, 64 << 20);
    assert_eq!(master.limits.payload_max, 1 << 20);
    assert_eq!(master.limits.connections_max, 1024);
    assert_eq!(master.limits.inflight_max, 64 << 20);
    assert_eq!(master.limits.waiting_max, 65_536);
    assert_eq!(master.limits.output_max, 4 << 20);
    assert_eq!(master.limits.write_timeout, Duration::from_secs(10));
    assert_eq!((master.log.level, master.log.format), (Level::INFO, LogFormat::Text));

    let secondary = Config::default_for(Role::Secondary);
    assert_eq!(secondary.node.id.as_str(), "s1");
    assert_eq!(secondary.node.listen, "127.0.0.1:9001");
    assert_eq!(secondary.node.gateway.as_deref(), Some("127.0.0.1:8001"));
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replog.toml");
    std::fs::write(
        &path,
        "[cluster]\nsuspected_after = 3\nheartbeat_interval = \"3s\"\nattempt_timeout = 3\n",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let environment = [
        ("REPLOG_CLUSTER_HEARTBEAT_INTERVAL", "2s"),
        ("REPLOG_CLUSTER_ATTEMPT_TIMEOUT", "2"),
        ("REPLOG_SERVER", "not ours"),
        ("REPLOG_OTHER_KEY", "nor this"),
        ("PATH", "/bin"),
    ];
    let args = ["master", "--config", path, "--set", "cluster.attempt_timeout=1s"];
    let cluster = node_in(&environment, &args).cluster;
    assert_eq!(cluster.attempt_timeout, Duration::from_secs(1));
    assert_eq!(cluster.heartbeat_interval, Duration::from_secs(2));
    assert_eq!(cluster.suspected_after, 3);
    assert_eq!(cluster.unhealthy_after, 5);
}

#[test]
fn a_roster_is_written_alike_in_every_layer() {
    let expected = node(&THREE).cluster.secondaries;
    assert_eq!(expected.len(), 2);
    let environment = [("REPLOG_CLUSTER_SECONDARIES", "s1=h1:9001, s2=h2:9002")];
    assert_eq!(node_in(&environment, &["master"]).cluster.secondaries, expected);
    for text in [
        "[cluster]\nsecondaries = [{ id = \"s1\", addr = \"h1:9001\" }, \"s2=h2:9002\"]",
        "[cluster]\nsecondaries = \"s1=h1:9001,s2=h2:9002\"",
        "[[cluster.secondaries]]\nid = \"s1\"\naddr = \"h1:9001\"\n\
         [[cluster.secondaries]]\nid = \"s2\"\naddr = \"h2:9002\"",
    ] {
        assert_eq!(from_file(text).unwrap().cluster.secondaries, expected, "{text}");
    }
    let flag = node_in(&environment, &["master", "--secondary", "x=y:1"]);
    assert_eq!(flag.cluster.secondaries.len(), 1, "the flag replaces the roster");
}

#[test]
fn a_file_has_numbers_strings_and_lists() {
    let config = from_file(
        "[cluster]\nheartbeat_interval = 0.5\nattempt_timeout = 2\nappend_timeout = \"250ms\"\n\
         retry_delays = [1, \"20ms\", 0.5]\nquorum = 1\nwrite_concern = \"majority\"\n\
         [storage]\nsegment_size = 65536\n[limits]\npayload_max = \"16MiB\"\n\
         [node]\ngateway = \"none\"\n",
    )
    .unwrap();
    assert_eq!(config.cluster.heartbeat_interval, Duration::from_millis(500));
    assert_eq!(config.cluster.attempt_timeout, Duration::from_secs(2));
    assert_eq!(config.cluster.append_timeout, Timeout::For(Duration::from_millis(250)));
    let delays: Vec<_> = config.cluster.retry_delays.iter().map(Duration::as_millis).collect();
    assert_eq!(delays, [1000, 20, 500]);
    assert_eq!(config.cluster.write_concern, WriteConcern::Majority);
    assert_eq!(config.storage.segment_size, 65_536);
    assert_eq!(config.limits.payload_max, 16 << 20);
    assert_eq!(config.node.gateway, None);
}

#[test]
fn a_file_is_refused_by_name() {
    file_refusal("[cluter]\nquorum = 1", &["cluter", "replog.toml", "allowed are node, cluster"]);
    file_refusal("quorum = 1", &["quorum", "no section"]);
    file_refusal("cluster = 1", &["cluster = 1", "is a section"]);
    file_refusal("[cluster]\nqorum = 7", &["cluster.qorum = 7", "replog.toml", "quorum"]);
    file_refusal("[cluster]\nquorum =", &["replog.toml", "line 2"]);
    let wrong_types = [
        ("node", "id", "1"),
        ("node", "listen", "9000"),
        ("node", "faults", "\"true\""),
        ("cluster", "suspected_after", "\"2\""),
        ("cluster", "suspected_after", "2.0"),
        ("cluster", "suspected_after", "-1"),
        ("cluster", "heartbeat_interval", "true"),
        ("cluster", "retry_delays", "5"),
        ("cluster", "retry_delays", "[]"),
        ("cluster", "secondaries", "[{ id = \"s1\" }]"),
        ("cluster", "secondaries", "[{ id = \"s1\", addr = \"h:1\", port = 1 }]"),
        ("cluster", "secondaries", "{ id = \"s1\", addr = \"h:1\" }"),
        ("cluster", "quorum", "1.5"),
        ("cluster", "quorum", "\"most\""),
        ("limits", "payload_max", "\"1MB\""),
        ("log", "level", "\"loud\""),
    ];
    for (section, key, value) in wrong_types {
        let text = format!("[{section}]\n{key} = {value}");
        file_refusal(&text, &[&format!("{section}.{key}: "), "set in replog.toml", "allowed is"]);
    }
}

#[test]
fn a_missing_file_is_refused() {
    refusal(&["master", "--config", "no/such.toml"], &["--config", "no/such.toml", "allowed is"]);
}

#[test]
fn the_environment_is_refused_by_name() {
    for (name, value) in [
        ("REPLOG_CLUSTER_QORUM", "1"),
        ("REPLOG_CLUSTER_QUORUM", "9"),
        ("REPLOG_CLUSTER_QUORUM", ""),
        ("REPLOG_NODE_ID", "a b"),
        ("REPLOG_LOG_LEVEL", "INFO"),
        ("REPLOG_CLUSTER_SECONDARIES", "s1"),
    ] {
        refusal_in(&[(name, value)], &["master"], &[name, value, "environment", "allowed"]);
    }
}

#[cfg(unix)]
#[test]
fn bytes_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = || OsString::from_vec(vec![b'a', 0xff]);
    let environment = [("REPLOG_LOG_FILE".into(), bytes())];
    let line = Invocation::read(["master".into()], environment).unwrap_err().to_string();
    assert!(line.contains("REPLOG_LOG_FILE") && line.contains("UTF-8"), "{line}");
    assert!(Invocation::read(["master".into(), bytes()], []).is_err());
}

#[test]
fn values_out_of_range_are_refused_and_limits_are_not() {
    for assignment in [
        "cluster.heartbeat_interval=49ms",
        "cluster.heartbeat_interval=61s",
        "cluster.suspected_after=0",
        "cluster.attempt_timeout=0",
        "cluster.retry_delays=",
        "cluster.retry_delays=1s,0s",
        "cluster.write_concern=0",
        "cluster.append_timeout=soon",
        "cluster.ack=maybe",
        "storage.segment_size=65535",
        "storage.segment_size=5GiB",
        "storage.fsync_interval=0",
        "limits.payload_max=0",
        "limits.payload_max=16777217",
        "limits.connections_max=0",
        "limits.inflight_max=0",
        "limits.waiting_max=0",
        "limits.output_max=0",
        "limits.write_timeout=0",
        "node.id=",
        "node.id=abcdefghijklmnopqrstuvwxyz-123456",
        "node.listen=9000",
        "node.listen=:9000",
        "node.listen=::1:9000",
        "node.listen=127.0.0.1:65536",
        "node.advertise=localhost:0",
        "node.faults=yes",
        "node.delay=-1s",
        "log.format=xml",
        "log.file=",
    ] {
        let (key, _) = assignment.split_once('=').unwrap();
        refusal(&["master", "--set", assignment], &[&format!("{key}: "), "--set", "allowed is"]);
    }
    for assignment in [
        "cluster.heartbeat_interval=50ms",
        "cluster.heartbeat_interval=60",
        "cluster.append_timeout=0",
        "storage.segment_size=64KiB",
        "storage.segment_size=4GiB",
        "limits.payload_max=16MiB",
        "node.listen=[::1]:0",
        "node.delay=0.5",
    ] {
        node(&["master", "--set", assignment]);
    }
}

/// Values that are not allowed, of every key: as TOML, and as the text of a flag or variable. `None`
/// is for what only one of the two can express.
const BAD_VALUES: &[(&str, Option<&str>, Option<&str>)] = &[
    ("node.id", Some("\"a b\""), Some("a b")),
    ("node.id", Some("\"\""), Some("")),
    ("node.id", Some("7"), Some("a/b")),
    ("node.id", None, Some("012345678901234567890123456789012")),
    ("node.listen", Some("9000"), Some("9000")),
    ("node.listen", Some("\"[::1:9000\""), Some("[::1:9000")),
    ("node.gateway", Some("\"off\""), Some("off")),
    ("node.gateway", Some("false"), Some("127.0.0.1:65536")),
    ("node.advertise", Some("\"master\""), Some("master")),
    ("node.advertise", None, Some("master:0")),
    ("node.data_dir", Some("\"\""), Some("")),
    ("node.data_dir", Some("7"), None),
    ("node.memory", Some("\"yes\""), Some("yes")),
    ("node.memory", Some("1"), Some("1")),
    ("node.faults", Some("\"true\""), Some("on")),
    ("node.delay", Some("\"-1s\""), Some("-1s")),
    ("node.delay", Some("\"25h\""), Some("25h")),
    ("cluster.secondaries", Some("[{ id = \"s1\" }]"), Some("s1")),
    ("cluster.secondaries", Some("[\"s1=h\"]"), Some("s1=h")),
    ("cluster.secondaries", Some("7"), Some("s1=h:1,,")),
    ("cluster.quorum", Some("0"), Some("0")),
    ("cluster.quorum", Some("\"most\""), Some("most")),
    ("cluster.quorum", Some("2"), Some("2")),
    ("cluster.write_concern", Some("0"), Some("0")),
    ("cluster.write_concern", Some("1.5"), Some("1.5")),
    ("cluster.write_concern", Some("2"), Some("2")),
    ("cluster.ack", Some("\"both\""), Some("both")),
    ("cluster.ack", Some("1"), Some("STORED")),
    ("cluster.append_timeout", Some("\"soon\""), Some("soon")),
    ("cluster.append_timeout", Some("-1"), Some("-1")),
    ("cluster.heartbeat_interval", Some("\"49ms\""), Some("49ms")),
    ("cluster.heartbeat_interval", Some("61"), Some("61")),
    ("cluster.suspected_after", Some("0"), Some("0")),
    ("cluster.suspected_after", Some("\"2\""), Some("2.0")),
    ("cluster.unhealthy_after", Some("0"), Some("0")),
    ("cluster.unhealthy_after", Some("1"), Some("1")),
    ("cluster.attempt_timeout", Some("\"9ms\""), Some("9ms")),
    ("cluster.attempt_timeout", Some("true"), Some("1e3")),
    ("cluster.retry_delays", Some("[\"1s\", \"0s\"]"), Some("1s,0s")),
    ("cluster.retry_delays", Some("5"), Some("1s;2s")),
    ("storage.fsync", Some("\"sometimes\""), Some("sometimes")),
    ("storage.fsync", Some("true"), Some("")),
    ("storage.fsync_interval", Some("0"), Some("0")),
    ("storage.fsync_interval", Some("\"often\""), Some("often")),
    ("storage.segment_size", Some("65535"), Some("65535")),
    ("storage.segment_size", Some("\"5GiB\""), Some("5GiB")),
    ("limits.payload_max", Some("0"), Some("0")),
    ("limits.payload_max", Some("\"17MiB\""), Some("17MiB")),
    ("limits.payload_max", Some("\"1MB\""), Some("1MB")),
    ("limits.connections_max", Some("0"), Some("0")),
    ("limits.connections_max", Some("\"many\""), Some("many")),
    ("limits.inflight_max", Some("0"), Some("0")),
    ("limits.inflight_max", Some("\"1025GiB\""), Some("1025GiB")),
    ("limits.waiting_max", Some("0"), Some("0")),
    ("limits.waiting_max", Some("1000001"), Some("1000001")),
    ("limits.output_max", Some("0"), Some("0")),
    ("limits.output_max", Some("-1"), Some("-1")),
    ("limits.write_timeout", Some("\"9ms\""), Some("9ms")),
    ("limits.write_timeout", Some("\"none\""), Some("none")),
    ("log.level", Some("\"loud\""), Some("loud")),
    ("log.level", Some("3"), Some("INFO")),
    ("log.format", Some("\"xml\""), Some("xml")),
    ("log.format", Some("\"JSON\""), Some("JSON")),
    ("log.file", Some("\"\""), Some("")),
    ("log.file", Some("true"), None),
];

/// In the file, in the environment and with `--set`: the refusal is one line that names key, value,
/// layer and what is allowed. A key without a row here fails the test.
#[test]
fn a_bad_value_of_any_key_is_refused_in_every_layer() {
    for about in KEYS {
        let rows = BAD_VALUES.iter().filter(|(key, ..)| *key == about.key);
        let (toml, text): (Vec<_>, Vec<_>) = rows.map(|&(_, toml, text)| (toml, text)).unzip();
        let is_tried = |values: &[Option<&str>]| values.iter().any(Option::is_some);
        assert!(is_tried(&toml), "{} has no bad value for the file", about.key);
        assert!(is_tried(&text), "{} has no bad value for flags", about.key);
        let culprit = |value: &str| format!("{}: {} ", about.key, named(value));
        for value in toml.into_iter().flatten() {
            let file = format!("[{}]\n{} = {value}\n", about.section(), about.name());
            file_refusal(&file, &[&culprit(value), "(set in replog.toml)", "allowed is"]);
        }
        for value in text.into_iter().flatten() {
            let (variable, culprit) = (about.variable(), culprit(value));
            let layer = format!("(set by {variable} in the environment)");
            let parts = [culprit.as_str(), &layer, "allowed is"];
            refusal_in(&[(&variable, value)], &["master"], &parts);
            let assignment = format!("{}={value}", about.key);
            let parts = [culprit.as_str(), "(set by --set)", "allowed is"];
            refusal(&["master", "--set", &assignment], &parts);
        }
    }
    for (key, ..) in BAD_VALUES {
        assert!(KEYS.iter().any(|about| about.key == *key), "there is no key {key}");
    }
}

/// The part of a bad value that a refusal names: of a list the item that is wrong; a text that is
/// empty or has spaces stands in quotes.
fn named(value: &str) -> String {
    match value {
        "[\"1s\", \"0s\"]" => "\"0s\"".to_owned(),
        "[\"s1=h\"]" => "\"s1=h\"".to_owned(),
        "[{ id = \"s1\" }]" => "{ id = \"s1\" }".to_owned(),
        "1s,0s" => "0s".to_owned(),
        "" | "a b" | "s1=h:1,," => format!("{:?}", value.trim_start_matches("s1=h:1,,")),
        _ => value.to_owned(),
    }
}

#[test]
fn a_flag_is_refused_by_name() {
    refusal(&["master", "--heartbeat", "10ms"], &["--heartbeat", "10ms", "50ms to 60s"]);
    refusal(&["master", "--secondary", "s1"], &["--secondary", "s1", "host:port"]);
    refusal(&["master", "--log-level", "loud"], &["--log-level", "loud", "debug"]);
    refusal(&["secondary", "--delay", "x"], &["--delay", "node.delay"]);
    refusal(&["master", "--set", "quorum"], &["--set quorum", "SECTION.KEY=VALUE"]);
    refusal(&["master", "--set", "a.b=c"], &["--set a.b=c", "no section a"]);
    refusal(&["master", "--set", "node.name=c"], &["--set node.name=c", "advertise"]);
    let twice = ["master", "--set", "cluster.quorum=1", "--quorum", "1"];
    refusal(&twice, &["--quorum", "--set cluster.quorum", "twice"]);
}

#[test]
fn usage_errors_are_one_line_with_a_way_out() {
    refusal(&[], &["dev, master, secondary or inspect", "replog --help"]);
    refusal(&["start"], &["start", "replog --help"]);
    refusal(&["master", "--bogus"], &["--bogus", "replog master --help"]);
    refusal(&["master", "--id"], &["--id", "No value"]);
    refusal(&["secondary", "--quorum", "1"], &["--quorum", "replog secondary --help"]);
    refusal(&["master", "--memory=true"], &["true"]);
    refusal(&["inspect"], &["path"]);
    refusal(&["inspect", "replog-data/s1", "--output", "xml"], &["--output", "xml", "json"]);
    refusal(&["inspect", "replog-data/s1", "--limit", "-1"], &["--limit", "-1"]);
}

#[test]
fn an_equals_sign_separates_as_a_space_does() {
    let split = |args: &[&str]| split_equals_signs(args.iter().map(|arg| (*arg).to_owned()));
    assert_eq!(split(&["--set=a.b=c", "x=y"]), ["--set", "a.b=c", "x=y"]);
    assert_eq!(split(&["--id=", "--", "--id=x", "-w=1"]), ["--id", "", "--", "--id=x", "-w=1"]);
    let config = node(&["master", "--id=m", "--secondary=s1=h:1", "--set=log.level=debug"]);
    assert_eq!(config.node.id.as_str(), "m");
    assert_eq!(config.cluster.secondaries[0].addr, "h:1");
    assert_eq!(config.log.level, Level::DEBUG);
}

#[test]
fn the_roster_bounds_quorum_and_write_concern() {
    let with = |more: &[&'static str]| [&THREE[..], more].concat();
    let cluster = node(&with(&["--quorum", "3", "--write-concern", "2"])).cluster;
    assert_eq!((cluster.nodes(), cluster.quorum), (3, 3));
    assert_eq!(cluster.write_concern.resolve(3), Some(2));
    assert_eq!(node(&THREE).cluster.quorum, 2);
    assert_eq!(node(&with(&["--quorum", "all"])).cluster.quorum, 3);
    refusal(&with(&["--quorum", "4"]), &["cluster.quorum", "--quorum", "4", "1 to 3"]);
    refusal(&with(&["--write-concern", "4"]), &["cluster.write_concern", "4", "1 to 3"]);
    refusal(&with(&["--secondary", "s1=h3:1"]), &["cluster.secondaries", "s1", "twice"]);
    refusal(&with(&["--secondary", "master=h:1"]), &["cluster.secondaries", "master"]);
    refusal(&with(&["--secondary", "s3=h:0"]), &["cluster.secondaries", "h:0", "1 to 65535"]);
    let many: Vec<_> = (0..128).map(|k| format!("s{k}=h:1")).collect();
    let many = format!("cluster.secondaries={}", many.join(","));
    refusal(&["master", "--set", &many], &["128", "at most 127"]);
}

#[test]
fn misses_make_suspected_before_unhealthy() {
    refusal(
        &["master", "--set", "cluster.suspected_after=6"],
        &["cluster.unhealthy_after", "5", "cluster.suspected_after = 6", "--set"],
    );
    node(&["master", "--set", "cluster.suspected_after=5"]);
}

#[test]
fn a_secondary_checks_the_cluster_and_ignores_it() {
    assert_eq!(node(&["secondary", "--set", "cluster.quorum=5"]).cluster.quorum, 5);
    refusal(&["secondary", "--set", "cluster.quorum=x"], &["cluster.quorum"]);
    let roster = [("REPLOG_CLUSTER_SECONDARIES", "s1=h:1,s2=h:2")];
    assert_eq!(node_in(&roster, &["secondary"]).cluster.quorum, 2);
    let args = ["secondary", "--set", "cluster.quorum=5"];
    refusal_in(&roster, &args, &["cluster.quorum", "1 to 3"]);
}

#[test]
fn the_log_is_on_disk_unless_it_is_to_be_in_memory() {
    let dir = |args: &[&str]| node(args).node.data_dir;
    assert_eq!(dir(&["master"]), Some("replog-data/master".into()));
    assert_eq!(dir(&["secondary", "--id", "s7"]), Some("replog-data/s7".into()));
    assert_eq!(dir(&["master", "--data-dir", "d"]), Some("d".into()));
    let config = node(&["master", "--memory", "--bootstrap", "--accept-data-loss", "7"]);
    assert!(config.node.memory && config.node.bootstrap);
    assert_eq!(config.node.data_dir, None);
    assert_eq!(config.node.accept_data_loss, Some(crate::types::Seq::new(7)));
    assert_eq!(node(&["master", "--fsync", "never"]).storage.fsync, crate::config::Fsync::Never);
    refusal(&["master", "--fsync", "sometimes"], &["--fsync", "sometimes", "interval"]);
}

#[test]
fn dev_keeps_its_logs_in_memory_or_each_in_a_directory_of_its_own() {
    assert!(dev(&["dev"]).nodes.iter().all(|config| config.node.memory));
    let dirs = dev(&["dev", "--data-dir", "d"]).nodes;
    let dirs: Vec<_> = dirs.into_iter().map(|config| config.node.data_dir).collect();
    assert_eq!(dirs, ["d/master", "d/s1", "d/s2"].map(|dir| Some(dir.into())));
    refusal_in(&[("REPLOG_NODE_DATA_DIR", "d")], &["dev"], &["node.data_dir", "--data-dir"]);
}

#[test]
fn an_address_beyond_loopback_must_be_asked_for() {
    for addr in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "master:1", "127.0.0.1.evil.org:1"] {
        for flag in ["--listen", "--gateway"] {
            refusal(&["master", flag, addr], &[flag, addr, "--insecure"]);
            assert!(node(&["master", flag, addr, "--insecure"]).node.insecure);
        }
    }
    for addr in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1"] {
        node(&["secondary", "--listen", addr, "--gateway", "none"]);
        node(&["secondary", "--gateway", addr]);
    }
    node(&["secondary", "--gateway", "none"]);
}

#[test]
fn dev_gives_each_node_its_own() {
    let nodes = dev(&["dev"]).nodes;
    let names: Vec<_> = nodes.iter().map(|node| node.node.id.as_str()).collect();
    assert_eq!(names, ["master", "s1", "s2"]);
    let wires: Vec<_> = nodes.iter().map(|node| node.node.listen.as_str()).collect();
    assert_eq!(wires, ["127.0.0.1:9000", "127.0.0.1:9001", "127.0.0.1:9002"]);
    let gateways: Vec<_> = nodes.iter().filter_map(|node| node.node.gateway.as_deref()).collect();
    assert_eq!(gateways, ["127.0.0.1:8000", "127.0.0.1:8001", "127.0.0.1:8002"]);
    assert_eq!(nodes[0].role, Role::Master);
    assert!(nodes[1..].iter().all(|node| node.role == Role::Secondary && node.node.faults));
    assert_eq!(nodes[0].cluster.quorum, 2);
    let roster: Vec<_> =
        nodes[0].cluster.secondaries.iter().map(|s| format!("{}={}", s.id, s.addr)).collect();
    assert_eq!(roster, ["s1=127.0.0.1:9001", "s2=127.0.0.1:9002"]);
}

#[test]
fn dev_takes_its_flags() {
    let nodes = dev(&["dev", "--secondaries=3", "--wire-port=0", "--gateway-port=7000"]).nodes;
    assert_eq!(nodes.len(), 4);
    assert!(nodes.iter().all(|node| node.node.listen == "127.0.0.1:0"));
    assert!(nodes[0].cluster.secondaries.iter().all(|s| s.addr == "127.0.0.1:0"));
    assert_eq!(nodes[3].node.gateway.as_deref(), Some("127.0.0.1:7003"));
    let both_free = dev(&["dev", "--secondaries=0", "--wire-port=0", "--gateway-port=0"]).nodes;
    assert_eq!(both_free.len(), 1);

    let nodes = dev(&["dev", "--quorum", "3", "--set", "node.faults=false"]).nodes;
    assert!(nodes.iter().all(|node| node.cluster.quorum == 3 && !node.node.faults));
    refusal(&["dev", "--quorum", "4"], &["cluster.quorum", "4", "1 to 3"]);
    refusal(&["dev", "--secondaries", "128"], &["--secondaries", "128", "0 to 127"]);
    refusal(&["dev", "--wire-port", "65534"], &["--wire-port", "65534", "0 to 65533"]);
    refusal(&["dev", "--wire-port", "8002"], &["--wire-port", "8002", "--gateway-port"]);
    refusal(&["dev", "--set", "node.id=x"], &["node.id", "--set", "replog dev"]);
    let environment = [("REPLOG_NODE_LISTEN", "127.0.0.1:1")];
    refusal_in(&environment, &["dev"], &["node.listen", "REPLOG_NODE_LISTEN"]);
}

#[test]
fn help_and_version_work_on_every_level() {
    for command in ["", "dev", "master", "secondary", "inspect"] {
        let level: Vec<_> = [command].into_iter().filter(|word| !word.is_empty()).collect();
        for flag in ["--help", "-h", "help"] {
            assert!(help(&[&level[..], &[flag]].concat()).starts_with("Usage: replog"));
        }
        let version = help(&[&level[..], &["--version"]].concat());
        assert_eq!(version, format!("replog {}\n", env!("CARGO_PKG_VERSION")));
    }
}

/// The help is written by hand, because argh wants it so; the table of keys has the last word.
#[test]
fn help_names_each_flag_its_key_and_its_default() {
    let common: [(&str, &About); 6] = [
        ("--id", &keys::ID.about),
        ("--listen", &keys::LISTEN.about),
        ("--gateway", &keys::GATEWAY.about),
        ("--log-level", &keys::LEVEL.about),
        ("--log-format", &keys::FORMAT.about),
        ("--log-file", &keys::FILE.about),
    ];
    let master: [(&str, &About); 3] = [
        ("--quorum", &keys::QUORUM.about),
        ("--write-concern", &keys::WRITE_CONCERN.about),
        ("--heartbeat", &keys::HEARTBEAT_INTERVAL.about),
    ];
    let commands = [
        (Role::Master, [&common[..], &master[..]].concat()),
        (Role::Secondary, [&common[..], &[("--delay", &keys::DELAY.about)]].concat()),
    ];
    for (role, flags) in commands {
        let help = help(&[&role.to_string(), "--help"]);
        let words: Vec<_> = help.split_whitespace().collect();
        let help = words.join(" ");
        for (flag, about) in flags {
            let (_, description) = help.split_once(&format!(" {flag} ")).unwrap();
            let (description, _) = description.split_once(" --").unwrap_or((description, ""));
            let default = format!("{}; default: {}", about.key, about.default_for(role));
            assert!(description.contains(&default), "{flag}: {description:?} lacks {default:?}");
        }
    }
}

/// The example file as the table of keys has it: every key with its meaning, its variable, what is
/// allowed, and a line to uncomment.
fn example() -> String {
    let mut text = "\
# The configuration of a replog node: every key with its default.
#
# Uncomment what you want to change and start the node with --config FILE. A flag beats the
# environment, which beats this file, which beats the default; --set SECTION.KEY=VALUE sets any key.
# A duration is written 500ms, 5s, 2m, or a bare number of seconds; a size 4096, 64KiB, 1MiB. A list
# may also be one comma-separated string. A secondary checks [cluster] and ignores it, so that one
# file can serve all nodes of a cluster.
"
    .to_owned();
    let mut section = "";
    for about in KEYS {
        if about.section() != section {
            section = about.section();
            text.push_str(&format!("\n[{section}]\n"));
        }
        let mut comment = about.meaning.trim().to_owned();
        comment.push_str(&format!(" Allowed: {}.", about.allowed));
        comment.push_str(&format!(" Environment: {}.", about.variable()));
        if about.default_master != about.default_secondary {
            comment.push_str(&format!(" Default of a secondary: {}.", about.default_secondary));
        }
        text.push('\n');
        for line in wrapped(&comment, 100) {
            text.push_str(&format!("# {line}\n"));
        }
        text.push_str(&format!("#{} = {}\n", about.name(), as_toml(about)));
    }
    text
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap();
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            let space = if line.is_empty() { "" } else { " " };
            line.push_str(space);
            line.push_str(word);
        }
    }
    lines
}

fn as_toml(about: &About) -> String {
    let default = about.default_master;
    let is_list = about.key == "cluster.secondaries" || about.key == "cluster.retry_delays";
    if is_list {
        let items = default.split(',').filter(|item| !item.is_empty());
        let items: Vec<_> = items.map(|item| format!("{item:?}")).collect();
        format!("[{}]", items.join(", "))
    } else if default.parse::<u64>().is_ok() || default.parse::<bool>().is_ok() {
        default.to_owned()
    } else {
        format!("{default:?}")
    }
}

/// `REPLOG_REWRITE=1 cargo test` writes the file anew after a change of the table.
#[test]
fn the_example_file_has_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("replog.example.toml");
    let text = example();
    if std::env::var_os("REPLOG_REWRITE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "REPLOG_REWRITE=1 writes it anew");

    let defaults = format!("{:?}", Config::default_for(Role::Master));
    assert_eq!(format!("{:?}", from_file(&text).unwrap()), defaults);

    // With every line uncommented it says the same, but for the keys this version refuses.
    let refused = ["#data_dir", "#memory", "#fsync ="];
    let is_setting = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
            && !refused.iter().any(|key| line.starts_with(key))
    };
    let lines = text.lines().map(|line| if is_setting(line) { &line[1..] } else { line });
    let uncommented = lines.collect::<Vec<_>>().join("\n");
    assert_eq!(uncommented.matches("\nheartbeat_interval = \"1s\"\n").count(), 1);
    assert_eq!(format!("{:?}", from_file(&uncommented).unwrap()), defaults);
}
