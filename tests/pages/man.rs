//! Manual pages in the macros of man(7).

use std::fmt::Write as _;

use argh::{CommandInfoWithArgs, FlagInfo, Optionality};
use replog::config::{KEYS, Role};

use super::{Program, names_of, takes_value, value_name};

/// What a page says beside the arguments.
struct Words {
    purpose: &'static str,
    description: &'static [&'static str],
    commands: &'static str,
    environment: &'static [(&'static str, &'static str)],
    see_also: &'static str,
}

const SERVER: Words = Words {
    purpose: "a small replicated log: the server",
    description: &[
        "replog keeps an append-only log in as many copies as it has nodes: one master, which \
         numbers the entries, and any number of secondaries. Every append says how many nodes must \
         hold it before its client hears OK.",
        "A node serves two doors: the wire protocol, for other nodes and for replog-cli(1), and \
         the text gateway, for people with nc(1). When it accepts connections it prints a line \
         with the words ready id=ID on stderr.",
        "SIGTERM and SIGINT stop a node cleanly: appends that wait are answered PENDING, new ones \
         REJECTED stopping. A second SIGINT ends it at once.",
    ],
    commands: "COMMANDS",
    environment: &[
        (
            "REPLOG_SECTION_KEY",
            "The key SECTION.KEY of replog.toml(5), for example \
          REPLOG_CLUSTER_QUORUM. A flag counts more, the file less.",
        ),
        ("NO_COLOR", "If it is set, log lines have no colours."),
    ],
    see_also: "replog-cli(1), replog.toml(5)",
};

const CLIENT: Words = Words {
    purpose: "the client of a replog cluster",
    description: &[
        "replog-cli appends entries to the log of a replog(1) cluster, reads and follows it, and \
         shows how the cluster is. Data goes to stdout, everything else to stderr; the exit status \
         tells scripts what happened.",
        "With several servers it tries each and goes on to the master where only the master can \
         answer. With one it says what that node says.",
        "append sends what it reads as fast as the cluster takes it and prints a reply for each \
         entry, in order. When its connection is lost it connects again for up to five seconds: \
         what was sent and not answered is printed as UNKNOWN and never sent twice, what was not \
         sent goes over the new connection.",
        "SIGINT (Ctrl-C) or SIGTERM in an append that waits ends the waiting, not the append: every \
         entry that was sent and has no answer is printed as UNKNOWN, what is known of it and of \
         those that were not sent is said on stderr, and the exit status is 3 if any may be in the \
         log. A second signal ends the program at once. tail -f and --watch end normally by \
         either; on a terminal q and Esc end --watch too.",
        "An entry may hold any bytes. append --file FILE makes one of a whole file, append -0 takes \
         entries that end with a byte of zero; list -0, tail -0 and get --raw give them back.",
        "On a terminal, control characters in what nodes say and in payloads are printed as \\xNN, \
         U+0080 to U+009F too; --raw and -0 change nothing. The table of status --all leaves out what \
         there is no room for, and says so.",
        "tail -f follows across lost connections and restarts of nodes, each entry once and in \
         order. A node that has lost its entries is waited for until it has them again; a node with \
         another log ends it.",
    ],
    commands: "VERBS",
    environment: &[
        ("REPLOG_SERVER", "Stands for --server, which counts more."),
        (
            "NO_COLOR",
            "If it is set, status --all has no colours on a terminal; it has none \
          elsewhere.",
        ),
    ],
    see_also: "replog(1), replog.toml(5)",
};

/// The page of a program.
pub fn page(program: &Program) -> String {
    let words = if program.name == "replog" { &SERVER } else { &CLIENT };
    let name = program.name;
    let mut out = head(name, 1);
    section(&mut out, "NAME");
    let _ = writeln!(out, "{} \\- {}", escaped(name), escaped(words.purpose));
    section(&mut out, "SYNOPSIS");
    let kind = words.commands.to_lowercase();
    let kind = kind.trim_end_matches('s').to_uppercase();
    let _ = writeln!(
        out,
        ".B {}\n[\\fIOPTION\\fR...] \\fI{kind}\\fR [\\fIARGUMENT\\fR...]",
        escaped(name)
    );
    section(&mut out, "DESCRIPTION");
    for (index, paragraph) in words.description.iter().enumerate() {
        if index > 0 {
            out.push_str(".PP\n");
        }
        text(&mut out, paragraph);
    }
    section(&mut out, "OPTIONS");
    options(&mut out, program.table.flags);
    section(&mut out, words.commands);
    for command in &program.table.commands {
        out.push_str(".SS ");
        let _ = writeln!(out, "{}", usage(command.name, &command.command));
        text(&mut out, command.command.description);
        for note in command.command.notes {
            out.push_str(".PP\n");
            text(&mut out, note);
        }
        for positional in command.command.positionals {
            term(&mut out, &format!("\\fI{}\\fR", escaped(&positional.name.to_uppercase())));
            text(&mut out, positional.description);
        }
        options(&mut out, command.command.flags);
    }
    section(&mut out, "EXIT STATUS");
    for code in program.table.error_codes {
        term(&mut out, &format!("\\fB{}\\fR", code.code));
        text(&mut out, code.description);
    }
    section(&mut out, "ENVIRONMENT");
    for (variable, meaning) in words.environment {
        term(&mut out, &format!("\\fB{}\\fR", escaped(variable)));
        text(&mut out, meaning);
    }
    section(&mut out, "EXAMPLES");
    out.push_str(".nf\n");
    for example in examples(program) {
        let example = example.replace("{command_name}", name);
        let _ = writeln!(out, "{}", escaped(&example));
    }
    out.push_str(".fi\n");
    section(&mut out, "SEE ALSO");
    text(&mut out, words.see_also);
    out
}

