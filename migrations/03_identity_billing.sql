-- Plans, subscriptions, payments, invoices, coupons and credits. Money is a whole number of minor units with its currency.

create extension if not exists btree_gist with schema platform;

create table identity.plans (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null references identity.tenants (id),
    code       text not null check (code ~ '^[a-z0-9_-]{1,64}$'),
    version    int not null check (version > 0),
    name       jsonb not null check (jsonb_typeof(name) = 'object' and octet_length(name::text) <= 4096),
    state      text not null default 'draft' check (state in ('draft', 'active', 'retired')),
    trial_days int not null default 0 check (trial_days between 0 and 365),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, code, version)
);
create unique index plans_active on identity.plans (tenant_id, code) where state = 'active';
comment on table identity.plans is 'What is sold. A change is a new version: who has the old one keeps it.';
create trigger plans_retired before update on identity.plans
    for each row when (old.state = 'retired' and new.state <> 'retired') execute function platform.refuse_to_go_on();

create table identity.plan_prices (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    plan_id    uuid not null,
    currency   char(3) not null check (currency ~ '^[A-Z]{3}$'),
    interval   text not null check (interval in ('month', 'year', 'once')),
    amount     bigint not null check (amount > 0),
    created_at timestamptz not null default now(),
    unique (plan_id, currency, interval),
    foreign key (tenant_id, plan_id) references identity.plans (tenant_id, id)
);
comment on table identity.plan_prices is 'What a plan costs.';

create table identity.plan_entitlements (
    tenant_id uuid not null,
    plan_id   uuid not null,
    key       text not null check (key in ('render_minutes', 'storage_bytes', 'max_resolution', 'concurrency', 'watermark', 'retention_days')),
    value     bigint not null check (value >= 0),
    primary key (plan_id, key),
    foreign key (tenant_id, plan_id) references identity.plans (tenant_id, id)
);
comment on table identity.plan_entitlements is 'What a plan allows.';

create table identity.payment_gateways (
    id           uuid primary key default gen_random_uuid(),
    tenant_id    uuid not null references identity.tenants (id),
    provider     text not null check (provider in ('stripe', 'zarinpal', 'manual')),
    mode         text not null check (mode in ('live', 'test')),
    state        text not null default 'active' check (state in ('active', 'retired')),
    settings_enc bytea not null check (octet_length(settings_enc) <= 16384),
    merchant     text check (char_length(merchant) between 1 and 255),
    checked_at   timestamptz,
    check_error  text check (char_length(check_error) <= 128),
    refund_limit bigint not null default 0 check (refund_limit >= 0),
    refund_limit_currency char(3) check (refund_limit_currency ~ '^[A-Z]{3}$'),
    refund_limit_by       uuid,
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    unique (tenant_id, id),
    foreign key (tenant_id, refund_limit_by) references identity.users (tenant_id, id),
    constraint a_limit_has_a_currency check ((refund_limit > 0) <= (refund_limit_currency is not null))
);
create index payment_gateways_limit_by on identity.payment_gateways (refund_limit_by) where refund_limit_by is not null;
create unique index payment_gateways_active on identity.payment_gateways (tenant_id, provider) where state = 'active';
comment on table identity.payment_gateways is 'Accounts of tenants at those who take money. A retired one sees to what was begun with it.';
comment on column identity.payment_gateways.settings_enc is 'secret:aead';
comment on column identity.payment_gateways.refund_limit is 'Minor units: what goes back of a payment beyond, in all, takes a second person.';
comment on column identity.payment_gateways.refund_limit_by is 'Who said so: their own refunds take a second person, however small.';
create trigger payment_gateways_retired before update on identity.payment_gateways
    for each row when (old.state = 'retired' and new.state <> 'retired') execute function platform.refuse_to_go_on();

create table identity.credit_packs (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null references identity.tenants (id),
    code       text not null check (code ~ '^[a-z0-9_-]{1,64}$'),
    credits    bigint not null check (credits between 1 and 1000000000000),
    amount     bigint not null check (amount > 0),
    currency   char(3) not null check (currency ~ '^[A-Z]{3}$'),
    state      text not null default 'active' check (state in ('active', 'retired')),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (tenant_id, id)
);
create unique index credit_packs_active on identity.credit_packs (tenant_id, code, currency) where state = 'active';
comment on table identity.credit_packs is 'Credits that are sold together, and what they cost.';
create trigger credit_packs_retired before update on identity.credit_packs
    for each row when (old.state = 'retired' and new.state <> 'retired') execute function platform.refuse_to_go_on();

