//! What is measured: the image, the registry it comes from, and the three servers that hold it.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    bench::{
        image,
        mirror::{Kind, Mirror},
        nginx::Nginx,
        process::{free_port, tree},
        pull::settle,
        registry::Registry,
        wire,
    },
    environment::Environment,
    shell,
};

pub(super) const SAMPAN: &str = "sampan";
pub(super) const REGISTRY: &str = "docker-registry";
pub(super) const NGINX: &str = "nginx";

const REPOSITORY: &str = "library/sampan-hits";
const TAG: &str = "latest";

/// Where the image's parts are, on every server.
#[derive(Debug)]
pub(super) struct Paths {
    pub(super) blob: String,
    pub(super) by_tag: String,
    pub(super) by_digest: String,
}

/// A server that holds the image. Ends when dropped.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) port: u16,
    /// It and its children.
    pub(super) pids: Vec<u32>,
    _process: Process,
}

#[derive(Debug)]
enum Process {
    Mirror { _it: Mirror },
    Nginx { _it: Nginx },
}

/// The servers and their upstream. Ends them when dropped.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) servers: [Server; 3],
    pub(super) paths: Paths,
    /// The blob's, in bytes.
    pub(super) size: u64,
    digest: String,
    upstream: Registry,
    /// What the upstream had sent when all were filled.
    sent: u64,
}

impl Bed {
    /// Makes the image, pushes it, starts everybody and fills them.
    pub(super) fn make(
        environment: &Environment,
        root: &Path,
        sampan: PathBuf,
        mebibytes: u64,
    ) -> Result<Self> {
        let (files, layout) = (root.join("files"), root.join("oci"));
        eprintln!("Writing {mebibytes} MiB of random bytes ...");
        let (digest, size) = write_blob(&files.join("blobs"), mebibytes)?;
        let paths = write_image(&files, &layout, &digest, size)?;
        let upstream_port = free_port()?;
        let upstream = Registry::start(root, "upstream", upstream_port, None)?;
        shell::run(
            Command::new("skopeo")
                .args([
                    "copy",
                    "--quiet",
                    "--insecure-policy",
                    "--dest-tls-verify=false",
                    "--preserve-digests",
                ])
                .arg(format!("oci:{}:bench", layout.display()))
                .arg(format!("docker://127.0.0.1:{upstream_port}/{REPOSITORY}:{TAG}")),
        )?;
        fs::remove_dir_all(&layout)?;
        let origin = format!("http://127.0.0.1:{upstream_port}");
        let mirror = |name: &'static str, kind| -> Result<Server> {
            let mut mirror = Mirror::new(kind, root.join(name), origin.clone())?;
            fill(&mut mirror, &paths, &digest, &upstream)?;
            let pids = tree(mirror.pid().context("it was started")?);
            Ok(Server { name, port: mirror.port(), pids, _process: Process::Mirror { _it: mirror } })
        };
        let nginx = Nginx::start(environment, &root.join(NGINX), &files)?;
        let nginx = Server {
            name: NGINX,
            port: nginx.port(),
            pids: tree(nginx.pid()),
            _process: Process::Nginx { _it: nginx },
        };
        let servers = [
            nginx,
            mirror(REGISTRY, Kind::DockerRegistry)?,
            mirror(SAMPAN, Kind::Sampan { program: sampan, arguments: Vec::new() })?,
        ];
        let manifest = paths.by_digest.rsplit_once('/').map(|(_, digest)| digest).unwrap_or_default();
        for server in &servers {
            for path in [&paths.by_digest, &paths.by_tag] {
                if image::digest(&wire::get(server.port, path)?) != manifest {
                    bail!("{} answers another manifest at {path}", server.name);
                }
            }
            hash(server.port, &paths.blob, &digest)?;
        }
        let sent = upstream.blob_bytes();
        Ok(Self { servers, paths, size, digest, upstream, sent })
    }

    /// At the end: the blob is still whole everywhere, and nothing was fetched while it was measured.
    pub(super) fn check(&self) -> Result<()> {
        for server in &self.servers {
            hash(server.port, &self.paths.blob, &self.digest)?;
        }
        let again = self.upstream.blob_bytes() - self.sent;
        if again > 0 {
            bail!("{again} bytes of blobs were fetched again: not everything measured was a hit");
        }
        Ok(())
    }
}

