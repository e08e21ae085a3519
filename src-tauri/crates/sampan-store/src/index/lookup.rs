//! The quick questions that requests ask.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Params, Row};
use sampan_oci::{Digest, ImageName, MediaType, Millis, Tag};

use super::readable::readable;
use crate::store::{HeldTag, Link};

/// Every question is about one image: its key is found by these first two parameters.
const IMAGE: &str = "(SELECT id FROM image WHERE registry = ?1 AND repository = ?2)";

fn ask<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    Ok(readable(connection.prepare_cached(sql)?.query_row(values, read).optional())?.flatten())
}

/// What a tag points at, if that manifest is held, the tag is more than an import's word, and its upstream did not say
/// that it is gone. One that is frozen points there also while that is not held.
pub(crate) fn held_tag(
    connection: &Connection,
    image: &ImageName,
    tag: &Tag,
) -> rusqlite::Result<Option<HeldTag>> {
    let sql = format!(
        "SELECT tag.digest, tag.checked, tag.frozen FROM tag LEFT JOIN blob ON blob.digest = tag.digest
         WHERE tag.image = {IMAGE} AND tag.tag = ?3 AND tag.confirmed = 1
         AND (tag.frozen = 1 OR (tag.gone = 0 AND blob.digest IS NOT NULL))"
    );
    let found =
        ask(connection, &sql, [image.registry.as_str(), image.repository.as_str(), tag.as_str()], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
        })?;
    // A text that is no digest can only be damage that SQLite cannot see: then the tag is not held.
    Ok(found.and_then(|(digest, checked, frozen)| {
        Some(HeldTag { digest: digest.parse().ok()?, checked: Millis(checked), frozen })
    }))
}

/// The tags whose manifests are held, in byte order, as the specification's tag list wants them.
pub(crate) fn tags(connection: &Connection, image: &ImageName) -> rusqlite::Result<Vec<Tag>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT tag.tag FROM tag JOIN blob ON blob.digest = tag.digest
         WHERE tag.image = {IMAGE} AND tag.confirmed = 1 AND tag.gone = 0 ORDER BY tag.tag"
    ))?;
    let names = statement
        .query_map([image.registry.as_str(), image.repository.as_str()], |row| row.get::<_, String>(0))?;
    let mut tags = Vec::new();
    for name in names {
        tags.extend(readable(name)?.and_then(|name| name.parse::<Tag>().ok()));
    }
    Ok(tags)
}

/// The proof that an image shows a digest.
pub(crate) fn link(
    connection: &Connection,
    image: &ImageName,
    digest: &Digest,
) -> rusqlite::Result<Option<Link>> {
    let sql = format!("SELECT size FROM link WHERE image = {IMAGE} AND digest = ?3 AND proven = 1");
    let values = [image.registry.as_str(), image.repository.as_str(), &digest.to_string()];
    let size = ask(connection, &sql, values, |row| row.get::<_, Option<i64>>(0))?;
    Ok(size.map(|size| Link { size: size.and_then(|size| u64::try_from(size).ok()) }))
}

/// The media type of a manifest that is held and linked to the image.
pub(crate) fn media_type(
    connection: &Connection,
    image: &ImageName,
    digest: &Digest,
) -> rusqlite::Result<Option<MediaType>> {
    let sql = format!(
        "SELECT manifest.media_type FROM manifest
         JOIN blob ON blob.digest = manifest.digest
         JOIN link ON link.digest = manifest.digest AND link.image = {IMAGE} AND link.proven = 1
         WHERE manifest.digest = ?3"
    );
    let values = [image.registry.as_str(), image.repository.as_str(), &digest.to_string()];
    let text = ask(connection, &sql, values, |row| row.get::<_, String>(0))?;
    Ok(text.and_then(|text| MediaType::parse(&text)))
}

/// The bytes on disk that pins keep, each blob once.
pub(crate) fn pinned_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "WITH RECURSIVE kept (digest) AS (
                   SELECT tag.digest FROM pin JOIN tag ON tag.image = pin.image AND tag.tag = pin.reference
                   UNION SELECT reference FROM pin
                   UNION SELECT descriptor.digest FROM kept JOIN descriptor ON descriptor.manifest = kept.digest)
               SELECT coalesce(sum(blob.size), 0) FROM kept JOIN blob ON blob.digest = kept.digest";
    let bytes = ask(connection, sql, [], |row| row.get::<_, i64>(0))?;
    Ok(bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0))
}

/// The kept list of what refers to `subject`.
pub(crate) fn referrers(
    connection: &Connection,
    image: &ImageName,
    subject: &Digest,
) -> rusqlite::Result<Option<Bytes>> {
    let sql = format!("SELECT body FROM referrers WHERE image = {IMAGE} AND subject = ?3");
    let values = [image.registry.as_str(), image.repository.as_str(), &subject.to_string()];
    Ok(ask(connection, &sql, values, |row| row.get::<_, Vec<u8>>(0))?.map(Bytes::from))
}
