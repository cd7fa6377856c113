//! What was meant by a command line that cannot be understood: unknown verbs and options, and words
//! too many, each with the way out.

use std::cmp::min;

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality, PositionalInfo};

use super::words::CommandLine;

/// What people type who come from other programs, and what it is called here.
const VERBS_ELSEWHERE: &[(&[&str], &str)] = &[
    (&["add", "put", "set", "write", "send", "produce", "publish", "pub", "push", "log"], "append"),
    (&["ls", "cat", "read", "dump", "show", "print", "range", "consume", "entries"], "list"),
    (&["head"], "list --limit 10"),
    (&["last"], "tail -n 1"),
    (&["follow", "watch", "sub", "subscribe", "stream", "logs"], "tail -f"),
    (&["info", "state", "stat"], "status"),
    (&["nodes", "members", "member", "cluster", "peers", "topology", "top"], "status --all"),
    (&["stats", "prometheus"], "metrics"),
    (&["hash", "checksum"], "digest"),
    (&["check", "compare", "diff", "fsck"], "verify"),
    (&["alive", "echo"], "ping"),
    (&["await"], "wait"),
    (&["version"], "--version"),
];

/// The same for options.
const OPTIONS_ELSEWHERE: &[(&[&str], &str)] = &[
    (&["-s", "--host", "--addr", "--address", "--endpoint", "--endpoints", "--url"], "--server"),
    (&["-o", "--format"], "--output"),
    (&["-j", "--json"], "--output json"),
    (&["-q", "--silent"], "--quiet"),
    (&["-z", "-Z", "--nul", "--print0", "--zero"], "-0"),
    (&["-a"], "--all"),
    (&["-F", "-w"], "--follow"),
    (&["-W"], "--watch"),
    (&["-t"], "--timeout"),
    (&["-r"], "--raw"),
    (&["-f", "-i", "--input"], "--file"),
    (&["-n", "-c", "--count", "--lines", "--max"], "--limit"),
    (&["--start", "--offset", "--since"], "--from"),
];

/// What is wrong with the verb, its options or the number of its words, if something is.
pub(super) fn misuse(line: &CommandLine, table: &CommandInfoWithArgs) -> Option<String> {
    let command = line
        .verb
        .as_deref()
        .and_then(|verb| table.commands.iter().find(|command| command.name == verb));
    let known = |option: &str| {
        let flags = command.into_iter().flat_map(|command| command.command.flags);
        flags.chain(table.flags).any(|flag| names_of(flag).any(|name| name == option))
            || is_attached(option)
    };
    let unknown = line.options().iter().find(|option| !known(option));
    let Some(command) = command else {
        // `-s ADDR ping`: not the address is what is wrong.
        return match (unknown, line.verb.as_deref()) {
            (Some(option), _) => Some(unknown_option(option, None, &line_options(table.flags))),
            (None, Some(verb)) => Some(unknown_verb(verb, table)),
            (None, None) => Some(no_verb(table)),
        };
    };
    let verb = command.name;
    if let Some(option) = unknown {
        let options = line_options(command.command.flags.iter().chain(table.flags));
        return Some(option_hint(verb, option).unwrap_or_else(|| {
            let free = takes_any_words(&command.command);
            let way_out = format!("; if it is to be sent as it is: replog-cli {verb} -- {option}");
            unknown_option(option, Some(verb), &options) + if free { &way_out } else { "" }
        }));
    }
    if let Some(option) = &line.surplus_value {
        return Some(format!("{option} takes no value"));
    }
    let positionals = command.command.positionals;
    if let Some(missing) = missing(verb, positionals, line.words().count()) {
        return Some(missing);
    }
    let max = positionals.len();
    let surplus = line.words().nth(max).filter(|_| !takes_any_words(&command.command))?;
    let surplus = String::from_utf8_lossy(surplus.bytes());
    Some(match word_hint(verb, &surplus) {
        Some(hint) => format!("{verb} does not take {surplus:?}: {hint}"),
        None if max == 0 => format!("{verb} takes no argument: {surplus:?} is one too many"),
        None => format!(
            "{verb} takes {max} argument{s}: {surplus:?} is one too many",
            s = if max == 1 { "" } else { "s" }
        ),
    })
}

