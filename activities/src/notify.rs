//! Carrying messages to people. Each call is made once and answered with a [`Verdict`]; whether there is another is decided elsewhere.

pub mod accounts;
pub mod email;
mod gate;
pub mod letter;
pub mod push;
mod sms;
mod telegram;

pub use gate::{Gates, Stance};

use crate::{
    egress::{
        Egress,
        client::{EgressError, Reply},
    },
    message::Mailer,
};
use accounts::Config;
use flatrender_workflows::contracts::notify::{Carrier, Class, Line, Said, Sealed, Verdict};
use reqwest::{Request, StatusCode, header};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Bytes of a provider's answer that are read.
const ANSWER_BYTES: usize = 64 << 10;
/// When a provider wants to be left alone and does not say for how long.
const A_WHILE: f64 = 30.0;

/// Opens what was sealed for a place; none when it does not open.
pub type Opener = Arc<dyn Fn(&Sealed) -> Option<Vec<u8>> + Send + Sync>;
/// Makes the text that only whoever has the key of the installation can make.
pub type Marks = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// What a courier is made of.
pub struct CourierConfig {
    /// Carries e-mail of those who have no account of their own.
    pub mailer: Mailer,
    /// Calls providers.
    pub egress: Egress,
    /// Opens what accounts and browsers keep sealed.
    pub opener: Opener,
    /// Makes links to unsubscribe.
    pub marks: Marks,
    /// Where people see our pages, without a slash at the end.
    pub public_url: String,
    /// For how long a mail server is waited for, from its name to its last word: less than what an attempt may take.
    pub mail_patience: Duration,
}

/// For how long a mail server is waited for where nothing else is said.
pub const MAIL_PATIENCE: Duration = Duration::from_secs(25);

/// Carries messages by whichever account is open. Cheap to clone.
#[derive(Clone)]
pub struct Courier(Arc<Inner>);

struct Inner {
    config: CourierConfig,
    gates: Gates,
    servers: Mutex<HashMap<Uuid, email::Named>>,
    chats: Mutex<HashMap<String, Instant>>,
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Courier").field("public_url", &self.0.config.public_url).finish_non_exhaustive()
    }
}

impl Courier {
    /// A courier.
    pub fn new(config: CourierConfig) -> Self {
        Self(Arc::new(Inner { config, gates: Gates::default(), servers: Mutex::default(), chats: Mutex::default() }))
    }

    /// What an account wants to know.
    fn open(&self, carrier: &Carrier) -> Result<Config, Verdict> {
        let text = (self.0.config.opener)(&carrier.config);
        let read = text.and_then(|text| Config::read(&carrier.provider, &text).ok());
        read.ok_or_else(|| {
            tracing::error!(account.id = %carrier.account_id, "the settings of a provider's account do not open");
            failed(Class::Config, "the settings of the account do not open")
        })
    }

    /// Has one of `carriers` carry a delivery: the first whose gate is open.
    async fn by<F: Future<Output = Verdict>>(
        &self,
        delivery_id: Uuid,
        carriers: &[Carrier],
        call: impl FnOnce(Config, Uuid) -> F,
    ) -> Verdict {
        let accounts = carriers.iter().map(|c| (c.account_id, f64::from(c.per_second)));
        let place = match self.0.gates.pick(delivery_id, accounts, Instant::now()) {
            Stance::Go(place) => place,
            Stance::Wait(wait) => return held_up(wait),
            Stance::Nobody => return failed(Class::Config, "there is no account that could carry it"),
        };
        let carrier = &carriers[place];
        let calling = self.0.gates.calling(carrier.account_id);
        let verdict = match self.open(carrier) {
            Ok(config) => call(config, carrier.account_id).await,
            Err(verdict) => verdict,
        };
        calling.answered(is_well(&verdict));
        if let Verdict::Failed { class: Class::Config, message } = &verdict {
            tracing::error!(account.id = %carrier.account_id, message, "a provider does not accept its account");
        }
        verdict
    }

