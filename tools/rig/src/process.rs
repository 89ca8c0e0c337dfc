//! Programs as child processes.

use std::{
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How long a process may take to stop after SIGTERM before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

/// The path of one of the workspace's programs: next to the running one, unless it is told.
///
/// # Errors
/// If it was not built.
pub fn binary(name: &str) -> io::Result<PathBuf> {
    if Path::new(name).is_absolute() {
        return Ok(name.into());
    }
    let running = std::env::current_exe()?;
    // Tests run from target/<profile>/deps, programs from target/<profile>.
    let found = running
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        let hint = format!(
            "{name} is not built; run `cargo build --workspace` with the same profile first"
        );
        io::Error::new(io::ErrorKind::NotFound, hint)
    })
}

impl Process {
    /// Starts a program of the workspace; its log goes to the file `log`.
    ///
    /// # Errors
    /// If it is not built, or cannot be started.
    pub fn start<'a>(
        name: &str,
        arguments: &[&str],
        environment: impl IntoIterator<Item = (&'a str, String)>,
        log: &Path,
    ) -> io::Result<Self> {
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(binary(name)?)
            .args(arguments)
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            // A Ctrl-C at the terminal is for the parent, which then stops its children in order.
            .process_group(0)
            .spawn()?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// The name that it was started by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The exit status, if it has ended.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// SIGKILL; returns when it is gone.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// SIGTERM; returns when it has ended, by SIGKILL if it takes too long.
    ///
    /// # Errors
    /// If the operating system refuses, or the process had to be killed.
    pub async fn stop(mut self) -> io::Result<ExitStatus> {
        self.signal("TERM").await?;
        match timeout(STOP_DEADLINE, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.child.kill().await?;
                let what = format!("{} did not stop within {STOP_DEADLINE:?}", self.name);
                Err(io::Error::new(io::ErrorKind::TimedOut, what))
            }
        }
    }

    /// Sends a signal by name (`TERM`, `STOP`, `CONT`).
    ///
    /// # Errors
    /// If the operating system refuses.
    pub async fn signal(&self, signal: &str) -> io::Result<()> {
        if let Some(id) = self.child.id() {
            Command::new("kill").arg(format!("-{signal}")).arg(id.to_string()).status().await?;
        }
        Ok(())
    }
}
