//! The gateways, and whether money moves.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Who takes money for a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gateway {
    /// Stripe: Checkout Sessions.
    Stripe,
    /// ZarinPal: version 4 of its web service.
    Zarinpal,
    /// A bank transfer that a person finds on an account.
    Manual,
}

impl Gateway {
    /// Every gateway.
    pub const ALL: [Self; 3] = [Self::Stripe, Self::Zarinpal, Self::Manual];

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::Zarinpal => "zarinpal",
            Self::Manual => "manual",
        }
    }

    /// Whether it tells of payments by signed webhooks.
    pub fn has_webhooks(self) -> bool {
        self == Self::Stripe
    }

    /// Whether what it is told twice under one key is done once. Where it knows no keys, what may have been sent is not sent again.
    pub fn knows_keys(self) -> bool {
        self == Self::Stripe
    }

    /// Whether people decide what was paid, not the gateway: nothing is verified, and every refund is by hand.
    pub fn is_manual(self) -> bool {
        self == Self::Manual
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Gateway {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|gateway| gateway.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no payment gateway"))
    }
}

/// Whether money moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It does.
    Live,
    /// It does not: the gateway's sandbox.
    Test,
}

impl Mode {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Live, Self::Test].into_iter().find(|mode| mode.as_str() == text).ok_or(format!("{text:?} is no mode"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_stored() {
        for gateway in Gateway::ALL {
            assert_eq!(gateway.as_str().parse(), Ok(gateway));
            assert_eq!(serde_json::to_value(gateway).unwrap(), gateway.as_str());
        }
        assert!("paypal".parse::<Gateway>().is_err());
        assert_eq!(("live".parse(), "test".parse()), (Ok(Mode::Live), Ok(Mode::Test)));
    }
}
