//! The layer of the configuration file.

use std::path::Path;

use super::layers::{Origin, Settings, find, unknown};
use super::value::Raw;
use super::{ConfigError, KEYS};

/// Puts everything that the file says on top of `settings`.
pub(super) fn load(path: &Path, settings: &mut Settings) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let path = path.display();
        ConfigError::new(format!(
            "--config: cannot read {path}: {error}; allowed is a file as \
             replog.example.toml"
        ))
    })?;
    apply(&text, path, settings)
}

/// As [`load`], for a text already read from `path`.
pub(super) fn apply(text: &str, path: &Path, settings: &mut Settings) -> Result<(), ConfigError> {
    let sections: toml::Table = text.parse().map_err(|error| not_toml(text, path, &error))?;
    let origin = Origin::File(path.to_owned());
    for (section, keys) in sections {
        let path = path.display();
        if !KEYS.iter().any(|about| about.section() == section) {
            return Err(unknown(&section, &format!("[{}] (in {path})", Raw::text(&section))));
        }
        let toml::Value::Table(keys) = keys else {
            let value = Raw::Toml(keys);
            return Err(ConfigError::new(format!(
                "{section} = {value} (in {path}): {section} is a section; allowed is [{section}] \
                 with its keys below it"
            )));
        };
        for (name, value) in keys {
            let key = format!("{section}.{name}");
            let value = Raw::Toml(value);
            let about = find(&key).ok_or_else(|| {
                unknown(&key, &format!("{} = {value} (in {path})", Raw::text(&key)))
            })?;
            settings.put(about, value, origin.clone());
        }
    }
    Ok(())
}

/// One line with the position; the library's own text draws the place over several.
fn not_toml(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let message = error.message().replace('\n', ", ");
    let path = path.display();
    ConfigError::new(format!("--config: {path} is not TOML: line {line}: {message}"))
}