create table identity.payments (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null references identity.tenants (id),
    user_id         uuid not null,
    purpose         text not null check (purpose in ('plan', 'credits', 'invoice')),
    plan_id         uuid,
    invoice_id      uuid,
    credits         bigint check (credits > 0),
    amount          bigint not null check (amount > 0),
    currency        char(3) not null check (currency ~ '^[A-Z]{3}$'),
    refunded_amount bigint not null default 0,
    state           text not null default 'created' check (state in ('created', 'pending', 'verifying', 'paid', 'failed', 'expired',
                        'cancelled', 'review', 'refunding', 'partially_refunded', 'refunded')),
    provider        text not null check (provider ~ '^[a-z0-9_]{1,40}$'),
    gateway_id      uuid,
    provider_ref    text check (char_length(provider_ref) between 1 and 255),
    provider_txn    text check (char_length(provider_txn) between 1 and 255),
    idempotency_key text not null check (char_length(idempotency_key) between 1 and 255),
    request_sha256  bytea check (octet_length(request_sha256) = 32),
    return_url      text check (return_url ~ '^https?://' and char_length(return_url) <= 2048),
    redirect_url    text check (redirect_url ~ '^https?://' and char_length(redirect_url) <= 4096),
    instructions    text check (char_length(instructions) <= 4000),
    coupon_id       uuid,
    price_snapshot  jsonb not null check (octet_length(price_snapshot::text) <= 16384),
    failure_code    text check (char_length(failure_code) <= 128),
    review_code     text check (char_length(review_code) between 1 and 128),
    review_detail   text check (char_length(review_detail) <= 1000),
    review_at       timestamptz,
    review_told_at  timestamptz,
    cancel_asked_at timestamptz,
    expires_at      timestamptz not null,
    looked_at       timestamptz,
    captured_at     timestamptz,
    paid_at         timestamptz,
    settled_at      timestamptz,
    workflow_run_id uuid not null unique,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, idempotency_key),
    unique (gateway_id, provider_ref),
    unique (gateway_id, provider_txn),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id),
    foreign key (tenant_id, plan_id) references identity.plans (tenant_id, id),
    foreign key (tenant_id, gateway_id) references identity.payment_gateways (tenant_id, id),
    constraint no_more_is_given_back_than_was_paid check (refunded_amount between 0 and amount),
    constraint a_paid_payment_says_when check ((state in ('paid', 'refunding', 'partially_refunded', 'refunded')) = (paid_at is not null)),
    constraint a_paid_payment_has_a_transaction check (paid_at is null or provider_txn is not null),
    constraint a_refunded_payment_is_given_back check ((state = 'refunded') <= (refunded_amount = amount)),
    constraint what_was_paid_for_is_given_once_it_is_paid check (settled_at is null or paid_at is not null),
    constraint a_payment_in_review_says_why check ((state = 'review') <= (review_code is not null and review_at is not null)),
    constraint a_payment_is_for_what_it_says check ((purpose = 'plan') = (plan_id is not null) and (purpose = 'credits') = (credits is not null))
);
create index payments_user on identity.payments (user_id, created_at desc);
create index payments_open on identity.payments (state, created_at) where state in ('created', 'pending', 'verifying', 'review', 'refunding');
create index payments_plan on identity.payments (plan_id) where plan_id is not null;
create index payments_gateway on identity.payments (gateway_id) where gateway_id is not null;
create index payments_coupon on identity.payments (coupon_id) where coupon_id is not null;
create index payments_expired on identity.payments (expires_at) where state = 'expired';
create index payments_tenant on identity.payments (tenant_id, created_at desc, id desc);
comment on table identity.payments is 'Money that somebody means to pay. A transaction of an account at a provider credits one payment only.';
comment on column identity.payments.provider_ref is 'opaque: the provider''s';
comment on column identity.payments.looked_at is 'When its gateway was asked last.';
comment on column identity.payments.captured_at is 'When it was paid, by the clock of its gateway.';
comment on column identity.payments.settled_at is 'When what was paid for was given: never, when the money goes straight back.';
comment on column identity.payments.workflow_run_id is 'opaque: a run of the engine, which may be purged after its end';
create function identity.guard_payment() returns trigger language plpgsql as $$
begin
    raise exception 'payment % is % and cannot become %', old.id, old.state, new.state using errcode = 'restrict_violation';
end $$;
-- Money that came late may still settle an expired payment, and a transfer one that was cancelled: nobody can call it back. A refund
-- that fails after it was done is under way again. Nothing else comes back.
create trigger payments_ended before update on identity.payments for each row when (
    old.state = 'failed' and new.state <> old.state
    or old.state = 'cancelled' and new.state <> old.state and not (old.provider = 'manual' and new.state in ('paid', 'review', 'refunding'))
    or old.state = 'refunded' and new.state not in ('refunded', 'refunding')
    or old.state = 'expired' and new.state not in ('expired', 'verifying', 'paid', 'review', 'refunding')
    or old.state in ('paid', 'partially_refunded') and new.state not in ('paid', 'refunding', 'partially_refunded', 'refunded'))
    execute function identity.guard_payment();
