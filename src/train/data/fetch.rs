//! Files from the network: from the first of several mirrors that has the right one.
//!
//! A file appears under its name only when its SHA-256 is the expected one: what comes in goes to a temporary file,
//! and a mirror that sends something else counts as one that failed. No more bytes are taken than the file has.
//!
//! Fetching is the feature `download`; without it, and without a network, the error says where to put the file.

use std::path::Path;

use crate::error::{Error, Result};

/// A file that can be fetched.
#[derive(Clone, Debug)]
pub struct Remote<'a> {
    /// Where it is, each the whole address; tried in this order.
    pub urls: Vec<String>,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: &'a str,
    /// Its length in bytes.
    pub size: u64,
}

/// Fetches a file to `target`, whose folder is created; a bar on standard error shows how far it is, when that is a
/// terminal.
///
/// # Errors
/// If no mirror sends the file (the message has every mirror's failure, and says that the file can be put there by
/// hand), or it cannot be written.
pub fn fetch(remote: &Remote<'_>, target: &Path) -> Result<()> {
    let mut failures = String::new();
    for url in &remote.urls {
        match download(url, remote, target) {
            Ok(()) => return Ok(()),
            Err(Failure::Local(error)) => return Err(error),
            Err(Failure::Mirror(what)) => failures.push_str(&format!("\n  {url}: {what}")),
        }
    }
    Err(Error::msg(format!(
        "{}: could not be fetched; put the file there, or name a folder that has it (BB_DATA=FOLDER){failures}",
        target.display()
    )))
}

/// Why a mirror gave no file.
enum Failure {
    /// Another mirror may do better.
    Mirror(String),
    /// No mirror can help, since the file cannot be written here.
    #[cfg_attr(
        not(feature = "download"),
        expect(dead_code, reason = "without the feature nothing is written")
    )]
    Local(Error),
}

#[cfg(not(feature = "download"))]
fn download(_url: &str, _remote: &Remote<'_>, _target: &Path) -> Result<(), Failure> {
    let what = "this program was built without the feature `download`";
    Err(Failure::Mirror(what.to_owned()))
}

#[cfg(feature = "download")]
use network::download;

#[cfg(feature = "download")]
mod network {
    use std::io::{self, IsTerminal, Read, Write};
    use std::path::Path;
    use std::time::Duration;

    use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

    use super::{Failure, Remote};
    use crate::atomic;
    use crate::error::Error;
    use crate::formats::digest::Running;

    /// How long a mirror may take to accept a connection, and to begin its answer.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// Bytes that are read at once.
    const PIECE: usize = 1 << 16;

    pub(super) fn download(url: &str, remote: &Remote<'_>, target: &Path) -> Result<(), Failure> {
        let local = |source: io::Error| {
            let path = target.to_path_buf();
            Failure::Local(Error::Io { path, source })
        };
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder).map_err(local)?;
        }
        let agent = ureq::Agent::config_builder()
            .timeout_resolve(Some(PATIENCE))
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .build()
            .new_agent();
        let response = agent.get(url).call();
        let response = response.map_err(|error| Failure::Mirror(error.to_string()))?;
        let mut body = response.into_body().into_reader();
        let bar = progress(target, remote.size);
        let mut mirror = None;
        let written = atomic::write(target, |file| {
            copy(&mut body, file, remote, &bar).map_err(|error| match error {
                Copy::Read(what) => {
                    mirror = Some(what);
                    io::Error::other("the mirror failed")
                }
                Copy::Write(error) => error,
            })
        });
        bar.finish_and_clear();
        match (written, mirror) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(what)) => Err(Failure::Mirror(what)),
            (Err(error), None) => Err(Failure::Local(error)),
        }
    }

    enum Copy {
        Read(String),
        Write(io::Error),
    }

    /// Copies the body of an answer, and checks its length and its hash.
    fn copy(
        body: &mut impl Read,
        file: &mut impl Write,
        remote: &Remote<'_>,
        bar: &ProgressBar,
    ) -> Result<(), Copy> {
        let mut piece = vec![0; PIECE];
        let (mut hash, mut done) = (Running::default(), 0);
        loop {
            let read = body.read(&mut piece);
            let read = read.map_err(|error| Copy::Read(error.to_string()))?;
            if read == 0 {
                break;
            }
            done += read as u64;
            if done > remote.size {
                let what = format!("sent more than the {} bytes of the file", remote.size);
                return Err(Copy::Read(what));
            }
            hash.update(&piece[..read]);
            file.write_all(&piece[..read]).map_err(Copy::Write)?;
            bar.set_position(done);
        }
        let found = hash.finish();
        match found == remote.sha256 {
            true => Ok(()),
            false => Err(Copy::Read(format!(
                "sent {done} bytes with SHA-256 {found}, not {}",
                remote.sha256
            ))),
        }
    }

    fn progress(target: &Path, size: u64) -> ProgressBar {
        let shown = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let template = "Fetching {msg} [{bar:30}] {bytes}/{total_bytes}, {eta} left";
        let style = ProgressStyle::with_template(template).expect("the template is a valid one");
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        ProgressBar::with_draw_target(Some(size), shown)
            .with_style(style)
            .with_message(name.into_owned())
    }
}
