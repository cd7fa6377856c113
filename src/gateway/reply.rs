//! Results to lines, exactly as `interface.md` shows them.

#[cfg(any(feature = "server", feature = "cli"))]
use std::time::Duration;

use bytes::{BufMut, BytesMut};
#[cfg(any(feature = "server", feature = "cli"))]
use jiff::civil::DateTime;

use crate::codes::{Class, Code};
use crate::engine::Refused;
#[cfg(feature = "server")]
use crate::store::Record;
use crate::types::{Epoch, NodeId, NodeIndex, NodeSet, RoomLimit, Seq, Shortage};

/// A request that was refused: the code, and the rest of the line behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: Code,
    /// `key=value` words, ` - `, a sentence.
    pub detail: String,
}

impl Refusal {
    /// A refusal with these words behind the code.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Refusal { code, detail: detail.into() }
    }

    /// What the engine refused, in words. `nodes` is n, `quorum` the configured one.
    pub fn of(refused: Refused, nodes: usize, quorum: usize) -> Self {
        match refused {
            Refused::Damaged => Refusal::new(
                Code::Damaged,
                "- part of the master's log is unreadable, it is repaired from a secondary",
            ),
            Refused::DiskFull { shortage } => Refusal::disk_full(shortage),
            Refused::BadWriteConcern { concern } => {
                Refusal::bad_write_concern(&concern.to_string(), nodes)
            }
            Refused::ReadOnly { present } => Refusal::new(
                Code::ReadOnly,
                format!(
                    "present={present} need={quorum} - {present} of {nodes} nodes present, the quorum is {quorum}"
                ),
            ),
            Refused::Recovering => Refusal::new(
                Code::Recovering,
                "- the master does not know yet what the log is, STATUS names who is awaited or in the way",
            ),
            Refused::Stopping => Refusal::new(Code::Stopping, "- this node is stopping"),
            Refused::NotFound { next } => {
                Refusal::new(Code::NotFound, format!("next={next} - the log does not reach so far"))
            }
        }
    }

    /// The loss that the operator accepted lies beyond the log, so that it changes nothing.
    pub fn accepted_beyond(accepted: Seq, last: Seq) -> Self {
        Refusal::new(
            Code::Recovering,
            format!(
                "- --accept-data-loss {accepted} is beyond the log, which ends at {last} on the nodes \
                 that answer: start the master with {last} to go on without the rest, or wait for \
                 those whom STATUS names"
            ),
        )
    }

    /// Everybody answered, and too few can say that they lack nothing.
    pub fn doubtful(last: Seq) -> Self {
        Refusal::new(
            Code::Recovering,
            format!(
                "- all nodes answered, and those whom STATUS names cannot say that they lack nothing: \
                 start the master with --accept-data-loss {last} to go on with what there is"
            ),
        )
    }

    /// Those who answer hold different logs.
    pub fn rival_logs() -> Self {
        Refusal::new(
            Code::Recovering,
            "- the nodes that answer hold different logs, as STATUS says: take those of the wrong one \
             out of the roster, and empty none before you know which is right",
        )
    }

    /// `w` is not a number of nodes that this cluster has.
    pub fn bad_write_concern(word: &str, nodes: usize) -> Self {
        let word = super::words::quoted(&word.escape_debug().to_string());
        Refusal::new(
            Code::BadWriteConcern,
            format!("w={word} nodes={nodes} - w counts nodes: 1 to {nodes}, majority or all"),
        )
    }

    /// There is no room on the master's disk.
    fn disk_full(shortage: Shortage) -> Self {
        let Shortage { need, free, limit } = shortage;
        let free = free.map_or_else(|| "-".to_owned(), |free| free.to_string());
        let what = match limit {
            RoomLimit::Space => "no room on the master's disk, make room".to_owned(),
            RoomLimit::Quota => {
                "the disk quota of the master's user is used up, raise it or make room".to_owned()
            }
            RoomLimit::FileSize(bytes) => format!(
                "the master's process may make no file longer than {bytes} bytes (ulimit -f), raise \
                 that with prlimit, or set storage.segment_size below it and start the node again"
            ),
        };
        let and = if matches!(limit, RoomLimit::FileSize(_)) {
            ""
        } else {
            ": appends go on by themselves"
        };
        Refusal::new(Code::DiskFull, format!("need={need} free={free} - {what}{and}"))
    }

    /// Appends go to the master.
    pub fn not_master(master_addr: &str) -> Self {
        let master = if master_addr.is_empty() { "-" } else { master_addr };
        Refusal::new(Code::NotMaster, format!("master={master} - appends go to the master"))
    }

    /// The payload is too long.
    pub fn too_large(bytes: usize, max: usize) -> Self {
        Refusal::new(
            Code::TooLarge,
            format!("bytes={bytes} max={max} - the payload is longer than limits.payload_max"),
        )
    }

    /// Writes the line, with its end.
    pub fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(self.code.class().word().as_bytes());
        out.put_u8(b' ');
        out.extend_from_slice(self.code.word().as_bytes());
        if !self.detail.is_empty() {
            out.put_u8(b' ');
            out.extend_from_slice(self.detail.as_bytes());
        }
        out.put_u8(b'\n');
    }
}

