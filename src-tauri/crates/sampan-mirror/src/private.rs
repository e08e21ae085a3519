//! Private images: by whose permission they are fetched with a login, and who may have them (SECURITY.md R84 to R86).
//!
//! By default nobody: what a registry does not show to everybody is answered 404, so that Docker asks with its own login. What a
//! rule of a person's is for is asked for with the login it names. All of it counts as private, also what everybody could see:
//! it is answered to this machine alone, and only while the registry said within the last quarter of an hour that the login
//! opens it. A registry that cannot say so opens nothing: then the answer is 503, whatever is on disk.
//!
//! That a repository is private is written down before anything is fetched for it, and stays when the rule goes. From then on
//! nothing of it is answered, until its registry shows it to somebody without a login.

mod pattern;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sampan_oci::{ImageName, Millis, Reference};
use sampan_store::Store;
use sampan_upstream::{LoginOptions, LoginTrouble, Upstream, UpstreamError};
use tokio::sync::OnceCell;

use crate::error::PullError;
use crate::mirror::{Inner, Mirror};

pub use pattern::{InvalidPrivatePattern, PrivatePattern};

/// How long a registry's word that a login opens a repository is good (SECURITY.md R86).
const OPEN_FOR: Duration = Duration::from_mins(15);
/// How long a client waits for that word.
const ASK_WITHIN: Duration = Duration::from_secs(15);
/// Repositories that turned out to be private, remembered to be shown.
const SEEN_MAX: usize = 20;
/// Repositories whose last check is remembered; beyond it all are forgotten, which costs questions.
const CHECKED_MAX: usize = 4096;

/// A person's permission to use a login for some repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateRule {
    /// Which ones.
    pub pattern: PrivatePattern,
    /// With which login.
    pub login: LoginOptions,
}

/// Why a private image is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    /// Its registry does not show it without a login, and no rule lets Sampan use one.
    #[error("its registry does not show it without a login, and Sampan may not use one for it")]
    NotAllowed,
    /// The login cannot be used.
    #[error(transparent)]
    Login(LoginTrouble),
    /// The login does not open it, or it is not there.
    #[error("its registry does not show it to this login, or does not have it")]
    NoAccess,
    /// The mirror is asked at an address that other machines reach.
    #[error("private images are answered to this machine alone, and others reach this address")]
    NotHere,
    /// The registry could not be asked whether the login still opens it.
    #[error("its registry cannot be asked whether the login still opens it")]
    Unasked,
}

/// A repository that turned out to be private and was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateSeen {
    /// Which one.
    pub image: ImageName,
    /// When, last.
    pub at: Millis,
    /// Why it was not answered.
    pub why: Barred,
}

/// What a registry last said about a repository that a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateCheck {
    /// Which one.
    pub image: ImageName,
    /// When.
    pub at: Millis,
    /// That the login opens it, or why it does not.
    pub result: Result<(), Barred>,
}

/// What is asked for: the registry is asked about that very thing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sought<'a> {
    Manifest(&'a Reference),
    Blob,
    Lists,
}

/// A rule in force.
#[derive(Debug)]
struct InForce {
    rule: PrivateRule,
    /// Its registry, with the login.
    upstream: Upstream,
    checked: Mutex<Option<PrivateCheck>>,
}

