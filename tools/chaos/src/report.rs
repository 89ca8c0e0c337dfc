//! What came of the campaign: as text, JSON and a picture.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;
use firstcome_rig::figures::duration;
use firstcome_workers::commands::audit::Finding;
use serde_json::json;

use crate::{
    campaign::{Cycle, RECOVERY_LIMIT},
    picture, soak,
};

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) took: Duration,
    /// Answered, and without an answer.
    pub(crate) requests: (u64, u64),
    pub(crate) cycles: Vec<Cycle>,
    /// Of a sale without faults.
    pub(crate) looks: Vec<soak::Look>,
    /// What the checker says.
    pub(crate) found: firstcome_check::Report,
    /// What `firstcome-worker audit` says.
    pub(crate) books: Vec<Finding>,
    /// Accepted jobs that nobody was told the outcome of.
    pub(crate) unsettled: usize,
    /// What went wrong when the programs were stopped.
    pub(crate) troubles: Vec<String>,
}

/// Of the recoveries after a fault.
struct Spread {
    median: Duration,
    p99: Duration,
    most: Duration,
}

impl Report {
    pub(crate) fn is_clean(&self) -> bool {
        self.violations() == 0 && self.late() == 0
    }

    fn violations(&self) -> usize {
        let rules = self.found.violations();
        let books: i64 = self.books.iter().map(|finding| finding.violations).sum();
        let grown = if self.looks.is_empty() { 0 } else { soak::grown(&self.looks) };
        let troubles = self.troubles.len() + self.of_faults().count() + grown;
        rules + usize::try_from(books).unwrap_or(usize::MAX) + self.unsettled + troubles
    }

    /// Faults that could not be caused, or not put right.
    fn of_faults(&self) -> impl Iterator<Item = &String> {
        self.cycles.iter().flat_map(|cycle| &cycle.troubles)
    }

    /// Faults after which it took longer than it may.
    fn late(&self) -> usize {
        let limit = u64::try_from(RECOVERY_LIMIT.as_millis()).unwrap_or(u64::MAX);
        self.cycles.iter().filter(|cycle| !cycle.is_recovered || cycle.recovered_ms > limit).count()
    }

    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new()];
        lines.extend(self.found.to_string().lines().map(|line| format!("  {line}")));
        for finding in &self.books {
            if finding.violations > 0 {
                lines.push(format!("  FAIL {}: {:?}", finding.invariant, finding.violating));
            }
        }
        lines.push(format!(
            "  {} invariants of the books, {} accepted jobs without an outcome",
            self.books.len(),
            self.unsettled
        ));
        let troubles = self.troubles.iter().chain(self.of_faults());
        lines.extend(troubles.map(|trouble| format!("  FAIL {trouble}")));
        let (answered, unanswered) = self.requests;
        if !self.looks.is_empty() {
            lines.extend(soak::lines(&self.looks));
            lines.push(format!(
                "\nsoak: {}, {} requests ({unanswered} without an answer), {} violations: {}",
                duration(self.took),
                answered + unanswered,
                self.violations(),
                if self.is_clean() { "PASS" } else { "FAIL" },
            ));
            return lines;
        }
        let Spread { median, p99, most } = self.recoveries();
        lines.push(format!(
            "\nchaos: seed {}, {} faults in {}, {} requests ({} without an answer), recovery p50 {}, p99 {}, max {} \
             (limit {}), {} late, {} violations: {}",
            self.seed,
            self.cycles.len(),
            duration(self.took),
            answered + unanswered,
            unanswered,
            duration(median),
            duration(p99),
            duration(most),
            duration(RECOVERY_LIMIT),
            self.late(),
            self.violations(),
            if self.is_clean() { "PASS" } else { "FAIL" },
        ));
        lines
    }

    /// Leaves `report.txt`, `report.json` and, of faults, `report.svg` in this folder.
    ///
    /// # Errors
    /// They cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let Spread { median, p99, most } = self.recoveries();
        let json = json!({
            "seed": self.seed,
            "seconds": self.took.as_secs(),
            "answered": self.requests.0,
            "unanswered": self.requests.1,
            "violations": self.violations(),
            "late": self.late(),
            "recoveryMs": {"p50": median.as_millis(), "p99": p99.as_millis(), "max": most.as_millis()},
            "cycles": self.cycles,
            "looks": self.looks,
            "rules": self.found,
        });
        let mut texts = vec![
            ("report.json", format!("{json:#}\n")),
            ("report.txt", self.lines().join("\n") + "\n"),
        ];
        if !self.cycles.is_empty() {
            texts.push(("report.svg", picture::draw(&self.by_fault(), RECOVERY_LIMIT)));
        }
        for (name, text) in texts {
            let path = folder.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn recoveries(&self) -> Spread {
        let mut all: Vec<u64> = self.cycles.iter().map(|cycle| cycle.recovered_ms).collect();
        all.sort_unstable();
        let at = |percent: usize| {
            let position = (all.len() * percent).div_ceil(100).saturating_sub(1);
            Duration::from_millis(all.get(position).copied().unwrap_or_default())
        };
        Spread { median: at(50), p99: at(99), most: at(100) }
    }

    /// What it cost, by fault: downtime and recovery of each time, in seconds.
    fn by_fault(&self) -> BTreeMap<&str, Vec<(f64, f64)>> {
        let mut all: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        let seconds = |millis: u64| Duration::from_millis(millis).as_secs_f64();
        for cycle in &self.cycles {
            for fault in &cycle.faults {
                all.entry(fault)
                    .or_default()
                    .push((seconds(cycle.downtime_ms), seconds(cycle.recovered_ms)));
            }
        }
        all
    }
}
