//! The consumers of the events: the sales statistics and the data platform's stand-in.

use std::{net::SocketAddr, time::Duration};

use anyhow::ensure;
use chrono::{DateTime, Utc};
use firstcome_rig::{
    figures::count,
    http::{Client, call},
};
use firstcome_workers::commands::mock_data_platform::{Delivered, Received, Report as Figures};
use http::{Method, StatusCode, Uri};
use serde::de::DeserializeOwned;
use sqlx::PgPool;

use crate::{
    stored,
    watch::{Progress, Watch},
};

/// How long the data platform's stand-in may take to list what it got.
const LIST_DEADLINE: Duration = Duration::from_secs(15);

/// How long the consumers of the events took after the last outcome.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CaughtUp {
    pub(crate) statistics: Duration,
    pub(crate) data_platform: Duration,
    /// In how many requests it got the events, those of the acts before included.
    pub(crate) requests: u64,
}

/// Waits until the statistics have counted and the data platform has got so many events in all, or nothing moves any
/// more.
pub(crate) async fn catch_up(
    events: usize,
    last_settled: Option<DateTime<Utc>>,
    data_platform: SocketAddr,
    watch: &mut Watch<'_>,
    pool: &PgPool,
) -> CaughtUp {
    let since = |at: DateTime<Utc>| {
        last_settled.and_then(|settled| (at - settled).to_std().ok()).unwrap_or_default()
    };
    let mut caught_up = CaughtUp::default();
    let mut platform_at = None;
    watch
        .until_done(async || {
            // What cannot be asked just now has not moved.
            let (counted, counted_at) = stored::counted(pool).await.unwrap_or_default();
            let counted = usize::try_from(counted).unwrap_or_default();
            let got: Figures =
                ask(data_platform, Uri::from_static("/figures")).await.unwrap_or_default();
            if got.distinct >= events {
                platform_at.get_or_insert_with(Utc::now);
            }
            caught_up = CaughtUp {
                statistics: counted_at.map(since).unwrap_or_default(),
                data_platform: platform_at.map(since).unwrap_or_default(),
                requests: got.requests,
            };
            Progress {
                status: format!(
                    "waiting for the consumers of {} events: the statistics have {}, the data platform has {}",
                    count(events),
                    count(counted),
                    count(got.distinct)
                ),
                figures: [counted, got.distinct, 0],
                done: counted >= events && got.distinct >= events,
            }
        })
        .await;
    caught_up
}

/// Every event that the data platform got so far.
///
/// # Errors
/// If it does not list them.
pub(crate) async fn received(data_platform: SocketAddr) -> anyhow::Result<Vec<Received>> {
    let delivered: Delivered = ask(data_platform, Uri::from_static("/events")).await?;
    Ok(delivered.items)
}

async fn ask<T: DeserializeOwned>(address: SocketAddr, path: Uri) -> anyhow::Result<T> {
    let mut client = Client::new(address, LIST_DEADLINE);
    let answer = client.send(call(Method::GET, path, None)).await?;
    ensure!(answer.status == StatusCode::OK, "the data platform answered {}", answer.status);
    Ok(serde_json::from_slice(&answer.body)?)
}
