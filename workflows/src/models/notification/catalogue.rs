//! What the platform tells people of, and in which words until a tenant has others.

use super::routing::Class;
use crate::contracts::{notify::Channel, pay};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// What people are told of.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name, as in `render.completed`.
    pub code: &'static str,
    /// What preferences are about.
    pub category: &'static str,
    /// How much it matters.
    pub class: Class,
    /// `info`, `success`, `warning` or `critical`.
    pub severity: &'static str,
    /// How it goes out beside the list within the platform: each way by itself; within a way, what comes later is for when what
    /// comes before does not arrive.
    pub ways: &'static [&'static [Channel]],
    /// Where the reader goes from here, as a path; `{subject}` is what it is about, `{project_id}` the project of that.
    pub page: &'static str,
    english: Words,
    persian: Words,
}

/// A kind in words of a language. The body's lines are paragraphs; what the event does not say is taken from `usual`.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// In one line.
    pub subject: &'static str,
    /// More.
    pub body: &'static str,
    /// What names stand for when nobody says.
    pub usual: &'static [(&'static str, &'static str)],
}

/// What stands for why money did not come, in words; the event says it by a code, as `reason`.
const REASON_TEXT: &str = "reason_text";

/// Why money did not come, or came otherwise than it was meant: our code, in English and in Persian.
const REASONS: [(&str, &str, &str); 12] = [
    ("payment.expired", "it was not paid in time", "در زمان مقرر پرداخت نشد"),
    ("payment.given_back", "the bank has sent the money back", "بانک پول را بازگردانده است"),
    ("payment.mismatch", "what came is not what was agreed", "آنچه رسیده با آنچه توافق شده یکی نیست"),
    (
        "payment.transaction_used",
        "the same movement of money has paid for another payment",
        "همین تراکنش پیش‌تر پرداخت دیگری را تسویه کرده است",
    ),
    (
        "payment.reference_taken",
        "the payment gateway calls it as it calls another payment",
        "درگاه پرداخت آن را با شناسه‌ی پرداخت دیگری می‌خواند",
    ),
    (
        "payment.unsure",
        "the payment gateway has not said for a long time what became of it",
        "درگاه پرداخت مدت‌هاست که نتیجه‌ی آن را اعلام نکرده است",
    ),
    (pay::DECLINED, "the bank declined it", "بانک آن را نپذیرفت"),
    (pay::CANCELLED, "it was cancelled", "لغو شد"),
    (pay::REFUSED, "the payment gateway refused it", "درگاه پرداخت آن را نپذیرفت"),
    (pay::AMOUNT_LIMITS, "the payment gateway does not take such an amount", "درگاه پرداخت چنین مبلغی را نمی‌پذیرد"),
    (pay::CURRENCY, "the payment gateway does not take that currency", "درگاه پرداخت این واحد پول را نمی‌پذیرد"),
    (pay::UNREACHABLE, "the payment gateway could not be reached", "درگاه پرداخت در دسترس نبود"),
];

/// Languages there are words of, the last resort first.
pub const LANGUAGES: [&str; 2] = ["en", "fa"];

use Channel::{Email, Push, Sms, Telegram};
/// A browser, or else e-mail; and the chat.
const QUICK: &[&[Channel]] = &[&[Push, Email], &[Telegram]];
/// E-mail, or else a text message; and the browser.
const SURE: &[&[Channel]] = &[&[Email, Sms], &[Push]];
/// E-mail and the browser and the chat.
const LOUD: &[&[Channel]] = &[&[Email], &[Push], &[Telegram]];

const fn words(subject: &'static str, body: &'static str, usual: &'static [(&'static str, &'static str)]) -> Words {
    Words { subject, body, usual }
}

