//! Many clients want one cold image at the same moment: how often does each byte cross the link?

use std::{
    net::SocketAddr,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use serde_json::json;

use super::{
    Peer,
    bed::Bed,
    client::{Client, Pulled},
    images::Picture,
    report::{Measured, megabytes, table},
};
use crate::bench::spread::Spread;

/// A client that hears nothing for so long has failed.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long a mirror may go on fetching after the last client has all.
const SETTLE_MAX: Duration = Duration::from_mins(3);

/// Measures and prints.
pub(crate) fn run(bed: &Bed, picture: Picture, counts: &[usize], peers: &[Peer]) -> Result<Measured> {
    let image = picture.write(&bed.place.images)?;
    let (mut rows, mut runs, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for &count in counts {
        for &peer in peers {
            let mut mirror = bed.mirror(peer)?;
            mirror.empty()?;
            let mark = bed.mark()?;
            let address = SocketAddr::from(([127, 0, 0, 1], mirror.port()));
            let results = together(count, address, |_| &image.name);
            Bed::settle(SETTLE_MAX)?;
            let traffic = bed.since(&mark)?;
            let times = Spread::of(results.iter().flatten().map(|(time, _)| time.as_secs_f64()));
            let right = results.iter().filter(|result| result.is_ok()).count();
            for error in results.into_iter().filter_map(Result::err) {
                failed.push(format!("{}, {count} clients: {error:#}", mirror.name()));
            }
            rows.push(vec![
                format!("{count} through {}", mirror.name()),
                format!("{:.2}", times.median),
                format!("{:.2}", times.most),
                format!("{right} of {count}"),
                format!("{:.3}", traffic.arrived_by(image.blob_bytes)),
                format!("{:.3}", traffic.handed_by(image.blob_bytes)),
            ]);
            runs.push(json!({
                "by": mirror.name(),
                "clients": count,
                "median_seconds": times.median,
                "last_seconds": times.most,
                "right": right,
                "traffic": traffic.to_json(image.blob_bytes),
            }));
        }
    }
    println!(
        "clients that want {} ({:.1} MB) at the same moment, cold",
        image.name,
        megabytes(image.blob_bytes)
    );
    table(&["clients", "median, s", "last, s", "digests right", "arrived / image", "handed / image"], &rows);
    Ok(Measured {
        json: json!({ "image": image.name, "image_bytes": image.blob_bytes, "runs": runs }),
        failed,
    })
}

/// So many clients at once, each wanting the image it is given. The time of each and what it met, or why it failed.
pub(crate) fn together<'i>(
    count: usize,
    mirror: SocketAddr,
    image: impl Fn(usize) -> &'i String,
) -> Vec<Result<(Duration, Pulled)>> {
    let leave = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..count)
            .map(|number| {
                let client = Client { mirror, image: image(number), patience: PATIENCE, leave: &leave };
                scope.spawn(move || {
                    let begun = Instant::now();
                    let pulled = client.pull()?.ok_or_else(|| anyhow!("nobody told it to leave"))?;
                    Ok((begun.elapsed(), pulled))
                })
            })
            .collect();
        let panicked = |_| Err(anyhow!("a client panicked"));
        clients.into_iter().map(|client| client.join().unwrap_or_else(panicked)).collect()
    })
}
