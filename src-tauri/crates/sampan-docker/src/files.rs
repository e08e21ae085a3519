//! The edge to the file system: looking at a configuration file, and replacing it whole.
//!
//! A file is edited only where nobody but its owner could have put it there: every folder on the way and the file
//! belong to root or to this user and are not writable by others. A symbolic link is kept and its target edited.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sampan_oci::Millis;
use tempfile::NamedTempFile;

use crate::daemon_json::BYTES_MAX;
use crate::engine::{Access, FileSeen};

/// How many backups of one file are kept.
pub const BACKUPS_MAX: usize = 5;

const BACKUP_MARK: &str = ".sampan-backup-";
/// How the name of a file begins that gets its right name once it is whole; six random characters follow.
const TEMP_MARK: &str = ".sampan-";
/// How often what somebody else saves all the time is put back before their last one stays.
const EXCHANGES_MAX: u32 = 100;

/// Looks at `path` on behalf of the user `uid`. Never fails: what stands in the way is [`FileSeen::problem`].
pub fn look(path: &Path, uid: u32) -> FileSeen {
    let mut seen = FileSeen {
        path: path.to_owned(),
        target: path.to_owned(),
        bytes: None,
        access: Access::Writable,
        problem: None,
    };
    if let Err(problem) = look_into(&mut seen, uid) {
        seen.problem = Some(problem);
    }
    seen
}

fn look_into(seen: &mut FileSeen, uid: u32) -> Result<(), String> {
    let shown = seen.path.display().to_string();
    if !seen.path.is_absolute() {
        return Err(format!("{shown} is not an absolute path."));
    }
    match fs::symlink_metadata(&seen.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(format!("{shown} cannot be looked at: {error}.")),
        Ok(metadata) if metadata.is_symlink() => {
            seen.target = fs::canonicalize(&seen.path)
                .map_err(|error| format!("{shown} is a symbolic link that leads nowhere: {error}."))?;
        }
        Ok(_) => {}
    }
    if seen.target.starts_with("/nix/store") {
        return Err(format!("{shown} is made by NixOS: set virtualisation.docker.daemon.settings instead."));
    }
    owned(&seen.path, uid)?;
    owned(&seen.target, uid)?;
    seen.bytes = read(&seen.target)?;
    seen.access = access(&seen.target, seen.bytes.is_some(), uid);
    Ok(())
}

/// Reads a regular file, no link, of at most [`BYTES_MAX`] bytes (one more is read, so that the editor refuses it).
/// `None`: it does not exist.
///
/// # Errors
/// One English sentence for a person.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let shown = path.display();
    let file = match open_no_follow(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{shown} cannot be read: {error}.")),
    };
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(format!("{shown} is not a regular file."));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(|error| format!("{shown} cannot be read: {error}."))?;
    Ok(Some(bytes))
}

/// Never waits (a pipe would make it) and never follows a link put there since the path was checked.
#[cfg(unix)]
fn open_no_follow(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

#[cfg(not(unix))]
fn open_no_follow(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// How many links one path may lead through, as in Linux (path_resolution(7)).
#[cfg(unix)]
const LINKS_MAX: u32 = 40;

/// Whether everything on the way to `path` belongs to root or `uid` and cannot be changed by others: every folder, every
/// link, the folders that links lie in, and what is there in the end. What is missing belongs to nobody yet.
#[cfg(unix)]
pub(crate) fn owned(path: &Path, uid: u32) -> Result<(), String> {
    use std::path::Component;
    let mut left: Vec<PathBuf> = vec![path.to_owned()];
    let mut at = PathBuf::from("/");
    let mut links = 0;
    fixed(&at, &cannot_look(&at, fs::metadata(&at))?, uid)?;
    while let Some(next) = left.pop() {
        let mut parts = next.components();
        let Some(part) = parts.next() else { continue };
        left.push(parts.as_path().to_owned());
        match part {
            Component::RootDir | Component::Prefix(_) => at = PathBuf::from("/"),
            Component::CurDir => {}
            Component::ParentDir => drop(at.pop()),
            Component::Normal(name) => {
                let place = at.join(name);
                let metadata = match fs::symlink_metadata(&place) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    found => cannot_look(&place, found)?,
                };
                fixed(&place, &metadata, uid)?;
                if !metadata.is_symlink() {
                    at = place;
                    continue;
                }
                links += 1;
                if links > LINKS_MAX {
                    return Err(format!("{} is a symbolic link that leads nowhere.", place.display()));
                }
                left.push(cannot_look(&place, fs::read_link(&place))?);
            }
        }
    }
    Ok(())
}

#[cfg(unix)]
fn cannot_look<T>(place: &Path, found: io::Result<T>) -> Result<T, String> {
    found.map_err(|error| format!("{} cannot be looked at: {error}.", place.display()))
}

/// Whether only root and `uid` decide what is at `place`, given that only they decide what its folder holds.
#[cfg(unix)]
fn fixed(place: &Path, metadata: &fs::Metadata, uid: u32) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt as _;
    // A person's own folders are often writable by a group of which the person is the only member; root's are not.
    let others = if uid == 0 { 0o022 } else { 0o002 };
    // In a sticky folder such as /tmp nobody can replace what is not theirs. A link has no mode of its own.
    let guarded = metadata.is_symlink() || (metadata.is_dir() && metadata.mode() & 0o1000 != 0);
    if metadata.mode() & others != 0 && !guarded {
        return Err(format!("{} can be changed by other users.", place.display()));
    }
    if metadata.uid() != 0 && metadata.uid() != uid {
        return Err(format!("{} belongs to another user.", place.display()));
    }
    Ok(())
}

