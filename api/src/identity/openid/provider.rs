//! Speaking OpenID Connect (Core 1.0, Discovery 1.0, with PKCE by RFC 7636): where a provider wants people, and what it says of those
//! who come back. Nothing is remembered: endpoints and keys are asked for each time, so that keys may change at any time.

use crate::problem::{Code, Problem};
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_activities::egress::{
    self, Egress, Refused,
    client::{EgressError, Reply},
};
use openidconnect::{
    AsyncHttpClient, AuthType, AuthorizationCode, ClientId, ClientSecret, CsrfToken, DiscoveryError, EndUserEmail,
    EndUserName, HttpRequest, HttpResponse, IssuerUrl, LocalizedClaim, Nonce, OAuth2TokenResponse as _,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope, StandardErrorResponse,
    TokenResponse as _,
    core::{
        CoreAuthenticationFlow, CoreClient, CoreClientAuthMethod, CoreErrorResponseType, CoreIdTokenClaims,
        CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreResponseType, CoreUserInfoClaims,
    },
};
use reqwest::Url;
use std::{borrow::Cow, pin::Pin};

/// Longest answer of a provider that is read.
const REPLY_BYTES: usize = 512 * 1024;
/// How far the clock of a provider may be ahead of ours.
const SKEW: TimeDelta = TimeDelta::minutes(5);
/// Most characters that are told of what was wrong.
const WORDS: usize = 300;
/// Longest name that a provider gives a person (Core 1.0, 2).
const SUBJECT_CHARS: usize = 255;
/// Signatures that are believed: those that only the provider can make. Never `none`, and no secret that somebody else has, too.
const SIGNATURES: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Who we are to a provider.
pub struct Party {
    /// What it calls us.
    pub client_id: String,
    /// What it knows us by.
    pub client_secret: String,
    /// What we ask for besides `openid`.
    pub scopes: Vec<String>,
}

/// Somebody's way to a provider and back.
pub struct Visit {
    /// Comes back as it is.
    pub state: String,
    /// Stands in the ID token.
    pub nonce: String,
    /// What only we know of the way (PKCE).
    pub verifier: String,
    /// Where they come back to.
    pub redirect_uri: String,
}

/// What a provider says of a person, proven by its signature.
pub struct Claims {
    /// What it calls them for ever.
    pub subject: String,
    /// Their address, if it says that it is theirs.
    pub verified_email: Option<String>,
    /// What they are called.
    pub name: String,
    /// Whether they showed more than one factor (`amr`, RFC 8176).
    pub several_factors: bool,
}

/// Why a provider is of no use.
#[derive(Debug, thiserror::Error)]
pub enum OpenIdError {
    /// It gives no answer, or none that can be read.
    #[error("{0}")]
    Unreachable(String),
    /// It is not what we can work with.
    #[error("{0}")]
    Unfit(String),
    /// What it says of a person is not believed.
    #[error("{0}")]
    Unproven(String),
}

impl From<OpenIdError> for Problem {
    fn from(error: OpenIdError) -> Self {
        tracing::info!(%error, "an identity provider is of no use");
        match error {
            OpenIdError::Unreachable(why) => Self::new(Code::IdentityProviderUnreachable, why),
            OpenIdError::Unfit(why) => Self::new(Code::IdentityProviderUnfit, why),
            OpenIdError::Unproven(why) => Self::new(Code::IdentityRefused, why),
        }
    }
}

/// A provider as it describes itself.
pub struct Provider(CoreProviderMetadata);

