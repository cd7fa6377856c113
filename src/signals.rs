//! Which signals this process was started to ignore: `nohup` does so with HUP, a shell with INT and QUIT
//! for what it starts in the background. Whoever ignores one wants it to change nothing.

/// The ignored signals, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Ignored(u64);

impl Ignored {
    /// Those that are ignored now. Ask before any is caught. None where the system has no Linux `/proc`.
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        Ignored(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
    }

    /// Whether the signal of this number is one of them. Signals are numbered from 1.
    pub fn contains(self, number: i32) -> bool {
        self.0 >> (number - 1) & 1 == 1
    }
}
