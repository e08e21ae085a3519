//! Time that passes, for what counts in days: how old things are, how long what was found right counts as right.
//!
//! A clock that only goes forward, and goes on while the machine sleeps: on a laptop most of a week is sleep. The standard
//! library's stands still meanwhile on Linux and macOS. Only Linux is asked for its other one: what macOS has is out of
//! reach of safe code, and there things count as younger than they are.

use std::ops::Add;
use std::time::Duration;
#[cfg(not(target_os = "linux"))]
use std::time::Instant;

/// A moment of that clock. Worth nothing in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(
    /// The time since the system was started.
    #[cfg(target_os = "linux")]
    Duration,
    #[cfg(not(target_os = "linux"))] Instant,
);

impl Moment {
    #[cfg(target_os = "linux")]
    pub(crate) fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Neither is ever negative.
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0)))
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    /// The time from `earlier` to this; nothing, where that is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        #[cfg(target_os = "linux")]
        return self.0.saturating_sub(earlier.0);
        #[cfg(not(target_os = "linux"))]
        return self.0.saturating_duration_since(earlier.0);
    }

    /// The time from this until now.
    pub(crate) fn elapsed(self) -> Duration {
        Self::now().since(self)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_forward_only() {
        let began = Moment::now();
        let later = began + Duration::from_secs(7);
        assert_eq!((later.since(began), began.since(later)), (Duration::from_secs(7), Duration::ZERO));
        assert!(Moment::now() >= began && began.elapsed() < Duration::from_hours(1));
    }

    #[cfg(target_os = "linux")]
    mod asleep {
        use super::*;
        use std::process::Command;

        /// How long the child's machine slept, as its system says.
        const SLEPT_SECONDS: u64 = 40_000_000;

        #[test]
        #[ignore = "the child of the test below, in a time namespace of its own"]
        fn tells_the_time() {
            println!("it is {} s", Moment::now().0.as_secs());
        }

        #[test]
        fn time_passes_while_the_machine_sleeps() {
            // What a sleep adds is the difference between the two clocks, and a namespace may have that by itself.
            let namespace = || {
                let mut command = Command::new("unshare");
                command.args(["--time", "--fork", "--boottime", &SLEPT_SECONDS.to_string()]);
                command
            };
            if !namespace().arg("true").output().is_ok_and(|output| output.status.success()) {
                eprintln!("SKIPPED: a time namespace of its own needs root");
                return;
            }
            let child = namespace()
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "moment::tests::asleep::tells_the_time", "--ignored", "--nocapture"])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&child.stdout);
            let (_, rest) = said.split_once("it is ").expect(&said);
            let seconds: u64 = rest.split_once(" s").unwrap().0.parse().unwrap();
            assert!(seconds >= SLEPT_SECONDS, "{said}");
        }
    }
}
