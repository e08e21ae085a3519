//! Puts a [`menu::Tray`] on the desktop, and changes only what differs from what is there.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use tauri::image::Image;
use tauri::menu::{IsMenuItem, Menu, MenuItem, PredefinedMenuItem, Submenu};
use tauri::tray::TrayIconBuilder;
use tauri::{AppHandle, Wry, include_image};
use tempfile::TempDir;

use crate::menu::{self, Action, Icon, Item};

/// The icon on the desktop, and what it shows.
pub(crate) struct Tray {
    app: AppHandle,
    icon: tauri::tray::TrayIcon,
    /// The native items whose text can change in place, beside the model's in the same order.
    texts: Vec<Text>,
    shown: menu::Tray,
    /// Linux wants icons as files, and would put them where all users share them. Dropped after the icon.
    _scratch: TempDir,
}

/// An item with a text.
enum Text {
    Item(MenuItem<Wry>),
    Submenu(Submenu<Wry>),
}

/// A native menu, and its items with a text.
type Built = (Menu<Wry>, Vec<Text>);

impl Tray {
    /// Shows `first`. On the main thread only.
    pub(crate) fn build(
        app: &AppHandle,
        runtime_dir: &Path,
        first: menu::Tray,
        chosen: impl Fn(Action) + Send + Sync + 'static,
    ) -> tauri::Result<Self> {
        let scratch = tempfile::Builder::new().prefix("sampan-tray-").tempdir_in(runtime_dir)?;
        let (native, texts) = build_menu(app, &first.items)?;
        let icon = TrayIconBuilder::with_id("main")
            .icon(image(first.icon))
            .icon_as_template(cfg!(target_os = "macos"))
            .temp_dir_path(scratch.path())
            .menu(&native)
            .show_menu_on_left_click(true)
            .on_menu_event(move |_, event| {
                if let Some(action) = Action::parse(event.id().as_ref()) {
                    chosen(action);
                }
            })
            .build(app)?;
        Ok(Self { app: app.clone(), icon, texts, shown: first, _scratch: scratch })
    }

    /// Shows `wanted`. An open menu stays open if only texts change. On the main thread only.
    pub(crate) fn show(&mut self, wanted: menu::Tray) -> tauri::Result<()> {
        if self.shown.icon != wanted.icon {
            self.icon.set_icon(Some(image(wanted.icon)))?;
            self.icon.set_icon_as_template(cfg!(target_os = "macos"))?;
        }
        if same_shape(&self.shown.items, &wanted.items) {
            let changes = texts(&self.shown.items).zip(texts(&wanted.items)).zip(&self.texts);
            for ((_, new), native) in changes.filter(|((old, new), _)| old != new) {
                match native {
                    Text::Item(item) => item.set_text(new)?,
                    Text::Submenu(submenu) => submenu.set_text(new)?,
                }
            }
        } else {
            let (native, texts) = build_menu(&self.app, &wanted.items)?;
            self.icon.set_menu(Some(native))?;
            self.texts = texts;
        }
        // Linux has no tooltips: there the same line is the first of the menu.
        self.icon.set_tooltip(texts(&wanted.items).next())?;
        self.shown = wanted;
        Ok(())
    }
}

/// Whether a tray can be built at all. Building one without its library is not an error but a panic.
pub(crate) fn available(library_path: Option<&OsStr>) -> bool {
    !cfg!(target_os = "linux") || library_in_folders(library_path) || library_in_loader_cache()
}

/// What to say where there is no tray.
pub(crate) const HOW_TO_GET_ONE: &str = "no tray icon: the library libayatana-appindicator3 is missing. Install it (Debian, Ubuntu: \
     libayatana-appindicator3-1, Fedora: libayatana-appindicator-gtk3, Arch: libayatana-appindicator) and start again";

const LIBRARIES: [&str; 2] = ["libayatana-appindicator3.so.1", "libappindicator3.so.1"];

fn library_in_folders(library_path: Option<&OsStr>) -> bool {
    let given = library_path.map(std::env::split_paths).into_iter().flatten();
    let usual = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib"].map(PathBuf::from);
    let multiarch = PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    given
        .chain(usual)
        .chain([multiarch])
        .any(|folder| LIBRARIES.iter().any(|library| folder.join(library).exists()))
}

