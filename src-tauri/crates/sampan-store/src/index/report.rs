//! The whole index at one moment, as plain data to decide on.

use std::collections::HashMap;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, Row};
use sampan_oci::{Digest, Millis, Platform, RegistryName, RepositoryName, Tag};

use super::readable::readable;
use crate::catalog::{Catalog, Edge, HISTORY_MAX, Held, LinkRow, TagRow};

/// Reads everything that lists and clearing are decided on, from one snapshot. Rows that say nothing readable are left
/// out: what they named is then not listed, and goes when everything is cleared.
pub(crate) fn catalog(connection: &Connection) -> rusqlite::Result<Catalog> {
    // A savepoint of reads: all tables as of one moment, while changes go on.
    connection.execute_batch("BEGIN")?;
    let catalog = read(connection);
    connection.execute_batch("ROLLBACK")?;
    catalog
}

fn text<T: FromStr>(row: &Row<'_>, place: usize) -> rusqlite::Result<Option<T>> {
    Ok(row.get_ref(place)?.as_str()?.parse().ok())
}

fn read(connection: &Connection) -> rusqlite::Result<Catalog> {
    let mut catalog = Catalog::default();
    each(connection, "SELECT id, registry, repository FROM image", |row| {
        if let (Some(registry), Some(repository)) =
            (text::<RegistryName>(row, 1)?, text::<RepositoryName>(row, 2)?)
        {
            catalog.images.insert(row.get(0)?, sampan_oci::ImageName { registry, repository });
        }
        Ok(())
    })?;
    each(connection, "SELECT digest, size, created, fetched, aged FROM blob", |row| {
        if let Some(digest) = text(row, 0)? {
            let number =
                |place| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(place)?).unwrap_or(0));
            let (size, fetched) = (number(1)?, number(3)?);
            let (created, aged) = (Millis(row.get(2)?), row.get(4)?);
            catalog.held.insert(digest, Held { size, fetched, created, aged });
        }
        Ok(())
    })?;
    each(connection, "SELECT digest FROM manifest", |row| {
        if let Some(digest) = text(row, 0)? {
            catalog.manifests.insert(digest, Vec::new());
        }
        Ok(())
    })?;
    let descriptors = "SELECT manifest, digest, configuration, architecture, os, variant FROM descriptor
                       ORDER BY manifest, place";
    // One after the other: what lists them is looked for once.
    let mut listing: Option<(String, Option<Digest>)> = None;
    each(connection, descriptors, |row| {
        let manifest = row.get_ref(0)?.as_str()?;
        if listing.as_ref().is_none_or(|(text, _)| text != manifest) {
            listing = Some((manifest.to_owned(), manifest.parse().ok()));
        }
        let (Some((_, Some(manifest))), Some(digest)) = (&listing, text(row, 1)?) else { return Ok(()) };
        let platform = match (row.get(3)?, row.get(4)?) {
            (Some(architecture), Some(os)) => Some(Platform { architecture, os, variant: row.get(5)? }),
            (None, _) | (_, None) => None,
        };
        if let Some(edges) = catalog.manifests.get_mut(manifest) {
            edges.push(Edge { digest, configuration: row.get(2)?, platform });
        }
        Ok(())
    })?;
    each(connection, "SELECT image, digest, created, last_used, hits, proven, aged FROM link", |row| {
        if let Some(digest) = text(row, 1)? {
            let (created, last_used) = (Millis(row.get(2)?), Millis(row.get(3)?));
            let hits = u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0);
            let (image, proven, aged) = (row.get(0)?, row.get(5)?, row.get(6)?);
            catalog.links.push(LinkRow { image, digest, created, last_used, hits, proven, aged });
        }
        Ok(())
    })?;
    let tags =
        "SELECT tag.image, tag.tag, tag.digest, coalesce(tag_history.first_seen, tag.checked), tag.confirmed,
                tag.frozen, tag.gone
                FROM tag LEFT JOIN tag_history USING (image, tag, digest)";
    each(connection, tags, |row| {
        if let (Some(tag), Some(digest)) = (text(row, 1)?, text(row, 2)?) {
            let first_seen = Millis(row.get(3)?);
            let (confirmed, frozen, gone) = (row.get(4)?, row.get(5)?, row.get::<_, i64>(6)?);
            let gone = (gone != 0).then_some(Millis(gone));
            let image = row.get(0)?;
            catalog.tags.push(TagRow { image, tag, digest, first_seen, confirmed, frozen, gone });
        }
        Ok(())
    })?;
    // The newest first.
    let history = "SELECT image, tag, digest, first_seen FROM tag_history ORDER BY first_seen DESC, digest";
    each(connection, history, |row| {
        if let (Some(tag), Some(digest)) = (text::<Tag>(row, 1)?, text(row, 2)?) {
            let seen = catalog.history.entry((row.get(0)?, tag)).or_default();
            if seen.len() < HISTORY_MAX {
                seen.push((digest, Millis(row.get(3)?)));
            }
        }
        Ok(())
    })?;
    each(connection, "SELECT image, reference FROM pin", |row| {
        if let Some(reference) = text(row, 1)? {
            catalog.pins.insert((row.get(0)?, reference));
        }
        Ok(())
    })?;
    Ok(catalog)
}

/// The size in bytes, whether it is held, and when it was last found right, of each digest; a part comes with what lists
/// it.
pub(crate) fn parts(
    connection: &Connection,
    digests: &[Digest],
) -> rusqlite::Result<Vec<(u64, bool, Option<Millis>)>> {
    let mut held = connection.prepare_cached("SELECT size, checked FROM blob WHERE digest = ?1")?;
    // By what lists them: to look for a digest among all that is listed is to read all of it.
    let mut listed = connection.prepare_cached("SELECT digest, size FROM descriptor WHERE manifest = ?1")?;
    let mut sizes: HashMap<String, i64> = HashMap::new();
    for digest in digests {
        let rows = listed.query_map([digest.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for row in rows {
            if let Some((digest, size)) = readable(row)? {
                sizes.entry(digest).or_insert(size);
            }
        }
    }
    let size = |size: i64| u64::try_from(size).unwrap_or(0);
    let part = |digest: &Digest| {
        let text = digest.to_string();
        let found =
            readable(held.query_row([&text], |row| Ok((row.get(0)?, row.get(1)?))).optional())?.flatten();
        if let Some((bytes, checked)) = found {
            return Ok((size(bytes), true, Some(Millis(checked))));
        }
        Ok((size(sizes.get(&text).copied().unwrap_or(0)), false, None))
    };
    digests.iter().map(part).collect()
}

fn each(
    connection: &Connection,
    sql: &str,
    mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        readable(take(row))?;
    }
    Ok(())
}
