//! What must hold of a Sampan that was started again after a kill.

use std::collections::HashSet;
use std::path::Path;

use sampan_app::api::{Command, Image, QUOTA_MIN, Reply, Snapshot};
use sampan_oci::Digest;
use sampan_testkit::Kind;

use super::disk::Tree;
use super::load::{Shared, Stop};
use super::promises::{Key, Part};
use super::victim::answer;
use super::{Broken, Figures, broken};
use crate::torture::Dice;

/// Promises of the round that are looked at, and of earlier ones; all of them where everything is looked at.
const NEW: usize = 60;
const OLD: usize = 25;
/// Bytes of large promised blobs that are looked at in an ordinary round.
const LOOKED_AT_MOST: usize = 24 << 20;
/// What may cross the link again of a blob that is gone on with, beyond what is not claimed: as much as the first piece
/// of a download whose size is not known yet. Almost always nothing does.
const CROSSES_AGAIN: u64 = 512 * 1024;
/// Images pulled by their tags in each round.
const PULLED: usize = 4;

/// What it says of itself is what lies there. Before anything was asked for.
pub(super) async fn says_what_is_there(shared: &Shared, tree: &Tree) -> Result<(), Broken> {
    let snapshot = match answer(&shared.state_dir, Command::Snapshot).await {
        Ok(Reply::Snapshot(snapshot)) => *snapshot,
        other => return broken("a running Sampan answers", format!("{other:?}")),
    };
    let Snapshot { cache, .. } = snapshot;
    let said = (cache.blobs, cache.size_bytes, cache.partial_bytes);
    let there = (tree.blobs.len() as u64, tree.blob_bytes(), tree.partial_bytes());
    if said != there {
        let why = format!("blobs, their bytes, partial bytes: it says {said:?}, there are {there:?}");
        return broken("the numbers are those of the files", why);
    }
    if (cache.health.damaged, cache.quarantine_bytes) != (0, 0) {
        return broken("no kill damages a blob", format!("{:?}", cache.health));
    }
    if shared.tight != (cache.quota_bytes == Some(QUOTA_MIN)) {
        return broken("the quota is the one that was set", format!("{:?}", cache.quota_bytes));
    }
    let images = listed(shared).await?;
    for at in shared.promises.pins() {
        let tagged = shared.world.repositories[at].tagged();
        let mut named = images.iter().filter(|image| name_of(image) == tagged);
        if let Some(image) = named.find(|image| !image.pinned) {
            return broken("what was pinned is pinned", format!("{image:?}"));
        }
    }
    images.iter().try_for_each(|image| is_there(shared, tree, image))
}

async fn listed(shared: &Shared) -> Result<Vec<Image>, Broken> {
    match answer(&shared.state_dir, Command::Images).await {
        Ok(Reply::Images(images)) => Ok(images),
        other => broken("a running Sampan answers", format!("{other:?}")),
    }
}

fn name_of(image: &Image) -> String {
    format!("{}:{}", image.image, image.tag.as_deref().unwrap_or_default())
}

/// Notes what pinned tags lead to and what lies there of it: in this round it must stay. After the round's first clears.
pub(super) async fn notes_what_stays(shared: &Shared, cache: &Path) -> Result<(), Stop> {
    let Reply::Images(images) = shared.call(Command::Images).await? else {
        return Err(Shared::lied("a running Sampan answers", "not a list of images".into()));
    };
    for image in images.iter().filter(|image| image.pinned) {
        let mut repositories = shared.world.repositories.iter();
        let Some(at) = repositories.position(|repository| repository.tagged() == name_of(image)) else {
            continue;
        };
        let version = shared.world.current(at);
        // Where the tag has moved upstream, whoever asks for it moves it here.
        if version.digest.to_string() != image.digest {
            continue;
        }
        let there = |digest: &Digest| cache.join("blobs/sha256").join(digest.hex()).is_file();
        // What a manifest lists that is not held is not known to be part of the image, whoever else has it.
        let known = version.platforms.iter().filter(|platform| there(&platform.digest));
        let below = known.flat_map(|platform| std::iter::once(&platform.digest).chain(&platform.blobs));
        let stays = std::iter::once(&version.digest).chain(below).filter(|digest| there(digest)).copied();
        shared.promises.stays(at, stays.collect());
    }
    Ok(())
}

