//! Workbooks and data sources: their projects, owners, tags and refresh tasks.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    control::{NewContent, NewOwner},
    model::{Job, OddDetail, RefreshKind, RefreshOutcome, Site},
    refusal::{INTERNAL, Refusal},
    rest::{Reply, write_list},
};

/// The failures in a row after which Tableau suspends a task.
pub const FAILURES_UNTIL_SUSPENSION: usize = 5;

/// Content of a site. A resource that was refreshed and not declared has the default project and owner.
#[derive(Debug)]
pub struct Catalog {
    /// The declared content.
    pub declared: Vec<Content>,
    /// The default project.
    pub project: Project,
    /// The default owner.
    pub owner: User,
}

/// A workbook or a data source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its kind.
    pub kind: RefreshKind,
    /// Its identifier.
    pub luid: String,
    /// Its name.
    pub name: String,
    /// The project that it is in.
    pub project: Project,
    /// Its owner.
    pub owner: User,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether it was deleted. Its jobs are still listed.
    pub is_deleted: bool,
    /// The job after which its task was resumed. Only later failures count.
    pub resumed_after: Option<String>,
}

/// A project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its identifier.
    pub id: String,
    /// The name with which it signs in to Tableau Server. On Tableau Cloud that is the e-mail address.
    pub name: String,
    /// The name that people see.
    pub full_name: String,
    /// Its e-mail address.
    pub email: String,
}

/// How content, users and tasks deviate from the newest documentation, which is that of Tableau Cloud.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContentOddities {
    /// The site is on Tableau Server: a user's name is no e-mail address, and a schedule has an identifier, a name and a state.
    pub on_server: bool,
    /// On Tableau Server, the schedule is suspended.
    pub schedule_suspended: bool,
    /// This many calls for content, users and tasks are answered, then `too_many_requests` are not.
    pub answered_before: usize,
    /// This many calls for content, users and tasks are answered with 429.
    pub too_many_requests: usize,
    /// Name of the resource that `resource` applies to; every resource if not set.
    pub only: Option<String>,
    /// The answer to a call for a workbook or data source, instead of it.
    pub resource: Option<OddDetail>,
    /// The answer to a call for a user, instead of the user.
    pub user: Option<OddDetail>,
    /// The answer to a call for the tasks, instead of the list.
    pub tasks: Option<OddDetail>,
    /// Names of members that are left out wherever they occur.
    pub missing: Vec<String>,
    /// The `webpageUrl` of all content.
    pub webpage_url: Option<String>,
    /// The list of tasks is `{"tasks":[…]}`.
    pub bare_list: bool,
    /// `consecutiveFailedCount` is a text.
    pub counts_as_text: bool,
    /// Rows of any JSON at the beginning of the list of tasks.
    pub odd_tasks: Vec<Value>,
    /// The tasks of this many other workbooks come before the own ones.
    pub other_tasks: usize,
}

impl Default for Catalog {
    fn default() -> Self {
        let [project, owner] = [(); 2].map(|()| Uuid::new_v4().to_string());
        Self {
            declared: Vec::new(),
            project: Project { id: project, name: "Default".to_owned() },
            owner: User {
                id: owner,
                name: "ada".to_owned(),
                full_name: "Ada Lovelace".to_owned(),
                email: "ada@example.com".to_owned(),
            },
        }
    }
}

impl Content {
    /// Returns the path of its page, below that of the server.
    pub fn path(&self, site: &str) -> String {
        let mut hasher = DefaultHasher::new();
        self.luid.hash(&mut hasher);
        let number = hasher.finish() % 1_000_000;
        let site = site_path(site);
        match self.kind {
            RefreshKind::Datasource => format!("{site}/datasources/{number}"),
            RefreshKind::Workbook => format!("{site}/workbooks/{number}/views"),
        }
    }
}

/// Returns the path of a site's pages. That of the Default site of a server is empty.
pub(crate) fn site_path(site: &str) -> String {
    if site.is_empty() { String::new() } else { format!("/site/{site}") }
}

impl Site {
    /// Returns all content that was not deleted: the declared, and each other resource that was refreshed.
    pub fn content(&self) -> Vec<Content> {
        let mut all = self.catalog.declared.clone();
        for job in self.jobs.iter().rev() {
            if !all.iter().any(|content| content.kind == job.kind && content.luid == job.luid) {
                all.push(self.new_content(job.kind, &job.name, &job.luid));
            }
        }
        all.retain(|content| !content.is_deleted);
        all
    }