/// Where an entry is, as an answer tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// OK, PENDING or UNKNOWN.
    pub class: Class,
    /// The entry.
    pub seq: Seq,
    /// The epoch that numbered it.
    pub epoch: Epoch,
    /// Nodes asked for.
    pub need: usize,
    /// Nodes that hold it.
    pub holders: NodeSet,
}

/// Writes reply lines for `count` consecutive entries that share everything but the number.
pub fn write_placed(out: &mut BytesMut, placed: &Placed, count: u64, roster: &[NodeId]) {
    let suffix = placed_suffix(placed, roster);
    let mut number = itoa::Buffer::new();
    out.reserve((suffix.len() + 32) * usize::try_from(count).unwrap_or(0));
    for seq in placed.seq.number()..placed.seq.number().saturating_add(count) {
        out.extend_from_slice(placed.class.word().as_bytes());
        out.extend_from_slice(b" seq=");
        out.extend_from_slice(number.format(seq).as_bytes());
        out.extend_from_slice(suffix.as_bytes());
    }
}

/// What follows the number: ` epoch=… have=…/… need=… by=…[ missing=…]\n`.
fn placed_suffix(placed: &Placed, roster: &[NodeId]) -> String {
    let Placed { class, epoch, need, holders, .. } = placed;
    // Plain pushes: each append that stands alone has a line of its own.
    let mut suffix = String::with_capacity(128);
    let mut number = itoa::Buffer::new();
    let mut push = |word: &str, value: u64| {
        suffix.push_str(word);
        suffix.push_str(number.format(value));
    };
    push(" epoch=", epoch.number());
    push(" have=", holders.len() as u64);
    push("/", roster.len() as u64);
    push(" need=", *need as u64);
    suffix.push_str(" by=");
    write_names(&mut suffix, roster, |node| holders.contains(node));
    match class {
        Class::Pending => {
            suffix.push_str(" missing=");
            write_names(&mut suffix, roster, |node| !holders.contains(node));
        }
        Class::Unknown => {
            suffix.push_str(" - this node lost its reign, the entry may or may not survive");
        }
        _ => {}
    }
    suffix.push('\n');
    suffix
}

/// Names of the nodes chosen, in roster order, separated by commas; `-` for none.
pub fn write_names(out: &mut String, roster: &[NodeId], chosen: impl Fn(NodeIndex) -> bool) {
    let mut separator = "";
    for (position, id) in roster.iter().enumerate() {
        let node = match position.checked_sub(1) {
            None => NodeIndex::MASTER,
            Some(position) => NodeIndex::secondary(position),
        };
        if chosen(node) {
            out.push_str(separator);
            out.push_str(id.as_str());
            separator = ",";
        }
    }
    if separator.is_empty() {
        out.push('-');
    }
}

