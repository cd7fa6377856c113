//! `host:port`, as it is written in flags, files, rosters and on the command line of the client: one
//! rule for all of them, and a sentence for each way to get it wrong.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::types::parse_decimal;

/// A host and a port. The host is kept as written, so that a name is looked up each time it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    V4(Ipv4Addr),
    /// With its scope, as in `fe80::1%eth0`; empty if there is none.
    V6(Ipv6Addr, String),
    Name(String),
}

/// Why a text is no address. Shows the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

impl Address {
    /// What a look-up takes: the host without brackets, with its scope, and the port.
    pub fn host_and_port(&self) -> (String, u16) {
        let host = match &self.host {
            Host::V4(addr) => addr.to_string(),
            Host::V6(addr, scope) if scope.is_empty() => addr.to_string(),
            Host::V6(addr, scope) => format!("{addr}%{scope}"),
            Host::Name(name) => name.clone(),
        };
        (host, self.port)
    }

    /// The port; 0 is any free one, where one listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host, if it is no name.
    fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::V4(addr) => Some(addr.into()),
            Host::V6(addr, _) => Some(IpAddr::from(addr).to_canonical()),
            Host::Name(_) => None,
        }
    }

    /// Whether it is the name `localhost`, which may stand for `127.0.0.1`, `::1` or both.
    pub fn is_localhost(&self) -> bool {
        matches!(&self.host, Host::Name(name) if name.trim_end_matches('.').eq_ignore_ascii_case("localhost"))
    }

    /// Whether the host is surely this machine and nobody else can reach it. Names other than
    /// `localhost` are not looked up: what they mean may change between the look-up and the use.
    pub fn is_loopback(&self) -> bool {
        self.is_localhost() || self.ip().is_some_and(|addr| addr.is_loopback())
    }

    /// Whether the host stands for all addresses of this machine.
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|addr| addr.is_unspecified())
    }

    /// Whether both are one place, however each is written: without a look-up, so that two names are
    /// one place only if they are the same name.
    pub fn is_same_place(&self, other: &Address) -> bool {
        if self.port != other.port {
            return false;
        }
        let localhost_and = |one: &Address, other: &Address| {
            let first = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
            one.is_localhost() && other.ip().is_some_and(|addr| first.contains(&addr))
        };
        match (&self.host, &other.host) {
            (Host::Name(one), Host::Name(other)) => {
                one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
            }
            (Host::V6(one, one_scope), Host::V6(other, other_scope)) => {
                one == other && one_scope == other_scope
            }
            (Host::Name(_), _) | (_, Host::Name(_)) => {
                localhost_and(self, other) || localhost_and(other, self)
            }
            _ => self.ip() == other.ip(),
        }
    }
}

/// As it is written: an IPv6 address in brackets.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = self.host_and_port();
        match self.host {
            Host::V6(..) => write!(f, "[{host}]:{port}"),
            _ => write!(f, "{host}:{port}"),
        }
    }
}

/// Spaces around it do not count: they come from files and variables that were put together.
impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let refuse = |sentence: String| Err(AddressError(sentence));
        if let Some((scheme, rest)) = text.split_once("://") {
            let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
            return refuse(format!("leave out {scheme}:// and write {}", or_example(rest)));
        }
        if let Some(inner) = text.strip_prefix('[') {
            return bracketed(inner);
        }
        if text.parse::<Ipv6Addr>().is_ok() || text.matches(':').count() > 1 {
            return refuse(unbracketed(text));
        }
        let Some((host, port)) = text.split_once(':') else {
            return refuse(format!("a port is missing, as in {}", or_example(text)));
        };
        let port = port_of(port)?;
        if host.is_empty() || host == "*" {
            return refuse(format!(
                "a host is missing: 127.0.0.1:{port} is for this machine only, 0.0.0.0:{port} is for \
                 all (IPv6: [::]:{port})"
            ));
        }
        Ok(Address { host: host_of(host)?, port })
    }
}

