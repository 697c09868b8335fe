//! A worker beside the server: it continues renders and does their media work. The one place besides `main.rs` where
//! workflows meet the tools of `activities`.

mod placeholders;
mod probe;
mod upkeep;
pub mod walls;

pub use placeholders::{BadSetting, Placeholders};
pub use probe::upload_probe;
pub use upkeep::Upkeep;

use crate::{identity::webhooks, render::again, vault::Vault};
use flatrender_activities::{
    dns::Resolver,
    egress::Egress,
    media::{self, Media},
    message::Mailer,
    notify::Courier,
    pay::{self, Cashier, Places},
    webhook::Caller,
};
use flatrender_engine::{
    Client, Worker,
    operations::{By, Operations, Retention, Terms},
    schedules::Schedules,
    worker::Builder,
};
use flatrender_workflows::{
    contracts::{
        dns::{DNS_QUEUE, LookUpTexts},
        media::{
            AssembleVideo, ClearShelf, DeriveFile, DrawContactSheet, EncodePart, KeepScene, MEDIA_QUEUE, MixAudio,
            TakeScenes, VerifyFrames, VerifyVideo,
        },
        message::{MESSAGE_QUEUE, SendMail},
        notify::{EMAIL_QUEUE, PUSH_QUEUE, SMS_QUEUE, SendEmail, SendPush, SendSms, SendTelegram, TELEGRAM_QUEUE},
        pay::{
            CheckGateway, CreatePayment, ExpirePayment, FetchPayment, FetchRefund, ListSettlements, ListUnsettled,
            PAY_QUEUE, RefundPayment, VerifyPayment,
        },
        snapshot::MakeStill,
        storage::{BlobStore, Shelf},
        upkeep::{ArchiveMonth, CompareShared, CompareShelf, RemoveObjects, UPKEEP_QUEUE},
        upload::{ClearUploads, TakeUpload},
        webhook::{CALL, CallSlowWebhook, CallWebhook, SLOW_WEBHOOK_QUEUE, WEBHOOK_QUEUE},
    },
    definitions::{
        check_account::CheckAccount,
        check_invariants::CheckInvariants,
        clean_up::CleanUp,
        deliver::Deliver,
        derive_film::DeriveFilm,
        drain_deletions::DrainDeletions,
        events,
        expire_exports::ExpireExports,
        expire_uploads::ExpireUploads,
        finish_upload::FinishUpload,
        forget_old::ForgetOld,
        keep_months::KeepMonths,
        limit::Limits,
        look_after_credits::LookAfterCredits,
        notify::Notify,
        payment::TakePayment,
        payment::settle,
        publish_posts::PublishPosts,
        purge_files::PurgeFiles,
        raise_alarms::RaiseAlarms,
        recheck_domains::RecheckDomains,
        reconcile::{CompareSettlements, ReconcilePayments},
        refund::{self as refunds, GiveBack},
        render_video::{RenderVideo, derive_of_abandoned},
        retire_months::RetireMonths,
        roll_up_usage::RollUpUsage,
        scan_orphans::ScanOrphans,
        scene_snapshot::SceneSnapshot,
        schedules,
        send_digests::SendDigests,
        send_message::SendMessage,
        subscription::KeepSubscription,
        webhook::TellWebhook,
    },
    models::{
        DEFAULT_TENANT, Role, Scope,
        identity::{payment::state as payments, refund, tenant_webhook_delivery},
        render::{derivative, render_job, scene_cache, snapshot_job},
        time_series,
    },
};
use sqlx::PgPool;
use std::{
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{task::spawn_blocking, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How often a worker looks for what was left behind.
const HOUSEKEEPING: Duration = Duration::from_secs(30);
/// How often it looks through the storage for what killed processes left.
const TIDYING: Duration = Duration::from_secs(24 * 3600);
/// Folders of attempts that nothing has touched for this long belong to nobody: no attempt at media work takes longer.
const STALE: Duration = Duration::from_secs(6 * 3600);

/// Letters at a time.
const LETTERS: usize = 4;
/// Messages by each channel at a time.
const MESSAGES: usize = 16;
/// Of them by one account of a tenant's, of all workers together.
const MESSAGES_OF_AN_ACCOUNT: u32 = 8;
/// Shelves that are looked at, or emptied of some objects, at a time.
const UPKEEP: usize = 2;
/// Webhooks called at a time: they wait more than they work.
const WEBHOOKS: usize = 128;
/// The same of those that take long.
const SLOW_WEBHOOKS: usize = 64;
/// Payment gateways asked at a time: they wait more than they work.
const PAYMENTS: usize = 32;
/// Names looked up at a time.
const LOOK_UPS: usize = 4;

/// Calls webhooks through `egress`; their secrets open with the key of the installation.
pub fn webhook_caller(egress: Egress, vault: Vault) -> Caller {
    Caller::new(egress.with_patience(CALL), Arc::new(move |id, sealed| vault.unseal(&webhooks::place(id), sealed).ok()))
}

/// Asks payment gateways through `egress`; what their accounts open with opens with the key of the installation.
pub fn cashier(egress: Egress, vault: Vault, places: Places) -> Cashier {
    let opener = Arc::new(move |sealed: &flatrender_workflows::contracts::notify::Sealed| {
        vault.unseal(&sealed.place, &hex::decode(&sealed.hex).ok()?).ok()
    });
    Cashier::new(egress.with_patience(pay::CALL), places, opener)
}

/// What a worker is made of.
pub struct WorkerConfig {
    /// Its database, migrated.
    pub pool: PgPool,
    /// Where bytes live.
    pub storage: Arc<dyn BlobStore>,
    /// A folder for the files of attempts.
    pub scratch: PathBuf,
    /// The program `ffmpeg`.
    pub ffmpeg: PathBuf,
    /// The program `ffprobe`.
    pub ffprobe: PathBuf,
    /// Media activities at a time; by the number of cores when absent.
    pub slots: Option<usize>,
    /// Writes and sends letters.
    pub mailer: Mailer,
    /// Calls webhooks.
    pub webhooks: Caller,
    /// Carries what people are told.
    pub courier: Courier,
    /// Asks payment gateways.
    pub cashier: Cashier,
    /// How long what is over is kept in the tables of the engine.
    pub retention: Retention,
    /// Whether stills are painted instead of rendered: in development only.
    pub placeholders: Placeholders,
    /// How long films may take that are ordered again.
    pub limits: Limits,
}

/// Why a worker cannot work.
#[derive(Debug, thiserror::Error)]
#[error("the worker ended by itself")]
pub struct WorkError(#[source] Box<dyn Error + Send + Sync>);

/// Works until `shutdown`: then what runs is finished within a grace or given back.
///
/// # Errors
/// When the runtime underneath ends by itself.
pub async fn run(config: WorkerConfig, shutdown: CancellationToken) -> Result<(), WorkError> {
    let (storage, scratch) = (config.storage.clone(), config.scratch.clone());
    let housekeeping = tokio::spawn(keep_house(config.pool.clone(), storage, scratch, placeholders::in_production()));
    let painting = tokio::spawn(config.placeholders.paint(config.pool.clone(), shutdown.clone()));
    let worked = builder(config).run(shutdown).await;
    housekeeping.abort();
    painting.abort();
    worked.map_err(|e| WorkError(Box::new(e)))
}

/// Removes what killed attempts and ended films left behind, and settles films whose run the engine gave up.
async fn keep_house(db: PgPool, storage: Arc<dyn BlobStore>, scratch: PathBuf, production: bool) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut scheduled = false;
    let mut tidying = Seldom::every(TIDYING);
    let walls = walls::tried().await;
    loop {
        ticks.tick().await;
        walls::show(walls);
        if !scheduled {
            match schedule(&db, production).await {
                Ok(()) => scheduled = true,
                Err(error) => {
                    tracing::warn!(error = error.as_ref() as &dyn Error, "cannot make the schedules of the platform")
                }
            }
        }
        let folder = scratch.clone();
        if let Ok(Err(error)) = spawn_blocking(move || media::scratch::remove_stale(&folder, "", STALE)).await {
            tracing::warn!(%error, "cannot tidy the scratch folder");
        }
        match settle_abandoned(&db).await {
            Ok(0) => {}
            Ok(films) => tracing::warn!(films, "settled films whose run the engine gave up"),
            Err(error) => {
                tracing::warn!(error = error.as_ref() as &dyn Error, "cannot look for films whose run ended")
            }
        }
        match settle_deliveries(&db).await {
            Ok(0) => {}
            Ok(deliveries) => tracing::warn!(deliveries, "settled deliveries whose run the engine gave up"),
            Err(error) => tracing::warn!(%error, "cannot look for deliveries whose run ended"),
        }
        match settle_payments(&db).await {
            Ok(0) => {}
            Ok(payments) => tracing::warn!(payments, "handed payments to people whose run the engine gave up"),
            Err(error) => {
                tracing::warn!(error = error.as_ref() as &dyn Error, "cannot look for payments whose run ended")
            }
        }
        if let Err(error) = tidy_snapshots(&db, storage.as_ref()).await {
            tracing::warn!(error = error.as_ref() as &dyn Error, "cannot tidy up after stills");
        }
        if let Err(error) = forget_scenes(&db, storage.as_ref()).await {
            tracing::warn!(error = error.as_ref() as &dyn Error, "cannot remove scenes that nobody uses any more");
        }
        if let Err(error) = tidy_films(&db, storage.as_ref()).await {
            tracing::warn!(error = error.as_ref() as &dyn Error, "cannot tidy up after films");
        }
        if tidying.is_due(Instant::now()) {
            tidy(storage.as_ref()).await;
        }
    }
}

/// What is due at the start and whenever so long has passed since.
struct Seldom {
    every: Duration,
    last: Option<Instant>,
}

impl Seldom {
    fn every(every: Duration) -> Self {
        Self { every, last: None }
    }

    /// Whether it is due; then it counts as done.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= self.every);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// Removes from the storage what killed processes left there.
async fn tidy(storage: &dyn BlobStore) {
    match storage.tidy().await {
        Ok(0) => {}
        Ok(objects) => tracing::info!(objects, "removed what killed processes had left in the storage"),
        Err(error) => tracing::warn!(error = &error as &dyn Error, "cannot tidy the storage"),
    }
}

/// Makes the platform's own schedules where they are not there yet, and the months that are missing: whoever was away for long does not
/// wait for the night.
async fn schedule(db: &PgPool, production: bool) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut tx = db.begin().await?;
    let schedules = Schedules::new(Client::new(db.clone()));
    for terms in schedules::all(production)? {
        schedules.ensure(&mut tx, DEFAULT_TENANT, &terms).await?;
    }
    tx.commit().await?;
    agree_on_turns(db).await?;
    let mut tx = Scope::platform(Role::Admin).begin(db).await?;
    let now = time_series::moment(&mut tx).await?;
    time_series::ensure_months(&mut tx, now).await?;
    Ok(tx.commit().await?)
}

/// A webhook gets one call a lane at a time, an account that carries messages a few, and tenants take turns; unless somebody has set other
/// terms. Whoever waits for one that says nothing leaves room for the others.
async fn agree_on_turns(db: &PgPool) -> Result<(), Box<dyn Error + Send + Sync>> {
    let operations = Operations::new(Client::new(db.clone()));
    let webhooks = [WEBHOOK_QUEUE, SLOW_WEBHOOK_QUEUE].map(|queue| (queue, 1));
    let messages = [EMAIL_QUEUE, PUSH_QUEUE, SMS_QUEUE, TELEGRAM_QUEUE].map(|queue| (queue, MESSAGES_OF_AN_ACCOUNT));
    for (queue, cap) in webhooks.into_iter().chain(messages) {
        if operations.terms(queue).await?.is_none() {
            let mut tx = db.begin().await?;
            let terms = Terms { key_cap: Some(cap), ..Terms::default() };
            operations.set_terms(&mut tx, &By::new("platform"), queue, &terms).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

/// Clears the shelves of ended films: a cancelled run could not, and a failed one may have been too early.
async fn tidy_films(db: &PgPool, storage: &dyn BlobStore) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut tx = Scope::platform(Role::Render).begin(db).await?;
    let films = render_job::untidied(&mut tx, 100).await?;
    drop(tx);
    for (tenant_id, render_id) in films {
        if !cleared(storage, &Shelf::Render { tenant_id, render_id }).await {
            continue;
        }
        let mut tx = Scope::tenant(Role::Render, tenant_id).begin(db).await?;
        render_job::tidied(&mut tx, render_id).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Settles stills whose run the engine gave up, and removes the frames of those that have ended: the pictures are made.
pub async fn tidy_snapshots(db: &PgPool, storage: &dyn BlobStore) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut tx = Scope::platform(Role::Render).begin(db).await?;
    let (_, ended) = snapshot_job::settle_abandoned(&mut tx).await?;
    let workflows = Client::new(db.clone());
    flatrender_workflows::definitions::scene_snapshot::tell(&workflows, &mut tx, ended).await?;
    tx.commit().await?;
    workflows.announce();
    let mut tx = Scope::platform(Role::Render).begin(db).await?;
    let ended = snapshot_job::untidied(&mut tx, 100).await?;
    drop(tx);
    let mut tidied = Vec::new();
    for (tenant_id, render_id) in ended {
        if cleared(storage, &Shelf::Render { tenant_id, render_id }).await {
            tidied.push(render_id);
        }
    }
    let mut tx = Scope::platform(Role::Render).begin(db).await?;
    snapshot_job::tidied(&mut tx, &tidied).await?;
    Ok(tx.commit().await?)
}

/// Removes what is on a shelf; false when that has to wait for another time.
async fn cleared(storage: &dyn BlobStore, shelf: &Shelf) -> bool {
    match storage.clear(shelf).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(error = &error as &dyn Error, ?shelf, "cannot clear a shelf");
            false
        }
    }
}

/// Removes scenes that nobody uses any more: their content, then what is known of it.
async fn forget_scenes(db: &PgPool, storage: &dyn BlobStore) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut tx = Scope::platform(Role::Render).begin(db).await?;
    let scenes = scene_cache::expired(&mut tx, 100).await?;
    tx.commit().await?;
    for (tenant_id, key) in scenes {
        if !cleared(storage, &Shelf::Scene { tenant_id, key: key.clone() }).await {
            continue;
        }
        let mut tx = Scope::tenant(Role::Render, tenant_id).begin(db).await?;
        scene_cache::forget(&mut tx, tenant_id, &key).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Settles films whose run the engine gave up, and has made what was ordered of those that are published.
pub async fn settle_abandoned(db: &PgPool) -> Result<usize, Box<dyn Error + Send + Sync>> {
    let workflows = Client::new(db.clone());
    let mut tx = Scope::platform(Role::Render).begin(db).await?;
    let settled = render_job::settle_abandoned(&mut tx).await?;
    for film in &settled {
        events::render_ended(&workflows, &mut tx, *film).await?;
        derive_of_abandoned(&workflows, &mut tx, *film).await?;
    }
    for film in render_job::underived(&mut tx).await? {
        derive_of_abandoned(&workflows, &mut tx, film).await?;
    }
    tx.commit().await?;
    workflows.announce();
    // In a transaction of its own: each takes the turns of tenants in order.
    let mut tx = Scope::platform(Role::Render).begin(db).await?;
    derivative::settle_abandoned(&mut tx).await?;
    tx.commit().await?;
    Ok(settled.len())
}

/// Payments and refunds whose run the engine gave up are for people to look at.
pub async fn settle_payments(db: &PgPool) -> Result<usize, Box<dyn Error + Send + Sync>> {
    let workflows = Client::new(db.clone());
    let mut tx = Scope::platform(Role::Identity).begin(db).await?;
    let settled = payments::settle_abandoned(&mut tx).await?;
    for (tenant_id, id) in &settled {
        settle::told_of_review(&workflows, &mut tx, *tenant_id, *id).await?;
    }
    let handed_over = refund::settle_abandoned(&mut tx).await?;
    for (tenant_id, id) in &handed_over {
        refunds::told(&workflows, &mut tx, *tenant_id, *id).await?;
    }
    refunds::page_operators(&workflows, &mut tx).await?;
    tx.commit().await?;
    workflows.announce();
    Ok(settled.len() + handed_over.len())
}

async fn settle_deliveries(db: &PgPool) -> sqlx::Result<u64> {
    let mut tx = Scope::platform(Role::Identity).begin(db).await?;
    let settled = tenant_webhook_delivery::settle_abandoned(&mut tx).await?;
    tx.commit().await?;
    Ok(settled)
}

/// The definitions and handlers of a worker.
fn builder(config: WorkerConfig) -> Builder {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = config.slots.unwrap_or(cores).max(1);
    let upkeep = Upkeep { storage: config.storage.clone(), db: config.pool.clone(), held: Upkeep::HELD };
    let media = Media {
        ffmpeg: config.ffmpeg,
        ffprobe: config.ffprobe,
        // One film alone uses every core; several share them by the scheduler of the machine.
        threads: cores,
        ..Media::new(config.storage, config.scratch)
    };
    Worker::builder(config.pool)
        .retention(config.retention)
        .anew(again::films(config.limits))
        .workflow::<RenderVideo>()
        .workflow::<SceneSnapshot>()
        .workflow::<DeriveFilm>()
        .workflow::<SendMessage>()
        .workflow::<TellWebhook>()
        .workflow::<Notify>()
        .workflow::<Deliver>()
        .workflow::<SendDigests>()
        .workflow::<FinishUpload>()
        .workflow::<ExpireUploads>()
        .workflow::<CleanUp>()
        .workflow::<DrainDeletions>()
        .workflow::<ScanOrphans>()
        .workflow::<ExpireExports>()
        .workflow::<PurgeFiles>()
        .workflow::<PublishPosts>()
        .workflow::<RaiseAlarms>()
        .workflow::<ForgetOld>()
        .workflow::<KeepMonths>()
        .workflow::<RetireMonths>()
        .workflow::<RollUpUsage>()
        .workflow::<RecheckDomains>()
        .workflow::<CheckInvariants>()
        .workflow::<LookAfterCredits>()
        .workflow::<KeepSubscription>()
        .workflow::<TakePayment>()
        .workflow::<GiveBack>()
        .workflow::<ReconcilePayments>()
        .workflow::<CompareSettlements>()
        .workflow::<CheckAccount>()
        .schedules()
        .queue(MEDIA_QUEUE, slots)
        .handler::<VerifyFrames>(media.clone())
        .handler::<EncodePart>(media.clone())
        .handler::<MixAudio>(media.clone())
        .handler::<AssembleVideo>(media.clone())
        .handler::<VerifyVideo>(media.clone())
        .handler::<DrawContactSheet>(media.clone())
        .handler::<MakeStill>(media.clone())
        .handler::<DeriveFile>(media.clone())
        .handler::<TakeScenes>(media.clone())
        .handler::<KeepScene>(media.clone())
        .handler::<ClearShelf>(media.clone())
        .handler::<TakeUpload>(media.clone())
        .handler::<ClearUploads>(media)
        .queue(UPKEEP_QUEUE, UPKEEP)
        .handler::<RemoveObjects>(upkeep.clone())
        .handler::<CompareShelf>(upkeep.clone())
        .handler::<CompareShared>(upkeep.clone())
        .handler::<ArchiveMonth>(upkeep)
        .queue(MESSAGE_QUEUE, LETTERS)
        .handler::<SendMail>(config.mailer)
        .queue(WEBHOOK_QUEUE, WEBHOOKS)
        .handler::<CallWebhook>(config.webhooks.clone())
        .queue(SLOW_WEBHOOK_QUEUE, SLOW_WEBHOOKS)
        .handler::<CallSlowWebhook>(config.webhooks)
        .queue(EMAIL_QUEUE, MESSAGES)
        .handler::<SendEmail>(config.courier.clone())
        .queue(PUSH_QUEUE, MESSAGES)
        .handler::<SendPush>(config.courier.clone())
        .queue(SMS_QUEUE, MESSAGES)
        .handler::<SendSms>(config.courier.clone())
        .queue(TELEGRAM_QUEUE, MESSAGES)
        .handler::<SendTelegram>(config.courier)
        .queue(PAY_QUEUE, PAYMENTS)
        .handler::<CreatePayment>(config.cashier.clone())
        .handler::<FetchPayment>(config.cashier.clone())
        .handler::<VerifyPayment>(config.cashier.clone())
        .handler::<ExpirePayment>(config.cashier.clone())
        .handler::<RefundPayment>(config.cashier.clone())
        .handler::<FetchRefund>(config.cashier.clone())
        .handler::<ListUnsettled>(config.cashier.clone())
        .handler::<ListSettlements>(config.cashier.clone())
        .handler::<CheckGateway>(config.cashier)
        .queue(DNS_QUEUE, LOOK_UPS)
        .handler::<LookUpTexts>(Resolver::system())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seldom_done_is_due_at_the_start_and_every_day() {
        let (mut tidying, start) = (Seldom::every(TIDYING), Instant::now());
        let hours = [0, 1, 23, 24, 25, 47, 48, 100];
        let due: Vec<u64> =
            hours.into_iter().filter(|hour| tidying.is_due(start + Duration::from_secs(hour * 3600))).collect();
        assert_eq!(due, [0, 24, 48, 100]);
    }
}
