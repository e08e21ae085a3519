//! Ends Sampan right before its calls that change the cache, a sample of each by name: crash points (SECURITY.md R61).
//!
//! One run is a start on a cache that is nearly full, or on one with room for everything, all that a cache can be asked for,
//! one thing after the other, and an end by SIGTERM. First nobody interferes, and all calls are named and counted. Then one
//! of them is the last, and the same is asked of what is left as after any kill. Half of the calls come where room is short,
//! so that evictions are met; half where it is not: there nothing that was given may be missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sampan_app::api::{ClearSelection, Command};

use super::load::{Shared, Stop};
use super::promises::Part;
use super::trace::{Kind, Point, Seen, Watcher, tracer};
use super::{Broken, Figures, Folders, Hashed, Promises, Stage, TIGHT, Victim, World, oracle, person, wire};
use crate::scratch;
use crate::torture::Dice;

/// So many runs use the same folders.
const RUNS_EACH: u32 = 30;
/// Of the calls of one name: so many of the first ones, the last one, and so many in between.
const FIRST: usize = 6;
const BETWEEN: usize = 4;
/// How long an end may take.
const END_WITHIN: Duration = Duration::from_secs(10);
/// Images pulled in each run.
const PULLED: usize = 4;

/// What the runs saw.
#[derive(Debug, Default)]
pub struct PointFigures {
    /// Calls with different names.
    pub names: usize,
    /// Chosen calls.
    pub points: usize,
    /// Kills, and those of them where the call was not made any more.
    pub kills: u32,
    /// Of those.
    pub exact: u32,
    /// Runs that came to their end without the chosen call.
    pub passed: u32,
    /// What was found afterwards.
    pub found: Figures,
}

impl fmt::Display for PointFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} named calls, {} chosen points, {} kills ({} right before the call), {} runs without it\n\
             {} published files, {} promises kept, {:?}",
            self.names,
            self.points,
            self.kills,
            self.exact,
            self.passed,
            self.found.published,
            self.found.promises,
            self.found.done,
        )
    }
}

/// Ends Sampan `times` times at each chosen point; with `most`, at so many of them, chosen from the seed.
///
/// # Panics
/// If anything does not hold: the message names seed, run, point, check and file; the folders stay.
pub async fn points(times: u32, seed: u64, most: Option<usize>) -> PointFigures {
    eprintln!("seed {seed}, {times} times");
    let dice = Dice::new(seed);
    let world = Arc::new(World::make(dice.branch(0)).await);
    let mut bed = Bed {
        promises: Arc::new(Promises::default()),
        figures: PointFigures::default(),
        place: None,
        world,
        seed,
        run: 0,
        tight: true,
    };
    let calls = bed.run(&dice, None).await.calls;
    bed.moves_to(false);
    let calls = [calls, bed.run(&dice, None).await.calls];
    bed.figures.names = calls.iter().flat_map(BTreeMap::keys).collect::<BTreeSet<_>>().len();
    for (calls, room) in calls.iter().zip(["short", "plenty"]) {
        for (label, count) in calls {
            eprintln!("room {room}: {count:>5} times {label}");
        }
    }
    let mut points = halves(&calls, &mut dice.branch(1));
    if let Some(most) = most {
        let mut dice = dice.branch(2);
        // The more of one kind there are, the more of them go.
        while points[0].len() + points[1].len() > most {
            let more = usize::from(points[1].len() > points[0].len());
            let at = dice.place(points[more].len());
            points[more].swap_remove(at);
        }
    }
    bed.figures.points = points[0].len() + points[1].len();
    let [tight, roomy] = points;
    for (points, is_tight) in [(roomy, false), (tight, true)] {
        bed.moves_to(is_tight);
        for point in points.iter().flat_map(|point| std::iter::repeat_n(point, times as usize)) {
            let Seen { killed, exact, .. } = bed.run(&dice, Some(point)).await;
            bed.figures.kills += u32::from(killed);
            bed.figures.exact += u32::from(exact);
            bed.figures.passed += u32::from(!killed);
        }
    }
    bed.figures.found.done = bed.promises.done();
    bed.figures
}

