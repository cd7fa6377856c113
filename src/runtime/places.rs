//! Who finds room at a node's doors, however many are there already.
//!
//! Clients have so many places on each port, and no more than there are descriptors for. Beside
//! them a few are kept: for connections that have not said who they are, since one of them may be a
//! node; for operators, who want to see what is going on just then; and for those who are being told
//! that there is no place. When one of these kinds is full the oldest of it goes, so that whoever
//! sits there silently keeps nobody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::config::{Config, Role};
use crate::limits::{
    COLD_READS_MAX, MASTER_LINKS_MAX, OPEN_SEGMENTS_MAX, OPERATORS_MAX, SEALED_UNSYNCED_MAX,
    SPARE_DESCRIPTORS, STRANGERS_MAX, TURNED_AWAY_MAX,
};

/// What a process needs for itself: standard streams, the log file, the runtime's own, listeners, a
/// name that is looked up.
const OWN_DESCRIPTORS: usize = 14;

/// What a log on disk needs beside segments: the active one, its directory, `meta`, the lock, the
/// reserve, what is repaired or moved aside.
const LOG_DESCRIPTORS: usize = 6;

/// How the descriptors of a process are shared out among what its nodes have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Clients on each port.
    pub(super) clients_max: usize,
    /// Connections on each port, beyond the clients' places, of whom nobody knows who they are.
    pub(super) strangers_max: usize,
    /// Connections on each port that are being told that there is no place.
    pub(super) turned_away_max: usize,
    /// Operators on each port when all clients' places are taken.
    pub(super) operators_max: usize,
    /// Descriptors that the process must have for `limits.connections_max` to be met.
    pub(super) wanted: u64,
}

/// Sealed segments that a log may have open where a process may have so many descriptors.
pub(super) fn open_segments(descriptors: u64) -> usize {
    usize::try_from(descriptors / 16).unwrap_or(usize::MAX).clamp(2, OPEN_SEGMENTS_MAX)
}

impl Shares {
    /// Shares out `descriptors` among `nodes` nodes like this one.
    pub(super) fn of(config: &Config, descriptors: u64, nodes: usize) -> Shares {
        let ports = 1 + usize::from(config.node.gateway.is_some());
        let share = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let share = share.saturating_sub(OWN_DESCRIPTORS + SPARE_DESCRIPTORS) / nodes.max(1);
        let log = match config.node.data_dir {
            Some(_) => {
                let sealed = open_segments(descriptors) + SEALED_UNSYNCED_MAX;
                LOG_DESCRIPTORS + sealed + COLD_READS_MAX
            }
            None => 0,
        };
        let peers = match config.role {
            // A connection, and attempts to have one at two addresses at once.
            Role::Master => 3 * config.cluster.secondaries.len(),
            Role::Secondary => MASTER_LINKS_MAX,
        };
        // Of little each kind gets less.
        let few = |most: usize| most.min(share / 32).max(2);
        let [strangers_max, turned_away_max, operators_max] =
            [STRANGERS_MAX, TURNED_AWAY_MAX, OPERATORS_MAX].map(few);
        let beside = ports * (strangers_max + turned_away_max + operators_max);
        let left = share.saturating_sub(log + peers + beside);
        let clients_max = config.limits.connections_max.min((left / ports).max(1));
        let most = STRANGERS_MAX + TURNED_AWAY_MAX + OPERATORS_MAX + config.limits.connections_max;
        let all = OWN_DESCRIPTORS + SPARE_DESCRIPTORS + nodes.max(1) * (log + peers + ports * most);
        let wanted = all as u64;
        Shares { clients_max, strangers_max, turned_away_max, operators_max, wanted }
    }
}

/// The places at one door.
#[derive(Debug)]
pub(super) struct Places {
    shares: Shares,
    // Held for a look-up, never across an await.
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    clients: usize,
    strangers: BTreeMap<u64, CancellationToken>,
    operators: BTreeMap<u64, CancellationToken>,
    turned_away: BTreeMap<u64, CancellationToken>,
    next: u64,
}

impl Places {
    pub(super) fn new(shares: Shares) -> Arc<Places> {
        Arc::new(Places { shares, taken: Mutex::default() })
    }

    /// How many clients there may be.
    pub(super) fn clients_max(&self) -> usize {
        self.shares.clients_max
    }

    /// Lets somebody in who has not said who he is. If there are too many of them, the one who has
    /// been silent for longest goes.
    pub(super) fn enter(self: &Arc<Self>) -> Stranger {
        let mut taken = self.taken();
        let number = taken.number();
        let gone = CancellationToken::new();
        let all = taken.clients + taken.strangers.len();
        if all >= self.shares.clients_max + self.shares.strangers_max {
            evict_oldest(&mut taken.strangers);
        }
        taken.strangers.insert(number, gone.clone());
        Stranger { places: self.clone(), number, gone }
    }

    /// A client's place, if there is one.
    pub(super) fn client(self: &Arc<Self>) -> Option<Client> {
        let mut taken = self.taken();
        let free = taken.clients < self.shares.clients_max;
        taken.clients += usize::from(free);
        free.then(|| Client(self.clone()))
    }

    /// An operator's place. If all are taken, the one who came first goes.
    pub(super) fn operator(self: &Arc<Self>) -> Operator {
        let mut taken = self.taken();
        let number = taken.number();
        let gone = CancellationToken::new();
        if taken.operators.len() >= self.shares.operators_max {
            evict_oldest(&mut taken.operators);
        }
        taken.operators.insert(number, gone.clone());
        Operator { places: self.clone(), number, gone }
    }

