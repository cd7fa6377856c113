//! Reply lines as JSON objects with the same keys.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

use crate::codes::Class;

/// Values that are names, whatever they look like.
const TEXT_KEYS: &[&str] =
    &["id", "addr", "master", "log_id", "digest", "error", "payload", "code"];

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
    fn put(&mut self, key: &str, value: Value) {
        self.0.push((key.to_owned(), value));
    }

    /// The words of a line: `key=value`, until a sentence begins.
    fn put_fields(&mut self, mut text: &str) {
        while !text.is_empty() {
            if let Some(sentence) = text.strip_prefix("- ") {
                self.put("message", sentence.into());
                return;
            }
            if let Some(payload) = text.strip_prefix("payload=") {
                self.put("payload", payload.into());
                return;
            }
            let (word, rest) = take_word(text);
            text = rest;
            if let Some((key, value)) = word.split_once('=') {
                self.put_field(key, value);
            }
        }
    }

    fn put_field(&mut self, key: &str, value: &str) {
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        if LIST_KEYS.contains(&key) {
            let names = value.split(',').filter(|name| !name.is_empty() && *name != "-");
            self.put(key, names.collect());
        } else if value == "-" {
            self.put(key, Value::Null);
        } else if quoted.is_some() || TEXT_KEYS.contains(&key) {
            self.put(key, quoted.unwrap_or(value).into());
        } else {
            self.put(key, plain_value(value));
        }
    }
}

/// A word, which may have spaces in a value in double quotes, and what follows it.
fn take_word(text: &str) -> (&str, &str) {
    let quoted = text
        .find("=\"")
        .filter(|at| !text[..*at].contains(' '))
        .and_then(|at| text[at + 2..].find('"').map(|len| at + 2 + len + 1));
    let end = quoted.or_else(|| text.find(' ')).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.strip_prefix(' ').unwrap_or(rest))
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

/// A reply line: its class, the code of a refusal, and its fields.
pub(super) fn reply_line(line: &str) -> Object {
    let (class, rest) = take_word(line);
    let mut object = Object::default();
    object.put("class", class.into());
    let refused = class == Class::Rejected.word() || class == Class::Err.word();
    if refused {
        let (code, rest) = take_word(rest);
        object.put("code", code.into());
        object.put_fields(rest);
    } else {
        object.put_fields(rest);
    }
    object
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
        let mut object = Object::default();
        object.put_fields(rest);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(line: &str) -> String {
        serde_json::to_string(&reply_line(line)).unwrap()
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
        assert_eq!(
            text("OK seq=1 epoch=1 time=2026-01-01T00:00:00.000Z bytes=5 payload=a=1 b"),
            r#"{"class":"OK","seq":1,"epoch":1,"time":"2026-01-01T00:00:00.000Z","bytes":5,"payload":"a=1 b"}"#
        );
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
}
