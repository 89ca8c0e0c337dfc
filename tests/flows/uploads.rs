//! Imports as they arrive: slow, broken off, refused, and stored by a database that goes away.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use firstcome_tests::{Answer, DEADLINE, Options, eventually, shop, token};

use crate::imports::{CSV, counts, import};

/// An import whose body comes in parts.
pub(crate) struct Slow(TcpStream);

impl Slow {
    pub(crate) async fn begin(url: &str) -> Self {
        Self::begin_as(url, &token(1, true)).await
    }

    async fn begin_as(url: &str, token: &str) -> Self {
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        let head = format!(
            "POST /api/admin/imports/users HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    pub(crate) async fn send(&mut self, part: &str) {
        self.0.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await.unwrap();
    }

    async fn answer(&mut self) -> String {
        let (mut answer, mut bytes) = (String::new(), [0; 4_096]);
        while !answer.ends_with('}') {
            let read = timeout(DEADLINE, self.0.read(&mut bytes)).await.unwrap().unwrap();
            assert!(read > 0, "{answer}");
            answer.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_stays_when_the_rest_does_not_come() {
    shop(Options { users: 0, ..Options::default() }, async |shop| {
        let rows = |ids: std::ops::Range<i64>| -> String {
            ids.map(|id| format!("{id},Name {id},{id}@example.com\n")).collect()
        };
        let users = async || -> i64 {
            sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&shop.pool).await.unwrap()
        };
        // At an API of its own: its place here is not free at once.
        let other = shop.start_api(|_| {}).await;
        let mut gone = Slow::begin(&other.url).await;
        gone.send("id,name,email\n").await;
        gone.send(&rows(1..1_501)).await;
        eventually("a batch is stored", async || users().await == 1_000).await;
        drop(gone);
        // Two may stay for as long as they send something; a third one is told to come again.
        let mut first = Slow::begin(&shop.api.url).await;
        let mut second = Slow::begin(&shop.api.url).await;
        for (slow, ids) in [(&mut first, 2_001..3_001), (&mut second, 3_001..4_001)] {
            slow.send("id,name,email\n").await;
            slow.send(&rows(ids)).await;
        }
        eventually("both are under way", async || users().await == 3_000).await;
        let third = import(shop, "users", CSV, "name,email\n").await;
        third.is_problem(503, "too-many-imports");
        assert!(third.retry_after() >= 1, "{third:?}");
        // The database is left to the others meanwhile.
        assert_eq!(Answer::of(shop.get(1, "/api/users/cart")).await.status, 200);
        first.send(&rows(1..1_501)).await;
        first.0.write_all(b"0\r\n\r\n").await.unwrap();
        let answer = first.answer().await;
        assert!(answer.contains(r#""created":1500,"updated":0,"unchanged":1000,"#), "{answer}");
        // Who sends nothing any more is cut off, and its place is free.
        let answer = second.answer().await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body-timeout"), "{answer}");
        assert_eq!(import(shop, "users", CSV, "name,email\n").await.status, 200);
        assert_eq!(users().await, 3_500);
        other.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_import_is_told_before_anything_is_sent() {
    shop(Options::default(), async |shop| {
        for (token, status) in [(token(7, false).as_str(), 403), ("none.of.ours", 401)] {
            let mut slow = Slow::begin_as(&shop.api.url, token).await;
            let answer = slow.answer().await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
        // Who sends much can read what is wrong with its first line.
        let mut body = b"id,name,email,colour\n".to_vec();
        body.resize(20_000_000, b'x');
        import(shop, "users", CSV, body).await.is_problem(400, "validation-failed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_any_length_is_one_fault() {
    shop(Options { users: 0, ..Options::default() }, async |shop| {
        for quote in ["", "\""] {
            let mut body = format!("id,name,email\n1,{quote}").into_bytes();
            body.resize(10_000_000, b'x');
            body.extend(b",1@example.com\n2,Two,2@example.com\n");
            let (counted, lines) = counts(&import(shop, "users", CSV, body).await);
            assert_eq!((counted[0] + counted[2], counted[3], lines), (1, 1, vec![2]));
        }
    })
    .await;
}

/// Products without ids, the commit of whose batch is held up until the connection has gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_commit_was_not_answered_is_stored_once() {
    shop(Options::default(), async |shop| {
        shop.sql(
            "CREATE FUNCTION hold_commit() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock(77); RETURN NULL; END'",
        )
        .await;
        shop.sql(
            "CREATE CONSTRAINT TRIGGER hold_commit AFTER INSERT ON products DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION hold_commit()",
        )
        .await;
        let mut holding = shop.pool.begin().await.unwrap();
        sqlx::query("SELECT pg_advisory_xact_lock(77)").execute(&mut *holding).await.unwrap();
        let rows = "name,price,stock\nA,1,1\nB,2,2\n";
        let (answer, ()) = tokio::join!(import(shop, "products", CSV, rows), async {
            eventually("the commit waits", async || {
                let waiting: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND query = 'COMMIT' AND wait_event_type = 'Lock'",
                )
                .fetch_one(&shop.pool)
                .await
                .unwrap();
                waiting == 1
            })
            .await;
            shop.database.proxy.cut();
            eventually("the API has lost the database", async || {
                Answer::of(shop.get(7, "/api/users/cart")).await.status == 503
            })
            .await;
            shop.database.proxy.restore();
            holding.commit().await.unwrap();
        });
        assert_eq!(counts(&answer), ([2, 0, 0, 0], vec![]));
        let products: i64 = sqlx::query_scalar("SELECT count(*) FROM products WHERE name IN ('A', 'B')")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(products, 2);
    })
    .await;
}
