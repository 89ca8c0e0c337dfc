//! Whether every role has a process, and nothing stands still behind the lines.

use firstcome_contract::family::Family;
use firstcome_process::database::Pool;

use super::{Check, broker::Queues};
use crate::{events::backlog, roles::RoleName};

/// Who has waited for so long in the outbox is an alert (`FirstcomeOutboxStalled`).
const STALLED_SECONDS: f64 = 15.0;

/// Whether what happens beside the line goes on, as far as the database and the broker can tell.
pub(super) async fn checks(
    pool: &Pool,
    namespace: &str,
    queues: &Queues,
) -> Result<Vec<Check>, sqlx::Error> {
    let mut checks = Vec::new();
    for family in Family::ALL {
        let alive = sqlx::query_scalar!(
            r#"SELECT count(*) AS "alive!" FROM workers WHERE family = $1 AND expires_at > clock_timestamp()"#,
            family.as_str(),
        );
        checks.push(role(RoleName::of(family), alive.fetch_one(pool).await?));
    }
    // A relay listens for events of this database on a session of its own, and asks nothing else there.
    let relays = sqlx::query_scalar!(
        r#"SELECT count(*) AS "relays!" FROM pg_stat_activity
           WHERE datname = current_database() AND query LIKE 'LISTEN "outbox"%'"#
    );
    checks.push(role(RoleName::RelayOutbox, relays.fetch_one(pool).await?));
    for consumer in [RoleName::UpdateSalesStats, RoleName::SendToDataPlatform] {
        checks.push(match queues.of_role(consumer, namespace) {
            Ok(depth) => role(consumer, depth.consumers.into()),
            Err(hint) => Check::failed(consumer.as_str(), hint),
        });
    }
    let (events, age) = backlog::outbox(pool).await?;
    checks.push(if events == 0 {
        Check::ok("outbox", "no event waits")
    } else if age < STALLED_SECONDS {
        Check::ok("outbox", format!("{events} events wait, the oldest for {age:.0} s"))
    } else {
        let hint = "see what ails relay-outbox";
        Check::failed("outbox", format!("{events} events wait, the oldest for {age:.0} s: {hint}"))
    });
    Ok(checks)
}

fn role(role: RoleName, processes: i64) -> Check {
    let name = role.as_str();
    match (processes, role) {
        (1.., _) => Check::ok(name, format!("{processes} alive")),
        // Its events wait; without a platform nobody needs it.
        (_, RoleName::SendToDataPlatform) => Check::warning(
            name,
            format!("nobody has the role: its events wait, `firstcome-worker {name}`"),
        ),
        _ => Check::failed(name, format!("nobody has the role: start `firstcome-worker {name}`")),
    }
}