/// What is said if there are fewer words than a verb needs.
fn missing(verb: &str, positionals: &[PositionalInfo], words: usize) -> Option<String> {
    // What these want has several forms, so that the table calls it optional.
    let special = match verb {
        "delay" => Some("a duration, every=DURATION or off"),
        "fail" => Some("before or after, with count=N or p=P if wanted, or off"),
        "mute" => Some("a duration or off"),
        _ => None,
    };
    if let Some(what) = special {
        return (words == 0).then(|| format!("{verb} needs {what}"));
    }
    let required = positionals.iter().filter(|place| place.optionality == Optionality::Required);
    let names: Vec<String> = required.skip(words).map(|place| place.name.to_uppercase()).collect();
    let of = |name: &str| match name {
        "SEQ" => "SEQ, the number of an entry",
        "PRODUCER" => "PRODUCER, its name",
        "N" => "N, its number",
        _ => "",
    };
    let wanted: Vec<String> = names
        .iter()
        .map(|name| if of(name).is_empty() { name.clone() } else { of(name).to_owned() })
        .collect();
    (!wanted.is_empty()).then(|| format!("{verb} needs {}", wanted.join(" and ")))
}

/// A message of argh about the value of an option, with what was typed in front.
pub(super) fn reword(message: &str) -> String {
    let parts = message.strip_prefix("Error parsing option '").and_then(|rest| {
        let (option, rest) = rest.split_once("' with value '")?;
        let (value, cause) = rest.rsplit_once("': ")?;
        Some((option, value, cause))
    });
    let Some((option, value, cause)) = parts else { return message.to_owned() };
    // Long names that only argh needs.
    let option = match option {
        "--w" => "-w",
        "--n" => "-n",
        option => option,
    };
    let negative = value.strip_prefix('-').is_some_and(is_number);
    match option {
        _ if cause == "duplicate values provided" => format!("{option} is given twice"),
        "--from" if negative => format!(
            "{option} {value}: {cause}; entries are numbered from 1, and the last ones are shown by \
             replog-cli tail -n {}",
            &value[1..]
        ),
        "-n" if value.strip_prefix('+').is_some_and(is_number) => format!(
            "{option} {value}: {cause}; from an entry on, they are shown by replog-cli list --from {}",
            &value[1..]
        ),
        _ => format!("{option} {value}: {cause}"),
    }
}

