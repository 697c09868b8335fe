//! What providers want to know. It is kept sealed, and read here.

use serde::{Deserialize, Serialize};

/// What an account wants to know, by its provider.
#[derive(Debug, Clone)]
pub enum Config {
    /// A mail server.
    Smtp(Smtp),
    /// Push services, to whom we sign by a key (RFC 8292).
    Vapid(Vapid),
    /// Twilio, or whoever speaks like it.
    Twilio(Twilio),
    /// Kavenegar, or whoever speaks like it.
    Kavenegar(Kavenegar),
    /// A bot.
    Telegram(Telegram),
}

/// A mail server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// `smtp://user:password@host:port?tls=required` or `smtps://…`.
    pub url: String,
    /// The address that mails come from.
    pub from: String,
}

/// A key that browsers are told of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vapid {
    /// The private key: PKCS #8, in base64.
    pub pkcs8: String,
    /// The public one: the point, uncompressed, in base64url.
    pub public: String,
    /// Whom a push service asks when something is wrong: `mailto:…` or `https://…`.
    pub subject: String,
}

/// Twilio, or whoever speaks like it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Twilio {
    /// Where it is.
    #[serde(default = "twilio")]
    pub base_url: String,
    /// The account.
    pub account_sid: String,
    /// Its secret.
    pub auth_token: String,
    /// The number or name that messages come from.
    pub from: String,
}

/// Kavenegar, or whoever speaks like it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kavenegar {
    /// Where it is.
    #[serde(default = "kavenegar")]
    pub base_url: String,
    /// The key of the account.
    pub api_key: String,
    /// The line that messages come from.
    pub sender: String,
}

/// A bot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telegram {
    /// Where it is.
    #[serde(default = "telegram")]
    pub base_url: String,
    /// Its token.
    pub token: String,
    /// Its name, as in `https://t.me/<name>`.
    pub bot: String,
}

fn twilio() -> String {
    "https://api.twilio.com".into()
}

fn kavenegar() -> String {
    "https://api.kavenegar.com".into()
}

fn telegram() -> String {
    "https://api.telegram.org".into()
}

impl Config {
    /// What an account of `provider` wants to know, from JSON.
    ///
    /// # Errors
    /// It is none of a provider that there is; the text says why, without what is secret.
    pub fn read(provider: &str, json: &[u8]) -> Result<Self, String> {
        fn of<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, String> {
            // The text of serde may hold what stands in the JSON.
            serde_json::from_slice(json).map_err(|_| "these are not the settings that the provider takes".to_owned())
        }
        match provider {
            "smtp" => of(json).map(Self::Smtp),
            "vapid" => of(json).map(Self::Vapid),
            "twilio" => of(json).map(Self::Twilio),
            "kavenegar" => of(json).map(Self::Kavenegar),
            "telegram" => of(json).map(Self::Telegram),
            _ => Err("there is no such provider".to_owned()),
        }
    }

    /// The address that is called, where the tenant may name one.
    pub fn base_url(&self) -> Option<&str> {
        match self {
            Self::Smtp(_) | Self::Vapid(_) => None,
            Self::Twilio(c) => Some(&c.base_url),
            Self::Kavenegar(c) => Some(&c.base_url),
            Self::Telegram(c) => Some(&c.base_url),
        }
    }
}

/// What a provider carries.
pub fn channel_of(provider: &str) -> Option<flatrender_workflows::contracts::notify::Channel> {
    use flatrender_workflows::contracts::notify::Channel;
    match provider {
        "smtp" => Some(Channel::Email),
        "vapid" => Some(Channel::Push),
        "twilio" | "kavenegar" => Some(Channel::Sms),
        "telegram" => Some(Channel::Telegram),
        _ => None,
    }
}
