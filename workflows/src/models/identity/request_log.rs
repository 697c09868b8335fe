//! Requests of tenants, written after they were answered, many at a time.

use crate::models::{
    Db,
    time_series::{self, Series},
};
use chrono::{DateTime, Utc};
use std::net::IpAddr;
use uuid::Uuid;

/// A request that was answered: the route, never a body or a query string.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When it came, by the server's clock.
    pub at: DateTime<Utc>,
    /// Its own id: written twice, it is there once.
    pub id: Uuid,
    /// The tenant whose key or person asked.
    pub tenant_id: Uuid,
    /// The key.
    pub api_key_id: Option<Uuid>,
    /// The person.
    pub user_id: Option<Uuid>,
    /// The method.
    pub method: String,
    /// The route, with names in place of ids.
    pub route: String,
    /// HTTP status.
    pub status: i16,
    /// Microseconds until the answer began.
    pub latency_us: i64,
    /// Bytes of the request's body that were read.
    pub bytes_in: i64,
    /// Bytes of the answer's body that were sent.
    pub bytes_out: i64,
    /// Where it came from.
    pub ip: Option<IpAddr>,
    /// The `x-request-id` of the answer.
    pub request_id: String,
    /// SHA-256 of the `Idempotency-Key`.
    pub idempotency_key_hash: Option<Vec<u8>>,
    /// The code of the problem that was answered.
    pub error_type: Option<String>,
}

/// Writes requests. Repeating it is harmless.
///
/// # Errors
/// Those of the database.
pub async fn write(db: Db<'_>, entries: &[Entry]) -> sqlx::Result<()> {
    let times = entries.iter().map(|e| e.at);
    for at in times.clone().min().into_iter().chain(times.max()) {
        if time_series::ensure_month(&mut *db, Series::ApiRequestLogs, at).await? {
            tracing::warn!(%at, "a month of the request log was missing and had to be made by its writer");
        }
    }
    fn column<T>(entries: &[Entry], of: impl Fn(&Entry) -> T) -> Vec<T> {
        entries.iter().map(of).collect()
    }
    sqlx::query!(
        r#"insert into identity.tenant_api_request_logs
               (at, id, tenant_id, api_key_id, user_id, method, route, status, latency_us, bytes_in, bytes_out, ip, request_id,
                idempotency_key_hash, error_type)
           select at, id, tenant_id, api_key_id, user_id, left(method, 10), left(route, 200), status, latency_us, bytes_in, bytes_out,
                  ip::inet, left(request_id, 64), idempotency_key_hash, left(error_type, 64)
           from unnest($1::timestamptz[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::smallint[], $9::bigint[],
                       $10::bigint[], $11::bigint[], $12::text[], $13::text[], $14::bytea[], $15::text[])
                as t (at, id, tenant_id, api_key_id, user_id, method, route, status, latency_us, bytes_in, bytes_out, ip, request_id,
                      idempotency_key_hash, error_type)
           on conflict do nothing"#,
        &column(entries, |e| e.at),
        &column(entries, |e| e.id),
        &column(entries, |e| e.tenant_id),
        &column(entries, |e| e.api_key_id) as _,
        &column(entries, |e| e.user_id) as _,
        &column(entries, |e| e.method.clone()),
        &column(entries, |e| e.route.clone()),
        &column(entries, |e| e.status),
        &column(entries, |e| e.latency_us),
        &column(entries, |e| e.bytes_in),
        &column(entries, |e| e.bytes_out),
        &column(entries, |e| e.ip.map(|ip| ip.to_string())) as _,
        &column(entries, |e| e.request_id.clone()),
        &column(entries, |e| e.idempotency_key_hash.clone()) as _,
        &column(entries, |e| e.error_type.clone()) as _,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Which requests to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Those of this key.
    pub api_key_id: Option<Uuid>,
    /// Those answered with this status or a higher one.
    pub min_status: Option<i16>,
    /// Those before this one.
    pub before: Option<(DateTime<Utc>, Uuid)>,
}

/// Up to `limit` requests of a tenant, newest first.
///
/// # Errors
/// Those of the database.
pub async fn list(db: Db<'_>, tenant_id: Uuid, filter: Filter, limit: i64) -> sqlx::Result<Vec<Entry>> {
    let (before_at, before_id) = filter.before.unzip();
    let rows = sqlx::query!(
        r#"select at, id, tenant_id, api_key_id, user_id, method, route, status, latency_us, bytes_in, bytes_out, host(ip) as ip,
                  request_id, idempotency_key_hash, error_type
           from identity.tenant_api_request_logs
           where tenant_id = $1 and ($2::uuid is null or api_key_id = $2) and ($3::smallint is null or status >= $3)
             and ($4::timestamptz is null or at <= $4) and ($4::timestamptz is null or (at, id) < ($4, $5::uuid))
           order by at desc, id desc limit $6"#,
        tenant_id,
        filter.api_key_id,
        filter.min_status,
        before_at,
        before_id,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| Entry {
            at: r.at,
            id: r.id,
            tenant_id: r.tenant_id,
            api_key_id: r.api_key_id,
            user_id: r.user_id,
            method: r.method,
            route: r.route,
            status: r.status,
            latency_us: r.latency_us,
            bytes_in: r.bytes_in,
            bytes_out: r.bytes_out,
            ip: r.ip.and_then(|ip| ip.parse().ok()),
            request_id: r.request_id,
            idempotency_key_hash: r.idempotency_key_hash,
            error_type: r.error_type,
        })
        .collect())
}