create trigger payments_price before update on identity.payments for each row when (
    (old.amount, old.currency, old.tenant_id, old.user_id, old.price_snapshot, old.gateway_id)
        is distinct from (new.amount, new.currency, new.tenant_id, new.user_id, new.price_snapshot, new.gateway_id)
    or old.provider_txn is distinct from new.provider_txn and old.provider_txn is not null
    or old.settled_at is distinct from new.settled_at and old.settled_at is not null)
    execute function identity.guard_payment();

create table identity.subscriptions (
    id                       uuid primary key default gen_random_uuid(),
    tenant_id                uuid not null,
    user_id                  uuid not null,
    plan_id                  uuid not null,
    amount                   bigint not null check (amount >= 0),
    currency                 char(3) not null check (currency ~ '^[A-Z]{3}$'),
    interval                 text not null default 'month' check (interval in ('month', 'year')),
    anchored_at              timestamptz not null default now(),
    period_no                int not null default 1 check (period_no >= 0),
    next_plan_id             uuid,
    state                    text not null default 'incomplete' check (state in ('incomplete', 'trialing', 'active', 'past_due', 'paused', 'cancelled', 'expired')),
    current_period_start     timestamptz not null,
    current_period_end       timestamptz not null,
    cancel_at                timestamptz,
    past_due_since           timestamptz,
    provider                 text check (provider ~ '^[a-z0-9_]{1,40}$'),
    provider_subscription    text check (char_length(provider_subscription) between 1 and 255),
    activated_by_payment_id  uuid unique,
    workflow_run_id          uuid unique,
    created_at               timestamptz not null default now(),
    updated_at               timestamptz not null default now(),
    unique (tenant_id, id),
    unique (provider, provider_subscription),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id),
    foreign key (tenant_id, plan_id) references identity.plans (tenant_id, id),
    foreign key (tenant_id, activated_by_payment_id) references identity.payments (tenant_id, id),
    foreign key (tenant_id, next_plan_id) references identity.plans (tenant_id, id),
    constraint a_period_has_a_length check (current_period_end > current_period_start),
    constraint what_is_past_due_says_since_when check ((state = 'past_due') <= (past_due_since is not null)),
    constraint nobody_has_two_plans_at_a_time exclude using gist
        (user_id with =, tstzrange(current_period_start, current_period_end) with &&) where (state in ('trialing', 'active', 'past_due', 'paused'))
);
create unique index subscriptions_live on identity.subscriptions (tenant_id, user_id) where state in ('trialing', 'active', 'past_due', 'paused');
create index subscriptions_user on identity.subscriptions (user_id);
create index subscriptions_plan on identity.subscriptions (plan_id);
create index subscriptions_next_plan on identity.subscriptions (next_plan_id) where next_plan_id is not null;
create index subscriptions_unkept on identity.subscriptions (id) where workflow_run_id is null and state in ('trialing', 'active', 'past_due');
create index subscriptions_due on identity.subscriptions (current_period_end) where state in ('trialing', 'active', 'past_due');
comment on table identity.subscriptions is 'Who has which plan, at the price it had when it was bought.';
comment on column identity.subscriptions.anchored_at is 'When its periods are counted from: the 31st stays the 31st where a month has one.';
comment on column identity.subscriptions.period_no is 'Which period is paid for: 0 is a trial.';
comment on column identity.subscriptions.next_plan_id is 'What it becomes when the period ends.';
comment on column identity.subscriptions.workflow_run_id is 'opaque: a run of the engine, which may be purged after its end';
create trigger subscriptions_ended before update on identity.subscriptions
    for each row when (old.state in ('cancelled', 'expired') and new.state <> old.state) execute function platform.refuse_to_go_on();

create table identity.subscription_periods (
    tenant_id       uuid not null,
    subscription_id uuid not null,
    period_no       int not null check (period_no >= 0),
    user_id         uuid not null,
    plan_id         uuid not null,
    starts_at       timestamptz not null,
    ends_at         timestamptz not null,
    payment_id      uuid unique,
    created_at      timestamptz not null default now(),
    primary key (subscription_id, period_no),
    foreign key (tenant_id, subscription_id) references identity.subscriptions (tenant_id, id),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id),
    foreign key (tenant_id, plan_id) references identity.plans (tenant_id, id),
    foreign key (tenant_id, payment_id) references identity.payments (tenant_id, id),
    constraint a_period_begins_before_it_ends check (ends_at > starts_at),
    constraint a_period_is_a_trial_or_paid check ((period_no = 0) = (payment_id is null)),
    constraint periods_of_a_person_do_not_overlap exclude using gist (user_id with =, tstzrange(starts_at, ends_at) with &&)
);
create index subscription_periods_user on identity.subscription_periods (user_id, starts_at desc);
create index subscription_periods_plan on identity.subscription_periods (plan_id);
comment on table identity.subscription_periods is 'Which times are paid for, and by which payment: one payment, one period.';

