//! The tray of macOS and Windows, by Tauri. Drawn on the main thread, which belongs to its event loop.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tauri::image::Image;
use tauri::menu::{CheckMenuItem, IsMenuItem, Menu, MenuItem, PredefinedMenuItem, Submenu};
use tauri::tray::TrayIconBuilder;
use tauri::{AppHandle, RunEvent, Wry, include_image};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::menu::{self, Action, Icon, Item};

/// Runs `serve` on `runtime` while the main thread draws, and returns what it returns.
pub(crate) fn run<F>(
    runtime: &Runtime,
    first: menu::Tray,
    choose: impl Fn(Action) + Clone + Send + Sync + 'static,
    serve: impl FnOnce(Screen) -> F + Send + 'static,
) -> anyhow::Result<u8>
where
    F: Future<Output = u8> + Send + 'static,
{
    let (drawn, drawing) = oneshot::channel();
    let serving = runtime.spawn(async move {
        match drawing.await {
            Ok(screen) => serve(screen).await,
            // The event loop did not start; it says why itself.
            Err(_) => 1,
        }
    });
    let app = tauri::Builder::default()
        .setup(move |app| {
            #[cfg(target_os = "macos")]
            app.set_activation_policy(tauri::ActivationPolicy::Accessory);
            let tray = Tray::build(app.handle(), first, choose).map(Some).unwrap_or_else(|error| {
                tracing::warn!(%error, "no tray icon");
                None
            });
            let screen =
                Screen { app: app.handle().clone(), tray: tray.map(|tray| Arc::new(Mutex::new(tray))) };
            // Its receiver lives as long as the runtime, which outlives this.
            let _ = drawn.send(screen);
            Ok(())
        })
        .build(tauri::generate_context!())
        .context("cannot start the desktop part")?;
    app.run_return(|_, event| {
        // There is never a window in this process: only a deliberate end, which has a code, ends it.
        if let RunEvent::ExitRequested { code: None, api, .. } = event {
            api.prevent_exit();
        }
    });
    runtime.block_on(serving).context("the shell failed")
}

/// What is drawn on the main thread. Dropping it ends the event loop there: no way out of the shell leaves it behind.
pub(crate) struct Screen {
    app: AppHandle,
    tray: Option<Arc<Mutex<Tray>>>,
}

impl Screen {
    /// Shows `wanted`, soon.
    #[expect(clippy::unused_async, reason = "on Linux the tray is another program, and answers later")]
    pub(crate) async fn show(&self, wanted: menu::Tray) {
        let Some(tray) = self.tray.clone() else { return };
        let paint = move || {
            let mut tray = tray.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = tray.show(wanted) {
                tracing::warn!(%error, "the tray could not be changed");
            }
        };
        if let Err(error) = self.app.run_on_main_thread(paint) {
            tracing::warn!(%error, "the tray could not be reached");
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.app.exit(0);
    }
}

/// The icon on the desktop, and what it shows.
struct Tray {
    app: AppHandle,
    icon: tauri::tray::TrayIcon,
    /// The native items whose text can change in place, beside the model's in the same order.
    texts: Vec<Text>,
    marks: Marks,
    shown: menu::Tray,
}

/// An item with a text.
enum Text {
    Item(MenuItem<Wry>),
    Switch(CheckMenuItem<Wry>),
    Submenu(Submenu<Wry>),
}

/// The lines of which one holds, and whether it is that one. A click marks and unmarks them by itself.
type Marks = Arc<Mutex<Vec<(CheckMenuItem<Wry>, bool)>>>;

/// A native menu, and its items with a text.
type Built = (Menu<Wry>, Vec<Text>);

impl Tray {
    /// Shows `first`. On the main thread only.
    fn build(
        app: &AppHandle,
        first: menu::Tray,
        chosen: impl Fn(Action) + Send + Sync + 'static,
    ) -> tauri::Result<Self> {
        let marks = Marks::default();
        let (native, texts) = build_menu(app, &first.items, &marks)?;
        let clicked = Arc::clone(&marks);
        let icon = TrayIconBuilder::with_id("main")
            .icon(image(first.icon))
            .icon_as_template(cfg!(target_os = "macos"))
            .menu(&native)
            .show_menu_on_left_click(true)
            .on_menu_event(move |_, event| {
                if let Some(action) = Action::parse(event.id().as_ref()) {
                    // What holds is said by the engine, when it has changed it; until then the old mark is the true one.
                    restore(&clicked);
                    chosen(action);
                }
            })
            .build(app)?;
        Ok(Self { app: app.clone(), icon, texts, marks, shown: first })
    }

