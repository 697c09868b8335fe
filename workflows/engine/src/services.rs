//! Plain apalis services as handlers: a task function, behind whatever tower layers stand around it, works on a queue of the
//! engine as it would on any other apalis backend.

use crate::{
    activity::{Activity, Attempt, Handler},
    failure::Failure,
};
use apalis_core::{
    error::{AbortError, BoxDynError, RetryAfterError},
    task::{Task, builder::TaskBuilder, task_id::TaskId},
};
use std::sync::{Mutex, PoisonError};
use tower::{Service, ServiceExt as _, timeout::error::Elapsed};

/// A service, cloned for each task as apalis does; what its layers share between clones, they share.
pub(crate) struct Plain<S>(Mutex<S>);

impl<S> Plain<S> {
    pub(crate) fn new(service: S) -> Self {
        Self(Mutex::new(service))
    }
}

impl<A, S> Handler<A> for Plain<S>
where
    A: Activity,
    S: Service<Task<A>, Response = A::Output> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxDynError>,
{
    async fn handle(&self, cx: &Attempt, input: A) -> Result<A::Output, Failure> {
        let service = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        service.oneshot(task_of(cx, input)).await.map_err(|error| sorted(error.into()))
    }
}

/// The task as apalis shows it to functions: its id, its attempt, its key, and our own [`Attempt`] for heartbeats.
fn task_of<A>(cx: &Attempt, input: A) -> Task<A> {
    let task = cx.task();
    TaskBuilder::new(input)
        .task_id(TaskId::from_int(task.task_id.unsigned_abs()))
        .attempt(usize::try_from(task.attempt_no).unwrap_or_default())
        .idempotency_key(cx.idempotency_key())
        .data(cx.clone())
        .build()
}

/// What apalis says by the type of an error, said by a failure.
fn sorted(error: BoxDynError) -> Failure {
    let error = match error.downcast::<Failure>() {
        Ok(failure) => return *failure,
        Err(error) => error,
    };
    if error.is::<AbortError>() {
        return Failure::permanent("service.aborted", error.to_string());
    }
    if let Some(later) = error.downcast_ref::<RetryAfterError>() {
        return Failure::transient("service.later", error.to_string()).after(later.get_duration());
    }
    let code = if error.is::<Elapsed>() { "service.timeout" } else { "service.failed" };
    Failure::transient(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_type_of_an_error_decides_whether_and_when_to_try_again() {
        let plain = sorted("no".into());
        assert_eq!((plain.code.as_str(), plain.retryable), ("service.failed", true));
        let aborted = sorted(Box::new(AbortError::new("never")));
        assert_eq!((aborted.code.as_str(), aborted.retryable), ("service.aborted", false));
        let later = sorted(Box::new(RetryAfterError::new("busy", Duration::from_secs(7))));
        assert_eq!((later.code.as_str(), later.retry_after_seconds), ("service.later", Some(7.0)));
        let own = sorted(Box::new(Failure::permanent("bank.refused", "no")));
        assert_eq!(own.code, "bank.refused");
        assert_eq!(sorted(Box::new(Elapsed::new())).code, "service.timeout");
    }
}
