//! What there is to know of kinds of runs: which may be made again, and what fits as an input.

use flatrender_engine::{
    Workflow,
    operations::{Fork, OperationError},
};
use flatrender_workflows::definitions::{
    check_account::CheckAccount, check_invariants::CheckInvariants, clean_up::CleanUp, deliver::Deliver,
    derive_film::DeriveFilm, drain_deletions::DrainDeletions, expire_exports::ExpireExports,
    expire_uploads::ExpireUploads, finish_upload::FinishUpload, forget_old::ForgetOld, keep_months::KeepMonths,
    look_after_credits::LookAfterCredits, notify::Notify, publish_posts::PublishPosts, purge_files::PurgeFiles,
    raise_alarms::RaiseAlarms, recheck_domains::RecheckDomains, reconcile::CompareSettlements,
    render_video::RenderVideo, retire_months::RetireMonths, roll_up_usage::RollUpUsage, scan_orphans::ScanOrphans,
    scene_snapshot::SceneSnapshot, send_digests::SendDigests, send_message::SendMessage,
    subscription::KeepSubscription, webhook::TellWebhook,
};
use serde_json::Value;

/// Why a run of this kind is not made again out of one that ended, as far as it is not.
pub fn refuses_copies(kind: &str) -> Option<&'static str> {
    Some(match kind {
        RenderVideo::NAME => "a film belongs to the run it was ordered with: order it anew",
        SceneSnapshot::NAME => {
            "a snapshot belongs to the run it was asked for with: ask for the scene's snapshot again"
        }
        DeriveFilm::NAME => {
            "what is made of a film belongs to the run it was asked for with: ask for it again where the film is"
        }
        KeepSubscription::NAME => "a subscription is looked after by one run: look after credits starts another",
        _ if of_money(kind) => "money moves once: what it is about has its own way to be tried again",
        _ => return None,
    })
}

/// Why a run of this kind is not tried again from here, as far as it is not: a film is ordered again instead.
pub fn refuses_retry(kind: &str) -> Option<&'static str> {
    if kind == RenderVideo::NAME { None } else { refuses_copies(kind) }
}

/// Whether runs of this kind are among many that are tried again.
pub fn among_retried(kind: &str) -> bool {
    ALL.contains(&kind) && refuses_retry(kind).is_none()
}

/// Whether runs of this kind are among many that are stopped.
pub fn among_cancelled(kind: &str) -> bool {
    ALL.contains(&kind) && refuses_cancel(kind).is_none()
}

/// Why a run of this kind is not stopped from here, as far as it is not.
pub fn refuses_cancel(kind: &str) -> Option<&'static str> {
    match kind {
        KeepSubscription::NAME => {
            Some("a subscription ends by POST /v1/subscription/cancel: without its run nobody would end it")
        }
        _ if of_money(kind) => Some("what moves money is stopped where the payment is: it may have been paid already"),
        _ => None,
    }
}

/// Whether a run of this kind moves money: what it is to believe is not for one person to say.
pub fn of_money(kind: &str) -> bool {
    ["payment", "refund", "invoice", "reconcil"].iter().any(|word| kind.contains(word))
}

macro_rules! kinds {
    ($($workflow:ident),+ $(,)?) => {
        /// Every kind that is known. Those of money are left out: what is asked for by one person, such as many runs at once, or one with
        /// another input, is never about them.
        pub const ALL: &[&str] = &[$(<$workflow as Workflow>::NAME),+];

        /// A fork with another input, which is read as the kind's first.
        ///
        /// # Errors
        /// [`OperationError::Bad`] when it does not fit, or nobody knows the kind.
        pub fn with_input(fork: Fork, kind: &str, input: Value) -> Result<Fork, OperationError> {
            match kind {
                $(<$workflow as Workflow>::NAME => fork.input::<$workflow>(input),)+
                _ => Err(OperationError::Bad(format!("nobody here knows the kind {kind:?}"))),
            }
        }
    };
}

kinds!(
    RenderVideo,
    SceneSnapshot,
    DeriveFilm,
    SendMessage,
    TellWebhook,
    Notify,
    Deliver,
    SendDigests,
    FinishUpload,
    ExpireUploads,
    CleanUp,
    DrainDeletions,
    ScanOrphans,
    ExpireExports,
    PurgeFiles,
    PublishPosts,
    RaiseAlarms,
    ForgetOld,
    KeepMonths,
    RetireMonths,
    RollUpUsage,
    RecheckDomains,
    CheckAccount,
    CompareSettlements,
    CheckInvariants,
    LookAfterCredits,
    KeepSubscription,
);

#[cfg(test)]
mod tests {
    use super::*;
    use flatrender_workflows::definitions::{payment::TakePayment, reconcile::ReconcilePayments, refund::GiveBack};

    #[test]
    fn what_belongs_to_its_run_is_not_made_again() {
        let refused: Vec<_> = ALL.iter().filter(|kind| refuses_copies(kind).is_some()).collect();
        assert_eq!(refused, [&"render_video", &"scene_snapshot", &"derive_film", &"subscription"]);
        assert!(refuses_copies("payment").is_some() && refuses_copies("notify").is_none());
        assert!(refuses_retry("render_video").is_none() && refuses_retry("scene_snapshot").is_some());
        assert!(among_retried("render_video") && !among_retried("payment") && !among_retried("unknown"));
        let kept: Vec<_> = ALL.iter().filter(|kind| refuses_cancel(kind).is_some()).collect();
        assert_eq!(kept, [&"subscription"]);
        assert!(["payment", "refund", "reconcile_payments"].iter().all(|kind| refuses_cancel(kind).is_some()));
    }

    /// Pages offer nothing that is refused of a kind: they know it by its reason among the messages. Films are ordered again.
    #[test]
    fn what_is_refused_has_its_reason_in_both_languages() {
        let of_money = [TakePayment::NAME, GiveBack::NAME, ReconcilePayments::NAME];
        let words = [
            include_str!("../../assets/dashboard/messages/en.js"),
            include_str!("../../assets/dashboard/messages/fa.js"),
        ];
        for kind in ALL.iter().copied().chain(of_money) {
            for text in words {
                let says = |action: &str| text.contains(&format!("\"left.{action}.{kind}\": "));
                assert_eq!(says("cancel"), refuses_cancel(kind).is_some(), "{kind}");
                assert_eq!(says("retry"), refuses_copies(kind).is_some(), "{kind}");
            }
        }
    }

    #[test]
    fn what_moves_money_is_never_one_of_many() {
        assert!(ALL.iter().all(|kind| !of_money(kind)));
        assert!([TakePayment::NAME, GiveBack::NAME, ReconcilePayments::NAME].into_iter().all(of_money));
    }
}
