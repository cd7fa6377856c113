//! Replies and entries as JSON, with the keys of the text.
//!
//! Numbers are numbers, lists of names are arrays, a value that does not exist is null. A payload
//! is the string `payload` where it is UTF-8, and `payload_base64` otherwise.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

use super::fields::{Part, Parts, take_word};
use crate::codes::Class;
use crate::gateway::reply::rfc3339;
use crate::store::Record;

/// Values that are names, whatever they look like.
const TEXT_KEYS: &[&str] = &["id", "addr", "master", "log_id", "digest", "error", "code", "verb"];

/// Values that are lists of names.
const LIST_KEYS: &[&str] = &["by", "missing", "awaiting"];

/// Keys with their values, in the order of the reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Object(Vec<(String, Value)>);

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

impl Object {
    /// The pairs of a line that has no class, such as a line of WAITERS.
    pub(super) fn of_fields(line: &str) -> Self {
        let mut object = Object::default();
        object.put_fields(line);
        object
    }

    pub(super) fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.push((key.to_owned(), value.into()));
    }

    /// The words of a line: `key=value`, until a sentence begins.
    fn put_fields(&mut self, text: &str) {
        for part in Parts::of(text) {
            match part {
                Part::Word(_) => {}
                Part::Pair { key, value, quoted } => self.put_field(key, value, quoted),
                Part::Sentence(sentence) => self.put("message", sentence),
            }
        }
    }

    fn put_field(&mut self, key: &str, value: &str, quoted: bool) {
        if LIST_KEYS.contains(&key) {
            let names = value.split(',').filter(|name| !name.is_empty() && *name != "-");
            self.put(key, names.collect::<Value>());
        } else if quoted {
            self.put(key, value);
        } else if value == "-" {
            self.put(key, Value::Null);
        } else if TEXT_KEYS.contains(&key) {
            self.put(key, value);
        } else {
            self.put(key, plain_value(value));
        }
    }

    fn put_payload(&mut self, payload: &[u8]) {
        match std::str::from_utf8(payload) {
            Ok(text) => self.put("payload", text),
            Err(_) => self.put("payload_base64", BASE64_STANDARD.encode(payload)),
        }
    }
}

/// A value as one line.
pub(super) fn line(value: &impl Serialize) -> String {
    // As below.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// The object as a value among others.
pub(super) fn to_value(object: &Object) -> Value {
    // Keys are text and numbers are finite: there is nothing that JSON could not say.
    serde_json::to_value(object).unwrap_or_default()
}

fn plain_value(value: &str) -> Value {
    let looks_numeric = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match value {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if looks_numeric => value
            .parse::<u64>()
            .map(Value::from)
            .or_else(|_| value.parse::<f64>().map(Value::from))
            .unwrap_or_else(|_| value.into()),
        _ => value.into(),
    }
}

/// Stands before the payload in a reply to GET, whose other values hold no spaces.
const PAYLOAD: &[u8] = b" payload=";

/// A reply line: its class, the code of a refusal, and its fields.
pub(super) fn reply_line(line: &[u8]) -> Object {
    let of_get = line.starts_with(b"OK seq=");
    let at = line.windows(PAYLOAD.len()).position(|window| window == PAYLOAD);
    let at = at.filter(|_| of_get).unwrap_or(line.len());
    let head = String::from_utf8_lossy(&line[..at]);
    let (class, rest) = take_word(&head);
    let mut object = Object::default();
    object.put("class", class);
    if class == "PONG" {
        object.put("text", rest);
        return object;
    }
    if class == Class::Rejected.word() || class == Class::Err.word() {
        let (code, rest) = take_word(rest);
        object.put("code", code);
        object.put_fields(rest);
    } else {
        object.put_fields(rest);
    }
    if let Some(payload) = line.get(at + PAYLOAD.len()..) {
        object.put_payload(&unescaped(payload));
    }
    object
}

/// The payload in a reply to GET.
pub(super) fn payload_of_get(line: &[u8]) -> Vec<u8> {
    let at = line.windows(PAYLOAD.len()).position(|window| window == PAYLOAD);
    at.map(|at| unescaped(&line[at + PAYLOAD.len()..])).unwrap_or_default()
}

/// An entry of `list` or `tail`.
#[derive(Debug, Serialize)]
pub(super) struct Entry<'a> {
    seq: u64,
    epoch: u64,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl<'a> Entry<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        let text = std::str::from_utf8(&record.payload).ok();
        Entry {
            seq: record.seq.number(),
            epoch: record.epoch.number(),
            time: rfc3339(record.time_ms),
            payload: text,
            payload_base64: text.is_none().then(|| BASE64_STANDARD.encode(&record.payload)),
        }
    }
}

