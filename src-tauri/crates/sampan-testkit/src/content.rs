//! Bytes from seeds: the same seed and length give the same bytes on every machine.

use bytes::Bytes;

/// `len` bytes that look random and do not compress, made from `seed` (SplitMix64, public domain, Vigna 2015).
pub fn random_bytes(seed: u64, len: usize) -> Bytes {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    Bytes::from(bytes)
}

/// A seed for a text, so that names make their own content (FNV-1a).
pub(crate) fn seed_of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

const BLOCK: usize = 512;

/// A layer of exactly `len` bytes. From 2 KiB on it is an uncompressed tar archive of one file of random bytes, which
/// real engines unpack; below that it is random bytes alone.
pub fn layer_bytes(seed: u64, len: usize) -> Bytes {
    if len < 4 * BLOCK {
        return random_bytes(seed, len);
    }
    // One header, whole blocks of content, at least two blocks of zeros; readers skip zeros beyond those.
    let content = (len - 3 * BLOCK) / BLOCK * BLOCK;
    let mut bytes = tar_header(&format!("sampan-{seed:016x}"), content);
    bytes.extend_from_slice(&random_bytes(seed, content));
    bytes.resize(len, 0);
    Bytes::from(bytes)
}

/// The ustar header of a regular file (POSIX.1-1988), owned by root, dated 1970.
fn tar_header(name: &str, size: usize) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_in_every_run() {
        assert_eq!(random_bytes(7, 100), random_bytes(7, 100));
        assert_eq!(
            random_bytes(7, 100)[..50],
            random_bytes(7, 50)[..],
            "a longer run starts like a shorter one"
        );
        assert_ne!(random_bytes(7, 100), random_bytes(8, 100));
        // The first output of SplitMix64 for seed 0, as its author published it.
        assert_eq!(random_bytes(0, 8)[..], 0xe220_a839_7b1d_cdaf_u64.to_le_bytes());
    }

    #[test]
    fn layers_have_exactly_the_size_asked_for() {
        for len in [0, 1, 2047, 2048, 2049, 5000, 100_000] {
            assert_eq!(layer_bytes(1, len).len(), len);
        }
        assert_eq!(&layer_bytes(1, 4096)[257..262], b"ustar", "large layers are archives");
    }
}
