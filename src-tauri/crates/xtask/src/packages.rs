//! What the system must have, how to notice that it has it, and what that is called in each package manager.
//! Plain tables and pure functions: nothing here looks at the machine (that is `system`).

/// How a need is recognised as met. Looking at files is quicker than asking a package database, and right also where
/// the thing was installed by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Any of these programs is on the path.
    Program(&'static [&'static str]),
    /// `pkg-config --exists` agrees.
    PkgConfig(&'static str),
    /// This header is in the system's include folder.
    Header(&'static str),
    /// Any font file is installed.
    Font,
}

/// One thing the system must have. An empty list of packages: no name is known for that manager.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// What it is, for people.
    pub(crate) name: &'static str,
    /// Why it is needed, for people.
    pub(crate) why: &'static str,
    pub(crate) probe: Probe,
    pub(crate) apt: &'static [&'static str],
    pub(crate) dnf: &'static [&'static str],
    pub(crate) pacman: &'static [&'static str],
}

/// To compile the engine and the command line program.
pub(crate) const ENGINE: &[Need] = &[
    Need {
        name: "gcc",
        why: "links Rust programs and compiles SQLite and the TLS primitives",
        probe: Probe::Program(&["cc", "gcc"]),
        apt: &["gcc"],
        dnf: &["gcc"],
        pacman: &["gcc"],
    },
    Need {
        name: "C library headers",
        why: "SQLite and the TLS primitives are written in C",
        probe: Probe::Header("stdio.h"),
        apt: &["libc6-dev"],
        dnf: &["glibc-devel"],
        pacman: &["glibc"],
    },
];

/// Further, to compile the desktop app.
pub(crate) const DESKTOP_BUILD: &[Need] = &[
    Need {
        name: "pkg-config",
        why: "finds WebKitGTK for the compiler",
        probe: Probe::Program(&["pkg-config", "pkgconf"]),
        apt: &["pkg-config"],
        dnf: &["pkgconf-pkg-config"],
        pacman: &["pkgconf"],
    },
    Need {
        name: "WebKitGTK 4.1",
        why: "draws the app's window",
        probe: Probe::PkgConfig("webkit2gtk-4.1"),
        apt: &["libwebkit2gtk-4.1-dev"],
        dnf: &["webkit2gtk4.1-devel"],
        pacman: &["webkit2gtk-4.1"],
    },
];

/// Further, to run the desktop app.
pub(crate) const DESKTOP_RUN: &[Need] = &[Need {
    name: "a font",
    why: "the window's text",
    probe: Probe::Font,
    apt: &["fonts-dejavu-core"],
    dnf: &["dejavu-sans-fonts"],
    pacman: &["ttf-dejavu"],
}];

/// What pulls and what is pulled from, in `cargo xtask bench link`.
pub(crate) const CONTAINERS: &[Need] = &[DOCKERD, DOCKER_REGISTRY, UNSHARE];

/// Further, for that: namespaces, and the clients to compare with.
pub(crate) const LINK: &[Need] = &[
    Need {
        name: "ip",
        why: "makes the network namespaces that the simulated link joins",
        probe: Probe::Program(&["ip"]),
        apt: &["iproute2"],
        dnf: &["iproute"],
        pacman: &["iproute2"],
    },
    Need {
        name: "nsenter",
        why: "starts programs in the far network namespace",
        probe: Probe::Program(&["nsenter"]),
        apt: &["util-linux"],
        dnf: &["util-linux"],
        pacman: &["util-linux"],
    },
    Need {
        name: "aria2c",
        why: "downloads with sixteen connections, to compare with",
        probe: Probe::Program(&["aria2c"]),
        apt: &["aria2"],
        dnf: &["aria2"],
        pacman: &["aria2"],
    },
    Need {
        name: "curl",
        why: "downloads one blob through Sampan",
        probe: Probe::Program(&["curl"]),
        apt: &["curl"],
        dnf: &["curl"],
        pacman: &["curl"],
    },
];

/// What is measured beside Sampan in `cargo xtask bench hits`, and what measures.
pub(crate) const HITS: &[Need] = &[
    DOCKER_REGISTRY,
    SKOPEO,
    NGINX,
    Need {
        name: "wrk",
        why: "asks for a manifest as often as a server can answer",
        probe: Probe::Program(&["wrk"]),
        apt: &["wrk"],
        dnf: &["wrk"],
        pacman: &["wrk"],
    },
];

