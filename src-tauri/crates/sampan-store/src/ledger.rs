//! The ledger of a partial download: which of its bytes are on disk, and their checksums.
//!
//! A file of lines of [`LINE_BYTES`], only ever appended to or replaced whole. The first line is the header, every other
//! one a claim; the last four bytes of each are the CRC-32 of the twenty before. All numbers are little-endian.
//! ```text
//! header   magic [8]   version u32   blob size u64              crc u32
//! claim    start u64   end u64       CRC-32 of those bytes u32  crc u32
//! ```
//! Reading ends at the first line that is torn or wrong: what was appended after it is not known to be of this ledger.

use std::io;
use std::sync::Arc;

use sampan_oci::Digest;

use crate::disk::DiskFile;
use crate::folder::Folder;

const MAGIC: &[u8; 8] = b"SampanPL";
const VERSION: u32 = 1;
const LINE_BYTES: usize = 24;

/// Claims in a ledger; beyond it, adjacent ones are joined.
const CLAIMS_MAX: usize = 32_768;

/// Claims that are read from a file; what it holds beyond them is not believed. Only bytes in as many separate places
/// could need more than [`CLAIMS_MAX`].
const CLAIMS_READ_MAX: usize = 1 << 20;

/// The least number of bytes up to which adjacent claims are joined.
const JOINED_BYTES_MIN: u64 = 1024 * 1024;

/// Up to how many bytes one claim vouches for. One wrong byte costs all of its claim, so a claim is no larger than what
/// keeps the ledger of a blob of this size short.
pub(crate) fn claim_bytes_max(size: u64) -> u64 {
    (size / (CLAIMS_MAX as u64 / 4)).max(JOINED_BYTES_MIN)
}

/// That the bytes from `start` up to `end` are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// CRC-32 (IEEE) of the bytes.
    pub(crate) crc: u32,
}

impl Claim {
    pub(crate) fn of(start: u64, bytes: &[u8]) -> Self {
        Self { start, end: start + bytes.len() as u64, crc: crc32fast::hash(bytes) }
    }

    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Takes in the claim that begins where this one ends; `false`: it does not, or both together are too large.
    fn join(&mut self, next: &Self, bytes_max: u64) -> bool {
        if next.start != self.end || next.end - self.start > bytes_max {
            return false;
        }
        let mut crc = crc32fast::Hasher::new_with_initial_len(self.crc, self.len());
        crc.combine(&crc32fast::Hasher::new_with_initial_len(next.crc, next.len()));
        *self = Self { start: self.start, end: next.end, crc: crc.finalize() };
        true
    }

    fn encode(&self) -> [u8; LINE_BYTES] {
        let mut fields = [0; LINE_BYTES - 4];
        fields[..8].copy_from_slice(&self.start.to_le_bytes());
        fields[8..16].copy_from_slice(&self.end.to_le_bytes());
        fields[16..].copy_from_slice(&self.crc.to_le_bytes());
        seal(fields)
    }

    fn decode(line: &[u8]) -> Option<Self> {
        let fields = unseal(line)?;
        let (start, rest) = fields.split_first_chunk()?;
        let (end, crc) = rest.split_first_chunk()?;
        let (start, end) = (u64::from_le_bytes(*start), u64::from_le_bytes(*end));
        Some(Self { start, end, crc: u32::from_le_bytes(crc.try_into().ok()?) })
    }
}

/// Adds a claim to those of the same write, joining it to the one before where they touch.
pub(crate) fn add(claims: &mut Vec<Claim>, claim: Claim, bytes_max: u64) {
    if !claims.last_mut().is_some_and(|last| last.join(&claim, bytes_max)) {
        claims.push(claim);
    }
}

fn header(size: u64) -> [u8; LINE_BYTES] {
    let mut fields = [0; LINE_BYTES - 4];
    fields[..8].copy_from_slice(MAGIC);
    fields[8..12].copy_from_slice(&VERSION.to_le_bytes());
    fields[12..].copy_from_slice(&size.to_le_bytes());
    seal(fields)
}