    /// Returns content with the default project and owner.
    pub(crate) fn new_content(&self, kind: RefreshKind, name: &str, luid: &str) -> Content {
        let Catalog { project, owner, .. } = &self.catalog;
        Content {
            kind,
            luid: luid.to_owned(),
            name: name.to_owned(),
            project: project.clone(),
            owner: owner.clone(),
            tags: Vec::new(),
            is_deleted: false,
            resumed_after: None,
        }
    }

    /// Declares all content of this kind and name that is not yet declared. Returns it, to be changed.
    pub(crate) fn declare(&mut self, kind: RefreshKind, name: &str) -> impl Iterator<Item = &mut Content> {
        let is_named = move |content: &Content| content.kind == kind && content.name == name;
        let all = self.content().into_iter().filter(|content| is_named(content));
        let new: Vec<_> = all.filter(|content| !self.catalog.declared.contains(content)).collect();
        self.catalog.declared.extend(new);
        self.catalog.declared.iter_mut().filter(move |content| is_named(content) && !content.is_deleted)
    }

    /// Sets the project, owner and tags of content. Creates it if there is none.
    pub(crate) fn set_content(&mut self, new: NewContent) {
        let NewContent { site: _, kind, name, project, owner, tags } = new;
        if self.declare(kind, &name).next().is_none() {
            let content = self.new_content(kind, &name, &Uuid::new_v4().to_string());
            self.catalog.declared.push(content);
        }
        let new_id = || Uuid::new_v4().to_string();
        let all = self.content();
        let project = project.map_or(self.catalog.project.clone(), |name| {
            let mut known = all.iter().map(|content| &content.project);
            let known = known.find(|project| project.name == name).map(|project| project.id.clone());
            Project { id: known.unwrap_or_else(new_id), name }
        });
        let owner = owner.map_or(self.catalog.owner.clone(), |NewOwner { name, full_name, email }| {
            let mut known = all.iter().map(|content| &content.owner);
            let known = known.find(|user| user.name == name).map(|user| user.id.clone());
            User { id: known.unwrap_or_else(new_id), name, full_name, email }
        });
        for content in self.declare(kind, &name) {
            (content.project, content.owner, content.tags) = (project.clone(), owner.clone(), tags.clone());
        }
    }

    /// Resumes the task of a resource, whose earlier failures then no longer count. Returns the number of resumed tasks.
    pub(crate) fn resume(&mut self, kind: RefreshKind, name: &str) -> usize {
        let last_job = |site: &Self, content: &Content| site.jobs_of(content).last().map(|job| job.id.clone());
        let content = self.content();
        let last: BTreeMap<_, _> = content.iter().map(|it| (it.luid.clone(), last_job(self, it))).collect();
        self.declare(kind, name)
            .map(|content| content.resumed_after = last.get(&content.luid).cloned().flatten())
            .count()
    }

    /// Returns the refreshes of a resource in the order of their ends.
    pub(crate) fn jobs_of(&self, content: &Content) -> Vec<&Job> {
        let is_its = |job: &&Job| job.kind == content.kind && job.luid == content.luid;
        let mut jobs: Vec<_> = self.jobs.iter().filter(is_its).collect();
        jobs.sort_by_key(|job| job.ended_at);
        jobs
    }

    /// Returns the failures in a row of a resource's task: since the last success, or since the task was resumed.
    pub fn failures_in_a_row(&self, content: &Content) -> usize {
        let jobs = self.jobs_of(content);
        let is_later = |job: &&&Job| content.resumed_after.as_ref() != Some(&job.id);
        let later = jobs.iter().rev().take_while(is_later);
        let counted = later.take_while(|job| job.outcome != RefreshOutcome::Succeeded);
        counted.filter(|job| job.outcome == RefreshOutcome::Failed).count()
    }

    /// Returns the failures in a row of the task of a resource of this kind and name.
    pub(crate) fn failures(&self, kind: RefreshKind, name: &str) -> usize {
        let content = self.content();
        let named = content.iter().filter(|content| content.kind == kind && content.name == name);
        named.map(|content| self.failures_in_a_row(content)).max().unwrap_or_default()
    }

    /// Whether Tableau suspended the task of a resource of this kind and name.
    pub fn is_suspended(&self, kind: RefreshKind, name: &str) -> bool {
        self.failures(kind, name) >= FAILURES_UNTIL_SUSPENSION
    }
}

const NO_SUCH_USER: Refusal = Refusal::new(404, 404_002, "Resource Not Found", "The user could not be found.");
const NO_SUCH_DATASOURCE: Refusal =
    Refusal::new(404, 404_004, "Resource Not Found", "The data source could not be found.");
