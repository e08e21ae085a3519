//! The other side of the tray: what a panel is to the app, held by the test itself.
//!
//! Owns `org.kde.StatusNotifierWatcher` and `org.freedesktop.Notifications` on a private session bus, reads the menu the
//! app registers there and clicks in it as a panel does (`com.canonical.dbusmenu`, StatusNotifierItem specification).

#![allow(
    missing_docs,
    clippy::unused_self,
    clippy::used_underscore_binding,
    clippy::needless_pass_by_value,
    reason = "the methods' shapes are those of the D-Bus interfaces"
)]

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::watch;
use zbus::zvariant::{OwnedObjectPath, OwnedValue, Value};

/// How long the app may take to do what was clicked.
const PATIENCE: Duration = Duration::from_secs(20);

/// A panel without pixels.
#[derive(Debug)]
pub struct Panel {
    connection: zbus::Connection,
    items: watch::Receiver<Vec<String>>,
    notifications: watch::Receiver<Vec<String>>,
}

struct Watcher(watch::Sender<Vec<String>>);

#[zbus::interface(name = "org.kde.StatusNotifierWatcher")]
impl Watcher {
    fn register_status_notifier_item(
        &mut self,
        service: String,
        #[zbus(header)] header: zbus::message::Header<'_>,
    ) {
        let sender = header.sender().map(ToString::to_string).unwrap_or_default();
        // libappindicator passes an object path, others pass their bus name.
        let item = if service.starts_with('/') {
            format!("{sender}{service}")
        } else {
            format!("{service}/StatusNotifierItem")
        };
        self.0.send_modify(|items| items.push(item));
    }

    fn register_status_notifier_host(&mut self, _service: String) {}

    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        true
    }

    #[zbus(property)]
    fn protocol_version(&self) -> i32 {
        0
    }

    #[zbus(property)]
    fn registered_status_notifier_items(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    /// Told when the panel comes up; here it is there before the app.
    #[zbus(signal)]
    async fn status_notifier_host_registered(
        emitter: &zbus::object_server::SignalEmitter<'_>,
    ) -> zbus::Result<()>;
}

struct Notifications(watch::Sender<Vec<String>>);

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Notifications {
    #[expect(clippy::too_many_arguments, reason = "the signature of the Desktop Notifications specification")]
    fn notify(
        &mut self,
        _app: String,
        _replaces: u32,
        _icon: String,
        summary: String,
        _body: String,
        _actions: Vec<String>,
        _hints: HashMap<String, OwnedValue>,
        _timeout: i32,
    ) -> u32 {
        self.0.send_modify(|all| all.push(summary));
        1
    }

    fn get_server_information(&self) -> (String, String, String, String) {
        ("test".into(), "sampan".into(), "1".into(), "1.2".into())
    }

    fn get_capabilities(&self) -> Vec<String> {
        vec!["body".into()]
    }

    fn close_notification(&self, _id: u32) {}
}

/// One line of the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Names it in a click.
    pub id: i32,
    /// Its text, without the underscore of a mnemonic.
    pub label: String,
    /// Whether it can be chosen.
    pub enabled: bool,
    /// Whether it is marked as the one that holds.
    pub checked: bool,
    /// The lines of its submenu.
    pub children: Vec<Item>,
}

type Layout = (u32, (i32, HashMap<String, OwnedValue>, Vec<OwnedValue>));

impl Panel {
    /// Takes a panel's names on the bus at `address`.
    /// # Errors
    /// The bus does not answer, or somebody has the names.
    pub async fn take(address: &str) -> Result<Self> {
        let (tell_items, items) = watch::channel(Vec::new());
        let (tell_notifications, notifications) = watch::channel(Vec::new());
        let connection = zbus::connection::Builder::address(address)?
            .serve_at("/StatusNotifierWatcher", Watcher(tell_items))?
            .serve_at("/org/freedesktop/Notifications", Notifications(tell_notifications))?
            .name("org.kde.StatusNotifierWatcher")?
            .name("org.freedesktop.Notifications")?
            .build()
            .await
            .context("the session bus")?;
        Ok(Self { connection, items, notifications })
    }