#[rustfmt::skip]
const KINDS: &[Kind] = &[
    Kind {
        code: "render.completed", category: "renders", class: Class::Service, severity: "success", ways: QUICK, page: "/renders/{subject}",
        english: words("{{title}} is ready", "{{title}} is finished and can be fetched.\n{{action_url}}", &[("title", "Your film")]),
        persian: words("{{title}} آماده است", "ساخت {{title}} به پایان رسید و می‌توانید آن را دریافت کنید.\n{{action_url}}", &[("title", "فیلم شما")]),
    },
    Kind {
        code: "render.failed", category: "renders", class: Class::Service, severity: "warning", ways: QUICK, page: "/renders/{subject}",
        english: words("{{title}} could not be made", "{{title}} could not be made: {{reason}}.\nNothing is charged for it.\n{{action_url}}", &[("title", "Your film"), ("reason", "the page tells more")]),
        persian: words("{{title}} ساخته نشد", "ساخت {{title}} به نتیجه نرسید: {{reason}}.\nبابت آن هزینه‌ای کسر نمی‌شود.\n{{action_url}}", &[("title", "فیلم شما"), ("reason", "جزئیات در صفحه‌ی آن است")]),
    },
    Kind {
        code: "snapshot_batch.completed", category: "snapshots", class: Class::Service, severity: "success", ways: &[&[Push]], page: "/projects/{project_id}",
        english: words("Scene pictures are ready", "The pictures of {{done}} scenes of {{project}} are ready; {{failed}} could not be made.\n{{action_url}}", &[("done", "all"), ("failed", "none"), ("project", "your project")]),
        persian: words("تصویر صحنه‌ها آماده است", "تصویر {{done}} صحنه‌ از {{project}} آماده است؛ {{failed}} صحنه ساخته نشد.\n{{action_url}}", &[("done", "همه‌ی"), ("failed", "هیچ"), ("project", "پروژه‌ی شما")]),
    },
    Kind {
        code: "payment.paid", category: "billing", class: Class::Critical, severity: "success", ways: SURE, page: "/billing/payments/{subject}",
        english: words("Receipt: {{amount}}", "We have received your payment. Amount: {{amount}}.\nNumber of the invoice: {{invoice}}.\n{{action_url}}", &[("amount", "see the invoice"), ("invoice", "it follows")]),
        persian: words("رسید پرداخت: {{amount}}", "پرداخت شما دریافت شد. مبلغ: {{amount}}.\nشماره‌ی صورت‌حساب: {{invoice}}.\n{{action_url}}", &[("amount", "در صورت‌حساب آمده است"), ("invoice", "به‌زودی فرستاده می‌شود")]),
    },
    Kind {
        code: "payment.failed", category: "billing", class: Class::Critical, severity: "warning", ways: SURE, page: "/billing/payments/{subject}",
        english: words("A payment did not go through", "Your payment did not go through: {{reason_text}}. You can try again.\n{{action_url}}", &[("reason_text", "the bank did not say why")]),
        persian: words("پرداخت انجام نشد", "پرداخت شما انجام نشد: {{reason_text}}. می‌توانید دوباره تلاش کنید.\n{{action_url}}", &[("reason_text", "بانک دلیلی اعلام نکرده است")]),
    },
    Kind {
        code: "payment.review", category: "billing", class: Class::Critical, severity: "warning", ways: &[&[Email], &[Push]], page: "/billing/payments/{subject}",
        english: words("A payment is being looked at", "Somebody of ours looks at your payment. You need do nothing; we shall tell you.\n{{action_url}}", &[]),
        persian: words("پرداخت شما در دست بررسی است", "همکاران ما پرداخت شما را بررسی می‌کنند. نیازی به کاری نیست؛ نتیجه را به شما خبر می‌دهیم.\n{{action_url}}", &[]),
    },
    Kind {
        code: "payment.undecided", category: "billing", class: Class::Critical, severity: "warning", ways: &[&[Email], &[Push]], page: "/billing/payments/{subject}",
        english: words("A payment waits for your decision", "{{amount}} came in a way that nobody expected: {{reason_text}}. Two of you have to decide what becomes of it.\n{{action_url}}", &[("amount", "Money"), ("reason_text", "the page tells more")]),
        persian: words("پرداختی در انتظار تصمیم شماست", "{{amount}} به شکلی پیش‌بینی‌نشده رسیده است: {{reason_text}}. دو نفر از شما باید درباره‌ی آن تصمیم بگیرند.\n{{action_url}}", &[("amount", "مبلغی"), ("reason_text", "جزئیات در صفحه‌ی آن است")]),
    },
    Kind {
        code: "payment.disputed", category: "billing", class: Class::Critical, severity: "critical", ways: LOUD, page: "/billing/payments/{subject}",
        english: words("A payment is disputed: {{amount}}", "The bank of whoever paid {{amount}} wants the money back. Answer it at your payment gateway: it gives you a few days.\n{{action_url}}", &[("amount", "see the payment")]),
        persian: words("اعتراض به یک پرداخت: {{amount}}", "بانک پرداخت‌کننده‌ی {{amount}} پول را پس می‌خواهد. در درگاه پرداخت خود به آن پاسخ دهید؛ چند روز فرصت دارید.\n{{action_url}}", &[("amount", "در صفحه‌ی پرداخت آمده است")]),
    },
    Kind {
        code: "payment.dispute_open", category: "operation", class: Class::Service, severity: "critical", ways: LOUD, page: "/dashboard/payments/{subject}",
        english: words("A payment is disputed: {{amount}}", "The bank of whoever paid {{amount}} wants the money back. Its tenant was told.\n{{action_url}}", &[("amount", "see the payment")]),
        persian: words("اعتراض به یک پرداخت: {{amount}}", "بانک پرداخت‌کننده‌ی {{amount}} پول را پس می‌خواهد. به مستأجر آن خبر داده شد.\n{{action_url}}", &[("amount", "در صفحه‌ی پرداخت آمده است")]),
    },
    Kind {
        code: "payment.waiting", category: "operation", class: Class::Service, severity: "critical", ways: LOUD, page: "/dashboard/payments/{subject}",
        english: words("A payment waits for somebody", "A payment has been in review for an hour: {{reason_text}}.\n{{action_url}}", &[("reason_text", "the page tells more")]),
        persian: words("پرداختی در انتظار بررسی است", "پرداختی بیش از یک ساعت است که در انتظار بررسی است: {{reason_text}}.\n{{action_url}}", &[("reason_text", "جزئیات در صفحه‌ی آن است")]),
    },
    Kind {
        code: "refund.done", category: "billing", class: Class::Critical, severity: "success", ways: &[&[Email], &[Push]], page: "/billing/payments/{subject}",
        english: words("Refund: {{amount}}", "We have paid {{amount}} back.\n{{action_url}}", &[("amount", "what was agreed")]),
        persian: words("بازپرداخت: {{amount}}", "{{amount}} به شما بازپرداخت شد.\n{{action_url}}", &[("amount", "مبلغ توافق‌شده")]),
    },
    Kind {
        code: "subscription.renewed", category: "billing", class: Class::Service, severity: "success", ways: &[&[Email]], page: "/billing",
        english: words("Your plan goes on", "Your plan {{plan}} was renewed.\n{{action_url}}", &[("plan", "")]),
        persian: words("اشتراک شما تمدید شد", "اشتراک {{plan}} شما تمدید شد.\n{{action_url}}", &[("plan", "")]),
    },
    Kind {
        code: "subscription.renewal_soon", category: "billing", class: Class::Service, severity: "info", ways: &[&[Email], &[Push]], page: "/billing",
        english: words("Your plan is to be renewed on {{due}}", "The time that is paid for ends on {{due}}. The next period is {{amount}}; it can be paid now.\n{{action_url}}", &[("due", "a day that is near"), ("amount", "to be paid")]),
        persian: words("تمدید اشتراک شما: {{due}}", "دوره‌ی پرداخت‌شده‌ی اشتراک شما در {{due}} پایان می‌یابد. هزینه‌ی دوره‌ی بعد: {{amount}}؛ هم‌اکنون می‌توانید بپردازید.\n{{action_url}}", &[("due", "روزی نزدیک"), ("amount", "در صفحه‌ی آن آمده است")]),
    },
    Kind {
        code: "subscription.reminder_1", category: "billing", class: Class::Critical, severity: "warning", ways: &[&[Email], &[Push]], page: "/billing",
        english: words("Your plan is to be paid: {{amount}}", "Your plan is not paid since {{due}}. A week after that it ends; until then everything stays as it is. It is {{amount}}.\n{{action_url}}", &[("due", "yesterday"), ("amount", "see the page")]),
        persian: words("اشتراک خود را بپردازید: {{amount}}", "اشتراک شما از {{due}} پرداخت نشده است و یک هفته پس از آن پایان می‌یابد؛ تا آن زمان چیزی تغییر نمی‌کند. مبلغ: {{amount}}.\n{{action_url}}", &[("due", "دیروز"), ("amount", "در صفحه‌ی آن آمده است")]),
    },
    Kind {
        code: "subscription.reminder_3", category: "billing", class: Class::Critical, severity: "warning", ways: &[&[Email], &[Push]], page: "/billing",
        english: words("Your plan ends soon: {{amount}} is to be paid", "Your plan is not paid since {{due}}, and ends a week after that. It is {{amount}}.\n{{action_url}}", &[("due", "three days ago"), ("amount", "what it costs")]),
        persian: words("اشتراک شما به‌زودی پایان می‌یابد: {{amount}}", "اشتراک شما از {{due}} پرداخت نشده است و یک هفته پس از آن پایان می‌یابد. مبلغ: {{amount}}.\n{{action_url}}", &[("due", "سه روز پیش"), ("amount", "هزینه‌ی آن")]),
    },
    Kind {
        code: "subscription.past_due", category: "billing", class: Class::Critical, severity: "warning", ways: SURE, page: "/billing",
        english: words("Your plan is to be paid", "The time that is paid for is over. Pay for your plan within a week; until then everything stays as it is.\n{{action_url}}", &[]),
        persian: words("زمان پرداخت اشتراک شماست", "دوره‌ی پرداخت‌شده‌ی اشتراک شما تمام شد. تا یک هفته فرصت پرداخت دارید؛ تا آن زمان چیزی تغییر نمی‌کند.\n{{action_url}}", &[]),
    },
    Kind {
        code: "subscription.cancelled", category: "billing", class: Class::Service, severity: "info", ways: &[&[Email]], page: "/billing",
        english: words("Your plan ends", "Your plan ends with the time that is paid for.\n{{action_url}}", &[]),
        persian: words("اشتراک شما لغو شد", "اشتراک شما با پایان دوره‌ی پرداخت‌شده تمام می‌شود.\n{{action_url}}", &[]),
    },
    Kind {
        code: "subscription.expired", category: "billing", class: Class::Critical, severity: "warning", ways: SURE, page: "/billing",
        english: words("Your plan has ended", "Your plan has ended. What you made stays; new films take a plan.\n{{action_url}}", &[]),
        persian: words("اشتراک شما پایان یافت", "اشتراک شما پایان یافت. آنچه ساخته‌اید می‌ماند؛ برای فیلم تازه اشتراک لازم است.\n{{action_url}}", &[]),
    },
    Kind {
        code: "usage.threshold", category: "usage", class: Class::Service, severity: "warning", ways: LOUD, page: "/usage",
        english: words("{{percent}} % of {{quota}} is used", "{{used}} of {{limit}} are used: {{percent}} % of {{quota}} in {{period}}.\n{{action_url}}", &[("quota", "a quota"), ("percent", "most"), ("used", "most"), ("limit", "all"), ("period", "this period")]),
        persian: words("{{percent}}٪ از {{quota}} مصرف شده است", "{{used}} از {{limit}} مصرف شده است: {{percent}}٪ از {{quota}} در {{period}}.\n{{action_url}}", &[("quota", "سهمیه"), ("percent", "بیشتر"), ("used", "بیشتر"), ("limit", "همه"), ("period", "این دوره")]),
    },
    Kind {
        code: "gift.earned", category: "rewards", class: Class::Service, severity: "success", ways: &[&[Push, Email]], page: "/rewards",
        english: words("A gift for you: {{gift}}", "You have earned a gift: {{gift}}.\n{{action_url}}", &[("gift", "see your rewards")]),
        persian: words("هدیه‌ای برای شما: {{gift}}", "شما هدیه‌ای گرفته‌اید: {{gift}}.\n{{action_url}}", &[("gift", "در صفحه‌ی پاداش‌ها ببینید")]),
    },
    Kind {
        code: "export.expiring", category: "renders", class: Class::Service, severity: "warning", ways: QUICK, page: "/exports/{subject}",
        english: words("{{title}} goes soon", "{{title}} is kept until {{expires}}. Fetch it before that.\n{{action_url}}", &[("title", "A film of yours"), ("expires", "tomorrow")]),
        persian: words("{{title}} به‌زودی پاک می‌شود", "{{title}} تا {{expires}} نگه داشته می‌شود. پیش از آن دریافتش کنید.\n{{action_url}}", &[("title", "یکی از فیلم‌های شما"), ("expires", "فردا")]),
    },
    Kind {
        code: "node.crashed", category: "operation", class: Class::Service, severity: "critical", ways: LOUD, page: "/dashboard/nodes/{subject}",
        english: words("Node {{node}} has crashed", "The node {{node}} has crashed: {{reason}}.\n{{action_url}}", &[("node", "of ours"), ("reason", "its log tells more")]),
        persian: words("گره {{node}} از کار افتاد", "گره {{node}} از کار افتاد: {{reason}}.\n{{action_url}}", &[("node", "رندر"), ("reason", "جزئیات در گزارش آن است")]),
    },
    Kind {
        code: "schedule.failed", category: "operation", class: Class::Service, severity: "critical", ways: LOUD, page: "/dashboard/schedules/{subject}",
        english: words("The schedule {{schedule}} fails", "The last run of the schedule {{schedule}} has failed: {{reason}}.\n{{action_url}}", &[("schedule", "of the platform"), ("reason", "its run tells more")]),
        persian: words("زمان‌بندی {{schedule}} شکست می‌خورد", "آخرین اجرای زمان‌بندی {{schedule}} شکست خورد: {{reason}}.\n{{action_url}}", &[("schedule", "سامانه"), ("reason", "جزئیات در اجرای آن است")]),
    },
    Kind {
        code: "privacy_request.due", category: "operation", class: Class::Service, severity: "critical", ways: LOUD, page: "/dashboard/tenants",
        english: words("A request for personal data is due on {{due}}", "Somebody has asked for their data, or for its removal. The law gives until {{due}}.\n{{action_url}}", &[("due", "a day that is near")]),
        persian: words("مهلت درخواست داده‌های شخصی: {{due}}", "کسی داده‌های خود یا حذف آن‌ها را خواسته است. مهلت قانونی تا {{due}} است.\n{{action_url}}", &[("due", "روزی نزدیک")]),
    },
    Kind {
        code: "cleanup.waiting", category: "usage", class: Class::Service, severity: "warning", ways: LOUD, page: "/settings/cleanup/{subject}",
        english: words("A clean-up waits for approval", "The rule {{rule}} would remove {{files}} files, more than it may by itself. Somebody other than who wrote it has a week to approve.\n{{action_url}}", &[("rule", "of yours"), ("files", "many")]),
        persian: words("یک پاک‌سازی در انتظار تأیید است", "قاعده‌ی {{rule}} می‌خواهد {{files}} پرونده را پاک کند که بیش از حد مجاز آن است. کسی جز نویسنده‌ی آن یک هفته برای تأیید فرصت دارد.\n{{action_url}}", &[("rule", "شما"), ("files", "بسیاری")]),
    },
    Kind {
        code: "webhook.disabled", category: "integration", class: Class::Service, severity: "warning", ways: LOUD, page: "/settings/webhooks/{subject}",
        english: words("A webhook was disabled", "The webhook {{url}} is not called any more: {{reason}}.\n{{action_url}}", &[("url", "of yours"), ("reason", "it said that it is gone")]),
        persian: words("یک وب‌هوک غیرفعال شد", "وب‌هوک {{url}} دیگر فراخوانده نمی‌شود: {{reason}}.\n{{action_url}}", &[("url", "شما"), ("reason", "اعلام کرده است که دیگر وجود ندارد")]),
    },
    Kind {
        code: "webhook.paused", category: "integration", class: Class::Service, severity: "warning", ways: LOUD, page: "/settings/webhooks/{subject}",
        english: words("A webhook is paused", "The webhook {{url}} has failed for days and is paused. What it missed can be sent again.\n{{action_url}}", &[("url", "of yours")]),
        persian: words("یک وب‌هوک متوقف شد", "وب‌هوک {{url}} روزهاست که پاسخ نمی‌دهد و متوقف شده است. آنچه نرسیده را می‌توان دوباره فرستاد.\n{{action_url}}", &[("url", "شما")]),
    },
    Kind {
        code: "digest", category: DIGEST, class: Class::Service, severity: "info", ways: &[], page: "/notifications",
        english: words("{{count}} things to know", "{{items}}\n{{action_url}}", &[]),
        persian: words("{{count}} خبر تازه", "{{items}}\n{{action_url}}", &[]),
    },
    Kind {
        code: "announcement", category: "announcements", class: Class::Service, severity: "info", ways: &[&[Push], &[Email]], page: "/notifications",
        english: words("{{subject}}", "{{text}}\n{{action_url}}", &[]),
        persian: words("{{subject}}", "{{text}}\n{{action_url}}", &[]),
    },
    Kind {
        code: "news", category: "news", class: Class::Marketing, severity: "info", ways: &[&[Email], &[Push]], page: "/",
        english: words("{{subject}}", "{{text}}\n{{action_url}}", &[]),
        persian: words("{{subject}}", "{{text}}\n{{action_url}}", &[]),
    },
];

