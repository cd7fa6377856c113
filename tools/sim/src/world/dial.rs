//! Connecting to a secondary and introducing ourselves: what `runtime::dial` does, without tokio.

use replog::engine::SessionId;
use replog::wire::codec::Hello;
use replog::wire::{Message, OutFrame};

use super::net::{Dialled, Dialler, State};
use super::{Event, Input, World};
use crate::sometimes::Sometimes;

/// A connection attempt.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) to: usize,
    pub(super) session: SessionId,
    hello: Option<OutFrame>,
    conn: Option<usize>,
    ended: bool,
}

impl World {
    pub(super) fn dial_timeout(&self) -> u64 {
        let setup = &self.plan.setup;
        (setup.heartbeat_ms * 1000 * u64::from(setup.unhealthy_after)).clamp(2_000_000, 60_000_000)
    }

    pub(super) fn dial(&mut self, to: usize, session: SessionId, hello: Hello) {
        let leading = hello.epoch > 0;
        self.tell(0, "dial", to as u64, session.0, || {
            format!("n{to}{}", if leading { " leading" } else { "" })
        });
        let deadline = self.now + self.dial_timeout();
        let hello = Some(Message::Hello(hello).encode());
        self.dials.push(Dial { to, session, hello, conn: None, ended: false });
        let dial = self.dials.len() - 1;
        let way = self.plan.setup.net.delay_us * 2 + self.lines[to].slow_by;
        self.queue.push(self.now + way.max(1), Event::DialStep { dial });
        self.queue.push(deadline, Event::DialDeadline { dial });
    }

    /// The other kernel answers a connection attempt, or nothing does.
    pub(super) fn dial_step(&mut self, dial: usize) {
        let to = self.dials[dial].to;
        if self.dials[dial].ended {
            return;
        }
        let line = &self.lines[to];
        let host = &self.hosts[to];
        if line.cuts != [0, 0] || !host.up && host.silent {
            // Nobody answers: the kernel tries again each second.
            return self.queue.push(self.now + 1_000_000, Event::DialStep { dial });
        }
        if line.refusing > 0 || !host.up {
            self.seen.note(Sometimes::DialRefused);
            return self.dial_ended(dial, Dialled::Unreachable);
        }
        let session = self.dials[dial].session;
        let conn = self.connect(to, Dialler::Master(dial), session);
        self.dials[dial].conn = Some(conn);
        self.queue.push(self.now + 5_000_000, Event::IntroductionTimeout { id: conn });
        if let Some(hello) = self.dials[dial].hello.take() {
            // A HELLO is smaller than any socket's buffer, or its rest would wait for ever: see the
            // limits of the plan.
            let room = self.socket_room(conn, 0).unwrap_or(0);
            let hello = hello.to_bytes();
            self.socket_write(conn, 0, hello.slice(..hello.len().min(room)));
        }
    }

    pub(super) fn dial_deadline(&mut self, dial: usize) {
        if self.dials[dial].ended {
            return;
        }
        self.seen.note(Sometimes::DialTimedOut);
        if let Some(conn) = self.dials[dial].conn
            && self.conns[conn].ends[0].state == State::Open
        {
            self.close_end(conn, 0, false);
        }
        self.dial_ended(dial, Dialled::Unreachable);
    }

    /// The process that dialled is gone.
    pub(super) fn forget_dial(&mut self, dial: usize) {
        self.dials[dial].ended = true;
        self.dials[dial].hello = None;
    }

    pub(super) fn dial_ended(&mut self, dial: usize, result: Dialled) {
        if !std::mem::replace(&mut self.dials[dial].ended, true) {
            self.input(0, Input::Dialled { dial, result });
        }
    }
}
