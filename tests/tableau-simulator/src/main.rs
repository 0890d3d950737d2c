//! The simulator as a program.

use std::net::Ipv4Addr;

use clap::Parser;
use tableau_simulator::server::Simulator;
use tokio::net::TcpListener;
use url::Url;

/// A Tableau server for tests of webhooks and extract refreshes, on a loopback port.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Port to listen on; a free one if 0.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Server for all deliveries, with the destination's name in the Host header. It replaces name resolution and TLS.
    #[arg(long, value_name = "URL")]
    deliver_through: Option<Url>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { port, deliver_through } = Arguments::parse();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("http://{}", listener.local_addr()?);
    Simulator::new(deliver_through)?.serve(listener).await?;
    Ok(())
}
