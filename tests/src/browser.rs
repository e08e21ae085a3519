//! The app's window as a person uses it, through WebKitWebDriver: the engine that Tauri draws with on Linux.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;

/// How long the page may take to show what is waited for.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The window, driven.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    screenshots: std::path::PathBuf,
}

impl Browser {
    /// Starts `app` with `args` through the WebDriver at `driver` and waits for its first data. Screenshots go to
    /// `screenshots`.
    /// # Errors
    /// The window does not open, or shows no data.
    pub async fn open(driver: &str, app: &Path, args: &[String], screenshots: &Path) -> Result<Self> {
        let wanted = serde_json::json!({ "webkitgtk:browserOptions": { "binary": app, "args": args } });
        let wanted = wanted.as_object().cloned().unwrap_or_default();
        let client = ClientBuilder::new(HttpConnector::new()).capabilities(wanted).connect(driver).await?;
        std::fs::create_dir_all(screenshots)?;
        let browser = Self { client, screenshots: screenshots.to_owned() };
        browser.shows("body[data-ready=true]").await?;
        Ok(browser)
    }

    /// Waits until an element that `css` selects is shown.
    /// # Errors
    /// It is not, for a minute.
    pub async fn shows(&self, css: &str) -> Result<Element> {
        let waited =
            self.client.wait().at_most(PATIENCE).every(LOOK_EVERY).for_element(Locator::Css(css)).await;
        match waited {
            Ok(element) => Ok(element),
            Err(error) => {
                self.screenshot("failed").await?;
                let text = self.client.find(Locator::Css("body")).await?.text().await?;
                bail!("{css} is not shown ({error}); the page says:\n{text}")
            }
        }
    }

    /// The element of that `data-testid`, once it is shown.
    /// # Errors
    /// As [`shows`](Self::shows).
    pub async fn get(&self, id: &str) -> Result<Element> {
        self.shows(&format!("[data-testid={id}]")).await
    }

    /// Clicks it, once it can be.
    /// # Errors
    /// As [`shows`](Self::shows).
    pub async fn click(&self, id: &str) -> Result<()> {
        self.shows(&format!("[data-testid={id}]:not([disabled])"))
            .await?
            .click()
            .await
            .with_context(|| format!("clicking {id}"))
    }

    /// Its text, once it is shown.
    /// # Errors
    /// As [`shows`](Self::shows).
    pub async fn text(&self, id: &str) -> Result<String> {
        Ok(self.get(id).await?.text().await?)
    }

    /// An attribute of it, once it is shown.
    /// # Errors
    /// As [`shows`](Self::shows).
    pub async fn attribute(&self, id: &str, name: &str) -> Result<Option<String>> {
        Ok(self.get(id).await?.attr(name).await?)
    }

    /// How many elements `css` selects now.
    /// # Errors
    /// The window is gone.
    pub async fn count(&self, css: &str) -> Result<usize> {
        Ok(self.client.find_all(Locator::Css(css)).await?.len())
    }

    /// Waits until `css` selects so many elements.
    /// # Errors
    /// It does not, for a minute.
    pub async fn has(&self, css: &str, wanted: usize) -> Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let count = self.count(css).await?;
            if count == wanted {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                self.screenshot("failed").await?;
                bail!("{count} of {wanted} {css} are shown");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the text of `id` passes.
    /// # Errors
    /// It does not, for a minute; the last text is in the error.
    pub async fn text_passes(&self, id: &str, passes: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let text = self.text(id).await?;
            if passes(&text) {
                return Ok(text);
            }
            if tokio::time::Instant::now() > deadline {
                self.screenshot("failed").await?;
                bail!("{id} still says {text:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Chooses `value` of the selection `id`.
    /// # Errors
    /// There is no such choice.
    pub async fn choose(&self, id: &str, value: &str) -> Result<()> {
        Ok(self.get(id).await?.select_by_value(value).await?)
    }

    /// Keeps what the window looks like as `<name>.png`.
    /// # Errors
    /// The window is gone.
    pub async fn screenshot(&self, name: &str) -> Result<()> {
        let png = self.client.screenshot().await?;
        Ok(std::fs::write(self.screenshots.join(format!("{name}.png")), png)?)
    }

    /// Closes the window; WebKitWebDriver ends its process.
    /// # Errors
    /// It is gone already.
    pub async fn close(self) -> Result<()> {
        Ok(self.client.close().await?)
    }
}
