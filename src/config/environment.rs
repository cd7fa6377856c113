//! The layer of the environment: `REPLOG_<SECTION>_<KEY>`.

use std::ffi::OsString;

use super::ConfigError;
use super::layers::{Origin, Settings, unknown};
use super::value::Raw;
use super::{About, KEYS};

/// Puts what the environment says on top of `settings`. What begins with `REPLOG_` and has no known
/// section is somebody else's: `REPLOG_SERVER` belongs to replog-cli.
pub(super) fn apply(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    settings: &mut Settings,
) -> Result<(), ConfigError> {
    for (name, value) in environment {
        let Some((name, section, key)) = name.to_str().and_then(split) else { continue };
        let shown = Raw::text(value.to_string_lossy());
        let about = KEYS.iter().find(|about| about.variable() == name).ok_or_else(|| {
            let key = key.escape_debug();
            let said = format!("{}={shown} (in the environment)", name.escape_debug());
            unknown(&format!("{section}.{key}"), &said)
        })?;
        settings.put(about, shown.clone(), Origin::Variable(name.to_owned()));
        if value.to_str().is_none() {
            return Err(settings.refuse(about, &format!("{shown} is not UTF-8"), about.allowed));
        }
    }
    Ok(())
}

/// The name again, its section and its key, if it has a section that is ours.
fn split(name: &str) -> Option<(&str, &'static str, String)> {
    let (section, key) = name.strip_prefix("REPLOG_")?.split_once('_')?;
    let known = KEYS.iter().map(About::section).find(|known| known.to_uppercase() == section)?;
    Some((name, known, key.to_lowercase()))
}
