//! How soon Sampan is ready: with its files in memory or not, after it ended in order or was killed, with its index or
//! without.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use super::{make::Contents, sampan::Sampan};
use crate::{bench::goal::Goal, shell};

/// Times until Sampan was ready, by what it found.
#[derive(Debug)]
pub(super) struct Starts {
    pub(super) found: &'static str,
    /// For the seconds; none without the index.
    pub(super) goal: Option<Goal>,
    pub(super) seconds: Vec<f64>,
}

/// Measures each kind of start. The index is as it was when this returns.
///
/// # Errors
/// Sampan does not start, or knows other blobs than it had.
pub(super) fn starts(sampan: &mut Sampan, reps: usize, contents: &Contents) -> Result<Vec<Starts>> {
    let goal = Some(Goal::AtMost(2.0));
    let mut starts = Vec::new();
    sampan.mirror.stop();
    for (found, goal, killed, cold, index) in [
        ("files in memory", goal, false, false, true),
        ("files on disk only", goal, false, true, true),
        ("files in memory, after SIGKILL", goal, true, false, true),
        ("files on disk only, after SIGKILL", goal, true, true, true),
        ("files in memory, no index", None, false, false, false),
        ("files on disk only, no index", None, false, true, false),
    ] {
        eprintln!("Starting: {found} ...");
        let mut seconds = Vec::new();
        for _ in 0..if index { reps } else { 1 } {
            if killed {
                // One that ended in order says so beside its index, which the next start then need not look through.
                sampan.mirror.start_timed()?;
                sampan.mirror.kill()?;
            }
            let _aside = (!index).then(|| Aside::set(&sampan.folder.join("cache"))).transpose()?;
            if cold && !drop_caches() {
                eprintln!("  not measured: dropping the page cache takes root");
                break;
            }
            let took = sampan.mirror.start_timed()?.as_secs_f64();
            eprintln!("  ready after {took:.2} s");
            let held = sampan.held()?;
            if held.blobs != contents.blobs {
                bail!("{found}: {} blobs of {} are known after the start", held.blobs, contents.blobs);
            }
            seconds.push(took);
            sampan.mirror.stop();
        }
        starts.push(Starts { found, goal, seconds });
    }
    Ok(starts)
}

/// The index, out of Sampan's sight. Dropping this puts it back, in place of what Sampan made anew: the tags and uses
/// that tell the eviction's order are in it. Sampan must not run at either moment.
#[derive(Debug)]
struct Aside {
    cache: PathBuf,
    aside: PathBuf,
}

impl Aside {
    fn set(cache: &Path) -> Result<Self> {
        let this = Self { cache: cache.to_path_buf(), aside: cache.with_extension("index") };
        fs::create_dir_all(&this.aside)?;
        index_files(&this.cache, &this.aside)?;
        Ok(this)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // What is made anew may have been set aside by Sampan too, under a name that begins alike: none of it stays.
        for entry in fs::read_dir(&self.cache).into_iter().flatten().flatten() {
            if is_index(&entry) {
                let _ = fs::remove_file(entry.path());
            }
        }
        // Should this fail, the next start tells: it counts the blobs.
        let _ = index_files(&self.aside, &self.cache);
    }
}

/// Moves `sampan.db` and what SQLite keeps beside it.
fn index_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if is_index(&entry) {
            fs::rename(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn is_index(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with("sampan.db")
}

/// Writes out what is dirty and forgets what is clean; `false` if that is not allowed.
fn drop_caches() -> bool {
    shell::output(&mut Command::new("sync"));
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_comes_back_in_place_of_what_was_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        fs::create_dir(&cache).unwrap();
        fs::write(cache.join("sampan.db"), "old").unwrap();
        fs::write(cache.join("lock"), "").unwrap();
        let aside = Aside::set(&cache).unwrap();
        assert!(!cache.join("sampan.db").exists());
        assert!(cache.join("lock").exists(), "the index alone goes");
        fs::write(cache.join("sampan.db"), "new").unwrap();
        fs::write(cache.join("sampan.db-wal"), "new").unwrap();
        drop(aside);
        assert_eq!(fs::read_to_string(cache.join("sampan.db")).unwrap(), "old");
        assert!(!cache.join("sampan.db-wal").exists(), "a log of another index would damage this one");
    }
}
