//! A record that a definition is given before it is written: most often the run ends with it, and both go in one write.

use super::{Execution, Outcome};
use crate::{
    ledger::Foretold,
    pump::{What, Write},
    record::Kind,
    store::tasks::Plain,
};
use tokio::sync::oneshot;

impl Execution<'_> {
    /// Lets the definition go on with what it has just come by, in case that it ends with it.
    pub(super) fn foretell(&mut self) -> bool {
        if self.flush.is_some() || self.shop.forgetful {
            return false;
        }
        let payloads = &self.shop.payloads;
        self.foretold = self.shop.me.now().and_then(|now| self.ledger.foretell(now, |output| payloads.passes(output)));
        self.foretold.is_some()
    }

    /// It did not end.
    pub(super) fn record(&mut self, foretold: Foretold) {
        let (reply, answer) = oneshot::channel();
        let what = What::Plain(Plain { seq: None, ..foretold.into() });
        if self.shop.writes.send(Write { fence: self.fence, what, last: false, again: false, reply }).is_ok() {
            self.flush = Some(answer);
        }
    }

    /// What was foretold is recorded before the run leaves, or with its end.
    pub(super) async fn settle(&mut self, outcome: Outcome) -> Outcome {
        match (outcome, self.foretold.take()) {
            (Outcome::Ended { state, output, error, .. }, Some(foretold)) => {
                Outcome::Ended { state, output, error, last: Some(Box::new(foretold.into())) }
            }
            (Outcome::Lost, _) => Outcome::Lost,
            (outcome, Some(foretold)) => {
                self.record(foretold);
                match self.flushed().await {
                    Some(left) => left,
                    None => self.come_true(outcome).await,
                }
            }
            (outcome, None) => self.come_true(outcome).await,
        }
    }

    async fn come_true(&mut self, outcome: Outcome) -> Outcome {
        while self.ledger.foretells() && !self.ledger.hand_out() && !self.ledger.overtaken() {
            if let Some(left) = self.must_leave() {
                return left;
            }
            if let Some(left) = self.wait(false, None).await {
                return left;
            }
        }
        if self.ledger.overtaken() { self.start_over().await } else { outcome }
    }

    /// The definition has taken a way that its replay would not. What it came by is kept.
    pub(super) async fn start_over(&mut self) -> Outcome {
        self.flushed().await.unwrap_or(Outcome::Unfinished)
    }
}

impl From<Foretold> for Plain {
    fn from(Foretold { key, output, at, seq }: Foretold) -> Self {
        let body = Some(output).filter(|output| !output.is_null());
        Self { what: Kind::Step.name(), key: Some(key), body, at: Some(at), seq: Some(seq), ..Self::default() }
    }
}
