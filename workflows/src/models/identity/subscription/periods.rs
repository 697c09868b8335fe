//! When periods end, and what a change of plan within one costs.

use super::{Subscription, now};
use crate::models::Db;
use chrono::{DateTime, Datelike as _, Months, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// What a change of plan costs, at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Quote {
    /// To pay before the plan changes, in minor units; 0: it changes when the period ends, and costs nothing now.
    #[schema(example = 950)]
    pub due: i64,
    /// What is left of the old plan, in minor units.
    #[schema(example = 500)]
    pub credit: i64,
    /// What the new one costs until the period ends.
    #[schema(example = 1450)]
    pub charge: i64,
    /// ISO 4217.
    #[schema(example = "USD")]
    pub currency: String,
    /// When the plan changes.
    pub effective_at: DateTime<Utc>,
    /// What a period costs from then on.
    #[schema(example = 2900)]
    pub next_amount: i64,
}

/// The first end of a period after `end`, counted from `anchor` in steps of so many months.
pub(super) fn next_end(anchor: DateTime<Utc>, end: DateTime<Utc>, months: u32) -> Option<DateTime<Utc>> {
    let between = (end.year() - anchor.year()) * 12 + end.month() as i32 - anchor.month() as i32;
    let first = u32::try_from(between).unwrap_or_default() / months.max(1);
    (first..first.saturating_add(3)).find_map(|k| {
        let candidate = anchor.checked_add_months(Months::new(k.checked_mul(months)?))?;
        (candidate > end).then_some(candidate)
    })
}

/// A time that is paid for.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

/// What a change to a plan at `amount` a period costs now, see [`quote`].
///
/// # Errors
/// Those of the database; so with the call below.
pub async fn quote_now(db: Db<'_>, current: &Subscription, amount: i64, same_interval: bool) -> sqlx::Result<Quote> {
    let now = now(&mut *db).await?;
    let spans = spans(db, current, now).await?;
    Ok(quote(current, &spans, amount, same_interval, now))
}

/// How much of something that comes with each period is due for all that is paid for and was left at `at`: by the days that a change of
/// plan costs.
pub(super) async fn share(db: Db<'_>, current: &Subscription, each: i64, at: DateTime<Utc>) -> sqlx::Result<i64> {
    let spans = spans(db, current, at).await?;
    Ok(part(&parts(&spans, at), each))
}

/// The times that are paid for and were not over at `at`.
async fn spans(db: Db<'_>, current: &Subscription, at: DateTime<Utc>) -> sqlx::Result<Vec<Span>> {
    sqlx::query_as!(
        Span,
        "select starts_at as \"from\", ends_at as \"to\" from identity.subscription_periods
         where subscription_id = $1 and ends_at > $3 and (period_no > 0 or $2 = 0) order by period_no",
        current.id,
        current.period_no,
        at,
    )
    .fetch_all(db)
    .await
}

/// What a change to a plan at `amount` a period costs at `now`, for all that is paid for: who has paid for months ahead has the other plan
/// in all of them. Within a period only what costs more changes at once; days that have begun count whole, so that what was shown holds
/// until midnight by the period's clock.
fn quote(current: &Subscription, spans: &[Span], amount: i64, same_interval: bool, now: DateTime<Utc>) -> Quote {
    let parts = parts(spans, now);
    // A trial was paid by nobody: nothing is left of it.
    let credit = if current.period_no == 0 { 0 } else { part(&parts, current.amount) };
    let charge = part(&parts, amount);
    let due = (charge - credit).max(0);
    let at_once = same_interval && current.state == "active" && due > 0;
    let end = current.current_period_end;
    Quote {
        due: if at_once { due } else { 0 },
        credit,
        charge,
        currency: current.currency.clone(),
        effective_at: if at_once { now } else { end.max(now) },
        next_amount: amount,
    }
}

/// Days that are left of each time, of how many: a period from before the interval was changed counts by the days of the new one. One that
/// was taken back ends as it begins, and says nothing of how long a period is.
fn parts(spans: &[Span], now: DateTime<Utc>) -> Vec<(i64, i64)> {
    let days = |from: DateTime<Utc>, to: DateTime<Utc>| {
        (to - from).num_seconds().max(0).div_euclid(86_400) + i64::from((to - from).num_seconds() % 86_400 > 0)
    };
    let long = |span: &Span| days(span.from, span.to).max(1);
    let whole = spans.iter().rev().find(|span| span.to - span.from >= TimeDelta::days(1));
    let last = whole.map_or(1, long);
    let one = |span: &Span| {
        let all = Some(long(span)).filter(|all| all * 2 >= last && *all <= last * 2).unwrap_or(last);
        (days(span.from.max(now), span.to), all)
    };
    spans.iter().map(one).collect()
}

