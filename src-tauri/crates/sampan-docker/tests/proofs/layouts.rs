//! R104: every way a configuration file can be laid out with links, owners and modes. Where root edits, it edits that
//! one file; where another user could have a hand in it, nothing changes.

use std::os::unix::fs::{chown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use sampan_docker::{Action, ApplyError, Choice, Direct, PlanError, apply, hosts_toml, plan};
use sampan_oci::RegistryName;

use crate::place::{STRANGER, environment, is_root, mode, reads_config, reads_hosts, tree};

/// What becomes of the file in a layout.
enum Outcome {
    /// This file is edited, whatever leads to it.
    Edited(&'static str),
    /// It is refused with these words.
    Refused(&'static str),
}
use Outcome::{Edited, Refused};

/// What is laid out: the machine's folder, and the content the file has.
struct Layout<'a> {
    at: &'a Path,
    content: &'a str,
}

impl Layout<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, self.content).unwrap();
        path
    }

    fn folder(&self, name: &str) -> PathBuf {
        std::fs::create_dir_all(self.path(name)).unwrap();
        self.path(name)
    }

    fn link(&self, name: &str, to: impl AsRef<Path>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(to, &path).unwrap();
        path
    }

    fn strangers(&self, name: &str) {
        lchown(self.path(name), Some(STRANGER), Some(STRANGER)).unwrap();
    }

    fn special(&self, name: &str, kind: FileType) {
        self.folder("etc");
        mknodat(CWD, self.path(name), kind, Mode::from_raw_mode(0o600), 0).unwrap();
    }
}

