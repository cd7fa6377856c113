//! The layer of the configuration file.

use std::path::Path;

use super::layers::{Origin, Settings, find, unknown};
use super::value::Raw;
use super::{ConfigError, KEYS};

/// Puts everything that the file says on top of `settings`.
pub(super) fn load(path: &Path, settings: &mut Settings) {
    match std::fs::read_to_string(path) {
        Ok(text) => apply(&text, path, settings),
        Err(error) => {
            let path = path.display();
            settings.refuse_all(ConfigError::new(format!(
                "--config: cannot read {path}: {error}; allowed is a file as \
                 replog.example.toml"
            )));
        }
    }
}

/// As [`load`], for a text already read from `path`.
pub(super) fn apply(text: &str, path: &Path, settings: &mut Settings) {
    let sections: toml::Table = match text.parse() {
        Ok(sections) => sections,
        Err(error) => return settings.refuse_all(not_toml(text, path, &error)),
    };
    let origin = Origin::File(path.to_owned());
    for (section, keys) in sections {
        let path = path.display();
        if !KEYS.iter().any(|about| about.section() == section) {
            let place = format!("[{}] (in {path})", Raw::text(&section));
            settings.refuse_all(unknown(&section, &place));
            continue;
        }
        let toml::Value::Table(keys) = keys else {
            let value = Raw::Toml(keys);
            settings.refuse_all(ConfigError::new(format!(
                "{section} = {value} (in {path}): {section} is a section; allowed is [{section}] \
                 with its keys below it"
            )));
            continue;
        };
        for (name, value) in keys {
            let key = format!("{section}.{name}");
            let value = Raw::Toml(value);
            match find(&key) {
                Some(about) => settings.put(about, value, origin.clone()),
                None => {
                    let place = format!("{} = {value} (in {path})", Raw::text(&key));
                    settings.refuse_all(unknown(&key, &place));
                }
            }
        }
    }
}

/// One line with the position; the library's own text draws the place over several.
fn not_toml(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let message = error.message().replace('\n', ", ");
    let path = path.display();
    ConfigError::new(format!("--config: {path} is not TOML: line {line}: {message}"))
}
