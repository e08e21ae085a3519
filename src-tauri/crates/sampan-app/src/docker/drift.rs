//! Notices when somebody else changes what Sampan set up. What a person left as it is stays quiet until the files
//! change again, over restarts too.
//!
//! Between looks only the files' own times and sizes are read; Docker is asked when one of those moved, and at most
//! every ten minutes otherwise.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sampan_docker::Engine;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::api::{ApiError, Code, DockerDrift};
use crate::app::Inner;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// After how many looks Docker is asked even though no file moved: it may list other mirrors all the same.
const ASK_EVERY: u32 = 20;

const FILE: &str = "docker-drift.json";

/// What is kept of a difference that was noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The state of the files ([`sampan_docker::mark`]).
    mark: String,
    /// When it was noticed first.
    since: i64,
    /// Whether a person left it as it is.
    left: bool,
}

/// What has been noticed.
#[derive(Debug)]
pub(crate) struct Watch {
    file: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    record: Option<Record>,
    shown: Option<DockerDrift>,
    /// Whether the engine asked Sampan when it last answered.
    set_up: bool,
}

impl Watch {
    /// Reads what an earlier run noticed. Without it everything is new.
    pub(crate) fn open(state_dir: &Path) -> Self {
        let file = state_dir.join(FILE);
        let record = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { file, seen: Mutex::new(Seen { record, ..Seen::default() }) }
    }

    /// What is to be shown now.
    pub(crate) fn shown(&self) -> Option<DockerDrift> {
        self.seen().shown.clone()
    }

    /// Whether the engine asked Sampan when it last answered.
    pub(crate) fn is_set_up(&self) -> bool {
        self.seen().set_up
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, record: Option<Record>, shown: Option<DockerDrift>) {
        let mut seen = self.seen();
        if seen.record != record
            && let Err(error) = self.save(record.as_ref())
        {
            tracing::warn!(%error, "what was noticed of Docker's set-up could not be written down");
        }
        (seen.record, seen.shown) = (record, shown);
    }

    fn save(&self, record: Option<&Record>) -> std::io::Result<()> {
        let Some(record) = record else {
            return match std::fs::remove_file(&self.file) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
        };
        let folder = self.file.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
        let temp = tempfile::Builder::new().prefix(".docker-drift-").tempfile_in(folder)?;
        serde_json::to_writer(&temp, record)?;
        temp.persist(&self.file).map_err(|error| error.error)?;
        Ok(())
    }
}

/// What to keep and what to show, from what was kept, the files' state and the differences there are. Pure.
fn settled(
    known: Option<Record>,
    mark: String,
    what: Vec<String>,
    now: i64,
) -> (Option<Record>, Option<DockerDrift>) {
    if what.is_empty() {
        return (None, None);
    }
    let since = match known {
        Some(left) if left.left && left.mark == mark => return (Some(left), None),
        // Changed once more: noticed anew.
        Some(Record { left: true, .. }) | None => now,
        Some(Record { since, .. }) => since,
    };
    (Some(Record { mark, since, left: false }), Some(DockerDrift { what, since }))
}

/// Compares `engine`, as it was just found, with what Sampan set up there.
pub(super) fn judge(app: &Inner, engine: &Engine) -> Option<DockerDrift> {
    let port = app.config.listen.port();
    // One that does not answer is not changed: what was seen last is what is known.
    if let Some((what, mark)) = differences(engine, port) {
        app.drift.seen().set_up = engine.enabled(port);
        let known = app.drift.seen().record.clone();
        let before = app.drift.shown();
        let (record, shown) = settled(known, mark, what, app.clock.now().0);
        if shown.is_some() && before != shown {
            tracing::warn!(what = ?shown.as_ref().map(|drift| &drift.what), "Docker's set-up was changed");
        }
        app.drift.keep(record, shown);
    }
    app.drift.shown()
}

/// What differs from what Sampan set up, and the name of that state. Where the files are as they were left an update of
/// Docker may have made them half of what is needed. Pure.
fn differences(engine: &Engine, port: u16) -> Option<(Vec<String>, String)> {
    let (mut what, mut mark) = (sampan_docker::drift(engine, port)?, sampan_docker::mark(engine, port));
    if what.is_empty()
        && let Some(repair) = engine.needs_repair(port)
    {
        mark.push_str(" updated");
        what.push(repair);
    }
    Some((what, mark))
}

/// Leaves what somebody else changed as it is.
pub(crate) async fn leave(app: &Inner) -> Result<(), ApiError> {
    let _one_at_a_time = app.changing_docker.write().await;
    let engine = sampan_docker::detect(&app.environment).await;
    if !engine.found {
        return Err(super::not_found(&engine));
    }
    let Some(drift) = judge(app, &engine) else { return Ok(()) };
    let port = app.config.listen.port();
    let mark =
        differences(&engine, port).map_or_else(|| sampan_docker::mark(&engine, port), |(_, mark)| mark);
    let record = Record { mark, since: drift.since, left: true };
    app.drift.save(Some(&record)).map_err(|error| ApiError {
        code: Code::Store,
        message: format!("it could not be written down: {error}"),
        next_step: Some("Check the rights and the free space of the state folder.".into()),
    })?;
    app.drift.keep(Some(record), None);
    app.refresh().await;
    Ok(())
}