/// What was pinned is there, and the whole takes no more than the quota. Before anything was started again.
pub(super) fn kept_and_bounded(shared: &Shared, left: &Tree) -> Result<(), Broken> {
    let stayed = shared.promises.stayed();
    if let Some((at, digest)) = stayed.iter().find(|(_, digest)| !left.blobs.contains_key(digest)) {
        let name = shared.world.repositories[*at].tagged();
        return broken("what is pinned never makes way", format!("{name}: {digest} is gone"));
    }
    shared.promises.count("stayed", stayed.len() as u64);
    // What is on its way is counted before it is written.
    let taken = left.blob_bytes() + left.partial_bytes() + left.unfinished_bytes;
    if shared.tight && taken > QUOTA_MIN {
        let why = format!(
            "{} published, {} claimed by partial downloads, {} unfinished",
            left.blob_bytes(),
            left.partial_bytes(),
            left.unfinished_bytes
        );
        return broken("the cache takes no more than its quota", why);
    }
    Ok(())
}

fn is_there(shared: &Shared, tree: &Tree, image: &Image) -> Result<(), Broken> {
    let mut repositories = shared.world.repositories.iter();
    let repository = repositories.find(|repository| repository.full_name() == image.image);
    let digest = image.digest.parse::<Digest>().ok().filter(|digest| tree.blobs.contains_key(digest));
    let (Some(repository), Some(digest)) = (repository, digest) else {
        return broken("what is listed is there", format!("{image:?}"));
    };
    let mut versions = repository.versions.iter();
    // A platform's manifest of an index may stand for itself.
    let Some(version) = versions.find(|version| version.reach().contains(&digest)) else {
        return broken("what is listed is there", format!("not one of this repository: {image:?}"));
    };
    let held: u64 = version.reach().iter().filter_map(|digest| tree.blobs.get(digest)).sum();
    let exact = version.digest == digest && !version.is_index();
    if image.size_bytes > held || (exact && image.size_bytes != held) {
        return broken("what is listed has its size", format!("{held} bytes are there: {image:?}"));
    }
    Ok(())
}

/// What was promised is a hit, without a byte from upstream; `all` of it, or a choice. Where room is short, what made way is
/// not asked for, and what has lost the manifest that led to it may be fetched again.
pub(super) async fn keeps_promises(
    shared: &Shared,
    dice: &mut Dice,
    tree: &Tree,
    all: bool,
    figures: &mut Figures,
) -> Result<(), Broken> {
    let (new, old, tags) = shared.promises.all();
    let mut keys: Vec<Key> = Vec::new();
    if all {
        keys.extend(new.into_iter().chain(old));
    } else {
        keys.extend(chosen(dice, new, NEW));
        keys.extend(chosen(dice, old, OLD));
    }
    if shared.tight {
        keys.retain(|(_, digest, _)| tree.blobs.contains_key(digest));
    }
    let (mut looked_at, what) = (0, "what was given before is given again without the upstream");
    for key in keys {
        let size = shared.world.content[&key.1].len();
        looked_at += size;
        if !all && size > 1 << 20 && looked_at > LOOKED_AT_MOST {
            continue;
        }
        let before = shared.world.sent_bytes();
        shared.take(key).await.map_err(|stop| stopped(stop, &format!("{key:?}")))?;
        let crossed = shared.world.sent_bytes() - before;
        if crossed > 0 && shared.tight {
            continue;
        }
        if crossed > 0 {
            let name = &shared.world.repositories[key.0].name;
            return broken(what, format!("{name} {key:?} of {size} bytes: {crossed} crossed"));
        }
        figures.promises += 1;
    }
    for (at, digest) in tags {
        if shared.world.current(at).digest != digest || shared.tight {
            continue;
        }
        let before = shared.world.sent_bytes();
        let got = shared.take_tag(at).await.map_err(|stop| stopped(stop, "a tag"))?;
        if got != digest || shared.world.sent_bytes() > before {
            let name = &shared.world.repositories[at].name;
            return broken(what, format!("the tag of {name}: wanted {digest}, got {got}"));
        }
    }
    Ok(())
}

