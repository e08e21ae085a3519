//! Whether a folder is on another machine: there locks and renames are not dependable (SECURITY.md R69).

use std::path::Path;

/// File systems whose files are elsewhere, or may be, by the number by which Linux tells them (`linux/magic.h`; those of
/// GPFS and Lustre are their own). FUSE is one number for all, sshfs and rclone as well as what is on this machine.
#[cfg(any(target_os = "linux", test))]
const NETWORK: [(u32, &str); 14] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "SMB (CIFS)"),
    (0xFE53_4D42, "SMB"),
    (0x0102_1997, "9P"),
    (0x6573_5546, "FUSE (sshfs, rclone and others)"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
];

/// The name of the network file system with this number; `None`: it is not known as one. The number is `statfs`'s `f_type`,
/// of which only the lower 32 bits mean anything: 32-bit systems tell it with a sign.
#[cfg(any(target_os = "linux", test))]
fn named(f_type: i128) -> Option<&'static str> {
    NETWORK.iter().find(|(number, _)| f_type & 0xFFFF_FFFF == i128::from(*number)).map(|(_, name)| *name)
}

/// The network file system that holds `dir`, or will hold it once it is made; `None`: it is on this machine's disk, or the
/// system does not say. Only Linux is asked: macOS and Windows tell it otherwise, and there nothing is known. Blocks on the
/// disk.
pub fn network_of(dir: &Path) -> Option<&'static str> {
    #[cfg(target_os = "linux")]
    return dir
        .ancestors()
        .find_map(|dir| rustix::fs::statfs(dir).ok())
        .and_then(|told| named(told.f_type.into()));
    #[cfg(not(target_os = "linux"))]
    {
        let _ = dir;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_another_machine_is_told_from_what_is_on_this_one() {
        let table: [(i128, Option<&str>); 12] = [
            (0x6969, Some("NFS")),
            (0xFF53_4D42, Some("SMB (CIFS)")),
            // The same on a 32-bit system.
            (-0x00AC_B2BE, Some("SMB (CIFS)")),
            (0xFE53_4D42, Some("SMB")),
            (0x0102_1997, Some("9P")),
            (0x6573_5546, Some("FUSE (sshfs, rclone and others)")),
            (0xEF53, None),
            (0x5846_5342, None),
            (0x9123_683E, None),
            (0x0102_1994, None),
            (0x794C_7630, None),
            (0x2FC1_2FC1, None),
        ];
        for (number, name) in table {
            assert_eq!(named(number), name, "{number:#x}");
        }
    }

    #[test]
    fn no_number_stands_twice() {
        let numbers: std::collections::HashSet<u32> = NETWORK.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers.len(), NETWORK.len());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_disk_of_the_folders_that_stand_is_asked() {
        // Of any Linux, and never anybody's.
        assert_eq!(network_of(Path::new("/proc/self/not/made/yet")), None);
    }
}
