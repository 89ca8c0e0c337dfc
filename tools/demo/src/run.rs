//! `firstcome-demo run`: the system in the foreground, for development.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use firstcome_process::shutdown;
use firstcome_rig::{
    screen::Screen,
    settings::Settings,
    system::{SMALL, System},
};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::args::RunArgs;

/// How often the programs are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The customer of the token that is printed.
const CUSTOMER: i64 = 7;
/// The administrator of the token that is printed.
const ADMIN: i64 = 1;

/// Runs the system until SIGTERM, Ctrl-C or the end of one of its programs.
///
/// # Errors
/// With a hint, and the end of the log of what failed.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone()).context("cannot listen for signals")?;
    let settings = args.servers.settings("make run", args.queue_namespace, args.api_addr, "")?;
    // Before anything is started; the API itself would only say it in its log.
    if let Err(error) = TcpListener::bind(args.api_addr).await {
        bail!(
            "cannot listen on {} ({error}); set API_ADDR to another one, e.g. API_ADDR=127.0.0.1:8081",
            args.api_addr
        );
    }

    let mut screen = Screen::default();
    let mut system = None;
    let ended = stop
        .run_until_cancelled(serve(&settings, i64::from(args.users), &mut system, &mut screen))
        .await;
    if let Some(Err(error)) = &ended {
        screen.line(format_args!("{error:#}"));
    }
    let troubles = match system {
        Some(system) => screen.during("stopping", system.stop()).await,
        None => Vec::new(),
    };
    for trouble in &troubles {
        screen.line(trouble);
    }
    let fine = ended.is_none() && troubles.is_empty();
    screen.line(if fine { "stopped" } else { "stopped after a failure" });
    Ok(ExitCode::from(u8::from(!fine)))
}

/// Ends only with an error.
async fn serve(
    settings: &Settings,
    users: i64,
    system: &mut Option<System>,
    screen: &mut Screen,
) -> anyhow::Result<std::convert::Infallible> {
    screen.during("migrating, creating sample data", System::prepare(settings, users)).await?;
    let system = system.insert(System::start(settings.clone(), &SMALL)?);
    screen.during("starting", system.ready()).await?;

    let api = format!("http://{}", settings.api_for_clients());
    screen.line(format_args!("running: {}", system.processes()));
    screen.line(format_args!(
        "logs:    {}, {}",
        settings.log("api").display(),
        settings.log("worker").display()
    ));
    screen.line(format_args!("\nPaste this into another shell (user {CUSTOMER} is a customer, user {ADMIN} the administrator):\n"));
    screen.line(format_args!("export API={api}"));
    screen.line(format_args!("export CUSTOMER_TOKEN={}", settings.token(CUSTOMER, false)?));
    screen.line(format_args!("export ADMIN_TOKEN={}", settings.token(ADMIN, true)?));
    screen.line("\nThen try:\n");
    screen.line(
        "curl -i -X POST -H \"Authorization: Bearer $CUSTOMER_TOKEN\" $API/api/coupons/1/issue",
    );
    screen.line("curl -i -H \"Authorization: Bearer $CUSTOMER_TOKEN\" $API/api/users/coupons");
    screen.line("\nCtrl-C stops everything.");
    loop {
        if let Some((_, how)) = system.ended().into_iter().next() {
            bail!(how);
        }
        sleep(LOOK_EVERY).await;
    }
}