/// Everything the mirror knows of private images.
#[derive(Debug, Default)]
pub(crate) struct Private {
    /// The closest pattern first.
    rules: Mutex<Arc<Vec<Arc<InForce>>>>,
    /// The repositories that are marked, as the store has them.
    marked: OnceCell<Mutex<HashSet<ImageName>>>,
    /// When a login was last said to open a repository, by both clocks.
    opened: Mutex<HashMap<ImageName, (Instant, Millis)>>,
    seen: Mutex<VecDeque<PrivateSeen>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Private {
    fn rule(&self, image: &ImageName) -> Option<Arc<InForce>> {
        let rules = locked(&self.rules).clone();
        rules.iter().find(|in_force| in_force.rule.pattern.matches(image)).cloned()
    }

    /// Whether no rule is for it and no mark is on it.
    fn is_known_public(&self, image: &ImageName) -> bool {
        let marked = self.marked.get();
        marked.is_some_and(|marked| !locked(marked).contains(image)) && self.rule(image).is_none()
    }

    /// Whether a mark is on it, as far as the marks were read: nothing is asked about an image before they are.
    fn is_marked(&self, image: &ImageName) -> bool {
        self.marked.get().is_some_and(|marked| locked(marked).contains(image))
    }

    async fn marked(&self, store: &Store) -> Result<&Mutex<HashSet<ImageName>>, PullError> {
        let read = || async {
            let marked = store.private_images().await?;
            Ok(Mutex::new(marked.into_iter().collect()))
        };
        self.marked.get_or_try_init(read).await
    }

    /// Whether the registry's word is still good. No step of the wall clock makes it last longer; sleep counts.
    fn is_open(&self, image: &ImageName, now: Millis) -> bool {
        let opened = locked(&self.opened);
        opened.get(image).is_some_and(|(lived, wall)| {
            let passed = now.0.checked_sub(wall.0).and_then(|millis| u64::try_from(millis).ok());
            lived.elapsed() < OPEN_FOR
                && passed.is_some_and(|millis| Duration::from_millis(millis) < OPEN_FOR)
        })
    }

    fn open(&self, image: &ImageName, now: Millis) {
        let mut opened = locked(&self.opened);
        if opened.len() >= CHECKED_MAX {
            opened.clear();
        }
        opened.insert(image.clone(), (Instant::now(), now));
    }

    fn shut(&self, image: &ImageName) {
        locked(&self.opened).remove(image);
    }

    fn note(&self, image: &ImageName, why: Barred, at: Millis) {
        let mut seen = locked(&self.seen);
        seen.retain(|known| known.image != *image);
        seen.truncate(SEEN_MAX - 1);
        seen.push_front(PrivateSeen { image: image.clone(), at, why });
    }

    fn answered(&self, image: &ImageName) {
        locked(&self.seen).retain(|known| known.image != *image);
    }
}

impl Mirror {
    /// Uses logins by these rules, and by no others, from now on. A rule that stays as it was keeps what its login opened; the
    /// login of one that goes is used no more, also by downloads under way. Rules about registries that are not mirrored
    /// do nothing.
    pub fn set_private(&self, rules: Vec<PrivateRule>) {
        let private = &self.inner.private;
        let before = locked(&private.rules).clone();
        let mut after: Vec<Arc<InForce>> = Vec::new();
        for rule in rules {
            let Some(origin) = self.inner.origin(rule.pattern.registry()) else { continue };
            let same = |old: &&Arc<InForce>| old.rule == rule && old.upstream.url() == origin.url();
            if let Some(same) = before.iter().find(same) {
                after.push(same.clone());
            } else {
                let upstream = origin.with_login(rule.login.clone());
                after.push(Arc::new(InForce { rule, upstream, checked: Mutex::default() }));
            }
        }
        after.sort_by_key(|in_force| std::cmp::Reverse(in_force.rule.pattern.closeness()));
        for gone in before.iter().filter(|old| !after.iter().any(|new| Arc::ptr_eq(old, new))) {
            gone.upstream.withdraw_login();
        }
        *locked(&private.rules) = Arc::new(after);
        // Which login opened what is another question now.
        locked(&private.opened).clear();
        locked(&private.seen).clear();
    }

    /// Lets logins that failed a moment ago be tried at once: a person changed something.
    pub async fn try_logins_again(&self) {
        let rules = locked(&self.inner.private.rules).clone();
        for in_force in rules.iter() {
            in_force.upstream.try_login_again().await;
        }
        locked(&self.inner.private.opened).clear();
        locked(&self.inner.private.seen).clear();
    }

    /// The repositories that lately turned out to be private and were not answered, newest first.
    pub fn private_seen(&self) -> Vec<PrivateSeen> {
        locked(&self.inner.private.seen).iter().cloned().collect()
    }

    /// What a registry last said about a repository that this rule is for; `None`: it was not asked yet.
    pub fn private_check(&self, pattern: &PrivatePattern) -> Option<PrivateCheck> {
        let rules = locked(&self.inner.private.rules).clone();
        let in_force = rules.iter().find(|in_force| in_force.rule.pattern == *pattern)?;
        locked(&in_force.checked).clone()
    }
}

impl Inner {
    /// Whom to ask for an image: its registry, with a login where a rule says so.
    pub(crate) fn upstream_for(&self, image: &ImageName) -> Option<Upstream> {
        match self.private_upstream(image) {
            Some(with_login) => Some(with_login),
            // A rule that went while something was fetched by it: the name is nobody else's business.
            None if self.private.is_marked(image) => None,
            None => self.upstream(&image.registry),
        }
    }

    /// The registry with a login, where a rule says so.
    pub(crate) fn private_upstream(&self, image: &ImageName) -> Option<Upstream> {
        self.private.rule(image).map(|in_force| in_force.upstream.clone())
    }

    /// Why nobody who asks at this address gets this image, if that is so: a rule makes it private, and others reach the
    /// address.
    pub(crate) fn bars_here(&self, listen: std::net::SocketAddr, image: &ImageName) -> Option<PullError> {
        if listen.ip().is_loopback() || self.private.rule(image).is_none() {
            return None;
        }
        self.private.note(image, Barred::NotHere, self.clock.now());
        Some(PullError::Private { image: image.clone(), why: Barred::NotHere })
    }

    /// Lets a question about an image pass, unless it is private and the one who asks may not have it. Before anything that
    /// is held is looked at.
    pub(crate) async fn admit(&self, image: &ImageName, asked: Sought<'_>) -> Result<(), PullError> {
        if self.private.is_known_public(image) { Ok(()) } else { Box::pin(self.examine(image, asked)).await }
    }

