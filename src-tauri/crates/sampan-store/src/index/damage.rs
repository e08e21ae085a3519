//! Damage found in the cache: what, when, and whether it was fetched again since.

use rusqlite::{Connection, OptionalExtension, params};
use sampan_oci::{Digest, Millis};

use super::change::{Change, integer};
use super::readable::readable;
use crate::error::StoreError;
use crate::quarantine::Damage;

/// How many healed damages keep their row; the counts go on without the older ones.
const HEALED_ROWS_MAX: i64 = 1_000;
/// How many damages wait for being fetched again, each with its row. What waits beyond them is counted as found, and
/// never as healed.
const WAITING_ROWS_MAX: i64 = 10_000;
/// Rows are pruned at every such number of new ones.
const PRUNED_EVERY: i64 = 64;
/// How many damages a report lists.
const LISTED_MAX: i64 = 100;

/// The notes this file keeps: how many damages were found and healed since the index exists.
const FOUND: &str = "damage found";
const HEALED: &str = "damage healed";

/// Damage in numbers, as the index knows it.
#[derive(Debug, Default)]
pub(crate) struct Damages {
    pub(crate) found: u64,
    pub(crate) healed: u64,
    pub(crate) waiting: u64,
    /// Every blob was found right at this time or later; `None`: there are none, or one was never looked at.
    pub(crate) checked_since: Option<Millis>,
    pub(crate) newest: Vec<Damage>,
}

/// Records that a blob's file of `size` bytes was found damaged.
pub(crate) fn record(change: &Change<'_>, digest: &Digest, size: u64, now: Millis) -> Result<(), StoreError> {
    change.run(
        "INSERT INTO damage (digest, found, size) VALUES (?1, ?2, ?3)",
        params![digest.to_string(), now.0, integer(size)],
    )?;
    add_to_note(change, FOUND, 1)?;
    if change.last_row() % PRUNED_EVERY == 0 {
        prune(change, "healed IS NOT NULL", HEALED_ROWS_MAX)?;
        prune(change, "healed IS NULL", WAITING_ROWS_MAX)?;
    }
    Ok(())
}

fn prune(change: &Change<'_>, which: &str, rows_max: i64) -> rusqlite::Result<()> {
    change.run(
        &format!(
            "DELETE FROM damage WHERE {which} AND id <=
             (SELECT id FROM damage WHERE {which} ORDER BY id DESC LIMIT 1 OFFSET ?1)"
        ),
        [rows_max],
    )?;
    Ok(())
}

/// Records that a blob was published again: whatever damage was found in it is healed.
pub(crate) fn heal(change: &Change<'_>, digest: &Digest, now: Millis) -> Result<(), StoreError> {
    let healed = change.run(
        "UPDATE damage SET healed = ?2 WHERE digest = ?1 AND healed IS NULL",
        params![digest.to_string(), now.0],
    )?;
    if healed > 0 {
        add_to_note(change, HEALED, integer(healed as u64))?;
    }
    Ok(())
}

/// Records that these blobs were hashed and found right.
pub(crate) fn record_checked(change: &Change<'_>, right: &[Digest], now: Millis) -> Result<(), StoreError> {
    for digest in right {
        change.run("UPDATE blob SET checked = ?2 WHERE digest = ?1", params![digest.to_string(), now.0])?;
    }
    Ok(())
}

fn add_to_note(change: &Change<'_>, name: &str, more: i64) -> rusqlite::Result<()> {
    change.run(
        "INSERT INTO note (name, value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        params![name, more],
    )?;
    Ok(())
}

/// The damage found since the index exists.
pub(crate) fn damages(connection: &Connection) -> rusqlite::Result<Damages> {
    let note = |name: &str| -> rusqlite::Result<Option<i64>> {
        connection
            .prepare_cached("SELECT value FROM note WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()
    };
    let count = |number: Option<i64>| u64::try_from(number.unwrap_or(0)).unwrap_or(0);
    let waiting = connection
        .query_row("SELECT count(*) FROM damage WHERE healed IS NULL", [], |row| row.get::<_, i64>(0))?;
    let checked =
        connection.query_row("SELECT min(checked) FROM blob", [], |row| row.get::<_, Option<i64>>(0))?;
    let mut statement = connection
        .prepare_cached("SELECT digest, found, size, healed FROM damage ORDER BY id DESC LIMIT ?1")?;
    let mut rows = statement.query([LISTED_MAX])?;
    let mut newest = Vec::new();
    while let Some(row) = rows.next()? {
        if let Some(Ok(digest)) = readable(row.get::<_, String>(0))?.map(|text| text.parse()) {
            newest.push(Damage {
                digest,
                found: Millis(row.get(1)?),
                size_bytes: count(row.get(2)?),
                healed: row.get::<_, Option<i64>>(3)?.map(Millis),
            });
        }
    }
    Ok(Damages {
        found: count(note(FOUND)?),
        healed: count(note(HEALED)?),
        waiting: count(Some(waiting)),
        checked_since: checked.filter(|at| *at > 0).map(Millis),
        newest,
    })
}

/// Every blob's digest, size in bytes and last check, the one checked the longest ago first.
pub(crate) fn by_last_check(connection: &Connection) -> rusqlite::Result<Vec<(Digest, u64, Millis)>> {
    let mut statement =
        connection.prepare("SELECT digest, size, checked FROM blob ORDER BY checked, digest")?;
    let mut rows = statement.query([])?;
    let mut blobs = Vec::new();
    while let Some(row) = rows.next()? {
        if let Some(Ok(digest)) = readable(row.get::<_, String>(0))?.map(|text| text.parse()) {
            let size = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
            blobs.push((digest, size, Millis(row.get(2)?)));
        }
    }
    Ok(blobs)
}
