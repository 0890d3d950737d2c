//! Pages that people see in a browser: a workbook, a data source, and the refresh tasks of a site.
//!
//! The addresses are those of Tableau's web interface, such as `/#/site/marketing/workbooks/17/views`. A browser keeps the part
//! from `#` to itself, so the page at `/` opens the page at that path. A client without scripts opens the path itself.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri},
    response::{Html, IntoResponse, Response},
    routing::get,
};

use crate::{
    content::{Content, FAILURES_UNTIL_SUSPENSION, site_path},
    jobs::format_time,
    model::Site,
    server::Simulator,
    tasks::next_run,
};

const ROOT: &str = "<!DOCTYPE html>\n<html><body><h1>Tableau</h1>\
                    <script>if (location.hash) location.replace(location.hash.slice(1))</script></body></html>";

pub(crate) fn router() -> Router<Simulator> {
    let paths = ["/site/{*page}", "/workbooks/{*page}", "/datasources/{*page}", "/tasks/extractRefreshes"];
    let router = Router::new().route("/", get(async || Html(ROOT)));
    paths.into_iter().fold(router, |router, path| router.route(path, get(page)))
}

async fn page(State(simulator): State<Simulator>, uri: Uri) -> Response {
    let world = simulator.world();
    for (content_url, site) in &world.sites {
        let start = site_path(content_url);
        if uri.path() == format!("{start}/tasks/extractRefreshes") {
            return Html(tasks_page(site)).into_response();
        }
        if let Some(content) = site.content().iter().find(|content| content.path(content_url) == uri.path()) {
            return Html(content_page(site, content)).into_response();
        }
    }
    (StatusCode::NOT_FOUND, Html("<!DOCTYPE html>\n<html><body><h1>Page not found</h1></body></html>")).into_response()
}

fn content_page(site: &Site, content: &Content) -> String {
    let Content { name, project, owner, tags, .. } = content;
    let tags: Vec<_> = tags.iter().map(|tag| escape(tag)).collect();
    let (name, project, owner) = (escape(name), escape(&project.name), escape(&owner.full_name));
    let tasks = format!("/#{}/tasks/extractRefreshes", site_path(&site.content_url));
    format!(
        "<!DOCTYPE html>\n<html><body><h1>{name}</h1><p>Project {project}, owner {owner}, tags: {}</p>\
         <p><a href=\"{tasks}\">Extract refreshes</a></p></body></html>",
        tags.join(", ")
    )
}

fn tasks_page(site: &Site) -> String {
    let clock = time::Duration::seconds(site.oddities.jobs.clock_offset_seconds);
    let row = |content: &Content| {
        let failures = site.failures_in_a_row(content);
        let next = if failures >= FAILURES_UNTIL_SUSPENSION {
            "suspended".to_owned()
        } else {
            format_time(next_run(site, content), clock)
        };
        format!("<tr><td>{}</td><td>{failures}</td><td>{next}</td></tr>", escape(&content.name))
    };
    let rows: String = site.content().iter().map(row).collect();
    format!(
        "<!DOCTYPE html>\n<html><body><h1>Extract refreshes</h1><table><tr><th>Name</th><th>Failures in a row</th>\
         <th>Next run</th></tr>{rows}</table></body></html>"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
