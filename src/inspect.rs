//! `replog inspect`: prints and verifies a data directory or one segment, offline or beside a running
//! node. It only reads: no lock is taken and nothing is mended.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use bytes::BytesMut;
use serde_json::{Value, json};

use crate::config::InspectConfig;
use crate::gateway::reply::{rfc3339, write_escaped};
use crate::store::disk::format::{
    BadSegmentHeader, FORMAT_VERSION, SEGMENT_HEADER_BYTES, SegmentHeader, segment_first,
};
use crate::store::disk::meta::{BadMeta, META, Meta};
use crate::store::disk::scan::{Met, Scan, read_span, scan};
use crate::store::disk::segment::read_footer;
use crate::store::disk::{ASIDE, LOCK};
use crate::store::fs::{Fs, RealFs, lock_holder};
use crate::store::record::take_record;
use crate::types::{PrefixId, Seq, SeqRange};

/// Payload bytes shown of an entry.
const SHOWN_BYTES: usize = 100;

/// How an inspection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is whole; a torn tail, which the next start cuts, is no damage.
    Whole,
    /// Something is damaged.
    Damaged,
}

/// Inspects what `config` names and prints on `out`.
///
/// # Errors
/// The path cannot be read, is not replog's or of a newer format, or `out` takes no more.
pub fn inspect(config: &InspectConfig, out: &mut dyn Write) -> io::Result<Verdict> {
    let mut report = Report {
        config,
        out,
        printed: 0,
        damage: Vec::new(),
        notes: Vec::new(),
        first: None,
        last: Seq::ZERO,
        tail: PrefixId::EMPTY,
    };
    if config.path.is_dir() {
        report.directory(&config.path)?;
    } else {
        let name = name_of(&config.path);
        report.segment(&config.path, &name, None, None)?;
    }
    report.verdict()
}

