//! Whether somebody is told by a channel, and when: one decision, made of what they and their tenant want.

use super::quiet::{self, Quiet};
use crate::contracts::notify::Channel;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Safety, money: by e-mail whatever the reader wants, at any hour, never in a digest.
    Critical,
    /// What they wait for: as they want it.
    Service,
    /// What we want: only with their consent.
    Marketing,
}

/// Whether messages wait to be sent together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Digest {
    /// Each by itself.
    #[default]
    Off,
    /// Those of an hour.
    Hourly,
    /// Those of a day, at eight in the morning.
    Daily,
}

impl Digest {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
        }
    }

    /// What is stored as that.
    pub fn read(text: &str) -> Self {
        match text {
            "hourly" => Self::Hourly,
            "daily" => Self::Daily,
            _ => Self::Off,
        }
    }
}

/// What somebody wants of a category by a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// To be told.
    pub enabled: bool,
    /// But not at these hours.
    pub quiet: Option<Quiet>,
    /// Together with what else there is.
    pub digest: Digest,
}

/// What is there when nobody chose anything. Text messages cost money, so nobody gets them unasked but for what is critical.
pub fn usual(class: Class, channel: Channel) -> Wish {
    let enabled = channel != Channel::Sms || class == Class::Critical;
    Wish { enabled, quiet: None, digest: Digest::Off }
}

/// Why an address is not written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shut {
    /// Its reader wants it so.
    Asked,
    /// It does not work, or its reader complained.
    Broken,
}

/// All that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// How much the message matters.
    pub class: Class,
    /// How it would go.
    pub channel: Channel,
    /// What the reader wants, or their tenant, or what is usual.
    pub wish: Wish,
    /// Whether the reader agreed to marketing.
    pub consent: bool,
    /// Whether there is an address that is theirs.
    pub reachable: bool,
    /// Whether it is not to be written to.
    pub shut: Option<Shut>,
}

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Now.
    Send,
    /// Not before then.
    Wait(DateTime<Utc>),
    /// With the digest of then.
    Gather(DateTime<Utc>),
    /// Not at all: there is nowhere to.
    Unreachable,
    /// Not at all: the reader does not want it.
    Unwanted,
    /// Not at all: the address is shut.
    Suppressed,
}

