//! Money that comes and goes back, with the gateway played by handlers that keep a ledger of their own.

use flatrender_engine::{Attempt, Client, Failure, Handler, Worker, client::RunState, testing::history};
use flatrender_workflows::{
    contracts::pay::{
        Account, CreatePayment, Created, DECLINED, Difference, ExpirePayment, FetchRefund, MERCHANT_CONFIG,
        PaymentState, RefundPayment, RefundSeen, RefundState, Seen, UNKNOWN_OUTCOME, VerifyPayment,
    },
    definitions::{
        look_after_credits::LookAfterCredits,
        payment::{HINT, TakePayment, settle},
        refund::GiveBack,
        subscription::KeepSubscription,
    },
    models::{
        DEFAULT_TENANT, Role, Scope,
        identity::{
            coupon::{self, NewCoupon},
            credit, credit_pack,
            gateway::{self, NewGateway},
            payment::{self, NewPayment, Payment, Wanted},
            plan::{self, Interval, NewPlan, Price},
            refund::{self, NewRefund},
            subscription,
        },
        invariants,
    },
};
use sqlx::PgPool;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What the gateway does, and has done.
#[derive(Debug, Default)]
pub struct Book {
    /// What is said of payments.
    pub state: Option<PaymentState>,
    /// What is wrong with them.
    pub differences: Vec<Difference>,
    /// Calls that were made, and may have done something, and that nobody was told of.
    pub silent: u32,
    /// Refunds are refused, or take their time.
    pub refund: Option<RefundState>,
    /// What its account opens with; anything does when absent.
    pub key: Option<String>,
    /// Where payers come back to.
    pub pages: Vec<String>,
    /// Money that came, by payment.
    pub came: BTreeMap<Uuid, i64>,
    /// Money that went back, by refund.
    pub went: BTreeMap<Uuid, i64>,
}

/// A gateway.
#[derive(Clone, Default)]
pub struct Till(pub Arc<Mutex<Book>>);

impl Till {
    fn opens(&self, account: &Account) -> Result<(), Failure> {
        match &self.0.lock().unwrap().key {
            Some(key) if *key != account.settings.hex => Err(Failure::permanent(MERCHANT_CONFIG, "as told")),
            _ => Ok(()),
        }
    }

    fn silent(&self) -> Result<(), Failure> {
        let mut book = self.0.lock().unwrap();
        if book.silent > 0 {
            book.silent -= 1;
            return Err(Failure::transient(UNKNOWN_OUTCOME, "as told"));
        }
        Ok(())
    }

    fn seen(&self, payment_id: Uuid, amount: i64, currency: &str, capture: bool) -> Seen {
        let mut book = self.0.lock().unwrap();
        let state = match book.state {
            _ if book.came.contains_key(&payment_id) => PaymentState::Paid,
            Some(PaymentState::Paid) if capture => {
                book.came.insert(payment_id, amount);
                PaymentState::Paid
            }
            // It is ours once we say that we want it.
            Some(PaymentState::Paid) => PaymentState::Authorized,
            state => state.unwrap_or(PaymentState::Open),
        };
        let paid = state == PaymentState::Paid;
        Seen {
            state,
            provider_ref: format!("ref-{payment_id}"),
            provider_txn: paid.then(|| format!("txn-{payment_id}")),
            amount: paid.then_some(amount),
            currency: paid.then(|| currency.to_owned()),
            merchant: None,
            payment_id: Some(payment_id),
            paid_at: None,
            fee: None,
            card: None,
            differences: if paid { book.differences.clone() } else { vec![] },
        }
    }
}

impl Handler<CreatePayment> for Till {
    async fn handle(&self, _: &Attempt, ask: CreatePayment) -> Result<Created, Failure> {
        self.0.lock().unwrap().pages.push(ask.return_url);
        self.silent()?;
        let provider_ref = format!("ref-{}", ask.due.payment_id);
        let redirect_url = Some(format!("https://pay.example/{provider_ref}"));
        Ok(Created { provider_ref, redirect_url, instructions: None, expires_at: None })
    }
}

impl Handler<VerifyPayment> for Till {
    async fn handle(&self, _: &Attempt, ask: VerifyPayment) -> Result<Seen, Failure> {
        self.opens(&ask.account)?;
        let seen = self.seen(ask.due.payment_id, ask.due.amount, &ask.due.currency, true);
        self.silent()?;
        Ok(seen)
    }
}

