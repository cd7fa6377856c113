//! Frames on their way to a peer: control before bulk, and never into a frame that is partly gone.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::types::Seq;
use crate::wire::OutFrame;

/// Control frames that may wait for a full socket. HEARTBEATs and ACKs replace one another, so more
/// than a few are errors that repeat.
const CONTROL_FRAMES_MAX: usize = 64;

/// Pieces in one vectored write; Linux takes up to 1024.
const IO_SLICES_MAX: usize = 128;

/// What a frame is to its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A newer one takes the place of one that still waits.
    Heartbeat,
    /// Likewise: acknowledgements are cumulative.
    Ack,
    /// Any other frame that goes before bulk.
    Control,
    /// Entries, up to this number.
    Entries(Seq),
}

/// What a flush achieved.
#[derive(Debug, Default)]
pub struct Flushed {
    /// Frames of entries that left whole.
    pub frames: usize,
    /// The last entry of the last of them.
    pub up_to: Seq,
}

impl Flushed {
    /// Counts what left later.
    pub fn add(&mut self, later: Flushed) {
        self.frames += later.frames;
        self.up_to = self.up_to.max(later.up_to);
    }
}

/// Frames on their way into a socket.
#[derive(Debug, Default)]
pub struct FrameQueue {
    frames: VecDeque<(Kind, OutFrame)>,
    /// The sum of what is left of them.
    bytes: usize,
    /// The first frame is partly written.
    begun: bool,
}

impl FrameQueue {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a frame: control before bulk, but never into a frame that is partly written.
    pub fn push(&mut self, kind: Kind, frame: OutFrame) {
        if let Kind::Entries(_) = kind {
            self.bytes += frame.len();
            return self.frames.push_back((kind, frame));
        }
        let first = usize::from(self.begun);
        let is_control = |kind: &Kind| !matches!(kind, Kind::Entries(_));
        let control =
            self.frames.iter().skip(first).take_while(|(kind, _)| is_control(kind)).count();
        // Nothing overtakes another control frame: a heartbeat may speak of what a HELLO says.
        let waiting = self.frames.iter_mut().skip(first).take(control);
        let behind = waiting.rev().take_while(|(other, _)| *other != Kind::Control);
        if kind != Kind::Control
            && let Some(older) = { behind }.find(|(other, _)| *other == kind)
        {
            self.bytes = self.bytes - older.1.len() + frame.len();
            older.1 = frame;
        } else if control < CONTROL_FRAMES_MAX {
            self.bytes += frame.len();
            self.frames.insert(first + control, (kind, frame));
        }
    }

    /// Frames of entries that wait.
    pub fn entry_frames(&self) -> usize {
        self.frames.iter().filter(|(kind, _)| matches!(kind, Kind::Entries(_))).count()
    }

    /// Lends what waits, from the front, in as many pieces as fit into one vectored write.
    pub fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(8);
        for (_, frame) in &self.frames {
            frame.io_slices(&mut slices, IO_SLICES_MAX);
            if slices.len() >= IO_SLICES_MAX {
                break;
            }
        }
        slices
    }

    /// So many bytes from the front are on their way. At most as many as wait.
    pub fn taken(&mut self, mut bytes: usize) -> Flushed {
        let mut flushed = Flushed::default();
        self.bytes -= bytes;
        while bytes > 0
            && let Some((_, front)) = self.frames.front_mut()
        {
            let of_front = bytes.min(front.len());
            front.advance(of_front);
            bytes -= of_front;
            self.begun = !front.is_empty();
            if !self.begun
                && let Some((Kind::Entries(up_to), _)) = self.frames.pop_front()
            {
                flushed.frames += 1;
                flushed.up_to = flushed.up_to.max(up_to);
            }
        }
        flushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Message;
    use crate::wire::codec::{Heartbeat, Levels};

    fn heartbeat(epoch: u64) -> OutFrame {
        Message::Heartbeat(Heartbeat { epoch, number: 1, levels: Levels::default() }).encode()
    }

    fn kinds(queue: &FrameQueue) -> Vec<Kind> {
        queue.frames.iter().map(|(kind, _)| *kind).collect()
    }

    #[test]
    fn a_newer_heartbeat_takes_the_place_of_one_that_waits() {
        let mut queue = FrameQueue::default();
        queue.push(Kind::Entries(Seq::FIRST), heartbeat(1));
        queue.push(Kind::Heartbeat, heartbeat(1));
        queue.push(Kind::Heartbeat, heartbeat(2));
        assert_eq!(kinds(&queue), [Kind::Heartbeat, Kind::Entries(Seq::FIRST)]);
        assert_eq!(queue.frames[0].1.to_bytes(), heartbeat(2).to_bytes());
    }

    /// A heartbeat of an epoch must not arrive before the HELLO that tells the epoch.
    #[test]
    fn no_heartbeat_overtakes_another_control_frame() {
        let mut queue = FrameQueue::default();
        queue.push(Kind::Heartbeat, heartbeat(0));
        queue.push(Kind::Control, heartbeat(9));
        queue.push(Kind::Heartbeat, heartbeat(1));
        assert_eq!(kinds(&queue), [Kind::Heartbeat, Kind::Control, Kind::Heartbeat]);
        let sum: usize = queue.frames.iter().map(|(_, frame)| frame.len()).sum();
        assert_eq!(queue.bytes(), sum);
    }
}
