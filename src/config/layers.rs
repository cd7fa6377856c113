//! Raw values of several layers, one on top of the other, each with the layer it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::keys::{About, KEYS, Key};
use super::value::{Raw, Wrong};
use super::{ConfigError, LogConfig, Role, keys};

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nobody.
    Default,
    /// The file with this name.
    File(PathBuf),
    /// The environment variable with this name.
    Variable(String),
    /// This flag.
    Flag(&'static str),
}

impl Origin {
    /// The layers from the lowest to the topmost.
    pub(super) fn layer(&self) -> u8 {
        match self {
            Origin::Default => 0,
            Origin::File(_) => 1,
            Origin::Variable(_) => 2,
            Origin::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "the default"),
            Origin::File(path) => write!(f, "set in {}", path.display()),
            Origin::Variable(name) => write!(f, "set by {name} in the environment"),
            Origin::Flag(flag) => write!(f, "set by {flag}"),
        }
    }
}

/// What has been set so far. A later layer goes on top of an earlier one.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    values: BTreeMap<&'static str, (Raw, Origin)>,
    /// The first thing that was no setting at all. What follows it is still read, so that the
    /// refusal can be told where log lines are to go.
    refused: Option<ConfigError>,
    notes: Vec<String>,
}

impl Settings {
    /// Sets a key, whatever an earlier layer said.
    pub(super) fn put(&mut self, about: &About, value: Raw, origin: Origin) {
        self.values.insert(about.key, (value, origin));
    }

    /// Remembers what could not be read. The first is the one that is told.
    pub(super) fn refuse_all(&mut self, error: ConfigError) {
        self.refused.get_or_insert(error);
    }

    /// What [`Settings::refuse_all`] remembered.
    pub(super) fn refused(&self) -> Result<(), ConfigError> {
        self.refused.clone().map_or(Ok(()), Err)
    }

    /// Something the operator should know.
    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// All notes.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where log lines are to go, as far as that is understood.
    pub(super) fn log(&self, role: Role) -> LogConfig {
        fn read<T>(settings: &Settings, key: &Key<T>, role: Role) -> T {
            let default = || Settings::default().read(key, role);
            let read = settings.read(key, role).or_else(|_| default());
            read.expect("BUG: a default is refused, which a test would have shown")
        }
        LogConfig {
            level: read(self, &keys::LEVEL, role),
            format: read(self, &keys::FORMAT, role),
            file: read(self, &keys::FILE, role),
        }
    }

    /// Sets a key by its own flag, if that was given. Both that and `--set` of the same key is a
    /// contradiction: argh forgets their order, so there would be no telling which was meant.
    pub(super) fn put_flag(&mut self, about: &About, flag: &'static str, value: Option<String>) {
        let Some(value) = value else { return };
        if self.origin(about) == Origin::Flag(SET) {
            let key = about.key;
            return self.refuse_all(ConfigError::new(format!(
                "{flag}: {key} is set twice, by {flag} and by {SET} {key}; leave one out"
            )));
        }
        self.put(about, Raw::text(value), Origin::Flag(flag));
    }

    /// Sets a key by `--set SECTION.KEY=VALUE`. Twice the same key is a contradiction, as it is with
    /// every other flag.
    pub(super) fn put_assignment(&mut self, assignment: &str) {
        match read_assignment(assignment) {
            Err(error) => self.refuse_all(error),
            Ok((about, _)) if self.origin(about) == Origin::Flag(SET) => {
                let key = about.key;
                self.refuse_all(ConfigError::new(format!(
                    "{SET} {}: {key} is set twice by {SET}; leave one out",
                    Raw::text(assignment)
                )));
            }
            Ok((about, value)) => self.put(about, Raw::text(value), Origin::Flag(SET)),
        }
    }

    /// Who set the key.
    pub(super) fn origin(&self, about: &About) -> Origin {
        self.values.get(about.key).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// The value of the key as it was written, or its default.
    pub(super) fn raw(&self, about: &About, role: Role) -> Raw {
        let set = self.values.get(about.key).map(|(value, _)| value.clone());
        set.unwrap_or_else(|| Raw::text(about.default_for(role)))
    }

    /// The checked value of the key.
    pub(super) fn read<T>(&self, key: &Key<T>, role: Role) -> Result<T, ConfigError> {
        (key.read)(&self.raw(&key.about, role)).map_err(|Wrong { shown, why }| {
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            self.refuse(&key.about, &format!("{shown} is not allowed{why}"), key.about.allowed)
        })
    }

    /// The refusal of a value: key, what is wrong with which value, origin, what is allowed.
    pub(super) fn refuse(&self, about: &About, wrong: &str, allowed: &str) -> ConfigError {
        let (key, origin) = (about.key, self.origin(about));
        ConfigError::new(format!("{key}: {wrong} ({origin}); allowed is {allowed}"))
    }
}

/// The key and the value of `SECTION.KEY=VALUE`.
fn read_assignment(assignment: &str) -> Result<(&'static About, &str), ConfigError> {
    let given = Raw::text(assignment);
    let (key, value) = assignment.split_once('=').ok_or_else(|| {
        ConfigError::new(format!(
            "{SET} {given}: allowed is SECTION.KEY=VALUE, such as {SET} cluster.quorum=2"
        ))
    })?;
    let about = find(key).ok_or_else(|| unknown(key, &format!("{SET} {given}")))?;
    Ok((about, value))
}

/// The flag that sets any key.
pub(super) const SET: &str = "--set";

/// The key with this name.
pub(super) fn find(key: &str) -> Option<&'static About> {
    KEYS.iter().find(|about| about.key == key)
}

/// The refusal of `section.key`, or of a section alone, that the table does not have. `place` is
/// where the operator finds it.
pub(super) fn unknown(key: &str, place: &str) -> ConfigError {
    let section = key.split_once('.').map_or(key, |(section, _)| section);
    let known: Vec<_> = KEYS.iter().filter(|about| about.section() == section).collect();
    if known.is_empty() {
        let mut sections: Vec<_> = KEYS.iter().map(About::section).collect();
        sections.dedup();
        let sections = sections.join(", ");
        ConfigError::new(format!(
            "{place}: there is no section {}; allowed are {sections}",
            Raw::text(section)
        ))
    } else {
        let names: Vec<_> = known.iter().map(|about| about.name()).collect();
        let names = names.join(", ");
        ConfigError::new(format!(
            "{place}: there is no key {}; allowed in {section} are {names}",
            Raw::text(key)
        ))
    }
}
