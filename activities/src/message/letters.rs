//! What letters say, in English and Persian.

use super::Links;
use flatrender_workflows::contracts::message::{Letter, SendMail};

/// A letter in words.
pub(super) struct Written {
    pub subject: String,
    lines: Vec<String>,
    link: Option<(String, String)>,
    close: String,
    footer: Vec<String>,
    product: String,
    color: Option<String>,
    logo: Option<String>,
    right_to_left: bool,
}

/// Writes a letter in the reader's language.
pub(super) fn write(mail: &SendMail, public_url: &str, links: &Links) -> Written {
    let persian = mail.locale.split('-').next() == Some("fa");
    let (subject, line, label) = if persian { persian_words(&mail.letter) } else { english_words(&mail.letter) };
    let page = |page: &str, id| format!("{public_url}/account/{page}#{}", links(id));
    let link = match &mail.letter {
        Letter::VerifyEmail { link } => Some(page("verify-email", *link)),
        Letter::ResetPassword { link } | Letter::Invitation { link } => Some(page("reset-password", *link)),
        _ => None,
    };
    let changed = match &mail.letter {
        Letter::EmailChanged { to } => vec![line.to_owned(), to.clone()],
        _ => vec![line.to_owned()],
    };
    let not_you = match (persian, link.is_some()) {
        (true, true) => "اگر شما این را نخواسته‌اید، این نامه را نادیده بگیرید.",
        (true, false) => "اگر این کار شما نبوده است، گذرواژه‌ی خود را عوض کنید.",
        (false, true) => "If you did not ask for this, ignore this letter.",
        (false, false) => "If this was not you, reset your password.",
    };
    let support = mail.brand.support_email.as_ref().map(|address| match persian {
        true => format!("پرسشی دارید؟ {address}"),
        false => format!("Questions? {address}"),
    });
    Written {
        subject: format!("{}: {subject}", mail.product),
        lines: changed,
        link: link.map(|address| (label.to_owned(), address)),
        close: not_you.to_owned(),
        footer: support.into_iter().chain(mail.brand.footer.clone()).collect(),
        product: mail.product.clone(),
        color: mail.brand.color.clone(),
        logo: mail.brand.logo.as_ref().map(|path| format!("{public_url}{path}")),
        right_to_left: persian,
    }
}

fn english_words(letter: &Letter) -> (&'static str, &'static str, &'static str) {
    match letter {
        Letter::VerifyEmail { .. } => (
            "confirm your address",
            "Confirm that this e-mail address is yours. The link is good for two days.",
            "Confirm",
        ),
        Letter::AlreadyRegistered => (
            "you already have an account",
            "Somebody wanted to register with this address, which has an account. Sign in, or reset your password.",
            "",
        ),
        Letter::ResetPassword { .. } => {
            ("set your password", "Set a password for your account. The link is good for one hour.", "Set the password")
        }
        Letter::Invitation { .. } => (
            "you are invited",
            "You were invited to work here. Set a password to come in. The link is good for three days.",
            "Set a password",
        ),
        Letter::PasswordChanged => (
            "your password was changed",
            "The password of your account was changed, and all other sessions were ended.",
            "",
        ),
        Letter::EmailChanged { .. } => ("your address was changed", "Your account has another e-mail address now:", ""),
        Letter::FactorsChanged => {
            ("your second factors were changed", "A second factor of your account was added or removed.", "")
        }
        Letter::IdentitiesChanged => (
            "your logins were changed",
            "A login at an identity provider was added to your account, or removed from it. Your account lists them all.",
            "",
        ),
    }
}

fn persian_words(letter: &Letter) -> (&'static str, &'static str, &'static str) {
    match letter {
        Letter::VerifyEmail { .. } => {
            ("تأیید نشانی", "تأیید کنید که این نشانی ایمیل از آنِ شماست. این پیوند دو روز اعتبار دارد.", "تأیید")
        }
        Letter::AlreadyRegistered => (
            "شما حساب دارید",
            "کسی خواسته است با این نشانی ثبت‌نام کند، ولی این نشانی حساب دارد. وارد شوید یا گذرواژه را بازنشانی کنید.",
            "",
        ),
        Letter::ResetPassword { .. } => {
            ("تنظیم گذرواژه", "برای حساب خود گذرواژه بگذارید. این پیوند یک ساعت اعتبار دارد.", "تنظیم گذرواژه")
        }
        Letter::Invitation { .. } => (
            "دعوت به همکاری",
            "شما به همکاری دعوت شده‌اید. برای ورود گذرواژه‌ای بگذارید. این پیوند سه روز اعتبار دارد.",
            "تنظیم گذرواژه",
        ),
        Letter::PasswordChanged => ("گذرواژه عوض شد", "گذرواژه‌ی حساب شما عوض شد و همه‌ی نشست‌های دیگر پایان یافت.", ""),
        Letter::EmailChanged { .. } => ("نشانی عوض شد", "حساب شما از این پس نشانی ایمیل دیگری دارد:", ""),
        Letter::FactorsChanged => ("عامل دوم عوض شد", "عامل دومی به حساب شما افزوده یا از آن برداشته شد.", ""),
        Letter::IdentitiesChanged => (
            "راه‌های ورود عوض شد",
            "یک راه ورود با سرویسی دیگر به حساب شما افزوده یا از آن برداشته شد. فهرست همه‌ی آن‌ها در حساب شماست.",
            "",
        ),
    }
}

impl Written {
    pub fn text(&self) -> String {
        let link = self.link.as_ref().map(|(_, address)| address.clone());
        let end = [self.close.clone()].into_iter().chain(self.footer.iter().cloned());
        let lines: Vec<_> = self.lines.iter().cloned().chain(link).chain(end).collect();
        lines.join("\n\n") + "\n"
    }

    pub fn html(&self) -> String {
        let direction = if self.right_to_left { "rtl" } else { "ltr" };
        let lines: String = self.lines.iter().map(|line| format!("<p>{}</p>", escaped(line))).collect();
        let color = escaped(self.color.as_deref().unwrap_or("#333333"));
        let logo = self.logo.as_ref().map(|address| {
            format!("<p><img src=\"{}\" alt=\"{}\" height=\"40\"></p>", escaped(address), escaped(&self.product))
        });
        let link = self.link.as_ref().map(|(label, address)| {
            let (address, label) = (escaped(address), escaped(label));
            format!("<p><a style=\"color:{color}\" href=\"{address}\">{label}</a></p>")
        });
        let footer: String =
            self.footer.iter().map(|line| format!("<p><small>{}</small></p>", escaped(line))).collect();
        format!(
            "<!doctype html><html dir=\"{direction}\"><meta charset=\"utf-8\"><title>{}</title>\
             <body style=\"font-family:sans-serif;line-height:1.6;border-top:4px solid {color}\">{}{lines}{}<p>{}</p>{footer}</body></html>",
            escaped(&self.subject),
            logo.unwrap_or_default(),
            link.unwrap_or_default(),
            escaped(&self.close)
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
