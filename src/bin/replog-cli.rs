//! `replog-cli`: the client for people and scripts. All of it is in `replog::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    replog::cli::run(std::env::args_os().skip(1))
}
