//! The tray of Linux desktops: a StatusNotifierItem over D-Bus, with no library of any toolkit. The panel draws.
//!
//! Source: freedesktop.org "StatusNotifierItem", and `com.canonical.dbusmenu` for its menu.

use ksni::menu::{CheckmarkItem, MenuItem, RadioGroup, RadioItem, StandardItem, SubMenu};
use ksni::{Handle, Status, ToolTip, TrayMethods as _};
use tokio::runtime::Runtime;

use crate::menu::{self, Action, Icon, Item};

/// Runs `serve` with the tray on the desktop, and returns what it returns. Where there is no session bus there is no
/// tray, and everything else works: a second start opens the window.
pub(crate) fn run<F>(
    runtime: &Runtime,
    first: menu::Tray,
    choose: impl Fn(Action) + Send + Sync + 'static,
    serve: impl FnOnce(Screen) -> F,
) -> anyhow::Result<u8>
where
    F: Future<Output = u8>,
{
    runtime.block_on(async {
        let model = Model { shown: first, choose: Box::new(choose) };
        // At login the panel may come up later than this: then it finds the icon when it does.
        let tray = match model.assume_sni_available(true).spawn().await {
            Ok(handle) => Some(handle),
            Err(error) => {
                eprintln!(
                    "sampan-desktop: no tray icon: {error}. Start Sampan a second time to open its window"
                );
                None
            }
        };
        Ok(serve(Screen { tray }).await)
    })
}

/// The icon, as the shell reaches it. Dropping it takes the icon away.
pub(crate) struct Screen {
    tray: Option<Handle<Model>>,
}

impl Screen {
    /// Shows `wanted`. An open menu stays open if only texts change.
    pub(crate) async fn show(&self, wanted: menu::Tray) {
        if let Some(tray) = &self.tray {
            // `None`: the bus is gone, and the panel with it.
            let _ = tray.update(|model| model.shown = wanted).await;
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(tray) = &self.tray {
            drop(tray.shutdown());
        }
    }
}

struct Model {
    shown: menu::Tray,
    choose: Box<dyn Fn(Action) + Send + Sync>,
}

impl ksni::Tray for Model {
    fn id(&self) -> String {
        "dev.sampan.app".into()
    }

    fn title(&self) -> String {
        // Screen readers read the title: it is the state, not only the name.
        match self.shown.items.first() {
            Some(Item::Line(state)) => format!("Sampan: {state}"),
            Some(
                Item::Choice(..) | Item::Switch(..) | Item::Submenu(..) | Item::OneOf(..) | Item::Separator,
            )
            | None => "Sampan".into(),
        }
    }

    fn status(&self) -> Status {
        match self.shown.icon {
            Icon::Attention => Status::NeedsAttention,
            Icon::Serving | Icon::Working | Icon::Paused | Icon::Off => Status::Active,
        }
    }

    fn icon_pixmap(&self) -> Vec<ksni::Icon> {
        pixmap(self.shown.icon).into_iter().collect()
    }

    fn attention_icon_pixmap(&self) -> Vec<ksni::Icon> {
        self.icon_pixmap()
    }

    fn tool_tip(&self) -> ToolTip {
        let lines = self.shown.items.iter().skip(1).map_while(|item| match item {
            Item::Line(text) => Some(text.as_str()),
            Item::Choice(..) | Item::Switch(..) | Item::Submenu(..) | Item::OneOf(..) | Item::Separator => {
                None
            }
        });
        ToolTip {
            title: self.title(),
            description: lines.collect::<Vec<_>>().join("\n"),
            ..ToolTip::default()
        }
    }

    fn activate(&mut self, _x: i32, _y: i32) {
        (self.choose)(Action::Open);
    }

