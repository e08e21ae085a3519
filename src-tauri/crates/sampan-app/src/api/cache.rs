//! The contract about what is in the cache: how much of the disk it takes, images, clearing, the settings for it.

use std::str::FromStr;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::{Health, ScrubState};

/// What is on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
pub struct Cache {
    /// The cache folder.
    pub dir: String,
    /// Bytes of all published blobs and manifests.
    #[ts(type = "number")]
    pub size_bytes: u64,
    /// Bytes of downloads not finished yet.
    #[ts(type = "number")]
    pub partial_bytes: u64,
    /// Published blobs and manifests.
    #[ts(type = "number")]
    pub blobs: u64,
    /// Free bytes on that disk.
    #[ts(type = "number | null")]
    pub free_bytes: Option<u64>,
    /// The part of them that Sampan leaves alone.
    #[serde(default)]
    #[ts(type = "number")]
    pub floor_bytes: u64,
    /// Grows when the list of images changes by clearing, undoing, pinning or making room.
    #[serde(default)]
    #[ts(type = "number")]
    pub listed: u64,
    /// Why new blobs are not kept at present, if so.
    pub not_keeping: Option<NotKeeping>,
    /// The most bytes the cache may take, unfinished downloads, quarantine and its own books included; `None`: as many as
    /// the disk has.
    #[serde(default)]
    #[ts(type = "number | null")]
    pub quota_bytes: Option<u64>,
    /// Bytes that pinned images are made of.
    #[serde(default)]
    #[ts(type = "number")]
    pub pinned_bytes: u64,
    /// Bytes of damaged blobs that are kept aside.
    #[serde(default)]
    #[ts(type = "number")]
    pub quarantine_bytes: u64,
    /// Bytes of what is kept beside images: the index, `index.json`, the ledgers of unfinished downloads.
    #[serde(default)]
    #[ts(type = "number")]
    pub own_bytes: u64,
    /// The network file system the folder is on (`NFS`, `SMB`, …), where locks and renames are not dependable; `None`: none
    /// that is known.
    #[serde(default)]
    pub network: Option<String>,
    /// What damage was found, and what became of it.
    #[serde(default)]
    pub health: Health,
    /// The scrub that goes on.
    #[serde(default)]
    pub scrub: Option<ScrubState>,
}

impl Cache {
    /// All that counts against the quota, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.size_bytes + self.partial_bytes + self.quarantine_bytes + self.own_bytes
    }
}

/// Why new blobs are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum NotKeeping {
    /// The disk is full, or below the free space Sampan leaves.
    DiskFull,
    /// What is asked for is larger than the quota, or nothing more can make way: the rest is pinned.
    QuotaFull,
    /// The folder cannot be written to.
    ReadOnly,
    /// A person paused Sampan.
    Paused,
}

/// An image in the cache: one tag, or a manifest held without a tag.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
pub struct Image {
    /// `docker.io/library/nginx`.
    pub image: String,
    /// The tag; `None`: only pulled by digest.
    pub tag: Option<String>,
    /// What the tag points at.
    pub digest: String,
    /// Platforms whose image manifest is held: `linux/amd64`.
    pub platforms: Vec<String>,
    /// Bytes of everything of it that is held, each blob once.
    #[ts(type = "number")]
    pub size_bytes: u64,
    /// Bytes of those that nothing else in the cache uses: what deleting it frees.
    #[ts(type = "number")]
    pub own_bytes: u64,
    /// When it was first held.
    #[ts(type = "number")]
    pub created: i64,
    /// When it was last asked for.
    #[ts(type = "number")]
    pub last_used: i64,
    /// Whether it is kept whatever the quota and the age limit say.
    #[serde(default)]
    pub pinned: bool,
    /// How many times its own manifest was answered from the cache.
    #[serde(default)]
    #[ts(type = "number")]
    pub hits: u64,
    /// The part of `size_bytes` that came over the link, not by an import: what it cost.
    #[serde(default)]
    #[ts(type = "number")]
    pub fetched_bytes: u64,
    /// The digests its tag had, newest first, at most 20; empty without a tag.
    #[serde(default)]
    pub history: Vec<TagDigest>,
    /// It was imported, and its registry has not confirmed it yet.
    #[serde(default)]
    pub unconfirmed: bool,
    /// The digest that a person froze the tag at.
    #[serde(default)]
    pub frozen: Option<String>,
    /// When its registry said that it has no such tag any more: it is kept, and not answered.
    #[serde(default)]
    #[ts(type = "number | null")]
    pub gone: Option<i64>,
}

/// A digest that a tag had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct TagDigest {
    /// The digest.
    pub digest: String,
    /// When the tag was first seen with it.
    #[ts(type = "number")]
    pub first_seen: i64,
    /// Whether its manifest is in the cache.
    pub held: bool,
}

/// One image, blob by blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct ImageDetails {
    /// The image.
    pub image: Image,
    /// Its parts, its own manifest included, those not held too.
    pub blobs: Vec<ImageBlob>,
}

/// A part of an image: a manifest, a configuration or a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct ImageBlob {
    /// Its digest.
    pub digest: String,
    /// Its size.
    #[ts(type = "number")]
    pub size_bytes: u64,
    /// Whether it is in the cache.
    pub held: bool,
    /// What it is, where a held manifest says so: `application/vnd.oci.image.layer.v1.tar+gzip`.
    pub media_type: Option<String>,
    /// How many images of the cache are made of it, this one included.
    pub shared: u32,
    /// When its bytes were last compared with its digest.
    #[ts(type = "number | null")]
    pub checked: Option<i64>,
}

