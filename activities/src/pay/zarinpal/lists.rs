//! Lists and refunds of ZarinPal, for accounts that have a token and say their terminal. They know no key of ours: before money is given
//! back it is looked whether it was, and what is not certain is left to a person.

use super::{
    Zarinpal,
    answers::{Loose, number},
};
use crate::pay::{
    line::{Effect, Line, plain},
    manual::by_hand,
    money,
};
use chrono::{DateTime, Days, NaiveDate, NaiveTime, SubsecRound as _, Utc};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::pay::{
    Due, FetchRefund, MERCHANT_CONFIG, NOT_FOUND, REFUSED, RefundPayment, RefundSeen, RefundState, Settlement,
    SettlementKind, Statement,
};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// Sessions a page, and most pages.
const PAGE: usize = 100;
const PAGES: usize = 100;
/// The least that can be given back, in rials. Source: zarinpal.com/docs/apiDocs, "refund".
const LEAST_RIALS: i64 = 20_000;
const SESSIONS: &str = "query Sessions($terminal_id: ID!, $filter: FilterEnum, $reference_id: String, $limit: Int, \
     $offset: Int) { Session(terminal_id: $terminal_id, filter: $filter, reference_id: $reference_id, limit: $limit, \
     offset: $offset) { id status amount description created_at timeline { refund_amount refund_time refund_status } } }";
const REFUND: &str = "mutation AddRefund($session_id: ID!, $amount: BigInteger!, $description: String, \
     $method: InstantPayoutActionTypeEnum, $reason: RefundReasonEnum) { resource: AddRefund(session_id: $session_id, \
     amount: $amount, description: $description, method: $method, reason: $reason) { id terminal_id amount \
     timeline { refund_amount refund_time refund_status } } }";

/// The part of an account that gives money back and tells of a day.
pub(super) struct Ledger<'a> {
    line: Line<'a>,
    url: &'a str,
    token: &'a str,
    terminal_id: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Value,
    #[serde(default)]
    errors: Vec<Value>,
}

#[derive(Deserialize)]
struct Session {
    #[serde(default)]
    id: Loose,
    status: Option<String>,
    #[serde(default)]
    amount: Loose,
    description: Option<String>,
    created_at: Option<DateTime<Utc>>,
    timeline: Option<Timeline>,
}

#[derive(Deserialize)]
struct Timeline {
    refund_amount: Option<Value>,
    refund_time: Option<DateTime<Utc>>,
    refund_status: Option<String>,
}

/// A refund of a session.
struct Given {
    amount: i64,
    at: DateTime<Utc>,
    status: String,
}

impl Session {
    fn given(&self) -> Option<Given> {
        let timeline = self.timeline.as_ref()?;
        let amount = timeline.refund_amount.as_ref().and_then(number).filter(|amount| *amount > 0)?;
        Some(Given { amount, at: timeline.refund_time?, status: timeline.refund_status.clone().unwrap_or_default() })
    }

    /// Which of our payments it is for: the id that stands behind the description.
    fn payment_id(&self) -> Option<Uuid> {
        self.description.as_deref()?.rsplit(' ').next()?.parse().ok()
    }
}

impl<'a> Zarinpal<'a> {
    /// What the account has of lists; none without a token, and none in the sandbox.
    pub(super) fn ledger(&self) -> Option<Ledger<'_>> {
        let (token, terminal_id) = (self.settings.access_token.as_deref()?, self.settings.terminal_id.as_deref()?);
        Some(Ledger { line: self.line, url: self.lists?, token, terminal_id })
    }
}

