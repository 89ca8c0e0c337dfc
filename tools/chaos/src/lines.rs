//! The lines, as someone with access to the broker sees them.

use std::time::Duration;

use firstcome_broker::{
    BrokerArgs, connect,
    consume::Consumer,
    publish::{Address, ConfirmedPublisher, MessageType},
};
use firstcome_rig::stage;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::world::{PROGRAMS, World};

/// How long nobody serves the lines, so that there is something in them.
const GATHER: Duration = Duration::from_millis(1_500);
/// How long a line is waited for in which there may be nothing.
const LOOK: Duration = Duration::from_millis(300);
/// The most messages of a line that are put into it once more.
const REPLAYED: u16 = 50;
/// How often it is looked whether all queues are up that the broker has found when it was started.
const LOOKS_FOR_QUEUES: u8 = 5;

/// The queue of the line with the most messages, if one has any.
pub(crate) async fn longest(world: &World) -> anyhow::Result<Option<String>> {
    let list = ["rabbitmqctl", "-q", "list_queues", "--no-table-headers", "messages", "name"];
    let listed = world.services.call(&list).await?;
    let queues = queues(world).await?;
    let depth = |line: &str| {
        let (messages, queue) = line.split_once('\t')?;
        let messages: u64 = messages.parse().ok()?;
        (messages > 0 && queues.iter().any(|ours| ours == queue))
            .then(|| (messages, queue.to_owned()))
    };
    Ok(listed.lines().filter_map(depth).max().map(|(_, queue)| queue))
}

/// The queues that the broker does not have up.
pub(crate) async fn are_down(world: &World) -> anyhow::Result<Vec<String>> {
    let list = ["rabbitmqctl", "-q", "list_queues", "--no-table-headers", "name", "state"];
    let listed = world.services.call(&list).await?;
    let is_down = |line: &str| Some(line.strip_suffix("\tdown")?.to_owned());
    Ok(listed.lines().filter_map(is_down).collect())
}

/// Deletes queues that the broker has not brought up again, as an operator has to when their logs are corrupt.
pub(crate) async fn give_up_lost(world: &World) -> anyhow::Result<()> {
    let mut lost = Vec::new();
    for _ in 0..LOOKS_FOR_QUEUES {
        lost = are_down(world).await?;
        if lost.is_empty() {
            break;
        }
        sleep(LOOK).await;
    }
    for queue in lost {
        world.services.call(&["rabbitmqctl", "-q", "delete_queue", &queue]).await?;
        world.note_given_up(queue);
    }
    Ok(())
}

/// Puts copies of messages into their lines, behind all others, as a publisher would that was told nothing.
pub(crate) async fn replay(world: &World) -> anyhow::Result<()> {
    let queues = queues(world).await?;
    // Held, so that nobody starts them again meanwhile.
    let programs = world.programs.lock().await;
    for program in
        PROGRAMS.iter().filter(|program| ["coupons", "products"].contains(&program.argument))
    {
        programs.signal(program.name, "KILL").await?;
    }
    sleep(GATHER).await;
    let broker = BrokerArgs::new(&world.amqp_url, &world.settings.namespace);
    let connection = connect::connect(&broker, "chaos").await?;
    let mut publisher = ConfirmedPublisher::open(&connection).await?;
    for queue in &queues {
        let mut consumer = Consumer::open(&connection, queue, REPLAYED).await?;
        let mut copies = Vec::new();
        let stop = CancellationToken::new();
        let taking = consumer.next_batch(&stop, |message| {
            copies.extend((message.kind == Some(MessageType::Jobs)).then_some(message.body));
            false
        });
        let _ = timeout(LOOK, taking).await;
        // None was acknowledged: all go back.
        consumer.close().await?;
        for copy in copies {
            publisher.publish(Address::Queue(queue), MessageType::Jobs, copy, ());
        }
    }
    while publisher.in_flight() > 0 {
        publisher.verdicts().await;
    }
    connect::close(&connection).await;
    drop(programs);
    Ok(())
}

/// Gives each family another number of partitions.
pub(crate) async fn deal_anew(world: &World) -> anyhow::Result<()> {
    let deal = "UPDATE routing SET partitions = CASE WHEN partitions > 2 THEN partitions - 1 ELSE partitions + 1 END";
    sqlx::query(deal).execute(&world.pool).await?;
    Ok(())
}

async fn queues(world: &World) -> anyhow::Result<Vec<String>> {
    let lines = stage::lines(&world.pool).await?;
    Ok(lines.into_iter().map(|line| line.queue(&world.settings.namespace)).collect())
}
