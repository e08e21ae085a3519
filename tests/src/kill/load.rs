//! The clients: they pull, leave early, list, move tags, and do what a person does, each by choices of its own, until Sampan
//! is gone.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sampan_app::api::{ApiError, Code, Command, Reply};
use sampan_oci::Digest;
use tokio::task::JoinSet;

use super::person;
use super::promises::{Key, Part, Promises};
use super::victim::answer;
use super::wire::{self, Answer};
use super::world::{Platform, Repository, TAG, World};
use super::{Broken, broken};
use crate::torture::Dice;

/// Clients at once.
pub(super) const CLIENTS: usize = 6;
/// How long a client may go on after Sampan is gone.
const END_WITHIN: Duration = Duration::from_secs(10);

/// What all clients of one round share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) world: Arc<World>,
    pub(super) promises: Arc<Promises>,
    pub(super) address: String,
    pub(super) state_dir: PathBuf,
    /// Whether room is short: then what was given may have made way since.
    pub(super) tight: bool,
    /// Set before Sampan is told to end, or is killed: from then on anything may break off.
    ended: AtomicBool,
    wrong: Mutex<Option<Broken>>,
}

/// The clients of one round.
pub(super) struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

impl Shared {
    pub(super) fn new(
        world: &Arc<World>,
        promises: &Arc<Promises>,
        address: String,
        state_dir: PathBuf,
        tight: bool,
    ) -> Self {
        let (world, promises) = (world.clone(), promises.clone());
        let (ended, wrong) = (AtomicBool::new(false), Mutex::default());
        Self { world, promises, address, state_dir, tight, ended, wrong }
    }

    /// From now on Sampan ends.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    /// What went wrong while Sampan was to work.
    pub(super) fn failed(&self, what: &'static str, why: String) -> Stop {
        Stop(if self.ended.load(Ordering::SeqCst) { None } else { broken::<()>(what, why).err() })
    }

    /// What is wrong whether or not Sampan ends.
    pub(super) fn lied(what: &'static str, why: String) -> Stop {
        Stop(broken::<()>(what, why).err())
    }

    pub(super) async fn call(&self, command: Command) -> Result<Reply, Stop> {
        let asked = format!("{command:?}");
        let refused = self.try_call(command, &[]).await?;
        refused.ok_or_else(|| Self::lied("a running Sampan answers", asked))
    }

    /// Asks for something that may be refused for one of these reasons: `None`.
    pub(super) async fn try_call(&self, command: Command, refused: &[Code]) -> Result<Option<Reply>, Stop> {
        let asked = format!("{command:?}");
        match answer(&self.state_dir, command).await {
            Ok(Reply::Error(ApiError { code, .. })) if refused.contains(&code) => Ok(None),
            Ok(Reply::Error(error)) => {
                Err(self.failed("a running Sampan answers", format!("{asked}: {error:?}")))
            }
            Ok(reply) => Ok(Some(reply)),
            Err(error) => Err(self.failed("a running Sampan answers", format!("{asked}: {error}"))),
        }
    }

    async fn get(&self, path: &str, range: Option<&str>) -> Result<Answer, Stop> {
        let answer = wire::get(&self.address, path, range).await;
        let answer =
            answer.map_err(|error| self.failed("an answer ends well", format!("{path}: {error}")))?;
        let wanted = if range.is_some() { 206 } else { 200 };
        if answer.status == wanted {
            return Ok(answer);
        }
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        Err(self.failed("what upstream has is served", format!("{path}: {}: {text}", answer.status)))
    }

    /// Gets something whole, checks it, and notes the promise that is made by this.
    pub(super) async fn take(&self, key: Key) -> Result<(), Stop> {
        let (at, digest, part) = key;
        let repository = &self.world.repositories[at];
        let path = match part {
            Part::Manifest => repository.manifest(&digest.to_string()),
            Part::Blob => repository.blob(&digest),
        };
        let asked = self.promises.ask();
        let answer = self.get(&path, None).await?;
        if !digest.names(&answer.body) {
            return Err(Self::lied("what is served is what was asked for", path));
        }
        self.promises.given(&asked, key, false);
        Ok(())
    }

    /// Gets the manifest of a repository's tag; returns its digest.
    pub(super) async fn take_tag(&self, at: usize) -> Result<Digest, Stop> {
        let repository = &self.world.repositories[at];
        let path = repository.manifest(TAG);
        let asked = self.promises.ask();
        let answer = self.get(&path, None).await?;
        let digest = Digest::of(&answer.body);
        if repository.versions.iter().all(|version| version.digest != digest) {
            return Err(Self::lied("a tag leads to what upstream once had there", path));
        }
        self.promises.given(&asked, (at, digest, Part::Manifest), true);
        Ok(digest)
    }
}

