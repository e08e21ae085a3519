//! The file `stats.db`: a sum for each local day and image, the last pulls, and two facts.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::civil::Date;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, params};
use sampan_oci::{ImageName, Millis, Stale};

use crate::record::{PullRecord, PullState};
use crate::state::Batch;
use crate::totals::Totals;

/// The most pulls kept in the history; the oldest go first.
pub const HISTORY_MAX: usize = 10_000;

/// Each step brings the schema from the version before it to its own (`PRAGMA user_version`, from 1).
const MIGRATIONS: [&str; 3] = [FIRST, SECOND, THIRD];
pub(crate) const FIRST: &str = "
    CREATE TABLE totals (
        day TEXT NOT NULL, image TEXT NOT NULL,
        requests INTEGER NOT NULL, hits INTEGER NOT NULL, failures INTEGER NOT NULL,
        served_bytes INTEGER NOT NULL, fetched_bytes INTEGER NOT NULL, hit_bytes INTEGER NOT NULL,
        PRIMARY KEY (day, image)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE pulls (
        id INTEGER PRIMARY KEY, image TEXT NOT NULL, reference TEXT NOT NULL,
        started INTEGER NOT NULL, ended INTEGER NOT NULL, state TEXT NOT NULL, stale INTEGER NOT NULL,
        size_bytes INTEGER, done_bytes INTEGER NOT NULL, fetched_bytes INTEGER NOT NULL,
        client TEXT NOT NULL, layers TEXT NOT NULL
    ) STRICT;
    CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";
/// Pulls of before were not counted: nothing is known to have been repaired.
const SECOND: &str = "
    ALTER TABLE pulls ADD COLUMN retries INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE pulls ADD COLUMN repaired INTEGER NOT NULL DEFAULT 0;
";

/// What was spent of registries' allowances.
const THIRD: &str = "CREATE TABLE spent (at INTEGER NOT NULL, image TEXT NOT NULL) STRICT";

/// Why statistics cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// A newer Sampan wrote the file; it is left as it is.
    #[error("the statistics were written by a newer version of Sampan (schema {0})")]
    Future(i64),
    /// The database could not be read or written.
    #[error("the statistics database failed")]
    Database(#[from] rusqlite::Error),
    /// The file could not be made or set aside, or the writer not be started.
    #[error("the statistics file failed")]
    Io(#[from] std::io::Error),
}

/// What an earlier run left.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) days: BTreeMap<Date, Totals>,
    pub(crate) last_used: Option<Millis>,
    pub(crate) next_id: u64,
}

/// When a container engine last asked, as the file at `path` remembers it, which no process has open. `None`: never, or
/// there is no such file, or it cannot be read. Makes nothing that stays.
pub fn last_used(path: &Path) -> Option<Millis> {
    // Its journal may have to be taken in, which reading alone could not do.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).ok()?;
    Db { connection }.fact("last_used").ok()?.map(Millis)
}

/// The open database.
#[derive(Debug)]
pub(crate) struct Db {
    connection: Connection,
}

impl Db {
    /// Opens or makes the file. A damaged one is set aside.
    pub(crate) fn open(path: &Path, now: Millis) -> Result<Self, StatsError> {
        match Self::open_sound(path) {
            Err(StatsError::Database(error)) if is_damage(&error) => {
                let aside = set_aside(path, now)?;
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(error, aside = %aside.display(), "the statistics were damaged; starting anew");
                Self::open_sound(path)
            }
            opened => opened,
        }
    }

    fn open_sound(path: &Path) -> Result<Self, StatsError> {
        make_private(path)?;
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A power cut may cost the last moments, never the file; no pull waits for a disk to sync.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let verdict: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        if verdict != "ok" {
            return Err(damage(verdict).into());
        }
        migrate(&mut connection)?;
        let mut db = Self { connection };
        // A file that is sound but not ours shows here, while it can still be set aside.
        db.load()?;
        Ok(db)
    }

    /// What an earlier run left.
    pub(crate) fn load(&mut self) -> Result<Loaded, StatsError> {
        let mut days = BTreeMap::new();
        let sums =
            "SELECT day, SUM(requests), SUM(hits), SUM(failures), SUM(served_bytes), SUM(fetched_bytes),
            SUM(hit_bytes) FROM totals GROUP BY day";
        let mut statement = self.connection.prepare(sums)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            days.insert(parsed(row, 0)?, totals(row)?);
        }
        let highest: Option<i64> =
            self.connection.query_row("SELECT MAX(id) FROM pulls", [], |row| row.get(0))?;
        let unused = self.fact("next_pull")?.max(highest.map(|id| id.saturating_add(1)));
        let next_id = unused.and_then(|id| u64::try_from(id).ok()).unwrap_or(1).max(1);
        Ok(Loaded { days, last_used: self.fact("last_used")?.map(Millis), next_id })
    }

    fn fact(&self, name: &str) -> Result<Option<i64>, StatsError> {
        let query = "SELECT value FROM facts WHERE name = ?1";
        Ok(self.connection.query_row(query, [name], |row| row.get(0)).optional()?)
    }

    /// Writes a batch, whole or not at all.
    pub(crate) fn write(&mut self, batch: &Batch) -> Result<(), StatsError> {
        if batch.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        for ((day, image), sums) in &batch.totals {
            let image = image.as_ref().map(ToString::to_string).unwrap_or_default();
            transaction
                .prepare_cached(
                    "INSERT INTO totals VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET
                    requests = requests + excluded.requests, hits = hits + excluded.hits,
                    failures = failures + excluded.failures, served_bytes = served_bytes + excluded.served_bytes,
                    fetched_bytes = fetched_bytes + excluded.fetched_bytes,
                    hit_bytes = hit_bytes + excluded.hit_bytes",
                )?
                .execute(params![
                    day.to_string(), image, signed(sums.requests), signed(sums.hits), signed(sums.failures),
                    signed(sums.served_bytes), signed(sums.fetched_bytes), signed(sums.hit_bytes),
                ])?;
        }
        for pull in batch.pulls.values() {
            write_pull(&transaction, pull)?;
        }
        if !batch.pulls.is_empty() {
            let oldest =
                "DELETE FROM pulls WHERE id <= (SELECT id FROM pulls ORDER BY id DESC LIMIT 1 OFFSET ?1)";
            transaction.prepare_cached(oldest)?.execute([count(HISTORY_MAX)])?;
        }
        let ids = batch.ids_reserved.map(signed);
        for (name, value) in [("next_pull", ids), ("last_used", batch.last_used.map(|at| at.0))] {
            if let Some(value) = value {
                let upsert = "INSERT INTO facts VALUES (?1, ?2)
                    ON CONFLICT DO UPDATE SET value = MAX(value, excluded.value)";
                transaction.prepare_cached(upsert)?.execute(params![name, value])?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// The sums by image over some days. `None`: no valid image was named.
    pub(crate) fn images(
        &self,
        first: Date,
        last: Date,
    ) -> Result<HashMap<Option<ImageName>, Totals>, StatsError> {
        let sums =
            "SELECT image, SUM(requests), SUM(hits), SUM(failures), SUM(served_bytes), SUM(fetched_bytes),
            SUM(hit_bytes) FROM totals WHERE day BETWEEN ?1 AND ?2 GROUP BY image";
        let mut statement = self.connection.prepare_cached(sums)?;
        let mut rows = statement.query([first.to_string(), last.to_string()])?;
        let mut images: HashMap<Option<ImageName>, Totals> = HashMap::new();
        while let Some(row) = rows.next()? {
            let image: String = row.get(0)?;
            *images.entry(image.parse().ok()).or_default() += totals(row)?;
        }
        Ok(images)
    }

    /// The newest pulls, newest first.
    pub(crate) fn pulls(&self, limit: usize) -> Result<Vec<PullRecord>, StatsError> {
        let query = "SELECT id, image, reference, started, ended, state, stale, size_bytes, done_bytes, fetched_bytes,
            client, layers, retries, repaired FROM pulls ORDER BY id DESC LIMIT ?1";
        let mut statement = self.connection.prepare_cached(query)?;
        let pulls = statement.query_map([count(limit)], read_pull)?.collect::<Result<_, _>>()?;
        Ok(pulls)
    }
}

impl Db {
    /// Keeps these pulls as what was spent, instead of those kept before.
    pub(crate) fn keep_spent(&mut self, spent: &[(Millis, ImageName)]) -> Result<(), StatsError> {
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM spent", [])?;
        for (at, image) in spent {
            let insert = "INSERT INTO spent VALUES (?1, ?2)";
            transaction.prepare_cached(insert)?.execute(params![at.0, image.to_string()])?;
        }
        Ok(transaction.commit()?)
    }

    /// What was kept, oldest first.
    pub(crate) fn spent(&self) -> Result<Vec<(Millis, ImageName)>, StatsError> {
        let mut statement =
            self.connection.prepare_cached("SELECT at, image FROM spent ORDER BY at, rowid")?;
        let read = |row: &Row<'_>| Ok((Millis(row.get(0)?), parsed(row, 1)?));
        Ok(statement.query_map([], read)?.collect::<Result<_, _>>()?)
    }
}

fn migrate(connection: &mut Connection) -> Result<(), StatsError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(version).map_err(|_| StatsError::Future(version))?;
    let steps = MIGRATIONS.get(done..).ok_or(StatsError::Future(version))?;
    for (step, next) in steps.iter().zip(version + 1..) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", next)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Why a pull was answered stale, as a number: 0 for one that was not. Older versions knew 0 and 1 only.
fn stale_number(stale: Option<Stale>) -> i64 {
    match stale {
        None => 0,
        Some(Stale::Outage) => 1,
        Some(Stale::RateLimit) => 2,
        Some(Stale::Deadline) => 3,
        Some(Stale::Upstream) => 4,
        Some(Stale::Offline) => 5,
        Some(Stale::Resting) => 6,
    }
}

fn stale_of(number: i64) -> Option<Stale> {
    match number {
        0 => None,
        2 => Some(Stale::RateLimit),
        3 => Some(Stale::Deadline),
        4 => Some(Stale::Upstream),
        5 => Some(Stale::Offline),
        6 => Some(Stale::Resting),
        _ => Some(Stale::Outage),
    }
}

fn write_pull(connection: &Connection, pull: &PullRecord) -> Result<(), StatsError> {
    let layers = serde_json::to_string(&pull.layers).map_err(std::io::Error::other)?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO pulls VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            signed(pull.id),
            pull.image.to_string(),
            pull.reference.to_string(),
            pull.started.0,
            pull.ended.unwrap_or(pull.started).0,
            state_word(pull.state),
            stale_number(pull.stale),
            pull.size_bytes.map(signed),
            signed(pull.done_bytes),
            signed(pull.fetched_bytes),
            pull.client,
            layers,
            signed(pull.retries),
            signed(pull.repaired),
        ])?;
    Ok(())
}

fn read_pull(row: &Row<'_>) -> rusqlite::Result<PullRecord> {
    let layers: String = row.get(11)?;
    let state: String = row.get(5)?;
    let size: Option<i64> = row.get(7)?;
    Ok(PullRecord {
        id: unsigned(row, 0)?,
        image: parsed(row, 1)?,
        reference: parsed(row, 2)?,
        started: Millis(row.get(3)?),
        ended: Some(Millis(row.get(4)?)),
        state: state_of(&state).ok_or_else(|| damage(format!("pull state {state:?}")))?,
        stale: stale_of(row.get(6)?),
        size_bytes: size.and_then(|size| u64::try_from(size).ok()),
        done_bytes: unsigned(row, 8)?,
        fetched_bytes: unsigned(row, 9)?,
        rate: None,
        eta_seconds: None,
        connections: 0,
        retries: unsigned(row, 12)?,
        repaired: unsigned(row, 13)?,
        waiting: false,
        client: row.get(10)?,
        layers: serde_json::from_str(&layers).map_err(|error| damage(error.to_string()))?,
    })
}

fn totals(row: &Row<'_>) -> rusqlite::Result<Totals> {
    Ok(Totals {
        requests: unsigned(row, 1)?,
        hits: unsigned(row, 2)?,
        failures: unsigned(row, 3)?,
        served_bytes: unsigned(row, 4)?,
        fetched_bytes: unsigned(row, 5)?,
        hit_bytes: unsigned(row, 6)?,
    })
}

/// SQLite's integers have a sign; no disk holds 2^63 bytes.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

fn parsed<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| damage(format!("{text:?} in column {column}")))
}

