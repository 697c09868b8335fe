//! Every route on one page, and what surrounds them.

use crate::{
    app::App,
    content::{svg_previews, templates},
    dashboard, docs,
    file_mgr::{
        cleanup::{holds, rules, runs},
        content, files, folders, public_file, share, share_links, trash, uploads,
    },
    health,
    identity::{
        account, api_keys, audit,
        billing::{
            callbacks, coupons, credits, decisions, differences, gateways, invoices, payments, plans, refunds,
            subscriptions,
        },
        branding, domains, factors, identities, identity_providers, members, openid, quotas, request_logs,
        rewards::{achievements, gifts, progress, referrals},
        sessions, sign_in, tenants, usage, webauthn, webhooks,
    },
    limits, metrics,
    nodes::{claims, enrol, frames, health as node_health, inputs, operate, probe, snapshot_jobs, tasks, tokens},
    notification::{
        accounts as notification_accounts, broadcasts, browsers, chats, feedback, inbox, preferences, stream,
        suppressions, templates as notification_templates, unsubscribe,
    },
    openapi, operate as operators, peer,
    problem::{Code, Problem},
    render::{batch, events, exports, last_frame, public_still, renders, scene_snapshots},
    request_id, request_log, schedules,
};
use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::post,
};
use std::{any::Any, time::Duration};
use tower_http::{catch_panic::CatchPanicLayer, sensitive_headers::SetSensitiveRequestHeadersLayer};
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Longest time a handler may take until it answers; what streams afterwards is not counted.
const TIMEOUT: Duration = Duration::from_secs(40);
/// The same for handlers that read a large body.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);
/// The same for what is resumed where it ended: a body that comes slowly has its time, and one that does not come has none.
const RESUMABLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The whole API, for everybody.
pub fn router(app: App) -> Router {
    let (routes, mut document) = documented().split_for_parts();
    openapi::finish(&mut document);
    surrounded(routes.merge(docs::routes(&document)).merge(dashboard::routes()), app)
}

/// The description of the API, as `/openapi.json` serves it.
pub fn document() -> OpenApi {
    let mut document = documented().into_openapi();
    openapi::finish(&mut document);
    document
}

/// What is for machines of ours alone, behind a listener of its own: the public one has nothing at these addresses.
pub fn internal(app: App) -> Router {
    let snapshot_jobs = Router::new()
        .route("/claim", post(snapshot_jobs::claim))
        .route("/{id}/heartbeat", post(snapshot_jobs::heartbeat))
        .route("/{id}/result", post(snapshot_jobs::result))
        .route("/{id}/fail", post(snapshot_jobs::fail));
    let (node, _) = OpenApiRouter::default()
        .routes(routes!(inputs::get))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::show))
        .split_for_parts();
    let routes = node
        .nest("/internal/v1/snapshot-jobs", snapshot_jobs)
        .route_layer(from_fn(|request, next| within(TIMEOUT, request, next)));
    let (frames, _) = frame_uploads().split_for_parts();
    surrounded(routes.merge(frames), app)
}

/// What every request goes through.
fn surrounded(routes: Router<App>, app: App) -> Router {
    routes
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(metrics::observe))
        .layer(from_fn(protect))
        .layer(from_fn_with_state(app.clone(), request_log::note))
        .layer(from_fn(limits::tell))
        .layer(from_fn_with_state(app.clone(), peer::find))
        .layer(from_fn(request_id::attach))
        .layer(SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION, HeaderName::from_static("lease-token")]))
        .with_state(app)
}

/// Routes that stand in the API's document. A function each part: in a build without optimisation one for all of them takes most of a
/// thread's stack.
fn documented() -> OpenApiRouter<App> {
    let parts = [
        films,
        kept_files,
        accounts,
        tenancy,
        listeners,
        plans_and_credits,
        money,
        earnings,
        messages,
        upkeep,
        operation,
        farm,
    ];
    let whole = OpenApiRouter::with_openapi(openapi::base());
    parts
        .into_iter()
        .fold(whole, |whole, part| whole.merge(part()))
        .route_layer(from_fn(|request, next| within(TIMEOUT, request, next)))
        .merge(file_uploads())
        .merge(resumable_uploads())
        .merge(frame_uploads())
}

