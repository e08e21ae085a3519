//! Commands about what is in the cache: images, clearing and its undoing, pins, the quota.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sampan_oci::{Digest, Manifest, Millis, Reference};
use sampan_store::{Cleared, ImageEntry, Selected, Store, StoreError, Undo};

use crate::api::{
    ApiError, ClearReport, ClearSelection, HealthReport, ImageDetails, Quota, Settings, SettingsChange,
};
use crate::app::Inner;
use crate::housekeeping::{House, Work};
use crate::{allowance, convert, cost};

/// How long a cleared image can be brought back.
pub(crate) const UNDO_MILLIS: i64 = 10_000;
/// Somewhat longer than from one time of settling the folder to the next.
const KEEP_SPENT: std::time::Duration = std::time::Duration::from_secs(40);
const GIB: u64 = 1 << 30;
/// The part of the disk that is left free (SECURITY.md 3), and the bounds of that: 5 % of a large disk is more than anybody
/// misses.
const FLOOR_PART: u64 = 20;
const FLOOR_BYTES_MIN: u64 = GIB;
const FLOOR_BYTES_MAX: u64 = 10 * GIB;
/// The bounds of a quota that Sampan chooses.
const AUTO_BYTES_MIN: u64 = GIB;
const AUTO_BYTES_MAX: u64 = 100 * GIB;

/// The free bytes that Sampan leaves alone on a disk of this size.
pub(crate) fn default_floor(total_bytes: Option<u64>) -> u64 {
    total_bytes.map_or(0, |total| total / FLOOR_PART).clamp(FLOOR_BYTES_MIN, FLOOR_BYTES_MAX)
}

/// What was cleared and can be brought back.
#[derive(Debug, Default)]
pub(crate) struct Undos(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    list: Vec<(u64, Undo, Millis)>,
}