/// The file is always `etc/file`.
const FILE: &str = "etc/file";
type Lay = fn(&Layout<'_>);

const LAYOUTS: &[(&str, Lay, Outcome)] = &[
    ("a file of root's", |l| drop(l.file(FILE)), Edited(FILE)),
    ("a link to a file of root's", |l| drop((l.file("real"), l.link(FILE, "../real"))), Edited("real")),
    (
        "a chain of root's links",
        |l| drop((l.file("far/real"), l.link("near/link", "../far/real"), l.link(FILE, l.path("near/link")))),
        Edited("far/real"),
    ),
    (
        "a folder that is root's link",
        |l| drop((l.file("real/file"), l.link("etc", "real"))),
        Edited("real/file"),
    ),
    (
        "a file that has a second name",
        |l| std::fs::hard_link(l.file(FILE), l.path("other")).unwrap(),
        Edited(FILE),
    ),
    (
        "a file of root's in a sticky folder",
        |l| {
            l.file(FILE);
            mode(&l.path("etc"), 0o1777);
        },
        Edited(FILE),
    ),
    (
        "a folder that is read-only by its mode, which root need not heed",
        |l| {
            l.file(FILE);
            mode(&l.path("etc"), 0o555);
        },
        Edited(FILE),
    ),
    (
        "a link to another user's file",
        |l| {
            l.file("home/theirs");
            l.strangers("home/theirs");
            l.link(FILE, "../home/theirs");
        },
        Refused("belongs to another user"),
    ),
    (
        "a link to a file of root's in another user's folder",
        |l| {
            l.file("home/file");
            l.strangers("home");
            l.link(FILE, "../home/file");
        },
        Refused("belongs to another user"),
    ),
    (
        "a link to another user's link to a file of root's",
        |l| {
            l.file("other/real");
            l.link("home/link", "../other/real");
            l.strangers("home");
            l.strangers("home/link");
            l.link(FILE, "../home/link");
        },
        Refused("belongs to another user"),
    ),
    (
        "root's link that lies in another user's folder, on the way to a file of root's",
        |l| {
            l.file("other/real");
            l.link("home/link", "../other/real");
            l.strangers("home");
            l.link(FILE, "../home/link");
        },
        Refused("belongs to another user"),
    ),
    (
        "another user's link to a file of root's, in a sticky folder",
        |l| {
            l.file("other/real");
            l.link(FILE, "../other/real");
            l.strangers(FILE);
            mode(&l.path("etc"), 0o1777);
        },
        Refused("belongs to another user"),
    ),
    (
        "another user's file in a sticky folder",
        |l| {
            l.file(FILE);
            l.strangers(FILE);
            mode(&l.path("etc"), 0o1777);
        },
        Refused("belongs to another user"),
    ),
    (
        "another user's file",
        |l| {
            l.file(FILE);
            l.strangers(FILE);
        },
        Refused("belongs to another user"),
    ),
    (
        "another user's folder",
        |l| {
            l.file(FILE);
            l.strangers("etc");
        },
        Refused("belongs to another user"),
    ),
    (
        "a folder that is root's link to another user's folder",
        |l| {
            l.file("home/file");
            l.strangers("home");
            l.link("etc", "home");
        },
        Refused("belongs to another user"),
    ),
    (
        "a folder reached by a link in another user's folder",
        |l| {
            l.file("real/file");
            l.link("home/link", "../real");
            l.strangers("home");
            l.link("etc", "home/link");
        },
        Refused("belongs to another user"),
    ),
    (
        "a link that goes up and down through another user's folder",
        |l| {
            l.file("real");
            l.folder("home/deep");
            l.strangers("home");
            l.link(FILE, "../home/deep/../../real");
        },
        Refused("belongs to another user"),
    ),
    (
        "nothing, below another user's folder",
        |l| {
            l.folder("etc");
            l.strangers("etc");
        },
        Refused("belongs to another user"),
    ),
    (
        "a folder that a group can write",
        |l| {
            l.file(FILE);
            mode(&l.path("etc"), 0o775);
        },
        Refused("can be changed by other users"),
    ),
    (
        "a folder that everybody can write",
        |l| {
            l.file(FILE);
            mode(&l.path("etc"), 0o777);
        },
        Refused("can be changed by other users"),
    ),
    (
        "a file that everybody can write",
        |l| mode(&l.file(FILE), 0o646),
        Refused("can be changed by other users"),
    ),
    (
        "a file that a group can write",
        |l| mode(&l.file(FILE), 0o664),
        Refused("can be changed by other users"),
    ),
    (
        "a link to a file that everybody can write",
        |l| {
            mode(&l.file("real"), 0o666);
            l.link(FILE, "../real");
        },
        Refused("can be changed by other users"),
    ),
    (
        "a sticky file, which guards nothing",
        |l| mode(&l.file(FILE), 0o1666),
        Refused("can be changed by other users"),
    ),
    ("a link to nothing", |l| drop(l.link(FILE, "nothing")), Refused("leads nowhere")),
    ("a link to itself", |l| drop(l.link(FILE, "file")), Refused("leads nowhere")),
    (
        "two links in a circle",
        |l| drop((l.link(FILE, "other"), l.link("etc/other", "file"))),
        Refused("leads nowhere"),
    ),
    ("a folder", |l| drop(l.folder(FILE)), Refused("not a regular file")),
    (
        "a link to a folder",
        |l| drop((l.folder("real"), l.link(FILE, "../real"))),
        Refused("not a regular file"),
    ),
    ("a pipe", |l| l.special(FILE, FileType::Fifo), Refused("not a regular file")),
    ("a socket", |l| l.special(FILE, FileType::Socket), Refused("cannot be read")),
    ("a file where its folder should be", |l| drop(l.file("etc")), Refused("cannot be looked at")),
];

#[tokio::test]
async fn of_33_layouts_of_links_owners_and_modes_root_edits_only_what_nobody_else_could_have_made() {
    if !is_root() {
        return;
    }
    assert_eq!(LAYOUTS.len(), 33);
    let ours = |port| hosts_toml(&RegistryName::docker_hub(), port);
    for (what, lay, outcome) in LAYOUTS {
        // hosts.toml, which no engine has to be told of: what is refused is untouched, what is edited is that file.
        let dir = tempfile::tempdir().unwrap();
        lay(&Layout { at: dir.path(), content: &ours(7200) });
        let env = environment(&dir.path().join("sampan"), None);
        std::fs::create_dir(dir.path().join("sampan")).unwrap();
        let before = tree(dir.path());
        let engine = reads_hosts(&dir.path().join("none.json"), &dir.path().join(FILE));
        let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow);
        match outcome {
            Refused(words) => {
                assert!(
                    matches!(&planned, Err(PlanError::Unsafe(why)) if why.contains(words)),
                    "{what}: {planned:?}"
                );
                assert_eq!(tree(dir.path()), before, "{what}: nothing is touched");
            }
            Edited(target) => {
                let applied = apply(&env, &engine, &planned.unwrap(), false, &Direct).await;
                assert!(applied.is_ok(), "{what}: {applied:?}");
                let mut expected = before.clone();
                expected.get_mut(&dir.path().join(target)).unwrap().2 = ours(7267).into_bytes();
                let mut after = tree(dir.path());
                after.retain(|path, _| {
                    !path.starts_with(dir.path().join("sampan/state"))
                        && !path.to_string_lossy().contains(".sampan-backup-")
                });
                assert_eq!(after, expected, "{what}: that file and no other, no link, no mode");
            }
        }
        // daemon.json: nobody answers, so that a change is taken back at once.
        let dir = tempfile::tempdir().unwrap();
        lay(&Layout { at: dir.path(), content: "{\"debug\": false}" });
        let env = environment(&dir.path().join("sampan"), None);
        std::fs::create_dir(dir.path().join("sampan")).unwrap();
        let before = tree(dir.path());
        let engine = reads_config(&dir.path().join(FILE), &dir.path().join("none.toml"));
        match (outcome, plan(&engine, Action::Enable, 7267, &Choice::AsNow)) {
            (Refused(_), Err(PlanError::Unsafe(_))) => {
                assert_eq!(tree(dir.path()), before, "{what}: nothing is touched");
            }
            (Edited(_), Ok(planned)) => {
                let failed = apply(&env, &engine, &planned, false, &Direct).await;
                assert!(matches!(failed, Err(ApplyError::RolledBack { .. })), "{what}: {failed:?}");
                let mut after = tree(dir.path());
                after.retain(|path, _| {
                    !path.starts_with(dir.path().join("sampan/state"))
                        && !path.to_string_lossy().contains(".sampan-backup-")
                });
                assert_eq!(after, before, "{what}: as it was");
            }
            (_, planned) => panic!("{what}: {planned:?}"),
        }
    }
}

#[test]
fn a_helper_reached_through_another_users_folder_is_not_trusted() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout { at: dir.path(), content: "" };
    layout.file("lib/helper");
    layout.link("home/link", "../lib/helper");
    assert_eq!(sampan_docker::trusted(&layout.path("home/link")), Ok(()), "root's link to root's program");
    chown(layout.path("home"), Some(STRANGER), None).unwrap();
    let refused = sampan_docker::trusted(&layout.path("home/link"));
    assert!(
        refused.is_err_and(|why| why.contains("another user")),
        "whoever owns the folder chooses the program"
    );
}
