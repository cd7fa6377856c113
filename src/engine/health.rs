//! Judging a secondary's health by silence: healthy, suspected, unhealthy.

/// What the master thinks of a secondary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// It answered the last heartbeat.
    Healthy,
    /// It missed some heartbeats in a row; it still counts as present.
    Suspected,
    /// It missed many, was never reached, or was refused.
    Unhealthy,
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Health::Healthy => "healthy",
            Health::Suspected => "suspected",
            Health::Unhealthy => "unhealthy",
        })
    }
}

/// Counts misses in a row. A secondary that was never reached is unhealthy.
#[derive(Clone, Debug)]
pub struct HealthMonitor {
    suspected_after: u32,
    unhealthy_after: u32,
    misses: u32,
    health: Health,
}

impl HealthMonitor {
    /// A monitor of a secondary that was never reached. `unhealthy_after >= suspected_after >= 1`.
    pub fn new(suspected_after: u32, unhealthy_after: u32) -> Self {
        HealthMonitor { suspected_after, unhealthy_after, misses: 0, health: Health::Unhealthy }
    }

    /// The judgement now.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Heartbeats sent and unanswered, or connection attempts that failed, in a row.
    pub fn misses(&self) -> u32 {
        self.misses
    }

    /// One more heartbeat was unanswered. Returns whether the judgement changed.
    pub fn missed(&mut self) -> bool {
        self.misses = self.misses.saturating_add(1);
        let judged = if self.misses >= self.unhealthy_after {
            Health::Unhealthy
        } else if self.misses >= self.suspected_after && self.health == Health::Healthy {
            Health::Suspected
        } else {
            self.health
        };
        self.change_to(judged)
    }

    /// A sign of life. Returns whether the judgement changed.
    pub fn heard(&mut self) -> bool {
        self.misses = 0;
        self.change_to(Health::Healthy)
    }

    /// The introduction was refused: it is not of this cluster, whatever it answers.
    pub fn refused(&mut self) -> bool {
        self.change_to(Health::Unhealthy)
    }

    fn change_to(&mut self, health: Health) -> bool {
        std::mem::replace(&mut self.health, health) != health
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_misses_are_suspicious_five_are_unhealthy_and_one_success_heals() {
        let mut monitor = HealthMonitor::new(2, 5);
        assert_eq!(monitor.health(), Health::Unhealthy, "never reached");
        assert!(monitor.heard());
        let seen: Vec<_> = (0..6).map(|_| (monitor.missed(), monitor.health())).collect();
        use Health::*;
        assert_eq!(
            seen,
            [
                (false, Healthy),
                (true, Suspected),
                (false, Suspected),
                (false, Suspected),
                (true, Unhealthy),
                (false, Unhealthy)
            ]
        );
        assert!(monitor.heard());
        assert_eq!((monitor.health(), monitor.misses()), (Healthy, 0));
    }
}