impl Undos {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, undo: Undo, until: Millis) -> u64 {
        let mut waiting = self.waiting();
        waiting.next += 1;
        let id = waiting.next;
        waiting.list.push((id, undo, until));
        id
    }

    /// Takes out the one with this number, or the newest.
    fn take(&self, id: Option<u64>) -> Option<Undo> {
        let mut waiting = self.waiting();
        let place = match id {
            Some(id) => waiting.list.iter().position(|(known, _, _)| *known == id)?,
            None => waiting.list.len().checked_sub(1)?,
        };
        Some(waiting.list.remove(place).1)
    }

    /// Whether the time of one is over.
    fn due(&self, now: Millis) -> bool {
        self.waiting().list.iter().any(|(_, _, until)| *until <= now)
    }

    /// Forgets those whose time is over; whether others wait.
    fn forget(&self, now: Millis) -> bool {
        let mut waiting = self.waiting();
        waiting.list.retain(|(_, _, until)| *until > now);
        !waiting.list.is_empty()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands it over")]
fn failed(error: StoreError) -> ApiError {
    convert::store_failed(&error)
}

impl Inner {
    /// What `name` names in the cache; at least one entry.
    pub(crate) async fn entries_of(&self, name: &str) -> Result<Vec<ImageEntry>, ApiError> {
        self.selected_entries(name, &convert::selected(name)?).await
    }

    async fn selected_entries(&self, name: &str, selected: &Selected) -> Result<Vec<ImageEntry>, ApiError> {
        let Selected { image, reference } = selected;
        let mut entries = self.store.images().await.map_err(failed)?;
        entries.retain(|entry| {
            entry.image == *image
                && match reference {
                    None => true,
                    Some(Reference::Tag(tag)) => entry.tag.as_ref() == Some(tag),
                    Some(Reference::Digest(digest)) => entry.digest == *digest,
                }
        });
        if entries.is_empty() {
            let message = format!("no image in the cache is named {name}");
            return Err(convert::not_held(message, "See `sampan images`; what is not there, pull first."));
        }
        Ok(entries)
    }

    /// What clearing would do, with its cost.
    pub(crate) async fn clear_preview(&self, selection: &ClearSelection) -> Result<ClearReport, ApiError> {
        let selection = convert::selection(selection, self.clock.now())?;
        let cleared = self.store.plan_clear(&selection).await.map_err(failed)?;
        Ok(self.with_cost(cleared).await)
    }

    /// Clears; a single image with a way back, unless `immediate`.
    pub(crate) async fn clear(
        &self,
        selection: &ClearSelection,
        immediate: bool,
    ) -> Result<ClearReport, ApiError> {
        let selection = convert::selection(selection, self.clock.now())?;
        let (cleared, undo) = if immediate {
            (self.store.clear(&selection).await.map_err(failed)?, None)
        } else {
            self.store.clear_later(&selection).await.map_err(failed)?
        };
        let mut report = self.with_cost(cleared).await;
        if let Some(undo) = undo {
            let until = self.clock.now().plus(UNDO_MILLIS);
            report.undo = Some(self.undos.add(undo, until));
            report.undo_until = Some(until.0);
            self.wakes.clears.notify_one();
        }
        self.keeping.forget();
        self.list_changed();
        self.refresh().await;
        Ok(report)
    }

    async fn with_cost(&self, cleared: Cleared) -> ClearReport {
        let mut report = convert::cleared(cleared);
        if report.refetch_bytes > 0 {
            // Without the numbers of past pulls no time is claimed.
            let pulls = self.read_stats(|stats| stats.history(cost::HISTORY)).await.unwrap_or_default();
            report.refetch_seconds = cost::refetch_seconds(report.refetch_bytes, cost::link_rate(&pulls));
        }
        report
    }

    /// Brings a cleared image back.
    pub(crate) async fn clear_undo(&self, id: Option<u64>) -> Result<(), ApiError> {
        let back = self.undos.take(id).is_some_and(|undo| self.store.undo_clear(&undo));
        // Also where it was too late: whoever asked sees an old list.
        self.list_changed();
        self.refresh().await;
        if back {
            return Ok(());
        }
        let message = "there is nothing to bring back: the 10 s are over, or nothing was cleared";
        Err(convert::not_held(message, "Pull the image again."))
    }

    /// Pins or unpins what `name` names.
    pub(crate) async fn pin(&self, name: &str, pinned: bool) -> Result<(), ApiError> {
        let selected = convert::selected(name)?;
        let entries = self.selected_entries(name, &selected).await?;
        let done = if pinned {
            self.pin_entries(&entries, &selected).await
        } else {
            self.unpin_entries(&entries).await
        };
        self.list_changed();
        self.refresh().await;
        done
    }

    async fn pin_entries(&self, entries: &[ImageEntry], selected: &Selected) -> Result<(), ApiError> {
        for entry in entries {
            // Who names a digest means that one, wherever the tag goes.
            let reference = match selected.reference {
                Some(Reference::Digest(digest)) => Reference::Digest(digest),
                Some(Reference::Tag(_)) | None => convert::reference(entry),
            };
            // Somebody else may have cleared it meanwhile.
            if !self.store.pin(&entry.image, &reference).await.map_err(failed)? {
                let message = format!("{} has just left the cache", entry.image.with(&reference));
                return Err(convert::not_held(message, "Pull it, then pin it."));
            }
        }
        Ok(())
    }

    async fn unpin_entries(&self, entries: &[ImageEntry]) -> Result<(), ApiError> {
        let mut unpinned = false;
        for entry in entries {
            // Either pin keeps it.
            let tag = entry.tag.clone().map(Reference::Tag);
            for reference in tag.into_iter().chain([Reference::Digest(entry.digest)]) {
                unpinned |= self.store.unpin(&entry.image, &reference).await.map_err(failed)?;
            }
        }
        match entries.iter().find(|entry| entry.pinned) {
            Some(entry) if !unpinned => {
                let name = entry.image.with(&convert::reference(entry));
                let message = format!("no pin of {name} was found, though it is shown as pinned");
                Err(convert::not_held(message, "See `sampan images`: somebody else may have unpinned it."))
            }
            Some(_) | None => {
                // What was pinned can make way now.
                if unpinned {
                    self.keeping.forget();
                }
                Ok(())
            }
        }
    }

    /// The list of images is not what it was, though the cache takes as much as before.
    pub(crate) fn list_changed(&self) {
        self.listed.fetch_add(1, Ordering::Relaxed);
    }

    /// Each image that `name` names, blob by blob.
    pub(crate) async fn image_details(&self, name: &str) -> Result<Vec<ImageDetails>, ApiError> {
        let mut details = Vec::new();
        for entry in self.entries_of(name).await? {
            let reference = convert::reference(&entry);
            let blobs = self.store.image_blobs(&entry.image, &reference).await.map_err(failed)?;
            let kinds = self.media_types(&entry).await;
            details.push(ImageDetails { image: convert::image(entry), blobs: convert::blobs(blobs, &kinds) });
        }
        Ok(details)
    }

    /// What the held manifests of an image say its parts are. What cannot be read says nothing.
    async fn media_types(&self, entry: &ImageEntry) -> HashMap<Digest, String> {
        let mut kinds = HashMap::new();
        let mut open = vec![entry.digest];
        while let Some(digest) = open.pop() {
            let Ok(Some((bytes, media_type))) = self.store.manifest(&entry.image, &digest).await else {
                continue;
            };
            kinds.insert(digest, media_type.to_string());
            let Ok(manifest) = Manifest::parse(&bytes, Some(media_type.as_str()), Some(&digest)) else {
                continue;
            };
            for part in manifest.descriptors() {
                if kinds.insert(part.digest, part.media_type.clone()).is_none() && manifest.is_index() {
                    open.push(part.digest);
                }
            }
        }
        kinds
    }

    /// What is known of damage, from the store itself.
    pub(crate) async fn health_report(&self) -> Result<HealthReport, ApiError> {
        let health = self.store.health().await.map_err(failed)?;
        Ok(HealthReport { last_run: self.scrubs.last(), ..convert::health(&health) })
    }

    /// Reads the counts of damage anew for the snapshots; says whether they are others than before.
    pub(crate) async fn read_health(&self) -> bool {
        match self.store.health().await {
            Ok(health) => {
                let counts = convert::health(&health).health;
                let mut known = self.health.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::replace(&mut *known, counts) != counts
            }
            Err(error) => {
                tracing::debug!(%error, "the counts of damage cannot be read");
                false
            }
        }
    }

    /// Puts the settings of the cache in force: all of them at the start, later what `change` names.
    pub(crate) async fn keep_by(&self, settings: &Settings, change: Option<&SettingsChange>) {
        // Chosen anew, `auto` is found out anew: the disk is not what it was.
        if change.is_none_or(|change| change.quota.is_some()) {
            let quota = quota_bytes(settings.quota, &self.store, self.floor_bytes).await;
            let in_force = self.store.usage().await.map_or(None, |usage| usage.quota_bytes);
            let later = quota.filter(|quota| change.is_some() && in_force.is_none_or(|now| *quota < now));
            *self.lower_quota() = later;
            if later.is_none() {
                self.store.set_quota(quota);
            }
            self.keeping.forget();
        }
        self.store.set_verify(convert::verify(settings.verify));
        if change.is_some_and(|change| change.quota.is_some() || change.max_age_days.is_some()) {
            self.wakes.settings.notify_one();
        }
    }
}

impl Inner {
    /// A quota that takes more than it gives, until it is in force: with the next room that is made, and not with the pull
    /// that happens to come while somebody is still choosing.
    pub(crate) fn lower_quota(&self) -> MutexGuard<'_, Option<u64>> {
        self.lower_quota.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The quota in bytes, as the disk is now; `None`: no cap but the disk.
async fn quota_bytes(quota: Quota, store: &Store, floor_bytes: u64) -> Option<u64> {
    match quota {
        Quota::Off => None,
        Quota::Bytes(bytes) => Some(bytes),
        Quota::Auto => {
            let usage = store.usage().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the cache cannot be measured for its quota");
                sampan_store::Usage::default()
            });
            let images = usage.size_bytes + usage.partial_bytes + usage.quarantine_bytes;
            let cache_bytes = images + usage.own_bytes;
            Some(auto_quota(usage.free_bytes, cache_bytes, floor_bytes))
        }
    }
}