/// What follows the opening bracket of an IPv6 address.
fn bracketed(inner: &str) -> Result<Address, AddressError> {
    let Some((host, port)) = inner.split_once(']') else {
        return Err(AddressError("a bracket is missing, as in [::1]:9000".to_owned()));
    };
    let (addr, scope) = host.split_once('%').unwrap_or((host, ""));
    let scope_is_one = scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%');
    let addr = match addr.parse::<Ipv6Addr>() {
        Ok(addr) if scope_is_one && (scope.is_empty() != host.contains('%')) => addr,
        _ => {
            let sentence =
                "brackets are for an IPv6 address, as in [::1]:9000 or [fe80::1%eth0]:9000";
            return Err(AddressError(sentence.to_owned()));
        }
    };
    let Some(port) = port.strip_prefix(':') else {
        return Err(AddressError(format!("a port is missing, as in [{host}]:9000")));
    };
    Ok(Address { host: Host::V6(addr, scope.to_owned()), port: port_of(port)? })
}

/// The sentence for an address with more than one colon and without brackets.
fn unbracketed(text: &str) -> String {
    let shown = match text.rsplit_once(':') {
        Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() && port_of(port).is_ok() => {
            format!("[{host}]:{port}")
        }
        _ if text.parse::<Ipv6Addr>().is_ok() => format!("[{text}]:9000"),
        _ => "[::1]:9000".to_owned(),
    };
    format!("an IPv6 address stands in brackets, before the port: {shown}")
}

fn port_of(text: &str) -> Result<u16, AddressError> {
    parse_decimal(text)
        .and_then(|port| u16::try_from(port).ok())
        .ok_or_else(|| AddressError("a port is a number from 0 to 65535".to_owned()))
}

