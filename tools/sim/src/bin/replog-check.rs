//! `replog-check FILE…`: whether a correct log can have shown what these histories hold.
//!
//! Exit codes: 0 clean, 1 findings, 2 wrong usage or a file that cannot be read.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::process::ExitCode;

use argh::FromArgs;
use replog_sim::history::{LineError, Report, check, read_lines};

/// Checks histories (JSON lines, see the documentation of `history`).
#[derive(FromArgs)]
struct Arguments {
    /// text (default) or json: one object for each file
    #[argh(option, default = "Output::Text", from_str_fn(output))]
    output: Output,
    /// the files
    #[argh(positional)]
    files: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Output {
    Text,
    Json,
}

fn output(word: &str) -> Result<Output, String> {
    match word {
        "text" => Ok(Output::Text),
        "json" => Ok(Output::Json),
        _ => Err("allowed is text or json".to_owned()),
    }
}

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let arguments = match Arguments::from_args(&["replog-check"], words.get(1..).unwrap_or(&[])) {
        Ok(arguments) => arguments,
        Err(early) if early.status.is_ok() => {
            print!("{}", early.output);
            return ExitCode::SUCCESS;
        }
        Err(early) => {
            eprint!("{}", early.output);
            return ExitCode::from(2);
        }
    };
    if arguments.files.is_empty() {
        eprintln!("replog-check: name at least one file (/dev/stdin is one too)");
        return ExitCode::from(2);
    }
    let mut worst = 0;
    for file in &arguments.files {
        let code = match report_of(file) {
            Ok(report) => match show(file, &report, arguments.output) {
                Ok(()) if report.is_clean() => 0,
                Ok(()) => 1,
                Err(error) => {
                    eprintln!("replog-check: standard output: {error}");
                    2
                }
            },
            Err(error) => {
                eprintln!("replog-check: {file}: {error}");
                2
            }
        };
        worst = worst.max(code);
    }
    ExitCode::from(worst)
}

fn report_of(file: &str) -> Result<Report, LineError> {
    let file = File::open(file).map_err(LineError::Io)?;
    Ok(check(&read_lines(BufReader::new(file))?))
}

fn show(file: &str, report: &Report, output: Output) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match output {
        Output::Text => write!(stdout, "{file}\n{report}"),
        Output::Json => {
            let mut object = report.to_json();
            object["file"] = file.into();
            writeln!(stdout, "{object}")
        }
    }
}
