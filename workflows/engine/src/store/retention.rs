//! Retention: which partitions are old, and what becomes of them.

use crate::failpoint::{At as _, Point};
use crate::operations::{OldPiece, Piece, Retired, Series};
use sqlx::{Executor, PgConnection, PgExecutor, Result};
use std::{collections::HashSet, time::Duration};
use uuid::Uuid;

/// Partitions that ended longer than `keep` ago, newest first: what a run has become is looked at before the run.
pub(crate) async fn old_pieces(db: impl PgExecutor<'_>, series: Series, keep: Duration) -> Result<Vec<OldPiece>> {
    sqlx::query_as(
        "select p.series, t.tables[1] as name, p.suffix, p.from_at, p.until_at, c.before
         from workflow.partitions p join workflow.partitioned t using (series)
         cross join (select case $1 when 'jobs' then clock_timestamp() else workflow.now() end - make_interval(secs => $2) as before) c
         where p.series = $1 and p.until_at <= c.before order by p.from_at desc",
    )
    .bind(series)
    .bind(keep.as_secs_f64())
    .fetch_all(db)
    .at(Point::RetentionFind)
    .await
}

/// See `workflow.retire_runs` and `workflow.retire_rows`. Takes as long as it takes to read the partition.
pub(crate) async fn retire_piece(tx: &mut PgConnection, piece: &OldPiece) -> Result<Retired> {
    tx.execute("set local statement_timeout = 0").at(Point::RetentionHurry).await?;
    let went = match piece.series {
        Series::Runs => "workflow.retire_runs($2, $5)",
        Series::Jobs | Series::Fires => "workflow.retire_rows($1, $2)",
    };
    let sql = format!(
        "select $1 as series, $3 as from_at, $4 as until_at, outcome as fate, gone, kept from {went} where $5 is not null"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(piece.series)
        .bind(&piece.suffix)
        .bind(piece.from_at)
        .bind(piece.until_at)
        .bind(piece.before)
        .fetch_one(tx)
        .at(Point::RetentionRetire)
        .await
}

/// Gives the name of the first table of the series.
pub(crate) async fn partition_by(db: &mut PgConnection, series: Series, piece: Piece) -> Result<String> {
    sqlx::query_scalar("update workflow.partitioned set unit = $2 where series = $1 returning tables[1]")
        .bind(series)
        .bind(piece)
        .fetch_one(db)
        .at(Point::RetentionPartition)
        .await
}

/// Ids of the payloads outside that a row names, as of one moment. Takes as long as it takes to read everything.
pub(crate) async fn named_payloads(tx: &mut PgConnection) -> Result<HashSet<Uuid>> {
    tx.execute("set local statement_timeout = 0").await?;
    let columns = [
        ("runs", "input"),
        ("runs", "output"),
        ("steps", "output"),
        ("tasks", "input"),
        ("jobs", "input"),
        ("finished_jobs", "input"),
        ("finished_jobs", "output"),
        ("schedules", "input"),
    ];
    // A reference is never so long that it lies outside of its row itself: what does is not fetched.
    let each = columns.map(|(table, column)| {
        format!(
            "select ({column} #>> '{{$blob,id}}')::uuid from workflow.{table}
             where pg_column_size({column}) < 1000 and {column} ? '$blob'"
        )
    });
    let ids: Vec<Uuid> = sqlx::query_scalar(sqlx::AssertSqlSafe(each.join(" union all "))).fetch_all(tx).await?;
    Ok(ids.into_iter().collect())
}
