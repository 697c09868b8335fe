//! What happens by the clock and concerns people: posts whose time has come, and what operators have to hear of.

use crate::{crashes::later, world::World};
use flatrender_engine::{
    Context, Failure, Workflow,
    schedules::{Schedules, Terms},
    testing::Stage,
    worker::Builder,
};
use flatrender_workflows::{
    definitions::{
        publish_posts::PublishPosts,
        raise_alarms::{About, RaiseAlarms},
    },
    models::DEFAULT_TENANT,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

/// A nightly job that fails, or goes on as one that does.
#[derive(Serialize, Deserialize)]
struct Nightly {
    fails: bool,
    goes_on: bool,
}

impl Workflow for Nightly {
    const NAME: &'static str = "nightly";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        match self {
            Self { goes_on: true, fails } => cx.continue_as_new(Self { goes_on: false, fails }),
            Self { fails: true, .. } => Err(Failure::permanent("night.dark", "it is too dark")),
            _ => Ok(()),
        }
    }
}

fn stage(world: &World) -> Stage {
    Stage::new(world.db.clone(), |worker: Builder| {
        worker.workflow::<PublishPosts>().workflow::<RaiseAlarms>().workflow::<Nightly>()
    })
}

/// How many things are alarming.
async fn alarms(world: &World, about: About) -> usize {
    let run = stage(world).survives_a_crash_after_every_event(RaiseAlarms { about }).await.unwrap();
    run.output_as().expect("it succeeds")
}

/// Of which things operators of the platform are told, oldest first.
async fn told(world: &World) -> Vec<String> {
    let sql = "select input #>> '{news,code}' || ' ' || coalesce(input #>> '{news,data,reason}', input #>> '{news,data,kind}')
               from workflow.runs where kind = 'notify' and tenant_id = $1 and input #>> '{news,audience}' = 'operators' order by id";
    sqlx::query_scalar(sql).bind(DEFAULT_TENANT).fetch_all(&world.db).await.unwrap()
}

/// Makes a schedule of somebody's, and runs it to its end.
async fn nightly(world: &World, tenant: Uuid, name: &str, job: Nightly) {
    let schedules = Schedules::new(stage(world).client().clone());
    let mut tx = world.db.begin().await.unwrap();
    let id = schedules.ensure(&mut tx, tenant, &Terms::of(name, "0 3 * * *", &job).unwrap()).await.unwrap();
    schedules.run_now(&mut tx, id).await.unwrap();
    tx.commit().await.unwrap();
    // The stage plays whatever there is to play until this one is over.
    while world.count("workflow.runs where kind = 'nightly' and state = 'running'").await > 0 {
        stage(world).finish(Nightly { fails: false, goes_on: false }).await.unwrap();
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_post_is_published_when_its_time_has_come(db: PgPool) {
    let world = World::new(db).await;
    let posts = "insert into content.posts (tenant_id, language_code, slug, title, state, publish_at, deleted_at)
        select '00000000-0000-0000-0000-000000000001', 'en', slug, slug, state, now() + after, gone
        from (values ('due', 'scheduled', interval '-1 minute', null), ('later', 'scheduled', '1 hour', null),
                     ('draft', 'draft', '-1 hour', null), ('gone', 'scheduled', '-1 hour', now())) p (slug, state, after, gone)";
    sqlx::raw_sql(posts).execute(&world.db).await.unwrap();
    let published = async || {
        let run = stage(&world).survives_a_crash_after_every_event(PublishPosts {}).await.unwrap();
        let slugs = "select slug || ' ' || rev from content.posts where state = 'published' order by slug";
        let slugs: Vec<String> = sqlx::query_scalar(slugs).fetch_all(&world.db).await.unwrap();
        (run.output_as::<u64>().expect("it succeeds"), slugs)
    };
    assert_eq!(published().await, (1, vec!["due 1".to_owned()]));
    assert_eq!(published().await.0, 0, "nothing is published twice");
    later(&world, Duration::from_secs(3600)).await;
    assert_eq!(published().await, (1, vec!["due 1".to_owned(), "later 1".to_owned()]));
}

#[sqlx::test(migrations = "../migrations")]
async fn operators_hear_once_a_day_of_a_schedule_that_fails_until_it_succeeds(db: PgPool) {
    let world = World::new(db).await;
    let tenant = Uuid::now_v7();
    nightly(&world, DEFAULT_TENANT, "sound", Nightly { fails: false, goes_on: false }).await;
    assert_eq!((alarms(&world, About::Schedules).await, told(&world).await), (0, vec![]));
    nightly(&world, DEFAULT_TENANT, "broken", Nightly { fails: true, goes_on: false }).await;
    nightly(&world, tenant, "broken_in_the_end", Nightly { fails: true, goes_on: true }).await;
    assert_eq!(alarms(&world, About::Schedules).await, 2);
    assert_eq!(told(&world).await, ["schedule.failed night.dark"; 2]);
    assert_eq!((alarms(&world, About::Schedules).await, told(&world).await.len()), (2, 2), "they know it");
    nightly(&world, DEFAULT_TENANT, "broken", Nightly { fails: false, goes_on: false }).await;
    assert_eq!(alarms(&world, About::Schedules).await, 1, "one is mended");
    later(&world, Duration::from_secs(86_400)).await;
    nightly(&world, tenant, "broken_in_the_end", Nightly { fails: true, goes_on: false }).await;
    assert_eq!((alarms(&world, About::Schedules).await, told(&world).await.len()), (1, 3), "another day");
}

#[sqlx::test(migrations = "../migrations")]
async fn operators_hear_of_requests_for_personal_data_whose_day_comes_near(db: PgPool) {
    let world = World::new(db).await;
    let user = world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let requests = "insert into identity.privacy_requests (tenant_id, user_id, kind, state, due_at, finished_at)
        select '00000000-0000-0000-0000-000000000001', $1, kind, state, now() + due, ended
        from (values ('export', 'requested', interval '10 days', null), ('delete', 'cooling_off', '3 days', null),
                     ('delete', 'done', '1 day', now())) r (kind, state, due, ended)";
    sqlx::query(requests).bind(user).execute(&world.db).await.unwrap();
    assert_eq!(alarms(&world, About::PrivacyRequests).await, 1);
    assert_eq!(told(&world).await, ["privacy_request.due delete"]);
    assert_eq!((alarms(&world, About::PrivacyRequests).await, told(&world).await.len()), (1, 1), "once a day");
    later(&world, Duration::from_secs(4 * 86_400)).await;
    assert_eq!(
        (alarms(&world, About::PrivacyRequests).await, told(&world).await.len()),
        (2, 3),
        "both, and one is late"
    );
}
