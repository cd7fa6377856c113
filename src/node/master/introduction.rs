//! How the master introduces itself: what it says, and dialling.

use super::MasterNode;
use crate::engine::{Reign, SessionId};
use crate::limits::EPOCH_TABLE_ROWS_MAX;
use crate::node::introduction::{epoch_table, hello_of};
use crate::node::machine::Output;
use crate::node::storage::Storage;
use crate::types::{LogId, NodeIndex};
use crate::wire::codec::{EpochStart, Hello, Role};

impl<S: Storage> MasterNode<S> {
    pub(super) fn hello(&mut self, to: NodeIndex) -> Hello {
        let bounds = self.storage.log().bounds();
        let epoch = self.engine.epoch().number();
        let mut epoch_table = epoch_table(&self.log);
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
            vouches: self.engine.log_id().is_some(),
            master_addr: self.about.advertise.clone(),
            ..hello_of(&self.about, Role::Master, &self.roster, self.engine.levels().commit)
        }
    }

    pub(super) fn dial(&mut self, to: NodeIndex) {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let hello = Box::new(self.hello(to));
        let (leading, leads) = (hello.epoch > 0, self.engine.reign() == Reign::Leading);
        self.let_go(to, None);
        let peer = self.peer(to);
        (peer.leading, peer.told_as_leader) = (leading, leads);
        (peer.introducing, peer.heartbeat) = (0, 0);
        let addr = peer.addr.clone();
        self.outputs.push(Output::Dial { to, session, addr, hello });
    }
}
