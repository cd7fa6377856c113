//! Raw values, and how each kind of them is read.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::SecondaryConfig;
use crate::address::Address;
use crate::types::{NodeId, parse_decimal, parse_duration, parse_size};

/// A value as one layer has it, before it is known what it is meant to be.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// From a flag or the environment, where everything is text.
    Text(String),
    /// From a file, where a number is not a string.
    Toml(toml::Value),
}

/// What was read, or what is not allowed.
pub(super) type Read<T> = Result<T, Wrong>;

/// What of a value is not allowed.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    /// The part, as it is shown to the operator.
    pub(super) shown: String,
    /// Why not, where there is more to say than what is allowed.
    pub(super) why: Option<String>,
}

impl From<String> for Wrong {
    fn from(shown: String) -> Self {
        Wrong { shown, why: None }
    }
}

impl Raw {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Raw::Text(text.into())
    }

    /// The value with no type of its own.
    fn as_str(&self) -> Option<&str> {
        match self {
            Raw::Text(text) | Raw::Toml(toml::Value::String(text)) => Some(text),
            Raw::Toml(_) => None,
        }
    }

    /// As [`Raw::as_str`], with numbers of a file written out: for durations, sizes and the keys
    /// whose values are numbers or words.
    fn as_written(&self) -> Option<String> {
        match self {
            Raw::Toml(toml::Value::Integer(number)) => Some(number.to_string()),
            Raw::Toml(toml::Value::Float(number)) => Some(number.to_string()),
            _ => self.as_str().map(str::to_owned),
        }
    }

    fn or_refuse<T>(&self, value: Option<T>) -> Read<T> {
        value.ok_or_else(|| self.to_string().into())
    }

    fn refuse<T>(&self, why: impl ToString) -> Read<T> {
        Err(Wrong { shown: self.to_string(), why: Some(why.to_string()) })
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Read<bool> {
        self.or_refuse(match self {
            Raw::Text(text) => text.parse().ok(),
            Raw::Toml(value) => value.as_bool(),
        })
    }

    /// A whole number in a range.
    pub(super) fn number<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Read<T> {
        let number = match self {
            Raw::Text(text) => parse_decimal(text),
            Raw::Toml(value) => value.as_integer().and_then(|number| u64::try_from(number).ok()),
        };
        let number = number.filter(|number| range.contains(number));
        self.or_refuse(number.and_then(|number| T::try_from(number).ok()))
    }

    /// A duration in a range.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Read<Duration> {
        let duration = self.as_written().and_then(|text| parse_duration(&text).ok());
        self.or_refuse(duration.filter(|duration| range.contains(duration)))
    }

    /// A size in bytes in a range.
    pub(super) fn size<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Read<T> {
        let size = self.as_written().and_then(|text| parse_size(&text).ok());
        let size = size.filter(|size| range.contains(size));
        self.or_refuse(size.and_then(|size| T::try_from(size).ok()))
    }

    /// A value that knows how it is written; a number of a file is written out first.
    pub(super) fn parsed<T: FromStr>(&self) -> Read<T> {
        self.or_refuse(self.as_written().and_then(|text| text.parse().ok()))
    }

    /// A name: like [`Raw::parsed`], but never a number of a file.
    pub(super) fn name<T: FromStr>(&self) -> Read<T> {
        self.or_refuse(self.as_str().and_then(|text| text.parse().ok()))
    }

    /// The name of a node. It is the name of a directory, too.
    pub(super) fn node_id(&self) -> Read<NodeId> {
        let id: NodeId = self.name()?;
        if [".", ".."].contains(&id.as_str()) {
            return self.refuse("it cannot be the name of a directory");
        }
        Ok(id)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Read<T> {
        let text = self.as_str();
        self.or_refuse(choices.iter().find(|(word, _)| text == Some(word)).map(|(_, value)| *value))
    }

    /// `none`, or what `read` finds.
    pub(super) fn or_none<T>(&self, read: fn(&Raw) -> Read<T>) -> Read<Option<T>> {
        if self.as_str() == Some("none") { Ok(None) } else { read(self).map(Some) }
    }

    /// A path; whether it exists is found out by whoever opens it.
    pub(super) fn path(&self) -> Read<PathBuf> {
        match self.as_str() {
            // Elsewhere it stands for stdout, so nobody means a file of that name.
            Some("-") => self.refuse("write ./- for a file of that name"),
            text => self.or_refuse(text.filter(|it| !it.trim().is_empty()).map(PathBuf::from)),
        }
    }

    /// `host:port`, kept as written but for spaces around it, so that a name is resolved each time it
    /// is used.
    pub(super) fn address(&self) -> Read<String> {
        let text = self.as_str().ok_or_else(|| Wrong::from(self.to_string()))?.trim();
        match text.parse::<Address>() {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => self.refuse(error),
        }
    }

    /// Whether it is a text with nothing in it.
    pub(super) fn is_blank(&self) -> bool {
        self.as_str().is_some_and(|text| text.trim().is_empty())
    }

    /// An array, or one comma-separated string.
    pub(super) fn list<T>(&self, read: impl Fn(&Raw) -> Read<T>) -> Read<Vec<T>> {
        match self {
            Raw::Toml(toml::Value::Array(items)) => {
                items.iter().map(|item| read(&Raw::Toml(item.clone()))).collect()
            }
            _ => {
                let text = self.as_str().ok_or_else(|| Wrong::from(self.to_string()))?;
                let items = text.split(',').filter(|_| !text.trim().is_empty());
                items.map(|item| read(&Raw::text(item.trim()))).collect()
            }
        }
    }

    /// A secondary of the roster: `{ id, addr }`, or `id=addr`.
    pub(super) fn secondary(&self) -> Read<SecondaryConfig> {
        let (id, addr) = match self {
            Raw::Toml(toml::Value::Table(table)) => {
                let field = |name| table.get(name).cloned().map(Raw::Toml);
                (field("id"), field("addr")) // a third field makes the length differ from 2
            }
            _ => self.as_str().and_then(|text| text.split_once('=')).map_or((None, None), |pair| {
                (Some(Raw::text(pair.0.trim())), Some(Raw::text(pair.1.trim())))
            }),
        };
        let surplus = matches!(self, Raw::Toml(toml::Value::Table(table)) if table.len() != 2);
        let (id, addr) = self.or_refuse(id.zip(addr).filter(|_| !surplus))?;
        let of_all = |wrong: Wrong| Wrong { shown: self.to_string(), ..wrong };
        Ok(SecondaryConfig {
            id: id.node_id().map_err(of_all)?,
            addr: addr.address().map_err(of_all)?,
        })
    }
}

/// As the operator wrote it, as far as one line can show that: what is empty, has spaces or control
/// characters stands in quotes, and what is very long is cut.
impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_CHARS_MAX: usize = 100;
        let whole = match self {
            Raw::Text(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) => {
                text.clone()
            }
            Raw::Text(text) => format!("{text:?}"),
            Raw::Toml(value) => value.to_string().replace('\n', " "),
        };
        let mut chars = whole.chars();
        let shown: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
        let cut = if chars.next().is_some() { "…" } else { "" };
        write!(f, "{shown}{cut}")
    }
}
