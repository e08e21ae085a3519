//! Every task has an owner.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Every task Sampan runs. Cheap to clone; all clones are one set of tasks.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Tasks {
    /// A set with no task in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task. It must return soon after its token is cancelled.
    pub fn spawn<F>(&self, name: &'static str, start: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = start(self.cancel.child_token());
        self.tracker.spawn(task.instrument(tracing::info_span!("task", name)));
    }

    /// The token that [`shutdown`](Self::shutdown) cancels.
    pub fn token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Cancels all tasks and waits for them, at most `deadline`. Returns how many were still running then.
    pub async fn shutdown(&self, deadline: Duration) -> usize {
        self.tracker.close();
        self.cancel.cancel();
        let _ = tokio::time::timeout(deadline, self.tracker.wait()).await;
        self.tracker.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shutdown_cancels_waits_and_counts_who_stays() {
        let tasks = Tasks::new();
        tasks.spawn("polite", |token| async move { token.cancelled().await });
        tasks.spawn("deaf", |_| std::future::pending());
        assert_eq!(tasks.shutdown(Duration::from_secs(1)).await, 1, "only the deaf task is left");
    }
}
