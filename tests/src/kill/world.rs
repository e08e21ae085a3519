//! What is upstream: two registries of known images, one of them slow, and tags that move. Some images can also be had
//! from layouts on disk, and one is there to take room.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sampan_oci::Digest;
use sampan_testkit::{FakeRegistry, Fault, Image, ImageSpec, IndexSpec};

use super::layout;
use crate::torture::Dice;

/// Images of the quick registry.
const QUICK: usize = 38;
/// Images of the slow one, each with a layer of [`LARGE`] bytes.
const SLOW: usize = 3;
const LARGE: usize = 16 * 1024 * 1024;
/// Images that can also be imported.
const CARRIED: usize = 3;
/// The layer of the image that takes room, all zeros: with a quota of 100 MB it leaves room for a fifth of the others.
pub(super) const BALLAST: usize = 80_000_000;
/// What each connection to the slow registry carries: two or three rounds for one of its layers.
const RATE: u64 = 6_000_000;
/// Between so many images do the tags of the quick registry move.
const VERSIONS: usize = 3;
/// Families of images that share their two lower layers.
const BASES: [[usize; 2]; 5] =
    [[700_000, 90_000], [300_000, 2_500], [1_500_000, 1], [40_000, 300], [120_000, 60_000]];
/// Sizes of the layers that are an image's own.
const OWN: [usize; 8] = [1, 20, 700, 5_000, 40_000, 200_000, 900_000, 2_500_000];
/// The one tag of each image.
pub(super) const TAG: &str = "1";
/// The registry that is slow, as a mirror is told it.
pub(super) const SLOW_REGISTRY: &str = "slow.example";

/// A manifest that lists blobs; an index's are its platforms'.
#[derive(Debug)]
pub(super) struct Platform {
    pub(super) digest: Digest,
    /// Configuration first.
    pub(super) blobs: Vec<Digest>,
}

/// What a tag points at, now or at another time.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) digest: Digest,
    pub(super) bytes: Arc<[u8]>,
    pub(super) media_type: &'static str,
    pub(super) platforms: Vec<Platform>,
}

impl Version {
    pub(super) fn is_index(&self) -> bool {
        self.platforms.iter().all(|platform| platform.digest != self.digest)
    }

    /// Every digest it leads to, its own too.
    pub(super) fn reach(&self) -> BTreeSet<Digest> {
        let below = self
            .platforms
            .iter()
            .flat_map(|platform| std::iter::once(platform.digest).chain(platform.blobs.iter().copied()));
        std::iter::once(self.digest).chain(below).collect()
    }
}

/// A repository with one tag.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) name: String,
    pub(super) slow: bool,
    pub(super) versions: Vec<Version>,
}

impl Repository {
    /// Its name in image names.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", if self.slow { SLOW_REGISTRY } else { "docker.io" }, self.name)
    }

    /// The name of its one tag.
    pub(super) fn tagged(&self) -> String {
        format!("{}:{TAG}", self.full_name())
    }

    /// Where a mirror has its manifest of this tag or digest.
    pub(super) fn manifest(&self, reference: &str) -> String {
        format!("/v2/{}/manifests/{reference}{}", self.name, self.query())
    }

    /// Where a mirror has its blob.
    pub(super) fn blob(&self, digest: &Digest) -> String {
        format!("/v2/{}/blobs/{digest}{}", self.name, self.query())
    }

    fn query(&self) -> String {
        if self.slow { format!("?ns={SLOW_REGISTRY}") } else { String::new() }
    }

    /// Everything that any of its versions leads to.
    pub(super) fn reach(&self) -> BTreeSet<Digest> {
        self.versions.iter().flat_map(Version::reach).collect()
    }
}

/// Everything upstream.
#[derive(Debug)]
pub(super) struct World {
    pub(super) quick: FakeRegistry,
    pub(super) slow: FakeRegistry,
    /// The last one is there to take room.
    pub(super) repositories: Vec<Repository>,
    /// Which of them clients use.
    pub(super) used: Range<usize>,
    /// Those that can be imported, each from a layout of its own.
    pub(super) carried: Vec<(usize, PathBuf)>,
    _layouts: tempfile::TempDir,
    /// The bytes of every manifest and blob.
    pub(super) content: HashMap<Digest, Arc<[u8]>>,
    /// Which version each tag points at.
    now: Mutex<Vec<usize>>,
}

