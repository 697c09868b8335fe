//! Sessions: taken from a pool, and closed when what they say cannot be trusted any more.

use super::is_connection_loss;
use sqlx::{PgConnection, PgPool, Postgres, Result, pool::PoolConnection};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a session stays away from its pool, which lets none become too old and asks whether it still answers.
const AWAY: Duration = Duration::from_secs(60);

/// A session of a pool, closed rather than given back unless it is known to be at rest: in the pool an open transaction would
/// hold its rows and take in whatever is written next, and one that has fallen silent would keep its place for ever.
#[derive(Debug)]
pub(crate) struct Session {
    db: PoolConnection<Postgres>,
    pool: PgPool,
    taken_at: Instant,
    at_rest: bool,
}

impl Session {
    /// Waits for as long as the pool allows.
    pub(crate) async fn take(pool: &PgPool) -> Result<Self> {
        match pool.acquire().await {
            Ok(db) => Ok(Self { db, pool: pool.clone(), taken_at: Instant::now(), at_rest: false }),
            Err(error) => {
                renew(pool);
                Err(error)
            }
        }
    }

    pub(crate) fn db(&mut self) -> &mut PgConnection {
        &mut self.db
    }

    /// The session has given this answer to the last thing it was asked. One that is lost is seldom lost alone: those that
    /// rest in the pool go with it.
    pub(crate) fn done<T>(mut self, answer: Result<T>) -> Result<T> {
        self.at_rest = !answer.as_ref().is_err_and(is_of_no_use);
        if !self.at_rest {
            renew(&self.pool);
        }
        answer
    }

    /// As [`Session::done`], for whoever knows by other means.
    pub(crate) fn rests(mut self, at_rest: bool) {
        self.at_rest = at_rest;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.at_rest {
            self.db.close_on_drop();
        }
    }
}

/// Sessions that somebody who writes all the time keeps between two round trips: a pool makes three of each, since it asks
/// the server before and after whether the session is alive.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pool: PgPool,
    sessions: Arc<Mutex<Vec<Session>>>,
}

impl Kept {
    pub(crate) fn of(pool: PgPool) -> Self {
        Self { pool, sessions: Arc::default() }
    }

    /// See [`Session::take`].
    pub(crate) async fn take(&self) -> Result<Session> {
        while let Some(session) = self.pop() {
            if session.taken_at.elapsed() < AWAY {
                return Ok(session);
            }
            session.rests(true);
        }
        Session::take(&self.pool).await
    }

    /// See [`Session::done`].
    pub(crate) fn done<T>(&self, session: Session, answer: Result<T>) -> Result<T> {
        if answer.as_ref().is_err_and(is_of_no_use) {
            while self.pop().is_some() {}
            return session.done(answer);
        }
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        answer
    }

    fn pop(&self) -> Option<Session> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// A server that is short of something says so by a session that is well.
fn is_of_no_use(error: &sqlx::Error) -> bool {
    let short = |e: &dyn sqlx::error::DatabaseError| e.code().is_some_and(|code| code.starts_with("53"));
    is_connection_loss(error) && !matches!(error, sqlx::Error::Database(e) if short(&**e))
}

/// What comes next goes by new sessions.
fn renew(pool: &PgPool) {
    while let Some(mut idle) = pool.try_acquire() {
        idle.close_on_drop();
    }
}
