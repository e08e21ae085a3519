//! One change of the index: a transaction, and what it does to the totals.

use std::collections::HashMap;

use bytes::Bytes;
use rusqlite::{OptionalExtension, Transaction, params};
use sampan_oci::{Digest, ImageName, Manifest, ManifestKind, Millis, Tag};

use crate::clear::Removal;
use crate::error::StoreError;

/// A running change; nothing of it is seen before it is committed.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    transaction: Transaction<'a>,
    size_bytes: i64,
    blobs: i64,
}

/// SQLite's integers end at 2^63 - 1; a size beyond any disk needs no exact record.
pub(super) fn integer(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

impl<'a> Change<'a> {
    pub(super) fn new(transaction: Transaction<'a>) -> Self {
        Self { transaction, size_bytes: 0, blobs: 0 }
    }

    /// Ends the change; returns by how much the size in bytes and the number of blobs grew.
    pub(super) fn commit(self) -> rusqlite::Result<(i64, i64)> {
        self.transaction.commit()?;
        Ok((self.size_bytes, self.blobs))
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
        statement.query_row([digest], |row| row.get(0)).optional()
    }

    /// Records a file under `blobs/`.
    pub(crate) fn record_blob(&mut self, digest: &Digest, size: u64, now: Millis) -> Result<(), StoreError> {
        let (text, size) = (digest.to_string(), integer(size));
        let before = self.blob_size(&text)?;
        self.run(
            "INSERT INTO blob (digest, size, created) VALUES (?1, ?2, ?3)
             ON CONFLICT (digest) DO UPDATE SET size = excluded.size",
            params![text, size, now.0],
        )?;
        self.size_bytes += size - before.unwrap_or(0);
        self.blobs += i64::from(before.is_none());
        Ok(())
    }

    /// Forgets a file that is no longer under `blobs/`, and what it was.
    pub(crate) fn forget_blob(&mut self, digest: &Digest) -> Result<(), StoreError> {
        let text = digest.to_string();
        if let Some(size) = self.blob_size(&text)? {
            self.size_bytes -= size;
            self.blobs -= 1;
        }
        self.run("DELETE FROM blob WHERE digest = ?1", [&text])?;
        self.run("DELETE FROM manifest WHERE digest = ?1", [&text])?;
        self.run("DELETE FROM descriptor WHERE manifest = ?1", [&text])?;
        Ok(())
    }

    /// Makes the index agree with the files found on disk, and counts the totals from nothing.
    pub(super) fn square_with(&mut self, files: &[(Digest, u64)], now: Millis) -> Result<(), StoreError> {
        let mut rows: HashMap<String, i64> = HashMap::new();
        let mut statement = self.transaction.prepare("SELECT digest, size FROM blob")?;
        for row in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (digest, size) = row?;
            rows.insert(digest, size);
        }
        drop(statement);
        for (digest, size) in files {
            if rows.remove(&digest.to_string()) != Some(integer(*size)) {
                self.record_blob(digest, *size, now)?;
            }
        }
        for gone in rows.into_keys() {
            self.run("DELETE FROM blob WHERE digest = ?1", [gone])?;
        }
        self.run("DELETE FROM manifest WHERE digest NOT IN (SELECT digest FROM blob)", [])?;
        self.run("DELETE FROM descriptor WHERE manifest NOT IN (SELECT digest FROM manifest)", [])?;
        self.size_bytes = files.iter().map(|(_, size)| integer(*size)).sum();
        self.blobs = integer(files.len() as u64);
        Ok(())
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
        Ok(self.insert_link(image, digest, size, now)?)
    }

    fn insert_link(
        &self,
        image: i64,
        digest: &Digest,
        size: Option<u64>,
        now: Millis,
    ) -> rusqlite::Result<()> {
        self.run(
            "INSERT INTO link (image, digest, size, created, last_used) VALUES (?1, ?2, ?3, ?4, ?4)
             ON CONFLICT (image, digest) DO UPDATE SET size = coalesce(excluded.size, size),
                 last_used = max(last_used, excluded.last_used)",
            params![image, digest.to_string(), size.map(integer), now.0],
        )?;
        Ok(())
    }

    /// Records what a manifest is and lists, and links it and all it lists to the image.
    pub(crate) fn record_manifest(
        &mut self,
        image: &ImageName,
        manifest: &Manifest,
        size: u64,
        now: Millis,
    ) -> Result<(), StoreError> {
        let image = self.image(image)?;
        self.insert_link(image, &manifest.digest, Some(size), now)?;
        for listed in manifest.descriptors() {
            self.insert_link(image, &listed.digest, Some(listed.size), now)?;
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
        let digest = digest.to_string();
        self.run(
            "INSERT INTO tag (image, tag, digest, checked) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (image, tag) DO UPDATE SET digest = excluded.digest, checked = excluded.checked",
            params![image, tag.as_str(), digest, now.0],
        )?;
        self.run(
            "INSERT INTO tag_history (image, tag, digest, first_seen) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![image, tag.as_str(), digest, now.0],
        )?;
        Ok(())
    }

    /// Records that a tag was confirmed now; a tag that is not known stays unknown.
    pub(crate) fn touch_tag(&mut self, image: &ImageName, tag: &Tag, now: Millis) -> Result<(), StoreError> {
        let image = self.image(image)?;
        self.run(
            "UPDATE tag SET checked = ?3 WHERE image = ?1 AND tag = ?2",
            params![image, tag.as_str(), now.0],
        )?;
        Ok(())
    }

    /// Records a use of something linked to the image.
    pub(super) fn record_use(
        &mut self,
        image: &ImageName,
        digest: &Digest,
        used: Millis,
    ) -> Result<(), StoreError> {
        self.run(
            "UPDATE link SET last_used = max(last_used, ?4) WHERE digest = ?3
             AND image = (SELECT id FROM image WHERE registry = ?1 AND repository = ?2)",
            params![image.registry.as_str(), image.repository.as_str(), digest.to_string(), used.0],
        )?;
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
            self.run("DELETE FROM tag WHERE image = ?1 AND tag = ?2", params![image, tag.as_str()])?;
            self.run("DELETE FROM tag_history WHERE image = ?1 AND tag = ?2", params![image, tag.as_str()])?;
        }
        for (image, digest) in &removal.links {
            let digest = digest.to_string();
            self.run("DELETE FROM link WHERE image = ?1 AND digest = ?2", params![image, digest])?;
            self.run("DELETE FROM referrers WHERE image = ?1 AND subject = ?2", params![image, digest])?;
        }
        for image in &removal.images {
            for table in ["tag", "tag_history", "link", "referrers"] {
                self.run(&format!("DELETE FROM {table} WHERE image = ?1"), [image])?;
            }
        }
        self.run(
            "DELETE FROM image WHERE NOT EXISTS (SELECT 1 FROM tag WHERE image = image.id)
             AND NOT EXISTS (SELECT 1 FROM link WHERE image = image.id)
             AND NOT EXISTS (SELECT 1 FROM referrers WHERE image = image.id)",
            [],
        )?;
        Ok(())
    }
}
