//! Asking an upstream where a tag points, no longer than a person does not notice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sampan_oci::{Digest, Failure, ImageName, Reference, RegistryName, Stale, Tag};
use sampan_upstream::{Upstream, UpstreamError};

use crate::freshness::Check;
use crate::mirror::Inner;
use crate::plan::Word;
use crate::private::Sought;

/// Questions to one upstream that may be overdue at once: while it says nothing, more of them would tell nothing more.
const OVERDUE_MAX: u32 = 3;

/// How answers about tags came about, since the mirror began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagAnswers {
    /// The upstream was not to be asked: the policy says so, or the tag is frozen.
    pub unasked: u64,
    /// Stale, for this reason.
    pub outage: u64,
    /// Likewise.
    pub rate_limit: u64,
    /// Likewise.
    pub deadline: u64,
    /// Likewise.
    pub upstream: u64,
    /// Likewise.
    pub offline: u64,
    /// Likewise.
    pub resting: u64,
}

/// Counts [`TagAnswers`].
#[derive(Debug, Default)]
pub(crate) struct Counts {
    unasked: AtomicU64,
    stale: [AtomicU64; REASONS.len()],
}

const REASONS: [Stale; 6] =
    [Stale::Outage, Stale::RateLimit, Stale::Deadline, Stale::Upstream, Stale::Offline, Stale::Resting];

impl Counts {
    pub(crate) fn unasked(&self) {
        self.unasked.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stale(&self, why: Stale) {
        for (reason, count) in REASONS.iter().zip(&self.stale) {
            count.fetch_add(u64::from(*reason == why), Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self) -> TagAnswers {
        let [outage, rate_limit, deadline, upstream, offline, resting] =
            self.stale.each_ref().map(|count| count.load(Ordering::Relaxed));
        let unasked = self.unasked.load(Ordering::Relaxed);
        TagAnswers { unasked, outage, rate_limit, deadline, upstream, offline, resting }
    }
}

/// How many questions to each upstream are overdue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overdue(Arc<Mutex<HashMap<RegistryName, u32>>>);

impl Overdue {
    fn of(&self, registry: &RegistryName) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(registry).copied().unwrap_or(0)
    }

    fn add(&self, registry: &RegistryName) -> OneOverdue {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(registry.clone()).or_default() += 1;
        OneOverdue { all: self.clone(), registry: registry.clone() }
    }
}

/// One overdue question, until it is dropped.
struct OneOverdue {
    all: Overdue,
    registry: RegistryName,
}

impl Drop for OneOverdue {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.registry) {
            *count = count.saturating_sub(1);
        }
    }
}

/// What became of asking about a tag because a person wanted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// It points where it did.
    Current(Digest),
    /// It points elsewhere now, and that manifest was fetched.
    Moved {
        /// Where it pointed, if it was held.
        from: Option<Digest>,
        /// Where it points.
        to: Digest,
    },
    /// Its upstream has no such tag, or does not show it without a login.
    Gone,
    /// A person froze it here; nobody was asked.
    Frozen(Digest),
    /// Its policy is [`Check::Never`]; nobody was asked.
    Never,
    /// Its upstream could not say: a sentence why.
    Failed(String),
}

impl Inner {
    /// Asks the upstream where a tag points. Waits only as long as a person does not notice; the question itself goes
    /// on, so that its end is known (and shown) as what it was: an answer, or none. While earlier questions to the same
    /// upstream are overdue, nobody waits for a further one.
    pub(crate) async fn ask_where(self: &Arc<Self>, image: &ImageName, tag: &Tag) -> Word {
        let overdue = self.overdue.of(&image.registry);
        if overdue >= OVERDUE_MAX {
            return Word::Late;
        }
        let patience = if overdue > 0 { Duration::ZERO } else { self.revalidate_timeout };
        self.asked_where(image, tag, patience).await
    }

    async fn asked_where(self: &Arc<Self>, image: &ImageName, tag: &Tag, patience: Duration) -> Word {
        let this = self.clone();
        let (their_image, reference) = (image.clone(), Reference::Tag(tag.clone()));
        let asked = Box::pin(async move {
            let Some(upstream) = this.upstream_for(&their_image) else { return Word::Denied };
            let question = upstream.head_manifest(&their_image.repository, &reference);
            tokio::pin!(question);
            // A little before those who wait give up: whoever asks next knows then. Where nobody waits, at once: questions
            // about many tags would all be on their way before the first of them is late.
            let soon = patience.min(this.revalidate_timeout).mul_f32(0.9);
            let answer = if let Ok(answer) = tokio::time::timeout(soon, &mut question).await {
                answer
            } else {
                let _overdue = this.overdue.add(&their_image.registry);
                question.await
            };
            if let Err(error) = &answer {
                this.note_refusal(&their_image, error);
            }
            match answer {
                Ok(digest) => Word::Points(digest),
                Err(UpstreamError::NotFound) => Word::Gone,
                Err(UpstreamError::Denied | UpstreamError::Login(_)) => Word::Denied,
                Err(UpstreamError::Resting) => Word::Resting,
                Err(error) => Word::Failed(error.failure()),
            }
        });
        let key = (image.clone(), Reference::Tag(tag.clone()));
        let answer = self.asking.run(&self.tasks, key, asked);
        match tokio::time::timeout(patience, answer).await {
            Ok(Some((word, _))) => word,
            Ok(None) => Word::Failed(Failure::Stopping),
            Err(_) => Word::Late,
        }
    }

