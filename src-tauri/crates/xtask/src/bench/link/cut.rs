//! Cut in the middle, three ways: the client leaves and returns, the link drops, Sampan is killed and started again.
//! Is a byte fetched twice?

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use super::{
    Peer,
    bed::{Bed, Mark},
    client::Client,
    images::{Picture, Stored},
    report::{Measured, megabytes, table},
};
use crate::bench::mirror::Mirror;

/// A client that hears nothing for so long has failed.
const PATIENCE: Duration = Duration::from_mins(15);
/// How long Sampan may go on fetching after the client has all.
const SETTLE_MAX: Duration = Duration::from_mins(3);

#[derive(Clone, Copy, Debug)]
enum Way {
    ClientLeaves,
    LinkDrops,
    SampanIsKilled,
}

impl Way {
    const ALL: [Self; 3] = [Self::ClientLeaves, Self::LinkDrops, Self::SampanIsKilled];

    fn name(self) -> &'static str {
        match self {
            Self::ClientLeaves => "the client leaves and returns",
            Self::LinkDrops => "the link drops",
            Self::SampanIsKilled => "sampan is killed (-9)",
        }
    }
}

/// Measures and prints. `at`: per cent of the image; `pause`: how long the client stays away or the link down.
pub(crate) fn run(bed: &Bed, picture: Picture, at: u64, pause: Duration) -> Result<Measured> {
    let image = picture.write(&bed.place.images)?;
    let mut sampan = bed.mirror(Peer::Sampan)?;
    let (mut rows, mut runs, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for way in Way::ALL {
        eprintln!("  {} ...", way.name());
        sampan.empty()?;
        let mark = bed.mark()?;
        let begun = Instant::now();
        let outcome = cut(bed, &mut sampan, &image, way, &mark, image.blob_bytes * at / 100, pause);
        let time = begun.elapsed();
        // Whatever happened, the next way begins with a link.
        bed.link_up();
        Bed::settle(SETTLE_MAX)?;
        let traffic = bed.since(&mark)?;
        sampan.stop();
        let (cut_at, breaks) = match outcome {
            Ok(Outcome { cut_at, breaks }) => (megabytes(cut_at), breaks.to_string()),
            Err(error) => {
                failed.push(format!("{}: {error:#}", way.name()));
                (f64::NAN, "failed".to_owned())
            }
        };
        rows.push(vec![
            way.name().to_owned(),
            format!("{:.1}", cut_at),
            format!("{:.2}", time.as_secs_f64()),
            breaks.clone(),
            format!("{:.3}", traffic.arrived_by(image.blob_bytes)),
            format!("{:.3}", traffic.handed_by(image.blob_bytes)),
        ]);
        let cut_at = if cut_at.is_nan() { Value::Null } else { json!(cut_at) };
        runs.push(json!({
            "way": way.name(),
            "cut_at_mb": cut_at,
            "seconds": time.as_secs_f64(),
            "client_breaks": breaks,
            "traffic": traffic.to_json(image.blob_bytes),
        }));
    }
    println!(
        "{} ({:.1} MB) through sampan, cut at {at} %, {} s of pause",
        image.name,
        megabytes(image.blob_bytes),
        pause.as_secs()
    );
    table(&["", "cut at, MB", "seconds", "client's breaks", "arrived / image", "handed / image"], &rows);
    Ok(Measured {
        json: json!({ "image": image.name, "image_bytes": image.blob_bytes, "runs": runs }),
        failed,
    })
}

struct Outcome {
    /// Bytes that had crossed the link.
    cut_at: u64,
    /// Answers that broke off for the client.
    breaks: u64,
}

fn cut(
    bed: &Bed,
    sampan: &mut Mirror,
    image: &Stored,
    way: Way,
    mark: &Mark,
    bytes: u64,
    pause: Duration,
) -> Result<Outcome> {
    let leave = AtomicBool::new(false);
    let mirror = SocketAddr::from(([127, 0, 0, 1], sampan.port()));
    let client = Client { mirror, image: &image.name, patience: PATIENCE, leave: &leave };
    thread::scope(|scope| {
        let first = scope.spawn(|| client.pull());
        while mark.payload()? < bytes {
            if first.is_finished() {
                bail!("the client had all before {:.1} MB had come", megabytes(bytes));
            }
            thread::sleep(Duration::from_millis(2));
        }
        let cut_at = mark.payload()?;
        match way {
            Way::ClientLeaves => {
                leave.store(true, Ordering::Relaxed);
                // Gone before it returns: its pull has ended, and with it its connections.
                while !first.is_finished() {
                    thread::sleep(Duration::from_millis(2));
                }
                thread::sleep(pause);
                leave.store(false, Ordering::Relaxed);
            }
            Way::LinkDrops => {
                bed.link_down();
                thread::sleep(pause);
                bed.link_up();
            }
            Way::SampanIsKilled => {
                sampan.kill()?;
                sampan.start()?;
            }
        }
        let pulled = first.join().map_err(|_| anyhow!("a client panicked"))??;
        let pulled = match pulled {
            Some(pulled) => Some(pulled),
            None => client.pull()?,
        };
        let breaks = pulled.ok_or_else(|| anyhow!("nobody told the client to leave"))?.breaks;
        Ok(Outcome { cut_at, breaks })
    })
}