/// Looks at what Sampan set up, until the end.
pub(crate) async fn watch(app: &Inner, token: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let (mut known, mut since_asked) = (None, 0);
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = stamps(app);
        since_asked += 1;
        // Where nothing is set up nobody has to be asked.
        if now.is_empty() && app.drift.shown().is_none() {
            continue;
        }
        if known.as_ref() == Some(&now) && since_asked < ASK_EVERY {
            continue;
        }
        (known, since_asked) = (Some(now), 0);
        // A change under way moves the files too, and is nobody else's.
        let Ok(_alone) = app.changing_docker.try_read() else {
            known = None;
            continue;
        };
        let before = (app.drift.shown(), app.drift.is_set_up());
        let looked = async {
            let engine = sampan_docker::detect(&app.environment).await;
            (judge(app, &engine), app.drift.is_set_up())
        };
        tokio::select! {
            () = token.cancelled() => return,
            after = looked => if before != after {
                app.refresh().await;
            },
        }
    }
}

/// Time and size of each file that Sampan set up, and of its engine's socket, which is made anew when that starts.
fn stamps(app: &Inner) -> Vec<(PathBuf, Option<(SystemTime, u64)>)> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for change in sampan_docker::installed(&app.environment) {
        if let Some(socket) = change.endpoint.strip_prefix("unix://") {
            paths.push(socket.into());
        }
        paths.push(change.target);
    }
    paths.sort();
    paths.dedup();
    let stamp = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok();
        let stamp = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        (path, stamp)
    };
    paths.into_iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(mark: &str, since: i64, left: bool) -> Record {
        Record { mark: mark.into(), since, left }
    }

    #[test]
    fn what_was_left_stays_quiet_until_the_files_change_again() {
        let gone = || vec!["Sampan was taken out of /etc/docker/daemon.json.".to_owned()];
        for (known, mark, what, kept, shown, why) in [
            (None, "a", vec![], None, None, "all is well"),
            (None, "b", gone(), Some(record("b", 9, false)), Some(9), "noticed"),
            (
                Some(record("b", 5, false)),
                "b",
                gone(),
                Some(record("b", 5, false)),
                Some(5),
                "as noticed before",
            ),
            (
                Some(record("b", 5, false)),
                "c",
                gone(),
                Some(record("c", 5, false)),
                Some(5),
                "it went on, since then",
            ),
            (Some(record("b", 5, false)), "a", vec![], None, None, "it is well again"),
            (Some(record("b", 5, true)), "b", gone(), Some(record("b", 5, true)), None, "left as it is"),
            (
                Some(record("b", 5, true)),
                "c",
                gone(),
                Some(record("c", 9, false)),
                Some(9),
                "left, and changed again",
            ),
            (Some(record("b", 5, true)), "a", vec![], None, None, "left, and set up again"),
        ] {
            let (record, drift) = settled(known, mark.into(), what.clone(), 9);
            assert_eq!(record, kept, "{why}");
            assert_eq!(drift, shown.map(|since| DockerDrift { what, since }), "{why}");
        }
    }

    #[test]
    fn half_of_what_an_updated_docker_needs_is_a_difference_too() {
        let mut engine = Engine::unknown("unix:///run/docker.sock".into());
        (engine.found, engine.kind, engine.pid) = (true, sampan_docker::Kind::Linux, Some(1));
        engine.image_store = Some(sampan_docker::ImageStore::Classic);
        engine.mirrors = vec!["http://127.0.0.1:7267/".into()];
        for (version, expected) in [("27.5.1", 0), ("28.0.0", 1)] {
            engine.version = Some(version.into());
            let (what, mark) = differences(&engine, 7267).unwrap();
            assert_eq!(what.len(), expected, "{version}: {what:?}");
            assert_eq!(mark.ends_with("updated"), expected == 1, "left at 27 is not left at 28");
        }
    }

    #[test]
    fn what_was_left_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::open(dir.path());
        assert_eq!(watch.seen().record, None, "nothing yet");
        watch.keep(Some(record("b", 5, true)), None);
        let again = Watch::open(dir.path());
        assert_eq!(again.seen().record, Some(record("b", 5, true)), "as it was kept");
        again.keep(None, None);
        assert!(!dir.path().join(FILE).exists(), "all is well: nothing is kept");
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Watch::open(dir.path()).seen().record, None, "a damaged file costs one reminder");
    }
}