impl Handler<ExpirePayment> for Till {
    async fn handle(&self, _: &Attempt, ask: ExpirePayment) -> Result<Seen, Failure> {
        self.silent()?;
        let seen = self.seen(ask.due.payment_id, ask.due.amount, &ask.due.currency, false);
        let state = if seen.state == PaymentState::Open { PaymentState::Expired } else { seen.state };
        Ok(Seen { state, ..seen })
    }
}

impl Till {
    fn refund(&self, ask: &RefundPayment) -> RefundSeen {
        let mut book = self.0.lock().unwrap();
        let state = book.refund.unwrap_or(RefundState::Done);
        let refused = state == RefundState::Refused;
        if !refused {
            book.went.insert(ask.refund_id, ask.amount);
        }
        RefundSeen {
            state,
            provider_refund: (!refused).then(|| format!("re-{}", ask.refund_id)),
            amount: (!refused).then_some(ask.amount),
            refusal: refused.then(|| "pay.refused".into()),
            detail: None,
        }
    }
}

impl Handler<RefundPayment> for Till {
    async fn handle(&self, _: &Attempt, ask: RefundPayment) -> Result<RefundSeen, Failure> {
        let seen = self.refund(&ask);
        self.silent()?;
        Ok(seen)
    }
}

impl Handler<FetchRefund> for Till {
    async fn handle(&self, _: &Attempt, ask: FetchRefund) -> Result<Option<RefundSeen>, Failure> {
        self.opens(&ask.refund.account)?;
        Ok(Some(self.refund(&ask.refund)))
    }
}

/// Somebody who buys, and what is sold to them.
pub struct Shop {
    pub db: PgPool,
    pub till: Till,
    pub user: Uuid,
    pub plan: Uuid,
    pub pack: Uuid,
    pub gateway: Uuid,
}