    /// Shows `wanted`. An open menu stays open if only texts change. On the main thread only.
    fn show(&mut self, wanted: menu::Tray) -> tauri::Result<()> {
        if self.shown.icon != wanted.icon {
            self.icon.set_icon(Some(image(wanted.icon)))?;
            self.icon.set_icon_as_template(cfg!(target_os = "macos"))?;
        }
        if same_shape(&self.shown.items, &wanted.items) {
            let changes = texts(&self.shown.items).zip(texts(&wanted.items)).zip(&self.texts);
            for ((_, new), native) in changes.filter(|((old, new), _)| old != new) {
                match native {
                    Text::Item(item) => item.set_text(new)?,
                    Text::Switch(item) => item.set_text(new)?,
                    Text::Submenu(submenu) => submenu.set_text(new)?,
                }
            }
        } else {
            let (native, texts) = build_menu(&self.app, &wanted.items, &self.marks)?;
            self.icon.set_menu(Some(native))?;
            self.texts = texts;
        }
        self.icon.set_tooltip(texts(&wanted.items).next())?;
        self.shown = wanted;
        Ok(())
    }
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
        Item::Line(text)
        | Item::Choice(_, text)
        | Item::Switch(_, text, _)
        | Item::Submenu(text, _)
        | Item::OneOf(text, ..) => Some(text.as_str()),
        Item::Separator => None,
    })
}

/// Whether `b` can be reached from `a` by changing texts alone.
fn same_shape(a: &[Item], b: &[Item]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|pair| match pair {
            (Item::Line(_), Item::Line(_)) | (Item::Separator, Item::Separator) => true,
            (Item::Choice(a, _), Item::Choice(b, _)) => a == b,
            (Item::Switch(a, _, one), Item::Switch(b, _, other)) => a == b && one == other,
            (Item::Submenu(_, a), Item::Submenu(_, b)) => a == b,
            (Item::OneOf(_, a, one), Item::OneOf(_, b, other)) => a == b && one == other,
            (
                Item::Line(_)
                | Item::Choice(..)
                | Item::Switch(..)
                | Item::Submenu(..)
                | Item::OneOf(..)
                | Item::Separator,
                _,
            ) => false,
        })
}

/// Undoes what a click did to the marks.
fn restore(marks: &Marks) {
    for (line, marked) in marks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Err(error) = line.set_checked(*marked) {
            tracing::warn!(%error, "the tray could not be changed");
        }
    }
}

fn build_menu(app: &AppHandle, items: &[Item], marks: &Marks) -> tauri::Result<Built> {
    let (menu, mut texts) = (Menu::new(app)?, Vec::new());
    let mut marked = Vec::new();
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
            Item::Switch(action, text, holds) => {
                let line = CheckMenuItem::with_id(app, action.id(), text, true, *holds, None::<&str>)?;
                menu.append(&line)?;
                marked.push((line.clone(), *holds));
                texts.push(Text::Switch(line));
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
            Item::OneOf(text, choices, chosen) => {
                let submenu = Submenu::new(app, text, true)?;
                for (at, (action, text)) in choices.iter().enumerate() {
                    let holds = at == *chosen;
                    let line = CheckMenuItem::with_id(app, action.id(), text, true, holds, None::<&str>)?;
                    submenu.append(&line)?;
                    marked.push((line, holds));
                }
                menu.append(&submenu)?;
                texts.push(Text::Submenu(submenu));
            }
            Item::Separator => menu.append(&PredefinedMenuItem::separator(app)?)?,
        }
    }
    *marks.lock().unwrap_or_else(PoisonError::into_inner) = marked;
    Ok((menu, texts))
}

fn choice(app: &AppHandle, action: Action, text: &str) -> tauri::Result<MenuItem<Wry>> {
    MenuItem::with_id(app, action.id(), text, true, None::<&str>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::menu::{Limit, PauseFor};

    fn line(text: &str) -> Item {
        Item::Line(text.to_owned())
    }

    #[test]
    fn only_new_texts_leave_the_menu_as_it_is() {
        let pause =
            |text: &str| Item::Submenu("Pause".into(), vec![(Action::Pause(PauseFor::Hour), text.into())]);
        let limit = |at| {
            let choices = [(Action::Limit(Limit::Unlimited), "a"), (Action::Limit(Limit::Low), "b")];
            let choices = choices.map(|(action, text)| (action, text.to_owned())).to_vec();
            Item::OneOf("Speed limit".into(), choices, at)
        };
        let quit = |text: &str| Item::Choice(Action::Quit, text.to_owned());
        let table = [
            (vec![line("62 %")], vec![line("63 %")], true),
            (vec![quit("Quit")], vec![quit("Thoát")], true),
            (vec![pause("1 h")], vec![pause("1 h")], true),
            (vec![pause("1 h")], vec![pause("1 giờ")], false),
            (vec![limit(0)], vec![limit(0)], true),
            (vec![limit(0)], vec![limit(1)], false),
            (vec![line("a")], vec![line("a"), line("b")], false),
            (vec![line("Quit")], vec![quit("Quit")], false),
            (vec![quit("x")], vec![Item::Choice(Action::Open, "x".to_owned())], false),
            (vec![Item::Separator], vec![line("-")], false),
        ];
        for (a, b, same) in table {
            assert_eq!(same_shape(&a, &b), same, "{a:?} to {b:?}");
        }
    }
}
