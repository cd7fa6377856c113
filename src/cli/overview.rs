//! `status --all`: every node of a cluster beside the others, their logs compared at a position
//! that all have, and who waits for whom.

use serde_json::Value;

use super::fields::{field, number};
use super::json::{Object, to_value};
use super::nodes::{Nodes, Seat, ask_all, commit_of, last_of, node_line, role, secondary_line};

/// What all nodes said at about the same time.
#[derive(Debug)]
pub(super) struct Overview {
    nodes: Vec<NodeView>,
    /// The last position that all nodes have that answered.
    common: u64,
    /// Lines of the master's WAITERS.
    waiters: Vec<String>,
}

/// One node.
#[derive(Debug)]
struct NodeView {
    seat: Seat,
    /// Its STATUS, or why there is none.
    status: Result<String, String>,
    /// The line of the master's STATUS about it.
    as_seen: Option<String>,
    /// Its digest at the common position.
    digest: Option<String>,
}

/// Asks all nodes.
pub(super) async fn look(nodes: &mut Nodes) -> Overview {
    let statuses = nodes.statuses().await;
    let answered = statuses.iter().filter_map(|status| status.as_deref().ok());
    let common = answered.filter_map(last_of).min().unwrap_or(0);
    let of_master = |status: &&Result<String, String>| {
        status.as_deref().is_ok_and(|status| role(status) == Some("master"))
    };
    let master = statuses.iter().find(of_master).and_then(|status| status.clone().ok());
    let ask_digest = |index: usize| statuses[index].is_ok().then(|| format!("DIGEST {common}"));
    let digests = ask_all(&mut nodes.seats, ask_digest).await;
    let ask_waiters =
        |index: usize| Some(&statuses[index]).filter(of_master).map(|_| "WAITERS".to_owned());
    let waiters = ask_all(&mut nodes.seats, ask_waiters).await;
    let waiters = waiters.into_iter().flatten().flatten().find(|reply| !reply.starts_with("ERR"));
    let waiters = waiters.unwrap_or_default();
    let is_waiter = |line: &&str| line.starts_with("seq=");
    let waiters = waiters.lines().filter(is_waiter).map(str::to_owned).collect();
    let seats = nodes.seats.iter().zip(statuses).zip(digests);
    let nodes = seats.map(|((seat, status), digest)| {
        let digest = digest.and_then(Result::ok);
        NodeView {
            seat: seat.clone(),
            status,
            as_seen: master
                .as_deref()
                .and_then(|status| secondary_line(status, seat))
                .map(Into::into),
            digest: digest.and_then(|reply| field(reply.trim_end(), "digest").map(str::to_owned)),
        }
    });
    let mut nodes: Vec<NodeView> = nodes.collect();
    nodes.sort_by_key(|node| node.role() != Some("master"));
    Overview { nodes, common, waiters }
}

impl NodeView {
    fn node(&self) -> &str {
        self.status.as_deref().map_or("", node_line)
    }

    fn role(&self) -> Option<&str> {
        let own = self.status.as_deref().ok().and_then(role);
        own.or(self.as_seen.as_ref().map(|_| "secondary"))
    }

    /// What the master says of it.
    fn seen(&self, key: &str) -> Option<&str> {
        field(self.as_seen.as_deref()?, key)
    }

    /// What it says itself counts more than what the master knows.
    fn stored(&self) -> Option<u64> {
        let own = self.status.as_deref().ok().and_then(last_of);
        own.or_else(|| number(self.as_seen.as_deref()?, "stored"))
    }
}

impl Overview {
    /// Whether any node answered.
    pub(super) fn any_answered(&self) -> bool {
        self.nodes.iter().any(|node| node.status.is_ok())
    }

    /// The node that the others are compared with: the master, or the first that answers.
    fn reference(&self) -> Option<&NodeView> {
        let answering = || self.nodes.iter().filter(|node| node.digest.is_some());
        let masters = answering().find(|node| node.role() == Some("master"));
        masters.or_else(|| answering().next())
    }

    /// Whether a node's log is that of the reference up to the common position.
    fn is_equal(&self, node: &NodeView) -> Option<bool> {
        let reference = self.reference()?.digest.as_deref();
        node.digest.as_deref().map(|digest| Some(digest) == reference)
    }