/// `-w2` and `-n5`, which are taken apart later.
fn is_attached(option: &str) -> bool {
    let rest = option.strip_prefix("-w").or_else(|| option.strip_prefix("-n"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('-'))
}

fn no_verb(table: &CommandInfoWithArgs) -> String {
    let verbs: Vec<&str> = table.commands.iter().map(|command| command.name).collect();
    format!("a verb is missing; the verbs are {}", verbs.join(", "))
}

fn unknown_verb(verb: &str, table: &CommandInfoWithArgs) -> String {
    let wanted = verb.to_lowercase();
    let verbs = || table.commands.iter().map(|command| command.name);
    let elsewhere = || {
        let mut known = VERBS_ELSEWHERE.iter();
        known.find(|(words, _)| words.contains(&wanted.as_str())).map(|(_, name)| *name)
    };
    let exact = verbs().find(|name| *name == wanted);
    match exact.or_else(elsewhere).or_else(|| nearest(&wanted, verbs())) {
        Some(name) => format!("there is no verb {verb:?}; did you mean replog-cli {name}?"),
        None => format!("there is no verb {verb:?}"),
    }
}

fn unknown_option(option: &str, verb: Option<&str>, options: &[String]) -> String {
    let elsewhere = OPTIONS_ELSEWHERE.iter().find(|(words, name)| {
        let name = name.split(' ').next().unwrap_or(name);
        words.contains(&option) && options.iter().any(|option| option == name)
    });
    let lower = option.to_lowercase();
    // One letter is near to every other.
    let near = || nearest(&lower, options.iter().map(String::as_str)).filter(|_| option.len() > 3);
    let meant = elsewhere.map(|(_, name)| *name).or_else(near);
    let who = verb.map_or_else(|| "there is no".to_owned(), |verb| format!("{verb} has no"));
    match meant {
        Some(name) => format!("{who} option {option}; did you mean {name}?"),
        None => format!("{who} option {option}"),
    }
}

/// Mistakes with an option that have an answer of their own.
fn option_hint(verb: &str, option: &str) -> Option<String> {
    let number = option.strip_prefix('-').filter(|number| is_number(number))?;
    match verb {
        "tail" => Some(format!("tail has no option {option}; did you mean tail -n {number}?")),
        "list" => Some(format!("list has no option {option}; did you mean list --limit {number}?")),
        "get" | "wait" | "digest" | "store" => Some(format!(
            "{verb}: {option} is not a sequence number: they begin at 1, and the last entries are \
             shown by replog-cli tail -n {number}"
        )),
        _ => None,
    }
}

/// Mistakes with a word too many that have an answer of their own.
fn word_hint(verb: &str, word: &str) -> Option<String> {
    let number = is_number(word);
    match verb {
        "list" if number => Some(format!("list --from {word}, list --limit {word} or get {word}?")),
        "tail" if number => {
            Some(format!("tail -n {word} shows the last {word}, get {word} that one"))
        }
        "get" if number => {
            Some("get shows one entry; list --from N --limit N shows several".to_owned())
        }
        "status" if word == "all" || word == "watch" => Some(format!("did you mean --{word}?")),
        "status" | "health" | "metrics" | "waiters" | "verify" if word.contains(':') => {
            Some(format!("another node is asked by --server {word}"))
        }
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether words behind `--` are sent as they are.
fn takes_any_words(command: &CommandInfoWithArgs) -> bool {
    let last = command.positionals.last();
    last.is_some_and(|last| {
        matches!(last.optionality, Optionality::Repeating | Optionality::Greedy)
    })
}

fn names_of<'a>(flag: &'a FlagInfo) -> impl Iterator<Item = String> + use<'a> {
    debug_assert!(matches!(flag.kind, FlagInfoKind::Switch | FlagInfoKind::Option { .. }));
    let short = flag.short.map(|short| format!("-{short}"));
    std::iter::once(flag.long.to_owned()).chain(short)
}

fn line_options<'a>(flags: impl IntoIterator<Item = &'a FlagInfo<'a>>) -> Vec<String> {
    flags.into_iter().flat_map(names_of).collect()
}

/// The candidate that differs in the fewest letters, if they are few enough to be a slip.
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = candidates.map(|name| (distance(word, name), name));
    let slip = |(distance, name): &(usize, &str)| *distance <= 1 + name.len() / 5;
    near.filter(slip).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Letters to be put in, taken out or changed, or neighbours to be exchanged, to make one word the