create table identity.subscription_changes (
    payment_id      uuid primary key,
    tenant_id       uuid not null,
    subscription_id uuid not null,
    period_no       int not null check (period_no >= 0),
    from_plan_id    uuid not null,
    from_amount     bigint not null check (from_amount >= 0),
    to_plan_id      uuid not null,
    to_amount       bigint not null check (to_amount >= 0),
    created_at      timestamptz not null default now(),
    undone_at       timestamptz,
    minutes_settled_at timestamptz,
    foreign key (tenant_id, payment_id) references identity.payments (tenant_id, id),
    foreign key (tenant_id, subscription_id) references identity.subscriptions (tenant_id, id),
    foreign key (tenant_id, from_plan_id) references identity.plans (tenant_id, id),
    foreign key (tenant_id, to_plan_id) references identity.plans (tenant_id, id),
    constraint minutes_go_back_with_the_money check (minutes_settled_at is null or undone_at is not null)
);
create index subscription_changes_subscription on identity.subscription_changes (subscription_id, created_at);
create index subscription_changes_from on identity.subscription_changes (from_plan_id);
create index subscription_changes_to on identity.subscription_changes (to_plan_id);
comment on table identity.subscription_changes is 'Which plans were changed within a period, and by which payment: whoever gets that money back has the plan before again.';
comment on column identity.subscription_changes.minutes_settled_at is 'When the minutes that it brought were taken back, as far as they were free: what comes later is not theirs.';

create table identity.payment_events (
    gateway_id   uuid not null,
    provider     text not null check (provider ~ '^[a-z0-9_]{1,40}$'),
    event_id     text not null check (char_length(event_id) between 1 and 255),
    tenant_id    uuid not null references identity.tenants (id),
    payment_id   uuid,
    type         text not null check (char_length(type) between 1 and 100),
    signature_ok boolean not null,
    raw_sha256   bytea not null check (octet_length(raw_sha256) = 32),
    payload_enc  bytea not null check (octet_length(payload_enc) <= 300000),
    received_at  timestamptz not null default now(),
    processed_at timestamptz,
    outcome      text check (outcome in ('applied', 'ignored', 'refused')),
    primary key (gateway_id, event_id),
    foreign key (tenant_id, gateway_id) references identity.payment_gateways (tenant_id, id),
    foreign key (tenant_id, payment_id) references identity.payments (tenant_id, id),
    constraint a_processed_event_has_an_outcome check ((processed_at is null) = (outcome is null)),
    constraint a_forged_event_is_not_applied check (signature_ok or outcome is distinct from 'applied')
);
create index payment_events_tenant on identity.payment_events (tenant_id, received_at desc);
create index payment_events_payment on identity.payment_events (payment_id) where payment_id is not null;
create index payment_events_processed on identity.payment_events (processed_at) where processed_at is not null;
comment on table identity.payment_events is 'What providers told us; an event counts once an account, which may hear of what is another''s.';
comment on column identity.payment_events.event_id is 'opaque: the provider''s';
comment on column identity.payment_events.payload_enc is 'secret:aead';

create table identity.refunds (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null,
    payment_id      uuid not null,
    amount          bigint not null check (amount > 0),
    state           text not null default 'requested' check (state in ('requested', 'approved', 'sending', 'manual', 'done', 'refused', 'failed')),
    reason          text not null check (char_length(reason) between 1 and 1000),
    provider        text not null check (provider ~ '^[a-z0-9_]{1,40}$'),
    provider_refund text check (char_length(provider_refund) between 1 and 255),
    automatic       boolean not null default false,
    revoke          boolean not null default true,
    requested_by    uuid,
    approved_by     uuid,
    failure_code    text check (char_length(failure_code) <= 128),
    failure_detail  text check (char_length(failure_detail) <= 1000),
    waiting_told_at timestamptz,
    done_at         timestamptz,
    idempotency_key text not null check (char_length(idempotency_key) between 1 and 255),
    workflow_run_id uuid unique,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, idempotency_key),
    unique (tenant_id, provider, provider_refund),
    foreign key (tenant_id, payment_id) references identity.payments (tenant_id, id),
    foreign key (tenant_id, requested_by) references identity.users (tenant_id, id),
    foreign key (tenant_id, approved_by) references identity.users (tenant_id, id),
    constraint a_second_person_approves check (approved_by <> requested_by),
    constraint somebody_asks_for_a_refund check (automatic = (requested_by is null)),
    constraint a_refund_that_is_done_says_when check ((state = 'done') = (done_at is not null))
);
create index refunds_payment on identity.refunds (payment_id);
create index refunds_requester on identity.refunds (requested_by) where requested_by is not null;
create index refunds_open on identity.refunds (state, updated_at) where state in ('requested', 'approved', 'sending', 'manual');
create index refunds_approver on identity.refunds (approved_by) where approved_by is not null;
comment on table identity.refunds is 'Money that goes back. manual: the gateway cannot, so people have to, and two of them say that they did.';
comment on column identity.refunds.revoke is 'Whether what was bought is taken back with it.';
comment on column identity.refunds.workflow_run_id is 'opaque: a run of the engine, which may be purged after its end';
-- A bank may send back what was done: then people have to.
create trigger refunds_ended before update on identity.refunds for each row when (
    old.state in ('refused', 'failed') and new.state <> old.state or old.state = 'done' and new.state not in ('done', 'manual'))
    execute function platform.refuse_to_go_on();

