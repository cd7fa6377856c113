//! The layer of the flags, and the programs' arguments as a whole.
//!
//! argh knows the shape of the arguments and writes the help; every value is left to the table of
//! keys, so that `--heartbeat 1`, `REPLOG_CLUSTER_HEARTBEAT_INTERVAL=1` and the file obey one rule.

use std::ffi::OsString;
use std::path::Path;

use argh::{ArgsInfo, FromArgs};

use super::build::{Switches, build};
use super::keys::{self, About};
use super::layers::{Origin, SET, Settings};
use super::value::Raw;
use super::{Config, ConfigError, DevConfig, InspectConfig, Invocation, Role, environment, file};
use crate::limits::NODES_MAX;
use crate::types::{Seq, parse_decimal};

#[derive(FromArgs, ArgsInfo)]
#[argh(
    description = "A small replicated log you can trust and see through: the server.",
    usage = "<command> [<args>]",
    help_triggers("-h", "--help", "help"),
    example = "{command_name} dev",
    note = "Precedence: flag, environment (REPLOG_<SECTION>_<KEY>), file (--config), default.\n\
            replog.example.toml explains every key.",
    error_code(0, "stopped on request"),
    error_code(1, "could not start or go on"),
    error_code(2, "wrong flags or configuration"),
    error_code(70, "the disk failed an fsync")
)]
struct Replog {
    /// print the version
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
enum Command {
    Dev(Dev),
    Master(Master),
    Secondary(Secondary),
    Inspect(Inspect),
}

/// argh has no way to share flags between commands, so the flags that both kinds of node have are
/// written into each by this macro. Its strings are the help of `--id`, `--listen` and `--gateway`.
macro_rules! node_command {
    ($(#[$attribute:meta])* $command:ident, $id:tt, $listen:tt, $gateway:tt, { $($own:tt)* }) => {
        $(#[$attribute])*
        struct $command {
            /// FILE: configuration (TOML); default: none
            #[argh(option)]
            config: Option<String>,
            #[doc = $id]
            #[argh(option)]
            id: Option<String>,
            #[doc = $listen]
            #[argh(option)]
            listen: Option<String>,
            #[doc = $gateway]
            #[argh(option)]
            gateway: Option<String>,
            /// DIR: where the log lives, node.data_dir; default: replog-data/ID
            #[argh(option)]
            data_dir: Option<String>,
            /// keep the log in memory only, node.memory; default: on disk
            #[argh(switch)]
            memory: bool,
            /// always, interval or never: when an entry counts as stored, storage.fsync; default:
            /// always
            #[argh(option)]
            fsync: Option<String>,
            /// allow the fault verbs DELAY, FAIL, MUTE and STORE, node.faults; default: not allowed
            #[argh(switch)]
            faults: bool,
            /// allow addresses beyond loopback, although there is no authentication; default:
            /// refused
            #[argh(switch)]
            insecure: bool,
            /// error, warn, info, debug or trace: log.level; default: info
            #[argh(option)]
            log_level: Option<String>,
            /// text or json: log.format; default: text
            #[argh(option)]
            log_format: Option<String>,
            /// FILE: log file beside stderr, appended to, log.file; default: none
            #[argh(option)]
            log_file: Option<String>,
            /// SECTION.KEY=VALUE: any key of the configuration file; may be repeated
            #[argh(option)]
            set: Vec<String>,
            /// print the version
            #[argh(switch)]
            version: bool,
            $($own)*
        }

        impl $command {
            /// File, environment and the flags that both kinds of node have.
            fn common_settings(
                &self,
                environment: impl IntoIterator<Item = (OsString, OsString)>,
            ) -> Settings {
                let mut settings = layers_below(self.config.as_deref(), environment, &self.set);
                let switch = |on: bool| on.then(|| "true".to_owned());
                for (about, flag, value) in [
                    (&keys::ID.about, "--id", self.id.clone()),
                    (&keys::LISTEN.about, "--listen", self.listen.clone()),
                    (&keys::GATEWAY.about, "--gateway", self.gateway.clone()),
                    (&keys::DATA_DIR.about, "--data-dir", self.data_dir.clone()),
                    (&keys::MEMORY.about, "--memory", switch(self.memory)),
                    (&keys::FSYNC.about, "--fsync", self.fsync.clone()),
                    (&keys::FAULTS.about, "--faults", switch(self.faults)),
                    (&keys::LEVEL.about, "--log-level", self.log_level.clone()),
                    (&keys::FORMAT.about, "--log-format", self.log_format.clone()),
                    (&keys::FILE.about, "--log-file", self.log_file.clone()),
                ] {
                    settings.put_flag(about, flag, value);
                }
                settings
            }
        }
    };
}

node_command! {
    #[derive(FromArgs, ArgsInfo)]
    /// The node that accepts appends and replicates them.
    #[argh(
        subcommand, name = "master", usage = "[options]", help_triggers("-h", "--help", "help"),
        example = "{command_name} --secondary s1=127.0.0.1:9001 --secondary s2=127.0.0.1:9002",
        note = "Precedence: flag, environment, file, default. Every key: replog.example.toml."
    )]
    Master,
    "ID: name in the cluster, node.id; default: master",
    "ADDR: wire address, node.listen; default: 127.0.0.1:9000",
    "ADDR or none: text gateway, node.gateway; default: 127.0.0.1:8000",
    {
        /// ID=ADDR: a secondary; repeated, the whole roster, cluster.secondaries; default: none
        #[argh(option)]
        secondary: Vec<String>,
        /// NODES, majority or all: how few present nodes take appends, cluster.quorum; default:
        /// majority
        #[argh(option)]
        quorum: Option<String>,
        /// NODES, majority or all: how many must hold an entry before OK, for appends that name
        /// none, cluster.write_concern; default: all
        #[argh(option)]
        write_concern: Option<String>,
        /// DURATION: heartbeat interval, 50ms to 60s, cluster.heartbeat_interval; default: 1s
        #[argh(option)]
        heartbeat: Option<String>,
        /// for this start, begin a new log without waiting for silent nodes, unless somebody who
        /// answers has one
        #[argh(switch)]
        bootstrap: bool,
        /// SEQ: for this start, lead although too few nodes answer to prove that nothing is missing, if
        /// the log then ends at this entry or later
        #[argh(option)]
        accept_data_loss: Option<String>,
    }
}

node_command! {
    #[derive(FromArgs, ArgsInfo)]
    /// A node that holds a copy, serves reads, and acknowledges.
    #[argh(
        subcommand, name = "secondary", usage = "[options]",
        help_triggers("-h", "--help", "help"),
        example = "{command_name} --id s2 --listen 127.0.0.1:9002 --gateway 127.0.0.1:8002",
        note = "Precedence: flag, environment, file, default. Every key: replog.example.toml."
    )]
    Secondary,
    "ID: name in the cluster, node.id; default: s1",
    "ADDR: wire address, node.listen; default: 127.0.0.1:9001",
    "ADDR or none: text gateway, node.gateway; default: 127.0.0.1:8001",
    {
        /// DURATION: standing artificial delay of every APPEND frame, node.delay; default: 0s
        #[argh(option)]
        delay: Option<String>,
    }
}

