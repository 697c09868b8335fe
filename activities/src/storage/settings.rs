//! Where an installation keeps its bytes: what an operator writes, and the storage that it opens.

use super::{ObjectStorage, errors, s3::Bucket};
use flatrender_workflows::contracts::storage::StorageError;
use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path as Key,
    prefix::PrefixStore,
};
use reqwest::Url;
use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// A request that did not work is tried again for so long.
const RETRIES: RetryConfig = RetryConfig {
    backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 },
    max_retries: 5,
    retry_timeout: Duration::from_secs(30),
};
/// A store that sends nothing for so long is not there any more. Also how long a part of 8 MiB may take to be sent.
const SILENCE: Duration = Duration::from_secs(60);

/// Where bytes are kept. Every server and worker of an installation needs the same.
///
/// As text: a folder, or `s3://bucket/prefix?region=…&endpoint=https://…&public_endpoint=https://…&path_style=true`.
/// There is never a secret in it: see [`Credentials`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageSettings {
    /// A folder of this machine, or one that all machines mount.
    Folder(PathBuf),
    /// A bucket of an S3-compatible store.
    S3(Box<S3Settings>),
}

/// A bucket, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct S3Settings {
    bucket: String,
    prefix: String,
    region: Option<String>,
    endpoint: Option<Url>,
    public_endpoint: Option<Url>,
    path_style: Option<bool>,
}

/// Why a text does not say where bytes are kept. It never repeats the text, which may hold a secret by mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadStorage {
    /// Nothing was said.
    #[error("the storage is a folder or s3://bucket/prefix?region=…&endpoint=…")]
    Unreadable,
    /// A key is in the address.
    #[error(
        "the storage's address holds no keys: they belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in the file AWS_SHARED_CREDENTIALS_FILE"
    )]
    Secret,
    /// A setting is not known, or has no such value.
    #[error(
        "the storage's address has no setting {0} of this kind: there are region, endpoint, public_endpoint and path_style=true|false"
    )]
    Setting(String),
    /// The prefix would have to be escaped.
    #[error("the storage's prefix may have letters, digits, '.', '_', '-' and '/' only")]
    Prefix,
}

/// What a bucket is opened with. Shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    key_id: String,
    secret_key: String,
    token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl FromStr for StorageSettings {
    type Err = BadStorage;

    fn from_str(text: &str) -> Result<Self, BadStorage> {
        if text.is_empty() {
            return Err(BadStorage::Unreadable);
        }
        if !text.starts_with("s3://") {
            return if text.contains("://") { Err(BadStorage::Unreadable) } else { Ok(Self::Folder(text.into())) };
        }
        let url = Url::parse(text).map_err(|_| BadStorage::Unreadable)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadStorage::Secret);
        }
        let mut bucket = S3Settings {
            bucket: url.host_str().filter(|host| !host.is_empty()).ok_or(BadStorage::Unreadable)?.to_owned(),
            prefix: url.path().trim_matches('/').to_owned(),
            ..S3Settings::default()
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if !bucket.prefix.chars().all(plain) || bucket.prefix.split('/').any(|part| part == "..") {
            return Err(BadStorage::Prefix);
        }
        for (name, value) in url.query_pairs() {
            bucket.set(&name, &value)?;
        }
        Ok(Self::S3(Box::new(bucket)))
    }
}

impl fmt::Display for StorageSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::S3(bucket) => {
                write!(f, "s3://{}/{}", bucket.bucket, bucket.prefix)?;
                bucket.endpoint.as_ref().map_or(Ok(()), |endpoint| write!(f, " at {endpoint}"))
            }
        }
    }
}

impl StorageSettings {
    /// The folder, when it is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::S3(_) => None,
        }
    }

    /// Opens it. A folder is made if need be; a bucket has to be there, and is not asked yet.
    ///
    /// # Errors
    /// The folder cannot be used, or the environment does not say with which credentials.
    pub fn open(&self) -> Result<ObjectStorage, StorageError> {
        match self {
            Self::Folder(folder) => ObjectStorage::local(folder),
            Self::S3(bucket) => bucket.open(Credentials::from_file()?),
        }
    }
}

