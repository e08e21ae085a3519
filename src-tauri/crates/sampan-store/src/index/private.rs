//! The mark that a repository is private.

use std::collections::HashSet;

use rusqlite::Connection;
use sampan_oci::ImageName;

use super::change::Change;
use crate::error::StoreError;

/// Every repository that is marked.
pub(crate) fn all(connection: &Connection) -> rusqlite::Result<Vec<ImageName>> {
    let mut statement = connection.prepare("SELECT registry, repository FROM private")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut marked = Vec::new();
    for row in rows {
        let (registry, repository) = row?;
        // A text that is no name can only be damage that SQLite cannot see: nothing is recorded under it either.
        if let (Ok(registry), Ok(repository)) = (registry.parse(), repository.parse()) {
            marked.push(ImageName { registry, repository });
        }
    }
    Ok(marked)
}

/// The keys of those of which something is known.
pub(crate) fn keys(connection: &Connection) -> rusqlite::Result<HashSet<i64>> {
    let mut statement =
        connection.prepare("SELECT image.id FROM image JOIN private USING (registry, repository)")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Marks a repository, or takes the mark away.
pub(crate) fn mark(change: &mut Change<'_>, image: &ImageName, private: bool) -> Result<(), StoreError> {
    let sql = if private {
        "INSERT INTO private (registry, repository) VALUES (?1, ?2) ON CONFLICT DO NOTHING"
    } else {
        "DELETE FROM private WHERE registry = ?1 AND repository = ?2"
    };
    change.run(sql, [image.registry.as_str(), image.repository.as_str()])?;
    Ok(())
}
