//! An independent reader of ledgers, written from their description alone: what the store's own one overlooks it would
//! overlook here too.

use flate2::Crc;
use sampan_oci::RangeSet;

const LINE: usize = 24;

/// What a ledger says: disjoint claims inside the blob, up to the first line that is torn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// The blob's size in bytes.
    pub(super) size: u64,
    /// First byte, end, and CRC-32 of the bytes between.
    pub(super) claims: Vec<(u64, u64, u32)>,
}

impl Said {
    /// Reads a ledger. `None`: it has no whole first line, which is how one begins.
    ///
    /// # Errors
    /// What no kill can make of it, in words.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, String> {
        let Some((head, rest)) = bytes.split_at_checked(LINE) else { return Ok(None) };
        if &head[..8] != b"SampanPL" || head[8..12] != [1, 0, 0, 0] || !sealed(head) {
            return Err("the first line is none".into());
        }
        let size = number(&head[12..20]);
        let (mut claims, mut covered) = (Vec::new(), RangeSet::new());
        for (at, line) in rest.chunks(LINE).enumerate() {
            if line.len() < LINE {
                // The one that was being written.
                break;
            }
            if !sealed(line) {
                return Err(format!("line {} is whole, and its checksum is wrong", at + 1));
            }
            let (start, end) = (number(&line[..8]), number(&line[8..16]));
            if start >= end || end > size {
                return Err(format!("line {} claims {start}..{end} of {size} bytes", at + 1));
            }
            if !covered.gaps(start..end).eq(std::iter::once(start..end)) {
                return Err(format!(
                    "line {} claims {start}..{end}, of which a part was claimed before",
                    at + 1
                ));
            }
            covered.insert(start..end);
            claims.push((start, end, u32::from_le_bytes([line[16], line[17], line[18], line[19]])));
        }
        Ok(Some(Self { size, claims }))
    }

    /// How many bytes are claimed.
    pub(super) fn bytes(&self) -> u64 {
        self.claims.iter().map(|(start, end, _)| end - start).sum()
    }

    /// The first claim that is not true of `data`, in words.
    pub(super) fn lie(&self, data: &[u8]) -> Option<String> {
        self.claims.iter().find_map(|&(start, end, crc)| {
            let (from, to) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
            let Some(bytes) = data.get(from..to) else {
                return Some(format!("{start}..{end} is claimed, the file has {} bytes", data.len()));
            };
            (crc_of(bytes) != crc).then(|| format!("the bytes {start}..{end} are not the claimed ones"))
        })
    }
}

fn sealed(line: &[u8]) -> bool {
    crc_of(&line[..LINE - 4]).to_le_bytes() == line[LINE - 4..]
}

fn crc_of(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fields: &[&[u8]]) -> Vec<u8> {
        let mut line = fields.concat();
        line.extend(crc_of(&line).to_le_bytes());
        line
    }

    fn ledger(claims: &[(u64, u64, u32)]) -> Vec<u8> {
        let claim = |(start, end, crc): &(u64, u64, u32)| {
            line(&[&start.to_le_bytes(), &end.to_le_bytes(), &crc.to_le_bytes()])
        };
        let head = line(&[b"SampanPL", &[1, 0, 0, 0], &10_u64.to_le_bytes()]);
        head.into_iter().chain(claims.iter().flat_map(claim)).collect()
    }

    #[test]
    fn a_torn_end_is_what_a_kill_leaves_and_anything_else_is_not() {
        let bytes = ledger(&[(2, 4, 7), (0, 2, 8)]);
        let said = Said::read(&bytes).unwrap().unwrap();
        assert_eq!((said.size, said.bytes(), said.claims.len()), (10, 4, 2));
        assert_eq!(Said::read(&bytes[..bytes.len() - 1]).unwrap().unwrap().claims.len(), 1);
        assert_eq!(Said::read(&bytes[..23]), Ok(None));
        let mut flipped = bytes.clone();
        flipped[LINE + 3] ^= 1;
        assert!(Said::read(&flipped).is_err(), "a whole line with a wrong checksum");
        for wrong in [(0, 11, 0), (5, 5, 0), (3, 5, 0)] {
            assert!(Said::read(&ledger(&[(2, 4, 7), wrong])).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_claim_that_is_not_true_is_found() {
        let said = |crc| Said { size: 10, claims: vec![(1, 3, crc)] };
        assert_eq!(said(crc_of(b"bc")).lie(b"abcd"), None);
        assert!(said(crc_of(b"bx")).lie(b"abcd").is_some_and(|lie| lie.contains("1..3")));
        assert!(said(crc_of(b"bc")).lie(b"ab").is_some(), "bytes that are not there");
    }
}
