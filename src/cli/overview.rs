//! `status --all`: every node of a cluster beside the others, their logs compared at a position
//! that all have, and who waits for whom.

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, Table, Width};
use serde_json::Value;

use super::fields::{field, number};
use super::json::{Object, to_value};
use super::nodes::{Nodes, Seat, ask_all, commit_of, last_of, node_line, role, secondary_line};
use super::terminal::{Medium, width, wrap};

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

    /// For people: a table and what follows from it. The table is as wide as there is room for.
    pub(super) fn text(&self, medium: Medium) -> String {
        let mut out = medium.visible(&self.headline()).into_owned();
        let rows = self.nodes.iter().map(|node| self.row(node, medium)).collect();
        let room = medium.columns.unwrap_or(usize::MAX);
        let (header, rows, hidden) = table(rows, room);
        out.push_str(&header);
        out.push('\n');
        for (row, node) in rows.iter().zip(&self.nodes) {
            out.push_str(&medium.painted(row));
            if let Err(cause) = &node.status {
                let cause = format!("  unreachable: {}", medium.visible(cause));
                // Behind the row, or below it where it would not fit.
                if width(row) + width(&cause) <= room {
                    out.push_str(&medium.bad(&cause));
                } else {
                    let lines = wrap(&cause, room).into_iter();
                    lines.for_each(|line| out.push_str(&format!("\n{}", medium.bad(&line))));
                }
            }
            out.push('\n');
        }
        if !hidden.is_empty() {
            out.push_str(&format!("no room for {}\n", hidden.join(", ")));
        }
        out.push_str(&medium.visible(&self.comparison()));
        self.waiting().iter().for_each(|line| out.push_str(&medium.visible(line)));
        out
    }

    /// The cluster as its master sees it.
    fn headline(&self) -> String {
        match self.nodes.iter().find(|node| node.role() == Some("master")) {
            Some(master) => {
                let value = |key| field(master.node(), key).unwrap_or("-");
                let disk = if value("disk") == "full" { " disk=full" } else { "" };
                format!(
                    "mode={} present={} quorum={} epoch={} next={} commit={}{disk}\n",
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

    /// Its cells, in the order of [`COLUMNS`]; what a column has for nobody is left out.
    fn row(&self, node: &NodeView, medium: Medium) -> Vec<String> {
        let or_dash = |value: Option<&str>| value.unwrap_or("-").to_owned();
        let millis = |value: &str| format!("{value}ms");
        let digest = match self.is_equal(node) {
            None => "-",
            Some(true) => "equal",
            Some(false) => "DIFFERENT",
        };
        let number_or_dash = |value: Option<u64>| value.map_or("-".to_owned(), |n| n.to_string());
        let cells = COLUMNS.iter().map(|column| match column.name {
            "NODE" => or_dash(node.seat.id.as_deref()),
            "ROLE" => or_dash(node.role()),
            "ADDRESS" => node.seat.addr.clone(),
            "MODE" => or_dash(field(node.node(), "mode")),
            "DISK" if !self.any_disk_full() => String::new(),
            "DISK" => or_dash(field(node.node(), "disk")),
            "HEALTH" => or_dash(node.seen("health")),
            "STORED" => number_or_dash(node.stored()),
            "COMMIT" => number_or_dash(node.status.as_deref().ok().and_then(commit_of)),
            "LAG" => or_dash(node.seen("lag")),
            "CONTACT" => node.seen("last_contact_ms").map_or("-".to_owned(), millis),
            _ => digest.to_owned(),
        });
        // A line end would end the row.
        cells.map(|cell| medium.visible(&cell).replace(['\n', '\t'], " ")).collect()
    }

    /// A full disk is worth a column, others are not.
    fn any_disk_full(&self) -> bool {
        self.nodes.iter().any(|node| field(node.node(), "disk") == Some("full"))
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
        object.put("disk", field(node.node(), "disk"));
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

/// A column of the table.
#[derive(Debug)]
struct Column {
    name: &'static str,
    /// Where there is no room for all, the column with the greatest goes first; with 0 it stays.
    spare: u8,
}

const COLUMNS: [Column; 11] = [
    Column { name: "NODE", spare: 0 },
    Column { name: "ROLE", spare: 8 },
    Column { name: "ADDRESS", spare: 5 },
    Column { name: "MODE", spare: 4 },
    Column { name: "DISK", spare: 1 },
    Column { name: "HEALTH", spare: 2 },
    Column { name: "STORED", spare: 3 },
    Column { name: "COMMIT", spare: 7 },
    Column { name: "LAG", spare: 6 },
    Column { name: "CONTACT", spare: 9 },
    Column { name: "DIGEST", spare: 0 },
];

/// Where these stand among the columns.
const NODE: usize = 0;
const ADDRESS: usize = 2;

/// Between two columns.
const GAP: u16 = 2;

/// A name is not cut to less.
const NAME_MIN: usize = 4;

/// The header, a line for each row, and what was left out so that they take no more `room`.
fn table(mut rows: Vec<Vec<String>>, room: usize) -> (String, Vec<String>, Vec<&'static str>) {
    let (mut table, mut hidden) = narrowed(&rows, room);
    let is_nameless = |row: &&mut Vec<String>| row[NODE] == "-";
    if hidden.contains(&COLUMNS[ADDRESS].name) && rows.iter_mut().any(|row| is_nameless(&row)) {
        // Whoever has no name yet is known by its address.
        for row in rows.iter_mut().filter(is_nameless) {
            row[NODE] = row[ADDRESS].clone();
        }
        (table, hidden) = narrowed(&rows, room);
    }
    let mut lines = table.lines().map(|line| line.trim_end().to_owned());
    (lines.next().unwrap_or_default(), lines.collect(), hidden)
}

/// The rows in columns that fit: what can be spared is left out, and then names are cut. Libraries
/// for tables break cells or cut them all alike, so that which columns there are is chosen here.
fn narrowed(rows: &[Vec<String>], room: usize) -> (Table, Vec<&'static str>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(COLUMNS.map(|column| column.name)).add_rows(rows);
    for row in table.row_iter_mut() {
        row.max_height(1);
    }
    let widths = table.column_max_content_widths();
    let is_shown = |&at: &usize| !rows.iter().all(|row| row[at].is_empty());
    let mut shown: Vec<usize> = (0..COLUMNS.len()).filter(is_shown).collect();
    let excess = |shown: &[usize]| {
        let taken = shown.iter().map(|&at| usize::from(widths[at]) + usize::from(GAP));
        taken.sum::<usize>().saturating_sub(GAP.into()).saturating_sub(room)
    };
    let mut hidden = Vec::new();
    while excess(&shown) > 0 {
        let spare = shown.iter().filter(|&&at| COLUMNS[at].spare > 0);
        let Some(&gone) = spare.max_by_key(|&&at| COLUMNS[at].spare) else { break };
        shown.retain(|&at| at != gone);
        hidden.push(COLUMNS[gone].name);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, GAP));
        if !shown.contains(&at) {
            column.set_constraint(ColumnConstraint::Hidden);
        } else if at == NODE && excess(&shown) > 0 {
            let name = usize::from(widths[at]).saturating_sub(excess(&shown)).max(NAME_MIN);
            let name = u16::try_from(name).unwrap_or(u16::MAX).saturating_add(GAP);
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(name)));
        }
    }
    (table, hidden)
}

impl Medium {
    /// A row of the table with its words in colour. They are painted last, so that the layout need
    /// not know of colours.
    fn painted(self, row: &str) -> String {
        let paint = |word| match self.colour_of(word) {
            Some(colour) => format!("\x1b[{colour}m{word}\x1b[0m"),
            None => word.to_owned(),
        };
        row.split(' ').map(paint).collect::<Vec<_>>().join(" ")
    }

    /// The colour of a word of the table.
    fn colour_of(self, word: &str) -> Option<&'static str> {
        match word {
            "healthy" | "normal" | "equal" => Some("32"),
            "suspected" | "read-only" | "recovering" => Some("33"),
            "unhealthy" | "damaged" | "full" | "DIFFERENT" => Some("31"),
            _ => None,
        }
        .filter(|_| self.colour)
    }

    fn bad(self, text: &str) -> String {
        if self.colour { format!("\x1b[31m{text}\x1b[0m") } else { text.to_owned() }
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
            overview().text(Medium::default()),
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
        let text = overview.text(Medium::default());
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
        let painted = overview().text(Medium { colour: true, ..Medium::default() });
        assert!(painted.contains("\x1b[31munhealthy\x1b[0m  9 "), "{painted}");
        let plain = painted.replace("\x1b[31m", "").replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_eq!(plain, overview().text(Medium::default()));
    }

    fn of_width(columns: usize) -> String {
        let medium = Medium { terminal: true, columns: Some(columns), colour: false };
        overview().text(medium)
    }

    /// The lines from the header to the last row, with the causes among them.
    fn table_of(text: &str) -> Vec<&str> {
        text.lines().skip_while(|line| !line.starts_with("NODE")).take(6).collect()
    }

    #[test]
    fn the_table_fits_and_says_what_it_left_out() {
        let text = of_width(80);
        assert_eq!(
            table_of(&text)[..5],
            [
                "NODE    ROLE       ADDRESS   MODE    HEALTH     STORED  COMMIT  LAG  DIGEST",
                "master  master     master:1  normal  -          12      12      -    equal",
                "s1      secondary  s1:1      normal  healthy    11      11      1    equal",
                "s2      secondary  s2:1      -       unhealthy  9       -       3    -",
                "  unreachable: Connection refused",
            ]
        );
        assert!(text.contains("\nno room for CONTACT\n"), "{text}");
        let text = of_width(40);
        assert_eq!(
            table_of(&text)[..3],
            [
                "NODE    HEALTH     STORED  DIGEST",
                "master  -          12      equal",
                "s1      healthy    11      equal",
            ]
        );
        let text = of_width(20);
        assert_eq!(table_of(&text)[..3], ["NODE    DIGEST", "master  equal", "s1      equal"]);
        assert!(of_width(200).contains("CONTACT") && !of_width(200).contains("no room"));
    }

    #[test]
    fn wide_names_and_addresses_leave_room_for_what_matters() {
        let mut overview = overview();
        overview.nodes[1].seat = Seat::new("[2001:db8:1:2:3:4:5:6]:9001", Some(&"n".repeat(32)));
        overview.nodes[1].digest = Some("bb".to_owned());
        for columns in [20, 40, 80, 100] {
            let medium = Medium { terminal: true, columns: Some(columns), colour: true };
            let text = overview.text(medium);
            let row = text.lines().find(|line| line.starts_with("nnn")).unwrap();
            assert!(width(row) <= columns && row.contains("DIFFERENT"), "{columns}: {row}");
            assert_eq!(row.contains('…'), columns <= 40, "{columns}: {row}");
        }
    }

    #[test]
    fn a_node_without_a_name_is_known_by_its_address_where_that_has_no_column() {
        let mut overview = overview();
        overview.nodes[2].seat = Seat::new("10.0.0.7:9001", None);
        let row = |columns: usize| {
            let medium = Medium { terminal: true, columns: Some(columns), colour: false };
            let text = overview.text(medium);
            text.lines().find(|line| line.contains("10.0.0.7")).map(str::to_owned)
        };
        assert_eq!(
            row(80).as_deref(),
            Some("-       secondary  10.0.0.7:9001  -       unhealthy  9       -       3    -")
        );
        assert_eq!(row(21).as_deref(), Some("10.0.0.7:9001  -"));
    }

    #[test]
    fn a_full_disk_has_a_column_and_others_have_none() {
        let mut overview = overview();
        assert!(!overview.text(Medium::default()).contains("DISK"));
        let status = "node id=s1 role=secondary mode=normal next=12 commit=11 disk=full\nEND\n";
        overview.nodes[1].status = Ok(status.to_owned());
        let text = overview.text(Medium::default());
        assert!(text.contains("MODE    DISK  HEALTH"), "{text}");
        assert!(
            text.contains("normal  full  healthy") && text.contains("normal  -     -"),
            "{text}"
        );
        assert!(text.starts_with("mode=normal present=2 quorum=2/3 epoch=1 next=13 commit=12\n"));
        let json = to_value(&overview.json());
        assert_eq!(
            (&json["nodes"][0]["disk"], &json["nodes"][1]["disk"]),
            (&Value::Null, &"full".into())
        );
    }

    #[test]
    fn what_nodes_say_does_not_steer_the_terminal() {
        let mut overview = overview();
        overview.nodes[1].seat = Seat::new("s1:1", Some("s1\x1b[2J\u{9b}2J\n"));
        overview.nodes[2].status = Err("\x1b]0;title\x07".to_owned());
        overview.waiters[0] = "seq=10 need=3 have=2 missing=\x1b[31m age_ms=1".to_owned();
        let medium = Medium { terminal: true, columns: Some(200), colour: false };
        let text = overview.text(medium);
        assert!(!text.contains(|letter: char| letter.is_control() && letter != '\n'), "{text:?}");
        assert!(text.contains("s1\\x1b[2J\\xc2\\x9b2J "), "{text}");
    }
}
