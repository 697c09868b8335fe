//! Every operation of the API, asked for by everybody: who is let in and who is not. The operations come from the API's own
//! document; one without a row here fails the test.

use crate::{
    exports::publish,
    world::{Answer, World, png},
};
use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Method, Request},
};
use flatrender_workflows::models::{
    DEFAULT_TENANT,
    identity::tenant_api_key::{self, SCOPES},
};
use serde_json::Value;
use sqlx::PgPool;
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};
use uuid::Uuid;

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    /// Everybody.
    All,
    /// Who may read, or a key with this scope.
    Read(&'static str),
    /// Who may render, or a key with this scope.
    Write(&'static str),
    /// Who manages the tenant, or a key with the scope `admin`.
    Manage,
    /// Who looks at runs: the platform's people at all, others at their own.
    Watch,
    /// Who looks after runs.
    Steer,
    /// People, about themselves.
    Me,
    /// People who run the platform.
    Operate,
    /// People who administer the platform.
    Administer,
    /// Render nodes.
    Node,
}

const ROWS: &[(&str, To)] = &[
    ("DELETE /v1/api-keys/{id}", To::Manage),
    ("DELETE /v1/cleanup-schedules/{id}", To::Manage),
    ("DELETE /v1/coupons/{id}", To::Manage),
    ("DELETE /v1/credit-packs/{id}", To::Manage),
    ("DELETE /v1/domains/{id}", To::Manage),
    ("DELETE /v1/files/{id}/share-links/{link_id}", To::Write("files")),
    ("DELETE /v1/gateways/{provider}", To::Manage),
    ("DELETE /v1/identity-providers/{id}", To::Manage),
    ("DELETE /v1/me/factors/{id}", To::Me),
    ("DELETE /v1/me/identities/{id}", To::Me),
    ("DELETE /v1/me/notification-preferences/{category}/{channel}", To::Me),
    ("DELETE /v1/me/push-subscriptions/{id}", To::Me),
    ("DELETE /v1/me/sessions/{id}", To::Me),
    ("DELETE /v1/me/telegram", To::Me),
    ("DELETE /v1/members/{id}", To::Manage),
    ("DELETE /v1/notification-accounts/{id}", To::Manage),
    ("DELETE /v1/notification-defaults/{category}/{channel}", To::Manage),
    ("DELETE /v1/notification-suppressions/{channel}/{hash}", To::Manage),
    ("DELETE /v1/notification-templates/{kind}/{channel}/{language}", To::Manage),
    ("DELETE /v1/notifications/{id}", To::Me),
    ("DELETE /v1/platform/nodes/tokens/{id}", To::Administer),
    ("DELETE /v1/templates/{slug}/svg-previews/{id}", To::Write("templates")),
    ("DELETE /v1/uploads/{id}", To::Write("files")),
    ("DELETE /v1/webhooks/{id}", To::Manage),
    ("GET /healthz", To::All),
    ("GET /metrics", To::All),
    ("GET /public/{tenant_id}/{sha256}", To::All),
    ("GET /readyz", To::All),
    ("GET /share/{token}", To::All),
    ("GET /snap/{sha256}", To::All),
    ("GET /v1/achievements", To::Me),
    ("GET /v1/achievements/{id}", To::Read("admin")),
    ("GET /v1/api-keys", To::Manage),
    ("GET /v1/audit", To::Manage),
    ("GET /v1/auth/openid", To::All),
    ("GET /v1/branding", To::All),
    ("GET /v1/branding/{slug}/favicon", To::All),
    ("GET /v1/branding/{slug}/logo", To::All),
    ("GET /v1/cleanup-runs/{id}", To::Manage),
    ("GET /v1/cleanup-runs/{id}/files", To::Manage),
    ("GET /v1/cleanup-schedules", To::Manage),
    ("GET /v1/cleanup-schedules/{id}", To::Manage),
    ("GET /v1/cleanup-schedules/{id}/runs", To::Manage),
    ("GET /v1/coupons", To::Manage),
    ("GET /v1/coupons/{id}", To::Manage),
    ("GET /v1/credit-packs", To::Me),
    ("GET /v1/credits", To::Read("admin")),
    ("GET /v1/credits/ledger", To::Read("admin")),
    ("GET /v1/domains", To::Manage),
    ("GET /v1/exports/{id}", To::Read("render")),
    ("GET /v1/exports/{id}/contact-sheet", To::Read("render")),
    ("GET /v1/exports/{id}/derivatives/{kind}", To::Read("render")),
    ("GET /v1/exports/{id}/download", To::Read("render")),
    ("GET /v1/files", To::Read("files")),
    ("GET /v1/files/{id}", To::Read("files")),
    ("GET /v1/files/{id}/content", To::Read("files")),
    ("GET /v1/files/{id}/share-links", To::Read("files")),
    ("GET /v1/folders", To::Read("files")),
    ("GET /v1/folders/{id}", To::Read("files")),
    ("GET /v1/gateways", To::Manage),
    ("GET /v1/gift-catalogue", To::Manage),
    ("GET /v1/gift-catalogue/{id}", To::Manage),
    ("GET /v1/gifts", To::Me),
    ("GET /v1/identity-providers", To::Manage),
    ("GET /v1/identity-providers/{id}", To::Manage),
    ("GET /v1/invoices", To::Read("admin")),
    ("GET /v1/invoices/{id}", To::Read("admin")),
    ("GET /v1/invoices/{id}/pdf", To::Read("admin")),
    ("GET /v1/me", To::Me),
    ("GET /v1/me/factors", To::Me),
    ("GET /v1/me/identities", To::Me),
    ("GET /v1/me/notification-preferences", To::Me),
    ("GET /v1/me/points", To::Me),
    ("GET /v1/me/progress", To::Me),
    ("GET /v1/me/push-key", To::Me),
    ("GET /v1/me/push-subscriptions", To::Me),
    ("GET /v1/me/sessions", To::Me),
    ("GET /v1/me/telegram", To::Me),
    ("GET /v1/members", To::Manage),
    ("GET /v1/members/{id}/storage", To::Manage),
    ("GET /v1/nodes/tasks/{task_id}/frames", To::Node),
    ("GET /v1/nodes/tasks/{task_id}/inputs/{sha256}", To::Node),
    ("GET /v1/notification-accounts", To::Manage),
    ("GET /v1/notification-defaults", To::Manage),
    ("GET /v1/notification-suppressions", To::Manage),
    ("GET /v1/notification-templates", To::Manage),
    ("GET /v1/notifications", To::Me),
    ("GET /v1/notifications/counts", To::Me),
    ("GET /v1/notifications/events", To::Me),
    ("GET /v1/operate/audit", To::Watch),
    ("GET /v1/operate/bulk", To::Watch),
    ("GET /v1/operate/bulk/{id}", To::Watch),
    ("GET /v1/operate/bulk/{id}/items", To::Watch),
    ("GET /v1/operate/dead-letters", To::Watch),
    ("GET /v1/operate/events", To::Watch),
    ("GET /v1/operate/failures", To::Watch),
    ("GET /v1/operate/failures/{fingerprint}", To::Watch),
    ("GET /v1/operate/now", To::Watch),
    ("GET /v1/operate/queues", To::Operate),
    ("GET /v1/operate/runs", To::Watch),
    ("GET /v1/operate/runs/{id}", To::Watch),
    ("GET /v1/operate/runs/{id}/film", To::Watch),
    ("GET /v1/operate/runs/{id}/last-frame", To::Watch),
    ("GET /v1/operate/runs/{id}/steps", To::Watch),
    ("GET /v1/operate/versions", To::Operate),
    ("GET /v1/payment-differences", To::Manage),
    ("GET /v1/payment-differences/{id}", To::Manage),
    ("GET /v1/payments", To::Read("admin")),
    ("GET /v1/payments/{id}", To::Read("admin")),
    ("GET /v1/payments/{id}/return", To::All),
    ("GET /v1/plans", To::Read("admin")),
    ("GET /v1/plans/versions", To::Manage),
    ("GET /v1/plans/{id}", To::Read("admin")),
    ("GET /v1/platform/holds", To::Operate),
    ("GET /v1/platform/nodes", To::Operate),
    ("GET /v1/platform/nodes/tokens", To::Operate),
    ("GET /v1/platform/nodes/{id}", To::Operate),
    ("GET /v1/platform/nodes/{id}/crashes", To::Operate),
    ("GET /v1/platform/nodes/{id}/health", To::Operate),
    ("GET /v1/platform/schedules", To::Operate),
    ("GET /v1/platform/schedules/{id}", To::Operate),
    ("GET /v1/platform/tenants", To::Operate),
    ("GET /v1/platform/tenants/{id}", To::Operate),
    ("GET /v1/platform/tenants/{id}/usage", To::Operate),
    ("GET /v1/referrals", To::Me),
    ("GET /v1/refunds", To::Manage),
    ("GET /v1/refunds/{id}", To::Manage),
    ("GET /v1/renders", To::Read("render")),
    ("GET /v1/renders/{id}", To::Read("render")),
    ("GET /v1/renders/{id}/events", To::Read("render")),
    ("GET /v1/renders/{id}/last-frame", To::Read("render")),
    ("GET /v1/request-logs", To::Manage),
    ("GET /v1/scene-snapshots/{project_id}", To::Manage),
    ("GET /v1/subscription", To::Me),
    ("GET /v1/subscription/change", To::Me),
    ("GET /v1/subscriptions", To::Manage),
    ("GET /v1/templates", To::Read("templates")),
    ("GET /v1/templates/{slug}", To::Read("templates")),
    ("GET /v1/templates/{slug}/preview", To::Read("templates")),
    ("GET /v1/templates/{slug}/svg-previews", To::Read("templates")),
    ("GET /v1/templates/{slug}/svg-previews/{id}/svg", To::Read("templates")),
    ("GET /v1/tenant", To::Read("admin")),
    ("GET /v1/tenant/branding", To::Read("admin")),
    ("GET /v1/tenant/quotas", To::Read("admin")),
    ("GET /v1/unsubscribe", To::All),
    ("GET /v1/uploads/{id}", To::Read("files")),
    ("GET /v1/uploads/{id}/parts", To::Read("files")),
    ("GET /v1/usage", To::Read("admin")),
    ("GET /v1/webhook-events", To::Manage),
    ("GET /v1/webhooks", To::Manage),
    ("GET /v1/webhooks/{id}", To::Manage),
    ("GET /v1/webhooks/{id}/deliveries", To::Manage),
    ("GET /v1/webhooks/{id}/deliveries/{delivery_id}", To::Manage),
    ("HEAD /v1/nodes/tasks/{task_id}/frames/{sha256}", To::Node),
    ("HEAD /v1/uploads/{id}", To::Read("files")),
    ("OPTIONS /v1/uploads", To::All),
    ("PATCH /v1/achievements/{id}", To::Manage),
    ("PATCH /v1/coupons/{id}", To::Manage),
    ("PATCH /v1/files/{id}", To::Write("files")),
    ("PATCH /v1/folders/{id}", To::Write("files")),
    ("PATCH /v1/gift-catalogue/{id}", To::Manage),
    ("PATCH /v1/identity-providers/{id}", To::Manage),
    ("PATCH /v1/me", To::Me),
    ("PATCH /v1/me/factors/{id}", To::Me),
    ("PATCH /v1/notification-accounts/{id}", To::Manage),
    ("PATCH /v1/notifications/{id}", To::Me),
    ("PATCH /v1/templates/{slug}/svg-previews/{id}", To::Write("templates")),
    ("PATCH /v1/tenant", To::Manage),
    ("PATCH /v1/uploads/{id}", To::Write("files")),
    ("PATCH /v1/webhooks/{id}", To::Manage),
    ("POST /v1/achievements", To::Manage),
    ("POST /v1/api-keys", To::Manage),
    ("POST /v1/api-keys/{id}/rotate", To::Manage),
    ("POST /v1/auth/forgot-password", To::All),
    ("POST /v1/auth/openid/finish", To::All),
    ("POST /v1/auth/openid/start", To::All),
    ("POST /v1/auth/refresh", To::All),
    ("POST /v1/auth/register", To::All),
    ("POST /v1/auth/reset-password", To::All),
    ("POST /v1/auth/second-step", To::All),
    ("POST /v1/auth/sign-in", To::All),
    ("POST /v1/auth/sign-out", To::Me),
    ("POST /v1/auth/step-up", To::Me),
    ("POST /v1/auth/step-up/options", To::Me),
    ("POST /v1/auth/verify-email", To::All),
    ("POST /v1/cleanup-runs/{id}/actions", To::Manage),
    ("POST /v1/cleanup-schedules", To::Manage),
    ("POST /v1/cleanup-schedules/{id}/runs", To::Manage),
    ("POST /v1/coupons", To::Manage),
    ("POST /v1/coupons/check", To::Me),
    ("POST /v1/credit-packs", To::Manage),
    ("POST /v1/domains", To::Manage),
    ("POST /v1/domains/{id}/verify", To::Manage),
    ("POST /v1/exports/{id}/derivatives/{kind}", To::Write("render")),
    ("POST /v1/exports/{id}/links", To::Write("render")),
    ("POST /v1/files", To::Write("files")),
    ("POST /v1/files/{id}/links", To::Write("files")),
    ("POST /v1/files/{id}/restore", To::Write("files")),
    ("POST /v1/files/{id}/share-links", To::Write("files")),
    ("POST /v1/files/{id}/trash", To::Write("files")),
    ("POST /v1/folders", To::Write("files")),
    ("POST /v1/folders/{id}/restore", To::Write("files")),
    ("POST /v1/folders/{id}/trash", To::Write("files")),
    ("POST /v1/gateways/{provider}/rotate", To::Manage),
    ("POST /v1/gateways/{provider}/webhook/{account}", To::All),
    ("POST /v1/gift-catalogue", To::Manage),
    ("POST /v1/gift-catalogue/{id}/give", To::Manage),
    ("POST /v1/gifts/{id}/claim", To::Me),
    ("POST /v1/identity-providers", To::Manage),
    ("POST /v1/invoices/{id}/send", To::Read("admin")),
    ("POST /v1/me/email", To::Me),
    ("POST /v1/me/factors/totp", To::Me),
    ("POST /v1/me/factors/webauthn", To::Me),
    ("POST /v1/me/factors/webauthn/options", To::Me),
    ("POST /v1/me/factors/{id}/confirm", To::Me),
    ("POST /v1/me/identities/finish", To::Me),
    ("POST /v1/me/identities/start", To::Me),
    ("POST /v1/me/password", To::Me),
    ("POST /v1/me/push-subscriptions", To::Me),
    ("POST /v1/me/telegram", To::Me),
    ("POST /v1/members", To::Manage),
    ("POST /v1/members/{id}/credits", To::Manage),
    ("POST /v1/nodes/claims", To::Node),
    ("POST /v1/nodes/credential", To::Node),
    ("POST /v1/nodes/enrol", To::All),
    ("POST /v1/nodes/health", To::Node),
    ("POST /v1/nodes/hello", To::Node),
    ("POST /v1/nodes/probe", To::Node),
    ("POST /v1/nodes/tasks/{task_id}/complete", To::Node),
    ("POST /v1/nodes/tasks/{task_id}/fail", To::Node),
    ("POST /v1/nodes/tasks/{task_id}/frames", To::Node),
    ("POST /v1/nodes/tasks/{task_id}/release", To::Node),
    ("POST /v1/nodes/tasks/{task_id}/renew", To::Node),
    ("POST /v1/notification-accounts", To::Manage),
    ("POST /v1/notification-broadcasts", To::Manage),
    ("POST /v1/notification-feedback/{account}/{mark}", To::All),
    ("POST /v1/notification-templates/{kind}/{channel}/{language}/preview", To::Manage),
    ("POST /v1/notifications/read-all", To::Me),
    ("POST /v1/operate/bulk", To::Steer),
    ("POST /v1/operate/bulk/{id}/actions", To::Steer),
    ("POST /v1/operate/queues/{queue}/actions", To::Operate),
    ("POST /v1/operate/runs/{id}/actions", To::Steer),
    ("POST /v1/payment-decisions/{id}/confirm", To::Manage),
    ("POST /v1/payment-decisions/{id}/refuse", To::Manage),
    ("POST /v1/payment-differences/{id}/confirm", To::Manage),
    ("POST /v1/payment-differences/{id}/explain", To::Manage),
    ("POST /v1/payments", To::Me),
    ("POST /v1/payments/{id}/cancel", To::Me),
    ("POST /v1/payments/{id}/decisions", To::Manage),
    ("POST /v1/payments/{id}/refunds", To::Manage),
    ("POST /v1/payments/{id}/verify", To::Manage),
    ("POST /v1/plans", To::Manage),
    ("POST /v1/plans/{id}/activate", To::Manage),
    ("POST /v1/plans/{id}/retire", To::Manage),
    ("POST /v1/platform/holds/{id}/release", To::Administer),
    ("POST /v1/platform/nodes/tokens", To::Administer),
    ("POST /v1/platform/nodes/{id}/actions", To::Administer),
    ("POST /v1/platform/schedules/{id}/actions", To::Administer),
    ("POST /v1/platform/tenants", To::Administer),
    ("POST /v1/platform/tenants/{id}/close", To::Administer),
    ("POST /v1/platform/tenants/{id}/credits", To::Administer),
    ("POST /v1/platform/tenants/{id}/holds", To::Administer),
    ("POST /v1/platform/tenants/{id}/resume", To::Administer),
    ("POST /v1/platform/tenants/{id}/suspend", To::Administer),
    ("POST /v1/platform/tenants/{id}/usage-corrections", To::Administer),
    ("POST /v1/referrals", To::Me),
    ("POST /v1/referrals/join", To::Me),
    ("POST /v1/refunds/{id}/approve", To::Manage),
    ("POST /v1/refunds/{id}/decisions", To::Manage),
    ("POST /v1/refunds/{id}/refuse", To::Manage),
    ("POST /v1/renders", To::Write("render")),
    ("POST /v1/renders/batch", To::Write("render")),
    ("POST /v1/renders/{id}/cancel", To::Write("render")),
    ("POST /v1/scene-snapshots/{project_id}", To::Manage),
    ("POST /v1/subscription/cancel", To::Me),
    ("POST /v1/subscription/change", To::Me),
    ("POST /v1/subscription/resume", To::Me),
    ("POST /v1/subscription/trial", To::Me),
    ("POST /v1/templates/{slug}/svg-previews", To::Write("templates")),
    ("POST /v1/trash/empty", To::Write("files")),
    ("POST /v1/unsubscribe", To::All),
    ("POST /v1/uploads", To::Write("files")),
    ("POST /v1/uploads/direct", To::Write("files")),
    ("POST /v1/uploads/{id}", To::Write("files")),
    ("POST /v1/uploads/{id}/complete", To::Write("files")),
    ("POST /v1/uploads/{id}/parts/{number}", To::Write("files")),
    ("POST /v1/webhooks", To::Manage),
    ("POST /v1/webhooks/{id}/deliveries/{delivery_id}/replay", To::Manage),
    ("POST /v1/webhooks/{id}/replay", To::Manage),
    ("POST /v1/webhooks/{id}/rotate-secret", To::Manage),
    ("POST /v1/webhooks/{id}/test", To::Manage),
    ("PUT /v1/cleanup-schedules/{id}", To::Manage),
    ("PUT /v1/credits/terms", To::Manage),
    ("PUT /v1/gateways/{provider}", To::Manage),
    ("PUT /v1/me/marketing-consent", To::Me),
    ("PUT /v1/me/notification-preferences/{category}/{channel}", To::Me),
    ("PUT /v1/members/{id}/roles", To::Manage),
    ("PUT /v1/members/{id}/storage", To::Manage),
    ("PUT /v1/nodes/tasks/{task_id}/frames/{sha256}", To::Node),
    ("PUT /v1/notification-defaults/{category}/{channel}", To::Manage),
    ("PUT /v1/notification-templates/{kind}/{channel}/{language}", To::Manage),
    ("PUT /v1/platform/tenants/{id}/limits/{name}", To::Administer),
    ("PUT /v1/tenant/branding", To::Manage),
];

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Nobody,
    Viewer,
    Editor,
    Owner,
    StrangersOwner,
    Key,
    KeyOfAll,
    StrangersKey,
    RevokedKey,
    OldToken,
    SuspendedOwner,
    SuspendedKey,
    Operator,
    Admin,
    Node,
}