fn seal(fields: [u8; LINE_BYTES - 4]) -> [u8; LINE_BYTES] {
    let mut line = [0; LINE_BYTES];
    line[..LINE_BYTES - 4].copy_from_slice(&fields);
    line[LINE_BYTES - 4..].copy_from_slice(&crc32fast::hash(&fields).to_le_bytes());
    line
}

fn unseal(line: &[u8]) -> Option<&[u8]> {
    let (fields, crc) = line.split_last_chunk()?;
    (line.len() == LINE_BYTES && crc32fast::hash(fields) == u32::from_le_bytes(*crc)).then_some(fields)
}

/// What a ledger says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The blob's size in bytes.
    pub(crate) size: u64,
    /// Disjoint, inside the blob, never empty, in the order in which they were written.
    pub(crate) claims: Vec<Claim>,
    /// Whether the file ends with its last claim. If not, nothing can be appended to it.
    pub(crate) whole: bool,
}

impl Found {
    /// Reads a ledger. `None`: its first line is not a header of this version.
    pub(crate) fn read(file: &DiskFile) -> io::Result<Option<Self>> {
        let bytes = file.read_up_to((1 + CLAIMS_READ_MAX) * LINE_BYTES + 1)?;
        Ok(Self::parse(&bytes))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_at_checked(LINE_BYTES)?;
        let (_, size) = unseal(first)?.split_last_chunk()?;
        let size = u64::from_le_bytes(*size);
        if first != header(size) {
            return None;
        }
        let (mut claims, mut covered) = (Vec::new(), sampan_oci::RangeSet::new());
        for line in rest.chunks(LINE_BYTES) {
            let sound = |claim: &Claim| {
                let range = claim.start..claim.end;
                !range.is_empty() && claim.end <= size && covered.gaps(range.clone()).eq([range])
            };
            let Some(claim) = Claim::decode(line).filter(sound) else { break };
            covered.insert(claim.start..claim.end);
            claims.push(claim);
        }
        let whole = rest.len() == claims.len() * LINE_BYTES;
        Some(Self { size, claims, whole })
    }

    /// How many bytes are claimed.
    pub(crate) fn claimed_bytes(&self) -> u64 {
        self.claims.iter().map(Claim::len).sum()
    }
}

/// The names of a partial download's files.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The bytes, each at its place.
    pub(crate) data: String,
    pub(crate) ledger: String,
    /// The ledger that is to replace it. What a crash leaves of it is swept at start.
    ledger_new: String,
}

impl Names {
    pub(crate) fn of(digest: &Digest) -> Self {
        let stem = format!("{}-{}", digest.algorithm().as_str(), digest.hex());
        Self {
            data: format!("{stem}.{}", Self::DATA),
            ledger: format!("{stem}.{}", Self::LEDGER),
            ledger_new: format!("{stem}.ledger-new"),
        }
    }

    pub(crate) const DATA: &str = "data";
    pub(crate) const LEDGER: &str = "ledger";
}

/// A ledger that is written to.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: Arc<DiskFile>,
    size: u64,
    claims: Vec<Claim>,
    /// Beyond this many claims they are joined.
    claims_max: usize,
}

impl Ledger {
    /// A new ledger that claims nothing, in place of whatever has its name.
    pub(crate) fn begin(folder: &Folder, names: &Names, size: u64) -> io::Result<Self> {
        folder.remove(&names.ledger)?;
        let file = Arc::new(folder.open_for_writing(&names.ledger, true)?);
        file.write_all_at(&header(size), 0)?;
        Ok(Self { file, size, claims: Vec::new(), claims_max: CLAIMS_MAX })
    }

    /// Goes on with a ledger that was [whole](Found::whole), and all of whose claims are true.
    pub(crate) fn resume(folder: &Folder, names: &Names, size: u64, claims: Vec<Claim>) -> io::Result<Self> {
        let file = Arc::new(folder.open_for_writing(&names.ledger, false)?);
        Ok(Self { file, size, claims, claims_max: CLAIMS_MAX })
    }

