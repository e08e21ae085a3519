//! `sampan upstreams`: who is asked for each registry, and how they do.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use bytesize::ByteSize;
use clap::{Args, Subcommand};
use sampan_app::Config;
use sampan_app::api::{
    Command, RegistryUpstreams, Reply, UpstreamChange, UpstreamLie, UpstreamState, UpstreamWeather,
};

use crate::arguments::Format;
use crate::ask::{answer, ask, connect, unexpected};
use crate::show::{columns, plain};
use crate::speed::speed;

/// What to do with them; nothing: list them.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Upstreams {
    #[command(subcommand)]
    change: Option<Change>,
    #[command(flatten)]
    format: Format,
}

/// Which change.
#[derive(Subcommand, Debug)]
enum Change {
    /// List them, with what was measured
    List(Format),
    /// Ask one more: a mirror of a registry, or a registry that is not mirrored yet
    Add(One),
    /// Ask one no longer
    Remove(One),
    /// Believe one about where tags point, and the others no longer
    Trust(One),
    /// Ask one again that was dropped for lying
    Restore(One),
}

/// Which upstream.
#[derive(Args, Debug)]
struct One {
    /// The registry's name in image names: docker.io
    #[arg(value_name = "REGISTRY")]
    registry: String,
    /// Where it is asked: https://mirror.gcr.io
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    format: Format,
}

/// `sampan upstreams`.
pub(crate) async fn upstreams(config: &Config, upstreams: Upstreams) -> anyhow::Result<ExitCode> {
    let change = |one: One, change| {
        let One { registry, url, format } = one;
        (Command::UpstreamChange { change, registry, url }, format)
    };
    let (command, format) = match upstreams.change {
        None => (Command::Upstreams, upstreams.format),
        Some(Change::List(format)) => (Command::Upstreams, format),
        Some(Change::Add(one)) => change(one, UpstreamChange::Add),
        Some(Change::Remove(one)) => change(one, UpstreamChange::Remove),
        Some(Change::Trust(one)) => change(one, UpstreamChange::Trust),
        Some(Change::Restore(one)) => change(one, UpstreamChange::Restore),
    };
    let Reply::Upstreams(all) = ask(&mut connect(config).await?, command).await? else { bail!(unexpected()) };
    answer(&all, format, || show(&all))?;
    Ok(ExitCode::SUCCESS)
}

fn show(all: &[RegistryUpstreams]) -> String {
    let mut rows =
        vec![["REGISTRY", "UPSTREAM", "TAGS", "RATE", "LATENCY", "SHARE", "STATE"].map(str::to_owned)];
    let mut notes = String::new();
    for registry in all {
        let total: u64 = registry.upstreams.iter().map(|one| one.bytes).sum();
        for one in &registry.upstreams {
            rows.push([
                plain(&registry.registry),
                plain(&one.url),
                if one.is_trusted { "trusted" } else { "" }.to_owned(),
                one.rate.map_or_else(|| "-".to_owned(), speed),
                one.latency_millis.map_or_else(|| "-".to_owned(), |millis| format!("{millis} ms")),
                share(one.bytes, total),
                state(one).to_owned(),
            ]);
            if let Some(dropped) = &one.dropped {
                let _ = writeln!(
                    notes,
                    "{} {} ({}, {}) and is asked nothing for a day. To ask it again: sampan upstreams restore {} {}",
                    plain(&one.url),
                    lie(dropped.lie),
                    plain(&dropped.image),
                    plain(&dropped.digest),
                    plain(&registry.registry),
                    plain(&one.url),
                );
            }
        }
    }
    let table = columns(&rows);
    if notes.is_empty() { table } else { format!("{table}\n{notes}") }
}

fn share(bytes: u64, total: u64) -> String {
    match (bytes.saturating_mul(100) + total / 2).checked_div(total) {
        Some(percent) => format!("{percent} %, {}", ByteSize::b(bytes).display().si()),
        None => "-".to_owned(),
    }
}

fn state(one: &UpstreamWeather) -> &'static str {
    match one.state {
        UpstreamState::Unknown => "not asked yet",
        UpstreamState::Good => "answers",
        UpstreamState::Failing => "failed lately",
        UpstreamState::Resting => "does not answer",
        UpstreamState::Dropped => "dropped: it lied",
    }
}

fn lie(lie: UpstreamLie) -> &'static str {
    match lie {
        UpstreamLie::Bytes => "sent other bytes than asked for",
        UpstreamLie::Size => "told a wrong size",
        UpstreamLie::Part => "sent another part than asked for",
        UpstreamLie::Digest => "named another digest than asked for",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use sampan_app::api::UpstreamDropped;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        upstreams: Upstreams,
    }

    #[test]
    fn what_is_to_change_must_be_said() {
        let parse = |words: &[&str]| Line::try_parse_from(std::iter::once(&"upstreams").chain(words));
        let good: [&[&str]; 6] = [
            &[],
            &["--json"],
            &["list", "--json"],
            &["add", "docker.io", "https://mirror.gcr.io"],
            &["trust", "docker.io", "https://team.example", "--json"],
            &["restore", "docker.io", "https://mirror.gcr.io"],
        ];
        for words in good {
            assert!(parse(words).is_ok(), "{words:?}");
        }
        for words in [&["add"][..], &["add", "docker.io"], &["docker.io"], &["remove", "docker.io"]] {
            assert!(parse(words).is_err(), "{words:?} says too little or too much");
        }
    }

    fn one(url: &str, bytes: u64, state: UpstreamState) -> UpstreamWeather {
        UpstreamWeather {
            url: url.into(),
            is_origin: false,
            is_trusted: false,
            state,
            rate: (bytes > 0).then_some(2_000_000),
            latency_millis: None,
            failures: 0,
            bytes,
            rests_until: None,
            dropped: None,
        }
    }

    #[test]
    fn the_weather_is_shown_and_a_liar_is_named() {
        let dropped = UpstreamDropped {
            at: 0,
            until: 1,
            lie: UpstreamLie::Bytes,
            image: "docker.io/library/nginx".into(),
            digest: "sha256:0a".into(),
        };
        let liar = UpstreamWeather {
            dropped: Some(dropped),
            ..one("https://a\u{1b}[2J", 0, UpstreamState::Dropped)
        };
        let good = UpstreamWeather { is_trusted: true, ..one("https://b", 3_000_000, UpstreamState::Good) };
        let rest = one("https://c", 1_000_000, UpstreamState::Resting);
        let registry = RegistryUpstreams {
            registry: "docker.io".into(),
            added: false,
            upstreams: vec![liar, good, rest],
        };
        let text = show(&[registry]);
        assert!(!text.contains('\u{1b}'), "nothing steers a terminal");
        for part in
            ["2.0 MB/s", "75 %, 3.0 MB", "25 %, 1.0 MB", "trusted", "does not answer", "dropped: it lied"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            text.contains("sent other bytes than asked for (docker.io/library/nginx, sha256:0a)"),
            "{text}"
        );
        assert!(text.contains("sampan upstreams restore docker.io"), "{text}");
    }
}