/// Windows guards these folders by access lists that are inherited; nothing to add here.
#[cfg(not(unix))]
pub(crate) fn owned(_path: &Path, _uid: u32) -> Result<(), String> {
    Ok(())
}

#[cfg(unix)]
fn access(target: &Path, exists: bool, uid: u32) -> Access {
    use rustix::io::Errno;
    let folder = target.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let mut tried = vec![folder];
    if exists {
        tried.push(target);
    }
    for place in tried {
        match rustix::fs::access(place, rustix::fs::Access::WRITE_OK) {
            Ok(()) => {}
            Err(Errno::ROFS) => return Access::ReadOnly,
            // Root is refused only by an immutable file or a sandbox; asking for root again would not help.
            Err(_) if uid == 0 => return Access::ReadOnly,
            Err(_) => return Access::NeedsElevation,
        }
    }
    Access::Writable
}

#[cfg(not(unix))]
fn access(target: &Path, exists: bool, _uid: u32) -> Access {
    let writable = !exists || OpenOptions::new().append(true).open(target).is_ok();
    if writable { Access::Writable } else { Access::NeedsElevation }
}

/// The folders above `target` that do not exist, outermost first.
pub(crate) fn missing_folders(target: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> =
        target.ancestors().skip(1).take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
    missing.reverse();
    missing
}

/// Makes folders, outermost first.
///
/// # Errors
/// What the file system says; one that is there already is an error too, because it is somebody else's.
pub(crate) fn make_folders(missing: &[PathBuf]) -> io::Result<()> {
    for folder in missing {
        fs::create_dir(folder)?;
        allow(folder, 0o755)?;
        sync_folder_of(folder)?;
    }
    Ok(())
}

/// Copies `bytes`, the present content of `target`, beside it and removes all but the newest [`BACKUPS_MAX`] backups
/// (`keep` excepted: the journal still needs it).
///
/// # Errors
/// What the file system says; then no backup is left behind.
pub(crate) fn back_up(target: &Path, bytes: &[u8], now: Millis, keep: Option<&Path>) -> io::Result<PathBuf> {
    // Never older by name than those that are there, whatever the clock says: the oldest go.
    let newest = backups(target).last().and_then(|path| backup_millis(path, target));
    let mut millis = newest.map_or(now.0, |newest| now.0.max(newest.saturating_add(1)));
    let backup = loop {
        let backup = beside(target, millis);
        match OpenOptions::new().write(true).create_new(true).open(&backup) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => millis += 1,
            Err(error) => return Err(error),
            Ok(mut file) => {
                let copied =
                    like(&file, target).and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all());
                if let Err(error) = copied {
                    let _ = fs::remove_file(&backup);
                    return Err(error);
                }
                break backup;
            }
        }
    };
    sync_folder_of(&backup)?;
    for old in backups(target).iter().rev().skip(BACKUPS_MAX) {
        if Some(old.as_path()) != keep {
            fs::remove_file(old)?;
        }
    }
    Ok(backup)
}

/// Whether `backup` is named as [`back_up`] names a backup of `target`, in the same folder.
pub(crate) fn is_backup_of(backup: &Path, target: &Path) -> bool {
    backup_millis(backup, target).is_some()
}

/// The time in the name of a backup of `target`.
fn backup_millis(backup: &Path, target: &Path) -> Option<i64> {
    let millis = backup.to_str()?.strip_prefix(target.to_str()?)?.strip_prefix(BACKUP_MARK)?;
    millis.parse().ok().filter(|number: &i64| number.to_string() == millis)
}

