//! The file `meta`: what a node must not forget beside its entries, as text that a person can read.
//!
//! ```text
//! replog 1                     the format; what follows is of that format
//! node=s1
//! log=3a…                      32 hex digits, or -
//! epoch=7                      promised or led
//! run=00f1…                    16 hex digits: the master's process that the promise binds
//! commit=120                   the highest commit known when this was written
//! vouches=true
//! settled=7                    the settled epoch; not in what older versions wrote
//! clean=-                      after a clean stop: the last entry, its epoch and its digest
//! cut=-                        entries from here on are on their way out of the log
//! aside=1                      the next number below aside/
//! fsync=always                 the policy and the machine's boot while the node ran
//! boot=…
//! crc=0a1b2c3d                 CRC-32C of everything above, in hex
//! ```
//!
//! The same lines stand in the file twice, so that a flipped bit destroys no promise. The file is
//! replaced as a whole: `meta.tmp` is written and synced, renamed, and the directory synced.

use std::fmt::Write;
use std::path::Path;

use super::format::FORMAT_VERSION;
use crate::checksum::crc32c;
use crate::store::Identity;
use crate::store::fs::Fs;
use crate::types::{Digest, Epoch, LogId, NodeId, PrefixId, RunId, Seq, parse_decimal};

/// The file's name.
pub(crate) const META: &str = "meta";
const META_TMP: &str = "meta.tmp";
/// Far more than a whole file has.
const META_BYTES_MAX: u64 = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) node_id: NodeId,
    pub(crate) identity: Identity,
    /// After a clean stop: where the log ended.
    pub(crate) clean: Option<(Seq, PrefixId)>,
    pub(crate) cut: Option<Seq>,
    pub(crate) aside_next: u64,
    pub(crate) fsync: String,
    pub(crate) boot: String,
}

/// Why there is no usable `meta`.
#[derive(Debug)]
pub(crate) enum BadMeta {
    Newer(u32),
    Damaged,
    Io(std::io::Error),
}

impl Meta {
    /// What a new directory says.
    pub(crate) fn new(node_id: NodeId) -> Self {
        Meta {
            node_id,
            identity: Identity::default(),
            clean: None,
            cut: None,
            aside_next: 1,
            fsync: String::new(),
            boot: String::new(),
        }
    }

    pub(crate) fn encode(&self) -> String {
        let mut text = format!("replog {FORMAT_VERSION}\n");
        let identity = &self.identity;
        let clean = self.clean.map(|(last, tail)| format!("{last}/{tail}"));
        let log_id = identity.log_id.map(|log_id| log_id.to_string());
        let cut = self.cut.map(|cut| cut.to_string());
        let dash = || "-".to_owned();
        for (key, value) in [
            ("node", self.node_id.to_string()),
            ("log", log_id.unwrap_or_else(dash)),
            ("epoch", identity.epoch.to_string()),
            ("run", format!("{:016x}", identity.run_id.value())),
            ("commit", identity.commit.to_string()),
            ("vouches", identity.vouches.to_string()),
            ("settled", identity.settled.to_string()),
            ("clean", clean.unwrap_or_else(dash)),
            ("cut", cut.unwrap_or_else(dash)),
            ("aside", self.aside_next.to_string()),
            ("fsync", self.fsync.clone()),
            ("boot", self.boot.clone()),
        ] {
            let _ = writeln!(text, "{key}={value}"); // Writing to a string cannot fail.
        }
        let crc = crc32c(text.as_bytes());
        let _ = writeln!(text, "crc={crc:08x}");
        text.repeat(2)
    }

    /// Reads the lines, and says whether both copies are whole.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Meta, bool), BadMeta> {
        let text = String::from_utf8_lossy(bytes);
        // Each copy begins with the magic word, which no value contains.
        let second = text.match_indices("replog ").map(|(at, _)| at).find(|&at| at > 0);
        let middle = second.unwrap_or(text.len());
        let copies = [&text[..middle], &text[middle..]].map(decode_copy);
        match copies {
            [Ok(first), Ok(second)] if first == second => Ok((first, true)),
            [Ok(meta), _] | [_, Ok(meta)] => Ok((meta, false)),
            [Err(BadMeta::Newer(version)), _] | [_, Err(BadMeta::Newer(version))] => {
                Err(BadMeta::Newer(version))
            }
            _ => Err(BadMeta::Damaged),
        }
    }

    pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> Result<(Meta, bool), BadMeta> {
        let file = fs.open_to_read(&dir.join(META)).map_err(BadMeta::Io)?;
        let len = file.len().map_err(BadMeta::Io)?.min(META_BYTES_MAX);
        let mut bytes = vec![0; len as usize]; // At most META_BYTES_MAX.
        let count = file.read_at(&mut bytes, 0).map_err(BadMeta::Io)?;
        Meta::decode(&bytes[..count])
    }

    /// Replaces the file. Durable when this returns.
    pub(crate) fn write(&self, fs: &dyn Fs, dir: &Path) -> std::io::Result<()> {
        let tmp = dir.join(META_TMP);
        let file = fs.create(&tmp)?;
        if let Err(error) = file.write_at(&[self.encode().as_bytes()], 0) {
            // Half a file helps nobody, and others need its room.
            let _ = fs.remove(&tmp);
            return Err(error);
        }
        file.sync_data()?;
        fs.rename(&tmp, &dir.join(META))?;
        fs.sync_dir(dir)
    }
}