/// What the cache of `cargo xtask bench cache` is filled from.
pub(crate) const CACHE: &[Need] = &[NGINX];

const NGINX: Need = Need {
    name: "nginx",
    why: "serves files as fast as they can be (its package starts one on port 80 too)",
    probe: Probe::Program(&["nginx"]),
    apt: &["nginx-light"],
    dnf: &["nginx"],
    pacman: &["nginx"],
};

const SKOPEO: Need = Need {
    name: "skopeo",
    why: "a second client, and what fills the registry",
    probe: Probe::Program(&["skopeo"]),
    apt: &["skopeo"],
    dnf: &["skopeo"],
    pacman: &["skopeo"],
};

const DOCKERD: Need = Need {
    name: "dockerd",
    why: "a real Docker to pull with (its package starts a system-wide Docker too; tests use one of their own)",
    probe: Probe::Program(&["dockerd"]),
    apt: &["docker.io"],
    dnf: &["moby-engine"],
    pacman: &["docker"],
};

const DOCKER_REGISTRY: Need = Need {
    name: "docker-registry",
    why: "a real registry to stand for Docker Hub (its package starts one on port 5000 too)",
    probe: Probe::Program(&["docker-registry"]),
    apt: &["docker-registry"],
    dnf: &[],
    pacman: &[],
};

const UNSHARE: Need = Need {
    name: "unshare",
    why: "mount namespaces, so that a test's hosts file is the test's alone",
    probe: Probe::Program(&["unshare"]),
    apt: &["util-linux"],
    dnf: &["util-linux"],
    pacman: &["util-linux"],
};

/// Further, for the tests: a display, a session bus, a browser driver and real container tools.
pub(crate) const TESTS: &[Need] = &[
    Need {
        name: "Xvfb",
        why: "a display without a screen, for the window tests",
        probe: Probe::Program(&["Xvfb"]),
        apt: &["xvfb"],
        dnf: &["xorg-x11-server-Xvfb"],
        pacman: &["xorg-server-xvfb"],
    },
    Need {
        name: "D-Bus",
        why: "a session bus of its own for each tray test",
        probe: Probe::Program(&["dbus-daemon"]),
        apt: &["dbus"],
        dnf: &["dbus-daemon"],
        pacman: &["dbus"],
    },
    Need {
        name: "WebKitWebDriver",
        why: "clicks through the app's real window",
        probe: Probe::Program(&["WebKitWebDriver"]),
        apt: &["webkit2gtk-driver"],
        dnf: &[],
        pacman: &[],
    },
    DOCKERD,
    DOCKER_REGISTRY,
    SKOPEO,
    Need {
        name: "podman",
        why: "a third client",
        probe: Probe::Program(&["podman"]),
        apt: &["podman"],
        dnf: &["podman"],
        pacman: &["podman"],
    },
    UNSHARE,
    Need {
        name: "strace",
        why: "sees which programs the privileged helper starts",
        probe: Probe::Program(&["strace"]),
        apt: &["strace"],
        dnf: &["strace"],
        pacman: &["strace"],
    },
];

/// The package managers whose names the tables know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    /// Debian, Ubuntu and their kin.
    Apt,
    /// Fedora and its kin.
    Dnf,
    /// Arch and its kin.
    Pacman,
}

impl Manager {
    pub(crate) const ALL: [Self; 3] = [Self::Apt, Self::Dnf, Self::Pacman];

    /// The program whose presence says that this is the system's manager.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Pacman => "pacman",
        }
    }

    fn names(self, need: &Need) -> &'static [&'static str] {
        match self {
            Self::Apt => need.apt,
            Self::Dnf => need.dnf,
            Self::Pacman => need.pacman,
        }
    }

    /// What has to run before an installation, so that a fresh machine knows any package at all.
    pub(crate) fn refresh(self) -> Option<Vec<String>> {
        match self {
            Self::Apt => Some(["apt-get", "update", "-q"].map(str::to_owned).to_vec()),
            Self::Dnf | Self::Pacman => None,
        }
    }

    /// The command, without sudo, that installs these packages and asks nothing.
    pub(crate) fn install(self, packages: &[&str]) -> Vec<String> {
        let command: &[&str] = match self {
            Self::Apt => &[
                "env",
                "DEBIAN_FRONTEND=noninteractive",
                "apt-get",
                "install",
                "-q",
                "-y",
                "--no-install-recommends",
            ],
            Self::Dnf => &["dnf", "install", "-y"],
            // Not `-Sy`: a list newer than the installed system is what Arch calls a partial upgrade.
            Self::Pacman => &["pacman", "-S", "--needed", "--noconfirm"],
        };
        command.iter().chain(packages).map(|&word| word.to_owned()).collect()
    }
}