/// The page of the configuration file.
pub fn configuration() -> String {
    let mut out = head("replog.toml", 5);
    section(&mut out, "NAME");
    out.push_str("replog.toml \\- configuration of a replog node\n");
    section(&mut out, "DESCRIPTION");
    text(
        &mut out,
        "The file that --config of replog(1) names, in TOML. Everything in it may also be set by \
         an environment variable or a flag: a flag counts more than the environment, the \
         environment more than the file, the file more than the default. An unknown section or key, \
         or a value that is not allowed, ends the program with status 2.",
    );
    out.push_str(".PP\n");
    text(
        &mut out,
        "A duration is 500ms, 5s, 2m or a number of seconds; a size is 4096, 64KiB or 1MiB. Both \
         are strings or numbers. A list is an array or one string with commas. A secondary checks \
         the section cluster and ignores it.",
    );
    let mut current = "";
    for key in KEYS {
        if key.section() != current {
            current = key.section();
            section(&mut out, &format!("[{current}]"));
        }
        term(&mut out, &format!("\\fB{}\\fR", escaped(key.name())));
        text(&mut out, key.meaning.trim());
        let (master, secondary) = (key.default_for(Role::Master), key.default_for(Role::Secondary));
        let shown = |default: &str| match default {
            "" => "an empty list".to_owned(),
            default => default.to_owned(),
        };
        let default = if master == secondary {
            shown(master)
        } else {
            format!("{}, of a secondary {}", shown(master), shown(secondary))
        };
        out.push_str(".br\n");
        text(
            &mut out,
            &format!(
                "Allowed: {}. Default: {default}. Environment: {}.",
                key.allowed,
                key.variable()
            ),
        );
    }
    section(&mut out, "SEE ALSO");
    text(&mut out, "replog(1), replog-cli(1)");
    out
}

fn head(name: &str, section: u8) -> String {
    format!(
        ".\\\" Made from the program's own arguments by tests/cli_pages.rs.\n\
         .TH {} {section} \"\" \"replog {}\" \"replog manual\"\n",
        escaped(&name.to_uppercase()),
        env!("CARGO_PKG_VERSION")
    )
}

fn section(out: &mut String, name: &str) {
    let _ = writeln!(out, ".SH {}", escaped(name));
}

fn term(out: &mut String, term: &str) {
    let _ = writeln!(out, ".TP\n{term}");
}

/// Text, each of its lines on a line.
fn text(out: &mut String, text: &str) {
    for line in text.lines() {
        let _ = writeln!(out, "{}", escaped(line.trim()));
    }
}

fn options(out: &mut String, flags: &[FlagInfo]) {
    for flag in flags {
        let names = names_of(flag).into_iter().map(|name| format!("\\fB{}\\fR", escaped(&name)));
        let mut shown = names.collect::<Vec<_>>().join(", ");
        if takes_value(flag) {
            let _ = write!(shown, " \\fI{}\\fR", escaped(&value_name(flag)));
        }
        term(out, &shown);
        text(out, flag.description);
    }
}

fn usage(name: &str, command: &CommandInfoWithArgs) -> String {
    let mut usage = escaped(name);
    if !command.flags.is_empty() {
        usage.push_str(" [OPTION...]");
    }
    for positional in command.positionals {
        let name = escaped(&positional.name.to_uppercase());
        usage.push_str(&match positional.optionality {
            Optionality::Required => format!(" {name}"),
            Optionality::Optional => format!(" [{name}]"),
            Optionality::Repeating | Optionality::Greedy => format!(" [{name}...]"),
        });
    }
    usage
}

fn examples(program: &Program) -> Vec<String> {
    let of_commands = program.table.commands.iter().flat_map(|command| {
        let full = format!("{} {}", program.name, command.name);
        command.command.examples.iter().map(move |example| example.replace("{command_name}", &full))
    });
    program.table.examples.iter().map(|example| (*example).to_owned()).chain(of_commands).collect()
}

/// Text in which nothing is an order to the formatter.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    // At the start of a line these would be requests.
    let lines = text.split('\n').map(|line| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}