const EVERYBODY: [By; 15] = [
    By::Nobody,
    By::Viewer,
    By::Editor,
    By::Owner,
    By::StrangersOwner,
    By::Key,
    By::KeyOfAll,
    By::StrangersKey,
    By::RevokedKey,
    By::OldToken,
    By::SuspendedOwner,
    By::SuspendedKey,
    By::Operator,
    By::Admin,
    By::Node,
];

/// The code of the refusal; none when they are let in.
fn refusal(to: To, by: By, method: &Method) -> Option<&'static str> {
    let is_key = matches!(by, By::Key | By::KeyOfAll | By::StrangersKey | By::SuspendedKey);
    let suspended = matches!(by, By::SuspendedOwner | By::SuspendedKey) && !method.is_safe();
    let lacks = |scope: &str| by == By::Key && !["render", "files", "templates"].contains(&scope);
    match (to, by) {
        (To::All, _) => None,
        (_, By::Nobody) => Some("auth.missing"),
        (To::Node, By::Node) => None,
        (To::Node, _) | (_, By::Node | By::RevokedKey | By::OldToken) => Some("auth.invalid"),
        (To::Me, _) => is_key.then_some("auth.invalid"),
        (To::Read(scope) | To::Write(scope), _) if is_key && lacks(scope) => Some("auth.scope"),
        (To::Manage, By::Key) => Some("auth.scope"),
        (To::Operate | To::Administer, By::Key) => Some("auth.scope"),
        (To::Operate | To::Administer, By::SuspendedKey) if suspended => Some("tenant.suspended"),
        (To::Watch | To::Steer, By::Key) => Some("auth.scope"),
        (To::Steer, By::Viewer | By::Editor) => Some("auth.forbidden"),
        (To::Watch | To::Steer, _) => suspended.then_some("tenant.suspended"),
        (To::Read(_) | To::Write(_) | To::Manage, By::Operator | By::Admin) => Some("auth.forbidden"),
        (To::Write(_), By::Viewer) => Some("auth.forbidden"),
        (To::Manage, By::Viewer | By::Editor) => Some("auth.forbidden"),
        (To::Read(_) | To::Write(_) | To::Manage, _) => suspended.then_some("tenant.suspended"),
        (To::Operate, By::Operator | By::Admin) | (To::Administer, By::Admin) => None,
        (To::Operate | To::Administer, _) => Some("auth.forbidden"),
    }
}

