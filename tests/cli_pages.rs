//! Completions and manual pages are what the programs' own arguments say: they cannot go stale.
//!
//! Run with `REPLOG_REWRITE=1` to write the files in `completions/` and `man/` anew.

mod pages;

use std::path::Path;
use std::process::Command;

use pages::{Program, completions, man, names_of, programs};

/// Every file that is made, with what must stand in it.
fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for program in programs() {
        let name = program.name;
        files.push((format!("completions/{name}.bash"), completions::bash(&program)));
        files.push((format!("completions/_{name}"), completions::zsh(&program)));
        files.push((format!("man/{name}.1"), man::page(&program)));
    }
    files.push(("man/replog.toml.5".to_owned(), man::configuration()));
    files
}

fn path_of(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    path.to_str().expect("the sources lie under a name in UTF-8").to_owned()
}

#[test]
fn the_files_are_what_the_arguments_say() {
    for (file, expected) in files() {
        if std::env::var_os("REPLOG_REWRITE").is_some() {
            std::fs::write(path_of(&file), &expected).expect("the file can be written");
        }
        let found = std::fs::read_to_string(path_of(&file)).unwrap_or_default();
        assert!(
            found == expected,
            "{file} is not what the arguments say: run this test with REPLOG_REWRITE=1, and read \
             the difference"
        );
    }
}

/// What bash offers for the last of `words`.
fn offered(program: &Program, words: &[&str]) -> Vec<String> {
    let name = program.name;
    let script = format!(
        "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
         _{}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        name.replace('-', "_")
    );
    let file = path_of(&format!("completions/{name}.bash"));
    let output = Command::new("bash")
        .args(["--norc", "-c", &script, "bash", &file, name])
        .args(words)
        .output()
        .expect("bash runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("completions are text");
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_offers_every_command_and_every_option_of_it() {
    for program in programs() {
        let commands = offered(&program, &[""]);
        for command in &program.table.commands {
            assert!(commands.iter().any(|offer| offer == command.name), "{commands:?}");
            let options = offered(&program, &[command.name, "-"]);
            for name in command.command.flags.iter().flat_map(names_of) {
                assert!(options.contains(&name), "{} {name}: {options:?}", command.name);
            }
        }
    }
}

#[test]
fn bash_offers_the_values_of_an_option_however_it_is_written() {
    let [server, client] = programs();
    assert_eq!(offered(&client, &["--output", "j"]), ["json"]);
    // As bash splits `--output=j`.
    assert_eq!(offered(&client, &["--output", "=", "j"]), ["json"]);
    assert_eq!(offered(&client, &["--output", "="]), ["text", "json"]);
    assert_eq!(offered(&client, &["append", "-w", ""]), ["majority", "all"]);
    assert_eq!(offered(&client, &["--output", "json", "sta"]), ["status"]);
    assert_eq!(offered(&client, &["--server", "a:1", "status", "--wa"]), ["--watch"]);
    assert_eq!(offered(&client, &["fail", "be"]), ["before"]);
    assert_eq!(offered(&server, &["dev", "--fsync", "a"]), ["always"]);
    assert!(offered(&client, &["tail", "-n", ""]).is_empty(), "a number is not guessed");
}

/// Where zsh is installed: it reads the files, and offers the commands.
#[test]
fn zsh_understands_its_completions() {
    if Command::new("zsh").arg("--version").output().is_err() {
        return;
    }
    for program in programs() {
        let file = path_of(&format!("completions/_{}", program.name));
        let output = Command::new("zsh").args(["-f", "-n", &file]).output().expect("zsh runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

/// Where groff is installed: the pages have no mistakes that it would warn of.
#[test]
fn the_pages_render_without_a_warning() {
    for (file, _) in files().iter().filter(|(file, _)| file.starts_with("man/")) {
        let groff =
            Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z", &path_of(file)]).output();
        let Ok(output) = groff else { return };
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && warnings.is_empty(), "{file}: {warnings}");
    }
}
