-- Points, achievements, gifts and referrals.

create table identity.points_ledger (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    user_id     uuid not null,
    points      int not null check (points <> 0),
    source_type text not null check (source_type ~ '^[a-z_]{1,40}$'),
    source_id   uuid not null,
    created_at  timestamptz not null default now(),
    unique (user_id, source_type, source_id),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id)
);
comment on table identity.points_ledger is 'Every point that was earned or spent; a source counts once.';
comment on column identity.points_ledger.source_id is 'opaque: what source_type says';
create trigger points_ledger_append_only before update or delete on identity.points_ledger
    for each row execute function platform.refuse_change();
create trigger points_ledger_no_truncate before truncate on identity.points_ledger
    for each statement execute function platform.refuse_change();

create table identity.user_progress (
    user_id        uuid primary key,
    tenant_id      uuid not null,
    points         bigint not null default 0 check (points >= 0),
    level          int not null default 1 check (level > 0),
    streak_days    int not null default 0 check (streak_days >= 0),
    last_active_on date,
    updated_at     timestamptz not null default now(),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id) on delete cascade
);
comment on table identity.user_progress is 'Where a user stands: the sum of the ledger, and what follows from it.';

create table identity.achievements (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null references identity.tenants (id),
    code       text not null check (code ~ '^[a-z0-9_]{1,64}$'),
    title      jsonb not null check (octet_length(title::text) <= 4096),
    points     int not null default 0 check (points >= 0),
    rule       jsonb not null default '{}' check (octet_length(rule::text) <= 4096),
    active     boolean not null default true,
    created_at timestamptz not null default now(),
    rev        int not null default 0,
    unique (tenant_id, id),
    unique (tenant_id, code)
);
comment on table identity.achievements is 'What can be achieved.';
comment on column identity.achievements.rev is 'How often somebody changed it.';

create table identity.user_achievements (
    tenant_id      uuid not null,
    user_id        uuid not null,
    achievement_id uuid not null,
    earned_at      timestamptz not null default now(),
    primary key (user_id, achievement_id),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id) on delete cascade,
    foreign key (tenant_id, achievement_id) references identity.achievements (tenant_id, id)
);
create index user_achievements_achievement on identity.user_achievements (achievement_id);
comment on table identity.user_achievements is 'Who achieved what; once.';

create table identity.gift_catalog (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null references identity.tenants (id),
    code       text not null check (code ~ '^[a-z0-9_]{1,64}$'),
    title      jsonb not null check (octet_length(title::text) <= 4096),
    kind       text not null check (kind in ('credits', 'coupon', 'template')),
    value      bigint not null check (value > 0),
    stock      int not null check (stock >= 0),
    redeemed   int not null default 0,
    active     boolean not null default true,
    created_at timestamptz not null default now(),
    rev        int not null default 0,
    unique (tenant_id, id),
    unique (tenant_id, code),
    constraint no_more_gifts_than_stock check (redeemed between 0 and stock)
);
comment on table identity.gift_catalog is 'Gifts that can be earned.';
comment on column identity.gift_catalog.rev is 'How often somebody changed it; a claim is no change.';

create table identity.earned_gifts (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null,
    user_id         uuid not null,
    gift_id         uuid not null,
    period_key      text not null check (char_length(period_key) between 1 and 40),
    reason          text not null check (char_length(reason) between 1 and 200),
    state           text not null default 'earned' check (state in ('earned', 'claimed', 'expired', 'revoked')),
    coupon_id       uuid,
    notification_id uuid,
    told_at         timestamptz,
    earned_at       timestamptz not null default now(),
    claimed_at      timestamptz,
    expires_at      timestamptz,
    unique (tenant_id, user_id, gift_id, period_key),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id),
    foreign key (tenant_id, gift_id) references identity.gift_catalog (tenant_id, id),
    foreign key (tenant_id, coupon_id) references identity.coupons (tenant_id, id),
    constraint a_claimed_gift_says_when check ((state = 'claimed') = (claimed_at is not null))
);
create index earned_gifts_user on identity.earned_gifts (user_id, earned_at desc);
create index earned_gifts_gift on identity.earned_gifts (gift_id);
create index earned_gifts_coupon on identity.earned_gifts (coupon_id) where coupon_id is not null;
create index earned_gifts_untold on identity.earned_gifts (tenant_id) where told_at is null;
create index earned_gifts_notification on identity.earned_gifts (notification_id) where notification_id is not null;
comment on table identity.earned_gifts is 'Gifts of users: one a user, gift and period.';
comment on column identity.earned_gifts.notification_id is 'The one hard reference from schema to schema; its constraint is made with notifications.';
comment on column identity.earned_gifts.told_at is 'Since when it is on its way to its user, and to whoever else hears of it.';
create trigger earned_gifts_ended before update on identity.earned_gifts
    for each row when (old.state <> 'earned' and new.state <> old.state) execute function platform.refuse_to_go_on();

create table identity.referrals (
    id               uuid primary key default gen_random_uuid(),
    tenant_id        uuid not null,
    code             text not null check (code ~ '^[A-Za-z0-9]{4,32}$'),
    referrer_user_id uuid not null,
    referee_user_id  uuid unique,
    state            text not null default 'open' check (state in ('open', 'joined', 'rewarded', 'refused')),
    created_at       timestamptz not null default now(),
    unique (tenant_id, code),
    foreign key (tenant_id, referrer_user_id) references identity.users (tenant_id, id),
    foreign key (tenant_id, referee_user_id) references identity.users (tenant_id, id),
    constraint nobody_refers_himself check (referee_user_id <> referrer_user_id),
    constraint a_reward_needs_somebody check (state = 'open' or referee_user_id is not null)
);
create index referrals_referrer on identity.referrals (referrer_user_id);
comment on table identity.referrals is 'Who brought whom; everybody is brought once.';
create trigger referrals_ended before update on identity.referrals
    for each row when (old.state in ('rewarded', 'refused') and new.state <> old.state) execute function platform.refuse_to_go_on();

call platform.keep_tenants_apart('identity');