impl Shop {
    pub async fn open(db: PgPool) -> Self {
        let sql = "insert into identity.users (tenant_id, email, status) values ($1, 'jane@example.com', 'active') returning id";
        let user = sqlx::query_scalar(sql).bind(DEFAULT_TENANT).fetch_one(&db).await.unwrap();
        let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&db).await.unwrap();
        let name = BTreeMap::from([("en".to_owned(), "Pro".to_owned())]);
        let prices = [Price { currency: "USD".into(), interval: Interval::Month, amount: 1999 }];
        let entitlements = BTreeMap::from([("render_minutes".to_owned(), 10)]);
        let new = NewPlan { code: "pro", name: &name, trial_days: 0, prices: &prices, entitlements: &entitlements };
        let plan = plan::create(&mut tx, DEFAULT_TENANT, &new).await.unwrap();
        assert!(plan::activate(&mut tx, DEFAULT_TENANT, plan).await.unwrap());
        let pack = credit_pack::create(&mut tx, DEFAULT_TENANT, "hour", 3600, 500, "USD").await.unwrap();
        let gateway = Uuid::now_v7();
        let new = NewGateway {
            id: gateway,
            provider: "stripe".parse().unwrap(),
            mode: "test".parse().unwrap(),
            settings: b"sealed",
            merchant: None,
            limit: None,
        };
        gateway::put(&mut tx, DEFAULT_TENANT, &new).await.unwrap();
        tx.commit().await.unwrap();
        Self { db, till: Till::default(), user, plan, pack, gateway }
    }

    /// Somebody decides to pay, as the API does; gives the payment and its run.
    pub async fn buy(&self, wanted: Wanted<'_>, code: Option<&str>) -> (Uuid, Uuid) {
        let client = Client::new(self.db.clone());
        let (id, tenant_id) = (Uuid::now_v7(), DEFAULT_TENANT);
        let take = TakePayment { tenant_id, payment_id: id, again: false, return_page: "https://us.example/p".into() };
        let mut tx = Scope::tenant(Role::Workflow, tenant_id).begin(&self.db).await.unwrap();
        let run_id = client.start(&mut tx, tenant_id, Some(&take.key()), take).await.unwrap().run_id;
        Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await.unwrap();
        let quoted = payment::quote(&mut tx, tenant_id, self.user, &wanted, code).await.unwrap().unwrap();
        let new = NewPayment {
            id,
            tenant_id,
            user_id: self.user,
            provider: "stripe",
            gateway_id: self.gateway,
            idempotency_key: &id.to_string(),
            request_sha256: &[7; 32],
            return_url: None,
            quoted: &quoted,
            run_id,
        };
        assert_eq!(payment::open(&mut tx, &new).await.unwrap(), Some(true));
        tx.commit().await.unwrap();
        client.announce();
        (id, run_id)
    }

    pub fn plan(&self) -> Wanted<'static> {
        Wanted::Plan { plan_id: self.plan, currency: "USD", interval: Interval::Month }
    }

    pub fn credits(&self) -> Wanted<'static> {
        Wanted::Credits { pack_id: self.pack }
    }

    pub fn worker(&self, crash: bool) -> Worker {
        let builder = Worker::builder(self.db.clone())
            .workflow::<TakePayment>()
            .workflow::<GiveBack>()
            .workflow::<KeepSubscription>()
            .workflow::<LookAfterCredits>()
            .workflow::<flatrender_workflows::definitions::notify::Notify>()
            .handler::<CreatePayment>(self.till.clone())
            .handler::<VerifyPayment>(self.till.clone())
            .handler::<ExpirePayment>(self.till.clone())
            .handler::<RefundPayment>(self.till.clone())
            .handler::<FetchRefund>(self.till.clone());
        if crash { builder.crash_after_every_event().build() } else { builder.build() }
    }

    pub async fn now(&self, id: Uuid) -> Payment {
        payment::find(&mut self.db.acquire().await.unwrap(), DEFAULT_TENANT, id).await.unwrap().unwrap()
    }

    /// Waits until a payment is so.
    pub async fn comes(&self, id: Uuid, state: &str) -> Payment {
        for _ in 0..1500 {
            let now = self.now(id).await;
            if now.state == state {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let now = self.now(id).await;
        assert_eq!(now.state, state, "{now:?}");
        now
    }

    /// Credits that have been paid for.
    pub async fn paid_for(&self) -> Uuid {
        self.till.0.lock().unwrap().state = Some(PaymentState::Paid);
        let (id, run) = self.buy(self.credits(), None).await;
        self.comes(id, "pending").await;
        self.hint(run).await;
        self.comes(id, "paid").await;
        id
    }

    pub async fn hint(&self, run: Uuid) {
        let client = Client::new(self.db.clone());
        let mut tx = self.db.begin().await.unwrap();
        let _ = client.signal(&mut tx, run, HINT, None, &serde_json::Value::Null).await.unwrap();
        tx.commit().await.unwrap();
        client.announce();
    }

    /// Lets time pass once everybody sleeps who is about to: who begins to sleep later wakes later. Where nobody works it waits a second.
    pub async fn pass(&self, seconds: f64) {
        let busy = "select exists (select from workflow.tasks where state = 'leased' or state = 'ready' and run_at <= workflow.now())";
        for _ in 0..100 {
            if !sqlx::query_scalar::<_, bool>(busy).fetch_one(&self.db).await.unwrap() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let sql = "update workflow.clock set moved_by = moved_by + make_interval(secs => $1)";
        sqlx::query(sql).bind(seconds).execute(&self.db).await.unwrap();
    }

    /// Asks for a refund that takes nobody else, and starts it.
    pub async fn give_back(&self, id: Uuid, amount: i64, key: &str) -> Option<Uuid> {
        let client = Client::new(self.db.clone());
        let paid = self.now(id).await;
        let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&self.db).await.unwrap();
        let new = NewRefund {
            amount,
            reason: "asked for",
            requested_by: Some(self.user),
            approved: true,
            revoke: true,
            idempotency_key: key,
        };
        let made = refund::create(&mut tx, &paid, &new).await.unwrap()?;
        settle::start_refund(&client, &mut tx, DEFAULT_TENANT, made).await.unwrap();
        tx.commit().await.unwrap();
        client.announce();
        Some(made)
    }

    pub async fn refund_comes(&self, id: Uuid, state: &str) {
        for _ in 0..1500 {
            let mut db = self.db.acquire().await.unwrap();
            let now = refund::find(&mut db, DEFAULT_TENANT, id).await.unwrap().unwrap();
            if now.state == state {
                return;
            }
            drop(db);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the refund is not {state}");
    }

    pub async fn balance(&self) -> i64 {
        let mut db = self.db.acquire().await.unwrap();
        credit::find(&mut db, DEFAULT_TENANT, Some(self.user)).await.unwrap().map_or(0, |account| account.balance)
    }

    pub async fn invoices(&self) -> Vec<String> {
        let sql = "select series || ' ' || number || ': ' || total_amount from identity.invoices order by series desc, number";
        sqlx::query_scalar(sql).fetch_all(&self.db).await.unwrap()
    }

    /// Nothing breaks a rule, and the gateway's own ledger is ours to the unit.
    pub async fn sound(&self) {
        sqlx::query("select platform.ensure_months(workflow.now(), now())").execute(&self.db).await.unwrap();
        assert_eq!(invariants::check(&self.db, true).await.unwrap(), []);
        let ours: Vec<(Uuid, i64)> =
            sqlx::query_as("select id, amount from identity.payments where paid_at is not null order by id")
                .fetch_all(&self.db)
                .await
                .unwrap();
        let back: Vec<(Uuid, i64)> =
            sqlx::query_as("select id, amount from identity.refunds where state = 'done' order by id")
                .fetch_all(&self.db)
                .await
                .unwrap();
        let book = self.till.0.lock().unwrap();
        assert_eq!((ours, back), (book.came.clone().into_iter().collect(), book.went.clone().into_iter().collect()));
    }
}

/// Lets a worker work for as long as a test lasts.
pub struct Working(CancellationToken, tokio::task::JoinHandle<()>);

impl Working {
    pub fn begin(worker: Worker) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        Self(stop, tokio::spawn(async move { worker.run(stopped).await.unwrap() }))
    }

    pub async fn end(self) {
        self.0.cancel();
        self.1.await.unwrap();
    }
}

/// Runs of payments and refunds by each of their ways, that have ended.
pub async fn histories(db: &PgPool) -> Vec<(Uuid, &'static str)> {
    let shop = Shop::open(db.clone()).await;
    let working = Working::begin(shop.worker(false));
    let (id, expired) = shop.buy(shop.credits(), None).await;
    shop.comes(id, "pending").await;
    shop.pass(24.0 * 3600.0 + 60.0).await;
    shop.comes(id, "expired").await;
    shop.till.0.lock().unwrap().state = Some(PaymentState::Paid);
    let (id, paid) = shop.buy(shop.plan(), None).await;
    shop.comes(id, "pending").await;
    shop.hint(paid).await;
    shop.comes(id, "paid").await;
    let mut all = vec![(expired, "expired"), (paid, "paid")];
    for (state, what) in [(RefundState::Done, "done"), (RefundState::Refused, "handed_over")] {
        shop.till.0.lock().unwrap().refund = Some(state);
        let refund = shop.give_back(id, 100, what).await.unwrap();
        shop.refund_comes(refund, if state == RefundState::Done { "done" } else { "manual" }).await;
        let sql = "select workflow_run_id from identity.refunds where id = $1";
        all.push((sqlx::query_scalar(sql).bind(refund).fetch_one(&shop.db).await.unwrap(), what));
    }
    shop.till.0.lock().unwrap().differences = vec![Difference::Amount];
    let (id, review) = shop.buy(shop.credits(), None).await;
    shop.comes(id, "pending").await;
    shop.hint(review).await;
    shop.comes(id, "review").await;
    all.push((review, "review"));
    let client = Client::new(db.clone());
    for (run, what) in &all {
        client.finished(*run, Duration::from_secs(30)).await.unwrap().unwrap_or_else(|| panic!("{what} has not ended"));
    }
    working.end().await;
    all
}

async fn bought_and_given_back(db: PgPool, crash: bool) {
    let shop = Shop::open(db).await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.db).await.unwrap();
    let new = NewCoupon {
        code: "SPRING",
        kind: "percent",
        value: 10,
        currency: None,
        max_redemptions: 1,
        per_user_limit: 1,
        valid_from: None,
        valid_to: "2099-01-01T00:00:00Z".parse().unwrap(),
    };
    coupon::create(&mut tx, DEFAULT_TENANT, &new).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    let working = Working::begin(shop.worker(crash));
    let (plan, run) = shop.buy(shop.plan(), Some("spring")).await;
    let pending = shop.comes(plan, "pending").await;
    assert_eq!(pending.redirect_url.as_deref(), Some(format!("https://pay.example/ref-{plan}").as_str()));
    assert_eq!((pending.amount, shop.invoices().await.len()), (1800, 0));
    shop.till.0.lock().unwrap().state = Some(PaymentState::Paid);
    // Hints that come more than once do nothing more.
    for _ in 0..3 {
        shop.hint(run).await;
    }
    let paid = shop.comes(plan, "paid").await;
    assert!(paid.settled_at.is_some());
    let mut tx = shop.db.acquire().await.unwrap();
    let has = subscription::find_live(&mut tx, DEFAULT_TENANT, shop.user).await.unwrap().unwrap();
    drop(tx);
    assert_eq!((has.plan_id, has.period_no, shop.balance().await), (shop.plan, 1, 600));
    let client = Client::new(shop.db.clone());
    let ended = client.finished(run, Duration::from_secs(30)).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.output_as::<String>().as_deref()), (RunState::Succeeded, Some("paid")));
    assert_eq!(shop.invoices().await, ["INV 1: 1800"]);

    let (credits, run) = shop.buy(shop.credits(), None).await;
    shop.comes(credits, "pending").await;
    shop.hint(run).await;
    shop.comes(credits, "paid").await;
    assert_eq!(shop.balance().await, 600 + 3600);
    // A part of the credits, then the rest; more than that does not go back.
    let part = shop.give_back(credits, 200, "a").await.unwrap();
    shop.refund_comes(part, "done").await;
    assert_eq!((shop.now(credits).await.state.as_str(), shop.balance().await), ("partially_refunded", 600 + 2160));
    assert_eq!(shop.give_back(credits, 301, "b").await, None, "more than was paid does not go back");
    let rest = shop.give_back(credits, 300, "c").await.unwrap();
    shop.refund_comes(rest, "done").await;
    assert_eq!((shop.now(credits).await.state.as_str(), shop.balance().await), ("refunded", 600));
    // The plan: it ends, and what came with it goes.
    let plan_back = shop.give_back(plan, 1800, "d").await.unwrap();
    shop.refund_comes(plan_back, "done").await;
    assert_eq!((shop.now(plan).await.state.as_str(), shop.balance().await), ("refunded", 0));
    let has = subscription::find_live(&mut shop.db.acquire().await.unwrap(), DEFAULT_TENANT, shop.user).await.unwrap();
    assert_eq!(has, None);
    assert_eq!(shop.invoices().await, ["INV 1: 1800", "INV 2: 500", "CN 1: -200", "CN 2: -300", "CN 3: -1800"]);
    working.end().await;
    shop.sound().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_paid_is_given_once_and_taken_back_with_the_money(db: PgPool) {
    bought_and_given_back(db, false).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn the_same_whatever_crashes_after_every_event(db: PgPool) {
    bought_and_given_back(db, true).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_not_paid_ends_without_money_and_what_is_wrong_is_looked_at(db: PgPool) {
    let shop = Shop::open(db).await;
    let working = Working::begin(shop.worker(false));
    let set = |state, differences: Vec<Difference>, silent| {
        let mut book = shop.till.0.lock().unwrap();
        (book.state, book.differences, book.silent) = (state, differences, silent);
    };
    // Declined.
    set(Some(PaymentState::Declined), vec![], 0);
    let (id, run) = shop.buy(shop.credits(), None).await;
    shop.comes(id, "pending").await;
    shop.hint(run).await;
    assert_eq!(shop.comes(id, "failed").await.failure_code.as_deref(), Some(DECLINED));
    // Cancelled by the payer.
    set(None, vec![], 0);
    let (id, run) = shop.buy(shop.credits(), None).await;
    shop.comes(id, "pending").await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.db).await.unwrap();
    assert!(payment::state::ask_cancel(&mut tx, DEFAULT_TENANT, id).await.unwrap());
    tx.commit().await.unwrap();
    shop.hint(run).await;
    shop.comes(id, "cancelled").await;
    // Nobody pays, and the answers are lost a few times.
    let (id, _) = shop.buy(shop.credits(), None).await;
    shop.comes(id, "pending").await;
    set(None, vec![], 2);
    shop.pass(24.0 * 3600.0 + 60.0).await;
    shop.comes(id, "expired").await;
    assert_eq!(shop.invoices().await.len(), 0);
    // The money comes after all: the price is the same, so it still buys.
    set(Some(PaymentState::Paid), vec![], 0);
    let again = async |id: Uuid| {
        let client = Client::new(shop.db.clone());
        let take = TakePayment { tenant_id: DEFAULT_TENANT, payment_id: id, again: true, return_page: String::new() };
        let mut tx = shop.db.begin().await.unwrap();
        let run = client.start(&mut tx, DEFAULT_TENANT, None, take).await.unwrap().run_id;
        tx.commit().await.unwrap();
        client.announce();
        client.finished(run, Duration::from_secs(30)).await.unwrap().unwrap().output_as::<String>().unwrap()
    };
    assert_eq!((again(id).await.as_str(), shop.balance().await), ("paid", 3600));
    // For a plan that was sold at another price since, it goes back.
    set(None, vec![], 0);
    let (id, _) = shop.buy(shop.plan(), None).await;
    shop.comes(id, "pending").await;
    shop.pass(24.0 * 3600.0 + 60.0).await;
    shop.comes(id, "expired").await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.db).await.unwrap();
    plan::retire(&mut tx, DEFAULT_TENANT, shop.plan).await.unwrap();
    tx.commit().await.unwrap();
    set(Some(PaymentState::Paid), vec![], 0);
    assert_eq!(again(id).await, "refunding");
    let back = shop.comes(id, "refunded").await;
    assert_eq!((back.settled_at, shop.invoices().await.len()), (None, 1));
    shop.sound().await;
    // What is wrong moves nothing.
    set(Some(PaymentState::Paid), vec![Difference::Merchant], 0);
    let (id, run) = shop.buy(shop.credits(), None).await;
    shop.comes(id, "pending").await;
    shop.hint(run).await;
    let wrong = shop.comes(id, "review").await;
    assert_eq!((wrong.review_code.as_deref(), wrong.paid_at), (Some("payment.mismatch"), None));
    assert!(wrong.review_detail.unwrap().contains("merchant"));
    assert_eq!(shop.balance().await, 3600);
    // A run that is asked to stop leaves its payment to people.
    set(None, vec![], 0);
    let (id, run) = shop.buy(shop.credits(), None).await;
    shop.comes(id, "pending").await;
    let client = Client::new(shop.db.clone());
    let mut tx = shop.db.begin().await.unwrap();
    assert!(client.cancel(&mut tx, run, "by an operator").await.unwrap());
    tx.commit().await.unwrap();
    client.announce();
    assert_eq!(shop.comes(id, "review").await.review_code.as_deref(), Some("workflow.cancelled"));
    working.end().await;
    let steps = history(&client, run).await.unwrap().unwrap();
    assert!(steps.state.is_final());
}