/// The backups of `target`, oldest first.
pub fn backups(target: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (target.parent(), target.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}{BACKUP_MARK}");
    let mut found: Vec<(i64, PathBuf)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let millis = entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?;
            Some((millis, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// Replaces `target` by `bytes`, all at once and on disk when it returns: same owner, mode and labels as before, or
/// root's usual ones for a new file. `shown` is the content a person agreed to change.
///
/// # Errors
/// [`ReplaceError::Changed`] where the file is no longer `shown`, else what the file system says. The file is then
/// as it was.
pub(crate) fn replace(target: &Path, shown: Option<&[u8]>, bytes: &[u8]) -> Result<(), ReplaceError> {
    let folder = target.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut temp = tempfile::Builder::new().prefix(TEMP_MARK).tempfile_in(folder)?;
    temp.write_all(bytes)?;
    if shown.is_some() {
        like(temp.as_file(), target)?;
    } else {
        allow(temp.path(), 0o644)?;
    }
    temp.as_file().sync_all()?;
    if read(target).map_err(ReplaceError::Unreadable)?.as_deref() != shown {
        return Err(ReplaceError::Changed);
    }
    let old = put(temp, target, shown, bytes)?;
    sync_folder_of(target)?;
    // Only now that the new one's name is on disk.
    drop(old);
    Ok(())
}

/// Gives `temp` the name `target`, if that is still `shown` at that very moment. Returns the old file where it has the
/// temporary name now.
fn put(
    temp: NamedTempFile,
    target: &Path,
    shown: Option<&[u8]>,
    bytes: &[u8],
) -> Result<Option<NamedTempFile>, ReplaceError> {
    let Some(shown) = shown else {
        return match temp.persist_noclobber(target).map_err(|error| error.error) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(ReplaceError::Changed),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(None),
        };
    };
    match exchange(temp.path(), target) {
        Ok(true) => {}
        Ok(false) => return temp.persist(target).map(|_| None).map_err(|error| error.error.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReplaceError::Changed),
        Err(error) => return Err(error.into()),
    }
    let is = |expected: &[u8]| read(temp.path()).is_ok_and(|now| now.as_deref() == Some(expected));
    if is(shown) {
        return Ok(Some(temp));
    }
    // Somebody saved the file between the look and the exchange. What they saved goes back, the newest of it last.
    for _ in 0..EXCHANGES_MAX {
        exchange(temp.path(), target)?;
        if is(bytes) {
            break;
        }
    }
    Err(ReplaceError::Changed)
}

/// Swaps the names of two files, at once. `false`: this system or file system cannot.
#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as on Linux")]
fn exchange(_one: &Path, _other: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Removes `target`, whose content is `shown`.
///
/// # Errors
/// As [`replace`].
pub(crate) fn remove(target: &Path, shown: &[u8]) -> Result<(), ReplaceError> {
    if read(target).map_err(ReplaceError::Unreadable)?.as_deref() != Some(shown) {
        return Err(ReplaceError::Changed);
    }
    let folder = target.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let aside = tempfile::Builder::new().prefix(TEMP_MARK).tempfile_in(folder)?.into_temp_path();
    fs::rename(target, &aside)?;
    if read(&aside).is_ok_and(|now| now.as_deref() == Some(shown)) {
        sync_folder_of(target)?;
        return Ok(());
    }
    // Somebody saved the file in between; where they did so once more, the newer one stays.
    match aside.persist_noclobber(target).map_err(|error| error.error) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
        Ok(()) | Err(_) => Err(ReplaceError::Changed),
    }
}

/// Clears away the temporary files that a killed run left beside `target`. `ours` knows what Sampan found or wrote
/// there, `whole` a whole file from half of one: a whole one that is not ours is what somebody else saved at the moment
/// of an exchange, and goes back to its name.
///
/// # Errors
/// What the file system says.
pub(crate) fn sweep(
    target: &Path,
    ours: impl Fn(&[u8]) -> bool,
    whole: impl Fn(&[u8]) -> bool,
) -> io::Result<()> {
    for temp in temporary(target.parent().unwrap_or(target), TEMP_MARK) {
        let stray = read(&temp).ok().flatten().is_some_and(|bytes| !ours(&bytes) && whole(&bytes));
        if stray && read(target).is_ok_and(|now| now.is_none_or(|now| ours(&now))) {
            fs::rename(&temp, target)?;
            sync_folder_of(target)?;
        } else {
            fs::remove_file(&temp)?;
        }
    }
    Ok(())
}

/// The files in `folder` that are named as temporary ones with that mark are.
pub(crate) fn temporary(folder: &Path, mark: &str) -> Vec<PathBuf> {
    let is_ours = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(mark));
        random.is_some_and(|text| text.len() == 6 && text.bytes().all(|b| b.is_ascii_alphanumeric()))
            && entry.file_type().is_ok_and(|kind| kind.is_file())
    };
    fs::read_dir(folder).into_iter().flatten().flatten().filter(is_ours).map(|entry| entry.path()).collect()
}

