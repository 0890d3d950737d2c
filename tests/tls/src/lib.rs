//! A server whose certificate an authority of a test's own signed, and a proxy to get there.

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

/// An authority that nobody trusts yet.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// There is no randomness.
    pub fn new() -> anyhow::Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another name than that of its certificates, or OpenSSL takes these for self-signed.
        authority.distinguished_name.push(DnType::CommonName, "Authority of a test");
        Ok(Self(CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?))
    }

    /// Its certificate, which is what there is to trust.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Takes connections on a free loopback port, under a name that it vouches for.
    ///
    /// # Errors
    ///
    /// No port can be had.
    pub async fn listen(&self, name: &str) -> anyhow::Result<TlsListener> {
        self.listen_as(&[name]).await
    }

    /// Takes connections under several names.
    ///
    /// # Errors
    ///
    /// As [`Authority::listen`].
    pub async fn listen_as(&self, names: &[&str]) -> anyhow::Result<TlsListener> {
        // An error says that the process has a provider already, which is as good.
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
            // Who does not trust us breaks off, and another may come. What we answer goes out at once.
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

/// A proxy that knows one server, by whatever name it is asked for. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it answers.
    pub address: SocketAddr,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Proxy {
    /// Starts one on a free loopback port.
    ///
    /// # Errors
    ///
    /// No port can be had.
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

/// What a proxy does for a `CONNECT`.
async fn relay(client: TcpStream, server: SocketAddr) -> anyhow::Result<()> {
    let mut client = BufReader::new(client);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        let read = client.read_line(&mut request).await?;
        anyhow::ensure!(read > 0, "the request ends in its middle");
    }
    request.strip_prefix("CONNECT ").context("a proxy for TLS is asked to connect")?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut TcpStream::connect(server).await?).await?;
    Ok(())
}
