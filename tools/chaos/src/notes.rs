//! The history, as it is written.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, ensure};
use firstcome_check::{
    Log,
    history::{Request, What},
};

/// A log whose trouble is told at the end: one that misses something is none.
#[derive(Debug)]
pub(crate) struct Notes {
    log: Log,
    is_whole: AtomicBool,
}

impl Notes {
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let log = Log::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { log, is_whole: AtomicBool::new(true) })
    }

    /// A request that is about to be sent.
    pub(crate) fn invoke(&self, user: i64, request: Request, key: Option<String>) -> u64 {
        self.log.invoke(user, request, key).unwrap_or_else(|_| {
            self.is_whole.store(false, Ordering::Relaxed);
            0
        })
    }

    pub(crate) fn note(&self, operation: u64, what: What) {
        if self.log.note(operation, what).is_err() {
            self.is_whole.store(false, Ordering::Relaxed);
        }
    }

    /// Returns when everything is in the file.
    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        self.log.flush()?;
        ensure!(self.is_whole.load(Ordering::Relaxed), "the history could not be written");
        Ok(())
    }
}