/// Why a file was not replaced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplaceError {
    /// Somebody changed it since it was shown.
    #[error("it was changed by somebody else in the meantime")]
    Changed,
    /// It could not be read again.
    #[error("{0}")]
    Unreadable(String),
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Gives `file` the owner, mode and labels of `model`.
#[cfg(unix)]
fn like(file: &File, model: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    let metadata = fs::metadata(model)?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
        fchown(file, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    file.set_permissions(metadata.permissions())?;
    copy_labels(file, model)
}

#[cfg(not(unix))]
fn like(_file: &File, _model: &Path) -> io::Result<()> {
    Ok(())
}

/// SELinux labels and other extended attributes; a file system without them has none to lose.
#[cfg(target_os = "linux")]
fn copy_labels(file: &File, model: &Path) -> io::Result<()> {
    use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr};
    use rustix::io::Errno;
    let from = File::open(model)?;
    let mut names = vec![0_u8; 64 * 1024];
    let length = match flistxattr(&from, names.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 64 * 1024];
        let length = fgetxattr(&from, name, value.as_mut_slice())?;
        match fsetxattr(file, name, &value[..length], XattrFlags::empty()) {
            // A user may not set what only the system sets; the system sets it by the folder's rules then.
            Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(all(unix, not(target_os = "linux")))]
fn copy_labels(_file: &File, _model: &Path) -> io::Result<()> {
    Ok(())
}

/// The process's umask must not decide whether the daemon can read its configuration.
#[cfg(unix)]
pub(crate) fn allow(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
pub(crate) fn allow(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// A rename is on disk only when its folder is.
#[cfg(unix)]
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(not(unix))]
pub(crate) fn sync_folder_of(_path: &Path) -> io::Result<()> {
    Ok(())
}

fn beside(target: &Path, millis: i64) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!("{BACKUP_MARK}{millis}"));
    target.with_file_name(name)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// Lets an editor save at about the moment at which Sampan does `change`; the file in the end.
    fn race(file: &Path, round: u32, change: impl FnOnce()) -> Option<Vec<u8>> {
        let theirs = file.with_extension("new");
        fs::write(&theirs, format!("theirs {round}")).unwrap();
        let begin = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                begin.wait();
                for _ in 0..round % 400 * 50 {
                    std::hint::spin_loop();
                }
                fs::rename(&theirs, file).unwrap();
            });
            begin.wait();
            change();
        });
        read(file).unwrap()
    }

    #[test]
    fn what_somebody_saves_at_the_same_moment_is_never_lost() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("daemon.json");
        let (mut changed, mut done) = (0, 0);
        for round in 0..800 {
            let removes = round % 4 == 3;
            fs::write(&file, "before").unwrap();
            let now = race(&file, round, || {
                let result = if removes {
                    remove(&file, b"before")
                } else {
                    replace(&file, Some(b"before"), b"after")
                };
                match result {
                    Ok(()) => done += 1,
                    Err(ReplaceError::Changed) => changed += 1,
                    Err(error) => panic!("{error}"),
                }
            });
            assert_eq!(
                now,
                Some(format!("theirs {round}").into_bytes()),
                "whoever was first (removes: {removes})"
            );
        }
        assert!(changed > 0 && done > 0, "both came first: {changed}, {done}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing lies about");
    }

    #[test]
    fn what_a_kill_left_at_the_moment_of_an_exchange_goes_back_to_its_name() {
        for (now, temp, then, why) in [
            (Some("after"), "{}", Some("{}"), "somebody's edit had been swapped out"),
            (None, "{}", Some("{}"), "or had been put aside"),
            (Some("[]"), "{}", Some("[]"), "somebody has saved again since"),
            (Some("after"), "before", Some("after"), "the old bytes, swapped out"),
            (Some("before"), "aft", Some("before"), "half of the new bytes"),
            (Some("before"), "", Some("before"), "nothing was written yet"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("daemon.json");
            if let Some(now) = now {
                fs::write(&file, now).unwrap();
            }
            fs::write(dir.path().join(".sampan-a1B2c3"), temp).unwrap();
            fs::write(dir.path().join(".sampan-notes"), "somebody's own").unwrap();
            sweep(&file, |bytes| bytes == b"before" || bytes == b"after", |bytes| bytes == b"{}").unwrap();
            assert_eq!(read(&file).unwrap().as_deref(), then.map(str::as_bytes), "{why}");
            assert!(!dir.path().join(".sampan-a1B2c3").exists(), "{why}");
            assert!(dir.path().join(".sampan-notes").exists(), "no name of Sampan's");
        }
    }
}
