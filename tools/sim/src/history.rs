//! What clients saw, and whether a correct log can have shown it.
//!
//! [`History`] is what happened: appends with their answers, reads with what they showed, the logs
//! of the nodes at the end, and what befell the nodes. [`check`] names everything that a correct
//! log cannot have shown, in time that grows with the history and no faster (but for one sort by
//! time). It knows nothing of replog's code; whoever records a history, the simulator or a run
//! against processes, is judged by the same rules.
//!
//! # The form on disk
//!
//! JSON lines, read by [`read_lines`] and written by [`HistoryWriter`]. Each line is an object with
//! a `type`; a key that is left out has the value in brackets. The lines may stand in any order,
//! but the operations of one client stand in the order in which they were sent, and the pieces of
//! one node's log in the order of the log. Times are microseconds of one clock, real or virtual.
//! A payload is its text, or `#` and the sixteen hexadecimal digits of its [`PayloadId`].
//!
//! ```json
//! {"type":"cluster","nodes":["master","s1","s2"],"healed":true,"end":9000000}
//! {"type":"op","client":4,"payload":"c4-1","invoked":10,"completed":90,"need":2,
//!  "answer":"ok","seq":7,"epoch":1,"by":["master","s1"]}
//! {"type":"op","client":4,"payload":"c4-2","invoked":11,"completed":99,"need":3,
//!  "answer":"rejected","code":"read-only"}
//! {"type":"read","client":5,"node":"s1","level":"committed","from":1,"commit":7,
//!  "invoked":20,"completed":30,"items":["c4-0","c4-1"]}
//! {"type":"event","node":"s1","at":500,"what":"lost","kept":0}
//! {"type":"event","node":"master","at":500,"until":900,"what":"stalled"}
//! {"type":"dump","node":"s1","entries":[[1,1,"c4-0"],[2,1,"c4-1"]]}
//! ```
//!
//! - `cluster`, once: the roster, master first; `healed` (true): every dump is of a node that had
//!   time to get everything; `end`: when the run ended; `slack`: if given, every answer must come
//!   within its `timeout` and so much more, and at the end none may be missing.
//! - `op`, an append: `ack` ("stored") or "received"; `timeout` (none); `producer` and `number`
//!   (none) make attempts with the same payload one entry; `atomic` (false). `answer` is one of
//!   `ok`, `pending` (both with `seq`, `epoch`, `by`), `rejected` (with `code`; ERR too: no effect),
//!   `unknown` (the node said so), `lost` (the connection ended before the answer), `unsent` (the
//!   client knows that nothing left it), `missing` (still waited for at the end; no `completed`).
//! - `read`: `level` is `local`, `committed`, `all` or a number; `items` are the payloads from
//!   number `from` on; where the numbers shown were not `from`, `from`+1 and so on, `seqs` lists
//!   them; `commit` as the node told it (none); `whole` (true): the node showed all it would show.
//! - `event`: `lost`: the node has nothing behind `kept` from then on, and is allowed to (a node
//!   in memory that was killed; never what the promises say is kept); `dropped`: what it held
//!   behind `kept` without having it in its log is gone (a run held back, when its connection ended):
//!   only what was OK as received may be missing for that; `restarted`: a new process
//!   with the old log; `stalled`, until `until`: answers from this node may be late.
//! - `dump`: the node's log, as `[seq, epoch, payload]`; may be split over several lines.
//!
//! # The findings
//!
//! See [`Kind`]. An entry that was answered may be missing only if every node that its answer
//! named has lost it since it was sent; without such losses one wrong number is a finding.

mod check;
#[cfg(test)]
mod generator;
mod lines;
mod model;
mod report;
#[cfg(test)]
mod tests;

pub use check::check;
pub use lines::{HistoryWriter, LineError, read_lines};
pub use model::{
    Ack, Answer, Cluster, Dump, DumpEntry, Event, History, Item, Level, Op, PayloadId, Placed,
    Producer, Read, What,
};
pub use report::{Finding, Kind, Report};
