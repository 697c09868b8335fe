//! Text messages cost money, and somebody gets a share of it: so a number, a country and a tenant get so many a day and no more.

use crate::models::Db;
use sqlx::Acquire as _;
use uuid::Uuid;

/// To one number, on a day.
pub const OF_A_NUMBER: i32 = 10;
/// To one country, of one tenant, on a day.
pub const OF_A_COUNTRY: i32 = 500;
/// Of one tenant, on a day.
pub const OF_A_TENANT: i32 = 1000;

/// Codes of two digits; those of 1 and 7 have one, all others three (ITU-T E.164).
const TWO_DIGITS: [&str; 44] = [
    "20", "27", "30", "31", "32", "33", "34", "36", "39", "40", "41", "43", "44", "45", "46", "47", "48", "49", "51",
    "52", "53", "54", "55", "56", "57", "58", "60", "61", "62", "63", "64", "65", "66", "81", "82", "84", "86", "90",
    "91", "92", "93", "94", "95", "98",
];

/// The code of a number's country, with its `+`.
pub fn country(number: &str) -> &str {
    let digits = number.trim_start_matches('+');
    let length = match digits.get(..2) {
        _ if digits.starts_with(['1', '7']) => 1,
        Some(two) if TWO_DIGITS.contains(&two) => 2,
        _ => 3,
    };
    number.get(..=length).unwrap_or(number)
}

/// Counts one more text message to a number, unless there were as many today as there may be: then false, and nothing is counted.
///
/// # Errors
/// Those of the database.
pub async fn count(db: Db<'_>, tenant_id: Uuid, number: &str, number_hash: &[u8]) -> sqlx::Result<bool> {
    let mut attempt = db.begin().await?;
    // In one order for all, so that none waits for another in a circle.
    let counted = sqlx::query_scalar!(
        r#"with counted as (
               insert into notification.sms_counts as c (tenant_id, day, scope, what, sent)
               select $1, (workflow.now() at time zone 'UTC')::date, scope, what, 1
               from (values ('country', $2::text), ('number', $3::text), ('tenant', '')) wanted (scope, what) order by scope
               on conflict (tenant_id, day, scope, what) do update set sent = c.sent + 1
                   where c.sent < case c.scope when 'number' then $4::int when 'country' then $5::int else $6::int end
               returning 1
           )
           select count(*) = 3 as "counted!" from counted"#,
        tenant_id,
        country(number),
        hex::encode(number_hash),
        OF_A_NUMBER,
        OF_A_COUNTRY,
        OF_A_TENANT,
    )
    .fetch_one(&mut *attempt)
    .await?;
    match counted {
        true => attempt.commit().await?,
        false => attempt.rollback().await?,
    }
    Ok(counted)
}

/// Takes back one that was counted just now and not sent: nobody was called, or the provider did not want it now.
///
/// # Errors
/// Those of the database.
pub async fn uncount(db: Db<'_>, tenant_id: Uuid, country: &str, number_hash: &str) -> sqlx::Result<()> {
    // Locked in the order in which they are counted.
    sqlx::query!(
        "with counted as (
             select day, scope, what from notification.sms_counts c
             where tenant_id = $1 and (scope, what) in (('country', $2::text), ('number', $3::text), ('tenant', ''))
               and day = (select max(day) from notification.sms_counts where tenant_id = $1 and scope = 'number' and what = $3::text)
             order by scope for update of c
         )
         update notification.sms_counts c set sent = greatest(c.sent - 1, 0) from counted n
         where c.tenant_id = $1 and c.day = n.day and c.scope = n.scope and c.what = n.what",
        tenant_id,
        country,
        number_hash,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Forgets the counts of days that are over; gives how many.
///
/// # Errors
/// Those of the database.
pub async fn forget_old(db: Db<'_>) -> sqlx::Result<u64> {
    let gone =
        sqlx::query!("delete from notification.sms_counts where day < (workflow.now() at time zone 'UTC')::date - 2");
    Ok(gone.execute(db).await?.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_says_which_country_it_is_of() {
        for (number, code) in [
            ("+14155550100", "+1"),
            ("+989121234567", "+98"),
            ("+442071838750", "+44"),
            ("+79161234567", "+7"),
            ("+9715012345", "+971"),
            ("+35312345", "+353"),
            ("+1", "+1"),
        ] {
            assert_eq!(country(number), code);
        }
    }
}