/// Writes a payload with control bytes, DEL and backslash escaped.
pub fn write_escaped(out: &mut BytesMut, payload: &[u8]) {
    let special = |&byte: &u8| byte < 0x20 || byte == 0x7f || byte == b'\\';
    let mut rest = payload;
    while let Some(at) = rest.iter().position(special) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            byte => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\x");
                out.put_u8(HEX[usize::from(byte >> 4)]);
                out.put_u8(HEX[usize::from(byte & 15)]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Writes a line of LIST or TAIL: `<seq> <payload>`.
pub fn write_entry(out: &mut BytesMut, seq: Seq, payload: &[u8]) {
    out.extend_from_slice(itoa::Buffer::new().format(seq.number()).as_bytes());
    out.put_u8(b' ');
    write_escaped(out, payload);
    out.put_u8(b'\n');
}

/// Writes the reply to GET. `by` is known on the master only.
#[cfg(feature = "server")]
pub fn write_get(out: &mut BytesMut, record: &Record, by: Option<&str>) {
    // An entry put in by hand was numbered by nobody, at no time.
    let provisional = record.epoch == crate::types::Epoch::ZERO;
    let time = if provisional { "-".to_owned() } else { rfc3339(record.time_ms) };
    let head = format!(
        "OK seq={} epoch={} time={} bytes={} by={} payload=",
        record.seq,
        record.epoch,
        time,
        record.payload.len(),
        by.unwrap_or("-"),
    );
    out.extend_from_slice(head.as_bytes());
    write_escaped(out, &record.payload);
    out.put_u8(b'\n');
}

/// The END line of LIST.
pub fn list_end(count: u64, last: Seq, commit: Seq, level: crate::types::Level) -> String {
    if count == 0 {
        return format!("END count=0 first=- last=- commit={commit} level={level}\n");
    }
    let first = last.number() + 1 - count;
    format!("END count={count} first={first} last={last} commit={commit} level={level}\n")
}

/// A moment in UTC with milliseconds, as RFC 3339 writes it.
///
/// Milliseconds in 64 bits reach the year 584 556 019, and the dates of the library end with 9999.
/// So the date is looked up in the first 400 years, after which the calendar repeats itself.
#[cfg(any(feature = "server", feature = "cli"))]
pub fn rfc3339(unix_ms: u64) -> String {
    const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
    const CYCLE_YEARS: u64 = 400;
    const CYCLE_MS: u64 = 146_097 * 86_400_000;
    // Before the year 2370, far from where the sum would panic.
    let date = EPOCH + Duration::from_millis(unix_ms % CYCLE_MS);
    let year = u64::from(date.year().unsigned_abs()) + CYCLE_YEARS * (unix_ms / CYCLE_MS);
    format!("{year:04}-{}", date.strftime("%m-%dT%H:%M:%S%.3fZ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster() -> Vec<NodeId> {
        ["master", "s1", "s2"].iter().map(|id| id.parse().unwrap()).collect()
    }

    fn text(write: impl Fn(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn answers_read_as_in_the_interface() {
        let holders = NodeSet::default().with(NodeIndex::MASTER).with(NodeIndex::secondary(0));
        let placed =
            Placed { class: Class::Ok, seq: Seq::new(9), epoch: Epoch::new(1), need: 2, holders };
        assert_eq!(
            text(|out| write_placed(out, &placed, 2, &roster())),
            "OK seq=9 epoch=1 have=2/3 need=2 by=master,s1\n\
             OK seq=10 epoch=1 have=2/3 need=2 by=master,s1\n"
        );
        let pending = Placed { class: Class::Pending, seq: Seq::new(3), need: 3, ..placed };
        assert_eq!(
            text(|out| write_placed(out, &pending, 1, &roster())),
            "PENDING seq=3 epoch=1 have=2/3 need=3 by=master,s1 missing=s2\n"
        );
    }

    #[test]
    fn refusals_read_as_in_the_interface() {
        let line = |refusal: Refusal| text(|out| refusal.write(out));
        assert_eq!(
            line(Refusal::bad_write_concern("5", 3)),
            "REJECTED bad-write-concern w=5 nodes=3 - w counts nodes: 1 to 3, majority or all\n"
        );
        assert_eq!(
            line(Refusal::of(Refused::ReadOnly { present: 1 }, 3, 2)),
            "REJECTED read-only present=1 need=2 - 1 of 3 nodes present, the quorum is 2\n"
        );
        assert_eq!(
            line(Refusal::not_master("127.0.0.1:9000")),
            "REJECTED not-master master=127.0.0.1:9000 - appends go to the master\n"
        );
    }

    #[test]
    fn control_bytes_and_the_backslash_are_escaped_and_utf8_is_not() {
        assert_eq!(
            text(|out| write_escaped(out, "a\n\r\t\\\0\u{1f}\u{7f}ü".as_bytes())),
            "a\\n\\r\\t\\\\\\x00\\x1f\\x7fü"
        );
        assert_eq!(text(|out| write_entry(out, Seq::new(5), b"")), "5 \n");
    }

    #[test]
    fn times_are_rfc3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_700_000_000_001), "2023-11-14T22:13:20.001Z");
        assert_eq!(rfc3339(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
        assert_eq!(rfc3339(12_622_780_800_000), "2370-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(253_402_300_800_000), "10000-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(u64::MAX), "584556019-04-03T14:25:51.615Z");
    }
}
