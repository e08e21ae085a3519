//! Embeds the built page and writes down which commands a window may be given.

use std::path::Path;

/// Every command of the window. Without this list every command would be allowed in every window.
const COMMANDS: &[&str] = &["call", "watch"];

fn main() {
    println!("cargo::rerun-if-changed=../ui/dist");
    if !Path::new("../ui/dist/index.html").is_file() {
        println!(
            "cargo::error=the page is not built: ui/dist/index.html is missing. `cargo xtask run` builds it, \
             or run `npm ci && npm run build` in ui/"
        );
        return;
    }
    let attributes =
        tauri_build::Attributes::new().app_manifest(tauri_build::AppManifest::new().commands(COMMANDS));
    if let Err(error) = tauri_build::try_build(attributes) {
        println!("cargo::error={}", format!("{error:#}").replace('\n', " "));
    }
}
