//! Completions for bash and zsh.

use std::fmt::Write as _;

use argh::FlagInfo;

use super::{Program, Values, names_of, takes_value, value_name, values_of, words_of};

/// For bash, without the bash-completion package.
pub fn bash(program: &Program) -> String {
    let name = program.name;
    let function = format!("_{}", name.replace('-', "_"));
    let commands = &program.table.commands;
    let mut out = format!(
        "# bash completion for {name}: source it, or put it into\n\
         # ~/.local/share/bash-completion/completions/{name}\n\
         # Made from the program's own arguments by tests/cli_pages.rs.\n\n\
         {function}() {{\n\
         \x20   local cur prev word command= skip= i\n\
         \x20   COMPREPLY=()\n\
         \x20   cur=${{COMP_WORDS[COMP_CWORD]}}\n\
         \x20   prev=${{COMP_WORDS[COMP_CWORD - 1]}}\n\
         \x20   # bash splits --option=value in three.\n\
         \x20   if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then \
         prev=${{COMP_WORDS[COMP_CWORD - 2]}}; fi\n\
         \x20   case $prev in\n"
    );
    let every_flag = commands.iter().flat_map(|command| command.command.flags);
    let mut seen = Vec::new();
    for flag in program.table.flags.iter().chain(every_flag).filter(|flag| takes_value(flag)) {
        if seen.contains(&flag.long) {
            continue;
        }
        seen.push(flag.long);
        let names = names_of(flag).join(" | ");
        let action = match values_of(flag.long) {
            Values::Words(words) => {
                format!("COMPREPLY=($(compgen -W '{}' -- \"$cur\")); ", words.join(" "))
            }
            Values::Files => "COMPREPLY=($(compgen -f -- \"$cur\")); ".to_owned(),
            Values::Directories => "COMPREPLY=($(compgen -d -- \"$cur\")); ".to_owned(),
            Values::Any => String::new(),
        };
        let _ = writeln!(out, "        {names}) {action}return ;;");
    }
    let value_options: Vec<String> =
        program.table.flags.iter().filter(|flag| takes_value(flag)).flat_map(names_of).collect();
    out.push_str("    esac\n    for ((i = 1; i < COMP_CWORD; i++)); do\n");
    out.push_str("        word=${COMP_WORDS[i]}\n");
    out.push_str("        if [[ $skip ]]; then [[ $word == = ]] || skip=; continue; fi\n");
    out.push_str("        case $word in\n");
    if !value_options.is_empty() {
        let _ = writeln!(out, "            {}) skip=1 ;;", value_options.join(" | "));
    }
    out.push_str(
        "            -* | =) ;;\n            *) command=$word; break ;;\n        esac\n    done\n",
    );
    out.push_str("    case $command in\n");
    let global: Vec<String> = program.table.flags.iter().flat_map(names_of).collect();
    let names: Vec<&str> = commands.iter().map(|command| command.name).collect();
    let _ = writeln!(
        out,
        "        '') COMPREPLY=($(compgen -W '{} {}' -- \"$cur\")) ;;",
        names.join(" "),
        global.join(" "),
    );
    for command in commands {
        let mut options: Vec<String> = command.command.flags.iter().flat_map(names_of).collect();
        if program.options_anywhere {
            let own = ["-h", "--help", "--version"];
            options.extend(global.iter().filter(|name| !own.contains(&name.as_str())).cloned());
        }
        let words = match words_of(command.name) {
            Values::Words(words) => format!(" {}", words.join(" ")),
            _ => String::new(),
        };
        let files = match words_of(command.name) {
            Values::Files => " $(compgen -f -- \"$cur\")",
            _ => "",
        };
        let _ = writeln!(
            out,
            "        {}) COMPREPLY=($(compgen -W '{}{words}' -- \"$cur\"){files}) ;;",
            command.name,
            options.join(" ")
        );
    }
    let _ = write!(out, "    esac\n}}\ncomplete -F {function} {name}\n");
    out
}

/// For zsh.
pub fn zsh(program: &Program) -> String {
    let name = program.name;
    let mut out = format!(
        "#compdef {name}\n\
         # zsh completion for {name}: put it, as _{name}, into a directory of $fpath.\n\
         # Made from the program's own arguments by tests/cli_pages.rs.\n\n\
         _{name}() {{\n\
         \x20   local curcontext=$curcontext state line\n\
         \x20   typeset -A opt_args\n\
         \x20   local -a commands\n\
         \x20   commands=(\n"
    );
    for command in &program.table.commands {
        let text = quoted(&command.command.description.replace(':', "\\:"));
        let _ = writeln!(out, "        '{}:{text}'", command.name);
    }
    out.push_str("    )\n    _arguments -C \\\n");
    for flag in program.table.flags {
        let _ = writeln!(out, "        {} \\", zsh_flag(flag));
    }
    out.push_str("        '1: :->command' '*:: :->rest'\n    case $state in\n");
    out.push_str("        command) _describe -t commands command commands ;;\n");
    out.push_str("        rest)\n            case $words[1] in\n");
    for command in &program.table.commands {
        let _ = write!(out, "                {})\n                    _arguments", command.name);
        let global = program.table.flags.iter();
        let own = ["--help", "--version"];
        let global = global.filter(|flag| program.options_anywhere && !own.contains(&flag.long));
        for flag in command.command.flags.iter().chain(global) {
            let _ = write!(out, " \\\n                        {}", zsh_flag(flag));
        }
        // One rule covers all words of a command.
        if let Some(positional) = command.command.positionals.first() {
            let action = zsh_values(&words_of(command.name));
            let _ = write!(out, " \\\n                        '*:{}:{action}'", positional.name);
        }
        out.push_str("\n                    ;;\n");
    }
    let _ = write!(
        out,
        "            esac\n            ;;\n    esac\n}}\n\n\
         if [[ $funcstack[1] == _{name} ]]; then _{name} \"$@\"; else compdef _{name} {name}; fi\n"
    );
    out
}

fn zsh_flag(flag: &FlagInfo) -> String {
    let text = quoted(&escaped(flag.description));
    let repeated = if flag.optionality == argh::Optionality::Repeating { "*" } else { "" };
    let value = match takes_value(flag) {
        true => {
            format!(":{}:{}", escaped(&value_name(flag)), zsh_values(&values_of(flag.long)))
        }
        false => String::new(),
    };
    let equals = if takes_value(flag) { "=" } else { "" };
    let short = flag.short.or((flag.long == "--help").then_some('h'));
    match short {
        Some(short) => {
            let plus = if takes_value(flag) { "+" } else { "" };
            let names =
                format!("'(-{short} {long})'{{-{short}{plus},{long}{equals}}}", long = flag.long);
            format!("{names}'[{text}]{value}'")
        }
        None => format!("'{repeated}{}{equals}[{text}]{value}'", flag.long),
    }
}

fn zsh_values(values: &Values) -> String {
    match values {
        // A colon would end the list.
        Values::Words(words) => format!("({})", words.join(" ").replace(':', "\\:")),
        Values::Files => "_files".to_owned(),
        Values::Directories => "_files -/".to_owned(),
        Values::Any => " ".to_owned(),
    }
}

/// What stands between brackets in a specification.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:")
}

/// What stands between single quotes.
fn quoted(text: &str) -> String {
    text.replace('\'', "'\\''").replace('\n', " ")
}