    /// For people: a table and what follows from it.
    pub(super) fn text(&self, paint: Paint) -> String {
        let mut out = self.headline();
        let header = [
            "NODE", "ROLE", "ADDRESS", "MODE", "HEALTH", "STORED", "COMMIT", "LAG", "CONTACT",
            "DIGEST",
        ];
        let rows: Vec<Vec<String>> = self.nodes.iter().map(|node| self.row(node)).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.len()).max().unwrap_or(0).max(header[column].len())
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        push_row(&mut out, header.iter().map(|cell| (*cell, None)), &widths);
        for (row, node) in rows.iter().zip(&self.nodes) {
            let cells = row.iter().map(|cell| (cell.as_str(), paint.of(cell)));
            push_row(&mut out, cells, &widths);
            if let Err(cause) = &node.status {
                // Behind the row: a cause may be long.
                out.truncate(out.trim_end().len());
                out.push_str(&format!("  {}\n", paint.bad(&format!("unreachable: {cause}"))));
            }
        }
        out.push_str(&self.comparison());
        self.waiting().iter().for_each(|line| out.push_str(line));
        out
    }

    /// The cluster as its master sees it.
    fn headline(&self) -> String {
        match self.nodes.iter().find(|node| node.role() == Some("master")) {
            Some(master) => {
                let value = |key| field(master.node(), key).unwrap_or("-");
                format!(
                    "mode={} present={} quorum={} epoch={} next={} commit={}\n",
                    value("mode"),
                    value("present"),
                    value("quorum"),
                    value("epoch"),
                    value("next"),
                    value("commit"),
                )
            }
            None => "no master answers\n".to_owned(),
        }
    }

    fn row(&self, node: &NodeView) -> Vec<String> {
        let or_dash = |value: Option<&str>| value.unwrap_or("-").to_owned();
        let millis = |value: &str| format!("{value}ms");
        let digest = match self.is_equal(node) {
            None => "-",
            Some(true) => "equal",
            Some(false) => "DIFFERENT",
        };
        let number_or_dash = |value: Option<u64>| value.map_or("-".to_owned(), |n| n.to_string());
        vec![
            or_dash(node.seat.id.as_deref()),
            or_dash(node.role()),
            node.seat.addr.clone(),
            or_dash(field(node.node(), "mode")),
            or_dash(node.seen("health")),
            number_or_dash(node.stored()),
            number_or_dash(node.status.as_deref().ok().and_then(commit_of)),
            or_dash(node.seen("lag")),
            node.seen("last_contact_ms").map_or("-".to_owned(), millis),
            digest.to_owned(),
        ]
    }

    fn comparison(&self) -> String {
        let answering = self.nodes.iter().filter(|node| node.digest.is_some()).count();
        let other = |node: &&NodeView| self.is_equal(node) == Some(false);
        let others: Vec<&str> =
            self.nodes.iter().filter(other).map(|node| node.seat.name()).collect();
        match self.reference() {
            Some(reference) if others.is_empty() => {
                let digest = reference.digest.as_deref().unwrap_or("-");
                format!("logs: {answering} equal up to {} (digest={digest})\n", self.common)
            }
            Some(reference) => format!(
                "logs: {} different from {} at or below {}; replog-cli verify shows where\n",
                others.join(", "),
                reference.seat.name(),
                self.common
            ),
            None => "logs: nothing to compare\n".to_owned(),
        }
    }

    /// Who waits for whom: neighbours that wait for the same are told together.
    fn waiting(&self) -> Vec<String> {
        let same = |a: &String, b: &String| {
            let key = |line| (field(line, "missing"), field(line, "need"), field(line, "have"));
            key(a) == key(b)
        };
        let tell = |group: &[String]| {
            let (first, last) = (group.first()?, group.last()?);
            let value = |line, key| field(line, key).unwrap_or("-").to_owned();
            let seqs = match group.len() {
                1 => format!("entry {}", value(first, "seq")),
                _ => format!("entries {} to {}", value(first, "seq"), value(last, "seq")),
            };
            let ages = group.iter().filter_map(|line| number(line, "age_ms"));
            Some(format!(
                "waiting: {seqs} for {} (need={} have={}, {} ms)\n",
                value(first, "missing"),
                value(first, "need"),
                value(first, "have"),
                ages.max().unwrap_or(0),
            ))
        };
        let groups: Vec<String> = self.waiters.chunk_by(same).filter_map(tell).collect();
        match groups.is_empty() {
            true => vec!["waiting: nobody\n".to_owned()],
            false => groups,
        }
    }

    /// For programs.
    pub(super) fn json(&self) -> Object {
        let mut object = Object::default();
        let nodes: Vec<Value> = self.nodes.iter().map(|node| self.node_json(node)).collect();
        object.put("nodes", nodes);
        object.put("common", self.common);
        let waiters = self.waiters.iter().map(|line| to_value(&Object::of_fields(line)));
        object.put("waiters", waiters.collect::<Vec<_>>());
        object
    }

    fn node_json(&self, node: &NodeView) -> Value {
        let number_of = |key| node.seen(key).and_then(|value| value.parse::<u64>().ok());
        let mut object = Object::default();
        object.put("id", node.seat.id.as_deref());
        object.put("addr", node.seat.addr.as_str());
        object.put("role", node.role());
        object.put("reachable", node.status.is_ok());
        object.put("error", node.status.as_ref().err().map(String::as_str));
        object.put("mode", field(node.node(), "mode"));
        object.put("health", node.seen("health"));
        object.put("stored", node.stored());
        object.put("commit", node.status.as_deref().ok().and_then(commit_of));
        for key in ["lag", "lag_bytes", "last_contact_ms"] {
            object.put(key, number_of(key));
        }
        object.put("digest", node.digest.as_deref());
        object.put("equal", self.is_equal(node));
        to_value(&object)
    }
}

