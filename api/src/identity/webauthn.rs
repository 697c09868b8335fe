//! Passkeys and security keys (WebAuthn). They sign for the host name of the platform only, so that no other page can ask them. What
//! was asked of one stays in the row of its challenge; the browser gets what it has to pass on, and nothing it could change.

use super::{
    deed::Deed,
    factors::{self, FactorView, Refusal},
};
use crate::{
    app::App,
    auth::SignedIn,
    extract::Json,
    peer::ClientAddress,
    problem::{Code, Problem, ProblemBody},
};
use axum::{Extension, extract::State, http::StatusCode};
use flatrender_workflows::models::{
    Db, Role, Scope, Secret,
    identity::{
        auth_challenge::{self, Challenge, Kind},
        mfa_factor::{self, Added, Factor, NewPasskey, Used},
        user, user_session,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{net::IpAddr, sync::Arc};
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, Type},
};
use uuid::Uuid;
use webauthn_rs::prelude::{
    Passkey, PasskeyAuthentication, PasskeyRegistration, PublicKeyCredential, RegisterPublicKeyCredential, Url,
    Webauthn, WebauthnBuilder, WebauthnError,
};

/// Longest id of a credential (WebAuthn, 7.1).
const LONGEST_ID: usize = 1023;
/// Longest passkey as JSON: some bring a chain of certificates that nobody asked for.
const LONGEST_PASSKEY: usize = 8192;

/// What passkeys are bound to: the host name under which people reach the platform, and no request says which that is.
#[derive(Debug, Clone)]
pub struct RelyingParty(Arc<Webauthn>);

impl RelyingParty {
    /// That of the public address; none when it has no host name. Browsers know this machine as `localhost`, not by its number.
    pub fn at(public_url: &str) -> Option<Self> {
        let mut url = Url::parse(public_url).ok()?;
        let number = url.host_str()?.trim_matches(['[', ']']).parse::<IpAddr>();
        if number.is_ok_and(|ip| ip.is_loopback()) {
            url.set_host(Some("localhost")).ok()?;
        }
        let id = url.domain()?.to_owned();
        let webauthn = WebauthnBuilder::new(&id, &url).and_then(|builder| builder.rp_name("FlatRender").build());
        webauthn.ok().map(|webauthn| Self(Arc::new(webauthn)))
    }
}

/// What was asked of an authenticator.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Asked {
    Create(PasskeyRegistration),
    Sign(PasskeyAuthentication),
}

/// What a browser has to ask an authenticator.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebauthnOptions {
    /// For `PublicKeyCredential.parseCreationOptionsFromJSON` or `parseRequestOptionsFromJSON`, whose result is the `publicKey` of
    /// `navigator.credentials.create` or `get`. Good for five minutes, once.
    #[serde(rename = "publicKey")]
    #[schema(value_type = Object, example = json!({ "challenge": "3TpMbyRdv0Y…", "rpId": "films.example", "userVerification": "required" }))]
    public_key: Value,
}

/// A passkey to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddPasskey {
    /// What you call it, 1 to 100 characters.
    #[schema(example = "Laptop", min_length = 1, max_length = 100)]
    label: String,
    /// The answer of `navigator.credentials.create`, as its `toJSON()` gives it.
    #[schema(schema_with = credential)]
    credential: RegisterPublicKeyCredential,
}

/// How what browsers make of the options is described. More may stand in it.
#[expect(deprecated, reason = "as all derived schemas have it")]
fn credential() -> Object {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let bytes = || text().pattern(Some("^[A-Za-z0-9_-]*={0,2}$"));
    let response = ObjectBuilder::new()
        .property("clientDataJSON", bytes())
        .required("clientDataJSON")
        .property("attestationObject", bytes())
        .required("attestationObject");
    let whole = ObjectBuilder::new().property("id", text()).property("rawId", bytes()).property("type", text());
    ["id", "rawId", "type", "response"]
        .into_iter()
        .fold(whole.property("response", response), ObjectBuilder::required)
        .description(Some("The answer of `navigator.credentials.create`, as its `toJSON()` gives it."))
        .example(Some(json!({ "id": "bQ1w", "rawId": "bQ1w", "type": "public-key", "clientExtensionResults": {},
            "response": { "clientDataJSON": "eyJ0eXBl", "attestationObject": "o2NmbXRk" } })))
        .build()
}

/// A passkey that was added.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewPasskeyView {
    /// The factor.
    factor: FactorView,
    /// One-time codes for when it is lost, with the first factor only. Each good once. Shown once.
    recovery_codes: Option<Vec<String>>,
}