/// other (the optimal string alignment distance).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let changed = usize::from(one[i - 1] != other[j - 1]);
            let mut best = min(rows[i - 1][j] + 1, row[j - 1] + 1);
            best = min(best, rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                best = min(best, rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::super::arguments::table;
    use super::*;

    fn said(args: &[&str]) -> String {
        let line = CommandLine::sort(args.iter().map(std::ffi::OsString::from)).unwrap();
        misuse(&line, &table()).unwrap_or_default()
    }

    #[test]
    fn what_was_meant_is_said() {
        for (args, expected) in [
            (&["apend", "x"][..], "there is no verb \"apend\"; did you mean replog-cli append?"),
            (&["APPEND", "x"], "there is no verb \"APPEND\"; did you mean replog-cli append?"),
            (&["stauts"], "there is no verb \"stauts\"; did you mean replog-cli status?"),
            (&["publish", "x"], "there is no verb \"publish\"; did you mean replog-cli append?"),
            (&["ls"], "there is no verb \"ls\"; did you mean replog-cli list?"),
            (&["xyzzy"], "there is no verb \"xyzzy\""),
            (&["-s", "a:1", "ping"], "there is no option -s; did you mean --server?"),
            (&["--sever", "a:1", "ping"], "there is no option --sever; did you mean --server?"),
            (&["list", "--levle", "all"], "list has no option --levle; did you mean --level?"),
            (&["status", "-a"], "status has no option -a; did you mean --all?"),
            (&["tail", "-5"], "tail has no option -5; did you mean tail -n 5?"),
            (&["tail", "-F"], "tail has no option -F; did you mean --follow?"),
            (&["list", "--json"], "list has no option --json; did you mean --output json?"),
            (
                &["append", "-x"],
                "append has no option -x; if it is to be sent as it is: replog-cli append -- -x",
            ),
            (
                &["append", "--foo=1", "x"],
                "append has no option --foo; if it is to be sent as it is: replog-cli append -- --foo",
            ),
            (
                &["get", "-1"],
                "get: -1 is not a sequence number: they begin at 1, and the last entries are shown \
                 by replog-cli tail -n 1",
            ),
            (
                &["get", "1", "2"],
                "get does not take \"2\": get shows one entry; list --from N --limit N shows several",
            ),
            (&["status", "all"], "status does not take \"all\": did you mean --all?"),
            (&["status", "--all=yes"], "--all takes no value"),
            (&["--quiet=yes", "ping"], "--quiet takes no value"),
            (&["get"], "get needs SEQ, the number of an entry"),
            (&["wait", "-w", "2"], "wait needs SEQ, the number of an entry"),
            (&["outcome", "p"], "outcome needs N, its number"),
            (&["delay"], "delay needs a duration, every=DURATION or off"),
            (&["health", "now"], "health takes no argument: \"now\" is one too many"),
        ] {
            assert_eq!(said(args), expected, "{args:?}");
        }
        assert!(said(&[]).starts_with("a verb is missing; the verbs are append, list, "));
    }

    #[test]
    fn a_value_that_is_none_is_shown_as_it_was_typed() {
        for (message, expected) in [
            (
                "Error parsing option '--w' with value '0': expected a number of nodes from 1",
                "-w 0: expected a number of nodes from 1",
            ),
            (
                "Error parsing option '--from' with value '-2': expected a number",
                "--from -2: expected a number; entries are numbered from 1, and the last ones are \
                 shown by replog-cli tail -n 2",
            ),
            (
                "Error parsing option '--n' with value '+5': expected a number",
                "-n +5: expected a number; from an entry on, they are shown by replog-cli list --from 5",
            ),
            (
                "Error parsing option '--w' with value '2': duplicate values provided",
                "-w is given twice",
            ),
            ("something else", "something else"),
        ] {
            assert_eq!(reword(message), expected);
        }
    }

    #[test]
    fn what_can_be_understood_is_left_alone() {
        for args in [
            &["append", "-w2", "--", "-x"][..],
            &["append", "-w=2", "--file", "F", "a", "b"],
            &["append", "-0"],
            &["tail", "-n5", "-f"],
            &["--server=a:1", "--quiet", "store", "4", "--", "-x"],
            &["get", "1", "--raw"],
            &["ping", "a", "b"],
        ] {
            assert_eq!(said(args), "", "{args:?}");
        }
    }

    #[test]
    fn distances_count_slips() {
        for (one, other, expected) in [
            ("append", "append", 0),
            ("apend", "append", 1),
            ("appned", "append", 1),
            ("", "ab", 2),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }
}