/// An entry of `list` from the reply to GET, which has more keys.
pub(super) fn entry_of_get(line: &[u8]) -> Object {
    let mut object = reply_line(line);
    let of_list = ["seq", "epoch", "time", "payload", "payload_base64"];
    object.0.retain(|(key, _)| of_list.contains(&key.as_str()));
    object
}

/// The bytes of a payload as the gateway printed it. What is not an escape of the gateway stays.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let hex = |at: usize| char::from(*rest.get(at)?).to_digit(16);
        let (unescaped, len) = match (byte, after.first()) {
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(b't')) => (b'\t', 2),
            (b'\\', Some(b'\\')) => (b'\\', 2),
            (b'\\', Some(b'x')) => match (hex(2), hex(3)) {
                (Some(high), Some(low)) => ((high * 16 + low) as u8, 4), // Two digits: below 256.
                _ => (byte, 1),
            },
            _ => (byte, 1),
        };
        bytes.push(unescaped);
        rest = &rest[len..];
    }
    bytes
}

/// The reply to STATUS.
#[derive(Debug, Default, Serialize)]
pub(super) struct Status {
    node: Object,
    /// On the master; else empty.
    secondaries: Vec<Object>,
    /// On a secondary.
    master: Option<Object>,
}

/// The reply to STATUS: a line for the node, and one for each it is connected with.
pub(super) fn status(reply: &str) -> Status {
    let mut status = Status::default();
    for line in reply.lines() {
        let (kind, rest) = take_word(line);
        let object = Object::of_fields(rest);
        match kind {
            "node" => status.node = object,
            "master" => status.master = Some(object),
            "secondary" => status.secondaries.push(object),
            // The end, and what later versions add.
            _ => {}
        }
    }
    status
}

/// A sample of METRICS, which is OpenMetrics text: `name{label="value",…} number`.
pub(super) fn sample(line: &str) -> Option<Object> {
    if line.starts_with('#') || line.trim().is_empty() {
        return None;
    }
    // A label's value may hold anything but an unescaped quote, so that the last brace ends them.
    let (name, labels, value) = match (line.find('{'), line.rfind('}')) {
        (Some(open), Some(close)) if open < close => {
            (&line[..open], &line[open + 1..close], &line[close + 1..])
        }
        _ => {
            let (name, value) = line.split_once(' ')?;
            (name, "", value)
        }
    };
    let value = value.split_whitespace().next()?;
    let mut object = Object::default();
    object.put("name", name);
    object.put("labels", Value::Object(labels_of(labels)));
    let number = value.parse::<u64>().map(Value::from);
    let number = number.or_else(|_| value.parse::<f64>().map(Value::from));
    // JSON knows no NaN and no infinity: serde_json makes them null.
    object.put("value", number.ok().filter(|number| !number.is_null()).unwrap_or(value.into()));
    Some(object)
}

