//! Everything that the campaign needs, from the database to the report; gone when it is over.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use firstcome_check::{History, Stored};
use firstcome_process::shutdown;
use firstcome_rig::{
    Proxy,
    screen::Screen,
    settings::Settings,
    stage::Stage,
    system::{System, free_port},
};
use firstcome_workers::commands::{audit, mock_data_platform::MockDataPlatform};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    args::Args,
    campaign::{self, CYCLES_PER_DROP, Cycle},
    clients,
    notes::Notes,
    operator,
    report::Report,
    sale::{Sale, USERS},
    soak,
    world::{Links, PROGRAMS, Services, World},
};

/// What everybody asked for and was told.
const HISTORY: &str = "history.jsonl";
/// Clients, each with a connection of its own.
const CLIENTS: u32 = 12;
const POLLERS: u64 = 6;
/// How long everything may take to come to rest at the end.
const REST_DEADLINE: Duration = Duration::from_secs(90);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Sets the stage, holds the campaign, checks, reports; leaves nothing behind but the report.
///
/// # Errors
/// It cannot be held.
pub(crate) async fn hold(args: Args) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone()).context("cannot listen for signals")?;
    let services = Services::own().await?;
    let mut screen = Screen::default();
    let direct =
        args.servers.clone().settings("make chaos", String::new(), free_port().await?, "chaos-")?;
    let mut stage = Stage::new("chaos", &direct.database_url, &direct.amqp_url)?;
    screen.during("creating a database", stage.set()).await?;
    let holding = campaign_on(&args, services, direct, &stage, &mut screen);
    let held = stop.run_until_cancelled(holding).await;
    let left = screen.during("dropping the database and the queues", stage.clear()).await;
    for what in left {
        screen.line(format_args!("could not delete {what}"));
    }
    let report = held.context("interrupted")??;
    report.write(&args.out)?;
    screen.lines(report.lines());
    screen.line(format_args!("report: {}", args.out.display()));
    Ok(ExitCode::from(u8::from(!report.is_clean())))
}

async fn campaign_on(
    args: &Args,
    services: Services,
    direct: Settings,
    stage: &Stage,
    screen: &mut Screen,
) -> anyhow::Result<Report> {
    let platform = MockDataPlatform::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let links = Links {
        database: Proxy::start(services.address("postgres")?).await?,
        broker: Proxy::start(services.address("rabbitmq")?).await?,
        redis: Proxy::start(services.address("redis")?).await?,
        platform: Proxy::start(listener.local_addr()?.to_string()).await?,
    };
    let through = |url: &str, port: &str, link: &Proxy| -> anyhow::Result<String> {
        Ok(url.replace(&services.address(port)?, &link.address().to_string()))
    };
    let settings = Settings {
        database_url: through(&stage.database_url, "postgres", &links.database)?,
        amqp_url: through(&direct.amqp_url, "rabbitmq", &links.broker)?,
        redis_url: through(&direct.redis_url, "redis", &links.redis)?,
        namespace: stage.namespace.clone(),
        data_platform: Some(links.platform.address()),
        ..direct.clone()
    };
    let pool = stage.pool()?;
    screen.during("migrating, creating users", System::prepare(&settings, USERS)).await?;
    let mut system = System::start(settings.clone(), &PROGRAMS)?;
    screen.during("starting", system.ready()).await?;

    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot create {}", args.out.display()))?;
    let log = Notes::create(&args.out.join(HISTORY))?;
    let of_soak =
        args.soak_minutes().map(|minutes| usize::try_from(minutes).unwrap_or(usize::MAX / 2));
    let campaigns = of_soak.unwrap_or(args.cycles / CYCLES_PER_DROP) + 3;
    let sale = Arc::new(Sale::prepare(&settings, log, campaigns).await?);
    let opening = Stored::read(&pool).await?;
    let stopping = CancellationToken::new();
    let mut receiving = JoinSet::new();
    receiving.spawn(platform.clone().serve(listener, stopping.clone()));
    let world = Arc::new(World::new(
        settings,
        services,
        links,
        platform,
        system,
        pool,
        (&stage.database_url, &direct.amqp_url),
    ));

    let begun = Instant::now();
    let Course { cycles, looks } = with_customers(args, &world, &sale, screen).await?;
    screen.during("coming to rest", rest(&world)).await;
    let pool = world.pool.clone();
    let stored = Stored::read(&pool).await?;
    let delivered: Vec<Uuid> = world.platform.received().into_keys().collect();
    let findings = audit::audit(&pool).await?;
    sale.log.flush()?;
    let history = History::read(&args.out.join(HISTORY))?;
    let found = firstcome_check::check(&history, &opening, &stored, &delivered);
    let unsettled = sale.open().len();
    stopping.cancel();
    let world = Arc::try_unwrap(world).ok().context("something still uses the programs")?;
    let troubles = world.end().await;
    ensure!(!cycles.is_empty() || !looks.is_empty(), "no fault has struck");
    Ok(Report {
        seed: args.seed,
        took: begun.elapsed(),
        requests: sale.requests(),
        cycles,
        looks,
        found,
        books: findings,
        unsettled,
        troubles,
    })
}