/// The quota that Sampan chooses: by the free space above the floor. Where the system does not tell that, what the cache
/// takes already: nothing goes for a number that is not known, and nothing grows without a cap.
fn auto_quota(free_bytes: Option<u64>, cache_bytes: u64, floor_bytes: u64) -> u64 {
    match free_bytes {
        // On a full disk the floor refuses already; a quota of nothing would last when the disk has room again.
        Some(free) => {
            sampan_store::default_quota(free.saturating_sub(floor_bytes), cache_bytes).max(AUTO_BYTES_MIN)
        }
        None => cache_bytes.clamp(AUTO_BYTES_MIN, AUTO_BYTES_MAX),
    }
}

/// The app keeps its own house.
pub(crate) struct Keeper(pub(crate) Arc<Inner>);

impl House for Keeper {
    async fn carry_out(&self, work: Work) -> bool {
        let inner = &self.0;
        match work {
            Work::Clears => return inner.end_clears().await,
            Work::Layout => {
                inner.recover().await;
                if let Err(error) = inner.store.settle_layout().await {
                    tracing::warn!(%error, "the cache folder could not be settled");
                }
                if inner.read_health().await {
                    inner.refresh().await;
                }
                allowance::keep(&inner.stats, &inner.mirror, inner.clock.now(), KEEP_SPENT).await;
            }
            Work::Room => inner.make_room().await,
            Work::Scrub => inner.begin_scrub(true),
        }
        false
    }
}

