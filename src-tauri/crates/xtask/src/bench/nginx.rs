//! nginx as a registry of plain files: as fast as this machine serves them, and the upstream where files must come fast.

use std::{fmt::Write as _, fs, path::Path, process::Command, time::Duration};

use anyhow::Result;

use crate::{
    bench::{
        image::MANIFEST_TYPE,
        process::{Running, answers, free_port},
    },
    environment::Environment,
};

/// A running nginx. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Nginx {
    process: Running,
    port: u16,
}

impl Nginx {
    /// Serves `files` on loopback: manifests from `files/v2/<name>/manifests/<reference>`, the blobs of every repository
    /// from `files/blobs/<digest>`. One worker, sendfile, kept connections, no log. Its own files go into `folder`.
    pub(crate) fn start(environment: &Environment, folder: &Path, files: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let port = free_port()?;
        let config = folder.join("nginx.conf");
        fs::write(&config, text(folder, files, port, environment.root)?)?;
        let log = folder.join("nginx.log");
        let program = environment.find("nginx").unwrap_or_else(|| "nginx".into());
        // Until it has read its configuration it would complain into the system's log.
        let mut process =
            Running::start(Command::new(program).arg("-e").arg(&log).arg("-c").arg(&config), &log)?;
        process.ready("nginx", &log, Duration::from_secs(20), || answers(port))?;
        Ok(Self { process, port })
    }

    /// The master; its worker is its child.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

fn text(folder: &Path, files: &Path, port: u16, root: bool) -> Result<String> {
    let (own, files) = (folder.display(), files.display());
    let mut text = String::new();
    if root {
        // Its worker would else be somebody who may not look into our folders.
        text.push_str("user root;\n");
    }
    write!(
        text,
        "worker_processes 1; daemon off; pid {own}/nginx.pid;\nevents {{ worker_connections 1024; }}\nhttp {{\n  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; keepalive_timeout 1h;\n"
    )?;
    for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "  {name}_temp_path {own}/{name};")?;
    }
    write!(
        text,
        "  server {{\n    listen 127.0.0.1:{port} backlog=1024; root {files}; default_type application/octet-stream;\n    \
         location = /v2/ {{ default_type application/json; return 200 '{{}}'; }}\n    \
         location ~ ^/v2/.+/manifests/[^/]+$ {{ default_type {MANIFEST_TYPE}; }}\n    \
         location ~ ^/v2/.+/blobs/(sha256:[0-9a-f]+)$ {{ alias {files}/blobs/$1; }}\n  }}\n}}\n"
    )?;
    Ok(text)
}
