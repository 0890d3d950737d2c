//! TLS for tests: a certificate authority, servers with its certificates, and a proxy.

use std::{io, net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A certificate authority that is in no trust store yet.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Creates one.
    ///
    /// # Errors
    ///
    /// No key can be generated.
    pub fn new() -> anyhow::Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Differs from the name in its certificates, or OpenSSL takes these for self-signed.
        authority.distinguished_name.push(DnType::CommonName, "Authority of a test");
        Ok(Self(CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?))
    }

    /// Returns its certificate, for a trust store.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Listens on a free loopback port, with a certificate for a name.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub async fn listen(&self, name: &str) -> anyhow::Result<TlsListener> {
        self.listen_as(&[name]).await
    }

    /// Listens with a certificate for several names.
    ///
    /// # Errors
    ///
    /// As [`Authority::listen`].
    pub async fn listen_as(&self, names: &[&str]) -> anyhow::Result<TlsListener> {
        // An error means that the process already has a provider, which will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names.iter().copied().map(str::to_owned).collect::<Vec<_>>())?
            .signed_by(&key, &self.0)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(TlsListener { tcp: TcpListener::bind("127.0.0.1:0").await?, tls: Arc::new(config).into() })
    }
}

/// Connections over TLS.
pub struct TlsListener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.tcp).await;
            // A client that does not trust the certificate breaks off. Answers are sent without delay.
            if stream.set_nodelay(true).is_ok()
                && let Ok(stream) = self.tls.accept(stream).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A proxy that connects every name to one server. Dropping this ends it.
#[derive(Debug)]
pub struct Proxy {
    /// Its address.
    pub address: SocketAddr,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Proxy {
    /// Starts a proxy on a free loopback port.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub async fn to(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await?;
                tokio::spawn(relay(client, server));
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Handles a `CONNECT`.
async fn relay(client: TcpStream, server: SocketAddr) -> anyhow::Result<()> {
    let mut client = BufReader::new(client);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        let read = client.read_line(&mut request).await?;
        anyhow::ensure!(read > 0, "the request is incomplete");
    }
    request.strip_prefix("CONNECT ").context("the request is no CONNECT")?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut TcpStream::connect(server).await?).await?;
    Ok(())
}
