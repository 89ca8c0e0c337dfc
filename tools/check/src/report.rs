//! What the rules found.

use serde::Serialize;

/// The most violations of a rule that are told; how many there are is told anyhow.
pub const MAX_TOLD: usize = 10;

/// What one rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The rule, as a sentence.
    pub rule: &'static str,
    /// How many things (jobs, coupons, users …) were looked at.
    pub checked: usize,
    /// How many times it does not hold.
    pub violations: usize,
    /// The first of these, [`MAX_TOLD`] at most.
    pub told: Vec<String>,
}

impl Verdict {
    /// Of a rule that looked at so many things.
    pub(crate) fn new(rule: &'static str, checked: usize, mut violations: Vec<String>) -> Self {
        let count = violations.len();
        violations.truncate(MAX_TOLD);
        Self { rule, checked, violations: count, told: violations }
    }
}

/// What all rules found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One for each rule.
    pub verdicts: Vec<Verdict>,
}

impl Report {
    /// How often any rule does not hold.
    #[must_use]
    pub fn violations(&self) -> usize {
        self.verdicts.iter().map(|verdict| verdict.violations).sum()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Verdict { rule, checked, violations, told } in &self.verdicts {
            let verdict = if *violations == 0 { "ok  " } else { "FAIL" };
            writeln!(f, "{verdict} {rule}: {checked} checked, {violations} violations")?;
            for what in told {
                writeln!(f, "       {what}")?;
            }
            if *violations > told.len() {
                writeln!(f, "       …")?;
            }
        }
        let violations = self.violations();
        let verdict = if violations == 0 { "PASS" } else { "FAIL" };
        write!(f, "check: {verdict} violations={violations}")
    }
}