impl Provider {
    /// Reads what the provider says of itself, and its keys. Takes two calls.
    ///
    /// # Errors
    /// [`OpenIdError::Unreachable`], [`OpenIdError::Unfit`]
    pub async fn discover(egress: &Egress, issuer: &str) -> Result<Self, OpenIdError> {
        let issuer = IssuerUrl::new(issuer.to_owned()).map_err(|_| unfit("the issuer is no address"))?;
        let metadata = CoreProviderMetadata::discover_async(issuer, &Http(egress)).await.map_err(undiscovered)?;
        let endpoints = [
            Some(metadata.authorization_endpoint().url()),
            metadata.token_endpoint().map(|url| url.url()),
            Some(metadata.jwks_uri().url()),
        ];
        for endpoint in endpoints {
            let endpoint = endpoint.ok_or_else(|| unfit("the provider names no token_endpoint"))?;
            egress::target(endpoint.as_str(), egress.reach())
                .map_err(|why| unfit(format!("the provider names the endpoint {endpoint}, and {why}")))?;
        }
        if !metadata.response_types_supported().iter().any(|types| types[..] == [CoreResponseType::Code]) {
            return Err(unfit("the provider does not offer the response type `code`"));
        }
        if !metadata.id_token_signing_alg_values_supported().iter().any(|alg| SIGNATURES.contains(alg)) {
            return Err(unfit("the provider signs with no algorithm that is believed: RS, PS, ES or EdDSA"));
        }
        Ok(Self(metadata))
    }

    /// Where somebody signs in with the provider.
    ///
    /// # Errors
    /// [`OpenIdError::Unfit`] when we have no address to come back to.
    pub fn authorize(&self, party: &Party, visit: &Visit) -> Result<Url, OpenIdError> {
        let verifier = PkceCodeVerifier::new(visit.verifier.clone());
        let (state, nonce) = (CsrfToken::new(visit.state.clone()), Nonce::new(visit.nonce.clone()));
        let redirect = redirect(visit)?;
        let client = CoreClient::from_provider_metadata(self.0.clone(), ClientId::new(party.client_id.clone()), None);
        let flow = CoreAuthenticationFlow::AuthorizationCode;
        let request = client.authorize_url(flow, move || state, move || nonce);
        let request = request
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .set_redirect_uri(Cow::Owned(redirect))
            .add_scopes(party.scopes.iter().cloned().map(Scope::new));
        Ok(request.url().0)
    }

    /// Who came back with this code.
    ///
    /// # Errors
    /// [`OpenIdError`]
    pub async fn person(
        &self,
        egress: &Egress,
        party: &Party,
        visit: Visit,
        code: String,
        now: DateTime<Utc>,
    ) -> Result<Claims, OpenIdError> {
        let client_id = ClientId::new(party.client_id.clone());
        let secret = Some(ClientSecret::new(party.client_secret.clone()));
        let client = CoreClient::from_provider_metadata(self.0.clone(), client_id.clone(), secret)
            .set_redirect_uri(redirect(&visit)?)
            .set_auth_type(self.auth_type());
        let exchange = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|_| unfit("the provider names no token_endpoint"))?
            .set_pkce_verifier(PkceCodeVerifier::new(visit.verifier));
        let tokens = exchange.request_async(&Http(egress)).await.map_err(unexchanged)?;
        let token = tokens.id_token().ok_or_else(|| unproven("the provider gave no ID token"))?;
        let verifier = client
            .id_token_verifier()
            .set_allowed_algs(SIGNATURES)
            .set_time_fn(move || now)
            .set_issue_time_verifier_fn(move |at| {
                if at > now + SKEW { Err(format!("issued in the future, at {at}")) } else { Ok(()) }
            });
        let claims = token
            .claims(&verifier, &Nonce::new(visit.nonce))
            .map_err(|why| unproven(format!("what the provider says is not believed: {why}")))?;
        // Core 1.0, 3.1.3.7: whom the token was made for is us.
        if claims.authorized_party().is_some_and(|party| *party != client_id) {
            return Err(unproven("what the provider says was said to somebody else (azp)"));
        }
        let mut said = said(claims)?;
        let thin = claims.email().is_none();
        if thin && let Ok(request) = client.user_info(tokens.access_token().clone(), Some(claims.subject().clone())) {
            // Core 1.0, 5.4: address and name may be told there only. Whoever is known does not need them.
            let more: Result<CoreUserInfoClaims, _> = request.request_async(&Http(egress)).await;
            if let Ok(more) = more {
                said.verified_email = verified(more.email(), more.email_verified());
                said.name = more.name().map_or(said.name, called);
            }
        }
        Ok(said)
    }

    /// How the provider wants to know us: in the header unless it only takes it in the body.
    fn auth_type(&self) -> AuthType {
        let offered = self.0.token_endpoint_auth_methods_supported();
        let takes = |method| offered.is_some_and(|offered| offered.contains(&method));
        let only_post =
            takes(CoreClientAuthMethod::ClientSecretPost) && !takes(CoreClientAuthMethod::ClientSecretBasic);
        if only_post { AuthType::RequestBody } else { AuthType::BasicAuth }
    }
}