    /// Asks about a tag because a person wants it, and fetches the manifest where it moved.
    pub(crate) async fn refresh(self: &Arc<Self>, image: &ImageName, tag: &Tag) -> Refreshed {
        if let Err(error) = self.admit(image, Sought::Manifest(&Reference::Tag(tag.clone()))).await {
            return Refreshed::Failed(error.to_string());
        }
        let held = match self.store.held_tag(image, tag).await {
            Ok(held) => held,
            Err(error) => return Refreshed::Failed(format!("the cache failed: {error}")),
        };
        if let Some(held) = held.filter(|held| held.frozen) {
            return Refreshed::Frozen(held.digest);
        }
        if self.policy(image).check == Check::Never {
            return Refreshed::Never;
        }
        let held = held.map(|held| held.digest);
        // A person waits: as long as for a manifest that has to come.
        match (self.asked_where(image, tag, crate::manifests::MANIFEST_WITHIN).await, held) {
            (Word::Points(Some(now)), Some(held)) if now == held => {
                self.confirm(image, tag).await;
                Refreshed::Current(held)
            }
            (Word::Points(_), from) => match self.fetched(image, &Reference::Tag(tag.clone())).await {
                Ok(found) => Refreshed::Moved { from, to: found.manifest.digest },
                Err(error) => Refreshed::Failed(error.to_string()),
            },
            (Word::Gone, held) => {
                if let Some(held) = held {
                    self.forget_tag(image, tag, &held).await;
                }
                Refreshed::Gone
            }
            (Word::Denied, _) => Refreshed::Gone,
            (Word::Late, _) => Refreshed::Failed("the registry did not answer in time".into()),
            (Word::Resting, _) => Refreshed::Failed(UpstreamError::Resting.to_string()),
            (Word::Failed(failure), _) => Refreshed::Failed(match failure {
                Failure::Offline => "Sampan is offline: `sampan offline off` lets it ask".into(),
                Failure::RateLimited => "the registry's rate limit is used up".into(),
                Failure::Unreachable => "the registry cannot be reached".into(),
                Failure::Invalid
                | Failure::Forbidden
                | Failure::ClientLeft
                | Failure::NotFound
                | Failure::Upstream
                | Failure::Mismatch
                | Failure::Store
                | Failure::Stopping => "the registry could not say".into(),
            }),
        }
    }

    /// Notes that the upstream confirmed a tag now.
    pub(crate) async fn confirm(&self, image: &ImageName, tag: &Tag) {
        self.ages.confirmed(image, tag, &*self.clock);
        self.store.touch_tag(image, tag).await;
    }

    /// Notes that the upstream has no such tag any more.
    pub(crate) async fn forget_tag(&self, image: &ImageName, tag: &Tag, held: &Digest) {
        tracing::info!(%image, %tag, "the tag is gone at its registry: it is answered no longer");
        if let Err(error) = self.store.tag_is_gone(image, tag, held).await {
            tracing::warn!(%image, %tag, %error, "that a tag is gone could not be noted");
        }
    }

    /// Sends a probe to each upstream that this image is asked of and that is left alone, if it is time. Nobody waits for it.
    pub(crate) fn probe_if_due(&self, image: &ImageName) {
        let asked = [self.upstream_for(image), self.origin(&image.registry)];
        for upstream in asked.into_iter().flatten().filter(Upstream::take_probe) {
            self.tasks.spawn("probe", |token| async move {
                tokio::select! {
                    () = upstream.probe() => {}
                    () = token.cancelled() => {}
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_apart() {
        let counts = Counts::default();
        for (times, why) in (1..).zip(REASONS) {
            for _ in 0..times {
                counts.stale(why);
            }
        }
        counts.unasked();
        let expected = TagAnswers {
            unasked: 1,
            outage: 1,
            rate_limit: 2,
            deadline: 3,
            upstream: 4,
            offline: 5,
            resting: 6,
        };
        assert_eq!(counts.read(), expected);
    }
}
