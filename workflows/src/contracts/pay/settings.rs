//! What the gateways want to know of an account. It is kept sealed; none of it is ever shown or written to a log.

use super::{Gateway, Mode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt;

/// Most secrets of webhooks: the one that is, and those that are being given up.
pub const MOST_WEBHOOK_SECRETS: usize = 4;
/// Longest text for payers, in characters.
const INSTRUCTIONS_CHARS: usize = 2000;

/// The settings of an account, by its gateway.
#[derive(Clone, PartialEq, Eq)]
pub enum Settings {
    /// Of Stripe.
    Stripe(Stripe),
    /// Of ZarinPal.
    Zarinpal(Zarinpal),
    /// Of a bank account.
    Manual(Manual),
}

/// An account at Stripe.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stripe {
    /// `sk_live_…`, `sk_test_…`, or a restricted key `rk_…` that may write Checkout Sessions and refunds and read events, charges and the
    /// account.
    pub secret_key: String,
    /// What signs the webhooks, `whsec_…`: the newest first. More than one while they are changed.
    pub webhook_secrets: Vec<String>,
    /// The account, `acct_…`, when whose the key is shall be checked and cannot be asked (a restricted key).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

/// An account at ZarinPal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zarinpal {
    /// The merchant: 36 characters.
    pub merchant_id: String,
    /// The token for refunds and lists; without it a person gives money back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// The terminal, by its number; lists are of one terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_id: Option<String>,
}

/// A bank account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manual {
    /// What payers are told: whose account, where. The code of the payment is told with it.
    pub instructions: String,
    /// The account, such as its IBAN; what is written into reports.
    pub merchant: String,
}

impl Settings {
    /// The settings of an account at `gateway`, from JSON; for an account of this mode.
    ///
    /// # Errors
    /// They are none; the text says why, without what is secret.
    pub fn read(gateway: Gateway, mode: Mode, json: &[u8]) -> Result<Self, String> {
        fn of<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
            // The text of serde may hold what stands in the JSON.
            serde_json::from_slice(json).map_err(|_| "these are not the settings that the gateway takes".to_owned())
        }
        let settings = match gateway {
            Gateway::Stripe => Self::Stripe(of(json)?),
            Gateway::Zarinpal => Self::Zarinpal(of(json)?),
            Gateway::Manual => Self::Manual(of(json)?),
        };
        settings.check(mode)?;
        Ok(settings)
    }

    /// As they are kept, before they are sealed.
    pub fn to_json(&self) -> Vec<u8> {
        let json = match self {
            Self::Stripe(settings) => serde_json::to_vec(settings),
            Self::Zarinpal(settings) => serde_json::to_vec(settings),
            Self::Manual(settings) => serde_json::to_vec(settings),
        };
        // Texts and lists of texts: there is nothing that JSON could not hold.
        json.unwrap_or_default()
    }

    /// What verifies webhooks; none where there are none.
    pub fn webhook_secrets(&self) -> &[String] {
        match self {
            Self::Stripe(settings) => &settings.webhook_secrets,
            Self::Zarinpal(_) | Self::Manual(_) => &[],
        }
    }

    fn check(&self, mode: Mode) -> Result<(), String> {
        match self {
            Self::Stripe(settings) => settings.check(mode),
            Self::Zarinpal(settings) => settings.check(),
            Self::Manual(settings) => settings.check(),
        }
    }
}

