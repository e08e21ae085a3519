//! A cache at work on a recorded disk, and what it has promised at which moment.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use sampan_oci::{Digest, ImageName, RangeSet, Reference, Tag};
use sampan_store::{Disk, ImportedImage, Selected, Selection, Store, StoreOptions};

use crate::cut_disk::Recorder;
use crate::dice::Dice;
use crate::setting::{Cache, Image, files_below, name, noise, tag};

pub(crate) type Tagged = (ImageName, Tag);

/// What the store said is there to stay.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owed {
    pub(crate) held: HashSet<Digest>,
    /// Bytes of partial downloads that survive.
    pub(crate) synced: HashMap<Digest, RangeSet>,
    /// Tags that survive the index, what each may point at, and whether they are pinned.
    pub(crate) settled: HashMap<Tagged, (HashSet<Digest>, bool)>,
}

impl Owed {
    fn add(&mut self, promise: &Promise) {
        match promise {
            Promise::Held(digest) => drop(self.held.insert(*digest)),
            Promise::Synced(digest, ranges) => drop(self.synced.insert(*digest, ranges.clone())),
            Promise::Dropped(digest) => drop(self.synced.remove(digest)),
            Promise::Tags(tags) => {
                self.settled =
                    tags.iter().map(|(tag, to, pin)| (tag.clone(), ([*to].into(), *pin))).collect();
            }
            Promise::Moved(tagged, digest) => {
                if let Some((to, _)) = self.settled.get_mut(tagged) {
                    to.insert(*digest);
                }
            }
            Promise::Now(owed) => self.clone_from(owed),
        }
    }
}

/// What a step changes of what is owed, from some moment on.
#[derive(Clone, Debug)]
enum Promise {
    Held(Digest),
    Synced(Digest, RangeSet),
    /// The partial download may go.
    Dropped(Digest),
    /// These tags and no others, with what they point at and whether they are pinned.
    Tags(Vec<(Tagged, Digest, bool)>),
    /// The tag may point there as well.
    Moved(Tagged, Digest),
    /// This and nothing else.
    Now(Owed),
}

/// A store that works on a recorded disk, and what it promised.
pub(crate) struct Life {
    cache: Cache,
    on: Disk,
    store: Option<Store>,
    pub(crate) disk: Arc<Recorder>,
    dice: Dice,
    pub(crate) contents: HashMap<Digest, Bytes>,
    /// Every digest a tag was ever told to point at.
    pub(crate) told: HashSet<(Tagged, Digest)>,
    owed: Owed,
    promises: Vec<(usize, Promise)>,
    /// Whether this opening has settled the layout: the next time is 30 s later.
    settled: bool,
}

impl Life {
    pub(crate) fn begin(seed: u64) -> Self {
        let cache = Cache::quick();
        let disk = Recorder::new(cache.dir.clone());
        let mut life = Self {
            on: Disk::watched(disk.clone()),
            cache,
            store: None,
            disk,
            dice: Dice::new(seed),
            contents: HashMap::new(),
            told: HashSet::new(),
            owed: Owed::default(),
            promises: Vec::new(),
            settled: false,
        };
        life.open();
        life
    }

    /// What is owed behind the first `at` operations.
    pub(crate) fn owed(&self, at: usize) -> Owed {
        let mut owed = Owed::default();
        self.promises.iter().filter(|(since, _)| *since <= at).for_each(|(_, promise)| owed.add(promise));
        owed
    }

    fn open(&mut self) {
        let options = StoreOptions::new(self.cache.dir.clone(), self.cache.clock.clone());
        self.store = Some(Store::open(StoreOptions { disk: self.on.clone(), ..options }).unwrap());
        self.settled = false;
    }

    fn store(&self) -> Store {
        self.store.clone().unwrap()
    }

    fn promise(&mut self, promise: Promise) {
        self.disk.see_index();
        self.owed.add(&promise);
        self.promises.push((self.disk.len(), promise));
    }

    fn blob(&mut self) -> Bytes {
        let bytes = noise(self.dice.next() % 12, *self.dice.pick(&[1, 700, 5_000, 40_000]).unwrap());
        self.contents.insert(Digest::of(&bytes), bytes.clone());
        bytes
    }

