//! The codes of all problems, in one place. Codes live for ever: add, never rename.

use axum::http::StatusCode;

macro_rules! status {
    // Of tus; no other protocol has it.
    (CHECKSUM_MISMATCH) => {
        StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST)
    };
    ($status:ident) => {
        StatusCode::$status
    };
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $status:ident, $title:literal;)+) => {
        /// What kind of problem it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// As clients read it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The HTTP status it is answered with.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => status!($status),)+ }
            }

            /// In words, for people.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }

            /// When it happens and what to do.
            pub fn help(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

codes! {
    /// The request has no `Authorization: Bearer …` header. Send your key.
    AuthMissing = "auth.missing", UNAUTHORIZED, "No credential";
    /// The key or credential is unknown, expired or revoked. Ask for a new one.
    AuthInvalid = "auth.invalid", UNAUTHORIZED, "The credential is not valid";
    /// The key is good, but not from the address that the request came from. Ask whoever made the key.
    AuthAddress = "auth.address", FORBIDDEN, "Not from this address";
    /// The host name that was asked is another tenant's: what is good with one tenant opens nothing at the door of another. Ask
    /// at your own.
    AuthHost = "auth.host", FORBIDDEN, "Not at this host name";
    /// The key may not do this; the detail names the scope that it lacks.
    AuthScope = "auth.scope", FORBIDDEN, "The key lacks a scope";
    /// The tenant is suspended: what is there can be read, nothing can be started or changed.
    TenantSuspended = "tenant.suspended", FORBIDDEN, "The tenant is suspended";
    /// More requests than agreed. Wait for `Retry-After` seconds; `RateLimit` tells what is left.
    RateLimited = "rate.limited", TOO_MANY_REQUESTS, "Too many requests";
    /// As many films were ordered today as a day may have. `Retry-After` tells when the next day begins, by UTC.
    QuotaRendersPerDay = "quota.renders_per_day", TOO_MANY_REQUESTS, "Too many films today";
    /// As many films are under way as there may be. Wait until one has ended, or cancel one.
    QuotaConcurrentRenders = "quota.concurrent_renders", TOO_MANY_REQUESTS, "Too many films at a time";
    /// There is no room for it in what was agreed.
    QuotaStorage = "quota.storage", CONFLICT, "No room left";
    /// As many people have a role as may have one. Remove somebody first.
    QuotaSeats = "quota.seats", CONFLICT, "No seat left";
    /// There is not enough to pay for the film; the detail tells how many seconds it may take. Buy some, or order a shorter one.
    CreditsInsufficient = "credits.insufficient", PAYMENT_REQUIRED, "Not enough credits";
    /// So many credits cannot be taken: there are fewer, or films under way may need them.
    CreditsShort = "credits.short", CONFLICT, "Not so many credits";
    /// The account holds no more than 10¹² seconds. Spend some first.
    CreditsFull = "credits.full", CONFLICT, "No more credits fit";
    /// Your plan does not allow it; the detail tells what it allows. Have another plan.
    PlanLimit = "plan.limit", FORBIDDEN, "Not in your plan";
    /// There is no such plan, or it is not sold to you like this.
    PlanNotFound = "plan.not_found", NOT_FOUND, "No such plan";
    /// The version of the plan is retired. Make a new one.
    PlanRetired = "plan.retired", CONFLICT, "The plan is retired";
    /// There is no such coupon.
    CouponNotFound = "coupon.not_found", NOT_FOUND, "No such coupon";
    /// There is a coupon of this code already.
    CouponExists = "coupon.exists", CONFLICT, "The coupon is there";
    /// The coupon was used more often than it would be allowed now.
    CouponInUse = "coupon.in_use", CONFLICT, "The coupon is in use";
    /// The coupon takes nothing off; the detail tells why.
    CouponRefused = "coupon.refused", CONFLICT, "The coupon is not taken";
    /// There is no such payment, or it is not yours.
    PaymentNotFound = "payment.not_found", NOT_FOUND, "No such payment";
    /// The payment has ended, or its money is there: ask for a refund instead.
    PaymentTooLate = "payment.too_late", CONFLICT, "Too late for that";
    /// You have many payments under way. Pay or cancel some of them first.
    PaymentTooMany = "payment.too_many", CONFLICT, "Too many payments under way";
    /// It costs something else than you were shown. Look at the price again.
    PaymentPriceChanged = "payment.price_changed", CONFLICT, "It costs something else now";
    /// People do not decide about this payment or refund: its gateway says what becomes of it, or it has ended.
    PaymentNotDecidable = "payment.not_decidable", CONFLICT, "Not for people to decide";
    /// A decision about this payment waits for its second person. Confirm or refuse that one first.
    PaymentDecisionOpen = "payment_decision.open", CONFLICT, "A decision waits";
    /// There is no such decision.
    PaymentDecisionNotFound = "payment_decision.not_found", NOT_FOUND, "No such decision";
    /// There is no such difference between our books and a gateway's.
    PaymentDifferenceNotFound = "payment_difference.not_found", NOT_FOUND, "No such difference";
    /// Two people have explained the difference, or it is not, by now, what you have seen. Look at it again.
    PaymentDifferenceOver = "payment_difference.over", CONFLICT, "The difference is over";
    /// It takes another person: not the one who asked for it, and no key.
    SecondPersonNeeded = "second_person.needed", CONFLICT, "Another person has to";
    /// There is no such refund.
    RefundNotFound = "refund.not_found", NOT_FOUND, "No such refund";
    /// No more goes back than was paid, and nothing where nothing was.
    RefundTooMuch = "refund.too_much", CONFLICT, "Not so much can go back";
    /// There is no such bill, or it is not yours.
    InvoiceNotFound = "invoice.not_found", NOT_FOUND, "No such bill";
    /// The bill was sent again a moment ago. Wait for `Retry-After` seconds.
    InvoiceJustSent = "invoice.just_sent", TOO_MANY_REQUESTS, "The bill was just sent";
    /// There is no such payment gateway, or no account at it.
    GatewayNotFound = "gateway.not_found", NOT_FOUND, "No such payment gateway";
    /// The webhook is not signed by the gateway, or was signed too long ago.
    GatewaySignature = "gateway.signature", UNAUTHORIZED, "The signature is not good";
    /// The webhook is signed well, and is no event.
    GatewayUnreadable = "gateway.unreadable", BAD_REQUEST, "No event";
    /// There is no such pack of credits, or it is not sold any more.
    CreditPackNotFound = "credit_pack.not_found", NOT_FOUND, "No such pack";
    /// You have no plan.
    SubscriptionNotFound = "subscription.not_found", NOT_FOUND, "No subscription";
    /// There is no trial of this plan for you. Pay for the plan.
    SubscriptionNoTrial = "subscription.no_trial", CONFLICT, "No trial";
    /// Something is due for your plan. Pay it first; else the plan ends a week after it was due.
    SubscriptionPastDue = "subscription.past_due", CONFLICT, "The plan is to be paid";
    /// What was shown is not what it costs any more. Look at it again.
    SubscriptionPreviewChanged = "subscription.preview_changed", CONFLICT, "It costs something else now";
    /// You have no such gift, or there is none in the catalogue.
    GiftNotFound = "gift.not_found", NOT_FOUND, "No such gift";
    /// There is a gift of this code already.
    GiftExists = "gift.exists", CONFLICT, "The gift is there";
    /// More of the gift were claimed than there would be.
    GiftInUse = "gift.in_use", CONFLICT, "The gift is in use";
    /// The gift was claimed before, or taken back.
    GiftClaimed = "gift.claimed", CONFLICT, "The gift was claimed";
    /// The gift was not claimed in time.
    GiftExpired = "gift.expired", CONFLICT, "The gift has expired";
    /// There are none of these left.
    GiftSoldOut = "gift.sold_out", CONFLICT, "None left";
    /// There is no such achievement.
    AchievementNotFound = "achievement.not_found", NOT_FOUND, "No such achievement";
    /// There is an achievement of this code already.
    AchievementExists = "achievement.exists", CONFLICT, "The achievement is there";
    /// There is no such invitation, or somebody used it.
    ReferralNotFound = "referral.not_found", NOT_FOUND, "No such invitation";
    /// The invitation is your own.
    ReferralSelf = "referral.self", CONFLICT, "Nobody brings themselves";
    /// Somebody brought you before, or you have been here for too long.
    ReferralLate = "referral.late", CONFLICT, "Too late";
    /// As many of your invitations are unused as may be.
    ReferralsFull = "referral.too_many", CONFLICT, "Too many invitations";
    /// There is no such API key.
    ApiKeyNotFound = "api_key.not_found", NOT_FOUND, "No such API key";
    /// The key is revoked or expired. Make a new one.
    ApiKeyEnded = "api_key.ended", CONFLICT, "The API key has ended";
    /// The key was rotated before. Rotate its successor, or make a new one.
    ApiKeyRotated = "api_key.rotated", CONFLICT, "The API key has a successor";
    /// The tenant has as many keys as it may. Revoke some.
    ApiKeysFull = "api_key.too_many", CONFLICT, "Too many API keys";
    /// There is no such host name of the tenant.
    DomainNotFound = "domain.not_found", NOT_FOUND, "No such host name";
    /// The tenant has this host name already.
    DomainExists = "domain.exists", CONFLICT, "The host name is there";
    /// The tenant has as many host names as it may. Remove one.
    DomainsFull = "domain.too_many", CONFLICT, "Too many host names";
    /// The DNS does not say that the name is the tenant's; the detail names the record. A new record may take a while to be seen.
    DomainUnproven = "domain.unproven", CONFLICT, "The host name is not proven";
    /// The host name is proven to be another tenant's, and stays with it until that one removes it.
    DomainTaken = "domain.taken", CONFLICT, "The host name is another tenant's";
    /// There is no such webhook.
    WebhookNotFound = "webhook.not_found", NOT_FOUND, "No such webhook";
    /// The webhook is paused or disabled. Let it go on first, with `active`.
    WebhookNotActive = "webhook.not_active", CONFLICT, "The webhook is not active";
    /// There is no such delivery to this webhook.
    WebhookDeliveryNotFound = "webhook.delivery_not_found", NOT_FOUND, "No such delivery";
    /// The delivery has not ended: it is being sent, or tried again later.
    WebhookDeliveryPending = "webhook.delivery_pending", CONFLICT, "The delivery has not ended";
    /// The tenant has as many webhooks as it may. Remove one.
    WebhooksFull = "webhook.too_many", CONFLICT, "Too many webhooks";
    /// There is no such notification of yours, or no such kind, category, channel or language of them.
    NotificationNotFound = "notification.not_found", NOT_FOUND, "No such notification";
    /// There is no such account of the tenant.
    NotificationAccountNotFound = "notification_account.not_found", NOT_FOUND, "No such account";
    /// The tenant has an account of this name, or as many as it may.
    NotificationAccountExists = "notification_account.exists", CONFLICT, "The account is there";
    /// There is no such browser of yours.
    PushNotFound = "push.not_found", NOT_FOUND, "No such browser";
    /// As many browsers tell you as may. Remove one.
    PushFull = "push.too_many", CONFLICT, "Too many browsers";
    /// Nobody has given the platform a bot: chats cannot be connected.
    TelegramNoBot = "telegram.no_bot", CONFLICT, "There is no bot";
    /// This is no address that stood in a mail of ours or with an account.
    UnsubscribeInvalid = "unsubscribe.invalid", NOT_FOUND, "No such address";
    /// There is no such identity provider, or nobody signs in with it.
    IdentityProviderNotFound = "identity_provider.not_found", NOT_FOUND, "No such identity provider";
    /// The tenant has a provider with this issuer already.
    IdentityProviderExists = "identity_provider.exists", CONFLICT, "The identity provider is there";
    /// The tenant has as many identity providers as it may. Remove one.
    IdentityProvidersFull = "identity_provider.too_many", CONFLICT, "Too many identity providers";
    /// The provider gave no answer in time, or none that can be read; the detail tells which. Try again, or look at the issuer.
    IdentityProviderUnreachable = "identity_provider.unreachable", BAD_GATEWAY, "The identity provider cannot be asked";
    /// What the provider says of itself is not what we can work with; the detail tells why.
    IdentityProviderUnfit = "identity_provider.unfit", UNPROCESSABLE_ENTITY, "The identity provider does not fit";
    /// What the provider says of the person is not believed, such as a signature that is wrong or a time that is over. Sign in again.
    IdentityRefused = "auth.identity_refused", FORBIDDEN, "The provider's word is not taken";
    /// Nobody has this login, and nobody gets it by themselves: the detail tells why. Sign in as before and add it to your account, or ask to be invited.
    IdentityUnknown = "auth.identity_unknown", FORBIDDEN, "Nobody has this login";
    /// Somebody has this login, or you have another one at this provider. Remove that one first.
    IdentityTaken = "identity.taken", CONFLICT, "The login is taken";
    /// You have no such login.
    IdentityNotFound = "identity.not_found", NOT_FOUND, "No such login";
    /// You are known, and may not do this: it takes another role, or a person instead of a key.
    AuthForbidden = "auth.forbidden", FORBIDDEN, "Not allowed";
    /// This takes somebody who just proved who they are. `POST /v1/auth/step-up`, then repeat the request.
    AuthStepUp = "auth.step_up", FORBIDDEN, "Prove again that it is you";
    /// The address or the password is wrong; which one is not told.
    AuthCredentials = "auth.credentials", UNAUTHORIZED, "The address or the password is wrong";
    /// The address was not proven yet. The link is in the mail that came after registering; registering again sends another.
    AuthEmailUnproven = "auth.email_unproven", FORBIDDEN, "Prove your address first";
    /// The code of the second factor is wrong, too old, or was used before. Wait for the next one.
    AuthCode = "auth.code", FORBIDDEN, "The code is not good";
    /// What the passkey signed is not good: for another challenge, page or account, too old, or shown before. Begin anew.
    AuthPasskey = "auth.passkey", FORBIDDEN, "The passkey is not good";
    /// The passkey counts fewer uses than were seen of it: there may be a copy. Show another factor, and remove this one.
    AuthPasskeyCloned = "auth.passkey_cloned", FORBIDDEN, "The passkey may have been copied";
    /// There were too many failures. Try again after `Retry-After`.
    AuthThrottled = "auth.throttled", TOO_MANY_REQUESTS, "Too many failures";
    /// The link is unknown, too old, or was used before. Ask for another.
    LinkInvalid = "link.invalid", UNPROCESSABLE_ENTITY, "The link is not good";
    /// The address of some content was not signed here, or was changed. Ask whoever gave it to you for another.
    LinkForged = "link.forged", FORBIDDEN, "The address is not signed by us";
    /// The address of some content is over. Ask whoever gave it to you for another.
    LinkExpired = "link.expired", GONE, "The address is over";
    /// The organisation does not let people register by themselves. Ask to be invited.
    RegistrationClosed = "account.registration_closed", FORBIDDEN, "Nobody registers here by themselves";
    /// Somebody else has this address by now.
    EmailTaken = "account.email_taken", CONFLICT, "The address is taken";
    /// There is no such tenant.
    TenantNotFound = "tenant.not_found", NOT_FOUND, "No such tenant";
    /// Another tenant has this slug.
    TenantSlugTaken = "tenant.slug_taken", CONFLICT, "The slug is taken";
    /// The tenant is closed, for good; or it is the platform's own, which cannot be.
    TenantClosed = "tenant.closed", CONFLICT, "The tenant is closed";
    /// It is the platform's own tenant: whoever runs the platform could do nothing any more, such as letting it go on.
    TenantPlatform = "tenant.platform", CONFLICT, "The platform's own tenant";
    /// The brand has no such picture.
    BrandPictureNotFound = "branding.no_picture", NOT_FOUND, "The brand has no such picture";
    /// There is no such person in the tenant.
    MemberNotFound = "member.not_found", NOT_FOUND, "No such person";
    /// Nobody gives or takes what is above their own role.
    MemberOutranked = "member.outranked", FORBIDDEN, "Above your role";
    /// Somebody has to own the tenant. Make another person its owner first.
    MemberLastOwner = "member.last_owner", CONFLICT, "The last owner";
    /// You have no such session.
    SessionNotFound = "session.not_found", NOT_FOUND, "No such session";
    /// You have no such second factor, or it is confirmed already.
    FactorNotFound = "factor.not_found", NOT_FOUND, "No such second factor";
    /// You have as many second factors as somebody may have. Remove one.
    FactorsFull = "factor.too_many", CONFLICT, "Too many second factors";
    /// The passkey is, or was, a factor already. Add another.
    FactorExists = "factor.exists", CONFLICT, "The passkey is there";
    /// The public address of the platform is none that passkeys could be bound to. Tell whoever runs it.
    WebauthnUnavailable = "webauthn.unavailable", CONFLICT, "No passkeys here";
    /// There is nothing at this address. See `/docs` for all addresses.
    RouteNotFound = "route.not_found", NOT_FOUND, "No such address";
    /// The address is there, but not for this method; `Allow` names those that are.
    MethodNotAllowed = "route.method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    /// A part of the address is not what it has to be, such as an id that is no UUID.
    PathInvalid = "path.invalid", BAD_REQUEST, "The address does not fit";
    /// A parameter behind the question mark is unknown or not what it has to be.
    QueryInvalid = "query.invalid", BAD_REQUEST, "The query does not fit";
    /// A header has a value that makes no sense; the detail names it.
    HeaderInvalid = "header.invalid", BAD_REQUEST, "A header does not fit";
    /// The body has to be JSON, sent with `Content-Type: application/json`.
    BodyNotJson = "body.not_json", UNSUPPORTED_MEDIA_TYPE, "The body is not announced as JSON";
    /// The body is announced as JSON and is not; the detail gives line and column.
    BodySyntax = "body.syntax", BAD_REQUEST, "The body is not JSON";
    /// The body is longer than allowed: 1 MiB of JSON, 64 MB for a frame.
    BodyTooLarge = "body.too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// The body ended early or stopped coming. Send it again.
    BodyUnreadable = "body.unreadable", BAD_REQUEST, "The body could not be read";
    /// The body is JSON but not what is expected; `errors` names every field that is wrong.
    RequestInvalid = "request.invalid", UNPROCESSABLE_ENTITY, "The request does not fit";
    /// The key was used for another request. Use a fresh key, or the same body.
    IdempotencyKeyReused = "idempotency.key_reused", UNPROCESSABLE_ENTITY, "The idempotency key belongs to another request";
    /// The order names a template, or a version of it, that is not there. `GET /v1/templates` lists them.
    TemplateUnknown = "template.unknown", UNPROCESSABLE_ENTITY, "Unknown template";
    /// There is no such template.
    TemplateNotFound = "template.not_found", NOT_FOUND, "No such template";
    /// There is no such request for a still.
    SnapshotJobNotFound = "snapshot_job.not_found", NOT_FOUND, "No such snapshot job";
    /// The tenant has no template of its own with this id.
    ProjectNotFound = "project.not_found", NOT_FOUND, "No such template of yours";
    /// The template has no such traced picture.
    SvgPreviewNotFound = "svg_preview.not_found", NOT_FOUND, "No such traced picture";
    /// The picture is damaged, empty, of another kind, or has too much detail to become a small SVG; the detail tells which.
    SvgPreviewUntraceable = "svg_preview.untraceable", UNPROCESSABLE_ENTITY, "The picture cannot be traced";
    /// The template has no picture.
    PreviewNotFound = "template.no_preview", NOT_FOUND, "The template has no preview";
    /// There is no such render.
    RenderNotFound = "render.not_found", NOT_FOUND, "No such render";
    /// The render has ended and cannot be cancelled.
    RenderFinished = "render.finished", CONFLICT, "The render has ended";
    /// The film is being published and can no longer be cancelled.
    RenderTooLate = "render.too_late", CONFLICT, "Too late to cancel";
    /// Nothing of the render can be seen yet, or it has ended.
    RenderNoFrame = "render.no_frame", NOT_FOUND, "No frame yet";
    /// More event streams are open than one tenant may have. Close some, or poll the render.
    TooManyStreams = "events.too_many_streams", TOO_MANY_REQUESTS, "Too many event streams";
    /// There is no such export.
    ExportNotFound = "export.not_found", NOT_FOUND, "No such export";
    /// The range lies outside the content; `Content-Range` tells its length.
    RangeNotSatisfiable = "range.not_satisfiable", RANGE_NOT_SATISFIABLE, "The range is outside the content";
    /// There is no such file.
    FileNotFound = "file.not_found", NOT_FOUND, "No such file";
    /// The file has no bytes.
    FileEmpty = "file.empty", UNPROCESSABLE_ENTITY, "The file is empty";
    /// The content is none of the kinds that are taken in, whatever its name says: PNG, JPEG, WebP, WAV, MP3, M4A, AAC, Ogg,
    /// FLAC, MP4, MOV, WebM, zip.
    FileUnsupportedType = "file.unsupported_type", UNSUPPORTED_MEDIA_TYPE, "The file is of no kind that is taken in";
    /// The content does not go on as it begins, or is an archive of which not every program would make the same.
    FileCorrupt = "file.corrupt", UNPROCESSABLE_ENTITY, "The file is damaged";
    /// The file is longer than 200 MB, has too many pixels, plays too long or holds too much.
    FileTooLarge = "file.too_large", PAYLOAD_TOO_LARGE, "The file is too large";
    /// The name is empty or longer than 255 bytes, has one of `/ \ : * ? " < > |`, a control or an invisible character, a space at an
    /// end or a dot at its end, or is that of a device of Windows.
    FileNameInvalid = "file.name_invalid", UNPROCESSABLE_ENTITY, "The file name does not fit";
    /// A folder or file in the same folder is called so; neither case nor what cannot be seen makes two names.
    FileNameTaken = "file.name_taken", CONFLICT, "The name is taken";
    /// The file is in the trash. Restore it first.
    FileInTrash = "file.in_trash", CONFLICT, "The file is in the trash";
    /// There is no such folder.
    FolderNotFound = "folder.not_found", NOT_FOUND, "No such folder";
    /// A folder or file in the same folder is called so; neither case nor what cannot be seen makes two names.
    FolderNameTaken = "folder.name_taken", CONFLICT, "The name is taken";
    /// The folder, or the one that it would be in, is in the trash. Restore that first, or choose another.
    FolderInTrash = "folder.in_trash", CONFLICT, "The folder is in the trash";
    /// The folder would come to lie within itself.
    FolderWithinItself = "folder.within_itself", CONFLICT, "A folder cannot lie within itself";
    /// The folder, or one below it, would be deeper than 20 levels.
    FolderTooDeep = "folder.too_deep", CONFLICT, "Too many levels of folders";
    /// It went into the trash with a folder above it, and comes back with that; the detail names it.
    TrashWithFolder = "trash.with_folder", CONFLICT, "It comes back with its folder";
    /// There is no such link to a file, or it has expired, was used up or revoked.
    ShareLinkNotFound = "share_link.not_found", NOT_FOUND, "No such link";
    /// As many links of the file work as may. Revoke one, or wait until one has expired.
    ShareLinksFull = "share_link.too_many", CONFLICT, "Too many links";
    /// It has changed since it was looked at with the `ETag` that `If-Match` names. Look again, then repeat.
    RevisionStale = "revision.stale", PRECONDITION_FAILED, "It has changed meanwhile";
    /// The day is not final yet, nothing of this was counted on it, or less than nothing would be left of it.
    UsageNotCorrectable = "usage.not_correctable", CONFLICT, "That day cannot be corrected so";
    /// There is no such upload of yours.
    UploadNotFound = "upload.not_found", NOT_FOUND, "No such upload";
    /// The bytes do not follow those that are kept: something was cut, or two send at once. `Upload-Offset` tells how many are kept.
    UploadOffset = "upload.offset", CONFLICT, "The upload is elsewhere";
    /// Everything of the upload is there. See what became of it.
    UploadComplete = "upload.complete", CONFLICT, "The upload is complete";
    /// The upload was given up, refused, or has expired. Begin another.
    UploadEnded = "upload.ended", GONE, "The upload has ended";
    /// As many uploads are under way as may be. Finish one, or end it.
    UploadsFull = "upload.too_many", CONFLICT, "Too many uploads";
    /// The parts of this upload go to the addresses that are signed for them, not here.
    UploadDirect = "upload.direct", CONFLICT, "The parts go to the storage";
    /// Files are kept in a folder here, which takes no parts by itself; or the bytes of this upload are sent by tus. Upload by tus to
    /// `/v1/uploads`.
    UploadNotDirect = "upload.not_direct", CONFLICT, "Nothing goes to the storage directly";
    /// There is no such part of the upload, or not every part is named.
    UploadPart = "upload.part", UNPROCESSABLE_ENTITY, "No such part";
    /// The storage does not have these parts, or one but the last is shorter than 5 MiB. Send them again.
    UploadPartsMissing = "upload.parts_missing", CONFLICT, "Parts are missing";
    /// The server speaks another version of tus; `Tus-Version` names it.
    UploadVersion = "upload.version", PRECONDITION_FAILED, "Another version of tus";
    /// Bytes of an upload are sent as `application/offset+octet-stream`.
    UploadContentType = "upload.content_type", UNSUPPORTED_MEDIA_TYPE, "The bytes are not announced as such";
    /// The bytes are not what `Upload-Checksum` announced. None of them is kept; send them again.
    UploadChecksum = "upload.checksum", CHECKSUM_MISMATCH, "The bytes came damaged";
    /// A request with `Upload-Checksum` has at most 64 MiB. Send less at a time, or without a checksum.
    UploadCheckedTooLarge = "upload.checked_too_large", PAYLOAD_TOO_LARGE, "Too much for one checksum";
    /// The content is not there.
    BlobNotFound = "blob.not_found", NOT_FOUND, "No such content";
    /// What came is not what its hash announced.
    BlobMismatch = "blob.mismatch", UNPROCESSABLE_ENTITY, "The content is not what was announced";
    /// The enrolment token is unknown, used or expired. Ask the operator for a new one.
    EnrolTokenInvalid = "node.token_invalid", UNAUTHORIZED, "The enrolment token is not valid";
    /// The task is not leased to this node under this token. Nothing was changed; stop the attempt.
    LeaseLost = "lease.lost", CONFLICT, "The lease is lost";
    /// There is no such run, group of failures or operation on many runs; or it is not yours.
    RunNotFound = "run.not_found", NOT_FOUND, "No such run";
    /// The run, task or operation is no longer in a state in which this can be done. Look at it again.
    RunMoved = "run.moved", CONFLICT, "It has moved on";
    /// Something else stands in the way: a later try is under way or went well, or the run could not take back all that it had done.
    RunConflict = "run.conflict", CONFLICT, "Something stands in the way";
    /// What the run is about is not made again like this; the detail tells what to do.
    RunNoCopies = "run.no_copies", CONFLICT, "Not made again";
    /// There is no such queue.
    QueueNotFound = "queue.not_found", NOT_FOUND, "No such queue";
    /// There is no such schedule.
    ScheduleNotFound = "schedule.not_found", NOT_FOUND, "No such schedule";
    /// There is no such rule or run of a clean-up.
    CleanupNotFound = "cleanup.not_found", NOT_FOUND, "No such clean-up";
    /// The tenant has a rule of this name, or as many as it may. Choose another name, or remove one.
    CleanupExists = "cleanup.exists", CONFLICT, "The rule is there";
    /// Somebody else has to approve it: a person who neither changed the rule last nor started the run.
    CleanupSecondPerson = "cleanup.second_person", FORBIDDEN, "Another person has to approve it";
    /// The run has ended, or does not wait for this. Look at it again.
    CleanupState = "cleanup.state", CONFLICT, "Not in the run's state";
    /// There is no such hold, or it is released.
    HoldNotFound = "hold.not_found", NOT_FOUND, "No such hold";
    /// There is no such node.
    NodeNotFound = "node.not_found", NOT_FOUND, "No such node";
    /// There is no such enrolment token, or it is used, revoked or expired.
    NodeTokenNotFound = "node_token.not_found", NOT_FOUND, "No such token";
    /// The node is not in a state in which this can be done, or does not hold the package. Look at it again.
    NodeState = "node.state", CONFLICT, "Not in the node's state";
    /// The node is in quarantine and gets work once it has proven itself: render the probe and report it to `/v1/nodes/probe`.
    NodeProbeWanted = "node.probe_wanted", CONFLICT, "The node is to prove itself";
    /// The node is in quarantine. It may prove itself in `Retry-After` seconds.
    NodeQuarantined = "node.quarantined", CONFLICT, "The node is in quarantine";
    /// The reported output is not what the task asked for. Nothing was recorded.
    NodeBadOutput = "node.bad_output", UNPROCESSABLE_ENTITY, "The output does not fit the task";
    /// The content is not named by the task's input.
    InputNotNamed = "node.input_not_named", NOT_FOUND, "The task does not name this content";
    /// The request took longer than the server waits. It may have been done: ask before repeating.
    Timeout = "server.timeout", GATEWAY_TIMEOUT, "The request took too long";
    /// The server's storage has no room left. Nothing of the request was kept; its operators have to make room.
    StorageFull = "storage.full", INSUFFICIENT_STORAGE, "The storage is full";
    /// The server cannot do this right now. Try again after `Retry-After`.
    Unavailable = "server.unavailable", SERVICE_UNAVAILABLE, "Temporarily unavailable";
    /// The server met an error of its own. Name the `instance` when asking for help.
    Internal = "server.internal", INTERNAL_SERVER_ERROR, "Internal error";
}

/// Codes of single faults in `errors`, with what they mean.
pub const FAULTS: &[(&str, &str)] = &[
    ("field.required", "The template needs this field."),
    ("field.unknown", "There is no such field; the detail names those there are."),
    ("field.missing", "The request lacks this field."),
    ("field.type", "The value has another type than expected, or is out of its range."),
    ("text.too_long", "The text has more characters than its field allows."),
    ("text.too_many_lines", "The text has more lines than its field allows."),
    ("text.control_character", "The text has a control character."),
    ("color.invalid", "A colour is `#rrggbb`."),
    ("theme.unknown", "The template has no such theme."),
    ("scene.unknown", "The template has no such scene."),
    ("scene.twice", "A scene is there more than once."),
    ("scene.required", "A scene that the film needs is missing."),
    ("scene.duration", "A scene is shorter or longer than allowed."),
    ("output.height", "The height is odd, too small or larger than the template's."),
    ("file.not_found", "There is no such file of yours."),
    (
        "file.name",
        "A name is 1 to 255 bytes, without `/ \\ : * ? \" < > |`, control and invisible characters, spaces at its ends and a dot at its end, and not that of a device of Windows.",
    ),
    ("file.visibility", "Everybody may see pictures that were uploaded, PNG, JPEG or WebP, and nothing else."),
    ("folder.not_found", "There is no such folder of yours."),
    ("share_link.downloads", "A link works 1 to 1000000 times, or as often as somebody likes."),
    ("upload.part_bytes", "A part has 5 MiB to 5 GiB, and there are at most 10000 of them."),
    ("upload.purpose", "A purpose is `asset`, `voiceover`, `music`, `package`, `avatar` or `font`."),
    ("upload.sha256", "A SHA-256 is 64 lowercase hexadecimal digits."),
    ("upload.md5", "An MD5 in base64 has 24 characters."),
    ("file.wrong_kind", "The file is of another kind than its place needs."),
    ("svg_preview.slot", "The traced picture has no such colour."),
    ("svg_preview.label", "A name of a colour has 1 to 100 characters, none of them a control character."),
    ("link.valid", "An address works for a minute to seven days."),
    ("audio.volume", "A volume is 0 to 2."),
    ("audio.seconds", "A time is 0 to 3600 seconds."),
    ("metadata.too_large", "Metadata is at most 16 KiB as JSON."),
    ("metadata.control_character", "Metadata has a NUL character."),
    ("template.unknown", "There is no such template."),
    ("name.length", "A name is 1 to 200 characters, none of them a control character."),
    ("scope.unknown", "There is no such scope, or none is named."),
    ("scope.beyond", "A key cannot make a key that may do more than itself."),
    ("cidr.invalid", "A network is an address and a number of bits, such as `192.0.2.0/24`; up to 100 of them."),
    ("time.past", "The time has to be in the future."),
    ("words.shape", "Say it in 1 to 10 languages, in 1 to 200 characters each."),
    ("code.shape", "The code has other characters than it may, or too few or too many."),
    ("reason.length", "A reason is missing, or longer than it may be."),
    ("plan.trial", "A trial lasts 0 to 365 days."),
    ("plan.price", "A price is more than 0, in minor units, and there once in its currency and interval."),
    ("plan.entitlement", "A plan does not allow this, or not so much of it."),
    ("coupon.kind", "A coupon is `percent` without a currency, or `amount` with one."),
    ("coupon.value", "A coupon is worth something, and can be used once at least."),
    ("coupon.time", "A coupon ends after it begins."),
    ("achievement.points", "An achievement gives 0 to 100000 points."),
    ("achievement.rule", "A rule counts `render`, `payment` or `referral`."),
    ("gift.kind", "A gift is `credits` or `coupon`."),
    ("gift.value", "A gift is worth something, and its stock is not negative."),
    ("seconds.range", "The number of seconds is outside its range."),
    ("password.too_short", "A password has at least 15 characters: a few words will do."),
    ("password.too_long", "A password has at most 256 characters."),
    ("password.guessable", "The password is among the first that are guessed."),
    ("email.invalid", "This is no address that mail can be sent to."),
    ("profile.name", "A name has at most 200 characters, and no control characters."),
    ("locale.invalid", "A language is written as in BCP 47, such as `fa` or `en-GB`."),
    ("timezone.unknown", "A time zone is one of the IANA database, such as `Asia/Tehran`."),
    ("role.unknown", "There is no such role; the detail names those there are."),
    ("tenant.slug", "A slug is 2 to 64 of `a-z 0-9 -`, with a letter or digit at both ends."),
    ("tenant.name", "A tenant's name has 1 to 200 characters, and no control characters."),
    ("branding.name", "A product's name has 1 to 100 characters, and no control characters."),
    ("branding.footer", "A footer has at most 4000 characters, and no control characters but ends of lines."),
    ("branding.picture", "A picture of a brand has at most 1 MiB."),
    ("url.invalid", "This is no address of a page that begins with `https://`."),
    (
        "webhook.url",
        "A webhook is called at an address that begins with `https://`, on port 443, at a host that everybody can reach.",
    ),
    ("webhook.signing", "Deliveries are signed by `v1` or `v1a`."),
    ("webhook.state", "A delivery that has ended is `delivered`, `failed`, `cancelled` or `missed`."),
    ("webhook.events", "There is no such event, one is named twice, or none is; `*` stands alone."),
    ("quiet.time", "A time is HH:MM, as on a clock."),
    ("quiet.hours", "Hours of rest have a begin and an end, at two times."),
    ("consent.text", "The text that was agreed to has 1 to 4000 characters."),
    ("push.endpoint", "This is no address of a push service."),
    ("push.key", "A browser has a public key of 65 bytes and a secret of 16, in base64url."),
    ("notification_account.config", "The settings are not those that the provider takes; the detail tells which."),
    ("template.words", "The words are no template: the detail tells why."),
    ("broadcast.text", "A subject has 1 to 200 characters, a text 1 to 500."),
    ("broadcast.path", "A path begins with one `/`, and has no spaces."),
    ("identity_provider.name", "A provider's name has 1 to 100 characters, and no control characters."),
    (
        "identity_provider.issuer",
        "An issuer is called at an address that begins with `https://`, on port 443, at a host that everybody can reach; at most 500 characters, without a query.",
    ),
    (
        "identity_provider.client",
        "A client's id has 1 to 255 characters, its secret 1 to 1024, and no control characters.",
    ),
    (
        "identity_provider.scopes",
        "There are at most 20 scopes, each of 1 to 100 visible ASCII characters without quotes.",
    ),
    ("identity_provider.domain", "An e-mail domain has to be a proven host name of the tenant; up to 20 of them."),
    ("domain.hostname", "A host name is full, without a port, and of a host that everybody can reach."),
    ("tenant.reason", "A reason has 1 to 1000 characters."),
    ("limit.name", "There is no such limit; the detail names those there are."),
    ("limit.value", "A limit is not negative, its soft value not above the hard one, its window 1 to 86400 seconds."),
    ("factor.label", "A label has 1 to 100 characters."),
    ("schedule.cron", "A cron expression has five fields that come true some day, at most every five minutes."),
    ("cleanup.name", "A rule's name has 1 to 100 characters, and no control characters."),
    ("cleanup.target", "There is no such target; the detail names those there are."),
    ("cleanup.age", "An age is 3600 to 315360000 seconds."),
    ("cleanup.most", "The most files of a run are 1 to 1000000."),
    ("cleanup.filter", "There is no such kind of file, or a number of bytes is negative."),
    ("hold.reason", "A reason has 1 to 1000 characters, and no control characters."),
    ("hold.of_one_thing", "A hold is of everything, of a person's files, or of one file."),
    ("node.name", "A node's name is 1 to 64 of `A-Z a-z 0-9 . _ -`."),
    ("node.capabilities", "The capabilities are larger than 64 KiB or have a NUL character."),
    ("node.reason", "A reason has 1 to 500 characters, and no control characters."),
    ("node.sleep", "A schedule of sleep has at least one day."),
    ("node.token_lifetime", "A token is good for 60 to 604800 seconds."),
    ("node.report", "The report is larger than 32 KiB or has a NUL character."),
    ("operate.reason", "A reason has 1 to 500 characters, and no control characters."),
    ("operate.step", "The run has no such step."),
    ("operate.task", "A task is a number."),
    ("operate.hidden", "What is hidden stays where it is, or is written out."),
    ("operate.bad", "The operation makes no sense like this; the detail tells why."),
    ("node.labels", "There are too many labels, or one is too long."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_shaped_alike() {
        let codes: BTreeSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(codes.len(), Code::ALL.len());
        let fine = |c: &char| c.is_ascii_lowercase() || *c == '_' || *c == '.';
        assert!(codes.iter().all(|c| c.matches('.').count() == 1 && c.chars().all(|c| fine(&c))));
        let faults: BTreeSet<_> = FAULTS.iter().map(|(code, _)| code).collect();
        assert_eq!(faults.len(), FAULTS.len());
    }

    #[test]
    fn every_fault_of_an_order_is_listed() {
        let rules = include_str!("../../../workflows/src/models/render/freeze.rs");
        let quoted = rules.split('"').skip(1).step_by(2);
        let groups = ["field.", "text.", "color.", "theme.", "scene.", "output.", "file.", "audio."];
        let used: Vec<_> = quoted.filter(|q| groups.iter().any(|g| q.starts_with(g)) && !q.contains(' ')).collect();
        assert!(used.len() > 10);
        for code in used {
            assert!(FAULTS.iter().any(|(known, _)| *known == code), "{code} is not listed");
        }
    }
}