struct Report<'a> {
    config: &'a InspectConfig,
    out: &'a mut dyn Write,
    printed: u64,
    damage: Vec<(Option<SeqRange>, String)>,
    notes: Vec<String>,
    first: Option<Seq>,
    last: Seq,
    tail: PrefixId,
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn refused(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl Report<'_> {
    /// One line: for people, or the same as an object.
    fn line(&mut self, kind: &str, mut object: Value, text: &str) -> io::Result<()> {
        if !self.config.json {
            return writeln!(self.out, "{text}");
        }
        if let Some(fields) = object.as_object_mut() {
            fields.insert("type".to_owned(), kind.into());
        }
        writeln!(self.out, "{object}")
    }

    fn detail(&mut self, kind: &str, object: Value, text: &str) -> io::Result<()> {
        if self.config.quiet { Ok(()) } else { self.line(kind, object, text) }
    }

    fn directory(&mut self, dir: &Path) -> io::Result<()> {
        let holder = holder_of(dir);
        let in_use = match &holder {
            Some(pid) => format!("in use by process {pid}: what it writes meanwhile may look torn"),
            None => "not in use".to_owned(),
        };
        let shown = dir.display().to_string();
        self.detail(
            "directory",
            json!({ "path": shown, "in_use": holder.is_some(), "pid": holder }),
            &format!("directory {shown} - {in_use}"),
        )?;
        let meta = self.meta(dir)?;
        let names = RealFs.list(dir)?;
        let mut before = Some(PrefixId::EMPTY);
        let mut expected = Seq::FIRST;
        for name in names.iter().filter(|name| segment_first(name).is_some()) {
            let first = segment_first(name).unwrap_or(Seq::FIRST); // Filtered just now.
            if first > expected {
                let range = SeqRange::new(expected, first);
                self.damage.push((Some(range), format!("nothing is left of it before {name}")));
                before = None;
            }
            let end = self.segment(&dir.join(name), name, Some(first), before)?;
            (expected, before) = (end.0.next(), end.1);
        }
        if let Some((last, tail)) = meta.and_then(|meta| meta.clean) {
            if last > self.last {
                let range = SeqRange::inclusive(self.last.next(), last);
                self.damage.push((Some(range), "it was there at the clean stop".to_owned()));
            } else if last == self.last && tail != self.tail {
                let reason = format!("the log ends with {}, and ended with {tail}", self.tail);
                self.damage.push((None, reason));
            }
        }
        let aside: Vec<_> = RealFs
            .list(&dir.join(ASIDE))
            .unwrap_or_default()
            .into_iter()
            .filter(|name| !name.ends_with(".tmp"))
            .collect();
        if !aside.is_empty() {
            let text = format!("aside {}", aside.join(" "));
            self.detail("aside", json!({ "files": aside }), &text)?;
        }
        Ok(())
    }

    fn meta(&mut self, dir: &Path) -> io::Result<Option<Meta>> {
        let path = dir.join(META);
        let (meta, whole) = match Meta::read(&RealFs, dir) {
            Ok(read) => read,
            Err(BadMeta::Newer(found)) => return Err(newer(&path, found)),
            Err(BadMeta::Damaged) => {
                self.damage.push((None, "both copies in meta are damaged".to_owned()));
                return Ok(None);
            }
            Err(BadMeta::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(refused(format!("{} is no data directory of replog", dir.display())));
            }
            Err(BadMeta::Io(error)) => return Err(error),
        };
        if !whole {
            self.damage.push((None, "one of the two copies in meta is damaged".to_owned()));
        }
        let identity = &meta.identity;
        let log_id = identity.log_id.map(|log_id| log_id.to_string());
        let clean = meta.clean.map(|(last, _)| last.number());
        let dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let text = format!(
            "meta format={FORMAT_VERSION} node={} log={} epoch={} run={:016x} commit={} vouches={} \
             clean={} fsync={} aside={}",
            meta.node_id,
            dash(log_id.clone()),
            identity.epoch,
            identity.run_id.value(),
            identity.commit,
            identity.vouches,
            dash(clean.map(|last| last.to_string())),
            meta.fsync,
            meta.aside_next - 1,
        );
        let object = json!({
            "format": FORMAT_VERSION, "node": meta.node_id.as_str(), "log": log_id,
            "epoch": identity.epoch.number(), "run": format!("{:016x}", identity.run_id.value()),
            "commit": identity.commit.number(), "vouches": identity.vouches, "clean": clean,
            "fsync": meta.fsync, "aside": meta.aside_next - 1,
        });
        self.detail("meta", object, &text)?;
        Ok(Some(meta))
    }

    /// Prints one segment; answers where it ends.
    fn segment(
        &mut self,
        path: &Path,
        name: &str,
        first: Option<Seq>,
        before: Option<PrefixId>,
    ) -> io::Result<(Seq, Option<PrefixId>)> {
        let file = RealFs.open_to_read(path)?;
        let header = match SegmentHeader::decode(&read_span(&*file, 0, SEGMENT_HEADER_BYTES)) {
            Ok(header) if first.is_none_or(|first| first == header.first) => Some(header),
            Err(BadSegmentHeader::Newer(found)) => return Err(newer(path, found)),
            _ => None,
        };
        let Some(first) = first.or(header.map(|header| header.first)) else {
            return Err(refused(format!("{} is no segment of replog", path.display())));
        };
        match header {
            None => self.damage.push((None, format!("the header of {name} is damaged"))),
            Some(header) if before.is_some_and(|before| before != header.before) => {
                let reason = format!("{name} does not continue the segment before it");
                self.damage.push((None, reason));
            }
            Some(_) => {}
        }
        let before = header.map(|header| header.before).or(before);
        let sealed = read_footer(&*file)?.is_some();
        let state = if sealed { "sealed" } else { "open" };
        self.detail(
            "segment",
            json!({ "name": name, "first": first.number(), "state": state }),
            &format!("segment {name} {state}"),
        )?;
        let mut printing = Ok(());
        let found = scan(&*file, first, before, &mut |met| {
            if printing.is_ok() {
                printing = self.entry(met);
            }
        })?;
        printing?;
        self.segment_end(name, first, sealed, &found)?;
        if found.last >= first {
            self.first = self.first.or(Some(first));
        }
        self.last = found.last;
        self.tail = found.tail.unwrap_or(PrefixId::EMPTY);
        Ok((found.last, found.tail))
    }

    fn segment_end(
        &mut self,
        name: &str,
        first: Seq,
        sealed: bool,
        found: &Scan,
    ) -> io::Result<()> {
        for hole in &found.holes {
            let range = SeqRange::new(hole.seq, hole.next);
            let range = Some(range).filter(|range| !range.is_empty());
            self.damage.push((range, format!("{name}: {}", hole.reason)));
        }
        if let Some(torn) = &found.torn {
            let bytes = torn.bytes;
            let reason = format!("{name}: torn tail of {bytes} bytes: {}", torn.reason);
            if torn.seq <= found.mark {
                let range = SeqRange::inclusive(torn.seq, found.mark);
                self.damage.push((Some(range), reason));
            } else {
                self.notes.push(reason);
            }
        }
        if sealed && found.footer.is_none() {
            self.damage.push((None, format!("the footer of {name} does not fit its entries")));
        }
        let range = SeqRange::inclusive(first, found.last);
        let epochs: Vec<_> =
            found.epochs.iter().map(|(epoch, first)| format!("{epoch}@{first}")).collect();
        let footer = if found.footer.is_some() { "whole" } else { "none" };
        self.detail(
            "segment_end",
            json!({
                "name": name, "entries": range.len(), "bytes": found.entry_bytes,
                "file_bytes": found.file_len, "epochs": epochs, "marks": found.marks,
                "durable_mark": found.mark.number(), "footer": footer,
            }),
            &format!(
                "  entries={range} bytes={} file_bytes={} epochs={} marks={} durable_mark={} \
                 footer={footer}",
                found.entry_bytes,
                found.file_len,
                epochs.join(","),
                found.marks,
                found.mark,
            ),
        )
    }

    fn entry(&mut self, met: &Met<'_>) -> io::Result<()> {
        let header = met.header;
        let hidden = self.config.quiet
            || header.is_control()
            || self.config.from.is_some_and(|from| header.seq < from)
            || self.config.limit.is_some_and(|limit| self.printed >= limit);
        if hidden {
            return Ok(());
        }
        // The scan has checked it.
        let Ok(record) = take_record(&mut bytes::Bytes::copy_from_slice(met.record)) else {
            return Ok(());
        };
        self.printed += 1;
        let payload = &record.payload;
        let time = rfc3339(record.time_ms);
        if self.config.json {
            let object = json!({
                "seq": record.seq.number(), "epoch": record.epoch.number(), "time": time,
                "bytes": payload.len(), "digest": record.digest.to_string(),
                "offset": met.offset, "payload": String::from_utf8_lossy(payload),
            });
            return self.line("entry", object, "");
        }
        let mut cut = payload.len().min(SHOWN_BYTES);
        while cut > 0 && cut < payload.len() && payload[cut] & 0xC0 == 0x80 {
            cut -= 1; // Not in the middle of a character.
        }
        let mut escaped = BytesMut::new();
        write_escaped(&mut escaped, &payload[..cut]);
        let more = if cut < payload.len() { "…" } else { "" };
        let (seq, epoch, bytes) = (record.seq, record.epoch, payload.len());
        write!(self.out, "  seq={seq} epoch={epoch} time={time} bytes={bytes} payload=")?;
        self.out.write_all(&escaped)?;
        writeln!(self.out, "{more}")
    }

    fn verdict(mut self) -> io::Result<Verdict> {
        for note in std::mem::take(&mut self.notes) {
            let text = format!("note {note}; the next start decides about it");
            self.line("note", json!({ "reason": note }), &text)?;
        }
        let damage = std::mem::take(&mut self.damage);
        for (range, reason) in &damage {
            let entries = range.map(|range| range.to_string());
            let shown = entries.clone().unwrap_or_else(|| "-".to_owned());
            let text = format!("damage entries={shown} {reason}");
            self.line("damage", json!({ "entries": entries, "reason": reason }), &text)?;
        }
        let verdict = if damage.is_empty() { Verdict::Whole } else { Verdict::Damaged };
        let word = if damage.is_empty() { "OK" } else { "DAMAGED" };
        let (first, last, tail) = (self.first.unwrap_or(Seq::ZERO), self.last, self.tail);
        self.line(
            "verdict",
            json!({
                "whole": damage.is_empty(), "first": first.number(), "last": last.number(),
                "epoch": tail.epoch.number(), "digest": tail.digest.to_string(),
                "damaged": damage.len(),
            }),
            &format!(
                "{word} first={first} last={last} epoch={} digest={} damaged={}",
                tail.epoch,
                tail.digest,
                damage.len()
            ),
        )?;
        self.out.flush()?;
        Ok(verdict)
    }
}

fn newer(path: &Path, found: u32) -> io::Error {
    refused(format!(
        "{} has format {found}, and this version of replog knows formats up to {FORMAT_VERSION}",
        path.display()
    ))
}

/// The process that uses a directory, if one does.
fn holder_of(dir: &Path) -> Option<String> {
    let lock = dir.join(LOCK);
    let seen = lock_holder(dir).or_else(|| lock_holder(&lock))?;
    let said = || fs::read_to_string(&lock).unwrap_or_default().trim().to_owned();
    Some(if seen.is_empty() { said() } else { seen })
}