impl S3Settings {
    /// Opens the bucket with these credentials, or with those that the environment names: `AWS_ACCESS_KEY_ID` and
    /// `AWS_SECRET_ACCESS_KEY`, else the identity of the container or the machine.
    ///
    /// # Errors
    /// The environment cannot be understood.
    pub fn open(&self, credentials: Option<Credentials>) -> Result<ObjectStorage, StorageError> {
        crate::agent::client::install_crypto();
        let prefixed = |store: AmazonS3| PrefixStore::new(store, Key::from(self.prefix.as_str()));
        let http = reqwest::Client::builder().read_timeout(SILENCE).build();
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        let public = self.public_endpoint.as_ref().or(self.endpoint.as_ref());
        let client = self.client(public, credentials.as_ref())?;
        Ok(ObjectStorage::bucket(Bucket {
            store: prefixed(self.client(self.endpoint.as_ref(), credentials.as_ref())?),
            keys: client.credentials().clone(),
            public: prefixed(client),
            root: format!("/{}/{}{slash}", self.bucket, self.prefix),
            http: http.map_err(|error| StorageError::Io(Box::new(error)))?,
            claims: None,
        }))
    }

    fn client(&self, endpoint: Option<&Url>, credentials: Option<&Credentials>) -> Result<AmazonS3, StorageError> {
        let plain = endpoint.is_some_and(|url| url.scheme() == "http");
        // A film may take longer to be read than any one answer should: silence is what ends a request.
        let client = ClientOptions::new().with_timeout_disabled().with_read_timeout(SILENCE).with_allow_http(plain);
        let mut builder = from_env()
            .with_client_options(client)
            .with_retry(RETRIES)
            .with_bucket_name(&self.bucket)
            .with_virtual_hosted_style_request(!self.path_style());
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(self.endpoint_of_bucket(endpoint));
        }
        if let Some(Credentials { key_id, secret_key, token }) = credentials {
            builder = builder.with_access_key_id(key_id).with_secret_access_key(secret_key);
            builder = token.iter().fold(builder, |builder, token| builder.with_token(token));
        }
        builder.build().map_err(errors::from_store)
    }

    /// Whether the bucket stands in the path of addresses, as it does with most stores but Amazon's own.
    fn path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }

    /// The address of the store or, where the bucket is part of the host's name, of the bucket.
    fn endpoint_of_bucket(&self, endpoint: &Url) -> String {
        let text = endpoint.as_str().trim_end_matches('/');
        match (self.path_style(), text.split_once("://")) {
            (false, Some((scheme, host))) => format!("{scheme}://{}.{host}", self.bucket),
            _ => text.to_owned(),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), BadStorage> {
        let wrong = || BadStorage::Setting(name.to_owned());
        let url = || {
            let url = Url::parse(value).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let url = url.filter(|url| url.username().is_empty() && url.password().is_none() && url.query().is_none());
            url.map(Some).ok_or_else(wrong)
        };
        match name {
            "region" => self.region = Some(value.to_owned()),
            "endpoint" => self.endpoint = url()?,
            "public_endpoint" => self.public_endpoint = url()?,
            "path_style" => self.path_style = Some(value.parse().map_err(|_| wrong())?),
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

/// What the environment says of Amazon's own settings, such as the keys. A variable that is empty says nothing.
fn from_env() -> AmazonS3Builder {
    std::env::vars_os().fold(AmazonS3Builder::new(), |builder, (name, value)| {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str().filter(|value| !value.is_empty())) else {
            return builder;
        };
        match name.starts_with("AWS_").then(|| name.to_ascii_lowercase().parse()) {
            Some(Ok(key)) => builder.with_config(key, value),
            _ => builder,
        }
    })
}

impl Credentials {
    /// A key and its secret.
    pub fn new(key_id: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self { key_id: key_id.into(), secret_key: secret_key.into(), token: None }
    }

    /// Those in the file `AWS_SHARED_CREDENTIALS_FILE`, in the part `AWS_PROFILE` or `default`; none without such a file.
    fn from_file() -> Result<Option<Self>, StorageError> {
        let path = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE").filter(|path| !path.is_empty());
        let Some(path) = path else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(errors::from_io)?;
        let profile = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
        let missing = || StorageError::Io("the file AWS_SHARED_CREDENTIALS_FILE holds no such key".into());
        Self::in_profile(&text, &profile).map(Some).ok_or_else(missing)
    }

    fn in_profile(text: &str, profile: &str) -> Option<Self> {
        let header = format!("[{profile}]");
        let lines = text.lines().map(str::trim).skip_while(|line| *line != header).skip(1);
        let pairs = lines.take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once('='));
        let mut values: HashMap<_, _> = pairs.map(|(name, value)| (name.trim(), value.trim().to_owned())).collect();
        let (key_id, secret_key) = (values.remove("aws_access_key_id")?, values.remove("aws_secret_access_key")?);
        Some(Self { key_id, secret_key, token: values.remove("aws_session_token") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(text: &str) -> S3Settings {
        match text.parse() {
            Ok(StorageSettings::S3(bucket)) => *bucket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_folder_and_a_bucket_are_told_apart() {
        let folder = "/var/lib/flatrender/storage".parse::<StorageSettings>().unwrap();
        assert_eq!(folder.folder(), Some(Path::new("/var/lib/flatrender/storage")));
        let bucket = s3("s3://films/eu/one?region=eu-west-1&endpoint=http://127.0.0.1:9000");
        assert_eq!((bucket.bucket.as_str(), bucket.prefix.as_str()), ("films", "eu/one"));
        assert_eq!(bucket.region.as_deref(), Some("eu-west-1"));
        assert_eq!(StorageSettings::S3(Box::new(bucket)).to_string(), "s3://films/eu/one at http://127.0.0.1:9000/");
    }

    #[test]
    fn the_bucket_is_in_the_host_or_in_the_path() {
        let address = |text: &str| {
            let bucket = s3(text);
            bucket.endpoint_of_bucket(bucket.endpoint.as_ref().unwrap())
        };
        assert_eq!(address("s3://films?endpoint=https://s3.example.com"), "https://s3.example.com");
        assert_eq!(
            address("s3://films?endpoint=https://s3.example.com/&path_style=false"),
            "https://films.s3.example.com"
        );
        assert!(!s3("s3://films?region=eu-west-1").path_style());
    }

    #[test]
    fn what_cannot_be_a_storage_is_refused_without_being_repeated() {
        let refused = |text: &str| text.parse::<StorageSettings>().unwrap_err();
        assert_eq!(refused("s3://AKIA:hunter2@films/"), BadStorage::Secret);
        assert_eq!(refused("s3://films?secret_key=hunter2"), BadStorage::Setting("secret_key".into()));
        assert_eq!(
            refused("s3://films?endpoint=https://me:hunter2@s3.example.com"),
            BadStorage::Setting("endpoint".into())
        );
        assert_eq!(refused("s3://films?path_style=maybe"), BadStorage::Setting("path_style".into()));
        assert_eq!(refused("s3://films/a%20b"), BadStorage::Prefix);
        for text in ["", "s3://", "s3:///films", "gs://films", "https://films"] {
            assert_eq!(refused(text), BadStorage::Unreadable, "{text}");
        }
        assert!(!format!("{:?}", Credentials::new("AKIA", "hunter2")).contains("hunter2"));
    }

    #[test]
    fn credentials_are_read_from_the_profile_that_was_named() {
        let text = "[default]\naws_access_key_id = A\naws_secret_access_key = a=b\n\n[films]\naws_access_key_id=B\n\
                    aws_secret_access_key=b\naws_session_token=t\n";
        assert_eq!(Credentials::in_profile(text, "default"), Some(Credentials::new("A", "a=b")));
        let films = Credentials { token: Some("t".into()), ..Credentials::new("B", "b") };
        assert_eq!(Credentials::in_profile(text, "films"), Some(films));
        assert_eq!(Credentials::in_profile(text, "others"), None);
    }
}