    async fn examine(&self, image: &ImageName, asked: Sought<'_>) -> Result<(), PullError> {
        let in_force = self.private.rule(image);
        let marked = self.private.marked(&self.store).await?;
        let is_marked = locked(marked).contains(image);
        if let Some(in_force) = in_force {
            return self.examine_login(image, asked, &in_force, marked).await;
        }
        if !is_marked {
            return Ok(());
        }
        // Nobody may use a login for it any more. Perhaps everybody may see it by now.
        let upstream = self.origin(&image.registry);
        let Some(upstream) = upstream else { return Err(self.barred(image, Barred::NotAllowed)) };
        match word(&upstream, image, asked).await {
            Ok(()) => {
                self.store.mark_private(image, false).await?;
                locked(marked).remove(image);
                self.private.answered(image);
                Ok(())
            }
            Err(UpstreamError::NotFound | UpstreamError::Denied) => {
                Err(self.barred(image, Barred::NotAllowed))
            }
            Err(error) => Err(PullError::upstream(image, error)),
        }
    }

    async fn examine_login(
        &self,
        image: &ImageName,
        asked: Sought<'_>,
        in_force: &InForce,
        marked: &Mutex<HashSet<ImageName>>,
    ) -> Result<(), PullError> {
        let now = self.clock.now();
        let is_marked = locked(marked).contains(image);
        if is_marked && self.private.is_open(image, now) {
            return Ok(());
        }
        let told = |result| {
            *locked(&in_force.checked) = Some(PrivateCheck { image: image.clone(), at: now, result });
        };
        let why = match word(&in_force.upstream, image, asked).await {
            Ok(()) => {
                if !is_marked {
                    // Before anything of it is kept.
                    self.store.mark_private(image, true).await?;
                    locked(marked).insert(image.clone());
                }
                self.private.open(image, now);
                self.private.answered(image);
                told(Ok(()));
                return Ok(());
            }
            Err(UpstreamError::Login(trouble)) => Barred::Login(trouble),
            // What clients ask of every image, and few have, says nothing.
            Err(UpstreamError::NotFound) if asked.is_a_guess() => {
                return Err(PullError::Private { image: image.clone(), why: Barred::NoAccess });
            }
            Err(UpstreamError::NotFound | UpstreamError::Denied) => Barred::NoAccess,
            Err(error) => {
                told(Err(Barred::Unasked));
                return Err(PullError::upstream(image, error));
            }
        };
        tracing::info!(%image, %why, "a private image is not answered");
        self.private.shut(image);
        told(Err(why.clone()));
        Err(self.barred(image, why))
    }

    fn barred(&self, image: &ImageName, why: Barred) -> PullError {
        self.private.note(image, why.clone(), self.clock.now());
        PullError::Private { image: image.clone(), why }
    }

    /// Takes note of a registry that does not show an image to everybody.
    pub(crate) fn note_refusal(&self, image: &ImageName, error: &UpstreamError) {
        let why = if let UpstreamError::Login(trouble) = error {
            Barred::Login(trouble.clone())
        } else if !matches!(error, UpstreamError::Denied) {
            return;
        } else if self.private.rule(image).is_some() {
            Barred::NoAccess
        } else {
            Barred::NotAllowed
        };
        self.private.shut(image);
        self.private.note(image, why, self.clock.now());
    }
}

impl Sought<'_> {
    /// Whether clients ask for it without anybody having said that it is there: the tag of referrers, of signatures.
    fn is_a_guess(self) -> bool {
        match self {
            Self::Manifest(Reference::Tag(tag)) => {
                tag.as_str().starts_with("sha256-") || tag.as_str().starts_with("sha512-")
            }
            Self::Lists => true,
            Self::Manifest(Reference::Digest(_)) | Self::Blob => false,
        }
    }
}

/// Asks a registry whether it shows this to us.
async fn word(upstream: &Upstream, image: &ImageName, asked: Sought<'_>) -> Result<(), UpstreamError> {
    let repository = &image.repository;
    let question = async {
        // Nobody else asks the one with a login whether it is there again.
        if upstream.take_probe() {
            upstream.probe().await;
        }
        let named = match asked {
            Sought::Manifest(reference) => upstream.head_manifest(repository, reference).await,
            Sought::Blob | Sought::Lists => Ok(None),
        };
        match named {
            Ok(Some(_)) => Ok(()),
            // A 200 alone may be anybody's page, and what is missing may be a tag that never was: a list of tags says whether
            // the repository is shown.
            Ok(None) | Err(UpstreamError::NotFound) => {
                upstream.tags(repository, Some(1), None).await.map(drop)
            }
            Err(error) => Err(error),
        }
    };
    tokio::time::timeout(ASK_WITHIN, question).await.unwrap_or(Err(UpstreamError::Timeout))
}