/// What these days are of something that comes with each period.
fn part(parts: &[(i64, i64)], each: i64) -> i64 {
    let one = |(left, all): &(i64, i64)| i128::from(each) * i128::from(*left) / i128::from(*all);
    i64::try_from(parts.iter().map(one).sum::<i128>()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn paid(start: &str, end: &str, amount: i64) -> Subscription {
        let (id, start, end) = (Uuid::nil(), at(start), at(end));
        Subscription {
            id,
            tenant_id: id,
            user_id: id,
            plan_id: id,
            amount,
            currency: "USD".into(),
            interval: "month".into(),
            anchored_at: start,
            period_no: 1,
            next_plan_id: None,
            state: "active".into(),
            current_period_start: start,
            current_period_end: end,
            cancel_at: None,
            past_due_since: None,
            workflow_run_id: None,
        }
    }

    fn whole(one: &Subscription) -> Vec<Span> {
        vec![Span { from: one.current_period_start, to: one.current_period_end }]
    }

    #[test]
    fn the_31st_stays_the_31st_where_a_month_has_one() {
        let anchor = at("2026-01-31T10:00:00Z");
        let mut end = anchor;
        let days: Vec<String> = (0..14)
            .map(|_| {
                end = next_end(anchor, end, 1).unwrap();
                end.format("%m-%d").to_string()
            })
            .collect();
        let expected = "02-28 03-31 04-30 05-31 06-30 07-31 08-31 09-30 10-31 11-30 12-31 01-31 02-28 03-31";
        assert_eq!(days.join(" "), expected);
        assert_eq!(
            next_end(at("2024-02-29T00:00:00Z"), at("2024-02-29T00:00:00Z"), 12),
            Some(at("2025-02-28T00:00:00Z"))
        );
        assert_eq!(
            next_end(at("2024-02-29T00:00:00Z"), at("2027-02-28T00:00:00Z"), 12),
            Some(at("2028-02-29T00:00:00Z"))
        );
    }

    #[test]
    fn a_dearer_plan_costs_what_the_days_that_are_left_cost_more() {
        let current = paid("2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z", 1000);
        let dearer = quote(&current, &whole(&current), 2900, true, at("2026-06-16T00:00:00Z"));
        assert_eq!((dearer.credit, dearer.charge, dearer.due), (500, 1450, 950));
        assert_eq!(dearer.effective_at, at("2026-06-16T00:00:00Z"));
        let later = quote(&current, &whole(&current), 2900, true, at("2026-06-16T23:59:59Z"));
        assert_eq!(later.due, 950, "a day that has begun counts whole: 14 are left and a part of one");
        assert_eq!(quote(&current, &whole(&current), i64::MAX, true, at("2026-06-01T00:00:00Z")).due, i64::MAX - 1000);
    }

    #[test]
    fn who_has_paid_for_months_ahead_pays_the_difference_for_all_of_them() {
        let mut current = paid("2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z", 1000);
        let mut spans = whole(&current);
        for month in 7..=12 {
            let to =
                if month == 12 { "2027-01-01T00:00:00Z".into() } else { format!("2026-{:02}-01T00:00:00Z", month + 1) };
            spans.push(Span { from: current.current_period_end, to: at(&to) });
            (current.period_no, current.current_period_end) = (current.period_no + 1, at(&to));
        }
        let dearer = quote(&current, &spans, 3000, true, at("2026-06-16T00:00:00Z"));
        assert_eq!((dearer.credit, dearer.charge, dearer.due), (6500, 19_500, 13_000), "half a month, and six");
        // A year that follows the last days of a month: those cost what days of a year cost.
        let spans = [
            Span { from: at("2026-06-01T00:00:00Z"), to: at("2026-07-01T00:00:00Z") },
            Span { from: at("2026-07-01T00:00:00Z"), to: at("2027-07-01T00:00:00Z") },
        ];
        let dearer = quote(&current, &spans, 36_500, true, at("2026-06-29T00:00:00Z"));
        assert_eq!((dearer.credit, dearer.charge), (1000 + 5, 36_500 + 200));
    }

    #[test]
    fn a_month_that_was_taken_back_does_not_make_the_others_dearer() {
        let mut current = paid("2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z", 1000);
        let mut spans = whole(&current);
        spans.push(Span { from: at("2026-07-01T00:00:00Z"), to: at("2026-08-01T00:00:00Z") });
        let third = at("2026-08-01T00:00:00Z");
        spans.push(Span { from: third, to: third + TimeDelta::microseconds(1) });
        (current.period_no, current.current_period_end) = (3, third + TimeDelta::microseconds(1));
        let dearer = quote(&current, &spans, 3000, true, at("2026-06-16T00:00:00Z"));
        assert_eq!((dearer.credit, dearer.charge, dearer.due), (1500, 4500, 3000), "half a month, and one");
    }

    #[test]
    fn a_cheaper_plan_or_another_interval_follows_when_the_period_ends_and_costs_nothing_now() {
        let current = paid("2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z", 1000);
        for (amount, same) in [(500, true), (1000, true), (9000, false)] {
            let quote = quote(&current, &whole(&current), amount, same, at("2026-06-16T00:00:00Z"));
            assert_eq!((quote.due, quote.effective_at, quote.next_amount), (0, current.current_period_end, amount));
        }
    }
}
