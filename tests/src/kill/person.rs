//! What a person does while others pull: clears, brings back, pins, imports.

use std::collections::BTreeSet;

use sampan_app::api::{ClearReport, ClearSelection, Code, Command, Imported, Reply};
use sampan_oci::Digest;

use super::load::{CLIENTS, Shared, Stop};
use super::promises::Part;
use super::world::Repository;
use crate::torture::Dice;

/// Clears a selection that leads to what `reach` says, with no way back.
pub(super) async fn clear(
    shared: &Shared,
    selection: ClearSelection,
    reach: BTreeSet<Digest>,
) -> Result<(), Stop> {
    let clear = shared.promises.clear(reach);
    shared.call(Command::Clear { selection, immediate: true }).await?;
    shared.promises.cleared(clear);
    Ok(())
}

/// Clears one repository, or one tag; now and then everything.
pub(super) async fn clears(shared: &Shared, dice: &mut Dice, at: usize) -> Result<(), Stop> {
    let repository = &shared.world.repositories[at];
    // Where room is short, what takes it has to stay.
    if dice.percent(4) && !shared.tight {
        let all = shared.world.content.keys().copied().collect();
        return clear(shared, ClearSelection::All, all).await;
    }
    let name = if dice.percent(50) { repository.full_name() } else { repository.tagged() };
    clear(shared, ClearSelection::Images { names: vec![name] }, repository.reach()).await
}

/// Clears one tag with a way back, and most times takes it.
pub(super) async fn clears_and_undoes(shared: &Shared, dice: &mut Dice, at: usize) -> Result<(), Stop> {
    let repository = &shared.world.repositories[at];
    let clear = shared.promises.clear(repository.reach());
    let selection = ClearSelection::Images { names: vec![repository.tagged()] };
    let Reply::Cleared(ClearReport { undo, .. }) =
        shared.call(Command::Clear { selection, immediate: false }).await?
    else {
        return Err(Shared::lied("a clear is answered by what it clears", repository.tagged()));
    };
    match undo {
        None => shared.promises.cleared(clear),
        // One that nobody brings back may go at any time until the end.
        Some(_) if dice.percent(25) => {}
        Some(_) => {
            let undone = shared.try_call(Command::ClearUndo { id: undo }, &[Code::NotHeld]).await?;
            if undone.is_some() {
                shared.promises.undone(clear);
                shared.promises.count("undone", 1);
            }
        }
    }
    Ok(())
}

/// Pins the tag of a repository that no other client pins, or unpins it.
pub(super) async fn pins(shared: &Shared, dice: &mut Dice, client: usize) -> Result<(), Stop> {
    let own = shared.world.used.len() / CLIENTS;
    let at = dice.place(own) * CLIENTS + client;
    let name = shared.world.repositories[at].tagged();
    if dice.percent(35) {
        shared.promises.unpin(at);
        shared.try_call(Command::Pin { name, pinned: false }, &[Code::NotHeld]).await?;
        return Ok(());
    }
    shared.take_tag(at).await?;
    pin(shared, at).await
}

/// Pins the tag of a repository, if it is held.
pub(super) async fn pin(shared: &Shared, at: usize) -> Result<(), Stop> {
    let repository: &Repository = &shared.world.repositories[at];
    let asked = shared.promises.ask();
    let command = Command::Pin { name: repository.tagged(), pinned: true };
    if shared.try_call(command, &[Code::NotHeld]).await?.is_some() {
        shared.promises.pinned(&asked, at, repository.reach());
        shared.promises.count("pinned", 1);
    }
    Ok(())
}

/// Imports a layout whose names are trusted, or stops an import that goes on.
pub(super) async fn imports(shared: &Shared, dice: &mut Dice) -> Result<(), Stop> {
    if dice.percent(10) {
        return shared.call(Command::StopTask).await.map(drop);
    }
    let (at, folder) = dice.one(&shared.world.carried);
    let asked = shared.promises.ask();
    let path = folder.display().to_string();
    let import = Command::Import { path, trust_names: true, name: None };
    let refused: &[Code] =
        if shared.tight { &[Code::Busy, Code::Stopped, Code::Store] } else { &[Code::Busy, Code::Stopped] };
    let reply = shared.try_call(import, refused).await?;
    let Some(Reply::Imported(Imported { images, skipped, .. })) = reply else { return Ok(()) };
    let version = &shared.world.repositories[*at].versions[0];
    if images.is_empty() || !skipped.is_empty() {
        let why = format!("{images:?}, {skipped:?}");
        return if shared.tight { Ok(()) } else { Err(Shared::lied("what is right can be imported", why)) };
    }
    shared.promises.count("imported", 1);
    shared.promises.given(&asked, (*at, version.digest, Part::Manifest), false);
    for platform in &version.platforms {
        shared.promises.given(&asked, (*at, platform.digest, Part::Manifest), false);
        for digest in &platform.blobs {
            shared.promises.given(&asked, (*at, *digest, Part::Blob), false);
        }
    }
    Ok(())
}