    /// Replaces the ledger by one of these claims, joined where they touch. A crash leaves the old or the new one.
    pub(crate) fn replace(
        folder: &Folder,
        names: &Names,
        size: u64,
        mut claims: Vec<Claim>,
    ) -> io::Result<Self> {
        claims.sort_unstable_by_key(|claim| claim.start);
        let mut joined = Vec::new();
        for claim in claims {
            add(&mut joined, claim, claim_bytes_max(size));
        }
        let replaced = Self::put_in_place(folder, names, size, &joined);
        if replaced.is_err() {
            folder.remove(&names.ledger_new)?;
        }
        // Claims that touch nothing cannot be joined: trying again is worth it when there are twice as many.
        let claims_max = CLAIMS_MAX.max(2 * joined.len());
        Ok(Self { file: Arc::new(replaced?), size, claims: joined, claims_max })
    }

    fn put_in_place(folder: &Folder, names: &Names, size: u64, claims: &[Claim]) -> io::Result<DiskFile> {
        let mut bytes = header(size).to_vec();
        bytes.extend(claims.iter().flat_map(Claim::encode));
        let file = folder.open_for_writing(&names.ledger_new, false)?;
        file.set_len(0)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        folder.rename(&names.ledger_new, folder, &names.ledger)?;
        folder.sync()?;
        Ok(file)
    }

    /// Adds claims whose bytes are in the file already. They must not overlap with earlier ones.
    pub(crate) fn append(&mut self, folder: &Folder, names: &Names, claims: &[Claim]) -> io::Result<()> {
        let lines: Vec<u8> = claims.iter().flat_map(Claim::encode).collect();
        let end = (1 + self.claims.len()) * LINE_BYTES;
        self.file.write_all_at(&lines, end as u64)?;
        self.claims.extend_from_slice(claims);
        if self.claims.len() > self.claims_max {
            *self = Self::replace(folder, names, self.size, std::mem::take(&mut self.claims))?;
        }
        Ok(())
    }

