//! Which seconds of an account are left: one rule, since a ledger of sums says how many went and not which.

/// What an entry brought.
#[derive(Debug)]
struct Lot {
    /// The key of the entry.
    key: String,
    /// It was bought, not given.
    bought: bool,
    /// Seconds of it that are left.
    left: i64,
}

/// What entries brought, the first one first. What was given is spent before what was bought, and of each what came first.
#[derive(Debug, Default)]
pub(super) struct Lots {
    /// Those of which something is left.
    left: Vec<Lot>,
    /// What went before it had come: entries of one moment have no order.
    owed: i64,
}

impl Lots {
    /// Seconds come.
    pub(super) fn come(&mut self, key: String, seconds: i64, bought: bool) {
        let owed = self.owed.min(seconds);
        self.owed -= owed;
        self.left.push(Lot { key, bought, left: seconds - owed });
    }

    /// Seconds go: of what came under `key`, and by the rule what there is not enough of under it.
    pub(super) fn go(&mut self, seconds: i64, key: Option<&str>) {
        let mut rest = seconds;
        if let Some(key) = key {
            self.take(&mut rest, |lot| lot.key == key);
        }
        self.take(&mut rest, |lot| !lot.bought);
        self.take(&mut rest, |_| true);
        self.owed += rest;
        self.left.retain(|lot| lot.left > 0);
    }

    fn take(&mut self, rest: &mut i64, of: impl Fn(&Lot) -> bool) {
        for lot in self.left.iter_mut().filter(|lot| of(lot)) {
            let taken = lot.left.min(*rest);
            lot.left -= taken;
            *rest -= taken;
        }
    }

    /// What is left of what came under `key`.
    pub(super) fn left_of(&self, key: &str) -> i64 {
        self.left.iter().find(|lot| lot.key == key).map_or(0, |lot| lot.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Plan, pack, gift, in this order.
    fn three() -> Lots {
        let mut lots = Lots::default();
        lots.come("plan".into(), 600, false);
        lots.come("pack".into(), 3600, true);
        lots.come("gift".into(), 100, false);
        lots
    }

    fn left(lots: &Lots) -> [i64; 3] {
        ["plan", "pack", "gift"].map(|key| lots.left_of(key))
    }

    #[test]
    fn what_was_given_is_spent_before_what_was_bought_and_first_what_came_first() {
        let mut lots = three();
        lots.go(250, None);
        assert_eq!(left(&lots), [350, 3600, 100]);
        lots.go(400, None);
        assert_eq!(left(&lots), [0, 3600, 50]);
        lots.go(150, None);
        assert_eq!(left(&lots), [0, 3500, 0]);
    }

    #[test]
    fn what_goes_with_its_money_is_its_own() {
        let mut lots = three();
        lots.go(3000, Some("pack"));
        assert_eq!(left(&lots), [600, 600, 100]);
        lots.go(700, Some("plan"));
        assert_eq!(left(&lots), [0, 600, 0], "as a correction may have taken some of it before");
    }

    #[test]
    fn what_went_at_the_moment_it_came_is_not_there() {
        let mut lots = Lots::default();
        lots.go(500, None);
        lots.come("plan".into(), 600, false);
        lots.come("pack".into(), 3600, true);
        assert_eq!(left(&lots), [100, 3600, 0]);
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_sum(entries in prop::collection::vec((-500i64..500, any::<bool>(), 0usize..4), 0..60)) {
            let (mut lots, mut sum) = (Lots::default(), 0);
            for (n, (delta, flag, key)) in entries.into_iter().enumerate() {
                sum += delta;
                match delta {
                    0.. => lots.come(n.to_string(), delta, flag),
                    _ => lots.go(-delta, flag.then(|| key.to_string()).as_deref()),
                }
                prop_assert_eq!(lots.left.iter().map(|lot| lot.left).sum::<i64>() - lots.owed, sum);
            }
        }
    }
}
