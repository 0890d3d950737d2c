//! The simulator as a program of its own.

use std::net::Ipv4Addr;

use clap::Parser;
use tableau_simulator::server::Simulator;
use tokio::net::TcpListener;
use url::Url;

/// A Tableau server as far as webhooks go, on a loopback port.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Port to answer on; a free one if 0.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Where all deliveries go, under the destination's own name in the Host header: a stand-in for the name service
    /// and the TLS end of the internet.
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
