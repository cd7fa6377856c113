//! What goes wrong when: a plan drawn from a seed.

use std::fmt;
use std::time::Duration;

use crate::proxy::{Direction, Weather};
use crate::rng::Rng;

/// Something that is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The process of this node is killed; in memory that is the loss of its log, on disk not.
    Kill(usize),
    /// It is started again.
    Start(usize),
    /// The process of this node stops where it is.
    Pause(usize),
    /// It goes on.
    Resume(usize),
    /// The weather on this link changes.
    Weather(Link, Weather),
    /// All connections on this link are reset.
    Reset(Link),
}

/// A link with a proxy on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// From the master to this secondary.
    Secondary(usize),
    /// From the clients to the wire port of the master.
    Wire,
    /// From the clients to the text gateway of the master.
    Text,
}

/// An act and its time from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at: Duration,
    /// What.
    pub act: Act,
}

/// What a schedule is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How many nodes, the master included.
    pub nodes: usize,
    /// How long there is trouble.
    pub length: Duration,
    /// Whether logs are on disk: only then is the master killed too.
    pub disk: bool,
    /// So many kills of nodes drawn at random, one after the other, instead of what befalls nodes
    /// otherwise.
    pub kills: Option<u32>,
}

/// Whatever a fault may befall: each has at most one at a time.
#[derive(Clone, Copy)]
enum Victim {
    Master {
        /// May be killed.
        mortal: bool,
    },
    Secondary(usize),
    Link(Link),
}

/// The plan of a seed. Everything that was begun ends before the trouble is over.
pub fn schedule(seed: u64, trouble: Trouble) -> Vec<Step> {
    let Trouble { nodes, length, disk, kills } = trouble;
    let master = Victim::Master { mortal: disk };
    let mut victims = vec![master, Victim::Link(Link::Wire), Victim::Link(Link::Text)];
    for node in 1..nodes {
        victims.extend([Victim::Secondary(node), Victim::Link(Link::Secondary(node))]);
    }
    let mut steps = Vec::new();
    let length = length.as_millis() as u64;
    if let Some(kills) = kills {
        steps.extend(kills_in_a_row(seed, nodes, length, kills, disk));
    }
    for (number, victim) in victims.into_iter().enumerate() {
        if kills.is_some() && !matches!(victim, Victim::Link(_)) {
            continue;
        }
        let mut rng = Rng::keyed(&[seed, number as u64]);
        let mut at = 500 + rng.below(4000);
        loop {
            let lasts = rng.magnitude(50, 4000);
            if at + lasts >= length {
                break;
            }
            let (begin, end) = episode(victim, &mut rng);
            steps.push(Step { at: Duration::from_millis(at), act: begin });
            if let Some(end) = end {
                steps.push(Step { at: Duration::from_millis(at + lasts), act: end });
            }
            at += lasts + 500 + rng.below(8000);
        }
    }
    // Stable: a victim's acts keep their order.
    steps.sort_by_key(|step| step.at);
    steps
}

/// Kills spread over the time, each node up again before the next one falls.
fn kills_in_a_row(seed: u64, nodes: usize, length: u64, kills: u32, disk: bool) -> Vec<Step> {
    let mut rng = Rng::keyed(&[seed, u64::from(kills), u64::MAX]);
    let kills = u64::from(kills);
    let mortal_from = usize::from(!disk);
    if mortal_from >= nodes {
        return Vec::new();
    }
    let mut steps = Vec::new();
    for number in 0..kills {
        let node = mortal_from + rng.below((nodes - mortal_from) as u64) as usize;
        let (begin, end) = (number * length / kills, (number + 1) * length / kills);
        let down = (end - begin) * rng.within(10, 60) / 100;
        steps.push(Step { at: Duration::from_millis(begin), act: Act::Kill(node) });
        steps.push(Step { at: Duration::from_millis(begin + down), act: Act::Start(node) });
    }
    steps
}

fn episode(victim: Victim, rng: &mut Rng) -> (Act, Option<Act>) {
    match victim {
        Victim::Master { mortal: true } if rng.percent(50) => (Act::Kill(0), Some(Act::Start(0))),
        Victim::Master { .. } => (Act::Pause(0), Some(Act::Resume(0))),
        Victim::Secondary(node) if rng.percent(50) => (Act::Kill(node), Some(Act::Start(node))),
        Victim::Secondary(node) => (Act::Pause(node), Some(Act::Resume(node))),
        Victim::Link(link) if rng.percent(20) => (Act::Reset(link), None),
        Victim::Link(link) => {
            let calm = Act::Weather(link, Weather::default());
            (Act::Weather(link, weather(rng)), Some(calm))
        }
    }
}

