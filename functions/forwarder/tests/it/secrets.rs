//! Addresses and credentials in no log, error, dead letter or debug output, whatever happens; and no call of a private address.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use delivery::addresses::AllowedAddresses;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    target::{Answer, Target},
    world::{CHAT, World, entry, event},
};

/// Everything that is logged through `tracing`.
#[derive(Clone, Default)]
struct Traces(Arc<Mutex<Vec<u8>>>);

impl Write for Traces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Traces {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_output_has_an_address_a_secret_or_a_message() -> anyhow::Result<()> {
    let traces = Traces::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(traces.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    tracing::trace!("the test's own line");
    let target = Target::start(|all, _| match all % 6 {
        0 => Answer::Status(200),
        1 => Answer::Reset,
        2 => Answer::Hang,
        3 => Answer::With(302, "location", "http://127.0.0.1:1/s3cret-place".to_owned()),
        4 => Answer::With(422, "x-reason", "s3cret-header".to_owned()),
        _ => Answer::With(401, "www-authenticate", "s3cret-header".to_owned()),
    });
    let target = target.await?;
    let mut output = String::new();
    for credentials in [
        json!({ "type": "header", "name": "X-Api-Key", "value": "s3cret-value" }),
        json!({ "type": "basic", "user": "s3cret-user", "password": "s3cret-value" }),
        json!({ "type": "bearer", "token": "s3cret-token" }),
        json!({ "type": "query", "name": "key", "value": "s3cret-value" }),
        json!({ "type": "body", "member": "key", "value": "s3cret-value" }),
    ] {
        let world = World::new().with(&target, json!({ "credentials": credentials }), 6);
        world.finish().await;
        output += &format!("{:?}\n{:?}\n{:?}\n", world.lines(), world.cloud.dead(), world.forwarder.sender);
    }
    for address in
        ["http://127.0.0.1:1/s3cret-path", "https://s3cret-host.invalid/s3cret-path", "https://127.0.0.1:1/s3cret-path"]
    {
        let world = World::new();
        world.cloud.store("chat", entry(target.address, json!({ "address": address })));
        world.cloud.send(CHAT, event(1));
        world.finish().await;
        output += &format!("{:?}\n{:?}\n", world.lines(), world.cloud.dead());
    }
    output += &String::from_utf8_lossy(&traces.0.lock().unwrap_or_else(PoisonError::into_inner));
    assert!(output.contains("the test's own line") && output.contains("dead letter"), "{output}");
    for forbidden in ["s3cret", "127.0.0.1", "czNjcmV0", "private-name"] {
        let line = output.lines().find(|line| line.contains(forbidden));
        assert_eq!(line, None, "{forbidden}");
    }
    Ok(())
}

#[tokio::test]
async fn each_message_is_one_line_at_most() -> anyhow::Result<()> {
    let target = Target::start(|all, _| Answer::Status([200, 500, 422][all % 3])).await?;
    let world = World::new().with(&target, json!({}), 3);
    world.batch().await;
    let lines = world.lines();
    let outcomes: Vec<_> = lines.iter().map(|line| (&line["outcome"], &line["status"], &line["event_id"])).collect();
    assert_eq!(
        outcomes,
        [
            (&json!("forwarded"), &json!(200), &json!("event-1")),
            (&json!("again"), &json!(500), &json!("event-2")),
            (&json!("dead letter"), &json!(422), &json!("event-3")),
        ]
    );
    Ok(())
}

#[tokio::test]
async fn without_the_switch_for_tests_no_address_of_this_machine_is_called() -> anyhow::Result<()> {
    let target = Target::start(|_, _| Answer::Status(200)).await?;
    let port = target.address.port();
    for host in ["127.0.0.1", "localhost", "[::1]", "127.1"] {
        let world = World::sending_to(AllowedAddresses::Public);
        world.cloud.store("chat", entry(target.address, json!({ "address": format!("http://{host}:{port}/") })));
        world.cloud.send(CHAT, event(1));
        world.finish().await;
        let dead = format!("{:?}", world.cloud.dead());
        assert!(world.cloud.dead().len() == 1 && dead.contains("the address is not public"), "{host}: {dead}");
    }
    assert_eq!(target.calls().len(), 0);
    Ok(())
}