/// Everything people are told of.
pub fn kinds() -> &'static [Kind] {
    KINDS
}

/// The kind of this name.
pub fn find(code: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.code == code)
}

/// What was gathered, told together. Nobody chooses about it: they choose about what is in it.
pub const DIGEST: &str = "digest";

/// Every category that people choose about, each once.
pub fn categories() -> &'static [&'static str] {
    static FOUND: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let mut found: Vec<_> = KINDS.iter().map(|kind| kind.category).filter(|category| *category != DIGEST).collect();
        found.sort_unstable();
        found.dedup();
        found
    });
    &FOUND
}

/// How much the most important kind of a category matters.
pub fn class_of(category: &str) -> Class {
    let of = |class| KINDS.iter().any(|kind| kind.category == category && kind.class == class);
    match (of(Class::Critical), of(Class::Service)) {
        (true, _) => Class::Critical,
        (_, true) => Class::Service,
        _ => Class::Marketing,
    }
}

impl Kind {
    /// Its words in a language, or in English.
    pub fn words(&self, language: &str) -> &Words {
        if spoken(language) == "fa" { &self.persian } else { &self.english }
    }

    /// What an event says, with what it does not say, and where the reader goes from here. Codes stay as they are: the words for one stand
    /// beside it, in the language at hand, whatever was said before.
    pub fn complete(&self, data: &Value, subject: Option<&str>, language: &str) -> Value {
        let usual = self.words(language).usual.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
        let mut all: Map<String, Value> = usual.collect();
        let project = data["project_id"].as_str().unwrap_or_default();
        let page = self.page.replace("{subject}", subject.unwrap_or_default()).replace("{project_id}", project);
        all.insert("action_url".into(), page.into());
        let said = data
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, value)| !value.is_null() && name.as_str() != REASON_TEXT);
        all.extend(said.map(|(name, value)| (name.clone(), value.clone())));
        let in_words = |code: &str| {
            let (_, english, persian) = REASONS.into_iter().find(|(reason, ..)| *reason == code)?;
            Some(if spoken(language) == "fa" { persian } else { english })
        };
        if let Some(code) = data["reason"].as_str()
            && all.contains_key(REASON_TEXT)
        {
            all.insert(REASON_TEXT.into(), in_words(code).unwrap_or(code).into());
        }
        Value::Object(all)
    }
}