fn push_row<'a>(
    out: &mut String,
    cells: impl Iterator<Item = (&'a str, Option<&'static str>)>,
    widths: &[usize],
) {
    for ((cell, colour), width) in cells.zip(widths) {
        // Padded before it is coloured: colours take no room.
        let padding = " ".repeat(width.saturating_sub(cell.len()) + 2);
        match colour {
            Some(colour) => out.push_str(&format!("\x1b[{colour}m{cell}\x1b[0m{padding}")),
            None => out.push_str(&format!("{cell}{padding}")),
        }
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

/// Whether words that matter are coloured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    /// The colour of a word of the table.
    fn of(self, word: &str) -> Option<&'static str> {
        match word {
            "healthy" | "normal" | "equal" => Some("32"),
            "suspected" | "read-only" | "recovering" => Some("33"),
            "unhealthy" | "damaged" | "DIFFERENT" => Some("31"),
            _ => None,
        }
        .filter(|_| self.0)
    }

    fn bad(self, text: &str) -> String {
        if self.0 { format!("\x1b[31m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: &str, status: Result<&str, &str>, as_seen: Option<&str>, digest: &str) -> NodeView {
        NodeView {
            seat: Seat::new(&format!("{id}:1"), Some(id)),
            status: status.map(str::to_owned).map_err(str::to_owned),
            as_seen: as_seen.map(str::to_owned),
            digest: (!digest.is_empty()).then(|| digest.to_owned()),
        }
    }

    fn overview() -> Overview {
        let master = "node id=master role=master epoch=1 mode=normal next=13 commit=12 quorum=2/3 present=2\nEND\n";
        let s1 = "node id=s1 role=secondary epoch=1 mode=normal next=12 commit=11\nEND\n";
        let seen = "secondary id=s1 addr=s1:1 health=healthy lag=1 lag_bytes=60 last_contact_ms=7";
        let gone = "secondary id=s2 addr=s2:1 health=unhealthy stored=9 lag=3 last_contact_ms=-";
        let waiter =
            |seq, missing| format!("seq={seq} need=3 have=2 missing={missing} age_ms={seq}0");
        Overview {
            nodes: vec![
                view("master", Ok(master), None, "aa"),
                view("s1", Ok(s1), Some(seen), "aa"),
                view("s2", Err("Connection refused"), Some(gone), ""),
            ],
            common: 11,
            waiters: vec![waiter(10, "s2"), waiter(11, "s2"), waiter(12, "s1,s2")],
        }
    }

    #[test]
    fn the_table_shows_every_node_the_unreachable_too() {
        assert_eq!(
            overview().text(Paint(false)),
            "mode=normal present=2 quorum=2/3 epoch=1 next=13 commit=12\n\
             NODE    ROLE       ADDRESS   MODE    HEALTH     STORED  COMMIT  LAG  CONTACT  DIGEST\n\
             master  master     master:1  normal  -          12      12      -    -        equal\n\
             s1      secondary  s1:1      normal  healthy    11      11      1    7ms      equal\n\
             s2      secondary  s2:1      -       unhealthy  9       -       3    -        -  unreachable: Connection refused\n\
             logs: 2 equal up to 11 (digest=aa)\n\
             waiting: entries 10 to 11 for s2 (need=3 have=2, 110 ms)\n\
             waiting: entry 12 for s1,s2 (need=3 have=2, 120 ms)\n"
        );
    }

    #[test]
    fn another_log_is_seen_by_its_digest() {
        let mut overview = overview();
        overview.nodes[1].digest = Some("bb".to_owned());
        let text = overview.text(Paint(false));
        assert!(text.contains("7ms      DIFFERENT\n"), "{text}");
        assert!(text.contains("logs: s1 different from master at or below 11;"), "{text}");
        assert_eq!(to_value(&overview.json())["nodes"][1]["equal"], false);
    }

    #[test]
    fn objects_say_null_where_nothing_is_known() {
        let json = to_value(&overview().json());
        assert_eq!(json["nodes"][2]["reachable"], false);
        assert_eq!(json["nodes"][2]["error"], "Connection refused");
        assert_eq!(
            (&json["nodes"][2]["mode"], &json["nodes"][2]["stored"]),
            (&Value::Null, &9.into())
        );
        assert_eq!(json["waiters"][2]["missing"], serde_json::json!(["s1", "s2"]));
    }

    #[test]
    fn colours_take_no_room_in_the_table() {
        let painted = overview().text(Paint(true));
        assert!(painted.contains("\x1b[31munhealthy\x1b[0m  9 "), "{painted}");
        let plain = painted.replace("\x1b[31m", "").replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_eq!(plain, overview().text(Paint(false)));
    }
}
