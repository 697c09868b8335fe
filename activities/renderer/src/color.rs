//! A colour as data files write it and as a Lottie document wants it.

/// An opaque sRGB colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Color([u8; 3]);

impl Color {
    /// Reads `#rrggbb`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        if digits.len() != 6 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let number = u32::from_str_radix(digits, 16).ok()?;
        let [_, r, g, b] = number.to_be_bytes();
        Some(Self([r, g, b]))
    }

    /// Red, green and blue from 0 to 1.
    pub(crate) fn unit(self) -> [f64; 3] {
        self.0.map(|channel| f64::from(channel) / 255.0)
    }

    /// As a solid layer writes it.
    pub(crate) fn hex(self) -> String {
        let [r, g, b] = self.0;
        format!("#{r:02x}{g:02x}{b:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_has_a_hash_and_six_digits() {
        assert_eq!(Color::parse("#0b3c5d").map(Color::hex).as_deref(), Some("#0b3c5d"));
        for wrong in ["0b3c5d", "#0b3", "#0b3c5g", "#+b3c5d", ""] {
            assert_eq!(Color::parse(wrong), None, "{wrong}");
        }
    }
}