fn labels_of(mut text: &str) -> serde_json::Map<String, Value> {
    let mut labels = serde_json::Map::new();
    while let Some((key, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut letters = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match letters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, letter)) => value.push(letter),
                    None => {}
                },
                letter => value.push(letter),
            }
        }
        labels.insert(key.trim_start_matches([',', ' ']).to_owned(), value.into());
        text = &rest[end..];
    }
    labels
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(line: &str) -> String {
        serde_json::to_string(&reply_line(line.as_bytes())).unwrap()
    }

    #[test]
    fn replies_become_objects_with_the_same_keys() {
        assert_eq!(
            text("PENDING seq=3 epoch=1 have=2/3 need=3 by=master,s1 missing=s2"),
            r#"{"class":"PENDING","seq":3,"epoch":1,"have":"2/3","need":3,"by":["master","s1"],"missing":["s2"]}"#
        );
        assert_eq!(
            text("REJECTED bad-write-concern w=5 nodes=3 - w counts nodes: 1 to 3"),
            r#"{"class":"REJECTED","code":"bad-write-concern","w":5,"nodes":3,"message":"w counts nodes: 1 to 3"}"#
        );
        assert_eq!(
            text("REJECTED not-master master=- - appends go to the master"),
            r#"{"class":"REJECTED","code":"not-master","master":null,"message":"appends go to the master"}"#
        );
        assert_eq!(
            text("UNKNOWN seq=- epoch=- - connection lost"),
            r#"{"class":"UNKNOWN","seq":null,"epoch":null,"message":"connection lost"}"#
        );
        assert_eq!(text("PONG a=1 - b"), r#"{"class":"PONG","text":"a=1 - b"}"#);
    }

    #[test]
    fn a_payload_is_what_was_appended_not_what_the_gateway_prints() {
        assert_eq!(
            text(
                r"OK seq=1 epoch=1 time=2026-01-01T00:00:00.000Z bytes=5 by=s1 payload=a=1\n - payload=\x00\\b"
            ),
            r#"{"class":"OK","seq":1,"epoch":1,"time":"2026-01-01T00:00:00.000Z","bytes":5,"by":["s1"],"payload":"a=1\n - payload=\u0000\\b"}"#
        );
        let binary = reply_line(b"OK seq=1 payload=\xff\\x00a");
        assert_eq!(json!(binary), json!({"class": "OK", "seq": 1, "payload_base64": "/wBh"}));
        assert_eq!(unescaped(br"\q \x4 \"), br"\q \x4 \");
    }

    #[test]
    fn status_becomes_an_object() {
        let reply = "node id=1 role=master quorum=2/3 present=3 log_id=- uptime_s=5\n\
            secondary id=s1 addr=127.0.0.1:9001 health=healthy lag=0 error=-\n\
            secondary id=s2 addr=127.0.0.1:9002 health=suspected lag=2 error=\"timed out = bad\"\n\
            END\n";
        let expected = json!({
            "node": {"id": "1", "role": "master", "quorum": "2/3", "present": 3,
                "log_id": null, "uptime_s": 5},
            "secondaries": [
                {"id": "s1", "addr": "127.0.0.1:9001", "health": "healthy", "lag": 0, "error": null},
                {"id": "s2", "addr": "127.0.0.1:9002", "health": "suspected", "lag": 2,
                    "error": "timed out = bad"},
            ],
            "master": null,
        });
        assert_eq!(json!(status(reply)), expected);
    }

    #[test]
    fn samples_become_objects() {
        let object = |line| sample(line).map(|object| json!(object));
        assert_eq!(
            object("replog_next 12"),
            Some(json!({"name": "replog_next", "labels": {}, "value": 12}))
        );
        assert_eq!(
            object(r#"replog_lag{node="s 1",why="a \"b\" {c}, d\\"} 1.5 1700000000"#),
            Some(json!({"name": "replog_lag",
                "labels": {"node": "s 1", "why": "a \"b\" {c}, d\\"}, "value": 1.5}))
        );
        let infinite = object(r#"replog_seconds_bucket{le="+Inf"} +Inf"#).unwrap();
        assert_eq!(infinite["value"], "+Inf");
        assert_eq!(
            (object("# EOF"), object("# HELP replog_next x"), object("")),
            (None, None, None)
        );
    }
}