struct Cast<'a> {
    world: &'a World,
    viewer: Uuid,
    editor: Uuid,
    owner: Uuid,
    operator: Uuid,
    admin: Uuid,
    stranger: (Uuid, Uuid, String),
    suspended: (Uuid, Uuid, String),
    key: String,
    key_of_all: String,
    revoked: String,
    old: String,
    node: String,
}

static PEERS: AtomicU32 = AtomicU32::new(1);

async fn member(world: &World, tenant_id: Uuid, name: &str, role: &str) -> Uuid {
    world.person(tenant_id, &format!("{name}@example.com"), &[role]).await
}

async fn other(world: &World, slug: &str) -> (Uuid, Uuid, String) {
    let id = world.tenant(slug).await;
    (id, member(world, id, &format!("{slug}-owner"), "owner").await, world.key_for(id, &SCOPES).await.1)
}

impl<'a> Cast<'a> {
    async fn new(world: &'a World) -> Self {
        let suspended = other(world, "suspended").await;
        let sql = "update identity.tenants set status = 'suspended', suspended_reason = 'unpaid' where id = $1";
        sqlx::query(sql).bind(suspended.0).execute(&world.db).await.unwrap();
        let (revoked_id, revoked) = world.key_for(DEFAULT_TENANT, &SCOPES).await;
        let mut db = world.db.acquire().await.unwrap();
        tenant_api_key::revoke(&mut db, DEFAULT_TENANT, revoked_id).await.unwrap();
        drop(db);
        let owner = member(world, DEFAULT_TENANT, "owner", "owner").await;
        let old = world.session(DEFAULT_TENANT, owner).await;
        let sql = "update identity.user_sessions set access_expires_at = workflow.now() - interval '1 second'";
        sqlx::query(sql).execute(&world.db).await.unwrap();
        Self {
            viewer: member(world, DEFAULT_TENANT, "viewer", "viewer").await,
            editor: member(world, DEFAULT_TENANT, "editor", "editor").await,
            operator: member(world, DEFAULT_TENANT, "operator", "platform_operator").await,
            admin: member(world, DEFAULT_TENANT, "admin", "platform_admin").await,
            stranger: other(world, "stranger").await,
            key: world.key_for(DEFAULT_TENANT, &["render", "files", "templates"]).await.1,
            key_of_all: world.key_for(DEFAULT_TENANT, &SCOPES).await.1,
            node: world.node("node").await.credential,
            world,
            owner,
            suspended,
            revoked,
            old,
        }
    }