fn said(claims: &CoreIdTokenClaims) -> Result<Claims, OpenIdError> {
    let subject = claims.subject().as_str();
    if !(1..=SUBJECT_CHARS).contains(&subject.chars().count()) || subject.contains('\0') {
        return Err(unproven("the provider calls the person by a name that is empty or too long"));
    }
    let methods = claims.auth_method_refs().into_iter().flatten();
    Ok(Claims {
        subject: subject.to_owned(),
        verified_email: verified(claims.email(), claims.email_verified()),
        name: claims.name().map(called).unwrap_or_default(),
        several_factors: methods.into_iter().any(|method| method.as_str() == "mfa"),
    })
}

fn verified(email: Option<&EndUserEmail>, is_theirs: Option<bool>) -> Option<String> {
    email.filter(|_| is_theirs == Some(true)).map(|email| email.as_str().to_owned())
}

/// A name as it is kept.
fn called(name: &LocalizedClaim<EndUserName>) -> String {
    let name = name.get(None).map(|name| name.as_str()).unwrap_or_default();
    name.chars().filter(|c| !c.is_control()).take(200).collect::<String>().trim().to_owned()
}

fn redirect(visit: &Visit) -> Result<RedirectUrl, OpenIdError> {
    RedirectUrl::new(visit.redirect_uri.clone()).map_err(|_| unfit("this server does not know its public address"))
}

fn unfit(why: impl Into<String>) -> OpenIdError {
    OpenIdError::Unfit(why.into())
}

/// A part of it may be the provider's own words: only so many are told.
fn unproven(why: impl Into<String>) -> OpenIdError {
    OpenIdError::Unproven(why.into().chars().take(WORDS).collect())
}

fn uncalled(error: &EgressError) -> OpenIdError {
    match error {
        EgressError::Refused(why) => unfit(format!("the provider names an address that is not called: {why}")),
        EgressError::Silent(_) => OpenIdError::Unreachable("the provider gives no answer in time".into()),
        EgressError::TooLong(_) => OpenIdError::Unreachable(format!("the provider is not understood: {error}")),
    }
}

/// What was read is not told: it may be of somebody who was not meant to be asked.
fn undiscovered(error: DiscoveryError<EgressError>) -> OpenIdError {
    match error {
        DiscoveryError::Request(error) => uncalled(&error),
        DiscoveryError::Response(status, ..) if status.is_success() => unfit("what the provider says is no JSON"),
        DiscoveryError::Response(status, ..) => {
            OpenIdError::Unreachable(format!("the provider answers with the status {}", status.as_u16()))
        }
        DiscoveryError::Parse(error) => {
            unfit(format!("what the provider says of itself does not fit at {}", error.path()))
        }
        DiscoveryError::Validation(_) => unfit("the provider says that it is another issuer"),
        _ => unfit("the provider names an address that cannot be called"),
    }
}

fn unexchanged(error: RequestTokenError<EgressError, StandardErrorResponse<CoreErrorResponseType>>) -> OpenIdError {
    match error {
        RequestTokenError::Request(error) => uncalled(&error),
        RequestTokenError::ServerResponse(answer) => {
            unproven(format!("the provider does not take the code: {}", answer.error().as_ref()))
        }
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            OpenIdError::Unreachable("the provider's answer to the code is not understood".into())
        }
    }
}

/// The HTTP client that addresses of a tenant's are called with.
struct Http<'a>(&'a Egress);

impl<'c> AsyncHttpClient<'c> for Http<'_> {
    type Error = EgressError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, EgressError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let request = request.try_into().map_err(|_| Refused::NotAnAddress)?;
            let Reply { status, headers, body } = self.0.send(request, REPLY_BYTES).await?;
            let mut response = HttpResponse::new(body);
            (*response.status_mut(), *response.headers_mut()) = (status, headers);
            Ok(response)
        })
    }
}
