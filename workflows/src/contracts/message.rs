//! Letters to people, sent by workers beside the server.

use flatrender_engine::{Activity, Policy};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// The queue of those who send.
pub const MESSAGE_QUEUE: &str = "message";

/// What a letter says. Links are named by their id: their text is made where the letter is written, and stands nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "about")]
pub enum Letter {
    /// Prove that this address is yours.
    VerifyEmail {
        /// The link.
        link: Uuid,
    },
    /// Somebody wanted to register with your address; you have an account.
    AlreadyRegistered,
    /// Set a new password.
    ResetPassword {
        /// The link.
        link: Uuid,
    },
    /// Somebody has invited you.
    Invitation {
        /// The link to set a password.
        link: Uuid,
    },
    /// Your password was changed.
    PasswordChanged,
    /// Your account has another address now.
    EmailChanged {
        /// The new address.
        to: String,
    },
    /// Your account has one more, or one less, second factor.
    FactorsChanged,
    /// Your account has one more, or one less, login at an identity provider.
    IdentitiesChanged,
}

/// How a sender looks and where it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Brand {
    /// Its colour, as `#rrggbb`.
    pub color: Option<String>,
    /// Its picture: a path below the public address.
    pub logo: Option<String>,
    /// Where answers go: an address.
    pub support_email: Option<String>,
    /// Stands below every letter.
    pub footer: Option<String>,
}

impl Brand {
    /// Whether nothing was chosen.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// Sends one e-mail. Not repeatable to the reader's eye, but harmless: the same letter under the same Message-ID.
/// Fails for good with `message.refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendMail {
    /// The letter's own id; its Message-ID is made of it.
    pub id: Uuid,
    /// Whom to: an address.
    pub to: String,
    /// The language, by BCP 47; English when there is no translation.
    pub locale: String,
    /// What the sender calls itself.
    pub product: String,
    /// How the sender looks.
    #[serde(default, skip_serializing_if = "Brand::is_plain")]
    pub brand: Brand,
    /// What it says.
    pub letter: Letter,
}

impl Activity for SendMail {
    const NAME: &'static str = "SendMail";
    const QUEUE: &'static str = MESSAGE_QUEUE;
    /// The Message-ID.
    type Output = String;

    fn policy(&self) -> Policy {
        Policy {
            max_failures: 12,
            backoff_base: Duration::from_secs(5),
            backoff_cap: Duration::from_secs(3600),
            lease: Duration::from_secs(60),
            start_to_close: Duration::from_secs(120),
            ..Policy::default()
        }
    }
}
