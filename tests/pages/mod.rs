//! Completions and manual pages, made from the arguments that the programs themselves parse.

// Only one test file uses it, and it is a crate of its own.
#![allow(unreachable_pub)]

pub mod completions;
pub mod man;

use argh::{FlagInfo, FlagInfoKind};

/// A program and what it takes.
pub struct Program {
    pub name: &'static str,
    pub table: argh::CommandInfoWithArgs,
    /// Options that may also stand behind the command.
    pub options_anywhere: bool,
}

pub fn programs() -> [Program; 2] {
    [
        Program {
            name: "replog",
            table: replog::config::argument_table(),
            options_anywhere: false,
        },
        Program {
            name: "replog-cli",
            table: replog::cli::argument_table(),
            options_anywhere: true,
        },
    ]
}

/// What may stand behind an option.
pub enum Values {
    Words(&'static [&'static str]),
    Files,
    Directories,
    /// Only the user knows.
    Any,
}

/// The values of an option.
pub fn values_of(option: &str) -> Values {
    Values::Words(match option {
        "--output" | "--log-format" => &["text", "json"],
        "-w" | "--w" | "--quorum" | "--write-concern" => &["majority", "all"],
        "--ack" => &["stored", "received"],
        "--level" => &["local", "committed", "all"],
        "--fsync" => &["always", "interval", "never"],
        "--log-level" => &["error", "warn", "info", "debug", "trace"],
        "--server" => &["127.0.0.1:9000", "127.0.0.1:9001", "127.0.0.1:9002"],
        "--config" | "--log-file" | "--file" => return Values::Files,
        "--data-dir" => return Values::Directories,
        _ => return Values::Any,
    })
}

/// The words that may follow a command.
pub fn words_of(command: &str) -> Values {
    Values::Words(match command {
        "delay" => &["every=", "off"],
        "fail" => &["before", "after", "off"],
        "mute" => &["off"],
        "inspect" => return Values::Files,
        _ => return Values::Any,
    })
}

/// All names of an option: `-w` and `--w`. The table does not tell of `-h`.
pub fn names_of(flag: &FlagInfo) -> Vec<String> {
    let short = flag.short.or((flag.long == "--help").then_some('h'));
    let short = short.map(|short| format!("-{short}"));
    short.into_iter().chain([flag.long.to_owned()]).collect()
}

pub fn takes_value(flag: &FlagInfo) -> bool {
    matches!(flag.kind, FlagInfoKind::Option { .. })
}

/// What stands for the value in a usage: the name given to it, or the first word of a description
/// that begins with the value.
pub fn value_name(flag: &FlagInfo) -> String {
    let FlagInfoKind::Option { arg_name } = flag.kind else { return String::new() };
    let described = flag.description.split_once(':').map(|(value, _)| value);
    let first = described.and_then(|value| value.split([' ', ',']).next());
    let is_name = |name: &&str| name.chars().any(|c| c.is_ascii_uppercase());
    first.filter(is_name).map_or_else(|| arg_name.to_uppercase(), str::to_owned)
}