/// The language that words are looked up by: the first part of a tag.
pub fn spoken(language: &str) -> &str {
    language.split('-').next().unwrap_or(language)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::notification::words;
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_is_said_in_every_language_whatever_the_event_says() {
        let said = json!({"subject": "S", "text": "T", "count": 2, "items": "a, b", "title": null});
        for kind in KINDS {
            for language in LANGUAGES {
                let Words { subject, body, .. } = kind.words(language);
                let data = kind.complete(&said, Some("x"), language);
                let said = words::say(subject, body, &data).unwrap_or_else(|e| panic!("{} {language}: {e}", kind.code));
                assert!(!said.subject.is_empty() && !said.lines.is_empty(), "{}", kind.code);
            }
            let both = [&kind.english, &kind.persian];
            let names = both.map(|w| {
                words::names(&format!("{}{}", w.subject, w.body))
                    .unwrap()
                    .into_iter()
                    .map(str::to_owned)
                    .collect::<BTreeSet<_>>()
            });
            assert_eq!(names[0], names[1], "{}: both languages tell the same", kind.code);
        }
    }

    #[test]
    fn why_money_did_not_come_is_told_in_words() {
        let kind = find("payment.failed").unwrap();
        let told = |reason: &str, language| {
            let told = kind.complete(&json!({"reason": reason}), None, language);
            assert_eq!(told["reason"], reason, "the code stays");
            told[REASON_TEXT].clone()
        };
        assert_eq!(told("payment.expired", "en"), "it was not paid in time");
        assert_eq!(told(pay::DECLINED, "fa-IR"), "بانک آن را نپذیرفت");
        assert_eq!(told("something.else", "en"), "something.else");
        // What was written into the list in one language is mailed in another one.
        let listed = kind.complete(&json!({"reason": pay::DECLINED}), None, "fa");
        assert_eq!(kind.complete(&listed, None, "en")[REASON_TEXT], "the bank declined it");
        let nothing = kind.complete(&json!({}), None, "fa");
        assert_eq!(kind.complete(&nothing, None, "en")[REASON_TEXT], "the bank did not say why");
    }

    #[test]
    fn the_pictures_of_a_project_are_where_the_project_is() {
        let kind = find("snapshot_batch.completed").unwrap();
        let data = kind.complete(&json!({"project_id": "p", "done": 2}), Some("batch"), "en");
        assert_eq!(data["action_url"], "/projects/p");
    }

    #[test]
    fn what_needs_consent_shares_no_category_with_what_does_not() {
        let codes: BTreeSet<_> = KINDS.iter().map(|kind| kind.code).collect();
        assert_eq!(codes.len(), KINDS.len());
        for kind in KINDS {
            assert_eq!(kind.class == Class::Marketing, class_of(kind.category) == Class::Marketing, "{}", kind.code);
            assert!(kind.ways.iter().all(|way| !way.contains(&Channel::Inapp)));
        }
    }
}
