//! The Stripe of the tests, asked by the library that Stripe makes: so far as it goes, it is no invention of ours.

use crate::{
    fakes::stripe::{TEST_KEY, WEBHOOK_SECRET},
    world::World,
};
use chrono::Utc;
use flatrender_activities::pay::read_webhook;
use flatrender_workflows::contracts::pay::{Gateway, inbound::Inbound};
use serde_json::json;
use std::{
    io::Write as _,
    process::{Command, Stdio},
};

/// By hand: `npm install stripe` in a folder, whose `node_modules` is `NODE_PATH`.
#[tokio::test]
#[ignore = "needs Node and Stripe's library"]
async fn the_library_of_stripe_finds_what_it_expects() {
    let world = World::stripe();
    let fake = world.as_stripe();
    let created = world.open(&world.due()).await;
    fake.pay(&created.provider_ref);
    let webhook = fake.webhook(&fake.events().last().unwrap().0);
    let body = String::from_utf8(webhook.body.clone()).unwrap();
    let given = json!({"body": body, "signature": webhook.signature, "event_id": webhook.event_id});
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pay/library.cjs");
    let port = fake.url.rsplit(':').next().unwrap();
    let mut node = Command::new("node")
        .args([script, port, TEST_KEY, WEBHOOK_SECRET])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    node.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success());
    // And what the library signs is taken by us.
    let header = String::from_utf8(output.stdout).unwrap();
    let secrets = [WEBHOOK_SECRET.to_owned()];
    let signatures = [header.trim().as_bytes()];
    let inbound = Inbound { body: body.as_bytes(), signatures: &signatures, secrets: &secrets, at: Utc::now() };
    assert_eq!(read_webhook(Gateway::Stripe, &inbound).unwrap().event_id, webhook.event_id);
}
