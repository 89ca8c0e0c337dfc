//! Users who are imported with the names by which the issuer of their tokens knows them.

use std::fmt::Write;

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::json;

use firstcome_tests::{Answer, Api, Options, shop};

use crate::imports::{CSV, NDJSON, counts, import, reason};

/// A token of somebody whom the issuer calls by a name, as development mode believes it.
fn named(subject: &str) -> String {
    let secret = jsonwebtoken::EncodingKey::from_secret(b"firstcome-development-only");
    let email = format!("{}@example.com", subject.replace('|', "-"));
    let claims = json!({"sub": subject, "name": subject, "email": email, "email_verified": true});
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &secret).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_imported_with_a_subject_is_known_by_it() {
    shop(Options { users: 3, ..Options::default() }, async |shop| {
        let api = shop.start_api(|config| config.secrets.jwt_subjects = "map".to_owned()).await;
        let mapping = format!("{}/api/admin/imports/users", api.url);
        let import_at = async |body: &str| {
            let request = shop.admin(Method::POST, &mapping).header("Content-Type", CSV);
            Answer::of(request.body(body.to_owned())).await
        };
        let is = async |subject: &str, user: i64| {
            let url = format!("{}/api/balance/{user}", api.url);
            Answer::of(shop.anonymous(Method::GET, &url).bearer_auth(named(subject))).await.status
                == 200
        };
        let table = format!(
            "id,name,email,subject\n\
             11,Ann,ann@example.com,auth0|ann\n\
             12,Bo,bo@example.com,\n\
             ,User 2,USER2@example.com,\"auth0|two, \"\"2\"\"\"\n\
             13,Cid,cid@example.com,auth0|ann\n\
             11,Ann,ann@example.com,auth0|anna\n\
             14,Dan,dan@example.com,14\n\
             15,Eve,eve@example.com,{}\n\
             16,Fay,fay@example.com,07\n",
            "é".repeat(128)
        );
        let answer = import_at(&table).await;
        assert_eq!(counts(&answer), ([3, 1, 0, 4], vec![5, 6, 7, 8]));
        for (error, expected) in [
            "subject: is another user's",
            "subject: the user has another one",
            "subject: must not be a number: a token with that means the user with the id",
            "subject: must not be longer than 255 bytes",
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(reason(&answer, error), expected);
        }
        assert!(is("auth0|ann", 11).await && is("auth0|two, \"2\"", 2).await && is("07", 16).await);
        assert!(!is("auth0|anna", 11).await && !is("auth0|bo", 12).await);
        // Later, to one that is there; and the same once more.
        let table =
            "name,email,subject\nBo,bo@example.com,auth0|bo\nAnn,ann@example.com,auth0|ann\n";
        assert_eq!(counts(&import_at(table).await).0, [0, 1, 1, 0]);
        assert_eq!(counts(&import_at(table).await).0, [0, 0, 2, 0]);
        assert_eq!(
            counts(&import_at("id,name,email\n11,Ann,ann@example.com\n").await).0,
            [0, 0, 1, 0]
        );
        assert!(is("auth0|bo", 12).await && is("auth0|ann", 11).await);
        api.stop().await;

        // Where subjects are ids, nobody would be known by one.
        let answer = import(
            shop,
            "users",
            NDJSON,
            r#"{"id": 1, "name": "A", "email": "a@x", "subject": "s"}"#,
        )
        .await;
        assert_eq!(counts(&answer).0, [0, 0, 0, 1]);
        assert_eq!(
            reason(&answer, 0),
            "subject: tokens call users by their ids here (JWT_SUBJECTS)"
        );
    })
    .await;
}

/// People come while they are imported: each is one user, whoever made it.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_during_the_import_is_one_user() {
    const USERS: usize = 300;
    // The operator, whose name is a number, is there before somebody else gets it.
    shop(Options { users: 1, ..Options::default() }, async |shop| {
        let api = shop
            .start_api(|config| {
                config.secrets.jwt_subjects = "map".to_owned();
                config.secrets.jwt_create_users = true;
            })
            .await;
        let come = async |api: &Api, n: usize| {
            let url = format!("{}/api/users/cart", api.url);
            let subject = format!("auth0|{n}");
            Answer::of(shop.anonymous(Method::GET, &url).bearer_auth(named(&subject))).await.status
        };
        let mut table = "name,email,subject\n".to_owned();
        for n in 0..USERS {
            writeln!(table, "User,auth0-{n}@example.com,auth0|{n}").unwrap();
        }
        let request = shop.admin(Method::POST, &format!("{}/api/admin/imports/users", api.url));
        let importing = Answer::of(request.header("Content-Type", CSV).body(table));
        let coming =
            stream::iter(0..USERS).map(|n| come(&api, n)).buffer_unordered(8).collect::<Vec<_>>();
        let (imported, came) = tokio::join!(importing, coming);
        assert_eq!(counts(&imported).0[3], 0, "{imported:?}");
        assert!(came.iter().all(|status| *status == 200), "{came:?}");
        let users: (i64, i64) =
            sqlx::query_as("SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM subjects)")
                .fetch_one(&shop.pool)
                .await
                .unwrap();
        // And the operator, who has no subject.
        assert_eq!(users, (301, 300));
        api.stop().await;
    })
    .await;
}
