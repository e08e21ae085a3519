//! Who wants a download. What a client asked for goes first; what is fetched ahead rests until no client waits.

use std::sync::Arc;

use tokio::sync::watch;

use super::follow::Download;
use crate::error::PullError;

/// How many downloads run that a client asked for. Cheap to clone; all clones are one count.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients(watch::Sender<usize>);

impl Clients {
    /// Whether there is none.
    pub(super) fn are_none(&self) -> bool {
        *self.0.borrow() == 0
    }

    /// Waits until there is none.
    pub(super) async fn none(&self) {
        // The sender lives in `self`.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// Who wants one download.
#[derive(Debug, Default)]
pub(super) struct Demand(watch::Sender<Wanting>);

#[derive(Clone, Copy, Debug, Default)]
struct Wanting {
    /// A client asked for it. That it left again changes nothing: it will be back.
    asked: bool,
    /// So many want it ahead of any client.
    ahead: usize,
    ended: bool,
}

impl Demand {
    /// A client wants it. The list of running downloads must be locked.
    pub(super) fn ask(&self, clients: &Clients) {
        let new = self.0.send_if_modified(|wanting| !std::mem::replace(&mut wanting.asked, true));
        if new {
            clients.0.send_modify(|count| *count += 1);
        }
    }

    /// Somebody wants it ahead of any client. The list of running downloads must be locked.
    pub(super) fn look_ahead(&self) {
        self.0.send_modify(|wanting| wanting.ahead += 1);
    }

    fn look_elsewhere(&self) {
        self.0.send_modify(|wanting| wanting.ahead = wanting.ahead.saturating_sub(1));
    }

    /// It is off the list, and nobody can ask for it any longer.
    pub(super) fn end(&self, clients: &Clients) {
        let mut asked = false;
        self.0.send_modify(|wanting| {
            asked = wanting.asked && !wanting.ended;
            wanting.ended = true;
        });
        if asked {
            clients.0.send_modify(|count| *count -= 1);
        }
    }

    /// Whether nobody wants it.
    pub(super) fn is_unwanted(&self) -> bool {
        let wanting = *self.0.borrow();
        !wanting.asked && wanting.ahead == 0
    }

    fn may_run(&self, clients: &Clients) -> bool {
        let wanting = *self.0.borrow();
        wanting.asked || (wanting.ahead > 0 && clients.are_none())
    }

    /// Waits for its turn. Where nobody wants it, and `leave` takes it off the list, it has none.
    pub(super) async fn turn(&self, clients: &Clients, leave: impl Fn() -> bool) -> Result<(), PullError> {
        let (mut wanting, mut count) = (self.0.subscribe(), clients.0.subscribe());
        loop {
            wanting.mark_unchanged();
            count.mark_unchanged();
            if self.may_run(clients) {
                return Ok(());
            }
            if self.is_unwanted() && leave() {
                return Err(PullError::Unwanted);
            }
            tokio::select! {
                _ = wanting.changed() => {}
                _ = count.changed() => {}
            }
        }
    }

    /// Waits until it has to make way, or nobody wants it.
    pub(super) async fn turn_ends(&self, clients: &Clients) {
        let (mut wanting, mut count) = (self.0.subscribe(), clients.0.subscribe());
        loop {
            wanting.mark_unchanged();
            count.mark_unchanged();
            if !self.may_run(clients) {
                return;
            }
            tokio::select! {
                _ = wanting.changed() => {}
                _ = count.changed() => {}
            }
        }
    }
}

/// A download that is wanted ahead of any client, until this is dropped.
#[derive(Debug)]
pub(crate) struct Ahead(Arc<Download>);

impl Ahead {
    /// `download` was told by [`Demand::look_ahead`].
    pub(super) fn new(download: Arc<Download>) -> Self {
        Self(download)
    }

    /// Waits until the blob is whole and right.
    pub(crate) async fn verified(&self) -> Result<(), PullError> {
        self.0.verified().await
    }

    /// The download itself, for looking at how far it is.
    pub(crate) fn download(&self) -> &Arc<Download> {
        &self.0
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.demand().look_elsewhere();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test]
    async fn what_is_fetched_ahead_rests_while_a_client_waits_for_something_else() {
        let (clients, ahead, theirs) = (Clients::default(), Demand::default(), Demand::default());
        ahead.look_ahead();
        let never = || panic!("it is wanted");
        assert!(ahead.turn(&clients, never).now_or_never().unwrap().is_ok());
        let mut ends = Box::pin(ahead.turn_ends(&clients));
        assert!((&mut ends).now_or_never().is_none());
        theirs.ask(&clients);
        theirs.ask(&clients);
        assert!(ends.now_or_never().is_some(), "a client came");
        assert!(theirs.turn(&clients, never).now_or_never().unwrap().is_ok(), "and goes first");
        let mut turn = Box::pin(ahead.turn(&clients, never));
        assert!((&mut turn).now_or_never().is_none());
        assert!(!clients.are_none());
        theirs.end(&clients);
        theirs.end(&clients);
        assert!(clients.are_none() && clients.none().now_or_never().is_some(), "counted once");
        assert!(turn.now_or_never().unwrap().is_ok(), "and now it goes on");
    }

    #[tokio::test]
    async fn what_a_client_asks_for_too_rests_no_longer() {
        let (clients, ahead, theirs) = (Clients::default(), Demand::default(), Demand::default());
        ahead.look_ahead();
        theirs.ask(&clients);
        let mut turn = Box::pin(ahead.turn(&clients, || false));
        assert!((&mut turn).now_or_never().is_none());
        ahead.ask(&clients);
        assert!(turn.now_or_never().unwrap().is_ok());
        ahead.look_elsewhere();
        assert!(ahead.turn_ends(&clients).now_or_never().is_none(), "it stays a client's");
        ahead.end(&clients);
        theirs.end(&clients);
        assert!(clients.are_none());
    }

    #[tokio::test]
    async fn what_nobody_wants_ends_unless_somebody_comes_in_time() {
        let (clients, ahead) = (Clients::default(), Demand::default());
        ahead.look_ahead();
        ahead.look_elsewhere();
        let left = ahead.turn(&clients, || true).now_or_never().unwrap();
        assert!(matches!(left, Err(PullError::Unwanted)));
        let tried = AtomicBool::new(false);
        let late = || {
            tried.store(true, Ordering::Relaxed);
            false
        };
        let mut turn = Box::pin(ahead.turn(&clients, late));
        assert!((&mut turn).now_or_never().is_none() && tried.load(Ordering::Relaxed));
        ahead.ask(&clients);
        assert!(turn.now_or_never().unwrap().is_ok());
    }
}
