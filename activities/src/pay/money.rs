//! What gateways count in. Ours are minor units of ISO 4217; rials and tomans are whole.

/// Whole by ISO, and counted by Stripe in hundredths that are never any. Source: Stripe, "Supported currencies", "Special cases". All other
/// currencies that Stripe counts in whole are whole by ISO, too.
const IN_HUNDREDTHS: [&str; 2] = ["ISK", "UGX"];
/// Counted by Stripe in whole, though ISO gives it a minor unit: the one exception.
const ARIARY: &str = "MGA";
/// Three decimals, of which Stripe takes two. The same page, "Three-decimal currencies".
const THREE: [&str; 5] = ["BHD", "JOD", "KWD", "OMR", "TND"];
/// Whole by ISO or by us, and none of Stripe's.
const NOT_AT_STRIPE: [&str; 2] = ["IRR", "IRT"];
/// The largest amount that Stripe takes, in its unit: eight digits.
const MOST_AT_STRIPE: i64 = 99_999_999;
/// A toman in rials.
const TOMAN: i64 = 10;

/// Why an amount is none at a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAmount {
    /// The gateway does not have the currency.
    Currency,
    /// It is none in its unit, or out of its range.
    Amount,
}

fn is_currency(currency: &str) -> bool {
    currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_uppercase())
}

/// An amount of ours in what Stripe counts in.
///
/// # Errors
/// [`NoAmount`]
pub fn to_stripe(amount: i64, currency: &str) -> Result<i64, NoAmount> {
    if !is_currency(currency) || NOT_AT_STRIPE.contains(&currency) {
        return Err(NoAmount::Currency);
    }
    let theirs = if IN_HUNDREDTHS.contains(&currency) {
        amount.checked_mul(100).ok_or(NoAmount::Amount)?
    } else if currency == ARIARY {
        (amount % 100 == 0).then_some(amount / 100).ok_or(NoAmount::Amount)?
    } else if THREE.contains(&currency) {
        (amount % 10 == 0).then_some(amount).ok_or(NoAmount::Amount)?
    } else {
        amount
    };
    (1..=MOST_AT_STRIPE).contains(&theirs).then_some(theirs).ok_or(NoAmount::Amount)
}

/// An amount of Stripe's in ours; none when it is none of ours.
pub fn from_stripe(amount: i64, currency: &str) -> Option<i64> {
    if !is_currency(currency) || NOT_AT_STRIPE.contains(&currency) || amount < 0 {
        None
    } else if IN_HUNDREDTHS.contains(&currency) {
        (amount % 100 == 0).then_some(amount / 100)
    } else if currency == ARIARY {
        amount.checked_mul(100)
    } else {
        Some(amount)
    }
}

/// An amount of ours in rials, for ZarinPal: it is never asked in anything else.
///
/// # Errors
/// [`NoAmount`]
pub fn to_rials(amount: i64, currency: &str) -> Result<i64, NoAmount> {
    let rials = match currency {
        "IRR" => amount,
        "IRT" => amount.checked_mul(TOMAN).ok_or(NoAmount::Amount)?,
        _ => return Err(NoAmount::Currency),
    };
    (rials > 0).then_some(rials).ok_or(NoAmount::Amount)
}

/// Rials in a currency of ours; none when it is none, or not whole.
pub fn from_rials(rials: i64, currency: &str) -> Option<i64> {
    match currency {
        "IRR" => Some(rials),
        "IRT" => (rials % TOMAN == 0).then_some(rials / TOMAN),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stripe_counts_as_its_page_says() {
        for (amount, currency, theirs) in [
            (1999, "USD", Ok(1999)),
            (500, "JPY", Ok(500)),
            (500, "ISK", Ok(50_000)),
            (500, "UGX", Ok(50_000)),
            (500, "MGA", Ok(5)),
            (550, "MGA", Err(NoAmount::Amount)),
            (5120, "KWD", Ok(5120)),
            (5123, "KWD", Err(NoAmount::Amount)),
            (0, "USD", Err(NoAmount::Amount)),
            (-1, "USD", Err(NoAmount::Amount)),
            (100_000_000, "USD", Err(NoAmount::Amount)),
            (i64::MAX, "ISK", Err(NoAmount::Amount)),
            (5000, "IRR", Err(NoAmount::Currency)),
            (5000, "usd", Err(NoAmount::Currency)),
            (5000, "", Err(NoAmount::Currency)),
        ] {
            assert_eq!(to_stripe(amount, currency), theirs, "{amount} {currency}");
        }
        assert_eq!((from_stripe(50_001, "ISK"), from_stripe(5, "MGA")), (None, Some(500)));
    }

    #[test]
    fn a_toman_is_ten_rials() {
        assert_eq!((to_rials(5000, "IRT"), to_rials(5000, "IRR")), (Ok(50_000), Ok(5000)));
        assert_eq!((to_rials(i64::MAX, "IRT"), to_rials(0, "IRR")), (Err(NoAmount::Amount), Err(NoAmount::Amount)));
        assert_eq!((to_rials(5, "USD"), from_rials(50, "USD")), (Err(NoAmount::Currency), None));
        assert_eq!((from_rials(50_001, "IRT"), from_rials(50_010, "IRT")), (None, Some(5001)));
    }

    proptest! {
        #[test]
        fn what_goes_out_comes_back(amount in any::<i64>(), currency in "[A-Z]{3}|ISK|UGX|MGA|KWD|JPY|IRR|IRT") {
            if let Ok(theirs) = to_stripe(amount, &currency) {
                prop_assert!((1..=MOST_AT_STRIPE).contains(&theirs));
                prop_assert_eq!(from_stripe(theirs, &currency), Some(amount));
            }
            if let Ok(rials) = to_rials(amount, &currency) {
                prop_assert_eq!(from_rials(rials, &currency), Some(amount));
            }
        }

        #[test]
        fn nothing_that_a_gateway_says_breaks_us(amount in any::<i64>(), currency in ".{0,5}") {
            let _ = from_stripe(amount, &currency);
            let _ = from_rials(amount, &currency);
        }
    }
}