    fn image(&mut self) -> Image {
        let layers = [self.blob(), self.blob()];
        let image = Image::new("amd64", &layers);
        for bytes in image.blobs.iter().chain([&image.bytes]) {
            self.contents.insert(Digest::of(bytes), bytes.clone());
        }
        image
    }

    fn tagged(&mut self) -> Tagged {
        (name(&format!("image{}", self.dice.under(3))), tag(&format!("v{}", self.dice.under(3))))
    }

    fn held(&self) -> Vec<Digest> {
        let mut held: Vec<Digest> = blobs_of(&self.cache).collect();
        held.sort_unstable_by_key(ToString::to_string);
        held
    }

    pub(crate) async fn step(&mut self) {
        self.cache.clock.advance(1000);
        match self.dice.under(20) {
            0 => {
                let bytes = self.blob();
                self.put(&bytes).await;
            }
            2..=5 => self.put_image().await,
            6 => self.import().await,
            7 => {
                let bytes = self.blob();
                let mut stage = self.store().stage(&Digest::of(&bytes), bytes.len() as u64).await.unwrap();
                stage.append(bytes.slice(..bytes.len() / 2)).await.unwrap();
            }
            8 | 9 => self.download(false).await,
            10 | 11 => self.download(true).await,
            12 => self.clear().await,
            13 => self.clear_later().await,
            14 => self.quarantine().await,
            15 => self.evict().await,
            16 => self.pin().await,
            1 | 17 => self.settle().await,
            18 => self.flush().await,
            _ => {
                if self.dice.chance(50) {
                    self.flush().await;
                }
                self.store = None;
                self.open();
            }
        }
        self.disk.see_index();
    }

    async fn put(&mut self, bytes: &Bytes) {
        let digest = Digest::of(bytes);
        self.promise(Promise::Dropped(digest));
        self.store().put(&digest, bytes.clone()).await.unwrap();
        self.promise(Promise::Held(digest));
    }

    async fn put_image(&mut self) {
        let (image, tagged) = (self.image(), self.tagged());
        self.promise(Promise::Dropped(image.digest()));
        let put = self.store().put_manifest(&tagged.0, &image.manifest, image.bytes.clone()).await;
        put.unwrap();
        self.promise(Promise::Held(image.digest()));
        for bytes in &image.blobs {
            self.put(bytes).await;
        }
        self.told.insert((tagged.clone(), image.digest()));
        self.promise(Promise::Moved(tagged.clone(), image.digest()));
        self.store().set_tag(&tagged.0, &tagged.1, &image.digest()).await.unwrap();
        self.store().touch(&tagged.0, &image.digest(), true).await;
    }

    async fn import(&mut self) {
        let (image, tagged, trusted) = (self.image(), self.tagged(), self.dice.chance(50));
        for bytes in image.blobs.iter().chain([&image.bytes]) {
            let digest = Digest::of(bytes);
            self.promise(Promise::Dropped(digest));
            let mut stage = self.store().stage(&digest, bytes.len() as u64).await.unwrap();
            stage.append(bytes.clone()).await.unwrap();
            stage.publish_imported().await.unwrap();
            self.promise(Promise::Held(digest));
        }
        self.told.insert((tagged.clone(), image.digest()));
        self.promise(Promise::Moved(tagged.clone(), image.digest()));
        let import = ImportedImage {
            image: tagged.0,
            tag: Some(tagged.1),
            digest: image.digest(),
            manifests: vec![(image.manifest.clone(), image.bytes.len() as u64)],
            trusted,
        };
        self.store().import_image(import).await.unwrap();
    }

    async fn download(&mut self, finish: bool) {
        let bytes = self.blob();
        let digest = Digest::of(&bytes);
        let mut partial = self.store().partial(&digest, bytes.len() as u64).await.unwrap();
        for _ in 0..=self.dice.under(4) {
            let start = self.dice.under(bytes.len());
            let end = start + 1 + self.dice.under(bytes.len() - start);
            partial.write(vec![(start as u64, bytes.slice(start..end))]).await.unwrap();
            if self.dice.chance(33) {
                let held = partial.held().clone();
                partial.sync().await.unwrap();
                self.promise(Promise::Synced(digest, held));
            }
        }
        if finish {
            partial.write(vec![(0, bytes)]).await.unwrap();
            self.promise(Promise::Dropped(digest));
            partial.publish().await.unwrap();
            self.promise(Promise::Held(digest));
        }
    }

