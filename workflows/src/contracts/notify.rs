//! What may be asked of those who carry messages. Each call is made once: when and whether to make another one is decided by whoever
//! asked, by the [`Verdict`].

use flatrender_engine::{Activity, Policy};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};
use uuid::Uuid;

/// Where e-mails are sent from.
pub const EMAIL_QUEUE: &str = "notify.email";
/// Where browsers are told from.
pub const PUSH_QUEUE: &str = "notify.push";
/// Where text messages are sent from.
pub const SMS_QUEUE: &str = "notify.sms";
/// Where chats are written to from.
pub const TELEGRAM_QUEUE: &str = "notify.telegram";

/// How somebody is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Within the platform.
    Inapp,
    /// A browser (RFC 8030).
    Push,
    /// E-mail.
    Email,
    /// A text message.
    Sms,
    /// A chat with a bot.
    Telegram,
}

impl Channel {
    /// Every channel.
    pub const ALL: [Self; 5] = [Self::Inapp, Self::Push, Self::Email, Self::Sms, Self::Telegram];

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inapp => "inapp",
            Self::Push => "push",
            Self::Email => "email",
            Self::Sms => "sms",
            Self::Telegram => "telegram",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Channel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|channel| channel.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no channel"))
    }
}

/// A line of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Words, as they are: never markup.
    Words(String),
    /// Where to go: `https://…`, or a path of ours.
    Link(String),
}

/// What is said, in the reader's language.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// In one line.
    pub subject: String,
    /// The rest.
    pub lines: Vec<Line>,
}

/// How whoever speaks looks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// What they are called.
    pub product: String,
    /// `#rrggbb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// A picture, as a path of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logo: Option<String>,
    /// Whom people write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub support_email: Option<String>,
    /// Stands below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<String>,
}

/// Bytes that only open where the key of the installation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// What they were sealed for.
    pub place: String,
    /// In hexadecimal digits.
    pub hex: String,
}

impl Sealed {
    /// What was sealed for `place`.
    pub fn at(place: String, bytes: &[u8]) -> Self {
        Self { place, hex: hex::encode(bytes) }
    }
}

/// Somebody who carries messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Carrier {
    /// The account.
    pub account_id: Uuid,
    /// `smtp`, `vapid`, `twilio`, `kavenegar` or `telegram`.
    pub provider: String,
    /// What the provider wants to know, as JSON.
    pub config: Sealed,
    /// Messages a second.
    pub per_second: f32,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// The same however often it is sent.
    pub delivery_id: Uuid,
    /// Whose.
    pub tenant_id: Uuid,
    /// To whom.
    pub user_id: Uuid,
    /// Of which kind, as preferences name it.
    pub category: String,
    /// Who may carry it, the first one first. Nobody: e-mail goes by the server of the platform.
    pub carriers: Vec<Carrier>,
    /// The reader's language, by BCP 47.
    pub language: String,
    /// What is said.
    pub said: Said,
    /// By whom.
    pub sender: Sender,
    /// Whether the reader may say that there be no more of this.
    pub may_unsubscribe: bool,
    /// It was sent before, and nobody knows what became of it.
    pub doubtful: bool,
    /// For how long it is of any use.
    pub ttl_seconds: u32,
}

/// What became of one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was taken on.
    Accepted {
        /// Whose account it went by.
        account_id: Option<Uuid>,
        /// What the provider calls it.
        message: Option<String>,
    },
    /// Not now; it counts as no try.
    Throttled {
        /// When again, in seconds.
        after_seconds: f64,
        /// Nobody was called: it is we who wait, for a place in a queue or for a provider that is down.
        #[serde(default)]
        by_us: bool,
    },
    /// It was not taken on.
    Failed {
        /// Why, as a kind.
        class: Class,
        /// Why, in the provider's words.
        message: String,
    },
}

/// Why a message was not taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// It may go another time.
    Transient,
    /// Nobody knows whether it was taken on.
    Unknown,
    /// The mailbox may take it another time: it is full, or greylists.
    SoftBounce,
    /// There is no such mailbox or number, or it is none for messages of this kind.
    HardBounce,
    /// The address is no longer one: a browser that unsubscribed, a chat that is gone.
    Gone,
    /// The reader has shut us out, or so it is said.
    Blocked,
    /// It is too long.
    TooLong,
    /// The provider does not know us: it is nobody's fault but ours.
    Config,
    /// It is refused for good for another reason.
    Refused,
}

impl Class {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Unknown => "unknown",
            Self::SoftBounce => "soft_bounce",
            Self::HardBounce => "hard_bounce",
            Self::Gone => "gone",
            Self::Blocked => "blocked",
            Self::TooLong => "too_long",
            Self::Config => "config",
            Self::Refused => "refused",
        }
    }
}

