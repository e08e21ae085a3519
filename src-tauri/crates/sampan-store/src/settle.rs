//! Keeping `index.json` up to date, and leaving the folder so that the next start can trust it.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sampan_oci::{Digest, MediaType, Millis, Reference};

use crate::error::StoreError;
use crate::index;
use crate::index::readable::readable;
use crate::index_json::{self, Root};
use crate::store::{Inner, Store};

pub(crate) const FILE: &str = "index.json";
/// `index.json` is written at most this often.
const SETTLE_EVERY: Duration = Duration::from_secs(30);

/// When `index.json` was last written by this process.
#[derive(Debug, Default)]
pub(crate) struct Settled(Mutex<Option<Instant>>);

impl Store {
    /// Writes `index.json` if what is held has changed since, at most every 30 s: for housekeeping. With it the folder is
    /// an OCI image layout, and a lost index gets its tags, proofs and pins back (of pins, those on what is held); an index
    /// that is not lost survives a power cut as it is now. [`flush`](Self::flush) does it at once. Also measures what the index
    /// and the ledgers take of the [quota](Self::set_quota), each time.
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::ReadOnly`], [`StoreError::Io`], [`StoreError::Index`]: the file is as it was, and
    /// the next call tries again.
    pub async fn settle_layout(&self) -> Result<(), StoreError> {
        self.run(|inner| {
            let settled = inner.settle_index_json(SETTLE_EVERY);
            inner.own.measure(&inner.layout);
            settled
        })
        .await
    }
}

impl Inner {
    /// Writes `index.json`, and seals the index. What fails here costs only what a crash would cost.
    pub(crate) fn settle_for_good(&self) {
        if let Err(error) = self.settle_index_json(Duration::ZERO) {
            tracing::warn!(%error, "index.json could not be written");
        }
        if let Err(error) = self.index.seal() {
            tracing::warn!(%error, "the index could not be sealed");
        }
    }

    fn settle_index_json(&self, every: Duration) -> Result<(), StoreError> {
        if self.layout.is_read_only() {
            return Ok(());
        }
        let mut last = self.settled.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < every) || !self.index.take_stale() {
            return Ok(());
        }
        // Both, so that it does not matter whether a power cut takes the index or only its last changes.
        let written = self.index.sync().and_then(|()| self.write_index_json());
        match &written {
            Ok(()) => *last = Some(Instant::now()),
            Err(_) => self.index.set_stale(),
        }
        written
    }

    fn write_index_json(&self) -> Result<(), StoreError> {
        let bytes = index_json::encode(&self.index.report(|connection| roots(connection))?);
        let root = &self.layout.root;
        if let Some(file) = root.open_file(FILE)?
            && file.read_up_to(bytes.len() + 1)? == bytes
        {
            return Ok(());
        }
        let name = format!("{FILE}.new");
        let file = root.open_for_writing(&name, false)?;
        file.set_len(0)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        root.rename(&name, root, FILE)?;
        Ok(root.sync()?)
    }
}

/// Every image held that everybody may see, as `index.json` is to tell it, and every pin on what is held. A pin on a tag that is not held, or on a
/// digest while it is damaged, has no descriptor it could stand at: it is lost with the index.
fn roots(connection: &Connection) -> rusqlite::Result<Vec<Root>> {
    let catalog = index::catalog(connection)?;
    let media_types: HashMap<String, String> =
        pairs(connection, "SELECT digest, media_type FROM manifest")?.collect();
    let pins: HashSet<(i64, String)> = keyed(connection, "SELECT image, reference FROM pin")?;
    let unconfirmed = keyed(connection, "SELECT image, tag FROM tag WHERE confirmed = 0")?;
    let unproven = keyed(connection, "SELECT image, digest FROM link WHERE proven = 0")?;
    let proofs: HashSet<(i64, Digest)> =
        catalog.links.iter().filter(|link| link.proven).map(|link| (link.image, link.digest)).collect();
    // The manifests below one whose parts the image is known to show.
    let proven = |key: i64, reach: &HashSet<Digest>, root: &Digest| {
        let shown = |digest: &&Digest| {
            let listed = catalog.manifests.get(*digest);
            *digest != root
                && listed.is_some_and(|l| l.iter().all(|edge| proofs.contains(&(key, edge.digest))))
        };
        let mut proven: Vec<Digest> = reach.iter().filter(shown).copied().collect();
        proven.sort_unstable();
        proven
    };
    // Platforms are not told here: no image configuration is read for it.
    let entries = catalog.entries(|_| None);
    let untagged: HashSet<(i64, Digest)> = entries
        .iter()
        .filter(|entry| entry.shown.tag.is_none())
        .map(|entry| (entry.key, entry.shown.digest))
        .collect();
    let private = index::private::keys(connection)?;
    let mut roots: Vec<Root> = entries
        .into_iter()
        .filter(|entry| !private.contains(&entry.key))
        .filter_map(|entry| {
            let proven = proven(entry.key, &entry.reach, &entry.shown.digest);
            let (key, shown) = (entry.key, entry.shown);
            let digest = shown.digest.to_string();
            let reference = shown.tag.as_ref().map_or_else(|| digest.clone(), ToString::to_string);
            let unconfirmed = match &shown.tag {
                Some(_) => unconfirmed.contains(&(key, reference.clone())),
                None => unproven.contains(&(key, digest.clone())),
            };
            Some(Root {
                size: size_of(&catalog, &shown.digest)?,
                media_type: MediaType::parse(media_types.get(&digest)?)?,
                image: shown.image,
                tag: shown.tag,
                digest: shown.digest,
                first_seen: shown.created,
                pinned: pins.contains(&(key, reference)),
                frozen: shown.frozen,
                confirmed: !unconfirmed,
                proven,
            })
        })
        .collect();
    // What is pinned by its digest and is no entry, or one by a tag: told once more, by its digest.
    let created: HashMap<(i64, Digest), Millis> =
        catalog.links.iter().map(|link| ((link.image, link.digest), link.created)).collect();
    let pinned = catalog.pins.iter().filter_map(|(key, reference)| {
        let Reference::Digest(digest) = reference else { return None };
        let place = (*key, *digest);
        if private.contains(key) {
            return None;
        }
        Some(Root {
            size: size_of(&catalog, digest).filter(|_| !untagged.contains(&place))?,
            media_type: MediaType::parse(media_types.get(&digest.to_string())?)?,
            image: catalog.images.get(key)?.clone(),
            tag: None,
            digest: *digest,
            first_seen: *created.get(&place)?,
            pinned: true,
            frozen: false,
            confirmed: proofs.contains(&place),
            proven: proven(*key, &catalog.reach(*digest), digest),
        })
    });
    let mut pinned: Vec<Root> = pinned.collect();
    pinned.sort_by(|a, b| (&a.image, a.digest).cmp(&(&b.image, b.digest)));
    roots.extend(pinned);
    Ok(roots)
}

fn size_of(catalog: &crate::catalog::Catalog, digest: &Digest) -> Option<u64> {
    catalog.held.get(digest).map(|held| held.size)
}

fn pairs(connection: &Connection, sql: &str) -> rusqlite::Result<impl Iterator<Item = (String, String)>> {
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<Option<_>> = rows.map(readable).collect::<rusqlite::Result<_>>()?;
    Ok(rows.into_iter().flatten())
}

fn keyed(connection: &Connection, sql: &str) -> rusqlite::Result<HashSet<(i64, String)>> {
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<Option<_>> = rows.map(readable).collect::<rusqlite::Result<_>>()?;
    Ok(rows.into_iter().flatten().collect())
}
