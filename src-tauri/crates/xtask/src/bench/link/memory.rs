//! Memory of Sampan while many clients pull cold, each a big image of its own.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{
    Peer,
    bed::Bed,
    images,
    many::together,
    report::{Measured, megabytes, table},
};
use crate::bench::{process::peak_rss_bytes, spread::Spread};

/// Measures and prints.
pub(crate) fn run(bed: &Bed, clients: usize, size: usize) -> Result<Measured> {
    let images = images::write_turned(&bed.place.images, clients, size)?;
    let names: Vec<_> = images.iter().map(|image| image.name.clone()).collect();
    let bytes: u64 = images.iter().map(|image| image.blob_bytes).sum();
    let mut sampan = bed.mirror(Peer::Sampan)?;
    sampan.empty()?;
    let pid = sampan.sampan_pid().context("sampan does not run")?;
    let idle = peak_rss_bytes(pid).context("no memory figures")?;
    let mark = bed.mark()?;
    let address = SocketAddr::from(([127, 0, 0, 1], sampan.port()));
    let nobody = String::new();
    let results = together(clients, address, |number| names.get(number).unwrap_or(&nobody));
    let peak = peak_rss_bytes(pid).context("sampan has ended")?;
    let traffic = bed.since(&mark)?;
    let times = Spread::of(results.iter().flatten().map(|(time, _)| time.as_secs_f64()));
    let right = results.iter().filter(|result| result.is_ok()).count();
    let failed = results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    println!("{clients} clients, each pulling another image of {size} MB, cold");
    table(
        &[
            "",
            "RSS at start, MB",
            "RSS peak, MB",
            "median, s",
            "last, s",
            "digests right",
            "arrived / images",
        ],
        &[vec![
            "sampan".to_owned(),
            format!("{:.1}", megabytes(idle)),
            format!("{:.1}", megabytes(peak)),
            format!("{:.2}", times.median),
            format!("{:.2}", times.most),
            format!("{right} of {clients}"),
            format!("{:.3}", traffic.arrived_by(bytes)),
        ]],
    );
    let json = json!({
        "clients": clients,
        "megabytes_each": size,
        "rss_start_bytes": idle,
        "rss_peak_bytes": peak,
        "right": right,
        "median_seconds": times.median,
        "last_seconds": times.most,
        "traffic": traffic.to_json(bytes),
    });
    Ok(Measured { json, failed })
}
