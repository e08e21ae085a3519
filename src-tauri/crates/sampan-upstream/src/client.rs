//! The one HTTP client of the process.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use reqwest::{Url, redirect};
use tokio::sync::watch;

use crate::address::Guard;
use crate::limits::{CONNECT, POOL_IDLE};
use crate::{BodyStream, UpstreamError};

/// The HTTP client all upstreams share: one pool of connections, one set of trusted certificates. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    direct: reqwest::Client,
    proxied: reqwest::Client,
    guard: Guard,
    offline: Arc<watch::Sender<bool>>,
}

/// Makes the client; once per process. Redirects, cookies, `Referer` and decompression are off; HTTP/1.1 only, because
/// each of several range requests shall have a congestion window of its own.
/// # Errors
/// [`UpstreamError::Unreachable`] if the system's certificates cannot be read.
pub fn client() -> Result<Client, UpstreamError> {
    let guard = Guard::default();
    let builder = || {
        reqwest::Client::builder()
            .user_agent(concat!("sampan/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT)
            .pool_idle_timeout(POOL_IDLE)
            .dns_resolver(guard.clone())
    };
    let built = |builder: reqwest::ClientBuilder| builder.build().map_err(|e| UpstreamError::of_request(&e));
    Ok(Client {
        direct: built(builder().no_proxy())?,
        proxied: built(builder())?,
        guard,
        offline: Arc::default(),
    })
}

impl Client {
    pub(crate) fn set_offline(&self, offline: bool) {
        self.offline.send_replace(offline);
    }

    /// Refuses while offline.
    pub(crate) fn admit(&self) -> Result<(), UpstreamError> {
        if *self.offline.borrow() { Err(UpstreamError::Offline) } else { Ok(()) }
    }

    /// Runs `work`, as long as Sampan is not offline.
    pub(crate) async fn online<T>(&self, work: impl Future<Output = T>) -> Result<T, UpstreamError> {
        let mut offline = self.offline.subscribe();
        tokio::select! {
            biased;
            Ok(_) = offline.wait_for(|offline| *offline) => Err(UpstreamError::Offline),
            done = work => Ok(done),
        }
    }

    /// A body that ends with an error when Sampan goes offline.
    pub(crate) fn while_online(&self, body: BodyStream) -> BodyStream {
        let state = (body, self.offline.subscribe());
        stream::unfold(state, |(mut body, mut offline)| async move {
            let piece = tokio::select! {
                biased;
                Ok(_) = offline.wait_for(|offline| *offline) => Some(Err(UpstreamError::Offline)),
                piece = body.next() => piece,
            };
            piece.map(|piece| (piece, (body, offline)))
        })
        .boxed()
    }

    /// The client for a URL: this machine is never reached through a proxy.
    pub(crate) fn http(&self, url: &Url) -> &reqwest::Client {
        if crate::redirect::is_loopback(url) { &self.direct } else { &self.proxied }
    }

    /// Trusts the host of a configured URL, wherever its name resolves to.
    pub(crate) fn trust(&self, url: &Url) {
        if let Some(host) = url.host_str() {
            self.guard.trust(host);
        }
    }

    /// Takes note that an upstream led us to this host.
    pub(crate) fn watch(&self, url: &Url) -> Result<(), UpstreamError> {
        let room = url.host_str().is_some_and(|host| self.guard.watch(host));
        if room { Ok(()) } else { Err(UpstreamError::Protocol("it led to too many hosts")) }
    }
}

#[cfg(test)]
mod tests {
    use sampan_testkit::FakeRegistry;

    use super::*;

    #[tokio::test]
    async fn a_foreign_name_that_means_this_machine_is_not_connected_to() {
        let fake = FakeRegistry::start().await;
        let url = Url::parse(&format!("http://localhost:{}/", fake.address().port())).unwrap();
        let client = client().unwrap();
        client.watch(&url).unwrap();
        let error = client.direct.get(url.clone()).send().await.unwrap_err();
        let error = UpstreamError::of_request(&error);
        assert!(matches!(error, UpstreamError::Protocol("it led to a private address")), "{error:?}");
        assert_eq!(fake.log(), [], "the check comes before the connection");
        client.trust(&url);
        assert!(
            client.direct.get(url).send().await.is_ok(),
            "a person may configure what an upstream may not choose"
        );
    }
}
