//! The link is dead for a while in the middle of a `docker pull`: does Docker notice?

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::json;

use super::{
    Peer,
    bed::{Bed, Mark},
    images::{Picture, Stored},
    pull::{Puller, Pulling},
    report::{Measured, Took, megabytes, table},
};

/// How long a mirror may go on fetching after the pull.
const SETTLE_MAX: Duration = Duration::from_mins(3);

/// Measures and prints.
pub(crate) fn run(
    bed: &Bed,
    picture: Picture,
    down: Duration,
    give_up: Duration,
    peers: &[Peer],
) -> Result<Measured> {
    let image = picture.write(&bed.place.images)?;
    let (mut rows, mut runs, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for &peer in peers {
        let mut mirror = bed.mirror(peer)?;
        let puller = Puller::start(bed, mirror.name(), Some(mirror.port()), &image)?;
        mirror.empty()?;
        let mark = bed.mark()?;
        let mut pulling = puller.begin()?;
        let interrupted = interrupt(bed, &mark, &mut pulling, &image, down);
        // Whatever happened, what follows has a link.
        bed.link_up();
        let (took, said) = pulling.wait(give_up)?;
        Bed::settle(SETTLE_MAX)?;
        let traffic = bed.since(&mark)?;
        mirror.stop();
        // A pull that failed is the result; a link that was not interrupted in time is no measurement.
        if let Err(error) = interrupted {
            failed.push(format!("{}: {error:#}", mirror.name()));
        }
        let result = if said.is_empty() { took.outcome().to_owned() } else { said.clone() };
        rows.push(vec![
            mirror.name().to_owned(),
            format!("{}{:.2}", if matches!(took, Took::GivenUp(_)) { ">" } else { "" }, took.seconds()),
            format!("{:.3}", traffic.arrived_by(image.blob_bytes)),
            result,
        ]);
        runs.push(json!({
            "by": mirror.name(),
            "seconds": took.seconds(),
            "outcome": took.outcome(),
            "said": said,
            "traffic": traffic.to_json(image.blob_bytes),
        }));
    }
    println!(
        "docker pull of {} ({:.1} MB), the link dead for {} s in the middle",
        image.name,
        megabytes(image.blob_bytes),
        down.as_secs()
    );
    table(&["", "seconds", "arrived / image", "docker pull"], &rows);
    Ok(Measured {
        json: json!({ "image": image.name, "down_seconds": down.as_secs(), "runs": runs }),
        failed,
    })
}

/// Waits until half of the image has come, then takes the link down for a while.
fn interrupt(bed: &Bed, mark: &Mark, pulling: &mut Pulling, image: &Stored, down: Duration) -> Result<()> {
    while mark.payload()? < image.blob_bytes / 2 {
        if pulling.ended()?.is_some() {
            bail!("the pull ended before half of the image had come");
        }
        thread::sleep(Duration::from_millis(2));
    }
    eprintln!("  half has come; the link is down for {} s", down.as_secs());
    bed.link_down();
    let begun = Instant::now();
    // A pull that fails at once is waited for no longer.
    while begun.elapsed() < down && pulling.ended()?.is_none() {
        thread::sleep(Duration::from_millis(20));
    }
    bed.link_up();
    Ok(())
}
