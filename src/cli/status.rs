//! `status`: one node or all of them, once or again and again.

use super::gateway::ask;
use super::interrupt::Interrupts;
use super::nodes::{Nodes, Seat};
use super::output::{Content, Stdout, failure};
use super::overview::look;
use super::request::{Output, Reply, Status};
use super::terminal::Medium;
use super::watch::{Shown, watch};
use super::{Exit, complain, json};

/// Shows it.
pub(super) async fn status(
    servers: &[String],
    shown: Status,
    output: Output,
    interrupts: &mut Interrupts,
) -> Exit {
    let separator = match output {
        Output::Text => "\n",
        Output::Json => "",
    };
    match shown {
        Status { all: false, watch: false } => ask(servers, b"STATUS", Reply::Status, output).await,
        Status { all: false, watch: true } => {
            let mut seats: Vec<Seat> = servers.iter().map(|addr| Seat::new(addr, None)).collect();
            watch(separator, async || one(&mut seats, output).await, interrupts).await
        }
        Status { all: true, watch: false } => once(servers, output).await,
        Status { all: true, watch: true } => {
            let mut nodes = Nodes::new(servers);
            watch(separator, async || everything(&mut nodes, output).await.0, interrupts).await
        }
    }
}

async fn once(servers: &[String], output: Output) -> Exit {
    let (shown, answered) = everything(&mut Nodes::new(servers), output).await;
    // What the terminal must be spared, its text spares it already: it has colours of ours.
    let mut stdout = Stdout::new(Content::AsIs);
    stdout.buffer().extend_from_slice(shown.text(Medium::of_stdout()).as_bytes());
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
async fn everything(nodes: &mut Nodes, output: Output) -> (Shown, bool) {
    let overview = look(nodes).await;
    let answered = overview.any_answered();
    let shown = match output {
        Output::Text => Shown::Overview(overview),
        Output::Json => Shown::Json(json::line(&overview.json())),
    };
    (shown, answered)
}

/// The first node that answers.
async fn one(seats: &mut [Seat], output: Output) -> Shown {
    let mut causes = String::new();
    for seat in seats {
        match (seat.ask("STATUS").await, output) {
            (Ok(status), Output::Text) => {
                return Shown::Text(status.strip_suffix("END\n").unwrap_or(&status).to_owned());
            }
            (Ok(status), Output::Json) => return Shown::Json(json::line(&json::status(&status))),
            (Err(cause), Output::Text) => {
                causes.push_str(&format!("unreachable {}: {cause}\n", seat.addr));
            }
            (Err(cause), Output::Json) => {
                let mut object = json::Object::default();
                object.put("addr", seat.addr.as_str());
                object.put("reachable", false);
                object.put("error", cause);
                causes.push_str(&json::line(&object));
            }
        }
    }
    match output {
        Output::Text => Shown::Text(causes),
        Output::Json => Shown::Json(causes),
    }
}
