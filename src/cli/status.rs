//! `status`: one node or all of them, once or again and again.

use std::io::IsTerminal;

use super::arguments::{Output, Reply};
use super::gateway::ask;
use super::nodes::{Nodes, Seat};
use super::output::{Stdout, failure};
use super::overview::{Paint, look};
use super::watch::watch;
use super::{Exit, complain, json};

/// What is to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) all: bool,
    pub(super) watch: bool,
}

/// Shows it.
pub(super) async fn status(servers: &[String], shown: Status, output: Output) -> Exit {
    let separator = match output {
        Output::Text => "\n",
        Output::Json => "",
    };
    match shown {
        Status { all: false, watch: false } => ask(servers, b"STATUS", Reply::Status, output).await,
        Status { all: false, watch: true } => {
            let mut seats: Vec<Seat> = servers.iter().map(|addr| Seat::new(addr, None)).collect();
            watch(separator, async || one(&mut seats, output).await).await
        }
        Status { all: true, watch: false } => once(servers, output).await,
        Status { all: true, watch: true } => {
            let mut nodes = Nodes::new(servers);
            watch(separator, async || everything(&mut nodes, output).await.0).await
        }
    }
}

async fn once(servers: &[String], output: Output) -> Exit {
    let (text, answered) = everything(&mut Nodes::new(servers), output).await;
    let mut stdout = Stdout::default();
    stdout.buffer().extend_from_slice(text.as_bytes());
    match stdout.flush() {
        Err(error) => failure(&error),
        Ok(()) if answered => Exit::Done,
        Ok(()) => {
            complain("no server reachable");
            Exit::Unreachable
        }
    }
}

/// All nodes, and whether any answered.
async fn everything(nodes: &mut Nodes, output: Output) -> (String, bool) {
    let overview = look(nodes).await;
    let text = match output {
        Output::Text => overview.text(Paint(wants_colour())),
        Output::Json => json_line(&overview.json()),
    };
    (text, overview.any_answered())
}

/// The first node that answers.
async fn one(seats: &mut [Seat], output: Output) -> String {
    let mut causes = String::new();
    for seat in seats {
        match (seat.ask("STATUS").await, output) {
            (Ok(status), Output::Text) => {
                return status.strip_suffix("END\n").unwrap_or(&status).to_owned();
            }
            (Ok(status), Output::Json) => return json_line(&json::status(&status)),
            (Err(cause), Output::Text) => {
                causes.push_str(&format!("unreachable {}: {cause}\n", seat.addr));
            }
            (Err(cause), Output::Json) => {
                let mut object = json::Object::default();
                object.put("addr", seat.addr.as_str());
                object.put("reachable", false);
                object.put("error", cause);
                causes.push_str(&json_line(&object));
            }
        }
    }
    causes
}

fn json_line(value: &impl serde::Serialize) -> String {
    let mut stdout = Stdout::default();
    stdout.push_json(value);
    String::from_utf8_lossy(stdout.buffer()).into_owned()
}

/// Whether whoever reads stdout can see colours and wants them (<https://no-color.org>).
fn wants_colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
}
