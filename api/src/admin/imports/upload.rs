//! An import from its first byte to its last.

use std::{mem, time::Duration};

use axum::{body::BodyDataStream, extract::Request, response::Response};
use futures_util::StreamExt;
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

/// Imports the rows of a request's body.
///
/// # Errors
/// 400, 408, 415, 503; what was committed by then stays.
pub(super) async fn import<R: Row>(state: AppState, request: Request) -> Result<Response, Problem> {
    let format = Format::of(request.headers())?;
    let permit = state
        .imports
        .try_acquire()
        .map_err(|_| Problem::new(Code::TooManyImports).retry_after(RETRY_SECONDS))?;
    let mut chunks = request.into_body().into_data_stream();
    let mut reader = Reader::<R>::new(format);
    let mut storing = Storing::new(&state);
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
            let entry = match reader.next() {
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

/// Stores one batch while the next one is read.
struct Storing<'a> {
    state: &'a AppState,
    report: Report,
    under_way: Option<JoinHandle<Result<Verdicts, sqlx::Error>>>,
}

impl<'a> Storing<'a> {
    fn new(state: &'a AppState) -> Self {
        Self { state, report: Report::default(), under_way: None }
    }

    /// Begins with a batch when the one before is stored. A task of its own: what it committed is announced even if the
    /// client has gone.
    async fn begin<R: Row>(&mut self, batch: Vec<Entry<R>>) -> Result<(), Problem> {
        self.wait().await?;
        self.under_way = Some(tokio::spawn(store(self.state.clone(), batch)));
        Ok(())
    }

    async fn end(mut self) -> Result<Report, Problem> {
        self.wait().await?;
        Ok(self.report)
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