/// Of the calls where room is short and of those where it is not, some of each name: in turns where both have it, all where
/// only one has.
fn halves(calls: &[BTreeMap<String, usize>; 2], dice: &mut Dice) -> [Vec<Point>; 2] {
    let mut turn = 0;
    [0, 1].map(|half| {
        let mut points = choose(&calls[half], dice);
        points.retain(|point| {
            turn += 1;
            !calls[1 - half].contains_key(&point.label) || turn % 2 == 0
        });
        points
    })
}

/// Some calls of each name.
fn choose(calls: &BTreeMap<String, usize>, dice: &mut Dice) -> Vec<Point> {
    let mut points = BTreeSet::new();
    for (label, &count) in calls {
        let between = (0..BETWEEN).map(|_| dice.place(count) + 1);
        let nths = (1..=FIRST.min(count)).chain([count]).chain(between.collect::<Vec<_>>());
        points.extend(nths.map(|nth| Point { label: label.clone(), nth }));
    }
    points.into_iter().collect()
}

/// Where the runs happen.
struct Bed {
    world: Arc<World>,
    promises: Arc<Promises>,
    figures: PointFigures,
    place: Option<(Victim, Hashed, Folders)>,
    seed: u64,
    run: u32,
    /// Whether room is short.
    tight: bool,
}

impl Bed {
    /// Goes on in folders where room is short, or is not.
    fn moves_to(&mut self, tight: bool) {
        if self.tight != tight {
            (self.tight, self.place) = (tight, None);
        }
    }

    async fn run(&mut self, dice: &Dice, point: Option<&Point>) -> Seen {
        let (run, seed) = (self.run, self.seed);
        self.run += 1;
        if run.is_multiple_of(RUNS_EACH) {
            self.place = None;
        }
        let mut dice = dice.branch(u64::from(run) + 10);
        let fresh = self.place.is_none();
        let (mut victim, mut hashed, mut folders) = self.place.take().unwrap_or_else(|| {
            let folders = Folders { folder: scratch(), seed, round: run };
            let settings = if self.tight { TIGHT } else { "" };
            (Victim::start(folders.folder.path(), &self.world, settings), Hashed::default(), folders)
        });
        folders.round = run;
        let mut stage = Stage {
            world: &self.world,
            promises: &self.promises,
            victim: &mut victim,
            figures: &mut self.figures.found,
            hashed: &mut hashed,
            tight: self.tight,
        };
        if fresh {
            stage.victim.ready();
            self.promises.forget();
            stage.prepare(&mut dice).await;
        }
        let done = end_at(&mut stage, run, point, &mut dice).await;
        let trace = done.unwrap_or_else(|Broken { check, why }| {
            panic!(
                "seed {seed}, run {run}, room short: {}, {point:?}: {check}: {why}\nkept: {}",
                self.tight,
                folders.folder.path().display()
            )
        });
        self.place = Some((victim, hashed, folders));
        trace
    }
}

/// One run, and what it left.
async fn end_at(
    stage: &mut Stage<'_>,
    run: u32,
    point: Option<&Point>,
    dice: &mut Dice,
) -> Result<Seen, Broken> {
    // The run before left one running: it ends in order, or not.
    if dice.percent(60) {
        stage.victim.terminate();
        stage.victim.ends_within(END_WITHIN);
    }
    stage.victim.kill();
    stage.promises.begin_round(run);
    let log = stage.victim.state_dir().with_file_name("strace.log");
    let _ = std::fs::remove_file(&log);
    let kind = point.and_then(|point| Kind::of(&point.label));
    stage.victim.start_under(&tracer(&log, kind));
    let shared = Arc::new(stage.shared());
    let ending = shared.clone();
    let (cache, pid) = (stage.victim.cache_dir(), stage.victim.id());
    let watcher = Watcher::start(log, cache, pid, point.cloned(), move || ending.end());
    let done = if stage.victim.ready_or_gone() { work(stage, &shared, dice).await } else { Ok(()) };
    if done.is_ok() {
        shared.end();
        stage.victim.terminate();
        stage.victim.ends_within(END_WITHIN);
    }
    let seen = watcher.end();
    stage.victim.kill();
    if let Err(Stop(Some(broken))) = done {
        return Err(broken);
    }
    stage.world.quiet().await;
    stage.look(dice, false).await?;
    Ok(seen)
}