fn state_word(state: PullState) -> &'static str {
    match state {
        // Pulls that go on are stored as they would end now.
        PullState::Active | PullState::Interrupted => "interrupted",
        PullState::Complete => "complete",
        PullState::Failed => "failed",
    }
}

fn state_of(word: &str) -> Option<PullState> {
    let states = [PullState::Interrupted, PullState::Complete, PullState::Failed];
    states.into_iter().find(|&state| state_word(state) == word)
}

fn damage(what: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(what))
}

/// Whether an error at opening means that the file is not, or no longer, a database of ours.
fn is_damage(error: &rusqlite::Error) -> bool {
    let codes =
        [ErrorCode::DatabaseCorrupt, ErrorCode::NotADatabase, ErrorCode::Unknown, ErrorCode::TypeMismatch];
    error.sqlite_error_code().is_some_and(|code| codes.contains(&code))
        || matches!(error, rusqlite::Error::InvalidColumnType(..))
}

/// Renames the file and its journals; they would be replayed into the new file.
fn set_aside(path: &Path, now: Millis) -> Result<PathBuf, StatsError> {
    let with = |suffix: &str| {
        let mut name = OsString::from(path);
        name.push(suffix);
        PathBuf::from(name)
    };
    let damaged = format!(".damaged-{}", now.0);
    std::fs::rename(path, with(&damaged))?;
    for journal in ["-wal", "-shm"] {
        match std::fs::rename(with(journal), with(&format!("{damaged}{journal}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(with(&damaged))
}

/// Makes the file readable by its owner alone: it tells which images a person uses. SQLite's journals inherit that.
fn make_private(path: &Path) -> Result<(), StatsError> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?;
    Ok(())
}