    /// Its file, for syncing. A ledger that replaces this one is synced before it does.
    pub(crate) fn file(&self) -> Arc<DiskFile> {
        Arc::clone(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::disk::Disk;

    fn claim(start: u64, end: u64) -> Claim {
        Claim { start, end, crc: 7 }
    }

    fn text(size: u64, claims: &[Claim]) -> Vec<u8> {
        header(size).into_iter().chain(claims.iter().flat_map(Claim::encode)).collect()
    }

    #[test]
    fn a_ledger_is_these_bytes() {
        let bytes = text(5, &[Claim::of(1, b"ab")]);
        assert_eq!(&bytes[..12], b"SampanPL\x01\0\0\0", "a ledger of today is read by tomorrow's Sampan");
        assert_eq!(bytes[12..20], [5, 0, 0, 0, 0, 0, 0, 0]);
        // CRC-32 (IEEE) of "ab".
        assert_eq!(bytes[24..44], [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0x6d, 0x48, 0x83, 0x9e]);
        assert_eq!(bytes.len(), 48);
    }

    #[test]
    fn reading_ends_at_the_first_claim_that_cannot_be() {
        let good = [claim(10, 20), claim(0, 10)];
        let cases: [(&str, Claim); 6] = [
            ("empty", claim(30, 30)),
            ("reversed", claim(40, 30)),
            ("beyond the blob", claim(90, 101)),
            ("told before", claim(0, 10)),
            ("overlapping", claim(19, 21)),
            ("around another", claim(5, 50)),
        ];
        for (what, wrong) in cases {
            let found = Found::parse(&text(100, &[good[0], good[1], wrong, claim(50, 60)])).unwrap();
            assert_eq!((found.size, found.whole), (100, false), "{what}");
            assert_eq!(found.claims, good, "{what}: what follows is not believed either");
        }
        let found = Found::parse(&text(100, &good)).unwrap();
        assert!(found.whole);
        assert_eq!(found.claimed_bytes(), 20);
        assert!(Found::parse(&text(0, &[])).is_some_and(|found| found.whole && found.claims.is_empty()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reading_fail_or_claim_what_cannot_be(
            size in 0_u64..50, claims in proptest::collection::vec((0_u64..50, 0_u64..50), 0..8),
            cut in 0_usize..240, flip in 0_usize..240, noise in any::<bool>()
        ) {
            let claims: Vec<Claim> = claims.into_iter().map(|(start, end)| claim(start, end)).collect();
            let mut bytes = text(size, &claims);
            if noise && let Some(byte) = bytes.get_mut(flip) {
                *byte ^= 16;
            }
            bytes.truncate(cut);
            if let Some(found) = Found::parse(&bytes) {
                prop_assert_eq!(found.size, size);
                prop_assert!(claims.starts_with(&found.claims), "only what was written");
                prop_assert!(found.claimed_bytes() <= size, "no byte twice, none beyond the blob");
            }
        }

        #[test]
        fn the_checksum_of_joined_claims_is_that_of_their_bytes(
            bytes in proptest::collection::vec(any::<u8>(), 2..300), cuts in proptest::collection::vec(1_usize..300, 0..6)
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < bytes.len()).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            cuts.dedup();
            let mut claims = Vec::new();
            for part in cuts.windows(2) {
                add(&mut claims, Claim::of(7 + part[0] as u64, &bytes[part[0]..part[1]]), u64::MAX);
            }
            prop_assert_eq!(claims, [Claim::of(7, &bytes)]);
        }
    }

    #[test]
    fn claims_are_joined_where_they_touch_and_up_to_their_limit() {
        let mut claims = Vec::new();
        for next in [claim(0, 4), claim(4, 8), claim(8, 12), claim(13, 14), claim(12, 13)] {
            add(&mut claims, next, 8);
        }
        let ranges: Vec<_> = claims.iter().map(|claim| (claim.start, claim.end)).collect();
        assert_eq!(ranges, [(0, 8), (8, 12), (13, 14), (12, 13)]);
        assert_eq!(claim_bytes_max(1), 1024 * 1024);
        let large = 64 << 30;
        assert!(large / claim_bytes_max(large) <= CLAIMS_MAX as u64 / 4, "a whole blob's ledger is short");
    }

    #[test]
    fn a_ledger_that_grows_too_long_is_joined_and_one_that_cannot_be_is_not_tried_at_each_write() {
        let temporary = TempDir::new().unwrap();
        let folder = Folder::open(temporary.path(), &Disk::real(), true).unwrap();
        let names = Names::of(&Digest::of(b"x"));
        let lines = || folder.size_of(&names.ledger).unwrap().unwrap() / LINE_BYTES as u64 - 1;
        let most = CLAIMS_MAX as u64;
        let mut ledger = Ledger::begin(&folder, &names, 10 * most).unwrap();
        // Every second byte: nothing touches.
        let apart: Vec<Claim> = (0..=most).map(|at| Claim::of(2 * at, b"x")).collect();
        ledger.append(&folder, &names, &apart).unwrap();
        assert_eq!(
            (lines(), ledger.claims_max),
            (most + 1, 2 * (CLAIMS_MAX + 1)),
            "tried again at twice as many"
        );
        let between: Vec<Claim> = (0..=most).map(|at| Claim::of(2 * at + 1, b"y")).collect();
        ledger.append(&folder, &names, &between).unwrap();
        assert_eq!(lines(), 2 * (most + 1));
        ledger.append(&folder, &names, &[Claim::of(9 * most, b"z")]).unwrap();
        assert_eq!(lines(), 2, "one run, and one byte elsewhere");
        assert!(folder.open_file(&names.ledger_new).unwrap().is_none());

        ledger.append(&folder, &names, &[Claim::of(8 * most, b"more")]).unwrap();
        let found = Found::read(&folder.open_file(&names.ledger).unwrap().unwrap()).unwrap().unwrap();
        assert!(found.whole, "appended where the new file ends");
        assert_eq!(found.claims[0], Claim::of(0, &b"xy".repeat(CLAIMS_MAX + 1)));
        assert_eq!(found.claims[2], Claim::of(8 * most, b"more"));
    }
}