-- The refunds of a payment never exceed it: refunded_amount is theirs, and its check refuses more. The row of the
-- payment is locked by the update, so that refunds take turns.
create function identity.count_refund() returns trigger language plpgsql as $$
begin
    update identity.payments set refunded_amount = refunded_amount
        + case when new.state not in ('refused', 'failed') then new.amount else 0 end
        - case when tg_op = 'UPDATE' and old.state not in ('refused', 'failed') then old.amount else 0 end
    where id = new.payment_id;
    return new;
end $$;
create trigger refunds_count after insert or update of state, amount on identity.refunds
    for each row execute function identity.count_refund();

create table identity.payment_decisions (
    id           uuid primary key default gen_random_uuid(),
    tenant_id    uuid not null,
    payment_id   uuid not null,
    refund_id    uuid,
    outcome      text not null check (outcome in ('paid', 'refund', 'failed', 'refunded', 'given_up')),
    provider_txn text check (char_length(provider_txn) between 1 and 200),
    amount       bigint check (amount > 0),
    currency     char(3) check (currency ~ '^[A-Z]{3}$'),
    evidence     text not null check (char_length(evidence) between 1 and 4000),
    state        text not null default 'proposed' check (state in ('proposed', 'confirmed', 'refused')),
    proposed_by  uuid not null,
    decided_by   uuid,
    created_at   timestamptz not null default now(),
    decided_at   timestamptz,
    unique (tenant_id, id),
    foreign key (tenant_id, payment_id) references identity.payments (tenant_id, id),
    foreign key (tenant_id, refund_id) references identity.refunds (tenant_id, id),
    foreign key (tenant_id, proposed_by) references identity.users (tenant_id, id),
    foreign key (tenant_id, decided_by) references identity.users (tenant_id, id),
    constraint a_second_person_confirms check (state <> 'confirmed' or decided_by <> proposed_by),
    constraint a_decision_says_when_and_by_whom check ((state = 'proposed') = (decided_by is null) and (decided_by is null) = (decided_at is null)),
    constraint a_decision_that_moves_money_names_it check (outcome not in ('paid', 'refunded') or provider_txn is not null),
    constraint a_refund_is_decided_as_one check ((outcome in ('refunded', 'given_up')) = (refund_id is not null)),
    constraint an_amount_has_a_currency check ((amount is null) = (currency is null))
);
create unique index payment_decisions_open on identity.payment_decisions (payment_id) where state = 'proposed';
create index payment_decisions_payment on identity.payment_decisions (payment_id, created_at desc);
create index payment_decisions_refund on identity.payment_decisions (refund_id) where refund_id is not null;
create index payment_decisions_proposer on identity.payment_decisions (proposed_by);
create index payment_decisions_decider on identity.payment_decisions (decided_by) where decided_by is not null;
comment on table identity.payment_decisions is 'What people say of money that no gateway can tell of: one with evidence, and another one who has looked at it.';
create trigger payment_decisions_ended before update on identity.payment_decisions
    for each row when (old.state <> 'proposed') execute function platform.refuse_to_go_on();

create table identity.invoice_counters (
    tenant_id uuid not null references identity.tenants (id),
    series    text not null check (series ~ '^[A-Z0-9-]{1,16}$'),
    year      int not null check (year between 2000 and 9999),
    next      bigint not null default 1 check (next > 0),
    primary key (tenant_id, series, year)
);
comment on table identity.invoice_counters is 'The next number of a series. Its row is locked until the invoice is committed, so no number is ever left out.';