/// `POST /v1/me/factors/webauthn/options`: what a browser needs to make a passkey.
#[utoipa::path(
    post, path = "/v1/me/factors/webauthn/options", tag = "Account", operation_id = "webauthn_creation_options",
    summary = "Begin to add a passkey",
    description = "Give it to `navigator.credentials.create`, and the answer to `POST /v1/me/factors/webauthn` in the same session. The \
                   authenticator has to make sure that it is you, by a PIN or by what you are.",
    responses(
        (status = 200, description = "For the browser", body = WebauthnOptions),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`webauthn.unavailable`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn creation_options(State(app): State<App>, me: SignedIn) -> Result<Json<WebauthnOptions>, Problem> {
    me.is_fresh()?;
    let party = party(&app)?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let known = passkeys(&mfa_factor::list(&mut tx, me.user_id).await?)?;
    let known = known.iter().map(|(_, passkey)| passkey.cred_id().clone()).collect();
    let person = user::find(&mut tx, me.tenant_id, me.user_id).await?.ok_or(sqlx::Error::RowNotFound)?;
    let account = person.email.unwrap_or_else(|| me.user_id.to_string());
    let name = if person.display_name.is_empty() { &account } else { &person.display_name };
    let begun = party.start_passkey_registration(me.user_id, &account, name, Some(known));
    let (options, asked) = begun.map_err(|e| Problem::internal(&e))?;
    let options = WebauthnOptions { public_key: json(&options.public_key)? };
    remember(&mut tx, &me, &options, &Asked::Create(asked)).await?;
    tx.commit().await?;
    Ok(Json(options))
}

/// `POST /v1/me/factors/webauthn`: from now on the passkey is asked for. The first factor comes with recovery codes.
#[utoipa::path(
    post, path = "/v1/me/factors/webauthn", tag = "Account", operation_id = "add_webauthn", summary = "Add a passkey or security key",
    description = "With what the browser made of the options. Good once: whatever is wrong with it, begin anew.",
    request_body = AddPasskey,
    responses(
        (status = 201, description = "Added", body = NewPasskeyView),
        (status = 403, description = "`auth.step_up`, `auth.passkey`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`factor.exists`, `factor.too_many`, `webauthn.unavailable`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn add(
    State(app): State<App>,
    me: SignedIn,
    Extension(address): Extension<ClientAddress>,
    Json(body): Json<AddPasskey>,
) -> Result<(StatusCode, Json<NewPasskeyView>), Problem> {
    me.is_fresh()?;
    let label = factors::good_label(&body.label)?;
    let asked = recall(&app, &me, &body.credential.response.client_data_json).await?;
    let (passkey, sign_count, aaguid) = created(party(&app)?, &body.credential, asked).ok_or_else(refused)?;
    let (id, credential, passkey) = (Uuid::now_v7(), passkey.cred_id().clone(), json(&passkey)?);
    if credential.len() > LONGEST_ID || passkey.to_string().len() > LONGEST_PASSKEY {
        return Err(refused());
    }
    let new = NewPasskey { id, label, credential: &credential, passkey, sign_count, aaguid };
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    match mfa_factor::add_passkey(&mut tx, me.tenant_id, me.user_id, &new).await? {
        Added::Done => {}
        Added::Full => return Err(factors::full()),
        Added::Known => return Err(Problem::new(Code::FactorExists, "this passkey is, or was, a factor already")),
    }
    let mut held = mfa_factor::list(&mut tx, me.user_id).await?;
    held.retain(|f| f.confirmed_at.is_some());
    let recovery_codes = match held.len() {
        1 => Some(mfa_factor::new_recovery_codes(&mut tx, me.tenant_id, me.user_id).await?),
        _ => None,
    };
    let factor = held.into_iter().find(|f| f.id == id).ok_or(sqlx::Error::RowNotFound)?;
    user_session::note_proof(&mut tx, me.session_id, true).await?;
    factors::tell(&app, &mut tx, &me).await?;
    Deed::of(me.tenant_id, me.user_id, address).record(&mut tx, "factor.confirm", Some(("factor", id))).await?;
    tx.commit().await?;
    app.workflows.announce();
    let recovery_codes = recovery_codes.map(|codes| codes.iter().map(|c| c.reveal().to_owned()).collect());
    Ok((StatusCode::CREATED, Json(NewPasskeyView { factor: factor.into(), recovery_codes })))
}

/// `POST /v1/auth/step-up/options`: what a browser needs to show a passkey again.
#[utoipa::path(
    post, path = "/v1/auth/step-up/options", tag = "Account", operation_id = "webauthn_request_options",
    summary = "Begin to prove it with a passkey",
    description = "Give it to `navigator.credentials.get`, and the answer to `POST /v1/auth/step-up` in the same session.",
    responses(
        (status = 200, description = "For the browser", body = WebauthnOptions),
        (status = 404, description = "`factor.not_found`: you have no passkey", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`webauthn.unavailable`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn step_up_options(State(app): State<App>, me: SignedIn) -> Result<Json<WebauthnOptions>, Problem> {
    party(&app)?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let held = mfa_factor::list(&mut tx, me.user_id).await?;
    let none = || Problem::not_found(Code::FactorNotFound, "passkey of yours");
    let (options, asked) = sign(&app, &held)?.ok_or_else(none)?;
    remember(&mut tx, &me, &options, &asked).await?;
    tx.commit().await?;
    Ok(Json(options))
}

/// What to ask of the passkeys among somebody's factors, for the browser and for us; none when there are none.
pub(super) fn ask(app: &App, held: &[Factor]) -> Result<Option<(WebauthnOptions, Value)>, Problem> {
    sign(app, held)?.map(|(options, asked)| Ok((options, json(&asked)?))).transpose()
}

fn sign(app: &App, held: &[Factor]) -> Result<Option<(WebauthnOptions, Asked)>, Problem> {
    let keys: Vec<Passkey> = passkeys(held)?.into_iter().map(|(_, passkey)| passkey).collect();
    let Some(RelyingParty(party)) = app.relying_party.as_ref().filter(|_| !keys.is_empty()) else { return Ok(None) };
    let (options, asked) = party.start_passkey_authentication(&keys).map_err(|e| Problem::internal(&e))?;
    Ok(Some((WebauthnOptions { public_key: json(&options.public_key)? }, Asked::Sign(asked))))
}

/// Keeps what was asked in this session, under the hash of its challenge.
async fn remember(db: Db<'_>, me: &SignedIn, options: &WebauthnOptions, asked: &Asked) -> Result<(), Problem> {
    let text = options.public_key["challenge"].as_str().unwrap_or_default();
    let (session_id, state) = (Some(me.session_id), Some(json(asked)?));
    let challenge = Challenge { session_id, state, ..Challenge::of(me.tenant_id, me.user_id) };
    Ok(auth_challenge::issue(db, Kind::Webauthn, &challenge, &Secret::hash_of(text)).await?)
}

/// What was asked in this session, by the challenge that a browser was given. It is used up, whatever comes of it.
pub(super) async fn recall(app: &App, me: &SignedIn, client_data: &[u8]) -> Result<Value, Problem> {
    #[derive(Deserialize)]
    struct ClientData {
        challenge: String,
    }
    let ClientData { challenge } = serde_json::from_slice(client_data).map_err(|_| refused())?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let asked = auth_challenge::take(&mut tx, me.session_id, &Secret::hash_of(&challenge)).await?;
    tx.commit().await?;
    asked.ok_or_else(refused)
}

/// The passkey that a browser made as it was asked to, how often it has signed, and its model.
fn created(
    party: &Webauthn,
    answer: &RegisterPublicKeyCredential,
    asked: Value,
) -> Option<(Passkey, u32, Option<Uuid>)> {
    let Ok(Asked::Create(asked)) = serde_json::from_value(asked) else { return None };
    let passkey = party.finish_passkey_registration(answer, &asked);
    let passkey = passkey.inspect_err(|error| tracing::info!(%error, "a passkey was not added")).ok()?;
    let (sign_count, aaguid) = origin_of(&answer.response.attestation_object)?;
    Some((passkey, sign_count, aaguid))
}

/// The count and the model that stand at fixed places in what an authenticator says of itself (WebAuthn, 6.1 and 6.5.1).
fn origin_of(attestation_object: &[u8]) -> Option<(u32, Option<Uuid>)> {
    #[derive(Deserialize)]
    struct Attestation<'a> {
        #[serde(rename = "authData")]
        data: &'a [u8],
    }
    let Attestation { data } = serde_cbor_2::from_slice(attestation_object).ok()?;
    let count = u32::from_be_bytes(data.get(33..37)?.try_into().ok()?);
    let model = Uuid::from_slice(data.get(37..53)?).ok()?;
    Some((count, Some(model).filter(|model| !model.is_nil())))
}

/// Why what a passkey signed is not taken; none when it is: then its use is noted.
pub(super) async fn refusal(
    app: &App,
    db: Db<'_>,
    user_id: Uuid,
    answer: &PublicKeyCredential,
    asked: &Value,
) -> Result<Option<Refusal>, Problem> {
    let held = passkeys(&mfa_factor::list(&mut *db, user_id).await?)?;
    let known = held.into_iter().find(|(_, passkey)| *passkey.cred_id() == answer.raw_id);
    let theirs = answer.response.user_handle.as_deref().is_none_or(|handle| handle == user_id.as_bytes());
    let (Some((id, mut passkey)), true, Ok(Asked::Sign(asked))) = (known, theirs, Asked::deserialize(asked)) else {
        return Ok(Some(Refusal::Passkey));
    };
    let signed = match party(app)?.finish_passkey_authentication(answer, &asked) {
        Ok(signed) => signed,
        Err(WebauthnError::CredentialPossibleCompromise) => return Ok(Some(Refusal::Cloned(id))),
        Err(error) => {
            tracing::info!(%error, "a passkey was refused");
            return Ok(Some(Refusal::Passkey));
        }
    };
    passkey.update_credential(&signed);
    Ok(match mfa_factor::use_passkey(db, id, signed.counter(), json(&passkey)?).await? {
        Used::Done => None,
        Used::Removed => Some(Refusal::Passkey),
        Used::Cloned => Some(Refusal::Cloned(id)),
    })
}

/// The passkeys among somebody's factors.
fn passkeys(held: &[Factor]) -> Result<Vec<(Uuid, Passkey)>, Problem> {
    let kept = held.iter().filter_map(|f| f.passkey.as_ref().map(|passkey| (f.id, passkey)));
    let read = kept.map(|(id, passkey)| Ok((id, Passkey::deserialize(passkey)?)));
    read.collect::<Result<_, serde_json::Error>>().map_err(|e| Problem::internal(&e))
}

fn party(app: &App) -> Result<&Webauthn, Problem> {
    let none = || Problem::new(Code::WebauthnUnavailable, "the public address of the platform has no host name");
    app.relying_party.as_ref().map(|party| &*party.0).ok_or_else(none)
}

fn json(value: &impl Serialize) -> Result<Value, Problem> {
    serde_json::to_value(value).map_err(|e| Problem::internal(&e))
}

/// What a passkey signed, or made, is not what it was asked to.
pub(super) fn refused() -> Problem {
    Problem::new(
        Code::AuthPasskey,
        "the passkey's answer is not good: for another challenge or page, too old, or used before",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passkeys_are_bound_to_the_host_name_of_the_public_address() {
        let origins = |url: &str| {
            RelyingParty::at(url).map(|RelyingParty(w)| w.get_allowed_origins()[0].origin().ascii_serialization())
        };
        assert_eq!(origins("https://films.example/a").as_deref(), Some("https://films.example"));
        assert_eq!(origins("http://127.0.0.1:8787").as_deref(), Some("http://localhost:8787"));
        assert_eq!(origins("http://[::1]:80").as_deref(), Some("http://localhost"));
        for none in ["", "nonsense", "http://192.0.2.7:8787", "http://[2001:db8::7]"] {
            assert_eq!(origins(none), None, "{none}");
        }
    }

    #[test]
    fn a_passkey_that_was_kept_in_2026_is_still_read() {
        let key = json!({ "x": "wM9oxtp7LczpzYlwC5zaqn6FEYEOepRL-xAHI17RO5Q", "y": "e_AUhS-O-KvmK_L-5A2c5v6w8oGiJjLSldFJ3T5F7-o",
                          "curve": "SECP256R1" });
        let kept = json!({ "cred": {
            "cred": { "key": { "EC_EC2": key }, "type_": "ES256" }, "counter": 3,
            "cred_id": "sixc48QCkdQdVsPSe2D0NrxkIFypW3MxCiyWnbuxdEc", "transports": null, "user_verified": true,
            "backup_state": false, "backup_eligible": false, "registration_policy": "required",
            "extensions": { "appid": "NotRequested", "cred_props": { "Unsigned": { "rk": false } }, "cred_protect": "Ignored",
                            "hmac_create_secret": "NotRequested" },
            "attestation": { "data": "None", "metadata": "None" }, "attestation_format": "none"
        }});
        let passkey = Passkey::deserialize(&kept).unwrap();
        assert_eq!(serde_json::to_value(&passkey).unwrap(), kept);
        let (options, _) = party().start_passkey_authentication(&[passkey]).unwrap();
        assert_eq!(super::json(&options.public_key.allow_credentials[0]).unwrap()["id"], kept["cred"]["cred_id"]);
    }

    fn party() -> Webauthn {
        RelyingParty::at("https://films.example").map(|RelyingParty(w)| (*w).clone()).unwrap()
    }
}
