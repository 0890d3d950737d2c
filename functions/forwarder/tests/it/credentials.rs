//! Requests as a target receives them, with each kind of credentials.

use serde_json::{Value, json};

use crate::{
    target::{Answer, Target},
    world::World,
};

/// Returns the head and the body of a request with these credentials.
async fn request(credentials: Value) -> anyhow::Result<(String, Value)> {
    let target = Target::start(|_, _| Answer::Status(200)).await?;
    let world = World::new().with(&target, json!({ "credentials": credentials }), 1);
    world.finish().await;
    let call = target.calls().remove(0);
    Ok((call.head, serde_json::from_str(&call.body)?))
}

#[tokio::test]
async fn credentials_are_where_the_entry_puts_them() -> anyhow::Result<()> {
    for (credentials, expected) in [
        (json!({ "type": "none" }), "POST /s3cret-path HTTP/1.1\r\n"),
        (json!({ "type": "header", "name": "X-Api-Key", "value": "s3cret value" }), "\r\nx-api-key: s3cret value\r\n"),
        (
            json!({ "type": "basic", "user": "jane@example.com", "password": "s3cret" }),
            "\r\nauthorization: Basic amFuZUBleGFtcGxlLmNvbTpzM2NyZXQ=\r\n",
        ),
        (json!({ "type": "bearer", "token": "s3cret-token" }), "\r\nauthorization: Bearer s3cret-token\r\n"),
        (
            json!({ "type": "query", "name": "api key", "value": "s3cret&more=1" }),
            "POST /s3cret-path?api+key=s3cret%26more%3D1 HTTP/1.1\r\n",
        ),
    ] {
        let (head, _) = request(credentials).await?;
        assert!(head.contains(expected), "{head}");
        assert!(head.contains(concat!("\r\nuser-agent: tableau-fanout/", env!("CARGO_PKG_VERSION"), "\r\n")), "{head}");
        assert_eq!(head.contains("authorization"), expected.contains("authorization"), "{head}");
    }
    Ok(())
}

#[tokio::test]
async fn credentials_in_the_body_are_a_member_of_it() -> anyhow::Result<()> {
    let (_, body) = request(json!({ "type": "body", "member": "routing_key", "value": "s3cret \"quoted\"" })).await?;
    assert_eq!((&body["routing_key"], &body["id"]), (&json!("s3cret \"quoted\""), &json!("event-1")));
    Ok(())
}
