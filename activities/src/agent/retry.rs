//! When to ask again: exponential backoff with full jitter, so that nodes do not return in step.

use std::time::Duration;

/// Pauses that grow.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    pub fn new((first, longest): (Duration, Duration)) -> Self {
        Self { next: first, first, longest }
    }

    /// Waits between half of the next pause and all of it; the one after it is twice as long.
    pub async fn pause(&mut self) {
        let pause = self.next.mul_f64(0.5 + 0.5 * rand::random::<f64>());
        self.next = (self.next * 2).min(self.longest);
        tokio::time::sleep(pause).await;
    }

    /// It worked: the next pause is short again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_their_limit_and_start_again() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new((second, 8 * second));
        for longest in [1, 2, 4, 8, 8] {
            let begun = Instant::now();
            backoff.pause().await;
            let pause = begun.elapsed();
            assert!(pause >= second * longest / 2 && pause <= second * longest + Duration::from_millis(2), "{pause:?}");
        }
        backoff.reset();
        let begun = Instant::now();
        backoff.pause().await;
        assert!(begun.elapsed() <= second + Duration::from_millis(2));
    }
}
