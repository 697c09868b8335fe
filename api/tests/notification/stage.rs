//! A world whose messages go to fakes, and whose clock moves by itself.

use crate::{
    fakes::{MailServer, Web},
    world::{PUBLIC_URL, World},
};
use flatrender_activities::{
    egress::{Egress, Reach},
    message::{Mailer, MailerConfig},
    notify::{Courier, CourierConfig, push},
};
use flatrender_engine::{Handler, Worker, testing::skip_to_next_timer, worker::Builder};
use flatrender_workflows::{
    contracts::notify::{
        Channel, EMAIL_QUEUE, PUSH_QUEUE, SMS_QUEUE, SendEmail, SendPush, SendSms, SendTelegram, TELEGRAM_QUEUE,
    },
    definitions::{deliver::Deliver, notify::Notify, roll_up_usage::RollUpUsage, send_digests::SendDigests},
    models::{
        DEFAULT_TENANT, Role, Scope,
        notification::{
            account::{self, NewAccount},
            address::{self, NewBrowser},
            audience::{Audience, News},
        },
    },
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A world with providers.
pub struct Stage {
    pub world: World,
    pub web: Web,
    pub mail: MailServer,
}

impl Stage {
    pub async fn new(db: PgPool) -> Self {
        Self { world: World::new(db).await, web: Web::new().await, mail: MailServer::new().await }
    }

    /// Carries messages; waits for nobody longer than half a second.
    pub fn courier(&self) -> Courier {
        let (links, opens, marks) =
            (self.world.app.vault.clone(), self.world.app.vault.clone(), self.world.app.vault.clone());
        let mailer = Mailer::new(MailerConfig {
            server: Some(self.mail.url.clone()),
            folder: self.world.folder.path().join("mail"),
            from: "noreply@films.example".into(),
            public_url: PUBLIC_URL.into(),
            links: Arc::new(move |id| links.link(id)),
        });
        Courier::new(CourierConfig {
            mailer: mailer.unwrap(),
            egress: Egress::new(Reach::Anywhere).with_patience(Duration::from_millis(500)),
            opener: Arc::new(move |sealed| opens.unseal(&sealed.place, &hex::decode(&sealed.hex).ok()?).ok()),
            marks: Arc::new(move |purpose| marks.mark(purpose)),
            public_url: PUBLIC_URL.into(),
            mail_patience: Duration::from_millis(500),
        })
    }

    /// Works until every run is over. Sleeps take no time.
    pub async fn play(&self) {
        self.play_for(Duration::from_secs(60)).await;
    }

    /// The same, for so long at most.
    pub async fn play_for(&self, most: Duration) {
        self.play_with(most, self.courier()).await;
    }

    /// The same, with e-mail carried by somebody else.
    pub async fn play_with(&self, most: Duration, post: impl Handler<SendEmail>) {
        self.play_as(most, post, |worker| worker).await;
    }

    /// The same, by such a worker.
    pub async fn play_as(&self, most: Duration, post: impl Handler<SendEmail>, how: impl FnOnce(Builder) -> Builder) {
        let (stop, courier) = (CancellationToken::new(), self.courier());
        let worker = Worker::builder(self.world.db.clone())
            .workflow::<Notify>()
            .workflow::<Deliver>()
            .workflow::<SendDigests>()
            .workflow::<RollUpUsage>()
            .queue(EMAIL_QUEUE, 8)
            .handler::<SendEmail>(post)
            .queue(PUSH_QUEUE, 8)
            .handler::<SendPush>(courier.clone())
            .queue(SMS_QUEUE, 8)
            .handler::<SendSms>(courier.clone())
            .queue(TELEGRAM_QUEUE, 8)
            .handler::<SendTelegram>(courier)
            .grace(Duration::from_millis(100))
            .hasty();
        let working = tokio::spawn(how(worker).run(stop.clone()));
        let began = std::time::Instant::now();
        let unfinished = "select count(*) from workflow.runs where state = 'running'";
        while sqlx::query_scalar::<_, i64>(unfinished).fetch_one(&self.world.db).await.unwrap() > 0 {
            assert!(began.elapsed() < most, "{:#?}", self.deliveries().await);
            skip_to_next_timer(&self.world.db).await.unwrap();
            // Some thousand looks at most: they cost the database something, too.
            tokio::time::sleep(most / 6_000).await;
        }
        stop.cancel();
        working.await.unwrap().unwrap();
    }

    /// Something happened.
    pub async fn happens(&self, code: &str, audience: Audience, data: Value) -> Uuid {
        let news = News { event_id: Uuid::now_v7(), code: code.into(), audience, subject: Some(Uuid::now_v7()), data };
        self.start(news.clone()).await;
        news.event_id
    }

    pub async fn start(&self, news: News) {
        let notify = Notify::of(news);
        let key = notify.key();
        let mut tx = self.world.db.begin().await.unwrap();
        self.world.app.workflows.start(&mut tx, DEFAULT_TENANT, Some(&key), notify).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// It happens, and all that comes of it.
    pub async fn tell(&self, code: &str, user_id: Uuid, data: Value) {
        self.happens(code, Audience::User(user_id), data).await;
        self.play().await;
    }

    /// `channel state class attempts`, of every delivery, in order; a `?` behind those whose outcome was unknown.
    pub async fn deliveries(&self) -> Vec<String> {
        sqlx::query_scalar(
            "select channel || ' ' || d.state || coalesce(' ' || error_class, '') || ' ' || attempt_no || case when outcome_unknown then '?' else '' end
             from notification.notification_deliveries d join notification.notifications n on n.id = d.notification_id
             where channel <> 'inapp' order by n.created_at, n.id, channel, d.updated_at",
        )
        .fetch_all(&self.world.db)
        .await
        .unwrap()
    }

    /// What became of the newest message, by every channel but the list.
    pub async fn last(&self) -> Vec<String> {
        sqlx::query_scalar(
            "select channel || ' ' || d.state || coalesce(' ' || error_class, '') || ' ' || attempt_no || case when outcome_unknown then '?' else '' end
             from notification.notification_deliveries d
             where channel <> 'inapp' and notification_id = (select id from notification.notifications order by created_at desc, id desc limit 1)
             order by channel, d.id",
        )
        .fetch_all(&self.world.db)
        .await
        .unwrap()
    }

    /// A person with a number that is theirs.
    pub async fn with_phone(&self, user_id: Uuid, number: &str) {
        let sql = "update identity.users set phone = $2, phone_verified_at = now() where id = $1";
        sqlx::query(sql).bind(user_id).bind(number).execute(&self.world.db).await.unwrap();
    }

    /// A person with a chat.
    pub async fn with_chat(&self, user_id: Uuid, chat: &str) {
        let sealed = self.world.app.vault.seal(&address::chat_place(user_id), chat.as_bytes());
        let mut tx = Scope::tenant(Role::Notification, DEFAULT_TENANT).begin(&self.world.db).await.unwrap();
        address::connect_chat(&mut tx, DEFAULT_TENANT, user_id, chat, &sealed).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A person with a browser at the fake; its key is nobody's.
    pub async fn with_browser(&self, user_id: Uuid, path: &str, vapid_key: &str) -> Uuid {
        let key = push::new_key("mailto:a@b.c".into()).unwrap();
        let point = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, key.public).unwrap();
        let id = Uuid::now_v7();
        let sealed = self.world.app.vault.seal(&address::auth_place(id), &[7; 16]);
        // The table takes https alone; the fake has no certificate.
        let endpoint = format!("https://push.example/{path}");
        let new =
            NewBrowser { id, endpoint: &endpoint, p256dh: &point, auth_enc: &sealed, vapid_key, user_agent: None };
        let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&self.world.db).await.unwrap();
        address::subscribe(&mut tx, DEFAULT_TENANT, user_id, &new).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        sqlx::query(
            "alter table identity.push_subscriptions drop constraint if exists push_subscriptions_endpoint_check",
        )
        .execute(&self.world.db)
        .await
        .unwrap();
        let sql = "update identity.push_subscriptions set endpoint = $2 where id = $1";
        let there = format!("{}/{path}", self.web.url);
        sqlx::query(sql).bind(id).bind(there).execute(&self.world.db).await.unwrap();
        id
    }

    /// An account of the platform's at the fake; its id.
    pub async fn account(&self, provider: &str, channel: Channel, config: Value) -> Uuid {
        let id = Uuid::now_v7();
        let sealed = self.world.app.vault.seal(&account::place(id), config.to_string().as_bytes());
        let name = format!("{provider} {id}");
        let new = NewAccount { id, channel, name: &name, provider, sealed: &sealed, per_second: 1000.0, position: 0 };
        let mut tx = Scope::tenant(Role::Notification, DEFAULT_TENANT).begin(&self.world.db).await.unwrap();
        assert!(account::create(&mut tx, DEFAULT_TENANT, &new).await.unwrap());
        tx.commit().await.unwrap();
        id
    }

    /// Accounts for text messages and chats at the fake.
    pub async fn twilio(&self) -> Uuid {
        let config =
            json!({ "base_url": self.web.url, "account_sid": "AC1", "auth_token": "secret", "from": "+15005550006" });
        self.account("twilio", Channel::Sms, config).await
    }

    pub async fn kavenegar(&self) -> Uuid {
        let config = json!({ "base_url": self.web.url, "api_key": "key", "sender": "10004346" });
        self.account("kavenegar", Channel::Sms, config).await
    }

    pub async fn telegram(&self) -> Uuid {
        let config = json!({ "base_url": self.web.url, "token": "1:secret", "bot": "films_bot" });
        self.account("telegram", Channel::Telegram, config).await
    }

    /// A key for browsers; its public part.
    pub async fn vapid(&self) -> String {
        let key = push::new_key("mailto:ops@films.example".into()).unwrap();
        self.account("vapid", Channel::Push, serde_json::to_value(&key).unwrap()).await;
        key.public
    }

    /// What a person wants.
    pub async fn wants(&self, user_id: Uuid, category: &str, channel: &str, enabled: bool, more: &str) {
        let sql = format!(
            "insert into notification.notification_preferences (tenant_id, user_id, category, channel, enabled {})
             values ($1, $2, $3, $4, $5 {})",
            if more.is_empty() { String::new() } else { format!(", {}", more.split('=').next().unwrap()) },
            if more.is_empty() { String::new() } else { format!(", {}", more.split('=').nth(1).unwrap()) },
        );
        let query =
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(DEFAULT_TENANT).bind(user_id).bind(category).bind(channel);
        query.bind(enabled).execute(&self.world.db).await.unwrap();
    }
}