/// Asks the loader's own list, for folders a distribution adds.
fn library_in_loader_cache() -> bool {
    ["/sbin/ldconfig", "/usr/sbin/ldconfig"].iter().any(|ldconfig| {
        let listed = std::process::Command::new(ldconfig).arg("-p").output();
        listed.is_ok_and(|output| {
            let list = String::from_utf8_lossy(&output.stdout);
            LIBRARIES.iter().any(|library| list.contains(library))
        })
    })
}

fn image(icon: Icon) -> Image<'static> {
    match icon {
        Icon::Serving => include_image!("../icons/tray-serving.png"),
        Icon::Working => include_image!("../icons/tray-working.png"),
        Icon::Paused => include_image!("../icons/tray-paused.png"),
        Icon::Attention => include_image!("../icons/tray-attention.png"),
        Icon::Off => include_image!("../icons/tray-off.png"),
    }
}

/// The texts that stand directly in the menu, in order.
fn texts(items: &[Item]) -> impl Iterator<Item = &str> {
    items.iter().filter_map(|item| match item {
        Item::Line(text) | Item::Choice(_, text) | Item::Submenu(text, _) => Some(text.as_str()),
        Item::Separator => None,
    })
}

/// Whether `b` can be reached from `a` by changing texts alone.
fn same_shape(a: &[Item], b: &[Item]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|pair| match pair {
            (Item::Line(_), Item::Line(_)) | (Item::Separator, Item::Separator) => true,
            (Item::Choice(a, _), Item::Choice(b, _)) => a == b,
            (Item::Submenu(_, a), Item::Submenu(_, b)) => a == b,
            (Item::Line(_) | Item::Choice(..) | Item::Submenu(..) | Item::Separator, _) => false,
        })
}

fn build_menu(app: &AppHandle, items: &[Item]) -> tauri::Result<Built> {
    let (menu, mut texts) = (Menu::new(app)?, Vec::new());
    for item in items {
        match item {
            Item::Line(text) => {
                let line = MenuItem::new(app, text, false, None::<&str>)?;
                menu.append(&line)?;
                texts.push(Text::Item(line));
            }
            Item::Choice(action, text) => {
                let choice = choice(app, *action, text)?;
                menu.append(&choice)?;
                texts.push(Text::Item(choice));
            }
            Item::Submenu(text, choices) => {
                let choices: Vec<_> = choices
                    .iter()
                    .map(|(action, text)| choice(app, *action, text))
                    .collect::<Result<_, _>>()?;
                let choices: Vec<&dyn IsMenuItem<Wry>> = choices.iter().map(|item| item as _).collect();
                let submenu = Submenu::with_items(app, text, true, &choices)?;
                menu.append(&submenu)?;
                texts.push(Text::Submenu(submenu));
            }
            Item::Separator => menu.append(&PredefinedMenuItem::separator(app)?)?,
        }
    }
    Ok((menu, texts))
}

fn choice(app: &AppHandle, action: Action, text: &str) -> tauri::Result<MenuItem<Wry>> {
    MenuItem::with_id(app, action.id(), text, true, None::<&str>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::menu::PauseFor;

    fn line(text: &str) -> Item {
        Item::Line(text.to_owned())
    }

    #[test]
    fn only_new_texts_leave_the_menu_as_it_is() {
        let pause =
            |text: &str| Item::Submenu("Pause".into(), vec![(Action::Pause(PauseFor::Hour), text.into())]);
        let quit = |text: &str| Item::Choice(Action::Quit, text.to_owned());
        let table = [
            (vec![line("62 %")], vec![line("63 %")], true),
            (vec![quit("Quit")], vec![quit("Thoát")], true),
            (vec![pause("1 h")], vec![pause("1 h")], true),
            (vec![pause("1 h")], vec![pause("1 giờ")], false),
            (vec![line("a")], vec![line("a"), line("b")], false),
            (vec![line("Quit")], vec![quit("Quit")], false),
            (vec![quit("x")], vec![Item::Choice(Action::Open, "x".to_owned())], false),
            (vec![Item::Separator], vec![line("-")], false),
        ];
        for (a, b, same) in table {
            assert_eq!(same_shape(&a, &b), same, "{a:?} to {b:?}");
        }
    }

    #[test]
    fn the_library_is_found_in_a_folder_given_to_the_loader() {
        let folder = tempfile::tempdir().unwrap();
        for library in LIBRARIES {
            let file = folder.path().join(library);
            std::fs::write(&file, "").unwrap();
            assert!(library_in_folders(Some(folder.path().as_os_str())));
            std::fs::remove_file(file).unwrap();
        }
    }
}
