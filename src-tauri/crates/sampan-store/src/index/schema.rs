//! The index's tables, and how an index of an older Sampan becomes one of today's.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

/// One step per version of the schema; `PRAGMA user_version` counts the steps taken. Steps are never edited, only added.
const MIGRATIONS: [&str; 2] = ["
    CREATE TABLE image (
        id INTEGER PRIMARY KEY, registry TEXT NOT NULL, repository TEXT NOT NULL, UNIQUE (registry, repository)
    ) STRICT;
    -- Files under blobs/, and nothing else.
    CREATE TABLE blob (
        digest TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL CHECK (size >= 0), created INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    -- Which of the blobs are manifests.
    CREATE TABLE manifest (
        digest TEXT NOT NULL PRIMARY KEY, media_type TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    -- What each manifest lists, held or not. Place 0 of an image manifest is its configuration.
    CREATE TABLE descriptor (
        manifest TEXT NOT NULL, place INTEGER NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
        configuration INTEGER NOT NULL, architecture TEXT, os TEXT, variant TEXT,
        PRIMARY KEY (manifest, place)
    ) STRICT, WITHOUT ROWID;
    -- That a repository is known to show this digest to everybody.
    CREATE TABLE link (
        image INTEGER NOT NULL, digest TEXT NOT NULL, size INTEGER, created INTEGER NOT NULL,
        last_used INTEGER NOT NULL, PRIMARY KEY (image, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE tag (
        image INTEGER NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL, checked INTEGER NOT NULL,
        PRIMARY KEY (image, tag)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE tag_history (
        image INTEGER NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL, first_seen INTEGER NOT NULL,
        PRIMARY KEY (image, tag, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE referrers (
        image INTEGER NOT NULL, subject TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (image, subject)
    ) STRICT, WITHOUT ROWID;
", "
    -- Bytes that came over the link; when it was last found right (ms).
    ALTER TABLE blob ADD COLUMN fetched INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE blob ADD COLUMN checked INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE link ADD COLUMN proven INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE link ADD COLUMN hits INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tag ADD COLUMN confirmed INTEGER NOT NULL DEFAULT 1;
    CREATE TABLE pin (
        image INTEGER NOT NULL, reference TEXT NOT NULL, created INTEGER NOT NULL, PRIMARY KEY (image, reference)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE damage (
        id INTEGER PRIMARY KEY, digest TEXT NOT NULL, found INTEGER NOT NULL, size INTEGER NOT NULL, healed INTEGER
    ) STRICT;
    CREATE TABLE note (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"];

/// The version this Sampan writes: the number of [`MIGRATIONS`].
pub(crate) const VERSION: i32 = 2;

/// The version an open index has.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<i32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings the tables to [`VERSION`], each step whole or not at all.
pub(crate) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    for (step, sql) in (1_i32..).zip(MIGRATIONS) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if version(&transaction)? < step {
            transaction.execute_batch(sql)?;
            transaction.pragma_update(None, "user_version", step)?;
            transaction.commit()?;
        }
    }
    Ok(())
}

/// Whether the file is sound: its pages, its values, and the tables of its version.
pub(crate) fn check(connection: &Connection) -> rusqlite::Result<bool> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Ok(false);
    }
    let tables = [
        "image",
        "blob",
        "manifest",
        "descriptor",
        "link",
        "tag",
        "tag_history",
        "referrers",
        "pin",
        "damage",
        "note",
    ];
    for table in tables {
        connection.query_row(&format!("SELECT 1 FROM {table} LIMIT 1"), [], |_| Ok(())).optional()?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_index_has_the_version_and_is_sound() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        assert_eq!(version(&connection).unwrap(), VERSION, "every step counts");
        assert!(check(&connection).unwrap());
        migrate(&mut connection).expect("migrating what is up to date changes nothing");
    }

    #[test]
    fn an_index_without_one_of_its_tables_is_not_sound() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        connection.execute_batch("DROP TABLE link").unwrap();
        assert!(check(&connection).is_err());
    }
}