impl Ledger<'_> {
    async fn ask(&self, query: &str, variables: Value, effect: Effect) -> Result<Result<Value, String>, Failure> {
        let mut request = super::post(self.url, &json!({"query": query, "variables": variables}))?;
        let unfit = || Failure::permanent(MERCHANT_CONFIG, "the token for ZarinPal cannot be used");
        let mut credential = HeaderValue::from_str(&format!("Bearer {}", self.token)).map_err(|_| unfit())?;
        credential.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, credential);
        let reply = self.line.call(request, effect).await?;
        if matches!(reply.status.as_u16(), 401 | 403) {
            return Err(Failure::permanent(MERCHANT_CONFIG, "ZarinPal does not accept the token"));
        }
        if reply.status.is_server_error() {
            return Err(self.line.broken(reply.status, effect));
        }
        let answer: Answer = self.line.read(&reply, effect)?;
        Ok(match answer.errors.first() {
            Some(error) => {
                let code = ["/extensions/code", "/extensions/category", "/message"];
                let said = code.iter().find_map(|path| error.pointer(path)?.as_str()).unwrap_or("an error");
                Err(plain(&said.replace(' ', "_")))
            }
            None => Ok(answer.data),
        })
    }

    async fn sessions(
        &self,
        filter: Option<&str>,
        reference: Option<&str>,
        page: usize,
    ) -> Result<Vec<Session>, Failure> {
        let variables = json!({
            "terminal_id": self.terminal_id,
            "filter": filter,
            "reference_id": reference,
            "limit": PAGE,
            "offset": page * PAGE,
        });
        let data = self.ask(SESSIONS, variables, Effect::None).await?;
        let data =
            data.map_err(|code| Failure::permanent(MERCHANT_CONFIG, format!("ZarinPal refused its list: {code}")))?;
        serde_json::from_value(data["Session"].clone()).map_err(|_| self.line.silent(Effect::None))
    }

    pub(super) async fn check(&self) -> Result<(), Failure> {
        self.sessions(None, None, 0).await.map(|_| ())
    }

    /// The session of a payment, by the number of its transaction.
    async fn session_of(&self, ask: &RefundPayment) -> Result<Session, Failure> {
        let found = self.sessions(None, Some(&ask.provider_txn), 0).await?;
        let mut ours = found.into_iter().filter(|session| session.payment_id() == Some(ask.due.payment_id));
        match (ours.next(), ours.next()) {
            (Some(session), None) => Ok(session),
            _ => Err(Failure::permanent(NOT_FOUND, "ZarinPal has no such payment at this terminal")),
        }
    }

    pub(super) async fn refund(&self, ask: &RefundPayment) -> Result<RefundSeen, Failure> {
        let Ok(rials) = money::to_rials(ask.amount, &ask.due.currency) else {
            return Ok(by_hand(Some("not an amount in rials".into())));
        };
        if rials < LEAST_RIALS {
            return Ok(by_hand(Some(format!("ZarinPal gives back {LEAST_RIALS} rials at least"))));
        }
        let session = self.session_of(ask).await?;
        let Some(id) = session.id.text() else { return Err(self.line.silent(Effect::None)) };
        match session.given() {
            Some(given) if given.is_ours(ask, rials) => return Ok(given.seen(&id, &ask.due)),
            // It cannot be told whose it is, nor whether there can be another one.
            Some(_) => return Ok(by_hand(Some("this payment has a refund already".into()))),
            None => {}
        }
        let variables = json!({
            "session_id": id,
            "amount": rials,
            "description": format!("refund {}", ask.refund_id),
            "method": "PAYA",
            "reason": "CUSTOMER_REQUEST",
        });
        match self.ask(REFUND, variables, Effect::Some).await? {
            Ok(data) => {
                let session: Session =
                    serde_json::from_value(data["resource"].clone()).map_err(|_| self.line.silent(Effect::Some))?;
                match session.given().filter(|given| given.amount == rials) {
                    Some(given) => Ok(given.seen(&id, &ask.due)),
                    None => Err(self.line.silent(Effect::Some)),
                }
            }
            Err(code) => Ok(RefundSeen {
                state: RefundState::Refused,
                provider_refund: None,
                amount: None,
                refusal: Some(REFUSED.to_owned()),
                detail: Some(code),
            }),
        }
    }

    pub(super) async fn fetch_refund(&self, ask: &FetchRefund) -> Result<Option<RefundSeen>, Failure> {
        let Ok(rials) = money::to_rials(ask.refund.amount, &ask.refund.due.currency) else { return Ok(None) };
        let session = self.session_of(&ask.refund).await?;
        let Some(id) = session.id.text() else { return Err(self.line.silent(Effect::None)) };
        let ours = session.given().filter(|given| match &ask.provider_refund {
            Some(name) => *name == given.name(&id),
            None => given.is_ours(&ask.refund, rials),
        });
        Ok(ours.map(|given| given.seen(&id, &ask.refund.due)))
    }

    /// Page by page, the newest first, until the day is over.
    pub(super) async fn statement(&self, day: NaiveDate) -> Result<Statement, Failure> {
        let begin = day.and_time(NaiveTime::MIN).and_utc();
        let end = begin.checked_add_days(Days::new(1)).unwrap_or(begin);
        let mut statement = Statement { told: true, lines: vec![], complete: true };
        for filter in ["VERIFIED", "REFUNDED"] {
            for page in 0.. {
                if page == PAGES {
                    statement.complete = false;
                    break;
                }
                let sessions = self.sessions(Some(filter), None, page).await?;
                let was_full = sessions.len() == PAGE;
                let older = sessions.iter().any(|session| session.created_at.is_some_and(|at| at < begin));
                for session in sessions {
                    session.lines(filter, &mut statement, begin, end);
                }
                // A refund may be of a payment that is older than the day.
                if !was_full || (filter == "VERIFIED" && older) {
                    break;
                }
            }
        }
        Ok(statement)
    }
}

