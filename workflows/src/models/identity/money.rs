//! Money in words: minor units with the point where their currency has it.

/// Digits behind the point. Source: ISO 4217; rials and tomans are counted whole, as everybody does.
pub fn decimals(currency: &str) -> usize {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "IRR" | "IRT" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX"
        | "VND" | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        _ => 2,
    }
}

/// An amount of minor units, such as `19.99 USD`.
pub fn text(amount: i64, currency: &str) -> String {
    format!("{} {currency}", number(amount, currency))
}

/// The same without its currency.
pub fn number(amount: i64, currency: &str) -> String {
    let (sign, digits) = (if amount < 0 { "-" } else { "" }, decimals(currency));
    let all = format!("{:0width$}", amount.unsigned_abs(), width = digits + 1);
    let (whole, rest) = all.split_at(all.len() - digits);
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if rest.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}.{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_point_stands_where_the_currency_has_it() {
        assert_eq!(text(1999, "USD"), "19.99 USD");
        assert_eq!(text(5, "EUR"), "0.05 EUR");
        assert_eq!(text(-123_456_789, "USD"), "-1,234,567.89 USD");
        assert_eq!(text(1_500_000, "IRR"), "1,500,000 IRR");
        assert_eq!(text(1500, "KWD"), "1.500 KWD");
        assert_eq!(text(i64::MIN, "JPY"), "-9,223,372,036,854,775,808 JPY");
    }
}