impl Inner {
    /// Where the cache could not be written, tries again: somebody may have made room, or given the right back.
    async fn recover(&self) {
        if !self.keeping.is_read_only() {
            return;
        }
        if let Err(error) = self.store.recover().await {
            // The log is told by those who come for what is not kept, once a minute.
            tracing::debug!(%error, "the cache still cannot be written");
            return;
        }
        self.keeping.can_write();
        // What is found to be there may differ from what a copy of the index said.
        self.list_changed();
        self.refresh().await;
    }

    /// Removes what can no longer be brought back; whether more waits.
    async fn end_clears(&self) -> bool {
        // By the clock that the store goes by.
        let now = self.clock.now();
        if self.undos.due(now) {
            match self.store.settle_clears().await {
                Ok(()) => self.keeping.forget(),
                Err(error) => {
                    tracing::warn!(%error, "what was cleared could not be removed: it is listed again");
                }
            }
            self.list_changed();
            self.shows_something_new.store(true, Ordering::Relaxed);
        }
        self.undos.forget(now)
    }

    /// Goes below the quota, and removes what is past the age limit.
    async fn make_room(&self) {
        let mut removed = false;
        let lower = self.lower_quota().take();
        if lower.is_some() {
            self.store.set_quota(lower);
        }
        match self.store.make_room().await {
            Ok(evicted) if evicted.freed_bytes == 0 => {}
            Ok(evicted) => {
                removed = true;
                let (images, bytes) = (evicted.images, evicted.freed_bytes);
                tracing::info!(images, bytes, "what was not asked for the longest made way for the quota");
            }
            Err(error) => tracing::warn!(%error, "no room could be made in the cache"),
        }
        if let Some(days) = self.settings().max_age_days {
            match self.store.remove_unused(std::time::Duration::from_hours(24 * u64::from(days))).await {
                Ok(evicted) if evicted.images == 0 && evicted.blobs == 0 => {}
                Ok(evicted) => {
                    removed = true;
                    let (images, bytes) = (evicted.images, evicted.freed_bytes);
                    tracing::info!(days, images, bytes, "what nobody asked for in that time was removed");
                }
                Err(error) => tracing::warn!(%error, "what is past the age limit could not be removed"),
            }
        }
        if removed {
            self.keeping.forget();
            self.list_changed();
        }
        self.refresh().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk of 4 MiB, unmounted when dropped.
    #[cfg(target_os = "linux")]
    struct SmallDisk(tempfile::TempDir);

    #[cfg(target_os = "linux")]
    impl SmallDisk {
        /// `None`, with the reason printed, where the test may not mount one.
        fn mount() -> Option<Self> {
            let folder = tempfile::tempdir().unwrap();
            let mut mount = std::process::Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(folder.path());
            if mount.output().is_ok_and(|mounted| mounted.status.success()) {
                return Some(Self(folder));
            }
            sampan_testkit::cannot_run("a small disk can be mounted by root only");
            None
        }
    }

    #[cfg(target_os = "linux")]
    impl Drop for SmallDisk {
        fn drop(&mut self) {
            // Lazily: files of the cache may still be open.
            let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_cache_on_a_full_disk_is_written_again_by_the_next_housekeeping_once_there_is_room() {
        use crate::api::NotKeeping;
        use crate::{App, Config, Flags, Surroundings, SystemClock};

        let Some(disk) = SmallDisk::mount() else { return };
        let (state, cache) = (tempfile::tempdir().unwrap(), disk.0.path().join("cache"));
        let options = sampan_store::StoreOptions::new(cache.clone(), Arc::new(SystemClock));
        drop(Store::open(options).unwrap());
        let filler = disk.0.path().join("filler");
        // As much as there is, also where a write is cut in the middle.
        let written = std::fs::write(&filler, vec![1; 8 << 20]);
        assert!(written.is_err(), "the disk is full");
        let flags = Flags {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            cache_dir: Some(cache),
            state_dir: Some(state.path().join("state")),
            ..Flags::default()
        };
        let config = Config::load(flags).unwrap();
        let app = App::start(config, &Surroundings::default()).await.unwrap();
        let snapshots = app.snapshots();
        let shown = || snapshots.borrow().cache.not_keeping;
        let keeper = Keeper(app.inner.clone());
        keeper.carry_out(Work::Layout).await;
        assert_eq!(shown(), Some(NotKeeping::ReadOnly), "tried, and it still cannot be written");
        std::fs::remove_file(&filler).unwrap();
        keeper.carry_out(Work::Layout).await;
        assert_eq!(shown(), None, "space was deleted");
        let (image, tag) = ("docker.io/library/alpine".parse().unwrap(), "3.20".parse().unwrap());
        keeper.0.store.set_tag(&image, &tag, &Digest::of(b"new")).await.expect("it is written");
        app.shutdown().await;
    }

    #[test]
    fn the_floor_is_a_twentieth_of_the_disk_between_one_and_ten_gibibytes() {
        let table = [
            (None, GIB),
            (Some(0), GIB),
            (Some(20 * GIB), GIB),
            (Some(100 * GIB), 5 * GIB),
            (Some(200 * GIB), 10 * GIB),
            (Some(1000 * GIB), 10 * GIB),
        ];
        for (disk, floor) in table {
            assert_eq!(default_floor(disk), floor, "{disk:?}");
        }
    }

    #[test]
    fn the_chosen_quota_is_a_part_of_the_free_space_above_the_floor_and_always_a_cap() {
        let table = [
            (Some(50 * GIB), 0, 10 * GIB, 10 * GIB),
            (Some(50 * GIB), 40 * GIB, 10 * GIB, 20 * GIB),
            (Some(4 * GIB), 0, 10 * GIB, GIB),
            (Some(0), 0, GIB, GIB),
            (None, 0, GIB, GIB),
            (None, 40 * GIB, GIB, 40 * GIB),
            (None, 900 * GIB, GIB, 100 * GIB),
        ];
        for (free, cache, floor, quota) in table {
            assert_eq!(auto_quota(free, cache, floor), quota, "{free:?} free, {cache} ours, {floor} floor");
        }
    }
}