    /// A place for as long as it takes to say that there is none. If all are taken, the one who came
    /// first goes.
    pub(super) fn turn_away(self: &Arc<Self>) -> TurnedAway {
        let mut taken = self.taken();
        let number = taken.number();
        let gone = CancellationToken::new();
        if taken.turned_away.len() >= self.shares.turned_away_max {
            evict_oldest(&mut taken.turned_away);
        }
        taken.turned_away.insert(number, gone.clone());
        TurnedAway { places: self.clone(), number, gone }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn evict_oldest(places: &mut BTreeMap<u64, CancellationToken>) {
    if let Some((_, oldest)) = places.pop_first() {
        oldest.cancel();
    }
}

/// Somebody who has not said who he is.
#[derive(Debug)]
pub(super) struct Stranger {
    places: Arc<Places>,
    number: u64,
    gone: CancellationToken,
}

impl Stranger {
    /// Comes back when the place is wanted for somebody else.
    pub(super) async fn evicted(&self) {
        self.gone.cancelled().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.places.taken().strangers.remove(&self.number);
    }
}

/// A client's place.
#[derive(Debug)]
pub(super) struct Client(Arc<Places>);

impl Drop for Client {
    fn drop(&mut self) {
        self.0.taken().clients -= 1;
    }
}

/// An operator's place.
#[derive(Debug)]
pub(super) struct Operator {
    places: Arc<Places>,
    number: u64,
    gone: CancellationToken,
}

impl Operator {
    /// Comes back when the place is wanted for another operator.
    pub(super) async fn evicted(&self) {
        self.gone.cancelled().await;
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.places.taken().operators.remove(&self.number);
    }
}

/// The place of somebody who is told that there is none.
#[derive(Debug)]
pub(super) struct TurnedAway {
    places: Arc<Places>,
    number: u64,
    gone: CancellationToken,
}

impl TurnedAway {
    /// Comes back when the place is wanted for somebody else.
    pub(super) async fn evicted(&self) {
        self.gone.cancelled().await;
    }
}

impl Drop for TurnedAway {
    fn drop(&mut self) {
        self.places.taken().turned_away.remove(&self.number);
    }
}

/// The place of a client's connection, taken for as long as this is kept.
pub(super) enum Guest {
    /// One of the clients' places.
    Client { _place: Client },
    /// An operator's, who may look and nothing else.
    Operator { place: Operator },
}

impl Guest {
    /// Whether all he may do is look.
    pub(super) fn only_looks(&self) -> bool {
        matches!(self, Guest::Operator { .. })
    }

    /// Comes back when the place is wanted for somebody else.
    pub(super) async fn evicted(&self) {
        match self {
            Guest::Client { .. } => std::future::pending().await,
            Guest::Operator { place } => place.evicted().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(descriptors: u64, nodes: usize) -> Shares {
        Shares::of(&Config::default_for(Role::Master), descriptors, nodes)
    }

    #[test]
    fn clients_get_what_the_log_and_the_nodes_leave_them() {
        let config = Config::default_for(Role::Master);
        let plenty = shares(u64::MAX, 1);
        assert_eq!(plenty.clients_max, config.limits.connections_max);
        assert_eq!(shares(plenty.wanted, 1).clients_max, config.limits.connections_max);
        assert!(shares(plenty.wanted - 2, 1).clients_max < config.limits.connections_max);
        for descriptors in [0, 8, 64, 256, 1024, 4096] {
            for nodes in [1, 3, 128] {
                let shares = shares(descriptors, nodes);
                assert!(shares.clients_max >= 1, "an operator can always come");
                let all = nodes
                    * 2
                    * (shares.clients_max
                        + shares.strangers_max
                        + shares.turned_away_max
                        + shares.operators_max);
                let enough = descriptors >= 64 * nodes as u64;
                assert!(!enough || (all as u64) < descriptors, "{descriptors} for {nodes}: {all}");
            }
        }
    }

    fn places() -> Arc<Places> {
        Places::new(Shares {
            clients_max: 2,
            strangers_max: 1,
            turned_away_max: 1,
            operators_max: 1,
            wanted: 0,
        })
    }

    fn is_evicted(gone: impl Future<Output = ()>) -> bool {
        let mut gone = std::pin::pin!(gone);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        gone.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn a_node_gets_in_when_all_clients_places_are_taken_and_strangers_sit_in_the_others() {
        let places = places();
        let clients = [places.client(), places.client()];
        assert!(clients.iter().all(Option::is_some) && places.client().is_none());
        let silent = places.enter();
        let node = places.enter();
        assert!(is_evicted(silent.evicted()) && !is_evicted(node.evicted()));
        assert!(places.client().is_none(), "but a client finds no place");
        drop(clients);
        assert!(places.client().is_some());
    }

    #[test]
    fn strangers_may_take_the_places_of_clients_who_are_not_there() {
        let places = places();
        let strangers = [places.enter(), places.enter(), places.enter()];
        assert!(strangers.iter().all(|stranger| !is_evicted(stranger.evicted())));
        let _fourth = places.enter();
        assert!(is_evicted(strangers[0].evicted()), "the one who has been silent for longest");
    }

    #[test]
    fn the_operator_who_came_last_has_the_place() {
        let places = places();
        let first = places.operator();
        let second = places.operator();
        assert!(is_evicted(first.evicted()) && !is_evicted(second.evicted()));
        drop(first);
        assert!(!is_evicted(second.evicted()));
        let first = places.turn_away();
        let second = places.turn_away();
        assert!(is_evicted(first.evicted()) && !is_evicted(second.evicted()));
    }
}
