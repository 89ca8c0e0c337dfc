//! `firstcome-worker plan`: how long a sale would take with so many users, by what the lines of this installation have
//! shown to settle.

use clap::Args;
use firstcome_broker::topology::PREFETCH;
use firstcome_contract::{family::Family, line::MAX_PARTITIONS};
use sqlx::PgPool;

use super::forecast::{Demand, forecast, lines_for};
use crate::config::DatabaseArgs;

/// How many jobs a line has to have settled until what a batch takes there counts: the first ones are connections,
/// plans and an empty cache.
const MIN_SETTLED: i64 = 1_000;
/// What to do where no line has.
pub const NO_FIGURES: &str = "no figures yet: run a rehearsal, which leaves some, or give `--rate` to `firstcome-worker plan`";

/// What the figures rest on.
const ASSUMED: [&str; 3] = [
    "one coupon or product is one line, however many lines there are",
    "each user takes a job, also when all is gone: most are refused at once then, and it is over sooner",
    "lines do not hold each other up: as far as PostgreSQL has processors and a disk left for it",
];

/// The sale that is planned.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// How many users come.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub users: u64,
    /// How many units there are.
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
    pub stock: u64,
    /// Whether they come for coupons or products.
    #[arg(long, default_value = "coupon", value_parser = Family::parse)]
    pub family: Family,
    /// Over how many lines they are spread: one coupon or product is one line.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=u64::from(MAX_PARTITIONS)))]
    pub lines: u64,
    /// In how many seconds they come; 0 is all at once.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=86_400))]
    pub seconds_of_arrival: u32,
    /// How many jobs a line settles per second, in the place of what the lines have shown.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// How many seconds all but one in a hundred may wait, for the number of lines that it takes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub p99_wait: u32,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub database: DatabaseArgs,
}

/// What the lines of a family settle.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Jobs per second of a line that is full.
    pub jobs_per_second: f64,
    /// How many lines have shown it: it is that of the middle one.
    pub lines: usize,
}

/// What the family's lines settle when they are full, as their workers told last; `None` where none has settled enough.
///
/// # Errors
/// The database's.
pub async fn pace(pool: &PgPool, family: Family) -> Result<Option<Pace>, sqlx::Error> {
    // As many jobs as an API expects in a full batch: its worker's bound, and what the broker gives ahead meanwhile.
    let rates = sqlx::query_scalar!(
        r#"SELECT jobs / (batch_seconds + job_seconds * jobs) AS "rate!"
           FROM line_reports JOIN line_progress USING (family, generation, line),
                LATERAL (SELECT LEAST(batch_limit, $2 * GREATEST(jobs_per_message, 1)) AS jobs) AS batch
           WHERE family = $1 AND line_progress.settled >= $3 AND batch_seconds + job_seconds * jobs > 0
           ORDER BY 1"#,
        family.as_str(),
        f64::from(PREFETCH / 2),
        MIN_SETTLED,
    )
    .fetch_all(pool)
    .await?;
    let middle = rates.get(rates.len().saturating_sub(1) / 2);
    Ok(middle.map(|rate| Pace { jobs_per_second: *rate, lines: rates.len() }))
}

/// Tells how the sale would go.
///
/// # Errors
/// The database's; with a hint if nothing is known of the lines.
#[expect(clippy::print_stdout, reason = "the plan is what the command is for")]
pub async fn run(pool: &PgPool, args: &PlanArgs) -> anyhow::Result<()> {
    let (rate, source) = match args.rate {
        Some(rate) => (f64::from(rate), "as given".to_owned()),
        None => match pace(pool, args.family).await? {
            Some(Pace { jobs_per_second, lines }) => {
                (jobs_per_second, format!("as {lines} lines have shown, the middle one of them"))
            }
            None => anyhow::bail!(NO_FIGURES),
        },
    };
    for line in lines(args, rate, &source) {
        println!("{line}");
    }
    Ok(())
}

fn lines(args: &PlanArgs, rate: f64, source: &str) -> Vec<String> {
    let PlanArgs { users, stock, lines, seconds_of_arrival, p99_wait, family, .. } = args;
    let demand = Demand {
        users: *users,
        stock: *stock,
        lines: *lines,
        seconds_of_arrival: (*seconds_of_arrival).into(),
    };
    let told = forecast(demand, rate);
    let sold_out = told.sold_out_seconds;
    let sold_out = sold_out.map_or("never".to_owned(), |after| format!("after {after:.1} s"));
    let needed = lines_for(demand, rate, (*p99_wait).into());
    let family = family.as_str();
    let mut told = vec![
        format!("rate      {rate:.0} jobs/s of a {family} line, {source}"),
        format!("won       {}, and {} come too late", told.won, told.too_late),
        format!("sold out  {sold_out}"),
        format!("drain     everybody has an outcome after {:.1} s", told.drain_seconds),
        format!("p99 wait  {:.1} s", told.p99_wait_seconds),
        format!("waiting   {} jobs in a line at most: LINE_CAPACITY is to be above", told.waiting),
        format!("lines     {needed} for a p99 wait of {p99_wait} s; {lines} here"),
        format!(
            "workers   1 to {lines}: a line has one at a time, and what more there are stands by"
        ),
        format!("assumed   {users} users come once each, evenly over {seconds_of_arrival} s"),
    ];
    told.extend(ASSUMED.map(|assumed| format!("          {assumed}")));
    told
}