/// Why a client stops: Sampan ended, or is wrong.
#[derive(Debug)]
pub(super) struct Stop(pub(super) Option<Broken>);

impl Load {
    /// Starts the clients of a round.
    pub(super) fn start(shared: Shared, dice: &Dice) -> Self {
        let shared = Arc::new(shared);
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (shared, dice) = (shared.clone(), dice.branch(100 + number as u64));
            clients.spawn(async move {
                if let Stop(Some(broken)) = act(&shared, number, dice).await {
                    shared.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(broken);
                }
            });
        }
        Self { shared, clients }
    }

    /// From now on Sampan ends.
    pub(super) fn end(&self) {
        self.shared.end();
    }

    /// Waits for the clients, after Sampan is gone.
    pub(super) async fn settle(mut self) -> Result<(), Broken> {
        let all = async { while self.clients.join_next().await.is_some() {} };
        if tokio::time::timeout(END_WITHIN, all).await.is_err() {
            return broken("connections end with their process", format!("after {END_WITHIN:?}"));
        }
        let wrong = self.shared.wrong.lock().unwrap_or_else(PoisonError::into_inner).take();
        wrong.map_or(Ok(()), Err)
    }
}

/// One thing after the other until something stops it.
async fn act(shared: &Shared, number: usize, mut dice: Dice) -> Stop {
    loop {
        let at = shared.world.any(&mut dice);
        let done = match dice.below(100) {
            0..=8 => person::clears(shared, &mut dice, at).await,
            9..=12 => person::clears_and_undoes(shared, &mut dice, at).await,
            13..=19 => {
                shared.promises.moves(at);
                shared.world.move_tag(at, dice.place(3));
                Ok(())
            }
            20..=21 => shared.call(Command::Images).await.map(drop),
            22..=23 => shared.call(Command::Snapshot).await.map(drop),
            24..=27 => person::pins(shared, &mut dice, number).await,
            28..=30 => person::imports(shared, &mut dice).await,
            31 => shared.call(Command::Scrub { start: dice.percent(80) }).await.map(drop),
            _ => pull(shared, &mut dice, at).await,
        };
        if let Err(stop) = done {
            return stop;
        }
        // Moving a tag waits for nobody: the others have their turn too.
        tokio::task::yield_now().await;
    }
}

async fn pull(shared: &Shared, dice: &mut Dice, at: usize) -> Result<(), Stop> {
    let repository = &shared.world.repositories[at];
    let digest = if dice.percent(60) {
        shared.take_tag(at).await?
    } else {
        let digest = dice.one(&repository.versions).digest;
        shared.take((at, digest, Part::Manifest)).await?;
        digest
    };
    let Some(version) = repository.versions.iter().find(|version| version.digest == digest) else {
        return Ok(());
    };
    let platform = dice.one(&version.platforms);
    if version.is_index() {
        shared.take((at, platform.digest, Part::Manifest)).await?;
    }
    blobs(shared, dice, at, repository, platform).await
}

/// The blobs of a platform: most of them whole, some by a range, some not to their end.
async fn blobs(
    shared: &Shared,
    dice: &mut Dice,
    at: usize,
    repository: &Repository,
    platform: &Platform,
) -> Result<(), Stop> {
    for digest in &platform.blobs {
        let (path, size) = (repository.blob(digest), shared.world.content[digest].len());
        match dice.below(100) {
            0..=9 => {}
            10..=17 if size > 1 => {
                let (start, end) = (dice.place(size), dice.place(size));
                let (start, end) = (start.min(end), start.max(end) + 1);
                let answer = shared.get(&path, Some(&format!("bytes={start}-{}", end - 1))).await?;
                if answer.body != shared.world.content[digest][start..end] {
                    let why = format!("{path}, bytes {start}..{end}");
                    return Err(Shared::lied("what is served is what was asked for", why));
                }
            }
            18..=23 => {
                let left = wire::leave_early(&shared.address, &path, dice.place(size)).await;
                left.map_err(|error| shared.failed("an answer ends well", format!("{path}: {error}")))?;
            }
            _ => shared.take((at, *digest, Part::Blob)).await?,
        }
    }
    Ok(())
}