create table identity.invoices (
    id           uuid primary key default gen_random_uuid(),
    tenant_id    uuid not null references identity.tenants (id),
    series       text not null check (series ~ '^[A-Z0-9-]{1,16}$'),
    year         int not null check (year between 2000 and 9999),
    number       bigint check (number > 0),
    state        text not null default 'draft' check (state in ('draft', 'issued', 'void')),
    issue_date   date,
    buyer        jsonb not null check (octet_length(buyer::text) <= 16384),
    currency     char(3) not null check (currency ~ '^[A-Z]{3}$'),
    net_amount   bigint not null,
    tax_amount   bigint not null,
    total_amount bigint not null,
    payment_id   uuid,
    refund_id    uuid unique,
    corrects_id  uuid,
    pdf_file_id  uuid,
    sent_at      timestamptz,
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, series, year, number),
    foreign key (tenant_id, payment_id) references identity.payments (tenant_id, id),
    foreign key (tenant_id, refund_id) references identity.refunds (tenant_id, id),
    foreign key (tenant_id, corrects_id) references identity.invoices (tenant_id, id),
    constraint a_refund_corrects_a_bill check ((refund_id is null) = (corrects_id is null)),
    constraint a_total_is_a_sum check (total_amount = net_amount + tax_amount),
    constraint an_issued_invoice_has_a_number check ((state = 'draft') = (number is null) and (number is null) = (issue_date is null))
);
create index invoices_payment on identity.invoices (payment_id) where payment_id is not null;
create unique index invoices_one_a_payment on identity.invoices (payment_id) where payment_id is not null and refund_id is null;
create index invoices_corrects on identity.invoices (corrects_id) where corrects_id is not null;
create index invoices_tenant on identity.invoices (tenant_id, created_at desc, id desc);
comment on table identity.invoices is 'Bills, numbered without gaps. An issued one never changes; it is made void by another.';
comment on column identity.invoices.buyer is 'pii:name, address';
comment on column identity.invoices.pdf_file_id is 'softref:file_mgr.files(id)';
comment on column identity.invoices.sent_at is 'When somebody had it sent again, last.';

create function identity.refuse_changed_invoice() returns trigger language plpgsql as $$
begin
    raise exception 'an issued invoice does not change' using errcode = 'restrict_violation';
end $$;
create trigger invoices_issued before update on identity.invoices for each row when (
    old.state <> 'draft' and (old.tenant_id, old.series, old.year, old.number, old.issue_date, old.buyer, old.currency, old.net_amount,
        old.tax_amount, old.total_amount, old.payment_id, old.refund_id, old.corrects_id) is distinct from (new.tenant_id, new.series, new.year, new.number,
        new.issue_date, new.buyer, new.currency, new.net_amount, new.tax_amount, new.total_amount, new.payment_id, new.refund_id, new.corrects_id)
    or old.state = 'void' and new.state <> 'void' or old.state = 'issued' and new.state = 'draft'
    or old.pdf_file_id is not null and new.pdf_file_id is distinct from old.pdf_file_id)
    execute function identity.refuse_changed_invoice();
create trigger invoices_kept before delete on identity.invoices
    for each row when (old.state <> 'draft') execute function identity.refuse_changed_invoice();

-- Issues a draft: gives it the next number of its series in this transaction.
create function identity.issue_invoice(p_invoice uuid, p_date date) returns bigint language plpgsql as $$
declare
    v_draft identity.invoices;
    v_number bigint;
begin
    select * into strict v_draft from identity.invoices where id = p_invoice for update;
    insert into identity.invoice_counters as c (tenant_id, series, year, next) values (v_draft.tenant_id, v_draft.series, v_draft.year, 2)
    on conflict (tenant_id, series, year) do update set next = c.next + 1
    returning next - 1 into v_number;
    update identity.invoices set state = 'issued', number = v_number, issue_date = p_date, updated_at = now()
    where id = p_invoice and state = 'draft';
    if not found then
        raise exception 'invoice % is % already', p_invoice, v_draft.state using errcode = 'restrict_violation';
    end if;
    return v_number;
end $$;

create table identity.invoice_lines (
    tenant_id   uuid not null,
    invoice_id  uuid not null,
    line_no     int not null check (line_no > 0),
    description text not null check (char_length(description) between 1 and 500),
    quantity    int not null check (quantity > 0),
    unit_amount bigint not null,
    tax_amount  bigint not null default 0,
    primary key (invoice_id, line_no),
    foreign key (tenant_id, invoice_id) references identity.invoices (tenant_id, id) on delete cascade
);
comment on table identity.invoice_lines is 'What a bill is for; fixed with its invoice.';
create function identity.guard_invoice_line() returns trigger language plpgsql as $$
begin
    if (select state from identity.invoices where id = case tg_op when 'INSERT' then new.invoice_id else old.invoice_id end) <> 'draft' then
        raise exception 'an issued invoice does not change' using errcode = 'restrict_violation';
    end if;
    return case tg_op when 'DELETE' then old else new end;