fn host_of(host: &str) -> Result<Host, AddressError> {
    if let Ok(addr) = host.parse::<Ipv4Addr>() {
        return Ok(Host::V4(addr));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let labels = || name.split('.');
    // No name ends so (RFC 1123, 2.1), and a resolver would take some of these for other addresses.
    let is_number = |label: &str| {
        let digits = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit())
            || digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    if labels().next_back().is_some_and(is_number) {
        let sentence = format!(
            "{host} is not an IPv4 address, which is four numbers from 0 to 255, as in 127.0.0.1"
        );
        return Err(AddressError(sentence));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(allowed);
    if name.len() > 253 || !labels().all(is_label) {
        return Err(AddressError(
            "a host name is made of a-z A-Z 0-9 - _ and single dots".to_owned(),
        ));
    }
    Ok(Host::Name(host.to_owned()))
}

/// The host again with a port, if it is one that lacks nothing else.
fn or_example(text: &str) -> String {
    if text.contains(':') && text.parse::<Address>().is_ok() {
        text.to_owned()
    } else if !text.is_empty() && host_of(text).is_ok() {
        format!("{text}:9000")
    } else {
        "127.0.0.1:9000".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn addresses_are_written_as_everybody_writes_them() {
        for (text, host, port) in [
            ("127.0.0.1:9000", "127.0.0.1", 9000),
            (" 127.0.0.1:9000\t", "127.0.0.1", 9000),
            ("[::1]:0", "::1", 0),
            ("[0:0::1]:65535", "::1", 65535),
            ("[fe80::1%lo]:9000", "fe80::1%lo", 9000),
            ("[fe80::1%2]:9000", "fe80::1%2", 9000),
            ("node-a:1", "node-a", 1),
            ("Node_a.example.org.:1", "Node_a.example.org.", 1),
            ("3com.example:1", "3com.example", 1),
            ("10.0.0.1.nip.io:1", "10.0.0.1.nip.io", 1),
        ] {
            assert_eq!(address(text).host_and_port(), (host.to_owned(), port), "{text}");
        }
        assert_eq!(address("[0:0::1]:1").to_string(), "[::1]:1");
        assert_eq!(address("[fe80::1%lo]:1").to_string(), "[fe80::1%lo]:1");
        assert_eq!(address("a:1").to_string(), "a:1");
    }

    #[test]
    fn what_is_no_address_gets_the_sentence_that_shows_the_way_out() {
        for (text, part) in [
            ("", "a port is missing, as in 127.0.0.1:9000"),
            ("localhost", "a port is missing, as in localhost:9000"),
            ("9000", "a port is missing, as in 127.0.0.1:9000"),
            (":9000", "0.0.0.0:9000 is for all"),
            ("*:9000", "[::]:9000"),
            ("::1:9000", ": [::1]:9000"),
            ("::1", ": [::1]:9000"),
            ("fe80::1", ": [fe80::1]:9000"),
            ("2001:db8::7:80", ": [2001:db8::7]:80"),
            ("a:b:9000", "[::1]:9000"),
            ("[::1]", "a port is missing, as in [::1]:9000"),
            ("[::1]9000", "a port is missing, as in [::1]:9000"),
            ("[::1:9000", "a bracket is missing"),
            ("[127.0.0.1]:9000", "brackets are for an IPv6 address"),
            ("[fe80::1%]:9000", "[fe80::1%eth0]:9000"),
            ("[fe80::1%a b]:9000", "[fe80::1%eth0]:9000"),
            ("http://127.0.0.1:9000/x", "leave out http:// and write 127.0.0.1:9000"),
            ("tcp://10.0.0.1:9000", "leave out tcp:// and write 10.0.0.1:9000"),
            ("https://node-a", "leave out https:// and write node-a:9000"),
            ("http://", "leave out http:// and write 127.0.0.1:9000"),
            ("256.0.0.1:9000", "256.0.0.1 is not an IPv4 address"),
            ("1.2.3:9000", "1.2.3 is not an IPv4 address"),
            ("127.1:9000", "not an IPv4 address"),
            ("0x7f000001:9000", "not an IPv4 address"),
            ("127.0.0.01:9000", "not an IPv4 address"),
            ("127.0.0.1.:9000", "not an IPv4 address"),
            ("1:9000", "1 is not an IPv4 address"),
            ("a b:9000", "a host name is made of"),
            ("a..b:9000", "single dots"),
            ("a/b:9000", "a host name is made of"),
            ("bücher.example:9000", "a host name is made of"),
            ("a:", "a number from 0 to 65535"),
            ("a:65536", "a number from 0 to 65535"),
            ("a:-1", "a number from 0 to 65535"),
            ("a: 1", "a number from 0 to 65535"),
            ("a:http", "a number from 0 to 65535"),
        ] {
            let sentence = text.parse::<Address>().expect_err(text).to_string();
            assert!(sentence.contains(part), "{text}: {sentence:?} lacks {part:?}");
        }
    }

    #[test]
    fn one_place_is_found_out_however_it_is_written() {
        for (one, other) in [
            ("a:1", "A:1"),
            ("a:1", "a.:1"),
            ("localhost:1", "LOCALHOST:1"),
            ("localhost:1", "127.0.0.1:1"),
            ("[::1]:1", "localhost:1"),
            ("[::1]:1", "[0::1]:1"),
            ("[::ffff:10.0.0.1]:1", "10.0.0.1:1"),
        ] {
            assert!(address(one).is_same_place(&address(other)), "{one} {other}");
        }
        for (one, other) in [
            ("a:1", "a:2"),
            ("a:1", "b:1"),
            ("127.0.0.1:1", "[::1]:1"),
            ("127.0.0.2:1", "localhost:1"),
            ("[fe80::1%1]:1", "[fe80::1%2]:1"),
        ] {
            assert!(!address(one).is_same_place(&address(other)), "{one} {other}");
        }
    }

    #[test]
    fn loopback_is_what_is_surely_this_machine() {
        for text in
            ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost.:1"]
        {
            assert!(address(text).is_loopback(), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "master:1", "127.0.0.1.evil.org:1"] {
            assert!(!address(text).is_loopback(), "{text}");
        }
        assert!(address("0.0.0.0:1").is_unspecified() && address("[::]:1").is_unspecified());
    }
}