/// A whole cluster in one process on loopback: the quick start.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "dev",
    usage = "[options]",
    help_triggers("-h", "--help", "help"),
    example = "{command_name} --secondaries 2\nnc 127.0.0.1 8000",
    note = "Fault verbs are allowed. Without --data-dir the log is in memory."
)]
struct Dev {
    /// COUNT: how many secondaries, s1, s2 and so on, 0 to 127; default: 2
    #[argh(option)]
    secondaries: Option<String>,
    /// PORT: text gateway of the master, the secondaries take the following ports; 0 is any free
    /// port for each node; default: 8000
    #[argh(option)]
    gateway_port: Option<String>,
    /// PORT: wire port of the master, the secondaries take the following ports; 0 is any free port
    /// for each node; default: 9000
    #[argh(option)]
    wire_port: Option<String>,
    /// DIR: keep the logs on disk, each node in DIR/ID; default: in memory
    #[argh(option)]
    data_dir: Option<String>,
    /// always, interval or never: when an entry counts as stored, storage.fsync; default: always
    #[argh(option)]
    fsync: Option<String>,
    /// NODES, majority or all: how few present nodes take appends, cluster.quorum; default:
    /// majority
    #[argh(option)]
    quorum: Option<String>,
    /// NODES, majority or all: how many must hold an entry before OK, for appends that name none,
    /// cluster.write_concern; default: all
    #[argh(option)]
    write_concern: Option<String>,
    /// DURATION: heartbeat interval, 50ms to 60s, cluster.heartbeat_interval; default: 1s
    #[argh(option)]
    heartbeat: Option<String>,
    /// SECTION.KEY=VALUE: any key of the configuration file, on every node; may be repeated
    #[argh(option)]
    set: Vec<String>,
    /// print the version
    #[argh(switch)]
    version: bool,
}