/// Of one blob that was cut short only the bytes that are not claimed cross the link.
pub(super) async fn goes_on(
    shared: &Shared,
    dice: &mut Dice,
    tree: &Tree,
    figures: &mut Figures,
) -> Result<(), Broken> {
    let partials: Vec<_> =
        tree.partials.iter().filter(|(digest, _)| !tree.blobs.contains_key(*digest)).collect();
    // Where room is short, fetching its manifest may be what makes it go.
    if partials.is_empty() || shared.tight {
        return Ok(());
    }
    let (digest, claimed) = *dice.one(&partials);
    let world = &shared.world;
    let shows = |at: &usize| world.repositories[*at].reach().contains(digest);
    let Some(at) = (0..world.repositories.len()).find(shows) else {
        return broken("what is in partial/ is of an image", digest.to_string());
    };
    // The manifest tells the size: otherwise the first question brings bytes that may be there.
    for version in world.repositories[at].versions.iter().filter(|version| version.reach().contains(digest)) {
        let manifests = version.platforms.iter().map(|platform| platform.digest);
        for manifest in std::iter::once(version.digest).chain(manifests) {
            let taken = shared.take((at, manifest, Part::Manifest)).await;
            taken.map_err(|stop| stopped(stop, "a manifest"))?;
        }
    }
    let sent = || world.quick.body_bytes(Kind::Blob) + world.slow.body_bytes(Kind::Blob);
    world.hold_back(false);
    let before = sent();
    shared.take((at, *digest, Part::Blob)).await.map_err(|stop| stopped(stop, "a blob that goes on"))?;
    let (crossed, size) = (sent() - before, world.content[digest].len() as u64);
    world.hold_back(true);
    figures.resumed += 1;
    figures.resumed_bytes += claimed;
    let most = size - claimed;
    figures.crossed_again = figures.crossed_again.max(crossed.saturating_sub(most));
    if crossed > most + CROSSES_AGAIN {
        let why = format!("{digest}: {claimed} of {size} bytes were claimed, {crossed} crossed");
        return broken("a download goes on where it stopped", why);
    }
    Ok(())
}

/// Some images can be pulled as if nothing had been.
pub(super) async fn serves(shared: &Shared, dice: &mut Dice) -> Result<(), Broken> {
    for _ in 0..PULLED {
        let at = shared.world.any(dice);
        let current = shared.world.current(at);
        let got = shared.take_tag(at).await.map_err(|stop| stopped(stop, "a tag"))?;
        if got != current.digest {
            let name = &shared.world.repositories[at].name;
            return broken("a tag is what upstream says", format!("{name}: {got}, not {}", current.digest));
        }
        let platform = dice.one(&current.platforms);
        let manifest = (at, platform.digest, Part::Manifest);
        let small = platform.blobs.iter().filter(|digest| shared.world.content[*digest].len() < 1 << 20);
        for key in std::iter::once(manifest).chain(small.map(|digest| (at, *digest, Part::Blob))) {
            shared.take(key).await.map_err(|stop| stopped(stop, "a pull"))?;
        }
    }
    Ok(())
}

/// Some of them, each at most once.
fn chosen(dice: &mut Dice, keys: Vec<Key>, most: usize) -> Vec<Key> {
    if keys.len() <= most {
        return keys;
    }
    let places: HashSet<usize> = (0..most).map(|_| dice.place(keys.len())).collect();
    keys.into_iter().enumerate().filter(|(at, _)| places.contains(at)).map(|(_, key)| key).collect()
}

pub(super) fn stopped(stop: Stop, what: &str) -> Broken {
    stop.0.unwrap_or_else(|| Broken { check: "a running Sampan answers", why: what.to_owned() })
}