impl Session {
    fn lines(&self, filter: &str, statement: &mut Statement, begin: DateTime<Utc>, end: DateTime<Utc>) {
        let within = |at: &DateTime<Utc>| (begin..end).contains(at);
        let payment_id = self.payment_id();
        let Some(provider_txn) = self.id.text() else {
            statement.complete = false;
            return;
        };
        let line = |kind, amount, at| Settlement {
            kind,
            provider_txn: provider_txn.clone(),
            payment_id,
            amount,
            currency: "IRR".to_owned(),
            at,
        };
        // What was given back was paid, too: it stands in one of the two lists only.
        let known = statement.lines.iter().any(|l| l.provider_txn == provider_txn && l.kind == SettlementKind::Payment);
        let is_paid = filter == "REFUNDED" || matches!(self.status.as_deref(), Some("VERIFIED" | "PAID"));
        if let (Some(at), Some(amount), true) =
            (self.created_at.filter(within), self.amount.number(), is_paid && !known)
        {
            statement.lines.push(line(SettlementKind::Payment, amount, at));
        }
        if let Some(given) =
            self.given().filter(|given| filter == "REFUNDED" && within(&given.at) && !given.has_failed())
        {
            statement.lines.push(line(SettlementKind::Refund, given.amount, given.at));
        }
    }
}

impl Given {
    /// Whether it can only be the one that was asked for: the same amount, and made since, to the second. Where its clock is behind ours
    /// a person looks at what is ours after all.
    fn is_ours(&self, ask: &RefundPayment, rials: i64) -> bool {
        self.amount == rials && self.at >= ask.since.trunc_subsecs(0)
    }

    fn has_failed(&self) -> bool {
        matches!(self.status.as_str(), "FAILED" | "REJECTED" | "CANCELED" | "REVERSED")
    }

    /// It has no name of its own: the session's, and when it was made.
    fn name(&self, session: &str) -> String {
        format!("{session}-{}", self.at.timestamp())
    }

    fn seen(&self, session: &str, due: &Due) -> RefundSeen {
        let state = match self.status.as_str() {
            "DONE" | "PAID" | "SUCCESS" | "COMPLETED" => RefundState::Done,
            _ if self.has_failed() => RefundState::Refused,
            _ => RefundState::Pending,
        };
        let is_refused = state == RefundState::Refused;
        RefundSeen {
            state,
            provider_refund: Some(self.name(session)),
            amount: money::from_rials(self.amount, &due.currency),
            refusal: is_refused.then(|| REFUSED.to_owned()),
            detail: is_refused.then(|| plain(&self.status)),
        }
    }
}
