//! Chance that comes out the same on every machine and in every version: xoshiro256++ (Blackman and Vigna, 2019), seeded by
//! splitmix64, and the distributions that are needed.

/// A stream of chance.
#[derive(Debug, Clone)]
pub struct Chance([u64; 4]);

impl Chance {
    /// The stream of some numbers: the same for the same, unrelated for others.
    pub fn of(numbers: &[u64]) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for number in numbers {
            state = splitmix(&mut (state ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93)));
        }
        Self(std::array::from_fn(|_| splitmix(&mut state)))
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Evenly in `(0, 1)`.
    pub fn even(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Evenly in `low..=high`.
    pub fn whole(&mut self, low: u64, high: u64) -> u64 {
        low + (self.even() * (high - low + 1) as f64) as u64
    }

    /// Whether something of this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.even() < probability
    }

    /// Exponential.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -self.even().ln() * mean
    }

    /// Normal around 0 with deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.even().ln()).sqrt() * (std::f64::consts::TAU * self.even()).cos()
    }

    /// Lognormal with this median.
    pub fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    /// Pareto from `low`, cut at `high`.
    pub fn pareto(&mut self, shape: f64, low: f64, high: f64) -> f64 {
        (low * self.even().powf(-1.0 / shape)).min(high)
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Ranks from 0, the lower the likelier, by Zipf's law.
#[derive(Debug, Clone)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// `n` ranks; the n-th weighs `n` to the minus `exponent`.
    pub fn new(n: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=n.max(1)).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        let sums: Vec<f64> = sums.collect();
        Self(sums.iter().map(|part| part / sum).collect())
    }

    /// One of them.
    pub fn draw(&self, chance: &mut Chance) -> usize {
        let at = chance.even();
        self.0.partition_point(|sum| *sum < at).min(self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(n: usize, mut draw: impl FnMut() -> f64) -> f64 {
        (0..n).map(|_| draw()).sum::<f64>() / n as f64
    }

    #[test]
    fn distributions_have_the_means_they_should() {
        let mut chance = Chance::of(&[1]);
        let n = 200_000;
        assert!((mean(n, || chance.even()) - 0.5).abs() < 0.005);
        assert!((mean(n, || chance.exponential(3.0)) - 3.0).abs() < 0.05);
        assert!((mean(n, || chance.lognormal(2.0, 0.5)) - 2.0 * (0.125_f64).exp()).abs() < 0.02);
        assert!((mean(n, || chance.pareto(3.0, 2.0, 1e9)) - 3.0).abs() < 0.05);
        assert!((mean(n, || chance.whole(5, 40) as f64) - 22.5).abs() < 0.1);
        let zipf = Zipf::new(3, 1.0);
        let firsts = mean(n, || f64::from(u8::from(zipf.draw(&mut chance) == 0)));
        assert!((firsts - 6.0 / 11.0).abs() < 0.005, "{firsts}");
    }

    #[test]
    fn the_same_numbers_give_the_same_chance() {
        let draws = |numbers: &[u64]| Chance::of(numbers).even();
        assert_eq!(draws(&[1, 2]), draws(&[1, 2]));
        assert_ne!(draws(&[1, 2]), draws(&[2, 1]));
    }
}