/// Everything a cache can be asked for, one thing after the other, until Sampan is gone.
async fn work(stage: &Stage<'_>, shared: &Arc<Shared>, dice: &mut Dice) -> Result<(), Stop> {
    oracle::notes_what_stays(shared, &stage.victim.cache_dir()).await?;
    let world = &stage.world;
    let some: Vec<usize> = (0..PULLED).map(|_| World::any_quick(dice)).collect();
    for &at in &some {
        let repository = &world.repositories[at];
        let selection = ClearSelection::Images { names: vec![repository.full_name()] };
        person::clear(shared, selection, repository.reach()).await?;
    }
    for &at in &some {
        pull(shared, dice, at).await?;
    }
    // It goes on until the end, which cuts it short.
    let slow = World::any_slow(dice);
    let repository = &world.repositories[slow];
    person::clear(shared, ClearSelection::Images { names: vec![repository.full_name()] }, repository.reach())
        .await?;
    shared.take_tag(slow).await?;
    let large = repository.blob(&repository.versions[0].platforms[0].blobs[1]);
    let left = wire::leave_early(&shared.address, &large, 500_000).await;
    left.map_err(|error| shared.failed("an answer ends well", format!("{large}: {error}")))?;
    person::pin(shared, some[0]).await?;
    person::imports(shared, dice).await?;
    person::clears_and_undoes(shared, dice, some[1]).await?;
    shared.call(Command::Scrub { start: true }).await?;
    let another = World::any_quick(dice);
    pull(shared, dice, another).await?;
    // The end of these ten seconds is the end of the run.
    let hidden = &world.repositories[some[2]];
    shared.promises.clear(hidden.reach());
    let selection = ClearSelection::Images { names: vec![hidden.tagged()] };
    shared.call(Command::Clear { selection, immediate: false }).await.map(drop)
}

/// One platform of what the tag points at, whole.
pub(super) async fn pull(shared: &Shared, dice: &mut Dice, at: usize) -> Result<(), Stop> {
    let digest = shared.take_tag(at).await?;
    let versions = &shared.world.repositories[at].versions;
    let Some(version) = versions.iter().find(|version| version.digest == digest) else { return Ok(()) };
    let platform = dice.one(&version.platforms);
    if version.is_index() {
        shared.take((at, platform.digest, Part::Manifest)).await?;
    }
    for blob in &platform.blobs {
        shared.take((at, *blob, Part::Blob)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_come_only_where_room_is_short_are_all_chosen_and_half_of_the_others() {
        let common = ("rename b".to_owned(), 5);
        let evicting = ("unlinkat a".to_owned(), 3);
        let calls = [BTreeMap::from([common.clone(), evicting]), BTreeMap::from([common])];
        let [tight, roomy] = halves(&calls, &mut Dice::new(1));
        let of = |points: &[Point], call: &str| points.iter().filter(|p| p.label.starts_with(call)).count();
        assert_eq!((of(&tight, "unlinkat"), of(&roomy, "unlinkat")), (3, 0));
        assert!(of(&tight, "rename") >= 2 && of(&roomy, "rename") >= 2, "{tight:?}, {roomy:?}");
    }

    #[test]
    fn of_each_call_the_first_the_last_and_some_between_are_chosen() {
        let calls = BTreeMap::from([("fsync a".to_owned(), 40), ("rename b".to_owned(), 1)]);
        let points = choose(&calls, &mut Dice::new(1));
        let nths = |label: &str| {
            let of_label = points.iter().filter(|point| point.label == label);
            of_label.map(|point| point.nth).collect::<Vec<_>>()
        };
        assert_eq!(nths("rename b"), [1]);
        let fsyncs = nths("fsync a");
        assert!(fsyncs.starts_with(&[1, 2, 3, 4, 5, 6]) && fsyncs.ends_with(&[40]), "{fsyncs:?}");
        assert!((7..=11).contains(&fsyncs.len()), "{fsyncs:?}");
    }
}
