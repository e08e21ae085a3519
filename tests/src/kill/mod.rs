//! Kills Sampan at any moment and looks at what is left (SECURITY.md 5.3, R61, R69).
//!
//! Each round has one kill: in the middle of a start, under load, or in the middle of an end. Then the disk is looked at
//! without Sampan, then Sampan is started again on the same folders and held against what its clients had been given. The
//! next round goes on with the same folders, so that damage would add up; every tenth one begins with new ones. In every
//! second ten rounds room is short: a quota of which a pinned image takes most, and a fifth of the others fits into the
//! rest.
//! A kill keeps what the system had not written to the disk yet: what a power cut loses is another test's matter.

mod disk;
mod layout;
mod ledger;
mod load;
mod oracle;
mod person;
mod points;
mod promises;
mod trace;
mod victim;
pub(crate) mod wire;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sampan_app::api::ClearSelection;

use crate::scratch;
use crate::torture::{Dice, Torture};
use disk::{Hashed, When};
use load::{Load, Shared};
pub use points::{PointFigures, points};
use promises::Promises;
use victim::Victim;
use world::World;

/// So many rounds use the same folders.
const ROUNDS_EACH: u32 = 10;
/// How long a start after a kill may take (SECURITY.md G1).
const START_MOST: Duration = Duration::from_secs(2);
/// The latest moment of a kill: after the process was started, after the load began, after SIGTERM.
const IN_START: Duration = Duration::from_millis(150);
const IN_WORK: Duration = Duration::from_millis(400);
const IN_END: Duration = Duration::from_millis(60);
/// The smallest quota there is ([`sampan_app::api::QUOTA_MIN`]).
const TIGHT: &str = "quota = \"100 MB\"\n";
/// Images cleared before each round, so that there is something to fetch again.
const CLEARED: u64 = 8;

/// What does not hold.
#[derive(Debug)]
struct Broken {
    check: &'static str,
    why: String,
}

fn broken<T>(check: &'static str, why: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { check, why: why.into() })
}

/// What a run saw.
#[derive(Debug, Default)]
pub struct Figures {
    /// Kills in the middle of a start, under load, and in the middle of an end.
    pub kills: [u32; 3],
    /// How long the starts after them took, shortest first.
    pub starts: Vec<Duration>,
    /// Things that clients had been given, found again without the upstream.
    pub promises: u64,
    /// Published files, ledgers with claims, and unfinished files found after kills.
    pub published: u64,
    /// Partial downloads found with claims after kills.
    pub partials: u64,
    /// Partial downloads that were gone on with.
    pub resumed: u64,
    /// The bytes of them that did not cross the link again.
    pub resumed_bytes: u64,
    /// The most bytes that crossed it again all the same.
    pub crossed_again: u64,
    /// How often the cache made room.
    pub evictions: u64,
    /// What persons did meanwhile, and how often: `pinned`, `imported`, `undone`; and `stayed`: pinned files found again.
    pub done: BTreeMap<&'static str, u64>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [start, work, end] = self.kills;
        let at = |part: usize| self.starts.get(self.starts.len() * part / 100).copied().unwrap_or_default();
        write!(
            f,
            "{} kills: {start} in a start, {work} under load, {end} in an end\n\
             starts after them: half within {:?}, 99 of 100 within {:?}, all within {:?}\n\
             {} published files hashed, {} promises kept, {} partial downloads found, {} gone on with \
             ({} bytes kept, at most {} crossed again)\n\
             room made {} times; meanwhile {:?}",
            start + work + end,
            at(50),
            at(99),
            self.starts.last().copied().unwrap_or_default(),
            self.published,
            self.promises,
            self.partials,
            self.resumed,
            self.resumed_bytes,
            self.crossed_again,
            self.evictions,
            self.done,
        )
    }
}

/// When a round's kill comes.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after the process was started.
    Start(Duration),
    /// So long after the load began.
    Work(Duration),
    /// So long after SIGTERM, which came so long after the load began.
    End { load: Duration, after: Duration },
}

impl Moment {
    fn choose(dice: &mut Dice) -> Self {
        match dice.below(100) {
            0..=17 => Self::Start(dice.time(IN_START)),
            18..=81 => Self::Work(dice.time(IN_WORK)),
            _ => Self::End { load: dice.time(IN_WORK), after: dice.time(IN_END) },
        }
    }
}

/// The folders of some rounds. A failure keeps them.
struct Folders {
    folder: tempfile::TempDir,
    seed: u64,
    round: u32,
}

impl Drop for Folders {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            let (seed, round, path) = (self.seed, self.round, self.folder.path().display());
            eprintln!("seed {seed}, round {round}: what was left is kept in {path}");
        }
    }
}

/// Kills Sampan as often as asked, and looks each time.
///
/// # Panics
/// If anything does not hold: the message names seed, round, check and file; the folders stay.
pub async fn kills(asked: Torture) -> Figures {
    let Torture { points, seed } = asked;
    eprintln!("seed {seed}, {points} kills");
    let dice = Dice::new(seed);
    let world = Arc::new(World::make(dice.branch(0)).await);
    let (promises, mut figures) = (Arc::new(Promises::default()), Figures::default());
    let mut first = 0;
    while first < points {
        let mut folders = Folders { folder: scratch(), seed, round: first };
        let tight = first / ROUNDS_EACH % 2 == 1;
        let mut victim = Victim::start(folders.folder.path(), &world, if tight { TIGHT } else { "" });
        victim.ready();
        promises.forget();
        let mut hashed = Hashed::default();
        let last = (first + ROUNDS_EACH).min(points) - 1;
        for round in first..=last {
            folders.round = round;
            let mut dice = dice.branch(u64::from(round) + 1);
            let moment = Moment::choose(&mut dice);
            let mut stage = Stage {
                world: &world,
                promises: &promises,
                victim: &mut victim,
                figures: &mut figures,
                hashed: &mut hashed,
                tight,
            };
            if round == first {
                stage.prepare(&mut dice).await;
            }
            if let Err(Broken { check, why }) = stage.round(round, moment, &mut dice, round == last).await {
                let kept = folders.folder.path().display();
                panic!("seed {seed}, round {round}, {moment:?}: {check}: {why}\nkept: {kept}");
            }
        }
        first = last + 1;
    }
    figures.starts.sort_unstable();
    figures.done = promises.done();
    figures
}

