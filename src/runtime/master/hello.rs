//! How the master introduces itself: what it says, and dialling.

use super::MasterDriver;
use crate::engine::{Reign, SessionId};
use crate::limits::EPOCH_TABLE_ROWS_MAX;
use crate::runtime::dial::{connect, dead_after};
use crate::runtime::inbox::{Input, PeerEvent};
use crate::runtime::reader::{epoch_table, hello_of};
use crate::types::{LogId, NodeIndex};
use crate::wire::codec::{EpochStart, Hello};

impl MasterDriver {
    pub(super) fn hello(&mut self, to: NodeIndex) -> Hello {
        let bounds = self.log.store().bounds();
        let epoch = self.engine.epoch().number();
        let mut epoch_table = epoch_table(&self.node.log);
        if epoch > 0 && epoch_table.last().is_none_or(|newest| newest.epoch < epoch) {
            if epoch_table.len() >= EPOCH_TABLE_ROWS_MAX {
                epoch_table.remove(0);
            }
            epoch_table.push(EpochStart { epoch, first: bounds.last.next().number() });
        }
        Hello {
            peer_id: self.peer(to).id.to_string(),
            log_id: self.engine.log_id().map(LogId::bytes),
            epoch,
            run_id: self.engine.run_id().value(),
            epoch_table,
            stored: bounds.last.number(),
            tail_epoch: bounds.tail.epoch.number(),
            tail_digest: bounds.tail.digest.value(),
            settled: self.engine.settled().number(),
            commit: self.engine.levels().commit.number(),
            vouches: self.engine.log_id().is_some(),
            master_addr: self.node.advertise.clone(),
            ..hello_of(&self.node)
        }
    }

    pub(super) fn dial(&mut self, to: NodeIndex) {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let hello = self.hello(to);
        let (leading, leads) = (hello.epoch > 0, self.engine.reign() == Reign::Leading);
        let peer = self.peer(to);
        (peer.leading, peer.told_as_leader) = (leading, leads);
        (peer.introducing, peer.heartbeat) = (0, 0);
        peer.link = None;
        let addr = peer.addr.clone();
        let (driver, stop) = (self.node.driver.clone(), self.node.stop.clone());
        let dead_after = dead_after(&self.cluster);
        tokio::spawn(async move {
            let result = tokio::select! {
                result = connect(&addr, session, hello, dead_after) => result,
                () = stop.cancelled() => return,
            };
            // A driver that is gone needs no event.
            let _ = driver.send(Input::Peer(PeerEvent::Dialled { to, session, result })).await;
        });
    }
}