/// A call is made once: one that was cut off is not repeated by itself, because nobody knows whether it had arrived.
fn once(start_to_close: Duration) -> Policy {
    Policy { max_failures: 1, max_losses: 1, start_to_close, ..Policy::default() }
}

impl Envelope {
    /// The account that it goes by as long as that works: who has many calls at one of them keeps the others free. What goes by the server
    /// of the platform has none.
    fn first_account(&self) -> Option<String> {
        self.carriers.first().map(|carrier| carrier.account_id.to_string())
    }
}

/// Sends an e-mail. Repeating it sends the same `Message-ID` again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendEmail {
    /// What.
    pub envelope: Envelope,
    /// To which address.
    pub to: String,
}

impl Activity for SendEmail {
    const NAME: &'static str = "SendEmail";
    const QUEUE: &'static str = EMAIL_QUEUE;
    type Output = Verdict;

    fn policy(&self) -> Policy {
        // A little more than a mail server is waited for: an attempt that is cut off tells nobody how it went.
        once(Duration::from_secs(30))
    }

    fn limit_key(&self) -> Option<String> {
        self.envelope.first_account()
    }
}

/// Tells a browser (RFC 8030, RFC 8291). Repeating it replaces what was not shown yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendPush {
    /// What.
    pub envelope: Envelope,
    /// The address of the browser at its push service.
    pub endpoint: String,
    /// The browser's public key: 65 bytes in hexadecimal digits.
    pub p256dh: String,
    /// The secret it shares with us.
    pub auth: Sealed,
    /// The key of ours that the browser was told of.
    pub vapid_key: String,
    /// It was too long: only the subject.
    pub short: bool,
}

impl Activity for SendPush {
    const NAME: &'static str = "SendPush";
    const QUEUE: &'static str = PUSH_QUEUE;
    type Output = Verdict;

    fn policy(&self) -> Policy {
        once(Duration::from_secs(10))
    }

    fn limit_key(&self) -> Option<String> {
        self.envelope.first_account()
    }
}

/// Sends a text message. One that is doubtful is asked for first, where the provider can say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendSms {
    /// What.
    pub envelope: Envelope,
    /// To which number, by E.164.
    pub to: String,
}

impl Activity for SendSms {
    const NAME: &'static str = "SendSms";
    const QUEUE: &'static str = SMS_QUEUE;
    type Output = Verdict;

    fn policy(&self) -> Policy {
        // Some are asked for before they are sent: two calls.
        once(Duration::from_secs(20))
    }

    fn limit_key(&self) -> Option<String> {
        self.envelope.first_account()
    }
}

/// Writes to a chat. Repeating it writes twice: there is no key that would tell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendTelegram {
    /// What.
    pub envelope: Envelope,
    /// The chat.
    pub chat: Sealed,
}

impl Activity for SendTelegram {
    const NAME: &'static str = "SendTelegram";
    const QUEUE: &'static str = TELEGRAM_QUEUE;
    type Output = Verdict;

    fn policy(&self) -> Policy {
        once(Duration::from_secs(15))
    }

    fn limit_key(&self) -> Option<String> {
        self.envelope.first_account()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_against_the_account_it_goes_by() {
        let account_id = Uuid::from_u128(7);
        let config = Sealed::at("x".into(), b"x");
        let carrier = Carrier { account_id, provider: "smtp".into(), config, per_second: 1.0 };
        let envelope = Envelope {
            delivery_id: Uuid::nil(),
            tenant_id: Uuid::nil(),
            user_id: Uuid::nil(),
            category: "renders".into(),
            carriers: vec![carrier],
            language: "en".into(),
            said: Said::default(),
            sender: Sender::default(),
            may_unsubscribe: true,
            doubtful: false,
            ttl_seconds: 1,
        };
        let mail = SendEmail { envelope, to: "a@b.c".into() };
        assert_eq!(mail.limit_key(), Some(account_id.to_string()));
        let ours = SendEmail { envelope: Envelope { carriers: vec![], ..mail.envelope }, to: mail.to };
        assert_eq!(ours.limit_key(), None, "the server of the platform is everybody's");
    }

    #[test]
    fn what_an_earlier_build_said_of_a_wait_is_the_providers() {
        let said = serde_json::json!({ "throttled": { "after_seconds": 7.0 } });
        let verdict: Verdict = serde_json::from_value(said).expect("a verdict");
        assert_eq!(verdict, Verdict::Throttled { after_seconds: 7.0, by_us: false });
    }
}
