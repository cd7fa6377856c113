//! A node's side of a connection: frames that wait for the socket, control before entries.
//!
//! The same rules as in the runtime's `link`: a newer heartbeat or ACK takes the place of one that
//! waits, and no frame goes between the halves of one that is begun.

use std::collections::VecDeque;

use replog::engine::SessionId;
use replog::types::Seq;
use replog::wire::OutFrame;

use super::World;
use crate::sometimes::Sometimes;

const CONTROL_FRAMES_MAX: usize = 64;

/// What a frame is to its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Heartbeat,
    Ack,
    Control,
    /// Entries, up to this number.
    Entries(Seq),
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) session: SessionId,
    pub(super) conn: usize,
    side: usize,
    frames: VecDeque<(Kind, OutFrame)>,
    begun: bool,
    blocked: bool,
}

/// What a flush achieved.
#[derive(Debug, Default)]
pub(super) struct Flushed {
    pub(super) frames: usize,
    pub(super) up_to: Seq,
}

impl Link {
    pub(super) fn new(session: SessionId, conn: usize, side: usize) -> Self {
        Link { session, conn, side, frames: VecDeque::new(), begun: false, blocked: false }
    }

    pub(super) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Frames of entries that wait.
    pub(super) fn entry_frames(&self) -> usize {
        self.frames.iter().filter(|(kind, _)| matches!(kind, Kind::Entries(_))).count()
    }

    /// Queues a frame. Returns whether it overtook entries.
    pub(super) fn push(&mut self, kind: Kind, frame: OutFrame) -> bool {
        if let Kind::Entries(_) = kind {
            self.frames.push_back((kind, frame));
            return false;
        }
        let first = usize::from(self.begun);
        let is_control = |kind: &Kind| !matches!(kind, Kind::Entries(_));
        let control =
            self.frames.iter().skip(first).take_while(|(kind, _)| is_control(kind)).count();
        if kind != Kind::Control
            && let Some(older) =
                self.frames.iter_mut().skip(first).take(control).find(|(other, _)| *other == kind)
        {
            older.1 = frame;
        } else if control < CONTROL_FRAMES_MAX {
            self.frames.insert(first + control, (kind, frame));
        }
        self.frames.len() > first + control + 1
    }
}

impl World {
    /// Writes what the socket takes of a link's frames.
    pub(super) fn flush_link(&mut self, link: &mut Link) -> Result<Flushed, &'static str> {
        let mut flushed = Flushed::default();
        while !link.blocked
            && let Some((kind, frame)) = link.frames.front_mut()
        {
            let left = frame.len();
            if !self.socket_write(link.conn, link.side, frame)? {
                link.begun |= frame.len() < left;
                link.blocked = true;
                break;
            }
            link.begun = false;
            if let Kind::Entries(up_to) = *kind {
                flushed.frames += 1;
                flushed.up_to = flushed.up_to.max(up_to);
            }
            link.frames.pop_front();
        }
        Ok(flushed)
    }

    /// Queues a frame on a link.
    pub(super) fn push_link(&mut self, link: &mut Link, kind: Kind, frame: OutFrame) {
        if link.push(kind, frame) {
            self.seen.note(Sometimes::QueuedControl);
        }
    }

    /// Says why, and closes. A peer that takes nothing now is closed without last words.
    pub(super) fn refuse_link(&mut self, mut link: Link, frame: OutFrame) {
        link.push(Kind::Control, frame);
        // Broken or full: then there are no last words.
        let _ = self.flush_link(&mut link);
        self.close_end(link.conn, link.side, false);
    }

    /// The driver lets go of a connection.
    pub(super) fn drop_link(&mut self, link: &Link) {
        self.close_end(link.conn, link.side, false);
    }
}
