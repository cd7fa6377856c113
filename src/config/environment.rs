//! The layer of the environment: `REPLOG_<SECTION>_<KEY>`.

use std::ffi::OsString;
use std::net::IpAddr;

use super::ConfigError;
use super::layers::{Origin, Settings, unknown};
use super::value::Raw;
use super::{About, KEYS};
use crate::types::parse_decimal;

/// Puts what the environment says on top of `settings`. What begins with `REPLOG_` and has no known
/// section is somebody else's: `REPLOG_SERVER` belongs to replog-cli. So is what a scheduler tells
/// about its services, one of which may be called like a section of ours.
pub(super) fn apply(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    settings: &mut Settings,
) {
    let mut injected = Vec::new();
    for (name, value) in environment {
        let Some((name, section, key)) = name.to_str().and_then(split) else { continue };
        let shown = Raw::text(value.to_string_lossy());
        match KEYS.iter().find(|about| about.variable() == name) {
            Some(about) => {
                settings.put(about, shown.clone(), Origin::Variable(name.to_owned()));
                if value.to_str().is_none() {
                    let wrong = format!("{shown} is not UTF-8");
                    settings.refuse_all(settings.refuse(about, &wrong, about.allowed));
                }
            }
            None if value.to_str().is_some_and(|value| tells_of_a_service(&key, value)) => {
                injected.push(name.to_owned());
            }
            None => {
                let key = key.escape_debug();
                let said = format!("{}={shown} (in the environment)", name.escape_debug());
                let error = unknown(&format!("{section}.{key}"), &said);
                settings.refuse_all(ConfigError::new(format!(
                    "{error}; if a scheduler set it, switch that off (Kubernetes: enableServiceLinks: \
                     false)"
                )));
            }
        }
    }
    if !injected.is_empty() {
        injected.sort_unstable();
        settings.note(format!(
            "ignored variables that a scheduler set for a service of this name: {} (Kubernetes: \
             enableServiceLinks: false leaves them out)",
            named(&injected)
        ));
    }
}

/// The name again, its section and its key, if it has a section that is ours.
fn split(name: &str) -> Option<(&str, &'static str, String)> {
    let (section, key) = name.strip_prefix("REPLOG_")?.split_once('_')?;
    let known = KEYS.iter().map(About::section).find(|known| known.to_uppercase() == section)?;
    Some((name, known, key.to_lowercase()))
}

/// Whether this is what Kubernetes, and Docker before it, set in each container for a service, such as
/// `REPLOG_NODE_PORT=tcp://10.0.0.1:9000` for one called `replog-node`. The value is looked at, too: a
/// key of ours that is misspelt is never taken for it.
fn tells_of_a_service(key: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];
    let is_number = |text: &str| parse_decimal(text).is_some_and(|port| port <= 65_535);
    let is_url = || {
        let protocol = value.split_once("://").map(|(protocol, _)| protocol);
        protocol.is_some_and(|protocol| PROTOCOLS.contains(&protocol))
    };
    // The service may have a longer name than the section.
    let words: Vec<&str> = key.split('_').collect();
    (0..words.len()).any(|at| match &words[at..] {
        ["service", "host"] => value.parse::<IpAddr>().is_ok(),
        ["service", "port", ..] => is_number(value),
        ["port"] => is_url(),
        ["port", number, protocol, rest @ ..]
            if is_number(number) && PROTOCOLS.contains(protocol) =>
        {
            match rest {
                [] => is_url(),
                ["proto"] => PROTOCOLS.contains(&value),
                ["port"] => is_number(value),
                ["addr"] => value.parse::<IpAddr>().is_ok(),
                _ => false,
            }
        }
        _ => false,
    })
}

/// The first names of many.
fn named(names: &[String]) -> String {
    const SHOWN_MAX: usize = 8;
    let shown = names[..names.len().min(SHOWN_MAX)].join(", ");
    match names.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