    /// The titles of all notifications shown so far.
    pub fn notifications(&self) -> Vec<String> {
        self.notifications.borrow().clone()
    }

    async fn item(&self) -> Result<(String, String)> {
        let mut items = self.items.clone();
        let seen = tokio::time::timeout(PATIENCE, items.wait_for(|items| !items.is_empty())).await;
        let item = seen.context("no tray icon was registered")??.last().cloned().unwrap_or_default();
        let at = item.find('/').context("an item without a path")?;
        Ok((item[..at].to_owned(), item[at..].to_owned()))
    }

    async fn menu_proxy(&self) -> Result<zbus::Proxy<'static>> {
        let (service, path) = self.item().await?;
        let item =
            zbus::Proxy::new(&self.connection, service.clone(), path, "org.kde.StatusNotifierItem").await?;
        let menu: OwnedObjectPath = item.get_property("Menu").await?;
        Ok(zbus::Proxy::new(&self.connection, service, menu, "com.canonical.dbusmenu").await?)
    }

    /// The pixels of the icon shown now: the state a person sees.
    /// # Errors
    /// There is no icon.
    pub async fn icon(&self) -> Result<Vec<(i32, i32, Vec<u8>)>> {
        let (service, path) = self.item().await?;
        let item = zbus::Proxy::new(&self.connection, service, path, "org.kde.StatusNotifierItem").await?;
        Ok(item.get_property("IconPixmap").await?)
    }

    /// The menu as it is now.
    /// # Errors
    /// There is no icon, or it has no menu.
    pub async fn menu(&self) -> Result<Vec<Item>> {
        let proxy = self.menu_proxy().await?;
        let (_, (_, _, children)): Layout =
            proxy.call("GetLayout", &(0_i32, -1_i32, Vec::<String>::new())).await?;
        children.into_iter().map(item).collect()
    }

    /// Waits until `found` finds something in the menu.
    /// # Errors
    /// It did not within the patience of a person; the menu is in the error.
    pub async fn until<T>(&self, what: &str, mut found: impl FnMut(&[Item]) -> Option<T>) -> Result<T> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let menu = self.menu().await?;
            if let Some(found) = found(&menu) {
                return Ok(found);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("{what} is not in the menu: {menu:#?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Chooses the line `label`, in the menu or a submenu.
    /// # Errors
    /// There is no such line, or it cannot be chosen.
    pub async fn click(&self, label: &str) -> Result<()> {
        let id = self
            .until(label, |menu| find(menu, label).filter(|item| item.enabled).map(|item| item.id))
            .await?;
        let proxy = self.menu_proxy().await?;
        let _: () = proxy.call("Event", &(id, "clicked", Value::from(""), 0_u32)).await?;
        Ok(())
    }
}

/// The line `label`, at any depth.
pub fn find<'a>(menu: &'a [Item], label: &str) -> Option<&'a Item> {
    menu.iter().find_map(|item| if item.label == label { Some(item) } else { find(&item.children, label) })
}

fn item(value: OwnedValue) -> Result<Item> {
    let (id, properties, children): (i32, HashMap<String, OwnedValue>, Vec<OwnedValue>) = value.try_into()?;
    let text = |name: &str| {
        properties
            .get(name)
            .and_then(|value| <&str>::try_from(value).ok())
            .unwrap_or_default()
            .replace('_', "")
    };
    // Absent means enabled (dbusmenu specification).
    let enabled = properties.get("enabled").is_none_or(|value| bool::try_from(value).unwrap_or(true));
    let checked =
        properties.get("toggle-state").is_some_and(|value| i32::try_from(value).is_ok_and(|on| on == 1));
    let children = children.into_iter().map(item).collect::<Result<_>>()?;
    Ok(Item { id, label: text("label"), enabled, checked, children })
}