/// What to clear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClearSelection {
    /// Everything; downloads under way go on.
    All,
    /// These images, as [`Image::image`] with `:tag` or `@digest`, or without either for every tag of it.
    Images {
        /// The images.
        names: Vec<String>,
    },
    /// Images not asked for in the last `days` days.
    UnusedFor {
        /// At least 1.
        days: u32,
    },
}

/// What clearing removes, or removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
pub struct ClearReport {
    /// The images.
    pub images: Vec<Image>,
    /// Blobs and manifests that go with them (those other images use stay).
    #[ts(type = "number")]
    pub blobs: u64,
    /// Bytes really freed.
    #[ts(type = "number")]
    pub freed_bytes: u64,
    /// Bytes that would cross the link again if all of it were pulled again.
    #[ts(type = "number")]
    pub refetch_bytes: u64,
    /// How long that would take by the speed of the last pulls; `None`: none was long enough to tell.
    #[ts(type = "number | null")]
    pub refetch_seconds: Option<u64>,
    /// What [`Command::ClearUndo`](super::Command::ClearUndo) takes; `None`: there is no way back.
    #[ts(type = "number | null")]
    pub undo: Option<u64>,
    /// Until when it can be brought back.
    #[ts(type = "number | null")]
    pub undo_until: Option<i64>,
}

/// The smallest quota, 100 MB: below it hardly an image fits.
pub const QUOTA_MIN: u64 = 100_000_000;
/// The largest quota, 1 PB: more than any disk has.
pub const QUOTA_MAX: u64 = 1_000_000_000_000_000;
/// The longest age limit in days: ten years.
pub const AGE_LIMIT_DAYS_MAX: u32 = 3650;

/// How much of the disk the cache may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Quota {
    /// By the free space of the disk above what Sampan leaves alone, looked at when Sampan starts and when this is chosen.
    #[default]
    Auto,
    /// As much as the disk has, but for the free space Sampan leaves alone.
    Off,
    /// This many bytes: [`QUOTA_MIN`] to [`QUOTA_MAX`].
    Bytes(#[ts(type = "number")] u64),
}

/// The age limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum AgeLimit {
    /// None at all.
    Off,
    /// This many days: 1 to [`AGE_LIMIT_DAYS_MAX`].
    Days(u32),
}

/// How often what is on disk is compared with its digest before it is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// At the first read since the start, and once a day after that.
    #[default]
    Daily,
    /// At every read.
    Always,
}

impl FromStr for Quota {
    type Err = String;

    /// Reads `auto`, `off`, or a size such as `20 GB`. The error is a sentence for the person who wrote it.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.to_ascii_lowercase().as_str() {
            "auto" => return Ok(Self::Auto),
            "off" => return Ok(Self::Off),
            _ => {}
        }
        let bytes = text.parse::<ByteSize>().map(|size| size.as_u64());
        bytes.ok().filter(|bytes| (QUOTA_MIN..=QUOTA_MAX).contains(bytes)).map(Self::Bytes).ok_or_else(|| {
            "write a size of 100 MB or more, such as 20GB or \"50 GiB\", or auto, or off".to_owned()
        })
    }
}

impl FromStr for AgeLimit {
    type Err = String;

    /// Reads `off`, or a number of days. The error is a sentence for the person who wrote it.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self::Off);
        }
        let days = text.parse().ok().filter(|days| (1..=AGE_LIMIT_DAYS_MAX).contains(days));
        days.map(Self::Days).ok_or_else(|| {
            format!("write a number of days from 1 to {AGE_LIMIT_DAYS_MAX}, such as 90, or off")
        })
    }
}

impl FromStr for Verify {
    type Err = String;

    /// Reads `daily` or `always`. The error is a sentence for the person who wrote it.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "daily" => Ok(Self::Daily),
            "always" => Ok(Self::Always),
            _ => Err("write daily, or always".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_read_as_people_write_it() {
        let table = [
            ("auto", Quota::Auto),
            (" OFF ", Quota::Off),
            ("20GB", Quota::Bytes(20_000_000_000)),
            ("50 GiB", Quota::Bytes(53_687_091_200)),
            ("100 MB", Quota::Bytes(QUOTA_MIN)),
            ("1PB", Quota::Bytes(QUOTA_MAX)),
        ];
        for (written, quota) in table {
            assert_eq!(written.parse(), Ok(quota), "{written:?}");
        }
        for wrong in ["", "99 MB", "2 PB", "0", "-1", "much", "20 Gbit"] {
            let refused = wrong.parse::<Quota>().expect_err(wrong);
            assert!(refused.contains("100 MB or more"), "{wrong:?}: {refused}");
        }
    }

    #[test]
    fn an_age_limit_is_days_or_off() {
        let table =
            [("off", AgeLimit::Off), ("1", AgeLimit::Days(1)), ("3650", AgeLimit::Days(AGE_LIMIT_DAYS_MAX))];
        for (written, limit) in table {
            assert_eq!(written.parse(), Ok(limit), "{written:?}");
        }
        for wrong in ["0", "3651", "-1", "30d", "", "never"] {
            assert!(wrong.parse::<AgeLimit>().expect_err(wrong).contains("1 to 3650"), "{wrong:?}");
        }
    }

    #[test]
    fn the_settings_of_the_cache_are_written_as_the_window_writes_them() {
        let json = |quota: Quota| serde_json::to_string(&quota).unwrap();
        assert_eq!(json(Quota::Auto), r#""auto""#);
        assert_eq!(json(Quota::Bytes(20)), r#"{"bytes":20}"#);
        assert_eq!(serde_json::to_string(&AgeLimit::Days(90)).unwrap(), r#"{"days":90}"#);
        assert_eq!(serde_json::from_str::<Verify>(r#""always""#).unwrap(), Verify::Always);
    }
}
