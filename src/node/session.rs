//! A client's session: bytes in, requests to the node; answers in, bytes out.
//!
//! A session is a value of its own, which knows no socket, clock or task, and talks to its node by
//! messages: whoever carries it hands it what came ([`Session::input`]), lets it go on
//! ([`Session::advance`]), carries its [`Request`]s to the node, and writes what it has to say
//! ([`Session::slices`]). The two doors, the gateway's lines ([`TextSession`]) and the wire protocol's
//! frames ([`WireSession`]), stand on one core: what is admitted ([`admission`]), what a command
//! answers ([`command`]) and what of the log is shown ([`reading`]) is said once.
//!
//! One question at a time: a session that has asked something does nothing until it is answered.

pub mod admission;
pub mod command;
pub mod reading;
pub mod request;
#[cfg(test)]
mod tests;
mod text;
mod unfinished;
mod wire;

use std::io::IoSlice;
use std::time::Duration;

use bytes::BytesMut;

pub use self::request::{Answer, Question, Request};
pub use self::text::TextSession;
pub use self::unfinished::Unfinished;
pub use self::wire::{WireSession, frame_bytes_max};
use super::client::Reply;
use super::machine::About;
use super::view::View;
use crate::codes::{Code, RefuseCode};
use crate::limits::Limits;
use crate::store::LogReader;
use crate::store::provisional::SharedProvisional;
use crate::types::{NodeId, Role, Time};

/// What all sessions of a node share, and what does not change while it runs.
pub struct Site {
    /// What the node says of itself.
    pub about: About,
    /// What the node is.
    pub role: Role,
    /// What users set.
    pub limits: Limits,
    /// It is a secondary that plays faults.
    pub faults: bool,
    /// A tail without entries says so this often.
    pub heartbeat_interval: Duration,
    /// The log, of which a session only asks where it ends; entries come as answers.
    pub log: LogReader,
    /// Entries by hand, on a secondary.
    pub provisional: SharedProvisional,
}

/// What a session sees when it is called.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    /// Now.
    pub now: Time,
    /// Its node.
    pub site: &'a Site,
    /// What that node shows.
    pub view: &'a View,
}

impl Sight<'_> {
    /// The roster as far as known, the master first.
    pub fn roster(&self) -> &[NodeId] {
        &self.view.roster
    }

    /// The master's wire address; empty before first contact.
    pub fn master_addr(&self) -> &str {
        match self.site.role {
            Role::Master => &self.site.about.advertise,
            Role::Secondary => &self.view.master_addr,
        }
    }
}

/// Why a session ends.
#[derive(Debug)]
pub enum End {
    /// All is said.
    Clean,
    /// The connection is broken, or the node is gone.
    Broken,
    /// The client is refused, with a code and the reason.
    Refuse(RefuseCode, String),
}

/// What a session waits for besides answers and the end of its node.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// Input may be taken.
    pub input: bool,
    /// What has arrived in part.
    pub unfinished: Option<Unfinished>,
    /// Output that was not taken must begin to leave by then.
    pub room_by: Option<Time>,
    /// A tail is at the end of the log: it goes on with the next entry, or says by then that there is
    /// none.
    pub entries_by: Option<Time>,
}

/// The calls by which a session is carried.
pub trait Session {
    /// What came and was not taken yet; more of it is put behind.
    fn input(&mut self) -> &mut BytesMut;

    /// The client sends nothing more.
    fn handle_input_end(&mut self);

    /// Appends and waits were answered.
    fn handle_replies(&mut self, sight: Sight<'_>, replies: Vec<Reply>);

    /// What was asked for was answered.
    fn handle_answer(&mut self, sight: Sight<'_>, answer: Answer);

    /// The log did not grow in time: see [`Waits::entries_by`].
    fn handle_idle(&mut self, sight: Sight<'_>);

    /// The client did not finish in so long what it had begun to send. Whether the session ends.
    fn handle_unfinished(&mut self, after: Duration) -> Option<End>;

    /// Does all that can be done without waiting. Returns whether there was anything.
    ///
    /// # Errors
    /// The session ends.
    fn advance(&mut self, sight: Sight<'_>) -> Result<bool, End>;

    /// What is to be asked of the node next. Requests are carried in their order.
    fn poll_request(&mut self) -> Option<Request>;

    /// Bytes that wait to be written.
    fn untaken(&self) -> usize;

    /// Lends them, from the front.
    fn slices(&self) -> Vec<IoSlice<'_>>;

    /// So many of them were taken. At most as many as wait.
    fn taken(&mut self, now: Time, bytes: usize);

    /// What it waits for now.
    fn waits(&self, sight: Sight<'_>) -> Waits;

    /// Whether everything is said, and nothing more can come. A node that is stopping takes no input,
    /// and its log grows no more.
    fn is_finished(&self, stopping: bool) -> bool;

    /// Whether what the client still sends is thrown away for a while before its connection closes:
    /// closing over unread bytes would destroy the last reply on its way.
    fn refuses_rest(&self) -> bool;

    /// What was refused by the session itself since the last call, and how often.
    fn drain_refusals(&mut self) -> Vec<(Code, u64)>;
}
