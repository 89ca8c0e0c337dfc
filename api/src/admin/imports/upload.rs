//! An import from its first byte to its last.

use std::{mem, time::Duration};

use axum::{body::BodyDataStream, extract::Request, response::Response};
use firstcome_contract::ids::UserId;
use firstcome_process::request_id;
use futures_util::StreamExt;
use serde::Serialize;
use tokio::{
    task::{JoinError, JoinHandle},
    time::timeout,
};

use super::{
    Report, Verdict,
    reader::{Entry, Format, Reader},
    settle::{Row, settle},
};
use crate::{
    admin::audit_log::{self, Change},
    http::{
        json,
        problem::{Code, Problem},
    },
    state::AppState,
};

/// How many rows are stored at a time. It is for so long that sales of the same products wait.
const BATCH: usize = 1_000;
/// How long a client may send nothing.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the rest is taken of what is wrong from its beginning: many clients read an answer only when they have sent all.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(30);
/// When somebody may try who came while there were as many imports as there may be, in seconds.
const RETRY_SECONDS: u64 = 10;

/// Imports the rows of a request's body, for this operator.
///
/// # Errors
/// 400, 408, 415, 503; what was committed by then stays.
pub(super) async fn import<R: Row>(
    state: AppState,
    by: UserId,
    action: &'static str,
    request: Request,
) -> Result<Response, Problem> {
    let format = Format::of(request.headers())?;
    let permit = state
        .imports
        .try_acquire()
        .map_err(|_| Problem::new(Code::TooManyImports).retry_after(RETRY_SECONDS))?;
    let mut chunks = request.into_body().into_data_stream();
    let mut reader = Reader::<R>::new(format);
    let mut storing = Storing::new(&state, by, action);
    let mut batch = Vec::with_capacity(BATCH);
    let mut is_over = false;
    while !is_over {
        let chunk = timeout(SILENCE_TIMEOUT, chunks.next()).await;
        match chunk.map_err(|_| Problem::new(Code::BodyTimeout))? {
            Some(Ok(chunk)) => reader.push(&chunk),
            Some(Err(_)) => {
                let detail = "The body broke off; what was committed by then stays.";
                return Err(Problem::with_detail(Code::MalformedBody, detail));
            }
            None => {
                reader.end();
                is_over = true;
            }
        }
        loop {
            let entry = match reader.next_row() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(problem) => {
                    drop(permit);
                    discard(chunks).await;
                    return Err(problem);
                }
            };
            batch.push(entry);
            if batch.len() == BATCH {
                storing.begin(mem::replace(&mut batch, Vec::with_capacity(BATCH))).await?;
            }
        }
    }
    reader.finish()?;
    storing.begin(batch).await?;
    let report = storing.end().await?;
    let Report { created, updated, unchanged, faulty, .. } = report;
    tracing::info!(
        table = R::TABLE.name(),
        created,
        updated,
        unchanged,
        faulty,
        "an import is done"
    );
    Ok(json::ok(&report))
}

async fn discard(mut chunks: BodyDataStream) {
    let discarding = async { while let Some(Ok(_)) = chunks.next().await {} };
    // The answer is sent all the same.
    let _ = timeout(DISCARD_TIMEOUT, discarding).await;
}

/// What becomes of each line, in their order.
type Verdicts = Vec<(u64, Verdict)>;

/// What the audit log tells of an import.
#[derive(Serialize)]
struct Counts {
    created: u64,
    updated: u64,
    unchanged: u64,
    faulty: u64,
    /// Whether its body came to its end.
    complete: bool,
}

impl Counts {
    fn of(report: &Report, complete: bool) -> Self {
        let Report { created, updated, unchanged, faulty, .. } = *report;
        Self { created, updated, unchanged, faulty, complete }
    }
}

type UnderWay = JoinHandle<Result<Verdicts, sqlx::Error>>;

/// Stores one batch while the next one is read. The audit log has its row before the first one, and its counts at the end,
/// also where the client has gone.
struct Storing<'a> {
    state: &'a AppState,
    by: UserId,
    action: &'static str,
    report: Report,
    under_way: Option<UnderWay>,
    /// The row in the audit log, until it has its counts.
    noted: Option<i64>,
}

impl<'a> Storing<'a> {
    fn new(state: &'a AppState, by: UserId, action: &'static str) -> Self {
        Self { state, by, action, report: Report::default(), under_way: None, noted: None }
    }

    /// Begins with a batch when the one before is stored. A task of its own: what it committed is announced even if the
    /// client has gone.
    async fn begin<R: Row>(&mut self, batch: Vec<Entry<R>>) -> Result<(), Problem> {
        self.wait().await?;
        if self.noted.is_none() {
            let target = format!("imports/{}", R::TABLE.name());
            let mut connection = self.state.pool.acquire().await?;
            let change = Change::new(self.by, self.action, target);
            self.noted = Some(change.note(&mut connection).await?);
        }
        self.under_way = Some(tokio::spawn(request_id::carried(store(self.state.clone(), batch))));
        Ok(())
    }

    async fn end(mut self) -> Result<Report, Problem> {
        self.wait().await?;
        if let Some(noted) = self.noted {
            let mut connection = self.state.pool.acquire().await?;
            let counts = Counts::of(&self.report, true);
            audit_log::note_end(&mut connection, noted, &counts).await?;
            self.noted = None;
        }
        Ok(mem::take(&mut self.report))
    }

    async fn wait(&mut self) -> Result<(), Problem> {
        let Some(under_way) = self.under_way.take() else { return Ok(()) };
        let broken = |error: JoinError| {
            tracing::error!(%error, "a batch of an import broke off");
            Problem::new(Code::InternalError)
        };
        for (line, verdict) in under_way.await.map_err(broken)?? {
            self.report.count(line, verdict);
        }
        Ok(())
    }
}

impl Drop for Storing<'_> {
    fn drop(&mut self) {
        let Some(noted) = self.noted else { return };
        let (state, report) = (self.state.clone(), mem::take(&mut self.report));
        let noting = note_broken_off(state, noted, report, self.under_way.take());
        tokio::spawn(request_id::carried(noting));
    }
}

/// Notes what was stored of an import that did not come to its end.
async fn note_broken_off(
    state: AppState,
    noted: i64,
    mut report: Report,
    under_way: Option<UnderWay>,
) {
    if let Some(under_way) = under_way
        && let Ok(Ok(verdicts)) = under_way.await
    {
        verdicts.into_iter().for_each(|(line, verdict)| report.count(line, verdict));
    }
    let noting = async {
        let mut connection = state.pool.acquire().await?;
        audit_log::note_end(&mut connection, noted, &Counts::of(&report, false)).await
    };
    if let Err(error) = noting.await {
        tracing::error!(%error, id = noted, "the audit log does not tell the counts of an import");
    }
}

/// Stores the rows of a batch that can be read.
async fn store<R: Row>(state: AppState, batch: Vec<Entry<R>>) -> Result<Verdicts, sqlx::Error> {
    let mut rows = Vec::with_capacity(batch.len());
    let mut lines = Vec::with_capacity(batch.len());
    for (line, row) in batch {
        lines.push((line, row.map(|row| rows.push(row)).map_err(Verdict::Faulty).err()));
    }
    let mut verdicts = settle(&state, &rows).await?.into_iter();
    let told = lines.into_iter().filter_map(|(line, faulty)| {
        let verdict = faulty.or_else(|| verdicts.next())?;
        Some((line, verdict))
    });
    Ok(told.collect())
}