/// Fetches everything through a mirror, starts it anew, and has it answer from what it holds.
fn fill(mirror: &mut Mirror, paths: &Paths, digest: &str, upstream: &Registry) -> Result<()> {
    eprintln!("Filling {} ...", mirror.name());
    mirror.start()?;
    for path in [&paths.by_tag, &paths.by_digest] {
        wire::get(mirror.port(), path)?;
    }
    hash(mirror.port(), &paths.blob, digest)?;
    // docker-registry goes on fetching, and holds the blob when that is done.
    settle();
    mirror.stop();
    mirror.start()?;
    let before = upstream.blob_bytes();
    // Sampan hashes a blob at the first hit since its start, before it lets the end of it go. Never again in this run.
    let begun = Instant::now();
    hash(mirror.port(), &paths.blob, digest)?;
    eprintln!(
        "  {}: the first hit after a start took {:.2} s, checked by a client that hashes",
        mirror.name(),
        begun.elapsed().as_secs_f64()
    );
    for path in [&paths.by_tag, &paths.by_digest] {
        wire::get(mirror.port(), path)?;
    }
    if upstream.blob_bytes() > before {
        bail!("{} fetched the blob again instead of keeping it", mirror.name());
    }
    Ok(())
}

/// Downloads the blob and compares its digest.
fn hash(port: u16, path: &str, digest: &str) -> Result<()> {
    let mut hash = Sha256::new();
    wire::Connection::open(port)?.get(path, |piece| hash.update(piece))?;
    let got = format!("sha256:{}", hex::encode(hash.finalize()));
    if got == digest { Ok(()) } else { bail!("asked for {digest}, got {got}") }
}

/// Writes random bytes into a file named by their digest; digest and size.
fn write_blob(blobs: &Path, mebibytes: u64) -> Result<(String, u64)> {
    fs::create_dir_all(blobs)?;
    let mut random = File::open("/dev/urandom")?;
    let mut file = File::create(blobs.join("new"))?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    for number in 0..mebibytes {
        random.read_exact(&mut piece)?;
        if number == 0
            && let Some(magic) = piece.get_mut(..3)
        {
            // What begins as gzip does is taken for packed, and is pushed as it is.
            magic.copy_from_slice(&[0x1f, 0x8b, 8]);
        }
        hash.update(&piece);
        file.write_all(&piece)?;
    }
    let digest = format!("sha256:{}", hex::encode(hash.finalize()));
    fs::rename(blobs.join("new"), blobs.join(&digest))?;
    Ok((digest, mebibytes << 20))
}

/// Writes the image of this one layer twice: as a layout to push, and as the plain files nginx serves.
fn write_image(files: &Path, layout: &Path, digest: &str, size: u64) -> Result<Paths> {
    let hex = digest.trim_start_matches("sha256:");
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    fs::hard_link(files.join("blobs").join(digest), layout.join("blobs/sha256").join(hex))?;
    let layer =
        json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size });
    image::finish(layout, &[layer], &[digest.to_owned()])?;
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let manifest = index.pointer("/manifests/0/digest").and_then(Value::as_str).context("no manifest")?;
    let folder = files.join(format!("v2/{REPOSITORY}/manifests"));
    fs::create_dir_all(&folder)?;
    for name in [TAG, manifest] {
        fs::copy(
            layout.join("blobs/sha256").join(manifest.trim_start_matches("sha256:")),
            folder.join(name),
        )?;
    }
    Ok(Paths {
        blob: format!("/v2/{REPOSITORY}/blobs/{digest}"),
        by_tag: format!("/v2/{REPOSITORY}/manifests/{TAG}"),
        by_digest: format!("/v2/{REPOSITORY}/manifests/{manifest}"),
    })
}