    fn menu(&self) -> Vec<MenuItem<Self>> {
        self.shown.items.iter().map(native).collect()
    }
}

fn native(item: &Item) -> MenuItem<Model> {
    match item {
        Item::Line(text) => {
            StandardItem { label: label(text), enabled: false, ..StandardItem::default() }.into()
        }
        Item::Choice(action, text) => choice(*action, text),
        Item::Switch(action, text, holds) => {
            let action = *action;
            let activate = Box::new(move |model: &mut Model| (model.choose)(action));
            CheckmarkItem { label: label(text), checked: *holds, activate, ..CheckmarkItem::default() }.into()
        }
        Item::Submenu(text, choices) => {
            let submenu = choices.iter().map(|(action, text)| choice(*action, text)).collect();
            SubMenu { label: label(text), submenu, ..SubMenu::default() }.into()
        }
        Item::OneOf(text, choices, chosen) => {
            let submenu = vec![one_of(choices, *chosen)];
            SubMenu { label: label(text), submenu, ..SubMenu::default() }.into()
        }
        Item::Separator => MenuItem::Separator,
    }
}

fn one_of(choices: &[(Action, String)], selected: usize) -> MenuItem<Model> {
    let options =
        choices.iter().map(|(_, text)| RadioItem { label: label(text), ..RadioItem::default() }).collect();
    let actions: Vec<Action> = choices.iter().map(|(action, _)| *action).collect();
    let select = Box::new(move |model: &mut Model, chosen: usize| {
        if let Some(action) = actions.get(chosen) {
            (model.choose)(*action);
        }
    });
    RadioGroup { selected, select, options }.into()
}

fn choice(action: Action, text: &str) -> MenuItem<Model> {
    let activate = Box::new(move |model: &mut Model| (model.choose)(action));
    StandardItem { label: label(text), activate, ..StandardItem::default() }.into()
}

/// A text as the menu protocol takes it: a single underscore would mark the next letter as a key.
fn label(text: &str) -> String {
    text.replace('_', "__")
}

/// The icon's pixels. `None` never happens with the icons that are embedded; a test reads them all.
fn pixmap(icon: Icon) -> Option<ksni::Icon> {
    let png: &[u8] = match icon {
        Icon::Serving => include_bytes!("../../../icons/tray-serving.png"),
        Icon::Working => include_bytes!("../../../icons/tray-working.png"),
        Icon::Paused => include_bytes!("../../../icons/tray-paused.png"),
        Icon::Attention => include_bytes!("../../../icons/tray-attention.png"),
        Icon::Off => include_bytes!("../../../icons/tray-off.png"),
    };
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().ok()?;
    let mut data = vec![0; reader.output_buffer_size()?];
    let frame = reader.next_frame(&mut data).ok()?;
    if frame.color_type != png::ColorType::Rgba || frame.bit_depth != png::BitDepth::Eight {
        return None;
    }
    data.truncate(frame.buffer_size());
    // The protocol wants ARGB in network byte order.
    for pixel in data.chunks_exact_mut(4) {
        pixel.rotate_right(1);
    }
    let (width, height) = (i32::try_from(frame.width).ok()?, i32::try_from(frame.height).ok()?);
    Some(ksni::Icon { width, height, data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::menu::Limit;

    #[test]
    fn every_state_has_pixels_of_its_own() {
        let icons = [Icon::Serving, Icon::Working, Icon::Paused, Icon::Attention, Icon::Off];
        let pixmaps: Vec<_> = icons.map(|icon| pixmap(icon).expect("an RGBA picture")).into();
        for (nth, one) in pixmaps.iter().enumerate() {
            assert_eq!(one.data.len(), usize::try_from(one.width * one.height * 4).unwrap());
            assert!(one.data.chunks_exact(4).any(|pixel| pixel[0] == 0), "there is room around the shape");
            assert!(pixmaps[nth + 1..].iter().all(|other| other.data != one.data));
        }
    }

    #[test]
    fn choosing_one_of_several_does_what_its_line_says() {
        let (tell, told) = std::sync::mpsc::channel();
        let items = vec![Item::OneOf(
            "Speed limit".into(),
            vec![
                (Action::Limit(Limit::Unlimited), "Unlimited".into()),
                (Action::Limit(Limit::Low), "x".into()),
            ],
            1,
        )];
        let shown = menu::Tray { icon: Icon::Serving, items };
        let mut model = Model { shown, choose: Box::new(move |action| tell.send(action).unwrap()) };
        let MenuItem::SubMenu(submenu) = &ksni::Tray::menu(&model)[0] else { panic!("a submenu") };
        let MenuItem::RadioGroup(group) = &submenu.submenu[0] else { panic!("one of several") };
        assert_eq!((group.selected, group.options[1].label.as_str()), (1, "x"));
        (group.select)(&mut model, 0);
        assert_eq!(told.try_recv(), Ok(Action::Limit(Limit::Unlimited)));
    }

    #[test]
    fn a_switch_is_marked_while_it_holds_and_does_what_it_says() {
        let (tell, told) = std::sync::mpsc::channel();
        let items = vec![Item::Switch(Action::Offline(false), "Offline".into(), true)];
        let shown = menu::Tray { icon: Icon::Serving, items };
        let mut model = Model { shown, choose: Box::new(move |action| tell.send(action).unwrap()) };
        let MenuItem::Checkmark(item) = &ksni::Tray::menu(&model)[0] else { panic!("a check item") };
        assert!(item.checked);
        (item.activate)(&mut model);
        assert_eq!(told.try_recv(), Ok(Action::Offline(false)));
    }

    #[test]
    fn an_underscore_in_an_image_name_is_no_key() {
        assert_eq!(label("my_image:1_0 62%"), "my__image:1__0 62%");
    }
}