/// Films, templates and their stills.
fn films() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(renders::create, renders::list))
        .routes(routes!(batch::create))
        .routes(routes!(renders::get))
        .routes(routes!(renders::cancel))
        .routes(routes!(last_frame::get))
        .routes(routes!(events::watch))
        .routes(routes!(exports::get))
        .routes(routes!(exports::download))
        .routes(routes!(exports::link))
        .routes(routes!(exports::contact_sheet))
        .routes(routes!(exports::derivative))
        .routes(routes!(exports::derive))
        .routes(routes!(templates::list))
        .routes(routes!(templates::get))
        .routes(routes!(templates::preview))
        .routes(routes!(svg_previews::create, svg_previews::list))
        .routes(routes!(svg_previews::update, svg_previews::remove))
        .routes(routes!(svg_previews::svg))
        .routes(routes!(scene_snapshots::create, scene_snapshots::list))
        .routes(routes!(public_still::get))
}

/// Files and folders.
fn kept_files() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(files::list))
        .routes(routes!(files::get, files::update))
        .routes(routes!(files::trash))
        .routes(routes!(files::restore))
        .routes(routes!(share_links::create, share_links::list))
        .routes(routes!(share_links::revoke))
        .routes(routes!(share::get))
        .routes(routes!(public_file::get))
        .routes(routes!(folders::create, folders::list))
        .routes(routes!(folders::get, folders::update))
        .routes(routes!(folders::trash))
        .routes(routes!(folders::restore))
        .routes(routes!(trash::empty))
        .routes(routes!(content::get))
        .routes(routes!(content::link))
}

/// Who somebody is.
fn accounts() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(account::register))
        .routes(routes!(account::verify_email))
        .routes(routes!(account::forgot_password))
        .routes(routes!(account::reset_password))
        .routes(routes!(sign_in::sign_in))
        .routes(routes!(sign_in::second))
        .routes(routes!(sign_in::refresh))
        .routes(routes!(sign_in::sign_out))
        .routes(routes!(sign_in::step_up))
        .routes(routes!(webauthn::step_up_options))
        .routes(routes!(openid::choices))
        .routes(routes!(openid::start))
        .routes(routes!(openid::finish))
        .routes(routes!(account::get, account::update))
        .routes(routes!(account::change_password))
        .routes(routes!(account::change_email))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::revoke))
        .routes(routes!(factors::list))
        .routes(routes!(factors::add))
        .routes(routes!(factors::confirm))
        .routes(routes!(webauthn::creation_options))
        .routes(routes!(webauthn::add))
        .routes(routes!(factors::rename, factors::remove))
        .routes(routes!(identities::list))
        .routes(routes!(identities::start))
        .routes(routes!(identities::finish))
        .routes(routes!(identities::remove))
}

/// Tenants and who belongs to them.
fn tenancy() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(tenants::own, tenants::update))
        .routes(routes!(branding::own, branding::set))
        .routes(routes!(branding::get))
        .routes(routes!(branding::logo))
        .routes(routes!(branding::favicon))
        .routes(routes!(quotas::get))
        .routes(routes!(domains::add, domains::list))
        .routes(routes!(domains::remove))
        .routes(routes!(domains::verify))
        .routes(routes!(identity_providers::create, identity_providers::list))
        .routes(routes!(identity_providers::get, identity_providers::update, identity_providers::remove))
        .routes(routes!(members::list, members::invite))
        .routes(routes!(members::set_roles))
        .routes(routes!(quotas::get_storage, quotas::set_storage))
        .routes(routes!(members::remove))
        .routes(routes!(tenants::create, tenants::list))
        .routes(routes!(tenants::get))
        .routes(routes!(tenants::suspend))
        .routes(routes!(tenants::resume))
        .routes(routes!(tenants::close))
        .routes(routes!(tenants::set_limit))
        .routes(routes!(api_keys::create, api_keys::list))
        .routes(routes!(api_keys::revoke))
        .routes(routes!(api_keys::rotate))
}

/// Webhooks.
fn listeners() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(webhooks::create, webhooks::list))
        .routes(routes!(webhooks::get, webhooks::update, webhooks::remove))
        .routes(routes!(webhooks::rotate))
        .routes(routes!(webhooks::deliveries::list))
        .routes(routes!(webhooks::deliveries::get))
        .routes(routes!(webhooks::deliveries::replay))
        .routes(routes!(webhooks::deliveries::replay_all))
        .routes(routes!(webhooks::deliveries::test))
        .routes(routes!(webhooks::events::list))
}

