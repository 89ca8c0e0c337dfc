//! `firstcome-worker preflight`: before a sale, whether the coupon or product, its line and all that settling it takes
//! are ready. Looks, and changes nothing.

mod broker;
mod line;
mod redis;
mod sale;
mod system;

use std::{fmt::Display, process::ExitCode};

use clap::Args;
use firstcome_broker::BrokerArgs;
use firstcome_contract::{family::Family, line::LineName};
use firstcome_process::{database::Pool, redis::RedisArgs};

use super::{
    audit,
    forecast::{Demand, forecast},
    plan::{NO_FIGURES, pace},
};
use crate::{config::DatabaseArgs, crew::routing::State};
use broker::Queues;
use sale::Sale;

/// Who has waited for so long is an alert (`FirstcomeJobsWaitLong`).
const LONG_WAIT_SECONDS: f64 = 30.0;

/// The sale that is about to begin.
#[derive(Debug, Clone, Args)]
pub struct PreflightArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub key: KeyArgs,
    /// How many users are expected, for how long they will wait.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub users: Option<u64>,
    /// In how many seconds they come; 0 is all at once.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=86_400))]
    pub seconds_of_arrival: u32,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub database: DatabaseArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub broker: BrokerArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub redis: RedisArgs,
}

/// What is sold.
#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = false)]
pub struct KeyArgs {
    /// The coupon that is given out.
    #[arg(long)]
    pub coupon: Option<i64>,
    /// The product that is sold.
    #[arg(long)]
    pub product: Option<i64>,
}

impl KeyArgs {
    fn family(self) -> Family {
        if self.coupon.is_some() { Family::Coupon } else { Family::Product }
    }

    fn key(self) -> i64 {
        self.coupon.or(self.product).unwrap_or_default()
    }
}

/// What came of a look at something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// How it is.
    pub verdict: Verdict,
    /// What was looked at.
    pub what: &'static str,
    /// What was seen; of a failure, what to do.
    pub detail: String,
}

/// How something is that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and somebody should know.
    Warning,
    /// The sale should not begin like this.
    Failed,
}

impl Check {
    fn new(verdict: Verdict, what: &'static str, detail: impl Display) -> Self {
        Self { verdict, what, detail: detail.to_string() }
    }

    fn ok(what: &'static str, detail: impl Display) -> Self {
        Self::new(Verdict::Ok, what, detail)
    }

    fn warning(what: &'static str, detail: impl Display) -> Self {
        Self::new(Verdict::Warning, what, detail)
    }

    fn failed(what: &'static str, detail: impl Display) -> Self {
        Self::new(Verdict::Failed, what, detail)
    }
}

/// Looks at everything.
///
/// # Errors
/// The database's.
pub async fn run(pool: &Pool, args: &PreflightArgs) -> Result<Vec<Check>, sqlx::Error> {
    let (family, key) = (args.key.family(), args.key.key());
    let sale = Sale::read(pool, family, key).await?;
    let mut checks = sale::checks(sale.as_ref(), family, key);
    let state = State::load(&mut *pool.acquire().await?, family).await?;
    let queues = Queues::ask(&args.broker, line::of(&state, key)).await;
    checks.extend(line::checks(pool, &state, key, &args.broker.queue_namespace, &queues).await?);
    checks.extend(books(pool, family, key).await?);
    checks.extend(system::checks(pool, &args.broker.queue_namespace, &queues).await?);
    checks.push(redis::check(&args.redis).await);
    if let (Some(users), Some(sale)) = (args.users, sale) {
        checks.push(capacity(pool, family, &sale, users, args.seconds_of_arrival).await?);
    }
    Ok(checks)
}

/// The audit of this key alone.
async fn books(pool: &Pool, family: Family, key: i64) -> Result<Vec<Check>, sqlx::Error> {
    let findings = match family {
        Family::Coupon => audit::of_coupons(pool, Some(key)).await?,
        Family::Product => audit::of_products(pool, Some(key)).await?,
    };
    let violated = findings.iter().filter(|found| found.violations > 0);
    let violated = violated.map(|found| {
        let (invariant, named) = (found.invariant, found.violating.join(", "));
        let hint = "do not sell on it before `firstcome-worker audit` is clean";
        Check::failed("audit", format!("not so: {invariant} ({named}); {hint}"))
    });
    let mut checks: Vec<Check> = violated.collect();
    if checks.is_empty() {
        checks.push(Check::ok("audit", format!("{} invariants hold", findings.len())));
    }
    Ok(checks)
}

/// How long so many users would wait.
async fn capacity(
    pool: &Pool,
    family: Family,
    sale: &Sale,
    users: u64,
    seconds_of_arrival: u32,
) -> Result<Check, sqlx::Error> {
    const WHAT: &str = "capacity";
    let Some(pace) = pace(pool, family).await? else {
        return Ok(Check::warning(WHAT, NO_FIGURES));
    };
    let stock = u64::try_from(sale.left).unwrap_or_default();
    let demand = Demand { users, stock, lines: 1, seconds_of_arrival: seconds_of_arrival.into() };
    let told = forecast(demand, pace.jobs_per_second);
    let (drain, wait) = (told.drain_seconds, told.p99_wait_seconds);
    let is_long = wait > LONG_WAIT_SECONDS;
    let hint =
        if is_long { "; one key is one line: only a faster database makes it faster" } else { "" };
    let detail = format!(
        "{users} users at {:.0} jobs/s: all settled after {drain:.1} s, p99 wait {wait:.1} s{hint}",
        pace.jobs_per_second
    );
    Ok(Check::new(if is_long { Verdict::Warning } else { Verdict::Ok }, WHAT, detail))
}

/// Prints the checks for people; the exit code says whether none failed.
#[must_use]
#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
pub fn report(checks: &[Check]) -> ExitCode {
    for Check { verdict, what, detail } in checks {
        let verdict = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "failed",
        };
        println!("{verdict:<8} {what:<21} {detail}");
    }
    let failed = checks.iter().any(|check| check.verdict == Verdict::Failed);
    ExitCode::from(u8::from(failed))
}

/// The line of a key, as people read it.
fn told(family: Family, generation: i32, name: LineName) -> String {
    let pinned = if matches!(name, LineName::Pin(_)) { ", its own (a pin)" } else { "" };
    format!("{} line {generation}.{name}{pinned}", family.as_str())
}