end $$;
create trigger invoice_lines_issued before insert or update or delete on identity.invoice_lines
    for each row execute function identity.guard_invoice_line();

alter table identity.payments add constraint payments_invoice foreign key (tenant_id, invoice_id) references identity.invoices (tenant_id, id);
create index payments_of_invoice on identity.payments (invoice_id) where invoice_id is not null;

create table identity.coupons (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null references identity.tenants (id),
    code            text not null check (char_length(code) between 3 and 64),
    kind            text not null check (kind in ('percent', 'amount')),
    value           bigint not null check (value > 0),
    currency        char(3) check (currency ~ '^[A-Z]{3}$'),
    max_redemptions int not null check (max_redemptions > 0),
    redeemed        int not null default 0,
    per_user_limit  int not null default 1 check (per_user_limit > 0),
    valid_from      timestamptz not null,
    valid_to        timestamptz not null,
    created_at      timestamptz not null default now(),
    rev             int not null default 0,
    unique (tenant_id, id),
    constraint no_more_redemptions_than_allowed check (redeemed between 0 and max_redemptions),
    constraint a_coupon_is_valid_for_a_time check (valid_to > valid_from),
    constraint an_amount_has_a_currency check ((kind = 'amount') = (currency is not null) and (kind = 'amount' or value <= 100))
);
create unique index coupons_code on identity.coupons (tenant_id, lower(code));
comment on table identity.coupons is 'Reductions by code.';
comment on column identity.coupons.rev is 'How often somebody changed it; a use is no change.';
alter table identity.payments add constraint payments_with_coupon foreign key (tenant_id, coupon_id) references identity.coupons (tenant_id, id);

create table identity.coupon_redemptions (
    tenant_id  uuid not null,
    coupon_id  uuid not null,
    payment_id uuid not null,
    user_id    uuid not null,
    ordinal    int not null check (ordinal > 0),
    created_at timestamptz not null default now(),
    primary key (coupon_id, payment_id),
    unique (coupon_id, user_id, ordinal),
    foreign key (tenant_id, coupon_id) references identity.coupons (tenant_id, id),
    foreign key (tenant_id, payment_id) references identity.payments (tenant_id, id),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id)
);
create index coupon_redemptions_payment on identity.coupon_redemptions (payment_id);
create index coupon_redemptions_user on identity.coupon_redemptions (user_id);
comment on table identity.coupon_redemptions is 'Uses of coupons. Whoever adds one counts it in the coupon, in the same transaction.';

create table identity.credit_accounts (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null references identity.tenants (id),
    user_id    uuid,
    unit       text not null default 'render_second' check (unit in ('render_second')),
    balance    bigint not null default 0 check (balance >= 0),
    held       bigint not null default 0 check (held >= 0),
    updated_at timestamptz not null default now(),
    unique (tenant_id, id),
    unique nulls not distinct (tenant_id, user_id, unit),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id),
    constraint no_more_is_held_than_there_is check (held <= balance)
);
create index credit_accounts_user on identity.credit_accounts (user_id) where user_id is not null;
comment on table identity.credit_accounts is 'Credits of a tenant (user_id null) or a user: the sums of the ledger and of the open holds.';

create table identity.credit_holds (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    account_id  uuid not null,
    run_id      uuid not null unique,
    amount      bigint not null check (amount > 0),
    captured    bigint check (captured between 0 and amount),
    state       text not null default 'held' check (state in ('held', 'captured', 'released')),
    expires_at  timestamptz not null,
    created_at  timestamptz not null default now(),
    ended_at    timestamptz,
    unique (tenant_id, id),
    foreign key (tenant_id, account_id) references identity.credit_accounts (tenant_id, id),
    constraint an_ended_hold_says_when check ((state = 'held') = (ended_at is null)),
    constraint a_captured_hold_says_how_much check ((state = 'captured') = (captured is not null))
);
create index credit_holds_open on identity.credit_holds (account_id) where state = 'held';
create index credit_holds_due on identity.credit_holds (expires_at) where state = 'held';
create index credit_holds_account on identity.credit_holds (account_id, created_at desc);
comment on table identity.credit_holds is 'Credits set aside for a run: either captured or released, once.';
comment on column identity.credit_holds.run_id is 'opaque: a run of the engine, which may be purged after its end';
create trigger credit_holds_ended before update on identity.credit_holds
    for each row when (old.state <> 'held') execute function platform.refuse_to_go_on();