/// Plans, coupons and credits.
fn plans_and_credits() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(plans::create, plans::list))
        .routes(routes!(plans::versions))
        .routes(routes!(plans::get))
        .routes(routes!(plans::activate))
        .routes(routes!(plans::retire))
        .routes(routes!(coupons::create, coupons::list))
        .routes(routes!(coupons::check))
        .routes(routes!(coupons::get, coupons::update, coupons::end))
        .routes(routes!(credits::get))
        .routes(routes!(credits::ledger))
        .routes(routes!(credits::set_terms))
        .routes(routes!(credits::grant))
        .routes(routes!(credits::grant_tenant))
        .routes(routes!(subscriptions::get))
        .routes(routes!(subscriptions::list))
        .routes(routes!(subscriptions::trial))
        .routes(routes!(subscriptions::cancel))
        .routes(routes!(subscriptions::resume))
        .routes(routes!(subscriptions::preview, subscriptions::change))
}

/// Payments.
fn money() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(payments::open, payments::list))
        .routes(routes!(payments::get))
        .routes(routes!(payments::cancel))
        .routes(routes!(payments::verify))
        .routes(routes!(callbacks::come_back))
        .routes(routes!(callbacks::hear))
        .routes(routes!(decisions::propose))
        .routes(routes!(decisions::propose_for_refund))
        .routes(routes!(decisions::confirm))
        .routes(routes!(decisions::refuse))
        .routes(routes!(differences::list))
        .routes(routes!(differences::get))
        .routes(routes!(differences::explain))
        .routes(routes!(differences::confirm))
        .routes(routes!(refunds::request))
        .routes(routes!(refunds::list))
        .routes(routes!(refunds::get))
        .routes(routes!(refunds::approve))
        .routes(routes!(refunds::refuse))
        .routes(routes!(invoices::list))
        .routes(routes!(invoices::get))
        .routes(routes!(invoices::pdf))
        .routes(routes!(invoices::send))
        .routes(routes!(gateways::list))
        .routes(routes!(gateways::put, gateways::remove))
        .routes(routes!(gateways::rotate))
        .routes(routes!(gateways::packs, gateways::create_pack))
        .routes(routes!(gateways::retire_pack))
}

/// What is earned.
fn earnings() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(progress::get))
        .routes(routes!(progress::points))
        .routes(routes!(achievements::create, achievements::list))
        .routes(routes!(achievements::get, achievements::update))
        .routes(routes!(gifts::list))
        .routes(routes!(gifts::claim))
        .routes(routes!(gifts::catalogue, gifts::create))
        .routes(routes!(gifts::get, gifts::update))
        .routes(routes!(gifts::give))
        .routes(routes!(referrals::list, referrals::create))
        .routes(routes!(referrals::join))
}

/// What people are told.
fn messages() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(inbox::list))
        .routes(routes!(inbox::counts))
        .routes(routes!(inbox::read_all))
        .routes(routes!(inbox::update, inbox::archive))
        .routes(routes!(stream::watch))
        .routes(routes!(preferences::list))
        .routes(routes!(preferences::set, preferences::remove))
        .routes(routes!(preferences::consent))
        .routes(routes!(preferences::defaults))
        .routes(routes!(preferences::set_default, preferences::remove_default))
        .routes(routes!(browsers::key))
        .routes(routes!(browsers::list, browsers::create))
        .routes(routes!(browsers::remove))
        .routes(routes!(chats::get, chats::connect, chats::disconnect))
        .routes(routes!(unsubscribe::show, unsubscribe::unsubscribe))
        .routes(routes!(feedback::hear))
        .routes(routes!(notification_accounts::create, notification_accounts::list))
        .routes(routes!(notification_accounts::update, notification_accounts::remove))
        .routes(routes!(notification_templates::list))
        .routes(routes!(notification_templates::set, notification_templates::retire))
        .routes(routes!(notification_templates::preview))
        .routes(routes!(suppressions::list))
        .routes(routes!(suppressions::lift))
        .routes(routes!(broadcasts::create))
}

/// What was done, what is used, what is cleaned up.
fn upkeep() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(audit::list))
        .routes(routes!(request_logs::list))
        .routes(routes!(usage::get))
        .routes(routes!(usage::of_tenant))
        .routes(routes!(usage::correct))
        .routes(routes!(rules::list, rules::create))
        .routes(routes!(rules::get, rules::update, rules::remove))
        .routes(routes!(runs::list, runs::start))
        .routes(routes!(runs::get))
        .routes(routes!(runs::files))
        .routes(routes!(runs::act))
        .routes(routes!(holds::list))
        .routes(routes!(holds::place))
        .routes(routes!(holds::release))
        .routes(routes!(schedules::operate::list))
        .routes(routes!(schedules::operate::get))
        .routes(routes!(schedules::operate::act))
}