/// What happened during the sale.
#[derive(Default)]
struct Course {
    cycles: Vec<Cycle>,
    looks: Vec<soak::Look>,
}

/// The faults, or none of them, while customers and an operator do what they do.
async fn with_customers(
    args: &Args,
    world: &Arc<World>,
    sale: &Arc<Sale>,
    screen: &mut Screen,
) -> anyhow::Result<Course> {
    let (stop, polled) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let pause = Duration::from_secs(1).mul_f64(f64::from(CLIENTS) / f64::from(args.rate.max(1)));
    let mut seeds = fastrand::Rng::with_seed(args.seed);
    for _ in 0..CLIENTS {
        let (sale, stop, seed) = (Arc::clone(sale), stop.clone(), seeds.u64(..));
        tasks.spawn(async move { clients::buy(&sale, seed, pause, &stop).await });
    }
    let mut pollers = JoinSet::new();
    for me in 0..POLLERS {
        let (sale, stop) = (Arc::clone(sale), polled.clone());
        pollers.spawn(async move { clients::poll(&sale, me, POLLERS, &stop).await });
    }
    {
        let (sale, world, stop, seed) =
            (Arc::clone(sale), Arc::clone(world), stop.clone(), seeds.u64(..));
        tasks.spawn(async move { operator::operate(&world, &sale, seed, &stop).await });
    }
    let after = |minutes: u64| Instant::now() + Duration::from_secs(60 * minutes);
    let during = async {
        anyhow::Ok(if let Some(minutes) = args.soak_minutes() {
            let looks = soak::watch(world, sale, after(minutes), screen).await?;
            Course { looks, ..Course::default() }
        } else {
            let until = args.minutes.map(after);
            let cycles = campaign::run(world, sale, args, until, screen).await?;
            Course { cycles, ..Course::default() }
        })
    };
    let course = tokio::select! {
        course = during => course,
        ended = world.supervise() => ended.map(|()| Course::default()),
        () = campaign::watch(sale) => Ok(Course::default()),
    };
    // Nothing new; what was accepted is polled until it is known, with a supervisor.
    stop.cancel();
    let calming = async {
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        let give_up = Instant::now() + REST_DEADLINE;
        while !sale.open().is_empty() && Instant::now() < give_up {
            sleep(LOOK_INTERVAL).await;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        calmed = screen.during("settling what was accepted", calming) => calmed?,
        ended = world.supervise() => ended?,
    }
    polled.cancel();
    while pollers.join_next().await.is_some() {}
    course
}

/// Until every event is where it belongs, or nothing moves any more.
async fn rest(world: &World) {
    let give_up = Instant::now() + REST_DEADLINE;
    while Instant::now() < give_up && !world.is_at_rest().await {
        sleep(LOOK_INTERVAL).await;
    }
}
