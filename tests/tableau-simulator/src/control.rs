//! What no Tableau server has: calls that make sites, let events happen and switch oddities on.

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post, put},
};
use serde::{Deserialize, Serialize};
use shared::event::Event;

use crate::{
    delivery::Delivery,
    model::{Oddities, Webhook},
    server::Simulator,
};

/// `POST /_simulator/sites`: makes a site with one administrator's token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSite {
    /// The site's contentUrl.
    pub site: String,
    /// Name of the token.
    pub token_name: String,
    /// Secret of the token.
    pub token_secret: String,
}

/// `POST /_simulator/events`: lets an event happen. The answer is a list of [`Delivery`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    /// The site's contentUrl.
    pub site: String,
    /// The event.
    pub event: String,
    /// What is delivered, byte for byte.
    pub body: String,
    /// How often it is delivered: Tableau repeats itself now and then. Once if not set.
    #[serde(default = "once")]
    pub times: usize,
}

/// `PUT /_simulator/oddities`: switches a site's oddities.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOddities {
    /// The site's contentUrl.
    pub site: String,
    /// All its oddities; those not named are off.
    pub oddities: Oddities,
}

fn once() -> usize {
    1
}

type Refused = (StatusCode, String);

pub(crate) fn router() -> Router<Simulator> {
    Router::new()
        .route("/_simulator/sites", post(add_site))
        .route("/_simulator/events", post(fire))
        .route("/_simulator/oddities", put(set_oddities))
        .route("/_simulator/webhooks", get(webhooks))
}

async fn add_site(State(simulator): State<Simulator>, Json(site): Json<NewSite>) -> StatusCode {
    simulator.world().add_site(&site.site, &site.token_name, &site.token_secret);
    StatusCode::CREATED
}

async fn fire(State(simulator): State<Simulator>, Json(new): Json<NewEvent>) -> Result<Json<Vec<Delivery>>, Refused> {
    let event: Event = new.event.parse().map_err(|error| (StatusCode::BAD_REQUEST, format!("event: {error}")))?;
    if !simulator.world().sites.contains_key(&new.site) {
        return Err(no_such_site(&new.site));
    }
    Ok(Json(simulator.fire(&new.site, &event, &new.body, new.times).await))
}

async fn set_oddities(State(simulator): State<Simulator>, Json(new): Json<NewOddities>) -> Result<StatusCode, Refused> {
    let mut world = simulator.world();
    let site = world.sites.get_mut(&new.site).ok_or_else(|| no_such_site(&new.site))?;
    site.oddities = new.oddities;
    Ok(StatusCode::NO_CONTENT)
}

async fn webhooks(State(simulator): State<Simulator>) -> Json<Vec<(String, Vec<Webhook>)>> {
    let world = simulator.world();
    Json(world.sites.iter().map(|(name, site)| (name.clone(), site.webhooks.clone())).collect())
}

fn no_such_site(name: &str) -> Refused {
    (StatusCode::NOT_FOUND, format!("there is no site {name:?}"))
}
