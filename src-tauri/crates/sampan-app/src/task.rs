//! Export and import: one at a time, inside this process, since only it may open the cache.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::api::{ApiError, Code, Exported, Imported, Task, TaskKind};
use crate::app::{Inner, invalid};
use crate::convert;
use sampan_archive::{self as archive, ArchiveError, ArchiveName, ExportImage, ImportOptions, Progress};

/// The export or import that goes on, if one does.
#[derive(Debug, Default)]
pub(crate) struct TaskSlot(Mutex<Option<Current>>);

#[derive(Debug)]
struct Current {
    task: Task,
    stop: CancellationToken,
}

/// The place is free again once it is dropped, however the work ends.
struct Place<'a>(&'a TaskSlot);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.current() = None;
    }
}

impl TaskSlot {
    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is shown of it.
    pub(crate) fn shown(&self) -> Option<Task> {
        self.current().as_ref().map(|current| current.task.clone())
    }

    /// Stops it.
    pub(crate) fn stop(&self) {
        if let Some(current) = &*self.current() {
            current.stop.cancel();
        }
    }

    fn begin(&self, kind: TaskKind, path: &Path, stop: CancellationToken) -> Result<Place<'_>, ApiError> {
        let mut current = self.current();
        if let Some(Current { task, .. }) = &*current {
            let what = match task.kind {
                TaskKind::Export => "an export goes on already",
                TaskKind::Import => "an import goes on already",
            };
            let next_step = Some(
                "Wait for its end, or stop it by `sampan cancel`; `sampan cache` shows how far it is.".into(),
            );
            return Err(ApiError { code: Code::Busy, message: what.into(), next_step });
        }
        let task = Task { kind, done_bytes: 0, total_bytes: 0, name: path.display().to_string() };
        *current = Some(Current { task, stop });
        Ok(Place(self))
    }

    fn progress(&self, progress: &Progress) {
        if let Some(current) = &mut *self.current() {
            (current.task.done_bytes, current.task.total_bytes) = (progress.done_bytes, progress.total_bytes);
            if !progress.image.is_empty() {
                current.task.name.clone_from(&progress.image);
            }
        }
    }
}

fn absolute(path: &str) -> Result<PathBuf, ApiError> {
    let path = PathBuf::from(path);
    if path.is_absolute() { Ok(path) } else { Err(invalid("`path` is an absolute path")) }
}

impl Inner {
    /// Writes images to `path`.
    pub(crate) async fn export(self: &Arc<Self>, names: &[String], path: &str) -> Result<Exported, ApiError> {
        let target = absolute(path)?;
        let mut images = Vec::new();
        for name in names {
            let entries = self.entries_of(name).await?;
            images.extend(
                entries
                    .into_iter()
                    .map(|entry| ExportImage { reference: convert::reference(&entry), image: entry.image }),
            );
        }
        if images.is_empty() {
            return Err(invalid("`names` names at least one image"));
        }
        let work = archive::export(&self.store, &images, &target, |progress| self.worked(progress));
        let report = self.work(TaskKind::Export, &target, work).await?;
        Ok(convert::exported(report, &target))
    }

    /// Takes in what is at `path`.
    pub(crate) async fn import(
        self: &Arc<Self>,
        path: &str,
        trust_names: bool,
        name: Option<&str>,
    ) -> Result<Imported, ApiError> {
        let source = absolute(path)?;
        let parse = |name| {
            ArchiveName::parse(name)
                .ok_or_else(|| invalid("`name` is an image with its tag, such as nginx:1.27"))
        };
        let options = ImportOptions { trust_names, name: name.map(parse).transpose()? };
        let work = archive::import(&self.store, &source, options, |progress| self.worked(progress));
        let report = self.work(TaskKind::Import, &source, work).await?;
        Ok(convert::imported(&report))
    }

    fn worked(&self, progress: &Progress) {
        self.task.progress(progress);
        self.shows_something_new.store(true, Ordering::Relaxed);
    }

    /// Does it in the one place there is, until its end, Sampan's end, or a person stops it.
    async fn work<T>(
        &self,
        kind: TaskKind,
        path: &Path,
        work: impl Future<Output = Result<T, ArchiveError>>,
    ) -> Result<T, ApiError> {
        let stop = self.stopping();
        let place = self.task.begin(kind, path, stop.clone())?;
        self.refresh().await;
        let done = tokio::select! {
            done = work => done.map_err(|error| convert::archive_failed(&error)),
            () = stop.cancelled() => {
                let message = "it was stopped before its end".into();
                Err(ApiError { code: Code::Stopped, message, next_step: None })
            }
        };
        drop(place);
        self.refresh().await;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_goes_on_at_a_time_and_its_end_makes_place() {
        let slot = TaskSlot::default();
        let stop = CancellationToken::new();
        let place = slot.begin(TaskKind::Export, Path::new("/usb/images.tar"), stop.clone()).unwrap();
        let progress = Progress { done_bytes: 5, total_bytes: 9, image: String::new() };
        slot.progress(&progress);
        let shown = slot.shown().unwrap();
        assert_eq!((shown.done_bytes, shown.total_bytes, shown.name.as_str()), (5, 9, "/usb/images.tar"));
        let refused = slot.begin(TaskKind::Import, Path::new("/x"), CancellationToken::new());
        let refused = refused.err().unwrap();
        assert_eq!(refused.code, Code::Busy);
        assert!(refused.next_step.unwrap().contains("sampan cancel"), "its own CLI may be gone");
        slot.stop();
        assert!(stop.is_cancelled());
        drop(place);
        assert_eq!(slot.shown(), None);
        slot.progress(&progress);
        assert!(slot.begin(TaskKind::Import, Path::new("/x"), CancellationToken::new()).is_ok());
    }

    #[test]
    fn only_absolute_paths_are_taken() {
        assert!(absolute("images.tar").is_err(), "whose folder would that be?");
        assert_eq!(absolute("/usb/images.tar").unwrap(), Path::new("/usb/images.tar"));
    }
}
