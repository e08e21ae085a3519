//! A pull limit as Docker Hub has one: so many manifests for each address in a window.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::answer::Answer;
use crate::record::{Kind, Recorded};

/// What a registry with a pull limit allows, and how it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Manifests in a window, for each address.
    pub pulls: u64,
    /// `w=` of the headers, in seconds. The window ends when the test says so, not by time.
    pub window: u64,
    /// `Retry-After` of its 429, in seconds.
    pub retry_after: Option<u64>,
    /// Whether HEAD counts as well; at Docker Hub it does not.
    pub counts_heads: bool,
}

impl RateLimit {
    /// As Docker Hub has it: HEAD is free, a window is six hours.
    pub fn of(pulls: u64) -> Self {
        Self { pulls, window: 21_600, retry_after: None, counts_heads: false }
    }
}

/// What was counted of a limit.
#[derive(Debug)]
pub(crate) struct Meter {
    limit: RateLimit,
    spent: HashMap<IpAddr, u64>,
}

impl Meter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self { limit, spent: HashMap::new() }
    }

    pub(crate) fn refill(&mut self) {
        self.spent.clear();
    }

    pub(crate) fn spent(&self) -> u64 {
        self.spent.values().sum()
    }

    /// Counts a manifest that is about to be answered well, or refuses it; tells what is left either way.
    pub(crate) fn apply(&mut self, request: &Recorded, source: IpAddr, answer: &mut Answer) {
        if request.kind != Kind::Manifest || answer.status != 200 {
            return;
        }
        let spent = self.spent.entry(source).or_default();
        if request.method == "GET" || self.limit.counts_heads {
            if *spent >= self.limit.pulls {
                *answer = Answer::error(429, "TOOMANYREQUESTS");
                if let Some(seconds) = self.limit.retry_after {
                    answer.set("retry-after", &seconds.to_string());
                }
            } else {
                *spent += 1;
            }
        }
        let RateLimit { pulls, window, .. } = self.limit;
        answer.set("ratelimit-limit", &format!("{pulls};w={window}"));
        answer.set("ratelimit-remaining", &format!("{};w={window}", pulls - *spent));
        answer.set("docker-ratelimit-source", &source.to_string());
    }
}