/// Decides a case at a moment.
pub fn decide(case: &Case, now: DateTime<Utc>, zone: Tz) -> Route {
    let Case { class, channel, wish, .. } = *case;
    let critical = class == Class::Critical;
    if !case.reachable {
        return Route::Unreachable;
    }
    // Who opted out is told all the same of what the law wants them to be told of: within the platform and by e-mail.
    let owed = critical && matches!(channel, Channel::Inapp | Channel::Email);
    if !wish.enabled && !owed {
        return Route::Unwanted;
    }
    if class == Class::Marketing && !case.consent {
        return Route::Unwanted;
    }
    match case.shut {
        Some(Shut::Broken) => return Route::Suppressed,
        Some(Shut::Asked) if !owed => return Route::Suppressed,
        _ => {}
    }
    if critical || channel == Channel::Inapp {
        return Route::Send;
    }
    let rest_at = |at| wish.quiet.and_then(|quiet| quiet.until(at));
    // Who rests when the digest is due gets it when their rest is over.
    let gather = |due| Route::Gather(rest_at(due).unwrap_or(due));
    match wish.digest {
        Digest::Hourly => gather(quiet::next_hour(now, zone)),
        Digest::Daily => gather(quiet::next_morning(now, zone)),
        Digest::Off => rest_at(now).map_or(Route::Send, Route::Wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// The table of the specification, in words: the first line that fits decides.
    ///
    /// Columns: class, channel, wanted, consent, reachable, shut, digest, resting. `*` is anything, `!x` anything but x.
    const TABLE: &[(&str, &str)] = &[
        ("*         *       *   *   no  *      *      *  ", "unreachable"),
        ("critical  inapp   *   *   yes broken *      *  ", "suppressed"),
        ("critical  email   *   *   yes broken *      *  ", "suppressed"),
        ("critical  inapp   *   *   yes *      *      *  ", "send"),
        ("critical  email   *   *   yes *      *      *  ", "send"),
        ("*         *       no  *   yes *      *      *  ", "unwanted"),
        ("marketing *       yes no  yes *      *      *  ", "unwanted"),
        ("*         *       yes *   yes broken *      *  ", "suppressed"),
        ("*         *       yes *   yes asked  *      *  ", "suppressed"),
        ("critical  *       yes *   yes none   *      *  ", "send"),
        ("*         inapp   yes *   yes none   *      *  ", "send"),
        ("*         *       yes *   yes none   hourly yes", "gather end of rest"),
        ("*         *       yes *   yes none   hourly no ", "gather hour"),
        ("*         *       yes *   yes none   daily  *  ", "gather morning"),
        ("*         *       yes *   yes none   off    yes", "wait"),
        ("*         *       yes *   yes none   off    no ", "send"),
    ];

    #[test]
    fn s101_every_combination_of_wishes_is_decided_as_the_table_says() {
        let now: DateTime<Utc> = "2026-11-26T12:00:00Z".parse().unwrap();
        let rest = Quiet { start: "11:00:00".parse().unwrap(), end: "14:00:00".parse().unwrap(), zone: Tz::UTC };
        let awake = Quiet { end: "11:30:00".parse().unwrap(), ..rest };
        let (mut cases, mut used) = (0, HashMap::<usize, u32>::new());
        let classes = [("critical", Class::Critical), ("service", Class::Service), ("marketing", Class::Marketing)];
        let shuts = [("none", None), ("asked", Some(Shut::Asked)), ("broken", Some(Shut::Broken))];
        let digests = [("off", Digest::Off), ("hourly", Digest::Hourly), ("daily", Digest::Daily)];
        let yes = |truth| if truth { "yes" } else { "no" };
        for (class_name, class) in classes {
            for channel in Channel::ALL {
                for bits in 0..16 {
                    let [enabled, consent, reachable, resting] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
                    for (shut_name, shut) in shuts {
                        for (digest_name, digest) in digests {
                            for quiet in [None, Some(awake), Some(rest)] {
                                if resting != (quiet == Some(rest)) {
                                    continue;
                                }
                                let wish = Wish { enabled, quiet, digest };
                                let case = Case { class, channel, wish, consent, reachable, shut };
                                let told = match decide(&case, now, Tz::UTC) {
                                    Route::Send => "send",
                                    Route::Wait(until) => {
                                        assert_eq!(until.to_rfc3339(), "2026-11-26T14:00:00+00:00");
                                        "wait"
                                    }
                                    Route::Gather(due) if due.to_rfc3339() == "2026-11-26T13:00:00+00:00" => {
                                        "gather hour"
                                    }
                                    Route::Gather(due) if due.to_rfc3339() == "2026-11-26T14:00:00+00:00" => {
                                        "gather end of rest"
                                    }
                                    Route::Gather(due) if due.to_rfc3339() == "2026-11-27T08:00:00+00:00" => {
                                        "gather morning"
                                    }
                                    Route::Gather(due) => panic!("{due}"),
                                    Route::Unreachable => "unreachable",
                                    Route::Unwanted => "unwanted",
                                    Route::Suppressed => "suppressed",
                                };
                                let columns = [
                                    class_name,
                                    channel.as_str(),
                                    yes(enabled),
                                    yes(consent),
                                    yes(reachable),
                                    shut_name,
                                    digest_name,
                                    yes(resting),
                                ];
                                let fits = |row: &str| {
                                    row.split_whitespace().zip(columns).all(|(want, is)| want == "*" || want == is)
                                };
                                let line =
                                    TABLE.iter().position(|(row, _)| fits(row)).unwrap_or_else(|| panic!("{case:?}"));
                                assert_eq!(told, TABLE[line].1, "{case:?}");
                                *used.entry(line).or_default() += 1;
                                cases += 1;
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(cases, 3 * 5 * 8 * 3 * 3 * 3);
        assert_eq!(used.len(), TABLE.len(), "every line of the table decides something: {used:?}");
    }

    #[test]
    fn nobody_is_woken_by_a_digest() {
        let night = Quiet { start: "22:00:00".parse().unwrap(), end: "09:00:00".parse().unwrap(), zone: Tz::UTC };
        let due = |digest| {
            let wish = Wish { enabled: true, quiet: Some(night), digest };
            let (class, channel) = (Class::Service, Channel::Push);
            let case = Case { class, channel, wish, consent: false, reachable: true, shut: None };
            decide(&case, "2026-11-26T21:30:00Z".parse().unwrap(), Tz::UTC)
        };
        let morning = "2026-11-27T09:00:00Z".parse().unwrap();
        assert_eq!(due(Digest::Hourly), Route::Gather(morning), "ten in the evening is within their rest");
        assert_eq!(due(Digest::Daily), Route::Gather(morning), "and so is eight in the morning");
    }

    #[test]
    fn nobody_gets_text_messages_unasked_but_for_what_is_critical() {
        for class in [Class::Service, Class::Marketing] {
            assert!(!usual(class, Channel::Sms).enabled);
            assert!(usual(class, Channel::Email).enabled);
        }
        assert!(usual(Class::Critical, Channel::Sms).enabled);
    }
}
