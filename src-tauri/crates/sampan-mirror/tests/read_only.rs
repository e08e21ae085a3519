//! A cache whose file system becomes read-only while clients pull (SECURITY.md R70).
#![cfg(target_os = "linux")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Options, TestMirror, body};
use futures_util::future::join_all;
use sampan_testkit::{FakeRegistry, Image, ImageSpec, Kind};

const CHILD: &str = "pulls_go_on_while_the_disk_becomes_read_only";
/// Images that are held before, and others that never were.
const HELD: u64 = 4;
const NEW: u64 = 40;
const CLIENTS: u64 = 6;
/// Pulls before, and after.
const PULLS: u64 = 40;

/// A file system of its own in a file, which stops writing at its first error, as most of a Linux system do.
struct Fragile {
    path: PathBuf,
    error: PathBuf,
}

impl Fragile {
    fn mount(folder: &Path) -> Self {
        let run = |command: &mut Command| {
            let done = command.output().unwrap();
            assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
        };
        let (file, path) = (folder.join("disk.img"), folder.join("disk"));
        std::fs::create_dir(&path).unwrap();
        std::fs::File::create(&file).unwrap().set_len(256 << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file));
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop,errors=remount-ro"]).args([&file, &path]));
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mounted = path.to_str().unwrap();
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(mounted)).unwrap();
        let device = line.split(' ').next().and_then(|device| device.rsplit('/').next()).unwrap();
        let error = Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error");
        Self { path, error }
    }

    /// It comes upon an error: from now on nothing can be written, by whomever has what open.
    fn errs(&self) {
        std::fs::write(&self.error, "1").unwrap();
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).output();
    }
}

fn name(number: u64) -> String {
    format!("image{number}")
}

/// A whole pull. `Err`: what was not as it should be.
async fn pull(mirror: &TestMirror, number: u64, image: &Image) -> Result<(), String> {
    let path = |rest: String| format!("/v2/library/{}/{rest}", name(number));
    let answer = mirror.get(&path("manifests/1".into())).await;
    let status = answer.status();
    let manifest = body(answer).await;
    if status != 200 || manifest.is_none_or(|bytes| sampan_oci::Digest::of(&bytes) != image.digest) {
        return Err(format!("the manifest of {number}: {status}"));
    }
    for layer in image.layers() {
        let answer = mirror.get(&path(format!("blobs/{}", layer.digest))).await;
        let status = answer.status();
        match body(answer).await {
            Some(bytes) if status == 200 && bytes == layer.bytes => {}
            None if status == 200 => return Err(format!("a layer of {number} broke off")),
            Some(_) | None => return Err(format!("a layer of {number}: {status}, or wrong bytes")),
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "the child of the test below, in a mount namespace of its own"]
async fn pulls_go_on_while_the_disk_becomes_read_only() {
    let disk = Fragile::mount(&std::env::current_dir().unwrap());
    let upstream = FakeRegistry::start().await;
    let images: Vec<Image> = (0..HELD + NEW)
        .map(|number| {
            let spec = ImageSpec::new(number, &[20_000, 700_000, 1_500_000]);
            upstream.publish_image(&format!("library/{}:1", name(number)), &spec)
        })
        .collect();
    let inside = tempfile::tempdir_in(&disk.path).unwrap();
    let mirror = TestMirror::on(inside, &upstream, Options::default()).await;
    for (number, image) in (0..HELD).zip(&images) {
        pull(&mirror, number, image).await.unwrap();
    }
    let (done, read_only) = (AtomicU64::new(0), AtomicBool::new(false));
    let client = |client: u64| {
        let (mirror, images, done, read_only) = (&mirror, &images, &done, &read_only);
        async move {
            let mut after = 0;
            for turn in 0.. {
                let held = turn % 2 == 0;
                let number = if held { (client + turn) % HELD } else { HELD + (client * 7 + turn) % NEW };
                let before = !read_only.load(Ordering::SeqCst);
                let pulled = pull(mirror, number, &images[usize::try_from(number).unwrap()]).await;
                // What is on its way into the cache when that ends has to go on without it, or is broken off; it is never
                // wrong, and what is held comes whole whenever it is asked for.
                let broken = matches!(&pulled, Err(why) if why.ends_with("broke off"));
                assert!(pulled.is_ok() || (before && !held && broken), "{pulled:?}");
                done.fetch_add(1, Ordering::SeqCst);
                after += u64::from(!before);
                if after > PULLS / CLIENTS {
                    return;
                }
            }
        }
    };
    let remount = async {
        while done.load(Ordering::SeqCst) < PULLS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        disk.errs();
        read_only.store(true, Ordering::SeqCst);
    };
    tokio::join!(join_all((0..CLIENTS).map(client)), remount);

    assert!(std::fs::write(disk.path.join("probe"), b"").is_err(), "it is read-only");
    let (blobs, number) = (mirror.published(), HELD + NEW - 1);
    upstream.forget();
    for (number, image) in (0..HELD).zip(&images) {
        pull(&mirror, number, image).await.unwrap();
    }
    assert_eq!(upstream.body_bytes(Kind::Blob), 0, "hits are hits");
    let image = &images[usize::try_from(number).unwrap()];
    for _ in 0..2 {
        pull(&mirror, number, image).await.unwrap();
    }
    assert_eq!(mirror.published(), blobs, "nothing is kept");
    let failed: Vec<_> = mirror.answers().into_iter().filter(|answer| answer.status >= 500).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn hits_and_misses_are_served_while_the_disk_becomes_read_only() {
    let temporary = tempfile::tempdir().unwrap();
    let namespace = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]).arg(program).current_dir(temporary.path());
        command
    };
    let mkfs = Path::new("mkfs.ext4");
    let can = |program: &Path, argument: &str| {
        namespace(program).arg(argument).output().is_ok_and(|output| output.status.success())
    };
    if !can(Path::new("true"), "") || !can(mkfs, "-V") {
        return sampan_testkit::cannot_run("a file system of its own needs root, and mkfs.ext4");
    }
    let child = namespace(&std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}\n{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("1 passed"), "{said}");
}
