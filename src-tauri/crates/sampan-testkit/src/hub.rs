//! Docker Hub in three parts, each at its own port: the registry, its token server, its CDN.

use crate::fault::{Fault, TokenRule};
use crate::image::Image;
use crate::meter::RateLimit;
use crate::record::{Kind, Recorded};
use crate::registry::FakeRegistry;

/// A registry that asks for tokens of a server elsewhere, leads to blobs elsewhere, and counts manifests.
#[derive(Debug)]
pub struct FakeHub {
    /// `registry-1.docker.io`: tags, manifests, and where blobs are.
    pub registry: FakeRegistry,
    /// `auth.docker.io`: tokens, for whoever asks.
    pub auth: FakeRegistry,
    /// Where blobs are: it must never be shown a token.
    pub cdn: FakeRegistry,
}

impl FakeHub {
    /// Starts all three.
    pub async fn start(limit: RateLimit) -> Self {
        let (registry, auth, cdn) =
            (FakeRegistry::start().await, FakeRegistry::start().await, FakeRegistry::start().await);
        registry.limits(limit);
        let hub = Self { registry, auth, cdn };
        hub.behave();
        hub
    }

    /// Ends every fault a test added to any of the three.
    pub fn heals(&self) {
        for part in [&self.registry, &self.auth, &self.cdn] {
            part.heals();
        }
        self.behave();
    }

    fn behave(&self) {
        let realm = Some(format!("{}/token", self.auth.url()));
        self.registry.fails_with(Fault::RequireToken(TokenRule { realm, ..TokenRule::default() }));
        self.registry.fails_on(Kind::Blob, Fault::RedirectTo(self.cdn.url()));
    }

    /// Publishes an image as [`FakeRegistry::publish`] does, its blobs at the CDN.
    /// # Panics
    /// If `name` is not `repository:tag`.
    pub fn publish(&self, name: &str) -> Image {
        let image = self.registry.publish(name);
        self.cdn.hold(&image);
        image
    }

    /// Manifests it counted in this window.
    pub fn spent(&self) -> u64 {
        self.registry.spent()
    }

    /// Requests in which `secret` stands anywhere, with the part that got them.
    pub fn leaks(&self, secret: &str) -> Vec<(&'static str, Recorded)> {
        let parts = [("registry", &self.registry), ("auth", &self.auth), ("cdn", &self.cdn)];
        let all = parts.into_iter().flat_map(|(name, part)| part.log().into_iter().map(move |r| (name, r)));
        all.filter(|(_, request)| format!("{request:?}").contains(secret)).collect()
    }
}
