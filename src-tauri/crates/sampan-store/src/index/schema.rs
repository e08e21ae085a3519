//! The index's tables, and how an index of an older Sampan becomes one of today's.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

/// One step per version of the schema; `PRAGMA user_version` counts the steps taken. Steps are never edited, only added.
const MIGRATIONS: [&str; 5] = [VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5];

const VERSION_1: &str = "
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
";

const VERSION_2: &str = "
    -- How many of its bytes came over the link; what version 1 held all did.
    ALTER TABLE blob ADD COLUMN fetched INTEGER NOT NULL DEFAULT 0;
    UPDATE blob SET fetched = size;
    -- When its bytes were last found right, in milliseconds.
    ALTER TABLE blob ADD COLUMN checked INTEGER NOT NULL DEFAULT 0;
    -- 0: an import says so, and nobody else.
    ALTER TABLE link ADD COLUMN proven INTEGER NOT NULL DEFAULT 1;
    -- How many times the digest, as a manifest, was answered from what is held.
    ALTER TABLE link ADD COLUMN hits INTEGER NOT NULL DEFAULT 0;
    -- 0: an import says so, and its upstream was not heard yet.
    ALTER TABLE tag ADD COLUMN confirmed INTEGER NOT NULL DEFAULT 1;
    -- What a person wants kept. The reference is a tag, held or not, or a digest.
    CREATE TABLE pin (
        image INTEGER NOT NULL, reference TEXT NOT NULL, created INTEGER NOT NULL, PRIMARY KEY (image, reference)
    ) STRICT, WITHOUT ROWID;
    -- Damage found under blobs/, and when it was made good.
    CREATE TABLE damage (
        id INTEGER PRIMARY KEY, digest TEXT NOT NULL, found INTEGER NOT NULL, size INTEGER NOT NULL, healed INTEGER
    ) STRICT;
    -- Single numbers worth remembering, such as how many damages were found.
    CREATE TABLE note (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

const VERSION_3: &str = "
    -- When it was last used, or came, in milliseconds that this cache has seen pass: no step of the wall clock is in it.
    -- What is older than this column counts as used at the beginning of that count.
    ALTER TABLE link ADD COLUMN aged INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE blob ADD COLUMN aged INTEGER NOT NULL DEFAULT 0;
";

const VERSION_4: &str = "
    -- 1: a person wants it to stay where it points, whatever its upstream says.
    ALTER TABLE tag ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0;
    -- When its upstream said that it is gone, in milliseconds; 0: it did not.
    ALTER TABLE tag ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
";

const VERSION_5: &str = "
    -- Repositories of which what is known was shown to a login, not to everybody.
    CREATE TABLE private (
        registry TEXT NOT NULL, repository TEXT NOT NULL, PRIMARY KEY (registry, repository)
    ) STRICT, WITHOUT ROWID;
";

/// The version this Sampan writes: the number of [`MIGRATIONS`].
pub(crate) const VERSION: i32 = 5;

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

/// The tables of [`VERSION`].
const TABLES: [&str; 12] = [
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
    "private",
];

/// All that is text in them.
const TEXTS: [&str; 11] = [
    "SELECT registry, repository FROM image",
    "SELECT digest FROM blob",
    "SELECT digest, media_type FROM manifest",
    "SELECT manifest, digest, architecture, os, variant FROM descriptor",
    "SELECT digest FROM link",
    "SELECT tag, digest FROM tag",
    "SELECT tag, digest FROM tag_history",
    "SELECT subject FROM referrers",
    "SELECT reference FROM pin",
    "SELECT digest FROM damage",
    "SELECT registry, repository FROM private",
];

/// Whether the file is sound: its pages, its values, its texts, and the tables of its version.
pub(crate) fn check(connection: &Connection) -> rusqlite::Result<bool> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Ok(false);
    }
    for table in TABLES {
        connection.query_row(&format!("SELECT 1 FROM {table} LIMIT 1"), [], |_| Ok(())).optional()?;
    }
    // SQLite does not look into texts: one that is none is found now, not at some question.
    for texts in TEXTS {
        let mut statement = connection.prepare(texts)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for place in 0..columns {
                row.get_ref(place)?.as_str_or_null()?;
            }
        }
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
    fn an_index_of_version_1_keeps_its_rows() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(VERSION_1).unwrap();
        connection
            .execute_batch(
                "INSERT INTO blob VALUES ('b', 7, 1); INSERT INTO link VALUES (1, 'b', 7, 1, 2);
                 INSERT INTO tag VALUES (1, 't', 'b', 3); PRAGMA user_version = 1;",
            )
            .unwrap();
        migrate(&mut connection).unwrap();
        assert!(check(&connection).unwrap());
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(
            number("SELECT fetched FROM blob WHERE size = 7 AND checked = 0"),
            7,
            "all of it was fetched"
        );
        assert_eq!(number("SELECT proven FROM link WHERE hits = 0"), 1, "what was proven stays proven");
        assert_eq!(number("SELECT confirmed FROM tag WHERE frozen = 0 AND gone = 0"), 1);
    }

    #[test]
    fn a_step_that_was_cut_short_left_nothing_and_is_taken_again() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(VERSION_1).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        let transaction = connection.transaction().unwrap();
        transaction.execute_batch(VERSION_2).unwrap();
        drop(transaction);
        assert_eq!(version(&connection).unwrap(), 1, "whole or not at all");
        migrate(&mut connection).unwrap();
        assert!(check(&connection).unwrap());
    }

    #[test]
    fn an_index_without_one_of_its_tables_is_not_sound() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        connection.execute_batch("DROP TABLE link").unwrap();
        assert!(check(&connection).is_err());
    }
}