create table identity.credit_ledger (
    id            uuid primary key default gen_random_uuid(),
    tenant_id     uuid not null,
    account_id    uuid not null,
    entry_key     text not null check (char_length(entry_key) between 1 and 200),
    delta         bigint not null check (delta <> 0),
    balance_after bigint not null check (balance_after >= 0),
    reason        text not null check (reason in ('purchase', 'grant', 'render', 'refund', 'correction', 'expiry')),
    created_at    timestamptz not null default now(),
    unique (tenant_id, entry_key),
    foreign key (tenant_id, account_id) references identity.credit_accounts (tenant_id, id)
);
create index credit_ledger_account on identity.credit_ledger (account_id, created_at);
comment on table identity.credit_ledger is 'Every credit that came or went; an entry_key, such as run:capture, counts once.';
create trigger credit_ledger_append_only before update or delete on identity.credit_ledger
    for each row execute function platform.refuse_change();
create trigger credit_ledger_no_truncate before truncate on identity.credit_ledger
    for each statement execute function platform.refuse_change();

create table identity.provider_reconciliations (
    id          uuid not null unique default gen_random_uuid(),
    tenant_id   uuid not null references identity.tenants (id),
    provider    text not null check (provider ~ '^[a-z0-9_]{1,40}$'),
    day         date not null,
    currency    char(3) not null check (currency ~ '^[A-Z]{3}$'),
    our_amount   bigint not null,
    their_amount bigint not null,
    diff_amount  bigint not null generated always as (our_amount - their_amount) stored,
    state       text not null check (state in ('open', 'equal', 'explained')),
    note        text check (char_length(note) <= 4000),
    explanation  text check (char_length(explanation) between 1 and 4000),
    explained_by uuid,
    confirmed_by uuid,
    confirmed_at timestamptz,
    found_at    timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    primary key (tenant_id, provider, day, currency),
    foreign key (tenant_id, explained_by) references identity.users (tenant_id, id),
    foreign key (tenant_id, confirmed_by) references identity.users (tenant_id, id),
    constraint equal_means_equal check ((state = 'equal') <= (our_amount = their_amount)),
    constraint a_difference_is_explained check ((state = 'explained') = (confirmed_at is not null)),
    constraint an_explanation_is_somebodys check ((explanation is null) = (explained_by is null)),
    constraint a_second_person_confirms check (confirmed_at is null or explained_by is not null and confirmed_by <> explained_by),
    constraint a_confirmation_says_by_whom check ((confirmed_by is null) = (confirmed_at is null))
);
create index provider_reconciliations_explainer on identity.provider_reconciliations (explained_by) where explained_by is not null;
create index provider_reconciliations_confirmer on identity.provider_reconciliations (confirmed_by) where confirmed_by is not null;
comment on table identity.provider_reconciliations is 'Our sum of a day against the provider''s.';

create table identity.unmatched_payments (
    id           uuid not null unique default gen_random_uuid(),
    tenant_id    uuid not null,
    gateway_id   uuid not null,
    provider_ref text not null check (char_length(provider_ref) between 1 and 255),
    payment_id   uuid,
    amount       bigint not null check (amount >= 0),
    currency     char(3) not null check (currency ~ '^[A-Z]{3}$'),
    why          text not null check (why in ('unknown', 'ended')),
    moved_at     timestamptz,
    found_at     timestamptz not null default now(),
    explanation  text check (char_length(explanation) between 1 and 4000),
    explained_by uuid,
    confirmed_by uuid,
    confirmed_at timestamptz,
    primary key (gateway_id, provider_ref),
    foreign key (tenant_id, gateway_id) references identity.payment_gateways (tenant_id, id),
    foreign key (tenant_id, payment_id) references identity.payments (tenant_id, id),
    foreign key (tenant_id, explained_by) references identity.users (tenant_id, id),
    foreign key (tenant_id, confirmed_by) references identity.users (tenant_id, id),
    constraint an_explanation_is_somebodys check ((explanation is null) = (explained_by is null)),
    constraint a_second_person_confirms check (confirmed_at is null or explained_by is not null and confirmed_by <> explained_by),
    constraint a_confirmation_says_by_whom check ((confirmed_by is null) = (confirmed_at is null))
);
create index unmatched_payments_payment on identity.unmatched_payments (payment_id) where payment_id is not null;
create index unmatched_payments_explainer on identity.unmatched_payments (explained_by) where explained_by is not null;
create index unmatched_payments_confirmer on identity.unmatched_payments (confirmed_by) where confirmed_by is not null;
create index unmatched_payments_tenant on identity.unmatched_payments (tenant_id, found_at desc);
comment on table identity.unmatched_payments is 'Money that gateways have and no payment of ours took: somebody looks.';
comment on column identity.unmatched_payments.provider_ref is 'opaque: the provider''s';