    /// Calls a provider; what cannot be known is a verdict.
    async fn ask(&self, request: Request) -> Result<Reply, Verdict> {
        self.0.config.egress.send(request, ANSWER_BYTES).await.map_err(|error| match &error {
            EgressError::Refused(_) => failed(Class::Config, error.to_string()),
            // Nobody was there: nothing can have been taken on.
            EgressError::Silent(cause) if cause.is_connect() => {
                failed(Class::Transient, "the provider cannot be reached")
            }
            EgressError::Silent(_) | EgressError::TooLong(_) => failed(Class::Unknown, error.to_string()),
        })
    }

    /// The address of a page of ours.
    fn absolute(&self, link: &str) -> String {
        if link.starts_with('/') { format!("{}{link}", self.0.config.public_url) } else { link.to_owned() }
    }

    /// What is said, as text; with its links, or without.
    fn plain(&self, said: &Said) -> String {
        let lines = said.lines.iter().map(|line| match line {
            Line::Words(words) => words.clone(),
            Line::Link(link) => self.absolute(link),
        });
        std::iter::once(said.subject.clone()).chain(lines).collect::<Vec<_>>().join("\n")
    }
}

/// A failure of a kind.
fn failed(class: Class, message: impl Into<String>) -> Verdict {
    Verdict::Failed { class, message: message.into().chars().take(500).collect() }
}

/// Whether a provider works: what is wrong with a message or an address is not its fault.
fn is_well(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::Failed { class: Class::Transient | Class::Unknown | Class::Config, .. })
}

/// What a status means that is the same everywhere; none for those that every provider has a meaning of its own for.
fn by_status(reply: &Reply) -> Option<Verdict> {
    let after = reply.headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse::<f64>().ok());
    let after = after.filter(|seconds| seconds.is_finite());
    match reply.status {
        StatusCode::TOO_MANY_REQUESTS => Some(throttled(after.unwrap_or(A_WHILE))),
        StatusCode::SERVICE_UNAVAILABLE if after.is_some() => Some(throttled(after.unwrap_or(A_WHILE))),
        status if status.is_server_error() => Some(failed(Class::Transient, format!("the provider answered {status}"))),
        status if status.is_redirection() => Some(failed(Class::Config, format!("the provider answered {status}"))),
        _ => None,
    }
}

/// A lock that a panic elsewhere does not close.
fn held<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A provider wants to be left alone for so many seconds; what is no number is a while.
fn throttled(seconds: f64) -> Verdict {
    let seconds = if seconds.is_nan() { A_WHILE } else { seconds };
    Verdict::Throttled { after_seconds: seconds.clamp(1.0, 86_400.0), by_us: false }
}

/// We wait ourselves, and nobody was called.
fn held_up(wait: Duration) -> Verdict {
    Verdict::Throttled { after_seconds: wait.as_secs_f64(), by_us: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderMap, HeaderValue};

    #[test]
    fn a_provider_that_says_no_time_is_left_alone_for_a_while() {
        let asked = |status, after: &'static str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(after))]);
            by_status(&Reply { status, headers, body: vec![] })
        };
        let busy = StatusCode::TOO_MANY_REQUESTS;
        let wait = |seconds| Some(Verdict::Throttled { after_seconds: seconds, by_us: false });
        assert_eq!(asked(busy, "7"), wait(7.0));
        assert_eq!(asked(busy, "1e9"), wait(86_400.0));
        for none in ["NaN", "-nan", "inf", "-infinity", "soon", "Fri, 27 Nov 2026 10:00:00 GMT"] {
            assert_eq!(asked(busy, none), wait(A_WHILE), "{none}");
        }
        let away = asked(StatusCode::SERVICE_UNAVAILABLE, "nan");
        assert!(matches!(away, Some(Verdict::Failed { class: Class::Transient, .. })), "{away:?}");
        assert_eq!(Some(throttled(f64::NAN)), wait(A_WHILE));
    }
}