/// Prints and verifies a data directory or one segment, offline; exit code 6 if it is damaged.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "inspect",
    usage = "[options] <path>",
    help_triggers("-h", "--help", "help"),
    error_code(0, "whole"),
    error_code(1, "could not be read, or of a newer format"),
    error_code(6, "damaged"),
    note = "Nothing is changed and no lock is taken."
)]
struct Inspect {
    /// text or json (one object a line); default: text
    #[argh(option)]
    output: Option<String>,
    /// COUNT: print at most so many entries; default: all
    #[argh(option)]
    limit: Option<String>,
    /// SEQ: print entries from this one on; default: 1
    #[argh(option)]
    from: Option<String>,
    /// print only what is wrong and the verdict
    #[argh(switch)]
    quiet: bool,
    /// print the version
    #[argh(switch)]
    version: bool,
    /// data directory or segment
    #[argh(positional)]
    path: Option<String>,
}

/// The arguments as a table.
pub(super) fn table() -> argh::CommandInfoWithArgs {
    Replog::get_args_info()
}

/// See [`Invocation::read`].
pub(super) fn read(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, ConfigError> {
    let args = args.into_iter().map(|arg| {
        arg.into_string().map_err(|arg| {
            let shown = arg.to_string_lossy().escape_debug().to_string();
            ConfigError::new(format!("{shown}: allowed are arguments in UTF-8"))
        })
    });
    let args = split_equals_signs(args.collect::<Result<Vec<_>, _>>()?);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let replog = match Replog::from_args(&["replog"], &args) {
        Ok(replog) => replog,
        Err(exit) if exit.status.is_ok() => return Ok(Invocation::Print(exit.output)),
        Err(exit) => {
            let error = usage(&exit.output, args.first().copied());
            // Without the flags only the environment says where log lines are to go, if it does.
            let mut settings = Settings::default();
            environment::apply(environment, &mut settings);
            let log = settings.log(Role::Master);
            let is_default = log == Settings::default().log(Role::Master);
            return Err(if is_default { error } else { error.logged_to(log) });
        }
    };
    let version = || Ok(Invocation::Print(format!("replog {}\n", env!("CARGO_PKG_VERSION"))));
    match replog.command {
        _ if replog.version => version(),
        Some(Command::Dev(dev)) if dev.version => version(),
        Some(Command::Master(master)) if master.version => version(),
        Some(Command::Secondary(secondary)) if secondary.version => version(),
        Some(Command::Inspect(inspect)) if inspect.version => version(),
        Some(Command::Dev(dev)) => dev.config(environment).map(Invocation::Dev),
        Some(Command::Master(master)) => node(master.config(environment)?),
        Some(Command::Secondary(secondary)) => node(secondary.config(environment)?),
        Some(Command::Inspect(inspect)) => inspect.config().map(Invocation::Inspect),
        None => Err(usage("a command is missing: dev, master, secondary or inspect", None)),
    }
}

fn node(config: Config) -> Result<Invocation, ConfigError> {
    Ok(Invocation::Node(Box::new(config)))
}

/// A usage error in one line, with the help that belongs to it.
fn usage(message: &str, command: Option<&str>) -> ConfigError {
    let words: Vec<_> = message.split_whitespace().collect();
    let message = words.join(" ");
    let message = message.trim_end_matches('.');
    let commands = ["dev ", "master ", "secondary ", "inspect "];
    let command = commands.iter().find(|known| Some(known.trim_end()) == command).unwrap_or(&"");
    let unknown = message.strip_prefix("Unrecognized argument: ");
    let whose = unknown.map(whose_flag).unwrap_or_default();
    ConfigError::new(format!("{message}{whose}; replog {command}--help shows what is allowed"))
}

/// Which commands have a flag, in brackets; nothing if none has.
fn whose_flag(flag: &str) -> String {
    let has = |command: &argh::SubCommandInfo| {
        let mut flags = command.command.flags.iter();
        flags.any(|known| known.long == flag).then(|| format!("replog {}", command.name))
    };
    let owners: Vec<_> = table().commands.iter().filter_map(has).collect();
    match owners.as_slice() {
        [] => String::new(),
        [one] => format!(" (only {one} has it)"),
        several => format!(" (only {} have it)", several.join(" and ")),
    }
}

/// Makes `--key value` of `--key=value`, which argh does not know, up to a bare `--`.
pub fn split_equals_signs(args: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut split = Vec::new();
    let mut options_ended = false;
    for arg in args {
        options_ended |= arg == "--";
        match arg.split_once('=') {
            Some((key, value)) if !options_ended && key.len() > 2 && key.starts_with("--") => {
                split.extend([key.to_owned(), value.to_owned()]);
            }
            _ => split.push(arg),
        }
    }
    split
}

/// File and environment, and the assignments of `--set` on top of them.
fn layers_below(
    config: Option<&str>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    assignments: &[String],
) -> Settings {
    let mut settings = Settings::default();
    if let Some(path) = config {
        file::load(Path::new(path), &mut settings);
    }
    environment::apply(environment, &mut settings);
    for assignment in assignments {
        settings.put_assignment(assignment);
    }
    settings
}

impl Master {
    fn config(
        self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Config, ConfigError> {
        let mut settings = self.common_settings(environment);
        let roster = (!self.secondary.is_empty()).then(|| self.secondary.join(","));
        settings.put_flag(&keys::SECONDARIES.about, "--secondary", roster);
        put_cluster_flags(&mut settings, self.quorum, self.write_concern, self.heartbeat);
        let accepted = self.accept_data_loss.as_deref();
        let accepted = accepted.map(|text| number("--accept-data-loss", text, 0, u64::MAX));
        let accept_data_loss = match accepted.transpose() {
            Ok(accepted) => accepted.map(Seq::new),
            Err(error) => {
                settings.refuse_all(error);
                None
            }
        };
        let switches = Switches {
            insecure: self.insecure,
            bootstrap: self.bootstrap,
            accept_data_loss,
            shared: false,
        };
        build(Role::Master, &settings, switches)
    }
}

impl Secondary {
    fn config(
        self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Config, ConfigError> {
        let mut settings = self.common_settings(environment);
        settings.put_flag(&keys::DELAY.about, "--delay", self.delay);
        let switches = Switches { insecure: self.insecure, ..Switches::default() };
        build(Role::Secondary, &settings, switches)
    }
}

impl Dev {
    fn config(
        self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<DevConfig, ConfigError> {
        let mut settings = layers_below(None, environment, &self.set);
        settings.put_flag(&keys::FSYNC.about, "--fsync", self.fsync.clone());
        let (quorum, concern) = (self.quorum.clone(), self.write_concern.clone());
        put_cluster_flags(&mut settings, quorum, concern, self.heartbeat.clone());
        let log = settings.log(Role::Master);
        self.nodes(settings).map_err(|error| error.logged_to(log))
    }

    /// The nodes of the cluster, each with what all share and what is its own.
    fn nodes(self, mut settings: Settings) -> Result<DevConfig, ConfigError> {
        settings.refused()?;
        refuse_own_keys(&settings)?;
        let secondaries = self.secondaries.as_deref().unwrap_or("2");
        let secondaries = number("--secondaries", secondaries, 0, NODES_MAX as u64 - 1)?;
        let gateway = self.gateway_port.as_deref().unwrap_or("8000");
        let gateways = Ports::read("--gateway-port", gateway, secondaries)?;
        let wire = self.wire_port.as_deref().unwrap_or("9000");
        let wires = Ports::read("--wire-port", wire, secondaries)?;
        wires.check_apart_from(&gateways)?;

        let roster: Vec<_> =
            (1..=secondaries).map(|k| format!("s{k}={}", wires.address(k))).collect();
        let put = |settings: &mut Settings, about: &About, value: String| {
            settings.put(about, Raw::text(value), Origin::Default);
        };
        put(&mut settings, &keys::SECONDARIES.about, roster.join(","));
        if settings.origin(&keys::FAULTS.about) == Origin::Default {
            put(&mut settings, &keys::FAULTS.about, "true".to_owned());
        }
        let nodes = (0..=secondaries).map(|k| {
            let role = if k == 0 { Role::Master } else { Role::Secondary };
            let id = if k == 0 { "master".to_owned() } else { format!("s{k}") };
            match &self.data_dir {
                Some(dir) => {
                    let dir = std::path::Path::new(dir).join(&id);
                    put(&mut settings, &keys::DATA_DIR.about, dir.to_string_lossy().into_owned());
                }
                None => put(&mut settings, &keys::MEMORY.about, "true".to_owned()),
            }
            put(&mut settings, &keys::ID.about, id);
            put(&mut settings, &keys::LISTEN.about, wires.address(k));
            put(&mut settings, &keys::GATEWAY.about, gateways.address(k));
            let switches = Switches { shared: true, ..Switches::default() };
            build(role, &settings, switches)
        });
        Ok(DevConfig { nodes: nodes.collect::<Result<_, _>>()? })
    }
}

impl Inspect {
    fn config(self) -> Result<InspectConfig, ConfigError> {
        let Some(path) = self.path else {
            return Err(usage("a path is missing: a data directory or a segment", Some("inspect")));
        };
        let json = match self.output.as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => {
                let given = Raw::text(other);
                let line = format!("--output: {given} is not allowed; allowed is text or json");
                return Err(ConfigError::new(line));
            }
        };
        let count = |flag, text: Option<String>| {
            text.map(|text| number(flag, &text, 0, u64::MAX)).transpose()
        };
        let limit = count("--limit", self.limit)?;
        let from = count("--from", self.from)?.map(Seq::new);
        Ok(InspectConfig { path: path.into(), json, limit, from, quiet: self.quiet })
    }
}

/// The flags of the cluster that `master` and `dev` share.
fn put_cluster_flags(
    settings: &mut Settings,
    quorum: Option<String>,
    write_concern: Option<String>,
    heartbeat: Option<String>,
) {
    settings.put_flag(&keys::QUORUM.about, "--quorum", quorum);
    settings.put_flag(&keys::WRITE_CONCERN.about, "--write-concern", write_concern);
    settings.put_flag(&keys::HEARTBEAT_INTERVAL.about, "--heartbeat", heartbeat);
}

/// What `replog dev` gives each of its nodes itself cannot be the same for all of them.
fn refuse_own_keys(settings: &Settings) -> Result<(), ConfigError> {
    for about in [
        &keys::ID.about,
        &keys::LISTEN.about,
        &keys::GATEWAY.about,
        &keys::ADVERTISE.about,
        &keys::SECONDARIES.about,
        &keys::DATA_DIR.about,
        &keys::MEMORY.about,
    ] {
        let origin = settings.origin(about);
        if origin != Origin::Default {
            let key = about.key;
            return Err(ConfigError::new(format!(
                "{key}: replog dev gives each node its own ({origin}); allowed are --secondaries, \
                 --gateway-port, --wire-port and --data-dir, or {SET} {key} with replog master and secondary"
            )));
        }
    }
    Ok(())
}

/// The ports of the nodes of `replog dev`: consecutive, or any free ones.
struct Ports {
    flag: &'static str,
    first: u64,
    last: u64,
}

impl Ports {
    fn read(flag: &'static str, text: &str, secondaries: u64) -> Result<Self, ConfigError> {
        let first = number(flag, text, 0, u64::from(u16::MAX) - secondaries)?;
        Ok(Ports { flag, first, last: if first == 0 { 0 } else { first + secondaries } })
    }

    fn check_apart_from(&self, other: &Ports) -> Result<(), ConfigError> {
        if self.first == 0 || self.last < other.first || other.last < self.first {
            return Ok(());
        }
        Err(ConfigError::new(format!(
            "{}: {} is not allowed: ports {} to {} meet {} to {} of {}; allowed are ports \
             of their own",
            self.flag, self.first, self.first, self.last, other.first, other.last, other.flag
        )))
    }

    fn address(&self, node: u64) -> String {
        let port = if self.first == 0 { 0 } else { self.first + node };
        format!("127.0.0.1:{port}")
    }
}

/// The value of a flag that no key stands behind.
fn number(flag: &str, text: &str, min: u64, max: u64) -> Result<u64, ConfigError> {
    parse_decimal(text).filter(|number| (min..=max).contains(number)).ok_or_else(|| {
        let given = Raw::text(text);
        ConfigError::new(format!("{flag}: {given} is not allowed; allowed is {min} to {max}"))
    })
}