/// Runs and queues.
fn operation() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(operators::now::get))
        .routes(routes!(operators::events::watch))
        .routes(routes!(operators::runs::list))
        .routes(routes!(operators::runs::dead_letters))
        .routes(routes!(operators::run::get))
        .routes(routes!(operators::steps::list))
        .routes(routes!(operators::frames::film))
        .routes(routes!(operators::frames::picture))
        .routes(routes!(operators::act::act))
        .routes(routes!(operators::failures::list))
        .routes(routes!(operators::failures::get))
        .routes(routes!(operators::bulk::create, operators::bulk::list))
        .routes(routes!(operators::bulk::get))
        .routes(routes!(operators::bulk::items))
        .routes(routes!(operators::bulk::act))
        .routes(routes!(operators::queues::list))
        .routes(routes!(operators::queues::act))
        .routes(routes!(operators::audit::list))
        .routes(routes!(operators::versions::get))
}

/// Nodes, and what machines ask.
fn farm() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(enrol::enrol))
        .routes(routes!(claims::claim))
        .routes(routes!(probe::report))
        .routes(routes!(node_health::hello))
        .routes(routes!(node_health::health))
        .routes(routes!(node_health::rotate))
        .routes(routes!(operate::list))
        .routes(routes!(tokens::list, operate::create_token))
        .routes(routes!(tokens::revoke))
        .routes(routes!(operate::get))
        .routes(routes!(operate::crashes))
        .routes(routes!(operate::health))
        .routes(routes!(operate::act))
        .routes(routes!(tasks::renew))
        .routes(routes!(tasks::complete))
        .routes(routes!(tasks::fail))
        .routes(routes!(tasks::release))
        .routes(routes!(inputs::get))
        .routes(routes!(frames::kept, frames::note))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::show))
}

fn file_uploads() -> OpenApiRouter<App> {
    let routes = OpenApiRouter::default().routes(routes!(files::create));
    routes.route_layer(from_fn(|request, next| within(UPLOAD_TIMEOUT, request, next)))
}

fn resumable_uploads() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(uploads::options, uploads::create))
        .routes(routes!(uploads::direct::create))
        .routes(routes!(uploads::direct::sign))
        .routes(routes!(uploads::direct::parts_sent))
        .routes(routes!(uploads::direct::complete))
        .routes(routes!(uploads::head, uploads::get, uploads::append, uploads::end, uploads::overridden))
        .route_layer(from_fn(|request, next| within(RESUMABLE_TIMEOUT, request, next)))
        .route_layer(from_fn(uploads::speak_tus))
}

fn frame_uploads() -> OpenApiRouter<App> {
    let routes = OpenApiRouter::default().routes(routes!(frames::head, frames::put));
    routes.route_layer(from_fn(|request, next| within(UPLOAD_TIMEOUT, request, next)))
}

async fn within(limit: Duration, request: Request, next: Next) -> Response {
    let late = |_| Problem::new(Code::Timeout, "the request was given up; ask what became of it before repeating");
    tokio::time::timeout(limit, next.run(request)).await.map_err(late).into_response()
}

async fn no_route() -> Problem {
    Problem::new(Code::RouteNotFound, "there is nothing at this address; /docs lists all")
}

async fn no_method() -> Problem {
    Problem::new(Code::MethodNotAllowed, "this address does not know this method")
}

/// Browsers guess nothing, show nothing of ours inside other pages, and keep nothing that they are not told to.
async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    // What may be kept says so: everything else is somebody's own, and some of it secret.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A panic ends its request, not the server.
fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let text = cause.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| cause.downcast_ref::<String>().cloned()).unwrap_or_default();
    Problem::internal(&std::io::Error::other(format!("a handler panicked: {text}"))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, routing::get};
    use tower::ServiceExt as _;

    async fn status(router: Router) -> u16 {
        let request = Request::get("/").body(Body::empty()).expect("a request");
        router.oneshot(request).await.expect("an answer").status().as_u16()
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_given_up() {
        let slow = Router::new().route("/", get(std::future::pending::<()>));
        let limit = Duration::from_millis(1);
        assert_eq!(status(slow.route_layer(from_fn(move |r, n| within(limit, r, n)))).await, 504);
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_and_the_server_goes_on() {
        let wild = Router::new().route("/", get(async || -> () { panic!("on purpose") }));
        let router = wild.layer(CatchPanicLayer::custom(panicked));
        assert_eq!(status(router.clone()).await, 500);
        assert_eq!(status(router).await, 500);
    }
}
