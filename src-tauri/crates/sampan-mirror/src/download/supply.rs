//! One upstream at work for one download, and what the download thinks of it.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sampan_oci::Lie;
use sampan_upstream::{BlobSource, UpstreamError};
use tokio::time::Instant;

use super::Wanted;
use super::patience::Patience;
use super::slots::{Member, Slot};
use crate::sources::Source;

/// An answer's head is waited for four times as long as usual, within these bounds, before another upstream is asked too.
const HEAD_AT_LEAST: Duration = Duration::from_secs(1);
const HEAD_AT_MOST: Duration = Duration::from_secs(3);
const HEAD_UNKNOWN: Duration = Duration::from_secs(2);
/// How long one that failed is not asked for this blob again.
const PASSED_BY: Duration = Duration::from_secs(10);

/// Why an upstream is not asked for this blob.
#[derive(Debug)]
pub(super) enum Out {
    /// It gives no parts, or only such as cannot be relied on: of use where it is the last one.
    NoParts,
    /// It does not have it.
    Lacks,
    /// It failed. It is asked again after a while.
    Failed { until: Instant },
}

/// One upstream at work for one download.
pub(super) struct Supply {
    pub(super) source: Arc<Source>,
    pub(super) blob: BlobSource,
    pub(super) member: Arc<Member>,
    asking_for_slot: Option<BoxFuture<'static, Slot>>,
    pub(super) patience: Patience,
    /// Its first answer came: it may be asked for the rest side by side.
    pub(super) answered: bool,
    /// When it was last given a part only to see how fast it is.
    pub(super) scouted: Option<Instant>,
    pub(super) out: Option<Out>,
    /// What it told of the blob that cannot be true if the blob turns out right.
    pub(super) suspect: Option<Lie>,
    /// The last thing that went wrong.
    pub(super) last_error: Option<UpstreamError>,
}

impl Supply {
    pub(super) fn new(source: Arc<Source>, wanted: &Wanted, hopeful: bool) -> Self {
        Self {
            blob: source.upstream.blob_source(&wanted.image.repository, &wanted.digest),
            member: Arc::new(source.link.join()),
            source,
            asking_for_slot: None,
            patience: Patience::new(Instant::now(), hopeful),
            answered: false,
            scouted: None,
            out: None,
            suspect: None,
            last_error: None,
        }
    }

    /// Gets in line for a connection, or leaves the line.
    pub(super) fn want_slot(&mut self, wants: bool) {
        if !wants {
            self.asking_for_slot = None;
        } else if self.asking_for_slot.is_none() {
            let member = self.member.clone();
            self.asking_for_slot = Some(async move { member.acquire().await }.boxed());
        }
    }

    /// Whether it may not be asked just now.
    pub(super) fn is_resting(&self) -> bool {
        self.patience.is_pausing(Instant::now()) || self.source.link.resting().is_some()
    }

    /// How long an answer's head is waited for before somebody else is asked too.
    pub(super) fn head_within(&self) -> Duration {
        let usual = self.source.weather(|weather| weather.first_byte());
        usual.map_or(HEAD_UNKNOWN, |usual| (usual * 4).clamp(HEAD_AT_LEAST, HEAD_AT_MOST))
    }

    /// It is not asked for this blob any more.
    pub(super) fn leave(&mut self, out: Out) {
        (self.out, self.asking_for_slot) = (Some(out), None);
    }

    /// The same for a while: as long as it asked for, or a usual time.
    pub(super) fn rest(&mut self, error: &UpstreamError) {
        let rest = error.retry_after().unwrap_or(PASSED_BY).max(PASSED_BY);
        self.leave(Out::Failed { until: Instant::now() + rest });
    }

    /// It is asked again, like new.
    pub(super) fn come_back(&mut self, wanted: &Wanted) {
        self.blob = self.source.upstream.blob_source(&wanted.image.repository, &wanted.digest);
        (self.out, self.answered) = (None, false);
        // How long nothing came goes on being counted: else several that are gone would be waited for without end.
        self.patience.forgive();
        self.patience.hope();
    }
}

/// Waits for a connection to one of them: which, and the right to it.
pub(super) async fn any_slot(supplies: &mut [Supply]) -> (usize, Slot) {
    std::future::poll_fn(|context| {
        for (nth, supply) in supplies.iter_mut().enumerate() {
            let asking = supply.asking_for_slot.as_mut();
            if let Some(Poll::Ready(slot)) = asking.map(|asking| asking.poll_unpin(context)) {
                supply.asking_for_slot = None;
                return Poll::Ready((nth, slot));
            }
        }
        Poll::Pending
    })
    .await
}