fn weather(rng: &mut Rng) -> Weather {
    let bad = match rng.below(5) {
        0 | 1 => Direction { cut: true, ..Direction::default() },
        2 => Direction {
            delay: Duration::from_millis(rng.magnitude(1, 500)),
            jitter: Duration::from_millis(rng.magnitude(1, 200)),
            ..Direction::default()
        },
        3 => Direction {
            piece_bytes: Some(rng.magnitude(1, 100) as usize),
            jitter: Duration::from_millis(1),
            ..Direction::default()
        },
        _ => Direction {
            bytes_per_second: Some(rng.within(20_000, 400_000)),
            piece_bytes: Some(1000),
            ..Direction::default()
        },
    };
    match rng.below(3) {
        0 => Weather { there: bad, ..Weather::default() },
        1 => Weather { back: bad, ..Weather::default() },
        _ => Weather { there: bad, back: bad },
    }
}

/// A node's name.
pub fn node_name(node: usize) -> String {
    if node == 0 { "master".to_owned() } else { format!("s{node}") }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Link::Secondary(node) => write!(f, "master to s{node}"),
            Link::Wire => f.write_str("clients to the wire port"),
            Link::Text => f.write_str("clients to the gateway"),
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Act::Kill(node) => write!(f, "kill {}", node_name(node)),
            Act::Start(node) => write!(f, "start {}", node_name(node)),
            Act::Pause(node) => write!(f, "pause {}", node_name(node)),
            Act::Resume(node) => write!(f, "resume {}", node_name(node)),
            Act::Reset(link) => write!(f, "reset {link}"),
            Act::Weather(link, weather) if weather == Weather::default() => {
                write!(f, "calm on {link}")
            }
            Act::Weather(link, Weather { there, back }) => {
                write!(f, "{link}: ")?;
                let calm = Direction::default();
                match (there == calm, back == calm) {
                    (false, true) => write!(f, "there {}", Told(there)),
                    (true, false) => write!(f, "back {}", Told(back)),
                    _ => write!(f, "both ways {}", Told(there)),
                }
            }
        }
    }
}

struct Told(Direction);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Direction { cut, delay, jitter, piece_bytes, bytes_per_second } = self.0;
        if cut {
            return f.write_str("cut");
        }
        write!(f, "delay {delay:?} jitter {jitter:?}")?;
        if let Some(bytes) = piece_bytes {
            write!(f, " pieces of {bytes} B")?;
        }
        if let Some(rate) = bytes_per_second {
            write!(f, " {rate} B/s")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn in_memory(nodes: usize) -> Trouble {
        Trouble { nodes, length: MINUTE, disk: false, kills: None }
    }

    #[test]
    fn the_same_seed_makes_the_same_schedule_and_another_seed_another() {
        assert_eq!(schedule(7, in_memory(3)), schedule(7, in_memory(3)));
        assert_ne!(schedule(7, in_memory(3)), schedule(8, in_memory(3)));
    }

    #[test]
    fn every_fault_ends_before_the_run_does_and_a_master_in_memory_is_never_killed() {
        let troubles = [(false, None), (false, Some(50)), (true, None), (true, Some(100))];
        for (seed, (disk, kills)) in (0..200).zip(troubles.into_iter().cycle()) {
            let steps = schedule(seed, Trouble { disk, kills, ..in_memory(5) });
            let (mut down, mut stormy) = ([false; 5], Vec::new());
            for Step { at, act } in steps {
                assert!(at < MINUTE);
                match act {
                    Act::Kill(node) | Act::Pause(node) => {
                        assert!(disk || act != Act::Kill(0), "its log would be gone");
                        assert!(!down[node], "one fault at a time");
                        down[node] = true;
                    }
                    Act::Start(node) | Act::Resume(node) => down[node] = false,
                    Act::Weather(link, weather) if weather == Weather::default() => {
                        stormy.retain(|it| *it != link);
                    }
                    Act::Weather(link, _) => stormy.push(link),
                    Act::Reset(_) => {}
                }
            }
            assert_eq!((down, stormy), ([false; 5], vec![]), "seed {seed}");
        }
    }

    #[test]
    fn a_minute_has_faults_of_every_kind_for_most_seeds() {
        let has = |kind: fn(&Act) -> bool| {
            (0..50)
                .filter(|&seed| schedule(seed, in_memory(3)).iter().any(|it| kind(&it.act)))
                .count()
        };
        assert!(has(|act| matches!(act, Act::Kill(_))) > 40);
        assert!(has(|act| matches!(act, Act::Pause(0))) > 40);
        assert!(has(|act| matches!(act, Act::Reset(_))) > 40);
        assert!(has(|act| matches!(act, Act::Weather(_, weather) if weather.there.cut)) > 40);
    }

    #[test]
    fn a_hundred_kills_are_a_hundred_and_all_nodes_fall() {
        for seed in 0..20 {
            let steps = schedule(seed, Trouble { disk: true, kills: Some(100), ..in_memory(3) });
            let killed = |node| steps.iter().filter(|it| it.act == Act::Kill(node)).count();
            assert_eq!(killed(0) + killed(1) + killed(2), 100);
            assert!((0..3).all(|node| killed(node) > 10), "seed {seed}");
        }
    }
}