fn decode_copy(text: &str) -> Result<Meta, BadMeta> {
    // Of a newer format the first line and the checksum are understood.
    let at = text.find("\ncrc=").ok_or(BadMeta::Damaged)? + 1;
    let crc = text[at..].lines().next().unwrap_or_default().trim_start_matches("crc=");
    if format!("{:08x}", crc32c(&text.as_bytes()[..at])) != crc {
        return Err(BadMeta::Damaged);
    }
    let mut lines = text[..at].lines();
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("replog "))
        .and_then(parse_decimal)
        .and_then(|version| u32::try_from(version).ok())
        .ok_or(BadMeta::Damaged)?;
    if version != FORMAT_VERSION {
        return Err(BadMeta::Newer(version));
    }
    decode_fields(lines).ok_or(BadMeta::Damaged)
}

fn decode_fields<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Meta> {
    let mut lines = lines.peekable();
    let has_settled = |line: &&str| line.starts_with("settled=");
    let mut field = |key: &str| {
        let line = match key {
            "settled" => lines.next_if(has_settled)?,
            _ => lines.next()?,
        };
        line.strip_prefix(key).and_then(|line| line.strip_prefix('='))
    };
    let number = |text: &str| parse_decimal(text).map(Seq::new);
    let node_id = field("node")?.parse().ok()?;
    let log_id = match field("log")? {
        "-" => None,
        text => Some(LogId::new(u128::from_str_radix(text, 16).ok()?.to_be_bytes())),
    };
    let epoch = Epoch::new(parse_decimal(field("epoch")?)?);
    let run_id = RunId::new(u64::from_str_radix(field("run")?, 16).ok()?);
    let commit = number(field("commit")?)?;
    let vouches = field("vouches")? == "true";
    let settled = match field("settled") {
        None => Epoch::ZERO,
        Some(text) => Epoch::new(parse_decimal(text)?),
    };
    let clean = match field("clean")? {
        "-" => None,
        text => {
            let mut parts = text.split('/');
            let last = number(parts.next()?)?;
            let epoch = Epoch::new(parse_decimal(parts.next()?)?);
            let digest = Digest::new(u64::from_str_radix(parts.next()?, 16).ok()?);
            Some((last, PrefixId { epoch, digest }))
        }
    };
    let cut = match field("cut")? {
        "-" => None,
        text => Some(number(text)?),
    };
    let aside_next = parse_decimal(field("aside")?)?;
    let fsync = field("fsync")?.to_owned();
    let boot = field("boot")?.to_owned();
    let identity = Identity { log_id, epoch, run_id, settled, commit, vouches };
    Some(Meta { node_id, identity, clean, cut, aside_next, fsync, boot })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta {
            node_id: "s1".parse().expect("a node's name"),
            identity: Identity {
                log_id: Some(LogId::new([0x3A; 16])),
                epoch: Epoch::new(7),
                run_id: RunId::new(0xF1),
                settled: Epoch::new(6),
                commit: Seq::new(120),
                vouches: true,
            },
            clean: Some((
                Seq::new(125),
                PrefixId { epoch: Epoch::new(7), digest: Digest::new(0xABCD) },
            )),
            cut: Some(Seq::new(9)),
            aside_next: 3,
            fsync: "always".to_owned(),
            boot: "b-1".to_owned(),
        }
    }

    #[test]
    fn no_flipped_bit_destroys_or_alters_a_promise() {
        let bytes = meta().encode().into_bytes();
        assert!(matches!(Meta::decode(&bytes), Ok((read, true)) if read == meta()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match Meta::decode(&flipped) {
                Ok((read, whole)) => {
                    assert_eq!(read, meta(), "bit {bit} altered it");
                    assert!(!whole, "bit {bit} went unnoticed");
                }
                Err(error) => panic!("bit {bit} destroyed it: {error:?}"),
            }
        }
    }

    #[test]
    fn a_file_without_a_settled_epoch_is_read() {
        let text = meta().encode().replace("settled=6\n", "");
        let copy = &text[..text.len() / 2];
        let body = &copy[..copy.find("crc=").expect("it has a checksum")];
        let older = format!("{body}crc={:08x}\n", crc32c(body.as_bytes())).repeat(2);
        let (read, whole) = Meta::decode(older.as_bytes()).expect("a good file");
        let identity = Identity { settled: Epoch::ZERO, ..meta().identity };
        assert_eq!((read, whole), (Meta { identity, ..meta() }, true));
    }

    #[test]
    fn a_newer_format_is_told_from_a_damaged_file() {
        let newer = "replog 2\nanything=at all\n";
        let newer = format!("{newer}crc={:08x}\n", crc32c(newer.as_bytes()));
        assert!(matches!(Meta::decode(newer.as_bytes()), Err(BadMeta::Newer(2))));
        assert!(matches!(Meta::decode(b"replog 2\nanything"), Err(BadMeta::Damaged)));
        assert!(matches!(Meta::decode(b""), Err(BadMeta::Damaged)));
    }
}
