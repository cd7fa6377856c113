//! Raw values, and how each kind of them is read.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::SecondaryConfig;
use crate::types::{parse_decimal, parse_duration, parse_size};

/// A value as one layer has it, before it is known what it is meant to be.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// From a flag or the environment, where everything is text.
    Text(String),
    /// From a file, where a number is not a string.
    Toml(toml::Value),
}

/// What was read, or the part that is not allowed, as it is shown to the operator.
pub(super) type Read<T> = Result<T, String>;

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
        value.ok_or_else(|| self.to_string())
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
        self.or_refuse(self.as_str().filter(|text| !text.is_empty()).map(PathBuf::from))
    }

    /// `host:port`, kept as written, so that a name is resolved each time it is used.
    pub(super) fn address(&self) -> Read<String> {
        self.or_refuse(self.as_str().filter(|text| split_address(text).is_some()))
            .map(str::to_owned)
    }

    /// An array, or one comma-separated string.
    pub(super) fn list<T>(&self, read: impl Fn(&Raw) -> Read<T>) -> Read<Vec<T>> {
        match self {
            Raw::Toml(toml::Value::Array(items)) => {
                items.iter().map(|item| read(&Raw::Toml(item.clone()))).collect()
            }
            _ => {
                let text = self.as_str().ok_or_else(|| self.to_string())?;
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
        let secondary = id.zip(addr).filter(|_| !surplus).and_then(|(id, addr)| {
            Some(SecondaryConfig { id: id.name().ok()?, addr: addr.address().ok()? })
        });
        self.or_refuse(secondary)
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

/// The host and the port of `host:port`. An IPv6 address stands in brackets, which are taken off.
pub(super) fn split_address(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = parse_decimal(port).and_then(|port| u16::try_from(port).ok())?;
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok().then_some((inner, port));
    }
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (!host.is_empty() && host.bytes().all(named)).then_some((host, port))
}