/// What one manager can do about needs that are not met.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shopping {
    /// Packages to install, each once, in the tables' order.
    pub(crate) packages: Vec<&'static str>,
    /// Needs for which the manager's package is not known.
    pub(crate) unknown: Vec<&'static str>,
}

/// Sorts unmet needs into packages and those without a known package.
pub(crate) fn shopping(manager: Manager, missing: &[&Need]) -> Shopping {
    let mut list = Shopping { packages: Vec::new(), unknown: Vec::new() };
    for need in missing {
        let names = manager.names(need);
        if names.is_empty() {
            list.unknown.push(need.name);
        }
        for name in names {
            if !list.packages.contains(name) {
                list.packages.push(name);
            }
        }
    }
    list
}

/// Whether an installation may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    /// It was given beforehand.
    Given,
    /// The person has to be asked.
    Ask,
    /// Nobody can be asked: say what to run, and stop.
    Stop,
}

/// `--yes` and CI (`agreed`) and root count as consent; without them and without a terminal nothing is installed.
pub(crate) fn consent(agreed: bool, root: bool, terminal: bool) -> Consent {
    if agreed || root {
        Consent::Given
    } else if terminal {
        Consent::Ask
    } else {
        Consent::Stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Need> {
        [ENGINE, DESKTOP_BUILD, DESKTOP_RUN, TESTS, CONTAINERS, LINK, HITS, CACHE].into_iter().flatten()
    }

    #[test]
    fn everything_has_a_name_in_apt_and_what_the_app_needs_has_one_everywhere() {
        for need in all() {
            assert!(!need.apt.is_empty(), "{} has no apt package, and CI runs on Debian", need.name);
        }
        for need in [ENGINE, DESKTOP_BUILD, DESKTOP_RUN].into_iter().flatten() {
            for manager in Manager::ALL {
                assert!(
                    !manager.names(need).is_empty(),
                    "{} has no name in {}",
                    need.name,
                    manager.program()
                );
            }
        }
    }

    #[test]
    fn every_need_says_why() {
        for need in all() {
            assert!(
                need.why.len() > 10,
                "{}: a person asked for their password deserves a reason",
                need.name
            );
        }
    }

    #[test]
    fn a_debian_without_anything_gets_the_measured_list() {
        let missing: Vec<_> = ENGINE.iter().chain(DESKTOP_BUILD).chain(DESKTOP_RUN).collect();
        let list = shopping(Manager::Apt, &missing);
        let expected = ["gcc", "libc6-dev", "pkg-config", "libwebkit2gtk-4.1-dev", "fonts-dejavu-core"];
        assert_eq!(list.packages, expected, "each package once, compiler first");
        assert_eq!(list.unknown, [""; 0]);
    }

    #[test]
    fn what_a_manager_does_not_have_is_said_and_the_rest_still_installed() {
        let missing: Vec<_> =
            TESTS.iter().filter(|need| ["docker-registry", "skopeo"].contains(&need.name)).collect();
        let list = shopping(Manager::Pacman, &missing);
        assert_eq!(list.packages, ["skopeo"]);
        assert_eq!(list.unknown, ["docker-registry"]);
    }

    #[test]
    fn installing_never_waits_for_an_answer() {
        assert_eq!(
            Manager::Apt.install(&["gcc"]).join(" "),
            "env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends gcc"
        );
        assert_eq!(Manager::Dnf.install(&["gcc"]).join(" "), "dnf install -y gcc");
        assert_eq!(Manager::Pacman.install(&["gcc"]).join(" "), "pacman -S --needed --noconfirm gcc");
    }

    #[test]
    fn nothing_is_installed_unless_someone_agreed() {
        for (agreed, root, terminal, expected) in [
            (false, false, false, Consent::Stop),
            (false, false, true, Consent::Ask),
            (true, false, false, Consent::Given),
            (false, true, false, Consent::Given),
            (true, true, true, Consent::Given),
        ] {
            assert_eq!(
                consent(agreed, root, terminal),
                expected,
                "agreed {agreed}, root {root}, terminal {terminal}"
            );
        }
    }
}
