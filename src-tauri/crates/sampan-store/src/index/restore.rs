//! Writing into a new index what was found in the folder of a lost one.

use std::collections::HashMap;

use rusqlite::{Connection, params};
use sampan_oci::{Digest, Manifest, Millis, Reference};

use super::change::{Change, integer};
use crate::error::StoreError;
use crate::index_json::Root;

/// Whether the index knows nothing: it is new, or was made anew.
pub(crate) fn is_blank(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT NOT EXISTS (SELECT 1 FROM blob) AND NOT EXISTS (SELECT 1 FROM tag)",
        [],
        |row| row.get(0),
    )
}

/// Records which of the blobs are manifests, and what they list.
pub(crate) fn manifests<'a>(
    change: &Change<'_>,
    found: impl Iterator<Item = &'a Manifest>,
) -> Result<(), StoreError> {
    for manifest in found {
        change.record_listing(manifest)?;
    }
    Ok(())
}

/// Records that what an upstream has shown came from there.
pub(crate) fn fetched(change: &Change<'_>) -> Result<(), StoreError> {
    change.run(
        "UPDATE blob SET fetched = size WHERE digest IN (SELECT digest FROM link WHERE proven = 1)",
        [],
    )?;
    Ok(())
}

/// Records an image: its tag, its pin, and that it shows what its manifest lists, and what those below it list of which
/// `index.json` says so (SECURITY.md R84); of all else that it leads to this is hearsay. `found` has every manifest held, with
/// its size in bytes, the root's among them.
pub(crate) fn root(
    change: &Change<'_>,
    root: &Root,
    found: &HashMap<Digest, (Manifest, u64)>,
    now: Millis,
) -> Result<(), StoreError> {
    let image = change.image(&root.image)?;
    let mut links = HashMap::from([(root.digest, (root.size, root.confirmed))]);
    let mut open = vec![root.digest];
    while let Some((manifest, _)) = open.pop().and_then(|digest| found.get(&digest)) {
        // That an image shows an index says nothing of who shows the parts of what the index lists.
        let proven =
            root.confirmed && (manifest.digest == root.digest || root.proven.contains(&manifest.digest));
        for listed in manifest.descriptors() {
            let known = links.insert(listed.digest, (listed.size, proven));
            if let Some((size, before)) = known {
                links.insert(listed.digest, (size, before || proven));
            } else if found.contains_key(&listed.digest) {
                open.push(listed.digest);
            }
        }
    }
    for (digest, (size, proven)) in links {
        // Nothing is known of the last use: as if it were now, so that nothing goes too early.
        change.run(
            "INSERT INTO link (image, digest, size, created, last_used, proven, aged) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (image, digest) DO UPDATE SET proven = max(proven, excluded.proven),
                 created = min(created, excluded.created)",
            params![image, digest.to_string(), integer(size), root.first_seen.0, now.0, proven, change.age()],
        )?;
    }
    let digest = root.digest.to_string();
    let reference = root.tag.clone().map_or(Reference::Digest(root.digest), Reference::Tag);
    if let Some(tag) = &root.tag {
        // Never confirmed, as far as is known: the next pull of the tag asks its upstream.
        change.run(
            "INSERT INTO tag (image, tag, digest, checked, confirmed, frozen)
             VALUES (?1, ?2, ?3, 0, ?4, ?5) ON CONFLICT DO NOTHING",
            params![image, tag.as_str(), digest, root.confirmed, root.frozen],
        )?;
        change.run(
            "INSERT INTO tag_history (image, tag, digest, first_seen) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![image, tag.as_str(), digest, root.first_seen.0],
        )?;
    }
    if root.pinned {
        change.run(
            "INSERT INTO pin (image, reference, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            params![image, reference.to_string(), now.0],
        )?;
    }
    Ok(())
}
