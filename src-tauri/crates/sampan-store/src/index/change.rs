//! One change of the index: a transaction, and what it does to the totals.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use rusqlite::{OptionalExtension, Transaction, params};
use sampan_oci::{Digest, ImageName, Manifest, ManifestKind, Millis, Reference, Tag};

use super::readable::readable;
use crate::clear::Removal;
use crate::error::StoreError;
use crate::publish::Origin;

/// A running change; nothing of it is seen before it is committed.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    transaction: Transaction<'a>,
    size_bytes: i64,
    blobs: i64,
    named: Vec<Digest>,
    about: HashSet<Digest>,
    age: i64,
}

/// What a committed change did.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// By how many bytes the blobs grew together.
    pub(super) size_bytes: i64,
    /// By how many blobs they became more.
    pub(super) blobs: i64,
    /// What manifests, tags, links and pins came to lead to, and what was used: an eviction that was decided before must
    /// spare it.
    pub(super) named: Vec<Digest>,
    /// What else came or went, or was pointed at: answers that name it may have changed.
    pub(super) about: HashSet<Digest>,
}

/// On whose word something is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The upstream's, or that of a person who vouches for an import.
    Proof,
    /// An import's alone: it proves nothing (SECURITY.md R84).
    Hearsay,
}

/// SQLite's integers end at 2^63 - 1; a size beyond any disk needs no exact record.
pub(super) fn integer(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

impl<'a> Change<'a> {
    /// `age`: the count of [`age`](super::age) now.
    pub(super) fn new(transaction: Transaction<'a>, age: i64) -> Self {
        Self { transaction, size_bytes: 0, blobs: 0, named: Vec::new(), about: HashSet::new(), age }
    }

    /// The count of [`age`](super::age) when it began.
    pub(super) fn age(&self) -> i64 {
        self.age
    }

    /// Ends the change.
    pub(super) fn commit(self) -> rusqlite::Result<Done> {
        self.transaction.commit()?;
        Ok(Done { size_bytes: self.size_bytes, blobs: self.blobs, named: self.named, about: self.about })
    }

    pub(super) fn run(&self, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.transaction.prepare_cached(sql)?.execute(values)
    }

    /// The key of the row that was inserted last.
    pub(super) fn last_row(&self) -> i64 {
        self.transaction.last_insert_rowid()
    }

    /// Whether a file of this digest is recorded.
    pub(crate) fn holds(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.blob_size(&digest.to_string())?.is_some())
    }

    fn blob_size(&self, digest: &str) -> rusqlite::Result<Option<i64>> {
        let mut statement = self.transaction.prepare_cached("SELECT size FROM blob WHERE digest = ?1")?;
        Ok(readable(statement.query_row([digest], |row| row.get(0)).optional())?.flatten())
    }

    /// Records a file that came under `blobs/` now, its bytes hashed.
    pub(crate) fn record_blob(
        &mut self,
        digest: &Digest,
        size: u64,
        origin: Origin,
        now: Millis,
    ) -> Result<(), StoreError> {
        let fetched = match origin {
            Origin::Link => size,
            Origin::Import => 0,
        };
        self.insert_blob(digest, size, fetched, now, now)
    }

    /// `checked`: when its bytes were last found right.
    fn insert_blob(
        &mut self,
        digest: &Digest,
        size: u64,
        fetched: u64,
        created: Millis,
        checked: Millis,
    ) -> Result<(), StoreError> {
        let (text, size) = (digest.to_string(), integer(size));
        let before = self.blob_size(&text)?;
        // What was fetched once is not imported by being imported too.
        self.run(
            "INSERT INTO blob (digest, size, created, fetched, checked, aged) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (digest) DO UPDATE SET size = excluded.size, checked = excluded.checked,
                 fetched = max(fetched, excluded.fetched), aged = excluded.aged",
            params![text, size, created.0, integer(fetched), checked.0, self.age],
        )?;
        self.size_bytes += size - before.unwrap_or(0);
        self.blobs += i64::from(before.is_none());
        self.about.insert(*digest);
        Ok(())
    }

    /// Forgets a file that is no longer under `blobs/`, and what it was.
    pub(crate) fn forget_blob(&mut self, digest: &Digest) -> Result<(), StoreError> {
        let text = digest.to_string();
        let mut statement =
            self.transaction.prepare_cached("DELETE FROM blob WHERE digest = ?1 RETURNING size")?;
        let size = readable(statement.query_row([&text], |row| row.get::<_, i64>(0)).optional())?.flatten();
        drop(statement);
        if let Some(size) = size {
            self.size_bytes -= size;
            self.blobs -= 1;
        }
        // Most blobs are none, and only manifests list anything.
        if self.run("DELETE FROM manifest WHERE digest = ?1", [&text])? > 0 {
            self.run("DELETE FROM descriptor WHERE manifest = ?1", [&text])?;
        }
        self.about.insert(*digest);
        Ok(())
    }

    /// Makes the index agree with the files found on disk, and counts the totals from nothing. Returns the files it did not
    /// know as they are.
    pub(super) fn square_with(
        &mut self,
        files: &[(Digest, u64)],
        now: Millis,
    ) -> Result<Vec<(Digest, u64)>, StoreError> {
        let mut rows: HashMap<String, i64> = HashMap::new();
        let mut statement = self.transaction.prepare("SELECT digest, size FROM blob")?;
        for row in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            if let Some((digest, size)) = readable(row)? {
                rows.insert(digest, size);
            }
        }
        drop(statement);
        let mut unknown = Vec::new();
        for (digest, size) in files {
            if rows.remove(&digest.to_string()) != Some(integer(*size)) {
                // Nothing says how it came. Most come over the link.
                self.insert_blob(digest, *size, *size, now, Millis(0))?;
                unknown.push((*digest, *size));
            }
        }
        for gone in rows.into_keys() {
            self.run("DELETE FROM blob WHERE digest = ?1", [gone])?;
        }
        self.run("DELETE FROM manifest WHERE digest NOT IN (SELECT digest FROM blob)", [])?;
        self.run("DELETE FROM descriptor WHERE manifest NOT IN (SELECT digest FROM manifest)", [])?;
        self.size_bytes = files.iter().map(|(_, size)| integer(*size)).sum();
        self.blobs = integer(files.len() as u64);
        Ok(unknown)
    }

    /// The image's key, made if it is new.
    pub(super) fn image(&self, image: &ImageName) -> rusqlite::Result<i64> {
        let (registry, repository) = (image.registry.as_str(), image.repository.as_str());
        self.run(
            "INSERT INTO image (registry, repository) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            [registry, repository],
        )?;
        self.transaction
            .prepare_cached("SELECT id FROM image WHERE registry = ?1 AND repository = ?2")?
            .query_row([registry, repository], |row| row.get(0))
    }

    /// Records that the image shows this digest. A size that is known stays known.
    pub(crate) fn add_link(
        &mut self,
        image: &ImageName,
        digest: &Digest,
        size: Option<u64>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let image = self.image(image)?;
        Ok(self.insert_link(image, digest, size, Word::Proof, now)?)
    }

    fn insert_link(
        &mut self,
        image: i64,
        digest: &Digest,
        size: Option<u64>,
        word: Word,
        now: Millis,
    ) -> rusqlite::Result<()> {
        // A proof stays one, and does not take its size from hearsay.
        let sql = match word {
            Word::Proof => {
                "INSERT INTO link (image, digest, size, created, last_used, aged) VALUES (?1, ?2, ?3, ?4, ?4, ?5)
                 ON CONFLICT (image, digest) DO UPDATE SET
                     size = CASE proven WHEN 1 THEN coalesce(excluded.size, size) ELSE excluded.size END,
                     proven = 1, last_used = max(last_used, excluded.last_used), aged = excluded.aged"
            }
            Word::Hearsay => {
                "INSERT INTO link (image, digest, size, created, last_used, proven, aged) VALUES (?1, ?2, ?3, ?4, ?4, 0, ?5)
                 ON CONFLICT (image, digest) DO UPDATE SET last_used = max(last_used, excluded.last_used),
                     aged = excluded.aged"
            }
        };
        self.run(sql, params![image, digest.to_string(), size.map(integer), now.0, self.age])?;
        self.named.push(*digest);
        Ok(())
    }

    /// Whether the digest is known to be a manifest.
    fn is_manifest(&self, digest: &str) -> rusqlite::Result<bool> {
        self.transaction.prepare_cached("SELECT 1 FROM manifest WHERE digest = ?1")?.exists([digest])
    }

    /// Records what a manifest is and lists, and links it and all it lists to the image.
    pub(crate) fn record_manifest(
        &mut self,
        image: &ImageName,
        manifest: &Manifest,
        size: u64,
        word: Word,
        now: Millis,
    ) -> Result<(), StoreError> {
        let image = self.image(image)?;
        let digest = manifest.digest.to_string();
        self.insert_link(image, &manifest.digest, Some(size), word, now)?;
        for listed in manifest.descriptors() {
            self.insert_link(image, &listed.digest, Some(listed.size), word, now)?;
        }
        // The same bytes list the same, but of what kind they are may hang on what was said beside them.
        if word == Word::Hearsay && self.is_manifest(&digest)? {
            return Ok(());
        }
        Ok(self.record_listing(manifest)?)
    }

    /// Records what a manifest is and lists, and nothing of who shows it.
    pub(super) fn record_listing(&self, manifest: &Manifest) -> rusqlite::Result<()> {
        let digest = manifest.digest.to_string();
        self.run(
            "INSERT INTO manifest (digest, media_type) VALUES (?1, ?2)
             ON CONFLICT (digest) DO UPDATE SET media_type = excluded.media_type",
            [&digest, manifest.media_type.as_str()],
        )?;
        self.run("DELETE FROM descriptor WHERE manifest = ?1", [&digest])?;
        let is_image = matches!(manifest.kind, ManifestKind::Image { .. });
        for (place, listed) in (0_i64..).zip(manifest.descriptors()) {
            let platform = listed.platform.as_ref();
            self.run(
                "INSERT INTO descriptor (manifest, place, digest, size, configuration, architecture, os, variant)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    digest,
                    place,
                    listed.digest.to_string(),
                    integer(listed.size),
                    is_image && place == 0,
                    platform.map(|p| &p.architecture),
                    platform.map(|p| &p.os),
                    platform.and_then(|p| p.variant.as_ref()),
                ],
            )?;
        }
        Ok(())
    }

    /// Points a tag at a digest, as seen now.
    pub(crate) fn set_tag(
        &mut self,
        image: &ImageName,
        tag: &Tag,
        digest: &Digest,
        now: Millis,
    ) -> Result<(), StoreError> {
        let image = self.image(image)?;
        Ok(self.insert_tag(image, tag, digest, Word::Proof, now)?)
    }

    fn insert_tag(
        &mut self,
        image: i64,
        tag: &Tag,
        digest: &Digest,
        word: Word,
        now: Millis,
    ) -> rusqlite::Result<()> {
        let text = digest.to_string();
        self.leave("SELECT digest FROM tag WHERE image = ?1 AND tag = ?2", params![image, tag.as_str()])?;
        self.run(
            "INSERT INTO tag (image, tag, digest, checked, confirmed) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (image, tag) DO UPDATE SET digest = excluded.digest, checked = excluded.checked,
                 confirmed = excluded.confirmed, gone = 0 WHERE frozen = 0",
            params![image, tag.as_str(), text, now.0, word == Word::Proof],
        )?;
        self.run(
            "INSERT INTO tag_history (image, tag, digest, first_seen) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![image, tag.as_str(), text, now.0],
        )?;
        self.run(
            "UPDATE link SET aged = ?3 WHERE image = ?1 AND digest = ?2",
            params![image, text, self.age],
        )?;
        self.named.push(*digest);
        Ok(())
    }

    /// Points a tag at a digest for good, until [`unfreeze`](Self::unfreeze). Returns whether that is held as a manifest
    /// that the image shows; if not, nothing changes.
    pub(crate) fn freeze(
        &mut self,
        image: &ImageName,
        tag: &Tag,
        digest: &Digest,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let key = self.image(image)?;
        let text = digest.to_string();
        let held = self
            .transaction
            .prepare_cached(
                "SELECT 1 FROM link JOIN blob ON blob.digest = link.digest
                 JOIN manifest ON manifest.digest = link.digest
                 WHERE link.image = ?1 AND link.digest = ?2 AND link.proven = 1",
            )?
            .exists(params![key, text])?;
        if !held {
            self.forget_image_if_empty(key)?;
            return Ok(false);
        }
        self.unfreeze_row(key, tag)?;
        let checked: Option<i64> = self
            .transaction
            .prepare_cached("SELECT checked FROM tag WHERE image = ?1 AND tag = ?2 AND digest = ?3")?
            .query_row(params![key, tag.as_str(), text], |row| row.get(0))
            .optional()?;
        // Freezing is no word of the upstream's: that it confirmed the tag is as long ago as before.
        self.insert_tag(key, tag, digest, Word::Proof, now)?;
        self.run(
            "UPDATE tag SET frozen = 1, checked = ?3 WHERE image = ?1 AND tag = ?2",
            params![key, tag.as_str(), checked.unwrap_or(0)],
        )?;
        Ok(true)
    }

    /// Lets a tag move again. Returns whether it was frozen.
    pub(crate) fn unfreeze(&mut self, image: &ImageName, tag: &Tag) -> Result<bool, StoreError> {
        let key = self.image(image)?;
        let was = self.unfreeze_row(key, tag)?;
        self.forget_image_if_empty(key)?;
        Ok(was)
    }

    fn unfreeze_row(&mut self, image: i64, tag: &Tag) -> rusqlite::Result<bool> {
        let sql = "UPDATE tag SET frozen = 0 WHERE image = ?1 AND tag = ?2 AND frozen = 1 RETURNING digest";
        Ok(self.leave(sql, params![image, tag.as_str()])? > 0)
    }

    /// Notes that the upstream has no such tag any more, unless it points elsewhere by now or is frozen.
    pub(crate) fn tag_is_gone(
        &mut self,
        image: &ImageName,
        tag: &Tag,
        digest: &Digest,
        now: Millis,
    ) -> Result<(), StoreError> {
        let key = self.image(image)?;
        self.leave(
            "UPDATE tag SET gone = ?4 WHERE image = ?1 AND tag = ?2 AND digest = ?3 AND frozen = 0 RETURNING digest",
            params![key, tag.as_str(), digest.to_string(), now.0],
        )?;
        Ok(self.forget_image_if_empty(key)?)
    }

    /// Notes which digests were pointed at: `sql` tells. Returns how many.
    fn leave(&mut self, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<usize> {
        let mut count = 0;
        let mut statement = self.transaction.prepare_cached(sql)?;
        let left = statement.query_map(values, |row| row.get::<_, String>(0))?;
        for digest in left {
            // A text that is no digest is no answer to anybody.
            self.about.extend(readable(digest)?.and_then(|text| text.parse::<Digest>().ok()));
            count += 1;
        }
        Ok(count)
    }

    /// Points a tag at a digest on an import's word alone: a tag that an upstream confirmed stays as it is. Returns where
    /// that one points.
    pub(crate) fn suggest_tag(
        &mut self,
        image: &ImageName,
        tag: &Tag,
        digest: &Digest,
        now: Millis,
    ) -> Result<Option<Digest>, StoreError> {
        let image = self.image(image)?;
        let confirmed: Option<String> = self
            .transaction
            .prepare_cached("SELECT digest FROM tag WHERE image = ?1 AND tag = ?2 AND confirmed = 1")?
            .query_row(params![image, tag.as_str()], |row| row.get(0))
            .optional()?;
        // One that cannot be read points nowhere.
        if let Some(confirmed) = confirmed.and_then(|text| text.parse().ok()) {
            return Ok(Some(confirmed));
        }
        self.insert_tag(image, tag, digest, Word::Hearsay, now)?;
        Ok(None)
    }

    /// Records when a tag was confirmed again; one that its upstream never named stays as it is.
    pub(super) fn touch_tag(&mut self, image: &ImageName, tag: &Tag, now: Millis) -> Result<(), StoreError> {
        self.run(
            "UPDATE tag SET checked = max(checked, ?4) WHERE tag = ?3 AND confirmed = 1
             AND image = (SELECT id FROM image WHERE registry = ?1 AND repository = ?2)",
            params![image.registry.as_str(), image.repository.as_str(), tag.as_str(), now.0],
        )?;
        Ok(())
    }

    /// Keeps what the reference names from making way. Returns whether that is held. A digest that is not held as a
    /// manifest of the image is not pinned.
    pub(crate) fn pin(
        &mut self,
        image: &ImageName,
        reference: &Reference,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let sql = match reference {
            Reference::Tag(_) => {
                "SELECT blob.digest FROM tag JOIN blob ON blob.digest = tag.digest
                 WHERE tag.image = (SELECT id FROM image WHERE registry = ?1 AND repository = ?2) AND tag.tag = ?3"
            }
            Reference::Digest(_) => {
                "SELECT blob.digest FROM link JOIN blob ON blob.digest = link.digest
                 JOIN manifest ON manifest.digest = link.digest
                 WHERE link.image = (SELECT id FROM image WHERE registry = ?1 AND repository = ?2)
                 AND link.digest = ?3"
            }
        };
        let text = reference.to_string();
        let held: Option<String> = self
            .transaction
            .prepare_cached(sql)?
            .query_row([image.registry.as_str(), image.repository.as_str(), &text], |row| row.get(0))
            .optional()?;
        if held.is_none() && matches!(reference, Reference::Digest(_)) {
            return Ok(false);
        }
        let image = self.image(image)?;
        self.run(
            "INSERT INTO pin (image, reference, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            params![image, text, now.0],
        )?;
        self.named.extend(held.iter().filter_map(|digest| digest.parse::<Digest>().ok()));
        Ok(held.is_some())
    }

    /// Lets it make way again. Returns whether it was pinned.
    pub(crate) fn unpin(&mut self, image: &ImageName, reference: &Reference) -> Result<bool, StoreError> {
        let key: Option<i64> = self
            .transaction
            .prepare_cached("SELECT id FROM image WHERE registry = ?1 AND repository = ?2")?
            .query_row([image.registry.as_str(), image.repository.as_str()], |row| row.get(0))
            .optional()?;
        let Some(key) = key else { return Ok(false) };
        let text = reference.to_string();
        let removed = self.run("DELETE FROM pin WHERE image = ?1 AND reference = ?2", params![key, text])?;
        self.forget_image_if_empty(key)?;
        Ok(removed > 0)
    }

    /// Records uses of something linked to the image, the last one at `used`; `hits` of them were answered from what is
    /// held.
    pub(super) fn record_use(
        &mut self,
        image: &ImageName,
        digest: &Digest,
        used: Millis,
        hits: u32,
    ) -> Result<(), StoreError> {
        let (registry, repository) = (image.registry.as_str(), image.repository.as_str());
        self.run(
            "UPDATE link SET last_used = max(last_used, ?4), hits = hits + ?5, aged = ?6 WHERE digest = ?3
             AND image = (SELECT id FROM image WHERE registry = ?1 AND repository = ?2)",
            params![registry, repository, digest.to_string(), used.0, hits, self.age],
        )?;
        self.named.push(*digest);
        Ok(())
    }

    /// Keeps an upstream's list of what refers to `subject`.
    pub(crate) fn put_referrers(
        &mut self,
        image: &ImageName,
        subject: &Digest,
        body: &Bytes,
    ) -> Result<(), StoreError> {
        let image = self.image(image)?;
        self.run(
            "INSERT INTO referrers (image, subject, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (image, subject) DO UPDATE SET body = excluded.body",
            params![image, subject.to_string(), &body[..]],
        )?;
        Ok(())
    }

    /// Forgets what was cleared, except the blobs: those by [`forget_blob`](Self::forget_blob), once they are gone.
    pub(crate) fn forget(&mut self, removal: &Removal) -> Result<(), StoreError> {
        for (image, tag) in &removal.tags {
            self.leave(
                "DELETE FROM tag WHERE image = ?1 AND tag = ?2 RETURNING digest",
                params![image, tag.as_str()],
            )?;
            self.run("DELETE FROM tag_history WHERE image = ?1 AND tag = ?2", params![image, tag.as_str()])?;
        }
        for (image, digest) in &removal.links {
            self.about.insert(*digest);
            let digest = digest.to_string();
            self.run("DELETE FROM link WHERE image = ?1 AND digest = ?2", params![image, digest])?;
            self.run("DELETE FROM referrers WHERE image = ?1 AND subject = ?2", params![image, digest])?;
        }
        for (image, reference) in &removal.pins {
            let reference = reference.to_string();
            self.run("DELETE FROM pin WHERE image = ?1 AND reference = ?2", params![image, reference])?;
        }
        for image in &removal.images {
            for table in ["tag", "link"] {
                self.leave(&format!("DELETE FROM {table} WHERE image = ?1 RETURNING digest"), [image])?;
            }
            for table in ["tag_history", "referrers", "pin"] {
                self.run(&format!("DELETE FROM {table} WHERE image = ?1"), [image])?;
            }
        }
        let of_tags = removal.tags.iter().map(|(image, _)| *image);
        let of_links = removal.links.iter().map(|(image, _)| *image);
        let touched: HashSet<i64> = of_tags.chain(of_links).chain(removal.images.iter().copied()).collect();
        for image in touched {
            self.forget_image_if_empty(image)?;
        }
        Ok(())
    }

    /// A name of which nothing is known takes no room. Its key is given to another name some day: no row may be left that
    /// has it.
    fn forget_image_if_empty(&self, image: i64) -> rusqlite::Result<()> {
        let gone = self.run(
            "DELETE FROM image WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM tag WHERE image = ?1)
             AND NOT EXISTS (SELECT 1 FROM link WHERE image = ?1)
             AND NOT EXISTS (SELECT 1 FROM referrers WHERE image = ?1)
             AND NOT EXISTS (SELECT 1 FROM pin WHERE image = ?1)",
            [image],
        )?;
        if gone > 0 {
            self.run("DELETE FROM tag_history WHERE image = ?1", [image])?;
        }
        Ok(())
    }
}
