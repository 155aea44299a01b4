use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// A CA that nobody trusts unless told to.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// Accepts TLS and passes what is inside on to a plain address. Its connections end when it is dropped.
pub(crate) struct TlsProxy {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Its certificate, as in MASTER_CA_FILE.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    fn server(&self, host: &str) -> Result<ServerConfig> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![host.to_owned()])?.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let config = ServerConfig::builder().with_no_client_auth();
        config.with_single_cert(vec![certificate.der().clone()], key).context("use the certificate")
    }
}

impl TlsProxy {
    /// A proxy in front of `target`, with a certificate for `host`.
    pub(crate) fn start(authority: &Authority, host: &str, target: &str) -> Result<Self> {
        let acceptor = TlsAcceptor::from(Arc::new(authority.server(host)?));
        let target: SocketAddr = target.trim_start_matches("http://").parse()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (outside, _) = listener.accept().await?;
                tokio::spawn(pass_on(acceptor.clone(), outside, target));
            }
            #[expect(unreachable_code, reason = "names the type of `?`")]
            std::io::Result::Ok(())
        });
        Ok(Self { address, _runtime: runtime })
    }

    /// Its address by a name that leads to this machine.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("https://{name}:{}", self.address.port())
    }
}

async fn pass_on(acceptor: TlsAcceptor, outside: TcpStream, target: SocketAddr) -> std::io::Result<()> {
    // A client that does not trust us hangs up here.
    let mut outside = acceptor.accept(outside).await?;
    let mut inside = TcpStream::connect(target).await?;
    copy_bidirectional(&mut outside, &mut inside).await.map(drop)
}