/// Whether it can stand in a header, and is not too long for what it is.
fn is_word(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn either(good: bool, else_why: &str) -> Result<(), String> {
    if good { Ok(()) } else { Err(else_why.to_owned()) }
}

impl Stripe {
    fn check(&self, mode: Mode) -> Result<(), String> {
        let key = &self.secret_key;
        let of_the_mode = ["sk", "rk"].iter().any(|kind| key.starts_with(&format!("{kind}_{mode}_")));
        either(is_word(key, 255), "secret_key is no key of Stripe")?;
        either(of_the_mode, "secret_key has to begin with sk_ or rk_ and the mode of the account, such as sk_test_")?;
        either(
            (1..=MOST_WEBHOOK_SECRETS).contains(&self.webhook_secrets.len()),
            "webhook_secrets holds one to four secrets",
        )?;
        let secrets = self.webhook_secrets.iter().all(|secret| is_word(secret, 255) && secret.starts_with("whsec_"));
        either(secrets, "each of webhook_secrets begins with whsec_")?;
        let account = self.account.as_ref().is_none_or(|account| is_word(account, 64) && account.starts_with("acct_"));
        either(account, "account begins with acct_")
    }
}

impl Zarinpal {
    fn check(&self) -> Result<(), String> {
        let merchant = self.merchant_id.len() == 36 && self.merchant_id.parse::<uuid::Uuid>().is_ok();
        either(merchant, "merchant_id has 36 characters, such as 1344b5d4-0048-11e8-94db-005056a205be")?;
        either(self.access_token.as_ref().is_none_or(|token| is_word(token, 4096)), "access_token is no token")?;
        let terminal = self.terminal_id.as_ref();
        either(
            terminal.is_none_or(|id| is_word(id, 20) && id.bytes().all(|b| b.is_ascii_digit())),
            "terminal_id is a number",
        )
    }
}

impl Manual {
    fn check(&self) -> Result<(), String> {
        let chars = self.instructions.chars().count();
        either((1..=INSTRUCTIONS_CHARS).contains(&chars), "instructions has 1 to 2000 characters")?;
        either((1..=64).contains(&self.merchant.chars().count()), "merchant has 1 to 64 characters")
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stripe(_) => "Stripe(…)",
            Self::Zarinpal(_) => "Zarinpal(…)",
            Self::Manual(_) => "Manual(…)",
        })
    }
}

macro_rules! never_shown {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}

never_shown! { Stripe Zarinpal Manual }

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(gateway: Gateway, mode: Mode, json: &serde_json::Value) -> Result<Settings, String> {
        Settings::read(gateway, mode, json.to_string().as_bytes())
    }

    #[test]
    fn settings_are_read_as_they_were_kept_and_never_shown() {
        let stripe = json!({"secret_key": "sk_test_51", "webhook_secrets": ["whsec_abc", "whsec_old"]});
        let settings = read(Gateway::Stripe, Mode::Test, &stripe).unwrap();
        assert_eq!(Settings::read(Gateway::Stripe, Mode::Test, &settings.to_json()).as_ref(), Ok(&settings));
        assert_eq!(settings.webhook_secrets(), ["whsec_abc", "whsec_old"]);
        assert_eq!(format!("{settings:?}"), "Stripe(…)");
        let zarinpal = json!({"merchant_id": "1344b5d4-0048-11e8-94db-005056a205be", "access_token": "ey.J"});
        assert!(read(Gateway::Zarinpal, Mode::Live, &zarinpal).unwrap().webhook_secrets().is_empty());
        let manual = json!({"instructions": "To IBAN DE…", "merchant": "DE02120300000000202051"});
        assert!(read(Gateway::Manual, Mode::Live, &manual).is_ok());
    }

    #[test]
    fn bad_settings_are_refused_without_a_word_of_what_stands_in_them() {
        let merchant = "1344b5d4-0048-11e8-94db-005056a205be";
        let bad = [
            (Gateway::Stripe, json!({"secret_key": "sk_live_SECRET", "webhook_secrets": ["whsec_SECRET"]})),
            (Gateway::Stripe, json!({"secret_key": "sk_test_SECRET\n", "webhook_secrets": ["whsec_SECRET"]})),
            (Gateway::Stripe, json!({"secret_key": "sk_test_SECRET", "webhook_secrets": []})),
            (Gateway::Stripe, json!({"secret_key": "sk_test_SECRET", "webhook_secrets": ["SECRET"]})),
            (Gateway::Stripe, json!({"secret_key": "sk_test_a", "webhook_secrets": ["whsec_a"], "base_url": "SECRET"})),
            (Gateway::Stripe, json!({"secret_key": "sk_test_a", "webhook_secrets": ["whsec_a"], "account": "SECRET"})),
            (Gateway::Stripe, json!({"secret_key": 5, "webhook_secrets": "SECRET"})),
            (Gateway::Zarinpal, json!({"merchant_id": "SECRET"})),
            (Gateway::Zarinpal, json!({"merchant_id": merchant, "access_token": "SECRET SECRET"})),
            (Gateway::Zarinpal, json!({"merchant_id": merchant, "terminal_id": "SECRET"})),
            (Gateway::Manual, json!({"instructions": "", "merchant": "SECRET"})),
        ];
        for (gateway, json) in bad {
            let why = read(gateway, Mode::Test, &json).expect_err("it is bad");
            assert!(!why.contains("SECRET"), "{why}");
        }
    }
}
