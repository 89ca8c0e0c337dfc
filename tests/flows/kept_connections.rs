//! A connection that is kept for its next use is nobody else's loss.

use firstcome_process::database::{Kept, Pool, PooledConnection};
use sqlx::postgres::PgPoolOptions;

use firstcome_tests::{Options, Shop, shop};

fn pool(shop: &Shop, connections: u32) -> Pool {
    let options = shop.pool.connect_options().as_ref().clone();
    PgPoolOptions::new().max_connections(connections).connect_lazy_with(options).into()
}

async fn backend(connection: &mut PooledConnection) -> i32 {
    let pid = sqlx::query_scalar("SELECT pg_backend_pid()");
    pid.fetch_one(&mut **connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_is_the_next_one_unless_others_need_it() {
    shop(Options::default(), async |shop| {
        let pool = pool(shop, 2);
        let mut kept = Kept::of(&pool);
        let mut connection = kept.acquire().await.unwrap();
        let first = backend(&mut connection).await;
        kept.keep(connection);
        let mut again = kept.acquire().await.unwrap();
        assert_eq!(backend(&mut again).await, first, "taken up again at once");

        again.discard();
        kept.keep(again);
        let mut another = kept.acquire().await.unwrap();
        assert_ne!(backend(&mut another).await, first, "what is of no more use is not kept");

        let other = pool.acquire().await.unwrap();
        kept.keep(another);
        let freed = pool.acquire().await;
        assert!(freed.is_ok(), "all are taken, so it goes to whoever waits: {freed:?}");
        drop((other, freed));

        // Of another pool, to which nothing is on its way back.
        let pool = self::pool(shop, 2);
        let mut kept = Kept::of(&pool);
        let connection = kept.acquire().await.unwrap();
        kept.keep(connection);
        assert_eq!(pool.usage().used, 1);
        kept.give_back();
        let all = (pool.acquire().await, pool.acquire().await);
        assert!(all.0.is_ok() && all.1.is_ok(), "given back: {all:?}");
    })
    .await;
}
