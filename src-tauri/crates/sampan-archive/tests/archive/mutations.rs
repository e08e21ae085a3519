//! A good archive, damaged at random, many times.

use sampan_archive::Imported;
use sampan_testkit::random_bytes;

use crate::support::{Archive, Cache, Parts};

const ROUNDS: usize = 2000;

/// One to four changes: a byte flipped, a block taken out, doubled or zeroed, the end cut off.
fn damage(tar: &mut Vec<u8>, random: &mut impl FnMut(usize) -> usize) {
    for _ in 0..=random(3) {
        if tar.len() < 2048 {
            return;
        }
        let (at, block) = (random(tar.len()), random(tar.len() / 512 - 1) * 512);
        match random(6) {
            0 | 1 => tar[at] ^= 1 << random(8),
            2 => drop(tar.drain(block..block + 512)),
            3 => {
                let copy = tar[block..block + 512].to_vec();
                let to = random(tar.len() / 512) * 512;
                tar.splice(to..to, copy);
            }
            4 => tar[block..block + 512].fill(0),
            _ => tar.truncate(at.max(1024)),
        }
    }
}

#[tokio::test]
async fn whatever_is_done_to_an_archive_only_right_blobs_come_in() {
    let arm = Parts::image("arm64", &[(1, 700), (3, 100)]);
    let index = Parts::index(&[("amd64", &Parts::image("amd64", &[(1, 700), (2, 900)])), ("arm64", &arm)]);
    let good = Archive::of(&[("docker.io/library/a:1", &index), ("docker.io/library/b:1", &arm)]).tar();
    let noise = random_bytes(20_261_121, ROUNDS * 64 * 4);
    let mut words = noise.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()) as usize);
    let mut random = |below: usize| words.next().unwrap() % below.max(1);
    let (mut whole, mut partly, mut refused) = (0, 0, 0);
    let folder = tempfile::tempdir().unwrap();
    let mut cache = Cache::new();
    for round in 0..ROUNDS {
        if round % 100 == 0 {
            cache = Cache::new();
        }
        let mut tar = good.clone();
        damage(&mut tar.0, &mut random);
        match cache.import(&tar.write(folder.path())).await {
            Ok(Imported { images, .. }) if images.len() == 2 => whole += 1,
            Ok(_) => partly += 1,
            Err(_) => refused += 1,
        }
        cache.blobs();
        cache.assert_tidy();
    }
    assert!(whole > 50 && partly > 50 && refused > 50, "all of it happens: {whole} {partly} {refused}");
}