impl World {
    /// The same world for the same choices.
    pub(super) async fn make(mut dice: Dice) -> Self {
        let (quick, slow) = (FakeRegistry::start().await, FakeRegistry::start().await);
        let (mut repositories, mut content) = (Vec::new(), HashMap::new());
        for at in 0..QUICK {
            let name = format!("library/image-{at:02}");
            let tagged = format!("{name}:{TAG}");
            let base = at % BASES.len();
            let versions = (0..VERSIONS).map(|version| {
                let number = at * VERSIONS + version;
                let mut spec = |other: usize| {
                    // The bytes of a layer follow from seed and size: own sizes make own layers.
                    let own = dice.one(&OWN) + if dice.percent(20) { 0 } else { number * 2 + other };
                    ImageSpec::new(base as u64 * 1000, &[BASES[base][0], BASES[base][1], own])
                };
                let image = if at % 4 == 3 {
                    let index = IndexSpec::new().image(spec(0)).image(spec(1).architecture("arm64"));
                    quick.publish_index(&tagged, &index)
                } else {
                    quick.publish_image(&tagged, &spec(0))
                };
                version_of(&image, &mut content)
            });
            let versions = versions.collect();
            repositories.push(Repository { name, slow: false, versions });
        }
        for at in 0..SLOW {
            let name = format!("large/image-{at}");
            let spec = ImageSpec::new(900_000 + at as u64 * 10, &[LARGE, 3_000, 1_200_000]);
            let image = slow.publish_image(&format!("{name}:{TAG}"), &spec);
            let versions = vec![version_of(&image, &mut content)];
            repositories.push(Repository { name, slow: true, versions });
        }
        let (layouts, mut carried) = (crate::scratch(), Vec::new());
        for (at, base) in BASES.iter().enumerate().take(CARRIED) {
            let name = format!("carried/image-{at}");
            let spec = |other: usize| {
                ImageSpec::new(950_000 + at as u64 * 10, &[base[0], 30_000 * (at + 1) + other])
            };
            let image = if at == 0 {
                let index = IndexSpec::new().image(spec(0)).image(spec(1).architecture("arm64"));
                quick.publish_index(&format!("{name}:{TAG}"), &index)
            } else {
                quick.publish_image(&format!("{name}:{TAG}"), &spec(0))
            };
            let versions = vec![version_of(&image, &mut content)];
            let repository = Repository { name, slow: false, versions };
            let folder = layouts.path().join(at.to_string());
            layout::write(&folder, &repository, &content);
            carried.push((repositories.len(), folder));
            repositories.push(repository);
        }
        let used = 0..repositories.len();
        repositories.push(layout::ballast(&quick, &mut content));
        let now = Mutex::new(repositories.iter().map(|repository| repository.versions.len() - 1).collect());
        let world = Self { quick, slow, repositories, used, carried, _layouts: layouts, content, now };
        world.hold_back(true);
        world
    }

    /// One of the repositories that clients use.
    pub(super) fn any(&self, dice: &mut Dice) -> usize {
        dice.place(self.used.len())
    }

    /// One of the repositories of the quick registry.
    pub(super) fn any_quick(dice: &mut Dice) -> usize {
        dice.place(QUICK)
    }

    /// One of those of the slow one.
    pub(super) fn any_slow(dice: &mut Dice) -> usize {
        QUICK + dice.place(SLOW)
    }

    /// The place of the image that takes room.
    pub(super) fn ballast(&self) -> usize {
        self.used.end
    }

    /// Makes the slow registry slow, or as quick as the other one.
    pub(super) fn hold_back(&self, slowly: bool) {
        self.slow.heals();
        if slowly {
            self.slow.fails_on(sampan_testkit::Kind::Blob, Fault::Rate { bytes_per_second: RATE });
        }
    }

    /// What the repository's tag points at now.
    pub(super) fn current(&self, repository: usize) -> &Version {
        let version = self.now()[repository];
        &self.repositories[repository].versions[version]
    }

    /// Points the repository's tag at one of its versions.
    pub(super) fn move_tag(&self, repository: usize, to: usize) {
        let moved = &self.repositories[repository];
        let version = &moved.versions[to % moved.versions.len()];
        let registry = if moved.slow { &self.slow } else { &self.quick };
        let mut now = self.now();
        registry.publish_manifest(&moved.name, TAG, version.bytes.to_vec(), version.media_type);
        now[repository] = to % moved.versions.len();
    }

    /// Body bytes of manifests and blobs that both registries have sent.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.quick.pulled_bytes() + self.slow.pulled_bytes()
    }

    /// Waits until nobody is connected to either: what was sent to the dead is then counted.
    pub(super) async fn quiet(&self) {
        while self.quick.connections_now() + self.slow.connections_now() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        self.quick.forget();
        self.slow.forget();
    }

    fn now(&self) -> MutexGuard<'_, Vec<usize>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version_of(image: &Image, content: &mut HashMap<Digest, Arc<[u8]>>) -> Version {
    let platforms = image.manifests.iter().map(|manifest| {
        content.insert(manifest.digest, Arc::from(&manifest.bytes[..]));
        let blobs = std::iter::once(&manifest.config).chain(&manifest.layers).map(|blob| {
            content.entry(blob.digest).or_insert_with(|| Arc::from(&blob.bytes[..]));
            blob.digest
        });
        Platform { digest: manifest.digest, blobs: blobs.collect() }
    });
    let platforms = platforms.collect();
    let bytes: Arc<[u8]> = Arc::from(&image.bytes[..]);
    content.insert(image.digest, bytes.clone());
    Version { digest: image.digest, bytes, media_type: image.media_type.as_str(), platforms }
}
