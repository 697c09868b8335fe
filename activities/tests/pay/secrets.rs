//! Nothing of what opens an account gets out of the adapters, whatever goes wrong.

use crate::{
    fakes::{
        faults::{Call, Fault, How},
        zarinpal::{MERCHANT, OTHER_MERCHANT},
    },
    world::{World, account},
};
use flatrender_workflows::contracts::pay::{CheckGateway, Gateway, Mode};
use serde_json::json;
use std::{
    io,
    sync::{Arc, Mutex},
};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_secret_is_told_or_logged() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(EnvFilter::new("trace")).with_writer(log.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let mut told = vec![];
    for gateway in [Gateway::Stripe, Gateway::Zarinpal] {
        let mut world = World::new(gateway);
        let due = world.due();
        let calls = [Call::Create, Call::Read, Call::Verify, Call::Refund, Call::List, Call::Account];
        let hows = [How::Cut, How::Status(400), How::Status(401), How::Status(500), How::Malformed, How::Html];
        for how in hows {
            for call in calls {
                world.fake.fail(call, Fault::Before(how));
            }
            told.push(format!("{:?}", world.ask(world.create(&due), 1).await));
            let created = world.open(&due).await;
            world.fake.pay(&created.provider_ref);
            told.push(format!("{:?}", world.ask(world.verify(&due, &created.provider_ref), 1).await));
            let Ok((paid, _)) = world.insist(world.verify(&due, &created.provider_ref)).await else { continue };
            told.push(format!("{paid:?}"));
            if paid.provider_txn.is_some() {
                told.push(format!("{:?}", world.ask(world.refund(&due, &paid, due.amount), 1).await));
                told.push(format!("{:?}", world.ask(world.refund(&due, &paid, due.amount), 1).await));
            }
            told.push(format!("{:?}", world.ask(CheckGateway { account: world.account.clone() }, 1).await.map(drop)));
        }
        // What it refuses comes with words that hold what was sent.
        let mut bad = world.create(&due);
        bad.due.amount = 1;
        told.push(format!("{:?}", world.ask(bad, 1).await.unwrap_err()));
        let unfit = match gateway {
            Gateway::Stripe => {
                json!({"secret_key": "sk_test_SECRETOFTESTS", "webhook_secrets": ["whsec_SECRETOFTESTS"]})
            }
            _ => json!({"merchant_id": OTHER_MERCHANT, "access_token": "SECRETOFTESTS", "terminal_id": "1"}),
        };
        for (mode, settings) in [(world.account.mode, &unfit), (Mode::Live, &json!({"secret_key": "SECRETOFTESTS"}))] {
            world.account = account(gateway, mode, settings);
            told.push(format!(
                "{:?}",
                world.ask(CheckGateway { account: world.account.clone() }, 1).await.unwrap_err()
            ));
        }
    }
    told.push(format!("{:?}", World::stripe().cashier));
    assert!(told.len() > 40, "{}", told.len());
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("a payment gateway cannot be asked"), "what is wrong is logged");
    for line in told.iter().map(String::as_str).chain(log.lines()) {
        assert!(!line.contains("SECRETOFTESTS"), "{line}");
    }
    // Who the merchant is stands in what is told of a payment, and in no failure.
    for line in told.iter().filter(|line| line.contains("Failure")) {
        assert!(!line.contains(MERCHANT), "{line}");
    }
}