    /// A credential; people get a session of their own for each request.
    async fn credential(&self, by: By) -> Option<String> {
        let here = async |user| Some(self.world.session(DEFAULT_TENANT, user).await);
        match by {
            By::Nobody => None,
            By::Viewer => here(self.viewer).await,
            By::Editor => here(self.editor).await,
            By::Owner => here(self.owner).await,
            By::Operator => here(self.operator).await,
            By::Admin => here(self.admin).await,
            By::StrangersOwner => Some(self.world.session(self.stranger.0, self.stranger.1).await),
            By::SuspendedOwner => Some(self.world.session(self.suspended.0, self.suspended.1).await),
            By::StrangersKey => Some(self.stranger.2.clone()),
            By::SuspendedKey => Some(self.suspended.2.clone()),
            By::Key => Some(self.key.clone()),
            By::KeyOfAll => Some(self.key_of_all.clone()),
            By::RevokedKey => Some(self.revoked.clone()),
            By::OldToken => Some(self.old.clone()),
            By::Node => Some(self.node.clone()),
        }
    }

    async fn ask(&self, by: By, method: &Method, path: &str, body: &str) -> Answer {
        // Everybody comes from another address: who is refused is refused for what they are, not for how often.
        let n = PEERS.fetch_add(1, Ordering::Relaxed);
        let peer = SocketAddr::from(([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 1234));
        let mut request = Request::builder().method(method).uri(path).extension(ConnectInfo(peer));
        if let Some(credential) = self.credential(by).await {
            request = request.header("authorization", format!("Bearer {credential}"));
        }
        if !method.is_safe() {
            request = request.header("content-type", "application/json");
        }
        self.world.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }
}

/// A path with ids of nothing.
fn path_of(template: &str) -> String {
    let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let path = template.replace("{id}", &Uuid::now_v7().to_string()).replace("{slug}", "tiny");
    path.replace("{task_id}", "1")
        .replace("{sha256}", hash)
        .replace("{tenant_id}", &Uuid::now_v7().to_string())
        .replace("{name}", "requests")
        .replace("{project_id}", &Uuid::now_v7().to_string())
        .replace("{kind}", "poster")
        .replace("{link_id}", &Uuid::now_v7().to_string())
        .replace("{delivery_id}", &Uuid::now_v7().to_string())
        .replace("{queue}", "media")
        .replace("{fingerprint}", "none:0")
        .replace("{token}", "fr_share_of_nobody")
        .replace("{number}", "1")
        .replace("{category}", "renders")
        .replace("{channel}", "email")
        .replace("{language}", "en")
        .replace("{account}", &Uuid::now_v7().to_string())
        .replace("{provider}", "stripe")
        .replace("{mark}", hash)
        .replace("{hash}", hash)
}

fn rows() -> impl Iterator<Item = (Method, &'static str, To)> {
    ROWS.iter().map(|(operation, to)| {
        let (method, path) = operation.split_once(' ').unwrap();
        (method.parse().unwrap(), path, *to)
    })
}

#[sqlx::test(migrations = "../migrations")]
async fn every_operation_says_who_is_let_in(db: PgPool) {
    let world = World::new(db).await;
    let document = world.get("/openapi.json").await.json();
    let mut documented: Vec<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let mut known: Vec<String> = rows().map(|(method, path, _)| format!("{method} {path}")).collect();
    documented.sort();
    known.sort();
    assert_eq!(documented, known, "each operation has one row");
}

#[sqlx::test(migrations = "../migrations")]
async fn everybody_is_let_in_where_they_belong_and_nowhere_else(db: PgPool) {
    let world = World::new(db).await;
    let cast = Cast::new(&world).await;
    let mut wrong = vec![];
    for (method, path, to) in rows() {
        for by in EVERYBODY {
            let body = if method.is_safe() { "" } else { "[]" };
            let answer = cast.ask(by, &method, &path_of(path), body).await;
            let status = answer.status.as_u16();
            let expected = refusal(to, by, &method);
            // The answer to HEAD has no body.
            let code = (method != Method::HEAD && status >= 400).then(|| answer.json()["code"].to_string());
            let refused = matches!(status, 401 | 403) && code.as_deref() != Some("\"node.token_invalid\"");
            let fits = match expected {
                Some(expected) => refused && code.is_none_or(|code| code == format!("{expected:?}")),
                None => !refused && status < 500 && status != 429,
            };
            if !fits {
                wrong.push(format!("{method} {path} by {by:?}: {status}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[sqlx::test(migrations = "../migrations")]
async fn what_belongs_to_another_cannot_be_told_from_what_is_not_there(db: PgPool) {
    let world = World::new(db).await;
    let cast = Cast::new(&world).await;
    let render = world.order().await.to_string();
    let file = world.upload("logo.png", png([1, 2, 3])).await.json()["id"].as_str().unwrap().to_owned();
    let folder =
        world.post("/v1/folders", serde_json::json!({"name": "Films"})).await.json()["id"].as_str().unwrap().to_owned();
    let export = publish(&world, render.parse().unwrap(), b"a film").await.to_string();
    let (key_id, _) = world.key_for(DEFAULT_TENANT, &["render"]).await;
    let hook = serde_json::json!({"url": "https://example.com/"}).to_string();
    let hook =
        cast.ask(By::KeyOfAll, &Method::POST, "/v1/webhooks", &hook).await.json()["id"].as_str().unwrap().to_owned();
    let domain = serde_json::json!({"hostname": "films.acme.example"}).to_string();
    let domain =
        cast.ask(By::KeyOfAll, &Method::POST, "/v1/domains", &domain).await.json()["id"].as_str().unwrap().to_owned();
    let provider = crate::openid::provider_row(&world).await.to_string();
    world.session(DEFAULT_TENANT, cast.viewer).await;
    let session_id: Uuid = sqlx::query_scalar("select id from identity.user_sessions where user_id = $1 limit 1")
        .bind(cast.viewer)
        .fetch_one(&world.db)
        .await
        .unwrap();
    let (member, session_id, key_id) = (cast.viewer.to_string(), session_id.to_string(), key_id.to_string());
    let theirs = |path: &str| -> Option<String> {
        Some(match path.split('/').nth(2)? {
            "renders" => render.clone(),
            "files" => file.clone(),
            "folders" => folder.clone(),
            "exports" => export.clone(),
            "api-keys" => key_id.clone(),
            "members" => member.clone(),
            "domains" => domain.clone(),
            "webhooks" => hook.clone(),
            "identity-providers" => provider.clone(),
            "me" if path.contains("sessions") => session_id.clone(),
            _ => return None,
        })
    };
    let before: i64 = world.count("identity.audit_log").await;
    let mut seen = 0;
    for (method, path, _) in rows().filter(|(_, path, _)| path.contains("{id}")) {
        let Some(id) = theirs(path) else { continue };
        let body = match path.rsplit('/').next() {
            Some("roles") => r#"{"roles": []}"#,
            Some("credits") => r#"{"seconds": 5, "reason": "a present"}"#,
            _ => "{}",
        };
        let path = &path.replace("{kind}", "poster").replace("{link_id}", &Uuid::now_v7().to_string());
        let path = &path.replace("{delivery_id}", &Uuid::now_v7().to_string());
        for by in [By::StrangersOwner, By::StrangersKey] {
            if by == By::StrangersKey && path.contains("/me/") {
                continue;
            }
            let real = cast.ask(by, &method, &path.replace("{id}", &id), body).await;
            let none = cast.ask(by, &method, &path.replace("{id}", &Uuid::now_v7().to_string()), body).await;
            assert_eq!((real.status.as_u16(), none.status), (404, real.status), "{method} {path} {:?}", real.body);
            let plain = |answer: &Answer| {
                let mut json = answer.json();
                json["instance"] = Value::Null;
                json.to_string()
            };
            assert_eq!(plain(&real), plain(&none), "{method} {path}");
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen}");
    assert_eq!(world.count("identity.audit_log").await, before, "nothing was done");
    let live = "identity.tenant_api_keys where revoked_at is null and name = 'k' and tenant_id = '00000000-0000-0000-0000-000000000001'";
    assert_eq!(world.count(live).await, 3);
}