/// What one round is played with.
struct Stage<'a> {
    world: &'a Arc<World>,
    promises: &'a Arc<Promises>,
    victim: &'a mut Victim,
    figures: &'a mut Figures,
    hashed: &'a mut Hashed,
    tight: bool,
}

impl Stage<'_> {
    /// Where room is to be short: puts in what takes it, and pins that.
    async fn prepare(&mut self, dice: &mut Dice) {
        if !self.tight {
            return;
        }
        let at = self.world.ballast();
        self.victim.kill();
        layout::lay_ballast(&self.victim.cache_dir(), &self.world.repositories[at]);
        self.victim.restart();
        let shared = self.shared();
        shared.take_tag(at).await.expect("an image is served");
        person::pin(&shared, at).await.expect("what is held can be pinned");
        // And nearly all that is left: from now on whatever comes makes something else go.
        self.world.hold_back(false);
        let slow = World::any_slow(dice);
        points::pull(&shared, dice, slow).await.expect("an image is served");
        self.world.hold_back(true);
    }

    async fn round(&mut self, round: u32, moment: Moment, dice: &mut Dice, last: bool) -> Result<(), Broken> {
        self.promises.begin_round(round);
        self.make_room(dice).await?;
        let noted = oracle::notes_what_stays(&self.shared(), &self.victim.cache_dir()).await;
        noted.map_err(|stop| oracle::stopped(stop, "a list"))?;
        match moment {
            Moment::Start(after) => {
                self.figures.kills[0] += 1;
                self.victim.kill();
                self.victim.start_again();
                tokio::time::sleep(after).await;
                self.victim.kill();
            }
            Moment::Work(after) => {
                self.figures.kills[1] += 1;
                let load = Load::start(self.shared(), dice);
                tokio::time::sleep(after).await;
                load.end();
                self.victim.kill();
                load.settle().await?;
            }
            Moment::End { load: working, after } => {
                self.figures.kills[2] += 1;
                let load = Load::start(self.shared(), dice);
                tokio::time::sleep(working).await;
                load.end();
                self.victim.terminate();
                tokio::time::sleep(after).await;
                self.victim.kill();
                load.settle().await?;
            }
        }
        self.world.quiet().await;
        self.look(dice, last).await
    }

    fn shared(&self) -> Shared {
        let (address, state) = (self.victim.address(), self.victim.state_dir());
        Shared::new(self.world, self.promises, address, state, self.tight)
    }

    /// Clears some images, so that there is something to fetch.
    async fn make_room(&self, dice: &mut Dice) -> Result<(), Broken> {
        let shared = self.shared();
        // A cache that is full makes room by itself.
        for _ in 0..if self.tight { 1 } else { CLEARED } {
            let repository = &self.world.repositories[self.world.any(dice)];
            let selection = ClearSelection::Images { names: vec![repository.full_name()] };
            let cleared = person::clear(&shared, selection, repository.reach()).await;
            cleared
                .map_err(|stop| stop.0.unwrap_or(Broken { check: "clearing ends", why: String::new() }))?;
        }
        Ok(())
    }

    /// The oracle: first the disk, then the Sampan that is started again on it.
    async fn look(&mut self, dice: &mut Dice, last: bool) -> Result<(), Broken> {
        let cache = self.victim.cache_dir();
        self.figures.evictions += self.victim.told("the cache made room");
        if last {
            self.hashed.forget();
        }
        let left = disk::look(&cache, self.world, self.hashed, When::Killed)?;
        oracle::kept_and_bounded(&self.shared(), &left)?;
        self.figures.published += left.blobs.len() as u64;
        self.figures.partials += left.partials.len() as u64;
        let took = self.victim.restart();
        self.figures.starts.push(took);
        if took > START_MOST {
            return broken("a start after a kill is quick", format!("{took:?}"));
        }
        let tree = disk::look(&cache, self.world, self.hashed, When::Started)?;
        if tree.blobs != left.blobs {
            return broken("a start changes no published file", differences(&left, &tree, &cache));
        }
        if tree.partials != left.partials {
            let why = format!("{:?}, after the start {:?}", left.partials, tree.partials);
            return broken("a start keeps what can be gone on with", why);
        }
        let shared = self.shared();
        oracle::says_what_is_there(&shared, &tree).await?;
        oracle::keeps_promises(&shared, dice, &tree, last, self.figures).await?;
        oracle::goes_on(&shared, dice, &tree, self.figures).await?;
        oracle::serves(&shared, dice).await?;
        if last || dice.percent(20) {
            self.victim.refuses_a_second()?;
        }
        Ok(())
    }
}

fn differences(before: &disk::Tree, after: &disk::Tree, cache: &Path) -> String {
    let gone = before.blobs.keys().filter(|digest| !after.blobs.contains_key(*digest));
    format!("{}: gone: {:?}", cache.display(), gone.collect::<Vec<_>>())
}