    async fn clear(&mut self) {
        let image = name(&format!("image{}", self.dice.under(3)));
        let one = Selection::Images(vec![Selected { image, reference: None }]);
        let selection = if self.dice.chance(10) { Selection::All } else { one };
        let before = self.before_removal();
        self.store().clear(&selection).await.unwrap();
        self.after_removal(before).await;
    }

    async fn clear_later(&mut self) {
        let images = self.store().images().await.unwrap();
        let Some(entry) = self.dice.pick(&images) else { return };
        let reference = entry.tag.clone().map(Reference::Tag);
        let selection = Selection::Images(vec![Selected { image: entry.image.clone(), reference }]);
        let before = self.before_removal();
        let (_, undo) = self.store().clear_later(&selection).await.unwrap();
        match self.dice.under(3) {
            0 => drop(undo.map(|undo| self.store().undo_clear(&undo))),
            1 => {
                self.cache.clock.advance(11_000);
                self.store().settle_clears().await.unwrap();
            }
            _ => {}
        }
        self.after_removal(before).await;
    }

    async fn quarantine(&mut self) {
        let held = self.held();
        let Some(digest) = self.dice.pick(&held) else { return };
        let before = self.before_removal();
        self.store().quarantine(digest).await.unwrap();
        self.after_removal(before).await;
    }

    async fn evict(&mut self) {
        let store = self.store();
        let usage = store.usage().await.unwrap();
        let all = usage.size_bytes + usage.partial_bytes + usage.quarantine_bytes;
        let quota = self.dice.next() % (all + 1);
        let before = self.before_removal();
        store.set_quota(Some(quota));
        if self.dice.chance(50) {
            store.make_room().await.unwrap();
        } else {
            // May be refused; whoever made way until then is gone.
            drop(store.partial(&Digest::of(b"wants room"), quota / 2).await);
        }
        store.set_quota(None);
        self.after_removal(before).await;
    }

    async fn pin(&mut self) {
        let images = self.store().images().await.unwrap();
        let Some(entry) = self.dice.pick(&images) else { return };
        let reference = entry.tag.clone().map_or(Reference::Digest(entry.digest), Reference::Tag);
        self.store().pin(&entry.image, &reference).await.unwrap();
    }

    async fn settle(&mut self) {
        self.store().settle_layout().await.unwrap();
        if !std::mem::replace(&mut self.settled, true) {
            self.disk.index_is_synced();
            self.promise_tags().await;
        }
    }

    async fn flush(&mut self) {
        let before = self.before_removal();
        self.store().flush().await.unwrap();
        self.after_removal(before).await;
        self.settled = true;
        self.promise_tags().await;
    }

    async fn promise_tags(&mut self) {
        let images = self.store().images().await.unwrap();
        let tags = images.into_iter().filter_map(|e| Some(((e.image, e.tag?), e.digest, e.pinned)));
        self.promise(Promise::Tags(tags.collect()));
    }

    /// Something goes from now on, and nobody knows yet what.
    fn before_removal(&mut self) -> Owed {
        let before = self.owed.clone();
        self.promise(Promise::Now(Owed::default()));
        before
    }

    /// What is still there stays.
    async fn after_removal(&mut self, mut before: Owed) {
        before.held = self.held().into_iter().collect();
        let both = |digest: &Digest| {
            ["data", "ledger"].iter().all(|kind| self.cache.partial_path(digest, kind).exists())
        };
        before.synced.retain(|digest, _| both(digest));
        let images = self.store().images().await.unwrap();
        // Where it pointed when it was settled has to be there as well: a lost index comes back as it was then.
        before.settled.retain(|(image, tag), (to, _)| {
            to.is_subset(&before.held)
                && images.iter().any(|entry| entry.image == *image && entry.tag.as_ref() == Some(tag))
        });
        self.promise(Promise::Now(before));
    }
}

/// What is published, by the names of the files.
pub(crate) fn blobs_of(cache: &Cache) -> impl Iterator<Item = Digest> {
    let files = files_below(&cache.dir.join("blobs")).into_iter();
    files.map(|file| format!("sha256:{}", file.file_name().unwrap().to_str().unwrap()).parse().unwrap())
}