#[sqlx::test(migrations = "../migrations")]
async fn a_refund_that_takes_its_time_is_not_done_and_one_that_is_refused_is_for_people(db: PgPool) {
    let shop = Shop::open(db).await;
    let working = Working::begin(shop.worker(true));
    let id = shop.paid_for().await;
    shop.till.0.lock().unwrap().refund = Some(RefundState::Pending);
    let slow = shop.give_back(id, 100, "a").await.unwrap();
    shop.refund_comes(slow, "sending").await;
    shop.comes(id, "refunding").await;
    shop.till.0.lock().unwrap().refund = Some(RefundState::Done);
    shop.pass(7.0 * 3600.0).await;
    shop.refund_comes(slow, "done").await;
    shop.till.0.lock().unwrap().refund = Some(RefundState::Refused);
    let refused = shop.give_back(id, 100, "b").await.unwrap();
    shop.refund_comes(refused, "manual").await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.db).await.unwrap();
    flatrender_workflows::definitions::refund::give_up(&mut tx, DEFAULT_TENANT, refused).await.unwrap();
    tx.commit().await.unwrap();
    let now = shop.now(id).await;
    assert_eq!((now.state.as_str(), now.refunded_amount), ("partially_refunded", 100));
    working.end().await;
    shop.sound().await;
}
