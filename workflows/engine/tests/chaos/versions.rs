//! F21: a deploy with runs in flight.

use crate::{
    ledger::Ledger,
    program::Duties,
    scenario::Scenario,
    work::{Errand, effect},
};
use flatrender_engine::{Context, Failure, Workflow, client::RunState, worker::Builder};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// Which build of the workflow `voyage` a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Deployed {
    First,
    WithoutAStep,
    WithAnotherName,
    InAnotherOrder,
}

impl Deployed {
    pub fn on(self, worker: Builder, _: &Arc<Ledger>) -> Builder {
        match self {
            Self::First => worker.workflow::<First>(),
            Self::WithoutAStep => worker.workflow::<WithoutAStep>(),
            Self::WithAnotherName => worker.workflow::<WithAnotherName>(),
            Self::InAnotherOrder => worker.workflow::<InAnotherOrder>(),
        }
    }
}

macro_rules! voyage {
    ($name:ident, $cx:ident, $steps:expr) => {
        #[derive(Serialize, Deserialize)]
        struct $name {}

        impl Workflow for $name {
            const NAME: &'static str = "voyage";
            type Output = ();

            async fn run(self, $cx: &Context) -> Result<(), Failure> {
                $steps
            }
        }
    };
}

async fn step(cx: &Context, key: &str) -> Result<(), Failure> {
    let run_id = cx.run_id();
    cx.step(key, async |db| effect(db, run_id, key).await).await
}

voyage!(First, cx, {
    step(cx, "fx sail").await?;
    step(cx, "fx anchor").await?;
    cx.activity("fish", Errand::new(1)).await?;
    cx.signal::<u32>("go", "go").await?;
    step(cx, "fx home").await
});
voyage!(WithoutAStep, cx, {
    step(cx, "fx sail").await?;
    cx.activity("fish", Errand::new(1)).await?;
    cx.signal::<u32>("go", "go").await?;
    step(cx, "fx home").await
});
voyage!(WithAnotherName, cx, {
    step(cx, "fx sail").await?;
    step(cx, "fx drop anchor").await?;
    cx.activity("fish", Errand::new(1)).await?;
    cx.signal::<u32>("go", "go").await?;
    step(cx, "fx home").await
});
voyage!(InAnotherOrder, cx, {
    step(cx, "fx anchor").await?;
    step(cx, "fx sail").await?;
    cx.activity("fish", Errand::new(1)).await?;
    cx.signal::<u32>("go", "go").await?;
    step(cx, "fx home").await
});

#[tokio::test]
async fn f21_a_deploy_that_does_not_fit_parks_runs_and_the_old_code_goes_on() {
    let mut s = Scenario::new("F21", "parked as version_mismatch, nothing done meanwhile, old code resumes").await;
    let old = Duties { deployed: Some(Deployed::First), ..Duties::default() };
    for deployed in [Deployed::WithoutAStep, Deployed::WithAnotherName, Deployed::InAnotherOrder] {
        s.worker("old", old.clone());
        let mut runs = Vec::new();
        for n in 0..3 {
            runs.push(s.start(&format!("{deployed:?} {n}"), First {}).await);
        }
        for run_id in &runs {
            while s.client.history(*run_id).await.unwrap().len() < 3 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        s.stop_workers().await;
        let effects = s.count("select count(*) from effects").await;
        s.worker("new", Duties { deployed: Some(deployed), ..Duties::default() });
        for run_id in &runs {
            // The signal wakes it under code that does not fit.
            let _ = s.signal(*run_id, None, 1).await;
        }
        s.until(
            3,
            "select count(*) from workflow.tasks where parked_reason = 'version_mismatch'",
            Duration::from_secs(30),
        )
        .await;
        assert_eq!(s.count("select count(*) from effects").await, effects);
        s.check_safety().await;
        s.stop_workers().await;
        s.worker("old again", old.clone());
        for run_id in runs {
            assert_eq!(s.end(run_id, Duration::from_secs(30)).await.state, RunState::Succeeded);
        }
        s.stop_workers().await;
        s.injected(1);
    }
    s.finish(Duration::from_secs(10)).await;
}