const NO_SUCH_WORKBOOK: Refusal = Refusal::new(404, 404_006, "Resource Not Found", "The workbook could not be found.");
const FORBIDDEN: Refusal = Refusal::new(403, 403_004, "Forbidden", "It may not be read.");
const NOT_QUERYABLE: Refusal = Refusal::new(400, 400_031, "Bad Request", "There was a problem querying it.");

/// Answers instead of a member of this name, which might also not be found.
pub(crate) fn odd_answer(detail: OddDetail, member: &str, not_found: Refusal) -> Result<Reply, Refusal> {
    match detail {
        OddDetail::NotQueryable => Err(NOT_QUERYABLE),
        OddDetail::Forbidden => Err(FORBIDDEN),
        OddDetail::NotFound => Err(not_found),
        OddDetail::ServerError => Err(INTERNAL),
        OddDetail::Page => Ok(Reply::Page),
        OddDetail::NotFoundPage => Err(not_found.in_html()),
        OddDetail::Xml => Ok(Reply::Xml),
        OddDetail::Null => Ok(Reply::Body(200, json!({ member: null }))),
        OddDetail::Broken => Ok(Reply::Broken),
    }
}

/// Returns a workbook or data source. `host` is the server's, by which the client knows it.
pub(crate) fn get(site: &Site, kind: RefreshKind, id: &str, host: &str) -> Result<Reply, Refusal> {
    let (member, not_found) = match kind {
        RefreshKind::Datasource => ("datasource", NO_SUCH_DATASOURCE),
        RefreshKind::Workbook => ("workbook", NO_SUCH_WORKBOOK),
    };
    let all = site.content();
    let is_it = |content: &&Content| content.kind == kind && content.luid == id;
    let Some(content) = all.iter().find(is_it) else { return Err(not_found) };
    let oddities = &site.oddities.content;
    let applies = oddities.only.as_ref().is_none_or(|name| *name == content.name);
    if let Some(detail) = oddities.resource.filter(|_| applies) {
        return odd_answer(detail, member, not_found);
    }
    let Content { luid, name, project, owner, tags, .. } = content;
    let webpage_url =
        oddities.webpage_url.clone().unwrap_or_else(|| format!("http://{host}/#{}", content.path(&site.content_url)));
    let mut shown_tags = Map::new();
    let tags = tags.iter().map(|tag| json!({ "label": tag })).collect();
    write_list(&mut shown_tags, ["tags", "tag"], tags, &site.oddities);
    let mut answer = json!({
        "id": luid,
        "name": name,
        "contentUrl": name.replace(|character: char| !character.is_alphanumeric(), ""),
        "webpageUrl": webpage_url,
        "createdAt": "2026-01-05T08:00:00Z",
        "updatedAt": "2026-01-05T08:00:00Z",
        "project": { "id": project.id, "name": project.name },
        "owner": { "id": owner.id },
    });
    answer.as_object_mut().into_iter().for_each(|answer| answer.append(&mut shown_tags));
    Ok(body(json!({ member: answer }), oddities))
}

/// Returns a user.
pub(crate) fn user(site: &Site, id: &str) -> Result<Reply, Refusal> {
    let oddities = &site.oddities.content;
    if let Some(detail) = oddities.user {
        return odd_answer(detail, "user", NO_SUCH_USER);
    }
    let content = site.content();
    let mut users = content.iter().map(|content| &content.owner).chain([&site.catalog.owner]);
    let User { id, name, full_name, email } = users.find(|user| user.id == id).ok_or(NO_SUCH_USER)?;
    let name = if oddities.on_server { name } else { email };
    let user = json!({ "id": id, "name": name, "fullName": full_name, "email": email, "siteRole": "Creator" });
    Ok(body(json!({ "user": user }), oddities))
}

/// Returns an answer without the members that are to be missing.
pub(crate) fn body(mut answer: Value, oddities: &ContentOddities) -> Reply {
    if !oddities.missing.is_empty() {
        remove(&mut answer, &oddities.missing);
    }
    Reply::Body(200, answer)
}

fn remove(answer: &mut Value, missing: &[String]) {
    match answer {
        Value::Array(items) => items.iter_mut().for_each(|item| remove(item, missing)),
        Value::Object(members) => {
            remove_members(members, missing);
            members.values_mut().for_each(|value| remove(value, missing));
        }
        _ => {}
    }
}

fn remove_members(members: &mut Map<String, Value>, missing: &[String]) {
    members.retain(|name, _| !missing.contains(name));
}
